//! A server that stays root and acts for one user after the other (`follow: effective`): what it
//! sends over a connection that it accepted as root is that user's.

use std::thread::sleep;
use std::time::Duration;

use crate::support::accounts::{ANN, BOB, CAROL, ROOT};
use crate::support::actor::Actor;
use crate::support::clock::soon;
use crate::support::daemon::Daemon;
use crate::support::harness::{On, tests};
use crate::support::orders::{Acting, Order, SocketId};
use crate::support::program::{apply, classid, directory, members, policy, shaper};
use crate::support::rates::{self, MBIT};
use crate::support::unit::Unit;
use crate::support::world::{Family, UPLINK, World};

tests!(
    On::HostEvents => the_daemon_follows_whom_a_server_acts_for, who_shares_a_server_is_kept_apart,
        a_server_that_flips_is_its_users;
    On::Host => an_apply_follows_whom_a_server_acts_for;
);

/// At most so long after the system call a process is in its user's class; a millisecond or two on
/// a calm machine.
const HOLDS: Duration = Duration::from_secs(5);

fn text(unit: &Unit) -> String {
    format!(
        "
version: 1
links: {{up0: {{rate: 100mbit, default: {{rate: 5mbit, ceil: 50mbit}}}}}}
users:
  ann: 10mbit
  bob: 20mbit
  files: {{ceil: 40mbit, units: [{}], follow: effective}}
everyone: 5mbit
",
        unit.name
    )
}

/// A server of root's in the unit, and its listener.
struct Server {
    actor: Actor,
    listener: SocketId,
    port: u16,
}

impl Server {
    fn start(world: &World, unit: &Unit, port: u16) -> Server {
        let mut actor = world.actor(ROOT);
        unit.take(actor.pid());
        let listener = actor.socket(&Order::Listen(world.host_at(Family::V4, port)));
        Server { actor, listener, port }
    }

    /// Accepts a connection from afar, over which it sends from now on.
    fn accept(&mut self, world: &mut World) -> SocketId {
        let to = world.host_at(Family::V4, self.port);
        let far = world.far.connect(to);
        world.far.tell(&Order::Drain { socket: far, port: self.port });
        let socket = self.actor.socket(&Order::Accept(self.listener));
        self.actor.pour(socket);
        socket
    }

    /// As root first, as who is somebody else has to.
    fn act(&mut self, uid: u32) {
        self.act_by(0, Acting::Effective);
        self.act_by(uid, Acting::Effective);
    }

    fn act_by(&mut self, uid: u32, by: Acting) {
        self.actor.tell(&Order::Act { uid, by });
    }

    fn is_in(&self, claim: &str) -> bool {
        directory(claim).exists() && members(claim).contains(&self.actor.pid())
    }

    #[track_caller]
    fn comes_into(&self, claim: &str) {
        let took = soon(&format!("the server is in {claim}"), HOLDS, || self.is_in(claim));
        println!("in {claim} after {took:?}");
    }
}

/// These classes send at these rates, and no other sends anything.
#[track_caller]
fn send(expected: &[(&str, u64)]) {
    // What was queued in another class leaves first.
    sleep(Duration::from_millis(400));
    let classes: Vec<String> = expected.iter().map(|(claim, _)| classid(claim)).collect();
    let each: Vec<[&str; 1]> = classes.iter().map(|class| [class.as_str()]).collect();
    let rates = each.iter().zip(expected).map(|(class, (_, mbit))| (&class[..], mbit * MBIT, 15));
    let rates: Vec<rates::Expected<'_>> = rates.collect();
    let sent = rates::expect(UPLINK, Duration::from_millis(600), &rates);
    sent.others_stay_below(30_000, &each.concat());
}

fn the_daemon_follows_whom_a_server_acts_for() {
    let (mut world, unit) = (World::new(), Unit::new());
    let daemon = Daemon::with_events(&["watch", &policy(&text(&unit))]);
    let mut server = Server::start(&world, &unit, 4450);
    server.accept(&mut world);
    server.act(ANN.uid);
    server.comes_into("user/ann");
    send(&[("user/ann", 10)]);
    // Root for a moment, or for longer.
    server.act(0);
    send(&[("user/ann", 10)]);
    let why = shaper(&[
        "--cgroup",
        "shaper",
        "why",
        "--file",
        &policy(&text(&unit)),
        &server.actor.pid().to_string(),
    ]);
    let why = why.exits(0).stdout;
    assert!(why.contains("users.ann") && why.contains("stays with its last user"), "{why}");
    // Its user is another one now, and so is the connection's. By the real uid too, and back.
    server.act(BOB.uid);
    server.comes_into("user/bob");
    send(&[("user/bob", 20)]);
    for (user, claim, mbit) in [(ANN, "user/ann", 10), (BOB, "user/bob", 20)] {
        server.act_by(0, Acting::RealToo);
        server.act_by(user.uid, Acting::RealToo);
        server.comes_into(claim);
        send(&[(claim, mbit)]);
    }
    server.act_by(0, Acting::RealToo);
    // By the file system's uid alone, and an account that has no class yet.
    server.act_by(CAROL.uid, Acting::ForFiles);
    let hers = format!("uid/{}", CAROL.uid);
    soon("carol has a class", Duration::from_secs(5), || server.is_in(&hers));
    send(&[(&hers, 5)]);
    server.act_by(0, Acting::ForFiles);
    // Whom nobody claims is the unit's.
    server.act(33);
    server.comes_into("user/files");
    send(&[("user/files", 40)]);
    assert!(daemon.end().success());
}

/// Each connection stays the user's for whom it was accepted, in one process as in two.
fn who_shares_a_server_is_kept_apart() {
    let (mut world, unit) = (World::new(), Unit::new());
    let daemon = Daemon::with_events(&["watch", &policy(&text(&unit))]);
    let mut server = Server::start(&world, &unit, 4450);
    for (user, claim) in [(ANN, "user/ann"), (BOB, "user/bob")] {
        server.act(0);
        server.accept(&mut world);
        server.act(user.uid);
        server.comes_into(claim);
    }
    send(&[("user/ann", 10), ("user/bob", 20)]);
    server.act(ANN.uid);
    server.comes_into("user/ann");
    send(&[("user/ann", 10), ("user/bob", 20)]);
    let mut other = Server::start(&world, &unit, 4451);
    other.accept(&mut world);
    other.act(CAROL.uid);
    send(&[("user/ann", 10), ("user/bob", 20), (&format!("uid/{}", CAROL.uid), 5)]);
    assert!(daemon.end().success());
}

/// It is root whenever the daemon looks: smbd and its like become root between two requests.
fn a_server_that_flips_is_its_users() {
    let (mut world, unit) = (World::new(), Unit::new());
    let daemon = Daemon::with_events(&["watch", &policy(&text(&unit))]);
    let mut server = Server::start(&world, &unit, 4450);
    server.accept(&mut world);
    server.actor.tell(&Order::Flip { uid: ANN.uid, times: 1, rest_us: 0 });
    server.comes_into("user/ann");
    send(&[("user/ann", 10)]);
    server.actor.tell(&Order::Flip { uid: BOB.uid, times: 200, rest_us: 500 });
    server.comes_into("user/bob");
    send(&[("user/bob", 20)]);
    assert!(daemon.end().success());
}

pub fn an_apply_follows_whom_a_server_acts_for() {
    let (mut world, unit) = (World::new(), Unit::new());
    let text = text(&unit);
    let mut server = Server::start(&world, &unit, 4450);
    server.accept(&mut world);
    apply(&text);
    send(&[("user/files", 40)]);
    server.act(ANN.uid);
    apply(&text);
    send(&[("user/ann", 10)]);
    server.act(0);
    apply(&text);
    send(&[("user/ann", 10)]);
    server.act(CAROL.uid);
    apply(&text);
    let hers = format!("uid/{}", CAROL.uid);
    send(&[(&hers, 5)]);
    // Her class stays while the server is hers, though it is root.
    server.act(0);
    assert!(apply(&text).stdout.contains("in sync"));
    send(&[(&hers, 5)]);
    server.act(BOB.uid);
    apply(&text);
    send(&[("user/bob", 20)]);
}

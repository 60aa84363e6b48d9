//! Without `net_cls`: the processes of units are known by the cgroup (v2) of their sockets.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::processes::all_passes_through;
use crate::servers::{has_all, sent_to};
use crate::support::accounts::{ANN, BOB, ROOT};
use crate::support::actor::Actor;
use crate::support::clock::soon;
use crate::support::command::run;
use crate::support::counters;
use crate::support::daemon::Daemon;
use crate::support::harness::{On, tests};
use crate::support::orders::{Order, Proto};
use crate::support::program::{CLAIMS, NET_CLS, apply, binary, policy, shaper};
use crate::support::random::Random;
use crate::support::rates::MBIT;
use crate::support::unit::Unit;
use crate::support::world::{Family, UPLINK, World};

tests!(
    On::Every => a_unit_that_comes_again_has_its_class_again;
    On::HostAndUml => what_a_unit_sends_is_in_its_class, a_unit_keeps_its_class_between_the_classifiers;
    On::HostEvents => the_daemon_knows_a_unit_that_starts,
        the_daemon_knows_a_unit_that_starts_also_beside_a_link_with_tags;
    On::Host => a_run_with_units_that_is_killed_is_made_good, what_arrives_for_a_units_socket_is_the_units;
);

fn text(classifier: &str, unit: &Unit) -> String {
    format!(
        "
version: 1
links: {{up0: {{rate: 100mbit, classifier: {classifier}, default: {{rate: 5mbit, ceil: 50mbit}}}}}}
users:
  ann: 30mbit
  served: {{ceil: 40mbit, units: [{}]}}
",
        unit.name
    )
}

/// What a class has sent.
fn sent(class: &str) -> u64 {
    counters::classes(UPLINK).class(class).bytes
}

/// A connection to the far side, over which the actor sends without end.
fn pour(world: &mut World, actor: &mut Actor, family: Family) {
    let port = world.sink(Proto::Tcp);
    let socket = actor.connect(world.far_at(family, port));
    actor.pour(socket);
}

/// The line's numbers of cgroups in the map: what `plan` would print if they were not there.
fn is_in_sync(text: &str) {
    let again = shaper(&["plan", "--exit-code", &policy(text)]);
    assert_eq!(again.status, Some(0), "{}{}", again.stdout, again.stderr);
    assert!(again.stdout.contains("in sync"), "{}", again.stdout);
}

fn what_a_unit_sends_is_in_its_class() {
    let (mut world, unit) = (World::new(), Unit::new());
    let text = text("uid", &unit);
    apply(&text);
    assert!(!Path::new(NET_CLS).exists(), "nothing was mounted");
    let [ann, served] = ["user/ann", "user/served"].map(number);
    // Whose its processes are does not matter, nor how deep they are in the unit.
    for (account, family, below) in [
        (ROOT, Family::V4, ""),
        (ANN, Family::V6, ""),
        (BOB, Family::V4, "payload"),
        (ANN, Family::V6, "payload/deeper"),
    ] {
        let mut actor = world.actor(account);
        unit.take_below(below, actor.pid());
        pour(&mut world, &mut actor, family);
        all_passes_through(&served);
        let pid = format!("pid:{}", actor.pid());
        let why = shaper(&["why", &pid, "--file", &policy(&text)]).exits(0).stdout;
        assert!(why.contains(&served) && why.contains("users.served"), "{why}");
    }
    // What came into the unit with its sockets is whose it was.
    let mut late = world.actor(ANN);
    pour(&mut world, &mut late, Family::V4);
    all_passes_through(&ann);
    unit.take(late.pid());
    all_passes_through(&ann);
    let why = shaper(&["why", &format!("pid:{}", late.pid()), "--file", &policy(&text)]);
    assert!(why.stdout.contains("sockets that it had before it came there"), "{}", why.stdout);
    pour(&mut world, &mut late, Family::V6);
    let before = sent(&served);
    world.until("its new sockets are the unit's", |_| sent(&served) > before + 500_000);
    drop(late);
    // A server's connections are where it listens.
    let mut server = world.actor(BOB);
    unit.take(server.pid());
    let listener = server.socket(&Order::Listen(world.host_at(Family::V6, 8080)));
    let far = world.far.connect(world.host_at(Family::V6, 8080));
    world.far.tell(&Order::Drain { socket: far, port: 8080 });
    let accepted = server.socket(&Order::Accept(listener));
    server.pour(accepted);
    all_passes_through(&served);
    // The unit's line goes: what its processes send is their users'.
    apply(&text.replace(&format!("  served: {{ceil: 40mbit, units: [{}]}}\n", unit.name), ""));
    all_passes_through("1:fffe");
    drop(server);
    shaper(&["clear"]).exits(0);
    assert!(!Path::new("/run/shaper").exists(), "clear leaves nothing");
    assert!(!world.on_host("tc qdisc show dev up0").stdout.contains("htb"));
}

/// Before it has sent anything.
fn what_arrives_for_a_units_socket_is_the_units() {
    let (mut world, unit) = (World::new(), Unit::new());
    let text = text("uid", &unit).replace("{rate: 100mbit,", "{rate: 100mbit, down: 90mbit,");
    let mut served = world.actor(ROOT);
    unit.take_below("deeper", served.pid());
    served.sink(Proto::Udp, 7_000);
    let mut ann = world.actor(ANN);
    unit.take(ann.pid());
    ann.sink(Proto::Udp, 7_001);
    apply(&text);
    let class = number("user/served");
    for (family, port) in [(Family::V4, 7_000), (Family::V6, 7_001)] {
        has_all(&sent_to(&mut world, family, port), &class);
    }
    // Nor does `status` count it as nobody's.
    pour(&mut world, &mut served, Family::V4);
    all_passes_through(&class);
    let status = shaper(&["status", "--json"]).exits(0).json();
    let defaulted = &status["default_connections"];
    assert!(defaulted.as_array().is_none_or(Vec::is_empty), "{defaulted}");
}

fn a_unit_that_comes_again_has_its_class_again() {
    let mut world = World::new();
    let unit = Unit::new();
    let (name, text) = (unit.name.clone(), text("uid", &unit));
    apply(&text);
    let served = number("user/served");
    for turn in ["first", "second", "third"] {
        let unit = Unit::named(&name);
        let mut actor = world.actor(ROOT);
        unit.take(actor.pid());
        pour(&mut world, &mut actor, Family::V4);
        if turn != "first" {
            all_passes_through("1:fffe");
            // It is no news for cron that a unit was restarted.
            let plan = shaper(&["plan", "--exit-code", &policy(&text)]);
            assert_eq!(plan.status, Some(0), "{}{}", plan.stdout, plan.stderr);
            assert_eq!(apply(&text).stderr, "");
        }
        all_passes_through(&served);
        is_in_sync(&text);
        drop(actor);
        drop(unit);
    }
}

fn the_daemon_knows_a_unit_that_starts() {
    each_start_is_known(|unit| text("uid", unit));
}

/// The instance's directories are in the hierarchy then.
fn the_daemon_knows_a_unit_that_starts_also_beside_a_link_with_tags() {
    each_start_is_known(|unit| {
        run("ip link add tagged0 type veth peer name tagged1");
        let tagged = "links: {tagged0: {rate: 1gbit, classifier: bpf}, ";
        text("uid", unit).replace("links: {", tagged)
    });
}

fn each_start_is_known(text: impl Fn(&Unit) -> String) {
    let mut world = World::new();
    let unit = Unit::new();
    let text = text(&unit);
    let name = unit.name.clone();
    drop(unit);
    let daemon = Daemon::with_events(&["watch", &policy(&text)]);
    let served = number("user/served");
    for family in [Family::V4, Family::V6, Family::V4] {
        let unit = Unit::named(&name);
        let mut actor = unit.start();
        let before = sent("1:fffe");
        pour(&mut world, &mut actor, family);
        all_passes_through(&served);
        // Neighbour discovery is nobody's, and what is sent before the daemon has heard of it.
        assert!(sent("1:fffe") - before < 20_000, "{}", sent("1:fffe") - before);
        drop(actor);
        drop(unit);
    }
    assert!(daemon.end().success());
}

fn a_unit_keeps_its_class_between_the_classifiers() {
    let (mut world, unit) = (World::new(), Unit::new());
    apply(&text("bpf", &unit));
    let served = number("user/served");
    let mut actor = unit.start();
    let mut of_ann = world.actor(ANN);
    unit.take(of_ann.pid());
    // The daemon's work: with tags a process that has come is placed by an apply.
    apply(&text("bpf", &unit));
    let ports = [Family::V4, Family::V6].map(|family| {
        let port = world.sink(Proto::Udp);
        let actor = if family == Family::V4 { &mut actor } else { &mut of_ann };
        let socket = actor.socket(&Order::Datagram(world.far_at(family, port)));
        actor.tell(&Order::Beat { socket, bytes: 1_000, bits_per_second: 5 * MBIT });
        port
    });
    world.until("they send", |_| sent(&served) > 200_000);
    let before = (sent("1:fffe"), sent(&number("user/ann")));
    for classifier in ["uid", "bpf", "uid", "auto", "uid", "uid", "bpf"] {
        let text = text(classifier, &unit);
        apply(&text);
        assert_eq!(number("user/served"), served, "it keeps its number");
        is_in_sync(&text);
        let now = sent(&served);
        world.until("it goes on", |_| sent(&served) > now + 100_000);
    }
    let (nobodys, anns) = (sent("1:fffe") - before.0, sent(&number("user/ann")) - before.1);
    println!("{nobodys} bytes through the default class, {anns} through ann's");
    assert!(nobodys < 5_000 && anns < 2_000, "{nobodys} {anns}");
    drop((actor, of_ann));
    for port in ports {
        assert!(world.far.seen(Proto::Udp, port).bytes > 500_000);
    }
    shaper(&["clear"]).exits(0);
    assert!(!Path::new("/run/shaper").exists());
}

/// The classid of a claim, wherever the instance stands.
fn number(claim: &str) -> String {
    let root = [CLAIMS, NET_CLS]
        .into_iter()
        .find(|root| Path::new(root).join("shaper").join(claim).join("net_cls.classid").exists());
    let file = Path::new(root.expect("the claim")).join("shaper").join(claim);
    let text = std::fs::read_to_string(file.join("net_cls.classid")).expect("its classid");
    let raw: u32 = text.trim().parse().expect("a number");
    format!("{:x}:{:x}", raw >> 16, raw & 0xffff)
}

/// Killed after so many microseconds, whatever it does then: the next run ends in what its policy
/// says, and the unit has its class.
fn a_run_with_units_that_is_killed_is_made_good() {
    let (mut world, unit) = (World::new(), Unit::new());
    let texts = [text("uid", &unit), text("bpf", &unit)];
    let without = texts[0].replace(&format!(", units: [{}]", unit.name), ", uids: [4711]");
    apply(&texts[0]);
    let mut actor = unit.start();
    pour(&mut world, &mut actor, Family::V6);
    let mut random = Random::new(11);
    let mut killed = 0;
    for turn in 0..24 {
        let text = [&texts[turn % 2], &without][usize::from(turn % 3 == 0)];
        let mut run = Command::new(binary());
        run.args(["apply", &policy(text)]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut run = run.spawn().expect("start a run");
        sleep(Duration::from_micros(2_000 + 1_000 * random.index(120) as u64));
        let _ended = run.kill();
        killed += usize::from(!run.wait().expect("its end").success());
        apply(&texts[0]);
        is_in_sync(&texts[0]);
        let served = number("user/served");
        let before = sent(&served);
        soon("it is in its class", Duration::from_secs(5), || sent(&served) > before + 100_000);
    }
    println!("{killed} runs were killed");
    assert!(killed > 8, "{killed} runs were killed");
    all_passes_through(&number("user/served"));
}

//! Without `net_cls`: what `run` and `attach` put into a class is known by the cgroup (v2) of its
//! sockets. The hierarchy is the machine's, so each test has an instance of a name of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::processes::all_passes_through;
use crate::support::accounts::{BOB, ROOT};
use crate::support::actor::Actor;
use crate::support::cell::SCRATCH;
use crate::support::clock::soon;
use crate::support::command::{Done, run_with};
use crate::support::counters;
use crate::support::daemon::Daemon;
use crate::support::harness::{On, tests};
use crate::support::orders::{Order, Proto};
use crate::support::program::{CLAIMS, NET_CLS, binary, policy};
use crate::support::random::Random;
use crate::support::rates::MBIT;
use crate::support::unit::Unit;
use crate::support::world::{Family, UPLINK, World};

tests!(
    On::Every => what_is_attached_is_in_its_class_from_then_on;
    On::HostAndUml => what_run_starts_is_in_its_class, between_the_classifiers_it_stays_in_its_class;
    On::Host => a_run_that_is_killed_anywhere_leaves_nothing, a_daemon_that_comes_again_keeps_it,
        threads_that_are_spread_out_are_put_there_too,
        one_that_is_too_deep_keeps_no_other_from_being_moved;
);

/// An instance, which is cleared at the end.
pub struct Own {
    pub name: String,
    pub text: String,
}

impl Own {
    pub fn new(unit: &Unit) -> Own {
        let random = fs::read_to_string("/proc/sys/kernel/random/uuid").expect("a random name");
        let name = format!("run-{}", random.trim().get(..8).expect("its beginning"));
        let text = format!(
            "
version: 1
links: {{up0: {{rate: 100mbit, classifier: uid, default: {{rate: 5mbit, ceil: 50mbit}}}}}}
users:
  ann: 30mbit
  bob: 20mbit
  served: {{ceil: 40mbit, units: [{}]}}
",
            unit.name
        );
        Own { name, text }
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(["--cgroup", &self.name]).args(words);
        command
    }

    pub fn shaper(&self, words: &[&str]) -> Done {
        run_with(self.command(words), "")
    }

    pub fn with(&self, classifier: &str) -> String {
        self.text.replace("classifier: uid", &format!("classifier: {classifier}"))
    }

    #[track_caller]
    pub fn apply(&self, text: &str) -> Done {
        self.shaper(&["apply", &policy(text)]).exits(0)
    }

    #[track_caller]
    pub fn is_in_sync(&self, text: &str) {
        let again = self.shaper(&["plan", "--exit-code", &policy(text)]);
        assert_eq!(again.status, Some(0), "{}{}", again.stdout, again.stderr);
        assert!(again.stdout.contains("in sync"), "{}", again.stdout);
    }

    /// The claim's directory, wherever the instance stands.
    pub fn directory(&self, claim: &str) -> PathBuf {
        let roots = [CLAIMS, NET_CLS].map(|root| Path::new(root).join(&self.name));
        let standing = roots.into_iter().find(|root| root.join("user").exists());
        standing.expect("the instance").join(claim)
    }

    pub fn class(&self, user: &str) -> String {
        let file = self.directory(&format!("user/{user}")).join("net_cls.classid");
        let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let raw: u32 = text.trim().parse().expect("a number");
        format!("{:x}:{:x}", raw >> 16, raw & 0xffff)
    }

    /// An actor of root's that `run` has started.
    fn run(&self, user: &str) -> Actor {
        let mut command = self.command(&["run", user, "--"]);
        command.arg(std::env::current_exe().expect("this binary's path")).arg("--actor");
        Actor::start(command)
    }

    /// The cgroups that the instance has, below any other.
    pub fn cgroups(&self) -> Vec<String> {
        let (mut found, mut pending) =
            (Vec::new(), vec![PathBuf::from(format!("{SCRATCH}/units"))]);
        while let Some(at) = pending.pop() {
            let Ok(entries) = fs::read_dir(&at) else { continue };
            let below = entries.flatten().filter(|it| it.file_type().is_ok_and(|it| it.is_dir()));
            for entry in below {
                if entry.file_name().to_string_lossy().starts_with(&format!("{}:", self.name)) {
                    found.push(entry.path().display().to_string());
                }
                pending.push(entry.path());
            }
        }
        found
    }

    fn why(&self, pid: u32) -> String {
        self.shaper(&["why", &format!("pid:{pid}"), "--file", &policy(&self.text)]).exits(0).stdout
    }

    #[track_caller]
    pub fn clear(&self) {
        self.shaper(&["clear"]).exits(0);
        assert_eq!(self.cgroups(), Vec::<String>::new(), "clear leaves nothing");
        for root in [CLAIMS, NET_CLS] {
            assert!(!Path::new(root).join(&self.name).exists(), "clear leaves nothing");
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _cleared =
            self.command(&["clear"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

pub fn unified(pid: u32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("a process");
    let line = text.lines().find_map(|line| line.strip_prefix("0::")).expect("cgroup v2");
    line.to_string()
}

fn sent(class: &str) -> u64 {
    counters::classes(UPLINK).class(class).bytes
}

/// A connection to the far side, over which the actor sends without end.
pub fn pour(world: &mut World, actor: &mut Actor, family: Family) {
    let port = world.sink(Proto::Tcp);
    let socket = actor.connect(world.far_at(family, port));
    actor.pour(socket);
}

/// That what the actor sends by a new socket is in this class, by TCP and UDP of both families.
#[track_caller]
pub fn each_new_socket_is(world: &mut World, actor: &mut Actor, class: &str) {
    for family in [Family::V4, Family::V6] {
        let before = counters::classes(UPLINK);
        world.udp(actor, family, 5 * MBIT, Duration::from_millis(300));
        let port = world.sink(Proto::Tcp);
        let socket = actor.connect(world.far_at(family, port));
        actor.pour(socket);
        sleep(Duration::from_millis(200));
        actor.stop(socket);
        let new = sent(class) - before.class(class).bytes;
        let nobodys = sent("1:fffe") - before.class("1:fffe").bytes;
        assert!(new > 200_000 && nobodys < 20_000, "{family:?}: {new} bytes, {nobodys} nobody's");
    }
}

fn what_run_starts_is_in_its_class() {
    let (mut world, unit) = (World::new(), Unit::new());
    let own = Own::new(&unit);
    let text = &own.text;
    own.apply(text);
    let [ann, bob] = ["ann", "bob"].map(|user| own.class(user));
    let before = unified(std::process::id());
    let mut actor = own.run("ann");
    let path = unified(actor.pid());
    assert_eq!(Path::new(&path).parent(), Some(Path::new(&before)), "below where it was");
    assert!(path.ends_with(":user:ann.shaper"), "{path}");
    each_new_socket_is(&mut world, &mut actor, &ann);
    // Whoever it becomes.
    actor.become_account(BOB);
    each_new_socket_is(&mut world, &mut actor, &ann);
    pour(&mut world, &mut actor, Family::V4);
    all_passes_through(&ann);
    assert!(own.why(actor.pid()).contains("`shaper run` or `shaper attach` put it there"));
    for _ in 0..2 {
        own.apply(text);
        own.is_in_sync(text);
        all_passes_through(&ann);
    }
    // As the daemon begins, with maps of its own.
    let mut confined = Command::new("setpriv");
    confined.args(["--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"]);
    confined.arg(binary()).args(["--cgroup", &own.name, "apply", "-v", &policy(text)]);
    let done = run_with(confined, "").exits(0).stdout;
    assert!(done.contains("+ owners: "), "{done}");
    all_passes_through(&ann);
    assert_eq!(own.shaper(&["run", "ann", "--", "sh", "-c", "exit 7"]).status, Some(7));
    assert_eq!(own.shaper(&["run", "bob", "--", "/no/such/program"]).status, Some(127));
    // Another class of the same cgroup's.
    let mut other = own.run("bob");
    each_new_socket_is(&mut world, &mut other, &bob);
    drop(other);
    // The line goes, and what was put into its class counts by its owner: root's.
    own.apply(&text.replace("  ann: 30mbit\n", ""));
    assert_eq!(unified(actor.pid()), before, "back where it was");
    own.apply(text);
    assert_eq!(own.cgroups(), Vec::<String>::new(), "an apply removes what nobody is in");
    own.is_in_sync(text);
    let actor = own.run("ann");
    own.clear();
    assert_eq!(unified(actor.pid()), before, "it runs on");
    let refused = own.shaper(&["run", "ann", "--", "true"]);
    assert!(refused.stderr.contains("nothing is shaped here yet"), "{}", refused.stderr);
}

fn what_is_attached_is_in_its_class_from_then_on() {
    let (mut world, unit) = (World::new(), Unit::new());
    let own = Own::new(&unit);
    own.apply(&own.text);
    let [ann, bob, served] = ["ann", "bob", "served"].map(|user| own.class(user));
    let mut actor = world.actor(BOB);
    let pid = actor.pid().to_string();
    pour(&mut world, &mut actor, Family::V6);
    all_passes_through(&bob);
    let done = own.shaper(&["attach", "ann", &pid]).exits(0).stdout;
    assert!(done.contains("from before stay whose they were"), "{done}");
    all_passes_through(&bob);
    assert!(own.why(actor.pid()).contains("those that it had before"), "{}", own.why(actor.pid()));
    each_new_socket_is(&mut world, &mut actor, &ann);
    own.shaper(&["release", &pid]).exits(0);
    each_new_socket_is(&mut world, &mut actor, &bob);
    let refused = own.shaper(&["release", &pid]);
    assert!(refused.stderr.contains("was put nowhere by hand"), "{}", refused.stderr);
    assert_eq!(own.cgroups(), Vec::<String>::new());
    // In a unit of a line's: it stays in the unit, and the class goes before the unit's.
    let mut inside = world.actor(ROOT);
    unit.take(inside.pid());
    each_new_socket_is(&mut world, &mut inside, &served);
    let at = unified(inside.pid());
    let pid = inside.pid().to_string();
    own.shaper(&["attach", "ann", &pid]).exits(0);
    assert_eq!(unified(inside.pid()), format!("{at}/{}:user:ann.shaper", own.name));
    each_new_socket_is(&mut world, &mut inside, &ann);
    own.shaper(&["attach", "bob", &pid]).exits(0);
    assert_eq!(unified(inside.pid()), format!("{at}/{}:user:bob.shaper", own.name));
    each_new_socket_is(&mut world, &mut inside, &bob);
    own.apply(&own.text);
    own.is_in_sync(&own.text);
    assert_eq!(own.cgroups().len(), 1, "{:?}", own.cgroups());
    let released = own.shaper(&["release", "bob"]).exits(0).stdout;
    assert!(released.contains(&pid), "{released}");
    assert_eq!(unified(inside.pid()), at);
    each_new_socket_is(&mut world, &mut inside, &served);
    // The unit's cgroup can go, as it could before.
    own.shaper(&["attach", "ann", &pid]).exits(0);
    drop((inside, actor));
    let directory = own.cgroups();
    soon("it is empty", Duration::from_secs(5), || {
        directory.iter().all(|it| fs::remove_dir(it).is_ok() || !Path::new(it).exists())
    });
    own.clear();
}

/// Numbered datagrams of a process that was attached, while the instance goes to and fro.
fn between_the_classifiers_it_stays_in_its_class() {
    let (mut world, unit) = (World::new(), Unit::new());
    let own = Own::new(&unit);
    own.apply(&own.text);
    let [ann, bob] = ["ann", "bob"].map(|user| own.class(user));
    let mut actor = own.run("ann");
    actor.become_account(BOB);
    let port = world.sink(Proto::Udp);
    let socket = actor.socket(&Order::Datagram(world.far_at(Family::V6, port)));
    actor.tell(&Order::Beat { socket, bytes: 1_000, bits_per_second: 5 * MBIT });
    world.until("it sends", |_| sent(&ann) > 200_000);
    let before = (sent("1:fffe"), sent(&bob));
    for classifier in ["bpf", "uid", "auto", "bpf", "uid"] {
        let text = own.with(classifier);
        own.apply(&text);
        assert_eq!(own.class("ann"), ann);
        own.is_in_sync(&text);
        let tagged = fs::read_to_string(own.directory("user/ann/pinned").join("cgroup.procs"));
        let is_tagged = tagged.is_ok_and(|pids| pids.contains(&actor.pid().to_string()));
        let has_cgroup = unified(actor.pid()).ends_with(":user:ann.shaper");
        assert_eq!((is_tagged, has_cgroup), (classifier != "uid", classifier == "uid"));
        let now = sent(&ann);
        each_new_socket_is(&mut world, &mut actor, &ann);
        world.until("it goes on", |_| sent(&ann) > now + 500_000);
    }
    let (nobodys, bobs) = (sent("1:fffe") - before.0, sent(&bob) - before.1);
    println!("{nobodys} bytes through the default class, {bobs} through bob's");
    own.clear();
}

/// Killed after so many microseconds, whatever it does then.
fn a_run_that_is_killed_anywhere_leaves_nothing() {
    let (mut world, unit) = (World::new(), Unit::new());
    let own = Own::new(&unit);
    own.apply(&own.text);
    let ann = own.class("ann");
    let mut random = Random::new(5);
    let (mut killed, mut left) = (0, 0);
    for turn in 0..60 {
        let mut run = own.command(&["run", ["ann", "bob"][turn % 2], "--", "sleep", "60"]);
        let mut run = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a run");
        sleep(Duration::from_micros(random.index(25_000) as u64));
        let comm = fs::read_to_string(format!("/proc/{}/comm", run.id())).unwrap_or_default();
        killed += usize::from(comm.trim() != "sleep");
        run.kill().expect("kill it");
        run.wait().expect("its end");
        left += own.cgroups().len();
        if turn % 3 == 0 {
            own.apply(&own.text);
            own.is_in_sync(&own.text);
            assert_eq!(own.cgroups(), Vec::<String>::new());
        }
    }
    println!("{killed} were killed before they ran; {left} cgroups were left to be removed");
    assert!(killed > 10 && left > 0, "{killed} {left}");
    let mut actor = own.run("ann");
    each_new_socket_is(&mut world, &mut actor, &ann);
    drop(actor);
    own.clear();
}

fn a_daemon_that_comes_again_keeps_it() {
    let (mut world, unit) = (World::new(), Unit::new());
    let own = Own::new(&unit);
    let file = policy(&own.text);
    let words = ["--cgroup", &own.name, "watch", &file];
    let daemon = Daemon::start(&words);
    let ann = own.class("ann");
    let mut actor = own.run("ann");
    let mut attached = world.actor(BOB);
    own.shaper(&["attach", "ann", &attached.pid().to_string()]).exits(0);
    pour(&mut world, &mut actor, Family::V4);
    pour(&mut world, &mut attached, Family::V6);
    all_passes_through(&ann);
    // Somebody takes the root away; the daemon makes it again.
    world.on_host("tc qdisc del dev up0 root").exits(0);
    world.until("it is made again", |world| {
        world.on_host("tc class show dev up0").stdout.contains(&format!("htb {ann} "))
    });
    all_passes_through(&ann);
    daemon.signal(Signal::SIGKILL);
    drop(daemon);
    all_passes_through(&ann);
    let daemon = Daemon::start(&words);
    all_passes_through(&ann);
    each_new_socket_is(&mut world, &mut attached, &ann);
    let mut late = own.run("ann");
    each_new_socket_is(&mut world, &mut late, &ann);
    assert!(daemon.end().success());
    drop((actor, attached, late));
    own.clear();
}

/// Below a cgroup that is one for threads a new one takes processes only as one for threads.
fn threads_that_are_spread_out_are_put_there_too() {
    let (mut world, unit) = (World::new(), Unit::new());
    let own = Own::new(&unit);
    own.apply(&own.text);
    let ann = own.class("ann");
    let mut actor = world.actor(BOB);
    unit.make_threaded("threads");
    unit.take_below("threads", actor.pid());
    let at = unified(actor.pid());
    own.shaper(&["attach", "ann", &actor.pid().to_string()]).exits(0);
    assert_eq!(unified(actor.pid()), format!("{at}/{}:user:ann.shaper", own.name));
    each_new_socket_is(&mut world, &mut actor, &ann);
    own.clear();
    assert_eq!(unified(actor.pid()), at);
}

/// From tags to cgroups: of one process the cgroup is so deep that none can be made below it.
fn one_that_is_too_deep_keeps_no_other_from_being_moved() {
    let (mut world, unit) = (World::new(), Unit::named("deep.service"));
    let own = Own::new(&unit);
    let text =
        own.text.replace(&format!("  served: {{ceil: 40mbit, units: [{}]}}\n", unit.name), "");
    let tagged = text.replace("classifier: uid", "classifier: bpf");
    own.apply(&tagged);
    let [ann, bob] = ["ann", "bob"].map(|user| own.class(user));
    // The lowest pid, which is moved first.
    let mut deep = world.actor(BOB);
    let mut others = [world.actor(BOB), world.actor(BOB)];
    unit.take_below("1/2/3/4/5/6/7/8", deep.pid());
    let at = unified(deep.pid());
    let all = others.iter().map(Actor::pid).chain([deep.pid()]);
    for pid in all.collect::<Vec<_>>() {
        own.shaper(&["attach", "ann", &pid.to_string()]).exits(0);
    }
    assert!(others.iter().all(|it| it.pid() > deep.pid()), "pids began anew: run it again");
    for actor in others.iter_mut().chain([&mut deep]) {
        each_new_socket_is(&mut world, actor, &ann);
    }
    let done = own.apply(&text);
    let said = format!("process {} counts by its owner", deep.pid());
    assert!(done.stderr.contains(&said), "{}", done.stderr);
    assert_eq!(unified(deep.pid()), at, "it stays where it is");
    for actor in &mut others {
        assert!(unified(actor.pid()).ends_with(":user:ann.shaper"), "{}", unified(actor.pid()));
        each_new_socket_is(&mut world, actor, &ann);
    }
    each_new_socket_is(&mut world, &mut deep, &bob);
    own.is_in_sync(&text);
    drop((deep, others));
    own.clear();
}

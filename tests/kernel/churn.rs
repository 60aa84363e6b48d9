//! Links, addresses, classes, directories and processes that come and go while somebody looks,
//! applies or watches: nothing that stands is taken to be absent, and nothing healthy is touched.

use std::fmt::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::host::Host;
use crate::support::daemon::Daemon;
use crate::support::harness::{On, Test};
use crate::support::program::{NET_CLS, policy, shaper};
use crate::support::settings::setting;
use crate::support::world::World;

pub const TESTS: &[Test] = &[
    Test {
        name: "churn::no_look_misses_a_tree_while_other_links_go",
        on: On::Host,
        budget: Duration::from_secs(150),
        body: no_look_misses_a_tree_while_other_links_go,
    },
    Test {
        name: "churn::applies_and_a_daemon_harm_nothing_healthy_while_everything_comes_and_goes",
        on: On::Host,
        budget: Duration::from_secs(16 * 3600),
        body: applies_and_a_daemon_harm_nothing_healthy_while_everything_comes_and_goes,
    },
];

/// `ip -batch`, which goes on beside the test.
fn batch(lines: &str) -> Child {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start ip");
    let mut stdin = child.stdin.take().expect("its input");
    std::io::Write::write_all(&mut stdin, lines.as_bytes()).expect("tell it");
    child
}

/// The kernel's list of qdiscs goes on by position: each link that goes can hide those behind it.
fn no_look_misses_a_tree_while_other_links_go() {
    const OTHERS: usize = 400;
    const SHAPED: usize = 60;
    let mut host = Host::new();
    let mut add = String::new();
    for at in 0..OTHERS {
        let _ = writeln!(add, "link add c{at} up type veth peer name d{at}\nlink set d{at} up");
    }
    for at in 0..SHAPED {
        let _ = writeln!(add, "link add s{at} up type veth peer name t{at}\nlink set t{at} up");
    }
    assert!(batch(&add).wait().expect("links").success());
    let lines: String = (0..SHAPED).map(|at| format!("  s{at}: {{rate: 1gbit}}\n")).collect();
    host.go_to_text(&format!(
        "version: 1\nlinks:\n{lines}users: {{label: {{ceil: 9mbit, uids: [4001]}}}}\n"
    ));
    let whole = host.state();
    assert_eq!(whole.trees.len(), SHAPED);
    let del: String = (0..OTHERS).map(|at| format!("link del c{at}\n")).collect();
    let mut going = batch(&del);
    let mut looks = 0;
    while going.try_wait().expect("ip").is_none() {
        let state = host.state();
        looks += 1;
        assert_eq!(state, whole, "look {looks} saw something else");
    }
    println!("{looks} looks while {OTHERS} links went");
    assert!(looks > 4, "only {looks} looks");
}

/// What comes and goes beside us: links before and behind ours, addresses, classes and filters of
/// somebody else's in our trees, directories, processes.
struct Churn(std::sync::Arc<std::sync::atomic::AtomicBool>, Vec<std::thread::JoinHandle<u64>>);

impl Churn {
    /// `pace`: one in so many turns an older link goes.
    fn start(pace: u64) -> Churn {
        let ends = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let mut threads = Vec::new();
        let mut beside = |mut act: Box<dyn FnMut(u64) + Send>| {
            let ends = ends.clone();
            threads.push(std::thread::spawn(move || {
                let mut turn = 0;
                while !ends.load(std::sync::atomic::Ordering::Relaxed) {
                    act(turn);
                    turn += 1;
                }
                turn
            }));
        };
        beside(Box::new(move |turn| {
            let at = turn % 16;
            let lines = format!(
                "link add n{at} up type veth peer name m{at}\naddr add 10.9.{at}.1/24 dev n{at}\n"
            );
            let _ = batch(&lines).wait();
            let _ = batch(&format!("link del n{}\n", (turn + 8) % 16)).wait();
            // Links that are older than ours go, too.
            if turn % pace == 0 {
                let _ = batch(&format!("link del c{}\n", turn / pace)).wait();
            }
        }));
        beside(Box::new(|turn| {
            let at = 1 + turn % 12;
            quietly("tc", &format!("class add dev s{at} parent 1:1 classid 1:9 htb rate 1mbit"));
            quietly(
                "tc",
                &format!(
                    "filter add dev s{at} parent 1: pref 50 protocol ip u32 match ip dport 9 0xffff flowid 1:9"
                ),
            );
            quietly("tc", &format!("filter del dev s{at} parent 1: pref 50"));
            quietly("tc", &format!("class del dev s{at} classid 1:9"));
        }));
        beside(Box::new(|turn| {
            let [ours, theirs] =
                [format!("{NET_CLS}/shaper/odd{turn}"), format!("{NET_CLS}/x{turn}")];
            for path in [ours, theirs] {
                let _ = std::fs::create_dir(&path);
                let _ = std::fs::remove_dir(&path);
            }
            std::thread::sleep(Duration::from_millis(2));
        }));
        beside(Box::new(|_| {
            quietly("setpriv", "--reuid 4001 --clear-groups true");
        }));
        // A tunnel that is shaped, and comes and goes.
        beside(Box::new(|_| {
            let _ = batch("link add tunnel0 up type veth peer name far1\n").wait();
            std::thread::sleep(Duration::from_millis(70));
            let _ = batch("link del tunnel0\n").wait();
            std::thread::sleep(Duration::from_millis(30));
        }));
        Churn(ends, threads)
    }

    /// How often each of them did its work.
    fn end(self) -> Vec<u64> {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
        self.1.into_iter().map(|thread| thread.join().expect("a thread")).collect()
    }
}

/// What it is asked to do may be impossible by now.
fn quietly(program: &str, words: &str) {
    let mut command = Command::new(program);
    command.args(words.split(' ')).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _ = command.status();
}

const TREES: usize = 24;

fn many_links() -> String {
    let mut add = String::new();
    for at in 0..600 {
        let _ = writeln!(add, "link add c{at} up type veth peer name d{at}");
    }
    for at in 0..TREES {
        let _ = writeln!(add, "link add s{at} up type veth peer name t{at}\nlink set t{at} up");
    }
    assert!(batch(&add).wait().expect("links").success());
    let lines: String = (0..TREES).map(|at| format!("  s{at}: {{rate: 1gbit}}\n")).collect();
    format!(
        "version: 1\nlinks:\n{lines}  tunnel0: {{rate: 20mbit, optional: true}}\nusers:\n  label: {{ceil: 9mbit, uids: [4001]}}\nrules: [{{dport: 80, to: label}}]\n"
    )
}

/// How many bytes the default class of each link has sent: less than before, and the tree was made
/// anew.
fn births(links: usize) -> Vec<u64> {
    let sent =
        |at: usize| crate::support::counters::classes(&format!("s{at}")).class("1:fffe").bytes;
    (0..links).map(sent).collect()
}

/// Something in each tree that no new tree has.
fn send_through_all(links: usize) {
    for at in 0..links {
        quietly("ip", &format!("addr add 10.8.{at}.1/24 dev s{at}"));
        let target = format!("10.8.{at}.2:9");
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
        let _ = socket.send_to(b"x", target);
    }
    std::thread::sleep(Duration::from_millis(300));
}

/// How long each of the two halves takes where nobody asks for more.
const HALF: Duration = Duration::from_secs(10);

fn applies_and_a_daemon_harm_nothing_healthy_while_everything_comes_and_goes() {
    let world = World::new();
    let text = many_links();
    shaper(&["apply", &policy(&text)]).exits(0);
    send_through_all(TREES);
    let before = births(TREES);
    assert!(before.iter().all(|bytes| *bytes > 0), "{before:?}");
    let healthy = |what: &str| {
        for (at, (now, before)) in births(TREES).iter().zip(&before).enumerate() {
            assert!(now >= before, "the tree on s{at} was made anew: {what}");
        }
    };
    // First applies alone, whose every failure is seen; then the daemon.
    let wanted = setting("SHAPER_CHURN_APPLIES");
    // The links that are older than ours last for all of it.
    let churn = Churn::start(1 + wanted.unwrap_or(0) / 20);
    let until = Instant::now() + HALF;
    let mut applies = 0;
    while wanted.map_or(Instant::now() < until, |wanted| applies < wanted) {
        let done = shaper(&["apply", &policy(&text)]);
        applies += 1;
        assert_eq!(done.status, Some(0), "apply {applies}: {}", done.stderr);
    }
    healthy("by an apply");
    let daemon = Daemon::start(&["watch", &policy(&text)]);
    std::thread::sleep(setting("SHAPER_CHURN_WATCH").map_or(HALF, Duration::from_secs));
    println!("{applies} applies; turns of the churn: {:?}", churn.end());
    healthy("by the daemon");
    let log = daemon.log();
    let errors: Vec<&str> = log.lines().filter(|line| line.contains("ERROR")).collect();
    assert!(errors.is_empty(), "{} errors: {:#?}", errors.len(), &errors[..errors.len().min(5)]);
    assert!(daemon.end().success());
    shaper(&["apply", &policy(&text)]).exits(0);
    shaper(&["plan", "-q", "--exit-code", &policy(&text)]).exits(0);
    drop(world);
}

//! Packets that no live process owns while their user moves: what an ended process left queued, and
//! connections that wait to be accepted. The kernel keeps the old tag on them.

use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::thread::{self, sleep};
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{SockaddrIn, bind};

use crate::support::accounts::ANN;
use crate::support::counters;
use crate::support::orders::{Order, Proto};
use crate::support::passing;
use crate::support::program::{apply, classid, directory, policy, shaper};
use crate::support::rates::{self, Interval, MBIT, between};
use crate::support::world::{Family, UPLINK, World};

/// Two groups; ann is in the one that is named.
fn ann_in(group: &str, ceil: &str) -> String {
    let members = |name: &str| if name == group { "[ann]" } else { "[]" };
    format!(
        "
version: 1
links: {{up0: {{rate: 100mbit, default: {{rate: 5mbit}}}}}}
users: {{ann: {ceil}}}
groups:
  day: {{ceil: 60mbit, users: {}}}
  night: {{ceil: 50mbit, users: {}}}
",
        members("day"),
        members("night")
    )
}

const NOISE: u64 = 3_000;

/// What a process of ann writes before it ends: six seconds of her class.
const QUEUED: u64 = 3_000_000;

pub fn what_an_ended_process_left_queued_keeps_its_limits() {
    let mut world = World::new();
    // Room for all of it in the socket: nobody will be there to write more.
    fs::write("/proc/sys/net/ipv4/tcp_wmem", "4096 8388608 8388608").expect("tcp_wmem");
    let mut stream = world.stream(ANN, Family::V4);
    let _idle = world.actor(ANN);
    apply(&ann_in("day", "4mbit"));
    let old = classid("user/ann");
    let before = counters::classes(UPLINK);
    stream.actor.tell(&Order::Send { socket: stream.socket, bytes: QUEUED });
    let port = stream.port;
    drop(stream);
    apply(&ann_in("night", "4mbit"));
    let new = classid("user/ann");
    assert_ne!(old, new, "a class cannot change its parent");
    assert_eq!(retired(), std::slice::from_ref(&old));
    // Waiting to drain is no difference to the policy.
    shaper(&["plan", "--exit-code", &policy(&ann_in("night", "4mbit"))]).exits(0);
    let draining = rates::over(UPLINK, Duration::from_secs(1));
    between("what is left", draining.rate(&old), 2 * MBIT, 4 * MBIT * 106 / 100);
    world.until("all that was queued has arrived", |world| {
        world.far.seen(Proto::Tcp, port).bytes >= QUEUED
    });
    let all = Interval::since(before, UPLINK);
    assert!(all.bytes(&old) >= QUEUED, "{:?}", all.leaves());
    all.others_stay_below(NOISE, &[&old]);
    apply(&ann_in("night", "4mbit"));
    assert_eq!(retired(), [""; 0]);
    assert!(!counters::classes(UPLINK).by_id.contains_key(&old));
    assert!(!directory(&format!("retired/{}", &old[2..])).exists());
}

/// What a line's account left queued drains in the line's class, and if the line comes back
/// meanwhile, in the one class that it has: all of it together stays within the one limit.
pub fn a_line_that_comes_back_while_its_class_drains_finds_it() {
    let policy_with = |users: &str| {
        format!(
            "version: 1\nlinks: {{up0: {{rate: 100mbit, default: {{rate: 5mbit}}}}}}\nusers: {{{users}bob: 9mbit}}\n"
        )
    };
    let mut world = World::new();
    fs::write("/proc/sys/net/ipv4/tcp_wmem", "4096 8388608 8388608").expect("tcp_wmem");
    let mut stream = world.stream(ANN, Family::V4);
    apply(&policy_with("ann: 2mbit, "));
    let old = classid("user/ann");
    stream.actor.tell(&Order::Send { socket: stream.socket, bytes: QUEUED });
    let port = stream.port;
    drop(stream);
    let before = counters::classes(UPLINK);
    apply(&policy_with(""));
    assert_eq!(retired(), std::slice::from_ref(&old));
    let alone = Interval::since(before, UPLINK);
    between("what is left", alone.rate(&old), MBIT, 2 * MBIT * 106 / 100);
    alone.others_stay_below(NOISE, &[&old]);
    // Back: another ceil changes nothing about whose it is.
    apply(&policy_with("ann: 3mbit, "));
    assert_eq!(classid("user/ann"), old, "her class still drained");
    assert_eq!(retired(), [""; 0]);
    let late = world.pouring(ANN, Family::V4);
    apply(&policy_with("ann: 3mbit, "));
    let arrived = |world: &mut World| {
        let queued = world.far.seen(Proto::Tcp, port).bytes;
        (queued, world.seen(&late).bytes)
    };
    sleep(Duration::from_millis(300));
    let (start, first) = (std::time::Instant::now(), arrived(&mut world));
    sleep(Duration::from_secs(2));
    let (time, last) = (start.elapsed(), arrived(&mut world));
    let rate = |bytes: u64| bytes * 8_000 / u64::try_from(time.as_millis()).expect("a short time");
    let (queued, new) = (rate(last.0 - first.0), rate(last.1 - first.1));
    println!("the receiver had {queued} bit/s of what was queued, {new} bit/s of what is new");
    assert!(queued > 0, "the old class still drains");
    between("all of it", queued + new, 2 * MBIT, 3 * MBIT * 106 / 100);
}

/// In the backlog of ann's listener since before the move.
const WAITING: [u16; 2] = [2301, 2302];

pub fn a_connection_accepted_after_a_move_follows_its_user() {
    let mut world = World::new();
    let mut ann = world.actor(ANN);
    apply(&ann_in("day", "20mbit"));
    let old = classid("user/ann");
    let listener = ann.socket(&Order::Listen(world.host_at(Family::V4, 2222)));
    for port in WAITING {
        let socket = world.far.connect(world.host_at(Family::V4, 2222));
        world.far.tell(&Order::Drain { socket, port });
    }
    let before = counters::classes(UPLINK);
    let moving = thread::spawn(|| apply(&ann_in("night", "20mbit")));
    world.until("ann has another class", |_| classid("user/ann") != old);
    let new = classid("user/ann");
    // All tags have been written once more by now, and the old class is being watched.
    sleep(Duration::from_millis(700));
    let accepted = WAITING.map(|_| ann.socket(&Order::Accept(listener)));
    accepted.iter().for_each(|socket| ann.pour(*socket));
    moving.join().expect("the move");
    println!("retired while they send: {:?}", retired());
    sleep(Duration::from_secs(1));
    let both = Interval::since(before, UPLINK);
    println!("{:?}", both.leaves());
    both.others_stay_below(NOISE, &[&old, &new]);
    // Writes all tags anew; what waits in the old class leaves while it watches.
    apply(&ann_in("night", "20mbit"));
    let interval = rates::expect(UPLINK, Duration::from_secs(1), &[(&[&new], 20 * MBIT, 4)]);
    interval.others_stay_below(NOISE, &[&new]);
    apply(&ann_in("night", "20mbit"));
    assert_eq!(retired(), [""; 0], "the old class is quiet");
}

/// A server that is slow to accept: the move is over before it takes the connection.
pub fn a_connection_that_waits_longer_than_a_move_is_nobody_elses() {
    let mut world = World::new();
    let mut ann = world.actor(ANN);
    apply(&ann_in("day", "20mbit"));
    let old = classid("user/ann");
    let listener = ann.socket(&Order::Listen(world.host_at(Family::V4, 2222)));
    let socket = world.far.connect(world.host_at(Family::V4, 2222));
    world.far.tell(&Order::Drain { socket, port: WAITING[0] });
    apply(&ann_in("night", "20mbit"));
    let new = classid("user/ann");
    let before = counters::classes(UPLINK);
    let accepted = ann.socket(&Order::Accept(listener));
    ann.pour(accepted);
    sleep(Duration::from_secs(1));
    let first = Interval::since(before, UPLINK);
    println!("{:?}", first.leaves());
    first.others_stay_below(NOISE, &[&old, &new]);
    apply(&ann_in("night", "20mbit"));
    let interval = rates::expect(UPLINK, Duration::from_secs(1), &[(&[&new], 20 * MBIT, 4)]);
    interval.others_stay_below(NOISE, &[&new]);
    apply(&ann_in("night", "20mbit"));
    assert_eq!(retired(), [""; 0], "nothing carries its tag any more");
}

/// Sockets without a process, of every other kind that a user may have: in flight between two.
pub fn a_class_stays_while_any_socket_carries_its_number() {
    let _world = World::new();
    fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").expect("ping sockets");
    let in_group = |night: bool| ann_in(if night { "night" } else { "day" }, "20mbit");
    apply(&in_group(false));
    // What this process opens is ann's.
    shaper(&["attach", "ann", &std::process::id().to_string()]).exits(0);
    let kinds = [
        ("UDP-Lite", libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE),
        ("ping", libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP),
        ("raw", libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW),
        ("packet", libc::AF_PACKET, libc::SOCK_RAW, 0),
    ];
    let mut night = false;
    for (what, family, kind, protocol) in kinds {
        let old = classid("user/ann");
        let mailbox = passing::mailbox(what).expect("a mailbox");
        let socket = open_socket(family, kind, protocol);
        if kind == libc::SOCK_DGRAM {
            // Before, it is in no list of the kernel's.
            bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).expect("a port");
        }
        passing::give(&socket, what).expect("pass it on");
        drop(socket);
        night = !night;
        apply(&in_group(night));
        assert_ne!(classid("user/ann"), old);
        assert_eq!(retired(), std::slice::from_ref(&old), "a {what} socket is in flight");
        drop(mailbox);
        apply(&in_group(night));
        assert_eq!(retired(), [""; 0], "the {what} socket is closed");
    }
}

#[allow(unsafe_code, reason = "nix has no word for all of these protocols")]
fn open_socket(family: i32, kind: i32, protocol: i32) -> OwnedFd {
    // SAFETY: a system call without pointers.
    let socket = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
    assert!(socket >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the kernel has just made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(socket) }
}

/// The classids that `status` says are on their way out.
fn retired() -> Vec<String> {
    let status = shaper(&["status", "--json"]).exits(0).json();
    let list = status["links"][0]["retired"].as_array().cloned().unwrap_or_default();
    list.iter().map(|class| class["classid"].as_str().unwrap_or("?").to_string()).collect()
}

//! Counters tell whether what arrives goes through its ifb: what others keep from it is said with
//! their names, and nothing is said of honest traffic.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::thread::sleep;
use std::time::Duration;

use crate::support::accounts::{ANN, ROOT};
use crate::support::clock::soon;
use crate::support::command::run;
use crate::support::daemon::Daemon;
use crate::support::goodput::{self, Packets};
use crate::support::harness::{On, tests};
use crate::support::orders::{Order, Proto, SocketId};
use crate::support::program::{apply, policy, shaper};
use crate::support::world::{Family, World};

tests!(
    On::Host => honest_traffic_is_never_missed, what_others_keep_from_the_ifb_is_said_with_their_names,
        the_daemon_says_it_once_and_when_it_is_over;
);

const POLICY: &str = "
version: 1
links: {up0: {rate: 1gbit, down: 900mbit}}
users: {ann: {ceil: 800mbit, down: 400mbit}}
";

/// Lets all IPv4 pass at once: `TC_ACT_OK`.
const ACCEPTS: &str =
    "tc filter add dev up0 ingress pref 10 protocol ip u32 match u32 0 0 flowid 1:1";

/// The warnings of an interval.
fn warnings(seconds: u32) -> Vec<String> {
    let said = shaper(&["--json", "status", "--interval", &seconds.to_string()]).exits(0).stdout;
    let status: serde_json::Value = serde_json::from_str(&said).expect("a document");
    let links = status["links"].as_array().expect("links");
    let warnings = links.iter().filter_map(|link| link["warnings"].as_array()).flatten();
    warnings.map(|text| text.as_str().unwrap_or_default().to_string()).collect()
}

/// The far side sends datagrams to a port of the host, 20 Mbit/s.
fn far_beats(world: &mut World, port: u16, bytes: usize) -> SocketId {
    let to = world.host_at(Family::V4, port);
    let socket = world.far.socket(&Order::Datagram(to));
    world.far.tell(&Order::Beat { socket, bytes, bits_per_second: 20_000_000 });
    socket
}

fn honest_traffic_is_never_missed() {
    let mut world = World::new();
    apply(POLICY);
    let nothing: Vec<String> = Vec::new();
    assert_eq!(warnings(1), nothing, "nobody sends");
    let mut ann = world.downloading(ANN, Family::V4);
    soon("it runs", Duration::from_secs(5), || ann.seen().bytes > 1_000_000);
    assert_eq!(warnings(1), nothing, "one download");
    goodput::send(&world, Packets::OfTheMtu);
    goodput::merge(&world);
    let _second = world.downloading(ANN, Family::V6);
    assert_eq!(warnings(1), nothing, "two, one in frames of the MTU, which GRO merges");
    drop(ann);
    let mut root = world.actor(ROOT);
    root.sink(Proto::Udp, 7_001);
    let socket = far_beats(&mut world, 7_001, 40);
    let mut pinging = world.actor(ROOT);
    world.ping_from(&mut pinging, Family::V6, 500, 56);
    assert_eq!(warnings(1), nothing, "small packets, and a download");
    world.far.stop(socket);
    // More than the limit.
    root.sink(Proto::Udp, 7_002);
    let to = world.host_at(Family::V4, 7_002);
    let socket = world.far.socket(&Order::Datagram(to));
    world.far.tell(&Order::Flood { socket, bytes: 1_000 });
    assert_eq!(warnings(1), nothing, "a flood");
    world.far.stop(socket);
}

fn what_others_keep_from_the_ifb_is_said_with_their_names() {
    let mut world = World::new();
    apply(POLICY);
    let mut root = world.actor(ROOT);
    world.ping_from(&mut root, Family::V4, 3, 56);
    root.sink(Proto::Udp, 7_001);
    let socket = far_beats(&mut world, 7_001, 1_000);
    let nothing: Vec<String> = Vec::new();
    assert_eq!(warnings(1), nothing);

    run(ACCEPTS);
    let said = warnings(1);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("the filter u32 (pref 10) is first"), "{said:?}");
    for words in [&["status", "--interval", "1"][..], &["status"]] {
        let text = shaper(words).exits(0).stdout;
        let words: Vec<&str> = text.split_whitespace().collect();
        assert!(words.join(" ").contains("! of "), "{text}");
        assert!(words.join(" ").contains("the filter u32 (pref 10) is first"), "{text}");
    }
    run("tc filter del dev up0 ingress pref 10");
    assert_eq!(warnings(1), nothing);

    let index = run("ip -o link show up0");
    let index = index.split(':').next().and_then(|it| it.parse().ok()).expect("an ifindex");
    let program = generic_xdp(index, XDP_DROP);
    let said = warnings(1);
    assert!(said.len() == 1 && said[0].contains("generic XDP program"), "{said:?}");
    drop(program);
    // One that lets all pass is named, and nothing is missing.
    let program = generic_xdp(index, XDP_PASS);
    assert_eq!(warnings(1), nothing);
    drop(program);

    run("ip link set ifb-up0 down");
    let said = warnings(1);
    assert!(said.len() == 1 && said[0].contains("ifb-up0 is down"), "{said:?}");
    run("ip link set ifb-up0 up");
    soon("all is well", Duration::from_secs(10), || warnings(1).is_empty());
    world.far.stop(socket);
}

fn the_daemon_says_it_once_and_when_it_is_over() {
    let mut world = World::new();
    let daemon = Daemon::start(&["watch", &policy(POLICY)]);
    let mut root = world.actor(ROOT);
    world.ping_from(&mut root, Family::V4, 3, 56);
    root.sink(Proto::Udp, 7_001);
    let socket = far_beats(&mut world, 7_001, 1_000);
    run(ACCEPTS);
    let wrong = "the filter u32 (pref 10) is first";
    soon("it is said", Duration::from_secs(20), || daemon.log().contains(wrong));
    let status = || shaper(&["status"]).exits(0).stdout;
    let told = || status().contains(" is bypassed for ") && status().contains("came by up0");
    soon("others are told", Duration::from_secs(5), told);
    let doctor = shaper(&["doctor", "--json"]).stdout;
    assert!(doctor.contains("came by up0"), "{doctor}");
    sleep(Duration::from_secs(4));
    assert_eq!(daemon.log().matches(wrong).count(), 1, "{}", daemon.log());
    world.far.stop(socket);
    assert!(daemon.end().success());
}

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

/// A program of generic XDP at the link that answers this of every packet, until the value is
/// dropped.
#[allow(unsafe_code, reason = "the system calls themselves")]
fn generic_xdp(ifindex: u32, answer: u32) -> OwnedFd {
    const PROG_LOAD: nix::libc::c_long = 5;
    const LINK_CREATE: nix::libc::c_long = 28;
    const PROG_TYPE_XDP: u32 = 6;
    const AT_XDP: u32 = 37;
    const SKB_MODE: u32 = 2;
    // r0 = answer; exit.
    let instructions: [[u32; 2]; 2] = [[0xb7, answer], [0x95, 0]];
    let license = c"GPL";
    // `union bpf_attr`: type, number of instructions, both pointers; the rest is 0.
    let mut load = [0_u64; 16];
    load[0] = u64::from(PROG_TYPE_XDP) | (2 << 32);
    load[1] = instructions.as_ptr() as u64;
    load[2] = license.as_ptr() as u64;
    let bpf = |command: nix::libc::c_long, attr: *const u64, bytes: usize| {
        // SAFETY: the command reads so many bytes, and what they point to.
        let answer = unsafe { nix::libc::syscall(nix::libc::SYS_bpf, command, attr, bytes) };
        assert!(answer >= 0, "{}", std::io::Error::last_os_error());
        // SAFETY: the kernel has just made the descriptor for us.
        unsafe { OwnedFd::from_raw_fd(i32::try_from(answer).expect("a descriptor")) }
    };
    let program = bpf(PROG_LOAD, load.as_ptr(), std::mem::size_of_val(&load));
    let number = u64::from(program.as_fd().as_raw_fd().unsigned_abs());
    let attach =
        [number | (u64::from(ifindex) << 32), u64::from(AT_XDP) | (u64::from(SKB_MODE) << 32)];
    bpf(LINK_CREATE, attach.as_ptr(), std::mem::size_of_val(&attach))
}

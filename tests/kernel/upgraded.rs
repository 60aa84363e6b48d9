//! An upgrade: the programs that stand are another version's, and are exchanged while packets
//! arrive.

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::libc;
use shaper::netlink::request::filter::{self, Loaded};
use shaper::netlink::request::hook;
use shaper::netlink::{Request, bpf_name, flow_name};
use shaper::tree::{Filter, Pref};
use shaper::units::ClassId;

use crate::support::accounts::{ANN, ROOT};
use crate::support::clock::soon;
use crate::support::command::run;
use crate::support::counters::classes;
use crate::support::daemon::Daemon;
use crate::support::harness::{On, tests};
use crate::support::orders::{Order, Proto};
use crate::support::program::{apply, binary, classid, policy, shaper};
use crate::support::rates::Interval;
use crate::support::timeline::Timeline;
use crate::support::world::{Family, UPLINK, World};

tests!(On::Host => nothing_that_arrives_waits_for_an_exchange_of_programs);

const IFB: &str = "ifb-up0";
const POLICY: &str = "
version: 1
links: {up0: {rate: 100mbit, down: 50mbit}}
users: {ann: {ceil: 20mbit, down: 10mbit}}
";

/// Bytes that may be nobody's, the neighbours' words to each other among them.
const MISATTRIBUTED: u64 = 1_500;

/// How long nothing may come.
const LONGEST: Duration = Duration::from_millis(100);

/// One filter's program, by its number.
#[allow(unsafe_code, reason = "the system call itself")]
fn program(id: u32) -> OwnedFd {
    const PROG_GET_FD_BY_ID: libc::c_long = 13;
    let attr = [id, 0, 0];
    // SAFETY: the command reads these numbers, and answers with a descriptor that is ours alone.
    unsafe {
        let size = std::mem::size_of_val(&attr);
        let fd = libc::syscall(libc::SYS_bpf, PROG_GET_FD_BY_ID, attr.as_ptr(), size);
        assert!(fd >= 0, "program {id}: {}", io::Error::last_os_error());
        OwnedFd::from_raw_fd(i32::try_from(fd).expect("a descriptor"))
    }
}

fn ifindex(link: &str) -> u32 {
    nix::net::if_::if_nametoindex(link).expect("a link")
}

/// The request that writes the filter of this name once more.
fn again(link: &str, (side, pref): (ClassId, Pref), name: &str, fd: &OwnedFd) -> Request {
    let (at, fd) = (ifindex(link), fd.as_fd());
    if let Some((mark, found)) = flow_name::parse_learn(name) {
        let (tag, reads) = found.expect("this version's");
        return hook::add_egress(at, pref, Loaded::learning(tag, mark, reads, fd));
    }
    if let Some((mark, found)) = flow_name::parse_redirect(name) {
        let redirects = found.expect("this version's");
        return hook::add_redirect(
            at,
            pref,
            Loaded::redirecting(mark, redirects, fd),
            redirects.ifb,
        );
    }
    let loaded = if let Some(pulse) = flow_name::parse_pulse(name) {
        Loaded::pulsing(pulse, fd)
    } else if let Some((Filter::Find { shards, for_rules }, finds)) = flow_name::parse_find(name) {
        Loaded::finding((shards, for_rules), finds, fd)
    } else {
        let (program, maps) = bpf_name::parse(name).expect("a name of ours");
        Loaded::deciding(program, maps, fd)
    };
    filter::add_bpf(at, side, pref, loaded)
}

/// Gives each filter of ours that is called so another name at once, as if another version had made
/// it: the same program and maps, and another hash.
fn made_by_another_version(kinds: &[&str]) {
    let socket = Socket::new(NETLINK_ROUTE).expect("a netlink socket");
    socket.connect(&SocketAddr::new(0, 0)).expect("connect");
    let mut found = 0;
    for (link, side, at) in [
        (UPLINK, "ingress", ClassId::INGRESS),
        (UPLINK, "egress", ClassId::EGRESS),
        (UPLINK, "parent 1:", ClassId::ROOT),
        (IFB, "parent 1:", ClassId::ROOT),
    ] {
        let list = run(&format!("tc -j filter show dev {link} {side}"));
        let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
        for it in list.as_array().expect("a list") {
            let options = &it["options"];
            let Some(name) = options["bpf_name"].as_str() else { continue };
            if !kinds.iter().any(|kind| name.starts_with(&format!("shaper-{kind} "))) {
                continue;
            }
            let number = |value: &serde_json::Value| {
                u32::try_from(value.as_u64().expect("a number")).expect("of 32 bits")
            };
            let pref = Pref(u16::try_from(number(&it["pref"])).expect("a pref"));
            let mut bytes = Vec::new();
            // Open until the message is sent.
            let program = program(number(&options["prog"]["id"]));
            let request = again(link, (at, pref), name, &program);
            request.write_to(1, &mut bytes);
            // Of what stands: neither CREATE nor EXCL.
            bytes[6..8].copy_from_slice(&5_u16.to_ne_bytes());
            let hash = name.split(' ').nth(1).expect("a hash").as_bytes();
            let place = bytes.windows(hash.len()).position(|it| it == hash).expect("the hash");
            bytes[place..place + hash.len()].copy_from_slice(b"0badcafe");
            socket.send(&bytes, 0).expect("send");
            let (answer, _) = socket.recv_from_full().expect("an answer");
            assert_eq!(answer.get(16..20), Some(&[0; 4][..]), "{name}");
            found += 1;
        }
    }
    assert!(found >= kinds.len(), "{found} filters of {kinds:?}");
}

/// A daemon as its unit confines it: it cannot open the maps of whoever made them.
fn confined() -> Daemon {
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"]);
    command.arg(binary()).args(["watch", &policy(POLICY)]);
    Daemon::run(command)
}

/// Numbered packets that come from outside, one a millisecond, while this happens: none is lost,
/// and none comes twice.
fn knocked(world: &mut World, port: u16, what: impl FnOnce(&mut World)) -> Timeline {
    let mut host = world.actor(ROOT);
    host.sink(Proto::Udp, port);
    let to = world.host_at(Family::V4, port);
    let socket = world.far.socket(&Order::Datagram(to));
    world.far.tell(&Order::Beat { socket, bytes: 100, bits_per_second: 800_000 });
    sleep(Duration::from_millis(200));
    what(world);
    sleep(Duration::from_millis(200));
    let (_, sent) = world.far.stop(socket);
    soon("all have come", Duration::from_secs(5), || host.seen(Proto::Udp, port).packets >= sent);
    let seen = host.seen(Proto::Udp, port);
    let twice: u64 = seen.senders.values().map(|numbered| numbered.duplicates).sum();
    println!("{sent} sent, {twice} came twice, none for {} ms", seen.longest_silence / 1_000);
    assert_eq!((seen.packets, twice), (sent, 0));
    seen
}

/// Whichever of them another version made; what is noted of flows stays known, or is learnt again
/// before anything relies on it.
fn nothing_that_arrives_waits_for_an_exchange_of_programs() {
    const ALL: [&str; 5] = ["redirect", "pulse", "learn", "find", "decide"];
    let mut world = World::new();
    apply(POLICY);
    let mut ann = world.downloading(ANN, Family::V4);
    sleep(Duration::from_millis(500));
    let of_ann = classid("user/ann");
    let mut port = 7_000;
    let in_sync = || shaper(&["plan", "-q", "--exit-code", &policy(POLICY)]).status == Some(0);
    let singles = ALL.iter().map(std::slice::from_ref);
    for kinds in singles.chain([&ALL[..]]) {
        for how in ["an apply", "a daemon"] {
            let what = format!("{how} replaces another version's {kinds:?}");
            made_by_another_version(kinds);
            let (before, had) = (classes(IFB), ann.seen().bytes);
            port += 1;
            let mut daemon = None;
            let knocks = knocked(&mut world, port, |_| match how {
                "an apply" => drop(apply(POLICY)),
                _ => {
                    // What tells packets apart here a confined daemon knows of what stands alone:
                    // so its unit runs this first.
                    if kinds.contains(&"decide") {
                        shaper(&["watch", "--once", &policy(POLICY)]).exits(0);
                    }
                    daemon = Some(confined());
                }
            });
            soon(&what, Duration::from_secs(10), in_sync);
            if let Some(daemon) = daemon {
                assert!(daemon.end().success());
            }
            let after = Interval::since(before, IFB);
            // The knocks are root's, each in a frame with 42 bytes of headers.
            let knocks_bytes = knocks.bytes + 42 * knocks.packets;
            let others = after.bytes("1:fffe").saturating_sub(knocks_bytes);
            println!("  {} B are ann's, {others} B nobody's", after.bytes(&of_ann));
            assert!(others < MISATTRIBUTED, "{what}");
            assert!(ann.seen().bytes - had > 300_000, "{what}: ann's download runs");
            assert!(Duration::from_micros(knocks.longest_silence) < LONGEST, "{what}");
        }
    }
}

//! What the kernel sends for a user: as far as it can be known whose it is, it is his. The rest is
//! the kernel's own, bounded by what makes it, and by the default class.

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use super::tag_only;
use crate::support::accounts::ANN;
use crate::support::cell::SCRATCH;
use crate::support::command::{Done, run, run_with};
use crate::support::counters::{Classes, classes};
use crate::support::harness::{On, tests};
use crate::support::orders::Order;
use crate::support::program::{apply, classid};
use crate::support::rates::{Interval, KBIT, between};
use crate::support::world::{Family, UPLINK, World};

tests!(
    On::HostAndUml => the_answer_to_a_connection_is_its_listeners,
        the_reset_of_a_connection_is_its_users;
    On::Host => answers_for_nobody_are_no_more_than_the_questions, what_users_make_the_kernel_say_is_bounded;
);

const DEFAULT: &str = "1:fffe";
const POLICY: &str = "
version: 1
links: {up0: {rate: 100mbit, default: {rate: 1mbit}}}
users: {ann: 10mbit}
";

/// A SYN-ACK has no socket of its own yet. Ann's listener has no tag: nobody has placed her since
/// the policy was put in force.
pub fn the_answer_to_a_connection_is_its_listeners() {
    const COUNT: u64 = 100;
    let mut world = World::new();
    apply(POLICY);
    let class = classid("user/ann");
    let mut ann = world.actor(ANN);
    let mut connect = |family, port| {
        let at = world.host_at(family, port);
        let _listener = ann.socket(&Order::Listen(at));
        let before = classes(UPLINK);
        for _ in 0..COUNT {
            world.far.connect(at);
        }
        sleep(Duration::from_millis(100));
        let sent = Interval::since(before, UPLINK);
        println!("{COUNT} connections: {:?}", sent.leaves());
        sent
    };
    for (family, port) in [(Family::V4, 2_301), (Family::V6, 2_302)] {
        let sent = connect(family, port);
        assert!(sent.bytes(&class) >= COUNT * 66, "{:?}", sent.leaves());
        sent.others_stay_below(1_500, &[&class]);
    }
    tag_only::decides();
    let sent = connect(Family::V4, 2_303);
    assert!(sent.bytes(DEFAULT) >= COUNT * 66, "it should escape: {:?}", sent.leaves());
}

/// A process that is killed with unread data in its connections resets them; their sockets are in
/// no descriptor by then.
pub fn the_reset_of_a_connection_is_its_users() {
    const COUNT: u64 = 100;
    let mut world = World::new();
    apply(POLICY);
    let class = classid("user/ann");
    let mut resets = |port| {
        let at = world.host_at(Family::V4, port);
        let mut ann = world.actor(ANN);
        let listener = ann.socket(&Order::Listen(at));
        for _ in 0..COUNT {
            let socket = world.far.connect(at);
            ann.socket(&Order::Accept(listener));
            world.far.tell(&Order::Send { socket, bytes: 1 });
        }
        sleep(Duration::from_millis(200));
        let before = classes(UPLINK);
        drop(ann);
        sleep(Duration::from_millis(200));
        let sent = Interval::since(before, UPLINK);
        println!("{COUNT} resets: {:?}", sent.leaves());
        sent
    };
    let sent = resets(2_311);
    assert!(packets(&sent.before, &sent.after, &class) >= COUNT, "{:?}", sent.leaves());
    sent.others_stay_below(1_500, &[&class]);
    tag_only::decides();
    let sent = resets(2_312);
    assert!(packets(&sent.before, &sent.after, DEFAULT) >= COUNT, "{:?}", sent.leaves());
}

fn python(mut command: Command, name: &str, program: &str) -> Done {
    let path = format!("{SCRATCH}/{name}.py");
    fs::write(&path, program).expect("a program");
    command.arg(path);
    run_with(command, "").exits(0)
}

fn packets(before: &Classes, after: &Classes, class: &str) -> u64 {
    after.class(class).packets - before.class(class).packets
}

/// Bytes that came in over the uplink.
fn received() -> u64 {
    let text = fs::read_to_string(format!("/sys/class/net/{UPLINK}/statistics/rx_bytes"));
    text.expect("a counter").trim().parse().expect("a number")
}

/// RSTs of closed ports, ICMP errors, and what a connection in TIME_WAIT says: one for each packet
/// at most, and smaller; of the last two, so many a second.
pub fn answers_for_nobody_are_no_more_than_the_questions() {
    let world = World::new();
    apply(POLICY);
    run("ip addr add 10.77.1.1/16 dev up0");
    let stray = "
import socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
s.bind(('10.77.0.2', 0))
def checksum(data):
    total = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff
def segment(port):
    head = struct.pack('!HHIIBBHHH', 999, port, 1, 1, 0x50, 0x10, 100, 0, 0)
    pseudo = socket.inet_aton('10.77.0.2') + socket.inet_aton('10.77.0.1') + struct.pack('!BBH', 0, 6, 20)
    return head[:16] + struct.pack('!H', checksum(pseudo + head)) + head[18:]
for port in range(1, 5001):
    s.sendto(segment(port), ('10.77.0.1', 0))
";
    let (before, came) = (classes(UPLINK), received());
    python(world.far_command(&["python3"]), "stray", stray);
    sleep(Duration::from_millis(300));
    let (sent, came) = (Interval::since(before, UPLINK), received() - came);
    let resets = packets(&sent.before, &sent.after, DEFAULT);
    println!("{resets} RSTs, {} bytes for {came}", sent.bytes(DEFAULT));
    assert!((4_900..5_050).contains(&resets), "{:?}", sent.leaves());
    assert!(sent.bytes(DEFAULT) <= came + 1_000, "{:?} for {came}", sent.leaves());

    // From 200 addresses: one of them alone has an answer a second (`icmp_ratelimit`); all together
    // a thousand (`icmp_msgs_per_sec`), of at most 576 bytes.
    let lines =
        (1..=200).map(|n| format!("addr add 10.77.2.{n}/16 dev far0\n")).collect::<String>();
    run_with(world.far_command(&["ip", "-batch", "-"]), &lines).exits(0);
    let unreachable = "
import socket, time
end = time.time() + 2
sockets = []
for n in range(1, 201):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(('10.77.2.%d' % n, 0))
    sockets.append(s)
while time.time() < end:
    for s in sockets:
        s.sendto(b'x' * 1400, ('10.77.0.1', 9))
    time.sleep(0.001)
";
    let (before, came) = (classes(UPLINK), received());
    python(world.far_command(&["python3"]), "unreachable", unreachable);
    let (sent, came) = (Interval::since(before, UPLINK), received() - came);
    let errors = packets(&sent.before, &sent.after, DEFAULT);
    println!("{errors} ICMP errors in two seconds, {} bytes for {came}", sent.bytes(DEFAULT));
    between("ICMP errors", sent.rate(DEFAULT), 1, 5_000 * KBIT);
    assert!(sent.bytes(DEFAULT) < came, "{:?} for {came}", sent.leaves());
}

/// Joins and leaves multicast groups as fast as it goes, or sends to neighbours that are not there.
const NEIGHBOURLY: &str = "
import os, socket, struct, sys, time
what = sys.argv[1]
os.setgroups([]); os.setgid(UID); os.setuid(UID)
end = time.time() + 1
n = 0
index = socket.if_nametoindex('up0')
six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
four = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(200)]
def flip(s, group):
    try:
        s.setsockopt(0, socket.IP_ADD_MEMBERSHIP, group)
    except OSError:
        s.setsockopt(0, socket.IP_DROP_MEMBERSHIP, group)
while time.time() < end:
    n += 1
    try:
        if what == 'igmp':
            for k, s in enumerate(four):
                for g in range(20):
                    flip(s, socket.inet_aton('239.1.%d.%d' % (k, g)) + socket.inet_aton('10.77.0.1'))
        elif what == 'mld':
            group = socket.inet_pton(socket.AF_INET6, 'ff05::%x:%x' % (n >> 16, n & 65535))
            group += struct.pack('I', index)
            six.setsockopt(41, 20, group)
            six.setsockopt(41, 21, group)
        elif what == 'arp':
            four[0].sendto(b'x', ('10.77.%d.%d' % (n // 200 % 250 + 3, n % 200 + 3), 9))
        else:
            six.sendto(b'x', ('fd77::1:%x:%x' % (n >> 16, n & 65535), 9))
    except OSError:
        pass
";

/// What no socket of hers sends, and she makes the kernel send: reports of groups, and who-has of
/// ARP and of neighbour discovery. It says nothing to anybody beyond the link.
pub fn what_users_make_the_kernel_say_is_bounded() {
    let _world = World::new();
    run("ip addr add 10.77.3.1/16 dev up0");
    let class = || classid("user/ann");
    let says = |what: &str| {
        let before = classes(UPLINK);
        let mut command = Command::new("python3");
        let path = format!("{SCRATCH}/neighbourly.py");
        fs::write(&path, NEIGHBOURLY.replace("UID", &ANN.uid.to_string())).expect("a program");
        command.args([&path, what]);
        run_with(command, "").exits(0);
        // Each change puts IGMP's report off by two ticks (`igmp_ifc_event`), so it may come only
        // now.
        sleep(Duration::from_millis(300));
        Interval::since(before, UPLINK)
    };
    let most = [
        ("igmp", 20_000 * KBIT),
        ("mld", 20_000 * KBIT),
        ("arp", 1_000 * KBIT),
        ("ns", 1_000 * KBIT),
    ];
    apply(POLICY);
    for (what, most) in most {
        let sent = says(what);
        between(what, sent.rate(DEFAULT), 5 * KBIT, most);
        println!("{what}: {:?}", sent.leaves());
        assert!(sent.bytes(&class()) < sent.bytes(DEFAULT), "it is the kernel's");
    }
    // However much there is, a default class with a ceil holds it.
    apply(&POLICY.replace("{rate: 1mbit}", "{rate: 1mbit, ceil: 1mbit}"));
    between("mld", says("mld").rate(DEFAULT), 5 * KBIT, 1_200 * KBIT);
}

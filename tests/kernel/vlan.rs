//! Rules hold for packets with VLAN tags, wherever a tag is: in the packet's bytes, or beside them.

use std::net::UdpSocket;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::command::run;
use crate::support::counters;
use crate::support::harness::{On, tests};
use crate::support::program::{apply, classid};
use crate::support::world::{UPLINK, World};

tests!(
    On::HostAndUml => rules_hold_for_tagged_packets, rules_ask_for_the_outermost_tag;
);

const POLICY: &str = r#"
version: 1
links: {up0: {rate: 100mbit}}
classes: {net: {ceil: 50mbit}}
rules:
  - {dst: 10.22.0.0/16, proto: udp, dport: 9, to: net}
  - {dst: "fd22::/64", to: net}
"#;

const Q: [u8; 4] = [0x81, 0x00, 0x00, 22];
const AD: [u8; 4] = [0x88, 0xa8, 0x00, 100];
/// Of each kind.
const FRAMES: u64 = 10;

fn rules_hold_for_tagged_packets() {
    let _world = World::new();
    apply(POLICY);
    let net = classid("class/net");
    let shapes: [&[[u8; 4]]; 5] = [&[], &[Q], &[AD], &[AD, Q], &[Q, Q]];
    // From a packet socket on the link itself: all tags are in the packet's bytes.
    for tags in shapes {
        goes_by_the_rules(&net, "in band", UPLINK, tags);
    }
    bridge_a_guest();
    for tags in shapes {
        goes_by_the_rules(&net, "bridged", "guest", tags);
    }
    run("ip link set up0 nomaster");
    vlan_devices(&net, &[FRAMES; 4]);
}

/// A guest's frames: the bridge takes the outermost tag out of the bytes.
fn bridge_a_guest() {
    run("ip link add guest type veth peer name port");
    run("ip link add br0 type bridge");
    for line in ["guest up", "br0 up", "port master br0 up", "up0 master br0"] {
        run(&format!("ip link set {line}"));
    }
    let begun = Instant::now();
    while run("bridge link show dev port").contains("state listening")
        || !run("bridge link show dev up0").contains("state forwarding")
    {
        assert!(begun.elapsed() < Duration::from_secs(20), "the bridge forwards");
        sleep(Duration::from_millis(50));
    }
}

const BY_ID: &str = r#"
version: 1
links: {up0: {rate: 100mbit}}
classes: {twenty: {ceil: 50mbit}, hundreds: {ceil: 50mbit}, none: {ceil: 50mbit}}
rules:
  - {vlan: [7, 22], dst: 10.22.0.0/16, dport: 9, to: twenty}
  - {vlan: 90-110, to: hundreds}
  - {vlan: {not: 1-4094}, proto: udp, to: none}
"#;

fn rules_ask_for_the_outermost_tag() {
    let _world = World::new();
    apply(BY_ID);
    let [twenty, hundreds, none] = ["class/twenty", "class/hundreds", "class/none"].map(classid);
    let other = || "1:fffe".to_string();
    // The tags; where IPv4 to port 9, to port 10, and what is no IP goes.
    let shapes: [(&[[u8; 4]], [String; 3]); 6] = [
        (&[], [none.clone(), none.clone(), other()]),
        (&[Q], [twenty.clone(), other(), other()]),
        (&[AD], [hundreds.clone(), hundreds.clone(), hundreds.clone()]),
        (&[AD, Q], [hundreds.clone(), hundreds.clone(), hundreds.clone()]),
        (&[Q, AD], [twenty.clone(), other(), other()]),
        // A tag for its priority alone says no VLAN.
        (&[[0x81, 0x00, 0x60, 0]], [none.clone(), none, other()]),
    ];
    let all = |how: &str, link: &str| {
        for (tags, classes) in &shapes {
            let packets = [
                (0x0800, v4([10, 22, 0, 2], 9)),
                (0x0800, v4([10, 22, 0, 2], 10)),
                (0x88b5, v6(0x22)),
            ];
            for ((ethertype, packet), class) in packets.into_iter().zip(classes) {
                let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
                frame.extend(tags.concat());
                frame.extend(u16::to_be_bytes(ethertype));
                frame.extend(packet);
                let what = format!("{how}, tags {tags:x?}, ethertype {ethertype:x}, to {class}");
                at_least(class, &what, || send(link, &frame));
            }
        }
    };
    all("in band", UPLINK);
    bridge_a_guest();
    all("bridged", "guest");
    run("ip link set up0 nomaster");
    // up0.22, up0.7, up0.100 and the VLAN inside that.
    vlan_devices(&twenty, &[FRAMES, FRAMES, 0, 0]);
}

/// As [`counts`], in a class that others' packets may come to as well.
#[track_caller]
fn at_least(class: &str, what: &str, mut send: impl FnMut()) {
    let packets = || counters::classes(UPLINK).class(class).packets;
    let before = packets();
    (0..FRAMES).for_each(|_| send());
    let begun = Instant::now();
    while packets() < before + FRAMES {
        assert!(begun.elapsed() < Duration::from_secs(5), "{what}: {} came", packets() - before);
        sleep(Duration::from_millis(5));
    }
}

/// Frames that a rule is for, and as many that differ in one field.
fn goes_by_the_rules(net: &str, how: &str, link: &str, tags: &[[u8; 4]]) {
    for (what, ethertype, packet, matches) in [
        ("IPv4", 0x0800, v4([10, 22, 0, 2], 9), true),
        ("IPv4 to another port", 0x0800, v4([10, 22, 0, 2], 10), false),
        ("IPv6", 0x86dd, v6(0x22), true),
        ("IPv6 to another network", 0x86dd, v6(0x23), false),
        ("no IP, but its bytes", 0x88b5, v4([10, 22, 0, 2], 9), false),
    ] {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        frame.extend(tags.concat());
        frame.extend(u16::to_be_bytes(ethertype));
        frame.extend(packet);
        let what = format!("{what}, {how}, tags {tags:x?}");
        let wanted = if matches { FRAMES } else { 0 };
        counts(net, wanted, &what, || send(link, &frame));
    }
}

/// That `send`, done as often as there are frames, sends so many through the class.
#[track_caller]
fn counts(net: &str, wanted: u64, what: &str, mut send: impl FnMut()) {
    // One look has both: in user-mode Linux it is the looks that take the time.
    let packets = || {
        let classes = counters::classes(UPLINK);
        [net, "1:1"].map(|id| classes.class(id).packets)
    };
    let [before, passed] = packets();
    for _ in 0..FRAMES {
        send();
    }
    let begun = Instant::now();
    let mut now = packets();
    while now[1] < passed + FRAMES && begun.elapsed() < Duration::from_secs(5) {
        sleep(Duration::from_millis(5));
        now = packets();
    }
    assert!(now[1] >= passed + FRAMES, "{what}: not all left by the link");
    assert_eq!(now[0] - before, wanted, "{what}");
}

/// The kernel's own, where it has them: the tag is beside the bytes, or in them where the header
/// may not be reordered.
fn vlan_devices(net: &str, to_port_9: &[u64; 4]) {
    let add = |words: &str| {
        let mut ip = std::process::Command::new("ip");
        ip.args(format!("link add {words}").split(' ')).status().is_ok_and(|s| s.success())
    };
    if !add("link up0 name up0.22 type vlan id 22") {
        println!("this kernel has no VLAN devices");
        return;
    }
    assert!(add("link up0 name up0.7 type vlan id 7 reorder_hdr off"));
    assert!(add("link up0 name up0.100 type vlan proto 802.1ad id 100"));
    run("ip link set up0.100 up");
    assert!(add("link up0.100 name inner type vlan id 22"));
    for (nth, link) in ["up0.22", "up0.7", "up0.100", "inner"].into_iter().enumerate() {
        run(&format!("ip link set {link} up"));
        run(&format!("ip addr add 10.22.{nth}.1/24 dev {link}"));
        run(&format!("ip neigh add 10.22.{nth}.2 lladdr 02:00:00:00:00:01 dev {link}"));
        let socket = UdpSocket::bind((format!("10.22.{nth}.1"), 0)).expect("a socket");
        for (port, wanted) in [(9, to_port_9[nth]), (10, 0)] {
            counts(net, wanted, &format!("{link}, port {port}"), || {
                socket.send_to(b"x", (format!("10.22.{nth}.2"), port)).expect("send");
            });
        }
    }
}

fn v4(to: [u8; 4], port: u8) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 29, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 22, 9, 9];
    packet.extend(to);
    // A bridge that hands packets to netfilter drops those whose sum is wrong.
    let words = packet.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum = words.sum::<u32>();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend([0, 7, 0, port, 0, 9, 0, 0, b'x']);
    packet
}

fn v6(network: u8) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 9, 17, 64];
    packet.extend([0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    packet.extend([0xfd, network, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    packet.extend([0, 7, 0, 9, 0, 9, 0, 0, b'x']);
    packet
}

/// A frame as it is, through a packet socket.
pub fn send(link: &str, frame: &[u8]) {
    const ANYTHING: libc::c_int = (libc::ETH_P_ALL as u16).to_be() as libc::c_int;
    let name = std::ffi::CString::new(link).expect("a name");
    // SAFETY: the name ends with a zero byte; the address is a sockaddr_ll whose length is given,
    // and the kernel reads both and the frame only during the calls.
    unsafe {
        let socket = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
        assert!(socket >= 0, "{}", std::io::Error::last_os_error());
        let mut to: libc::sockaddr_ll = std::mem::zeroed();
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_protocol = ANYTHING as u16;
        to.sll_ifindex = libc::if_nametoindex(name.as_ptr()) as i32;
        let sent = libc::sendto(
            socket,
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const to).cast(),
            size_of::<libc::sockaddr_ll>() as u32,
        );
        assert_eq!(sent, frame.len() as isize, "{}", std::io::Error::last_os_error());
        libc::close(socket);
    }
}

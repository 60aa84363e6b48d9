//! However packets come on the wire, tagged, with headers before their ports or in fragments, all
//! of them are in their user's class.

use std::thread::sleep;
use std::time::Duration;

use crate::support::accounts::ANN;
use crate::support::actor::Actor;
use crate::support::clock::soon;
use crate::support::command::run;
use crate::support::counters::classes;
use crate::support::harness::{On, tests};
use crate::support::orders::{Answer, Order};
use crate::support::program::{apply, classid};
use crate::support::rates::Interval;
use crate::support::world::World;
use crate::vlan::send;

tests!(
    On::HostAndUml => headers_and_fragments_hide_no_flow;
    On::Uml => what_comes_by_a_vlan_device_is_its_users;
);

const POLICY: &str = "
version: 1
links: {up0: {rate: 100mbit, down: 90mbit}}
users: {ann: {ceil: 50mbit, down: 40mbit}, bob: 20mbit}
";

/// Of each shape.
const FRAMES: u64 = 10;

/// A link whose far end is here too: what a packet socket puts there arrives.
fn link_to_ourselves(world: &World) -> Actor {
    run("ip link add up1 type veth peer name far1");
    run("ip link set far1 up");
    run("ip link set up1 up");
    run("ip addr add 10.88.0.1/24 dev up1");
    run("ip addr add fd88::1/64 dev up1 nodad");
    let mac = "02:00:00:00:00:01";
    run(&format!("ip neigh add 10.88.0.2 lladdr {mac} dev up1"));
    run(&format!("ip neigh add fd88::2 lladdr {mac} dev up1"));
    apply(&POLICY.replace("up0", "up1"));
    world.actor(ANN)
}

/// Has the actor send to a far port 9; its own port.
fn own_port(actor: &mut Actor, to: &str) -> u16 {
    let at = format!("{to}:9").parse().expect("an address");
    let socket = actor.socket(&Order::Datagram(at));
    actor.tell(&Order::Beat { socket, bytes: 100, bits_per_second: 100_000 });
    let listed = || run(&format!("ss -Hun dst {to}"));
    soon("the socket", Duration::from_secs(5), || !listed().is_empty());
    sleep(Duration::from_millis(100));
    let line = listed();
    let mut words = line.split_whitespace().filter(|word| word.contains(':'));
    let port = words.next().and_then(|local| local.rsplit(':').next());
    port.and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("{line}"))
}

/// Where frames for the link go to.
fn address() -> Vec<u8> {
    let text = std::fs::read_to_string("/sys/class/net/up1/address");
    let link = run("ip -o link show up1");
    let words = || link.split_whitespace().skip_while(|word| *word != "link/ether").nth(1);
    let mac = text.ok().or_else(|| words().map(str::to_string)).expect("the link's address");
    let bytes = mac.trim().split(':').map(|byte| u8::from_str_radix(byte, 16));
    bytes.collect::<Result<_, _>>().expect("hexadecimal")
}

fn ethernet(to: &[u8], tag: &[u8], protocol: u16, packet: &[u8]) -> Vec<u8> {
    [to, &[2, 0, 0, 0, 0, 1], tag, &protocol.to_be_bytes(), packet].concat()
}

fn udp(port: u16) -> Vec<u8> {
    [&[0, 9], &port.to_be_bytes()[..], &[0, 16, 0, 0], &[7; 8]].concat()
}

/// The part of a fragment's header that says which one it is: identification, offset, more.
type Part = Option<(u8, u16, bool)>;

fn v4(options: usize, part: Part, body: &[u8]) -> Vec<u8> {
    let (id, offset, more) = part.unwrap_or((0, 0, false));
    let word = offset | u16::from(more) << 13;
    let length = u16::try_from(20 + options * 4 + body.len()).expect("short").to_be_bytes();
    let mut packet = [&[0x45 + options as u8, 0][..], &length, &[0, id]].concat();
    packet.extend(word.to_be_bytes());
    packet.extend([64, 17, 0, 0, 10, 88, 0, 2, 10, 88, 0, 1]);
    packet.extend(vec![1; options * 4]);
    let words = packet.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum = words.sum::<u32>();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(body);
    packet
}

/// With headers of these kinds before the body.
fn v6(kinds: &[u8], part: Part, body: &[u8]) -> Vec<u8> {
    let mut headers: Vec<(u8, Vec<u8>)> =
        kinds.iter().map(|kind| (*kind, vec![0, 0, 1, 4, 0, 0, 0, 0])).collect();
    if let Some((id, offset, more)) = part {
        let word = (offset << 3 | u16::from(more)).to_be_bytes();
        headers.push((44, [&[0, 0][..], &word, &[0, 0, 0, id]].concat()));
    }
    let (mut next, mut behind) = (17, body.to_vec());
    for (kind, mut header) in headers.into_iter().rev() {
        header[0] = next;
        next = kind;
        behind = [header, behind].concat();
    }
    let length = u16::try_from(behind.len()).expect("short").to_be_bytes();
    let address = |last: u8| [&[0xfd, 0x88][..], &[0; 13], &[last]].concat();
    [&[0x60, 0, 0, 0][..], &length, &[next, 64], &address(2), &address(1), &behind].concat()
}

fn headers_and_fragments_hide_no_flow() {
    let world = World::new();
    let mut ann = link_to_ourselves(&world);
    let v4_port = own_port(&mut ann, "10.88.0.2");
    let v6_port = own_port(&mut ann, "[fd88::2]");
    let of_ann = classid("user/ann");
    let (to_v4, to_v6) = (udp(v4_port), udp(v6_port));
    let [first, later] = [(0, true), (2, false)].map(|(at, more)| move |id| Some((id, at, more)));
    let shapes: [(&str, u16, Vec<Vec<u8>>); 8] = [
        ("IPv4", 0x0800, vec![v4(0, None, &to_v4)]),
        ("IPv4 options", 0x0800, vec![v4(3, None, &to_v4)]),
        ("IPv4 fragments", 0x0800, vec![v4(0, first(1), &to_v4), v4(0, later(1), &[7; 24])]),
        ("IPv6", 0x86dd, vec![v6(&[], None, &to_v6)]),
        ("hop-by-hop", 0x86dd, vec![v6(&[0], None, &to_v6)]),
        ("four headers", 0x86dd, vec![v6(&[0, 60, 60, 60], None, &to_v6)]),
        ("IPv6 fragments", 0x86dd, vec![v6(&[], first(2), &to_v6), v6(&[], later(2), &[7; 24])]),
        (
            "fragments behind a header",
            0x86dd,
            vec![v6(&[0], first(3), &to_v6), v6(&[0], later(3), &[7; 24])],
        ),
    ];
    let to = address();
    let seen = || {
        let all = classes("ifb-up1");
        [of_ann.as_str(), "1:1"].map(|class| all.class(class).packets)
    };
    for (what, protocol, packets) in shapes {
        // The outermost tag is taken out of the packet's bytes, another one stays there.
        let one: [u8; 4] = [0x81, 0x00, 0x00, 5];
        let two: [u8; 8] = [0x88, 0xa8, 0x00, 6, 0x81, 0x00, 0x00, 5];
        for tag in [&[][..], &one, &two] {
            // Few looks: in user-mode Linux it is these that take the time.
            let before = seen();
            for _ in 0..FRAMES {
                packets.iter().for_each(|it| send("far1", &ethernet(&to, tag, protocol, it)));
            }
            let sent = FRAMES * packets.len() as u64;
            let mut after = before;
            soon(what, Duration::from_secs(5), || {
                after = seen();
                after[1] - before[1] >= sent
            });
            assert_eq!(after[0] - before[0], sent, "{what}, tag {tag:?}");
        }
    }
}

fn what_comes_by_a_vlan_device_is_its_users() {
    let mut world = World::new();
    apply(POLICY);
    run("ip link add link up0 name up0.5 type vlan id 5");
    run("ip addr add 10.78.0.1/24 dev up0.5");
    run("ip addr add fd78::1/64 dev up0.5 nodad");
    run("ip link set up0.5 up");
    for line in [
        "ip link add link far0 name far0.5 type vlan id 5",
        "ip addr add 10.78.0.2/24 dev far0.5",
        "ip addr add fd78::2/64 dev far0.5 nodad",
        "ip link set far0.5 up",
    ] {
        world.on_far(line);
    }
    let of_ann = classid("user/ann");
    let mut ann = world.actor(ANN);
    sleep(Duration::from_millis(500));
    let before = classes("ifb-up0");
    for to in ["10.78.0.2:0", "[fd78::2]:0"] {
        let to = to.parse().expect("an address");
        for payload in [56, 1_400, 4_000] {
            match ann.tell(&Order::Ping { to, count: 20, payload }) {
                Answer::Replies(replies) => assert_eq!(replies, 20, "{to}"),
                other => panic!("{other:?}"),
            }
        }
    }
    let at: std::net::SocketAddr = "[fd78::2]:7100".parse().expect("an address");
    let listener = world.far.socket(&Order::Listen(at));
    let socket = ann.connect(at);
    let sender = world.far.socket(&Order::Accept(listener));
    ann.tell(&Order::Drain { socket, port: 7_100 });
    world.far.tell(&Order::Send { socket: sender, bytes: 2_000_000 });
    sleep(Duration::from_millis(700));
    let after = Interval::since(before, "ifb-up0");
    assert!(after.bytes(&of_ann) > 2_000_000, "{after:?}");
    after.others_stay_below(1_000, &[&of_ann]);
}

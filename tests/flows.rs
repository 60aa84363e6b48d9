//! The programs that note flows and find them again, run as values by an interpreter over packets
//! of both ways. Needs nothing of the machine. What the verifiers take, and what real packets get,
//! is tried by `tests/kernel`.

#[path = "interpreter/ethernet.rs"]
mod ethernet;
mod interpreter;

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use proptest::collection::vec;
use proptest::prelude::*;

use interpreter::{Context, Machine, Packet};
use shaper::classify::assembler::Instruction;
use shaper::classify::flows::*;
use shaper::classify::noted::SKB_CONTROL;
use shaper::classify::program::{MAP_LOOKUP, TASK_CLASSID};
use shaper::classify::program_rules::SKB_PROTOCOL;
use shaper::classify::servers::{self, Bound, Protocol, SERVERS};
use shaper::tree::Tag;
use shaper::units::{ClassId, Minor, Shard};

const ANN: u32 = 0x1_0010;

type Values = HashMap<Vec<u8>, Box<[u8; VALUE_BYTES as usize]>>;

/// What the functions answer about: they are plain functions.
#[derive(Default)]
struct World {
    /// The sender's.
    class: u32,
    flows: Values,
    servers: HashMap<Vec<u8>, Box<[u8; 4]>>,
    /// What the program has left in the packet's control block.
    told: u32,
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::default();
}

fn bytes_at(address: u64, count: usize) -> Vec<u8> {
    let from = std::ptr::with_exposed_provenance::<u8>(address as usize);
    // SAFETY: the program's stack, below its end by what the program says.
    unsafe { std::slice::from_raw_parts(from, count) }.to_vec()
}

fn class(_: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
    WORLD.with_borrow(|world| world.class.into())
}

fn look_up(map: u64, key: u64, _: u64, _: u64, _: u64) -> u64 {
    if map == u64::from(SERVERS) {
        let key = bytes_at(key, servers::KEY_BYTES as usize);
        return WORLD.with_borrow(|world| {
            world.servers.get(&key).map_or(0, |value| value.as_ptr().expose_provenance() as u64)
        });
    }
    assert_eq!(map, u64::from(FLOWS));
    let key = bytes_at(key, KEY_BYTES as usize);
    WORLD.with_borrow_mut(|world| {
        let value = world.flows.get_mut(&key);
        value.map_or(0, |value| value.as_mut_ptr().expose_provenance() as u64)
    })
}

fn update(map: u64, key: u64, value: u64, flags: u64, _: u64) -> u64 {
    assert_eq!((map, flags), (u64::from(FLOWS), 0));
    let (key, value) = (bytes_at(key, KEY_BYTES as usize), bytes_at(value, VALUE_BYTES as usize));
    let value = Box::new(value.try_into().expect("a value"));
    WORLD.with_borrow_mut(|world| world.flows.insert(key, value));
    0
}

/// What the program returns.
fn run(code: &[Instruction], packet: &Packet) -> u32 {
    run_in(code, packet, &mut [0xaa; 192])
}

/// What it returns, and what it leaves for the next one.
fn run_in(code: &[Instruction], packet: &Packet, context: &mut Context) -> u32 {
    let functions: [(i32, rbpf::ebpf::Helper); 3] =
        [(MAP_LOOKUP, look_up), (MAP_UPDATE, update), (TASK_CLASSID, class)];
    let memory: Vec<(u64, u64)> = WORLD.with_borrow_mut(|world| {
        let flows = world
            .flows
            .values_mut()
            .map(|value| (value.as_mut_ptr().expose_provenance() as u64, VALUE_BYTES.into()));
        let servers =
            world.servers.values().map(|value| (value.as_ptr().expose_provenance() as u64, 4));
        flows.chain(servers).collect()
    });
    context[SKB_PROTOCOL as usize..][..2].copy_from_slice(&ethernet::protocol(packet));
    let machine = Machine { packet, functions: &functions, memory: &memory };
    let answer = machine.run(code, context) as u32;
    let [a, b, c, d] = std::array::from_fn(|at| context[SKB_CONTROL as usize + at]);
    WORLD.with_borrow_mut(|world| world.told = u32::from_ne_bytes([a, b, c, d]));
    answer
}

/// One flow.
#[derive(Clone, Copy, Debug)]
struct Flow {
    v6: bool,
    protocol: u8,
    /// Local and remote; of an echo the identifier is the local one.
    ports: [u16; 2],
    hosts: [u8; 2],
}

/// How a packet of it looks.
#[derive(Clone, Debug, Default)]
struct Look {
    /// VLAN tags in the packet's bytes: their ethertypes.
    tags: Vec<u16>,
    /// The network header is at the first of them.
    at_tag: bool,
    /// IPv4 options in words, or IPv6 extension headers.
    extras: Vec<u8>,
    /// Identification and offset of a fragment, and whether there are more.
    fragment: Option<(u16, u16, bool)>,
    /// What is behind the fragment header of IPv6 in the first fragment is another header.
    behind_it: bool,
}

const OUT: bool = true;
const IN: bool = false;

impl Flow {
    fn transport(self, out: bool) -> Vec<u8> {
        let [local, remote] = self.ports.map(u16::to_be_bytes);
        let echo = |request: u8, reply: u8| {
            let kind = if out { request } else { reply };
            [&[kind, 0, 0, 0], &local[..], &[0, 1]].concat()
        };
        let mut bytes = match (self.protocol, out) {
            (1, _) => echo(8, 0),
            (58, _) => echo(128, 129),
            (6 | 17 | 33 | 132 | 136, OUT) => [local, remote].concat(),
            (6 | 17 | 33 | 132 | 136, IN) => [remote, local].concat(),
            _ => vec![7; 4],
        };
        bytes.resize(40, 0);
        bytes
    }

    fn address(self, local: bool) -> Vec<u8> {
        let host = self.hosts[usize::from(!local)];
        match self.v6 {
            false => vec![10, u8::from(local), 0, host],
            true => [&[0xfd; 15][..], &[host ^ u8::from(local) << 7]].concat(),
        }
    }

    fn packet(self, out: bool, look: &Look) -> Packet {
        let (from, to) = (self.address(out), self.address(!out));
        let body = match look.fragment {
            Some((_, offset, _)) if offset > 0 => vec![0; 40],
            _ => self.transport(out),
        };
        let ip = if self.v6 { self.v6(look, body) } else { self.v4(look, body) };
        let place = if self.v6 { 8 } else { 12 };
        let mut ip = ip;
        ip[place..place + from.len()].copy_from_slice(&from);
        ip[place + from.len()..place + 2 * from.len()].copy_from_slice(&to);
        let protocol: u16 = if self.v6 { 0x86dd } else { 0x0800 };
        ethernet::frame(&look.tags, protocol, &ip, look.at_tag)
    }

    fn v4(self, look: &Look, body: Vec<u8>) -> Vec<u8> {
        let options = look.extras.len().min(10);
        let mut ip = vec![0; 20 + options * 4];
        ip[0] = 0x45 + options as u8;
        ip[9] = self.protocol;
        if let Some((id, offset, more)) = look.fragment {
            ip[4..6].copy_from_slice(&id.to_be_bytes());
            ip[6..8].copy_from_slice(&(offset | u16::from(more) << 13).to_be_bytes());
        }
        [ip, body].concat()
    }

    fn v6(self, look: &Look, body: Vec<u8>) -> Vec<u8> {
        let mut headers: Vec<(u8, Vec<u8>)> = Vec::new();
        for extra in look.extras.iter().take(5) {
            headers.push(match extra % 5 {
                0 => (0, vec![0, 0, 1, 4, 0, 0, 0, 0]),
                1 => (43, [&[0, 1, 1, 12], &[0; 12][..]].concat()),
                2 => (60, vec![0, 0, 1, 4, 0, 0, 0, 0]),
                3 => (51, [&[0, 1], &[0; 10][..]].concat()),
                _ => (135, vec![0, 0, 1, 4, 0, 0, 0, 0]),
            });
        }
        if let Some((id, offset, more)) = look.fragment {
            let word = (offset << 3 | u16::from(more)).to_be_bytes();
            let id = u32::from(id).to_be_bytes();
            headers.push((44, [&[0, 0], &word[..], &id].concat()));
        }
        let mut ip = vec![0; 40];
        ip[0] = 0x60;
        let (mut next, mut behind) = match look.fragment {
            Some((_, 0, _)) if look.behind_it => {
                (60, [&[self.protocol, 0, 1, 4, 0, 0, 0, 0], &body[..]].concat())
            }
            Some(_) if look.behind_it => (60, body),
            _ => (self.protocol, body),
        };
        for (kind, mut header) in headers.into_iter().rev() {
            header[0] = next;
            next = kind;
            behind = [header, behind].concat();
        }
        ip[6] = next;
        [ip, behind].concat()
    }
}

fn flows() -> impl Strategy<Value = Flow> {
    let protocols = prop_oneof![
        Just((false, 1)),
        Just((true, 58)),
        (any::<bool>(), prop_oneof![Just(6), Just(17), Just(33), Just(132), Just(136), Just(47)]),
    ];
    (protocols, any::<[u16; 2]>(), [0_u8..100, 0_u8..100])
        .prop_map(|((v6, protocol), ports, hosts)| Flow { v6, protocol, ports, hosts })
}

fn looks() -> impl Strategy<Value = Look> {
    let tags = vec(prop::sample::select(vec![0x8100, 0x88a8]), 0..3);
    (tags, any::<bool>(), vec(any::<u8>(), 0..5)).prop_map(|(tags, at_tag, extras)| Look {
        tags,
        at_tag,
        extras,
        ..Look::default()
    })
}

fn note(class: u32, flow: Flow, look: &Look) {
    WORLD.with_borrow_mut(|world| world.class = class);
    let packet = flow.packet(OUT, look);
    assert_eq!(run(&learn(Tag::Cgroup), &packet), u32::MAX, "every packet goes on");
}

fn found(flow: Flow, look: &Look) -> u32 {
    let packet = flow.packet(IN, look);
    run(&find(false, false), &packet)
}

/// What rules are told whose the packet is; it matches nothing.
fn told(flow: Flow, look: &Look) -> u32 {
    let packet = flow.packet(IN, look);
    assert_eq!(run(&find(false, true), &packet), 0, "the next filter is asked");
    WORLD.with_borrow(|world| world.told)
}

fn forget() {
    WORLD.with_borrow_mut(|world| *world = World::default());
}

proptest! {
    #[test]
    fn what_answers_a_packet_is_its_senders(flow in flows(), out in looks(), answer in looks()) {
        forget();
        prop_assert_eq!(found(flow, &answer), 0, "nobody has sent anything");
        prop_assert_eq!(told(flow, &answer), 0);
        note(ANN, flow, &out);
        prop_assert_eq!(found(flow, &answer), ANN);
        prop_assert_eq!(told(flow, &answer), ANN);
        note(ANN + 1, flow, &Look::default());
        prop_assert_eq!(found(flow, &answer), ANN + 1, "the socket has changed hands");
        note(0, flow, &out);
        prop_assert_eq!(found(flow, &answer), 0, "and is nobody's at last");
    }

    #[test]
    fn another_flow_is_nobodys(flow in flows(), other in flows(), look in looks()) {
        forget();
        note(ANN, flow, &Look::default());
        let of = |flow: Flow| {
            let ports = match flow.protocol {
                1 | 58 => [flow.ports[0], 0],
                47 => [0, 0],
                _ => flow.ports,
            };
            (flow.v6, flow.protocol, ports, flow.hosts)
        };
        prop_assert_eq!(found(other, &look) == ANN, of(flow) == of(other));
    }

    #[test]
    fn later_fragments_are_the_first_ones(
        flow in flows(),
        id in any::<u16>(),
        look in looks(),
        behind_it in any::<bool>(),
    ) {
        forget();
        note(ANN, flow, &Look::default());
        let part = |id, offset, more| {
            Look { fragment: Some((id, offset, more)), behind_it, ..look.clone() }
        };
        prop_assert_eq!(found(flow, &part(id, 5, true)), 0, "the first one has not come");
        prop_assert_eq!(found(flow, &part(id, 0, true)), ANN);
        prop_assert_eq!(found(flow, &part(id, 5, true)), ANN);
        prop_assert_eq!(found(flow, &part(id, 10, false)), ANN);
        prop_assert_eq!(found(flow, &part(id.wrapping_add(1), 10, false)), 0);
    }

    #[test]
    fn no_bytes_are_an_error(
        flow in flows(),
        look in looks(),
        dirt in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        forget();
        let mut packet = flow.packet(IN, &look);
        for (at, byte) in dirt {
            *at.get_mut(&mut packet.bytes) = byte;
        }
        packet.bytes.truncate(cut.index(packet.bytes.len() + 1));
        for code in [learn(Tag::Cgroup), find(true, false), find(false, true)] {
            run(&code, &packet);
        }
    }
}

/// Has these sockets bound, on a host with these addresses.
fn bind(sockets: &[Bound], addresses: &[IpAddr]) {
    let addresses: BTreeSet<IpAddr> = addresses.iter().copied().collect();
    let servers = servers::servers(sockets, &addresses);
    let entries =
        servers.into_iter().map(|(key, class)| (key.0.into(), Box::new(class.0.to_ne_bytes())));
    WORLD.with_borrow_mut(|world| world.servers = entries.collect());
}

/// The local address of packets of the flow.
fn host(flow: Flow) -> IpAddr {
    let bytes = flow.address(true);
    match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(v4) => v4.into(),
        Err(_) => <[u8; 16]>::try_from(bytes.as_slice()).expect("16 bytes").into(),
    }
}

#[test]
fn what_nobody_has_answered_yet_is_the_bound_sockets_owners() {
    for (v6, protocol) in [(false, Protocol::Tcp), (true, Protocol::Tcp), (true, Protocol::Udp)] {
        let number = if protocol == Protocol::Tcp { 6 } else { 17 };
        let flow = Flow { v6, protocol: number, ports: [443, 40_000], hosts: [1, 2] };
        let look = Look { extras: vec![0, 2], ..Look::default() };
        let any: IpAddr = if v6 { [0; 16].into() } else { [0; 4].into() };
        let socket = |address, port, class| {
            let class = ClassId(class);
            Bound { protocol, address, port, both: true, class }
        };
        forget();
        bind(&[socket(any, 443, ANN)], &[host(flow)]);
        assert_eq!(found(flow, &look), ANN);
        assert_eq!(found(Flow { ports: [444, 40_000], ..flow }, &look), 0, "another port");
        assert_eq!(found(Flow { protocol: 23 - number, ..flow }, &look), 0, "another protocol");
        bind(&[socket(any, 443, ANN), socket(host(flow), 443, ANN + 1)], &[host(flow)]);
        assert_eq!(found(flow, &look), ANN + 1, "this address's socket goes first");
        bind(&[socket(any, 443, ANN), socket(host(flow), 443, 0)], &[host(flow)]);
        assert_eq!(found(flow, &look), 0, "nobody's, too");
        bind(&[socket(any, 443, ANN)], &[]);
        assert_eq!(found(flow, &look), 0, "forwarded to somebody else");
        // A flow goes first, unless that is nobody's.
        bind(&[socket(any, 443, ANN)], &[host(flow)]);
        note(ANN + 2, flow, &look);
        assert_eq!(found(flow, &look), ANN + 2);
        note(0, flow, &look);
        assert_eq!(found(flow, &look), ANN, "the last connection has ended");
    }
}

#[test]
fn fragments_and_packets_to_a_group_are_the_bound_sockets_owners() {
    let any: IpAddr = [0; 4].into();
    let class = ClassId(ANN);
    let bound = Bound { protocol: Protocol::Udp, address: any, port: 5_004, both: false, class };
    let flow = Flow { v6: false, protocol: 17, ports: [5_004, 9], hosts: [1, 2] };
    forget();
    bind(&[bound], &[host(flow)]);
    let part = |offset, more| Look { fragment: Some((7, offset, more)), ..Look::default() };
    assert_eq!(found(flow, &part(0, true)), ANN);
    assert_eq!(found(flow, &part(5, false)), ANN);
    let mut packet = flow.packet(IN, &Look::default());
    for (first, whose) in [(224, ANN), (239, ANN), (240, 0), (223, 0)] {
        packet.bytes[14 + 16] = first;
        assert_eq!(run(&find(false, false), &packet), whose, "to {first}.…");
    }
}

#[test]
fn at_the_root_a_class_of_a_shard_is_the_shards() {
    let shard = Shard::new(0xe003).unwrap();
    let class = shard.user(Minor(0x10));
    let flow = Flow { v6: false, protocol: 6, ports: [40_000, 443], hosts: [1, 2] };
    forget();
    note(class.0, flow, &Look::default());
    assert_eq!(found(flow, &Look::default()), class.0);
    let packet = flow.packet(IN, &Look::default());
    let mut context = [0xaa; 192];
    assert_eq!(ClassId(run_in(&find(true, false), &packet, &mut context)), shard.class());
    assert_eq!(told(flow, &Look::default()), class.0, "rules compare the user's own class");
    forget();
    let below = find(false, false);
    assert_eq!(run_in(&below, &packet, &mut context), class.0, "as the root has found it");
    assert_eq!(run_in(&below, &packet, &mut context), 0, "once");
}

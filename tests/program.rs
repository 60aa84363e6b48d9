//! The deciding program, run as a value by an interpreter, beside what it should answer, in words.
//! Needs nothing of the machine. What the verifiers take is tried by `tests/netlink`, what packets
//! get by `tests/kernel`.

mod interpreter;
#[path = "program/options.rs"]
mod options;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use interpreter::{Context, Machine, Packet as Bytes};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

use shaper::classify::assembler::Instruction;
use shaper::classify::cgroups::{ANCESTOR_CGROUP, DEEPEST, MASK_KEY, bit, cgroup};
use shaper::classify::flows::learn;
use shaper::classify::label::{SKB_INGRESS_IFINDEX, SKB_TC_INDEX};
use shaper::classify::program::*;
use shaper::tree::{
    Cgroup, MptcpLayout, NamespaceLayout, OwnerTable, Program, Sockets, Tag, TagHelper, Turn,
};
use shaper::units::{ClassId, Minor, Shard};

const OURS: u64 = 0x1_0000_0011;

/// A packet, as the kernel's functions tell of it.
#[derive(Clone, Copy, Debug)]
struct Packet {
    tag: u32,
    /// `None`: no socket; else whether it is a full one, its namespace and its owner.
    socket: Option<(bool, u64, u32)>,
    /// Where it is no full one: the request of a connection, of whose listener the functions tell.
    is_request: bool,
    /// Whether the socket is one of TCP; else it is a raw one of the same protocol, as the kernel's
    /// own is with which it answers.
    is_tcp: bool,
    /// Of the MPTCP socket that it is a subflow of: owner and tag.
    mptcp: Option<(u32, u32)>,
    /// The link by which it came in, 0 for one of this host, and the label that it has.
    from: u32,
    label: u16,
    /// The numbers of the cgroups at the levels 1 and deeper that the socket is in; 0: it is in
    /// none that deep.
    cgroups: [u64; DEEPEST as usize],
}

/// A forwarded one, as far as nothing else is said.
const ORDINARY: Packet = Packet {
    tag: 0,
    socket: None,
    is_request: false,
    is_tcp: true,
    mptcp: None,
    from: 0,
    label: 0,
    cgroups: [0; DEEPEST as usize],
};

/// Where [`MPTCP`] has them.
const LAYOUT: MptcpLayout = MptcpLayout { owner: 4, tag: 12 };

/// Where [`SOCKET`] and [`NAMESPACE`] have them.
const NAMESPACE_LAYOUT: NamespaceLayout = NamespaceLayout { namespace: 24, inode: 8 };

/// The inode of the namespace that has this cookie.
const fn inode(cookie: u64) -> u32 {
    (cookie ^ cookie >> 32) as u32
}

const BY_INODE: Sockets = Sockets::Inode(inode(OURS), NAMESPACE_LAYOUT);

#[derive(Clone, Debug)]
struct World {
    packet: Packet,
    table: OwnerTable,
    given: BTreeSet<(u32, u32)>,
}

thread_local! {
    /// What the functions answer about: they are plain functions.
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
    /// Where a looked-up value lies.
    static VALUE: RefCell<Box<u32>> = RefCell::new(Box::new(0));
    /// `struct bpf_sock` of the packet's socket.
    static SOCKET: RefCell<Box<[u32; 20]>> = RefCell::new(Box::new([0; 20]));
    /// The network namespace of the packet's socket.
    static NAMESPACE: RefCell<Box<[u32; 4]>> = RefCell::new(Box::new([0; 4]));
    /// An MPTCP socket.
    static MPTCP: RefCell<Box<[u32; 4]>> = RefCell::new(Box::new([0; 4]));
}

fn socket_address() -> u64 {
    SOCKET.with(|socket| (&raw const **socket.borrow()).expose_provenance() as u64)
}

/// The packet's socket, as far as the programs read it by themselves.
fn make_socket(packet: &Packet) {
    let (stream, raw, tcp) = (1, 3, 6);
    let kind = if packet.is_tcp { stream } else { raw };
    let (established, time_wait, new_syn_recv) = (1, 6, 12);
    let cookie = packet.socket.map_or(0, |(_, cookie, _)| cookie);
    let namespace = NAMESPACE.with(|namespace| {
        **namespace.borrow_mut() = [0, 0, inode(cookie), 0];
        (&raw const **namespace.borrow()).expose_provenance() as u64
    });
    SOCKET.with(|socket| {
        let mut fields = [0; 20];
        fields[2..4].copy_from_slice(&[kind, tcp]);
        let halves: [[u8; 4]; 2] =
            [0, 4].map(|at| namespace.to_ne_bytes()[at..at + 4].try_into().expect("half of it"));
        fields[6..8].copy_from_slice(&halves.map(u32::from_ne_bytes));
        fields[18] = match (packet.socket, packet.is_request) {
            (Some((true, ..)), _) => established,
            (_, true) => new_syn_recv,
            (_, false) => time_wait,
        };
        **socket.borrow_mut() = fields;
    });
}

/// Of the two that may be read: a socket, and its namespace.
fn read_kernel(to: u64, size: u64, from: u64, _: u64, _: u64) -> u64 {
    let namespace = NAMESPACE.with(|it| (&raw const **it.borrow()).expose_provenance() as u64);
    let is_within = |start: u64, bytes: u64| from >= start && from + size <= start + bytes;
    assert!(is_within(socket_address(), 80) || is_within(namespace, 16), "{from:x}");
    let from = std::ptr::with_exposed_provenance::<u8>(from as usize);
    let to = std::ptr::with_exposed_provenance_mut::<u8>(to as usize);
    // SAFETY: from one of the two above to the program's stack, below its end by what it says.
    unsafe { std::ptr::copy_nonoverlapping(from, to, size as usize) };
    0
}

fn world<T>(ask: impl FnOnce(&World) -> T) -> T {
    WORLD.with(|world| ask(world.borrow().as_ref().expect("a world")))
}

fn tag(_: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
    world(|world| world.packet.tag.into())
}

fn full_socket(socket: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
    world(|world| world.packet.socket.map_or(0, |(full, ..)| if full { socket } else { 0 }))
}

fn cookie(_: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
    world(|world| world.packet.socket.map_or(0, |(_, cookie, _)| cookie))
}

fn owner(_: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
    // `bpf_get_socket_uid` answers with the overflow uid where there is no full socket.
    world(|world| match world.packet.socket {
        Some((full, _, owner)) if full || world.packet.is_request => owner.into(),
        _ => 65_534,
    })
}

/// The address of the MPTCP socket that a subflow belongs to.
fn mptcp(socket: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
    assert_eq!(socket, socket_address());
    // The kernel reads behind the end of any other.
    assert!(world(|world| world.packet.is_tcp), "not asked about what is no TCP socket");
    world(|world| {
        world.packet.mptcp.map_or(0, |(owner, tag)| {
            MPTCP.with(|mptcp| {
                **mptcp.borrow_mut() = [0, owner, 0, tag];
                (&raw const **mptcp.borrow()).expose_provenance() as u64
            })
        })
    })
}

/// The address of the value that one of the maps has for the key at `key`.
fn look_up(map: u64, key: u64, _: u64, _: u64, _: u64) -> u64 {
    let read = |offset: u64| -> u32 {
        let at = (key + offset) as *const u32;
        // SAFETY: the program's stack, which the interpreter has checked it to write to.
        unsafe { std::ptr::with_exposed_provenance::<u32>(at.addr()).read_unaligned() }
    };
    let class = world(|world| match map as u8 {
        ACCOUNTS => world.table.accounts.get(&read(0)).map(|class| class.0),
        RANGES => {
            assert_eq!(read(0), 32, "all bits count");
            let table = OwnerTable { accounts: BTreeMap::new(), ..world.table.clone() };
            table.class(u32::from_be(read(4))).map(|class| class.0)
        }
        GIVEN => given(world, [read(0), read(4)]),
        other => panic!("map {other}"),
    });
    let Some(class) = class else { return 0 };
    VALUE.with(|value| {
        **value.borrow_mut() = class;
        (&raw const **value.borrow()).expose_provenance() as u64
    })
}

/// What the map of what was given on purpose has for a key of two numbers.
fn given(world: &World, key: [u32; 2]) -> Option<u32> {
    let mut bytes = [0; 8];
    for (half, number) in bytes.chunks_exact_mut(4).zip(key) {
        half.copy_from_slice(&number.to_ne_bytes());
    }
    let cgroups = &world.table.cgroups;
    if bytes == MASK_KEY {
        let bits = cgroups.keys().map(|(cgroup, turn)| bit(cgroup.level, *turn));
        return Some(bits.fold(0, |mask, bit| mask | bit)).filter(|mask| *mask != 0);
    }
    match cgroup(bytes) {
        Some(found) => cgroups.get(&found).map(|class| class.0),
        None => world.given.contains(&(key[0], key[1])).then_some(1),
    }
}

/// The number of the cgroup at this level above the packet's socket.
fn ancestor(_: u64, level: u64, _: u64, _: u64, _: u64) -> u64 {
    world(|world| match world.packet.socket {
        Some((full, ..)) if full || world.packet.is_request => {
            world.packet.cgroups[level as usize - 1]
        }
        _ => 0,
    })
}

/// What the program returns in this world.
fn run(program: Program, it: &World) -> u32 {
    answer(&decide(program), it, &mut [0; 192])
}

/// What some program returns, which finds the packet's control block as the one before left it.
fn answer(code: &[Instruction], it: &World, context: &mut Context) -> u32 {
    WORLD.with(|world| *world.borrow_mut() = Some(it.clone()));
    let functions: [(i32, rbpf::ebpf::Helper); 9] = [
        (ANCESTOR_CGROUP, ancestor),
        (MPTCP_SOCKET, mptcp),
        (READ_KERNEL, read_kernel),
        (MAP_LOOKUP, look_up),
        (TASK_CLASSID, tag),
        (SOCKET_CLASSID, tag),
        (FULL_SOCKET, full_socket),
        (NETNS_COOKIE, cookie),
        (SOCKET_UID, owner),
    ];
    let value = VALUE.with(|value| (&raw const **value.borrow()).expose_provenance() as u64);
    let mptcp = MPTCP.with(|mptcp| (&raw const **mptcp.borrow()).expose_provenance() as u64);
    // With a socket or without.
    let socket = it.packet.socket.map_or(0_u64, |_| socket_address());
    make_socket(&it.packet);
    let sockets = socket_address();
    let memory = [(value, 4), (mptcp, 16), (sockets, 80)];
    context[SKB_SOCKET as usize..][..8].copy_from_slice(&socket.to_ne_bytes());
    context[SKB_INGRESS_IFINDEX as usize..][..4].copy_from_slice(&it.packet.from.to_ne_bytes());
    let label = u32::from(it.packet.label);
    context[SKB_TC_INDEX as usize..][..4].copy_from_slice(&label.to_ne_bytes());
    let machine = Machine { functions: &functions, memory: &memory, packet: &Bytes::default() };
    machine.run(code, context) as u32
}

/// The same in words.
fn meant(program: Program, World { packet, table, given }: &World) -> u32 {
    let read = |tag: u32| program.tag.map_or(0, |_| tag);
    let tag = read(packet.tag);
    let own = |cookie: u64| match program.sockets {
        Sockets::Cookie(ours) => cookie == ours,
        Sockets::Inode(ours, _) => inode(cookie) == ours,
        Sockets::All | Sockets::Mixed => true,
    };
    let class = |uid: u32| table.class(uid).map_or(0, |class| class.0);
    let by_cgroup = |turn: Turn| {
        let of_level = |level: u8| {
            let id = packet.cgroups[usize::from(level) - 1];
            table.cgroups.get(&(Cgroup { level, id }, turn)).map(|class| class.0)
        };
        let mut deepest_first = (1..=DEEPEST).rev().filter(|_| program.asks_cgroups());
        deepest_first.find_map(of_level)
    };
    let is_labelled = packet.from != 0 && Minor(packet.label).is_user();
    let found = match packet.socket {
        _ if program.labels && is_labelled => ClassId::ours(Minor(packet.label)).0,
        _ if program.sockets == Sockets::Mixed && tag != 0 => tag,
        Some((full, cookie, owner)) if (full || packet.is_request) && own(cookie) => {
            let (owner, tag) = packet
                .mptcp
                .filter(|_| program.mptcp.is_some() && packet.is_tcp && full)
                .map_or((owner, tag), |(owner, tag)| (owner, read(tag)));
            match (owner, by_cgroup(Turn::First), by_cgroup(Turn::AfterOwner)) {
                (_, Some(unit), _) => unit,
                (0, ..) if tag != 0 => tag,
                (0, _, Some(unit)) => unit,
                (0, ..) => table.accounts.get(&0).map_or(0, |class| class.0),
                (owner, ..) if given.contains(&(owner, tag)) && tag != 0 => tag,
                (owner, _, Some(unit)) if class(owner) == 0 => unit,
                (owner, ..) => class(owner),
            }
        }
        _ => tag,
    };
    match Shard::new((found >> 16) as u16).filter(|_| program.shards) {
        Some(shard) => shard.class().0,
        None => found,
    }
}

fn programs() -> impl Strategy<Value = Program> {
    let sockets = prop_oneof![
        Just(Sockets::Cookie(OURS)),
        Just(BY_INODE),
        Just(Sockets::All),
        Just(Sockets::Mixed)
    ];
    let tag = proptest::option::of(prop_oneof![Just(TagHelper::Socket), Just(TagHelper::Task)]);
    let mptcp = proptest::option::of(Just(LAYOUT));
    (any::<bool>(), tag, any::<bool>(), sockets, mptcp, any::<bool>()).prop_map(
        |(shards, tag, cgroups, sockets, mptcp, labels)| {
            let cgroups = cgroups && tag.is_none();
            Program { shards, tag, cgroups, sockets, mptcp, labels }
        },
    )
}

fn classid() -> impl Strategy<Value = u32> {
    prop_oneof![
        2 => Just(0),
        4 => 0x1_0010..0x1_0014_u32,
        1 => 0xe000_0010..0xe000_0012_u32,
        1 => Just(0xefff_0010),
        1 => Just(0xdfff_0010),
        1 => Just(0xf000_0010),
    ]
}

fn uid() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), 1..6_u32, 1000..1006_u32, Just(65_534), u32::MAX - 2..]
}

/// At both ends of the numbers that users have, and beyond them.
fn labels() -> impl Strategy<Value = u16> {
    prop_oneof![
        Just(0),
        Just(1),
        Just(0xf),
        0x10..0x13_u16,
        Just(0xdfff),
        Just(0xe000),
        Just(0xfffd),
        Just(u16::MAX)
    ]
}

prop_compose! {
    /// A cgroup of some depth, and those above it.
    fn cgroups()(depth in 0..=DEEPEST as usize, ids in vec(1..4_u64, DEEPEST as usize)) -> [u64; DEEPEST as usize] {
        std::array::from_fn(|at| if at < depth { ids[at] } else { 0 })
    }
}

prop_compose! {
    fn worlds()(
        tag in classid(),
        socket in proptest::option::weighted(0.9, (
            prop_oneof![9 => Just(true), 1 => Just(false)],
            prop_oneof![4 => Just(OURS), 1 => Just(OURS + (1 << 32)), 1 => Just(12_u64)],
            uid(),
        )),
        is_request in any::<bool>(),
        is_tcp in any::<bool>(),
        mptcp in proptest::option::weighted(0.3, (uid(), classid())),
        from in prop_oneof![Just(0), Just(7), Just(u32::MAX)],
        label in labels(),
        accounts in btree_map(uid(), classid(), 0..4),
        ranges in vec((uid(), uid(), 0x10..0x14_u16), 0..3),
        given in btree_set((uid(), classid()), 0..6),
        cgroups in cgroups(),
        of_cgroups in btree_map(
            ((1..=DEEPEST, 1..4_u64), prop_oneof![Just(Turn::First), Just(Turn::AfterOwner)]),
            0x10..0x14_u16,
            0..12,
        ),
    ) -> World {
        let mut table = OwnerTable::default();
        for (a, b, minor) in ranges {
            // Root is in no range.
            table.add_range(&(a.min(b).max(1)..=a.max(b)), ClassId::ours(Minor(minor)));
        }
        table.accounts = accounts.into_iter().map(|(uid, class)| (uid, ClassId(class))).collect();
        table.cgroups = of_cgroups
            .into_iter()
            .map(|(((level, id), turn), minor)| {
                ((Cgroup { level, id }, turn), ClassId::ours(Minor(minor)))
            })
            .collect();
        let packet = Packet { tag, socket, is_request, is_tcp, mptcp, from, label, cgroups };
        World { packet, table, given }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4_000) })]

    #[test]
    fn the_program_decides_as_it_is_meant(program in programs(), world in worlds()) {
        prop_assert_eq!(run(program, &world), meant(program, &world));
    }
}

#[test]
fn a_user_cannot_leave_his_class_by_any_tag_that_was_not_given_to_him() {
    let program = Program {
        shards: false,
        tag: Some(TagHelper::Socket),
        cgroups: false,
        sockets: Sockets::Cookie(OURS),
        mptcp: Some(LAYOUT),
        labels: false,
    };
    let mine = ClassId::ours(Minor(0x10));
    let table = OwnerTable { accounts: BTreeMap::from([(1000, mine)]), ..OwnerTable::default() };
    for tag in [0, 1, 0x1_0000, 0x1_0011, 0x1_fffd, 0x1_fffe, 0xe000_0010, u32::MAX] {
        let packet = Packet { tag, socket: Some((true, OURS, 1000)), ..ORDINARY };
        let mut world = World { packet, table: table.clone(), given: BTreeSet::new() };
        assert_eq!(run(program, &world), mine.0, "tag {tag:x}");
        world.given.insert((1000, tag));
        let expected = if tag == 0 { mine.0 } else { tag };
        assert_eq!(run(program, &world), expected, "tag {tag:x}, given");
    }
}

#[test]
fn what_one_program_has_decided_the_next_takes_once() {
    let below = Program {
        shards: false,
        tag: Some(TagHelper::Socket),
        cgroups: false,
        sockets: Sockets::Cookie(OURS),
        mptcp: None,
        labels: false,
    };
    let at_the_root = Program { shards: true, ..below };
    let shard = Shard::new(0xe003).expect("a shard");
    let (class, shards) = (shard.user(Minor(0x10)), shard.class().0);
    let table = OwnerTable { accounts: BTreeMap::from([(1000, class)]), ..OwnerTable::default() };
    let packet = Packet { socket: Some((true, OURS, 1000)), ..ORDINARY };
    let it = World { packet, table, given: BTreeSet::new() };
    // Whoever asked now would hear of nobody.
    let nobody = World { table: OwnerTable::default(), ..it.clone() };
    let mut context = [0; 192];
    let mut says = |code: &[Instruction], it: &World| answer(code, it, &mut context);
    assert_eq!(says(&decide(at_the_root), &it), shards);
    assert_eq!(says(&decide(below), &nobody), class.0);
    assert_eq!(says(&decide(below), &nobody), 0, "not twice");
    assert_eq!(says(&decide(at_the_root), &it), shards);
    says(&learn(Tag::Bpf(below)), &nobody);
    assert_eq!(says(&decide(below), &nobody), class.0, "whoever notes flows leaves it as it was");
}

/// A guest's queue writes what it likes where our programs leave each other what they decided.
#[test]
fn what_looks_like_a_decision_is_cleared_by_the_first_program() {
    let at_the_root = Program {
        shards: true,
        tag: Some(TagHelper::Socket),
        cgroups: false,
        sockets: Sockets::Cookie(OURS),
        mptcp: None,
        labels: false,
    };
    let shard = Shard::new(0xe003).expect("a shard");
    let class = shard.user(Minor(0x10));
    let table = OwnerTable { accounts: BTreeMap::from([(1000, class)]), ..OwnerTable::default() };
    let packet = Packet { socket: Some((true, OURS, 1000)), ..ORDINARY };
    let it = World { packet, table, given: BTreeSet::new() };
    let nobody = World { table: OwnerTable::default(), ..it.clone() };
    let below = Program { shards: false, ..at_the_root };
    for sockets in [Sockets::Cookie(OURS), BY_INODE, Sockets::Mixed] {
        let mut context = [0; 192];
        answer(&decide(at_the_root), &it, &mut context);
        let forged = context;
        assert_eq!(answer(&decide(below), &nobody, &mut context), class.0, "it would be believed");
        context = forged;
        answer(&clear_priority(sockets), &nobody, &mut context);
        assert_eq!(answer(&decide(below), &nobody, &mut context), 0);
    }
}

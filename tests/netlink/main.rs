//! The kernel's side of `netlink` and `sys`: every kind of message sent to a real kernel and read
//! back, held against `tc` and an independent decoder. NEEDS ROOT: each test makes a network
//! namespace of its own on its own thread, and touches nothing outside it. Also runs on the lab's
//! kernels (Linux 6.1), whose sentences differ a little.

mod agreement;
mod filters;
mod notices;
mod tables;
mod tree;

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use shaper::classify::u32 as compile;
use shaper::netlink::request::filter::{self, Loaded};
use shaper::netlink::request::{class, dump, root};
use shaper::netlink::{Request, assemble, decode};
use shaper::sys::bpf::{self, Maps};
use shaper::sys::{Netlink, netns};
use shaper::tree::{
    Class, Family, Filter, FoundFilter, Mark, Match, OwnerTable, Pref, Program, Protocol, Quantum,
    Role, Sockets, TagHelper, U32Rule, U32Rules,
};
use shaper::units::{ClassId, Minor, Psched, Rate, Ticks};

const LO: u32 = 1;

/// A network namespace with `lo` up, and a socket in it.
fn in_a_namespace(test: impl FnOnce(&mut Netlink) + Send) {
    netns::private(|| {
        run("ip", "link set lo up");
        test(&mut Netlink::open().unwrap());
    })
    .expect("needs root: unshare(CLONE_NEWNET)");
}

/// Runs a program in this thread's namespace; its standard output.
fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split_whitespace()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// What every kernel takes that takes a deciding program at all.
const PROGRAM: Program = Program {
    shards: false,
    tag: Some(TagHelper::Task),
    cgroups: false,
    sockets: Sockets::All,
    mptcp: None,
    labels: false,
};

/// A deciding program in the kernel, for whom nobody is anybody's.
struct Deciding {
    maps: Maps,
    file: OwnedFd,
}

impl Deciding {
    fn load() -> Deciding {
        let maps = Maps::create(&OwnerTable::default()).unwrap();
        let file = bpf::load(PROGRAM, &maps).unwrap();
        Deciding { maps, file }
    }

    fn add(&self, pref: Pref) -> Request {
        let (maps, file) = (self.maps.ids(), self.file.as_fd());
        filter::add_bpf(LO, ClassId::ROOT, pref, Loaded::deciding(PROGRAM, maps, file))
    }
}

fn rate(text: &str) -> Rate {
    text.parse().unwrap()
}

fn mark() -> Mark {
    Mark::for_instance("test")
}

fn done(netlink: &mut Netlink, requests: &[Request]) {
    let outcomes = netlink.transact(requests).unwrap();
    assert_eq!(outcomes.len(), requests.len());
    for outcome in outcomes {
        assert_eq!(outcome, Ok(None));
    }
}

/// Sends datagrams to port 5001 for as long as `work` takes; how many they were.
fn packets_sent_during(work: impl FnOnce()) -> u64 {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let _listener = UdpSocket::bind("127.0.0.1:5001").unwrap();
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                socket.send_to(b"x", "127.0.0.1:5001").unwrap();
                sent += 1;
            }
            sent
        });
        work();
        stop.store(true, Ordering::Relaxed);
        flood.join().unwrap()
    })
}

fn refusal(netlink: &mut Netlink, request: &Request) -> String {
    netlink.change(request).unwrap().unwrap_err().to_string()
}

fn a_class(parent: Option<ClassId>, rate: Rate, ceil: Rate, role: Role) -> Class {
    let ticks = |rate: Rate| Ticks::for_bytes(rate.bytes_in_ms(1), rate, Psched::default());
    Class { parent, rate, ceil, burst: ticks(rate), cburst: ticks(ceil), role }
}

/// Link, a group, an empty group, users (one beyond 32 bits), default, unshaped.
fn classes() -> BTreeMap<ClassId, Class> {
    let leaf = |prio, quantum| Role::Leaf { prio, quantum: Quantum(quantum) };
    let (group, empty) = (ClassId::ours(Minor(0xf000)), ClassId::ours(Minor(0xf001)));
    let link = Some(ClassId::LINK);
    BTreeMap::from([
        (ClassId::LINK, a_class(None, rate("100gbit"), rate("100gbit"), Role::Inner)),
        (group, a_class(link, rate("1gbit"), rate("2gbit"), Role::Inner)),
        (empty, a_class(link, rate("8mbit"), rate("9mbit"), Role::Inner)),
        (
            ClassId::ours(Minor(0x10)),
            a_class(Some(group), rate("10mbit"), rate("1gbit"), leaf(3, 61_234)),
        ),
        (
            ClassId::ours(Minor(0x11)),
            a_class(link, rate("40gbit"), rate("100gbit"), leaf(7, 200_000)),
        ),
        (ClassId::ours(Minor(0x12)), a_class(link, rate("8bit"), rate("999kbit"), leaf(0, 60_000))),
        (ClassId::DEFAULT, a_class(link, rate("5gbit"), rate("100gbit"), leaf(0, 60_000))),
        (ClassId::UNSHAPED, a_class(None, rate("100gbit"), rate("100gbit"), leaf(0, 60_000))),
    ])
}

/// Parents before children.
fn add_classes(classes: &BTreeMap<ClassId, Class>) -> Vec<Request> {
    let depth = |class: &Class| match class.parent {
        None => 0,
        Some(ClassId::LINK) => 1,
        Some(_) => 2,
    };
    let mut order: Vec<_> = classes.iter().collect();
    order.sort_by_key(|(_, class)| depth(class));
    order.into_iter().map(|(minor, value)| class::add(LO, *minor, value)).collect()
}

fn read_classes(netlink: &mut Netlink) -> BTreeMap<ClassId, Class> {
    let records = netlink.dump(&dump::classes(LO), decode::class).unwrap();
    records.into_iter().map(|record| (record.classid, record.class)).collect()
}

fn find_filters(netlink: &mut Netlink) -> BTreeMap<Pref, FoundFilter> {
    let records = netlink.dump(&dump::filters(LO, ClassId::ROOT), decode::filter).unwrap();
    assemble::filters(records)
}

/// The same where shaper writes all of them.
fn read_filters(netlink: &mut Netlink) -> BTreeMap<Pref, Filter> {
    let ours = |(pref, found): (Pref, FoundFilter)| match found {
        FoundFilter::Ours(filter) => (pref, filter),
        FoundFilter::Strange(filter) => panic!("{filter:?} at {pref}"),
    };
    find_filters(netlink).into_iter().map(ours).collect()
}

fn rules(family: Family, matches: &[Match], minor: u16) -> Vec<U32Rule> {
    compile::compile(family, matches, ClassId::ours(Minor(minor)))
}

fn add_rules(pref: Pref, family: Family, set: &[U32Rule]) -> Vec<Request> {
    add_tables(pref, family, &set.to_vec().into())
}

fn add_tables(pref: Pref, protocol: impl Into<Protocol>, set: &U32Rules) -> Vec<Request> {
    let add = filter::add_rules(LO, pref, protocol, set).unwrap();
    add.tables.into_iter().chain(add.root).collect()
}

fn matching(src: Option<&str>, dst: Option<&str>, sport: Option<u16>, dport: Option<u16>) -> Match {
    let net = |text: &str| text.parse().unwrap();
    let port = |port: Option<u16>| port.map(Into::into);
    Match {
        src: src.map(net),
        dst: dst.map(net),
        sport: port(sport),
        dport: port(dport),
        proto: None,
    }
}

/// The first requests of every test: root, 1:1, and two users.
fn small_tree() -> Vec<Request> {
    let leaf = Role::Leaf { prio: 0, quantum: Quantum(60_000) };
    let user = a_class(Some(ClassId::LINK), rate("100mbit"), rate("1gbit"), leaf);
    vec![
        root::add(LO, mark()),
        class::add(LO, ClassId::LINK, &a_class(None, rate("1gbit"), rate("1gbit"), Role::Inner)),
        class::add(LO, ClassId::ours(Minor(0x10)), &user),
        class::add(LO, ClassId::ours(Minor(0x11)), &user),
        class::add(LO, ClassId::ours(Minor(0x12)), &user),
        class::add(LO, ClassId::DEFAULT, &user),
    ]
}

//! What rules cost each packet: small UDP packets through an HTB tree on a veth pair, one sender,
//! with one rule, with thousands in hash tables as `shaper` writes them, and with the same rules as
//! a plain list; then what finding the sender costs: by the tag alone, and by the socket's owner
//! among 10,000 accounts. NEEDS ROOT: the links live in a network namespace of their own that ends
//! with the run. Prints a table, and puts it into `benches/RESULTS.md`. `cargo bench --bench
//! packets`; `SHAPER_ROUNDS` (15) and `SHAPER_ROUND_MS` (200) set how long.

#[path = "support/results.rs"]
mod results;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use nix::unistd::{Uid, setfsuid};
use shaper::classify::assembler::{Assembler, Instruction, R0};
use shaper::classify::program::{self, TASK_CLASSID};
use shaper::classify::{hash, u32::compile};
use shaper::facts::{Facts, Features};
use shaper::netlink::request::filter::{self, Loaded};
use shaper::netlink::request::{class, dump, root};
use shaper::netlink::{Request, decode};
use shaper::sys::bpf::{self, Maps};
use shaper::sys::{Netlink, netns};
use shaper::tree::{
    Bits, Cgroup, Class, Family, Mark, Match, OwnerTable, Pref, Program, Quantum, Role, Sockets,
    TagHelper, Turn, U32Rule, U32Rules,
};
use shaper::units::{Bytes, ClassId, Minor, Psched, Rate, Ticks};

/// Where the packets go; all rules but the last send to another class.
const HIT: Minor = Minor(0x10);
const MISS: Minor = Minor(0x11);
const PORT: u16 = 5001;
/// Bytes of payload: a frame of 64.
const PAYLOAD: usize = 18;

/// One link with its rules.
struct Case {
    name: &'static str,
    rules: U32Rules,
    /// What was loaded must live as long as packets meet it.
    _maps: Option<Maps>,
    ifindex: u32,
    socket: UdpSocket,
    rates: Vec<u64>,
}

fn main() -> ExitCode {
    // `cargo test --benches` runs it too, without this word.
    if !std::env::args().any(|word| word == "--bench") {
        return ExitCode::SUCCESS;
    }
    match netns::private(|| (measure(rules_cases, RULES), measure(sender_cases, SENDER))) {
        Ok((rules, sender)) => {
            print!("{rules}\n{sender}");
            results::write("packets", "rules", "What rules cost each packet", &rules);
            results::write(
                "packets",
                "sender",
                "What finding the sender costs each packet",
                &sender,
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("needs root, for a network namespace of its own: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What a case is called, how many rules it has besides the one that matches, what they are like,
/// and whether they become hash tables.
type Plan = (&'static str, u32, fn(u32) -> Match, bool);

const PLANS: [Plan; 8] = [
    ("1", 0, by_address, true),
    ("1,000 by address", 999, by_address, true),
    ("1,000 by port", 499, by_port, true),
    ("1,000 ranges of ports", 6_000, by_range, true),
    ("1,000 by source and destination in turns", 999, in_turns, true),
    ("10,000 by address", 9_999, by_address, true),
    ("10,000 by source and destination in turns", 9_999, in_turns, true),
    ("1,000 by address, as a list", 999, by_address, false),
];

fn by_address(n: u32) -> Match {
    Match { dst: Some(host(n)), ..Match::default() }
}

/// TCP and UDP: two rules.
fn by_port(n: u32) -> Match {
    Match { dport: Some((10_000 + n as u16).into()), ..Match::default() }
}

/// The pieces of ranges of 27 ports, six to a range; none has the port that is sent to.
fn by_range(n: u32) -> Match {
    const PIECES: [(u16, u16); 6] = [(33, 1), (34, 2), (36, 4), (40, 8), (48, 8), (56, 4)];
    let (offset, length) = PIECES[n as usize % PIECES.len()];
    let value = (n / 6) as u16 * 64 + offset;
    let dport = Some(Bits { value, mask: !(length - 1) });
    Match { dport, proto: Some(17_u8.into()), ..Match::default() }
}

fn in_turns(n: u32) -> Match {
    match n % 2 {
        0 => Match { src: Some(host(n / 2)), ..Match::default() },
        _ => by_address(n / 2),
    }
}

fn host(n: u32) -> IpNet {
    IpNet::from(IpAddr::from(Ipv4Addr::from(0x0a50_0000 + n)))
}

/// How a table's cases are called, and what its ratios are of.
type Words = (&'static str, &'static str);

const RULES: Words = ("rules", "one rule's");
const SENDER: Words = ("the sender is found", "the tag's");

fn rules_cases(netlink: &mut Netlink) -> Vec<Case> {
    PLANS.iter().zip(0..).map(|(plan, nth)| Case::new(netlink, plan, nth)).collect()
}

/// The owner of the sockets that send.
const SENDER_UID: u32 = 5_000;

/// This process is in a cgroup (v2) of two levels, as users' are, until the value is dropped; the
/// sockets that it makes meanwhile stay there.
struct Deep(Option<PathBuf>);

impl Deep {
    fn enter() -> Deep {
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let point =
            mounts.find_map(|it| (it.get(2) == Some(&"cgroup2")).then(|| it[1].to_string()));
        let root = point.map(PathBuf::from).filter(|root| {
            let at = root.join("shaper-bench/deeper");
            fs::create_dir_all(&at).and_then(|()| fs::write(at.join("cgroup.procs"), "0")).is_ok()
        });
        if root.is_none() {
            println!("the sender is in no cgroup (v2)");
        }
        Deep(root)
    }
}

impl Drop for Deep {
    fn drop(&mut self) {
        let Some(root) = &self.0 else { return };
        let _back = fs::write(root.join("cgroup.procs"), "0");
        for path in ["shaper-bench/deeper", "shaper-bench"] {
            let _gone = fs::remove_dir(root.join(path));
        }
    }
}

fn sender_cases(netlink: &mut Netlink) -> Vec<Case> {
    let _deep = Deep::enter();
    let hit = ClassId::ours(HIT);
    let accounts = (5_000..15_000).map(|uid| (uid, hit)).collect();
    let table = OwnerTable { accounts, ..OwnerTable::default() };
    let helpers = bpf::helpers().expect("eBPF");
    let facts = Facts {
        netns_cookie: netns::cookie().expect("a namespace"),
        features: Features { helpers, ..Features::default() },
        ..Facts::default()
    };
    // What decided before: the tag alone, here always the same class.
    let mut tag_alone = Assembler::default();
    tag_alone.call(TASK_CLASSID);
    tag_alone.set(R0, hit.0 as i32);
    tag_alone.exit();
    let tag_alone = tag_alone.finish();
    let decides = program::decide(facts.program());
    // Without tags; and where units, of two levels, have cgroups that are not the sender's.
    let untagged = program::decide(Program { tag: None, cgroups: true, ..facts.program() });
    let units = (1..=2).map(|level| ((Cgroup { level, id: 1 << 40 }, Turn::First), hit));
    let with_units = OwnerTable { cgroups: units.collect(), ..table.clone() };
    [
        ("by its tag", &tag_alone, &table),
        ("by its socket's owner, 10,000 accounts", &decides, &table),
        ("the same without tags", &untagged, &table),
        ("the same without tags, beside units of two levels", &untagged, &with_units),
    ]
    .into_iter()
    .zip(100..)
    .map(|((name, code, table), nth)| Case::of_sender(netlink, name, code, table, nth))
    .collect()
}

fn measure(cases: fn(&mut Netlink) -> Vec<Case>, words: Words) -> String {
    let mut netlink = Netlink::open().unwrap_or_else(|e| panic!("{e}"));
    let mut cases = cases(&mut netlink);
    let setting = |name: &str, otherwise: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
    };
    let length = Duration::from_millis(setting("SHAPER_ROUND_MS", 200));
    for round in 0..1 + setting("SHAPER_ROUNDS", 15) {
        for case in &mut cases {
            let rate = case.round(&mut netlink, length);
            // The first warms up.
            if round > 0 {
                case.rates.push(rate);
            }
        }
    }
    table(cases, words)
}

fn table(cases: Vec<Case>, (what, of): Words) -> String {
    let mut text = format!(
        "Packets of 64 bytes a second through rules, one sender; medians of {} rounds in turns.\n\n\
         | {what} | hash tables | packets/s | a packet takes | packets/s, of {of} | its time, of {of} |\n\
         |---|---:|---:|---:|---:|---:|\n",
        cases.first().map_or(0, |case| case.rates.len()),
    );
    let mut one = None;
    for mut case in cases {
        case.rates.sort_unstable();
        let median = case.rates[case.rates.len() / 2].max(1) as f64;
        let one = *one.get_or_insert(median);
        text += &format!(
            "| {} | {} | {median:.0} | {:.2} µs | {:.2} × | {:.2} × |\n",
            case.name,
            case.rules.tables.len(),
            1e6 / median,
            median / one,
            one / median,
        );
    }
    text
}

impl Case {
    fn new(netlink: &mut Netlink, &(name, others, matching, hashed): &Plan, nth: u8) -> Case {
        let (ifindex, socket) = a_link(netlink, nth);
        let rule = |m: Match, to| compile(Family::V4, &[m], ClassId::ours(to));
        let mut rules: Vec<U32Rule> = (0..others).flat_map(|n| rule(matching(n), MISS)).collect();
        let far = IpNet::from(IpAddr::from([10, 77, nth, 2]));
        rules.extend(rule(Match { dst: Some(far), ..Match::default() }, HIT));
        let rules = if hashed { hash::arrange(Family::V4, rules) } else { rules.into() };
        let add = filter::add_rules(ifindex, Pref::RULES_V4[0], Family::V4, &rules)
            .unwrap_or_else(|e| panic!("{e}"));
        let requests: Vec<Request> = add.tables.into_iter().chain(add.root).collect();
        send(netlink, &requests);
        Case { name, rules, _maps: None, ifindex, socket, rates: Vec::new() }
    }

    /// A link without rules, on which a program finds the sender.
    fn of_sender(
        netlink: &mut Netlink,
        name: &'static str,
        code: &[Instruction],
        table: &OwnerTable,
        nth: u8,
    ) -> Case {
        let before = setfsuid(Uid::from_raw(SENDER_UID));
        let (ifindex, socket) = a_link(netlink, nth);
        setfsuid(before);
        let maps = Maps::create(table).expect("BPF maps");
        let file = bpf::load_instructions(code, &maps).expect("a program");
        let any = Program {
            shards: false,
            tag: Some(TagHelper::Task),
            cgroups: false,
            sockets: Sockets::All,
            mptcp: None,
            labels: false,
        };
        let (pref, ids) = (Pref::TAG[0], maps.ids());
        let add =
            filter::add_bpf(ifindex, ClassId::ROOT, pref, Loaded::deciding(any, ids, file.as_fd()));
        send(netlink, &[add]);
        let rules = U32Rules::default();
        Case { name, rules, _maps: Some(maps), ifindex, socket, rates: Vec::new() }
    }

    /// Packets a second, all of which went through the class that the last rule names.
    fn round(&mut self, netlink: &mut Netlink, length: Duration) -> u64 {
        let before = self.sent(netlink);
        let begun = Instant::now();
        let mut count = 0_u64;
        while begun.elapsed() < length {
            // As many as make the clock cost nothing.
            for _ in 0..256 {
                self.socket.send(&[0; PAYLOAD]).expect("send");
            }
            count += 256;
        }
        let time = begun.elapsed();
        // What the kernel sends by itself meanwhile (neighbour discovery) is a packet or two.
        let sent = self.sent(netlink) - before;
        assert!((count..count + 50).contains(&sent), "{}: {sent} of {count} packets", self.name);
        (count as f64 / time.as_secs_f64()) as u64
    }

    fn sent(&self, netlink: &mut Netlink) -> u64 {
        let classes = netlink.dump(&dump::classes(self.ifindex), decode::class);
        let classes = classes.unwrap_or_else(|e| panic!("{e}"));
        let class = classes.iter().find(|class| class.classid == ClassId::ours(HIT));
        class.map_or(0, |class| class.counters.sent_packets)
    }
}

/// A link `v<nth>` with classes and no filter, whose far end has no address: what is sent to it is
/// dropped there. And a socket that sends over it.
fn a_link(netlink: &mut Netlink, nth: u8) -> (u32, UdpSocket) {
    let (near, far) = (format!("v{nth}"), format!("w{nth}"));
    ip(&format!("link add {near} numtxqueues 1 type veth peer name {far}"));
    ip(&format!("addr add 10.77.{nth}.1/24 dev {near}"));
    ip(&format!("link set {far} addr 02:00:00:00:01:{nth:02x} up"));
    ip(&format!("link set {near} up"));
    ip(&format!("neigh add 10.77.{nth}.2 lladdr 02:00:00:00:01:{nth:02x} dev {near}"));
    let links = netlink.dump(&dump::links(), decode::link).unwrap_or_else(|e| panic!("{e}"));
    let link = links.iter().find(|link| link.name.as_str() == near);
    let ifindex = link.map(|link| link.ifindex).expect("the link");
    let mut requests = vec![root::add(ifindex, Mark::for_instance("bench"))];
    requests.push(class::add(ifindex, ClassId::ours(Minor::LINK), &a_class(None)));
    for minor in [HIT, MISS, Minor::DEFAULT] {
        let class = a_class(Some(ClassId::ours(Minor::LINK)));
        requests.push(class::add(ifindex, ClassId::ours(minor), &class));
    }
    send(netlink, &requests);
    let socket = UdpSocket::bind((Ipv4Addr::new(10, 77, nth, 1), 0)).expect("a socket");
    socket.connect((Ipv4Addr::new(10, 77, nth, 2), PORT)).expect("a route");
    (ifindex, socket)
}

/// Faster than anything here can send.
fn a_class(parent: Option<ClassId>) -> Class {
    let rate = Rate::from_bits_per_second(100_000_000_000).expect("a rate");
    let burst = Ticks::for_bytes(Bytes(50_000_000), rate, Psched::default());
    let role = match parent {
        None => Role::Inner,
        Some(_) => Role::Leaf { prio: 0, quantum: Quantum(60_000) },
    };
    Class { parent, rate, ceil: rate, burst, cburst: burst, role }
}

fn send(netlink: &mut Netlink, requests: &[Request]) {
    let outcomes = netlink.transact(requests).unwrap_or_else(|e| panic!("{e}"));
    for outcome in outcomes {
        if let Err(error) = outcome {
            panic!("{error}");
        }
    }
}

fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status().expect("ip, of iproute2");
    assert!(status.success(), "ip {words}");
}

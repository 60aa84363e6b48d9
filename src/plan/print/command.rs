//! A step as the command that it equals.

use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;

use super::place::Place;
use super::words::{label_words, program_words, protocol};
use crate::classify::{cgroups, inner};
use crate::plan::step::list;
use crate::plan::{
    Change, FilterChange, InPlace, LEARNT, LeafChange, LeftTables, Replaced, Step, Whole,
};
use crate::tree::{
    Claim, Class, Filter, FoundLeaf, Ifb, LeafQdisc, LinkName, Mark, OwnerChange, OwnerKey, Parent,
    Port, Pref, Program, Role, Seat, Tag, U32Node, U32Rules,
};
use crate::units::{ClassId, InWholeUnits, Psched};

/// What a command line needs beside the step: the paths of the directories, the mark and the tick.
#[derive(Clone, Debug)]
pub struct Paths {
    /// Where `net_cls` is, or will be, mounted.
    pub mount: PathBuf,
    /// The instance's directory below it.
    pub instance: PathBuf,
    /// The instance's mark, for the root qdisc.
    pub mark: Mark,
    /// The kernel's tick, in which bursts are given.
    pub psched: Psched,
    /// Where the links are, seen from the shell that performs the command.
    pub place: Place,
}

/// A step as the command that it equals. Several commands are joined by newlines.
pub struct Tc<'a>(pub &'a Step, pub &'a Paths);

impl Tc<'_> {
    /// Whether no shell can perform the command: it loads an eBPF program, or writes into the maps
    /// of one, which have no name.
    pub fn is_by_program(&self) -> bool {
        match self.0 {
            Step::Filter(_, _, Whole::Add(filter)) => {
                !matches!(filter, Filter::U32 { .. } | Filter::Tag(Tag::Cgroup))
            }
            Step::Entries(_) => true,
            _ => false,
        }
    }
}

impl Display for Tc<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Tc(step, paths) = self;
        match step {
            Step::Mount(Whole::Add(())) => {
                let at = paths.mount.display();
                write!(f, "mkdir -p {at} && mount -t cgroup -o net_cls net_cls {at}")
            }
            Step::Mount(Whole::Remove(())) => write!(f, "umount {}", paths.mount.display()),
            Step::Root(port, change) => root(f, &port.device(), change, paths),
            Step::Clsact(link, change) => {
                write!(f, "{} qdisc {} dev {link} clsact", paths.place.tc(), whole(change))
            }
            Step::Ifb(name, change) => ifb(f, name, change, paths),
            Step::Class(port, id, change) => class(f, &port.device(), *id, change, paths),
            Step::Leaf(port, id, change) => leaf(f, &port.device(), *id, change, paths),
            Step::Filter(port, seat, change) => filter(f, port, *seat, change, paths),
            Step::Tables(port, left) => tables(f, &port.device(), left, paths),
            Step::Claim(claim, change) => directory(f, claim, change, paths),
            // The maps are anonymous: no command can make them first and give them to a filter
            // later.
            Step::Owners(Whole::Add(table)) => {
                let (accounts, ranges) = (table.accounts.len(), table.ranges.len());
                write!(f, "# BPF maps of {accounts} uids and {ranges} prefixes of uids")
            }
            Step::Owners(Whole::Remove(())) => {
                write!(f, "# the BPF maps go with the last filter")
            }
            Step::Learn(links) => {
                let (seconds, links) = (LEARNT.as_secs(), list(links));
                write!(f, "sleep {seconds} # whose the flows are that run on {links} is learnt")
            }
            Step::Entries(changes) => {
                let lines: Vec<String> = changes.iter().map(map_command).collect();
                f.write_str(&lines.join("\n"))
            }
        }
    }
}

/// The subcommand of `tc qdisc` and `tc filter`.
fn whole<T, R>(change: &Whole<T, R>) -> &'static str {
    match change {
        Whole::Add(_) => "add",
        Whole::Remove(_) => "del",
    }
}

fn root(
    f: &mut Formatter<'_>,
    dev: &LinkName,
    change: &Whole<Replaced, ()>,
    paths: &Paths,
) -> fmt::Result {
    let (tc, Mark(r2q)) = (paths.place.tc(), paths.mark);
    let verb = match change {
        Whole::Remove(()) => return write!(f, "{tc} qdisc del dev {dev} root handle 1:"),
        Whole::Add(Replaced::Kernel) => "add",
        // HTB refuses every change, and a `replace` of a qdisc with the same handle is one.
        Whole::Add(Replaced::Foreign { handle: ClassId::ROOT, .. }) => {
            writeln!(f, "{tc} qdisc del dev {dev} root handle 1:")?;
            "add"
        }
        Whole::Add(Replaced::Foreign { .. }) => "replace",
    };
    write!(f, "{tc} qdisc {verb} dev {dev} root handle 1: htb default fffe r2q {r2q}")
}

fn class(
    f: &mut Formatter<'_>,
    dev: &LinkName,
    id: ClassId,
    change: &Change<Class, Option<LeafQdisc>>,
    paths: &Paths,
) -> fmt::Result {
    let tc = paths.place.tc();
    let words = |class| class_words(id, class, paths.psched);
    match change {
        Change::Add(class) => write!(f, "{tc} class add dev {dev} {}", words(class)),
        Change::Alter { to, .. } => write!(f, "{tc} class change dev {dev} {}", words(to)),
        Change::Remove(_) => write!(f, "{tc} class del dev {dev} classid {id}"),
        Change::Replace { to, below, .. } => {
            writeln!(f, "{tc} class del dev {dev} classid {id}")?;
            write!(f, "{tc} class add dev {dev} {}", words(to))?;
            let mut leaf = below.iter();
            leaf.try_for_each(|leaf| {
                write!(f, "\n{tc} qdisc add dev {dev} {}", leaf_words(id, leaf))
            })
        }
    }
}

fn leaf(
    f: &mut Formatter<'_>,
    dev: &LinkName,
    id: ClassId,
    change: &LeafChange,
    paths: &Paths,
) -> fmt::Result {
    let tc = paths.place.tc();
    let delete = |leaf: &FoundLeaf| {
        format!("{tc} qdisc del dev {dev} parent {id} handle {}", leaf.handle(id))
    };
    match change {
        Change::Add(leaf) => write!(f, "{tc} qdisc add dev {dev} {}", leaf_words(id, leaf)),
        Change::Alter { to, .. } => {
            write!(f, "{tc} qdisc change dev {dev} {}", leaf_words(id, to))
        }
        Change::Replace { from, to, .. } => {
            write!(f, "{}\n{tc} qdisc add dev {dev} {}", delete(from), leaf_words(id, to))
        }
        Change::Remove(leaf) => f.write_str(&delete(leaf)),
    }
}

/// Whose class the deciding program finds.
fn decision_words(program: &Program) -> String {
    format!(
        "the owner's class{}{}",
        if program.tag.is_some() { ", else the tag's" } else { "" },
        if program.shards { "; e000:x becomes 1:e000" } else { "" }
    )
}

/// tc reads programs from files only; `src/classify/program.rs` says what is in those named here.
fn filter(
    f: &mut Formatter<'_>,
    port: &Port,
    seat: Seat,
    change: &FilterChange,
    paths: &Paths,
) -> fmt::Result {
    let (at, dev) = match seat.parent {
        Parent::Egress => ("egress".to_string(), port.link.clone()),
        Parent::Ingress => ("ingress".to_string(), port.link.clone()),
        parent => (format!("parent {}", parent.classid()), port.device()),
    };
    let (parent, pref, tc) = (seat.parent.classid(), seat.pref, paths.place.tc());
    let filter = match change {
        Whole::Remove(_) => return write!(f, "{tc} filter del dev {dev} {at} pref {pref}"),
        Whole::Add(filter) => filter,
    };
    let add = format!(
        "{tc} filter add dev {dev} {at} protocol {} pref {pref}",
        protocol(filter.protocol())
    );
    match filter {
        Filter::ClearPriority(_) => {
            let does = "priorities that name a class of 1: become 0";
            write!(f, "{add} bpf direct-action object-file shaper-priority.o # {does}")
        }
        Filter::U32 { rules, .. } => {
            let lines = rules_words(pref, rules);
            let lines: Vec<_> = lines.iter().map(|line| format!("{add} {line}")).collect();
            f.write_str(&lines.join("\n"))
        }
        Filter::Program(program) => write!(
            f,
            "{add} bpf object-file shaper-rules.o classid {parent} # {}",
            program_words(program)
        ),
        Filter::Tag(Tag::Cgroup) => write!(f, "{add} handle 1: cgroup"),
        Filter::Tag(Tag::Bpf(program)) => write!(
            f,
            "{add} bpf object-file shaper-decide.o classid {parent} # {}",
            decision_words(program)
        ),
        Filter::Learn(_) => write!(
            f,
            "{add} bpf direct-action object-file shaper-learn.o # the sender's class by flow"
        ),
        Filter::Find { shards, for_rules } => {
            let does = match (shards, for_rules) {
                (_, true) => "tells the rules whose flow it is",
                (true, _) => "the flow's class; e000:x becomes 1:e000",
                (false, _) => "the flow's class",
            };
            write!(f, "{add} bpf object-file shaper-find.o classid {parent} # {does}")
        }
        Filter::Label(label) => {
            let words = label_words(*label);
            write!(f, "{add} bpf direct-action object-file shaper-label.o # {words}")
        }
        Filter::Pulse => write!(f, "{add} bpf object-file shaper-pulse.o classid {parent}"),
        Filter::Redirect => write!(
            f,
            "{add} bpf object-file shaper-redirect.o action mirred egress redirect dev {} \
             # IP, but no neighbour discovery",
            port.device()
        ),
    }
}

fn ifb(
    f: &mut Formatter<'_>,
    name: &LinkName,
    change: &InPlace<Ifb>,
    paths: &Paths,
) -> fmt::Result {
    let (ip, Mark(mark)) = (paths.place.ip(), paths.mark);
    match change {
        Change::Add(_) => write!(
            f,
            "{ip} link add {name} type ifb && \
             {ip} link set {name} alias 'shaper mark={mark:08x}' addrgenmode none up"
        ),
        Change::Alter { .. } => write!(f, "{ip} link set {name} up"),
        Change::Replace { below, .. } => match *below {},
        Change::Remove(_) => write!(f, "{ip} link del {name}"),
    }
}

/// Commands that delete hash tables, tried several times: a table is in use for a moment after the
/// link to it went.
fn tables(f: &mut Formatter<'_>, dev: &LinkName, left: &LeftTables, paths: &Paths) -> fmt::Result {
    let tc = paths.place.tc();
    let tables: Vec<String> = left.tables.iter().map(|table| format!("{table:x}")).collect();
    write!(
        f,
        "for t in {}; do for i in 1 2 3 4 5 6 7 8 9; do \
         {tc} filter del dev {dev} parent 1: protocol {} pref {} handle $t: u32 \
         && break; sleep 0.1; done; done",
        tables.join(" "),
        protocol(left.protocol),
        left.through,
    )
}

fn directory(
    f: &mut Formatter<'_>,
    claim: &Claim,
    change: &InPlace<ClassId>,
    paths: &Paths,
) -> fmt::Result {
    let path = paths.instance.join(claim.to_string());
    let path = path.display();
    match change {
        Change::Add(ClassId(tag)) => {
            write!(f, "mkdir -p {path} && echo 0x{tag:08x} > {path}/net_cls.classid")
        }
        Change::Alter { to: ClassId(tag), .. } => {
            write!(f, "echo 0x{tag:08x} > {path}/net_cls.classid")
        }
        Change::Replace { below, .. } => match *below {},
        Change::Remove(_) => write!(f, "rmdir {path}"),
    }
}

/// The bpftool command that equals a change of one entry; `$ACCOUNTS`, `$RANGES`, `$GIVEN` and
/// `$SOURCES` are the numbers of the maps, which the filter's name says.
fn map_command(change: &OwnerChange) -> String {
    let hex =
        |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
    let (map, key) = match change.key {
        OwnerKey::Account(uid) => ("$ACCOUNTS", hex(&uid.to_ne_bytes())),
        OwnerKey::Prefix(prefix) => {
            let bits = u32::from(prefix.bits).to_ne_bytes();
            ("$RANGES", hex(&[bits, prefix.uid.to_be_bytes()].concat()))
        }
        OwnerKey::Source(source) => ("$SOURCES", hex(&inner::key(source))),
        OwnerKey::Cgroup(cgroup, turn) => {
            let key = cgroups::key(cgroup, turn);
            ("$GIVEN", key.map(|key| hex(&key)).unwrap_or_default())
        }
    };
    match change.to {
        Some(class) => {
            let value = hex(&class.0.to_ne_bytes());
            format!("bpftool map update id {map} key hex {key} value hex {value}")
        }
        None => format!("bpftool map delete id {map} key hex {key}"),
    }
}

fn class_words(id: ClassId, class: &Class, psched: Psched) -> String {
    let parent = class.parent.unwrap_or(ClassId::qdisc(id.major()));
    let own = match class.role {
        Role::Inner => String::new(),
        Role::Leaf { prio, quantum } => format!(" prio {prio} quantum {quantum}"),
    };
    let (rate, ceil) = (class.rate, class.ceil);
    format!(
        "parent {parent} classid {id} htb rate {} ceil {} burst {} cburst {}{own}",
        InWholeUnits(rate),
        InWholeUnits(ceil),
        class.burst.bytes_at(rate, psched),
        class.cburst.bytes_at(ceil, psched),
    )
}

fn leaf_words(id: ClassId, leaf: &LeafQdisc) -> String {
    let options = match leaf {
        LeafQdisc::FqCodel => format!(" flows {}", LeafQdisc::FQ_CODEL_FLOWS),
        LeafQdisc::Bfifo { limit } => format!(" limit {limit}"),
        LeafQdisc::Pfifo { limit } => format!(" limit {limit}"),
        LeafQdisc::Shard => format!(" default fffe r2q {}", Mark::SHARD.0),
        LeafQdisc::Sfq | LeafQdisc::Cake => String::new(),
    };
    format!("parent {id} handle {} {}{options}", LeafQdisc::handle(id), leaf.kind())
}

/// The words after the pref in each command that makes a set of u32 rules. The kernel numbers the
/// nodes of a list by itself; nodes of tables have their number here.
fn rules_words(pref: Pref, rules: &U32Rules) -> Vec<String> {
    let first = pref.tables().start;
    let mut lines = Vec::new();
    for (number, table) in &rules.tables {
        let number = first + number;
        lines.push(format!("handle {number:x}: u32 divisor {}", table.divisor));
        for (bucket, nodes) in &table.buckets {
            for (node, place) in nodes.iter().zip(1..) {
                let words = node_words(first, node);
                lines.push(format!("handle ::{place:x} u32 ht {number:x}:{bucket:x}: {words}"));
            }
        }
    }
    lines.extend(rules.root.iter().map(|node| format!("u32 {}", node_words(first, node))));
    lines
}

fn node_words(first_table: u16, node: &U32Node) -> String {
    let (keys, then) = match node {
        U32Node::Rule(rule) => {
            // The line's number, where the kernel keeps it (`netlink::cls_u32`).
            let line = rule.line.map(|line| format!("hashkey mask 0x{line:08x} at 0 "));
            (&rule.keys, format!("{}flowid {}", line.unwrap_or_default(), rule.to))
        }
        U32Node::Link(link) => {
            let hash = link.hash.map_or(String::new(), |hash| {
                format!(" hashkey mask 0x{:08x} at {}", hash.mask, hash.offset)
            });
            let advance = match link.advance {
                0 => String::new(),
                bytes => format!(" offset plus {bytes} eat"),
            };
            (&link.keys, format!("link {:x}:{advance}{hash}", first_table + link.table))
        }
    };
    let mut words = String::new();
    for key in keys {
        words.push_str(&format!(
            "match u32 0x{:08x} 0x{:08x} at {} ",
            key.value, key.mask, key.offset
        ));
    }
    if keys.is_empty() {
        words.push_str("match u32 0 0 at 0 ");
    }
    words + &then
}

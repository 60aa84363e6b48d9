//! Steps as people read them: a line of `shaper plan`, and the `tc` (or shell) command that a step
//! equals, which is also how errors name a step.

use std::fmt;
use std::path::PathBuf;

use super::{Plan, Replaced, Step};
use crate::tree::{
    Class, Filter, LeafQdisc, LinkName, Mark, OwnerChange, Pref, Role, RuleProgram, Tag, U32Node,
    U32Rules, Uids,
};
use crate::units::{ClassId, Psched, Ticks};

/// What a command line needs besides the step: where the directories are, and the tick.
#[derive(Clone, Debug)]
pub struct Paths {
    /// Where `net_cls` is, or will be, mounted.
    pub mount: PathBuf,
    /// The instance's directory below it.
    pub instance: PathBuf,
    pub mark: Mark,
    pub psched: Psched,
}

/// A step as the command that it equals. Several commands are joined by newlines.
pub struct Tc<'a>(pub &'a Step, pub &'a Paths);

impl fmt::Display for Tc<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tc(step, paths) = self;
        // `None` for steps whose commands name no link.
        let dev = step.link().map_or("", LinkName::as_str);
        let dir = |claim: &crate::tree::Claim| paths.instance.join(claim.to_string());
        match step {
            Step::Mount => {
                let at = paths.mount.display();
                write!(f, "mkdir -p {at} && mount -t cgroup -o net_cls net_cls {at}")
            }
            Step::Unmount => write!(f, "umount {}", paths.mount.display()),
            Step::AddRoot { replaces, .. } => {
                // HTB refuses every change, and a `replace` of a qdisc with the same handle is one.
                let verb = match replaces {
                    Replaced::Kernel => "add",
                    Replaced::Foreign { handle: ClassId::ROOT, .. } => {
                        writeln!(f, "tc qdisc del dev {dev} root handle 1:")?;
                        "add"
                    }
                    Replaced::Foreign { .. } => "replace",
                };
                let r2q = paths.mark.0;
                write!(f, "tc qdisc {verb} dev {dev} root handle 1: htb default fffe r2q {r2q}")
            }
            Step::DeleteRoot { .. } => write!(f, "tc qdisc del dev {dev} root handle 1:"),
            Step::AddClsact { link } => write!(f, "tc qdisc add dev {link} clsact"),
            Step::DeleteClsact { link } => write!(f, "tc qdisc del dev {link} clsact"),
            Step::MakeClaim { claim, classid } => {
                let dir = dir(claim);
                let dir = dir.display();
                write!(f, "mkdir -p {dir} && echo 0x{:08x} > {dir}/net_cls.classid", classid.0)
            }
            Step::WriteClassid { claim, to, .. } => {
                write!(f, "echo 0x{:08x} > {}/net_cls.classid", to.0, dir(claim).display())
            }
            Step::RemoveClaim { claim, .. } => write!(f, "rmdir {}", dir(claim).display()),
            Step::AddClass { id, class, .. } => {
                write!(f, "tc class add dev {dev} {}", class_words(*id, class, paths.psched))
            }
            Step::ChangeClass { id, to, .. } => {
                write!(f, "tc class change dev {dev} {}", class_words(*id, to, paths.psched))
            }
            Step::DeleteClass { id, .. } => {
                write!(f, "tc class del dev {dev} classid {id}")
            }
            Step::ReplaceClass { id, to, leaf, .. } => {
                writeln!(f, "tc class del dev {dev} classid {id}")?;
                write!(f, "tc class add dev {dev} {}", class_words(*id, to, paths.psched))?;
                match leaf {
                    Some(leaf) => {
                        write!(f, "\ntc qdisc add dev {dev} {}", leaf_words(*id, leaf))
                    }
                    None => Ok(()),
                }
            }
            Step::AddLeaf { id, leaf, .. } => {
                write!(f, "tc qdisc add dev {dev} {}", leaf_words(*id, leaf))
            }
            Step::ChangeLeaf { id, to, .. } => {
                write!(f, "tc qdisc change dev {dev} {}", leaf_words(*id, to))
            }
            Step::ReplaceLeaf { id, from, to, .. } => {
                let handle = from.handle(*id);
                writeln!(f, "tc qdisc del dev {dev} parent {id} handle {handle}")?;
                write!(f, "tc qdisc add dev {dev} {}", leaf_words(*id, to))
            }
            // `src/classify/program.rs` says what is in it.
            Step::AddFilter { pref, filter: Filter::ClearPriority(_), .. } => write!(
                f,
                "tc filter add dev {dev} egress protocol all pref {pref} bpf direct-action \
                 object-file shaper-priority.o # priorities that name a class of 1: become 0"
            ),
            Step::DeleteFilter { pref, filter: Filter::ClearPriority(_), .. } => {
                write!(f, "tc filter del dev {dev} egress pref {pref}")
            }
            Step::AddFilter { parent, pref, filter, .. } => {
                let add = |protocol: &str| {
                    format!(
                        "tc filter add dev {dev} parent {parent} protocol {protocol} pref {pref}"
                    )
                };
                match filter {
                    Filter::U32 { protocol: of, rules } => {
                        let lines = rules_words(*pref, rules);
                        let add = add(&protocol(of.ethertype()));
                        let lines: Vec<_> = lines.iter().map(|l| format!("{add} {l}")).collect();
                        f.write_str(&lines.join("\n"))
                    }
                    // As with the deciding program, what is in it is said here alone.
                    Filter::Program(program) => write!(
                        f,
                        "{} bpf object-file shaper-rules.o classid {parent} # {}",
                        add("all"),
                        program_words(program)
                    ),
                    Filter::Tag(Tag::Cgroup) => write!(f, "{} handle 1: cgroup", add("all")),
                    // tc reads programs from files only; `src/classify/program.rs` says what is in
                    // this one.
                    Filter::Tag(Tag::Bpf(program)) => write!(
                        f,
                        "{} bpf object-file shaper-decide.o classid {parent} # the owner's class, else the tag's{}",
                        add("all"),
                        if program.shards { "; e000:x becomes 1:e000" } else { "" }
                    ),
                    Filter::ClearPriority(_) => f.write_str(&add("all")),
                    Filter::Unknown { kind, .. } => write!(f, "{} {kind}", add("all")),
                }
            }
            Step::DeleteFilter { parent, pref, .. } => {
                write!(f, "tc filter del dev {dev} parent {parent} pref {pref}")
            }
            // The maps are anonymous: no command can make them first and give them to a filter
            // later.
            Step::MakeOwners { table } => {
                let (accounts, ranges) = (table.accounts.len(), table.ranges.len());
                write!(f, "# BPF maps of {accounts} uids and {ranges} prefixes of uids")
            }
            Step::ChangeOwners { changes } => {
                let lines: Vec<String> = changes.iter().map(map_command).collect();
                f.write_str(&lines.join("\n"))
            }
            Step::DropOwners => write!(f, "# the BPF maps go with the last filter"),
            // In use for a moment after what led to them went.
            Step::DeleteTables { through, protocol: ethertype, tables, .. } => {
                let tables: Vec<String> = tables.iter().map(|table| format!("{table:x}")).collect();
                write!(
                    f,
                    "for t in {}; do for i in 1 2 3 4 5 6 7 8 9; do \
                     tc filter del dev {dev} parent 1: protocol {} pref {through} handle $t: u32 \
                     && break; sleep 0.1; done; done",
                    tables.join(" "),
                    protocol(*ethertype),
                )
            }
        }
    }
}

/// The bpftool command that equals a change of one entry; `$ACCOUNTS` and `$RANGES` are the numbers
/// of the maps, which the filter's name says.
fn map_command(change: &OwnerChange) -> String {
    let hex =
        |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
    let (map, key) = match change.uids {
        Uids::Account(uid) => ("$ACCOUNTS", hex(&uid.to_ne_bytes())),
        Uids::Prefix(prefix) => {
            let bits = u32::from(prefix.bits).to_ne_bytes();
            ("$RANGES", hex(&[bits, prefix.uid.to_be_bytes()].concat()))
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

/// As `tc` spells an ethertype.
fn protocol(ethertype: u16) -> String {
    match ethertype {
        0x0003 => "all".to_string(),
        0x0800 => "ip".to_string(),
        0x86dd => "ipv6".to_string(),
        other => format!("{other:#06x}"),
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
        "parent {parent} classid {id} htb rate {rate} ceil {ceil} burst {} cburst {}{own}",
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
        LeafQdisc::Sfq | LeafQdisc::Cake | LeafQdisc::Other { .. } => String::new(),
    };
    format!("parent {id} handle {} {}{options}", leaf.handle(id), leaf.kind())
}

/// What follows the pref in each command that makes a set of u32 rules: a list numbers itself, in
/// tables each node has its number.
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
            let line = rule.line.map(|line| format!("match u32 0x{line:08x} 0x00000000 at 0 "));
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
    if keys.is_empty() && !then.starts_with("match") {
        words.push_str("match u32 0 0 at 0 ");
    }
    words + &then
}

/// One line for a person: what is done, to what, and the numbers that matter.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Mount => write!(f, "+ mount net_cls"),
            Step::Unmount => write!(f, "- mount net_cls"),
            Step::AddRoot { port, .. } => write!(f, "+ {port} root qdisc htb 1:"),
            Step::DeleteRoot { port } => write!(f, "- {port} root qdisc htb 1: and all below it"),
            Step::AddClsact { link } => write!(f, "+ {link} qdisc clsact"),
            Step::DeleteClsact { link } => write!(f, "- {link} qdisc clsact and all in it"),
            Step::MakeClaim { claim, classid } => write!(f, "+ cgroup {claim} = {classid}"),
            Step::WriteClassid { claim, from, to } => write!(f, "~ cgroup {claim}: {from} -> {to}"),
            Step::RemoveClaim { claim, .. } => write!(f, "- cgroup {claim}"),
            Step::AddClass { port, id, class } => {
                write!(f, "+ {port} class {id}")?;
                if let Some(parent) = class.parent {
                    write!(f, " in {parent}")?;
                }
                write!(f, ": rate {} ceil {}", class.rate, class.ceil)?;
                match class.role {
                    Role::Leaf { prio, .. } if prio > 0 => write!(f, " prio {prio}"),
                    _ => Ok(()),
                }
            }
            Step::ChangeClass { port, id, from, to } => {
                write!(f, "~ {port} class {id}:")?;
                let mut changed = |name: &str, from: String, to: String| match from == to {
                    true => Ok(()),
                    false => write!(f, " {name} {from} -> {to}"),
                };
                changed("rate", from.rate.to_string(), to.rate.to_string())?;
                changed("ceil", from.ceil.to_string(), to.ceil.to_string())?;
                // Where they do not just follow the rate. In bytes, as tc says them: the tick is
                // the same on every kernel (PSCHED_SHIFT, include/net/pkt_sched.h).
                let bytes =
                    |ticks: Ticks, rate| ticks.bytes_at(rate, Psched::default()).to_string();
                if from.burst != to.burst {
                    changed("burst", bytes(from.burst, from.rate), bytes(to.burst, to.rate))?;
                }
                if from.cburst != to.cburst {
                    changed("cburst", bytes(from.cburst, from.ceil), bytes(to.cburst, to.ceil))?;
                }
                if let (
                    Role::Leaf { prio, quantum },
                    Role::Leaf { prio: new_prio, quantum: new_quantum },
                ) = (from.role, to.role)
                {
                    changed("prio", prio.to_string(), new_prio.to_string())?;
                    changed("quantum", quantum.to_string(), new_quantum.to_string())?;
                }
                Ok(())
            }
            Step::DeleteClass { port, id, .. } => {
                write!(f, "- {port} class {id}")
            }
            Step::ReplaceClass { port, id, from, to, .. } => {
                let parent = |class: &Class| class.parent.unwrap_or(ClassId::qdisc(id.major()));
                write!(f, "~ {port} class {id}: parent {} -> {}", parent(from), parent(to))
            }
            Step::AddLeaf { port, id, leaf } => {
                write!(f, "+ {port} qdisc {}: {} in {id}", id.minor(), leaf.kind())
            }
            Step::ChangeLeaf { port, id, to, .. } => {
                let limit = match to {
                    LeafQdisc::Bfifo { limit } => format!(" limit {limit}"),
                    LeafQdisc::Pfifo { limit } => format!(" limit {limit}p"),
                    _ => String::new(),
                };
                write!(f, "~ {port} qdisc {}: {}{limit}", id.minor(), to.kind())
            }
            Step::ReplaceLeaf { port, id, from, to } => {
                write!(f, "~ {port} qdisc {}: {} -> {}", id.minor(), from.kind(), to.kind())
            }
            Step::AddFilter { port, parent, pref, filter } => {
                let at = place(*parent);
                write!(f, "+ {port} filter {at}pref {pref}: {}", filter_words(filter))
            }
            Step::DeleteFilter { port, parent, pref, filter } => {
                let at = place(*parent);
                write!(f, "- {port} filter {at}pref {pref}: {}", filter_words(filter))
            }
            Step::MakeOwners { table } => {
                let (accounts, ranges) = (table.accounts.len(), table.ranges.len());
                let s = if accounts == 1 { "" } else { "s" };
                write!(f, "+ owners: {accounts} uid{s}")?;
                match ranges {
                    0 => Ok(()),
                    _ => write!(f, " and ranges"),
                }
            }
            Step::ChangeOwners { changes } => {
                let shown = changes.iter().take(SHOWN_CHANGES).map(ToString::to_string);
                write!(f, "~ owners: {}", shown.collect::<Vec<_>>().join(", "))?;
                match changes.len().saturating_sub(SHOWN_CHANGES) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
            Step::DropOwners => write!(f, "- owners"),
            Step::DeleteTables { port, tables, .. } => {
                let s = if tables.len() == 1 { "" } else { "s" };
                write!(f, "- {port} {} u32 hash table{s} that a filter left", tables.len())
            }
        }
    }
}

/// How many changes of the maps a line shows.
const SHOWN_CHANGES: usize = 4;

/// Where a filter is, unless at the root.
fn place(parent: ClassId) -> String {
    match parent {
        ClassId::ROOT => String::new(),
        ClassId::EGRESS => "at clsact egress ".to_string(),
        shard => format!("at {shard} "),
    }
}

fn filter_words(filter: &Filter) -> String {
    match filter {
        Filter::U32 { protocol: of, rules } => {
            let count = rules.count();
            let s = if count == 1 { "" } else { "s" };
            let tables = match rules.tables.len() {
                0 => String::new(),
                1 => " in a hash table".to_string(),
                tables => format!(" in {tables} hash tables"),
            };
            format!("{} u32, {count} rule{s}{tables}", protocol(of.ethertype()))
        }
        Filter::Program(program) => format!("bpf ({})", program_words(program)),
        Filter::Tag(Tag::Cgroup) => "cgroup (all packets, by net_cls classid)".to_string(),
        Filter::Tag(Tag::Bpf(program)) => {
            let shards = if program.shards { ", and by its major to a shard" } else { "" };
            format!("bpf (all packets, by the socket's owner and net_cls classid{shards})")
        }
        Filter::ClearPriority(_) => {
            "bpf (clears priorities set in other network namespaces)".to_string()
        }
        Filter::Unknown { kind, .. } => format!("unknown ({kind})"),
    }
}

/// Which lines of `rules` a program decides.
fn program_words(program: &RuleProgram) -> String {
    let lines: Vec<u32> = program.rules.iter().map(|rule| rule.line.get()).collect();
    match lines[..] {
        [] => "no rule".to_string(),
        [only] => format!("rule {only}"),
        [first, .., last] => format!("{} rules, {first} to {last} of the file", lines.len()),
    }
}

/// The whole plan, a step a line, with who is disturbed below the step.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for planned in &self.steps {
            write!(f, "{}", planned.step)?;
            let owner = planned.step.class().and_then(|id| self.names.get(&id));
            match owner {
                Some(owner) => writeln!(f, "  ({owner})")?,
                None => writeln!(f)?,
            }
            for disturbance in &planned.disturbs {
                writeln!(f, "    ! disturbs {}: {}", disturbance.who, disturbance.why)?;
            }
        }
        Ok(())
    }
}

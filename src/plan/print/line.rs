//! One line for a person: what is done, to what, and the numbers that matter.

use std::fmt::{self, Display, Formatter};

use super::words::{label_words, program_words, protocol};
use crate::plan::step::list;
use crate::plan::{Change, InPlace, LEARNT, LeafChange, Step, Whole};
use crate::tree::{Class, Filter, FoundFilter, Ifb, LeafQdisc, OwnerChange, Role, Tag};
use crate::units::{ClassId, Psched, Ticks};

/// How many changes of the maps a line shows.
const SHOWN_CHANGES: usize = 4;

impl Display for Step {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.verb().sign())?;
        match self {
            Step::Mount(_) => write!(f, "mount net_cls"),
            Step::Root(port, Whole::Add(_)) => write!(f, "{port} root qdisc htb 1:"),
            Step::Root(port, Whole::Remove(())) => {
                write!(f, "{port} root qdisc htb 1: and all below it")
            }
            Step::Clsact(link, Whole::Add(())) => write!(f, "{link} qdisc clsact"),
            Step::Clsact(link, Whole::Remove(())) => {
                write!(f, "{link} qdisc clsact and all in it")
            }
            Step::Ifb(name, change) => {
                write!(f, "link {name}")?;
                ifb(f, change)
            }
            Step::Class(port, id, change) => {
                write!(f, "{port} class {id}")?;
                class(f, *id, change)
            }
            Step::Leaf(port, id, change) => {
                write!(f, "{port} qdisc {}: ", id.minor())?;
                leaf(f, *id, change)
            }
            Step::Filter(port, seat, change) => {
                write!(f, "{port} filter {seat}: ")?;
                match change {
                    Whole::Add(filter) | Whole::Remove(FoundFilter::Ours(filter)) => {
                        f.write_str(&filter_words(filter))
                    }
                    Whole::Remove(FoundFilter::Strange(filter)) => {
                        write!(f, "unknown ({})", filter.kind)
                    }
                }
            }
            Step::Tables(port, left) => {
                let count = left.tables.len();
                let s = if count == 1 { "" } else { "s" };
                write!(f, "{port} {count} u32 hash table{s} that a filter left")
            }
            Step::Claim(claim, change) => {
                write!(f, "cgroup {claim}")?;
                classid(f, change)
            }
            Step::Owners(Whole::Add(table)) => {
                let accounts = table.accounts.len();
                let s = if accounts == 1 { "" } else { "s" };
                let ranges = if table.ranges.is_empty() { "" } else { " and ranges" };
                write!(f, "owners: {accounts} uid{s}{ranges}")
            }
            Step::Owners(Whole::Remove(())) => write!(f, "owners"),
            Step::Learn(links) => {
                let (seconds, links) = (LEARNT.as_secs(), list(links));
                write!(f, "wait {seconds} s: whose the flows are that run on {links} is learnt")
            }
            Step::Entries(changes) => entries(f, changes),
        }
    }
}

/// The first changes, and how many more there are.
fn entries(f: &mut Formatter<'_>, changes: &[OwnerChange]) -> fmt::Result {
    let shown = changes.iter().take(SHOWN_CHANGES).map(ToString::to_string);
    write!(f, "owners: {}", shown.collect::<Vec<_>>().join(", "))?;
    match changes.len().saturating_sub(SHOWN_CHANGES) {
        0 => Ok(()),
        more => write!(f, " and {more} more"),
    }
}

fn ifb(f: &mut Formatter<'_>, change: &InPlace<Ifb>) -> fmt::Result {
    match change {
        Change::Add(_) => write!(f, " type ifb up"),
        Change::Alter { .. } => write!(f, " up"),
        Change::Replace { below, .. } => match *below {},
        Change::Remove(_) => Ok(()),
    }
}

fn classid(f: &mut Formatter<'_>, change: &InPlace<ClassId>) -> fmt::Result {
    match change {
        Change::Add(classid) => write!(f, " = {classid}"),
        Change::Alter { from, to } => write!(f, ": {from} -> {to}"),
        Change::Replace { below, .. } => match *below {},
        Change::Remove(_) => Ok(()),
    }
}

fn class(
    f: &mut Formatter<'_>,
    id: ClassId,
    change: &Change<Class, Option<LeafQdisc>>,
) -> fmt::Result {
    match change {
        Change::Add(class) => {
            if let Some(parent) = class.parent {
                write!(f, " in {parent}")?;
            }
            write!(f, ": rate {} ceil {}", class.rate, class.ceil)?;
            match class.role {
                Role::Leaf { prio, .. } if prio > 0 => write!(f, " prio {prio}"),
                _ => Ok(()),
            }
        }
        Change::Alter { from, to } => differences(f, from, to),
        Change::Replace { from, to, .. } => {
            let parent = |class: &Class| class.parent.unwrap_or(ClassId::qdisc(id.major()));
            write!(f, ": parent {} -> {}", parent(from), parent(to))
        }
        Change::Remove(_) => Ok(()),
    }
}

fn differences(f: &mut Formatter<'_>, from: &Class, to: &Class) -> fmt::Result {
    write!(f, ":")?;
    let mut changed = |name: &str, from: String, to: String| match from == to {
        true => Ok(()),
        false => write!(f, " {name} {from} -> {to}"),
    };
    changed("rate", from.rate.to_string(), to.rate.to_string())?;
    changed("ceil", from.ceil.to_string(), to.ceil.to_string())?;
    // Bursts are printed where they do not just follow the rate, in bytes as tc prints them: the
    // tick is the same on every kernel (PSCHED_SHIFT, include/net/pkt_sched.h).
    let bytes = |ticks: Ticks, rate| ticks.bytes_at(rate, Psched::default()).to_string();
    if from.burst != to.burst {
        changed("burst", bytes(from.burst, from.rate), bytes(to.burst, to.rate))?;
    }
    if from.cburst != to.cburst {
        changed("cburst", bytes(from.cburst, from.ceil), bytes(to.cburst, to.ceil))?;
    }
    if let (Role::Leaf { prio, quantum }, Role::Leaf { prio: new_prio, quantum: new_quantum }) =
        (from.role, to.role)
    {
        changed("prio", prio.to_string(), new_prio.to_string())?;
        changed("quantum", quantum.to_string(), new_quantum.to_string())?;
    }
    Ok(())
}

fn leaf(f: &mut Formatter<'_>, id: ClassId, change: &LeafChange) -> fmt::Result {
    match change {
        Change::Add(leaf) => write!(f, "{} in {id}", leaf.kind()),
        Change::Alter { to, .. } => {
            let limit = match to {
                LeafQdisc::Bfifo { limit } => format!(" limit {limit}"),
                LeafQdisc::Pfifo { limit } => format!(" limit {limit}p"),
                _ => String::new(),
            };
            write!(f, "{}{limit}", to.kind())
        }
        Change::Replace { from, to, .. } => write!(f, "{} -> {}", from.kind(), to.kind()),
        Change::Remove(leaf) => write!(f, "{}", leaf.kind()),
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
            let tag = if program.tag.is_some() { " and net_cls classid" } else { "" };
            format!("bpf (all packets, by the socket's owner{tag}{shards})")
        }
        Filter::ClearPriority(_) => {
            "bpf (clears priorities set in other network namespaces)".to_string()
        }
        Filter::Learn(_) => "bpf (notes whose flows leave)".to_string(),
        Filter::Find { for_rules: true, .. } => {
            "bpf (tells the rules whose flow it is)".to_string()
        }
        Filter::Find { shards, .. } => {
            let shards = if *shards { ", and by its major to a shard" } else { "" };
            format!("bpf (all packets, by whose flow they belong to{shards})")
        }
        Filter::Pulse => "bpf (notes that packets come to the ifb)".to_string(),
        Filter::Redirect => "bpf (IP goes through the ifb)".to_string(),
        Filter::Label(label) => format!("bpf ({})", label_words(*label)),
    }
}

//! Filters below our root, `parent 1:`, and below a shard's qdisc.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAttribute, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption,
};

use super::{ADD, kind, tc_message};
use crate::netlink::flow_name::{Finds, Reads, Redirects};
use crate::netlink::{ETH_P_ALL, Request, bpf_name, cls_u32, flow_name, label_name};
use crate::tree::{
    Label, MapIds, Mark, Pref, Program, Protocol, RuleMapIds, RuleProgram, Sockets, Tag, U32Link,
    U32Node, U32Rules,
};
use crate::units::ClassId;

/// The rules cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotWrite {
    /// One bucket of a hash table has this many rules, more than it can have.
    #[error("{0} u32 rules in one bucket; the kernel numbers at most {max}", max = cls_u32::MAX_NODES)]
    TooManyNodes(usize),
    /// This number is none that a hash table of the pref can have.
    #[error("hash table {0} of pref {1}, which has {max}", max = .1.most_tables())]
    TooManyTables(u16, Pref),
}

/// The requests that write a set of rules, in two parts.
#[derive(Clone, Debug)]
pub struct AddRules {
    /// `tc filter add dev … parent 1: protocol ip pref P handle T: u32 divisor 256`, and `handle
    /// ::N u32 ht T:B: match … flowid 1:M` for each node of that table. No packet meets these
    /// tables yet.
    pub tables: Vec<Request>,
    /// `handle ::N u32 match … flowid 1:M` for each node of the pref's root table, in order. Sent
    /// after all tables, and first to last: so a half-written set gives a packet the answer of the
    /// whole set, or none, and then the old set at the other pref or the tag answers.
    pub root: Vec<Request>,
}

/// The requests that write a set at a pref where nothing is.
pub fn add_rules(
    ifindex: u32,
    pref: Pref,
    protocol: impl Into<Protocol>,
    rules: &U32Rules,
) -> Result<AddRules, CannotWrite> {
    let at = At { ifindex, pref, protocol: protocol.into().ethertype() };
    let mut tables = Vec::new();
    for (number, table) in &rules.tables {
        let number = at.table(*number)?;
        let options = cls_u32::table_options(table.divisor);
        tables.push(at.add(cls_u32::handle(number, 0, 0), options));
        for (bucket, nodes) in &table.buckets {
            at.add_nodes(Some(cls_u32::handle(number, *bucket, 0)), nodes, &mut tables)?;
        }
    }
    let mut root = Vec::new();
    at.add_nodes(None, &rules.root, &mut root)?;
    Ok(AddRules { tables, root })
}

/// The pref at which u32 nodes are written.
struct At {
    ifindex: u32,
    pref: Pref,
    protocol: u16,
}

impl At {
    /// A table's number in the qdisc.
    fn table(&self, number: u16) -> Result<u16, CannotWrite> {
        let mut numbers = self.pref.tables();
        numbers.nth(number.into()).ok_or(CannotWrite::TooManyTables(number, self.pref))
    }

    fn add_nodes(
        &self,
        bucket: Option<u32>,
        nodes: &[U32Node],
        requests: &mut Vec<Request>,
    ) -> Result<(), CannotWrite> {
        if nodes.len() > cls_u32::MAX_NODES {
            return Err(CannotWrite::TooManyNodes(nodes.len()));
        }
        for (number, node) in (1..).zip(nodes) {
            let options = match node {
                U32Node::Rule(rule) => cls_u32::rule_options(bucket, rule),
                U32Node::Link(link) => {
                    let table = self.table(link.table)?;
                    cls_u32::link_options(bucket, &U32Link { table, ..link.clone() })
                }
            };
            requests.push(self.add(number, options));
        }
        Ok(())
    }

    fn add(&self, handle: u32, options: Vec<TcOption>) -> Request {
        let mut message = message(self.ifindex, ClassId::ROOT, self.pref, self.protocol, handle);
        message.attributes = vec![kind(cls_u32::KIND), TcAttribute::Options(options)];
        Request::change(RouteNetlinkMessage::NewTrafficFilter(message), ADD)
    }
}

/// `tc filter del dev … parent 1: protocol X pref P handle T: u32`: a hash table that nothing leads
/// to, through any u32 pref of the qdisc.
pub fn delete_table(ifindex: u32, through: Pref, protocol: u16, table: u16) -> Request {
    let mut message =
        message(ifindex, ClassId::ROOT, through, protocol, cls_u32::handle(table, 0, 0));
    message.attributes = vec![kind(cls_u32::KIND)];
    Request::change(RouteNetlinkMessage::DelTrafficFilter(message), 0)
}

/// `tc filter get dev … parent 1: protocol X pref P handle T: u32`: refused where there is no such
/// hash table in the qdisc, whichever pref it was made at.
pub fn has_table(ifindex: u32, through: Pref, protocol: u16, table: u16) -> Request {
    let mut message =
        message(ifindex, ClassId::ROOT, through, protocol, cls_u32::handle(table, 0, 0));
    message.attributes = vec![kind(cls_u32::KIND)];
    Request::question(RouteNetlinkMessage::GetTrafficFilter(message))
}

/// `tc filter add dev … parent 1: protocol all pref P handle 1 cgroup`. With `protocol ip`, IPv6
/// would escape it; handle 0 is refused.
pub fn add_cgroup(ifindex: u32, parent: ClassId, pref: Pref) -> Request {
    let mut message = message(ifindex, parent, pref, ETH_P_ALL, 1);
    message.attributes = vec![kind("cgroup"), TcAttribute::Options(vec![])];
    Request::change(RouteNetlinkMessage::NewTrafficFilter(message), ADD)
}

/// A loaded program for a filter: the descriptor by which the kernel finds its instructions, and
/// the filter's name, which says which program it is and which maps it reads.
pub struct Loaded<'f> {
    name: String,
    file: BorrowedFd<'f>,
}

impl<'f> Loaded<'f> {
    /// A deciding program with the maps that it was loaded with.
    pub fn deciding(program: Program, maps: MapIds, file: BorrowedFd<'f>) -> Loaded<'f> {
        Loaded { name: bpf_name::print(program, maps), file }
    }

    /// A program of rules with its own maps and, where a rule asks who sends, the owners' maps.
    pub fn rules(
        rules: &RuleProgram,
        own: RuleMapIds,
        owners: Option<MapIds>,
        file: BorrowedFd<'f>,
    ) -> Loaded<'f> {
        Loaded { name: bpf_name::print_rules(rules, own, owners), file }
    }

    /// The program that clears priorities.
    pub fn clearing(sockets: Sockets, mark: Mark, file: BorrowedFd<'f>) -> Loaded<'f> {
        Loaded { name: bpf_name::print_priority(sockets, mark), file }
    }

    /// A program that notes flows, with the maps that it was loaded with.
    pub fn learning(tag: Tag, mark: Mark, reads: Reads, file: BorrowedFd<'f>) -> Loaded<'f> {
        Loaded { name: flow_name::print_learn(tag, mark, reads), file }
    }

    /// A program that finds flows, at the root of shards or for rules, with its maps.
    pub fn finding(
        (shards, for_rules): (bool, bool),
        finds: Finds,
        file: BorrowedFd<'f>,
    ) -> Loaded<'f> {
        Loaded { name: flow_name::print_find(shards, for_rules, finds), file }
    }

    /// The program that notes that packets come, with its map.
    pub fn pulsing(pulse: u32, file: BorrowedFd<'f>) -> Loaded<'f> {
        Loaded { name: flow_name::print_pulse(pulse), file }
    }

    /// The program that chooses what goes through an ifb.
    pub fn redirecting(mark: Mark, redirects: Redirects, file: BorrowedFd<'f>) -> Loaded<'f> {
        Loaded { name: flow_name::print_redirect(mark, redirects), file }
    }

    /// The program that labels what comes in by an inner link, and where it asks for sources the
    /// maps that it was loaded with.
    pub fn labelling(
        label: Label,
        mark: Mark,
        maps: Option<MapIds>,
        file: BorrowedFd<'f>,
    ) -> Loaded<'f> {
        Loaded { name: label_name::print(label, mark, maps), file }
    }

    /// The options that every such filter has.
    pub(super) fn options(self) -> Vec<TcFilterBpfOption> {
        vec![
            // An open descriptor is never negative.
            TcFilterBpfOption::ProgFd(self.file.as_raw_fd().cast_unsigned()),
            TcFilterBpfOption::ProgName(self.name),
        ]
    }
}

/// `tc filter add dev … parent 1: protocol all pref P handle 1 bpf classid 1: …` without direct
/// action: what the program returns is the classid, and 0 means no match (`cls_bpf_classify`,
/// net/sched/cls_bpf.c). The kernel takes a reference of its own when the message is sent; the
/// program's descriptor must be open until then.
pub fn add_bpf(ifindex: u32, parent: ClassId, pref: Pref, program: Loaded<'_>) -> Request {
    let mut options = program.options();
    options.push(TcFilterBpfOption::ClassId(TcHandle::from(parent.0)));
    let mut message = message(ifindex, parent, pref, ETH_P_ALL, 1);
    let options = TcAttribute::Options(options.into_iter().map(TcOption::Bpf).collect());
    message.attributes = vec![kind(TcFilterBpf::KIND), options];
    Request::change(RouteNetlinkMessage::NewTrafficFilter(message), ADD)
}

/// `tc filter del dev … parent 1: protocol X pref P`: all filters of the pref at once: the kernel
/// unlinks the pref as a whole before it frees its parts.
pub fn delete(ifindex: u32, parent: ClassId, pref: Pref, protocol: u16) -> Request {
    let message = message(ifindex, parent, pref, protocol, 0);
    Request::change(RouteNetlinkMessage::DelTrafficFilter(message), 0)
}

pub(super) fn message(
    ifindex: u32,
    parent: ClassId,
    pref: Pref,
    protocol: u16,
    handle: u32,
) -> TcMessage {
    let mut message = tc_message(ifindex, parent.0, ClassId(handle));
    // `TC_H_MAKE(prio << 16, htons(protocol))`.
    message.header.info = u32::from(pref.0) << 16 | u32::from(protocol.to_be());
    message
}

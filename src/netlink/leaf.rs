//! Leaf qdiscs' options, both directions. Only the numbers of a [`LeafQdisc`] are sent; all others
//! stay at the kernel's defaults.

use netlink_packet_core::DefaultNla;
use netlink_packet_route::tc::{TcAttribute, TcOption, TcQdiscFqCodelOption};

use super::{DEFCLS, attr, htb};
use crate::tree::{LeafQdisc, Mark};
use crate::units::Bytes;

const TCA_OPTIONS: u16 = 2;

/// The options of a new leaf, if it needs any.
pub(super) fn options(leaf: &LeafQdisc) -> Option<TcAttribute> {
    match leaf {
        LeafQdisc::FqCodel => {
            let flows = TcOption::FqCodel(TcQdiscFqCodelOption::Flows(LeafQdisc::FQ_CODEL_FLOWS));
            Some(TcAttribute::Options(vec![flows]))
        }
        // The options of a fifo are no nested attributes but `struct tc_fifo_qopt`, one word
        // (net/sched/sch_fifo.c).
        LeafQdisc::Bfifo { limit } => Some(fifo_limit(u32::try_from(limit.0).unwrap_or(u32::MAX))),
        LeafQdisc::Pfifo { limit } => Some(fifo_limit(*limit)),
        LeafQdisc::Shard => Some(TcAttribute::Options(htb::init(Mark::SHARD))),
        LeafQdisc::Sfq | LeafQdisc::Cake => None,
    }
}

/// The options that can be changed without touching the queue: a fifo's limit, and nothing else.
pub(super) fn changeable(leaf: &LeafQdisc) -> Option<TcAttribute> {
    match leaf {
        LeafQdisc::Bfifo { .. } | LeafQdisc::Pfifo { .. } => options(leaf),
        _ => None,
    }
}

fn fifo_limit(limit: u32) -> TcAttribute {
    TcAttribute::Other(DefaultNla::new(TCA_OPTIONS, limit.to_ne_bytes().to_vec()))
}

/// The leaf of this kind and `TCA_OPTIONS`; `None` for a kind that shaper never makes.
pub(super) fn read(kind: &str, options: Option<&[u8]>) -> Option<LeafQdisc> {
    let limit = || attr::u32_at(options?, 0);
    match kind {
        "fq_codel" => Some(LeafQdisc::FqCodel),
        "sfq" => Some(LeafQdisc::Sfq),
        "cake" => Some(LeafQdisc::Cake),
        "bfifo" => Some(LeafQdisc::Bfifo { limit: Bytes(limit()?.into()) }),
        "pfifo" => Some(LeafQdisc::Pfifo { limit: limit()? }),
        htb::KIND => htb::globals(options?)
            .filter(|found| (found.rate2quantum, found.defcls) == (Mark::SHARD.0, DEFCLS))
            .map(|_| LeafQdisc::Shard),
        _ => None,
    }
}

//! HTB's options, both directions (`struct tc_htb_glob`, `struct tc_htb_opt`, `TCA_HTB_*` in
//! `linux/pkt_sched.h`; `htb_init`, `htb_change_class`, `htb_dump_class` in net/sched/sch_htb.c).
//! netlink-packet-route knows none of them.

use netlink_packet_core::DefaultNla;
use netlink_packet_route::tc::TcOption;

use super::attr;
use crate::tree::{Class, Mark, Quantum, Role};
use crate::units::{ClassId, Rate, Ticks};

/// `TCA_KIND` of HTB's qdiscs and classes.
pub const KIND: &str = "htb";

const TCA_HTB_PARMS: u16 = 1;
const TCA_HTB_INIT: u16 = 2;
const TCA_HTB_RATE64: u16 = 6;
const TCA_HTB_CEIL64: u16 = 7;

/// `HTB_VER >> 16`: the only version that `htb_init` accepts.
const HTB_PROTOVER: u32 = 3;
/// `TC_LINKLAYER_ETHERNET`. With "unaware" (0) the kernel demands a rate table (RTAB).
const LINKLAYER_ETHERNET: u8 = 1;
/// HTB uses no quantum of an inner class, but where none is sent the kernel computes rate / r2q and
/// complains in dmesg that it is too small, as it always is with our mark in r2q.
const INNER_QUANTUM: u32 = 60_000;

/// `tc qdisc add … htb default fffe r2q MARK`.
pub(super) fn init(mark: Mark) -> Vec<TcOption> {
    let glob = [HTB_PROTOVER, mark.0, super::DEFCLS, 0, 0];
    vec![option(TCA_HTB_INIT, glob.iter().flat_map(|word| word.to_ne_bytes()).collect())]
}

/// `tc class add … htb rate R burst B ceil C cburst D quantum Q prio P`. Without RTAB and CTAB,
/// which tc sends and nobody has read since Linux 3.8; with RATE64 and CEIL64 only where 32 bits
/// do not hold the rate.
pub(super) fn parms(class: &Class) -> Vec<TcOption> {
    let (prio, quantum) = match class.role {
        Role::Inner => (0, INNER_QUANTUM),
        Role::Leaf { prio, quantum } => (u32::from(prio), quantum.0),
    };
    let mut opt = Vec::with_capacity(44);
    opt.extend(ratespec(class.rate));
    opt.extend(ratespec(class.ceil));
    let level = 0;
    for word in [class.burst.0, class.cburst.0, quantum, level, prio] {
        opt.extend(word.to_ne_bytes());
    }
    let wide = |kind, rate: Rate| {
        let bytes = rate.bytes_per_second();
        (bytes > u64::from(u32::MAX)).then(|| option(kind, bytes.to_ne_bytes().to_vec()))
    };
    std::iter::once(option(TCA_HTB_PARMS, opt))
        .chain(wide(TCA_HTB_RATE64, class.rate))
        .chain(wide(TCA_HTB_CEIL64, class.ceil))
        .collect()
}

fn option(kind: u16, value: Vec<u8>) -> TcOption {
    TcOption::Other(DefaultNla::new(kind, value))
}

/// `struct tc_ratespec`: cell_log, linklayer, overhead, cell_align, mpu, rate. The cell fields
/// describe a rate table, which is not sent.
fn ratespec(rate: Rate) -> [u8; 12] {
    let narrow = u32::try_from(rate.bytes_per_second()).unwrap_or(u32::MAX);
    let mut spec = [0; 12];
    spec[1] = LINKLAYER_ETHERNET;
    spec[8..].copy_from_slice(&narrow.to_ne_bytes());
    spec
}

/// What an HTB qdisc says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Globals {
    /// Minor of the default class.
    pub defcls: u32,
    /// `rate2quantum`, which holds the mark in our qdiscs.
    pub rate2quantum: u32,
    /// Packets that no filter and no default class took: they went out unshaped.
    pub direct_packets: u32,
}

/// From the value of `TCA_OPTIONS` of an HTB qdisc.
pub(super) fn globals(options: &[u8]) -> Option<Globals> {
    let glob = attr::find(options, TCA_HTB_INIT)?;
    Some(Globals {
        rate2quantum: attr::u32_at(glob, 4)?,
        defcls: attr::u32_at(glob, 8)?,
        direct_packets: attr::u32_at(glob, 16)?,
    })
}

/// A class's parameters as the kernel has them, also those that [`Class`] leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parms {
    /// What the class is guaranteed.
    pub rate: Rate,
    /// What it may reach by borrowing.
    pub ceil: Rate,
    /// The burst above the rate, as the time that it takes at that rate (`buffer`).
    pub burst: Ticks,
    /// The burst above the ceil, as the time that it takes at the ceil (`cbuffer`).
    pub cburst: Ticks,
    /// Bytes a turn when classes of one prio share what is left over.
    pub quantum: u32,
    /// 0 for a class without children.
    pub level: u32,
    /// 0 to 7; the lower is served first with what is left over.
    pub prio: u32,
}

impl Parms {
    /// The class as a value. Whether it is inner follows from the classid and not from `level`,
    /// because to the kernel an empty group is a leaf.
    pub fn class(&self, classid: ClassId, parent: Option<ClassId>) -> Class {
        let role = if classid.minor().is_inner() {
            Role::Inner
        } else {
            // The kernel clamps prio to 7 (TC_HTB_MAXPRIO) before it stores it.
            let prio = u8::try_from(self.prio).unwrap_or(u8::MAX);
            Role::Leaf { prio, quantum: Quantum(self.quantum) }
        };
        let &Parms { rate, ceil, burst, cburst, .. } = self;
        Class { parent, rate, ceil, burst, cburst, role }
    }
}

/// From the value of `TCA_OPTIONS` of an HTB class.
pub(super) fn read_parms(options: &[u8]) -> Option<Parms> {
    let opt = attr::find(options, TCA_HTB_PARMS)?;
    let word = |at| attr::u32_at(opt, at);
    let rate = |wide, at| {
        let wide = attr::find(options, wide).and_then(|value| attr::u64_at(value, 0));
        Rate::from_bytes_per_second(wide.or_else(|| word(at).map(u64::from))?)
    };
    Some(Parms {
        rate: rate(TCA_HTB_RATE64, 8)?,
        ceil: rate(TCA_HTB_CEIL64, 20)?,
        burst: Ticks(word(24)?),
        cburst: Ticks(word(28)?),
        quantum: word(32)?,
        level: word(36)?,
        prio: word(40)?,
    })
}

/// `struct tc_htb_xstats`: lends, borrows. `giants` has been zero since Linux 2.6, and the tokens
/// change with every packet.
pub(super) fn lends_and_borrows(xstats: &[u8]) -> Option<(u64, u64)> {
    Some((attr::u32_at(xstats, 0)?.into(), attr::u32_at(xstats, 4)?.into()))
}

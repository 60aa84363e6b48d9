//! HTB classes and the qdiscs below them.

use super::quantum::{Guarantee, Quantum};
use crate::units::{Bytes, ClassId, Psched, Rate, Ticks};

/// How much a class may send at once, as time at its rate. HTB serves a class when a timer fires;
/// the burst must cover how late the timer is, or the class falls short of its rate (with 1 ms by a
/// tenth at 1 Gbit). Small enough that nobody exceeds his limits by much.
pub const BURST_MS: u64 = 4;

/// Two frames of the largest MTU, in bytes.
const LARGEST_FRAMES: u64 = 2 * (65_535 + 18);

/// An HTB class (`struct tc_htb_opt`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// In the same qdisc. `None`: a root class, directly below the qdisc.
    pub parent: Option<ClassId>,
    /// What the class is guaranteed.
    pub rate: Rate,
    /// What it may reach by borrowing.
    pub ceil: Rate,
    /// Time to send the burst at `rate` (`buffer`).
    pub burst: Ticks,
    /// Time to send the cburst at `ceil` (`cbuffer`).
    pub cburst: Ticks,
    /// What only an inner class or only a leaf has.
    pub role: Role,
}

impl Class {
    /// Where the class's guarantee comes from. An inner class has no quantum, so there the lowest
    /// bit of the burst (a tick, 64 ns) says it.
    pub fn guarantee(&self) -> Guarantee {
        match self.role {
            Role::Leaf { quantum, .. } => quantum.guarantee(),
            Role::Inner => Guarantee::of_bit(self.burst.0),
        }
    }

    /// The same class without its boost; `None`: it has none. A boost is a cburst that is longer
    /// than [`BURST_MS`] and larger than the burst, which has two frames at least.
    ///
    /// The kernel gives a new class all of its cburst to spend (`htb_change_class`,
    /// net/sched/sch_htb.c), and a class whose cburst changes nothing. So a class is made without
    /// its boost and has it given then: who comes back has saved up nothing.
    pub fn without_boost(&self) -> Option<Class> {
        let psched = Psched::default();
        let frames = match self.burst {
            Ticks(u32::MAX) => Bytes(LARGEST_FRAMES),
            // Ticks are whole, and the lowest bit may say something else.
            Ticks(burst) => Ticks(burst.saturating_add(2)).bytes_at(self.rate, psched),
        };
        let at_once = frames.max(self.ceil.bytes_in_ms(BURST_MS));
        let cburst = Ticks::for_bytes(at_once, self.ceil, psched);
        let most = Ticks::for_bytes(Bytes(at_once.0.saturating_add(1)), self.ceil, psched);
        (self.cburst > most).then_some(Class { cburst, ..*self })
    }

    /// What may pass above the class's ceil after a pause, as a policy could have written it;
    /// `None`: no more than any class sends at once.
    pub fn boost(&self) -> Option<Bytes> {
        self.without_boost().map(|_| self.cburst.roundest_at(self.ceil, Psched::default()))
    }

    /// The same inner class with the lowest bit of its burst set so that [`Class::guarantee`]
    /// answers `guarantee`.
    pub fn with_inner_guarantee(self, guarantee: Guarantee) -> Class {
        let burst = match guarantee {
            Guarantee::Written => self.burst.0 & !1,
            Guarantee::Derived => self.burst.0 | 1,
        };
        Class { burst: Ticks(burst), ..self }
    }
}

/// Inner classes ignore prio and quantum (the kernel takes them and says nothing), so they have
/// none; which role a class has follows from its minor ([`Minor::is_inner`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Has classes below it: the link, a group, a shard.
    Inner,
    /// Has a queue and sends.
    Leaf {
        /// 0 (served first) to 7.
        prio: u8,
        /// Bytes a turn when classes share what is left over.
        quantum: Quantum,
    },
}

/// The qdisc that holds a leaf class's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeafQdisc {
    /// Flow queues ([`FQ_CODEL_FLOWS`]). No kernel changes their number later, so any number that
    /// is found counts as ours, and this value has none.
    FqCodel,
    /// Stochastic fairness (net/sched/sch_sfq.c), with the kernel's defaults.
    Sfq,
    /// First in, first out, bounded in bytes (net/sched/sch_fifo.c).
    Bfifo {
        /// The most that may wait.
        limit: Bytes,
    },
    /// Limit in packets.
    Pfifo {
        /// The most packets that may wait.
        limit: u32,
    },
    /// CAKE without a rate of its own (net/sched/sch_cake.c).
    Cake,
    /// The HTB of a shard, below the shard's class; its classes and filters are in the [`Tree`].
    Shard,
}

impl LeafQdisc {
    /// Flow queues in an fq_codel leaf: a leaf takes 11 kB with these, 73 kB with the default
    /// 1,024, and only one user's flows share them. `fq_codel_change` refuses to change them later,
    /// so one constant for all.
    pub const FQ_CODEL_FLOWS: u32 = 32;

    /// The handle that each of them has below this class: the class's minor as a major.
    pub fn handle(below: ClassId) -> ClassId {
        ClassId::qdisc(below.minor().0)
    }

    /// The qdisc's kind, as in `TCA_KIND`.
    pub fn kind(&self) -> &'static str {
        match self {
            LeafQdisc::FqCodel => "fq_codel",
            LeafQdisc::Sfq => "sfq",
            LeafQdisc::Bfifo { .. } => "bfifo",
            LeafQdisc::Pfifo { .. } => "pfifo",
            LeafQdisc::Cake => "cake",
            LeafQdisc::Shard => "htb",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Rate;

    #[test]
    fn the_lowest_bit_says_where_a_guarantee_comes_from() {
        for guarantee in [Guarantee::Written, Guarantee::Derived] {
            for bytes in [60_000, 60_001, 199_999] {
                let quantum = Quantum::new(bytes, guarantee);
                assert_eq!(quantum.guarantee(), guarantee);
                assert!(quantum.0.abs_diff(bytes) <= 2);
                let (rate, burst) = (Rate::MIN_GUARANTEE, Ticks(bytes));
                let inner = Class {
                    parent: None,
                    rate,
                    ceil: rate,
                    burst,
                    cburst: burst,
                    role: Role::Inner,
                };
                assert_eq!(inner.with_inner_guarantee(guarantee).guarantee(), guarantee);
            }
        }
    }
}

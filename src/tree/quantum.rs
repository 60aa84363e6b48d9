//! Where a class's guarantee comes from. The class's own numbers say it, because `status` reads
//! them from the kernel, where nothing else of ours is stored.

use std::fmt;

use super::class::{Class, Role};
use crate::units::Ticks;

/// Where a class's guarantee comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Guarantee {
    /// The policy's number, as written.
    Written,
    /// A share of what the parent has not promised, or next to nothing.
    Derived,
}

/// How many bytes a leaf class may send in its turn when classes share what is left over. Its
/// lowest bit says whether the guarantee was written (0) or derived (1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantum(pub u32);

impl Quantum {
    /// A quantum of `bytes` or up to two less, so that the lowest bit can say where the guarantee
    /// comes from.
    pub const fn new(bytes: u32, guarantee: Guarantee) -> Quantum {
        let even = bytes & !1;
        match guarantee {
            Guarantee::Written => Quantum(even),
            Guarantee::Derived => Quantum(even.saturating_sub(1)),
        }
    }

    /// Where the class's guarantee comes from, as the lowest bit says.
    pub const fn guarantee(self) -> Guarantee {
        of_bit(self.0)
    }
}

impl fmt::Display for Quantum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Class {
    /// Where the class's guarantee comes from. An inner class has no quantum, so there the lowest
    /// bit of the burst (a tick, 64 ns) says it.
    pub fn guarantee(&self) -> Guarantee {
        match self.role {
            Role::Leaf { quantum, .. } => quantum.guarantee(),
            Role::Inner => of_bit(self.burst.0),
        }
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

const fn of_bit(word: u32) -> Guarantee {
    match word % 2 {
        0 => Guarantee::Written,
        _ => Guarantee::Derived,
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

//! Where a class's guarantee comes from. The class's own numbers say it, because `status` reads
//! them from the kernel, where nothing else of ours is stored.

use std::fmt;

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
    /// A quantum of `bytes`, at most one less for a written guarantee and at most two less for a
    /// derived one, so that the lowest bit can say which it is.
    pub const fn new(bytes: u32, guarantee: Guarantee) -> Quantum {
        let even = bytes & !1;
        match guarantee {
            Guarantee::Written => Quantum(even),
            Guarantee::Derived => Quantum(even.saturating_sub(1)),
        }
    }

    /// Where the class's guarantee comes from, as the lowest bit says.
    pub const fn guarantee(self) -> Guarantee {
        Guarantee::of_bit(self.0)
    }
}

impl fmt::Display for Quantum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Guarantee {
    /// Where a guarantee comes from, as the lowest bit of a word says.
    pub(super) const fn of_bit(word: u32) -> Guarantee {
        match word % 2 {
            0 => Guarantee::Written,
            _ => Guarantee::Derived,
        }
    }
}

//! The random numbers of random histories.

/// Pseudo-random numbers (xorshift). The seed must not be 0.
pub(super) struct Chance(pub(super) u64);

impl Chance {
    /// From 0 to `bound`, without it.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    /// One of them.
    pub(super) fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

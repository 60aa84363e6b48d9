//! The time that bytes take in ticks of the packet scheduler's clock.

use super::bytes::Bytes;
use super::rate::Rate;
use std::num::NonZeroU64;

/// The packet scheduler's clock, from `/proc/net/psched` (`net/sched/sch_api.c`, `psched_show`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Psched {
    /// Nanoseconds in a tick: 64 on every kernel since 2.6.
    pub ns_per_tick: NonZeroU64,
}

impl Psched {
    /// Reads the four hexadecimal words of `/proc/net/psched`: the second is the nanoseconds in
    /// a tick once the first (1000, nanoseconds in a microsecond) and the third (the clock's
    /// resolution, 1 MHz) have their usual values.
    pub fn parse(text: &str) -> Option<Psched> {
        let mut words = text.split_whitespace().map(|w| u64::from_str_radix(w, 16));
        let ns_per_us = words.next()?.ok()?;
        let ns_per_tick = words.next()?.ok()?;
        let resolution = words.next()?.ok()?;
        if ns_per_us != 1_000 || resolution != 1_000_000 {
            return None;
        }
        Some(Psched { ns_per_tick: NonZeroU64::new(ns_per_tick)? })
    }
}

impl Default for Psched {
    fn default() -> Self {
        Psched { ns_per_tick: const { NonZeroU64::new(64).unwrap() } }
    }
}

/// A duration in psched ticks: how HTB keeps a burst (the time that it takes to send it at the
/// class's rate). Compared as it is, because bytes do not survive the round trip.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticks(pub u32);

impl Ticks {
    /// The time that `bytes` take at `rate`, in whole ticks, saturating at `u32::MAX`.
    /// Straight in integers; `tc` goes through microseconds and loses the small ones.
    pub fn for_bytes(bytes: Bytes, rate: Rate, psched: Psched) -> Ticks {
        let ns = u128::from(bytes.0) * 1_000_000_000 / u128::from(rate.bytes_per_second());
        Ticks(u32::try_from(ns / u128::from(psched.ns_per_tick.get())).unwrap_or(u32::MAX))
    }

    /// The bytes that fit in this time at `rate`, rounded to the nearest.
    pub fn bytes_at(self, rate: Rate, psched: Psched) -> Bytes {
        let ns = u128::from(self.0) * u128::from(psched.ns_per_tick.get());
        let bytes = (ns * u128::from(rate.bytes_per_second()) + 500_000_000) / 1_000_000_000;
        Bytes(u64::try_from(bytes).unwrap_or(u64::MAX))
    }
}

impl Ticks {
    /// Of all numbers of bytes that take so many whole ticks at `rate` the one that is written
    /// shortest: what [`Ticks::for_bytes`] rounded down was a number that somebody wrote.
    pub fn roundest_at(self, rate: Rate, psched: Psched) -> Bytes {
        let ns = |ticks: u64| u128::from(ticks) * u128::from(psched.ns_per_tick.get());
        // The first number that takes at least so long.
        let first = |ticks: u64| {
            let bytes = (ns(ticks) * u128::from(rate.bytes_per_second())).div_ceil(1_000_000_000);
            u64::try_from(bytes).unwrap_or(u64::MAX)
        };
        let first_of_next = first(u64::from(self.0) + 1);
        Bytes::roundest(first(self.0.into())..=first_of_next.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    #[test]
    fn ticks_are_64_ns_and_saturate() {
        let psched = Psched::parse("000003e8 00000040 000f4240 3b9aca00\n").unwrap();
        // Captured: tc class add … rate 1mbit burst 1600 shows buffer 200000.
        assert_eq!(Ticks::for_bytes(Bytes(1600), rate("1mbit"), psched), Ticks(200_000));
        assert_eq!(Ticks(200_000).bytes_at(rate("1mbit"), psched), Bytes(1600));
        assert_eq!(Ticks::for_bytes(Bytes(u64::MAX), rate("8bit"), psched), Ticks(u32::MAX));
    }

    #[test]
    fn a_volume_that_somebody_wrote_is_found_again() {
        let psched = Psched::default();
        for (volume, at) in [
            (500 << 20, "100mbit"),
            (1_500_000, "8mbit"),
            (75_000_000, "10mbit"),
            (3 << 29, "1gbit"),
            (65_536, "64kbit"),
        ] {
            let ticks = Ticks::for_bytes(Bytes(volume), rate(at), psched);
            assert_eq!(ticks.roundest_at(rate(at), psched), Bytes(volume));
        }
    }

    proptest! {
        #[test]
        fn the_roundest_number_takes_the_same_ticks(
            rate in 125..12_500_000_000_u64,
            pause in 1..60_000_000_000_u64,
        ) {
            let bytes = u64::try_from(u128::from(rate) * u128::from(pause) / 1_000_000_000).unwrap();
            let (rate, psched) = (Rate::literal(rate), Psched::default());
            let ticks = Ticks::for_bytes(Bytes(bytes), rate, psched);
            let found = ticks.roundest_at(rate, psched);
            prop_assert_eq!(Ticks::for_bytes(found, rate, psched), ticks);
            prop_assert!(found.to_volume().len() <= Bytes(bytes).to_volume().len());
        }
    }
}

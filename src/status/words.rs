//! How the tables spell numbers: short, and never rounded up.

use std::time::Duration;

use crate::units::Rate;

/// A duration in the largest unit of which it has at least two.
pub(super) fn lasting(time: Duration) -> String {
    let seconds = time.as_secs();
    let units = [("days", 86_400), ("h", 3_600), ("min", 60)];
    let unit = units.iter().find(|(_, length)| seconds >= 2 * length);
    unit.map_or(format!("{seconds} s"), |(name, length)| format!("{} {name}", seconds / length))
}

/// The most columns that a limit takes.
const LIMIT: usize = 10;

/// A limit, as a policy would spell it; one that is longer than a column, such as a share of a
/// share, as what is measured.
pub fn limit(bits: u64) -> String {
    let exact = Rate::from_bits_per_second(bits).map(|rate| rate.to_string());
    exact.filter(|exact| exact.len() <= LIMIT).unwrap_or_else(|| measured(bits))
}

/// A rate that was measured: as a policy would spell it, rounded down to three digits.
pub fn measured(bits: u64) -> String {
    match Rate::from_bits_per_second(bits) {
        Some(_) => scaled(bits, 1_000, ["bit", "kbit", "mbit", "gbit", "tbit"]),
        None => "0".to_string(),
    }
}

/// In powers of 1,024, rounded down.
pub(super) fn bytes(bytes: u64) -> String {
    scaled(bytes, 1_024, ["B", "KiB", "MiB", "GiB", "TiB"])
}

fn scaled(number: u64, step: u64, units: [&str; 5]) -> String {
    let mut unit = 0;
    let mut divisor: u64 = 1;
    while unit < 4 && number / divisor >= step {
        divisor *= step;
        unit += 1;
    }
    let whole = number / divisor;
    let tenths = u128::from(number % divisor) * 10 / u128::from(divisor);
    match (whole < 100 && tenths > 0, units[unit]) {
        (true, unit) => format!("{whole}.{tenths}{unit}"),
        (false, unit) => format!("{whole}{unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_never_round_up() {
        for (bits, measures, limits) in [
            (100_000_000, "100mbit", "100mbit"),
            (1_500_000, "1.5mbit", "1.5mbit"),
            (42_750_000, "42.7mbit", "42.75mbit"),
            (123_456_000, "123mbit", "123mbit"),
            (12_345_672, "12.3mbit", "12.3mbit"),
            (999_999, "999kbit", "999kbit"),
            (0, "0", "0"),
        ] {
            assert_eq!((measured(bits).as_str(), limit(bits).as_str()), (measures, limits));
        }
        assert_eq!(bytes(0), "0B");
        assert_eq!(bytes(1_536), "1.5KiB");
        assert_eq!(bytes(u64::MAX), "16777215TiB");
    }
}

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

/// As a policy would spell it, rounded to three digits.
pub(super) fn bits(bits: u64) -> String {
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
        assert_eq!(bits(100_000_000), "100mbit");
        assert_eq!(bits(1_500_000), "1.5mbit");
        assert_eq!(bits(999_999), "999kbit");
        assert_eq!(bytes(0), "0B");
        assert_eq!(bytes(1_536), "1.5KiB");
        assert_eq!(bytes(u64::MAX), "16777215TiB");
    }
}

//! Rates and shares of rates, parsed and printed as a policy writes them.

use super::bytes::Bytes;
use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

/// A bandwidth, in bytes per second: the unit in which the kernel keeps and echoes rates
/// (`struct tc_ratespec.rate`, `TCA_HTB_RATE64`). Never zero: HTB refuses a zero rate without a
/// word (`EINVAL`). Counts link-layer bytes, as HTB does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(NonZeroU64);

/// Why a text is no [`Rate`] or [`Percent`]. The wording says the cure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// A number alone.
    #[error(
        "`{number}` has no unit; write for example `{number}mbit` (megabits per second) or `{number}{other}`"
    )]
    NoUnit {
        /// As written.
        number: String,
        /// A second unit to propose, for which the number is no zero.
        other: &'static str,
    },
    /// `mbps` and the like, which people read as bits and `tc` as bytes.
    #[error(
        "`{whole}` is ambiguous: to tc `{unit}` means bytes per second; write `{number}{bits}` for bits, or `{eightfold}{bits}` if bytes were meant"
    )]
    BytesPerSecond {
        /// As written.
        whole: String,
        /// Its number.
        number: String,
        /// Its unit.
        unit: String,
        /// The unit of the same size in bits.
        bits: String,
        /// Eight times the number.
        eightfold: String,
    },
    /// A number with another word behind it; as written.
    #[error(
        "`{0}` has an unknown unit; the units are bit, kbit, mbit, gbit, tbit (powers of 1000), kibit, mibit, gibit, tibit (powers of 1024) and %"
    )]
    UnknownUnit(String),
    /// Nothing that begins with a number; as written.
    #[error("`{0}` is not a number followed by a unit, such as `100mbit` or `1.5gbit`")]
    NotANumber(String),
    /// Zero in any unit.
    #[error("a rate of zero would let nothing through; the smallest is `8bit`")]
    Zero,
    /// Less than a byte per second, or than a thousandth of a percent; as written.
    #[error("`{0}` is less than one byte per second; the smallest rate is `8bit`")]
    TooSmall(String),
    /// A minus before a number.
    #[error("a rate cannot be negative")]
    Negative,
    /// More than 64 bits of bytes per second; as written.
    #[error("`{0}` is larger than any link (the limit is 147 exabit per second)")]
    TooLarge(String),
    /// A percentage above 100; as written.
    #[error("`{0}` is more than 100%")]
    MoreThanAll(String),
}

impl Rate {
    /// What a class gets when nothing is left to guarantee (1 kbit/s): HTB needs a rate above zero,
    /// and ten thousand of these must still be little.
    pub const MIN_GUARANTEE: Rate = Rate::literal(125);

    /// The units that a policy can write.
    pub const UNITS: [&str; 9] =
        ["bit", "kbit", "mbit", "gbit", "tbit", "kibit", "mibit", "gibit", "tibit"];

    /// A rate that the program itself names, in bytes per second; only for constants.
    pub(crate) const fn literal(bytes_per_second: u64) -> Rate {
        match NonZeroU64::new(bytes_per_second) {
            Some(n) => Rate(n),
            None => panic!("a literal rate is not zero"),
        }
    }

    /// From bytes per second; `None` for zero.
    pub const fn from_bytes_per_second(n: u64) -> Option<Rate> {
        match NonZeroU64::new(n) {
            Some(n) => Some(Rate(n)),
            None => None,
        }
    }

    /// From bits per second, rounded down to whole bytes; `None` below 8 bit/s.
    pub const fn from_bits_per_second(n: u64) -> Option<Rate> {
        Rate::from_bytes_per_second(n / 8)
    }

    /// In the kernel's unit; never zero.
    pub const fn bytes_per_second(self) -> u64 {
        self.0.get()
    }

    /// In bits per second, saturating (a `u64` of bytes per second is 147 exabit/s).
    pub const fn bits_per_second(self) -> u64 {
        self.0.get().saturating_mul(8)
    }

    /// This rate times `num / den`, rounded down, at least 1 byte/s.
    pub fn scale(self, num: u64, den: NonZeroU64) -> Rate {
        let scaled = u128::from(self.0.get()) * u128::from(num) / u128::from(den.get());
        let clamped = u64::try_from(scaled).unwrap_or(u64::MAX).max(1);
        Rate(NonZeroU64::new(clamped).unwrap_or(NonZeroU64::MIN))
    }

    /// How many bytes this rate carries in `ms` milliseconds, rounded down.
    pub fn bytes_in_ms(self, ms: u64) -> Bytes {
        let bytes = u128::from(self.0.get()) * u128::from(ms) / 1_000;
        Bytes(u64::try_from(bytes).unwrap_or(u64::MAX))
    }
}

/// As a policy spells it, so that it can be written there: in the largest unit in which three
/// decimals keep it exact (`100mbit`, `1.5mbit`, `12345.672kbit`).
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u128::from(self.0.get()) * 8;
        let (unit, size) = UNITS
            .into_iter()
            .find(|(_, size)| bits >= *size && bits * 1_000 % size == 0)
            .unwrap_or(("bit", 1));
        let (whole, thousandths) = (bits / size, bits % size * 1_000 / size);
        match format!(".{thousandths:03}").trim_end_matches('0') {
            "." => write!(f, "{whole}{unit}"),
            decimals => write!(f, "{whole}{decimals}{unit}"),
        }
    }
}

/// Units of rates, the largest first, in bits per second.
const UNITS: [(&str, u128); 5] = [
    ("tbit", 1_000_000_000_000),
    ("gbit", 1_000_000_000),
    ("mbit", 1_000_000),
    ("kbit", 1_000),
    ("bit", 1),
];

/// A rate in whole numbers (`1500kbit`): `tc` reads decimals as floats, of which it could drop a
/// byte.
#[derive(Clone, Copy, Debug)]
pub struct InWholeUnits(pub Rate);

impl fmt::Display for InWholeUnits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u128::from(self.0.bytes_per_second()) * 8;
        let (unit, size) =
            UNITS.into_iter().find(|(_, size)| bits % size == 0).unwrap_or(("bit", 1));
        write!(f, "{}{unit}", bits / size)
    }
}

impl FromStr for Rate {
    type Err = RateError;

    /// `100mbit`, `1.5gbit`, `64kibit`: a decimal number and a unit, any case, no sign.
    fn from_str(text: &str) -> Result<Rate, RateError> {
        let (number, unit) = split_number(text)?;
        let whole = || text.trim().to_string();
        let lower = unit.to_ascii_lowercase();
        let bits = match lower.as_str() {
            "" => {
                // A cure that would be refused too is none: that is said at once.
                format!("{}mbit", whole()).parse::<Rate>()?;
                let kbit = format!("{}kbit", whole()).parse::<Rate>();
                let is_many = number.text.parse::<u64>().is_ok_and(|many| many >= 100_000);
                let other = match kbit {
                    // So many are rather bits.
                    Ok(_) if is_many => "bit",
                    Ok(_) => "kbit",
                    Err(_) => "gbit",
                };
                return Err(RateError::NoUnit { number: whole(), other });
            }
            "bit" => 1,
            "kbit" => 1_000,
            "mbit" => 1_000_000,
            "gbit" => 1_000_000_000,
            "tbit" => 1_000_000_000_000,
            "kibit" => 1 << 10,
            "mibit" => 1 << 20,
            "gibit" => 1 << 30,
            "tibit" => 1_u64 << 40,
            "bps" | "kbps" | "mbps" | "gbps" | "tbps" | "kibps" | "mibps" | "gibps" | "tibps" => {
                let bits = lower.replace("bps", "bit");
                format!("{}{bits}", number.text).parse::<Rate>()?;
                return Err(RateError::BytesPerSecond {
                    whole: whole(),
                    number: number.text.to_string(),
                    eightfold: number.times(8),
                    unit: unit.to_string(),
                    bits,
                });
            }
            _ => return Err(RateError::UnknownUnit(whole())),
        };
        if number.is_zero() {
            return Err(RateError::Zero);
        }
        let bits = number.scaled(bits).ok_or_else(|| RateError::TooLarge(whole()))?;
        let bytes = u64::try_from(bits / 8).map_err(|_| RateError::TooLarge(whole()))?;
        Rate::from_bytes_per_second(bytes).ok_or_else(|| RateError::TooSmall(whole()))
    }
}

/// A share of another rate, in thousandths of a percent, above 0 and at most 100 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(u32);

impl Percent {
    const WHOLE: u64 = 100_000;

    /// All of it.
    pub const ALL: Percent = Percent(100_000);

    /// This share of a number, rounded up.
    pub fn part(self, whole: u64) -> u64 {
        let part = (u128::from(whole) * u128::from(self.0)).div_ceil(u128::from(Self::WHOLE));
        u64::try_from(part).unwrap_or(u64::MAX)
    }

    /// This share of `whole`, rounded down, at least 1 byte/s.
    pub fn of(self, whole: Rate) -> Rate {
        whole.scale(u64::from(self.0), NonZeroU64::new(Self::WHOLE).unwrap_or(NonZeroU64::MIN))
    }
}

impl FromStr for Percent {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Percent, RateError> {
        let whole = || text.trim().to_string();
        let (number, unit) = split_number(text)?;
        if unit != "%" {
            return Err(RateError::UnknownUnit(whole()));
        }
        if number.is_zero() {
            return Err(RateError::Zero);
        }
        let thousandths = number.scaled(1_000).ok_or_else(|| RateError::TooLarge(whole()))?;
        match u32::try_from(thousandths) {
            Ok(0) => Err(RateError::TooSmall(whole())),
            Ok(n) if u64::from(n) <= Self::WHOLE => Ok(Percent(n)),
            _ => Err(RateError::MoreThanAll(whole())),
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, thousandths) = (self.0 / 1_000, self.0 % 1_000);
        if thousandths == 0 {
            write!(f, "{whole}%")
        } else {
            let digits = format!("{thousandths:03}");
            write!(f, "{whole}.{}%", digits.trim_end_matches('0'))
        }
    }
}

/// The decimal number in front of a unit, kept as digits: a float would round `0.1gbit`.
struct Decimal<'a> {
    text: &'a str,
    digits: u128,
    /// How many of the digits stand after the point.
    decimals: u32,
}

impl Decimal<'_> {
    fn is_zero(&self) -> bool {
        self.digits == 0
    }

    /// The number times `unit`, rounded down; `None` when it overflows.
    fn scaled(&self, unit: u64) -> Option<u128> {
        Some(self.digits.checked_mul(u128::from(unit))? / 10_u128.checked_pow(self.decimals)?)
    }

    /// The number times `n`, as text, for a message that spells out another reading.
    fn times(&self, n: u128) -> String {
        let Some(digits) = self.digits.checked_mul(n) else { return format!("{n}*{}", self.text) };
        let one = 10_u128.pow(self.decimals);
        let fraction = format!("{:0width$}", digits % one, width = self.decimals as usize);
        match fraction.trim_end_matches('0') {
            "" => (digits / one).to_string(),
            fraction => format!("{}.{fraction}", digits / one),
        }
    }
}

/// Splits `1.5gbit` into its number and its unit.
fn split_number(text: &str) -> Result<(Decimal<'_>, &str), RateError> {
    let text = text.trim();
    let not_a_number = || RateError::NotANumber(text.to_string());
    if let Some(rest) = text.strip_prefix('-')
        && rest.starts_with(|c: char| c.is_ascii_digit())
    {
        return Err(RateError::Negative);
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.contains('.') || number.ends_with('.') {
        return Err(not_a_number());
    }
    // More digits than these mean nothing for a rate, and would overflow the arithmetic.
    if fraction.len() > 12 || whole.len() > 24 {
        return Err(RateError::TooLarge(text.to_string()));
    }
    let digits = format!("{whole}{fraction}").parse().map_err(|_| not_a_number())?;
    let decimals = u32::try_from(fraction.len()).map_err(|_| not_a_number())?;
    Ok((Decimal { text: number, digits, decimals }, unit.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    #[test]
    fn rates_parse_in_powers_of_1000_and_1024() {
        assert_eq!(rate("100mbit").bytes_per_second(), 12_500_000);
        assert_eq!(rate("1.5Gbit").bytes_per_second(), 187_500_000);
        assert_eq!(rate("64kibit").bytes_per_second(), 8_192);
        assert_eq!(rate("0.1gbit"), rate("100mbit"));
        assert_eq!(rate("8bit").bytes_per_second(), 1);
    }

    #[test]
    fn rates_print_exactly() {
        for text in ["100mbit", "1.5mbit", "10gbit", "8bit", "12345.672kbit", "1.048576mbit"] {
            assert_eq!(rate(&rate(text).to_string()), rate(text));
        }
        let print = |text: &str| (rate(text).to_string(), InWholeUnits(rate(text)).to_string());
        for (text, short, whole) in [
            ("100000kbit", "100mbit", "100mbit"),
            ("1500kbit", "1.5mbit", "1500kbit"),
            ("0.95gbit", "950mbit", "950mbit"),
            ("1.25gbit", "1.25gbit", "1250mbit"),
            ("1008bit", "1.008kbit", "1008bit"),
            ("12345672bit", "12345.672kbit", "12345672bit"),
            ("8bit", "8bit", "8bit"),
        ] {
            assert_eq!(print(text), (short.to_string(), whole.to_string()));
        }
    }

    #[test]
    fn bad_rates_say_the_cure() {
        let message = |text: &str| text.parse::<Rate>().unwrap_err().to_string();
        assert_eq!(
            message("10mbps"),
            "`10mbps` is ambiguous: to tc `mbps` means bytes per second; write `10mbit` for bits, or `80mbit` if bytes were meant"
        );
        assert_eq!(
            message("100"),
            "`100` has no unit; write for example `100mbit` (megabits per second) or `100kbit`"
        );
        assert!(message("100000000").ends_with("(megabits per second) or `100000000bit`"));
        assert_eq!(
            message("0.001"),
            "`0.001` has no unit; write for example `0.001mbit` (megabits per second) or `0.001gbit`"
        );
        // What a message proposes must not be refused in turn.
        for nothing in ["0", "0.0", "0mbps", "0mbit"] {
            assert_eq!(nothing.parse::<Rate>(), Err(RateError::Zero), "{nothing}");
        }
        assert_eq!("-5mbit".parse::<Rate>(), Err(RateError::Negative));
        assert_eq!("4bit".parse::<Rate>(), Err(RateError::TooSmall("4bit".into())));
        assert!(matches!("fast".parse::<Rate>(), Err(RateError::NotANumber(_))));
        assert!(matches!("nan".parse::<Rate>(), Err(RateError::NotANumber(_))));
        assert!(matches!("1.2.3mbit".parse::<Rate>(), Err(RateError::NotANumber(_))));
        assert!(matches!("99999999999tbit".parse::<Rate>(), Err(RateError::TooLarge(_))));
        assert!(matches!("10mb".parse::<Rate>(), Err(RateError::UnknownUnit(_))));
    }

    #[test]
    fn percents_are_exact_to_a_thousandth() {
        let half: Percent = "12.5%".parse().unwrap();
        assert_eq!(half.of(rate("80mbit")), rate("10mbit"));
        assert_eq!(half.to_string(), "12.5%");
        assert!(matches!("101%".parse::<Percent>(), Err(RateError::MoreThanAll(_))));
        assert!(matches!("0%".parse::<Percent>(), Err(RateError::Zero)));
    }
}

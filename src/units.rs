//! Quantities with their units, parsed and printed as `tc` spells them. Checked integer arithmetic
//! only: a wrapped rate would shape the wrong thing in silence. Touches nothing else.

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
    #[error(
        "`{number}` has no unit; write for example `{number}mbit` (megabits per second) or `{number}{other}`"
    )]
    NoUnit { number: String, other: &'static str },
    #[error(
        "`{whole}` is ambiguous: to tc `{unit}` means bytes per second; write `{number}{bits}` for bits, or `{eightfold}{bits}` if bytes were meant"
    )]
    BytesPerSecond { whole: String, number: String, unit: String, bits: String, eightfold: String },
    #[error(
        "`{0}` has an unknown unit; the units are bit, kbit, mbit, gbit, tbit (powers of 1000), kibit, mibit, gibit, tibit (powers of 1024) and %"
    )]
    UnknownUnit(String),
    #[error("`{0}` is not a number followed by a unit, such as `100mbit` or `1.5gbit`")]
    NotANumber(String),
    #[error("a rate of zero would let nothing through; the smallest is `8bit`")]
    Zero,
    #[error("`{0}` is less than one byte per second; the smallest rate is `8bit`")]
    TooSmall(String),
    #[error("a rate cannot be negative")]
    Negative,
    #[error("`{0}` is larger than any link (the limit is 147 exabit per second)")]
    TooLarge(String),
    #[error("`{0}` is more than 100%")]
    MoreThanAll(String),
}

impl Rate {
    /// What a class gets when nothing is left to guarantee (1 kbit/s): HTB needs a rate above zero,
    /// and ten thousand of these must still be little.
    pub const MIN_GUARANTEE: Rate = Rate::literal(125);

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

/// Prints as `tc` does for a rate that `tc` would print without rounding (`100Mbit`), and otherwise
/// in the largest unit that keeps it exact (`1500Kbit`, `12345672bit`), so that nothing is lost.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u128::from(self.0.get()) * 8;
        let (unit, divisor) = [
            ("Tbit", 1_000_000_000_000),
            ("Gbit", 1_000_000_000),
            ("Mbit", 1_000_000),
            ("Kbit", 1_000),
        ]
        .into_iter()
        .find(|(_, divisor)| bits % divisor == 0)
        .unwrap_or(("bit", 1));
        write!(f, "{}{unit}", bits / divisor)
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
                let other = if kbit.is_ok() { "kbit" } else { "gbit" };
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u32);

impl Percent {
    const WHOLE: u64 = 100_000;

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

/// A number of bytes: a burst, a quantum, a queue's limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    /// As `tc` reads it back: plain bytes with the unit `b`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}b", self.0)
    }
}

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

/// The low half of a classid of our tree. What a user, class or group has is unique over the whole
/// link, whatever qdisc its class is in: it is also the handle of the leaf qdisc. Prints in
/// hexadecimal, as `tc` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Minor(pub u16);

impl Minor {
    /// The class of the link itself, `1:1`, and the root class of a shard, `e000:1`.
    pub const LINK: Minor = Minor(1);
    pub const FIRST_USER: Minor = Minor(0x10);
    pub const LAST_USER: Minor = Minor(0xdfff);
    pub const FIRST_GROUP: Minor = Minor(0xf000);
    pub const LAST_GROUP: Minor = Minor(0xffef);
    /// `1:fffd`: outside every limit, beside the link's class.
    pub const UNSHAPED: Minor = Minor(0xfffd);
    /// `1:fffe`: whatever no rule and no user claims.
    pub const DEFAULT: Minor = Minor(0xfffe);

    /// Whether the number says "an inner class": the link, a shard's root class or a group. What a
    /// class is comes from its number, because to the kernel an empty group is a leaf.
    pub fn is_inner(self) -> bool {
        self == Minor::LINK || (Minor::FIRST_GROUP..=Minor::LAST_GROUP).contains(&self)
    }

    /// Whether the number is one that users and classes may have.
    pub fn is_user(self) -> bool {
        (Minor::FIRST_USER..=Minor::LAST_USER).contains(&self)
    }
}

impl fmt::Display for Minor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl FromStr for Minor {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<Minor, Self::Err> {
        u16::from_str_radix(text, 16).map(Minor)
    }
}

/// A whole classid `AAAA:BBBB`; also how qdiscs are named (minor 0). Its `u32` is what
/// `net_cls.classid` and `tcm_handle` hold: `0xAAAABBBB`.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(transparent)]
pub struct ClassId(pub u32);

impl ClassId {
    /// Our root qdisc, `1:`.
    pub const ROOT: ClassId = ClassId(0x0001_0000);
    /// Where `clsact` hangs (`TC_H_CLSACT`), and its two sides (linux/pkt_sched.h).
    pub const CLSACT: ClassId = ClassId(0xffff_fff1);
    pub const INGRESS: ClassId = ClassId(0xffff_fff2);
    pub const EGRESS: ClassId = ClassId(0xffff_fff3);
    /// No classid: what `net_cls.classid` holds when nobody wrote it.
    pub const NONE: ClassId = ClassId(0);
    pub const LINK: ClassId = ClassId::ours(Minor::LINK);
    pub const UNSHAPED: ClassId = ClassId::ours(Minor::UNSHAPED);
    pub const DEFAULT: ClassId = ClassId::ours(Minor::DEFAULT);

    /// The class `1:minor` of our root qdisc.
    pub const fn ours(minor: Minor) -> ClassId {
        ClassId(0x0001_0000 | minor.0 as u32)
    }

    /// The qdisc with this major, `major:`.
    pub const fn qdisc(major: u16) -> ClassId {
        ClassId((major as u32) << 16)
    }

    pub const fn major(self) -> u16 {
        (self.0 >> 16) as u16
    }

    pub const fn minor(self) -> Minor {
        Minor((self.0 & 0xffff) as u16)
    }

    /// This class, if it can be one of our tree: `1:x`, or `e000:x` of a shard; x not 0.
    pub fn our_class(self) -> Option<ClassId> {
        let ours = self.major() == 1 || self.shard().is_some();
        (ours && self.minor().0 != 0).then_some(self)
    }

    /// The shard that the class is in, by its major.
    pub fn shard(self) -> Option<Shard> {
        Shard::new(self.major())
    }
}

/// An HTB qdisc of its own for a part of a link's users: the kernel walks all classes of a qdisc
/// for each one that is added, so many classes are built faster in several. The number is its
/// major; it hangs below the class `1:MAJOR` of the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(u16);

impl Shard {
    pub const FIRST: u16 = 0xe000;
    pub const LAST: u16 = 0xefff;

    /// `None` for a number that is no shard's.
    pub fn new(major: u16) -> Option<Shard> {
        (Shard::FIRST..=Shard::LAST).contains(&major).then_some(Shard(major))
    }

    /// All that there can be.
    pub fn all() -> impl Iterator<Item = Shard> {
        (Shard::FIRST..=Shard::LAST).map(Shard)
    }

    /// The shard whose class in the root qdisc this is (`1:e000`).
    pub fn of_class(classid: ClassId) -> Option<Shard> {
        (classid.major() == 1).then(|| Shard::new(classid.minor().0)).flatten()
    }

    /// Its class in the root qdisc: what all its users have together.
    pub const fn class(self) -> ClassId {
        ClassId::ours(Minor(self.0))
    }

    /// Its qdisc, `e000:`.
    pub const fn qdisc(self) -> ClassId {
        ClassId::qdisc(self.0)
    }

    /// Its own root class, `e000:1`, of which its users borrow.
    pub const fn root(self) -> ClassId {
        self.user(Minor::LINK)
    }

    /// Where packets go whose class is gone: `e000:fffe`.
    pub const fn default(self) -> ClassId {
        self.user(Minor::DEFAULT)
    }

    /// The class of one of its users.
    pub const fn user(self, minor: Minor) -> ClassId {
        ClassId((self.0 as u32) << 16 | minor.0 as u32)
    }
}

/// As its qdisc is written: `e000:`.
impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.qdisc().fmt(f)
    }
}

/// `1:1a` for a class, `1:` for a qdisc, hexadecimal, as `tc` prints them.
impl fmt::Display for ClassId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.minor().0 {
            0 => write!(f, "{:x}:", self.major()),
            minor => write!(f, "{:x}:{minor:x}", self.major()),
        }
    }
}

/// The text is no classid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no classid: write major:minor in hexadecimal, such as \"1:1a\"")]
pub struct ClassIdError(String);

impl FromStr for ClassId {
    type Err = ClassIdError;
    fn from_str(text: &str) -> Result<ClassId, ClassIdError> {
        let half = |t: &str| {
            let digits = (1..=4).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_hexdigit());
            digits.then(|| u32::from_str_radix(t, 16).ok()).flatten()
        };
        text.split_once(':')
            .and_then(|(major, minor)| Some(ClassId(half(major)? << 16 | half(minor)?)))
            .ok_or_else(|| ClassIdError(text.to_string()))
    }
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
        for text in ["100Mbit", "1500Kbit", "10Gbit", "8bit", "12345672bit"] {
            assert_eq!(rate(text).to_string(), text);
            assert_eq!(rate(&rate(text).to_string()), rate(text));
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

    #[test]
    fn ticks_are_64_ns_and_saturate() {
        let psched = Psched::parse("000003e8 00000040 000f4240 3b9aca00\n").unwrap();
        // Captured: tc class add … rate 1mbit burst 1600 shows buffer 200000.
        assert_eq!(Ticks::for_bytes(Bytes(1600), rate("1mbit"), psched), Ticks(200_000));
        assert_eq!(Ticks(200_000).bytes_at(rate("1mbit"), psched), Bytes(1600));
        assert_eq!(Ticks::for_bytes(Bytes(u64::MAX), rate("8bit"), psched), Ticks(u32::MAX));
    }

    #[test]
    fn classids_are_hexadecimal_both_ways() {
        assert_eq!(ClassId::ours(Minor(0x1a)).to_string(), "1:1a");
        assert_eq!("1:1a".parse(), Ok(ClassId(0x0001_001a)));
        assert_eq!(ClassId::ROOT.to_string(), "1:");
        assert!("1:10000".parse::<ClassId>().is_err());
        assert!("1:+1".parse::<ClassId>().is_err());
        assert!("110".parse::<ClassId>().is_err());
    }
}

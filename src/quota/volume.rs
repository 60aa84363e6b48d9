//! Volumes as a policy and `shaper grant` spell them: `50GiB`, `1tb`.

use crate::units::Bytes;

/// Why a text is no volume. The wording says the cure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VolumeError {
    /// A number alone.
    #[error(
        "`{0}` has no unit; write for example `{0}GiB` (powers of 1024) or `{0}GB` (powers of 1000)"
    )]
    NoUnit(String),
    /// A rate's unit.
    #[error("a volume is in bytes, not in bits: write `{bytes}` for what `{whole}` is")]
    Bits {
        /// As written.
        whole: String,
        /// The same in bytes.
        bytes: String,
    },
    /// `Gb`, which some read as bits.
    #[error("`{whole}` could be bits or bytes: write `{number}{prefix}B` for bytes")]
    Ambiguous {
        /// As written.
        whole: String,
        /// Its number.
        number: String,
        /// Its prefix.
        prefix: String,
    },
    /// A number with another word behind it; as written.
    #[error(
        "`{0}` has an unknown unit; the units are kB, MB, GB, TB (powers of 1000) and KiB, MiB, GiB, TiB (powers of 1024)"
    )]
    UnknownUnit(String),
    /// Nothing that begins with a number; as written.
    #[error("`{0}` is no volume, such as `50GiB` or `1.5TB`")]
    NotANumber(String),
    /// Zero in any unit.
    #[error(
        "a volume of 0 would be used up at once; write a lower `ceil` instead, or leave the quota out"
    )]
    Zero,
    /// More than 64 bits of bytes; as written.
    #[error("`{0}` is more than can be counted (16 EiB)")]
    TooLarge(String),
}

/// The prefixes, each with its power of 1000 or 1024.
const PREFIXES: [(&str, u32); 5] = [("", 0), ("k", 1), ("m", 2), ("g", 3), ("t", 4)];

/// A volume as it is written: a decimal number and a unit, in any case.
///
/// # Errors
/// What is wrong with it, with a cure.
pub fn volume(text: &str) -> Result<Bytes, VolumeError> {
    let text = text.trim();
    let not_a_number = || VolumeError::NotANumber(text.to_string());
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    let is_number = !whole.is_empty() && !decimals.contains('.') && !number.ends_with('.');
    if !is_number {
        return Err(not_a_number());
    }
    let too_large = || VolumeError::TooLarge(text.to_string());
    if whole.len() > 20 || decimals.len() > 9 {
        return Err(too_large());
    }
    let digits: u128 = format!("{whole}{decimals}").parse().map_err(|_| not_a_number())?;
    let scale = 10_u128.pow(u32::try_from(decimals.len()).unwrap_or(0));
    let unit = unit.trim();
    if digits == 0 {
        return Err(VolumeError::Zero);
    }
    let size = size_of(unit).map_err(|wrong| match wrong {
        Wrong::None => VolumeError::NoUnit(number.to_string()),
        Wrong::Unknown => VolumeError::UnknownUnit(text.to_string()),
        Wrong::Bits(size) => {
            let bytes = u64::try_from(digits.saturating_mul(size) / scale / 8).unwrap_or(u64::MAX);
            VolumeError::Bits { whole: text.to_string(), bytes: Bytes(bytes).to_volume() }
        }
        Wrong::Ambiguous(prefix) => {
            VolumeError::Ambiguous { whole: text.to_string(), number: number.to_string(), prefix }
        }
    })?;
    let bytes = digits.checked_mul(size).ok_or_else(too_large)? / scale;
    match u64::try_from(bytes).map_err(|_| too_large())? {
        0 => Err(VolumeError::Zero),
        bytes => Ok(Bytes(bytes)),
    }
}

enum Wrong {
    None,
    Unknown,
    /// The size of one, in bits.
    Bits(u128),
    /// The prefix of a unit that ends in a small b after a capital.
    Ambiguous(String),
}

fn size_of(unit: &str) -> Result<u128, Wrong> {
    if unit.is_empty() {
        return Err(Wrong::None);
    }
    let lower = unit.to_ascii_lowercase();
    let of = |end: &str| {
        let prefix = lower.strip_suffix(end)?;
        let (prefix, base) = match prefix.strip_suffix('i').filter(|it| !it.is_empty()) {
            Some(prefix) => (prefix, 1024_u128),
            None => (prefix, 1000),
        };
        PREFIXES.into_iter().find(|(name, _)| *name == prefix).map(|(_, power)| base.pow(power))
    };
    if let Some(size) = of("bits").or_else(|| of("bit")) {
        return Err(Wrong::Bits(size));
    }
    let bytes = of("bytes").or_else(|| of("byte")).or_else(|| of("b"));
    let prefix = unit.strip_suffix('b').unwrap_or_default();
    let looks_like_bits = prefix.starts_with(|c: char| c.is_ascii_uppercase());
    match bytes {
        Some(_) if looks_like_bits => Err(Wrong::Ambiguous(prefix.to_string())),
        Some(size) => Ok(size),
        None => Err(Wrong::Unknown),
    }
}

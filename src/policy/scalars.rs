//! Single values: what the text of one scalar means, and what to say when it means nothing.
//! Touches nothing.

use std::ops::RangeInclusive;

use crate::quota::{VolumeError, volume};
use crate::units::{Bytes, ClassId, Minor, Rate, RateError, Reading, readings, two_rates};

use super::cures;
use super::diagnostic::{Diagnostic, Kind, closest, quote};
use super::document::{Amount, Gid, LinkRef, UnitRef};
use super::meant;
use super::node::{Node, Value};
use super::pattern::Pattern;
use super::source::{Span, Written};

/// The highest uid: `u32::MAX` is "no uid" to the kernel (`uid_valid`, include/linux/uidgid.h).
pub(crate) const LAST_UID: u32 = u32::MAX - 1;

/// The text of a scalar; `what` is the field's name and `example` a good value.
pub(super) fn text(node: &Node, what: &str, example: &str) -> Result<Written<String>, Diagnostic> {
    match &node.value {
        Value::Scalar(text) => Ok(Written { value: text.clone(), at: node.at }),
        Value::Null => {
            Err(Diagnostic::error(Kind::Shape, node.at, format!("`{what}` has no value"))
                .help(format!("write for example `{what}: {example}`, or remove it")))
        }
        value => Err(wrong_type(node.at, what, value, "a single value", example)),
    }
}

/// "This must be that".
pub(super) fn wrong_type(
    at: Span,
    what: &str,
    found: &Value,
    wanted: &str,
    example: &str,
) -> Diagnostic {
    Diagnostic::error(
        Kind::Shape,
        at,
        format!("`{what}` must be {wanted}, but this is {}", found.sort()),
    )
    .help(
        meant::missing_space(found)
            .unwrap_or_else(|| format!("write for example `{what}: {example}`")),
    )
}

/// What a rate is for, which decides what to write where there is none, or no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// What a link carries.
    Link,
    /// What is shaped of what arrives by a link.
    LinkDown,
    /// The guarantee of a link's default.
    DefaultRate,
    /// The cap of a link's default, which is never next to nothing.
    DefaultCeil,
    /// The guarantee of any other line.
    Rate,
    /// The cap of any other line.
    Ceil,
    /// The cap once a volume is used.
    Quota,
}

impl Purpose {
    /// What to write instead of 0, or of less than the kernel can count.
    fn without_any(self) -> &'static str {
        match self {
            Purpose::Link => "write what the link really carries, such as `1gbit`",
            Purpose::LinkDown => "remove `down`: what arrives is then not shaped",
            Purpose::DefaultRate => "remove `rate`: it is 5 % of the link's then",
            Purpose::DefaultCeil => {
                "write for example `5%`: the default carries root's ssh, and below 1 % the host could be cut off"
            }
            Purpose::Rate => {
                "remove `rate`, beside a cap such as `ceil: 100mbit`: the guarantee is then a share of what is left"
            }
            Purpose::Ceil => "write `8bit`, which lets next to nothing through",
            Purpose::Quota => "write at least `64kbit`, with which people can log in",
        }
    }

    /// What to write instead of a word for no limit. For a guarantee that is a word for none.
    fn without_limit(self) -> &'static str {
        match self {
            Purpose::DefaultCeil | Purpose::Ceil => "write `100%`, all that the link carries",
            Purpose::Quota => "write a rate, such as `10mbit`, or remove the quota",
            _ => self.without_any(),
        }
    }
}

pub(super) fn amount(
    node: &Node,
    what: &str,
    purpose: Purpose,
) -> Result<Written<Amount>, Diagnostic> {
    let written = text(node, what, "100mbit")?;
    let parsed = if written.value.trim_end().ends_with('%') {
        written.value.parse().map(Amount::Percent)
    } else {
        written.value.parse().map(Amount::Rate)
    };
    let value = parsed.map_err(|error| {
        let diagnostic = Diagnostic::error(Kind::Rate, node.at, error.to_string());
        match cure(&error, &written.value, purpose) {
            Some(help) => diagnostic.help(help),
            None => diagnostic,
        }
    })?;
    Ok(Written { value, at: node.at })
}

/// What to write instead of a text that is no rate; `None`: the error says it.
fn cure(error: &RateError, text: &str, purpose: Purpose) -> Option<String> {
    let units = Rate::UNITS;
    let lower = text.trim().to_ascii_lowercase();
    match error {
        RateError::NoUnit { .. } | RateError::BytesPerSecond { .. } => return None,
        RateError::Zero | RateError::TooSmall(_) => {
            return Some(purpose.without_any().to_string());
        }
        RateError::TooLarge(_) => {
            return Some("write what the link really carries, such as `10gbit`".to_string());
        }
        _ => {}
    }
    if NO_LIMIT.contains(&lower.trim_start_matches('.')) {
        return Some(purpose.without_limit().to_string());
    }
    if let Some([rate, ceil]) = two_rates(text)
        && matches!(purpose, Purpose::Rate | Purpose::Ceil)
    {
        return Some(format!("a guarantee and a cap are `{{rate: {rate}, ceil: {ceil}}}`"));
    }
    let unit = lower.strip_suffix("bps").map(|size| format!("{size}bit")).unwrap_or(lower);
    if units.contains(&unit.as_str()) {
        return Some(format!("write a number before the unit: `100{unit}`"));
    }
    let for_each = |it: &Reading| match it.meaning {
        "" => format!("`{}`", it.write),
        meaning => format!("`{}` for {meaning}", it.write),
    };
    let readings: Vec<String> = readings(text).iter().map(for_each).collect();
    Some(match readings.is_empty() {
        true if purpose == Purpose::Quota => {
            "write a rate, such as `10mbit`: at least `64kbit`, with which people can log in".into()
        }
        true => "write for example `100mbit`, `1.5gbit` or `10%`".to_string(),
        false => format!("write {}", readings.join(", or ")),
    })
}

/// How people write that there is no limit.
const NO_LIMIT: [&str; 12] = [
    "unlimited",
    "none",
    "no",
    "off",
    "max",
    "inf",
    "infinite",
    "infinity",
    "unshaped",
    "full",
    "all",
    "any",
];

/// A volume that may pass above the cap.
pub(super) fn boost(node: &Node) -> Result<Written<Bytes>, Diagnostic> {
    let written = text(node, "boost", "500MiB")?;
    if volume(&written.value) == Err(VolumeError::Zero) {
        let message = "a boost of 0 lets nothing more through";
        return Err(Diagnostic::error(Kind::Rate, node.at, message)
            .help("write for example `500MiB`, or leave `boost` out"));
    }
    let value = volume_of(&written, "leave `boost` out: without it nothing more passes")?;
    Ok(Written { value, at: node.at })
}

/// The volume that a text is. `without`: what to do where none is meant.
pub(super) fn volume_of(written: &Written<String>, without: &str) -> Result<Bytes, Diagnostic> {
    volume(&written.value).map_err(|error| {
        let diagnostic = Diagnostic::error(Kind::Rate, written.at, error.to_string());
        let cure = match error {
            VolumeError::UnknownUnit(_) | VolumeError::NotANumber(_) => {
                cures::volume_for(&written.value, without)
            }
            // It says what to write.
            _ => None,
        };
        match cure {
            Some(help) => diagnostic.help(help),
            None => diagnostic,
        }
    })
}

pub(super) fn prio(node: &Node) -> Result<Written<u8>, Diagnostic> {
    let written = text(node, "prio", "2")?;
    match written.value.parse() {
        Ok(prio @ 0..=7) => Ok(Written { value: prio, at: node.at }),
        _ => Err(Diagnostic::error(
            Kind::Shape,
            node.at,
            format!("`prio` must be a number from 0 to 7, but this is {}", quote(&written.value)),
        )
        .help("0 is served first, 7 last; HTB has no others")),
    }
}

pub(super) fn boolean(node: &Node, what: &str) -> Result<bool, Diagnostic> {
    let written = text(node, what, "true")?;
    match written.value.as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(Diagnostic::error(
            Kind::Shape,
            node.at,
            format!("`{what}` must be `true` or `false`, but this is {}", quote(other)),
        )
        .help(format!("write `{what}: true` or `{what}: false`"))),
    }
}

/// One of a few words.
pub(super) fn choice<T: Copy>(
    node: &Node,
    what: &str,
    choices: &[(&str, T)],
) -> Result<T, Diagnostic> {
    let first = choices.first().map_or("", |(word, _)| word);
    let written = text(node, what, first)?;
    if let Some((_, value)) = choices.iter().find(|(word, _)| *word == written.value) {
        return Ok(*value);
    }
    let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
    let help = match closest(&written.value, words.iter().copied()) {
        Some(word) => format!("did you mean `{word}`? The choices are {}", words.join(", ")),
        None => format!("the choices are {}", words.join(", ")),
    };
    Err(Diagnostic::error(
        Kind::Shape,
        node.at,
        format!("`{what}` cannot be {}", quote(&written.value)),
    )
    .help(help))
}

/// `1:10`–`1:dfff`, hexadecimal.
pub(super) fn classid(node: &Node) -> Result<Written<Minor>, Diagnostic> {
    let written = text(node, "classid", "\"1:1a\"")?;
    let range = || format!("1:{}–1:{}", Minor::FIRST_USER, Minor::LAST_USER);
    let in_root = |minor: &str| {
        let Ok(classid) = format!("1:{minor}").parse::<ClassId>() else { return String::new() };
        match classid.minor().is_user() {
            true => format!("write `{classid}`; "),
            false => String::new(),
        }
    };
    let Ok(classid) = written.value.parse::<ClassId>() else {
        let cure = in_root(written.value.trim_start_matches("0x").trim_start_matches(':'));
        return Err(Diagnostic::error(
            Kind::Name,
            node.at,
            format!("{} is no classid", quote(&written.value)),
        )
        .help(format!(
            "{cure}a classid is `1:` and a hexadecimal number, as in tc; free to choose are {}",
            range()
        )));
    };
    let minor = (classid.major() == ClassId::ROOT.major()).then(|| classid.minor());
    match minor.filter(|minor| minor.is_user()) {
        Some(minor) => Ok(Written { value: minor, at: node.at }),
        None => Err(Diagnostic::error(
            Kind::Name,
            node.at,
            format!("the classid {classid} is outside {}", range()),
        )
        .help(format!("{}the others are shaper's own: the link, groups, the default. Leave `classid` out to get a free one", in_root(&classid.minor().to_string())))),
    }
}

/// A number, `lo-hi`, or `lo-`.
pub(super) fn uids(node: &Node) -> Result<Written<RangeInclusive<u32>>, Diagnostic> {
    let written = text(node, "uids", "990-995")?;
    let bad = |message: String| {
        Diagnostic::error(Kind::Claim, node.at, message).help(
            "write a uid, `4711`, a range, `990-995`, an open range, `1000-`, or a list of them",
        )
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let parsed = text.parse::<u64>().ok().filter(|_| digits);
        let parsed = parsed
            .ok_or_else(|| bad(format!("{} is no uid or range of uids", quote(&written.value))))?;
        u32::try_from(parsed)
            .ok()
            .filter(|uid| *uid <= LAST_UID)
            .ok_or_else(|| bad(format!("{parsed} is too large for a uid (the last is {LAST_UID})")))
    };
    let (lo, hi) = match written.value.split_once('-') {
        None => (number(&written.value)?, None),
        Some((lo, "")) => (number(lo.trim())?, Some(LAST_UID)),
        Some((lo, hi)) => (number(lo.trim())?, Some(number(hi.trim())?)),
    };
    let hi = hi.unwrap_or(lo);
    if hi < lo {
        return Err(bad(format!("the range {} ends before it begins", quote(&written.value))));
    }
    Ok(Written { value: lo..=hi, at: node.at })
}

/// The error for a pattern of accounts, with its cure. There are none, because every new account
/// could change whom a pattern means.
pub(super) fn no_accounts(name: &Written<String>) -> Diagnostic {
    Diagnostic::error(
        Kind::Name,
        name.at,
        format!("{} is a pattern, and accounts have none", quote(&name.value)),
    )
    .help("write a range, `uids: 2000-2999`, or a Unix group: `groups: {NAME: {gid: NAME, each: {ceil: …}}}`")
}

/// An account's name. NSS decides whether there is such an account; here only texts are refused
/// that no account can have for a name.
pub(super) fn account(node: &Node) -> Result<Written<String>, Diagnostic> {
    let name = text(node, "accounts", "[borg]")?;
    let bad = |c: char| c.is_control() || c.is_whitespace() || c == ':' || c == '/';
    if name.value.is_empty() || name.value.contains(bad) {
        return Err(Diagnostic::error(
            Kind::Name,
            node.at,
            format!("{} can be no account's name", quote(&name.value)),
        )
        .help("write the name as `getent passwd` shows it in the first column"));
    }
    if Pattern::new(&name.value).is_some() {
        return Err(no_accounts(&name));
    }
    Ok(name)
}

/// A systemd unit that has processes of its own, a pattern of them, or a template.
pub(super) fn unit(node: &Node) -> Result<Written<UnitRef>, Diagnostic> {
    let name = text(node, "units", "[borg.service]")?;
    let stem = name.value.strip_suffix(".service").or_else(|| name.value.strip_suffix(".scope"));
    let bad = |c: char| c.is_control() || c.is_whitespace() || c == '/';
    if stem.is_some_and(|stem| !stem.is_empty() && !stem.contains(bad)) {
        let (text, at) = (name.value, name.at);
        // Every instance has a name of its own before its kind (systemd.unit(5)).
        let instances = text.replacen("@.", "@?*.", 1);
        let value = Pattern::new(&instances).map_or(UnitRef::Name(text), UnitRef::Pattern);
        return Ok(Written { value, at });
    }
    let error = Diagnostic::error(
        Kind::Name,
        node.at,
        format!("{} is no systemd service or scope", quote(&name.value)),
    );
    Err(if name.value.contains(['.', '/']) || name.value.is_empty() {
        error.help("write the unit's name as `systemctl status` shows it, such as `borg.service`")
    } else {
        error.help(format!("write `{}.service`", name.value))
    })
}

pub(super) fn gid(node: &Node) -> Result<Written<Gid>, Diagnostic> {
    let name = text(node, "gid", "students")?;
    if name.value.is_empty() || name.value.contains(|c: char| c.is_control() || c == ':') {
        return Err(Diagnostic::error(
            Kind::Name,
            node.at,
            format!("{} can be no Unix group's name", quote(&name.value)),
        )
        .help("write the name as `getent group` shows it in the first column, or the number"));
    }
    if Pattern::new(&name.value).is_some() {
        return Err(Diagnostic::error(
            Kind::Name,
            node.at,
            format!("{} is a pattern, and `gid` is one Unix group", quote(&name.value)),
        )
        .help("write a line of `groups` for each; they can have one `parent`"));
    }
    let value = match name.value.parse() {
        Ok(number) => Gid::Number(number),
        Err(_) => Gid::Name(name.value),
    };
    Ok(Written { value, at: node.at })
}

/// A link's name, an alternative one (`ip link property add altname`), or a pattern of names.
pub(super) fn link(name: &Written<String>) -> Result<Written<LinkRef>, Diagnostic> {
    // ALTIFNAMSIZ (linux/if.h) counts a NUL.
    const LONGEST: usize = 127;
    let text = name.value.as_str();
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if !(1..=LONGEST).contains(&text.len()) || matches!(text, "." | "..") || text.contains(bad) {
        return Err(Diagnostic::error(
            Kind::Name,
            name.at,
            format!("{} can be no interface's name", quote(text)),
        )
        .help("write a name that `ip link` shows (without `/`, `:` and spaces), a pattern such as `ppp*`, or `auto`"));
    }
    let value = match (text, Pattern::new(text)) {
        ("auto", _) => LinkRef::Auto,
        (_, Some(pattern)) => LinkRef::Pattern(pattern),
        (name, None) => LinkRef::Name(name.to_string()),
    };
    Ok(Written { value, at: name.at })
}

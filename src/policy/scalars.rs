//! Single values: what the text of one scalar means, and what to say when it means nothing.
//! Touches nothing.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

use crate::units::{ClassId, Minor, Rate, RateError, Reading, readings};

use super::diagnostic::{Diagnostic, Kind, closest, quote};
use super::document::{Amount, Gid, LinkRef, Networks, UnitRef};
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
    .help(missing_space(found).unwrap_or_else(|| format!("write for example `{what}: {example}`")))
}

/// `eth0:1gbit` is one word to YAML.
pub(super) fn missing_space(found: &Value) -> Option<String> {
    let Value::Scalar(text) = found else { return None };
    let (key, value) = text.split_once(':')?;
    let cure = format!("{key}: {value}");
    Some(format!("write a space after the colon: {}", super::quote(&cure)))
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
        }
    }

    /// What to write instead of a word for no limit. For a guarantee that is a word for none.
    fn without_limit(self) -> &'static str {
        match self {
            Purpose::DefaultCeil | Purpose::Ceil => "write `100%`, all that the link carries",
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
    if units.contains(&lower.as_str()) {
        return Some(format!("write a number before the unit: `100{lower}`"));
    }
    let for_each = |it: &Reading| match it.meaning {
        "" => format!("`{}`", it.write),
        meaning => format!("`{}` for {meaning}", it.write),
    };
    let readings: Vec<String> = readings(text).iter().map(for_each).collect();
    Some(match readings.is_empty() {
        true => "write for example `100mbit`, `1.5gbit` or `10%`".to_string(),
        false => format!("write {}", readings.join(", or ")),
    })
}

/// How people write that there is no limit.
const NO_LIMIT: [&str; 9] =
    ["unlimited", "none", "no", "off", "max", "inf", "infinite", "infinity", "unshaped"];

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
    let Ok(classid) = written.value.parse::<ClassId>() else {
        return Err(Diagnostic::error(
            Kind::Name,
            node.at,
            format!("{} is no classid", quote(&written.value)),
        )
        .help(format!(
            "write `1:` and a hexadecimal number, as tc does; free to choose are {}",
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
        .help("the others are shaper's own: the link, groups, the default. Leave `classid` out to get a free one")),
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

/// An address, a network, or "first-last".
pub(super) fn networks(node: &Node, what: &str) -> Result<Written<Networks>, Diagnostic> {
    let written = text(node, what, "10.0.0.0/8")?;
    let text = written.value.as_str();
    let value = match text.split_once('-') {
        Some((first, last)) => range_of_addresses(node.at, text, first, last)?,
        None => vec![network(node.at, text)?],
    };
    Ok(Written { value, at: node.at })
}

fn network(at: Span, text: &str) -> Result<IpNet, Diagnostic> {
    let net = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse::<IpNet>().map_err(|_| no_network(at, text))?,
    };
    if net.trunc() != net {
        return Err(Diagnostic::error(
            Kind::Rule,
            at,
            format!("{} has bits set outside its network part", quote(text)),
        )
        .help(format!(
            "write `{}` for the whole network, or `{}` for the one host",
            net.trunc(),
            net.addr()
        )));
    }
    Ok(net)
}

fn no_network(at: Span, text: &str) -> Diagnostic {
    Diagnostic::error(Kind::Rule, at, format!("{} is no IP address and no network", quote(text)))
        .help("write for example `10.0.0.1`, `10.0.0.0/8`, `10.0.0.5-10.0.0.40` or `fd00:1::/64`; host names are not looked up")
}

fn range_of_addresses(
    at: Span,
    text: &str,
    first: &str,
    last: &str,
) -> Result<Networks, Diagnostic> {
    let address = |end: &str| end.trim().parse::<IpAddr>().map_err(|_| no_network(at, text));
    let bad = |why: &str| {
        Diagnostic::error(Kind::Rule, at, format!("the range {} {why}", quote(text)))
            .help("write its first and its last address, such as `10.0.0.5-10.0.0.40`")
    };
    match (address(first)?, address(last)?) {
        (IpAddr::V4(first), IpAddr::V4(last)) if first <= last => {
            Ok(Ipv4Subnets::new(first, last, 0).map(IpNet::V4).collect())
        }
        (IpAddr::V6(first), IpAddr::V6(last)) if first <= last => {
            Ok(Ipv6Subnets::new(first, last, 0).map(IpNet::V6).collect())
        }
        (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => {
            Err(bad("ends before it begins"))
        }
        _ => Err(bad("begins in one family and ends in the other")),
    }
}

/// A port, or "first-last".
pub(super) fn ports(node: &Node, what: &str) -> Result<Written<RangeInclusive<u16>>, Diagnostic> {
    let help = format!(
        "a port is a number from 1 to 65535, a range is `40000-41000`; several are a list, `{what}: [80, 443]`"
    );
    numbers(node, (what, "443"), 1..=u16::MAX, "port", &help)
}

/// One VLAN id, or a range of them. 0 and 4095 are none (IEEE 802.1Q).
pub(super) fn vlan(node: &Node) -> Result<Written<RangeInclusive<u16>>, Diagnostic> {
    let help = "a VLAN id is a number from 1 to 4094, a range is `100-199`, several are a list; packets without a tag \
                are `vlan: {not: 1-4094}`";
    numbers(node, ("vlan", "22"), 1..=4094, "VLAN id", help)
}

/// A number that is allowed, or "first-last". `key`: with an example; `what`: one of these numbers.
fn numbers(
    node: &Node,
    key: (&str, &str),
    allowed: RangeInclusive<u16>,
    what: &str,
    help: &str,
) -> Result<Written<RangeInclusive<u16>>, Diagnostic> {
    let written = text(node, key.0, key.1)?;
    let bad = |message: String| Diagnostic::error(Kind::Rule, node.at, message).help(help);
    let number = |text: &str| {
        let number = text.trim().parse().ok().filter(|number| allowed.contains(number));
        number.ok_or_else(|| bad(format!("{} is no {what}", quote(text))))
    };
    let (first, last) = match written.value.split_once('-') {
        None => (number(&written.value)?, None),
        Some((first, last)) => (number(first)?, Some(number(last)?)),
    };
    let last = last.unwrap_or(first);
    if last < first {
        return Err(bad(format!("the range {} ends before it begins", quote(&written.value))));
    }
    Ok(Written { value: first..=last, at: node.at })
}

/// The protocols of IP that have a name here.
const PROTOCOLS: [(&str, u8); 5] =
    [("tcp", 6), ("udp", 17), ("icmp", 1), ("icmpv6", 58), ("sctp", 132)];

/// The number of a protocol that is written by its name or its number.
pub fn protocol(text: &str) -> Option<u8> {
    let lower = text.to_ascii_lowercase();
    let named = PROTOCOLS.iter().find(|(name, _)| *name == lower).map(|(_, number)| *number);
    named.or_else(|| text.parse().ok())
}

/// By name or number (/etc/protocols).
pub(super) fn proto(node: &Node) -> Result<Written<u8>, Diagnostic> {
    let written = text(node, "proto", "tcp")?;
    if let Some(value) = protocol(&written.value) {
        return Ok(Written { value, at: node.at });
    }
    let lower = written.value.to_ascii_lowercase();
    let names = PROTOCOLS.map(|(name, _)| name);
    let hint =
        closest(&lower, names).map_or_else(String::new, |name| format!("did you mean `{name}`? "));
    Err(Diagnostic::error(
        Kind::Rule,
        node.at,
        format!("{} is no protocol that is known here", quote(&written.value)),
    )
    .help(format!("{hint}Write {} or a number from 0 to 255", names.join(", "))))
}

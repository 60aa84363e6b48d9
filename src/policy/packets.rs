//! What a rule asks of packets: addresses, ports, VLANs and protocols. Touches nothing.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

use super::diagnostic::{Diagnostic, Kind, closest, quote};
use super::document::Networks;
use super::meant;
use super::node::{Node, Value};
use super::scalars::text;
use super::source::{Span, Written};

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
    let service = match &node.value {
        Value::Scalar(text) => meant::port(text),
        _ => None,
    };
    let cure = service.map_or_else(String::new, |port| format!("write `{port}`; "));
    let help = format!(
        "{cure}a port is a number from 1 to 65535, a range is `40000-41000`; several are a list, `{what}: [80, 443]`"
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
    let near = closest(&lower, names).map(|name| format!("did you mean `{name}`? Write "));
    let hint = match meant::is_any(&lower) {
        true => "leave `proto` out, and the rule is for all protocols; or write ".to_string(),
        false => near.unwrap_or_else(|| "write ".to_string()),
    };
    Err(Diagnostic::error(
        Kind::Rule,
        node.at,
        format!("{} is no protocol that is known here", quote(&written.value)),
    )
    .help(format!("{hint}{} or a number from 0 to 255", names.join(", "))))
}

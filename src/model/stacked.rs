//! Links that carry each other's packets: a packet that passes two shaped links is shaped twice,
//! and one that leaves by a link that no line means is not shaped at all. Touches nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::facts::{Facts, LinkFacts};
use crate::policy::{Diagnostic, Findings, Kind, LinkRef, Severity, Span, quote};
use crate::tree::LinkName;

use super::options::BuildOptions;
use super::shaped::Shaped;

/// Kinds of link whose packets leave by the link below as they are.
const STACKED: [&str; 5] = ["vlan", "macvlan", "macvtap", "ipvlan", "macsec"];

/// Kinds of tunnel, a link that puts packets into other packets, which leave by another link. The
/// kinds differ in whose packets the outer ones are; docs/policy.md has the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tunnel {
    /// The outer packets are those of the program that made the tunnel.
    Program,
    /// The outer packets are a program's or still the sender's: there is WireGuard of both kinds,
    /// and the kernel's own passes packets to threads of the kernel (on Linux 6.1 they were still
    /// the sender's).
    Either,
    /// The outer packets are still the sender's: the kernel makes them as he sends.
    Wrapped,
}

/// `IFLA_INFO_KIND`.
const WRAPPED: [&str; 14] = [
    "ipip",
    "gre",
    "gretap",
    "erspan",
    "sit",
    "ip6tnl",
    "ip6gre",
    "ip6gretap",
    "vti",
    "vti6",
    "xfrm",
    "vxlan",
    "geneve",
    "bareudp",
];

/// What kind of tunnel a link is, if it is one.
pub(super) fn tunnel(device: &LinkFacts) -> Option<(&str, Tunnel)> {
    let kind = device.kind.as_deref()?;
    match kind {
        "tun" => Some((kind, Tunnel::Program)),
        "wireguard" => Some((kind, Tunnel::Either)),
        kind if WRAPPED.contains(&kind) => Some((kind, Tunnel::Wrapped)),
        _ => None,
    }
}

/// Whether a link puts packets into other packets, which leave by another link.
pub(super) fn is_tunnel(device: &LinkFacts) -> bool {
    tunnel(device).is_some()
}

impl Tunnel {
    /// The cure where a policy can name the tunnel or the link below it, but not both.
    pub(super) fn which_to_name(self, name: &LinkName) -> String {
        match self {
            Tunnel::Program => format!(
                "name `{name}`: there packets are their users'; on the link below they are the program's that made the tunnel, and no user's limit holds"
            ),
            Tunnel::Either => format!(
                "name `{name}`: there packets are their users', whatever carries them on the link below"
            ),
            Tunnel::Wrapped => format!(
                "name the link below it: packets are their users' there too, and so is what leaves beside the tunnel; or `{name}`, but not both"
            ),
        }
    }
}

/// Errors and warnings about links of the file that carry the same packets, which would be shaped
/// twice, or only a part of a master's. Where links may come and go, a slave that a pattern means
/// is passed over with a warning, and the rest goes on.
pub(super) fn check(
    all: &mut Vec<Shaped<'_>>,
    facts: &Facts,
    options: BuildOptions,
    findings: &mut Findings,
) {
    let device = |shaped: &Shaped<'_>| facts.links.get(&shaped.link.port.link);
    // What is so of a link is said once.
    let leave = || all.iter().filter(|shaped| !shaped.arrives());
    let by_index: HashMap<u32, &Shaped<'_>> =
        leave().filter_map(|s| Some((device(s)?.ifindex, s))).collect();
    let mut left_alone: BTreeSet<LinkName> = BTreeSet::new();
    for upper in leave() {
        let Some(own) = device(upper) else { continue };
        if let Some(master) = own.master.and_then(|index| by_index.get(&index)) {
            let mut twice = both(upper, master, device(master));
            if is_by_pattern(upper) && options.absent_links {
                twice.severity = Severity::Warning;
                left_alone.insert(upper.link.port.link.clone());
            }
            findings.push(twice);
        } else if let Some(master) = own.master.and_then(|index| of_several(index, facts)) {
            findings.push(one_of_several(upper, master));
        }
        let is_stacked = own.kind.as_deref().is_some_and(|kind| STACKED.contains(&kind));
        if let Some(lower) = own.lower.and_then(|index| by_index.get(&index)).filter(|_| is_stacked)
        {
            let kind = own.kind.as_deref().unwrap_or_default();
            findings.push(on_top(upper, kind, lower));
        }
    }
    all.retain(|shaped| !left_alone.contains(&shaped.link.port.link));
}

fn is_by_pattern(shaped: &Shaped<'_>) -> bool {
    matches!(shaped.line.name.value, LinkRef::Pattern(_))
}

/// The error where the file means both a slave and its master.
fn both(port: &Shaped<'_>, master: &Shaped<'_>, device: Option<&LinkFacts>) -> Diagnostic {
    let kind = device.and_then(|device| device.kind.as_deref()).unwrap_or("master");
    let (name, at, above) = (&port.link.port.link, port.line.name.at, &master.link.port.link);
    let pattern = quote(port.line.name.value.as_str());
    if port.line.name.at == master.line.name.at {
        return Diagnostic::error(
            Kind::Link,
            at,
            format!("{pattern} fits the {kind} {above} and its port {name}"),
        )
        .help(
            "the port's packets would be shaped twice: write a pattern that fits one of the two",
        );
    }
    let help = match is_by_pattern(port) {
        true => format!(
            "its packets would be shaped twice: write {pattern} so that it does not fit {name}"
        ),
        false => format!("its packets would be shaped twice: remove the line of {name}"),
    };
    Diagnostic::error(
        Kind::Link,
        at,
        format!("{name} is a part of the {kind} {above}, which has a line too"),
    )
    .also(master.line.name.at, format!("the {kind}"))
    .help(help)
}

/// The finding where the file means both a link and the link below it: an error where two lines
/// name them, a warning where a pattern means one of the two, which may be meant.
fn on_top(upper: &Shaped<'_>, kind: &str, lower: &Shaped<'_>) -> Diagnostic {
    let (name, at, below) = (&upper.link.port.link, upper.line.name.at, &lower.link.port.link);
    if is_by_pattern(upper) || is_by_pattern(lower) {
        return counts_twice(upper, kind, lower);
    }
    Diagnostic::error(
        Kind::Link,
        at,
        format!("{name} is a {kind} on {below}, which has a line too"),
    )
    .also(lower.line.name.at, "the link below")
    .help("its packets would be shaped twice: remove one of the two lines")
}

fn counts_twice(upper: &Shaped<'_>, kind: &str, lower: &Shaped<'_>) -> Diagnostic {
    let message = format!(
        "{} is a {kind} on {}, and both are shaped",
        upper.link.port.link, lower.link.port.link
    );
    Diagnostic::warning(Kind::Link, upper.line.name.at, message)
        .help("its packets count on both, against the limits of both: name one of the two if that is not meant")
}

/// The master with this ifindex and its kind, if it sends each packet by one of several slaves.
fn of_several(index: u32, facts: &Facts) -> Option<(&LinkName, &str)> {
    let (name, device) = facts.links.iter().find(|(_, device)| device.ifindex == index)?;
    let kind = device.kind.as_deref().filter(|kind| matches!(*kind, "bond" | "team"))?;
    Some((name, kind))
}

fn one_of_several(port: &Shaped<'_>, (master, kind): (&LinkName, &str)) -> Diagnostic {
    let name = &port.link.port.link;
    Diagnostic::warning(
        Kind::Link,
        port.line.name.at,
        format!("{name} carries only a part of what the {kind} {master} sends"),
    )
    .help(format!("what leaves by another port is not shaped here: name {master} instead"))
}

/// Warns of links by which packets leave without being shaped.
pub(super) fn uncovered(
    at: Span,
    chosen: &BTreeMap<LinkName, Span>,
    facts: &Facts,
    findings: &mut Findings,
) {
    let by_index: HashMap<u32, &LinkName> =
        facts.links.iter().map(|(name, device)| (device.ifindex, name)).collect();
    let passes_a_chosen_one = |device: &LinkFacts| match device.lower {
        Some(index) => by_index.get(&index).is_some_and(|name| chosen.contains_key(*name)),
        // The link by which a tunnel's packets leave depends on routes.
        None => matches!(tunnel(device), Some((_, Tunnel::Wrapped))),
    };
    // What a bridge itself sends leaves by one of its ports; of a bond's, a port's own line says
    // more.
    let masters: HashSet<u32> =
        chosen.keys().filter_map(|name| facts.links.get(name)?.master).collect();
    for (name, device) in &facts.links {
        if device.has_default_route()
            && !device.loopback
            && !chosen.contains_key(name)
            && !masters.contains(&device.ifindex)
            && !passes_a_chosen_one(device)
        {
            let help = match tunnel(device) {
                Some((_, tunnel)) => tunnel.which_to_name(name),
                None => format!(
                    "what leaves over it is not shaped: add a line `{name}:` if it should be"
                ),
            };
            let message = format!("{name} has a default route and no line in `links`");
            findings.push(Diagnostic::warning(Kind::Link, at, message).help(help));
        }
    }
}

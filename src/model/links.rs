//! Which interfaces are meant, and what they carry. Touches nothing.

use std::collections::HashMap;

use crate::policy::{
    Amount, Diagnostic, Findings, Kind, LinkLine, LinkRef, Policy, Span, Written, closest, quote,
};
use crate::state::{Facts, LinkFacts, LinkName};
use crate::units::{Percent, Rate};

use super::build::BuildOptions;
use super::{Asked, Limits, Link};

/// `IFLA_INFO_KIND` of links whose packets leave through another link.
const TUNNELS: [&str; 16] = [
    "tun",
    "wireguard",
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

/// Links that are a second name for (a part of) the one below.
const STACKED: [&str; 5] = ["vlan", "macvlan", "macvtap", "ipvlan", "macsec"];

/// The links that are there and whose rate is known.
pub(super) struct Links<'p> {
    pub shaped: Vec<Shaped<'p>>,
    /// Every way to name a link of the file → its place in `shaped`; `None`: it is absent, or
    /// nothing is known of it here.
    by_name: HashMap<LinkRef, Option<usize>>,
    /// `auto` is in the file and may be any interface: another name may be the same one.
    auto_is_open: bool,
}

pub(super) struct Shaped<'p> {
    pub line: &'p LinkLine,
    pub link: Link,
}

impl Links<'_> {
    pub fn into_model(self) -> Vec<Link> {
        self.shaped.into_iter().map(|shaped| shaped.link).collect()
    }

    /// The link that another line names. `Ok(None)`: in the file, but not here.
    pub fn find(&self, name: &Written<LinkRef>) -> Result<Option<usize>, Diagnostic> {
        match self.by_name.get(&name.value) {
            Some(index) => Ok(*index),
            None if self.auto_is_open => Ok(None),
            None => Err(self.unknown(name)),
        }
    }

    fn unknown(&self, name: &Written<LinkRef>) -> Diagnostic {
        let text = link_text(&name.value);
        let names: Vec<&str> = self.by_name.keys().map(link_text).collect();
        let help = match closest(text, names.iter().copied()) {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("add a line `{text}:` to `links`"),
        };
        Diagnostic::error(Kind::Link, name.at, format!("{} is no link of this policy", quote(text)))
            .help(help)
    }
}

fn link_text(name: &LinkRef) -> &str {
    match name {
        LinkRef::Auto => "auto",
        LinkRef::Name(name) => name.as_str(),
    }
}

pub(super) fn resolve<'p>(
    policy: &'p Policy,
    facts: &Facts,
    options: BuildOptions,
    findings: &mut Findings,
) -> Links<'p> {
    let mut links = Links { shaped: Vec::new(), by_name: HashMap::new(), auto_is_open: false };
    let mut chosen: HashMap<LinkName, Span> = HashMap::new();
    for line in &policy.links {
        links.by_name.insert(line.name.value.clone(), None);
        let found = if options.offline {
            Ok(unseen(line))
        } else {
            interface(line, facts, line.optional || options.absent_links)
        };
        let Some(found) = findings.take(found) else {
            links.auto_is_open |= line.name.value == LinkRef::Auto;
            continue;
        };
        let Some((name, device)) = found else {
            links.auto_is_open |= line.name.value == LinkRef::Auto;
            if !options.offline {
                findings.push(absent(line));
            }
            continue;
        };
        if let Some(first) = chosen.insert(name.clone(), line.name.at) {
            findings.push(
                Diagnostic::error(
                    Kind::Link,
                    line.name.at,
                    format!("`auto` is {name}, which has a line of its own"),
                )
                .also(first, "the other line")
                .help("remove one of the two lines"),
            );
            continue;
        }
        let speed = device.and_then(|device| device.speed);
        let rate = rate(line, &name, speed, options, findings);
        if let Some(rate) = rate
            && let Some(default) = findings.take(default_limits(line, &name, rate))
        {
            let index = Some(links.shaped.len());
            links.by_name.insert(LinkRef::Name(name.clone()), index);
            links.by_name.insert(line.name.value.clone(), index);
            let place = line.name.at.place;
            let (classifier, leaf) = (line.classifier, line.leaf);
            let link = Link { name, rate, speed, default, classifier, leaf, place };
            links.shaped.push(Shaped { line, link });
        }
    }
    if !options.offline {
        stacked(&links, facts, findings);
        uncovered(policy.links_at, &chosen, facts, findings);
    }
    links
}

/// What can be said of a link without looking.
fn unseen(line: &LinkLine) -> Option<(LinkName, Option<&'static LinkFacts>)> {
    match &line.name.value {
        LinkRef::Name(name) => Some((name.clone(), None)),
        LinkRef::Auto => None,
    }
}

fn absent(line: &LinkLine) -> Diagnostic {
    let name = link_text(&line.name.value);
    let message = format!("the link {} is not there now", quote(name));
    if line.optional {
        return Diagnostic::info(Kind::Link, line.name.at, message)
            .help("it is `optional`: the next apply after it came shapes it");
    }
    Diagnostic::warning(Kind::Link, line.name.at, message).help("it is shaped when it comes")
}

/// The interface of a line; `None`: one that is not there, and `may_be_absent`.
fn interface<'f>(
    line: &LinkLine,
    facts: &'f Facts,
    may_be_absent: bool,
) -> Result<Option<(LinkName, Option<&'f LinkFacts>)>, Diagnostic> {
    let at = line.name.at;
    match &line.name.value {
        LinkRef::Name(name) => match facts.links.get(name) {
            Some(device) => Ok(Some((name.clone(), Some(device)))),
            None if may_be_absent => Ok(None),
            None => {
                let names: Vec<&str> = facts.links.keys().map(LinkName::as_str).collect();
                let hint = match closest(name.as_str(), names.iter().copied()) {
                    Some(close) => format!("did you mean `{close}`?"),
                    None => format!("there are: {}", list(&names)),
                };
                Err(Diagnostic::error(
                    Kind::Link,
                    at,
                    format!("there is no link {}", quote(name.as_str())),
                )
                .help(format!("{hint} A link that comes later may have `optional: true`")))
            }
        },
        LinkRef::Auto => {
            let Some((name, device)) = default_route(facts) else {
                if may_be_absent {
                    return Ok(None);
                }
                return Err(Diagnostic::error(
                    Kind::Link,
                    at,
                    "`auto` finds no link: there is no default route",
                )
                .help("name the link instead of `auto`, as `ip link` shows it"));
            };
            match device.kind.as_deref().filter(|kind| TUNNELS.contains(kind)) {
                None => Ok(Some((name.clone(), Some(device)))),
                Some(kind) => Err(Diagnostic::error(
                    Kind::Link,
                    at,
                    format!("`auto` finds {name}, which is a tunnel ({kind})"),
                )
                .help(format!("name the link below it, which carries the tunnel's packets, or `{name}` itself if that is meant"))),
            }
        }
    }
}

/// The link with the best IPv4 default route, else IPv6.
fn default_route(facts: &Facts) -> Option<(&LinkName, &LinkFacts)> {
    let best = |metric: fn(&LinkFacts) -> Option<u32>| {
        let candidates = facts.links.iter().filter(|(_, device)| !device.loopback);
        candidates
            .filter_map(|(name, device)| Some((metric(device)?, device.ifindex, name, device)))
            .min_by_key(|(metric, ifindex, ..)| (*metric, *ifindex))
            .map(|(_, _, name, device)| (name, device))
    };
    best(|device| device.default_route_v4).or_else(|| best(|device| device.default_route_v6))
}

/// What the link carries; `None` only after an error, or offline.
fn rate(
    line: &LinkLine,
    name: &LinkName,
    speed: Option<Rate>,
    options: BuildOptions,
    findings: &mut Findings,
) -> Option<Rate> {
    let (written, at) = match &line.rate {
        Some(written) => (Some(written.value), written.at),
        None => (None, line.name.at),
    };
    let rate = match (written, speed) {
        (Some(Amount::Rate(rate)), _) => rate,
        (Some(Amount::Percent(share)), Some(speed)) => share.of(speed),
        (None, Some(speed)) => speed,
        (Some(Amount::Percent(_)) | None, None) => {
            if !options.offline {
                findings.push(
                    Diagnostic::error(Kind::Rate, at, format!("the speed of {name} is unknown"))
                        .help(format!("its driver does not tell (virtio, or no cable): write what the link carries, `{name}: {{rate: 950mbit}}`")),
                );
            }
            return None;
        }
    };
    let speed = speed.unwrap_or(rate);
    if rate > speed {
        findings.push(
            Diagnostic::error(
                Kind::Rate,
                at,
                format!("the rate {rate} is above the {speed} that {name} can do"),
            )
            .help(format!(
                "write at most {speed}: the queue must be here, not in the device; 95% is usual"
            )),
        );
        return None;
    }
    if u128::from(rate.bytes_per_second()) * 20 < u128::from(speed.bytes_per_second()) {
        findings.push(
            Diagnostic::warning(
                Kind::Rate,
                at,
                format!("the rate {rate} is below 5 % of the {speed} that {name} can do"),
            )
            .help("is the unit right? Everything on the link shares this rate"),
        );
    }
    Some(rate)
}

/// `amount` of the link's rate.
pub(super) fn absolute(amount: Amount, link: Rate) -> Rate {
    match amount {
        Amount::Rate(rate) => rate,
        Amount::Percent(share) => share.of(link),
    }
}

/// What the default class gets where the file says nothing: 5 % of the link, at least 1 Mbit/s.
fn default_rate(link: Rate) -> Rate {
    let share: Option<Percent> = "5%".parse().ok();
    let least = Rate::from_bits_per_second(1_000_000);
    share.map(|share| share.of(link)).max(least).unwrap_or(link).min(link)
}

fn default_limits(line: &LinkLine, name: &LinkName, link: Rate) -> Result<Limits, Diagnostic> {
    let written = line.default.as_ref();
    let ceil_at = written.and_then(|limits| limits.ceil);
    let rate_at = written.and_then(|limits| limits.rate);
    let ceil = ceil_at.map_or(link, |ceil| absolute(ceil.value, link));
    let rate =
        rate_at.map_or_else(|| default_rate(link).min(ceil), |rate| absolute(rate.value, link));
    if let Some(at) = ceil_at.map(|ceil| ceil.at) {
        if ceil > link {
            return Err(Diagnostic::error(
                Kind::Rate,
                at,
                format!("the default's ceil {ceil} is above {name}'s {link}"),
            )
            .help("leave `ceil` out: it is the link's then"));
        }
        if u128::from(ceil.bytes_per_second()) * 100 < u128::from(link.bytes_per_second()) {
            return Err(Diagnostic::error(Kind::Rate, at, format!("the default's ceil {ceil} is below 1 % of {name}'s {link}"))
                .help("the default carries root's ssh, name lookups and ARP: so little could cut the host off"));
        }
    }
    if let Some(at) = rate_at.map(|rate| rate.at)
        && rate > ceil
    {
        let diagnostic = Diagnostic::error(
            Kind::Rate,
            at,
            format!("the default's rate {rate} is above its ceil {ceil}"),
        )
        .help(format!("write at most {ceil}"));
        return Err(match ceil_at {
            Some(ceil) => diagnostic.also(ceil.at, "its ceil"),
            None => diagnostic,
        });
    }
    let prio = written.and_then(|limits| limits.prio).map_or(0, |prio| prio.value);
    Ok(Limits { rate: Asked::Promised(rate), ceil, prio })
}

/// Two links of the file of which one carries the other's packets: they would be shaped twice.
fn stacked(links: &Links<'_>, facts: &Facts, findings: &mut Findings) {
    let device = |shaped: &Shaped<'_>| facts.links.get(&shaped.link.name);
    let by_index: HashMap<u32, &Shaped<'_>> =
        links.shaped.iter().filter_map(|s| Some((device(s)?.ifindex, s))).collect();
    for upper in &links.shaped {
        let Some(facts) = device(upper) else { continue };
        let name = &upper.link.name;
        let at = upper.line.name.at;
        if let Some(master) = facts.master.and_then(|index| by_index.get(&index)) {
            let kind = device(master).and_then(|device| device.kind.as_deref()).unwrap_or("master");
            findings.push(
                Diagnostic::error(
                    Kind::Link,
                    at,
                    format!(
                        "{name} is a part of the {kind} {}, which has a line too",
                        master.link.name
                    ),
                )
                .also(master.line.name.at, format!("the {kind}"))
                .help(format!("its packets would be shaped twice: remove the line of {name}")),
            );
        }
        let is_stacked = facts.kind.as_deref().is_some_and(|kind| STACKED.contains(&kind));
        if let Some(lower) =
            facts.lower.and_then(|index| by_index.get(&index)).filter(|_| is_stacked)
        {
            let kind = facts.kind.as_deref().unwrap_or_default();
            findings.push(
                Diagnostic::error(
                    Kind::Link,
                    at,
                    format!("{name} is a {kind} on {}, which has a line too", lower.link.name),
                )
                .also(lower.line.name.at, "the link below")
                .help("its packets would be shaped twice: remove one of the two lines"),
            );
        }
    }
}

/// Links over which packets leave without being shaped.
fn uncovered(at: Span, chosen: &HashMap<LinkName, Span>, facts: &Facts, findings: &mut Findings) {
    let by_index: HashMap<u32, &LinkName> =
        facts.links.iter().map(|(name, device)| (device.ifindex, name)).collect();
    let passes_a_chosen_one = |device: &LinkFacts| {
        let below = device.lower.and_then(|index| by_index.get(&index));
        below.is_some_and(|name| chosen.contains_key(*name))
    };
    for (name, device) in &facts.links {
        let has_route = device.default_route_v4.or(device.default_route_v6).is_some();
        if has_route
            && !device.loopback
            && !chosen.contains_key(name)
            && !passes_a_chosen_one(device)
        {
            findings.push(
                Diagnostic::warning(
                    Kind::Link,
                    at,
                    format!("{name} has a default route and no line in `links`"),
                )
                .help(format!(
                    "what leaves over it is not shaped: add a line `{name}:` if it should be"
                )),
            );
        }
    }
}

/// A list for a message, not too long.
fn list(names: &[&str]) -> String {
    const MOST: usize = 8;
    let shown = names.iter().take(MOST).copied().collect::<Vec<_>>().join(", ");
    if names.len() > MOST { format!("{shown}, …") } else { format!("{shown}.") }
}

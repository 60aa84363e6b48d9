//! Which interfaces the lines of `links` mean, and the rate of each. Touches nothing.

use std::collections::BTreeMap;

use crate::facts::{Facts, LinkFacts};
use crate::policy::{
    Amount, Diagnostic, Findings, Kind, LinkLine, LinkRef, Policy, Span, Written, closest, quote,
};
use crate::tree::LinkName;
use crate::units::Rate;

use super::default::default_limits;
use super::options::BuildOptions;
use super::positions::Per;
use super::schedule::Situation;
use super::shaped::{Links, Shaped, UNBOUNDED};
use super::{Asked, By, Limits, Link, arriving, stacked};

/// Which line each link is for: one line for a link.
struct Chosen<'p> {
    policy: &'p Policy,
    lines: BTreeMap<LinkName, Span>,
}

impl Chosen<'_> {
    /// Takes the link for this line, unless another line has it, which is an error.
    fn choose(&mut self, name: &LinkName, line: &LinkLine, findings: &mut Findings) -> bool {
        let Some(first) = self.lines.insert(name.clone(), line.name.at) else { return true };
        let other = self.policy.links.iter().find(|line| line.name.at == first);
        let texts = [Some(line), other].into_iter().flatten();
        let odd = texts.map(|line| line.name.value.as_str()).find(|t| *t != name.as_str());
        let odd = quote(odd.unwrap_or(name.as_str()));
        findings.push(
            Diagnostic::error(
                Kind::Link,
                line.name.at,
                format!("{odd} is {name}, which has a line of its own"),
            )
            .also(first, "the other line")
            .help("remove one of the two lines"),
        );
        false
    }

    /// Takes for the lines of patterns the links that fit and that no line has. `meant`: by line.
    fn by_patterns<'f>(&mut self, facts: &'f Facts, meant: &mut [Vec<Meant<'f>>]) {
        let lines = self.policy.links.iter().zip(meant);
        for (line, meant) in lines.filter(|(line, _)| is_pattern(line)) {
            for (name, device) in &facts.links {
                if has_packets_of_its_own(device)
                    && line.name.value.means(name, &device.altnames)
                    && !self.lines.contains_key(name)
                {
                    self.lines.insert(name.clone(), line.name.at);
                    meant.push((name.clone(), Some(device)));
                }
            }
        }
    }
}

fn is_pattern(line: &LinkLine) -> bool {
    matches!(line.name.value, LinkRef::Pattern(_))
}

/// A note where a line names a link by an alternative name.
fn other_name(line: &LinkLine, name: &LinkName, findings: &mut Findings) {
    let written = line.name.value.as_str();
    if name.as_str() != written && line.name.value != LinkRef::Auto {
        findings.push(Diagnostic::info(
            Kind::Link,
            line.name.at,
            format!("{} is another name of {name}", quote(written)),
        ));
    }
}

/// A link that a line means; offline only its name is known.
type Meant<'f> = (LinkName, Option<&'f LinkFacts>);

pub(super) fn resolve<'p>(
    policy: &'p Policy,
    situation: &'p Situation<'p>,
    facts: &Facts,
    options: BuildOptions,
    findings: &mut Findings,
) -> Links<'p> {
    let (mut shaped, mut to_come, mut auto_is_open) = (Vec::new(), Vec::new(), false);
    let mut unfit = BTreeMap::new();
    let mut chosen = Chosen { policy, lines: BTreeMap::new() };
    // A line that names a link exactly goes before patterns, wherever in the file it is.
    let mut meant: Vec<Vec<Meant<'_>>> = policy
        .links
        .iter()
        .map(|line| {
            if let LinkRef::Pattern(_) = line.name.value {
                return Vec::new();
            }
            let found = match options.offline {
                true => Ok(unseen(line)),
                false => interface(line, facts, may_be_absent(line, options)),
            };
            let found = findings.take(found).flatten();
            auto_is_open |= found.is_none() && line.name.value == LinkRef::Auto;
            let Some((name, device)) = found else { return Vec::new() };
            if !chosen.choose(&name, line, findings) {
                return Vec::new();
            }
            other_name(line, &name, findings);
            vec![(name, device)]
        })
        .collect();
    chosen.by_patterns(facts, &mut meant);
    for (line, meant) in policy.links.iter().zip(meant) {
        if meant.is_empty() {
            if (is_pattern(line) || may_be_absent(line, options)) && !options.offline {
                findings.push(absent(line, facts, options));
            }
            let name = LinkName::new(line.name.value.as_str());
            let mut unsaid = Findings::default();
            let unknown = BuildOptions { offline: true, ..options };
            let meant = name.map(|name| (name, None));
            to_come.extend(
                meant
                    .into_iter()
                    .flat_map(|it| shapes((line, situation), it, unknown, &mut unsaid)),
            );
        }
        for (name, device) in meant {
            let mut about = Findings::default();
            let meant = (name.clone(), device);
            let ports = shapes((line, situation), meant, options, &mut about);
            // One link that cannot be shaped must not keep the daemon from the others.
            let lenient = is_pattern(line) && options.absent_links;
            let is_unfit = lenient && ports.is_empty();
            unfit.extend(about.error().filter(|_| is_unfit).map(|why| (name, why.message.clone())));
            shaped.extend(ports);
            findings.append(about, lenient);
        }
    }
    slow(&shaped, facts, findings);
    if !options.offline {
        stacked::check(&mut shaped, facts, options, findings);
        stacked::uncovered(policy.links_at, &chosen.lines, facts, findings);
    }
    let unrated = if options.offline { unrated(policy, situation) } else { Vec::new() };
    Links { shaped: Per::new(shaped), unfit, to_come, unrated, policy, auto_is_open }
}

/// Neither the loopback nor an ifb, through which packets pass that another link had: a pattern
/// never means these.
fn has_packets_of_its_own(device: &LinkFacts) -> bool {
    !device.loopback && device.kind.as_deref() != Some("ifb")
}

/// What a line says of one link, and of what arrives by it.
fn shapes<'p>(
    (line, situation): (&'p LinkLine, &'p Situation<'p>),
    (name, device): Meant<'_>,
    options: BuildOptions,
    findings: &mut Findings,
) -> Vec<Shaped<'p>> {
    let leaves = shape((line, situation), name, device, options, findings);
    let arrives = leaves.as_ref().and_then(|it| arriving::shape(it, options, findings));
    leaves.into_iter().chain(arrives).collect()
}

/// What a line says of one link.
fn shape<'p>(
    (line, situation): (&'p LinkLine, &'p Situation<'p>),
    name: LinkName,
    device: Option<&LinkFacts>,
    options: BuildOptions,
    findings: &mut Findings,
) -> Option<Shaped<'p>> {
    let speed = device.and_then(|device| device.speed);
    let written = situation.rate(line);
    let rate = rate((line, written), &name, speed, options, findings)?;
    let holds = situation.holds_of_link(line, false);
    let in_full = (rate, holds.by == By::When);
    let default = findings.take(default_limits(line.default.as_ref(), &name, in_full))?;
    let (classifier, leaf, at) = (line.classifier, line.leaf, line.name.at);
    let (port, bypass_firewall) = (name.egress(), line.bypass_firewall);
    let link = Link { port, rate, holds, speed, default, classifier, bypass_firewall, leaf, at };
    let altnames = device.map_or_else(Vec::new, |device| device.altnames.clone());
    let may_fit_patterns = device.is_none_or(has_packets_of_its_own);
    let ethernet = device.is_none_or(|device| device.ethernet);
    Some(Shaped { line, situation, link, altnames, may_fit_patterns, has_rate: true, ethernet })
}

/// The links whose rate only the device says; none where a line has limits for a link under a name
/// that is not in `links` (a pattern's link, an alternative name): which link these are for is not
/// known.
fn unrated<'p>(policy: &'p Policy, situation: &'p Situation<'p>) -> Vec<Shaped<'p>> {
    let of_users = policy.users.iter().flat_map(|user| &user.links);
    let of_classes = policy.classes.iter().flat_map(|class| &class.links);
    let mut elsewhere = of_users.chain(of_classes).map(|(name, _)| &name.value);
    if elsewhere.any(|name| policy.links.iter().all(|line| line.name.value != *name)) {
        return Vec::new();
    }
    let is_written = |line: &&LinkLine| {
        matches!(situation.rate(line), Some(Written { value: Amount::Rate(_), .. }))
    };
    let lines = policy.links.iter().filter(|line| !is_written(line));
    let named = |line: &'p LinkLine| {
        Some(without_rate((line, situation), LinkName::new(line.name.value.as_str())?))
    };
    let leaves = lines.filter_map(named);
    let options = BuildOptions { offline: true, ..BuildOptions::default() };
    let both = leaves.flat_map(|leaves| {
        let arrives = arriving::shape(&leaves, options, &mut Findings::default());
        [Some(leaves), arrives].into_iter().flatten()
    });
    both.collect()
}

/// The link of a line whose rate only the device says, for the limits that are right or wrong
/// whatever that is.
fn without_rate<'p>(
    (line, situation): (&'p LinkLine, &'p Situation<'p>),
    name: LinkName,
) -> Shaped<'p> {
    let default = Limits { rate: Asked::Token, ceil: UNBOUNDED, boost: None, prio: 0 };
    let (classifier, leaf, at) = (line.classifier, line.leaf, line.name.at);
    let (port, rate, speed) = (name.egress(), UNBOUNDED, None);
    let bypass_firewall = line.bypass_firewall;
    let holds = situation.holds_of_link(line, false);
    let link = Link { port, rate, holds, speed, default, classifier, bypass_firewall, leaf, at };
    let (altnames, may_fit_patterns) = (Vec::new(), true);
    Shaped { line, situation, link, altnames, may_fit_patterns, has_rate: false, ethernet: true }
}

/// The link that a line names, where nothing was asked of the kernel; `None` for a text that is too
/// long for a name, so an alternative name.
fn unseen(line: &LinkLine) -> Option<Meant<'static>> {
    match &line.name.value {
        LinkRef::Name(name) => Some((LinkName::new(name)?, None)),
        LinkRef::Auto | LinkRef::Pattern(_) => None,
    }
}

fn may_be_absent(line: &LinkLine, options: BuildOptions) -> bool {
    line.optional || options.skip_absent || options.absent_links
}

fn absent(line: &LinkLine, facts: &Facts, options: BuildOptions) -> Diagnostic {
    let name = quote(line.name.value.as_str());
    let message = match line.name.value {
        LinkRef::Pattern(_) => format!("no link fits {name} now"),
        _ => format!("the link {name} is not there now"),
    };
    // The daemon does not warn of an `optional` link that is absent; a run by hand does.
    let new = match line.optional && options.absent_links {
        true => Diagnostic::info,
        false => Diagnostic::warning,
    };
    let later = "a link that comes is shaped by the next apply, or by the daemon at once";
    let names = facts.links.keys().map(LinkName::as_str);
    let close = closest(line.name.value.as_str(), names);
    new(Kind::Link, line.name.at, message).help(match (&line.name.value, close) {
        (LinkRef::Name(_), Some(close)) if !line.optional => {
            format!("did you mean `{close}`? Otherwise {later}")
        }
        (LinkRef::Name(_), None) if !line.optional => {
            format!("correct the name (`ip link`) if it is wrong; {later}")
        }
        _ => later.to_string(),
    })
}

/// The interface of a line; `None`: it does not exist, and `may_be_absent`.
fn interface<'f>(
    line: &LinkLine,
    facts: &'f Facts,
    may_be_absent: bool,
) -> Result<Option<Meant<'f>>, Diagnostic> {
    let at = line.name.at;
    match &line.name.value {
        LinkRef::Pattern(_) => Ok(None),
        LinkRef::Name(written) => match named(written, facts) {
            Some((name, device)) => Ok(Some((name.clone(), Some(device)))),
            None if may_be_absent => Ok(None),
            None => {
                let names: Vec<&str> = facts.links.keys().map(LinkName::as_str).collect();
                let hint = match closest(written, names.iter().copied()) {
                    Some(close) => format!("did you mean `{close}`?"),
                    None => format!("there are: {}", list(&names)),
                };
                Err(Diagnostic::error(
                    Kind::Link,
                    at,
                    format!("there is no link {}", quote(written)),
                )
                .help(format!("{hint} A link that comes later may have `optional: true`")))
            }
        },
        LinkRef::Auto => {
            let Some((name, device)) = facts.default_route() else {
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
            match stacked::tunnel(device) {
                None => Ok(Some((name.clone(), Some(device)))),
                Some((kind, tunnel)) => Err(Diagnostic::error(
                    Kind::Link,
                    at,
                    format!("`auto` finds {name}, which is a tunnel ({kind})"),
                )
                .help(tunnel.which_to_name(name))),
            }
        }
    }
}

/// The link with this name; else the one that has it as an alternative name.
fn named<'f>(written: &str, facts: &'f Facts) -> Option<(&'f LinkName, &'f LinkFacts)> {
    let name = LinkName::new(written).and_then(|name| facts.links.get_key_value(&name));
    name.or_else(|| {
        facts.links.iter().find(|(_, device)| device.altnames.iter().any(|name| name == written))
    })
}

/// The rate of the link; `None` only after an error, or offline.
fn rate(
    (line, written): (&LinkLine, Option<Written<Amount>>),
    name: &LinkName,
    speed: Option<Rate>,
    options: BuildOptions,
    findings: &mut Findings,
) -> Option<Rate> {
    let (written, at) = match &written {
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
    Some(rate)
}

/// Notes on rates that may have the wrong unit, said once, when they come into force. The speed of
/// a veth or a tun is a number that its driver made up, and is not compared.
fn slow(shaped: &[Shaped<'_>], facts: &Facts, findings: &mut Findings) {
    let is_slow = |shaped: &&Shaped<'_>| {
        if shaped.arrives() {
            return false;
        }
        let Link { port, rate, speed: Some(speed), .. } = &shaped.link else { return false };
        let is_new = facts.links.get(&port.link).is_some_and(|device| {
            !matches!(device.kind.as_deref(), Some("veth" | "tun"))
                && device.shaped_at != Some(*rate)
        });
        let share = u128::from(rate.bytes_per_second()) * 20;
        is_new && share < u128::from(speed.bytes_per_second())
    };
    let mut slow = shaped.iter().filter(is_slow);
    let Some(Shaped { line, link: Link { port, rate, speed: Some(speed), .. }, .. }) = slow.next()
    else {
        return;
    };
    let message = format!("the rate {rate} is below 5 % of the {speed} that {} can do", port.link);
    let also = match slow.count() {
        0 => String::new(),
        1 => ", and so is that of one other link".to_string(),
        more => format!(", and so are those of {more} other links"),
    };
    let at = line.rate.map_or(line.name.at, |rate| rate.at);
    findings.push(
        Diagnostic::warning(Kind::Rate, at, message + &also)
            .help("is the unit right? Everything on the link shares this rate"),
    );
}

/// A list for a message, not too long.
fn list(names: &[&str]) -> String {
    const MOST: usize = 8;
    let shown = names.iter().take(MOST).copied().collect::<Vec<_>>().join(", ");
    if names.len() > MOST { format!("{shown}, …") } else { format!("{shown}.") }
}

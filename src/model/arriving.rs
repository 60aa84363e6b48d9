//! What arrives by the links that have a `down`, and who has one where no link of his has. Touches
//! nothing.

use crate::policy::{
    self, Amount, ClassLine, Diagnostic, Down, Findings, Kind, LinkRef, OnLink, Policy, UserLine,
    Written, quote,
};
use crate::units::{Percent, Rate};

use super::default::default_limits;
use super::options::BuildOptions;
use super::shaped::{Links, Shaped};
use super::{By, Link};

/// A larger part of what the device receives at is warned of: the queue must be here.
const NEARLY_ALL: &str = "98%";

/// The other direction of a link whose line has a `down`; `None`: it has none, or after an error.
pub(super) fn shape<'p>(
    leaves: &Shaped<'p>,
    options: BuildOptions,
    findings: &mut Findings,
) -> Option<Shaped<'p>> {
    let Shaped { line, link, situation, .. } = leaves;
    let rate = rate(situation.down(line)?, link, options, findings)?;
    let name = &link.port.link;
    let holds = situation.holds_of_link(line, true);
    let written = line.default.as_ref().map(policy::Limits::arriving);
    let default = default_limits(written.as_ref(), name, (rate, holds.by == By::When));
    let default = findings.take(default)?;
    let link = Link { port: name.ingress(), rate, holds, default, ..link.clone() };
    let altnames = leaves.altnames.clone();
    Some(Shaped { link, altnames, has_rate: true, ..*leaves })
}

fn rate(
    written: Written<Amount>,
    link: &Link,
    options: BuildOptions,
    findings: &mut Findings,
) -> Option<Rate> {
    let name = &link.port.link;
    let rate = match (written.value, link.speed) {
        (Amount::Rate(rate), _) => rate,
        (Amount::Percent(share), Some(speed)) => share.of(speed),
        (Amount::Percent(_), None) => {
            if !options.offline {
                let message = format!("the speed of {name} is unknown");
                findings.push(Diagnostic::error(Kind::Rate, written.at, message).help(format!(
                    "its driver does not tell: write what arrives, `{name}: {{down: 940mbit}}`"
                )));
            }
            return None;
        }
    };
    let Some(speed) = link.speed else { return Some(rate) };
    if rate > speed {
        let message = format!("the down {rate} is above the {speed} at which {name} receives");
        findings.push(Diagnostic::error(Kind::Rate, written.at, message).help(format!(
            "write at most {speed}: the queue must be here, not before the device; 95% is usual"
        )));
        return None;
    }
    let most: Option<Percent> = NEARLY_ALL.parse().ok();
    if most.is_some_and(|most| rate > most.of(speed)) {
        let message = format!(
            "the down {rate} is more than {NEARLY_ALL} of the {speed} at which {name} receives"
        );
        findings.push(Diagnostic::warning(Kind::Rate, written.at, message).help(
            "the queue must be here, and not before the device, where nobody's share holds: 95% is usual, 90% where latency matters",
        ));
    }
    Some(rate)
}

/// Says where a line has a `down` and no link of its has one.
pub(super) fn unlinked(links: &Links<'_>, findings: &mut Findings) {
    let Policy { users, groups, everyone, classes, .. } = links.policy;
    let mut lines = Vec::new();
    for UserLine { key, limits, links: on_links, .. } in users {
        lines.push((quote(key.value.as_str()), limits.downs().next(), &on_links[..]));
    }
    for ClassLine { key, limits, links: on_links, .. } in classes {
        lines.push((quote(key.value.as_str()), limits.downs().next(), &on_links[..]));
    }
    for line in groups {
        let name = || quote(line.key.value.as_str());
        lines.push((format!("the group {}", name()), line.limits.downs().next(), &[]));
        let each = line.each.as_ref().and_then(|each| each.downs().next());
        lines.push((format!("each account of {}", name()), each, &[]));
    }
    if let Some(line) = everyone {
        lines.push(("`everyone`".to_string(), line.limits.downs().next(), &[]));
        let each = line.each.as_ref().and_then(|each| each.downs().next());
        lines.push(("each account of `everyone`".to_string(), each, &[]));
    }
    for (who, down, on_links) in lines {
        line(links, &who, down, on_links, findings);
    }
}

fn line(
    links: &Links<'_>,
    who: &str,
    down: Option<Down>,
    on_links: &[(Written<LinkRef>, OnLink)],
    findings: &mut Findings,
) {
    let here = |name: &Written<LinkRef>| {
        let found = links.find(name).unwrap_or_default();
        found.into_iter().map(|index| &links.shaped[index])
    };
    let no_down = |of: &str, down: Down| {
        Diagnostic::error(Kind::Rate, down.at, format!("{who} has a `down`, and {of}"))
            .help("write what arrives by the link, `eth0: {rate: 950mbit, down: 940mbit}`, or remove this")
    };
    if let Some(down) = down {
        let is_left_out = |written: &Written<LinkRef>| {
            let none = on_links.iter().filter(|(_, on_link)| *on_link == OnLink::None);
            let mut none = none.map(|(name, _)| name);
            none.any(|name| name.value == written.value)
        };
        let mut lines = links.policy.links.iter();
        if !lines.any(|line| line.down.is_some() && !is_left_out(&line.name)) {
            findings.push(no_down("no link that the line is for has one", down));
        }
    }
    for (name, on_link) in on_links {
        let OnLink::Limits(limits) = on_link else { continue };
        let Some(down) = limits.downs().next() else { continue };
        let mut found = here(name).peekable();
        if found.peek().is_some() && found.all(|shaped| shaped.line.down.is_none()) {
            findings.push(no_down(&format!("{} has none", name.value.as_str()), down));
        }
    }
}

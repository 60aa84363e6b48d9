//! Links behind which guests are: whose is what comes in by each. Touches nothing.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::facts::LinkFacts;
use crate::policy::{ContainerRef, Diagnostic, Findings, Kind, LinkRef, Written, closest, quote};
use crate::tree::{LinkName, Owner};

use super::guests::{Claimant, Lines, unknown_labels};
use super::positions::users;
use super::senders::Senders;
use super::{How, InnerLink};

/// What guests may be behind, and what is said of it.
struct Inner<'a> {
    known: &'a Senders<'a>,
    lines: Lines<'a>,
    /// The links that are shaped.
    shaped: &'a BTreeSet<LinkName>,
    found: BTreeMap<LinkName, InnerLink>,
}

/// The links that are here now and of which lines or `guests` say whose they are. `shaped`: the
/// links that are none of these.
pub(super) fn resolve(
    known: &Senders<'_>,
    shaped: &BTreeSet<LinkName>,
    findings: &mut Findings,
) -> BTreeMap<LinkName, InnerLink> {
    let lines = Lines::new(known, findings);
    if known.options.offline {
        return BTreeMap::new();
    }
    let Senders { policy, facts, .. } = known;
    unknown_labels(policy, &facts.guests, &facts.accounts, findings);
    let mut inner = Inner { known, lines, shaped, found: BTreeMap::new() };
    inner.named(findings);
    for (name, device) in &known.facts.links {
        if inner.can_be(name, device) {
            inner.claim(name, device, findings);
        }
    }
    inner.ports();
    inner.bridged(findings);
    inner.by_address_alone(findings);
    inner.found
}

impl Inner<'_> {
    /// Whether guests can be behind a link: it is neither shaped, nor a loopback, nor an ifb.
    fn can_be(&self, name: &LinkName, device: &LinkFacts) -> bool {
        !self.shaped.contains(name) && !device.loopback && device.kind.as_deref() != Some("ifb")
    }

    /// Findings about links and namespaces that lines name.
    fn named(&self, findings: &mut Findings) {
        let Senders { policy, facts, options, .. } = self.known;
        for (_, line) in users(policy) {
            for wanted in line.interfaces.iter().flatten() {
                self.interface(wanted, findings);
            }
            // The daemon hears of guests as they come, so one that is not here is no news.
            if options.absent_links {
                continue;
            }
            for Written { value, at } in line.namespaces.iter().flatten() {
                if !facts.guests.namespaces.contains_key(value) {
                    let names = facts.guests.namespaces.keys().map(String::as_str);
                    let help = match closest(value, names) {
                        Some(close) => format!("did you mean `{close}`?"),
                        None => "one that comes counts with the next apply, and under the daemon at once; `ip netns` lists them".to_string(),
                    };
                    let message = format!("there is no network namespace {} now", quote(value));
                    findings.push(Diagnostic::warning(Kind::Claim, *at, message).help(help));
                }
            }
            for Written { value, at } in line.containers.iter().flatten() {
                let ContainerRef::Name(name) = value else { continue };
                let containers = &facts.guests.containers;
                let names = || containers.iter().filter_map(|it| it.name.as_deref());
                // Where an engine could not be asked, any of its containers may have the name.
                if facts.guests.silent.is_empty() && !names().any(|it| it == name) {
                    let message = format!("no container {} runs now", quote(name));
                    let close = closest(name, names()).map(|it| format!("did you mean `{it}`? "));
                    let later =
                        "One that starts counts with the next apply, and under the daemon at once";
                    let help = close.unwrap_or_default() + later;
                    findings.push(Diagnostic::warning(Kind::Claim, *at, message).help(help));
                }
            }
        }
    }

    /// Findings about a link that a line names.
    fn interface(&self, wanted: &Written<LinkRef>, findings: &mut Findings) {
        let (text, at) = (quote(wanted.value.as_str()), wanted.at);
        let error = |message: String| Diagnostic::error(Kind::Link, at, message);
        let LinkRef::Name(_) = wanted.value else {
            if !self.known.options.absent_links && self.meant(&wanted.value).next().is_none() {
                let message = format!("no link that can have guests behind it fits {text} now");
                findings.push(Diagnostic::warning(Kind::Link, at, message).help(
                    "one that comes counts with the next apply, and under the daemon at once",
                ));
            }
            return;
        };
        match self.meant(&wanted.value).next() {
            Some((name, _)) if self.shaped.contains(name) => findings.push(
                error(format!("{text} is a shaped link, and no guests are behind one"))
                    .help("name the links by which guests reach the host, `vnet3`, `wg0`, a bridge; what arrives by a shaped link is its `down`"),
            ),
            Some((name, device)) if !self.can_be(name, device) => {
                let what = if device.loopback { "the loopback" } else { "an ifb" };
                findings.push(
                    error(format!("{text} is {what}, and no guests are behind it"))
                        .help("name the link by which the guest reaches the host, as `ip link` shows it there"),
                );
            }
            Some(_) => {}
            None if self.known.options.absent_links => {}
            None => {
                let names = self.known.facts.links.keys().map(LinkName::as_str);
                let close = closest(wanted.value.as_str(), names);
                let close = close.map(|name| format!("did you mean `{name}`? "));
                let later = "One that comes counts with the next apply, and under the daemon at once";
                findings.push(
                    Diagnostic::warning(Kind::Link, at, format!("there is no link {text} now"))
                        .help(close.unwrap_or_default() + later),
                );
            }
        }
    }

    /// The links that a line's words mean: a pattern never one behind which no guests can be.
    fn meant(&self, wanted: &LinkRef) -> impl Iterator<Item = (&LinkName, &LinkFacts)> {
        let is_pattern = matches!(wanted, LinkRef::Pattern(_));
        self.known.facts.links.iter().filter(move |(name, device)| {
            wanted.means(name, &device.altnames) && (!is_pattern || self.can_be(name, device))
        })
    }

    /// Who has one link, by lines and then as `guests` says.
    fn claim(&mut self, name: &LinkName, device: &LinkFacts, findings: &mut Findings) {
        let mut addresses: Vec<(IpNet, Owner)> = Vec::new();
        for (user, claimant) in self.lines.of_link((name, device), true) {
            let written = user.line(self.known.policy).addresses.iter().flatten();
            for net in written.flat_map(|written| &written.value) {
                if !addresses.iter().any(|(other, _)| other == net) {
                    addresses.push((*net, claimant.owner.clone()));
                }
            }
        }
        let guest = device.peer_namespace;
        let mut claimants = guest.map_or_else(Vec::new, |id| self.lines.of_namespace(id));
        claimants.extend(self.lines.of_link((name, device), false).into_iter().map(|(_, it)| it));
        if let Some((first, rest)) = claimants.split_first()
            && let Some(other) = rest.iter().find(|other| other.contradicts(first))
        {
            findings.push(two_claims(name, first, other));
        }
        let by_lines = claimants.into_iter().next();
        let claimant = by_lines.or_else(|| guest.and_then(|id| self.lines.owner_of(id)));
        if claimant.is_some() || !addresses.is_empty() {
            let (owner, how) = claimant.map(|it| (it.owner, it.how)).unzip();
            self.found.insert(name.clone(), InnerLink { owner, addresses, how });
        }
    }

    /// The ports of a bridge that somebody has are his too, but for those that somebody else has:
    /// what is only bridged never comes in by the bridge itself. Where a shaped link is a port, the
    /// bridge is what arrives from the network, too, and only the other ports are his.
    fn ports(&mut self) {
        let links = &self.known.facts.links;
        let bridges: Vec<(LinkName, InnerLink)> = self
            .found
            .iter()
            .filter(|(name, _)| links.get(name).is_some_and(is_bridge))
            .map(|(name, link)| (name.clone(), link.clone()))
            .collect();
        for (bridge, link) in bridges {
            let Some(device) = links.get(&bridge) else { continue };
            let mut is_towards_the_network = false;
            for (name, port) in links.iter().filter(|(_, it)| it.master == Some(device.ifindex)) {
                is_towards_the_network |= self.shaped.contains(name);
                let claimed = self.found.get(name);
                if claimed.is_none() && self.can_be(name, port) {
                    let how = Some(How::Port(bridge.to_string()));
                    self.found.insert(name.clone(), InnerLink { how, ..link.clone() });
                }
            }
            if is_towards_the_network {
                self.found.remove(&bridge);
            }
        }
    }

    /// Warns of guests in a bridge that is shaped as the way to the network: a bridge hands on from
    /// port to port what it does not send itself.
    fn bridged(&self, findings: &mut Findings) {
        let links = &self.known.facts.links;
        let uplinks = self.shaped.iter().filter_map(|name| Some((name, links.get(name)?)));
        for (bridge, device) in uplinks.filter(|(_, it)| is_bridge(it) && it.has_default_route()) {
            let is_port = |name: &&LinkName| {
                links.get(*name).and_then(|it| it.master) == Some(device.ifindex)
            };
            let Some(guest) = self.found.keys().find(is_port) else { continue };
            let message = format!(
                "{guest} is a port of {bridge}, and what guests send through a bridge does not pass the bridge's own queue"
            );
            findings.push(
                Diagnostic::warning(Kind::Link, self.known.policy.links_at, message).help(format!(
                    "in place of {bridge} name its port that leads to the network: what the host itself sends leaves by that, too"
                )),
            );
        }
    }

    /// Lines with `addresses` and no `interfaces`: on every link behind which guests can be and
    /// that nobody has.
    fn by_address_alone(&mut self, findings: &mut Findings) {
        let lines = users(self.known.policy).filter(|(_, line)| line.interfaces.is_none());
        let mut nets: Vec<(IpNet, Owner)> = Vec::new();
        for (_, line) in lines {
            let Some(written) = &line.addresses else { continue };
            let owner = Owner::User(line.key.value.clone());
            let all = written.iter().flat_map(|written| &written.value);
            nets.extend(all.map(|net| (*net, owner.clone())));
            if let Some(first) = written.first() {
                findings.push(forgeable(first));
            }
        }
        if nets.is_empty() {
            return;
        }
        for (name, device) in &self.known.facts.links {
            if !self.can_be(name, device) || self.is_towards_the_network(device) {
                continue;
            }
            let link = self.found.entry(name.clone()).or_default();
            if link.owner.is_some() {
                continue;
            }
            // A line that names the link goes before, whatever prefix is longer.
            let narrow: Vec<IpNet> = link.addresses.iter().map(|(net, _)| *net).collect();
            let is_free = |net: &IpNet| !narrow.iter().any(|other| other.contains(net));
            link.addresses.extend(nets.iter().filter(|(net, _)| is_free(net)).cloned());
        }
        self.found.retain(|_, link| link.owner.is_some() || !link.addresses.is_empty());
    }

    /// Whether what comes in by a link may come from the network that a shaped link leads to: the
    /// link has a default route, or carries a shaped link's packets or the other way round.
    fn is_towards_the_network(&self, device: &LinkFacts) -> bool {
        let links = &self.known.facts.links;
        let mut shaped = self.shaped.iter().filter_map(|name| links.get(name));
        device.has_default_route()
            || shaped.any(|it| {
                let carries = |a: &LinkFacts, b: &LinkFacts| {
                    a.master == Some(b.ifindex) || a.lower == Some(b.ifindex)
                };
                // A guest's link is a port of a shaped bridge too, and is no hardware.
                let is_beside = is_bridge(it) && device.kind.is_some();
                carries(it, device) || (carries(device, it) && !is_beside)
            })
    }
}

fn is_bridge(device: &LinkFacts) -> bool {
    device.kind.as_deref() == Some("bridge")
}

/// Two lines claim one link by what guests, links and namespaces are called now.
fn two_claims(name: &LinkName, first: &Claimant, other: &Claimant) -> Diagnostic {
    let message = format!(
        "{name} is claimed by {} ({}) and by {} ({}): the first has it",
        quote(&first.owner.to_string()),
        first.how,
        quote(&other.owner.to_string()),
        other.how
    );
    let warning = Diagnostic::warning(Kind::Claim, other.at, message);
    let warning = match first.at {
        Some(at) => warning.also(at, "this one has it"),
        None => warning,
    };
    warning.help("a container goes before its network namespace, that before an interface, and a name before a pattern")
}

fn forgeable<T>(first: &Written<T>) -> Diagnostic {
    Diagnostic::warning(
        Kind::Claim,
        first.at,
        "whoever is behind any link of this host can send from these addresses, and would be this user",
    )
    .help("name the links as well by which these addresses come in: `interfaces: [wg0]`")
}

//! Guests in the report: whose what comes in by the links behind which they are is, as their labels
//! say, with the names that people know them by.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::report::{Guest, GuestKind as Kind, Link, Status};
use crate::facts::{Container, Facts, LinkFacts, Observation};
use crate::model::{How, InnerLink};
use crate::text::shown;
use crate::tree::{Claim, Filter, KernelState, Label, LinkName};
use crate::units::{ClassId, Minor};

/// How many guests that nobody owns are named where not all are asked for.
const FEW: usize = 5;

impl Kind {
    /// The key of a user's line that names guests so.
    fn key(self) -> &'static str {
        match self {
            Kind::Container => "containers",
            Kind::Namespace => "namespaces",
            Kind::Link => "interfaces",
            Kind::Address => "addresses",
        }
    }
}

/// All guests of the host, by the minor that their links' labels name; `None`: nobody's.
pub(super) struct Guests(BTreeMap<Option<Minor>, Vec<Guest>>);

impl Guests {
    /// `how`: how it is known whose each link is, by the policy in force.
    pub(super) fn of(seen: &Observation, how: &BTreeMap<LinkName, InnerLink>) -> Guests {
        let mut guests = Guests(BTreeMap::new());
        // A shaped link leads to the network, even if another namespace is there.
        let is_shaped = |name: &LinkName| seen.state.trees.keys().any(|port| port.link == *name);
        for (name, device) in seen.facts.links.iter().filter(|(name, _)| !is_shaped(name)) {
            let behind = Behind { facts: &seen.facts, name, device };
            let Some(label) = label(&seen.state, name) else {
                if behind.may_be_a_guest() {
                    guests.add(None, behind.guests(None));
                }
                continue;
            };
            if label.owner.is_some() || !label.by_source {
                // The policy may say something else by now.
                let is_in_force = |link: &&InnerLink| {
                    let claim = link.owner.clone().map(Claim::Owner);
                    let class = claim.and_then(|claim| seen.state.claims.get(&claim));
                    label.owner.is_some() && class.map(|class| class.minor()) == label.owner
                };
                let by = how.get(name).filter(is_in_force).and_then(|link| link.how.as_ref());
                guests.add(label.owner, behind.guests(by.map(word)));
            }
            let sources = seen.state.owners.iter().flat_map(|owners| &owners.sources);
            for (source, class) in sources.filter(|(source, _)| source.ifindex == device.ifindex) {
                let owner = Some(*class).filter(|class| *class != ClassId::NONE);
                let name = source.net.to_string();
                let guest =
                    Guest { by: owner.map(|_| "line"), ..behind.guest(Kind::Address, &name, None) };
                guests.add(owner.map(ClassId::minor), vec![guest]);
            }
        }
        guests
    }

    fn add(&mut self, owner: Option<Minor>, guests: Vec<Guest>) {
        self.0.entry(owner).or_default().extend(guests);
    }

    /// Puts them into the rows of their owners, and those of nobody into the default class's.
    pub(super) fn into_rows(self, status: &mut Status, claims: &BTreeMap<Claim, ClassId>) {
        for link in &mut status.links {
            for user in &mut link.users {
                let class = claims.get(&Claim::Owner(user.owner.clone()));
                user.guests = class.map_or_else(Vec::new, |class| self.owned_by(Some(*class)));
            }
            if let Some(default) = &mut link.default {
                default.guests = self.owned_by(None);
            }
        }
    }

    /// Those of a class; `None`: those that nobody has.
    pub(super) fn owned_by(&self, class: Option<ClassId>) -> Vec<Guest> {
        self.0.get(&class.map(ClassId::minor)).cloned().unwrap_or_default()
    }
}

/// What a link's label says; `None`: the link has none of ours.
pub fn label(state: &KernelState, link: &LinkName) -> Option<Label> {
    let filters = &state.clsact.get(link)?.ingress.filters;
    filters.values().find_map(|filter| match filter {
        Filter::Label(label) => Some(*label),
        _ => None,
    })
}

/// How it is known whose a link is, in one word.
fn word(how: &How) -> &'static str {
    match how {
        How::Container(_) | How::Namespace(_) | How::Interface | How::Port(_) => "line",
        How::Owned(_, by) => by.as_str(),
        How::Process(_) => "uid",
    }
}

/// A link, and what is behind it.
struct Behind<'a> {
    facts: &'a Facts,
    name: &'a LinkName,
    device: &'a LinkFacts,
}

impl Behind<'_> {
    /// Whether a link without a label has a guest behind it: its peer is in another network
    /// namespace, or it is a tap in a bridge.
    fn may_be_a_guest(&self) -> bool {
        let is_tap = self.device.kind.as_deref() == Some("tun") && self.device.master.is_some();
        self.device.peer_namespace.is_some() || is_tap
    }

    /// The containers that are there, else the network namespace, else the link itself.
    fn guests(&self, by: Option<&'static str>) -> Vec<Guest> {
        let guests = &self.facts.guests;
        let there = self.device.peer_namespace;
        let of = |kind, name: &str| Guest { by, ..self.guest(kind, name, None) };
        let is_there = |container: &&Container| there.is_some() && container.namespace == there;
        let containers: Vec<Guest> = guests
            .containers
            .iter()
            .filter(is_there)
            .map(|container| Guest {
                by,
                ..self.guest(Kind::Container, called(container), Some(container))
            })
            .collect();
        match (containers.is_empty(), self.namespace()) {
            (false, _) => containers,
            (true, Some(name)) => vec![of(Kind::Namespace, name)],
            (true, None) => vec![of(Kind::Link, self.name.as_str())],
        }
    }

    fn namespace(&self) -> Option<&str> {
        let there = self.device.peer_namespace?;
        let mut named = self.facts.guests.namespaces.iter();
        named.find(|(_, id)| **id == Some(there)).map(|(name, _)| name.as_str())
    }

    fn guest(&self, kind: Kind, name: &str, container: Option<&Container>) -> Guest {
        let addresses = container.into_iter().flat_map(|container| &container.addresses);
        Guest {
            kind,
            name: name.to_string(),
            link: self.name.to_string(),
            engine: container.map(|container| container.engine.to_string()),
            namespace: self.namespace().map(str::to_string),
            addresses: addresses.map(ToString::to_string).collect(),
            by: None,
        }
    }
}

/// A container's name, or so much of its id as its engine shows.
fn called(container: &Container) -> &str {
    let id = || container.id.get(..12).unwrap_or(&container.id);
    container.name.as_deref().unwrap_or_else(id)
}

/// What the table says of guests below its rows: how many each user has, or `which`.
/// `unowned`: also those that nobody has, with what to write.
pub fn guest_lines(status: &Status, which: bool, unowned: bool) -> String {
    let mut text = String::new();
    let mut told: Vec<&str> = Vec::new();
    let users = status.links.iter().flat_map(|link| &link.users);
    for user in users.filter(|user| !user.guests.is_empty()) {
        if told.contains(&user.user.as_str()) {
            continue;
        }
        told.push(&user.user);
        let (name, count) = (shown(&user.user), user.guests.len());
        let _ = match which {
            true => writeln!(text, "guests of {name}:"),
            false => writeln!(text, "{name} has {}; -v says which", counted(count)),
        };
        for guest in user.guests.iter().filter(|_| which) {
            let _ = writeln!(text, "  {}", line(guest));
        }
    }
    let default = |link: &Link| link.default.as_ref().map(|pool| pool.guests.clone());
    let nobodys = status.links.iter().find_map(default).unwrap_or_default();
    if let Some(first) = nobodys.first().filter(|_| unowned) {
        let mut names: Vec<&str> = nobodys.iter().map(|guest| guest.name.as_str()).collect();
        names.dedup();
        let count = names.len();
        let more = count.saturating_sub(FEW).min(if which { 0 } else { count });
        names.truncate(count - more);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let _ = writeln!(
            text,
            "{} that nobody owns, in (default): {}{more}; for whom a line is: `{}: [{}]`",
            counted(count),
            shown(&names.join(", ")),
            first.kind.key(),
            shown(&first.name),
        );
    }
    text
}

/// `1 guest`, `3 guests`.
fn counted(count: usize) -> String {
    format!("{count} guest{}", if count == 1 { "" } else { "s" })
}

/// `container web1 (Docker) 172.17.0.2 by veth12ab: a line of the policy`.
fn line(guest: &Guest) -> String {
    let kind = match guest.kind {
        Kind::Container => "container",
        Kind::Namespace => "network namespace",
        Kind::Link => "link",
        Kind::Address => "address",
    };
    let mut line = format!("{kind} {}", shown(&guest.name));
    if let Some(engine) = &guest.engine {
        let _ = write!(line, " ({engine})");
    }
    for address in &guest.addresses {
        let _ = write!(line, " {}", shown(address));
    }
    if guest.link != guest.name {
        let _ = write!(line, " by {}", shown(&guest.link));
    }
    match guest.by {
        Some("line") => line.push_str(": a line of the policy names it"),
        Some(by) => {
            let _ = write!(line, ": `guests` finds its owner by its {by}");
        }
        None => {}
    }
    line
}

#[cfg(test)]
mod tests {
    use super::super::tests::busy;
    use super::*;
    use crate::facts::{Engine, NamespaceId};
    use crate::policy::GuestOwner;
    use crate::tree::{Clsact, Key, Owner, OwnerTable, Pref, Side, Source};

    fn device(ifindex: u32, peer: Option<i32>) -> LinkFacts {
        LinkFacts { peer_namespace: peer.map(NamespaceId), ..LinkFacts::ethernet(ifindex) }
    }

    fn container(id: &str, name: Option<&str>, namespace: i32) -> Container {
        Container {
            engine: Engine::Docker,
            id: id.into(),
            name: name.map(str::to_string),
            labels: BTreeMap::new(),
            addresses: Vec::new(),
            namespace: Some(NamespaceId(namespace)),
            slice: None,
            uid: None,
        }
    }

    /// Labels of a container's link, a tunnel's and one that nobody has, and a link without one.
    fn seen() -> Observation {
        let mut seen = Observation::default();
        let link = |name: &str| LinkName::new(name).unwrap();
        let facts = &mut seen.facts;
        facts.links.insert(link("veth1"), device(2, Some(1)));
        facts.links.insert(link("vpn0"), device(3, None));
        facts.links.insert(link("vx1"), device(4, Some(2)));
        facts.links.insert(link("vy1"), device(5, Some(3)));
        facts.links.insert(link("up0"), device(6, Some(9)));
        seen.state.trees.insert(link("up0").egress(), crate::tree::Tree::default());
        facts.guests.containers =
            vec![container("1", Some("web"), 1), container(&"3f".repeat(32), None, 1)];
        facts.guests.namespaces = [("router".to_string(), Some(NamespaceId(2)))].into();
        for (name, owner, by_source) in
            [("veth1", Some(Minor(0x10)), false), ("vpn0", None, true), ("vx1", None, false)]
        {
            let label = Filter::Label(Label { owner, by_source, keeps: false });
            let filters = [(Pref::LABEL[0], label)].into();
            let ingress = Side { filters, ..Side::default() };
            seen.state.clsact.insert(link(name), Clsact { ingress, ..Clsact::default() });
        }
        let mut owners = OwnerTable::default();
        let source = Source { ifindex: 3, net: "10.8.0.5/32".parse().unwrap() };
        owners.sources.insert(source, ClassId::ours(Minor(0x11)));
        seen.state.owners = Some(owners);
        seen
    }

    #[test]
    fn guests_are_whose_their_links_labels_say_and_called_as_people_do() {
        let how = Some(How::Owned("web".into(), GuestOwner::Slice));
        let ann = Owner::User(Key::new("ann").unwrap());
        let link = InnerLink { owner: Some(ann.clone()), how, ..InnerLink::default() };
        let mut seen = seen();
        seen.state.claims.insert(Claim::Owner(ann), ClassId::ours(Minor(0x10)));
        let guests = Guests::of(&seen, &[(LinkName::new("veth1").unwrap(), link)].into());
        let names = |minor: Option<u16>| -> Vec<_> {
            let of = guests.owned_by(minor.map(|minor| ClassId::ours(Minor(minor))));
            of.into_iter().map(|it| (it.kind, it.name, it.link, it.by)).collect()
        };
        let guest = |kind, name: &str, link: &str, by| (kind, name.into(), link.into(), by);
        assert_eq!(
            names(Some(0x10)),
            [
                guest(Kind::Container, "web", "veth1", Some("slice")),
                guest(Kind::Container, "3f3f3f3f3f3f", "veth1", Some("slice"))
            ]
        );
        let address = guest(Kind::Address, "10.8.0.5/32", "vpn0", Some("line"));
        assert_eq!(names(Some(0x11)), [address]);
        assert_eq!(
            names(None),
            [guest(Kind::Namespace, "router", "vx1", None), guest(Kind::Link, "vy1", "vy1", None)],
            "the uplink, which leads to another namespace too, is no guest"
        );
    }

    #[test]
    fn the_table_counts_guests_and_says_what_to_write_for_those_of_nobody() {
        let guests = Guests::of(&seen(), &BTreeMap::new());
        let mut status = busy();
        let link = &mut status.links[0];
        link.users[0].guests = guests.owned_by(Some(ClassId::ours(Minor(0x10))));
        if let Some(default) = &mut link.default {
            default.guests = guests.owned_by(None);
        }
        assert_eq!(
            guest_lines(&status, false, true),
            "ann has 2 guests; -v says which\n\
             2 guests that nobody owns, in (default): router, vy1; for whom a line is: `namespaces: [router]`\n"
        );
        assert_eq!(
            guest_lines(&status, true, false),
            "guests of ann:\n  container web (Docker) by veth1\n  container 3f3f3f3f3f3f (Docker) by veth1\n"
        );
    }
}

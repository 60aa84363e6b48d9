//! Whose a guest's packets are: by the labels of its links, and by the line that says so.

use std::net::IpAddr;

use super::answer::Answer;
use super::owner::{On, answer};
use crate::facts::{Container, LinkFacts, NamespaceId, Observation};
use crate::model::InnerLink;
use crate::policy::{ContainerRef, GuestOwner, LinkRef, Policy, closest};
use crate::status;
use crate::text::{Foreign, shown};
use crate::tree::{Claim, LinkName, Owner, Source};
use crate::units::{ClassId, Minor};

/// The label by which a container says whose it is.
const USER_LABEL: &str = "shaper.user";

/// A guest that the command line means.
pub(super) struct Guest<'a> {
    what: String,
    container: Option<&'a Container>,
    namespace: Option<&'a str>,
    address: Option<IpAddr>,
    links: Vec<(&'a LinkName, &'a LinkFacts)>,
}

/// The guest of this name: a link, a container by its name or the beginning of its id, a network
/// namespace, an address.
pub(super) fn find<'a>(seen: &'a Observation, name: &'a str) -> Option<Guest<'a>> {
    let facts = &seen.facts;
    let there = |namespace: Option<NamespaceId>| -> Vec<(&LinkName, &LinkFacts)> {
        let is_there =
            |device: &LinkFacts| namespace.is_some() && device.peer_namespace == namespace;
        facts.links.iter().filter(|(_, device)| is_there(device)).collect()
    };
    let guest = |what: String, links| {
        Some(Guest { what, container: None, namespace: None, address: None, links })
    };
    let is_called = |it: &&Container| it.name.as_deref() == Some(name);
    let has_id = |it: &&Container| name.len() >= 4 && it.id.starts_with(name);
    let containers = &facts.guests.containers;
    let container = containers.iter().find(is_called).or_else(|| containers.iter().find(has_id));
    if let Some(container) = container {
        let called = container.name.as_deref().unwrap_or(&container.id);
        let what = format!("container {} of {}", shown(called), container.engine);
        let links = there(container.namespace);
        return Some(Guest { container: Some(container), ..guest(what, links)? });
    }
    if let Some((name, id)) = facts.guests.namespaces.get_key_value(name) {
        let what = format!("network namespace {}", shown(name));
        return Some(Guest { namespace: Some(name), ..guest(what, there(*id))? });
    }
    let is_named = |(link, device): &(&LinkName, &LinkFacts)| {
        link.as_str() == name || device.altnames.iter().any(|other| other == name)
    };
    let is_shaped = |link: &LinkName| seen.state.trees.keys().any(|port| port.link == *link);
    if let Some(link) = facts.links.iter().find(is_named).filter(|(link, _)| !is_shaped(link)) {
        return guest(format!("link {}", link.0), vec![link]);
    }
    let address: IpAddr = name.parse().ok()?;
    let what = format!("address {address}");
    if let Some(of) = containers.iter().find(|it| it.addresses.contains(&address)) {
        let links = there(of.namespace);
        return Some(Guest { container: Some(of), ..guest(what, links)? });
    }
    let mut sources = seen.state.owners.iter().flat_map(|owners| owners.sources.keys());
    let source: &Source = sources.find(|source| source.net.contains(&address))?;
    let links = facts.links.iter().filter(|(_, device)| device.ifindex == source.ifindex);
    Some(Guest { address: Some(address), ..guest(what, links.collect())? })
}

/// The name of a guest that is most like one that nobody has.
pub(super) fn nearest<'a>(seen: &'a Observation, name: &str) -> Option<&'a str> {
    let facts = &seen.facts;
    let links = facts.links.keys().map(LinkName::as_str);
    let containers = facts.guests.containers.iter().filter_map(|it| it.name.as_deref());
    closest(name, links.chain(containers).chain(facts.guests.namespaces.keys().map(String::as_str)))
}

/// The line of the policy that is for a guest of this name, which is not here, and its place.
pub(super) fn awaited<'p>(policy: &'p Policy, name: &str) -> Option<(&'p str, String)> {
    let address: Option<IpAddr> = name.parse().ok();
    let line = policy.users.iter().find(|line| {
        let interfaces = line.interfaces.iter().flatten().any(|link| match &link.value {
            LinkRef::Pattern(pattern) => pattern.fits(name),
            link => link.as_str() == name,
        });
        let containers = line.containers.iter().flatten().any(|it| match &it.value {
            ContainerRef::Name(is) => is == name,
            ContainerRef::Pattern(pattern) => pattern.fits(name),
            ContainerRef::Label(..) => false,
        });
        let namespaces = line.namespaces.iter().flatten().any(|it| it.value == name);
        let mut networks = line.addresses.iter().flatten().flat_map(|it| &it.value);
        let addresses = address.is_some_and(|is| networks.any(|net| net.contains(&is)));
        interfaces || containers || namespaces || addresses
    })?;
    let at = line.key.at;
    let place = format!("{}:{}:{}", policy.source.file_at(at), at.place.line, at.place.column);
    Some((line.key.value.as_str(), place))
}

/// A guest's answer; `seen` has what is known of guests.
pub(super) fn of_guest(on: &On<'_>, seen: &Observation, guest: &Guest<'_>) -> Answer {
    let model = on.meaning.model.inner.as_ref();
    let inner = guest.links.iter().find_map(|(link, _)| model?.get(*link));
    let claimed = inner.and_then(|link| meant(link, guest.address));
    let stands = label(seen, guest);
    let in_force = stands.flatten().and_then(|minor| owner_of(seen, minor));
    let mut notes = Vec::new();
    match (stands, &in_force, &claimed) {
        (_, Some(is), Some(says)) if is != says => notes.push(format!(
            "in force it is {}'s; the file says {says}: apply has not run since",
            shown(&is.to_string())
        )),
        (_, Some(is), None) => notes.push(format!(
            "in force it is {}'s; the file says nobody's: apply has not run since",
            shown(&is.to_string())
        )),
        (_, None, Some(_)) => {
            notes.push("its link has no label of that owner yet: the next apply makes it".into());
        }
        _ => {}
    }
    if let Some(how) = inner.filter(|_| claimed.is_some()).and_then(|it| it.how.as_ref()) {
        notes.push(format!("it is known by {how}"));
    }
    if claimed.is_none() {
        notes.extend(unowned(on, guest));
    }
    if guest.links.is_empty() {
        notes.push("no link of this network namespace leads to it".to_string());
    }
    let mut answer = answer(on, guest.what.clone(), in_force.or(claimed), notes);
    answer.comes_in_by = guest.comes_in_by();
    answer
}

/// The owner's number that the label of one of the guest's links gives; within: it may be nobody's.
fn label(seen: &Observation, guest: &Guest<'_>) -> Option<Option<Minor>> {
    guest.links.iter().find_map(|(link, device)| {
        let label = status::label(&seen.state, link)?;
        let by_source = || {
            let address = guest.address?;
            let sources = &seen.state.owners.as_ref()?.sources;
            let here = sources.iter().filter(|(source, _)| {
                source.ifindex == device.ifindex && source.net.contains(&address)
            });
            let (_, class) = here.max_by_key(|(source, _)| source.net.prefix_len())?;
            Some(class.minor())
        };
        let by_source = if label.by_source { by_source() } else { None };
        Some(by_source.or(label.owner))
    })
}

/// The class in the kernel in which a guest's packets are; `None`: no link leads to it, or nobody's
/// is.
pub(super) fn class(seen: &Observation, guest: &Guest<'_>) -> Option<ClassId> {
    let minor = label(seen, guest)??;
    let owners = seen.state.claims.iter().filter(|(it, _)| matches!(it, Claim::Owner(_)));
    owners.filter_map(|(_, id)| id.our_class()).find(|id| id.minor() == minor)
}

impl Guest<'_> {
    /// The links by which its packets come in.
    pub(super) fn comes_in_by(&self) -> Vec<String> {
        self.links.iter().map(|(link, _)| link.to_string()).collect()
    }

    /// What it is, in a sentence.
    pub(super) fn what(&self) -> &str {
        &self.what
    }
}

/// Whose what comes in by the link is, from this address.
fn meant(link: &InnerLink, address: Option<IpAddr>) -> Option<Owner> {
    let holding = |address: IpAddr| {
        let nets = link.addresses.iter().filter(|(net, _)| net.contains(&address));
        nets.max_by_key(|(net, _)| net.prefix_len()).map(|(_, owner)| owner.clone())
    };
    address.and_then(holding).or_else(|| link.owner.clone())
}

fn owner_of(seen: &Observation, minor: Minor) -> Option<Owner> {
    let mut claims = seen.state.claims.iter();
    claims.find_map(|(claim, class)| match claim {
        Claim::Owner(owner) if ClassId::minor(*class) == minor => Some(owner.clone()),
        _ => None,
    })
}

/// Why a guest is nobody's, and what to write.
fn unowned(on: &On<'_>, guest: &Guest<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    let by = |by: GuestOwner, container: &Container| match by {
        GuestOwner::Label => match container.labels.get(USER_LABEL) {
            None => format!("it has no label {USER_LABEL}"),
            Some(user) => {
                format!("its label {USER_LABEL} is {}, whom nobody claims", shown(user))
            }
        },
        GuestOwner::Slice => match container.slice {
            None => "it is in no user's slice".to_string(),
            Some(uid) => format!("it is in the slice of uid {uid}, whom nobody claims"),
        },
        GuestOwner::Uid => match container.uid {
            None => "the uid of its first process is not known".to_string(),
            Some(uid) => {
                format!("its first process has uid {uid}, of nobody's subordinate uids")
            }
        },
    };
    if let Some(container) = guest.container {
        let reasons: Vec<String> =
            on.policy.guests.iter().map(|it| by(it.value, container)).collect();
        if !reasons.is_empty() {
            notes.push(format!("`guests` finds no owner: {}", reasons.join("; ")));
        }
    }
    let link = guest.links.first().map(|(link, _)| link.as_str());
    let (key, name) = match (guest.address, guest.container, guest.namespace) {
        (Some(address), ..) => ("addresses", Some(address.to_string())),
        (None, Some(it), _) => ("containers", it.name.clone().or_else(|| link.map(str::to_string))),
        (None, None, Some(name)) => ("namespaces", Some(name.to_string())),
        (None, None, None) => ("interfaces", link.map(str::to_string)),
    };
    if let Some(name) = name {
        let name = Foreign::from(name.as_str());
        notes.push(format!("whose it is says a line of `users`: `{key}: [{name}]`"));
    }
    notes
}

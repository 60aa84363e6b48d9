//! Which lines name which guests, and whose a guest is that no line names. Touches nothing.

use std::collections::HashMap;
use std::hash::Hash;

use ipnet::IpNet;

use crate::facts::{Accounts, Container, Guests, LinkFacts, NamespaceId};
use crate::policy::{
    ContainerRef, Diagnostic, Findings, GuestOwner, Kind, LinkRef, Pattern, Policy, Span, Written,
    quote,
};
use crate::tree::{Key, LinkName, Owner};

use super::How;
use super::positions::{UserAt, users};
use super::senders::Senders;
use super::twice::user_name;

/// The label by which a container says whose it is.
const USER_LABEL: &str = "shaper.user";

/// The first uid of people (`UID_MIN`, login.defs(5)).
const FIRST_PERSON: u32 = 1_000;

/// Somebody who has all that comes in from a guest or by a link, and how that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claimant {
    pub owner: Owner,
    pub how: How,
    /// Where a line says so.
    pub at: Option<Span>,
}

impl Claimant {
    /// Whether another user has it by another word. That a name goes before a pattern of links is
    /// as everywhere.
    pub(super) fn contradicts(&self, first: &Claimant) -> bool {
        self.owner != first.owner && (&self.how, &first.how) != (&How::Interface, &How::Interface)
    }
}

/// Where a line names something.
type Naming = (UserAt, Span);

/// What lines name, to be found by a guest's or a link's name: a host may have thousands of both.
pub(super) struct Lines<'a> {
    known: &'a Senders<'a>,
    containers: HashMap<&'a ContainerRef, Naming>,
    namespaces: HashMap<&'a str, Naming>,
    /// Of lines without `addresses`, and of those with.
    interfaces: [Interfaces<'a>; 2],
    /// The containers and the names of each namespace.
    guests: HashMap<NamespaceId, (Vec<&'a Container>, Vec<&'a str>)>,
}

/// Links that lines name, in file order.
#[derive(Default)]
struct Interfaces<'a> {
    named: HashMap<&'a str, Vec<Naming>>,
    patterns: Vec<(&'a Pattern, Naming)>,
}

impl<'a> Lines<'a> {
    /// The lines of a policy, with errors where two of them claim the same.
    pub(super) fn new(known: &'a Senders<'a>, findings: &mut Findings) -> Lines<'a> {
        distinct(known.policy, findings);
        let mut lines = Lines {
            known,
            containers: HashMap::new(),
            namespaces: HashMap::new(),
            interfaces: Default::default(),
            guests: HashMap::new(),
        };
        for (user, line) in users(known.policy) {
            for Written { value, at } in line.containers.iter().flatten() {
                lines.containers.entry(value).or_insert((user, *at));
            }
            for Written { value, at } in line.namespaces.iter().flatten() {
                lines.namespaces.entry(value).or_insert((user, *at));
            }
            let interfaces = &mut lines.interfaces[usize::from(line.addresses.is_some())];
            for Written { value, at } in line.interfaces.iter().flatten() {
                match value {
                    LinkRef::Pattern(pattern) => interfaces.patterns.push((pattern, (user, *at))),
                    value => interfaces.named.entry(value.as_str()).or_default().push((user, *at)),
                }
            }
        }
        let guests = &known.facts.guests;
        for container in &guests.containers {
            let Some(id) = container.namespace else { continue };
            lines.guests.entry(id).or_default().0.push(container);
        }
        for (name, id) in &guests.namespaces {
            let Some(id) = id else { continue };
            lines.guests.entry(*id).or_default().1.push(name);
        }
        lines
    }

    /// Who has a namespace, by its containers and then by its name; the first decides.
    pub(super) fn of_namespace(&self, id: NamespaceId) -> Vec<Claimant> {
        let Some((containers, names)) = self.guests.get(&id) else { return Vec::new() };
        let named = names.iter().filter_map(|name| {
            let naming = self.namespaces.get(name)?;
            Some(self.claimant(*naming, How::Namespace((*name).to_string())))
        });
        containers.iter().filter_map(|container| self.container(container)).chain(named).collect()
    }

    /// Who has a guest that no line names, as `guests` says.
    pub(super) fn owner_of(&self, id: NamespaceId) -> Option<Claimant> {
        let Senders { policy, facts, .. } = self.known;
        let uid_owner = |uid| Some(self.known.matcher.claim(uid, None, &facts.accounts)?.owner());
        let mut containers =
            self.guests.get(&id).into_iter().flat_map(|(containers, _)| containers);
        let of_container = containers.find_map(|container| {
            let (user, by) = user_of(container, policy, &facts.accounts)?;
            let owner = match user {
                User::Line(key) => Owner::User(key),
                User::Uid(uid) => uid_owner(uid)?,
            };
            let how = How::Owned(name_of(container).to_string(), by);
            Some(Claimant { owner, how, at: None })
        });
        of_container.or_else(|| {
            let uid = user_in(id, policy, &facts.guests, &facts.accounts)?;
            Some(Claimant { owner: uid_owner(uid)?, how: How::Process(uid), at: None })
        })
    }

    /// The line that names a container: by its name, then by a label, then by a pattern.
    fn container(&self, container: &Container) -> Option<Claimant> {
        let first = |wanted: ContainerRef| self.containers.get(&wanted).copied();
        let name = container.name.as_deref();
        let named = name.and_then(|name| first(ContainerRef::Name(name.to_string())));
        let labelled = || {
            let labels = container.labels.iter();
            let labels = labels.map(|(key, value)| ContainerRef::Label(key.clone(), value.clone()));
            labels.filter_map(first).min_by_key(|(_, at)| *at)
        };
        let fitting = || {
            let all = self.containers.iter().filter_map(|(wanted, naming)| match wanted {
                ContainerRef::Pattern(pattern) => pattern.fits(name?).then_some(*naming),
                _ => None,
            });
            all.min_by_key(|(_, at)| *at)
        };
        let naming = named.or_else(labelled).or_else(fitting)?;
        Some(self.claimant(naming, How::Container(name_of(container).to_string())))
    }

    /// Who has a link: lines that name it before lines with a pattern. `narrowed`: those with
    /// `addresses`, else those without.
    pub(super) fn of_link(
        &self,
        (name, device): (&LinkName, &LinkFacts),
        narrowed: bool,
    ) -> Vec<(UserAt, Claimant)> {
        let Interfaces { named, patterns } = &self.interfaces[usize::from(narrowed)];
        let names = || {
            let others = device.altnames.iter().map(String::as_str);
            std::iter::once(name.as_str()).chain(others)
        };
        let exact = names().filter_map(|name| named.get(name)).flatten().copied();
        let fitting = patterns.iter().filter(|(pattern, _)| names().any(|name| pattern.fits(name)));
        let all = exact.chain(fitting.map(|(_, naming)| *naming));
        all.map(|naming| (naming.0, self.claimant(naming, How::Interface))).collect()
    }

    fn claimant(&self, (user, at): Naming, how: How) -> Claimant {
        let owner = Owner::User(user.line(self.known.policy).key.value.clone());
        Claimant { owner, how, at: Some(at) }
    }
}

/// A container's name, or where its engine could not be asked, its id.
fn name_of(container: &Container) -> &str {
    container.name.as_deref().unwrap_or(&container.id)
}

/// A guest's user, as `guests` finds him.
enum User {
    /// A line of `users`.
    Line(Key),
    Uid(u32),
}

/// The user of a container that no line names: the first that is found.
fn user_of(
    container: &Container,
    policy: &Policy,
    accounts: &Accounts,
) -> Option<(User, GuestOwner)> {
    policy.guests.iter().find_map(|by| {
        let user = match by.value {
            GuestOwner::Label => labelled(container.labels.get(USER_LABEL)?, policy, accounts),
            GuestOwner::Slice => container.slice.map(User::Uid),
            GuestOwner::Uid => {
                // Whoever may start containers can run them as any uid, but only a range of
                // subordinate uids says whose they are.
                let is_subordinate = |uid: &u32| accounts.subuids.holding(*uid).is_some();
                container.uid.filter(is_subordinate).map(User::Uid)
            }
        };
        Some((user?, by.value))
    })
}

/// The user of a namespace without a container, by the processes in it.
fn user_in(id: NamespaceId, policy: &Policy, guests: &Guests, accounts: &Accounts) -> Option<u32> {
    let is_asked = policy.guests.iter().any(|by| by.value == GuestOwner::Uid);
    let uid = *guests.users.get(&id).filter(|_| is_asked)?;
    (uid >= FIRST_PERSON || accounts.subuids.holding(uid).is_some()).then_some(uid)
}

/// The user that a label names: a line, an account, a uid.
fn labelled(text: &str, policy: &Policy, accounts: &Accounts) -> Option<User> {
    let mut lines = policy.users.iter().map(|line| &line.key.value);
    if let Some(key) = lines.find(|key| key.as_str() == text) {
        return Some(User::Line(key.clone()));
    }
    let named = || accounts.by_uid.iter().find(|(_, account)| account.name == text);
    let by_name = accounts.by_name.get(text).copied().flatten();
    let uid = by_name.or_else(|| named().map(|(uid, _)| *uid)).or_else(|| text.parse().ok());
    uid.map(User::Uid)
}

/// A longer word is no account's name (`LOGIN_NAME_MAX`, limits.h); anybody writes labels.
const LONGEST_NAME: usize = 256;

/// What a label says where that can only be an account's name.
fn account_of<'a>(container: &'a Container, policy: &Policy) -> Option<&'a str> {
    let text = container.labels.get(USER_LABEL)?.as_str();
    let is_line = || policy.users.iter().any(|line| line.key.value.as_str() == text);
    (text.parse::<u32>().is_err() && !is_line()).then_some(text)
}

/// The names that containers' labels say, about which NSS is to be asked.
pub fn named_by_guests<'a>(
    policy: &'a Policy,
    guests: &'a Guests,
) -> impl Iterator<Item = &'a str> {
    let is_asked = policy.guests.iter().any(|by| by.value == GuestOwner::Label);
    let here = guests.containers.iter().filter(move |it| is_asked && it.namespace.is_some());
    let names = here.filter_map(|container| account_of(container, policy));
    names.filter(|name| {
        (1..=LONGEST_NAME).contains(&name.len()) && !name.contains(['\0', '\n', ':'])
    })
}

/// Warnings about labels that name nobody.
pub(super) fn unknown_labels(
    policy: &Policy,
    guests: &Guests,
    accounts: &Accounts,
    findings: &mut Findings,
) {
    let Some(by) = policy.guests.iter().find(|by| by.value == GuestOwner::Label) else { return };
    for container in guests.containers.iter().filter(|it| it.namespace.is_some()) {
        let Some(text) = account_of(container, policy) else { continue };
        let can_be_asked = named_by_guests(policy, guests).any(|name| name == text);
        let is_unknown = accounts.by_name.get(text).map_or(!can_be_asked, Option::is_none);
        if is_unknown && labelled(text, policy, accounts).is_none() {
            let message = format!(
                "the container {} has the label {USER_LABEL}={}, and there is no such account or line",
                quote(name_of(container)),
                quote(text)
            );
            findings.push(Diagnostic::warning(Kind::Claim, by.at, message).help(
                "its user is looked for as if it had no label; name it in `containers` of a line, or start it with another label",
            ));
        }
    }
}

/// The accounts that have a guest, as `guests` finds them, whether or not they run a process.
pub fn guests_of_accounts<'a>(
    policy: &'a Policy,
    guests: &'a Guests,
    accounts: &'a Accounts,
) -> impl Iterator<Item = u32> + 'a {
    let here = guests.containers.iter().filter(|container| container.namespace.is_some());
    let of_containers = here.filter_map(|container| match user_of(container, policy, accounts)? {
        (User::Uid(uid), _) => Some(uid),
        (User::Line(_), _) => None,
    });
    let others = guests.users.keys().filter_map(|id| user_in(*id, policy, guests, accounts));
    of_containers.chain(others)
}

/// What a line names, where no second line may name the same.
struct Named<'p, T> {
    what: &'static str,
    seen: HashMap<T, (UserAt, Span)>,
    policy: &'p Policy,
}

impl<'p, T: Hash + Eq> Named<'p, T> {
    fn new(what: &'static str, policy: &'p Policy) -> Named<'p, T> {
        Named { what, seen: HashMap::new(), policy }
    }

    /// An error where another line has it.
    fn add(&mut self, key: T, text: &str, (user, at): (UserAt, Span), findings: &mut Findings) {
        let (other, first) = *self.seen.entry(key).or_insert((user, at));
        if other == user {
            return;
        }
        let (one, two) = (user_name(self.policy, other), user_name(self.policy, user));
        let message = format!("{} {} is claimed by {one} and by {two}", self.what, quote(text));
        findings.push(
            Diagnostic::error(Kind::Claim, at, message)
                .label(format!("for {two}"))
                .also(first, format!("for {one}"))
                .help("what comes in there can be in one class only: remove it from one of the two lines"),
        );
    }
}

/// Errors for two lines that claim the same guest.
fn distinct(policy: &Policy, findings: &mut Findings) {
    let mut containers = Named::new("the container", policy);
    let mut namespaces = Named::new("the network namespace", policy);
    let mut interfaces = Named::new("the interface", policy);
    let mut addresses = Named::new("the address", policy);
    let mut narrow = Named::new("the address", policy);
    for (user, line) in users(policy) {
        for Written { value, at } in line.containers.iter().flatten() {
            containers.add(value, &words(value), (user, *at), findings);
        }
        for Written { value, at } in line.namespaces.iter().flatten() {
            namespaces.add(value, value, (user, *at), findings);
        }
        let nets: Vec<(IpNet, Span)> = line
            .addresses
            .iter()
            .flatten()
            .flat_map(|written| written.value.iter().map(|net| (*net, written.at)))
            .collect();
        match &line.interfaces {
            None => {
                for (net, at) in nets {
                    addresses.add(net, &net.to_string(), (user, at), findings);
                }
            }
            Some(list) => {
                for Written { value, at } in list {
                    if line.addresses.is_none() {
                        interfaces.add(value, value.as_str(), (user, *at), findings);
                    }
                    for (net, at) in &nets {
                        narrow.add((value, *net), &net.to_string(), (user, *at), findings);
                    }
                }
            }
        }
    }
}

/// As the file has it.
fn words(container: &ContainerRef) -> String {
    match container {
        ContainerRef::Name(name) => name.clone(),
        ContainerRef::Pattern(pattern) => pattern.as_str().to_string(),
        ContainerRef::Label(key, value) => format!("label:{key}={value}"),
    }
}

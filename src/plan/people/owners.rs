//! Users, classes, groups and accounts: whose limits come, change and go.

use std::collections::{BTreeMap, BTreeSet};

use super::change::Change;
use super::held::{Held, difference};
use super::links::{NAMED, Ports, directions};
use crate::facts::Accounts;
use crate::model::{Claimed, Matcher};
use crate::text::shown;
use crate::tree::{Claim, Group, KernelState, Key, LinkName, Owner, Port};
use crate::units::ClassId;

/// The owners of a state, each with its class.
fn owners(state: &KernelState) -> BTreeMap<&Owner, ClassId> {
    let mut owners = BTreeMap::new();
    for (claim, id) in &state.claims {
        if let (Claim::Owner(owner), Some(id)) = (claim, id.our_class()) {
            owners.insert(owner, id);
        }
    }
    owners
}

/// Groups come first and accounts last, as in status.
pub(super) fn changes(
    ports: &Ports<'_>,
    matcher: Option<&Matcher>,
    accounts: &Accounts,
) -> Vec<Change> {
    let (before, after) = (owners(ports.before), owners(ports.after));
    let by_then = matcher.map(|matcher| ByThen::of(ports, matcher, accounts, &after));
    let all: BTreeSet<&Owner> = before.keys().chain(after.keys()).copied().collect();
    let mut groups = Vec::new();
    let mut people = Vec::new();
    // By what changes, and whether they are in the group before and afterwards.
    let mut alike: BTreeMap<(char, Option<Group>, String, bool), Vec<String>> = BTreeMap::new();
    let mut staying: BTreeMap<Option<Group>, usize> = BTreeMap::new();
    for owner in all {
        let ids = [before.get(owner).copied(), after.get(owner).copied()];
        let is_account = matches!(owner, Owner::Uid(_) | Owner::Subuids(_));
        let stays = stays_in(ports, ids);
        let has_stayed = stays.is_some();
        if is_account && let Some(group) = stays {
            *staying.entry(group).or_default() += 1;
        }
        let Some((sign, what)) = change(ports, owner, ids) else { continue };
        let said = |kind, who: String, what| Change { sign, kind, who, count: 1, what };
        match owner {
            Owner::Uid(_) | Owner::Subuids(_) => {
                let group = group_of(ports, ids);
                alike
                    .entry((sign, group, what, has_stayed))
                    .or_default()
                    .push(name(owner, accounts));
            }
            Owner::Group(_) => groups.push(said("group", owner.to_string(), what)),
            Owner::Newcomers => {
                let what = if what.is_empty() { what } else { each(&what) };
                people.push(said("everyone", "everyone".to_string(), what));
            }
            Owner::Class(_) => people.push(said("class", owner.to_string(), what)),
            Owner::User(key) if sign == '-' => {
                let now = by_then.as_ref().and_then(|it| it.claims(key.as_str(), ids[0]));
                let what = now.map(|now| format!("now {now}")).unwrap_or_default();
                people.push(said("user", owner.to_string(), what));
            }
            Owner::User(_) => people.push(said("user", owner.to_string(), what)),
        }
    }
    let mut accounts = Vec::new();
    for ((sign, group, what, has_stayed), names) in alike {
        let is_each = has_stayed && sign == '~' && staying.get(&group) == Some(&names.len());
        let everyone = people.iter_mut().find(|it| it.kind == "everyone" && it.sign == '~');
        match everyone.filter(|it| is_each && is_of_everyone(&group) && it.what == each(&what)) {
            Some(everyone) => everyone.count = names.len(),
            None => accounts.push(said_of_accounts((sign, group, what), &names, is_each)),
        }
    }
    groups.into_iter().chain(people).chain(accounts).collect()
}

fn is_of_everyone(group: &Option<Group>) -> bool {
    matches!(group, None | Some(Group::Everyone))
}

/// The limits of an account, said of all of them.
fn each(what: &str) -> String {
    format!("{what} each")
}

/// Of accounts with the same change; `is_each`: all that are in the group have it, so it is its
/// `each` that changes.
fn said_of_accounts(
    (sign, group, what): (char, Option<Group>, String),
    names: &[String],
    is_each: bool,
) -> Change {
    let group = match &group {
        None | Some(Group::Everyone) => "everyone".to_string(),
        Some(Group::Line(key)) => format!("group {key}"),
    };
    let count = names.len();
    let named = names.join(", ");
    let who = match (count, is_each && group != "everyone") {
        (0..=NAMED, true) => format!("everyone in {group} ({named})"),
        (more, true) => format!("everyone in {group} ({more} accounts)"),
        (0..=NAMED, false) => format!("{named} of {group}"),
        (more, false) => format!("{more} accounts of {group}"),
    };
    Change { sign, kind: "account", who, count, what }
}

/// The group in which an owner with these classes is before and afterwards; `None`: he comes, goes
/// or moves.
fn stays_in(ports: &Ports<'_>, ids: [Option<ClassId>; 2]) -> Option<Option<Group>> {
    let held = ports.all.iter().map(|port| ports.held(port, ids));
    let mut both = held.filter_map(|[from, to]| from.zip(to));
    let (from, to) = both.next()?;
    let stays = |from: &Held, to: &Held| from.group == to.group;
    (stays(&from, &to) && both.all(|(from, to)| stays(&from, &to))).then_some(to.group)
}

/// As status names it, by the account's name.
fn name(owner: &Owner, accounts: &Accounts) -> String {
    match owner {
        Owner::Uid(uid) => match accounts.by_uid.get(uid) {
            Some(account) => shown(&account.name).to_string(),
            None => owner.to_string(),
        },
        _ => owner.to_string(),
    }
}

fn group_of(ports: &Ports<'_>, ids: [Option<ClassId>; 2]) -> Option<Group> {
    let held = ports.all.iter().map(|port| ports.held(port, ids));
    held.flat_map(|[from, to]| [to, from]).flatten().find_map(|held| held.group)
}

/// What becomes of an owner's limits; `None`: nothing, or what becomes of the link.
fn change(ports: &Ports<'_>, owner: &Owner, ids: [Option<ClassId>; 2]) -> Option<(char, String)> {
    let held: Vec<[Option<Held>; 2]> = ports.all.iter().map(|port| ports.held(port, ids)).collect();
    let had = held.iter().any(|[from, _]| from.is_some());
    let has = held.iter().any(|[_, to]| to.is_some());
    let sign = match (had, has) {
        (false, false) => return None,
        (false, true) => '+',
        (true, false) => '-',
        (true, true) => '~',
    };
    let is_group = matches!(owner, Owner::Group(_));
    let mut links: BTreeMap<&LinkName, Vec<(&Port, String)>> = BTreeMap::new();
    let mut has_any = false;
    for (port, held) in ports.all.iter().zip(held) {
        has_any |= ports.lasts(port) && held.iter().any(Option::is_some);
        let words = match held {
            [None, Some(to)] if sign == '+' || has_a_cap(ports, port, &to) => added(&to, owner),
            [Some(_), None] if ports.lasts(port) && sign == '~' => "no longer".to_string(),
            [Some(from), Some(to)] => difference(&from, &to, is_group),
            _ => String::new(),
        };
        links.entry(&port.link).or_default().push((port, words));
    }
    if sign == '-' {
        return has_any.then(|| (sign, String::new()));
    }
    let words = links.into_iter().map(|(link, ports)| {
        (link, directions(ports.into_iter().map(|(port, words)| (port.direction, words))))
    });
    let words: Vec<(&LinkName, String)> = words.collect();
    let said: Vec<&(&LinkName, String)> =
        words.iter().filter(|(_, words)| !words.is_empty()).collect();
    let what = match &said[..] {
        [] => String::new(),
        [(_, first), rest @ ..]
            if said.len() == words.len() && rest.iter().all(|(_, it)| it == first) =>
        {
            first.clone()
        }
        _ => said
            .iter()
            .map(|(link, words)| format!("{words} on {link}"))
            .collect::<Vec<_>>()
            .join("; "),
    };
    (sign == '+' || !what.is_empty()).then_some((sign, what))
}

fn added(to: &Held, owner: &Owner) -> String {
    match (owner, to.rate, &to.group) {
        (Owner::Group(_), None, None) => format!("ceil {}", to.words()),
        (Owner::Group(_), None, Some(group)) => format!("ceil {} in group {group}", to.words()),
        // Which group it is has been said.
        (Owner::Uid(_) | Owner::Subuids(_), ..) | (.., None) => to.words(),
        (.., Some(group)) => format!("{} in group {group}", to.words()),
    }
}

/// Whether a class has less than its link.
fn has_a_cap(ports: &Ports<'_>, port: &Port, held: &Held) -> bool {
    let link = ports.held(port, [None, Some(ClassId::LINK)]);
    let [_, Some(link)] = link else { return true };
    held.ceil < link.ceil
}

/// Who claims whom afterwards, and with which class.
struct ByThen<'a> {
    ports: &'a Ports<'a>,
    matcher: &'a Matcher,
    accounts: &'a Accounts,
    owners: &'a BTreeMap<&'a Owner, ClassId>,
    /// Of each `gid` group the class of one of its accounts: all of them have the same limits.
    of_groups: BTreeMap<Key, ClassId>,
}

impl<'a> ByThen<'a> {
    fn of(
        ports: &'a Ports<'a>,
        matcher: &'a Matcher,
        accounts: &'a Accounts,
        owners: &'a BTreeMap<&'a Owner, ClassId>,
    ) -> ByThen<'a> {
        let mut by_then = ByThen { ports, matcher, accounts, owners, of_groups: BTreeMap::new() };
        let accounts = owners.iter().filter(|(owner, _)| matches!(owner, Owner::Uid(_)));
        for (_, id) in accounts {
            let group = by_then.held(*id).and_then(|held| held.group);
            if let Some(Group::Line(group)) = group {
                by_then.of_groups.entry(group).or_insert(*id);
            }
        }
        by_then
    }

    /// What the class has at the first port where it stands.
    fn held(&self, id: ClassId) -> Option<Held> {
        self.ports.all.iter().find_map(|port| self.ports.held(port, [None, Some(id)])[1].clone())
    }

    /// In whose class a user's accounts are who has no line any more, by the class that they were
    /// in: `everyone, 50mbit`; `None`: they are not known, or not in which Unix groups they are, or
    /// they are in several classes.
    fn claims(&self, key: &str, class: Option<ClassId>) -> Option<String> {
        let (matcher, accounts) = (self.matcher, self.accounts);
        let table = self.ports.before.owners.as_ref().map(|table| &table.accounts);
        let in_his_class = table.into_iter().flatten().filter(|(_, id)| Some(**id) == class);
        let by_name = accounts.by_uid.iter().filter(|(_, account)| account.name == key);
        let uids: BTreeSet<u32> =
            in_his_class.map(|(uid, _)| *uid).chain(by_name.map(|(uid, _)| *uid)).collect();
        // NSS is asked about accounts that run or that lines name.
        let by_nss = |uid| !matcher.groups.is_empty() || accounts.subuids.holding(uid).is_some();
        if uids.iter().any(|uid| by_nss(*uid) && matcher.is_open(*uid, None, accounts)) {
            return None;
        }
        let mut claims = uids.iter().map(|uid| matcher.claim(*uid, None, accounts));
        let claimed = claims.next()?;
        if claims.any(|other| other != claimed) {
            return None;
        }
        let Some(claimed) = claimed else { return Some("in default".to_string()) };
        let owner = claimed.owner();
        let own = self.owners.get(&owner).copied();
        let (name, id) = match claimed {
            Claimed::User(key) => (key.to_string(), own),
            Claimed::Account { group: Some(Group::Line(group)), .. }
            | Claimed::Subuids { group: Some(Group::Line(group)), .. } => {
                let like_others = || self.of_groups.get(&group).copied();
                (format!("group {group}"), own.or_else(like_others))
            }
            Claimed::Account { .. } | Claimed::Subuids { .. } => {
                let newcomers = || self.owners.get(&Owner::Newcomers).copied();
                ("everyone".to_string(), own.or_else(newcomers))
            }
        };
        Some(match id.and_then(|id| self.held(id)) {
            Some(held) => format!("{name}, {}", held.words()),
            None => name,
        })
    }
}

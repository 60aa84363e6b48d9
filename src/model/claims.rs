//! Which line claims a process: the accounts, uids and units of every line, resolved and without
//! overlap. Touches nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::RangeInclusive;

use crate::facts::{Accounts, Facts};
use crate::policy::{
    Diagnostic, Findings, Gid, Kind, LAST_UID, Policy, Span, UserLine, Written, printable, quote,
};
use crate::tree::{Key, UidRange};

use super::Matcher;
use super::options::BuildOptions;
use super::positions::{GroupAt, Per, UserAt, users};
use super::twice::{twice, user_name};
use super::units;

/// Uids that no person has: systemd's dynamic users, and `nobody` (systemd's `docs/UIDS-GIDS.md`).
const NOBODYS: RangeInclusive<u32> = 61_184..=65_534;

/// The first uid of people (`UID_MIN`, login.defs(5)).
const FIRST_PERSON: u32 = 1_000;

pub(super) struct Claims {
    pub matcher: Matcher,
    /// For each line of `users`, the uids that it names one by one.
    pub uids: Per<UserAt, Vec<u32>>,
    /// For each line of `groups`, its gid.
    pub gids: Per<GroupAt, Option<u32>>,
}

/// A range of uids that one line claims, and where the line says so.
#[derive(Clone, Copy)]
struct Claim {
    first: u32,
    last: u32,
    user: UserAt,
    at: Span,
}

pub(super) fn resolve(
    policy: &Policy,
    facts: &Facts,
    options: BuildOptions,
    findings: &mut Findings,
) -> Claims {
    let mut unavailable_said = false;
    let mut lookup =
        Lookup { accounts: &facts.accounts, options, unavailable_said: &mut unavailable_said };
    let names = named(policy, &mut lookup, findings);
    let numbers = numbered(policy, findings);
    let mut uids = Per::user(policy, |_, _| Vec::new());
    for claim in names.iter().chain(&numbers).filter(|claim| claim.first == claim.last) {
        uids[claim.user].push(claim.first);
    }
    let gids = gids(policy, &mut lookup, findings);
    let gids_there = gids.pairs().filter_map(|(group, gid)| Some(((*gid)?, group.line(policy))));
    let matcher = Matcher {
        units: units::resolve(policy, facts.units.as_ref(), findings),
        uids: ranges(policy, names, numbers, findings),
        groups: gids_there.map(|(gid, line)| (gid, line.key.value.clone())).collect(),
        everyone: policy.everyone.as_ref().map(|line| {
            let written = line.uids.as_ref();
            let ranges =
                written.map_or_else(people, |list| list.iter().map(|r| r.value.clone()).collect());
            (ranges, line.group())
        }),
        proxied: BTreeMap::new(),
    };
    within_subuids(&matcher, &facts.accounts, findings);
    Claims { matcher, uids, gids }
}

/// Warns of accounts whose uids are also subordinate uids of somebody else, who may run processes
/// as them. One warning for each range, which stays the same whoever logs in.
fn within_subuids(matcher: &Matcher, accounts: &Accounts, findings: &mut Findings) {
    let mut said: BTreeSet<(UidRange, &str)> = BTreeSet::new();
    for (uid, account) in &accounts.by_uid {
        let Some(subuids) = accounts.subuids.holding(*uid) else { continue };
        let owner = subuids.owner.and_then(|owner| matcher.claim(owner, None, accounts));
        let matters = owner.is_some() || matcher.claim(*uid, None, accounts).is_some();
        let his_own = *uid == 0 || subuids.owner == Some(*uid);
        if his_own || !matters || !said.insert((subuids.range, &subuids.written)) {
            continue;
        }
        let (range, written) = (subuids.range, quote(&subuids.written));
        findings.push(
            Diagnostic::warning(
                Kind::Account,
                None,
                format!("accounts have uids among the subordinate ones of {written} (/etc/subuid: {range}): whoever may use these, in containers too, can act as those accounts"),
            )
            .help(format!("for example {} (uid {uid}); give {written} a range that no account is in", quote(&account.name))),
        );
    }
}

/// Which kind of name NSS is asked about.
#[derive(Clone, Copy)]
enum Sort {
    Account,
    UnixGroup,
}

impl Sort {
    fn word(self) -> &'static str {
        match self {
            Sort::Account => "account",
            Sort::UnixGroup => "Unix group",
        }
    }
}

/// Looks names up in what NSS has answered, and words what is missing there.
struct Lookup<'a> {
    accounts: &'a Accounts,
    options: BuildOptions,
    /// Whether it was said already that NSS could not answer: once is enough.
    unavailable_said: &'a mut bool,
}

impl Lookup<'_> {
    /// Whether NSS knows that there is no such name.
    fn lacks(&self, sort: Sort, name: &str) -> bool {
        self.table(sort).get(name).is_some_and(Option::is_none)
    }

    fn table(&self, sort: Sort) -> &BTreeMap<String, Option<u32>> {
        match sort {
            Sort::Account => &self.accounts.by_name,
            Sort::UnixGroup => &self.accounts.groups,
        }
    }

    /// The uid or gid of a name; otherwise a finding, with `help` where there is no such name.
    fn find(
        &mut self,
        sort: Sort,
        name: Written<&str>,
        help: impl FnOnce() -> String,
        findings: &mut Findings,
    ) -> Option<u32> {
        let table = self.table(sort);
        let (what, Written { value: name, at }) = (sort.word(), name);
        if let Some(Some(id)) = table.get(name) {
            return Some(*id);
        }
        if self.options.offline {
            return None;
        }
        let new = if self.options.skip_unknown { Diagnostic::warning } else { Diagnostic::error };
        let new = |message: String| new(Kind::Account, Some(at), message);
        match &self.accounts.unavailable {
            Some(_) if *self.unavailable_said => {}
            Some(why) => {
                *self.unavailable_said = true;
                findings.push(
                    new(format!("the {what} {} could not be looked up: {}", quote(name), printable(why, 200)))
                        .help(if self.options.skip_unknown {
 "this is not \"no such account\": what could not be looked up goes on as before"
} else {
 "this is not \"no such account\": see whether `getent passwd` answers, or use --skip-unknown to go on without it"
}),
                );
            }
            None => findings.push(new(format!("there is no {what} {}", quote(name))).help(help())),
        }
        None
    }
}

/// The accounts that lines name, with their uids.
fn named(policy: &Policy, lookup: &mut Lookup<'_>, findings: &mut Findings) -> Vec<Claim> {
    let mut claims = Vec::new();
    let mut seen: HashMap<&str, (UserAt, Span)> = HashMap::new();
    for (user, line) in users(policy) {
        let key = line.names_account().then(|| (line.key.value.as_str(), line.key.at));
        let accounts = line.accounts.iter().flatten().map(|name| (name.value.as_str(), name.at));
        for (name, at) in key.into_iter().chain(accounts) {
            match seen.get(name) {
                Some((other, _)) if *other == user => continue,
                Some((other, first)) => {
                    let what = format!("the account {}", quote(name));
                    findings.push(twice(policy, &what, (user, at), (*other, *first)));
                    continue;
                }
                None => seen.insert(name, (user, at)),
            };
            // The key of a line for guests may be a label, and an account's name as well.
            if at == line.key.at && line.has_guests() && lookup.lacks(Sort::Account, name) {
                continue;
            }
            let groups = &lookup.accounts.groups;
            let help = || unknown_account(line, name, groups);
            let written = Written { value: name, at };
            if let Some(uid) = lookup.find(Sort::Account, written, help, findings) {
                claims.push(Claim { first: uid, last: uid, user, at });
            }
        }
    }
    claims
}

/// The cure for a name that is no account's: it may be a group's name, or a uid.
fn unknown_account(line: &UserLine, name: &str, groups: &BTreeMap<String, Option<u32>>) -> String {
    // As sudoers and limits.conf write groups.
    let (group, is_marked) = match name.strip_prefix(['@', '%']) {
        Some(group) => (group, true),
        None => (name, false),
    };
    if is_marked || groups.get(group).is_some_and(Option::is_some) {
        let group = printable(group, 60);
        return format!(
            "{group} is a group: write `groups: {{{group}: {{gid: {group}, each: {{ceil: …}}}}}}` for each of its accounts, or `ceil: …` in place of `each` for all together"
        );
    }
    let is_range = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    if name.starts_with(|c: char| c.is_ascii_digit()) && is_range(name) {
        return match line.names_account() {
            true => format!(
                "{name} is a number: write `uids: {name}` in a line with a name of your own, `u{name}: {{uids: {name}, ceil: …}}`"
            ),
            false => format!("{name} is a number: write `uids: {name}` instead"),
        };
    }
    let cure = "correct the name (`getent passwd NAME`), ";
    if line.names_account() {
        format!("{cure}or, if it is a label, say whose it is with `accounts`, `uids` or `units`")
    } else {
        format!("{cure}or remove it")
    }
}

/// The uids that lines give as numbers, in order; two lines with one uid are an error.
fn numbered(policy: &Policy, findings: &mut Findings) -> Vec<Claim> {
    let mut claims: Vec<Claim> = Vec::new();
    for (user, line) in users(policy) {
        for uids in line.uids.iter().flatten() {
            let (first, last) = (*uids.value.start(), *uids.value.end());
            claims.push(Claim { first, last, user, at: uids.at });
        }
    }
    claims.sort_by_key(|claim| (claim.first, claim.last));
    let mut apart: Vec<Claim> = Vec::with_capacity(claims.len());
    for claim in claims {
        match apart.last_mut().filter(|before| before.last >= claim.first) {
            Some(before) if before.user == claim.user => before.last = before.last.max(claim.last),
            Some(before) => {
                let what = format!("the uid {}", claim.first);
                findings.push(twice(
                    policy,
                    &what,
                    (claim.user, claim.at),
                    (before.user, before.at),
                ));
            }
            None => apart.push(claim),
        }
    }
    apart
}

/// The claims of all lines as one list without overlap, by uid. A line that names an account goes
/// before one with a range of uids that its uid is in.
fn ranges(
    policy: &Policy,
    mut names: Vec<Claim>,
    numbers: Vec<Claim>,
    findings: &mut Findings,
) -> Vec<(RangeInclusive<u32>, Key)> {
    // Stable: of two names with one uid, the first in the file stays.
    names.sort_by_key(|claim| claim.first);
    let mut unique: Vec<Claim> = Vec::with_capacity(names.len());
    for claim in names {
        match unique.last().filter(|before| before.first == claim.first) {
            None => unique.push(claim),
            Some(before) if before.user == claim.user => {}
            Some(before) => findings.push(
                Diagnostic::warning(
                    Kind::Claim,
                    claim.at,
                    format!(
                        "this account has the uid {}, as has one of {}",
                        claim.first,
                        user_name(policy, before.user)
                    ),
                )
                .also(before.at, "this line gets its processes")
                .help("remove one of the two lines: the kernel sees the uid only"),
            ),
        }
    }
    let mut list: Vec<Claim> = unique.clone();
    for claim in numbers {
        let mut first = Some(claim.first);
        let from = unique.partition_point(|name| name.first < claim.first);
        for name in unique[from..].iter().take_while(|name| name.first <= claim.last) {
            if claim.first == claim.last && name.user != claim.user {
                let what = format!("the uid {}", claim.first);
                findings.push(twice(policy, &what, (claim.user, claim.at), (name.user, name.at)));
            }
            if let Some(start) = first.filter(|start| *start < name.first) {
                list.push(Claim { first: start, last: name.first - 1, ..claim });
            }
            first = name.first.checked_add(1);
        }
        if let Some(first) = first.filter(|first| *first <= claim.last) {
            list.push(Claim { first, ..claim });
        }
    }
    list.sort_by_key(|claim| claim.first);
    let keyed = list.into_iter().map(|claim| {
        let key = claim.user.line(policy).key.value.clone();
        (claim.first..=claim.last, key)
    });
    keyed.collect()
}

/// The gids of `groups`, line by line.
fn gids(
    policy: &Policy,
    lookup: &mut Lookup<'_>,
    findings: &mut Findings,
) -> Per<GroupAt, Option<u32>> {
    let mut seen: HashMap<&Gid, (Span, &str)> = HashMap::new();
    Per::group(policy, |_, line| {
        let written = line.gid.as_ref()?;
        let key = line.key.value.as_str();
        if let Some((first, other)) = seen.insert(&written.value, (written.at, key)) {
            findings.push(
                Diagnostic::error(
                    Kind::Claim,
                    written.at,
                    format!("the groups {} and {} have the same `gid`", quote(other), quote(key)),
                )
                .also(first, "first here")
                .help("the first would take all its accounts: remove one of the two"),
            );
        }
        match &written.value {
            Gid::Number(gid) => Some(*gid),
            Gid::Name(name) => {
                let help = || {
                    "correct the name (`getent group NAME`); a group without Unix group needs no `gid`".to_string()
                };
                let written = Written { value: name.as_str(), at: written.at };
                lookup.find(Sort::UnixGroup, written, help, findings)
            }
        }
    })
}

/// The uids of `everyone` where the file names none: people, not services. Subordinate uids are
/// among them, and the matcher says whose they are.
fn people() -> Vec<RangeInclusive<u32>> {
    vec![FIRST_PERSON..=NOBODYS.start() - 1, NOBODYS.end() + 1..=LAST_UID]
}

//! A policy that somebody keeps editing, over the whole schema. Each draft is made from the one
//! before it: a line changes, a few do, or everything does. The same seed makes the same drafts.

mod edits;
mod print;

use std::collections::BTreeSet;

use shaper::facts::{Account, Accounts, Facts, LinkFacts};
use shaper::model::{self, BuildOptions};
use shaper::policy;
use shaper::tree::LinkName;
use shaper::units::Rate;

use crate::support::accounts;
use crate::support::random::Random;
use edits::EDITS;

/// The lines that `users` may have: the account or label, with what says whom it is for.
const USERS: [(&str, &str); 7] = [
    ("ann", "accounts: [ann]"),
    ("bob", "accounts: [bob]"),
    ("carol", "accounts: [carol]"),
    ("dave", "accounts: [dave]"),
    ("label", "uids: [4001]"),
    ("range", "uids: 4100-4110"),
    ("alias", "accounts: [erin]"),
];
const ERIN: usize = 6;

const GROUPS: usize = 4;
const CLASSES: usize = 2;
/// Pins come from the first minors that are given out, so that they hit one that another has.
const PINS: u64 = 9;

/// A policy in the making. Not every one is valid: what is promised may be more than there is.
#[derive(Clone, Debug)]
pub struct Draft {
    first: Link,
    second: Option<Link>,
    users: [Option<User>; USERS.len()],
    groups: [Option<Group>; GROUPS],
    classes: [Option<Class>; CLASSES],
    everyone: Option<Everyone>,
    rules: Vec<Rule>,
    /// After those: so many that they become hash tables.
    many: Option<Many>,
    /// Those that this kernel has.
    pub classifiers: &'static [&'static str],
    traffic: Option<Traffic>,
}

/// People send while the policy is edited. Ann's and bob's lines stay as they are, carol, dave and
/// erin always have a class, root's datagrams go to a class by a rule; nobody's ceil is below what
/// they send, and no edit flushes a queue.
#[derive(Clone, Debug)]
struct Traffic {
    /// Where root's datagrams go.
    service_port: u16,
    /// The minors of ann's and bob's classes, which no pin may take away.
    minors: BTreeSet<u64>,
}

impl Traffic {
    const CEIL: u64 = 20;
    /// The lines that never change.
    const FIXED: [User; 2] = [User::plain(50), User { prio: 2, ..User::plain(40) }];
}

#[derive(Clone, Debug)]
struct Link {
    rate: String,
    default: Option<(u64, u64)>,
    classifier: &'static str,
    leaf: &'static str,
}

/// A line of `users`; rates in Mbit/s.
#[derive(Clone, Debug)]
struct User {
    /// How often it was renamed: 2 makes `ann` the label `ann-2`.
    renamed: u32,
    rate: Option<u64>,
    ceil: u64,
    prio: u64,
    pin: Option<u64>,
    group: Option<usize>,
    second: Second,
}

/// What a user has on the second link: the same, another ceil, or nothing.
#[derive(Clone, Copy, Debug)]
enum Second {
    Same,
    Ceil(u64),
    None,
}

#[derive(Clone, Debug)]
struct Group {
    rate: Option<u64>,
    ceil: Option<u64>,
    parent: Option<usize>,
    /// The ceil of each account of the Unix group `students`, which is in this group then.
    students: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Class {
    rate: u64,
    ceil: Option<u64>,
    prio: u64,
}

#[derive(Clone, Debug)]
struct Everyone {
    each: u64,
    together: Option<u64>,
}

/// What a packet must be like, as the policy says it, and where it goes then.
#[derive(Clone, Debug)]
struct Rule {
    matches: String,
    to: Target,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    User(usize),
    Class(usize),
    Default,
    Unshaped,
}

/// Rules of one kind, each to another of those who have a line.
#[derive(Clone, Copy, Debug)]
struct Many {
    kind: usize,
    count: u64,
    /// Where their numbers start.
    first: u64,
}

impl Draft {
    /// How many kinds of edits there are.
    pub const KINDS: usize = EDITS.len();

    /// One link and nobody.
    pub fn empty(random: &mut Random) -> Draft {
        Draft {
            first: Link::random(random),
            second: None,
            users: Default::default(),
            groups: Default::default(),
            classes: Default::default(),
            everyone: None,
            rules: Vec::new(),
            many: None,
            classifiers: &["auto", "bpf"],
            traffic: None,
        }
    }

    /// One that is edited while people send: ann, bob, carol, dave and erin, and root to this port.
    pub fn under_traffic(service_port: u16, random: &mut Random) -> Draft {
        let traffic = Traffic { service_port, minors: BTreeSet::new() };
        let mut draft = Draft { traffic: Some(traffic), ..Draft::empty(random) };
        draft.tidy();
        draft
    }

    /// Minors that no pin may ask for.
    pub fn keep_free(&mut self, minors: impl IntoIterator<Item = u64>) {
        if let Some(traffic) = &mut self.traffic {
            traffic.minors.extend(minors);
        }
    }

    /// Another policy, near or far.
    pub fn next(&self, random: &mut Random) -> Draft {
        let mut draft = self.clone();
        let changes = match random.below(8) {
            0 => 60,
            1 | 2 => 8,
            _ => random.between(1, 3),
        };
        for _ in 0..changes {
            let (_, edit) = random.pick(&EDITS);
            edit(&mut draft, random);
        }
        draft.tidy();
        draft
    }

    /// A valid policy that is one edit away, and what that edit did.
    pub fn edited(&self, random: &mut Random) -> (Draft, &'static str) {
        loop {
            let mut draft = self.clone();
            let (name, edit) = *random.pick(&EDITS);
            edit(&mut draft, random);
            draft.tidy();
            if draft.to_string() != self.to_string() && draft.is_valid() {
                return (draft, name);
            }
        }
    }

    fn is_valid(&self) -> bool {
        let policy = policy::parse(&self.to_string(), "policies.yaml")
            .unwrap_or_else(|report| panic!("{}", report.render(false)));
        model::build(&policy, &facts(), BuildOptions::default()).is_ok()
    }

    /// Who is pinned to which minor.
    pub fn pins(&self) -> impl Iterator<Item = (String, u64)> {
        self.present().filter_map(|(at, user)| Some((user.name(at), user.pin?)))
    }

    /// Those who have a line.
    fn present(&self) -> impl Iterator<Item = (usize, &User)> {
        self.users.iter().enumerate().filter_map(|(at, user)| Some((at, user.as_ref()?)))
    }

    /// Takes out what would make it invalid: two pins alike, a parent that is not there or is below
    /// its own child, a rule to somebody without a line. Then, what must not change under traffic.
    fn tidy(&mut self) {
        if let Some(traffic) = self.traffic.clone() {
            self.tidy_for(&traffic);
        }
        let mut pins = Vec::new();
        for user in self.users.iter_mut().flatten() {
            user.pin = user.pin.filter(|pin| !pins.contains(pin));
            pins.extend(user.pin);
            user.group = user.group.filter(|group| self.groups[*group].is_some());
        }
        for at in 0..GROUPS {
            let mut above = self.groups[at].as_ref().and_then(|group| group.parent);
            let mut keep = above.is_some();
            for _ in 0..GROUPS {
                let Some(parent) = above else { break };
                keep &= parent != at && self.groups[parent].is_some();
                above = self.groups[parent].as_ref().and_then(|group| group.parent);
            }
            if let Some(group) = self.groups[at].as_mut().filter(|_| !keep) {
                group.parent = None;
            }
        }
        let mut students = 0;
        for group in self.groups.iter_mut().flatten() {
            group.students = group.students.filter(|_| students == 0);
            students += usize::from(group.students.is_some());
        }
        let (users, classes) = (&self.users, &self.classes);
        self.rules.retain(|rule| match rule.to {
            Target::User(at) => users[at].is_some(),
            Target::Class(at) => classes[at].is_some(),
            Target::Default | Target::Unshaped => true,
        });
        self.rules.truncate(8);
        if self.second.is_none() {
            self.users.iter_mut().flatten().for_each(|user| user.second = Second::Same);
        }
    }

    fn tidy_for(&mut self, traffic: &Traffic) {
        let enough = |ceil: &mut u64| *ceil = (*ceil).max(Traffic::CEIL);
        [Some(&mut self.first), self.second.as_mut()]
            .into_iter()
            .flatten()
            .for_each(|link| link.leaf = "auto");
        for (user, fixed) in self.users.iter_mut().zip(Traffic::FIXED) {
            *user = Some(fixed);
        }
        let student = self.groups.iter().flatten().any(|group| group.students.is_some());
        for at in 2..USERS.len() {
            let has_class = at == ERIN && (student || self.everyone.is_some());
            if (2..4).contains(&at) || (at == ERIN && !has_class) {
                // Of another prio than ann and bob, so that no shard takes those in at first.
                self.users[at].get_or_insert(User { prio: 1, ..User::plain(30) });
            }
        }
        for user in self.users.iter_mut().flatten() {
            enough(&mut user.ceil);
            user.pin = user.pin.filter(|pin| !traffic.minors.contains(pin));
        }
        self.groups.iter_mut().flatten().flat_map(|group| &mut group.students).for_each(enough);
        self.everyone.iter_mut().for_each(|everyone| enough(&mut everyone.each));
        let service = self.classes[0].get_or_insert(Class { rate: 5, ceil: None, prio: 0 });
        enough(service.ceil.get_or_insert(Traffic::CEIL));
        let to_service = format!("proto: udp, dport: {}", traffic.service_port);
        if self.rules.iter().take(8).all(|rule| rule.matches != to_service) {
            self.rules.insert(0, Rule { matches: to_service, to: Target::Class(0) });
        }
    }
}

/// What a policy is judged by: two veths, and the cell's accounts.
fn facts() -> Facts {
    let link = |ifindex| LinkFacts {
        speed: Rate::from_bits_per_second(10_000_000_000),
        ..LinkFacts::ethernet(ifindex)
    };
    let links = [("up0", 2), ("up1", 3)];
    let people = accounts::PEOPLE.map(|(name, account)| (name.to_string(), account));
    Facts {
        links: links.map(|(name, at)| (LinkName::new(name).expect("a name"), link(at))).into(),
        accounts: Accounts {
            by_name: people.clone().map(|(name, account)| (name, Some(account.uid))).into(),
            by_uid: people
                .map(|(name, account)| {
                    let gids = [account.gid].into_iter().chain(account.also).collect();
                    (account.uid, Account { name, gids })
                })
                .into(),
            groups: [("students".to_string(), Some(accounts::STUDENTS))].into(),
            ..Accounts::default()
        },
        ..Facts::default()
    }
}

impl User {
    const fn plain(ceil: u64) -> User {
        User { renamed: 0, rate: None, ceil, prio: 0, pin: None, group: None, second: Second::Same }
    }

    /// As the policy spells the line's key.
    fn name(&self, at: usize) -> String {
        match self.renamed {
            0 => USERS[at].0.to_string(),
            times => format!("{}-{times}", USERS[at].0),
        }
    }
}

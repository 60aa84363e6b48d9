//! Random policies over the whole schema, each made from the one before it: a few lines change, or
//! everything does. The same seed makes the same policies.

mod numbers;
mod print;

pub use numbers::Numbers;

/// The accounts and labels that may have a line, with what the line needs to name somebody.
pub const USERS: [(&str, &str); 7] = [
    ("ann", ""),
    ("bob", ""),
    ("carol", ""),
    ("dave", ""),
    ("label", "uids: [4001]"),
    ("range", "uids: 4100-4110"),
    ("alias", "accounts: [erin]"),
];

pub const GROUPS: usize = 4;
const CLASSES: usize = 2;
/// Pins come from the first minors that are given out, so that they hit one that another has.
const PINS: u64 = 9;

/// A policy in the making. Not every one is valid: what is promised may be more than there is.
#[derive(Clone, Debug)]
pub struct Draft {
    pub first: Link,
    pub second: Option<Link>,
    pub users: [Option<User>; USERS.len()],
    pub groups: [Option<Group>; GROUPS],
    classes: [Option<(u64, u64)>; CLASSES],
    everyone: Option<Everyone>,
    rules: Vec<String>,
    /// After those: so many that they become hash tables.
    many: Option<Many>,
}

/// Rules of one kind, each to another of those who have a line.
#[derive(Clone, Copy, Debug)]
struct Many {
    kind: usize,
    count: u64,
    /// Where their numbers start.
    first: u64,
}

#[derive(Clone, Debug)]
pub struct Link {
    rate: String,
    default: Option<(u64, u64)>,
    classifier: &'static str,
    leaf: &'static str,
}

/// Rates in Mbit/s.
#[derive(Clone, Debug)]
pub struct User {
    rate: Option<u64>,
    ceil: u64,
    prio: u64,
    pub pin: Option<u64>,
    group: Option<usize>,
    /// On the second link: as on the first, with another ceil, or not at all.
    second: Second,
}

#[derive(Clone, Copy, Debug)]
enum Second {
    Same,
    Ceil(u64),
    None,
}

#[derive(Clone, Debug)]
pub struct Group {
    rate: Option<u64>,
    ceil: Option<u64>,
    parent: Option<usize>,
    /// Its accounts are those of the unix group `students`.
    students: Option<u64>,
}

#[derive(Clone, Debug)]
struct Everyone {
    each: u64,
    together: Option<u64>,
}

impl Draft {
    /// One link and nobody.
    pub fn empty(numbers: &mut Numbers) -> Draft {
        Draft {
            first: Link::random(numbers),
            second: None,
            users: Default::default(),
            groups: Default::default(),
            classes: Default::default(),
            everyone: None,
            rules: Vec::new(),
            many: None,
        }
    }

    /// Another policy, near or far.
    pub fn next(&self, numbers: &mut Numbers) -> Draft {
        let mut draft = self.clone();
        let changes = match numbers.below(8) {
            0 => 60,
            1 | 2 => 8,
            _ => 1 + numbers.below(3),
        };
        for _ in 0..changes {
            draft.change(numbers);
        }
        draft.tidy();
        draft
    }

    /// Who is pinned to which minor.
    pub fn pins(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let pin = |user: &Option<User>| user.as_ref().and_then(|user| user.pin);
        USERS.iter().zip(&self.users).filter_map(move |((name, _), user)| Some((*name, pin(user)?)))
    }

    fn change(&mut self, numbers: &mut Numbers) {
        match numbers.below(21) {
            20 => {
                let kind = numbers.index(Many::KINDS);
                let count = *numbers.pick(&[2, 5, 9, 17, 40, 300]);
                let many = Many { kind, count, first: numbers.below(3) };
                self.many = numbers.maybe(3).then_some(many);
            }
            0 => self.first = Link::random(numbers),
            1 => self.first.rate = rate(numbers),
            2 => self.second = numbers.maybe(2).then(|| Link::random(numbers)),
            3..=5 => {
                let user = User::random(numbers);
                *numbers.one_of(&mut self.users) = numbers.maybe(2).then_some(user);
            }
            6 | 7 => {
                let group = numbers.maybe(2).then(|| numbers.index(GROUPS));
                self.with_user(numbers, |user, _| user.group = group);
            }
            8 => self.with_user(numbers, |user, numbers| user.ceil = 2 + numbers.below(40)),
            9 => self.with_user(numbers, |user, numbers| user.prio = numbers.below(8)),
            10 => self.with_user(numbers, |user, numbers| user.second = Second::random(numbers)),
            11 => {
                let pin = numbers.maybe(2).then(|| 0x10 + numbers.below(PINS));
                self.users.iter_mut().flatten().for_each(|user| {
                    user.pin = user.pin.filter(|other| Some(*other) != pin);
                });
                self.with_user(numbers, |user, _| user.pin = pin);
            }
            12 => self.swap_pins(numbers),
            13 | 14 => {
                let group = Group::random(numbers);
                *numbers.one_of(&mut self.groups) = numbers.maybe(2).then_some(group);
            }
            15 => {
                let parent = numbers.maybe(2).then(|| numbers.index(GROUPS));
                if let Some(group) = numbers.one_of(&mut self.groups) {
                    group.parent = parent;
                }
            }
            16 => {
                let class = (1 + numbers.below(4), numbers.below(8));
                *numbers.one_of(&mut self.classes) = numbers.maybe(2).then_some(class);
            }
            17 => {
                let each = 1 + numbers.below(30);
                let together = numbers.maybe(2).then(|| 30 + numbers.below(20));
                self.everyone = numbers.maybe(3).then_some(Everyone { each, together });
            }
            18 => {
                let at = numbers.index(self.rules.len() + 1);
                let rule = self.random_rule(numbers);
                self.rules.insert(at, rule);
            }
            _ => self.reorder_rules(numbers),
        }
    }

    fn reorder_rules(&mut self, numbers: &mut Numbers) {
        match numbers.below(3) {
            0 => self.rules.reverse(),
            1 if !self.rules.is_empty() => {
                self.rules.remove(numbers.index(self.rules.len()));
            }
            _ => self.rules.truncate(5),
        }
    }

    fn with_user(&mut self, numbers: &mut Numbers, change: impl Fn(&mut User, &mut Numbers)) {
        let mut present: Vec<&mut User> = self.users.iter_mut().flatten().collect();
        if !present.is_empty() {
            let at = numbers.index(present.len());
            change(present[at], numbers);
        }
    }

    fn swap_pins(&mut self, numbers: &mut Numbers) {
        let pinned: Vec<usize> = (0..USERS.len())
            .filter(|at| self.users[*at].as_ref().is_some_and(|user| user.pin.is_some()))
            .collect();
        if let [a, .., b] = pinned[..] {
            let pin = |at: usize| self.users[at].as_ref().and_then(|user| user.pin);
            let (first, second) = (pin(a), pin(b));
            for (at, pin) in [(a, second), (b, first)] {
                if let Some(user) = &mut self.users[at] {
                    user.pin = pin;
                }
            }
        } else {
            self.with_user(numbers, |user, numbers| user.pin = Some(0x10 + numbers.below(PINS)));
        }
    }

    fn random_rule(&self, numbers: &mut Numbers) -> String {
        let address = *numbers.pick(&[
            "",
            "src: 1.2.3.4, ",
            "dst: [10.1.0.0/16, \"fd00:1::/64\"], ",
            "dst: \"fd00:2::7\", ",
            "src: 10.9.0.0/24, ",
            "vlan: [22, 100-199], ",
        ]);
        let port = *numbers.pick(&["dport: 80", "sport: [443, 8443]", "proto: udp, dport: 53"]);
        let link = *numbers.pick(&["", "", "link: up0, "]);
        let present: Vec<&str> = (USERS.iter().zip(&self.users))
            .filter(|(_, user)| user.is_some())
            .map(|((name, _), _)| *name)
            .collect();
        let to = match numbers.below(4) {
            0 => "unshaped",
            1 => "default",
            _ if present.is_empty() => "default",
            _ => present[numbers.index(present.len())],
        };
        format!("{{{address}{port}, {link}to: {to}}}")
    }

    /// The rules, and whom the many are for: any of those who have a line, in turns.
    fn all_rules(&self) -> Vec<String> {
        let users = USERS.iter().zip(&self.users).filter(|(_, user)| user.is_some());
        let to: Vec<&str> =
            users.map(|((name, _), _)| *name).chain(["default", "unshaped"]).collect();
        let many = self.many.into_iter().flat_map(|many| {
            let turns = to.iter().cycle();
            (0..many.count).zip(turns).map(move |(nth, to)| many.rule(nth, to)).collect::<Vec<_>>()
        });
        self.rules.iter().cloned().chain(many).collect()
    }

    /// Takes out what would make it invalid: two pins alike, a parent that is not there or is below
    /// its own child, a rule to somebody without a line.
    fn tidy(&mut self) {
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
        let there = |rule: &String| {
            let mut users = USERS.iter().zip(&self.users);
            users.all(|((name, _), user)| {
                user.is_some() || !rule.ends_with(&format!("to: {name}}}"))
            })
        };
        self.rules.retain(there);
        self.rules.truncate(8);
        if self.second.is_none() {
            self.users.iter_mut().flatten().for_each(|user| user.second = Second::Same);
        }
    }
}

impl Many {
    const KINDS: usize = 5;

    fn rule(&self, nth: u64, to: &str) -> String {
        let n = self.first + nth;
        let what = match self.kind {
            0 => format!("dst: 10.7.{}.{}", n / 256, n % 256),
            1 => format!("proto: tcp, dport: {}", 1 + n),
            2 if n.is_multiple_of(2) => format!("src: 10.8.0.{}", n / 2),
            2 => format!("dst: 10.8.0.{}", n / 2),
            3 => format!("dst: \"fd00:3::{n:x}\""),
            _ => format!("dst: [10.9.{}.0/24, \"fd00:{n:x}::/48\"], sport: {}", n % 256, n % 7 + 1),
        };
        format!("{{{what}, to: {to}}}")
    }
}

impl Link {
    fn random(numbers: &mut Numbers) -> Link {
        Link {
            rate: rate(numbers),
            default: numbers.maybe(2).then(|| (1 + numbers.below(9), 10 + numbers.below(90))),
            classifier: ["auto", "bpf"][numbers.index(2)],
            leaf: ["auto", "auto", "bfifo", "pfifo"][numbers.index(4)],
        }
    }
}

fn rate(numbers: &mut Numbers) -> String {
    match numbers.below(4) {
        // Of a veth's 10 Gbit/s.
        0 => format!("{}%", 3 + numbers.below(90)),
        _ => format!("{}mbit", 250 + numbers.below(700)),
    }
}

impl Second {
    fn random(numbers: &mut Numbers) -> Second {
        match numbers.below(3) {
            0 => Second::Same,
            1 => Second::Ceil(2 + numbers.below(40)),
            _ => Second::None,
        }
    }
}

impl User {
    fn random(numbers: &mut Numbers) -> User {
        let rate = numbers.maybe(2).then(|| 1 + numbers.below(4));
        User {
            rate,
            ceil: 5 + numbers.below(40),
            prio: numbers.below(8),
            pin: numbers.maybe(3).then(|| 0x10 + numbers.below(PINS)),
            group: numbers.maybe(2).then(|| numbers.index(GROUPS)),
            second: Second::Same,
        }
    }
}

impl Group {
    fn random(numbers: &mut Numbers) -> Group {
        let rate = numbers.maybe(3).then(|| 20 + numbers.below(20));
        Group {
            rate,
            ceil: (rate.is_none() || numbers.maybe(2)).then(|| 50 + numbers.below(50)),
            parent: numbers.maybe(3).then(|| numbers.index(GROUPS)),
            students: numbers.maybe(4).then(|| 1 + numbers.below(20)),
        }
    }
}

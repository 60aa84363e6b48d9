//! A policy that somebody keeps editing: one random edit after another, each of which gives a valid
//! policy. Two users and a class never change; what else there is changes around them, or with
//! them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// A small generator (xorshift64): the same seed draws the same edits.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 16) % limit.max(1) as u64).expect("less than the limit")
    }

    fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    fn one_of<T: Clone>(&mut self, from: impl IntoIterator<Item = T>) -> Option<T> {
        let all: Vec<T> = from.into_iter().collect();
        (!all.is_empty()).then(|| all[self.below(all.len())].clone())
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// A line of `users`; rates in Mbit.
#[derive(Clone, Debug)]
struct User {
    /// Counts up with every renaming.
    name: u32,
    /// `accounts: […]` or `uids: […]`, for whom the line is.
    who: String,
    rate: Option<usize>,
    ceil: usize,
    prio: usize,
    pin: Option<u16>,
    group: Option<&'static str>,
}

/// How erin, whose account is in the unix group `students`, comes to her class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Erin {
    OwnLine,
    Student,
    Everyone,
}

#[derive(Clone, Debug)]
pub struct Draft {
    link: usize,
    second_link: bool,
    default: (usize, usize),
    /// Those that this kernel has.
    pub classifiers: &'static [&'static str],
    classifier: usize,
    users: BTreeMap<&'static str, User>,
    /// With the group that each is in.
    groups: BTreeMap<&'static str, Option<&'static str>>,
    /// Of every group, so that none is above the one that it is in.
    group_ceil: usize,
    erin: Erin,
    /// A ceil for each, and one for all together.
    everyone: Option<(usize, Option<usize>)>,
    service: (usize, usize),
    rules: Vec<String>,
    /// Minors that stay with those who never change.
    taken: BTreeSet<u16>,
}

const OTHERS: [&str; 6] = ["x1", "x2", "x3", "x4", "x5", "x6"];
const GROUPS: [&str; 3] = ["g1", "g2", "g3"];
/// Pins are drawn from where minors are given out by chance too.
const PINS: std::ops::RangeInclusive<u16> = 0x10..=0x1f;

/// An edit of the policy, by what it is for.
type Edit = (&'static str, fn(&mut Draft, &mut Random) -> bool);

const EDITS: [Edit; 20] = [
    ("a user is added", Draft::add_user),
    ("a user is removed", Draft::remove_user),
    ("a user is renamed", Draft::rename),
    ("another user moves", Draft::move_another),
    ("carol moves", Draft::move_carol),
    ("a group is made", Draft::make_group),
    ("a group is dissolved", Draft::dissolve_group),
    ("a group moves", Draft::move_group),
    ("rates change", Draft::change_rates),
    ("rules are reordered", Draft::reorder_rules),
    ("rules come and go", Draft::change_rules),
    ("the default changes", Draft::change_default),
    ("everyone comes or goes", Draft::toggle_everyone),
    ("another user's pin changes", Draft::pin_another),
    ("dave's pin changes", Draft::pin_dave),
    ("two others swap pins", Draft::swap_others),
    ("dave swaps pins", Draft::swap_with_dave),
    ("erin's class has another reason", Draft::move_erin),
    ("links change", Draft::change_links),
    ("the classifier changes", Draft::change_classifier),
];

impl Draft {
    /// The first policy. Rules send the datagrams to `service_port` to the class `service`: they
    /// come from root, whom no line names.
    pub fn first(service_port: u16) -> Draft {
        let person = |who: &str| User {
            name: 0,
            who: format!("accounts: [{who}]"),
            rate: Some(6),
            ceil: 30,
            prio: 1,
            pin: None,
            group: None,
        };
        Draft {
            link: 300,
            second_link: false,
            default: (5, 50),
            classifiers: &["auto"],
            classifier: 0,
            users: ["carol", "dave", "erin"].map(|name| (name, person(name))).into(),
            groups: BTreeMap::from([("g1", None)]),
            group_ceil: 90,
            erin: Erin::OwnLine,
            everyone: None,
            service: (5, 20),
            rules: vec![format!("{{proto: udp, dport: {service_port}, to: service}}")],
            taken: BTreeSet::new(),
        }
    }

    /// Minors that no pin may ask for.
    pub fn keep_free(&mut self, minors: impl IntoIterator<Item = u16>) {
        self.taken.extend(minors);
    }

    /// The next policy, and what was done to this one.
    pub fn edited(&self, random: &mut Random) -> (Draft, &'static str) {
        loop {
            let mut next = self.clone();
            let (name, edit) = EDITS[random.below(EDITS.len())];
            if edit(&mut next, random) && next.text() != self.text() {
                return (next, name);
            }
        }
    }

    /// The policy file.
    pub fn text(&self) -> String {
        let mut text = String::from("version: 1\nlinks:\n");
        let (rate, ceil) = self.default;
        let _ = writeln!(
            text,
            "  up0: {{rate: {}mbit, default: {{rate: {rate}mbit, ceil: {ceil}mbit}}, classifier: {}}}",
            self.link, self.classifiers[self.classifier]
        );
        if self.second_link {
            text.push_str("  up1: {rate: 300mbit}\n");
        }
        text.push_str("users:\n  ann: {rate: 10mbit, ceil: 50mbit}\n");
        text.push_str("  bob: {rate: 10mbit, ceil: 40mbit, prio: 2}\n");
        for (key, user) in &self.users {
            if *key != "erin" || self.erin == Erin::OwnLine {
                let _ = writeln!(text, "  {}: {{{}}}", name(key, user.name), line(user));
            }
        }
        text.push_str("groups:\n  fixed: {rate: 30mbit, ceil: 100mbit, users: [bob]}\n");
        for (key, parent) in &self.groups {
            let members = self.users.iter().filter(|(_, user)| user.group == Some(key));
            let members: Vec<String> = members.map(|(key, user)| name(key, user.name)).collect();
            let parent = parent.map(|p| format!("parent: {p}, ")).unwrap_or_default();
            let _ = writeln!(
                text,
                "  {key}: {{{parent}ceil: {}mbit, users: [{}]}}",
                self.group_ceil,
                members.join(", ")
            );
        }
        if self.erin == Erin::Student {
            text.push_str("  class2030: {gid: students, ceil: 60mbit, each: {ceil: 20mbit}}\n");
        }
        if let Some((each, all)) = self.everyone {
            let all = all.map(|all| format!("ceil: {all}mbit, ")).unwrap_or_default();
            let _ = writeln!(text, "everyone: {{{all}each: {{ceil: {each}mbit}}}}");
        }
        let (rate, ceil) = self.service;
        let _ = writeln!(text, "classes: {{service: {{rate: {rate}mbit, ceil: {ceil}mbit}}}}");
        text.push_str("rules:\n");
        self.rules.iter().for_each(|rule| {
            let _ = writeln!(text, "  - {rule}");
        });
        text
    }

    fn others(&self) -> Vec<&'static str> {
        self.users.keys().copied().filter(|key| OTHERS.contains(key)).collect()
    }

    fn add_user(&mut self, random: &mut Random) -> bool {
        let absent = OTHERS.iter().zip(7001..).filter(|(key, _)| !self.users.contains_key(*key));
        let Some((key, uid)) = random.one_of(absent) else { return false };
        let user = User {
            name: 0,
            who: format!("uids: [{uid}]"),
            rate: None,
            ceil: random.between(20, 50),
            prio: random.below(8),
            pin: None,
            group: random.one_of(self.groups.keys().copied()),
        };
        self.users.insert(key, user);
        true
    }

    fn remove_user(&mut self, random: &mut Random) -> bool {
        let gone = random.one_of(self.others());
        gone.is_some_and(|key| self.users.remove(key).is_some())
    }

    fn rename(&mut self, random: &mut Random) -> bool {
        let named: Vec<_> = self.users.keys().copied().collect();
        let Some(user) = random.one_of(named).and_then(|key| self.users.get_mut(key)) else {
            return false;
        };
        user.name += 1;
        true
    }

    fn move_to_some_group(&mut self, key: &str, random: &mut Random) -> bool {
        let group = random.one_of(self.groups.keys().copied().map(Some).chain([None])).flatten();
        self.users.get_mut(key).map(|user| user.group = group).is_some()
    }

    fn move_another(&mut self, random: &mut Random) -> bool {
        let key = random.one_of(self.others());
        key.is_some_and(|key| self.move_to_some_group(key, random))
    }

    fn move_carol(&mut self, random: &mut Random) -> bool {
        self.move_to_some_group("carol", random)
    }

    fn make_group(&mut self, random: &mut Random) -> bool {
        let absent = GROUPS.into_iter().filter(|key| !self.groups.contains_key(key));
        let Some(key) = random.one_of(absent) else { return false };
        self.groups.insert(key, None);
        self.move_carol(random)
    }

    fn dissolve_group(&mut self, random: &mut Random) -> bool {
        let Some(key) = random.one_of(self.groups.keys().copied()) else { return false };
        self.groups.remove(key);
        for parent in self.groups.values_mut().filter(|parent| **parent == Some(key)) {
            *parent = None;
        }
        for user in self.users.values_mut().filter(|user| user.group == Some(key)) {
            user.group = None;
        }
        true
    }

    /// Below another group, or out of one; never below itself.
    fn move_group(&mut self, random: &mut Random) -> bool {
        let Some(key) = random.one_of(self.groups.keys().copied()) else { return false };
        let others = self.groups.keys().copied().filter(|other| *other != key).map(Some);
        let parent = random.one_of(others.chain([None])).flatten();
        let mut above = parent;
        while let Some(group) = above {
            if group == key {
                return false;
            }
            above = self.groups[group];
        }
        self.groups.insert(key, parent).is_some()
    }

    fn change_rates(&mut self, random: &mut Random) -> bool {
        match random.below(3) {
            0 => self.service = (random.between(3, 9), random.between(20, 40)),
            1 => self.group_ceil = random.between(60, 95),
            _ => {
                for user in self.users.values_mut() {
                    user.rate = user.rate.map(|_| random.between(3, 8));
                    user.ceil = random.between(20, 50);
                    user.prio = random.below(8);
                }
            }
        }
        true
    }

    fn reorder_rules(&mut self, random: &mut Random) -> bool {
        random.shuffle(&mut self.rules);
        true
    }

    /// The first rule's place may change; it never goes.
    fn change_rules(&mut self, random: &mut Random) -> bool {
        // The last three are so many rules that the set becomes hash tables, or a list again; what
        // stands behind those for a VLAN is in a program with them.
        const MORE: [&str; 12] = [
            "{vlan: 22, proto: udp, to: default}",
            "{vlan: {not: [7, 22]}, dst: 192.0.2.7, to: ann}",
            "{src: 1.2.3.4, proto: tcp, dport: 80, to: ann}",
            "{dst: 192.0.2.0/24, to: unshaped}",
            "{proto: tcp, dport: [111, 2049], to: service}",
            "{dst: 'fd99::/16', to: default}",
            "{sport: [20, 21, 22, 23], to: bob}",
            "{src: [198.51.100.1, 'fd98::1'], to: fixed-address}",
            "{dst: 203.0.113.0/24, proto: udp, to: ann}",
            "{sport: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18], to: bob}",
            "{proto: udp, dst: [203.0.113.1, 203.0.113.2, 203.0.113.3, 203.0.113.4], dport: [1, 2, 3, 4, 5], to: ann}",
            "{dst: ['fd98::1', 'fd98::2', 'fd98::3', 'fd98::4', 'fd98::5'], proto: tcp, dport: [1, 2, 3, 4], to: default}",
        ];
        let rule = MORE[random.below(MORE.len())].replace("fixed-address", "service");
        match self.rules.iter().position(|standing| *standing == rule) {
            Some(at) => drop(self.rules.remove(at)),
            None => self.rules.insert(random.below(self.rules.len() + 1), rule),
        }
        true
    }

    fn change_default(&mut self, random: &mut Random) -> bool {
        self.default = (random.between(2, 9), random.between(10, 90));
        true
    }

    fn toggle_everyone(&mut self, random: &mut Random) -> bool {
        self.everyone = match self.everyone {
            Some(_) => None,
            None => {
                let all = (random.below(2) == 0).then(|| random.between(60, 90));
                Some((random.between(20, 50), all))
            }
        };
        if self.everyone.is_none() && self.erin == Erin::Everyone {
            self.erin = Erin::OwnLine;
        }
        true
    }

    fn free_pin(&self, random: &mut Random) -> Option<u16> {
        let pinned: BTreeSet<u16> = self.users.values().filter_map(|user| user.pin).collect();
        random.one_of(PINS.filter(|pin| !pinned.contains(pin) && !self.taken.contains(pin)))
    }

    fn pin(&mut self, key: &str, random: &mut Random) -> bool {
        let pin = (random.below(4) > 0).then(|| self.free_pin(random)).flatten();
        self.users.get_mut(key).map(|user| user.pin = pin).is_some()
    }

    fn pin_another(&mut self, random: &mut Random) -> bool {
        random.one_of(self.others()).is_some_and(|key| self.pin(key, random))
    }

    fn pin_dave(&mut self, random: &mut Random) -> bool {
        self.pin("dave", random)
    }

    fn swap(&mut self, one: &str, other: &str) -> bool {
        let pins = [one, other].map(|key| self.users.get(key).and_then(|user| user.pin));
        for (key, pin) in [(one, pins[1]), (other, pins[0])] {
            let Some(user) = self.users.get_mut(key) else { return false };
            user.pin = pin;
        }
        pins[0] != pins[1]
    }

    fn pinned_others(&self) -> Vec<&'static str> {
        self.others().into_iter().filter(|key| self.users[key].pin.is_some()).collect()
    }

    fn swap_others(&mut self, random: &mut Random) -> bool {
        let mut pinned = self.pinned_others();
        random.shuffle(&mut pinned);
        pinned.len() > 1 && self.swap(pinned[0], pinned[1])
    }

    fn swap_with_dave(&mut self, random: &mut Random) -> bool {
        random.one_of(self.pinned_others()).is_some_and(|other| self.swap("dave", other))
    }

    fn move_erin(&mut self, random: &mut Random) -> bool {
        self.erin = [Erin::OwnLine, Erin::Student, Erin::Everyone][random.below(3)];
        if self.erin == Erin::Everyone && self.everyone.is_none() {
            self.everyone = Some((random.between(20, 50), None));
        }
        if self.erin != Erin::OwnLine {
            // A group must not name a member who has no line.
            self.users.get_mut("erin").map(|erin| erin.group = None).is_some()
        } else {
            self.move_to_some_group("erin", random)
        }
    }

    fn change_links(&mut self, random: &mut Random) -> bool {
        match random.below(3) {
            0 => self.link = random.between(250, 400),
            _ => self.second_link = !self.second_link,
        }
        true
    }

    fn change_classifier(&mut self, random: &mut Random) -> bool {
        self.classifier = random.below(self.classifiers.len());
        true
    }
}

/// As the policy spells the line's key: a renamed line has another.
fn name(key: &str, name: u32) -> String {
    match name {
        0 => key.to_string(),
        n => format!("{key}-{n}"),
    }
}

fn line(user: &User) -> String {
    let rate = user.rate.map(|rate| format!("rate: {rate}mbit, ")).unwrap_or_default();
    let pin = user.pin.map(|pin| format!(", classid: \"1:{pin:x}\"")).unwrap_or_default();
    format!("{}, {rate}ceil: {}mbit, prio: {}{pin}", user.who, user.ceil, user.prio)
}

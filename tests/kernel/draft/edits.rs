//! What may be done to a draft at a time: each edit by what it is for.

use super::{
    CLASSES, Class, Draft, Everyone, GROUPS, Group, Link, Many, PINS, Rule, Second, Target, User,
};
use crate::support::random::Random;

type Edit = (&'static str, fn(&mut Draft, &mut Random));

pub const EDITS: [Edit; 21] = [
    ("a link changes", |draft, random| draft.first = Link::random(random)),
    ("a link's classifier changes", |draft, random| {
        draft.first.classifier = *random.pick(draft.classifiers);
    }),
    ("a link's rate changes", |draft, random| draft.first.rate = link_rate(random)),
    ("a second link comes or goes", |draft, random| {
        draft.second = random.maybe(2).then(|| Link::random(random));
    }),
    ("a user comes", |draft, random| {
        let user = User::random(random);
        *random.pick_mut(&mut draft.users) = Some(user);
    }),
    ("a user goes", |draft, random| *random.pick_mut(&mut draft.users) = None),
    ("a user is renamed", |draft, random| draft.with_user(random, |user, _| user.renamed += 1)),
    ("a user moves", Draft::move_user),
    ("a user's rates change", |draft, random| {
        draft.with_user(random, |user, random| {
            user.rate = user.rate.map(|_| random.between(1, 4));
            user.ceil = random.between(2, 41);
        });
    }),
    ("a user's prio changes", |draft, random| {
        draft.with_user(random, |user, random| user.prio = random.below(8));
    }),
    ("a user's second link changes", |draft, random| {
        draft.with_user(random, |user, random| user.second = Second::random(random));
    }),
    ("a pin changes", |draft, random| {
        let pin = random.maybe(2).then(|| a_pin(random));
        draft.users.iter_mut().flatten().for_each(|user| {
            user.pin = user.pin.filter(|other| Some(*other) != pin);
        });
        draft.with_user(random, |user, _| user.pin = pin);
    }),
    ("two swap pins", Draft::swap_pins),
    ("a group comes", |draft, random| {
        let group = Group::random(random);
        *random.pick_mut(&mut draft.groups) = Some(group);
    }),
    ("a group goes", |draft, random| *random.pick_mut(&mut draft.groups) = None),
    ("a group moves", |draft, random| {
        let parent = random.maybe(2).then(|| random.index(GROUPS));
        if let Some(group) = random.one_of(draft.groups.iter_mut().flatten()) {
            group.parent = parent;
        }
    }),
    ("a class comes or goes", |draft, random| {
        let ceil = random.maybe(2).then(|| random.between(10, 40));
        let class = Class { rate: random.between(1, 4), ceil, prio: random.below(8) };
        draft.classes[random.index(CLASSES)] = random.maybe(2).then_some(class);
    }),
    ("everyone comes or goes", |draft, random| {
        let each = random.between(1, 30);
        let together = random.maybe(2).then(|| random.between(30, 49));
        draft.everyone = random.maybe(3).then_some(Everyone { each, together });
    }),
    ("a rule comes", |draft, random| {
        let at = random.index(draft.rules.len() + 1);
        let rule = draft.random_rule(random);
        draft.rules.insert(at, rule);
    }),
    ("rules go or are reordered", Draft::reorder_rules),
    ("many rules come or go", |draft, random| {
        let kind = random.index(Many::KINDS);
        let count = *random.pick(&[2, 5, 9, 17, 40, 300]);
        let many = Many { kind, count, first: random.below(3) };
        draft.many = random.maybe(3).then_some(many);
    }),
];

impl Draft {
    fn with_user(&mut self, random: &mut Random, change: impl Fn(&mut User, &mut Random)) {
        if let Some(user) = random.one_of(self.users.iter_mut().flatten()) {
            change(user, random);
        }
    }

    fn move_user(&mut self, random: &mut Random) {
        let group = random.maybe(2).then(|| random.index(GROUPS));
        self.with_user(random, |user, _| user.group = group);
    }

    fn swap_pins(&mut self, random: &mut Random) {
        let mut pinned: Vec<&mut User> =
            self.users.iter_mut().flatten().filter(|user| user.pin.is_some()).collect();
        random.shuffle(&mut pinned);
        if let [one, other, ..] = &mut pinned[..] {
            std::mem::swap(&mut one.pin, &mut other.pin);
        } else {
            self.with_user(random, |user, random| user.pin = Some(a_pin(random)));
        }
    }

    fn reorder_rules(&mut self, random: &mut Random) {
        match random.below(3) {
            0 => random.shuffle(&mut self.rules),
            1 if !self.rules.is_empty() => {
                self.rules.remove(random.index(self.rules.len()));
            }
            _ => self.rules.truncate(5),
        }
    }

    fn random_rule(&self, random: &mut Random) -> Rule {
        let address = *random.pick(&[
            "",
            "src: 1.2.3.4, ",
            "dst: [10.1.0.0/16, \"fd00:1::/64\"], ",
            "dst: \"fd00:2::7\", ",
            "src: 10.9.0.0/24, ",
            "vlan: [22, 100-199], ",
            "vlan: {not: [7, 22]}, dst: 192.0.2.7, ",
            "dst: [203.0.113.1, 203.0.113.2, \"fd98::1\", \"fd98::2\", \"fd98::3\"], ",
        ]);
        let ports = *random.pick(&[
            "proto: tcp, dport: 80",
            "sport: [443, 8443]",
            "proto: udp, dport: 53",
            "dport: [1, 2, 3, 4, 5]",
            "sport: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]",
        ]);
        let link = *random.pick(&["", "", ", link: up0"]);
        let to = match random.below(5) {
            0 => Target::Unshaped,
            1 => Target::Default,
            2 => Target::Class(random.index(CLASSES)),
            _ => {
                let user = random.one_of(self.present().map(|(at, _)| at));
                user.map_or(Target::Default, Target::User)
            }
        };
        Rule { matches: format!("{address}{ports}{link}"), to }
    }
}

fn a_pin(random: &mut Random) -> u64 {
    0x10 + random.below(PINS)
}

fn link_rate(random: &mut Random) -> String {
    match random.below(4) {
        // Of a veth's 10 Gbit/s.
        0 => format!("{}%", random.between(3, 92)),
        _ => format!("{}mbit", random.between(250, 949)),
    }
}

impl Link {
    pub fn random(random: &mut Random) -> Link {
        Link {
            rate: link_rate(random),
            default: random.maybe(2).then(|| (random.between(1, 9), random.between(100, 199))),
            classifier: ["auto", "bpf"][random.index(2)],
            leaf: ["auto", "auto", "bfifo", "pfifo"][random.index(4)],
        }
    }
}

impl Second {
    fn random(random: &mut Random) -> Second {
        match random.below(3) {
            0 => Second::Same,
            1 => Second::Ceil(random.between(2, 41)),
            _ => Second::None,
        }
    }
}

impl User {
    fn random(random: &mut Random) -> User {
        User {
            rate: random.maybe(2).then(|| random.between(1, 4)),
            prio: random.below(8),
            pin: random.maybe(3).then(|| a_pin(random)),
            group: random.maybe(2).then(|| random.index(GROUPS)),
            ..User::plain(random.between(5, 44))
        }
    }
}

impl Group {
    fn random(random: &mut Random) -> Group {
        let rate = random.maybe(3).then(|| random.between(20, 39));
        Group {
            rate,
            ceil: (rate.is_none() || random.maybe(2)).then(|| random.between(50, 99)),
            parent: random.maybe(3).then(|| random.index(GROUPS)),
            students: random.maybe(4).then(|| random.between(1, 20)),
        }
    }
}

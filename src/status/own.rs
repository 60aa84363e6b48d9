//! The report for one of the users: what is his, what is above it, and what holds him back.

use std::collections::BTreeSet;

use super::limit::Limit;
use super::report::{ClassNumbers, Link, Status, User};
use super::words::{self, bytes};
use crate::text::shown;
use crate::tree::{Owner, Reserved};

/// From which share of a ceil on, in percent, it counts as used up.
const FULL: u64 = 97;

impl Status {
    /// Leaves in the report what these owners have, and the groups above it, whose totals say
    /// whether they are full. Where they have no class of their own it is the default class.
    pub fn keep_own(&mut self, owners: &BTreeSet<Owner>) {
        for link in &mut self.links {
            link.users.retain(|user| owners.contains(&user.owner));
            let above = link.above();
            link.groups.retain(|group| above.contains(&group.group));
            if !link.users.is_empty() {
                link.default = None;
            }
            if let Some(default) = &mut link.default {
                (default.forwarded_packets, default.forwarded_v6_packets) = (None, None);
                default.guests.clear();
            }
            (link.unshaped, link.rules) = (None, None);
            link.retired.clear();
            link.beside.clear();
            link.warnings.clear();
        }
        self.quotas.retain(|quota| owners.contains(&quota.owner));
        self.foreign.clear();
        self.unclaimed.clear();
        self.default_connections.clear();
        self.repairs.clear();
        (self.daemon, self.policy, self.pending) = (None, None, None);
    }

    /// For each class in the report, the lowest limit that it is under, and which of them is used
    /// up now: a sentence for each.
    pub fn held_back(&self) -> Vec<String> {
        let of_link = |link: &Link| {
            let users = link.users.iter().map(|user| link.holds_user(user)).collect::<Vec<_>>();
            match (users.is_empty(), &link.default) {
                (true, Some(default)) => {
                    let caps = [link.cap()].into_iter().chain([of(
                        "the default class",
                        &default.class,
                        None,
                    )]);
                    vec![link.sentence(
                        "the default class, with all that nobody claims,",
                        &default.class,
                        caps,
                    )]
                }
                _ => users,
            }
        };
        self.links.iter().flat_map(of_link).collect()
    }
}

impl User {
    /// The line of the policy for which the class was made: `users.ann`, `everyone`.
    pub fn line(&self) -> String {
        match (&self.owner, self.source, &self.group) {
            (Owner::User(key), ..) => format!("users.{key}"),
            (Owner::Class(key), ..) => format!("classes.{key}"),
            (_, "group", Some(group)) => format!("groups.{group}"),
            _ => Reserved::Everyone.to_string(),
        }
    }
}

/// A limit that a class is under.
struct Cap {
    name: String,
    ceil_bit: u64,
    /// What gives it, and until when, where that is not always the same.
    limit: Option<String>,
    /// It is used up now.
    is_full: bool,
}

fn of(name: &str, class: &ClassNumbers, limit: Option<&Limit>) -> Cap {
    let is_full = class.now.is_some_and(|now| now.of_ceil_percent >= FULL);
    let limit = limit.map(ToString::to_string);
    Cap { name: name.to_string(), ceil_bit: class.ceil_bit, limit, is_full }
}

impl Link {
    fn cap(&self) -> Cap {
        let is_full = self.now.is_some_and(|now| now.of_ceil_percent >= FULL);
        let limit = self.limit.as_ref().map(ToString::to_string);
        Cap { name: "the link".to_string(), ceil_bit: self.rate_bit, limit, is_full }
    }

    fn holds_user(&self, user: &User) -> String {
        let mut caps = vec![of("its own cap", &user.class, user.limit.as_ref())];
        let mut next = user.group.as_ref();
        while let Some(group) = self.groups.iter().find(|group| Some(&group.group) == next) {
            let name = format!("group {}", shown(&group.group));
            caps.push(of(&name, &group.class, group.limit.as_ref()));
            next = group.parent.as_ref();
        }
        caps.push(self.cap());
        self.sentence(&shown(&user.user).to_string(), &user.class, caps)
    }

    fn sentence(
        &self,
        who: &str,
        class: &ClassNumbers,
        caps: impl IntoIterator<Item = Cap>,
    ) -> String {
        let caps: Vec<Cap> = caps.into_iter().collect();
        let lowest = caps.iter().min_by_key(|cap| cap.ceil_bit);
        let limit = |cap: &Cap| cap.limit.as_ref().map_or(String::new(), |it| format!(" ({it})"));
        let by = |cap: &Cap| (cap.ceil_bit, format!("{}{}", cap.name, limit(cap)));
        let (most, by) = lowest.map_or((0, String::new()), by);
        let full = caps.iter().find(|cap| cap.is_full);
        let now = match (class.backlog_bytes, full) {
            (0, None) => String::new(),
            (0, Some(full)) => format!("; {} is used up now", full.name),
            (waits, None) => format!("; {} wait now", bytes(waits)),
            (waits, Some(full)) => {
                format!("; {} wait now, since {} is used up", bytes(waits), full.name)
            }
        };
        let most = words::limit(most);
        format!("{} {}: {who} may use {most}, by {by}{now}", self.dev, self.direction)
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Now;
    use super::super::tests::busy;
    use super::*;
    use crate::tree::Key;

    fn owner(name: &str) -> BTreeSet<Owner> {
        [Owner::User(Key::new(name).unwrap())].into()
    }

    #[test]
    fn a_user_sees_what_is_his_and_what_is_above_it() {
        let mut status = busy();
        let mut owners = BTreeSet::new();
        for user in &mut status.links[0].users {
            user.owner = Owner::User(Key::new(&user.user).unwrap());
            owners.insert(user.user.clone());
        }
        assert!(owners.len() > 1, "{owners:?}");
        status.keep_own(&owner("ann"));
        let link = &status.links[0];
        assert!(link.user_names().iter().all(|name| *name == "ann"), "{:?}", link.user_names());
        let above: Vec<&str> = link.users.iter().filter_map(|user| user.group.as_deref()).collect();
        assert_eq!((above, link.group_names()), (vec!["year1"], vec!["students", "year1"]));
        assert!(status.links[1].users.is_empty() && status.links[1].groups.is_empty());
        assert!(link.default.is_none() && link.unshaped.is_none() && link.retired.is_empty());
        let text = serde_json::to_string(&status).unwrap();
        let others = owners.iter().filter(|name| *name != "ann");
        others.for_each(|name| assert!(!text.contains(&format!("\"{name}\"")), "{text}"));
    }

    #[test]
    fn whoever_has_no_class_is_in_the_default_one() {
        let mut status = busy();
        status.keep_own(&owner("zoe"));
        assert!(status.links[0].users.is_empty() && status.links[0].default.is_some());
        let said = status.held_back();
        assert!(said[0].contains("the default class, with all that nobody claims,"), "{said:?}");
    }

    #[test]
    fn the_lowest_limit_and_the_one_that_is_used_up_are_named() {
        let mut status = busy();
        for user in &mut status.links[0].users {
            user.owner = Owner::User(Key::new(&user.user).unwrap());
        }
        status.keep_own(&owner("ann"));
        let link = &mut status.links[0];
        link.groups.clear();
        link.rate_bit = 1_000_000_000;
        link.now = Some(Now { of_ceil_percent: 10, ..Now::default() });
        let class = &mut link.users[0].class;
        (class.ceil_bit, class.backlog_bytes) = (20_000_000, 2_048);
        class.now = Some(Now { of_ceil_percent: 99, ..Now::default() });
        let said = status.held_back();
        let wanted =
            "ann may use 20mbit, by its own cap; 2KiB wait now, since its own cap is used up";
        assert!(said[0].ends_with(wanted), "{said:?}");
        status.links[0].rate_bit = 10_000_000;
        assert!(status.held_back()[0].contains("ann may use 10mbit, by the link"));
    }
}

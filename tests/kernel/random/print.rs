//! A draft as the policy file that an administrator would write.

use std::fmt::{self, Display, Formatter};

use super::{Draft, Everyone, Group, Link, Second, USERS, User};

impl Display for Draft {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "version: 1\nlinks:\n  up0: {}", self.first)?;
        if let Some(second) = &self.second {
            writeln!(f, "  up1: {second}")?;
        }
        section(f, "users", USERS.iter().zip(&self.users), |((name, who), user)| {
            let user = user.as_ref()?;
            Some(format!("{name}: {{{}}}", self.user(user, who)))
        })?;
        section(f, "groups", self.groups.iter().enumerate(), |(at, group)| {
            let group = group.as_ref()?;
            Some(format!("g{at}: {{{}}}", self.group(group, at)))
        })?;
        section(f, "classes", self.classes.iter().enumerate(), |(at, class)| {
            let (rate, prio) = (*class)?;
            Some(format!("c{at}: {{rate: {rate}mbit, prio: {prio}}}"))
        })?;
        match &self.everyone {
            None => {}
            Some(Everyone { each, together: None }) => writeln!(f, "everyone: {each}mbit")?,
            Some(Everyone { each, together: Some(ceil) }) => {
                writeln!(f, "everyone: {{ceil: {ceil}mbit, each: {{ceil: {each}mbit}}}}")?;
            }
        }
        let rules = self.all_rules();
        if !rules.is_empty() {
            writeln!(f, "rules:")?;
        }
        rules.iter().try_for_each(|rule| writeln!(f, "  - {rule}"))
    }
}

/// A section with its lines, or nothing if there are none.
fn section<T>(
    f: &mut Formatter<'_>,
    name: &str,
    lines: impl Iterator<Item = T>,
    line: impl Fn(T) -> Option<String>,
) -> fmt::Result {
    let lines: Vec<String> = lines.filter_map(line).collect();
    if !lines.is_empty() {
        writeln!(f, "{name}:")?;
    }
    lines.iter().try_for_each(|line| writeln!(f, "  {line}"))
}

impl Draft {
    fn user(&self, user: &User, who: &str) -> String {
        let mut words = vec![format!("ceil: {}mbit, prio: {}", user.ceil, user.prio)];
        words.extend(user.rate.map(|rate| format!("rate: {rate}mbit")));
        words.extend(user.pin.map(|pin| format!("classid: \"1:{pin:x}\"")));
        words.extend(match user.second {
            Second::Same => None,
            Second::Ceil(ceil) => Some(format!("links: {{up1: {{ceil: {ceil}mbit}}}}")),
            Second::None => Some("links: {up1: none}".to_string()),
        });
        if !who.is_empty() {
            words.push(who.to_string());
        }
        words.join(", ")
    }

    fn group(&self, group: &Group, at: usize) -> String {
        let mut words = Vec::new();
        words.extend(group.rate.map(|rate| format!("rate: {rate}mbit")));
        words.extend(group.ceil.map(|ceil| format!("ceil: {ceil}mbit")));
        words.extend(group.parent.map(|parent| format!("parent: g{parent}")));
        let members: Vec<&str> = (USERS.iter().zip(&self.users))
            .filter(|(_, user)| user.as_ref().is_some_and(|user| user.group == Some(at)))
            .map(|((name, _), _)| *name)
            .collect();
        if !members.is_empty() {
            words.push(format!("users: [{}]", members.join(", ")));
        }
        words.extend(
            group.students.map(|ceil| format!("gid: students, each: {{ceil: {ceil}mbit}}")),
        );
        words.join(", ")
    }
}

impl Display for Link {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Link { rate, default, classifier, leaf } = self;
        write!(f, "{{rate: {rate}, classifier: {classifier}, leaf: {leaf}")?;
        if let Some((rate, ceil)) = default {
            write!(f, ", default: {{rate: {rate}mbit, ceil: {ceil}mbit}}")?;
        }
        write!(f, "}}")
    }
}

//! A draft as the policy file that an administrator would write.

use std::fmt::{self, Display, Formatter};

use super::{Class, Draft, Everyone, Group, Link, Many, Rule, Second, Target, USERS, User};

impl Display for Draft {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "version: 1\nlinks:\n  up0: {}", self.first)?;
        if let Some(second) = &self.second {
            writeln!(f, "  up1: {second}")?;
        }
        section(f, "users", self.present(), |(at, user)| {
            Some(format!("{}: {{{}, {}}}", user.name(at), user, USERS[at].1))
        })?;
        section(f, "groups", self.groups.iter().enumerate(), |(at, group)| {
            let group = group.as_ref()?;
            Some(format!("g{at}: {{{}}}", self.group(group, at)))
        })?;
        section(f, "classes", self.classes.iter().enumerate(), |(at, class)| {
            let Class { rate, ceil, prio } = (*class)?;
            let ceil = ceil.map(|ceil| format!("ceil: {ceil}mbit, ")).unwrap_or_default();
            Some(format!("c{at}: {{rate: {rate}mbit, {ceil}prio: {prio}}}"))
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
    fn group(&self, group: &Group, at: usize) -> String {
        let mut words = Vec::new();
        words.extend(group.rate.map(|rate| format!("rate: {rate}mbit")));
        words.extend(group.ceil.map(|ceil| format!("ceil: {ceil}mbit")));
        words.extend(group.parent.map(|parent| format!("parent: g{parent}")));
        let members = self.present().filter(|(_, user)| user.group == Some(at));
        let members: Vec<String> = members.map(|(user, line)| line.name(user)).collect();
        if !members.is_empty() {
            words.push(format!("users: [{}]", members.join(", ")));
        }
        words.extend(
            group.students.map(|ceil| format!("gid: students, each: {{ceil: {ceil}mbit}}")),
        );
        words.join(", ")
    }

    /// The rules, and the many that come after them: to those who have a line, one after the other.
    fn all_rules(&self) -> Vec<String> {
        let targets: Vec<Target> = (self.present().map(|(at, _)| Target::User(at)))
            .chain([Target::Default, Target::Unshaped])
            .collect();
        let many = self.many.into_iter().flat_map(|many| {
            let targets = targets.iter().cycle();
            (0..many.count).zip(targets).map(move |(nth, to)| many.rule(nth, *to))
        });
        self.rules.iter().cloned().chain(many).map(|rule| self.rule(&rule)).collect()
    }

    fn rule(&self, Rule { matches, to }: &Rule) -> String {
        let to = match *to {
            Target::User(at) => self.users[at].as_ref().map(|user| user.name(at)),
            Target::Class(at) => Some(format!("c{at}")),
            Target::Default => None,
            Target::Unshaped => Some("unshaped".to_string()),
        };
        format!("{{{matches}, to: {}}}", to.as_deref().unwrap_or("default"))
    }
}

impl Many {
    pub const KINDS: usize = 5;

    fn rule(&self, nth: u64, to: Target) -> Rule {
        let n = self.first + nth;
        let matches = match self.kind {
            0 => format!("dst: 10.7.{}.{}", n / 256, n % 256),
            1 => format!("proto: tcp, dport: {}", 1 + n),
            2 if n.is_multiple_of(2) => format!("src: 10.8.0.{}", n / 2),
            2 => format!("dst: 10.8.0.{}", n / 2),
            3 => format!("dst: \"fd00:3::{n:x}\""),
            _ => format!("dst: [10.9.{}.0/24, \"fd00:{n:x}::/48\"], sport: {}", n % 256, n % 7 + 1),
        };
        Rule { matches, to }
    }
}

impl Display for User {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let User { rate, ceil, prio, pin, second, .. } = self;
        write!(f, "ceil: {ceil}mbit, prio: {prio}")?;
        if let Some(rate) = rate {
            write!(f, ", rate: {rate}mbit")?;
        }
        if let Some(pin) = pin {
            write!(f, ", classid: \"1:{pin:x}\"")?;
        }
        match second {
            Second::Same => Ok(()),
            Second::Ceil(ceil) => write!(f, ", links: {{up1: {{ceil: {ceil}mbit}}}}"),
            Second::None => write!(f, ", links: {{up1: none}}"),
        }
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

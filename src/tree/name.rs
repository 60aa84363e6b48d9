//! The names that a policy gives, and the words that no line may have for a name.

use std::fmt;

/// A word with a meaning of its own, which no line of the policy can have for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reserved {
    /// The class of whatever no rule and no user claims.
    Default,
    /// The class outside every limit.
    Unshaped,
    /// All accounts without a line of their own.
    Everyone,
    /// The link itself.
    Link,
    /// The root qdisc; also the account that only a line with `uids: 0` claims.
    Root,
}

impl Reserved {
    /// All reserved words.
    pub const ALL: [Reserved; 5] =
        [Reserved::Default, Reserved::Unshaped, Reserved::Everyone, Reserved::Link, Reserved::Root];

    /// The reserved word that `text` is; `None`: it is none.
    pub fn of(text: &str) -> Option<Reserved> {
        Reserved::ALL.into_iter().find(|word| word.as_str() == text)
    }

    /// The word, as policies and outputs spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reserved::Default => "default",
            Reserved::Unshaped => "unshaped",
            Reserved::Everyone => "everyone",
            Reserved::Link => "link",
            Reserved::Root => "root",
        }
    }
}

impl fmt::Display for Reserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name that the policy gives to a user, group or class: safe as a directory name, and no
/// [`Reserved`] word.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// The name, if it is safe as a directory's ([`is_safe_directory`]) and not reserved.
    pub fn new(name: &str) -> Option<Key> {
        let valid = is_safe_directory(name) && Reserved::of(name).is_none();
        valid.then(|| Key(name.to_string()))
    }

    /// The name, as the policy spells it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a cgroup's directory can have the name: 1–200 bytes; no `/`, no control characters, no
/// leading `.`, and not the name of a file that every cgroup has.
pub fn is_safe_directory(name: &str) -> bool {
    (1..=200).contains(&name.len())
        && !name.starts_with('.')
        && !name.chars().any(|c| c == '/' || c.is_control())
        && !is_cgroup_file(name)
}

/// Names of the files that every cgroup v1 directory has (cgroup1_base_files,
/// kernel/cgroup/cgroup-v1.c).
fn is_cgroup_file(name: &str) -> bool {
    ["tasks", "notify_on_release", "release_agent"].contains(&name)
        || ["cgroup.", "net_cls.", "net_prio."].iter().any(|prefix| name.starts_with(prefix))
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A class below which the classes of its members hang.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// `everyone`, where that line has a rate or a ceil for all accounts together.
    Everyone,
    /// A line of `groups`.
    Line(Key),
}

impl Group {
    /// The group of this name; `None`: no line can have it.
    pub fn of(name: &str) -> Option<Group> {
        match Reserved::of(name) {
            Some(Reserved::Everyone) => Some(Group::Everyone),
            _ => Key::new(name).map(Group::Line),
        }
    }

    /// The group's name, as directories and outputs spell it.
    pub fn as_str(&self) -> &str {
        match self {
            Group::Everyone => Reserved::Everyone.as_str(),
            Group::Line(key) => key.as_str(),
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_safe_directory_are_no_keys() {
        for name in
            ["", ".", "..", ".hidden", "a/b", "../x", "a\nb", "\u{7}", "tasks", "cgroup.procs"]
        {
            assert_eq!(Key::new(name), None, "{name:?}");
        }
        assert!(Key::new("bob@example.org").is_some());
    }

    #[test]
    fn a_reserved_word_is_nobodys_name() {
        for word in Reserved::ALL {
            assert_eq!(Reserved::of(word.as_str()), Some(word));
            assert_eq!(Key::new(word.as_str()), None, "{word}");
        }
        assert_eq!(Group::of("everyone"), Some(Group::Everyone));
        assert_eq!(Group::of("default"), None);
        assert_eq!(Group::of("staff").map(|group| group.to_string()).as_deref(), Some("staff"));
    }
}

//! Mappings: taking known keys out of them, and errors for all others. Touches nothing.

use std::collections::HashMap;

use crate::tree::{Key, Reserved};

use super::cures;
use super::diagnostic::{Diagnostic, Findings, Kind, closest, quote};
use super::meant;
use super::node::{Entry, Node, Value};
use super::source::{Span, Written};

/// Keys that a later version will know. They are refused by name, so that nobody looks for a
/// misspelling.
const LATER: [(&str, &str); 2] = [
    ("fleet", "limits over several hosts"),
    ("include", "other files by name; those of `policies.d` beside `policies.yaml` belong to it"),
];

/// Where the default class is written.
const OF_A_LINK: &str =
    "the default class is set on the link: `links: {eth0: {default: {rate: …}}}`";

/// A mapping with a fixed set of keys, taken one by one.
pub(super) struct Fields {
    /// Where the mapping is written.
    pub at: Span,
    /// Whether a key was refused: a key that seems to be missing may be that one, misspelt.
    pub had_unknown: bool,
    entries: Vec<(Written<String>, Node)>,
}

impl Fields {
    /// Opens the mapping of `what` ("a user"); each unknown or repeated key is an error. Nothing
    /// after the colon is an empty mapping.
    pub(super) fn open(
        node: Node,
        what: &str,
        known: &[&str],
        findings: &mut Findings,
    ) -> Option<Fields> {
        let entries = match node.value {
            Value::Map(entries) => entries,
            Value::Null => Vec::new(),
            value => {
                let example = known.first().map_or("…", |key| key);
                findings.push(
                    Diagnostic::error(
                        Kind::Shape,
                        node.at,
                        format!("{what} must be a mapping, but this is {}", value.sort()),
                    )
                    .help(meant::missing_space(&value).unwrap_or_else(|| {
                        format!("write `{example}: …`; {what} may have {}", known.join(", "))
                    })),
                );
                return None;
            }
        };
        let mut fields =
            Fields { at: node.at, had_unknown: false, entries: Vec::with_capacity(entries.len()) };
        for (key, value) in joined(entries) {
            if !known.contains(&key.value.as_str()) {
                fields.had_unknown = true;
                let above = fields.entries.last().filter(|_| known.contains(&"version"));
                let above = above.filter(|(_, value)| matches!(value.value, Value::Null));
                // A key of the policy that is mistyped is no user's name.
                let above = above.filter(|_| !is_about_the_policy(&key.value, known));
                findings.push(match above {
                    Some((above, _)) => not_indented(&key, &above.value),
                    None => unknown_key(&key, what, known),
                });
            } else if let Some((first, _)) =
                fields.entries.iter().find(|(k, _)| k.value == key.value)
            {
                findings.push(duplicate(&key, first.at, what));
            } else {
                fields.entries.push((key, value));
            }
        }
        Some(fields)
    }

    /// Takes a field's value out; `None` if the key is absent.
    pub(super) fn take(&mut self, key: &str) -> Option<Node> {
        let at = self.entries.iter().position(|(k, _)| k.value == key)?;
        Some(self.entries.swap_remove(at).1)
    }

    pub(super) fn is_mapping(&self, key: &str) -> bool {
        let node = self.entries.iter().find(|(k, _)| k.value == key);
        node.is_some_and(|(_, node)| matches!(node.value, Value::Map(_)))
    }

    /// Where the key's value is, if it is a list without anything in it.
    fn empty_list(&self, key: &str) -> Option<Span> {
        let (_, node) = self.entries.iter().find(|(k, _)| k.value == key)?;
        matches!(&node.value, Value::List(nodes) if nodes.is_empty()).then_some(node.at)
    }

    /// The key's own place.
    pub(super) fn place_of(&self, key: &str) -> Option<Span> {
        self.entries.iter().find(|(k, _)| k.value == key).map(|(k, _)| k.at)
    }

    /// Takes a field and reads it.
    pub(super) fn read<T>(
        &mut self,
        key: &str,
        findings: &mut Findings,
        read: impl FnOnce(&Node) -> Result<T, Diagnostic>,
    ) -> Option<T> {
        self.take(key).and_then(|node| findings.take(read(&node)))
    }

    /// Takes a field that may be one value or a list of them; `None` if it is absent.
    pub(super) fn read_list<T>(
        &mut self,
        key: &str,
        findings: &mut Findings,
        read: impl Fn(&Node) -> Result<T, Diagnostic>,
    ) -> Option<Vec<T>> {
        let node = self.take(key)?;
        let nodes = match node.value {
            Value::List(nodes) => nodes,
            _ => vec![node],
        };
        Some(nodes.iter().filter_map(|node| findings.take(read(node))).collect())
    }

    /// As [`Fields::read_list`], where an empty list would mean the opposite of what it says: a
    /// rule for no address would be a rule for all of them.
    pub(super) fn read_some<T>(
        &mut self,
        key: &str,
        findings: &mut Findings,
        read: impl Fn(&Node) -> Result<T, Diagnostic>,
    ) -> Vec<T> {
        if let Some(at) = self.empty_list(key) {
            findings.push(
                Diagnostic::error(Kind::Shape, at, format!("`{key}` is an empty list"))
                    .help(format!("leave `{key}` out if it may be anything")),
            );
        }
        self.read_list(key, findings, read).unwrap_or_default()
    }
}

/// A mapping from names that the user chooses: `users`, `groups`, `classes`.
pub(super) fn named(node: Node, what: &str, findings: &mut Findings) -> Vec<(Written<Key>, Node)> {
    let entries = entries(node, what, findings);
    let mut named = Vec::with_capacity(entries.len());
    for (name, value) in entries {
        if let Some(key) = findings.take(key(&name)) {
            named.push((key, value));
        }
    }
    named
}

/// The entries of a mapping with any keys; a repeated one is an error.
pub(super) fn entries(
    node: Node,
    what: &str,
    findings: &mut Findings,
) -> Vec<(Written<String>, Node)> {
    let list = match node.value {
        Value::Map(entries) => entries,
        Value::Null => return Vec::new(),
        value => {
            let message = format!("`{what}` must be a mapping, but this is {}", value.sort());
            findings.push(
                Diagnostic::error(Kind::Shape, node.at, message).help(meant::mapping(what, &value)),
            );
            return Vec::new();
        }
    };
    let mut seen: HashMap<String, Span> = HashMap::with_capacity(list.len());
    let mut unique = Vec::with_capacity(list.len());
    for (name, value) in joined(list) {
        match seen.get(&name.value) {
            Some(first) => findings.push(duplicate(&name, *first, &format!("`{what}`"))),
            None => {
                seen.insert(name.value.clone(), name.at);
                unique.push((name, value));
            }
        }
    }
    unique
}

/// Within braces a comma ends a value: what is meant as one (`1,5mbit`, `80,443`) is read as a
/// value and a key without one. The two become one text again, for which its reader has the cure.
fn joined(entries: Vec<Entry>) -> Vec<Entry> {
    let mut joined: Vec<Entry> = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        let before = joined.last_mut().filter(|_| matches!(value.value, Value::Null));
        if !before.is_some_and(|(_, before)| join(before, &key)) {
            joined.push((key, value));
        }
    }
    joined
}

/// Adds a key without a value to the number before it, if one comma is all between the two.
fn join(before: &mut Node, key: &Written<String>) -> bool {
    let Value::Scalar(text) = &mut before.value else { return false };
    let is_digit = |c: char| c.is_ascii_digit();
    let are_one = before.at.end + 1 == key.at.start
        && text.ends_with(is_digit)
        && key.value.starts_with(is_digit);
    if are_one {
        text.push(',');
        text.push_str(&key.value);
        before.at.end = key.at.end;
    }
    are_one
}

fn key(name: &Written<String>) -> Result<Written<Key>, Diagnostic> {
    if let Some(word) = Reserved::of(&name.value) {
        return Err(Diagnostic::error(
            Kind::Name,
            name.at,
            format!("the name {} is reserved", quote(&name.value)),
        )
        .help(match word {
            Reserved::Root => "for the account root, write a label of your own with `uids: 0`",
            Reserved::Everyone => {
                "`everyone` is a line of its own at the top level, beside `users`"
            }
            Reserved::Default => OF_A_LINK,
            Reserved::Unshaped | Reserved::Link => {
                "choose another name; `accounts` says which account it is for"
            }
        }));
    }
    match Key::new(&name.value) {
        Some(key) => Ok(Written { value: key, at: name.at }),
        None => Err(Diagnostic::error(
            Kind::Name,
            name.at,
            format!("{} is no safe name: it becomes a directory's", quote(&name.value)),
        )
        .help("use 1 to 200 bytes without `/` and control characters, not starting with `.`; `accounts` or `uids` can then name any account")),
    }
}

fn duplicate(key: &Written<String>, first: Span, what: &str) -> Diagnostic {
    Diagnostic::error(Kind::Shape, key.at, format!("{} stands twice in {what}", quote(&key.value)))
        .label("again here")
        .also(first, "first here")
        .help("keep one of the two")
}

/// The key that was meant by one that there is not.
fn near<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    meant::key(key, known).or_else(|| closest(key, known.iter().copied()))
}

/// Whether there is more to say of an unknown key than that there is none.
fn is_about_the_policy(key: &str, known: &[&str]) -> bool {
    let later = LATER.iter().any(|(name, _)| *name == key);
    later || ["default", "ingress", "download"].contains(&key) || near(key, known).is_some()
}

fn unknown_key(key: &Written<String>, what: &str, known: &[&str]) -> Diagnostic {
    if let Some((name, means)) = LATER.iter().find(|(name, _)| *name == key.value) {
        return Diagnostic::error(
            Kind::Unsupported,
            key.at,
            format!("`{name}` ({means}) is not in this version"),
        )
        .help("remove it; the name is reserved for a later version");
    }
    if key.value == "default" {
        let message = format!("unknown key `default` in {what}");
        return Diagnostic::error(Kind::Shape, key.at, message).help(OF_A_LINK);
    }
    if key.value == "quota" {
        let message = format!("{what} has no quota");
        return Diagnostic::error(Kind::Shape, key.at, message).help(
            "users, groups, `each` and `everyone` have: `users: {bob: {ceil: 1gbit, quota: {month: 1TB, then: 10mbit}}}`",
        );
    }
    if ["ingress", "download"].contains(&key.value.as_str()) {
        let message = format!("unknown key {} in {what}", quote(&key.value));
        return Diagnostic::error(Kind::Shape, key.at, message)
            .help("what arrives is `down`: `links: {eth0: {rate: 100mbit, down: 50mbit}}`, `users: {bob: {down: 10mbit}}`");
    }
    if let Some(help) = of_a_window(&key.value, known) {
        let message = format!("unknown key {} in {what}", quote(&key.value));
        return Diagnostic::error(Kind::Shape, key.at, message).help(help);
    }
    let by_user = ["prio", "background"].contains(&key.value.as_str());
    let of_all = known.contains(&"ceil") && !known.contains(&"prio");
    if by_user && of_all {
        let message = format!("{what} has no {}", quote(&key.value));
        return Diagnostic::error(Kind::Shape, key.at, message).help(
            "HTB ignores it on a class that has classes below: write it on the users, or in `each`",
        );
    }
    let near = near(&key.value, known);
    let help = match (meant::in_one_word(&key.value), near) {
        (Some(cure), _) => format!("write a colon and a space: {cure}"),
        (None, Some(name)) => {
            format!("did you mean `{name}`? {what} may have {}", known.join(", "))
        }
        (None, None) => format!("{what} may have {}", known.join(", ")),
    };
    Diagnostic::error(Kind::Shape, key.at, format!("unknown key {} in {what}", quote(&key.value)))
        .help(help)
}

/// What to write instead of a key with which a window could say when it is, or which only a window
/// and a quota have.
fn of_a_window(key: &str, known: &[&str]) -> Option<String> {
    let key = key.to_ascii_lowercase();
    let is_zone = ["tz", "timezone", "time_zone", "zone"].contains(&key.as_str());
    if !known.contains(&"days") {
        return is_zone.then(|| {
            "a window and a quota have one: `times: {night: {at: \"22:00-06:00\", tz: Europe/Berlin}}`; left out it is the host's zone"
                .to_string()
        });
    }
    if is_zone {
        return Some("write `tz: Europe/Berlin`".to_string());
    }
    const ENDS: [&str; 10] =
        ["from", "to", "until", "start", "end", "begin", "starts", "ends", "hours", "time"];
    if ENDS.contains(&key.as_str()) {
        return Some("write both ends in one: `at: \"22:00-06:00\"`".to_string());
    }
    // Within braces a comma ends a value.
    let day = cures::days(&key).filter(|_| !key.is_empty())?;
    Some(format!("several days are a list: `days: [mon-wed, {day}]`"))
}

/// A key of the top level, below one that has nothing: it begins too far left to be in that one.
fn not_indented(key: &Written<String>, above: &str) -> Diagnostic {
    let message = format!("unknown key {} in the policy", quote(&key.value));
    Diagnostic::error(Kind::Shape, key.at, message)
        .help(format!("to have it in `{above}`, begin its line with two spaces"))
}

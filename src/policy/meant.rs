//! What somebody means who writes a key or a mapping as other tools do, and what to write instead.
//! Touches nothing.

use super::diagnostic::quote;
use super::node::{Entry, Node, Value};
use crate::units::{Percent, Rate};

/// Keys as people and other tools call them, and what we call them, the likeliest first.
const KEYS: [(&[&str], &[&str]); 10] = [
    (
        &["ceiling", "max", "maximum", "limit", "cap", "peak", "maxrate", "up", "upload", "egress"],
        &["ceil", "rate"],
    ),
    (
        &["min", "minimum", "guarantee", "guaranteed", "reserved", "bandwidth", "speed", "bw"],
        &["rate"],
    ),
    (&["ingress", "download", "incoming"], &["down"]),
    (&["priority"], &["prio"]),
    (&["members", "member"], &["users", "accounts"]),
    (&["source", "saddr", "from_ip"], &["src"]),
    (&["destination", "daddr", "ip"], &["dst", "addresses"]),
    (&["protocol"], &["proto"]),
    (&["target", "class", "flowid", "user"], &["to", "users"]),
    (&["interface", "dev", "device", "iface", "nic", "interfaces"], &["links", "link"]),
];

/// The one of the known keys that is meant.
pub(super) fn key<'a>(written: &str, known: &[&'a str]) -> Option<&'a str> {
    let lower = written.to_ascii_lowercase().replace(['-', ' '], "_");
    let means = KEYS.iter().find(|(theirs, _)| theirs.contains(&lower.as_str()));
    let ours = means.into_iter().flat_map(|(_, ours)| ours.iter());
    ours.filter_map(|ours| known.iter().find(|key| *key == ours).copied()).next()
}

/// `ceil:10mbit` within braces, or `ceil=10mbit`: a key and its value in one word.
pub(super) fn in_one_word(text: &str) -> Option<String> {
    let (key, value) = text.split_once([':', '='])?;
    let (key, value) = (key.trim(), value.trim());
    let is_word = |text: &str| !text.is_empty() && !text.contains(char::is_whitespace);
    (is_word(key) && !value.is_empty() && !value.contains([':', '=']))
        .then(|| quote(&format!("{key}: {value}")))
}

/// `eth0:1gbit` is one word to YAML.
pub(super) fn missing_space(found: &Value) -> Option<String> {
    let Value::Scalar(text) = found else { return None };
    let (key, value) = text.split_once(':')?;
    Some(format!("write a space after the colon: {}", quote(&format!("{key}: {value}"))))
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c == '=' || c.is_whitespace()).filter(|word| !word.is_empty())
}

fn colon(name: &str, value: &str) -> String {
    format!("write a colon after the name: {}", quote(&format!("{name}: {value}")))
}

/// What to write instead of a key that is a name and a limit, as `bob 10 mbit`; `None`: it is not.
pub(super) fn missing_colon(key: &str) -> Option<String> {
    let mut words = words(key);
    let (name, limit) = (words.next()?, words.collect::<String>());
    let is_limit = limit.parse::<Rate>().is_ok() || limit.parse::<Percent>().is_ok();
    is_limit.then(|| colon(name, &limit))
}

/// What to write instead of a value that is no mapping from names; `what`: the key.
pub(super) fn mapping(what: &str, found: &Value) -> String {
    if let Some(cure) = missing_space(found) {
        return cure;
    }
    match found {
        // YAML makes one text of several such lines.
        Value::Scalar(text) => {
            let mut words = words(text);
            match (words.next(), words.next()) {
                (Some(name), Some(value)) => colon(name, value),
                _ => format!("write {}", quote(&format!("{what}: {{{text}: …}}"))),
            }
        }
        Value::List(nodes) => match nodes.first().map(|node| &node.value) {
            Some(Value::Map(entries)) if !entries.is_empty() => {
                format!("leave out the dashes: {}", quote(&entry(entries)))
            }
            Some(Value::Scalar(name)) => {
                format!("write {}", quote(&format!("{what}: {{{name}: …}}")))
            }
            _ => format!("write for example `{what}: {{name: …}}`"),
        },
        _ => format!("write for example `{what}: {{name: …}}`"),
    }
}

/// The first entry, as it would stand in a mapping.
fn entry(entries: &[Entry]) -> String {
    match entries.first() {
        Some((key, Node { value: Value::Scalar(text), .. })) => format!("{}: {text}", key.value),
        Some((key, _)) => format!("{}: …", key.value),
        None => String::new(),
    }
}

/// The ports of services that people write by their names (/etc/services).
const SERVICES: [(&str, u16); 13] = [
    ("ftp", 21),
    ("ssh", 22),
    ("smtp", 25),
    ("dns", 53),
    ("domain", 53),
    ("http", 80),
    ("ntp", 123),
    ("imap", 143),
    ("https", 443),
    ("imaps", 993),
    ("rsync", 873),
    ("nfs", 2049),
    ("mysql", 3306),
];

/// The port of a service.
pub(super) fn port(service: &str) -> Option<u16> {
    let lower = service.to_ascii_lowercase();
    SERVICES.iter().find(|(name, _)| *name == lower).map(|(_, port)| *port)
}

/// Words for all protocols.
pub(super) fn is_any(text: &str) -> bool {
    ["all", "any", "ip", "*", "both"].contains(&text.to_ascii_lowercase().as_str())
}

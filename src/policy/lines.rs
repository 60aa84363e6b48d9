//! The file's top level, and the lines of `users`, `groups`, `everyone` and `classes`. Touches
//! nothing.

use std::collections::HashMap;

use crate::tree::Key;

use super::diagnostic::{Diagnostic, Findings, Kind, quote};
use super::document::{
    ClassLine, EveryoneLine, Follow, GroupLine, Limits, Membership, Networks, Policy, UserLine,
};
use super::fields::{Fields, named};
use super::limits::{limit_fields, limits, of_each};
use super::node::{Node, Value};
use super::pattern::Pattern;
use super::source::{Source, Span, Written};
use super::{guests, links, meant, packets, rules, scalars, times};

/// Reads the whole document. `None` only where an error was found.
pub(super) fn policy(root: Node, source: Source, findings: &mut Findings) -> Option<Policy> {
    const KEYS: [&str; 9] =
        ["version", "links", "users", "groups", "everyone", "classes", "guests", "times", "rules"];
    let at = root.at;
    let root = without_anchors_room(root);
    let mut fields = Fields::open(root, "the policy", &KEYS, findings)?;
    version(fields.take("version"), at, findings);
    let (links_at, everyone_at) = (fields.place_of("links"), fields.place_of("everyone"));
    let guests_at = fields.place_of("guests");
    let mut section = |name: &str| fields.take(name);
    let links =
        section("links").map(|node| (links_at.unwrap_or(node.at), links::links(node, findings)));
    let names_a_link = links.as_ref().is_some_and(|(_, links)| !links.is_empty());
    // After other errors, the key `links` may be there and be misspelt.
    if !names_a_link && !findings.has_errors() {
        let at = links.as_ref().map_or(Span { end: at.start, ..at }, |(at, _)| *at);
        findings.push(
            Diagnostic::error(Kind::Link, at, "no link is named")
                .help("write `links: {auto: }` for the interface of the default route, or name it: `links: {eth0: {rate: 950mbit}}`"),
        );
    }
    let users = section("users").map_or_else(Vec::new, |node| users(node, findings));
    let groups = section("groups").map_or_else(Vec::new, |node| groups(node, findings));
    let everyone = section("everyone")
        .and_then(|node| everyone(everyone_at.unwrap_or(node.at), node, findings));
    let classes = section("classes").map_or_else(Vec::new, |node| classes(node, findings));
    let guests = section("guests")
        .map_or_else(Vec::new, |node| guests::guests(guests_at.unwrap_or(node.at), node, findings));
    let times = section("times").map_or_else(Vec::new, |node| times::times(node, findings));
    let rules = section("rules").map_or_else(Vec::new, |node| rules::rules(node, findings));
    distinct(&users, &classes, findings);
    let (links_at, links) = links.unwrap_or((at, Vec::new()));
    Some(Policy { source, links_at, links, users, groups, everyone, classes, times, guests, rules })
}

/// Top-level `x-*` is a place for YAML anchors.
fn without_anchors_room(mut root: Node) -> Node {
    if let Value::Map(entries) = &mut root.value {
        entries.retain(|(key, _)| !key.value.starts_with("x-"));
    }
    root
}

fn version(node: Option<Node>, at: Span, findings: &mut Findings) {
    let Some(node) = node.filter(|node| !matches!(node.value, Value::Null)) else {
        findings.push(
            Diagnostic::error(
                Kind::Shape,
                Span { end: at.start, ..at },
                "the file has no `version`",
            )
            .help("write `version: 1` as its first line"),
        );
        return;
    };
    let Some(version) = findings.take(scalars::text(&node, "version", "1")) else { return };
    if version.value != "1" {
        findings.push(
            Diagnostic::error(
                Kind::Shape,
                node.at,
                format!("{} is no version that this shaper can read", quote(&version.value)),
            )
            .help("write `version: 1`"),
        );
    }
}

fn users(node: Node, findings: &mut Findings) -> Vec<UserLine> {
    let named = named(node, "users", findings);
    named.into_iter().filter_map(|(key, node)| user(key, node, findings)).collect()
}

/// Of a line of `users`.
const USER_KEYS: [&str; 19] = [
    "rate",
    "ceil",
    "boost",
    "down",
    "prio",
    "background",
    "when",
    "quota",
    "classid",
    "accounts",
    "uids",
    "units",
    "containers",
    "interfaces",
    "namespaces",
    "addresses",
    "follow",
    "group",
    "links",
];

fn user(key: Written<Key>, node: Node, findings: &mut Findings) -> Option<UserLine> {
    let mut line = UserLine {
        key,
        limits: Limits::none(node.at),
        classid: None,
        accounts: None,
        uids: None,
        units: None,
        containers: None,
        interfaces: None,
        namespaces: None,
        addresses: None,
        follow: Follow::No,
        group: None,
        links: Vec::new(),
    };
    if let Value::Scalar(_) = node.value {
        no_pattern(&line, findings);
        line.limits = limits(node, "user", findings)?;
        return Some(line);
    }
    let mut fields = Fields::open(node, "a user", &USER_KEYS, findings)?;
    // A rate that was refused is reported already, so it does not also count as missing.
    let had_unknown = fields.had_unknown;
    let asks_for_something = asks_for_something(&fields);
    line.limits = limit_fields(&mut fields, &USER_KEYS, findings);
    line.classid = fields.read("classid", findings, scalars::classid);
    line.accounts = fields.read_list("accounts", findings, scalars::account);
    line.uids = fields.read_list("uids", findings, scalars::uids);
    line.units = fields.read_list("units", findings, scalars::unit);
    line.containers = fields.read_list("containers", findings, guests::container);
    line.interfaces = fields.read_list("interfaces", findings, guests::interface);
    line.namespaces = fields.read_list("namespaces", findings, guests::namespace);
    line.addresses = addresses(&mut fields, findings);
    let follow_at = fields.place_of("follow");
    let follow = |node: &Node| scalars::choice(node, "follow", &[("effective", Follow::Effective)]);
    line.follow = fields.read("follow", findings, follow).unwrap_or_default();
    if let (Some(at), None) = (follow_at, &line.units) {
        findings.push(follows_no_unit(at));
    }
    line.group = fields.read("group", findings, |node| {
        scalars::text(node, "group", "students").map(|name| Written {
            at: name.at,
            value: match name.value.as_str() {
                "none" => Membership::None,
                _ => Membership::In(name.value),
            },
        })
    });
    if let Some(node) = fields.take("links") {
        line.links = links::on_links(node, findings);
    }
    no_pattern(&line, findings);
    if !asks_for_something && !had_unknown {
        findings.push(asks_for_nothing(&line.key));
    }
    Some(line)
}

/// Nobody's packets would come from no address, and all of its `interfaces` would be the line's.
fn addresses(fields: &mut Fields, findings: &mut Findings) -> Option<Vec<Written<Networks>>> {
    fields.place_of("addresses")?;
    let read = |node: &Node| packets::networks(node, "addresses");
    Some(fields.read_some("addresses", findings, read))
}

/// A label may be any text; an account's name may not.
fn no_pattern(line: &UserLine, findings: &mut Findings) {
    let name = line.key.value.as_str();
    if line.names_account() && Pattern::new(name).is_some() {
        let name = Written { value: name.to_string(), at: line.key.at };
        findings.push(scalars::no_accounts(&name));
    }
}

fn follows_no_unit(at: Span) -> Diagnostic {
    Diagnostic::error(Kind::Shape, at, "`follow` on a line without `units`").help(
        "add the server's unit, `units: [smbd.service]`: of its processes the effective uid counts; what `accounts` and `uids` name counts by the real one",
    )
}

/// With a `down` alone what is sent has no limit of its own.
fn asks_for_something(fields: &Fields) -> bool {
    ["rate", "ceil", "down"].iter().any(|key| fields.place_of(key).is_some())
}

fn asks_for_nothing(key: &Written<Key>) -> Diagnostic {
    let name = key.value.as_str();
    let help = meant::missing_colon(name).unwrap_or_else(|| {
        "write a cap, `ceil: 100mbit`, a guarantee, `rate: 10mbit`, or both".to_string()
    });
    Diagnostic::error(Kind::Rate, key.at, format!("{} has neither a rate nor a ceil", quote(name)))
        .help(help)
}

fn classes(node: Node, findings: &mut Findings) -> Vec<ClassLine> {
    let named = named(node, "classes", findings);
    named.into_iter().filter_map(|(key, node)| class(key, node, findings)).collect()
}

fn class(key: Written<Key>, node: Node, findings: &mut Findings) -> Option<ClassLine> {
    const KEYS: [&str; 9] =
        ["rate", "ceil", "boost", "down", "prio", "background", "when", "classid", "links"];
    if let Value::Scalar(_) = node.value {
        let limits = limits(node, "class", findings)?;
        return Some(ClassLine { key, limits, classid: None, links: Vec::new() });
    }
    let mut fields = Fields::open(node, "a class", &KEYS, findings)?;
    if !asks_for_something(&fields) && !fields.had_unknown {
        findings.push(asks_for_nothing(&key));
    }
    let limits = limit_fields(&mut fields, &KEYS, findings);
    let classid = fields.read("classid", findings, scalars::classid);
    let links = fields.take("links").map_or_else(Vec::new, |n| links::on_links(n, findings));
    Some(ClassLine { key, limits, classid, links })
}

fn groups(node: Node, findings: &mut Findings) -> Vec<GroupLine> {
    let named = named(node, "groups", findings);
    named.into_iter().filter_map(|(key, node)| group(key, node, findings)).collect()
}

fn group(key: Written<Key>, node: Node, findings: &mut Findings) -> Option<GroupLine> {
    const KEYS: [&str; 10] =
        ["rate", "ceil", "boost", "down", "when", "quota", "gid", "parent", "users", "each"];
    if let Value::Scalar(_) = node.value {
        findings.push(
            Diagnostic::error(
                Kind::Shape,
                node.at,
                "a group must be a mapping, but this is a single value",
            )
            .help("one rate could mean all together or each: write `ceil: …` or `each: {ceil: …}`"),
        );
        return None;
    }
    let mut fields = Fields::open(node, "a group", &KEYS, findings)?;
    let each_at = fields.place_of("each");
    let limits = limit_fields(&mut fields, &KEYS, findings);
    let gid_is_written = fields.place_of("gid").is_some();
    let gid = fields.read("gid", findings, scalars::gid);
    let parent = fields.read("parent", findings, |node| scalars::text(node, "parent", "students"));
    let users = fields
        .read_list("users", findings, |node| scalars::text(node, "users", "[bob, ann]"))
        .unwrap_or_default();
    let each = fields.take("each").and_then(|node| of_each(node, findings));
    if !gid_is_written && let Some(at) = each_at {
        findings.push(
            Diagnostic::error(Kind::Group, at, "`each` without `gid`")
                .help("`each` is for the accounts of a Unix group: add `gid: NAME`; users that are listed have limits on their own lines"),
        );
    }
    Some(GroupLine { key, limits, gid, parent, users, each })
}

fn everyone(at: Span, node: Node, findings: &mut Findings) -> Option<EveryoneLine> {
    const KEYS: [&str; 8] = ["uids", "rate", "ceil", "boost", "down", "when", "quota", "each"];
    let none = Limits::none(node.at);
    if let Value::Scalar(_) = node.value {
        let each = limits(node, "everyone", findings)?;
        return Some(EveryoneLine { at, uids: None, limits: none, each: Some(each) });
    }
    let mut fields = Fields::open(node, "`everyone`", &KEYS, findings)?;
    let limits = limit_fields(&mut fields, &KEYS, findings);
    let uids = fields.read_list("uids", findings, scalars::uids);
    let each = fields.take("each").and_then(|node| of_each(node, findings));
    Some(EveryoneLine { at, uids, limits, each })
}

/// Rules name users and classes alike, so a name is one or the other.
fn distinct(users: &[UserLine], classes: &[ClassLine], findings: &mut Findings) {
    let users: HashMap<&str, Span> =
        users.iter().map(|user| (user.key.value.as_str(), user.key.at)).collect();
    for class in classes {
        let name = class.key.value.as_str();
        if let Some(user) = users.get(name) {
            findings.push(
                Diagnostic::error(
                    Kind::Name,
                    class.key.at,
                    format!(
                        "{} is a user and a class: a rule could not tell them apart",
                        quote(name)
                    ),
                )
                .label("the class")
                .also(*user, "the user")
                .help("give the class another name"),
            );
        }
    }
}

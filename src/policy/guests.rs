//! Guests: how a line names containers, links behind which guests are, and their namespaces; and
//! `guests`, how one that no line names finds its user. Touches nothing.

use super::diagnostic::{Diagnostic, Findings, Kind, quote};
use super::document::{ContainerRef, GuestOwner, LinkRef};
use super::fields::Fields;
use super::node::{Node, Value};
use super::pattern::Pattern;
use super::scalars;
use super::source::{Span, Written};

/// A container's name, a pattern of names, or `label:KEY=VALUE`.
pub(super) fn container(node: &Node) -> Result<Written<ContainerRef>, Diagnostic> {
    const LABEL: &str = "label:";
    let written = scalars::text(node, "containers", "[web-*]")?;
    let bad = |message: String| {
        Diagnostic::error(Kind::Name, node.at, message).help(
            "write a container's name as its engine lists it, a pattern, `web-*`, or a label in quotes, \"label:owner=bob\"",
        )
    };
    let text = written.value.as_str();
    if let Some(label) = text.strip_prefix(LABEL) {
        return match label.split_once('=') {
            Some((key, value)) if !key.is_empty() => {
                let value = ContainerRef::Label(key.to_string(), value.to_string());
                Ok(Written { value, at: node.at })
            }
            _ => Err(bad(format!("{} names no label and its value", quote(text)))),
        };
    }
    let is_bad = |c: char| c == '/' || c.is_whitespace() || c.is_control();
    if text.is_empty() || text.contains(is_bad) {
        return Err(bad(format!("{} can be no container's name", quote(text))));
    }
    let name = || ContainerRef::Name(text.to_string());
    let value = Pattern::new(text).map_or_else(name, ContainerRef::Pattern);
    Ok(Written { value, at: node.at })
}

/// A link behind which guests are, by its name, another name of it, or a pattern.
pub(super) fn interface(node: &Node) -> Result<Written<LinkRef>, Diagnostic> {
    let name = scalars::link(&scalars::text(node, "interfaces", "[vnet3]")?)?;
    match name.value {
        LinkRef::Auto => Err(Diagnostic::error(
            Kind::Link,
            name.at,
            "`auto` is the link of the default route, and no guests are behind that one",
        )
        .help("name the guest's link, as `ip link` shows it on the host: `vnet3`, `tap0`, `wg0`")),
        _ => Ok(name),
    }
}

/// A named network namespace.
pub(super) fn namespace(node: &Node) -> Result<Written<String>, Diagnostic> {
    let name = scalars::text(node, "namespaces", "[routerns]")?;
    let text = name.value.as_str();
    let error = |message: String| Err(Diagnostic::error(Kind::Name, node.at, message));
    let is_bad = |c: char| c == '/' || c.is_control();
    if text.is_empty() || matches!(text, "." | "..") || text.contains(is_bad) {
        return error(format!("{} can be no network namespace's name", quote(text)))
            .map_err(|bad| bad.help("write a name that `ip netns` lists"));
    }
    if Pattern::new(text).is_some() {
        return error(format!("{} is a pattern, and namespaces have none", quote(text))).map_err(
            |bad| bad.help("name each, or the links to them: `interfaces: [\"veth-*\"]`"),
        );
    }
    Ok(name)
}

const OWNERS: [(&str, GuestOwner); 3] =
    [("label", GuestOwner::Label), ("slice", GuestOwner::Slice), ("uid", GuestOwner::Uid)];

/// `guests: {owner: [label, slice, uid]}`.
pub(super) fn guests(at: Span, node: Node, findings: &mut Findings) -> Vec<Written<GuestOwner>> {
    let example = "write `guests: {owner: [label, slice, uid]}`";
    if let Value::Scalar(_) = node.value {
        let message = "`guests` must be a mapping, but this is a single value";
        findings.push(Diagnostic::error(Kind::Shape, node.at, message).help(example));
        return Vec::new();
    }
    let Some(mut fields) = Fields::open(node, "`guests`", &["owner"], findings) else {
        return Vec::new();
    };
    let owner = |node: &Node| {
        let value = scalars::choice(node, "owner", &OWNERS)?;
        Ok(Written { value, at: node.at })
    };
    if fields.place_of("owner").is_none() && !fields.had_unknown {
        let message = "`guests` says nothing";
        findings.push(Diagnostic::error(Kind::Shape, at, message).help(example));
    }
    let owners = fields.read_list("owner", findings, owner).unwrap_or_default();
    let twice = owners.iter().enumerate().find_map(|(index, owner)| {
        let first = owners[..index].iter().find(|other| other.value == owner.value)?;
        Some((first.at, owner.at))
    });
    if let Some((first, again)) = twice {
        findings.push(
            Diagnostic::error(Kind::Shape, again, "this stands twice in `owner`")
                .also(first, "first here")
                .help("keep one of the two: the first that is found decides"),
        );
    }
    owners
}

//! `links`: one line each. Touches nothing.

use crate::tree::Classifier;

use super::diagnostic::{Diagnostic, Findings, Kind};
use super::document::{LeafChoice, LinkLine, LinkRef, OnLink};
use super::fields::{Fields, entries};
use super::node::{Node, Value};
use super::scalars::Purpose;
use super::source::Written;
use super::{limits, scalars};

const CLASSIFIERS: [(&str, Option<Classifier>); 3] =
    [("auto", None), ("cgroup", Some(Classifier::Cgroup)), ("bpf", Some(Classifier::Bpf))];

const LEAVES: [(&str, LeafChoice); 6] = [
    ("auto", LeafChoice::Auto),
    ("fq_codel", LeafChoice::FqCodel),
    ("sfq", LeafChoice::Sfq),
    ("bfifo", LeafChoice::Bfifo),
    ("pfifo", LeafChoice::Pfifo),
    ("cake", LeafChoice::Cake),
];

pub(super) fn links(node: Node, findings: &mut Findings) -> Vec<LinkLine> {
    let mut links = Vec::new();
    for (name, node) in entries(node, "links", findings) {
        if let Some(name) = findings.take(scalars::link(&name)) {
            links.extend(link(name, node, findings));
        }
    }
    links
}

/// `eth0: {rate: 950mbit, …}`; the short form `eth0: 950mbit` is its rate.
fn link(name: Written<LinkRef>, node: Node, findings: &mut Findings) -> Option<LinkLine> {
    let mut line = LinkLine {
        name,
        rate: None,
        down: None,
        bypass_firewall: false,
        default: None,
        classifier: None,
        leaf: LeafChoice::Auto,
        optional: false,
    };
    if let Value::Scalar(_) = node.value {
        line.rate = findings.take(scalars::amount(&node, "rate", Purpose::Link));
        return Some(line);
    }
    const KEYS: [&str; 7] =
        ["rate", "down", "bypass_firewall", "default", "classifier", "leaf", "optional"];
    let mut fields = Fields::open(node, "a link", &KEYS, findings)?;
    line.rate = fields.read("rate", findings, |node| scalars::amount(node, "rate", Purpose::Link));
    let has_down = fields.place_of("down").is_some();
    line.down =
        fields.read("down", findings, |node| scalars::amount(node, "down", Purpose::LinkDown));
    line.bypass_firewall = fields
        .read("bypass_firewall", findings, |node| scalars::boolean(node, "bypass_firewall"))
        .unwrap_or_default();
    line.default = fields.take("default").and_then(|node| limits::of_default(node, findings));
    let down = line.default.and_then(|default| default.down);
    if let Some(down) = down.filter(|_| !has_down) {
        findings.push(
            Diagnostic::error(
                Kind::Rate,
                down.at,
                "the default has a `down`, and the link has none",
            )
            .help("write what arrives by the link, `down: 940mbit`, beside its `rate`"),
        );
    }
    line.classifier = fields
        .read("classifier", findings, |node| scalars::choice(node, "classifier", &CLASSIFIERS))
        .flatten();
    if let Some(leaf) = fields.read("leaf", findings, |node| scalars::choice(node, "leaf", &LEAVES))
    {
        line.leaf = leaf;
    }
    line.optional = fields
        .read("optional", findings, |node| scalars::boolean(node, "optional"))
        .unwrap_or_default();
    Some(line)
}

/// `links` of a user or class: other limits there, or `none`.
pub(super) fn on_links(node: Node, findings: &mut Findings) -> Vec<(Written<LinkRef>, OnLink)> {
    let mut list = Vec::new();
    for (name, node) in entries(node, "links", findings) {
        let Some(name) = findings.take(scalars::link(&name)) else { continue };
        let on_link = match &node.value {
            Value::Scalar(text) if text == "none" => Some(OnLink::None),
            _ => limits::limits(node, "what a user has on one link", findings).map(OnLink::Limits),
        };
        list.extend(on_link.map(|on_link| (name, on_link)));
    }
    list
}

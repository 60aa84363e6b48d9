//! `links`: one line each. Touches nothing.

use crate::tree::Classifier;

use super::diagnostic::{Diagnostic, Findings, Kind};
use super::document::{LeafChoice, LinkLine, LinkRef, LinkWhen, OnLink};
use super::fields::{Fields, entries};
use super::node::{Node, Value};
use super::scalars::Purpose;
use super::source::Written;
use super::{limits, scalars};

const CLASSIFIERS: [(&str, Option<Classifier>); 4] = [
    ("auto", None),
    ("cgroup", Some(Classifier::Cgroup)),
    ("bpf", Some(Classifier::Bpf)),
    ("uid", Some(Classifier::Uid)),
];

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
        when: Vec::new(),
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
    const KEYS: [&str; 8] =
        ["rate", "down", "when", "bypass_firewall", "default", "classifier", "leaf", "optional"];
    let mut fields = Fields::open(node, "a link", &KEYS, findings)?;
    line.rate = fields.read("rate", findings, |node| scalars::amount(node, "rate", Purpose::Link));
    let has_down = fields.place_of("down").is_some();
    line.down =
        fields.read("down", findings, |node| scalars::amount(node, "down", Purpose::LinkDown));
    if let Some(node) = fields.take("when") {
        line.when = when(node, has_down, findings);
    }
    line.bypass_firewall = fields
        .read("bypass_firewall", findings, |node| scalars::boolean(node, "bypass_firewall"))
        .unwrap_or_default();
    line.default = fields.take("default").and_then(|node| limits::of_default(node, findings));
    let down = line.default.as_ref().and_then(|default| default.down);
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

/// `when` of a link: its rates while windows hold; the short form is the rate. `has_down`: the link
/// has a `down` at all times.
fn when(node: Node, has_down: bool, findings: &mut Findings) -> Vec<LinkWhen> {
    let mut list = Vec::new();
    for (window, node) in limits::windows(node, findings) {
        if let Value::Scalar(_) = node.value {
            let rate = findings.take(scalars::amount(&node, "rate", Purpose::Link));
            list.extend(rate.map(|rate| LinkWhen { window, rate: Some(rate), down: None }));
            continue;
        }
        let known = ["rate", "down"];
        let fields = Fields::open(node, "what a link has in a window", &known, findings);
        let Some(mut fields) = fields else { continue };
        let had_unknown = fields.had_unknown;
        let down_at = fields.place_of("down").filter(|_| !has_down);
        let is_empty = known.iter().all(|key| fields.place_of(key).is_none());
        let rate =
            fields.read("rate", findings, |node| scalars::amount(node, "rate", Purpose::Link));
        let down =
            fields.read("down", findings, |node| scalars::amount(node, "down", Purpose::LinkDown));
        if let Some(at) = down_at {
            findings.push(
                Diagnostic::error(Kind::Rate, at, "a `down` in a window, and the link has none")
                    .help("what arrives is shaped at all times or never, so that no packet is lost when the window begins: write `down` beside the link's `rate` too"),
            );
        }
        if is_empty && !had_unknown {
            findings.push(limits::nothing_else(&window));
        }
        list.push(LinkWhen { window, rate, down });
    }
    list
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

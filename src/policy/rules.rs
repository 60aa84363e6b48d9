//! `rules`: one line each, in the order in which they are asked. Touches nothing.

use super::diagnostic::{Diagnostic, Findings, Kind};
use super::fields::Fields;
use super::yaml::{Node, Value};
use super::{RuleLine, scalars};

pub(super) fn rules(node: Node, findings: &mut Findings) -> Vec<RuleLine> {
    match node.value {
        Value::List(nodes) => nodes.into_iter().filter_map(|node| rule(node, findings)).collect(),
        Value::Null => Vec::new(),
        value => {
            findings.push(scalars::wrong_type(
                node.at,
                "rules",
                &value,
                "a list",
                "[{dst: 10.0.0.0/8, to: unshaped}]",
            ));
            Vec::new()
        }
    }
}

fn rule(node: Node, findings: &mut Findings) -> Option<RuleLine> {
    const KEYS: [&str; 7] = ["src", "dst", "sport", "dport", "proto", "link", "to"];
    let mut fields = Fields::open(node, "a rule", &KEYS, findings)?;
    let at = fields.at;
    let mut networks = |fields: &mut Fields, what| {
        fields.read_some(what, findings, |node| scalars::network(node, what))
    };
    let (src, dst) = (networks(&mut fields, "src"), networks(&mut fields, "dst"));
    let mut ports = |fields: &mut Fields, what| {
        fields.read_some(what, findings, |node| scalars::port(node, what))
    };
    let (sport, dport) = (ports(&mut fields, "sport"), ports(&mut fields, "dport"));
    let proto = fields.read_some("proto", findings, scalars::proto);
    let link = fields.read("link", findings, |node| {
        scalars::text(node, "link", "eth0").and_then(|name| scalars::link(&name))
    });
    let Some(to) = fields.take("to") else {
        findings
            .push(Diagnostic::error(Kind::Rule, at, "a rule without `to`").help(
                "write where its packets go: `to:` a user, a class, `default` or `unshaped`",
            ));
        return None;
    };
    let to = findings.take(scalars::text(&to, "to", "default"))?;
    Some(RuleLine { at, src, dst, sport, dport, proto, link, to })
}

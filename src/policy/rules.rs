//! `rules`: one line each, in the order in which they are asked. Touches nothing.

use super::diagnostic::{Diagnostic, Findings, Kind};
use super::document::{Field, RuleLine};
use super::fields::Fields;
use super::node::{Node, Value};
use super::packets;
use super::scalars;
use super::source::Written;

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
    const KEYS: [&str; 9] = ["src", "dst", "sport", "dport", "proto", "vlan", "from", "link", "to"];
    let mut fields = Fields::open(node, "a rule", &KEYS, findings)?;
    let at = fields.at;
    let mut networks = |fields: &mut Fields, what| {
        field(fields, what, findings, |node| packets::networks(node, what))
    };
    let (src, dst) = (networks(&mut fields, "src"), networks(&mut fields, "dst"));
    let mut ports = |fields: &mut Fields, what| {
        field(fields, what, findings, |node| packets::ports(node, what))
    };
    let (sport, dport) = (ports(&mut fields, "sport"), ports(&mut fields, "dport"));
    let proto = field(&mut fields, "proto", findings, packets::proto);
    let vlan = field(&mut fields, "vlan", findings, packets::vlan);
    let from =
        field(&mut fields, "from", findings, |node| scalars::text(node, "from", "the user bob"));
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
    Some(RuleLine { at, src, dst, sport, dport, proto, vlan, from, link, to })
}

/// A value, a list of them, or either as `{not: …}`.
fn field<T>(
    fields: &mut Fields,
    key: &str,
    findings: &mut Findings,
    read: impl Fn(&Node) -> Result<Written<T>, Diagnostic>,
) -> Field<T> {
    if !fields.is_mapping(key) {
        return Field { not: false, values: fields.read_some(key, findings, read) };
    }
    let mut values = Vec::new();
    if let Some(node) = fields.take(key)
        && let Some(mut inside) = Fields::open(node, &format!("`{key}`"), &["not"], findings)
    {
        let at = inside.at;
        values = inside.read_some("not", findings, read);
        if values.is_empty() && !findings.has_errors() {
            findings.push(
                Diagnostic::error(Kind::Shape, at, format!("`{key}` is an empty mapping"))
                    .help(format!("write for example `{key}: {{not: …}}`, or leave it out")),
            );
        }
    }
    Field { not: true, values }
}

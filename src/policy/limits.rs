//! `rate`, `ceil`, `prio`, `background` and `down`, which lines of all sections have. Touches
//! nothing.

use super::diagnostic::{Diagnostic, Findings, Kind};
use super::document::{Down, LAST_PRIO, Limits};
use super::fields::Fields;
use super::node::{Node, Value};
use super::scalars::{self, Purpose};
use super::source::Span;

/// `rate`, `ceil`, `prio` and `background`; the short form is a ceil.
pub(super) fn limits(node: Node, what: &str, findings: &mut Findings) -> Option<Limits> {
    let keys = ["rate", "ceil", "prio", "background", "down"];
    limits_of(node, what, (&keys, LINE), findings)
}

/// As [`limits`], of a link's default. Root's own logins begin there, so it always has a guarantee
/// and cannot be `background`.
pub(super) fn of_default(node: Node, findings: &mut Findings) -> Option<Limits> {
    limits_of(node, "`default`", (&["rate", "ceil", "prio", "down"], DEFAULT), findings)
}

/// What a guarantee and a cap are for.
type Purposes = [Purpose; 2];

const LINE: Purposes = [Purpose::Rate, Purpose::Ceil];
const DEFAULT: Purposes = [Purpose::DefaultRate, Purpose::DefaultCeil];

/// As [`limits`], for some of those keys only.
fn limits_of(
    node: Node,
    what: &str,
    (keys, purposes): (&[&str], Purposes),
    findings: &mut Findings,
) -> Option<Limits> {
    let at = node.at;
    if let Value::Scalar(_) = node.value {
        let ceil = findings.take(scalars::amount(&node, "ceil", purposes[1]))?;
        return Some(Limits { ceil: Some(ceil), ..Limits::none(at) });
    }
    let mut fields = Fields::open(node, what, keys, findings)?;
    Some(fields_of(&mut fields, (keys, purposes), findings))
}

/// Reads the keys of limits from a mapping that has other keys beside them. `known`: all that it
/// may have; a `down` may have those of its keys that are among them.
pub(super) fn limit_fields(fields: &mut Fields, known: &[&str], findings: &mut Findings) -> Limits {
    fields_of(fields, (known, LINE), findings)
}

fn fields_of(
    fields: &mut Fields,
    (known, purposes): (&[&str], Purposes),
    findings: &mut Findings,
) -> Limits {
    let [rate, ceil] = purposes;
    let background = fields.place_of("background");
    let is_background =
        fields.read("background", findings, |node| scalars::boolean(node, "background"));
    let down_at = fields.place_of("down");
    let down = fields.take("down").zip(down_at);
    let limits = Limits {
        rate: fields.read("rate", findings, |node| scalars::amount(node, "rate", rate)),
        ceil: fields.read("ceil", findings, |node| scalars::amount(node, "ceil", ceil)),
        prio: fields.read("prio", findings, scalars::prio),
        background: background.filter(|_| is_background == Some(true)),
        down: down.and_then(|(node, at)| self::down((node, at), (known, purposes), findings)),
        at: fields.at,
    };
    contradictions(&limits, findings);
    limits
}

/// `down`: the short form is a ceil here too.
fn down(
    (node, at): (Node, Span),
    (known, [for_rate, for_ceil]): (&[&str], Purposes),
    findings: &mut Findings,
) -> Option<Down> {
    if let Value::Scalar(_) = node.value {
        let ceil = findings.take(scalars::amount(&node, "down", for_ceil))?;
        return Some(Down { rate: None, ceil: Some(ceil), prio: None, at });
    }
    let mut keys = vec!["rate", "ceil", "prio"];
    keys.retain(|key| known.contains(key));
    let mut fields = Fields::open(node, "`down`", &keys, findings)?;
    let had_unknown = fields.had_unknown;
    let is_empty = fields.place_of("rate").or(fields.place_of("ceil")).is_none();
    let rate = fields.read("rate", findings, |node| scalars::amount(node, "rate", for_rate));
    let ceil = fields.read("ceil", findings, |node| scalars::amount(node, "ceil", for_ceil));
    let prio = fields.read("prio", findings, scalars::prio);
    if is_empty && !had_unknown {
        findings.push(
            Diagnostic::error(Kind::Rate, at, "`down` has neither a rate nor a ceil").help(
                "write a cap, `down: 100mbit`, or a guarantee, `down: {rate: 10mbit}`, or both",
            ),
        );
    }
    Some(Down { rate, ceil, prio, at })
}

/// `background` is a `prio` and has no guarantee.
fn contradictions(limits: &Limits, findings: &mut Findings) {
    let Some(background) = limits.background else { return };
    if let Some(rate) = limits.rate.or(limits.down.and_then(|down| down.rate)) {
        findings.push(
            Diagnostic::error(Kind::Rate, rate.at, "`background` with a guaranteed `rate`")
                .label("the guarantee")
                .also(background, "served when nobody else wants")
                .help("remove `rate`, and write `ceil` for its cap; or remove `background` and write `prio: 7` for what is left over beyond the rate"),
        );
    }
    let prios = [limits.down.and_then(|down| down.prio), limits.prio];
    for prio in prios.into_iter().flatten().filter(|prio| prio.value != LAST_PRIO) {
        findings.push(
            Diagnostic::error(
                Kind::Shape,
                prio.at,
                format!("`background` with `prio: {}`", prio.value),
            )
            .also(background, "served when nobody else wants")
            .help(format!("`background` is `prio: {LAST_PRIO}`: remove one of the two")),
        );
    }
}

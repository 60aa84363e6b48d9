//! `rate`, `ceil`, `boost`, `prio`, `background`, `down`, `when` and `quota`, which lines of most
//! sections have. Touches nothing.

use super::diagnostic::{Diagnostic, Findings, Kind, quote};
use super::document::{Down, LAST_PRIO, Limits, When};
use super::fields::{Fields, entries};
use super::node::{Node, Value};
use super::quotas::quotas;
use super::scalars::{self, Purpose};
use super::source::{Span, Written};

/// `rate`, `ceil`, `boost`, `prio` and `background`; the short form is a ceil.
pub(super) fn limits(node: Node, what: &str, findings: &mut Findings) -> Option<Limits> {
    let keys = ["rate", "ceil", "boost", "prio", "background", "down", "when"];
    limits_of(node, what, (&keys, LINE), findings)
}

/// As [`limits`], of each account of a group or of `everyone`, which may have quotas too.
pub(super) fn of_each(node: Node, findings: &mut Findings) -> Option<Limits> {
    let keys = ["rate", "ceil", "boost", "prio", "background", "down", "when", "quota"];
    limits_of(node, "`each`", (&keys, LINE), findings)
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
    let mut limits = Limits {
        rate: fields.read("rate", findings, |node| scalars::amount(node, "rate", rate)),
        ceil: fields.read("ceil", findings, |node| scalars::amount(node, "ceil", ceil)),
        boost: fields.read("boost", findings, scalars::boost),
        prio: fields.read("prio", findings, scalars::prio),
        background: background.filter(|_| is_background == Some(true)),
        down: down.and_then(|(node, at)| self::down((node, at), (known, purposes), findings)),
        when: Vec::new(),
        quotas: fields.take("quota").map_or_else(Vec::new, |node| quotas(node, findings)),
        at: fields.at,
    };
    contradictions(&limits, findings);
    if let Some(node) = fields.take("when") {
        limits.when = when(node, (known, purposes), &limits, findings);
    }
    limits
}

/// `when`: windows by their names, each with the limits that hold in it. `line`: those that hold
/// otherwise.
fn when(
    node: Node,
    (known, purposes): (&[&str], Purposes),
    line: &Limits,
    findings: &mut Findings,
) -> Vec<When> {
    let mut keys = vec!["rate", "ceil", "boost", "prio", "down"];
    keys.retain(|key| known.contains(key));
    let mut found = Vec::new();
    for (window, node) in windows(node, findings) {
        let limits = limits_of(node, "what holds in a window", (&keys, purposes), findings);
        let Some(limits) = limits else { continue };
        let Limits { rate, ceil, boost, prio, down, .. } = &limits;
        let has_rates = rate.is_some() || ceil.is_some() || boost.is_some();
        if !has_rates && prio.is_none() && down.is_none() {
            findings.push(nothing_else(&window));
        } else if line.background.is_some() {
            // Said of the line by itself already, if it is wrong without the window.
            contradictions(&Limits { background: line.background, ..limits.clone() }, findings);
        }
        found.push(When { window, limits });
    }
    found
}

/// The entries of a `when`.
pub(super) fn windows(node: Node, findings: &mut Findings) -> Vec<(Written<String>, Node)> {
    let at = node.at;
    let windows = entries(node, "when", findings);
    if windows.is_empty() && !findings.has_errors() {
        findings.push(
            Diagnostic::error(Kind::Time, at, "`when` names no window")
                .help("write what holds in one, `when: {night: {ceil: 800mbit}}`, or remove it"),
        );
    }
    windows
}

/// Of a window in which the line has nothing else than outside it.
pub(super) fn nothing_else(window: &Written<String>) -> Diagnostic {
    let message = format!("nothing is written for the window {}", quote(&window.value));
    Diagnostic::error(Kind::Time, window.at, message)
        .help("write what holds then, `night: {ceil: 800mbit}`, or remove the window here")
}

/// `down`: the short form is a ceil here too.
fn down(
    (node, at): (Node, Span),
    (known, [for_rate, for_ceil]): (&[&str], Purposes),
    findings: &mut Findings,
) -> Option<Down> {
    if let Value::Scalar(_) = node.value {
        let ceil = findings.take(scalars::amount(&node, "down", for_ceil))?;
        return Some(Down { rate: None, ceil: Some(ceil), boost: None, prio: None, at });
    }
    let mut keys = vec!["rate", "ceil", "boost", "prio"];
    keys.retain(|key| known.contains(key));
    let mut fields = Fields::open(node, "`down`", &keys, findings)?;
    let had_unknown = fields.had_unknown;
    let is_empty = fields.place_of("rate").or(fields.place_of("ceil")).is_none();
    let rate = fields.read("rate", findings, |node| scalars::amount(node, "rate", for_rate));
    let ceil = fields.read("ceil", findings, |node| scalars::amount(node, "ceil", for_ceil));
    let boost = fields.read("boost", findings, scalars::boost);
    let prio = fields.read("prio", findings, scalars::prio);
    if is_empty && !had_unknown {
        findings.push(
            Diagnostic::error(Kind::Rate, at, "`down` has neither a rate nor a ceil").help(
                "write a cap, `down: 100mbit`, or a guarantee, `down: {rate: 10mbit}`, or both",
            ),
        );
    }
    Some(Down { rate, ceil, boost, prio, at })
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

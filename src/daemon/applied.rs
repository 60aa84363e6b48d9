//! The outcome of an apply, as [`shaping`](super::shaping) and the journal need it. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::shaping::{Outcome, Refusal, Text};
use crate::apply::Applied;
use crate::failure::Failure;
use crate::plan::{Change, Planned, Step, Whole};
use crate::policy::{Place, Policy, Report, Severity, Source};
use crate::tree::LinkName;

impl Text for Arc<Policy> {
    fn source(&self) -> &Source {
        &self.source
    }
}

/// Whether directories were made anew that somebody had removed. No process is in a new directory,
/// so all must be placed.
pub(super) fn made_anew(applied: &Applied) -> bool {
    let made_anew = |planned: &Planned| {
        let made =
            matches!(planned.step, Step::Claim(_, Change::Add(_)) | Step::Root(_, Whole::Add(_)));
        made && !planned.routine
    };
    applied.mounted() || applied.steps.iter().any(made_anew)
}

/// The links on which a step repaired what somebody had changed: steps that only follow logins and
/// logouts do not count.
pub(super) fn repaired(applied: &Applied) -> BTreeSet<LinkName> {
    let repairs = applied.steps.iter().filter(|planned| !planned.routine);
    repairs.filter_map(|planned| planned.step.link()).cloned().collect()
}

/// What a failed apply means for the daemon.
pub(super) fn outcome_of(failure: Failure) -> Outcome {
    match failure {
        Failure::Locked(why) => Outcome::Locked(why),
        failure @ (Failure::Policy(_) | Failure::Usage(_)) => Outcome::Refused(refusal(&failure)),
        failure => Outcome::Failed(failure.message()),
    }
}

/// Why a policy is refused, for the journal and in one line.
pub(super) fn refusal(failure: &Failure) -> Refusal {
    let text = failure.message();
    let first = |report: &Report| {
        let first = report.first()?;
        let file = report.file_of(first);
        Some(match first.place() {
            Some(Place { line, column }) => format!("{file}:{line}:{column}: {}", first.message),
            None => format!("{file}: {}", first.message),
        })
    };
    let brief = match failure {
        Failure::Policy(report) => first(report),
        _ => None,
    };
    Refusal { brief: brief.unwrap_or_else(|| text.clone()), text }
}

/// The sentences about an apply beside its steps, which `execute` logs.
pub(super) fn log_of(applied: &Applied, source: &Source) -> Vec<String> {
    let warnings = applied.warnings.iter().filter(|warning| warning.severity == Severity::Warning);
    let mut lines: Vec<String> = warnings
        .map(|warning| match warning.at {
            Some(at) => {
                format!("{}:{}: {}", source.file_at(at), at.place.line, warning.message)
            }
            None => warning.message.clone(),
        })
        .collect();
    lines.extend(applied.left.iter().map(|Planned { step, disturbs, .. }| {
        let whom: Vec<String> =
            disturbs.iter().map(|it| format!("{}: {}", it.who, it.why)).collect();
        format!("left undone, because it disturbs {}: {step}", whom.join("; "))
    }));
    lines
}

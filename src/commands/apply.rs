//! `shaper apply`: make the kernel match the policy, and report.

use std::path::Path;

use super::Output;
use super::report;
use crate::apply::{self, May, Options};
use crate::cli::Global;
use crate::failure::Failure;

/// Applies and reports.
pub fn apply(global: &Global, file: &Path, options: Options, may: May) -> Result<Output, Failure> {
    let mut session = super::session(global, file, options)?;
    let applied = apply::apply(&mut session, may, &mut apply::unless_interrupted)?;
    let mut output = match global.json {
        true => Output::json(report::applied_json(&applied, &session.kernel.paths(applied.psched))),
        false => Output::text(report::applied_text(&applied, global.quiet)),
    };
    output.warn(&session.policy, &applied.warnings, global);
    if !global.json {
        for warning in report::placement_warnings(&applied.placement) {
            output.stderr.push_str(&format!("warning: {warning}\n"));
        }
    }
    output.status = if applied.left.is_empty() { 0 } else { 5 };
    Ok(output)
}

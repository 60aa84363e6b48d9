//! `shaper clear`: everything that carries our mark goes, and what went is reported.

use super::daemon::{Beside, Daemon};
use super::output::Output;
use super::report::{self, Look};
use super::{scope, usage};
use crate::apply::{self, ApplyOptions};
use crate::cli::Global;
use crate::failure::Failure;

pub(super) fn clear(
    global: &Global,
    may: ApplyOptions,
    despite_daemon: bool,
) -> Result<Output, Failure> {
    let mut kernel = scope::open(global)?;
    apply::may_change(&kernel)?;
    if let Some(daemon) = Daemon::of(&kernel)?.filter(|_| !despite_daemon) {
        return Err(daemon.conflict(Beside::Clear));
    }
    if let Err(failure) = usage::count_out(global) {
        let why = failure.message();
        log::warn!("what was sent since the last apply is counted for no quota: {why}");
    }
    let applied = apply::clear(&mut kernel, may, &mut apply::unless_interrupted)?;
    let mut output = match global.json {
        true => Output::json(&report::applied_json(&applied, &kernel.paths(applied.psched), None)),
        false if applied.steps.is_empty() && applied.left.is_empty() && !global.quiet => {
            Output::text("nothing to clear\n".to_string())
        }
        false => Output::text(report::applied_text(&applied, Look::on_stdout(global))),
    };
    output.status = if applied.left.is_empty() { 0 } else { 5 };
    Ok(output)
}

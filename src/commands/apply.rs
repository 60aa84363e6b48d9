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
    if let Some(time) = may.confirm.filter(|_| applied.changed() && !global.json) {
        output.stderr.push_str(&format!(
            "This is taken back in {} s unless you say: shaper confirm{}\n",
            time.as_secs(),
            instance_words(global)
        ));
    } else if applied.first_build() && over_ssh() && !global.quiet && !global.json {
        output.stderr.push_str(
            "hint: over ssh, `shaper apply --confirm 60` takes a change back unless you confirm it\n",
        );
    }
    output.status = if applied.left.is_empty() { 0 } else { 5 };
    Ok(output)
}

/// `shaper confirm`.
pub fn confirm(global: &Global) -> Result<Output, Failure> {
    let kernel = super::open(global)?;
    apply::may_change(&kernel)?;
    apply::confirm(&kernel)?;
    Ok(Output::text(if global.quiet { String::new() } else { "confirmed\n".to_string() }))
}

/// The options that name the same instance again.
fn instance_words(global: &Global) -> String {
    let netns = global.netns.as_ref().map(|name| format!(" --netns {name}"));
    let cgroup = global.cgroup.as_ref().map(|name| format!(" --cgroup {name}"));
    [netns, cgroup].into_iter().flatten().collect()
}

/// A change to the link that carries one's own session may cut it off.
fn over_ssh() -> bool {
    use std::io::IsTerminal;
    std::env::var_os("SSH_CONNECTION").is_some() && std::io::stderr().is_terminal()
}

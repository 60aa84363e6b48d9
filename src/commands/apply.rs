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
        true => {
            Output::json(&report::applied_json(&applied, &session.kernel.paths(applied.psched)))
        }
        false => Output::text(report::applied_text(&applied, global.quiet)),
    };
    output.warn(&session.policy, &applied.warnings, global);
    // A container's process is where it is at every run of cron.
    if !global.json && (applied.changed() || !global.quiet) {
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
    if applied.mounted && !global.json && net_cls_is_dear(&session) {
        output.stderr.push_str(
            "warning: on kernels before 5.15, using net_cls switches off cgroup v2 matches of sockets (iptables -m cgroup --path, nft socket cgroupv2)\n",
        );
    }
    output.status = if applied.left.is_empty() { 0 } else { 5 };
    // The process ends: the kernel takes the memory back at once, and not 10,000 users one by one.
    std::mem::forget((session, applied));
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

/// Before 5.15 (commit 8520e224f547) a socket had room for either tag, not both.
fn net_cls_is_dear(session: &apply::Session) -> bool {
    let path = session.kernel.proc_root.join("sys/kernel/osrelease");
    let release = std::fs::read_to_string(path).unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse().ok());
    let version: Option<(u32, u32)> = numbers.next().zip(numbers.next());
    version.is_some_and(|version| version < (5, 15))
}

/// A change to the link that carries one's own session may cut it off.
fn over_ssh() -> bool {
    use std::io::IsTerminal;
    std::env::var_os("SSH_CONNECTION").is_some() && std::io::stderr().is_terminal()
}

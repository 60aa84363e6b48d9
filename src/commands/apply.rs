//! `shaper apply`: make the kernel match the policy, and report.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::daemon::Daemon;
use super::output::{Output, color, draw};
use super::report::{self, Look};
use super::ssh::Ssh;
use super::{daemon, first_build, plan, scope, whom};
use crate::apply::{self, Applied, ApplyOptions, Options, Request, Session};
use crate::cli::{Apply as Words, Global};
use crate::failure::Failure;
use crate::host::Kernel;
use crate::policy::{Diagnostic, Policy, Severity};

/// Applies and reports.
pub(super) fn apply(global: &Global, words: &Words) -> Result<Output, Failure> {
    let Words { skip_unknown, takeover, .. } = *words;
    let options = Options { skip_unknown, takeover, ..Options::default() };
    if words.dry_run {
        return plan::plan(global, &words.file, options, None, plan::Show::default());
    }
    let may = scope::may(global, words.allow_disruption);
    let mut may = ApplyOptions { confirm: words.confirm, force: words.force, ..may };
    let (mut session, request) = match may.confirm {
        Some(_) => tried(global, &words.file, options)?,
        None => scope::session(global, &words.file, options)?,
    };
    let policy = Arc::clone(&request.intent.policy);
    // The daemon leaves a change alone that waits to be confirmed.
    if may.confirm.is_none() && !words.despite_daemon {
        daemon::follows(&session.kernel, &words.file, daemon::Beside::Apply)?;
    }
    let hears = !global.quiet && !global.json && io::stderr().is_terminal();
    let is_warned = hears && may.confirm.is_none();
    let ssh = is_warned
        .then(|| Ssh::of_caller(&session.kernel.proc_root, global.netns.is_some()))
        .flatten();
    let asks = !words.yes && io::stdin().is_terminal();
    if let Some(ssh) = ssh.as_ref().filter(|_| asks) {
        may.confirm = first_build::allowed(&mut session, &request, ssh)?;
    }
    let applied = apply::apply(&mut session, request, may, &mut apply::unless_interrupted)?;
    let mut output = report_of(&session, &policy, &applied, global);
    if let Some(time) = may.confirm.filter(|_| applied.changed() && !global.json) {
        output.stderr.push_str(&format!(
            "This is taken back in {} s unless you say: shaper confirm{}\n",
            time.as_secs(),
            instance_words(global)
        ));
    } else if !asks && is_at_stake(&mut session, &applied, ssh.as_ref()) {
        output.stderr.push_str(
            "hint: over ssh, `shaper apply --confirm 60` takes a change back unless you confirm it\n",
        );
    }
    // The process ends now: the kernel takes its memory back at once, and freeing 10,000 users one
    // by one would cost time.
    std::mem::forget((session, applied, policy));
    Ok(output)
}

/// What was done, with its warnings, and the status that says whether all of it was.
pub(super) fn report_of(
    session: &Session,
    policy: &Policy,
    applied: &Applied,
    global: &Global,
) -> Output {
    let mut output = match global.json {
        true => {
            let paths = session.kernel.paths(applied.psched);
            Output::json(&report::applied_json(applied, &paths, Some(&policy.source)))
        }
        false => Output::text(report::applied_text(applied, Look::on_stdout(global))),
    };
    if !global.json {
        output.stderr.push_str(&warnings(session, policy, applied, global, &output.stdout));
    }
    if applied.mounted() && !global.json && net_cls_is_dear(session) {
        output.stderr.push_str(
            "warning: on kernels before 5.15, using net_cls switches off cgroup v2 matches of sockets (iptables -m cgroup --path, nft socket cgroupv2)\n",
        );
    }
    output.status = if applied.left.is_empty() { 0 } else { 5 };
    output
}

/// Whether a link was built for the first time by which the person's connection goes.
fn is_at_stake(session: &mut Session, applied: &Applied, ssh: Option<&Ssh>) -> bool {
    let (Some(ssh), Some(found)) = (ssh, &applied.found) else { return false };
    let links = &found.facts.links;
    first_build::AtStake::of(&applied.steps, ssh, &mut session.kernel, links).is_some()
}

/// A policy that is tried with `--confirm`. A file that is neither the daemon's nor the usual one
/// is tried as it is: what lies beside it is not what will lie beside it in its place.
fn tried(global: &Global, file: &Path, options: Options) -> Result<(Session, Request), Failure> {
    let kernel = scope::open(global)?;
    let in_force = daemon::policy_in_force(&kernel)?;
    let real = |path: &Path| path.canonicalize().ok();
    let policy = match real(file) == real(&in_force) {
        true => apply::read(file)?,
        false => apply::read_alone(file)?,
    };
    Ok((Session::new(kernel), Request::new(policy, options)))
}

/// The warnings to print beside `stdout`: all of them; of a quiet run that has nothing else to say
/// those that were not said for a day, so that cron does not hide for ever what stays wrong.
fn warnings(
    session: &Session,
    source: &Policy,
    applied: &Applied,
    global: &Global,
    stdout: &str,
) -> String {
    let is_said = |warning: &&Diagnostic| !global.quiet || warning.severity == Severity::Warning;
    let policy = applied.warnings.iter().filter(is_said);
    let policy = policy.map(|warning| (Some(apply::hash(&warning.message)), warning));
    let placement = report::placement_warnings(&applied.placement);
    let placement = placement.iter().map(|it| (it.subject.as_deref().map(apply::hash), &it.text));
    let mut may_say: Box<dyn Fn(Option<u64>) -> bool> = Box::new(|_| true);
    if global.quiet {
        let all: BTreeSet<u64> = policy
            .clone()
            .filter_map(|it| it.0)
            .chain(placement.clone().filter_map(|it| it.0))
            .collect();
        let all: Vec<u64> = all.into_iter().collect();
        match session.kernel.instance().map(|it| it.unsaid(&all, SystemTime::now())) {
            Some(Ok(unsaid)) if stdout.is_empty() => {
                may_say = Box::new(move |hash| hash.is_some_and(|hash| unsaid.contains(&hash)));
            }
            // A warning that cannot be noted as said is said at every run.
            Some(Err(error)) => log::debug!("what was said cannot be noted: {error}"),
            _ => {}
        }
    }
    let new: Vec<Diagnostic> =
        policy.filter(|it| may_say(it.0)).map(|(_, warning)| warning.clone()).collect();
    let mut text = draw(source, &new, color(&io::stderr()));
    for (_, warning) in placement.filter(|it| may_say(it.0)) {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text
}

/// `shaper confirm`.
pub(super) fn confirm(global: &Global) -> Result<Output, Failure> {
    let kernel = scope::open(global)?;
    apply::may_change(&kernel)?;
    apply::confirm(&kernel)?;
    // What was counted went on until now, for the case that the change would be taken back, and
    // what accounts are told is of before.
    let policy = confirmed(&kernel);
    if policy.as_ref().is_some_and(|policy| policy.quotas().next().is_none()) {
        apply::end_use(&kernel);
    }
    // The change is confirmed, whatever else cannot be seen.
    let daemon = Daemon::of(&kernel).unwrap_or_else(|failure| {
        log::warn!("whether a daemon runs cannot be seen: {}", failure.message());
        None
    });
    if daemon.is_none() {
        let request = policy.map(|policy| whom::request(policy, BTreeSet::new()));
        apply::tell(&mut Session::without_names(kernel), request.as_ref());
    }
    Ok(match global.json || global.quiet {
        true => Output::silent(global),
        false => Output::text("confirmed\n".to_string()),
    })
}

/// The policy that was confirmed; `None`: its file says something else by now, or there is none.
fn confirmed(kernel: &Kernel) -> Option<Policy> {
    let file = daemon::policy_applied(kernel).ok()?;
    let hash = kernel.instance()?.policy()?.hash;
    // A file that is tried is read without what lies beside it.
    let policies = [apply::read, apply::read_alone].into_iter().filter_map(|read| read(&file).ok());
    policies.into_iter().find(|policy| apply::hash(&policy.source.text) == hash)
}

/// The options that name the same instance again.
fn instance_words(global: &Global) -> String {
    let netns = global.netns.as_ref().map(|name| format!(" --netns {name}"));
    let cgroup = global.cgroup.as_ref().map(|name| format!(" --cgroup {name}"));
    [netns, cgroup].into_iter().flatten().collect()
}

/// Before Linux 5.15 (commit 8520e224f547) a socket had room for its net_cls tag or for its cgroup
/// v2, not for both.
fn net_cls_is_dear(session: &apply::Session) -> bool {
    let path = session.kernel.proc_root.join("sys/kernel/osrelease");
    let release = std::fs::read_to_string(path).unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse().ok());
    let version: Option<(u32, u32)> = numbers.next().zip(numbers.next());
    version.is_some_and(|version| version < (5, 15))
}

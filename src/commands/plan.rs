//! `shaper plan` and `shaper check`: say what would be, touch nothing, take no lock.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::moment::moment;
use super::output::{Output, draw};
use super::report::{self, Look, Members};
use super::{daemon, scope};
use crate::apply::{self, Options, Request, Session};
use crate::cli::{DEFAULT_FILE, Global};
use crate::facts::Facts;
use crate::failure::Failure;
use crate::host::observe;
use crate::intent::{Later, Meaning};
use crate::model::{self, BuildOptions};
use crate::plan::{Paths, Plan, Tc, people};
use crate::policy::Policy;
use crate::process::{self, Decision, Scan};
use crate::tree::Reserved;

/// How a plan is shown.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Show {
    /// As the tc and shell commands that the steps equal.
    pub tc: bool,
    /// Whether changes mean exit status 3.
    pub exit_code: bool,
}

pub(super) fn plan(
    global: &Global,
    file: &Path,
    options: Options,
    at: Option<&str>,
    show: Show,
) -> Result<Output, Failure> {
    let at = at.map(moment).transpose()?;
    let (mut session, request) = scope::session(global, file, options)?;
    let request = Request { at, ..request };
    let planned = planned(&mut session, &request)?;
    let Planned { meaning, plan, later, people, members } = planned;
    let paths = session.kernel.paths(meaning.facts().psched);
    let mut output = if global.json {
        Output::json(&report::plan_json(
            (&plan, &later, people),
            &paths,
            (&meaning.warnings, &request.intent.policy.source),
            members,
        ))
    } else if show.tc {
        Output::text(commands(&plan, &later, &paths))
    } else {
        let look = Look::on_stdout(global);
        Output::text(report::plan_text((&plan, &later), &people, &members, look))
    };
    output.warn(&request.intent.policy, &meaning.warnings, global);
    if show.exit_code && report::changes(&plan, &later) {
        output.status = 3;
    }
    Ok(output)
}

/// The steps as commands that a shell performs. What none can perform is there as comments, as is
/// what has to wait.
fn commands(plan: &Plan, later: &[Later], paths: &Paths) -> String {
    let mut text = String::new();
    let mut by_program = false;
    for planned in &plan.steps {
        let command = Tc(&planned.step, paths);
        let hash = if command.is_by_program() { "# " } else { "" };
        by_program |= command.is_by_program();
        text.extend(command.to_string().lines().map(|line| format!("{hash}{line}\n")));
    }
    if by_program {
        text.push_str(
            "# Commands that begin with # need eBPF programs, or maps of theirs, that only shaper has: `shaper apply` performs them.\n",
        );
    }
    for Later { waits, plan } in later {
        match waits {
            true => text.push_str(&format!(
                "# {}, and `shaper apply` waits for that:\n",
                report::once_quiet(plan)
            )),
            false => text.push_str("# And then:\n"),
        }
        let commands = plan.steps.iter().map(|planned| Tc(&planned.step, paths).to_string());
        commands.for_each(|it| text.extend(it.lines().map(|line| format!("# {line}\n"))));
    }
    text
}

/// What an apply would do now.
struct Planned {
    meaning: Meaning,
    plan: Plan,
    later: Vec<Later>,
    people: Vec<people::Change>,
    members: Members,
}

fn planned(session: &mut Session, request: &Request) -> Result<Planned, Failure> {
    let apply::Look { mut meaning, scan } = session.look(request)?;
    let (plan, desired) = session.plan(&request.intent, &mut meaning)?;
    let later = request.intent.later(&meaning, (&plan, &desired));
    let matcher = Some(&meaning.model.matcher);
    let accounts = &meaning.facts().accounts;
    let people = people::changes(&meaning.observation, &desired, matcher, accounts);
    let members = members(session, &meaning, &scan)?;
    Ok(Planned { meaning, plan, later, people, members })
}

/// The policy's warnings, and what an apply of it would do now, for people.
pub(super) fn for_people(
    session: &mut Session,
    request: &Request,
    look: Look,
) -> Result<String, Failure> {
    let Planned { meaning, plan, later, people, members } = planned(session, request)?;
    let warnings = draw(&request.intent.policy, &meaning.warnings, look.color);
    Ok(warnings + &report::plan_text((&plan, &later), &people, &members, look))
}

/// How many processes an apply would move now.
fn members(session: &Session, meaning: &Meaning, scan: &Scan) -> Result<Members, Failure> {
    let mut members = Members::default();
    let view = session.kernel.view()?;
    let accounts = &meaning.facts().accounts;
    if !view.places {
        return Ok(members);
    }
    for process in &scan.processes {
        let inside = process::claim_of(process, &view).is_some();
        match session.kernel.decide(process, &meaning.model.matcher, accounts, &view) {
            Decision::MoveTo(_) if inside => members.moved += 1,
            Decision::MoveTo(_) => members.added += 1,
            Decision::TakeOut => members.gone += 1,
            Decision::Stay | Decision::Leave(_) => {}
        }
    }
    Ok(members)
}

pub(super) fn check(
    global: &Global,
    file: Option<&Path>,
    options: BuildOptions,
) -> Result<Output, Failure> {
    let (policy, warnings) = match options.offline {
        true => {
            let policy = Arc::new(apply::read(file.unwrap_or(Path::new(DEFAULT_FILE)))?);
            let mut facts = Facts::default();
            observe::clock(&mut facts, &policy);
            let (_, warnings) = model::build(&policy, &facts, options)?;
            (policy, warnings)
        }
        false => {
            let kernel = scope::open(global)?;
            let in_force = daemon::policy_in_force(&kernel);
            let usual = || in_force.unwrap_or_else(|_| PathBuf::from(DEFAULT_FILE));
            let file = file.map_or_else(usual, Path::to_path_buf);
            let options = Options {
                skip_unknown: options.skip_unknown,
                takeover: true,
                // The daemon shapes links when they come: what is its file is judged as it does.
                absent_links: daemon::is_followed(&kernel, &file),
                ..Options::default()
            };
            let request = Request::new(apply::read(&file)?, options);
            let mut session = Session::new(kernel);
            let mut meaning = session.look(&request)?.meaning;
            // Where links are shaped now, a file that has none of them is as mistaken to the daemon
            // as it is by hand.
            let loses_all =
                meaning.model.links.is_empty() && !meaning.observation.state.trees.is_empty();
            if options.absent_links && loses_all {
                let options = Options { absent_links: false, ..options };
                let as_by_hand = Request::new(Arc::clone(&request.intent.policy), options);
                meaning = session.look(&as_by_hand)?.meaning;
            }
            let warnings = meaning.warnings;
            (request.intent.policy, warnings)
        }
    };
    let mut output = match (global.json, global.quiet) {
        (true, _) => Output::json(&report::check_json(&warnings, &policy.source)),
        (false, true) => Output::default(),
        (false, false) => Output::text(format!("{}: {}\n", policy.source.file(), size(&policy))),
    };
    output.warn(&policy, &warnings, global);
    Ok(output)
}

/// `ok: 2 links, 5 users, 1 group, 3 rules`.
fn size(policy: &Policy) -> String {
    let count = |n: usize, one: &str, more: &str| match n {
        0 => None,
        1 => Some(format!("1 {one}")),
        n => Some(format!("{n} {more}")),
    };
    let parts = [
        count(policy.links.len(), "link", "links"),
        count(policy.users.len(), "user", "users"),
        count(policy.groups.len(), "group", "groups"),
        count(policy.classes.len(), "class", "classes"),
        count(policy.rules.len(), "rule", "rules"),
        policy.everyone.is_some().then(|| Reserved::Everyone.to_string()),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    let caps_somebody = policy.everyone.is_some()
        || [policy.users.len(), policy.groups.len(), policy.classes.len()] != [0, 0, 0];
    let nobody = if caps_somebody { "" } else { "; no user is capped: add `users` or `everyone`" };
    format!("ok: {}{nobody}", parts.join(", "))
}

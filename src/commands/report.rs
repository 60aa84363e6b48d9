//! What `plan` and `apply` print: text for people, one JSON document for programs.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::io;

use serde::Serialize;

use crate::apply::{Applied, QUIET};
use crate::cli::Global;
use crate::intent::Later;
use crate::plan::{Change, Disturbance, Paths, Place, Plan, Planned, Step, Tc, people};
use crate::policy::{Diagnostic, Source};
use crate::process::Placement;
use crate::tree::Mark;
use crate::units::{ClassId, Psched};

/// How a plan is shown to people.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// Nothing where nothing differs.
    pub quiet: bool,
    /// The kernel's steps, too.
    pub steps: bool,
    /// With signs in colour.
    pub color: bool,
}

impl Look {
    /// On standard output.
    pub(super) fn on_stdout(global: &Global) -> Look {
        Look {
            quiet: global.quiet,
            steps: global.verbose > 0,
            color: super::output::color(&io::stdout()),
        }
    }
}

/// `plan`, for people; nothing when `quiet` and nothing differs.
pub(super) fn plan_text(
    (plan, later): (&Plan, &[Later]),
    people: &[people::Change],
    members: &Members,
    look: Look,
) -> String {
    if look.quiet && !changes(plan, later) {
        return String::new();
    }
    let mut text = lines(people, look.color);
    for Disturbance { who, why } in plan.steps.iter().flat_map(|planned| &planned.disturbs) {
        text.push_str(&line('!', &format!("disturbs {who}: {why}"), look.color));
    }
    if look.steps {
        let _ = write!(text, "{plan}");
        for Later { waits, plan } in later {
            let _ = match waits {
                true => writeln!(text, "{}:", once_quiet(plan)),
                false => writeln!(text, "and then:"),
            };
            let _ = write!(text, "{plan}");
        }
    }
    text.push_str(&summary((plan, later), people.is_empty(), look.steps));
    let Members { added, moved, gone } = members;
    let _ = match (added, moved, gone) {
        (0, 0, 0) => writeln!(text),
        _ => writeln!(text, "; processes: {added} to place, {moved} to move, {gone} to release"),
    };
    text
}

/// Whether an apply changes anything, be it only once classes have drained.
pub(super) fn changes(plan: &Plan, later: &[Later]) -> bool {
    plan.changes() || later.iter().any(|it| it.plan.changes())
}

/// A change a line, its sign in colour.
fn lines(people: &[people::Change], color: bool) -> String {
    let words = |change: &people::Change| change.to_string().split_off(2);
    people.iter().map(|change| line(change.sign, &words(change), color)).collect()
}

fn line(sign: char, words: &str, color: bool) -> String {
    let code = match sign {
        '+' => 32,
        '~' => 33,
        _ => 31,
    };
    match color {
        true => format!("\x1b[{code}m{sign}\x1b[0m {words}\n"),
        false => format!("{sign} {words}\n"),
    }
}

/// `apply`, for people; nothing when `quiet` and nothing differed.
pub(super) fn applied_text(applied: &Applied, look: Look) -> String {
    if look.quiet && !applied.changed() && applied.left.is_empty() {
        return String::new();
    }
    let mut text = lines(&applied.people(), look.color);
    if look.steps {
        let _ = write!(text, "{}", Plan { steps: applied.steps.clone(), ..Plan::default() });
    }
    for planned in &applied.left {
        let _ = writeln!(text, "left undone: {}", planned.step);
        for disturbance in &planned.disturbs {
            let _ = writeln!(text, "    ! disturbs {}: {}", disturbance.who, disturbance.why);
        }
    }
    if !applied.left.is_empty() {
        text.push_str("to do these too: --allow-disruption\n");
    }
    if applied.steps.is_empty() && applied.left.is_empty() {
        text.push_str("in sync");
    } else {
        let s = if applied.steps.len() == 1 { "" } else { "s" };
        let _ = write!(text, "applied: {} step{s}, verified", applied.steps.len());
    }
    let Placement { added, moved, gone, .. } = &applied.placement;
    let _ = match (added, moved, gone) {
        (0, 0, 0) => writeln!(text),
        _ => writeln!(text, "; processes: {added} placed, {moved} moved, {gone} released"),
    };
    text
}

/// A sentence about processes that are not where they should be.
pub(super) struct PlacementWarning {
    pub text: String,
    /// What the warning is about, without the processes, which are others at every run: by its hash
    /// a later run knows the warning again. `None`: what it warns of is over by then.
    pub subject: Option<String>,
}

/// Processes that are not where they should be: warnings.
pub(super) fn placement_warnings(placement: &Placement) -> Vec<PlacementWarning> {
    let Placement {
        foreign, failed, waiting, unknown_namespace, handed_over, settled, passes, ..
    } = placement;
    let mut warnings = Vec::new();
    let mut warn = |subject: Option<&str>, text: String| {
        warnings.push(PlacementWarning { text, subject: subject.map(str::to_string) });
    };
    let claimed = foreign.iter().filter_map(|process| Some((process, process.owner.as_ref()?)));
    for (process, owner) in claimed {
        let text = format!(
            "process {} ({}) would be {owner}'s, but sits in another's net_cls group `{}`: left alone",
            process.pid, process.comm, process.path
        );
        // A container's process is where it is at every run, under another path after each start.
        warn(Some("foreign groups"), text);
    }
    for process in failed {
        let message = process.message.clone();
        let text = format!("process {} ({}) cannot be moved: {message}", process.pid, process.comm);
        warn(Some(&message), text);
    }
    for (claim, count) in waiting {
        warn(
            None,
            format!("{count} processes came for {claim} just now: the next apply places them"),
        );
    }
    if *unknown_namespace > 0 {
        let text = format!(
            "{unknown_namespace} processes are in a network namespace that may not be read (CAP_SYS_PTRACE): left alone"
        );
        warn(Some("unknown namespaces"), text);
    }
    if let Some(why) = &handed_over.refused {
        let text = format!(
            "connections that root accepted stay root's and count by their tag alone: {why}"
        );
        warn(Some("connections of root's"), text);
    }
    if *passes > 0 && !settled {
        let text = format!("processes kept coming for {passes} looks: some may not be placed yet");
        warn(None, text);
    }
    warnings
}

/// `apply --json`. `source`: where the warnings have their places.
pub(super) fn applied_json(applied: &Applied, paths: &Paths, source: Option<&Source>) -> String {
    let Placement { added, moved, gone, .. } = &applied.placement;
    let members = Members { added: *added, moved: *moved, gone: *gone };
    let mut document = Document::new(&applied.steps, paths, applied.changed());
    document.warnings = JsonWarning::of_policy(&applied.warnings, source);
    document.warnings.extend(
        placement_warnings(&applied.placement).into_iter().map(|it| JsonWarning::text(it.text)),
    );
    document.people = JsonChange::of_all(applied.people());
    document.members = Some(members);
    document.left = applied.left.iter().map(|planned| JsonStep::new(planned, paths)).collect();
    document.messages = Some(applied.messages);
    document.print()
}

/// `plan --json`.
pub(super) fn plan_json(
    (plan, later, people): (&Plan, &[Later], Vec<people::Change>),
    paths: &Paths,
    (warnings, source): (&[Diagnostic], &Source),
    members: Members,
) -> String {
    let mut document = Document::new(&plan.steps, paths, changes(plan, later));
    document.people = JsonChange::of_all(people);
    let later = later.iter().flat_map(|it| &it.plan.steps);
    document.later = later.map(|planned| JsonStep::new(planned, paths)).collect();
    document.warnings = JsonWarning::of_policy(warnings, Some(source));
    document.members = Some(members);
    document.print()
}

/// `check --json`.
pub(super) fn check_json(warnings: &[Diagnostic], source: &Source) -> String {
    let paths = Paths {
        mount: Default::default(),
        instance: Default::default(),
        mark: Mark(0),
        psched: Psched::default(),
        place: Place::Here,
    };
    let mut document = Document::new(&[], &paths, false);
    document.warnings = JsonWarning::of_policy(warnings, Some(source));
    document.print()
}

/// The last line of `plan`. `nobodys`: nobody's limits change.
fn summary((plan, later): (&Plan, &[Later]), nobodys: bool, shown: bool) -> String {
    let steps = |count: usize| if count == 1 { "step" } else { "steps" };
    let show = if shown { "" } else { " (-v shows them)" };
    let mut text = match plan.steps.len() {
        0 if changes(plan, later) => "nothing to do now".to_string(),
        0 => "in sync".to_string(),
        count => format!("plan: {count} {} in the kernel{show}", steps(count)),
    };
    if nobodys && !plan.is_empty() {
        text.push_str(", and nobody's limits change");
    }
    let rest: usize = later.iter().map(|it| it.plan.steps.len()).sum();
    let going: usize = later.iter().map(|it| going(&it.plan).len()).sum();
    if rest > 0 {
        let (go, their) = if going == 1 { ("class goes", "its") } else { ("classes go", "their") };
        let show = if plan.is_empty() { show } else { "" };
        let _ = write!(
            text,
            "; {going} {go} once {their} packets have left, {rest} more {}{show}",
            steps(rest)
        );
    }
    text
}

/// The classes that a plan removes.
fn going(plan: &Plan) -> BTreeSet<ClassId> {
    let class = |planned: &Planned| match &planned.step {
        Step::Class(_, id, Change::Remove(_)) => Some(*id),
        _ => None,
    };
    plan.steps.iter().filter_map(class).collect()
}

/// `once class 1:20 has sent nothing for 2 s and no socket has its number`.
pub(super) fn once_quiet(plan: &Plan) -> String {
    let going: Vec<ClassId> = going(plan).into_iter().collect();
    let (which, have) = match &going[..] {
        [one] => (format!("class {one} has"), "its number"),
        [one, other] => (format!("classes {one} and {other} have"), "their numbers"),
        more => (format!("{} classes have", more.len()), "their numbers"),
    };
    format!("once {which} sent nothing for {} s and no socket has {have}", QUIET.as_secs())
}

#[derive(Serialize)]
struct Document {
    version: u32,
    changed: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    people: Vec<JsonChange>,
    steps: Vec<JsonStep>,
    /// What an apply goes on to do once classes are quiet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    later: Vec<JsonStep>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left: Vec<JsonStep>,
    #[serde(skip_serializing_if = "Option::is_none")]
    members: Option<Members>,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<u64>,
    warnings: Vec<JsonWarning>,
}

/// What becomes of somebody's limits, of a link or of guests.
#[derive(Serialize)]
struct JsonChange {
    op: &'static str,
    kind: &'static str,
    who: String,
    count: usize,
    what: String,
}

impl JsonChange {
    fn of_all(changes: Vec<people::Change>) -> Vec<JsonChange> {
        let op = |sign| match sign {
            '+' => "add",
            '~' => "change",
            '-' => "delete",
            _ => "replace",
        };
        let document = |people::Change { sign, kind, who, count, what }| JsonChange {
            op: op(sign),
            kind,
            who,
            count,
            what,
        };
        changes.into_iter().map(document).collect()
    }
}

#[derive(Serialize)]
struct JsonStep {
    op: &'static str,
    object: String,
    tc: String,
    disturbs: Vec<JsonDisturbance>,
}

#[derive(Serialize)]
struct JsonDisturbance {
    user: String,
    why: String,
}

/// Processes that come into our directories, change between them, and leave them.
#[derive(Default, Serialize)]
pub(super) struct Members {
    pub added: u32,
    pub moved: u32,
    pub gone: u32,
}

#[derive(Serialize)]
struct JsonWarning {
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    line: Option<u32>,
    column: Option<u32>,
}

impl JsonWarning {
    fn text(message: String) -> JsonWarning {
        JsonWarning { message, file: None, line: None, column: None }
    }

    fn of_policy(warnings: &[Diagnostic], source: Option<&Source>) -> Vec<JsonWarning> {
        let warning = |diagnostic: &Diagnostic| {
            let file = source.zip(diagnostic.at).map(|(source, at)| source.file_at(at).to_string());
            JsonWarning {
                message: diagnostic.message.clone(),
                file,
                line: diagnostic.place().map(|place| place.line),
                column: diagnostic.place().map(|place| place.column),
            }
        };
        warnings.iter().map(warning).collect()
    }
}

impl Document {
    fn new(steps: &[Planned], paths: &Paths, changed: bool) -> Document {
        Document {
            version: 1,
            changed,
            people: Vec::new(),
            steps: steps.iter().map(|planned| JsonStep::new(planned, paths)).collect(),
            later: Vec::new(),
            left: Vec::new(),
            members: None,
            messages: None,
            warnings: Vec::new(),
        }
    }

    fn print(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|_| "{\"version\":1}".to_string())
    }
}

impl JsonStep {
    fn new(planned: &Planned, paths: &Paths) -> JsonStep {
        let disturbance = |d: &crate::plan::Disturbance| JsonDisturbance {
            user: d.who.clone(),
            why: d.why.clone(),
        };
        JsonStep {
            op: planned.step.op(),
            object: planned.step.object(),
            tc: Tc(&planned.step, paths).to_string(),
            disturbs: planned.disturbs.iter().map(disturbance).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Phase;
    use crate::tree::Claim;
    use crate::units::Minor;

    fn round(claim: &str, routine: bool) -> Later {
        let claim: Claim = claim.parse().unwrap();
        let step = Step::Claim(claim, Change::Remove(ClassId::ours(Minor(0x20))));
        let planned = Planned { step, phase: Phase::TearDown, disturbs: Vec::new(), routine };
        Later { waits: true, plan: Plan { steps: vec![planned], ..Plan::default() } }
    }

    /// A run that was cut short in its wait has done its first round; the next run does the rest.
    #[test]
    fn what_is_done_once_classes_have_drained_is_a_change_too() {
        let look = Look { quiet: false, steps: false, color: false };
        let say = |later: &[Later], quiet| {
            let look = Look { quiet, ..look };
            plan_text((&Plan::default(), later), &[], &Members::default(), look)
        };
        let drained = || round("retired/20:user:bob", true);
        let rest = [drained(), round("user/ann", false)];
        assert!(changes(&Plan::default(), &rest) && say(&rest, false) == say(&rest, true));
        assert!(say(&rest, true).starts_with("nothing to do now; "), "{}", say(&rest, true));
        // Only a class that drains is none.
        let rest = [drained()];
        assert!(!changes(&Plan::default(), &rest) && say(&rest, true).is_empty());
        assert!(say(&rest, false).starts_with("in sync; "), "{}", say(&rest, false));
    }
}

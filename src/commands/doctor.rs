//! `shaper doctor`: what this host has and lacks for shaping. Changes nothing: no module is loaded,
//! nothing is mounted, and what is tried is tried in a network namespace that ends with the trial.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::output::{self, Output};
use super::{daemon, instance, scope};
use crate::accounts::asking::Unanswered;
use crate::accounts::{Limit, Question};
use crate::apply::{self, Look, Options, Request, Session, Who};
use crate::cli::{DEFAULT_FILE, Global};
use crate::doctor::{
    self, Capability, Check, Findings, Keeper, Keeping, LinkFound, Machine, Names, PolicyFound,
    State, Sync,
};
use crate::facts::{Accounts, Beside};
use crate::failure::Failure;
use crate::host::Kernel;
use crate::host::observe::{self, Processes, Snapshot, Unloaded, Wanted};
use crate::model::{LinkAt, Model, Node};
use crate::netlink::device::Device;
use crate::policy::{self, Policy};
use crate::process;
use crate::tree::{Direction, Foreign, LinkName, Owner};
use crate::units::Rate;

/// How long NSS may take for everything.
const NSS: Duration = Duration::from_secs(1);

/// An account that no host has, so that all of NSS's sources are asked.
const NOBODY: &str = "shaper-asks-for-nobody";

/// How often NSS is asked once more where it took long.
const MORE: usize = 3;

/// Standard input, in the place of a file.
const STDIN: &str = "-";

/// Warnings and errors by exit status.
const WARNINGS: u8 = 3;
const ERRORS: u8 = 1;

#[derive(Serialize)]
struct Document {
    version: u32,
    checks: Vec<Check>,
}

pub(super) fn doctor(global: &Global, file: Option<&Path>) -> Result<Output, Failure> {
    let checks = doctor::checks(&findings(global, file)?);
    let status = match doctor::worst(&checks) {
        State::Ok => 0,
        State::Warning => WARNINGS,
        State::Error => ERRORS,
    };
    let output = match global.json {
        true => {
            let document = Document { version: 1, checks };
            Output::json(&serde_json::to_string(&document).map_err(Failure::refused)?)
        }
        false => Output::text(doctor::text(&checks, output::columns())),
    };
    Ok(Output { status, ..output })
}

fn findings(global: &Global, file: Option<&Path>) -> Result<Findings, Failure> {
    // Before another network namespace is entered.
    let process_events = observe::process_events(Path::new("/proc"));
    let mut kernel = scope::open(global)?;
    let unloaded = observe::without_loading()?;
    let wanted = Wanted { processes: Processes::All, ..Wanted::default() };
    let mut seen = observe::observe(&mut kernel, wanted)?;
    let machine = machine(&kernel, &unloaded, process_events)?;
    let others = seen.observation.neighbours.iter().cloned().collect();
    let net_cls = observe::net_cls(&kernel, &seen.observation.state, others)?;
    let lacks = seen.facts().lacks;

    let file = file.map_or_else(|| usual_file(&kernel), |file| Ok(file.to_path_buf()))?;
    let policy = read(&file);
    let running = process::running_uids(&seen.scan.processes, &kernel.view()?);
    let (names, accounts) = ask(policy.as_ref().ok(), running);
    let mut session = Session::knowing(kernel, unloaded.features, unloaded.down);
    let (policy, look) = match policy {
        Ok(policy) => {
            let is_blind = lacks.is_some() || !machine.known;
            compared(&mut session, policy, accounts, is_blind)
        }
        Err(why) => ((why, Vec::new()), None),
    };
    let links =
        links(&mut session.kernel, &mut seen, look.as_ref().map(|look| &look.meaning.model))?;
    let (sync, warnings) = policy;
    // What others have at a link's hooks is told with the link.
    let is_told = |text: &String| {
        links.iter().any(|link| {
            link.beside.iter().any(|beside| *text == format!("{}: {beside}", link.name))
        })
    };
    let warnings = warnings.into_iter().filter(|text| !is_told(text)).collect();
    let is_usual = file == Path::new(DEFAULT_FILE);
    let file = file.display().to_string();
    let argument = if is_usual { String::new() } else { format!(" {file}") };
    let found = PolicyFound { file, argument, sync, warnings };
    let keeping = keeping(&session.kernel, found, lacks.is_none())?;
    Ok(Findings { lacks, machine, net_cls, names, keeping, links })
}

fn machine(kernel: &Kernel, found: &Unloaded, process_events: bool) -> Result<Machine, Failure> {
    let keeper = kernel.instance().map(|instance| instance.keeper()).transpose()?.flatten();
    let set = keeper.and_then(|pid| observe::capabilities(&kernel.proc_root, pid));
    Ok(Machine {
        release: observe::release(&kernel.proc_root),
        features: found.features.clone(),
        u32: found.u32,
        down: found.down,
        known: found.known,
        would_load: found.would_load.clone(),
        may_load: observe::may_load(&kernel.proc_root),
        process_events,
        daemon_lacks: set.map(Capability::lacking),
    })
}

/// The daemon's policy, else the one that was applied last, else the usual one.
fn usual_file(kernel: &Kernel) -> Result<PathBuf, Failure> {
    let noted = kernel.instance().and_then(|instance| instance.policy());
    let noted = noted.map(|note| PathBuf::from(note.file)).filter(|file| file.is_absolute());
    match (daemon::Daemon::of(kernel)?.is_some(), noted) {
        (false, Some(noted)) => Ok(noted),
        _ => daemon::policy_in_force(kernel),
    }
}

fn read(file: &Path) -> Result<Policy, Sync> {
    if file == Path::new(STDIN) {
        return apply::read(file).map_err(|failure| Sync::Refused(failure.message()));
    }
    let source = apply::texts(file).map_err(|error| match () {
        () if error.is_absent(file) => Sync::Absent,
        () if error.is_forbidden() => Sync::Forbidden,
        () => Sync::Refused(Failure::from(error).message()),
    })?;
    policy::read(source).map_err(|report| Sync::Refused(Failure::from(report).message()))
}

/// One look-up for which all of NSS's sources are asked, and how long it took: the quickest of a
/// few, since what is slow once may only have waited for a processor. Each asks for another name:
/// of one that was asked for a cache knows that nobody has it.
fn look_up() -> (Result<Accounts, Unanswered>, Duration) {
    let one = |turn: usize, limit| {
        let names = [format!("{NOBODY}-{}-{turn}", std::process::id())].into();
        let question = Question { names, without_groups: true, ..Question::default() };
        let began = Instant::now();
        (question.ask(Limit::Whole(limit)), began.elapsed())
    };
    let began = Instant::now();
    let mut quickest = one(0, NSS);
    for turn in 1..=MORE {
        if quickest.0.is_err() || !Names::is_slow(quickest.1) || began.elapsed() > NSS / 4 {
            break;
        }
        let again = one(turn, NSS / 4);
        if again.0.is_ok() && again.1 < quickest.1 {
            quickest = again;
        }
    }
    quickest
}

/// How NSS answers, and what it says of the names in the policy and the uids that run.
fn ask(policy: Option<&Policy>, running: BTreeSet<u32>) -> (Names, Accounts) {
    let all = policy.map(Question::of).unwrap_or_default();
    let all = Question { running, ..all };
    let asked = all.names.len() + all.groups.len() + all.uids.len() + all.running.len();
    let (answer, one) = look_up();
    let why = match answer {
        Ok(answer) => answer.unavailable,
        Err(why) => Some(why.to_string()),
    };
    if why.is_some() {
        let accounts =
            Accounts { unavailable: why.clone(), running: all.running, ..Accounts::default() };
        return (Names { one: None, unavailable: why, asked }, accounts);
    }
    let accounts = all.clone().ask(Limit::Whole(NSS.saturating_sub(one)));
    let accounts = accounts.unwrap_or_else(|why| {
        let unavailable = match why {
            Unanswered::TimedOut(_) => format!("not all answers within {} s", NSS.as_secs()),
            ref why => why.to_string(),
        };
        Accounts { unavailable: Some(unavailable), ..why.accounts(all) }
    });
    (Names { one: Some(one), unavailable: accounts.unavailable.clone(), asked }, accounts)
}

/// What is in force beside what the policy means here, and what is warned of. `is_blind`: the
/// kernel may have more than was found.
fn compared(
    session: &mut Session,
    policy: Policy,
    accounts: Accounts,
    is_blind: bool,
) -> ((Sync, Vec<String>), Option<Look>) {
    // A root qdisc of somebody else's is told with its link.
    let options =
        Options { skip_unknown: true, takeover: true, absent_links: true, ..Options::default() };
    let silent = accounts.unavailable.clone();
    let who = Who::Known { accounts: Box::new(accounts), processes: true };
    let request = Request { who, ..Request::new(policy, options) };
    let mut look = match session.look(&request) {
        Ok(look) => look,
        Err(failure) => return ((Sync::Refused(failure.message()), Vec::new()), None),
    };
    let is_nothing = look.meaning.observation.state.trees.is_empty();
    let sync = match session.plan(&request.intent, &mut look.meaning) {
        Err(failure) if is_blind => Sync::Uncompared(failure.message()),
        Err(failure) => Sync::Refused(failure.message()),
        Ok((plan, _)) if !plan.changes() => Sync::Same,
        Ok(_) if is_nothing => Sync::Nothing,
        Ok((plan, _)) => match silent {
            Some(why) => Sync::Uncompared(format!("NSS does not say who everybody is ({why})")),
            None => Sync::Differs(plan.steps.iter().filter(|step| !step.routine).count()),
        },
    };
    let warnings = look.meaning.warnings.iter().map(|warning| warning.message.clone()).collect();
    ((sync, warnings), Some(look))
}

/// The links that the model names, or that are shaped; where there is neither, that of the default
/// route.
fn links(
    kernel: &mut Kernel,
    seen: &mut Snapshot,
    model: Option<&Model>,
) -> Result<Vec<LinkFound>, Failure> {
    let of_model = model.into_iter().flat_map(|model| model.links.iter()).map(|link| &link.port);
    let shaped = seen.observation.state.trees.keys();
    let mut names: Vec<LinkName> = Vec::new();
    for name in of_model.chain(shaped).map(|port| &port.link) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    if names.is_empty() {
        names.extend(seen.facts().default_route().map(|(name, _)| name.clone()));
    }
    observe::speeds(seen, |name, _| names.contains(name))?;
    let facts = &mut seen.observation.facts;
    if let Err(error) = observe::beside(kernel, facts, |name, _| names.contains(name)) {
        log::debug!("what others have at the links' hooks cannot be asked: {error}");
    }
    names.into_iter().filter_map(|name| link(kernel, seen, model, name).transpose()).collect()
}

fn link(
    kernel: &mut Kernel,
    seen: &Snapshot,
    model: Option<&Model>,
    name: LinkName,
) -> Result<Option<LinkFound>, Failure> {
    let Some(facts) = seen.facts().links.get(&name).cloned() else { return Ok(None) };
    let Device { queues, largest } = observe::device(kernel, facts.ifindex)?;
    let on = |direction| {
        let mut pairs = model.into_iter().flat_map(|model| model.links.pairs());
        pairs.find(|(_, link)| link.port.link == name && link.port.direction == direction)
    };
    let sent = on(Direction::Egress);
    let down = on(Direction::Ingress).map(|(_, link)| link.rate);
    let beside = seen.facts().beside.get(&name);
    let direct = seen.direct_packets.get(&name.egress()).copied().unwrap_or(0);
    Ok(Some(LinkFound {
        rate: sent.map(|(_, link)| link.rate).or(facts.shaped_at),
        down,
        lowest: model.zip(sent).and_then(|(model, (at, _))| lowest(model, at)),
        beside: seen.facts().said_beside(&name),
        unseen: beside
            .into_iter()
            .flatten()
            .filter(|it| matches!(it, Beside::Unasked { .. }))
            .map(ToString::to_string)
            .collect(),
        is_ciliums: beside.into_iter().flatten().any(Beside::is_ciliums),
        manager: match observe::is_hosts(kernel) {
            true => observe::manager(Path::new("/"), &facts),
            false => None,
        },
        queues,
        largest,
        lro: observe::lro(&name)?,
        foreign: foreign(seen, &name),
        direct_packets: direct,
        facts,
        name,
    }))
}

/// Filters of others at our roots of a link that are asked before ours, each with the command that
/// removes it.
fn foreign(seen: &Snapshot, name: &LinkName) -> Vec<(String, String)> {
    let of_the_link = seen.observation.foreign.iter().filter(|it| it.is_asked_first(name));
    let told = of_the_link.filter_map(|it| match it {
        Foreign::Filter { port, parent, pref, .. } => {
            let device = port.device();
            let cure = format!("tc filter del dev {device} parent {parent} pref {pref}");
            Some((it.to_string(), cure))
        }
        _ => None,
    });
    told.collect()
}

/// The lowest cap of a line on a link, and whose it is.
fn lowest(model: &Model, at: LinkAt) -> Option<(Rate, String)> {
    let cap = |node: &Node| {
        let name = match &node.owner {
            Owner::User(key) | Owner::Class(key) => key.to_string(),
            Owner::Group(group) => group.to_string(),
            other => other.to_string(),
        };
        Some((node.limits[at]?.ceil, name))
    };
    model.nodes.iter().filter_map(cap).min()
}

fn keeping(kernel: &Kernel, policy: PolicyFound, may_see: bool) -> Result<Keeping, Failure> {
    let (is_service_enabled, timer) = match observe::is_hosts(kernel) {
        true => observe::kept_by(Path::new("/")),
        false => (false, None),
    };
    let instance = kernel.instance();
    let keeper = match &instance {
        Some(instance) => instance::keeper(kernel, instance)?,
        None => None,
    };
    let pending = match instance {
        Some(instance) if may_see => instance::pending(&instance)?,
        _ => None,
    };
    Ok(Keeping {
        keeper: keeper.map(|it| Keeper { pid: it.pid, state: it.state, why: it.why }),
        is_service_enabled,
        timer,
        policy,
        pending: pending.map(|pending| pending.seconds_left),
        may_see_keeper: may_see,
    })
}

//! Makes the kernel match a policy, verifies it, and puts back what was there when a step fails.
//! What `shaper apply` does, and whoever else applies (the daemon, the tests). Looks through
//! `observe`, acts through `execute` and `process::place`.

mod clear;
mod confirm;
mod rounds;
mod session;
mod source;
mod undo;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub use clear::clear;
pub use confirm::{confirm, hash};
pub use session::{Look, Request, Session, Who, may_change};
pub use source::{Passed, SourceError, WasRead, Writer, read, text_of, way};

use crate::accounts::How;
use crate::cgroup::{self, Locked};
use crate::facts::{Accounts, Facts, LinkFacts};
use crate::failure::Failure;
use crate::host::Kernel;
use crate::host::execute::{Cause, Gate};
use crate::host::observe::{self, Snapshot, Wanted};
use crate::intent::Meaning;
pub use crate::intent::Options;
use crate::model::Model;
use crate::plan::{Journal, Plan, Planned, Step, Whole};
use crate::policy::Diagnostic;
use crate::process::{self, Placement, Seen, Verdict};
use crate::sys::signal;
use crate::tree::{Claim, KernelState, LinkName, Owner};
use crate::units::Psched;
use rounds::{Run, Trouble};
use undo::Before;

/// A retired class that has sent nothing for so long may go.
pub const QUIET: Duration = Duration::from_secs(2);

/// What an apply may do, and how long it may take about it.
#[derive(Clone, Copy, Debug)]
pub struct ApplyOptions {
    /// Perform steps that drop or delay somebody's packets.
    pub disrupt: bool,
    /// How long to wait for another run to finish.
    pub wait: Duration,
    /// How long a retired class must have sent nothing before it is deleted, which is waited for;
    /// `None`: not now (see [`Request::earlier`]).
    pub quiet: Option<Duration>,
    /// Take the change back unless it is confirmed within this time.
    pub confirm: Option<Duration>,
    /// Also a policy that was taken back before.
    pub force: bool,
    /// A repair of the policy in force; does not clear the list of policies that were taken back.
    pub repair: bool,
}

impl Default for ApplyOptions {
    fn default() -> ApplyOptions {
        ApplyOptions {
            disrupt: false,
            wait: Duration::from_secs(10),
            quiet: Some(QUIET),
            confirm: None,
            force: false,
            repair: false,
        }
    }
}

/// What an apply did.
#[derive(Debug, Default)]
pub struct Applied {
    /// The hierarchy had to be mounted.
    pub mounted: bool,
    /// What was done, in order.
    pub steps: Vec<Planned>,
    /// Steps that would disturb somebody and were not allowed to.
    pub left: Vec<Planned>,
    /// The last pass; `added`, `moved` and `gone` summed over all.
    pub placement: Placement,
    /// What the policy asks for and does not get.
    pub warnings: Vec<Diagnostic>,
    /// The clock in which the steps' bursts are.
    pub psched: Psched,
    /// Changing messages sent over netlink.
    pub messages: u64,
    /// What was made so.
    pub in_force: Option<InForce>,
}

/// What a policy came to mean, and stands.
#[derive(Debug)]
pub struct InForce {
    /// What the policy means since.
    pub model: Model,
    /// Who everybody was as it was made so.
    pub accounts: Accounts,
    /// What is in the kernel since.
    pub state: KernelState,
    /// Classes that go once they are quiet stand.
    pub draining: bool,
    /// The links that are shaped, with their indices.
    pub links: BTreeMap<LinkName, u32>,
    /// The links of the model, as they were ([`Intent::good`](crate::intent::Intent::good)).
    pub good: BTreeMap<LinkName, LinkFacts>,
    /// Links that are passed over, by ifindex, because somebody else's root qdisc stands there.
    pub in_the_way: BTreeSet<u32>,
}

impl InForce {
    fn new(meaning: Meaning, state: KernelState) -> InForce {
        let good = meaning.good_links();
        let Facts { accounts, links, .. } = meaning.observation.facts;
        let is_shaped = |name: &LinkName| state.trees.keys().any(|port| port.link == *name);
        let shaped = links.into_iter().filter(|(name, _)| is_shaped(name));
        let links = shaped.map(|(name, facts)| (name, facts.ifindex)).collect();
        let retired = state.claims.keys().any(|claim| claim.retired().is_some());
        let draining = retired || !meaning.draining.is_empty();
        let Meaning { model, in_the_way, .. } = meaning;
        InForce { model, accounts, state, draining, links, good, in_the_way }
    }
}

impl Applied {
    /// Whether the policy or the kernel differed; logins and drained classes are no difference.
    pub fn changed(&self) -> bool {
        self.mounted || self.steps.iter().any(|planned| !planned.routine)
    }

    /// Whether a link was shaped that was not before.
    pub fn first_build(&self) -> bool {
        self.steps.iter().any(|planned| matches!(planned.step, Step::Root(_, Whole::Add(_))))
    }

    /// Adds a placement's numbers; how things stand is as the latest says.
    fn members(&mut self, placement: Placement) {
        let before = std::mem::replace(&mut self.placement, placement);
        self.placement.added += before.added;
        self.placement.moved += before.moved;
        self.placement.gone += before.gone;
    }
}

/// The gate of a run that a person may interrupt: between two steps it asks whether a signal came.
pub fn unless_interrupted(_: usize, _: &Step) -> Result<(), Cause> {
    match signal::caught() {
        Some(signal) => Err(Cause::Interrupted(signal)),
        None => Ok(()),
    }
}

/// Does what is asked. `gate` is asked before each step.
///
/// # Errors
/// A policy that cannot hold here, before anything is touched; a refused step, after what was there
/// before is back (or with words on what is not).
pub fn apply(
    session: &mut Session,
    mut request: Request,
    may: ApplyOptions,
    gate: Gate<'_>,
) -> Result<Applied, Failure> {
    may_change(&session.kernel)?;
    if may.confirm.is_some()
        && let Who::Asked { how, .. } = &mut request.who
    {
        // This process will fork.
        *how = How::Apart;
    }
    let policy = hash(&request.intent.policy.source.text);
    let Begun { locked, mounted, look, planned } = begin(session, &mut request, may, policy)?;
    let before = Before::new(look.meaning.observation.clone(), &look.scan.processes);
    let applied = Applied { mounted, ..Applied::default() };
    let (journal, link_went) = (Journal::default(), false);
    let mut run = Run { session, locked: &locked, request, may, gate, applied, journal, link_went };
    let outcome = run.finish(look, planned);
    let Run { applied, journal, .. } = run;
    // From here on whatever goes wrong brings back what was there before, once.
    let kept = outcome.and_then(|()| match may.repair {
        true => Ok(()),
        false => Ok(locked.forget_reverted()?),
    });
    let time = may.confirm.filter(|_| !applied.steps.is_empty() || applied.mounted);
    let (locked, outcome) = match time.filter(|_| kept.is_ok()) {
        Some(time) => {
            let change = confirm::Change { before: &before, journal: &journal, policy, time };
            let (locked, started) = confirm::start(&session.kernel.name, &change, locked);
            (locked, started.map_err(Trouble::from))
        }
        None => (locked, kept),
    };
    let Err(trouble) = outcome else { return Ok(applied) };
    let aftermath = before.bring_back(&mut session.kernel, &locked, &journal);
    let paths = session.kernel.paths(applied.psched);
    leave_no_trace(&mut session.kernel, mounted, locked);
    Err(match trouble {
        Trouble::Step(failed) => Failure::step(&failed, &paths, &aftermath),
        Trouble::Other(failure) => failure.in_the_middle(&aftermath),
    })
}

/// A run that holds the lock and has looked.
struct Begun {
    locked: Locked,
    /// The hierarchy had to be mounted.
    mounted: bool,
    look: Look,
    /// What follows from the look, where that was found out already.
    planned: Option<(Plan, KernelState)>,
}

/// Looks and plans under the lock. Where the instance has no directory yet, so that there is
/// nothing to lock, it is looked and planned before anything is made: whatever is wrong with the
/// policy is said before anything is touched.
fn begin(
    session: &mut Session,
    request: &mut Request,
    may: ApplyOptions,
    policy: u64,
) -> Result<Begun, Failure> {
    session.kernel.look_for_hierarchy()?;
    let stands = session.kernel.instance().is_some_and(|instance| instance.root().exists());
    let locked = stands.then(|| lock(&session.kernel, may, policy)).transpose()?;
    let mut look = session.look(request)?;
    let planned = session.plan(&request.intent, &mut look.meaning)?;
    signal::catch();
    if let Some(locked) = locked {
        return Ok(Begun { locked, mounted: false, look, planned: Some(planned) });
    }
    let mounted = session.kernel.mount()?;
    // Who runs is known, and sits where he sat: reading them all again would take a second for
    // 20,000.
    let seen = match mounted {
        false => Some(look.scan),
        true if session.kernel.is_empty_hierarchy() => Some(look.scan.in_new_hierarchy()),
        true => None,
    };
    request.intent.good = look.meaning.good_links();
    // Taking the lock makes the directory. Another run may have made it since.
    let locked = lock(&session.kernel, may, policy)
        .inspect_err(|_| unmount_unused(&mut session.kernel, mounted))?;
    match session.look_beyond(request, seen) {
        Ok(look) => Ok(Begun { locked, mounted, look, planned: None }),
        Err(failure) => {
            leave_no_trace(&mut session.kernel, mounted, locked);
            Err(failure)
        }
    }
}

/// The instance's lock, where no change waits to be confirmed and the policy was not taken back.
fn lock(kernel: &Kernel, may: ApplyOptions, policy: u64) -> Result<Locked, Failure> {
    let locked = kernel.lock(may.wait)?;
    confirm::allowed(&locked, policy, may.force)?;
    Ok(locked)
}

/// After a failed run: an instance directory without claims goes, under the lock, so that whoever
/// waits for it finds out; then, the lock released, a mount that this run made.
fn leave_no_trace(kernel: &mut Kernel, mounted: bool, locked: Locked) {
    // Undoing may have mounted the hierarchy anew.
    let instance = kernel.instance().ok_or(cgroup::Error::NotMounted);
    let now = instance.and_then(|instance| locked.at(instance, Duration::ZERO));
    let gone = now.and_then(|locked| locked.remove_if_empty());
    drop(locked);
    log::debug!("after the failure: removed {gone:?}");
    unmount_unused(kernel, mounted);
}

/// A mount that this run made goes, unless somebody's directory of the instance stands there.
fn unmount_unused(kernel: &mut Kernel, mounted: bool) {
    if mounted && kernel.instance().is_some_and(|instance| !instance.root().exists()) {
        let unmounted = kernel.unmount();
        log::debug!("after the failure: unmounted {unmounted:?}");
    }
}

/// The look that retired classes are compared with later ([`Request::earlier`]). A connection that
/// was not accepted when its listener's process moved still carries the old tag: all tags are
/// written once more, which takes along what has been accepted since.
///
/// # Errors
/// A tag is refused; the kernel cannot be read.
pub fn begin_to_drain(
    kernel: &mut Kernel,
    locked: &Locked,
    stands: &KernelState,
) -> Result<Snapshot, Failure> {
    for (claim, classid) in &stands.claims {
        if !matches!(claim, Claim::Retired(..) | Claim::Owner(Owner::Group(_))) {
            locked.write(claim, *classid)?;
        }
    }
    Ok(observe::observe(kernel, Wanted::default())?)
}

/// Moves every process to where the model says.
pub fn place(session: &Session, model: &Model, accounts: &Accounts) -> Result<Placement, Failure> {
    place_seen(session, model, accounts, None)
}

/// The same; `seen`: a look at all of them before.
fn place_seen(
    session: &Session,
    model: &Model,
    accounts: &Accounts,
    seen: Option<Seen>,
) -> Result<Placement, Failure> {
    let Some(instance) = session.kernel.instance() else { return Ok(Placement::default()) };
    let view = session.kernel.view()?;
    instance.note_namespace(session.kernel.netns)?;
    let decide = |process: &process::Process| {
        let decision = session.kernel.decide(process, &model.matcher, accounts, &view);
        Verdict { decision, acts_for: process::acts_for(process, &model.matcher) }
    };
    Ok(process::place_seen(&session.kernel.proc_root, &instance, seen, decide)?)
}

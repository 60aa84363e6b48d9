//! Looks at the counters, one after the other, with what the report needs beside them: for `status`
//! and `top`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, UNIX_EPOCH};

use super::instance::{forwarded, forwarded_v6, keeper, links_of_policy, pending, upkeep};
use super::own::Own;
use super::placed::placed;
use super::unchanged::Unchanged;
use super::{daemon, scope, whom};
use crate::accounts::{Limit, Question};
use crate::apply;
use crate::cgroup::PolicyNote;
use crate::cli::Global;
use crate::engines::{self, Known};
use crate::facts::Observation;
use crate::failure::Failure;
use crate::host::Kernel;
use crate::host::observe::{self, ObserveError, Snapshot, Wanted};
use crate::policy::Policy;
use crate::process::{self, Process};
use crate::sample::{Differences, Owners, Sample};
use crate::status::{self, Limits, Places, PolicyInForce, Status, StatusInputs, Told};
use crate::tree::{Claim, Direction, KernelState, LinkName, Owner, Reserved};

/// How long NSS may take from one name to the next.
const NSS: Duration = Duration::from_secs(3);
/// After which time it is asked whether anything but the counters has changed, and what is beside
/// the classes is read again: what the daemon does, names, processes, programs of others.
const BESIDE: Duration = Duration::from_secs(10);
/// After which time everything is looked at again also where nothing tells of a change.
const WHOLE: Duration = Duration::from_secs(60);
/// For how long counters say whether what arrives goes through its ifb, where nobody else says so.
const GLIMPSE: Duration = Duration::from_millis(250);
/// How many owners' processes are counted with each reading; of more, with each whole look only.
const FEW_OWNERS: usize = 500;
/// How long engines may take to say what their containers are called.
const ENGINES: Duration = Duration::from_secs(1);
/// How often everything is looked at again where classes come and go between it and the counters.
const LOOKS: usize = 4;

/// The kernel, as it was looked at last.
pub(super) struct Counting {
    pub kernel: Kernel,
    snapshot: Snapshot,
    inputs: StatusInputs,
    /// Whose the classes are, since everything was looked at.
    owners: Owners,
    /// How often more was read than the counters.
    looks: u64,
    /// When it was asked what else has changed.
    asked: Instant,
    unchanged: Unchanged,
    /// The policy in force, where it is known to have neither windows nor quotas.
    plain: Option<PolicyNote>,
    began: Instant,
    /// When everything was looked at.
    looked: Instant,
    /// When that look saw its counters, after `began`: in the middle of it, as nearly as is known.
    seen_at: Duration,
    /// Whether it is asked since when owners have their classes.
    since: bool,
    /// Why names are missing, where NSS did not say them all.
    pub nameless: Option<String>,
    /// The caller, to whom only what he has is told; `None`: root.
    pub own: Option<Own>,
}

/// A report, and where in it each class is.
#[derive(Clone)]
pub(super) struct Report {
    pub status: Status,
    places: Places,
    /// Of which look at everything it is.
    look: u64,
}

/// Looks at everything, also at what others have where packets arrive that are shaped.
fn look(kernel: &mut Kernel) -> Result<Snapshot, Failure> {
    let mut snapshot = observe::observe(kernel, Wanted::default())?;
    let Observation { state, facts, .. } = &mut snapshot.observation;
    let arrives = |name: &LinkName| state.trees.contains_key(&name.ingress());
    if facts.links.keys().any(arrives) {
        observe::beside(kernel, facts, |name, _| arrives(name)).map_err(ObserveError::from)?;
    }
    Ok(snapshot)
}

impl Counting {
    /// Enters the network namespace that the command line names, and looks.
    pub(super) fn begin(global: &Global) -> Result<Counting, Failure> {
        Counting::look(global, true)
    }

    /// The same for whoever does not ask since when owners have their classes, of whom there may be
    /// many thousands.
    pub(super) fn without_since(global: &Global) -> Result<Counting, Failure> {
        Counting::look(global, false)
    }

    fn look(global: &Global, since: bool) -> Result<Counting, Failure> {
        let mut kernel = scope::open(global)?;
        let unchanged = Unchanged::begin(&kernel)?;
        let began = Instant::now();
        let snapshot = look(&mut kernel)?;
        let now = Instant::now();
        let mut counting = Counting {
            inputs: StatusInputs::default(),
            owners: Owners::of(&snapshot),
            looks: 0,
            asked: now,
            unchanged,
            plain: None,
            began,
            looked: now,
            seen_at: (now - began) / 2,
            since,
            nameless: None,
            own: Own::of(&kernel)?,
            kernel,
            snapshot,
        };
        counting.read_inputs()?;
        counting.read_times();
        Ok(counting)
    }

    /// Reads the counters, and everything where it is no longer what it was. The time of the sample
    /// is that of its own reading, which takes a small part of a whole look's.
    pub(super) fn sample(&mut self) -> Result<Sample, Failure> {
        // What cannot be asked is read again, more than once, before that ends anything.
        let mut again = self.is_nothing_shaped() || self.is_due().unwrap_or(true);
        let mut failed = None;
        for _ in 0..LOOKS {
            failed = match self.count(again) {
                Ok(Some(at)) => return Ok(Sample::by(self.owners.clone(), &self.snapshot, at)),
                Ok(None) => None,
                // What was read went meanwhile, with its hierarchy, or is not all there yet.
                Err(failure) => Some(failure),
            };
            again = true;
        }
        match failed {
            Some(failure) => Err(failure),
            // Classes come and go all the time; the counters of the whole look are as good as any.
            None => Ok(self.seen()),
        }
    }

    /// Reads the counters once, after a look at everything where that is wanted, and says when that
    /// was; `None`: something has come or gone since the last look.
    fn count(&mut self, again: bool) -> Result<Option<Duration>, Failure> {
        if again {
            // The hierarchy may have gone, or have come, since the kernel was opened.
            self.kernel.look_for_hierarchy().map_err(Failure::refused)?;
            self.unchanged = Unchanged::begin(&self.kernel)?;
            let before = self.began.elapsed();
            self.snapshot = look(&mut self.kernel)?;
            self.seen_at = (before + self.began.elapsed()) / 2;
            self.owners = Owners::of(&self.snapshot);
            (self.looked, self.asked) = (Instant::now(), Instant::now());
            self.looks += 1;
            self.read_inputs()?;
            self.read_times();
        }
        let before = self.began.elapsed();
        if !observe::count_again(&mut self.kernel, &mut self.snapshot)? {
            return Ok(None);
        }
        self.count_processes(FEW_OWNERS)?;
        Ok(Some((before + self.began.elapsed()) / 2))
    }

    fn is_nothing_shaped(&self) -> bool {
        self.snapshot.observation.state.trees.is_empty()
    }

    /// Whether everything is to be looked at again. From time to time reads what is beside the
    /// classes.
    fn is_due(&mut self) -> Result<bool, Failure> {
        if self.asked.elapsed() < BESIDE {
            return Ok(false);
        }
        self.asked = Instant::now();
        let is_old = self.looked.elapsed() >= WHOLE;
        if is_old || !self.unchanged.holds(&self.kernel, self.snapshot.facts())? {
            return Ok(true);
        }
        self.looks += 1;
        let Observation { state, facts, .. } = &mut self.snapshot.observation;
        let arrives = |name: &LinkName| state.trees.contains_key(&name.ingress());
        if facts.links.keys().any(arrives) {
            observe::beside_again(&mut self.kernel, facts, |name, _| arrives(name))
                .map_err(ObserveError::from)?;
        }
        self.read_inputs()?;
        Ok(false)
    }

    /// The counters as the last look at everything has them.
    pub(super) fn seen(&self) -> Sample {
        Sample::by(self.owners.clone(), &self.snapshot, self.seen_at)
    }

    /// What is counted in so long from now on.
    pub(super) fn over(&mut self, interval: Duration) -> Result<Differences, Failure> {
        let first = self.sample()?;
        std::thread::sleep(interval);
        Ok(self.sample()?.since(&first))
    }

    /// The report; `differences`: what it says about now.
    pub(super) fn status(&mut self, differences: Option<Differences>) -> Status {
        self.inputs.differences = differences;
        let mut status = status::status(&self.snapshot, &self.inputs);
        if let Some(own) = &self.own {
            status.keep_own(&own.owners);
        }
        status
    }

    /// Makes a report anew of what was counted, or writes another one where everything was looked
    /// at meanwhile.
    pub(super) fn renew(&mut self, report: &mut Report, differences: Differences) {
        if report.look != self.looks {
            *report = self.report(Some(differences));
            return;
        }
        self.inputs.differences = Some(differences);
        report.status.renew(&report.places, &self.snapshot, &self.inputs);
        if self.inputs.processes.len() <= FEW_OWNERS {
            report.status.renew_processes(&self.inputs);
        }
        if let Some(own) = &self.own {
            report.status.keep_own(&own.owners);
        }
    }

    /// A report that can be made anew.
    pub(super) fn report(&mut self, differences: Option<Differences>) -> Report {
        let status = self.status(differences);
        Report { places: Places::of(&status), status, look: self.looks }
    }

    /// The report is to say whether what arrives goes through its ifb, where no daemon does.
    pub(super) fn with_passages(&mut self) -> Result<(), Failure> {
        let trees = &self.snapshot.observation.state.trees;
        let arrives = trees.keys().any(|port| port.direction == Direction::Ingress);
        if arrives && self.inputs.daemon.is_none() {
            self.inputs.glimpse = Some(self.over(GLIMPSE)?);
        }
        Ok(())
    }

    /// The report is to have the rules, too.
    pub(super) fn with_rules(&mut self, rules: bool) {
        self.inputs.rules = rules;
    }

    /// The report is to have the guests, too: those that are here now, by the names that engines
    /// give them, and how it is known whose they are.
    pub(super) fn with_guests(&mut self) -> Result<(), Failure> {
        let known = self.read_guests()?;
        let Observation { facts, state, .. } = &self.snapshot.observation;
        let mut links = facts.links.keys();
        let is_owned = |link| status::label(state, link).is_some_and(|it| it.owner.is_some());
        // Only where somebody has a guest need it be known why.
        let look = links.any(is_owned).then(|| {
            let file = daemon::policy_applied(&self.kernel).ok()?;
            whom::in_force(self.kernel.again().ok()?, Some(&file), BTreeSet::new(), known)
        });
        let inner = look.flatten().and_then(|look| look.meaning.model.inner);
        self.inputs.guests = Some(inner.unwrap_or_default());
        Ok(())
    }

    /// The report is to have the processes and the connections whose packets are in no class, too.
    pub(super) fn with_unclaimed(&mut self) -> Result<(), Failure> {
        if self.snapshot.observation.state.trees.is_empty() {
            return Ok(());
        }
        let view = self.kernel.view()?;
        let mut processes = process::scan(&self.kernel.proc_root)?.processes;
        processes.retain(|process| process.pid != std::process::id());
        let Observation { state, facts, .. } = &self.snapshot.observation;
        let cgroups = state.owners.as_ref().map(|table| &table.cgroups);
        let cgroups = cgroups.filter(|cgroups| !cgroups.is_empty());
        let in_a_unit = |process: &Process| {
            let cgroup = self.kernel.unit_cgroup(process.pid, process.unit.as_deref()?)?;
            cgroups?.keys().find(|(given, _)| *given == cgroup)
        };
        processes.retain(|process| cgroups.is_none() || in_a_unit(process).is_none());
        let has_class = |uid| state.has_class_untagged(uid);
        self.inputs.unclaimed = process::unclaimed(&processes, &view, has_class);
        self.inputs.defaulted = observe::defaulted(&mut self.kernel, &state.trees, &facts.links)?;
        let connected = self.inputs.defaulted.keys().map(|service| service.uid);
        let uids = self.inputs.unclaimed.keys().copied().chain(connected).collect();
        // Who did not say the names of classes is not waited for once more.
        if self.nameless.is_none() {
            self.name(Question { uids, without_groups: true, ..Question::default() });
        }
        Ok(())
    }

    /// Asks for the names of accounts that are not known. Nobody to ask about, no child.
    fn name(&mut self, mut question: Question) {
        question.uids.retain(|uid| !self.inputs.names.contains_key(uid));
        if question.uids.is_empty() {
            return;
        }
        let found = question.ask_or_read(Limit::Each(NSS));
        let names = found.by_uid.into_iter().map(|(uid, account)| (uid, account.name));
        self.inputs.names.extend(names);
        self.nameless = found.unavailable;
    }

    /// Fills in the guests that are here now, by the names that engines give them. Returns what
    /// engines said.
    pub(super) fn read_guests(&mut self) -> Result<Known, Failure> {
        observe::guests(&mut self.kernel, &mut self.snapshot)?;
        let guests = &mut self.snapshot.observation.facts.guests;
        let (mut known, now) = (Known::default(), Instant::now());
        known.look(guests, now);
        if known.due().is_some() {
            let question = engines::Question { time: ENGINES, ..engines::Question::of_the_host() };
            let _is_news = known.learn(question.ask(), now);
        }
        known.describe(guests);
        Ok(known)
    }

    /// What was seen last.
    pub(super) fn observation(&self) -> &Observation {
        &self.snapshot.observation
    }

    /// What the snapshot does not have. A name that is known is not asked for again.
    fn read_inputs(&mut self) -> Result<(), Failure> {
        self.inputs.netns = self.kernel.netns;
        self.inputs.forwarded_packets = forwarded(&self.kernel.proc_root);
        self.inputs.forwarded_v6_packets = forwarded_v6(&self.kernel.proc_root);
        self.inputs.links = links_of_policy(&self.kernel, &self.snapshot);
        let Some(instance) = self.kernel.instance() else { return Ok(()) };
        self.inputs.daemon = keeper(&self.kernel, &instance)?;
        let upkeep = upkeep(&self.kernel);
        self.inputs.repairs = upkeep.as_ref().map(status::repaired).unwrap_or_default();
        self.inputs.pending = pending(&instance)?;
        let mut question = Question { without_groups: true, ..Question::default() };
        let noted = instance.policy();
        question.uids.extend(noted.as_ref().map(|note| note.by));
        self.inputs.names.insert(0, Reserved::Root.to_string());
        for claim in self.snapshot.observation.state.claims.keys() {
            let Claim::Owner(owner) = claim else { continue };
            if let Owner::Uid(uid) = owner {
                question.uids.insert(*uid);
            }
        }
        self.read_limits();
        self.count_processes(usize::MAX)?;
        if let Some(own) = &self.own {
            question.uids.retain(|uid| *uid == own.uid);
        }
        self.name(question);
        self.inputs.policy = noted.map(|note| PolicyInForce {
            by: self.inputs.names.get(&note.by).cloned(),
            file: note.file,
            since: note.since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            by_uid: note.by,
        });
        Ok(())
    }

    /// Since when owners have their classes, where that is asked for: as long as their directories
    /// stand.
    fn read_times(&mut self) {
        self.inputs.since.clear();
        let Some(instance) = self.kernel.instance().filter(|_| self.since) else { return };
        for claim in self.snapshot.observation.state.claims.keys() {
            let Claim::Owner(owner) = claim else { continue };
            let made =
                std::fs::metadata(instance.directory(claim)).and_then(|meta| meta.modified());
            if let Ok(made) = made {
                self.inputs.since.insert(owner.clone(), made);
            }
        }
    }

    /// Which limits classes have now, where the policy in force has windows or
    /// quotas, and what was used of these.
    fn read_limits(&mut self) {
        self.inputs.limits = Limits::default();
        self.inputs.quotas.clear();
        if let Some(own) = &self.own {
            self.inputs.limits = own.told.as_ref().map(Told::limits).unwrap_or_default();
            self.inputs.quotas = own.told.as_ref().map(Told::quotas).unwrap_or_default();
            return;
        }
        let noted = self.kernel.instance().and_then(|instance| instance.policy());
        if noted.is_some() && noted == self.plain {
            return;
        }
        let file = daemon::policy_applied(&self.kernel);
        let policy = file.ok().and_then(|file| apply::read(&file).ok());
        let hash = policy.as_ref().map(|policy| apply::hash(&policy.source.text));
        let Some(policy) = policy.filter(Policy::has_times_or_quotas) else {
            // The file may say something else by now than what is in force.
            self.plain = noted.filter(|note| Some(note.hash) == hash);
            return;
        };
        let question = whom::question_of_limits(&policy, &self.snapshot.observation.state.claims);
        let accounts = question.ask_or_read(Limit::Each(NSS));
        // By the name of the namespace, too, which the file of what was used is called by.
        let again = self.kernel.again().ok();
        let found = again.and_then(|it| whom::limits_in_force(it, policy, accounts));
        (self.inputs.limits, self.inputs.quotas) = found.unwrap_or_default();
    }

    /// Counts the owners' processes, with those that `run` and `attach` put there, where there are
    /// not more owners than `most`: that takes a file or two for each.
    fn count_processes(&mut self, most: usize) -> Result<(), Failure> {
        let Some(instance) = self.kernel.instance() else { return Ok(()) };
        let claims = &self.snapshot.observation.state.claims;
        if claims.len() > most {
            return Ok(());
        }
        self.inputs.processes.clear();
        if !instance.places() {
            self.inputs.processes = self.count_by_uid()?;
            return Ok(());
        }
        let may_walk = claims.len() > FEW_OWNERS && self.own.is_none();
        self.inputs.processes = placed(&self.kernel, &instance, claims, may_walk)?;
        Ok(())
    }
}

impl Counting {
    /// The owners' processes where processes are placed nowhere: those as whose uids they run, by
    /// the maps in force.
    fn count_by_uid(&self) -> Result<BTreeMap<Owner, usize>, Failure> {
        let KernelState { claims, owners, .. } = &self.snapshot.observation.state;
        let mut counts = BTreeMap::new();
        let mut whose = BTreeMap::new();
        for (claim, class) in claims {
            if let Claim::Owner(owner) = claim {
                counts.insert(owner.clone(), 0);
                whose.insert(*class, owner);
            }
        }
        let Some(owners) = owners else {
            // Who is not root may not read the maps, and is told whose class he is in.
            let own = self.own.as_ref();
            let owner = own.and_then(|own| Some((own.uid, own.told.as_ref()?.owner()?)));
            let Some((uid, owner)) = owner else { return Ok(counts) };
            let processes = process::scan(&self.kernel.proc_root)?.processes;
            let his = processes.iter().filter(|it| it.is_alive() && it.uid == uid).count();
            return Ok([(owner, his)].into());
        };
        let view = self.kernel.view()?;
        for process in process::scan(&self.kernel.proc_root)?.processes {
            let is_counted = process.is_alive() && view.may_claim(&process);
            let class = owners.class(process.uid).filter(|_| is_counted);
            let owner = class.and_then(|class| whose.get(&class));
            if let Some(count) = owner.and_then(|owner| counts.get_mut(*owner)) {
                *count += 1;
            }
        }
        Ok(counts)
    }
}

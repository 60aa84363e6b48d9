//! One look at a host for an intent. Reads only.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use super::applied::InForce;
use super::telling::Telling;
use super::used::{Keeps, Use};
use crate::accounts::{Limit, Question};
use crate::engines::{self, Answer, Known};
use crate::facts::{Accounts, Facts, Features, Guests, LinkFacts, Observation, Tags};
use crate::failure::Failure;
use crate::host::Kernel;
use crate::host::observe::{self, ObserveError, Processes, Snapshot, Wanted, Whom};
use crate::intent::{self, Evidence, Intent, Meaning, Options, Refusal, Tried};
use crate::ledger::LedgerError;
use crate::model::{self, Next};
use crate::plan::Plan;
use crate::policy::Policy;
use crate::process::Scan;
use crate::quota::Grant;
use crate::times::Timestamp;
use crate::tree::{Direction, KernelState, LinkName, Owner};

/// The opened kernel, and its features once they are known.
pub struct Session {
    /// The handles of the host.
    pub kernel: Kernel,
    /// The kernel's features, once they are known.
    features: Option<Features>,
    /// Whether it can shape what arrives, once that was found out.
    down: Option<bool>,
    /// What container engines said.
    pub engines: Engines,
    /// What owners with a quota have used.
    used: Use,
    /// What accounts are told of themselves.
    telling: Telling,
    /// Which links the policy could not hold on at the last look.
    tried: Tried,
}

/// What container engines said so far, and whether a look may wait for them.
#[derive(Clone, Debug)]
pub struct Engines {
    /// What they said.
    pub known: Known,
    /// The next look that lacks a container's name asks them, and waits seconds for one that
    /// hangs; no look after it does.
    pub may_be_asked: bool,
}

impl Engines {
    /// Fills in what engines know of containers.
    fn describe(&mut self, guests: &mut Guests, ask: impl FnOnce() -> Answer) {
        self.known.look(guests, Instant::now());
        if self.known.due().is_some() && std::mem::take(&mut self.may_be_asked) {
            let _is_news = self.known.learn(ask(), Instant::now());
        }
        self.known.describe(guests);
    }
}

/// The request for one run: the intent, and what need not be read from the host.
#[derive(Clone, Debug)]
pub struct Request {
    /// The policy, and how it is to be read in this run.
    pub intent: Intent,
    /// Who the accounts are, and who of them runs.
    pub who: Who,
    /// An earlier look. Retired classes that have been silent since then may go.
    pub earlier: Option<Snapshot>,
    /// The moment for which the policy's meaning is asked; `None`: now.
    pub at: Option<Timestamp>,
}

/// Who the accounts are, and who of them runs.
#[derive(Clone, Debug)]
pub enum Who {
    /// All processes are looked at, and moved. NSS is asked about the uids that run and the names
    /// in the policy.
    Asked {
        /// Uids to ask about beyond those.
        also: BTreeSet<u32>,
    },
    /// The accounts are known from an earlier question.
    Known {
        /// The answers, and who runs.
        accounts: Box<Accounts>,
        /// Whether all processes are looked at, and moved; then they say who runs.
        processes: bool,
    },
}

impl Who {
    /// Whether processes are looked at, and moved.
    pub fn moves_processes(&self) -> bool {
        matches!(self, Who::Asked { .. } | Who::Known { processes: true, .. })
    }
}

/// A look at the host: what the policy means there, and who runs.
pub struct Look {
    /// What the policy means.
    pub meaning: Meaning,
    /// All processes; empty where they were not looked at.
    pub scan: Scan,
}

impl Request {
    /// A request for a policy, for which everything is read from the host.
    pub fn new(policy: impl Into<Arc<Policy>>, options: Options) -> Request {
        Request::from(Intent::new(policy, options))
    }
}

impl From<Intent> for Request {
    fn from(intent: Intent) -> Request {
        let who = Who::Asked { also: BTreeSet::new() };
        Request { intent, who, earlier: None, at: None }
    }
}

impl Session {
    /// A session without knowledge of the kernel's features.
    pub fn new(kernel: Kernel) -> Session {
        let engines = Engines { known: Known::default(), may_be_asked: true };
        Session {
            kernel,
            features: None,
            down: None,
            engines,
            used: Use::default(),
            telling: Telling::default(),
            tried: Tried::default(),
        }
    }

    /// One in which no look waits for a container engine: for who needs no container's name.
    pub fn without_names(kernel: Kernel) -> Session {
        let mut session = Session::new(kernel);
        session.engines.may_be_asked = false;
        session
    }

    /// One that tries no features, since these are known: what this kernel can do, and whether it
    /// can shape what arrives.
    pub fn knowing(kernel: Kernel, features: Features, down: bool) -> Session {
        let features = Features { tried: true, ..features };
        Session { features: Some(features), down: Some(down), ..Session::without_names(kernel) }
    }

    /// Says who writes down what owners with a quota have used.
    pub fn keep_use(&mut self, keeps: Keeps) {
        self.used.keeps = keeps;
    }

    /// Who does.
    pub(super) fn keeps_use(&self) -> Keeps {
        self.used.keeps
    }

    /// Whether others who count, and the disk, are waited for.
    pub fn wait_for_use(&mut self, waits: bool) {
        self.used.set_waiting(waits);
    }

    /// Writes down what was counted of it.
    pub fn write_use(&mut self) {
        self.used.write();
    }

    /// Whether what was counted and is not written has given somebody's use to somebody else.
    pub(super) fn use_changes_hands(&self) -> bool {
        self.used.changes_hands()
    }

    /// Forgets what was counted of it and is not written.
    pub(super) fn forget_use(&mut self) {
        self.used.forget();
    }

    /// Goes on telling accounts what was used of their quotas and which limits hold, at most so
    /// many; returns whether all were told.
    pub fn tell_accounts(&mut self, in_force: &InForce, most: usize) -> bool {
        self.telling.go_on((&self.kernel, most), in_force, self.used.known())
    }

    /// Grants an owner more of his quotas. What this process has counted is not written by it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn grant_use(&mut self, owner: Owner, grant: Grant) -> Result<(), LedgerError> {
        self.used.grant(&self.kernel, owner, grant)
    }

    /// Has an owner's use begin anew; what was counted until now is written down before, so that
    /// nobody counts it after that.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn reset_use(&mut self, owner: Owner) -> Result<(), LedgerError> {
        self.used.reset(&self.kernel, owner)
    }

    /// Writes down that nobody has a quota any more.
    pub(super) fn pause_use(&mut self) {
        self.used.pause(&self.kernel);
    }

    /// Reads the counters of what is in force, and says what follows from the use; `None`: nothing
    /// is counted, or not now.
    ///
    /// # Errors
    /// The netlink socket's.
    pub fn count_use(
        &mut self,
        policy: &Policy,
        in_force: &InForce,
    ) -> Result<Option<Next>, ObserveError> {
        self.used.next(&mut self.kernel, policy, in_force)
    }

    /// Looks at the host and makes the policy into a model.
    ///
    /// # Errors
    /// The host cannot be read; a policy that cannot hold here, and a root qdisc that is somebody
    /// else's.
    pub fn look(&mut self, request: &Request) -> Result<Look, Failure> {
        self.look_beyond(request, None)
    }

    /// As [`Session::look`]; `seen`: a look at all processes from a moment ago, which this one
    /// uses.
    pub(super) fn look_beyond(
        &mut self,
        request: &Request,
        seen: Option<Scan>,
    ) -> Result<Look, Failure> {
        let mut seen = self.observe(request, seen)?;
        let scan = std::mem::take(&mut seen.scan);
        let meaning = request.intent.mean(seen.observation, &mut self.tried)?;
        Ok(Look { meaning, scan })
    }

    /// Reads everything on which the intent depends.
    fn observe(&mut self, request: &Request, seen: Option<Scan>) -> Result<Snapshot, Failure> {
        let intent = &request.intent;
        let accounts = Some(match &request.who {
            Who::Known { accounts, .. } => Whom::Known(accounts),
            Who::Asked { also } => {
                let mut question = Question::of(&intent.policy);
                question.uids.extend(also);
                question.uids.extend(intent.came.iter().filter_map(|owner| match owner {
                    Owner::Uid(uid) => Some(*uid),
                    _ => None,
                }));
                Whom::Nss(question)
            }
        });
        let processes = match seen {
            _ if !request.who.moves_processes() => Processes::Unwanted,
            Some(seen) => Processes::Seen(seen),
            None => Processes::All,
        };
        let wanted = Wanted {
            links: intent.named_links(),
            accounts,
            processes,
            namespaces: intent.policy.users.iter().any(|line| line.namespaces.is_some()),
            units: intent.policy.users.iter().any(|line| line.units.is_some()),
            ..Wanted::default()
        };
        let mut seen = observe::observe(&mut self.kernel, wanted)?;
        let facts = &mut seen.observation.facts;
        observe::clock(facts, &intent.policy);
        self.used.look(&self.kernel, &intent.policy, &mut seen);
        let facts = &mut seen.observation.facts;
        if let Some(at) = request.at {
            (facts.now, facts.used.time) = (at, None);
        }
        observe::speeds(&mut seen, |name, link| intent.is_about(name, link))?;
        if intent.policy.names_containers() {
            observe::containers(&mut self.kernel, &mut seen)?;
            let ask = || engines::Question::of_the_host().ask();
            self.engines.describe(&mut seen.observation.facts.guests, ask);
        }
        self.find_features(intent, &mut seen.observation)?;
        self.ask_about_what_arrives(intent, &mut seen.observation)?;
        let facts = &mut seen.observation.facts;
        // An ifb of ours shows it too, whoever made its programs: it comes after the trial.
        let stands = !facts.flows.is_empty() || !facts.ifbs.is_empty();
        facts.down = self.down.or(stands.then_some(true));
        users_of_guests(facts, request);
        let may_leave = intent.may_leave(&seen.observation);
        seen.observation.occupied = observe::occupied(&self.kernel, may_leave)?;
        if let Some(earlier) = &request.earlier {
            let silent = intent.silent(&seen.observation, &earlier.counters, &seen.counters);
            if !silent.is_empty() {
                let tags = observe::tags(&self.kernel.proc_root).unwrap_or_else(|error| {
                    log::warn!("retired classes stay, because sockets cannot be listed: {error}");
                    Tags::Hidden
                });
                seen.observation.facts.quiet = intent::quiet(silent, &tags);
            }
        }
        Ok(seen)
    }

    /// What this kernel can do, as far as that is known by what stands, or was tried; and whether
    /// there is `net_cls`, which may be mounted or unmounted at any time.
    fn find_features(
        &mut self,
        intent: &Intent,
        seen: &mut Observation,
    ) -> Result<(), ObserveError> {
        let no_net_cls = observe::no_net_cls(&self.kernel)?;
        let spared = match intent::needs_tags(&intent.policy, &seen.facts) {
            true => None,
            false => observe::spared(&self.kernel, &seen.state)?,
        };
        seen.facts.features.no_net_cls = no_net_cls;
        seen.facts.features.spared = spared;
        if self.features.is_none() {
            let evidence = Evidence::of(seen);
            self.features = Some(evidence.or_tried(observe::try_features)?);
        }
        let features = self.features.clone().unwrap_or_default();
        seen.facts.features = Features { no_net_cls, spared, ..features };
        Ok(())
    }

    /// What only a policy depends on that has a `down`.
    fn ask_about_what_arrives(
        &mut self,
        intent: &Intent,
        seen: &mut Observation,
    ) -> Result<(), ObserveError> {
        if intent.policy.links.iter().any(|line| line.down.is_some()) {
            let is_asked = |name: &LinkName, link: &LinkFacts| intent.is_about(name, link);
            observe::beside(&mut self.kernel, &mut seen.facts, is_asked)?;
            observe::busy(&mut self.kernel, seen, is_asked)?;
        }
        Ok(())
    }

    /// The steps from what was seen to what is desired.
    ///
    /// # Errors
    /// The kernel cannot do what the policy asks for.
    pub fn plan(
        &mut self,
        intent: &Intent,
        meaning: &mut Meaning,
    ) -> Result<(Plan, KernelState), Failure> {
        match intent.plan(meaning) {
            Err(Refusal::Untried) => {
                // By now programs whose maps are closed count as strange.
                let evidence = Evidence::of(&meaning.observation);
                let evidence = evidence.and_known(self.features.as_ref());
                let Features { no_net_cls, spared, .. } = meaning.facts().features;
                let features = evidence.tried(observe::try_features)?;
                let features = Features { no_net_cls, spared, ..features };
                self.features = Some(features.clone());
                let facts = &mut meaning.observation.facts;
                facts.features = features;
                let mut ports = meaning.model.links.iter().map(|link| link.port.direction);
                if facts.down.is_none() && ports.any(|direction| direction == Direction::Ingress) {
                    self.down = Some(observe::try_down()?);
                    facts.down = self.down;
                }
                Ok(intent.plan(meaning)?)
            }
            outcome => Ok(outcome?),
        }
    }
}

/// Who has guests. Users that neither run nor are named in the policy NSS is asked about now, where
/// the look asks it at all.
fn users_of_guests(facts: &mut Facts, request: &Request) {
    let (policy, Facts { guests, accounts, .. }) = (&request.intent.policy, facts);
    let names = model::named_by_guests(policy, guests).map(str::to_string);
    accounts.named_by_guests = names.collect();
    accounts.with_guests = model::guests_of_accounts(policy, guests, accounts).collect();
    let (names, uids) = accounts.unasked_of_guests();
    if names.is_empty() && uids.is_empty() || !matches!(request.who, Who::Asked { .. }) {
        return;
    }
    let without_groups = Question::of(policy).without_groups;
    // As of uids that run, so that it is asked whose range one is in.
    let question = Question { names, running: uids, without_groups, ..Question::default() };
    accounts.learn_of_guests(question.ask_or_read(Limit::PATIENT));
    // A name may be an account's whose uid is known by now.
    accounts.with_guests = model::guests_of_accounts(policy, guests, accounts).collect();
    let (_, uids) = accounts.unasked_of_guests();
    if !uids.is_empty() {
        let question = Question { running: uids, without_groups, ..Question::default() };
        accounts.learn_of_guests(question.ask_or_read(Limit::PATIENT));
    }
}

/// Whether this process may change links and directories; one sentence that says what is missing.
///
/// # Errors
/// The privilege that it lacks.
pub fn may_change(kernel: &Kernel) -> Result<(), Failure> {
    match observe::lack(&kernel.proc_root)? {
        None => Ok(()),
        Some(lack) => Err(lack.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Container, Engine};
    use std::cell::Cell;
    use std::collections::BTreeMap;

    #[test]
    fn engines_are_asked_once_in_a_session_also_where_they_are_silent() {
        let container = Container {
            engine: Engine::Docker,
            id: "1".into(),
            name: None,
            labels: BTreeMap::new(),
            addresses: Vec::new(),
            namespace: None,
            slice: None,
            uid: None,
        };
        for (may_be_asked, times) in [(true, 1), (false, 0)] {
            let (asked, mut engines) =
                (Cell::new(0), Engines { known: Known::default(), may_be_asked });
            for _ in 0..3 {
                let mut guests =
                    Guests { containers: vec![container.clone()], ..Guests::default() };
                engines.describe(&mut guests, || {
                    asked.set(asked.get() + 1);
                    Answer { silent: vec!["Docker: no answer".into()], ..Answer::default() }
                });
                assert_eq!(guests.silent.len(), times);
            }
            assert_eq!(asked.get(), times);
        }
    }
}

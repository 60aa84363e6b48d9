//! A policy on a host: what is read of it, and what follows. Reads only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::accounts::{How, Question};
use crate::facts::{Accounts, Features, LinkFacts};
use crate::failure::Failure;
use crate::host::Kernel;
use crate::host::observe::{self, Processes, Snapshot, Wanted, Whom};
use crate::intent::{Intent, Leaving, Meaning, Options, Refusal};
use crate::plan::Plan;
use crate::policy::Policy;
use crate::process::Scan;
use crate::sys::probe;
use crate::tree::{KernelState, LinkName, Owner};

/// A policy that was read, and the host that it is for.
pub struct Session {
    /// The handles of the host.
    pub kernel: Kernel,
    /// As written.
    pub policy: Arc<Policy>,
    /// What it is to be lenient about.
    pub options: Options,
    /// Uids to ask NSS about beyond those that the policy names and those that run.
    pub ask: BTreeSet<u32>,
    /// Accounts, and ranges of subordinate uids, whose processes were found in this run and that
    /// had no class then.
    pub came: BTreeSet<Owner>,
    /// Who the accounts are, if somebody asked already: then NSS is not asked.
    pub known: Option<Accounts>,
    /// NSS is asked by a child, because this process will fork: a module that started a thread here
    /// would leave its locks held for ever in the fork, where that thread is not.
    pub asks_apart: bool,
    /// Whether processes are looked at, and moved. Without it the accounts that run are those of
    /// `known`.
    pub processes: bool,
    /// A look at them a moment ago, which the next one takes over.
    pub seen: Option<Scan>,
    /// Accounts (and ranges of subordinate uids) whose time of grace is over; all others that stand
    /// keep their class, also without a process. `None`: whoever has no process leaves, unless
    /// something was put there by hand. Those who leave keep it too for as long as it is not known
    /// to be quiet, or somebody is in their directory: who comes back then finds his one class, and
    /// not a second one beside what still drains. What is not known of one that stands (its groups)
    /// is as it stands.
    pub leaving: Option<BTreeSet<Owner>>,
    /// Links that stay as they stand, whatever the policy says.
    pub held: BTreeSet<LinkName>,
    /// Links that were shaped before, by ifindex: another root qdisc there was put in the place of
    /// ours.
    pub reclaimed: BTreeSet<u32>,
    /// Links that the last look passed over, by ifindex, because somebody else's root qdisc stands
    /// there.
    pub in_the_way: BTreeSet<u32>,
    /// The links of the last model, as they were then.
    pub(super) good: BTreeMap<LinkName, LinkFacts>,
    /// What the kernel can do, once it was found out.
    pub features: Option<Features>,
    /// A look some time ago. Retired classes that were silent since then may go.
    pub earlier: Option<Snapshot>,
}

/// A look at the host: what the policy means there, and who runs.
pub struct Look {
    /// What the policy means.
    pub meaning: Meaning,
    /// All processes; empty where they were not looked at.
    pub scan: Scan,
}

impl Session {
    /// Nothing was asked or read yet.
    pub fn new(kernel: Kernel, policy: impl Into<Arc<Policy>>, options: Options) -> Session {
        Session {
            kernel,
            policy: policy.into(),
            options,
            ask: BTreeSet::new(),
            came: BTreeSet::new(),
            known: None,
            asks_apart: false,
            processes: true,
            seen: None,
            leaving: None,
            held: BTreeSet::new(),
            reclaimed: BTreeSet::new(),
            in_the_way: BTreeSet::new(),
            good: BTreeMap::new(),
            features: None,
            earlier: None,
        }
    }

    /// What is asked of this run.
    fn intent(&self) -> Intent {
        Intent {
            policy: Arc::clone(&self.policy),
            options: self.options,
            came: self.came.clone(),
            leaving: match &self.leaving {
                None => Leaving::WithoutProcess,
                Some(leaving) => Leaving::These(leaving.clone()),
            },
            held: self.held.clone(),
            reclaimed: self.reclaimed.clone(),
            good: self.good.clone(),
        }
    }

    /// Looks at the host and makes the policy into a model.
    ///
    /// # Errors
    /// The host cannot be read; a policy that cannot hold here, and a root qdisc that is somebody
    /// else's.
    pub fn look(&mut self) -> Result<Look, Failure> {
        let intent = self.intent();
        let mut seen = self.observe(&intent)?;
        let scan = std::mem::take(&mut seen.scan);
        let meaning = intent.mean(seen.observation)?;
        self.in_the_way.clone_from(&meaning.in_the_way);
        self.good = meaning.good_links();
        Ok(Look { meaning, scan })
    }

    /// Reads all that the intent depends on.
    fn observe(&mut self, intent: &Intent) -> Result<Snapshot, Failure> {
        let accounts = Some(match &self.known {
            Some(known) => Whom::Known(known),
            None => {
                let mut question = Question::of(&self.policy);
                question.uids.extend(&self.ask);
                question.uids.extend(self.came.iter().filter_map(|owner| match owner {
                    Owner::Uid(uid) => Some(*uid),
                    _ => None,
                }));
                let how = if self.asks_apart { How::Apart } else { How::Here };
                Whom::Nss { question, how }
            }
        });
        let processes = match self.seen.take() {
            _ if !self.processes => Processes::Unwanted,
            Some(seen) => Processes::Seen(seen),
            None => Processes::All,
        };
        let wanted = Wanted {
            links: intent.named_links(),
            accounts,
            processes,
            features: self.features.is_none(),
            units: self.policy.users.iter().any(|line| line.units.is_some()),
            ..Wanted::default()
        };
        let mut seen = observe::observe(&mut self.kernel, wanted)?;
        observe::speeds(&mut seen, |name, link| intent.is_about(name, link))?;
        let found = &mut seen.observation.facts.features;
        found.clone_from(self.features.get_or_insert_with(|| found.clone()));
        let may_leave = intent.may_leave(&seen.observation);
        seen.observation.occupied = observe::occupied(&self.kernel, may_leave)?;
        if let Some(earlier) = &self.earlier {
            let leaves = intent.leaves(&seen.observation).into_values();
            let quiet = observe::quiet(&self.kernel.proc_root, earlier, &seen, leaves);
            seen.observation.facts.quiet = quiet;
        }
        Ok(seen)
    }

    /// The steps from what was seen to what is desired.
    ///
    /// # Errors
    /// The kernel cannot do what the policy asks for.
    pub fn plan(&mut self, meaning: &mut Meaning) -> Result<(Plan, KernelState), Failure> {
        let intent = self.intent();
        match intent.plan(meaning) {
            Err(Refusal::Untried) => {
                let features = probe::features().map_err(Failure::refused)?;
                self.features = Some(features.clone());
                meaning.observation.facts.features = features;
                Ok(intent.plan(meaning)?)
            }
            outcome => Ok(outcome?),
        }
    }
}

/// Whether this process may change links and directories; one sentence that says what is missing.
///
/// # Errors
/// What it lacks.
pub fn may_change(kernel: &Kernel) -> Result<(), Failure> {
    match observe::lack(&kernel.proc_root)? {
        None => Ok(()),
        Some(lack) => Err(lack.into()),
    }
}

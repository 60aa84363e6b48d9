//! What metrics are made of: a small part of what a report for people needs, since Prometheus asks
//! again and again. Of who has neither windows nor quotas the policy is not even understood.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use super::instance::keeper;
use super::placed::placed;
use super::{daemon, whom};
use crate::accounts::{Limit, Question};
use crate::apply;
use crate::facts::{Account, Accounts};
use crate::failure::Failure;
use crate::host::Kernel;
use crate::host::observe::{self, Snapshot};
use crate::policy::{self, Policy};
use crate::sample::Sample;
use crate::status::{self, PolicyInForce, Status, StatusInputs};
use crate::tree::{Claim, Reserved};

/// How long NSS may take from one name to the next.
const NSS: Duration = Duration::from_secs(3);

/// One look for metrics.
pub(super) struct Scrape {
    snapshot: Snapshot,
    inputs: StatusInputs,
}

impl Scrape {
    /// Looks, where processes are placed in directories.
    pub(super) fn look(kernel: &mut Kernel) -> Result<Scrape, Failure> {
        let snapshot = observe::limited(kernel)?;
        let mut inputs = StatusInputs { netns: kernel.netns, ..StatusInputs::default() };
        let Some(instance) = kernel.instance() else { return Ok(Scrape { snapshot, inputs }) };
        inputs.daemon = keeper(kernel, &instance)?;
        let claims = &snapshot.observation.state.claims;
        let uids = claims.keys().filter_map(Claim::uid).filter(|uid| *uid != 0).collect();
        let names = Question { uids, without_groups: true, ..Question::default() };
        let policy = policy_that_changes(kernel);
        let of_limits = policy.as_ref().map(|policy| whom::question_of_limits(policy, claims));
        let (named, accounts) = ask(names, of_limits);
        inputs.names.extend(named.into_iter().map(|(uid, account)| (uid, account.name)));
        inputs.names.insert(0, Reserved::Root.to_string());
        inputs.processes = placed(kernel, &instance, claims, true)?;
        if let Some(policy) = policy {
            // By the name of the namespace, too, which the file of what was used is called by.
            let again = kernel.again().ok();
            let found = again.and_then(|it| whom::limits_in_force(it, policy, accounts));
            (inputs.limits, inputs.quotas) = found.unwrap_or_default();
        }
        inputs.policy = instance.policy().map(|note| PolicyInForce {
            by: None,
            file: note.file,
            since: note.since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            by_uid: note.by,
        });
        Ok(Scrape { snapshot, inputs })
    }

    /// The counters.
    pub(super) fn sample(&self) -> Sample {
        Sample::of(&self.snapshot, Duration::ZERO)
    }

    /// The report that metrics are written of, which lacks what they lack.
    pub(super) fn status(&self) -> Status {
        status::status(&self.snapshot, &self.inputs)
    }
}

/// Who accounts are: for their names, and for the limits. NSS is asked once, since whoever waits
/// for metrics waits 10 s at most, and NSS may be dead.
fn ask(names: Question, of_limits: Option<Question>) -> (BTreeMap<u32, Account>, Accounts) {
    let question = match of_limits {
        Some(of_limits) => names.clone().and(of_limits),
        None if names.uids.is_empty() => return Default::default(),
        None => names.clone(),
    };
    match question.clone().ask(Limit::Each(NSS)) {
        Ok(found) => (found.by_uid.clone(), found),
        // Files say what a local account is called, and not all its groups.
        Err(why) => (why.accounts(names).by_uid, why.accounts(question)),
    }
}

/// The policy in force; `None`: what it says holds at all times, or it cannot be read, or it is
/// refused.
fn policy_that_changes(kernel: &Kernel) -> Option<Policy> {
    let file = daemon::policy_applied(kernel).ok()?;
    let source = apply::texts(&file).ok().filter(policy::may_change)?;
    policy::read(source).ok().filter(Policy::has_times_or_quotas)
}

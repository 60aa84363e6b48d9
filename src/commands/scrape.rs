//! What metrics are made of: a small part of what a report for people needs, since Prometheus asks
//! again and again. Of who has neither windows nor quotas the policy is not even understood.

use std::collections::BTreeSet;
use std::time::{Duration, UNIX_EPOCH};

use super::instance::keeper;
use super::placed::placed;
use super::{daemon, whom};
use crate::accounts::{Limit, Question};
use crate::apply::{self, Look};
use crate::engines::Known;
use crate::failure::Failure;
use crate::host::Kernel;
use crate::host::observe::{self, Snapshot};
use crate::policy;
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
        inputs.names.insert(0, Reserved::Root.to_string());
        let question = Question { uids, without_groups: true, ..Question::default() };
        if !question.uids.is_empty() {
            let found = question.ask_or_read(Limit::Each(NSS));
            let names = found.by_uid.into_iter().map(|(uid, account)| (uid, account.name));
            inputs.names.extend(names);
        }
        inputs.processes = placed(kernel, &instance, claims, true)?;
        if let Some(look) = in_force(kernel) {
            let (model, facts) = (&look.meaning.model, look.meaning.facts());
            inputs.limits = status::limits(model, &facts.zones.here);
            if facts.used.unread.is_none() {
                inputs.quotas = status::quotas(model, &facts.zones.here);
            }
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

/// What the policy in force means now; `None`: it means the same for ever.
fn in_force(kernel: &Kernel) -> Option<Look> {
    let file = daemon::policy_applied(kernel).ok()?;
    let source = apply::texts(&file).ok().filter(policy::may_change)?;
    let policy = policy::read(source).ok()?;
    if policy.times.is_empty() && policy.quotas().next().is_none() {
        return None;
    }
    // By the name of the namespace, too, which the file of what was used is called by.
    whom::in_force(kernel.again().ok()?, Some(&file), BTreeSet::new(), Known::default())
}

//! What follows from quotas for an owner, as a value. Touches nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::quota::{self, Account, Outlook, Quota, Reach, Slots, Together, Verdict};
use crate::times::{TimeZone, Timestamp};
use crate::tree::Owner;

/// An owner's quotas, and what follows from them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metered {
    /// Each with its time zone, in file order.
    pub quotas: Arc<[(Quota, TimeZone)]>,
    /// What follows from each of them.
    pub verdicts: Vec<Verdict>,
    /// What follows from all together.
    pub together: Together,
    /// The most bytes that the owner can move in a second, on all links and both ways.
    pub pace: u64,
    /// Bytes that may pass faster before that pace holds, of all links and both ways
    /// ([`Limits::boost`]).
    ///
    /// [`Limits::boost`]: super::Limits::boost
    pub boost: u64,
    /// The most bytes of that in a second: what his links carry.
    pub fastest: u64,
}

impl Metered {
    /// What follows from the quotas for an account.
    pub(super) fn of(
        quotas: Arc<[(Quota, TimeZone)]>,
        account: &Account,
        moment: Timestamp,
    ) -> Metered {
        let verdicts = verdicts(&quotas, account, moment);
        let together = quota::together(&verdicts);
        Metered { quotas, verdicts, together, pace: 0, boost: 0, fastest: 0 }
    }

    /// Why the cap holds that the quotas set; `None`: they set none.
    pub(super) fn why(&self) -> Option<String> {
        let (place, held) = self.together.held?;
        Some(self.quotas.get(place)?.0.why(held.step))
    }

    /// The same with what follows after more was used.
    #[must_use]
    pub fn after(&self, account: &Account, moment: Timestamp) -> Metered {
        let verdicts = verdicts(&self.quotas, account, moment);
        Metered { together: quota::together(&verdicts), verdicts, ..self.clone() }
    }

    /// What follows from them after more was used.
    fn again(&self, account: &Account, moment: Timestamp) -> Together {
        quota::together(&verdicts(&self.quotas, account, moment))
    }
}

fn verdicts(quotas: &[(Quota, TimeZone)], account: &Account, moment: Timestamp) -> Vec<Verdict> {
    quotas.iter().map(|(quota, zone)| quota.verdict(account, moment, zone)).collect()
}

/// All owners with quotas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meters {
    /// By owner.
    pub owners: BTreeMap<Owner, Metered>,
    /// Where the buckets of use begin.
    pub slots: Slots,
}

/// What follows from the use at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Somebody has another cap than the model gives him.
    Turned,
    /// The counters need not be read for so long.
    Look(Duration),
}

impl Meters {
    /// What follows from what all have used by a moment. `None`: somebody has another cap than the
    /// model gives him.
    pub fn outlook(&self, used: &BTreeMap<Owner, Account>, moment: Timestamp) -> Option<Outlook> {
        let nothing = Account::default();
        let reaches = Vec::with_capacity(self.owners.len());
        let mut outlook = Outlook { reaches, at: moment, changes: None };
        for (owner, metered) in &self.owners {
            let now = metered.again(used.get(owner).unwrap_or(&nothing), moment);
            let cap = |together: &Together| together.held.map(|(_, held)| held.step.rate);
            if cap(&now) != cap(&metered.together) {
                return None;
            }
            // A grant ends that came since.
            outlook.changes = outlook.changes.into_iter().chain(now.changes).min();
            let Metered { pace, boost, fastest, .. } = *metered;
            let reach = |bytes| Reach { bytes, pace, boost, fastest };
            outlook.reaches.extend(now.to_next.map(reach));
        }
        Some(outlook)
    }
}

//! What failed, or was refused, and when it is tried again: later and later. Pure.

use std::time::{Duration, Instant};

use crate::policy::Source;

/// The pause after a failure; each one that follows doubles it.
const RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// The pause after a failure before which there were so many in a row.
pub(super) fn pause_after(tries: u32) -> Duration {
    RETRY.saturating_mul(2_u32.saturating_pow(tries)).min(LONGEST_RETRY)
}

/// A text that is no policy, or a policy that is refused here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused<P> {
    pub source: Option<Source>,
    pub why: String,
    /// The policy, unless it is being tried again; `None` also of a text that is none.
    pub policy: Option<P>,
    /// How often it was refused in a row.
    tries: u32,
    /// It is not tried again before this time.
    not_before: Instant,
    /// When it is, since links have changed.
    again: Option<Instant>,
}

impl<P> Refused<P> {
    /// After a refusal. `before`: the last one, if it was of the same text.
    pub(super) fn new(
        (source, policy): (Option<Source>, Option<P>),
        why: String,
        before: Option<Refused<P>>,
        now: Instant,
    ) -> Refused<P> {
        let tries = before.map_or(0, |before| before.tries);
        let not_before = now + pause_after(tries);
        Refused { source, why, policy, tries: tries.saturating_add(1), not_before, again: None }
    }

    /// Links have changed, of which more may be told until `soon`.
    pub(super) fn links_differ(&mut self, soon: Instant) {
        self.again.get_or_insert(self.not_before.max(soon));
    }

    /// When the policy is tried again.
    pub(super) fn due(&self) -> Option<Instant> {
        self.policy.as_ref()?;
        self.again
    }

    /// The policy, where it is time to try it again.
    pub(super) fn begins(&mut self, now: Instant) -> Option<P> {
        self.due().filter(|due| *due <= now)?;
        self.policy.take()
    }
}

/// What is said of a refusal.
pub(super) fn not_adopted(why: &str) -> String {
    format!("the policy is not adopted, and the one before stays in force: {why}")
}

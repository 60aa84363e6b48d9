//! When somebody undoes repairs of a link, the daemon waits longer and longer before the next
//! repair of that link. Pure but for the clock that callers pass in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::tree::LinkName;

/// How many repairs follow each other without a pause: an administrator at work causes that many.
const PATIENCE: u32 = 4;
/// The first pause; each one after it is twice as long.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(60);
/// How long after a pause without a repair the link's repairs are forgotten.
const FORGET: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Backoff(BTreeMap<LinkName, Fight>);

#[derive(Debug)]
struct Fight {
    repairs: u32,
    last: Instant,
    until: Instant,
}

impl Backoff {
    /// Notes a repair of the link. The pause that follows it, if there is one.
    pub(super) fn repaired(&mut self, link: &LinkName, now: Instant) -> Option<Duration> {
        let is_over = |it: &Fight| now.saturating_duration_since(it.until.max(it.last)) > FORGET;
        // Names come and go with the links that a pattern means.
        self.0.retain(|_, fight| !is_over(fight));
        let fight =
            self.0.entry(link.clone()).or_insert(Fight { repairs: 0, last: now, until: now });
        fight.repairs += 1;
        fight.last = now;
        let doublings = fight.repairs.checked_sub(PATIENCE)?;
        let pause = FIRST.saturating_mul(2_u32.saturating_pow(doublings)).min(LONGEST);
        fight.until = now + pause;
        Some(pause)
    }

    /// The links that are left alone now.
    pub(super) fn held(&self, now: Instant) -> BTreeSet<LinkName> {
        let fights = self.0.iter().filter(|(_, fight)| fight.until > now);
        fights.map(|(link, _)| link.clone()).collect()
    }

    /// When the first held link is looked after again.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        self.0.values().map(|fight| fight.until).filter(|until| *until > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_fights_us_wins_for_longer_and_longer_on_that_link_alone() {
        let link = LinkName::new("eth0").unwrap();
        let mut backoff = Backoff::default();
        let mut now = Instant::now();
        for _ in 1..PATIENCE {
            assert_eq!(backoff.repaired(&link, now), None);
        }
        let mut pauses = vec![];
        for _ in 0..9 {
            let pause = backoff.repaired(&link, now).unwrap();
            assert_eq!(backoff.held(now), BTreeSet::from([link.clone()]));
            assert_eq!(backoff.next(now), Some(now + pause));
            now += pause;
            assert_eq!(backoff.held(now), BTreeSet::new());
            pauses.push(pause.as_millis());
        }
        assert_eq!(pauses, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
        let later = now + 2 * FORGET + LONGEST;
        let other = LinkName::new("ppp7").unwrap();
        assert_eq!(backoff.repaired(&other, later), None);
        assert!(backoff.0.keys().eq([&other]), "all is forgotten");
        assert_eq!(backoff.repaired(&link, later), None);
    }
}

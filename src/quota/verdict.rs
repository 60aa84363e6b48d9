//! What follows from a quota and what was used: the limit in force, why, and until when.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::account::{Account, Grant, Traffic, leaves};
use super::period::{Period, Window};
use crate::units::{Bytes, Percent, Rate};

/// The slowest limit that a quota may set: with less than this nobody can log in to see why.
pub const SLOWEST: Rate = Rate::literal(64_000 / 8);

/// Which traffic a quota counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Counts {
    /// What leaves.
    Sent,
    /// What arrives.
    Received,
    /// Both together.
    #[default]
    Both,
}

impl Counts {
    /// The bytes of this traffic that count.
    pub fn of(self, traffic: Traffic) -> u64 {
        match self {
            Counts::Sent => traffic.sent,
            Counts::Received => traffic.received,
            Counts::Both => traffic.sent.saturating_add(traffic.received),
        }
    }

    /// As a policy spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Counts::Sent => "sent",
            Counts::Received => "received",
            Counts::Both => "both",
        }
    }
}

/// A limit that holds from a share of the volume on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Step {
    /// The share.
    pub share: Percent,
    /// The cap, each way.
    pub rate: Rate,
}

/// A volume for a period, and the caps that hold once shares of it are used.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Quota {
    /// The period.
    pub period: Period,
    /// The volume.
    pub volume: Bytes,
    /// What holds from which share on: rising shares, falling caps.
    pub steps: Vec<Step>,
    /// What is counted.
    pub counts: Counts,
    /// The time zone's name; `None`: the host's.
    pub zone: Option<String>,
}

/// A cap that a quota sets now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The step that holds.
    pub step: Step,
    /// The first moment from which it would no longer hold if nothing more were used.
    pub until: Timestamp,
}

/// What follows from a quota at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What was used of it.
    pub used: u64,
    /// The volume with what was granted.
    pub volume: u64,
    /// The period's time.
    pub window: Window,
    /// The cap that holds; `None`: no step is reached.
    pub held: Option<Held>,
    /// How much may be used before the next step holds; `None`: there is none.
    pub to_next: Option<u64>,
    /// The first moment from which another cap may hold although nothing more is used; `None`:
    /// there is none.
    pub changes: Option<Timestamp>,
}

impl Quota {
    /// What follows from the quota for an owner at a moment.
    pub fn verdict(&self, account: &Account, moment: Timestamp, zone: &TimeZone) -> Verdict {
        let window = self.period.window(moment, zone);
        let used = self.used(account, moment, window);
        let (now, begin) = (moment.as_second(), window.begin.as_second());
        let granted = |grant: &&Grant| match grant.until {
            Some(until) => now < until,
            None => grant.at >= begin,
        };
        let grants = account.grants.iter().filter(granted);
        let more = grants.clone().fold(0_u64, |sum, grant| sum.saturating_add(grant.bytes));
        let volume = self.volume.0.saturating_add(more);
        let is_reached = |step: &&Step| step.share.part(volume) <= used;
        let held = self.steps.iter().rfind(is_reached).map(|step| {
            let until = self.until(account, window, moment, (used, step.share.part(volume)));
            Held { step: *step, until }
        });
        let next = self.steps.iter().find(|step| !is_reached(step));
        let to_next = next.map(|step| step.share.part(volume) - used);
        let ends = grants.map(|grant| match (grant.until, self.period) {
            (Some(until), _) => second(until),
            (None, Period::Rolling { seconds }) => second(grant.at + i64::from(seconds) + 1),
            (None, _) => window.end,
        });
        let changes = held.map(|held| held.until).into_iter().chain(ends).min();
        Verdict { used, volume, window, held, to_next, changes }
    }

    /// What was used of it in a window that was asked for at this moment. What has a later time
    /// than the moment was counted before a clock was set back, and counts.
    fn used(&self, account: &Account, moment: Timestamp, window: Window) -> u64 {
        let now = moment.as_second();
        let counts = |at: i64| match self.period {
            Period::Rolling { seconds } => leaves(at, seconds) > now,
            _ => at >= window.begin.as_second(),
        };
        let newest_first = account.buckets().iter().rev();
        let counted = newest_first.take_while(|bucket| counts(bucket.at));
        let traffic = counted.fold(Traffic::default(), |sum, it| sum.plus(it.traffic));
        self.counts.of(traffic)
    }

    /// Until when at least `most.1` of `most.0` counts.
    fn until(
        &self,
        account: &Account,
        window: Window,
        moment: Timestamp,
        (mut used, least): (u64, u64),
    ) -> Timestamp {
        let Period::Rolling { seconds } = self.period else { return window.end };
        let now = moment.as_second();
        for bucket in account.buckets().iter().filter(|it| leaves(it.at, seconds) > now) {
            used = used.saturating_sub(self.counts.of(bucket.traffic));
            if used < least {
                return second(leaves(bucket.at, seconds));
            }
        }
        Timestamp::MAX
    }
}

/// A second of Unix time as a moment.
fn second(second: i64) -> Timestamp {
    let end = if second < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_second(second).unwrap_or(end)
}

/// What follows from all quotas of an owner together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Together {
    /// Which of them has the lowest cap that holds, and the cap; `None`: no step is reached.
    pub held: Option<(usize, Held)>,
    /// How much may be used before another step of any of them holds; `None`: there is none.
    pub to_next: Option<u64>,
    /// The first moment from which another cap may hold although nothing more is used; `None`:
    /// there is none.
    pub changes: Option<Timestamp>,
}

/// The lowest of the caps holds; of equal ones the one that holds the longest.
pub fn together(verdicts: &[Verdict]) -> Together {
    let held = verdicts.iter().enumerate().filter_map(|(place, it)| Some((place, it.held?)));
    let order = |held: &Held| (held.step.rate, std::cmp::Reverse(held.until));
    Together {
        held: held.min_by_key(|(_, held)| order(held)),
        to_next: verdicts.iter().filter_map(|it| it.to_next).min(),
        changes: verdicts.iter().filter_map(|it| it.changes).min(),
    }
}

impl Quota {
    /// Why a step holds: `75% of 1TB this month is used`.
    pub fn why(&self, step: Step) -> String {
        let (volume, period) = (self.volume.to_volume(), self.period.in_words());
        let what = match self.counts {
            Counts::Sent => "sent",
            Counts::Received => "received",
            Counts::Both => "used",
        };
        match step.share == Percent::ALL {
            true => format!("{volume} {period} is {what}"),
            false => format!("{} of {volume} {period} is {what}", step.share),
        }
    }
}

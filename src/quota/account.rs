//! What one owner has used, by the time at which it was counted, and what more he was granted.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::period::Period;

/// What was sent and received, in bytes with link-layer headers, as HTB counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// What left.
    pub sent: u64,
    /// What arrived.
    pub received: u64,
}

impl Traffic {
    /// Whether it is nothing.
    pub fn is_none(self) -> bool {
        self.sent == 0 && self.received == 0
    }

    /// Both together.
    pub fn plus(self, more: Traffic) -> Traffic {
        Traffic {
            sent: self.sent.saturating_add(more.sent),
            received: self.received.saturating_add(more.received),
        }
    }
}

/// What was counted from one moment up to the next bucket's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Where its slot begins, in seconds of Unix time.
    pub at: i64,
    /// What was counted.
    pub traffic: Traffic,
}

/// More than the volume of a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// How much more.
    pub bytes: u64,
    /// When it was granted, in seconds of Unix time.
    pub at: i64,
    /// Until when it counts. `None`: as long as the period lasts in which it was granted.
    pub until: Option<i64>,
}

/// So many buckets at least are left of an owner's where there were too many.
const KEPT: usize = 128;

/// So many more there may be before they are joined: so that is seldom.
const SPARE: usize = 64;

/// How many days use is kept for.
const DAYS: usize = 62;

/// How many slots a rolling period has.
const SLOTS: u32 = 60;

/// Where buckets begin, which is at the beginnings of the days and of the slots of all quotas that
/// there are. Also where all are rolling: a bucket before midnight and the day of a moment after it
/// would say forever that another day has begun.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    zones: Vec<TimeZone>,
    rolling: Vec<u32>,
}

impl Slots {
    /// Those of these periods, each in its time zone.
    pub fn new<'a>(periods: impl IntoIterator<Item = (Period, &'a TimeZone)>) -> Slots {
        let mut slots = Slots::default();
        for (period, zone) in periods {
            match period {
                Period::Rolling { seconds } if !slots.rolling.contains(&seconds) => {
                    slots.rolling.push(seconds);
                }
                Period::Rolling { .. } => {}
                _ if !slots.zones.contains(zone) => slots.zones.push(zone.clone()),
                _ => {}
            }
        }
        slots
    }

    /// How many buckets are left of an owner's where there were too many: two that are not joined
    /// have a zone's midnight between them, or the beginning of a slot that a rolling period still
    /// counts. They are limited by number and not by age, so that a clock that runs ahead for a
    /// moment does not end what was counted.
    fn kept(&self) -> usize {
        // Those of its length, and the two in which it begins and ends.
        let slots = |seconds: &u32| seconds / (seconds / SLOTS).max(1) + 2;
        let slots: u32 = self.rolling.iter().map(slots).sum();
        KEPT.max(DAYS * self.zones.len()) + slots as usize
    }

    /// The most buckets that an owner has before they are made fewer.
    pub fn most(&self) -> usize {
        self.kept() + SPARE
    }

    /// Where the bucket begins that has this moment.
    pub fn begin(&self, moment: Timestamp) -> i64 {
        let now = moment.as_second();
        let rolling = self.rolling.iter().map(|seconds| slot(now, *seconds));
        rolling.fold(self.day(moment), i64::max)
    }

    /// Where the last of the quotas' days begins that has begun by this moment; that of UTC where
    /// none of them has a day.
    pub fn day(&self, moment: Timestamp) -> i64 {
        static UTC: [TimeZone; 1] = [TimeZone::UTC];
        let zones = if self.zones.is_empty() { &UTC[..] } else { &self.zones };
        let days = zones.iter().map(|zone| Period::Day.window(moment, zone).begin.as_second());
        days.max().unwrap_or_default()
    }

    /// Whether two buckets need not be told apart at this moment.
    fn are_one(&self, [one, other]: [i64; 2], now: i64) -> bool {
        let moment = |at: i64| Timestamp::from_second(at).unwrap_or(Timestamp::MIN);
        let begin = |at: i64, zone| Period::Day.window(moment(at), zone).begin;
        let gone = |seconds: u32| leaves(other, seconds) <= now;
        self.zones.iter().all(|zone| begin(one, zone) == begin(other, zone))
            && self.rolling.iter().all(|it| gone(*it) || slot(one, *it) == slot(other, *it))
    }
}

/// Where the slot of a rolling period begins that has this second.
fn slot(at: i64, seconds: u32) -> i64 {
    let length = slot_length(seconds);
    at.div_euclid(length) * length
}

fn slot_length(seconds: u32) -> i64 {
    i64::from((seconds / SLOTS).max(1))
}

/// When what was counted in a bucket is no longer part of a rolling period: once its whole slot is
/// older than that.
pub(super) fn leaves(at: i64, seconds: u32) -> i64 {
    slot(at, seconds) + slot_length(seconds) + i64::from(seconds)
}

/// What one owner has used, and what he was granted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// The account's name, where the owner is a uid and it is known: a uid that belongs to another
    /// account by now begins anew.
    pub name: Option<String>,
    /// In the order of their beginnings.
    buckets: Vec<Bucket>,
    /// In the order in which they were granted.
    pub grants: Vec<Grant>,
}

impl Account {
    /// An account that was kept.
    pub fn kept(name: Option<String>, mut buckets: Vec<Bucket>, grants: Vec<Grant>) -> Account {
        buckets.sort_by_key(|bucket| bucket.at);
        Account { name, buckets, grants }
    }

    /// What was counted, in the order of time.
    pub fn buckets(&self) -> &[Bucket] {
        &self.buckets
    }

    /// Whether something was counted, or granted.
    pub fn has_any(&self) -> bool {
        !self.buckets.is_empty() || !self.grants.is_empty()
    }

    /// Adds what was counted by now, into the bucket that begins at `at`. What has a later time was
    /// counted before a clock was set back. It keeps that time: the clock may be set right again.
    pub fn count(&mut self, at: i64, traffic: Traffic) {
        match self.buckets.binary_search_by_key(&at, |bucket| bucket.at) {
            Ok(place) => {
                let bucket = &mut self.buckets[place];
                bucket.traffic = bucket.traffic.plus(traffic);
            }
            Err(place) => self.buckets.insert(place, Bucket { at, traffic }),
        }
    }

    /// What was counted, or granted, with a later time than `now` is dated `at`, which is no later
    /// time.
    pub fn date_back(&mut self, now: i64, at: i64) {
        let later = self.grants.iter_mut().filter(|grant| grant.at > now);
        later.for_each(|grant| grant.at = at);
        let later = self.buckets.split_off(self.buckets.partition_point(|it| it.at <= now));
        later.iter().for_each(|bucket| self.count(at, bucket.traffic));
    }

    /// Makes fewer buckets of many: joins those that no quota tells apart any more, and drops the
    /// oldest that are too many.
    pub fn thin(&mut self, slots: &Slots, now: i64) {
        let mut thinned: Vec<Bucket> = Vec::with_capacity(self.buckets.len());
        for bucket in &self.buckets {
            match thinned.last_mut().filter(|last| slots.are_one([last.at, bucket.at], now)) {
                Some(last) => last.traffic = last.traffic.plus(bucket.traffic),
                None => thinned.push(*bucket),
            }
        }
        thinned.drain(..thinned.len().saturating_sub(slots.kept()));
        self.buckets = thinned;
        let longest = i64::from(Period::LONGEST);
        self.grants.retain(|it| it.until.unwrap_or(it.at.saturating_add(longest)) > now);
    }

    /// Takes in what another account has, as one that is the same.
    pub fn join(&mut self, other: Account) {
        for Bucket { at, traffic } in other.buckets {
            match self.buckets.binary_search_by_key(&at, |bucket| bucket.at) {
                Ok(place) => {
                    let own = &mut self.buckets[place].traffic;
                    *own = own.plus(traffic);
                }
                Err(place) => self.buckets.insert(place, Bucket { at, traffic }),
            }
        }
        self.grants.extend(other.grants);
        self.grants.sort_by_key(|grant| grant.at);
        self.name = other.name.or(self.name.take());
    }

    /// Begins anew.
    pub fn reset(&mut self) {
        self.buckets.clear();
    }
}

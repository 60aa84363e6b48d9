//! The use of all owners as a value. Pure.
//!
//! Counters are read again and again, and what is added is the difference of two readings of one
//! class: of the same link and number, with the same owner, since the same boot. A class that is
//! made again counts from 0, and is known by fewer bytes than before. So nothing is counted twice
//! whoever reads, and what is lost is what a class counted between its last reading and its end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::person::{is_another, is_news, may_be_one, uid};
use crate::quota::{Account, Slots, Traffic};
use crate::tree::{Direction, Owner};

/// A class: the ifindex of the device at which it stands, and its classid.
pub(super) type Class = (u32, u32);

/// What a class has counted, whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The ifindex of the device at which it stands.
    pub ifindex: u32,
    /// Its classid.
    pub classid: u32,
    /// Whether it counts what leaves or what arrives.
    pub direction: Direction,
    /// Its owner, or of a retired class its last one.
    pub owner: Owner,
    /// All that it has counted since it was made.
    pub bytes: u64,
}

/// When counters were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The clock's time.
    pub time: Timestamp,
    /// Whether the clock is known to be right.
    pub is_right: bool,
    /// What ends when all classes do: the boot, and the network namespace.
    pub epoch: String,
}

/// The use of all owners, and the readings up to which it is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Book {
    /// By owner; a look at the host has them too.
    pub accounts: Arc<BTreeMap<Owner, Account>>,
    /// When the book was begun, in seconds of Unix time. A clock that shows less is wrong.
    pub(super) born: Option<i64>,
    /// Where the bucket begins into which was counted last.
    pub(super) latest: i64,
    /// The epoch of the readings; empty: no counters were read yet.
    pub(super) epoch: String,
    /// The last reading of each class, also of owners without a quota: one may come.
    pub(super) last: BTreeMap<Class, (Owner, u64)>,
    /// The epoch of readings that are to come with the next records of a file, or are lost.
    pub(super) promised: Option<String>,
}

/// What a count has added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Added {
    /// By owner, in the bucket that begins then.
    pub traffic: BTreeMap<(Owner, i64), Traffic>,
    /// Classes whose reading is another one now, or that are gone.
    pub classes: BTreeSet<Class>,
    /// Owners whose uid has another account's name by now.
    pub renamed: BTreeMap<Owner, String>,
    /// Lines whose use is another line's from now on: from which to which, all at once.
    pub moves: Vec<(Owner, Owner)>,
    /// To be written although nobody has sent anything: the book begins with it, so that what
    /// classes made from now on count is somebody's use, or the clock was set back.
    pub begins: bool,
    /// What was counted before with a later time than the first is of the second from now on.
    pub dated: Option<(i64, i64)>,
}

impl Book {
    /// The time by which quotas are judged and use is dated. A clock that is before the book's own
    /// beginning is that of a host without one, and the last time that is known is nearer; unless
    /// it is known to be right: then the book was begun while it ran ahead.
    pub fn time(&self, moment: &Moment) -> Timestamp {
        let clock = moment.time;
        match self.distrusts(moment) {
            true => Timestamp::from_second(self.latest).unwrap_or(clock).max(clock),
            false => clock,
        }
    }

    /// Whether the clock is taken for wrong.
    fn distrusts(&self, moment: &Moment) -> bool {
        !moment.is_right && self.born.is_some_and(|born| moment.time.as_second() < born)
    }

    /// What to say of a clock that is taken for wrong.
    pub fn doubt(&self, moment: &Moment) -> Option<String> {
        let born = Timestamp::from_second(self.born?).ok()?;
        let (clock, time) = (moment.time, self.time(moment));
        self.distrusts(moment).then(|| {
            format!(
                "the clock shows a time before {born}, when use was first counted: quotas are taken as of {time} until it is set; if it is right by now ({clock}), have it synchronized (timedatectl set-ntp true), and it is believed"
            )
        })
    }

    /// The accounts, to be changed. Nobody else has them by then, as a rule, and nothing is copied.
    pub(super) fn accounts_mut(&mut self) -> &mut BTreeMap<Owner, Account> {
        Arc::make_mut(&mut self.accounts)
    }

    /// The book with what classes have counted since their last readings, as
    /// [`Ledger::count`](super::Ledger::count) adds it: for who keeps nothing.
    #[must_use]
    pub fn counted(
        mut self,
        readings: &[Reading],
        moment: &Moment,
        slots: &Slots,
        names: &BTreeMap<Owner, Option<String>>,
    ) -> Book {
        let _added = self.count(readings, moment, slots, names);
        self
    }

    /// Adds what classes have counted since their last readings to the accounts of these owners;
    /// `names`: what their uids' accounts are called, as far as it is known.
    pub(super) fn count(
        &mut self,
        readings: &[Reading],
        moment: &Moment,
        slots: &Slots,
        counted: &BTreeMap<Owner, Option<String>>,
    ) -> Added {
        let mut added = Added::default();
        let second = moment.time.as_second();
        let ran_ahead = moment.is_right && self.born.is_some_and(|born| born > second);
        self.be_born(if moment.is_right { second } else { self.born.unwrap_or(second) });
        let is_first = self.epoch.is_empty();
        if self.epoch != moment.epoch {
            added.classes.extend(self.last.keys());
            self.last.clear();
            self.epoch.clone_from(&moment.epoch);
        }
        let now = self.time(moment);
        let at = slots.begin(now);
        self.take_over(counted, &mut added);
        self.take_names(counted, &mut added);
        // What the classes of these lines have counted until now.
        let heirs: BTreeMap<Owner, Owner> = added.moves.iter().cloned().collect();
        let to = if ran_ahead {
            Some(at)
        } else {
            // A clock that was set back goes on to another day, and nobody has set it right again.
            let before = if self.latest == 0 { at } else { self.latest };
            (slots.day(now) > self.latest).then_some(before)
        };
        let dated = to.map(|to| (now.as_second(), to));
        added.dated = dated.filter(|(now, to)| self.date_back(*now, *to));
        added.begins = is_first || at < self.latest;
        self.latest = at;
        let mut last = BTreeMap::new();
        for reading in readings {
            let class = (reading.ifindex, reading.classid);
            let before = self.last.remove(&class).filter(|(owner, _)| *owner == reading.owner);
            let more = match before {
                Some((_, bytes)) if bytes <= reading.bytes => reading.bytes - bytes,
                // What was counted before the book was begun is nobody's use.
                None if is_first => 0,
                _ => reading.bytes,
            };
            if before.is_none_or(|(_, bytes)| bytes != reading.bytes) {
                added.classes.insert(class);
            }
            let owner = heirs.get(&reading.owner).unwrap_or(&reading.owner);
            if more > 0 && counted.contains_key(owner) {
                let traffic = match reading.direction {
                    Direction::Egress => Traffic { sent: more, received: 0 },
                    Direction::Ingress => Traffic { sent: 0, received: more },
                };
                let sum = added.traffic.entry((owner.clone(), at)).or_default();
                *sum = sum.plus(traffic);
            }
            last.insert(class, (reading.owner.clone(), reading.bytes));
        }
        added.classes.extend(self.last.keys());
        self.last = last;
        for ((owner, at), traffic) in &added.traffic {
            self.add((owner, *at), *traffic, slots, now.as_second());
        }
        added
    }

    /// What was counted, or granted, with a later time than now is dated `at`. Whether there was
    /// anything.
    pub(super) fn date_back(&mut self, now: i64, at: i64) -> bool {
        let is_later = |account: &Account| {
            account.buckets().last().is_some_and(|bucket| bucket.at > now)
                || account.grants.iter().any(|grant| grant.at > now)
        };
        if !self.accounts.values().any(is_later) {
            return false;
        }
        self.accounts_mut().values_mut().for_each(|account| account.date_back(now, at));
        true
    }

    /// The book was begun at this second, or before.
    pub(super) fn be_born(&mut self, second: i64) {
        self.born = Some(self.born.map_or(second, |born| born.min(second)));
    }

    /// A file is read to its end: readings that it has lost are no reason to count twice what they
    /// were up to.
    pub(super) fn end(&mut self) {
        if self.promised.take().is_some() {
            self.pause();
        }
    }

    /// Forgets the readings, as if counters were not read yet.
    pub(super) fn pause(&mut self) {
        self.epoch.clear();
        self.last.clear();
    }

    /// Whether counters were read, so that what they have more is somebody's use.
    pub fn counts(&self) -> bool {
        !self.epoch.is_empty()
    }

    /// Whether nothing was counted in another epoch, as far as it is known.
    pub fn is_of(&self, epoch: &str) -> bool {
        self.epoch.is_empty() || self.epoch == epoch
    }

    fn add(&mut self, (owner, at): (&Owner, i64), traffic: Traffic, slots: &Slots, now: i64) {
        let account = self.accounts_mut().entry(owner.clone()).or_default();
        account.count(at, traffic);
        if account.buckets().len() > slots.most() {
            account.thin(slots, now);
        }
    }

    /// The owners whose account is another's than it is to be.
    pub(super) fn named_otherwise(
        &self,
        names: &BTreeMap<Owner, Option<String>>,
    ) -> BTreeSet<Owner> {
        let is_other = |(owner, name): &(&Owner, &Option<String>)| {
            let (known, name) = (self.name(owner), name.as_deref());
            known.zip(name).is_some_and(|(known, name)| is_another(owner, known, name))
        };
        names.iter().filter(is_other).map(|(owner, _)| owner.clone()).collect()
    }

    /// Whether a count with these names gives what somebody has used to somebody else, or has it
    /// begin anew.
    pub fn changes_hands(&self, names: &BTreeMap<Owner, Option<String>>) -> bool {
        !self.named_otherwise(names).is_empty() || !self.moves(names).is_empty()
    }

    fn name(&self, owner: &Owner) -> Option<&str> {
        self.accounts.get(owner)?.name.as_deref()
    }

    /// A line that stands for the one uid for which another line stood that is gone by now, or
    /// stands for somebody else, is that line under another name: what was used is its.
    fn take_over(&mut self, counted: &BTreeMap<Owner, Option<String>>, added: &mut Added) {
        let moves = self.moves(counted);
        self.move_use(&moves);
        added.moves = moves;
    }

    fn moves(&self, counted: &BTreeMap<Owner, Option<String>>) -> Vec<(Owner, Owner)> {
        let is_line = |owner: &Owner| matches!(owner, Owner::User(_));
        let is_new = |(owner, name): &(&Owner, &str)| {
            let known = self.name(owner);
            is_line(owner) && known.is_none_or(|known| is_another(owner, known, name))
        };
        let named = counted.iter().filter_map(|(owner, name)| Some((owner, name.as_deref()?)));
        let new: Vec<(&Owner, &str)> = named.filter(is_new).collect();
        if new.is_empty() {
            return Vec::new();
        }
        let is_left = |(owner, known): &(&Owner, &str)| match counted.get(*owner) {
            None => true,
            Some(now) => now.as_ref().is_some_and(|now| is_another(owner, known, now)),
        };
        let kept = self.accounts.iter().filter(|(owner, _)| is_line(owner));
        let kept = kept.filter_map(|(owner, account)| Some((owner, account.name.as_deref()?)));
        let mut left: BTreeMap<&str, Vec<(&Owner, &str)>> = BTreeMap::new();
        for (owner, known) in kept.filter(is_left) {
            left.entry(uid(known)).or_default().push((owner, known));
        }
        let moves = new.into_iter().filter_map(|(to, name)| {
            let of_the_uid = left.get_mut(uid(name))?;
            let place = of_the_uid.iter().position(|(_, known)| may_be_one(known, name))?;
            // Of two new lines for one uid, whose account is not known, one takes it.
            let (from, _) = of_the_uid.remove(place);
            Some((from.clone(), to.clone()))
        });
        moves.collect()
    }

    /// Gives what lines have used to others, all at once: two may have exchanged their names.
    pub(super) fn move_use(&mut self, moves: &[(Owner, Owner)]) {
        if moves.is_empty() {
            return;
        }
        let accounts = self.accounts_mut();
        let take = |(from, to): &(Owner, Owner)| Some((to.clone(), accounts.remove(from)?));
        let taken: Vec<(Owner, Account)> = moves.iter().filter_map(take).collect();
        for (to, account) in taken {
            let own = accounts.entry(to).or_default();
            let names = own.name.as_deref().zip(account.name.as_deref());
            match names.is_some_and(|(one, other)| uid(one) != uid(other)) {
                true => *own = account,
                // What the line has used while it was not known for whom it stands.
                false => own.join(account),
            }
        }
    }

    /// A uid that has another account's name than before is another account, and a line that stands
    /// for another uid is for somebody else.
    fn take_names(&mut self, counted: &BTreeMap<Owner, Option<String>>, added: &mut Added) {
        for (owner, name) in counted {
            let (Owner::Uid(_) | Owner::User(_), Some(name)) = (owner, name) else { continue };
            if !is_news(owner, self.name(owner), name) {
                continue;
            }
            self.rename(owner, name);
            added.renamed.insert(owner.clone(), name.clone());
        }
    }

    /// Gives an owner's account its name; one that is another's begins anew.
    pub(super) fn rename(&mut self, owner: &Owner, name: &str) {
        let account = self.accounts_mut().entry(owner.clone()).or_default();
        if account.name.as_deref().is_some_and(|known| is_another(owner, known, name)) {
            *account = Account::default();
        }
        account.name = Some(name.to_string());
    }
}

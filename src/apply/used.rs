//! What owners with a quota have used: counted at each look, and kept by runs that change things.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::applied::InForce;
use crate::facts::{Accounts, Observation, Used};
use crate::host::Kernel;
use crate::host::observe::{self, ObserveError, Sent, Snapshot};
use crate::ledger::{self, Book, Ledger, LedgerError, Moment, Opened, person};
use crate::model::{self, Next};
use crate::policy::{Policy, UserLine};
use crate::quota::{Account, Grant, Outlook, Slots};
use crate::sys::clock;
use crate::sys::offspring::Offspring;
use crate::times::Timestamp;
use crate::tree::{Claim, Counted, LinkName, Owner, Port};
use crate::units::ClassId;

/// Who writes down what was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keeps {
    /// Nobody: a look changes nothing.
    #[default]
    Nobody,
    /// Each run, at its end.
    Run,
    /// Whoever has the session, when he likes ([`super::Session::write_use`]).
    Caller,
}

/// What a session knows of the use.
#[derive(Debug, Default)]
pub(super) struct Use {
    pub keeps: Keeps,
    /// The file, once something was counted.
    ledger: Option<Ledger>,
    /// What was said last of the file, so that it is said once.
    said: Option<String>,
    /// Neither others nor the disk are waited for.
    never_waits: bool,
    /// Since when others have kept the file from being read or written.
    busy: Option<Instant>,
    /// The child that writes the file anew.
    shortening: Option<Offspring>,
    /// What was counted since the last record has given somebody's use to somebody else.
    changes_hands: bool,
    /// The last reading of all counters, as long as what was read stands.
    glance: Option<Glance>,
}

/// A reading of all counters, by which a few tell when the next one is needed.
#[derive(Debug)]
struct Glance {
    outlook: Outlook,
    /// What had passed the root qdiscs before, by ifindex.
    passed: BTreeMap<u32, u64>,
}

impl Glance {
    /// How long counters need not be read, by what has passed the root qdiscs by now: nobody can
    /// have used more than all together. `None`: they are to be read.
    fn rest(&self, passed: &BTreeMap<u32, u64>, now: Timestamp) -> Option<Duration> {
        let mut more = 0_u64;
        for (ifindex, before) in &self.passed {
            more = more.saturating_add(passed.get(ifindex)?.checked_sub(*before)?);
        }
        self.outlook.rest(more, now)
    }
}

/// What is counted, and when.
struct Count<'a> {
    policy: &'a Policy,
    claims: &'a BTreeMap<Claim, ClassId>,
    accounts: &'a Accounts,
    readings: Vec<ledger::Reading>,
    slots: Slots,
    moment: Moment,
    /// The namespace has no name: another one may have its number by now.
    is_fleeting: bool,
}

impl Count<'_> {
    /// What is used by now, by a file of which nothing is changed.
    fn read(&self, path: &Path) -> Result<Book, LedgerError> {
        let book = ledger::read(path)?;
        let is_anothers = self.is_fleeting && !book.is_of(&self.moment.epoch);
        let book = if is_anothers { Book::default() } else { book };
        Ok(book.counted(&self.readings, &self.moment, &self.slots, &self.names()))
    }

    /// Those whose use is counted, with the names of accounts, as far as they are known.
    fn names(&self) -> BTreeMap<Owner, Option<String>> {
        let owners: BTreeSet<&Owner> = self
            .claims
            .keys()
            .filter_map(|claim| match claim {
                Claim::Owner(owner) | Claim::Retired(_, Some(owner)) => Some(owner),
                Claim::Retired(_, None) | Claim::Pinned(_) => None,
            })
            .collect();
        // An account of which NSS says nothing has its uid in the place of a name.
        let name = |owner: &Owner| match owner {
            Owner::Uid(uid) => {
                let name = &self.accounts.by_uid.get(uid)?.name;
                (*name != uid.to_string()).then(|| name.clone())
            }
            _ => None,
        };
        let counted = model::counted(self.policy, owners);
        let counted = counted.into_iter().map(|owner| (owner.clone(), name(owner)));
        // Of lines also before they have a class: one may be another's under a new name.
        let lines = self.policy.users.iter().filter(|line| !line.limits.quotas.is_empty());
        let lines = lines.filter_map(|line| {
            let person = one_person(line, self.accounts)?;
            Some((Owner::User(line.key.value.clone()), Some(person)))
        });
        counted.chain(lines).collect()
    }
}

/// Who a line stands for, where that is one uid and nothing else; `None`: others, or NSS has not
/// said.
fn one_person(line: &UserLine, accounts: &Accounts) -> Option<String> {
    if line.units.is_some() || line.has_guests() {
        return None;
    }
    let account = |name: &str| Some(person((*accounts.by_name.get(name)?)?, Some(name)));
    match (line.accounts.as_deref(), line.uids.as_deref()) {
        (None, None) => account(line.key.value.as_str()),
        (Some([only]), None | Some([])) => account(&only.value),
        (None | Some([]), Some([only])) if only.value.start() == only.value.end() => {
            let uid = *only.value.start();
            let known = accounts.by_uid.get(&uid).map(|account| account.name.as_str());
            Some(person(uid, known.filter(|name| *name != uid.to_string())))
        }
        _ => None,
    }
}

impl Use {
    /// Counts what a look has read, and gives the use to its facts; nothing where the policy has no
    /// quota.
    pub(super) fn look(&mut self, kernel: &Kernel, policy: &Policy, seen: &mut Snapshot) {
        self.glance = None;
        if policy.quotas().next().is_none() {
            return;
        }
        let (observation, now) = (&seen.observation, seen.observation.facts.now);
        let Observation { state, facts, .. } = observation;
        let used = epoch(kernel).map_err(|error| error.to_string()).and_then(|epoch| {
            let count = Count {
                policy,
                claims: &state.claims,
                accounts: &facts.accounts,
                readings: ledger::readings(&state.claims, sent_of(&seen.counters), |port| {
                    facts.ifindex(port)
                }),
                slots: model::slots(policy, facts),
                moment: Moment { time: now, is_right: clock::is_synchronized(), epoch },
                is_fleeting: kernel.is_fleeting(),
            };
            let path = use_file(kernel);
            let used = |book: &Book| Used {
                accounts: Arc::clone(&book.accounts),
                time: Some(book.time(&count.moment)),
                unread: None,
            };
            match self.keeps {
                Keeps::Nobody => count.read(&path).map(|book| used(&book)),
                Keeps::Run | Keeps::Caller => self.count(&path, &count).map(|book| used(&book)),
            }
            .map_err(|error| error.to_string())
        });
        seen.observation.facts.used =
            used.unwrap_or_else(|why| Used { unread: Some(why), ..Used::default() });
    }

    /// The file with what others have written by now.
    fn open(&mut self, path: &Path) -> Result<&mut Ledger, LedgerError> {
        let waits = !self.never_waits;
        match &mut self.ledger {
            Some(ledger) => {
                ledger.set_waiting(waits);
                // What is known by then counts all the same.
                let error =
                    ledger.refresh().err().map(|error| (error.is_busy(), error.to_string()));
                let said = passed_over(&mut self.busy, error, waits);
                say(&mut self.said, said);
                Ok(ledger)
            }
            none => {
                let Opened { mut ledger, found } = Ledger::open(path)?;
                ledger.set_waiting(waits);
                say(&mut self.said, found);
                Ok(none.insert(ledger))
            }
        }
    }

    /// From now on neither others nor the disk are waited for, or are again: while the daemon waits
    /// nobody who logs in is placed.
    pub(super) fn set_waiting(&mut self, waits: bool) {
        self.never_waits = !waits;
        if let Some(ledger) = &mut self.ledger {
            ledger.set_waiting(waits);
        }
    }

    /// Gives an owner more. What this process has counted is not written: that is for whoever has
    /// it from longer ago, of classes too that have ended since the last record.
    pub(super) fn grant(
        &mut self,
        kernel: &Kernel,
        owner: Owner,
        grant: Grant,
    ) -> Result<(), LedgerError> {
        let found = self.open(&use_file(kernel))?.grant(owner, grant)?;
        say(&mut self.said, found);
        Ok(())
    }

    /// Has an owner's use begin anew, once what was counted is written, so that nobody counts it
    /// after that.
    pub(super) fn reset(&mut self, kernel: &Kernel, owner: Owner) -> Result<(), LedgerError> {
        let ledger = self.open(&use_file(kernel))?;
        let found = [ledger.write()?, ledger.reset(owner)?];
        found.into_iter().for_each(|found| say(&mut self.said, found));
        Ok(())
    }

    /// Counts on, from what is in the file by now. One that cannot be written now may be read: no
    /// cap is lifted for that.
    fn count(&mut self, path: &Path, count: &Count<'_>) -> Result<Cow<'_, Book>, LedgerError> {
        if let Err(error) = self.open(path) {
            if !path.exists() {
                return Err(error);
            }
            let book = count.read(path)?;
            say(&mut self.said, Some(error.to_string()));
            return Ok(Cow::Owned(book));
        }
        let ledger = self.ledger.as_mut().ok_or_else(|| LedgerError::gone(path))?;
        if count.is_fleeting {
            ledger.keep_only(&count.moment.epoch)?;
        }
        let names = count.names();
        self.changes_hands |= ledger.book().changes_hands(&names);
        ledger.count(&count.readings, &count.moment, &count.slots, &names);
        say(&mut self.said, ledger.book().doubt(&count.moment));
        Ok(Cow::Borrowed(ledger.book()))
    }

    /// What all have used by now, as far as it is known, and by which moment quotas are judged.
    pub(super) fn known(&self) -> Option<(&BTreeMap<Owner, Account>, Timestamp)> {
        let book = self.ledger.as_ref()?.book();
        let (time, is_right) = (Timestamp::now(), clock::is_synchronized());
        let moment = Moment { time, is_right, epoch: String::new() };
        Some((&*book.accounts, book.time(&moment)))
    }

    /// Writes down what was counted.
    pub(super) fn write(&mut self) {
        let Some(ledger) = &mut self.ledger else { return };
        let said = match ledger.write() {
            Ok(found) => {
                self.changes_hands = false;
                found
            }
            Err(error) => {
                let error = (error.is_busy(), error.to_string());
                passed_over(&mut self.busy, Some(error), !self.never_waits)
            }
        };
        say(&mut self.said, said);
        if let Some(answer) = self.shortening.as_mut().and_then(Offspring::answer) {
            self.shortening = None;
            if !answer.is_empty() {
                log::debug!("the file of use grows: {}", String::from_utf8_lossy(&answer));
                ledger.put_off();
            }
        }
        if self.never_waits && self.shortening.is_none() && ledger.is_long() {
            let path = ledger.path().to_path_buf();
            let child = Offspring::start(move |_| match Ledger::shorten(&path) {
                Ok(()) => Vec::new(),
                Err(error) => error.to_string().into_bytes(),
            });
            let failed = |error: &io::Error| log::debug!("the file of use grows: {error}");
            self.shortening = child.inspect_err(failed).ok();
        }
    }

    /// Whether what is not written has given somebody's use to somebody else, or had it begin anew.
    pub(super) fn changes_hands(&self) -> bool {
        self.changes_hands
    }

    /// Forgets what was counted and is not written: the policy by which it was is not in force. The
    /// next count goes on from the file.
    pub(super) fn forget(&mut self) {
        (self.changes_hands, self.glance) = (false, None);
        let Some(ledger) = &mut self.ledger else { return };
        if let Err(error) = ledger.forget() {
            log::debug!("the file of use is read at the next count: {error}");
        }
    }

    /// Writes down that nobody has a quota any more, where somebody had one: what is sent until
    /// somebody has one again is nobody's use.
    pub(super) fn pause(&mut self, kernel: &Kernel) {
        let path = use_file(kernel);
        if !path.exists() {
            return;
        }
        let paused = self.open(&path).and_then(|ledger| match ledger.book().counts() {
            true => ledger.pause(),
            false => Ok(None),
        });
        say(&mut self.said, paused.unwrap_or_else(|error| Some(error.to_string())));
        self.ledger = None;
    }

    /// Reads the counters of what is in force, and says what follows from the use; `None`: nothing
    /// is counted.
    pub(super) fn next(
        &mut self,
        kernel: &mut Kernel,
        policy: &Policy,
        in_force: &InForce,
    ) -> Result<Option<Next>, ObserveError> {
        let InForce { model, state, links, accounts, .. } = in_force;
        if model.metered.owners.is_empty() {
            return Ok(None);
        }
        let index = |name: &LinkName| links.get(name).copied();
        // Before the classes, so that what passes meanwhile is in the difference to the next.
        let Some(passed) = observe::passed(kernel, state, index)? else { return Ok(None) };
        let is_known = self.ledger.as_ref().is_some_and(|it| !it.has_changed());
        // Whoever waits for the file counts all for it, whatever follows.
        let glance = self.glance.take().filter(|_| is_known && self.never_waits);
        if let Some(rest) = glance.as_ref().and_then(|it| it.rest(&passed, Timestamp::now())) {
            self.glance = glance;
            return Ok(Some(Next::Look(rest)));
        }
        let Some(counted) = observe::sent(kernel, state, index)? else { return Ok(None) };
        let ifindex = |port: &Port| index(&port.device());
        let Ok(epoch) = epoch(kernel) else { return Ok(None) };
        let now = Timestamp::now();
        let count = Count {
            policy,
            claims: &state.claims,
            accounts,
            readings: ledger::readings(&state.claims, each_of(&counted), ifindex),
            slots: model.metered.slots.clone(),
            moment: Moment { time: now, is_right: clock::is_synchronized(), epoch },
            is_fleeting: kernel.is_fleeting(),
        };
        let counted = self.count(&use_file(kernel), &count);
        let time = |book: &Book| book.time(&count.moment);
        match counted.map(|book| model.metered.outlook(&book.accounts, time(&book))) {
            Ok(Some(outlook)) => {
                let rest = outlook.first_rest();
                self.glance = Some(Glance { outlook, passed });
                Ok(Some(Next::Look(rest)))
            }
            Ok(None) => Ok(Some(Next::Turned)),
            Err(error) => {
                say(&mut self.said, Some(error.to_string()));
                Ok(None)
            }
        }
    }
}

/// What each class has sent, of a look.
fn sent_of(counted: &Counted) -> impl Iterator<Item = (&Port, ClassId, u64)> {
    let classes = counted.iter().flat_map(|(port, it)| it.iter().map(move |it| (port, it)));
    classes.map(|(port, (classid, counters))| (port, *classid, counters.sent_bytes))
}

/// The same of counters that were read alone.
fn each_of(sent: &Sent) -> impl Iterator<Item = (&Port, ClassId, u64)> {
    sent.iter().flat_map(|(port, it)| it.iter().map(move |(id, bytes)| (port, *id, *bytes)))
}

/// Writes down that nobody has a quota any more, as a run does that leaves none.
pub fn end_use(kernel: &Kernel) {
    Use::default().pause(kernel);
}

/// Where an instance's use is kept.
pub fn use_file(kernel: &Kernel) -> PathBuf {
    ledger::path(&ledger::folder(), &kernel.lasting_name())
}

/// How long others may keep the file before it is said.
const BUSY: Duration = Duration::from_secs(60);

/// What is to be said of an error, which is whether others have the file, and its words. For who
/// does not wait it is nothing until they have had it for long.
fn passed_over(
    busy: &mut Option<Instant>,
    error: Option<(bool, String)>,
    waits: bool,
) -> Option<String> {
    let is_busy = error.as_ref().is_some_and(|(is_busy, _)| *is_busy);
    let since = busy.take().filter(|_| is_busy);
    let (_, words) = error?;
    if !is_busy || waits {
        return Some(words);
    }
    let since = *busy.insert(since.unwrap_or_else(Instant::now));
    (since.elapsed() > BUSY).then_some(words)
}

/// Says what is wrong with the file, once.
fn say(before: &mut Option<String>, said: Option<String>) {
    if let Some(said) = said.filter(|said| before.as_ref() != Some(said)) {
        log::warn!("{said}");
        *before = Some(said);
    }
}

/// What ends when all counters do: the boot, and the network namespace.
fn epoch(kernel: &Kernel) -> io::Result<String> {
    let boot = fs::read_to_string(kernel.proc_root.join("sys/kernel/random/boot_id"))?;
    let namespace = kernel.netns_cookie.unwrap_or(kernel.netns);
    Ok(format!("{} {namespace}", boot.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts;
    use crate::policy;

    /// The book has another name for the uid, and would take that for another account's.
    #[test]
    fn the_silence_of_nss_gives_no_account_another_name() {
        let text = "version: 1\nlinks: {eth0: 1gbit}\neveryone: {each: {ceil: 5mbit, quota: {day: 1GB, then: 1mbit}}}\n";
        let policy = policy::parse(text, "policy").unwrap();
        let [known, silent] = [1000, 1001].map(Owner::Uid);
        let class = |minor| ClassId::ours(crate::units::Minor(minor));
        let claims = [(known.clone(), 0x10), (silent.clone(), 0x11)];
        let claims = claims.map(|(owner, minor)| (Claim::Owner(owner), class(minor))).into();
        let account =
            |name: &str| facts::Account { name: name.to_string(), gids: BTreeSet::default() };
        let by_uid = [(1000, account("ann")), (1001, account("1001"))].into();
        let accounts = Accounts { by_uid, ..Accounts::default() };
        let count = Count {
            policy: &policy,
            claims: &claims,
            accounts: &accounts,
            readings: Vec::new(),
            slots: Slots::default(),
            moment: Moment { time: Timestamp::UNIX_EPOCH, is_right: false, epoch: String::new() },
            is_fleeting: false,
        };
        let names = [(known, Some("ann".to_string())), (silent, None)];
        assert_eq!(count.names(), names.into());
    }
}

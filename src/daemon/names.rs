//! The questions to NSS, one at a time, and what the answers change. NSS (LDAP, SSSD) may take
//! seconds, or hang for ever, so a child asks ([`Sources::ask`](super::sources::Sources::ask)), and
//! is killed when its time is up. Until the answer comes, accounts are as known before, and a
//! newcomer is a uid without a name or groups. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::accounts::Question;
use crate::accounts::asking::Unanswered;
use crate::facts::{Account, Accounts};

/// How long NSS may take.
pub(super) const LIMIT: Duration = Duration::from_secs(10);

/// Which uids a question is about.
#[derive(Clone, Debug)]
enum Asked {
    /// All names of the policy, and all uids that run, which are these.
    All(BTreeSet<u32>),
    /// Uids that came since.
    Newcomers(BTreeSet<u32>),
    /// No uid: only `/etc/subuid` is read.
    Subuids,
}

/// About whom an answer has news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    None,
    /// Only about newcomers: no other process can have another owner by it.
    Newcomers,
    Everybody,
}

/// The most uids in one question: an account that comes meanwhile waits until these are answered.
const AT_ONCE: usize = 64;
/// Limits for subordinate uids, since whoever has such a range can run as thousands of them: how
/// many are in one question, the pause between two questions, and how many wait for one. The others
/// count by their range.
const SUBORDINATES: usize = 8;
const PAUSE: Duration = Duration::from_millis(100);
const MANY_SUBORDINATES: usize = 256;
/// How long the answer that there is no such account counts. An account may be made at any time,
/// but seldom with a uid in somebody's range of subordinate uids.
const FORGET: Duration = Duration::from_secs(30);
const FORGET_SUBORDINATE: Duration = Duration::from_secs(300);

/// The pause before the next try where no child can be started (EAGAIN).
const NO_CHILD: Duration = Duration::from_secs(1);

/// A question that a child is asking.
#[derive(Debug)]
struct UnderWay {
    question: Question,
    asked: Asked,
    /// No child could be started at the last try.
    was_put_off: bool,
}

/// The questions to NSS, of which one at most is under way.
#[derive(Debug, Default)]
pub(super) struct Names {
    under_way: Option<UnderWay>,
    newcomers: BTreeSet<u32>,
    /// Newcomers in somebody's range of subordinate uids.
    subordinates: BTreeSet<u32>,
    /// When subordinate uids were last asked about.
    asked_subordinates: Option<Instant>,
    /// Uids that no account has, and when to ask again.
    absent: BTreeMap<u32, Instant>,
    all: Option<Question>,
    /// Names and uids of guests' users.
    guests: (BTreeSet<String>, BTreeSet<u32>),
    /// `/etc/subuid` is to be read again.
    subuids: bool,
    /// No child could be started: nothing is asked before this time.
    put_off: Option<Instant>,
}

impl Names {
    /// Asks about all names and uids, when the turn comes.
    pub(super) fn ask_all(&mut self, question: Question) {
        self.all = Some(question);
    }

    /// Asks about these names and uids of guests' users.
    pub(super) fn ask_about_guests(&mut self, unasked: (BTreeSet<String>, BTreeSet<u32>)) {
        self.guests = unasked;
    }

    /// Has `/etc/subuid` read again.
    pub(super) fn read_subuids(&mut self) {
        self.subuids = true;
    }

    /// Whether one more uid may wait to be asked about.
    pub(super) fn has_room(&self, subordinate: bool) -> bool {
        !subordinate || self.subordinates.len() < MANY_SUBORDINATES
    }

    /// Asks about a newcomer, where there is room.
    pub(super) fn ask_about(&mut self, uid: u32, subordinate: bool) {
        match subordinate {
            false => drop(self.newcomers.insert(uid)),
            true if self.has_room(true) => drop(self.subordinates.insert(uid)),
            true => {}
        }
    }

    /// Forgets old answers that no account has a uid.
    pub(super) fn forget(&mut self, accounts: &mut Accounts, now: Instant) {
        self.absent.retain(|uid, until| {
            let holds = *until > now;
            if !holds {
                accounts.absent.remove(uid);
            }
            holds
        });
    }

    /// When the next question may begin that has to wait, where none is under way.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.under_way {
            Some(_) => None,
            None if self.put_off.is_some() => self.put_off,
            None if self.subordinates.is_empty() => None,
            None => self.asked_subordinates.map(|last| last + PAUSE),
        }
    }

    /// Whether the answer about the policy's names is still to come.
    pub(super) fn is_asking_about_all(&self) -> bool {
        self.all.is_some() || matches!(self.asked(), Some(Asked::All(_)))
    }

    /// Whether the answer about this uid is still to come.
    pub(super) fn is_asking_about(&self, uid: u32) -> bool {
        let asked = matches!(self.asked(), Some(Asked::Newcomers(uids)) if uids.contains(&uid));
        asked || self.newcomers.contains(&uid) || self.subordinates.contains(&uid)
    }

    fn asked(&self) -> Option<&Asked> {
        self.under_way.as_ref().map(|under_way| &under_way.asked)
    }

    /// Takes the outcome of the question under way into `accounts`.
    pub(super) fn answered(
        &mut self,
        answer: Result<Accounts, Unanswered>,
        accounts: &mut Accounts,
        now: Instant,
    ) -> News {
        let Some(UnderWay { asked, .. }) = self.under_way.take() else { return News::None };
        let news = match answer {
            Ok(answer) => {
                let news = take_in(accounts, answer, &asked);
                self.note_absent(accounts, now);
                news
            }
            Err(why) => unanswered(accounts, &why),
        };
        match asked {
            Asked::All(_) if news != News::None => News::Everybody,
            _ => news,
        }
    }

    /// The question that a child is to ask now, if there is one; it is under way from then on.
    pub(super) fn next(&mut self, now: Instant) -> Option<Question> {
        if self.under_way.is_some() || self.put_off.is_some_and(|until| until > now) {
            return None;
        }
        let was_put_off = self.put_off.take().is_some();
        let (question, asked) = self.choose(now)?;
        self.under_way = Some(UnderWay { question: question.clone(), asked, was_put_off });
        Some(question)
    }

    /// Notes that no child could be started; the question under way is asked first at the next try.
    pub(super) fn put_off(&mut self, why: &Unanswered, now: Instant) {
        let Some(UnderWay { question, asked, was_put_off }) = self.under_way.take() else { return };
        if !was_put_off {
            log::warn!("NSS: {why}; it is asked as soon as that is possible");
        }
        match asked {
            Asked::All(_) => self.all = Some(question),
            Asked::Subuids => self.subuids = true,
            // Subordinate uids among them are asked about with the others this time.
            Asked::Newcomers(uids) if question.names.is_empty() => self.newcomers.extend(uids),
            Asked::Newcomers(uids) => {
                self.guests.0.extend(question.names);
                self.guests.1.extend(uids);
            }
        }
        self.put_off = Some(now + NO_CHILD);
    }

    fn note_absent(&mut self, accounts: &Accounts, now: Instant) {
        self.absent.retain(|uid, _| accounts.absent.contains(uid));
        for uid in &accounts.absent {
            let lasts = match accounts.subuids.holding(*uid) {
                Some(_) => FORGET_SUBORDINATE,
                None => FORGET,
            };
            self.absent.entry(*uid).or_insert(now + lasts);
        }
    }

    /// The next question.
    fn choose(&mut self, now: Instant) -> Option<(Question, Asked)> {
        if let Some(question) = self.all.take() {
            // Newcomers are among the uids that run, and so are asked about.
            self.newcomers.retain(|uid| !question.running.contains(uid));
            let running = question.running.clone();
            self.subuids = false;
            return Some((question, Asked::All(running)));
        }
        if std::mem::take(&mut self.subuids) {
            return Some((Question { all_subuids: true, ..Question::default() }, Asked::Subuids));
        }
        let (names, running) = std::mem::take(&mut self.guests);
        if !names.is_empty() || !running.is_empty() {
            let asked = Asked::Newcomers(running.clone());
            return Some((Question { names, running, ..Question::default() }, asked));
        }
        let uids = self.next_newcomers(now);
        let question = Question { running: uids.clone(), ..Question::default() };
        (!uids.is_empty()).then_some((question, Asked::Newcomers(uids)))
    }

    /// The newcomers to ask about now, uids outside subordinate ranges first.
    fn next_newcomers(&mut self, now: Instant) -> BTreeSet<u32> {
        let mut uids = first(&mut self.newcomers, AT_ONCE);
        if self.asked_subordinates.is_none_or(|last| last + PAUSE <= now)
            && !self.subordinates.is_empty()
        {
            self.asked_subordinates = Some(now);
            uids.extend(first(&mut self.subordinates, SUBORDINATES));
        }
        uids
    }
}

/// Removes the first `many` uids from a set and returns them.
fn first(uids: &mut BTreeSet<u32>, many: usize) -> BTreeSet<u32> {
    let rest = uids.iter().nth(many).copied();
    let rest = rest.map_or_else(BTreeSet::new, |rest| uids.split_off(&rest));
    std::mem::replace(uids, rest)
}

pub(super) fn warn_of_gaps(answer: &Accounts) {
    if let Some(why) = &answer.unavailable {
        log::warn!("NSS could not answer: {why}; until it does, accounts are who they were");
    }
}

fn take_in(accounts: &mut Accounts, answer: Accounts, asked: &Asked) -> News {
    warn_of_gaps(&answer);
    let before = accounts.clone();
    match asked {
        Asked::All(uids) if answer.unavailable.is_none() => {
            let old = std::mem::take(accounts);
            let Accounts { running, running_ranges, by_uid, absent, .. } = old;
            *accounts = Accounts { running, running_ranges, ..answer };
            // Accounts that NSS named since the question was asked.
            let came = |uid: &u32| accounts.running.contains(uid) && !uids.contains(uid);
            let came: Vec<_> = by_uid.into_iter().filter(|(uid, _)| came(uid)).collect();
            for (uid, account) in came {
                accounts.by_uid.entry(uid).or_insert(account);
            }
            accounts.subuids.name_owners(&accounts.by_uid);
            let known = &accounts.by_uid;
            accounts.absent.extend(absent.into_iter().filter(|uid| !known.contains_key(uid)));
        }
        Asked::Subuids => {
            accounts.subuids.replace(answer.subuids);
            accounts.subuids.name_owners(&accounts.by_uid);
            accounts.subuids.name_owners(&named(&accounts.by_name));
        }
        _ => {
            for (uid, account) in &answer.by_uid {
                // An account that the policy names, and that was made since.
                if let Some(unknown @ None) = accounts.by_name.get_mut(&account.name) {
                    *unknown = Some(*uid);
                }
            }
            for uid in &answer.absent {
                accounts.by_uid.remove(uid);
            }
            accounts.absent.retain(|uid| !answer.by_uid.contains_key(uid));
            accounts.absent.extend(answer.absent);
            accounts.subuids.name_owners(&answer.by_uid);
            accounts.by_uid.extend(answer.by_uid);
            accounts.by_name.extend(answer.by_name);
            accounts.groups.extend(answer.groups);
            accounts.subuids.learn(answer.subuids.into());
            accounts.unavailable = answer.unavailable.or(accounts.unavailable.take());
        }
    }
    // Before the answer, a uid counted as no account's, so that this answer is no news.
    let before = Accounts { absent: accounts.absent.clone(), ..before };
    if *accounts == before {
        News::None
    } else if accounts.by_name != before.by_name
        // A range whose owner is known now may count for him, and not as one class for all of it.
        || (accounts.subuids != before.subuids && !accounts.running_ranges.is_empty())
        || (!matches!(asked, Asked::Newcomers(_)) && accounts.subuids != before.subuids)
    {
        News::Everybody
    } else {
        News::Newcomers
    }
}

/// The accounts that the policy names, as far as there are such.
fn named(by_name: &BTreeMap<String, Option<u32>>) -> BTreeMap<u32, Account> {
    let account = |name: &String| Account { name: name.clone(), gids: BTreeSet::new() };
    by_name.iter().filter_map(|(name, uid)| Some(((*uid)?, account(name)))).collect()
}

pub(super) fn unanswered(accounts: &mut Accounts, why: &Unanswered) -> News {
    log::warn!("NSS: {why}; until it answers, accounts are who they were");
    match &accounts.unavailable {
        Some(_) => News::None,
        None => {
            accounts.unavailable = Some(why.to_string());
            News::Everybody
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Subuids;
    use crate::tree::UidRange;

    #[test]
    fn what_no_child_could_ask_is_asked_later() {
        let mut now = Instant::now();
        let mut names = Names::default();
        names.all = Some(Question { names: ["bob".to_string()].into(), ..Question::default() });
        names.newcomers.insert(1000);
        let why = Unanswered::NoChild(std::io::Error::other("EAGAIN"));
        let mut fails = |names: &mut Names| {
            let question = names.next(now).expect("something to ask");
            assert!(names.next(now).is_none(), "one at a time");
            names.put_off(&why, now);
            assert!(names.next(now).is_none(), "not at once again");
            assert_eq!(names.due(), Some(now + NO_CHILD));
            now += NO_CHILD;
            let again = names.next(now).expect("something to ask");
            assert_eq!(format!("{again:?}"), format!("{question:?}"));
            names.under_way.take().expect("it is under way").asked
        };
        assert!(matches!(fails(&mut names), Asked::All(_)));
        names.subuids = true;
        assert!(matches!(fails(&mut names), Asked::Subuids));
        names.ask_about_guests((["ann".to_string()].into(), [1001].into()));
        assert!(matches!(fails(&mut names), Asked::Newcomers(uids) if uids == [1001].into()));
        assert!(names.is_asking_about(1000), "he waits");
        assert!(matches!(fails(&mut names), Asked::Newcomers(uids) if uids == [1000].into()));
        assert_eq!(names.due(), None);
    }

    #[test]
    fn an_outage_forgets_nobody() {
        let bob = Account { name: "bob".to_string(), gids: BTreeSet::from([7]) };
        let known = Accounts {
            by_uid: [(1000, bob)].into(),
            by_name: [("bob".to_string(), Some(1000))].into(),
            ..Accounts::default()
        };
        let mut accounts = known.clone();
        let down = Accounts { unavailable: Some("down".to_string()), ..Accounts::default() };
        take_in(&mut accounts, down, &Asked::All(BTreeSet::new()));
        assert_eq!(accounts.by_uid, known.by_uid);
        assert_eq!(accounts.by_name, known.by_name);
        assert!(accounts.unavailable.is_some());
        take_in(&mut accounts, Accounts::default(), &Asked::All(BTreeSet::new()));
        assert_eq!(accounts.by_uid.len(), 0, "it answers again: there is no such account any more");
        assert_eq!(accounts.unavailable, None);
    }

    #[test]
    fn a_file_of_subordinate_uids_that_changed_is_everybodys_news() {
        let line = |first, written: &str| Subuids {
            range: UidRange { first, last: first + 9 },
            written: written.to_string(),
            owner: None,
        };
        let read = |lines: Vec<Subuids>| Accounts { subuids: lines.into(), ..Accounts::default() };
        let bob = Account { name: "bob".to_string(), gids: BTreeSet::from([7]) };
        let mut accounts = Accounts {
            by_uid: [(1000, bob)].into(),
            by_name: [("ann".to_string(), Some(1001))].into(),
            ..read(vec![line(100, "carol")])
        };
        let now = || read(vec![line(200, "bob"), line(300, "ann")]);
        assert_eq!(take_in(&mut accounts, now(), &Asked::Subuids), News::Everybody);
        let owner = |uid| accounts.subuids.holding(uid).and_then(|line| line.owner);
        assert_eq!([105, 205, 305].map(owner), [None, Some(1000), Some(1001)]);
        assert_eq!(accounts.by_uid.len(), 1);
        assert_eq!(take_in(&mut accounts, now(), &Asked::Subuids), News::None);
    }

    #[test]
    fn who_comes_has_his_range_at_once() {
        let subuids = Subuids {
            range: UidRange { first: 100_000, last: 165_535 },
            written: "bob".to_string(),
            owner: None,
        };
        let mut accounts = Accounts { subuids: vec![subuids].into(), ..Accounts::default() };
        let bob = Account { name: "bob".to_string(), gids: BTreeSet::from([7]) };
        let answer = Accounts { by_uid: [(1000, bob)].into(), ..Accounts::default() };
        take_in(&mut accounts, answer, &Asked::Newcomers(BTreeSet::new()));
        assert_eq!(accounts.subuids.holding(100_001).unwrap().owner, Some(1000));
    }
}

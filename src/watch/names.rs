//! Who the accounts are, asked off the loop: NSS (LDAP, SSSD) may take seconds, or hang for ever, so
//! a child asks, and is killed when its time is up. Until the answer comes, everybody is who they were,
//! and a newcomer is a uid without a name or groups.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::accounts::{self, Question};
use crate::state::Accounts;
use crate::sys::offspring::Offspring;

/// How long NSS may take.
pub const LIMIT: Duration = Duration::from_secs(10);

/// What was asked.
#[derive(Clone, Debug)]
enum Asked {
    /// The names in the policy, and everybody who runs: these.
    All(BTreeSet<u32>),
    /// Those who came since.
    Newcomers(BTreeSet<u32>),
}

/// Whom an answer says something new about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    None,
    /// Those who came and were asked about: nobody else may be somebody else's now.
    Newcomers,
    Everybody,
}

/// At most one question at a time.
#[derive(Default)]
pub struct Names {
    asking: Option<(Offspring, Asked, Instant)>,
    newcomers: BTreeSet<u32>,
    all: Option<Question>,
}

impl Names {
    /// Asks about everything; sooner or later.
    pub fn ask_all(&mut self, question: Question) {
        self.all = Some(question);
        self.go_on();
    }

    /// Asks about one who came.
    pub fn ask_about(&mut self, uid: u32) {
        self.newcomers.insert(uid);
        self.go_on();
    }

    pub fn child(&self) -> Option<&Offspring> {
        self.asking.as_ref().map(|(child, ..)| child)
    }

    /// When the question under way has taken too long.
    pub fn limit(&self) -> Option<Instant> {
        self.asking.as_ref().map(|(_, _, since)| *since + LIMIT)
    }

    /// Whether the answer about the policy's names is still to come.
    pub fn is_asking_about_all(&self) -> bool {
        self.all.is_some() || matches!(&self.asking, Some((_, Asked::All(_), _)))
    }

    /// Whether the answer about somebody is still to come.
    pub fn is_asking_about(&self, uid: u32) -> bool {
        let asked = match &self.asking {
            Some((_, Asked::Newcomers(uids), _)) => uids.contains(&uid),
            _ => false,
        };
        asked || self.newcomers.contains(&uid)
    }

    /// Takes an answer, if one has come, into `accounts`.
    pub fn hear(&mut self, accounts: &mut Accounts) -> News {
        let Some((child, ..)) = &mut self.asking else { return News::None };
        let Some(answer) = child.answer() else { return News::None };
        let Some((_, asked, _)) = self.asking.take() else { return News::None };
        let news = match serde_json::from_slice(&answer) {
            Ok(answer) => take_in(accounts, answer, &asked),
            Err(error) => unanswered(accounts, &format!("the one who asked it ended: {error}")),
        };
        self.go_on();
        match asked {
            _ if news == News::None => News::None,
            Asked::All(_) => News::Everybody,
            Asked::Newcomers(_) => news,
        }
    }

    /// Kills a question that has taken too long.
    pub fn give_up(&mut self, accounts: &mut Accounts, now: Instant) -> News {
        if self.limit().is_none_or(|limit| limit > now) {
            return News::None;
        }
        self.asking = None;
        let new = unanswered(accounts, &format!("no answer within {} s", LIMIT.as_secs()));
        self.go_on();
        new
    }

    fn go_on(&mut self) {
        if self.asking.is_some() {
            return;
        }
        let (question, asked) = match self.all.take() {
            Some(question) => {
                // Whoever came is among those who run.
                self.newcomers.retain(|uid| !question.running.contains(uid));
                let running = question.running.clone();
                (question, Asked::All(running))
            }
            None if self.newcomers.is_empty() => return,
            None => {
                let uids = std::mem::take(&mut self.newcomers);
                let question = Question { running: uids.clone(), ..Question::default() };
                (question, Asked::Newcomers(uids))
            }
        };
        match ask(question) {
            Ok(child) => self.asking = Some((child, asked, Instant::now())),
            Err(error) => log::warn!("cannot start a child that asks NSS: {error}"),
        }
    }
}

fn ask(question: Question) -> io::Result<Offspring> {
    Offspring::start(move || {
        let accounts = accounts::lookup(question, Path::new(accounts::SUBUID));
        serde_json::to_vec(&accounts).unwrap_or_default()
    })
}

/// Asks and waits, but not for longer than `limit`.
pub fn ask_and_wait(question: Question, limit: Duration) -> Accounts {
    let running = question.running.clone();
    let mut accounts = Accounts { running, ..Accounts::default() };
    let mut names = Names::default();
    names.ask_all(question);
    let until = Instant::now() + limit;
    while names.child().is_some() {
        names.hear(&mut accounts);
        if names.child().is_some() && Instant::now() > until {
            unanswered(&mut accounts, "no answer in time");
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    accounts
}

fn take_in(accounts: &mut Accounts, answer: Accounts, asked: &Asked) -> News {
    if let Some(why) = &answer.unavailable {
        log::warn!("NSS could not answer: {why}; until it does, accounts are who they were");
    }
    let before = accounts.clone();
    match asked {
        Asked::All(uids) if answer.unavailable.is_none() => {
            let Accounts { running, by_uid: mut came, .. } = std::mem::take(accounts);
            // Whoever was introduced since the question.
            came.retain(|uid, _| running.contains(uid) && !uids.contains(uid));
            *accounts = Accounts { running, ..answer };
            for (uid, account) in came {
                accounts.by_uid.entry(uid).or_insert(account);
            }
        }
        _ => {
            for (uid, account) in &answer.by_uid {
                // An account that the policy names, and that was made since.
                if let Some(unknown @ None) = accounts.by_name.get_mut(&account.name) {
                    *unknown = Some(*uid);
                }
            }
            accounts.by_uid.extend(answer.by_uid);
            accounts.by_name.extend(answer.by_name);
            accounts.groups.extend(answer.groups);
            for range in answer.subuids {
                if !accounts.subuids.contains(&range) {
                    accounts.subuids.push(range);
                }
            }
            accounts.unavailable = answer.unavailable.or(accounts.unavailable.take());
        }
    }
    if *accounts == before {
        News::None
    } else if (&accounts.by_name, &accounts.subuids) != (&before.by_name, &before.subuids) {
        News::Everybody
    } else {
        News::Newcomers
    }
}

fn unanswered(accounts: &mut Accounts, why: &str) -> News {
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
    use crate::state::Account;

    #[test]
    fn nss_is_asked_by_a_child() {
        let question = Question { running: BTreeSet::from([0]), ..Question::default() };
        let accounts = ask_and_wait(question, LIMIT);
        assert_eq!(accounts.by_uid[&0].name, "root");
        assert_eq!(accounts.running, BTreeSet::from([0]));
        assert_eq!(accounts.unavailable, None);
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
}

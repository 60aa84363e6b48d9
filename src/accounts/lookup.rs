//! NSS, asked by this process.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fs;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, User, getgrouplist};

use super::files::{self, Entry, Passwd};
use super::question::Question;
use super::subuid::{SubuidLine, SubuidOwner, parse_subuid};
use crate::facts::{Account, Accounts, SubordinateUids, Subuids};
use crate::sys::nss::gid_of_group;
use crate::tree::UidRange;

const NSSWITCH: &str = "/etc/nsswitch.conf";
const PASSWD: &str = "/etc/passwd";

/// Asks NSS. What it could not answer is in no map, and `unavailable` says why; what it says does
/// not exist is `None` in `by_name` and `groups`, and a uid that no account has is in `absent`.
/// `subuid` is the path of [`super::SUBUID`]; one that cannot be read is a file without lines,
/// since most hosts need none.
/// `answered` is called after each answer of NSS's.
pub(super) fn lookup(question: Question, subuid: &Path, answered: &mut dyn FnMut()) -> Accounts {
    look_up(question, subuid, Nss::Asked(answered))
}

/// What the host's own files say, for whoever had no answer from NSS, because of `why`: the lines
/// of `subuid` and, where NSS would ask `/etc/passwd` first, the accounts in that file. Whatever
/// only NSS could say is in no map, and `why` is `unavailable` then. Asks nobody, so it cannot
/// hang.
pub(super) fn read_files(question: Question, subuid: &Path, why: String) -> Accounts {
    look_up(question, subuid, Nss::Silent(why))
}

fn look_up(question: Question, subuid: &Path, nss: Nss) -> Accounts {
    let Question { names, groups, uids, running, without_groups, all_subuids } = question;
    let local = local();
    let mut answers = Answers {
        local: Passwd::parse(&local),
        without_groups,
        running,
        nss,
        by_uid: BTreeMap::new(),
        groups: BTreeMap::new(),
        unavailable: None,
    };
    // The names of the policy come first: they decide most, and the rest may be many.
    let by_name = names.into_iter().filter_map(|name| {
        let answer = answers.uid_of(&name)?;
        match answer {
            Some(uid) if !without_groups => answers.account(uid),
            Some(_) => {}
            // A group of that name is looked for, so that the policy's error can say so.
            None => answers.group(&name, false),
        }
        Some((name, answer))
    });
    let by_name: BTreeMap<String, Option<u32>> = by_name.collect();
    for name in groups {
        answers.group(&name, true);
    }
    let uids: Vec<u32> = answers.running.union(&uids).copied().collect();
    for uid in uids {
        answers.account(uid);
    }
    let subuids = answers.subuids(subuid, &by_name, all_subuids);
    answers.finish(by_name, subuids)
}

/// The text of `/etc/passwd`, where NSS would ask that file first; otherwise empty.
fn local() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    match files::asked_first(&read(NSSWITCH)) {
        true => read(PASSWD),
        false => String::new(),
    }
}

/// Whether NSS may be asked.
enum Nss<'n> {
    /// It is asked; the function is called after each of its answers.
    Asked(&'n mut dyn FnMut()),
    /// It did not answer before, because of this, and is not asked again.
    Silent(String),
}

/// The answers so far.
struct Answers<'t, 'n> {
    local: Passwd<'t>,
    without_groups: bool,
    running: BTreeSet<u32>,
    by_uid: BTreeMap<u32, Option<Account>>,
    groups: BTreeMap<String, Option<u32>>,
    unavailable: Option<String>,
    nss: Nss<'n>,
}

impl Answers<'_, '_> {
    /// Asks NSS one question. `Some(None)`: there is no such account or group; `None`: NSS could
    /// not answer, and the reason is kept.
    fn ask<T>(
        &mut self,
        call: &str,
        what: &str,
        question: impl FnOnce() -> nix::Result<Option<T>>,
    ) -> Option<Option<T>> {
        let answer = match &mut self.nss {
            Nss::Asked(answered) => {
                let answer = question();
                answered();
                answer
            }
            Nss::Silent(why) => {
                self.unavailable.get_or_insert_with(|| why.clone());
                return None;
            }
        };
        match answer {
            Ok(found) => Some(found),
            // Some modules answer ESRCH instead of "not found" (getpwnam(3)). The man page lists
            // ENOENT, EBADF and EPERM too, but glibc's own "not found" is 0, also when a module
            // that nsswitch.conf names is not installed (tried); ENOENT is what the client of a
            // daemon that is down has from connect(2).
            Err(Errno::ESRCH) => Some(None),
            Err(errno) => {
                self.unavailable.get_or_insert_with(|| format!("{call}({what}): {}", errno.desc()));
                None
            }
        }
    }

    fn uid_of(&mut self, name: &str) -> Option<Option<u32>> {
        if let Some(uid) = self.local.uid_of(name) {
            return Some(Some(uid));
        }
        let user = self.ask("getpwnam_r", name, || User::from_name(name))?;
        Some(user.map(|user| user.uid.as_raw()))
    }

    /// Asks whether there is such a group; that there is none is noted only with `must_know`.
    fn group(&mut self, name: &str, must_know: bool) {
        // A name with a NUL in it is no group's.
        let question = || CString::new(name).map_or(Ok(None), |name| gid_of_group(&name));
        let answer = match (must_know, &self.nss) {
            (true, _) => self.ask("getgrnam_r", name, question),
            (false, Nss::Asked(_)) => question().ok().filter(Option::is_some),
            (false, Nss::Silent(_)) => None,
        };
        if let Some(answer) = answer {
            self.groups.insert(name.to_string(), answer);
        }
    }

    /// Asks who `uid` is and what groups he is in, once.
    fn account(&mut self, uid: u32) {
        if self.by_uid.contains_key(&uid) {
            return;
        }
        let found = match self.local.account(uid) {
            Some(Entry { name, gid }) => Some((name.to_string(), gid)),
            None => {
                let question = || User::from_uid(Uid::from_raw(uid));
                let found = self.ask("getpwuid_r", &uid.to_string(), question);
                let Some(found) = found else { return };
                found.map(|user| (user.name, user.gid.as_raw()))
            }
        };
        let account = match found {
            None => None,
            Some((name, gid)) if self.without_groups => {
                Some(Account { gids: BTreeSet::from([gid]), name })
            }
            Some((name, gid)) => match self.with_groups(name, gid) {
                // The account exists, but NSS could not say which groups it is in.
                None => return,
                account => account,
            },
        };
        self.by_uid.insert(uid, account);
    }

    /// The primary and all supplementary groups; nix makes room for up to NGROUPS_MAX (65,536).
    /// getgrouplist(3) cannot say that NSS was unavailable, and then answers with fewer groups.
    fn with_groups(&mut self, name: String, gid: u32) -> Option<Account> {
        let c_name = CString::new(name.clone()).ok()?;
        let question = || getgrouplist(&c_name, Gid::from_raw(gid)).map(Some);
        let gids = self.ask("getgrouplist", &name, question)??;
        let gids = gids.into_iter().map(Gid::as_raw).chain([gid]).collect();
        Some(Account { name, gids })
    }

    /// The lines of `/etc/subuid` with their owners. NSS is asked about the owner of a line only
    /// where the line decides about a uid that runs and that NSS does not know. All other owners
    /// are known only where the line has a number, or the name is in `/etc/passwd`, in the policy
    /// or an account's that runs: a host may have a line for each of 60,000 accounts, and 60,000
    /// questions are too many.
    fn subuids(
        &mut self,
        path: &Path,
        by_name: &BTreeMap<String, Option<u32>>,
        all: bool,
    ) -> SubordinateUids {
        if !all && self.running.is_empty() && self.by_uid.is_empty() {
            return SubordinateUids::default();
        }
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    log::warn!("cannot read {}: {error}", path.display());
                }
                return SubordinateUids::default();
            }
        };
        let line = |SubuidLine { owner, range }| {
            let (written, owner) = match owner {
                SubuidOwner::Uid(uid) => (uid.to_string(), Some(uid)),
                SubuidOwner::Name(name) => {
                    let named = by_name.get(&name).copied().flatten();
                    let owner = named.or_else(|| self.local.uid_of(&name));
                    (name, owner)
                }
            };
            Subuids { range, written, owner }
        };
        let lines: Vec<Subuids> = parse_subuid(&text).into_iter().map(line).collect();
        let mut subuids = SubordinateUids::from(lines);
        let mut deciding: BTreeMap<(UidRange, String), Subuids> = BTreeMap::new();
        for uid in self.running.clone() {
            let known = matches!(self.by_uid.get(&uid), Some(Some(_)));
            let Some(line) = subuids.holding(uid).filter(|_| !known) else { continue };
            let key = (line.range, line.written.clone());
            if deciding.contains_key(&key) {
                continue;
            }
            let owner = line.owner.or_else(|| self.uid_of(&line.written).flatten());
            deciding.insert(key, Subuids { owner, ..line.clone() });
            // Processes as subordinate uids count for the owner, so NSS is asked about his groups
            // too.
            if let Some(owner) = owner {
                self.account(owner);
            }
        }
        let deciding: Vec<Subuids> = deciding.into_values().collect();
        match all {
            true => subuids.learn(deciding),
            false => {
                // Lines of an account that has just come may be as new as the account.
                let known = self.known();
                subuids.name_owners(&known);
                let theirs = subuids.of(|uid| known.contains_key(&uid)).cloned();
                subuids = theirs.chain(deciding).collect::<Vec<_>>().into();
            }
        }
        subuids
    }

    fn known(&self) -> BTreeMap<u32, Account> {
        let known = |(uid, account): (&u32, &Option<Account>)| Some((*uid, account.clone()?));
        self.by_uid.iter().filter_map(known).collect()
    }

    fn finish(
        self,
        by_name: BTreeMap<String, Option<u32>>,
        mut subuids: SubordinateUids,
    ) -> Accounts {
        let absent = self.by_uid.iter().filter(|(_, account)| account.is_none());
        let absent = absent.map(|(uid, _)| *uid).collect();
        let by_uid = self.known();
        subuids.name_owners(&by_uid);
        Accounts {
            running: self.running,
            by_uid,
            by_name,
            groups: self.groups,
            absent,
            subuids,
            running_ranges: BTreeSet::new(),
            with_guests: BTreeSet::new(),
            named_by_guests: BTreeSet::new(),
            unavailable: self.unavailable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_exists_and_what_does_not_are_told_apart() {
        let question = Question {
            names: strings(&["root", "no-such-account"]),
            groups: strings(&["root", "no-such-group"]),
            running: BTreeSet::from([0, 3_999_999_999]),
            ..Question::default()
        };
        let accounts = lookup(question, Path::new("/nonexistent"), &mut || {});
        assert_eq!(accounts.by_name["root"], Some(0));
        assert_eq!(accounts.by_name["no-such-account"], None);
        assert_eq!(accounts.groups["root"], Some(0));
        assert_eq!(accounts.groups["no-such-group"], None);
        assert_eq!(accounts.by_uid[&0].name, "root");
        assert!(accounts.by_uid[&0].gids.contains(&0));
        assert!(!accounts.by_uid.contains_key(&3_999_999_999));
        assert_eq!(accounts.unavailable, None);
    }

    fn answers<'t, 'n>(local: &'t str, nss: Nss<'n>) -> Answers<'t, 'n> {
        Answers {
            local: Passwd::parse(local),
            without_groups: true,
            running: BTreeSet::new(),
            by_uid: BTreeMap::new(),
            groups: BTreeMap::new(),
            unavailable: None,
            nss,
        }
    }

    #[test]
    fn a_name_that_nss_could_not_answer_is_neither_there_nor_missing() {
        let mut answered = || {};
        let mut answers = answers("", Nss::Asked(&mut answered));
        let answer: Option<Option<()>> =
            answers.ask("getpwnam_r", "bob", || Err(Errno::ECONNREFUSED));
        assert_eq!(answer, None);
        assert_eq!(answers.unavailable.as_deref(), Some("getpwnam_r(bob): Connection refused"));
        let answer: Option<Option<()>> = answers.ask("getpwnam_r", "ann", || Err(Errno::ESRCH));
        assert_eq!(answer, Some(None));
    }

    #[test]
    fn while_nss_is_silent_what_the_file_says_is_known() {
        let silent = || Nss::Silent("no answer within 1 s".to_string());
        let mut answers = answers("ann:x:1000:1000::/:/bin/sh\n", silent());
        assert_eq!(answers.uid_of("ann"), Some(Some(1000)));
        answers.account(1000);
        assert_eq!(answers.unavailable, None, "nobody else had to be asked");
        // NSS would know root, and is not asked.
        assert_eq!(answers.uid_of("root"), None);
        answers.account(0);
        answers.group("root", false);
        answers.group("root", true);
        assert_eq!(answers.unavailable.as_deref(), Some("no answer within 1 s"));
        let accounts = answers.finish(BTreeMap::new(), SubordinateUids::default());
        assert_eq!(accounts.by_uid.keys().collect::<Vec<_>>(), [&1000]);
        assert!(accounts.absent.is_empty(), "{:?}", accounts.absent);
        assert!(accounts.groups.is_empty(), "{:?}", accounts.groups);
    }

    #[test]
    fn a_name_with_a_nul_is_no_account() {
        let question = Question { names: strings(&["ro\0ot"]), ..Question::default() };
        assert_eq!(lookup(question, Path::new("/nonexistent"), &mut || {}).by_name["ro\0ot"], None);
    }

    #[test]
    fn subordinate_uids_that_run_count_for_their_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("subuid");
        fs::write(&path, "root:100000:65536\nno-such-account:200000:10\nroot:300000:9\n4711:5:1\n")
            .unwrap();
        let question =
            Question { running: BTreeSet::from([100_007, 200_003]), ..Question::default() };
        let whole = lookup(Question { all_subuids: true, ..question.clone() }, &path, &mut || {});
        let owner = |accounts: &Accounts, uid| accounts.subuids.holding(uid).map(|it| it.owner);
        assert_eq!(owner(&whole, 100_007), Some(Some(0)));
        assert_eq!(owner(&whole, 200_003), Some(None), "an owner that does not exist");
        assert_eq!(owner(&whole, 5), Some(Some(4711)), "owned by number");
        assert_eq!(owner(&whole, 300_000), Some(Some(0)), "nobody runs there");
        assert!(whole.by_uid.contains_key(&0), "his groups decide");
        assert_eq!(whole.absent, BTreeSet::from([100_007, 200_003]));
        let deciding = lookup(question, &path, &mut || {});
        assert_eq!(owner(&deciding, 100_008), Some(Some(0)));
        assert_eq!(owner(&deciding, 300_000), Some(Some(0)), "all of one who was asked for");
        assert_eq!(owner(&deciding, 5), None, "nobody runs there");
        let root = Question { running: BTreeSet::from([0]), ..Question::default() };
        let roots = lookup(root, &path, &mut || {});
        assert_eq!(owner(&roots, 100_008), Some(Some(0)), "nobody runs there yet");
        assert_eq!(owner(&roots, 200_003), None);
    }
}

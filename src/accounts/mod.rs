//! Accounts and groups, as NSS has them (files, LDAP, SSSD, systemd), and `/etc/subuid`. Asks for
//! names and uids one by one and never enumerates: a directory of 100,000 accounts would stall.
//! Only the local file is read as a whole. Reads only.

mod files;
mod subuid;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fs;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, User, getgrouplist};

use crate::policy::{Lookups, Policy};
use crate::state::{Account, Accounts, Subuids};
use crate::sys::nss::gid_of_group;
use files::{Entry, Passwd};

pub use subuid::{SubuidLine, SubuidOwner, parse_subuid};

const NSSWITCH: &str = "/etc/nsswitch.conf";
const PASSWD: &str = "/etc/passwd";

/// Where subordinate uids are kept (subuid(5)).
pub const SUBUID: &str = "/etc/subuid";

/// What to ask for.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// Accounts that the policy names.
    pub names: BTreeSet<String>,
    /// Groups that the policy names (`gid`).
    pub groups: BTreeSet<String>,
    /// Uids that the policy names one by one.
    pub uids: BTreeSet<u32>,
    /// Uids that have a process in the links' network namespace.
    pub running: BTreeSet<u32>,
    /// Nobody needs to know which groups an account is in: of a name then only the uid is asked, and of
    /// who runs only the name. Groups cost more than everything else of 10,000 names together.
    pub without_groups: bool,
}

impl Question {
    /// What a policy makes it necessary to ask, beside who runs.
    pub fn of(policy: &Policy) -> Question {
        let Lookups { accounts, uids, groups, memberships } = policy.lookups();
        let running = BTreeSet::new();
        Question { names: accounts, groups, uids, running, without_groups: !memberships }
    }

    /// Both questions at once.
    pub fn and(mut self, other: Question) -> Question {
        self.names.extend(other.names);
        self.groups.extend(other.groups);
        self.uids.extend(other.uids);
        self.running.extend(other.running);
        self.without_groups &= other.without_groups;
        self
    }
}

/// Asks NSS. What it could not answer is in no map, and `unavailable` says why; what it says does
/// not exist is `None` in `by_name` and `groups`, and missing in `by_uid`. `subuid` is the path of
/// [`SUBUID`]; one that cannot be read is a file without lines, since most hosts need none.
pub fn lookup(question: Question, subuid: &Path) -> Accounts {
    let Question { names, groups, uids, running, without_groups } = question;
    let local = local();
    let mut asking =
        Asking { local: Passwd::parse(&local), without_groups, running, ..Asking::default() };
    // What the policy names comes first: it decides most, and the rest may be many.
    let by_name = names.into_iter().filter_map(|name| {
        let answer = asking.uid_of(&name)?;
        match answer {
            Some(uid) if !without_groups => asking.account(uid),
            Some(_) => {}
            // Whoever wrote a group's name as an account's is told so.
            None => asking.group(&name, false),
        }
        Some((name, answer))
    });
    let by_name = by_name.collect();
    for name in groups {
        asking.group(&name, true);
    }
    let uids: Vec<u32> = asking.running.union(&uids).copied().collect();
    for uid in uids {
        asking.account(uid);
    }
    asking.subuids(subuid);
    asking.finish(by_name)
}

/// The text of the local file, where NSS would answer from it before it asks anybody else.
fn local() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    match files::asked_first(&read(NSSWITCH)) {
        true => read(PASSWD),
        false => String::new(),
    }
}

/// The answers so far.
#[derive(Default)]
struct Asking<'t> {
    local: Passwd<'t>,
    without_groups: bool,
    running: BTreeSet<u32>,
    by_uid: BTreeMap<u32, Option<Account>>,
    groups: BTreeMap<String, Option<u32>>,
    subuids: Vec<Subuids>,
    unavailable: Option<String>,
}

impl Asking<'_> {
    /// `Some(None)`: there is none; `None`: NSS could not answer.
    fn keep<T>(
        &mut self,
        call: &str,
        what: &str,
        answer: nix::Result<Option<T>>,
    ) -> Option<Option<T>> {
        match answer {
            Ok(found) => Some(found),
            // Some modules say so instead of "not found" (getpwnam(3)). The man page lists ENOENT,
            // EBADF and EPERM too, but glibc's own "not found" is 0, also when a module that
            // nsswitch.conf names is not installed (tried); ENOENT is what the client of a daemon
            // that is down has from connect(2).
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
        let user = self.keep("getpwnam_r", name, User::from_name(name))?;
        Some(user.map(|user| user.uid.as_raw()))
    }

    /// Asks whether there is such a group; that there is none is kept only if somebody `must_know`.
    fn group(&mut self, name: &str, must_know: bool) {
        // A name with a NUL in it is no group's.
        let answer = CString::new(name).map_or(Ok(None), |name| gid_of_group(&name));
        let answer = match must_know {
            true => self.keep("getgrnam_r", name, answer),
            false => answer.ok().filter(Option::is_some),
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
                let answer = User::from_uid(Uid::from_raw(uid));
                let Some(found) = self.keep("getpwuid_r", &uid.to_string(), answer) else { return };
                found.map(|user| (user.name, user.gid.as_raw()))
            }
        };
        let account = found.and_then(|(name, gid)| match self.without_groups {
            true => Some(Account { gids: BTreeSet::from([gid]), name }),
            false => self.with_groups(name, gid),
        });
        self.by_uid.insert(uid, account);
    }

    /// The primary and all supplementary groups; nix makes room for up to NGROUPS_MAX (65,536).
    /// getgrouplist(3) itself cannot say that NSS was unavailable: then it gives fewer groups.
    fn with_groups(&mut self, name: String, gid: u32) -> Option<Account> {
        let listed = getgrouplist(&CString::new(name.clone()).ok()?, Gid::from_raw(gid)).map(Some);
        let gids = self.keep("getgrouplist", &name, listed)??;
        let gids = gids.into_iter().map(Gid::as_raw).chain([gid]).collect();
        Some(Account { name, gids })
    }

    /// The subordinate ranges that matter: owned by number, or holding a uid that runs. A host may
    /// have one range for each of 60,000 accounts; their names are not worth 60,000 questions.
    fn subuids(&mut self, path: &Path) {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                log::warn!("cannot read {}: {error}", path.display());
                return;
            }
        };
        for line in parse_subuid(&text) {
            let holds = line
                .last()
                .is_some_and(|last| self.running.range(line.first..=last).next().is_some());
            let owner = match line.owner {
                SubuidOwner::Uid(uid) => Some(uid),
                SubuidOwner::Name(name) if holds => self.uid_of(&name).flatten(),
                SubuidOwner::Name(_) => None,
            };
            let Some(owner) = owner else { continue };
            // They count for him, so his groups decide.
            if holds {
                self.account(owner);
            }
            self.subuids.push(Subuids { first: line.first, count: line.count, owner });
        }
    }

    fn finish(self, by_name: BTreeMap<String, Option<u32>>) -> Accounts {
        let known = |(uid, account): (u32, Option<Account>)| Some((uid, account?));
        Accounts {
            running: self.running,
            by_uid: self.by_uid.into_iter().filter_map(known).collect(),
            by_name,
            groups: self.groups,
            subuids: self.subuids,
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
        let accounts = lookup(question, Path::new("/nonexistent"));
        assert_eq!(accounts.by_name["root"], Some(0));
        assert_eq!(accounts.by_name["no-such-account"], None);
        assert_eq!(accounts.groups["root"], Some(0));
        assert_eq!(accounts.groups["no-such-group"], None);
        assert_eq!(accounts.by_uid[&0].name, "root");
        assert!(accounts.by_uid[&0].gids.contains(&0));
        assert!(!accounts.by_uid.contains_key(&3_999_999_999));
        assert_eq!(accounts.unavailable, None);
    }

    #[test]
    fn a_name_that_nss_could_not_answer_is_neither_there_nor_missing() {
        let mut asking = Asking::default();
        let answer: Option<Option<()>> = asking.keep("getpwnam_r", "bob", Err(Errno::ECONNREFUSED));
        assert_eq!(answer, None);
        assert_eq!(asking.unavailable.as_deref(), Some("getpwnam_r(bob): Connection refused"));
        let answer: Option<Option<()>> = asking.keep("getpwnam_r", "ann", Err(Errno::ESRCH));
        assert_eq!(answer, Some(None));
    }

    #[test]
    fn a_name_with_a_nul_is_no_account() {
        let question = Question { names: strings(&["ro\0ot"]), ..Question::default() };
        assert_eq!(lookup(question, Path::new("/nonexistent")).by_name["ro\0ot"], None);
    }

    #[test]
    fn subordinate_uids_that_run_count_for_their_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("subuid");
        fs::write(&path, "root:100000:65536\nno-such-account:200000:10\nroot:300000:9\n4711:5:1\n")
            .unwrap();
        let question =
            Question { running: BTreeSet::from([100_007, 200_003]), ..Question::default() };
        let accounts = lookup(question, &path);
        assert_eq!(accounts.counts_for(100_007), 0);
        assert_eq!(accounts.counts_for(200_003), 200_003, "an owner that does not exist");
        assert_eq!(accounts.counts_for(5), 4711, "owned by number");
        assert_eq!(accounts.subuids.len(), 2, "nobody runs in 300000");
        assert!(accounts.by_uid.contains_key(&0), "his groups decide");
    }
}

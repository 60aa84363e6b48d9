//! Who claims a process by the policy, whichever directory it is in, and by which of its uids.
//! Pure.

use crate::facts::Accounts;
use crate::model::Matcher;
use crate::tree::{Claim, Owner};

use super::Process;
use super::view::{InstanceView, claim_of};

/// Who claims a process. A container engine's proxy is whose the container is. A process whose unit
/// follows effective uids is claimed by the uid of the user for whom it acts. While it acts as root
/// it stays the last user's, since smbd and its like become root for a moment all the time. Where
/// nobody claims that user, or there was none, its unit's line claims it.
///
/// Only the main thread's uid counts. A server whose threads act for several users at once
/// (setfsuid(2) and similar system calls change one thread) therefore stays its unit's line's.
pub fn whose(
    process: &Process,
    matcher: &Matcher,
    accounts: &Accounts,
    instance: &InstanceView,
) -> Option<Owner> {
    if let Some(owner) = process.serves.and_then(|address| matcher.proxied.get(&address)) {
        return Some(owner.clone());
    }
    let unit = process.unit.as_deref();
    let claim = |uid, unit| matcher.claim(uid, unit, accounts).map(|claimed| claimed.owner());
    let user = match (matcher.units.follows(unit), process.acting_uid) {
        (false, _) => None,
        (true, 0) => match claim_of(process, instance) {
            Some(Claim::Owner(last)) if matcher.claims_by_uid(&last, accounts) => Some(last),
            _ => None,
        },
        (true, uid) => claim(uid, None),
    };
    user.or_else(|| claim(process.uid, unit))
}

/// The uid by which a process is claimed, and its unit, if that counts before the uid.
pub fn counts_as<'a>(process: &'a Process, matcher: &Matcher) -> (u32, Option<&'a str>) {
    let unit = process.unit.as_deref();
    match process.acting_uid {
        acting if acting != 0 && matcher.units.follows(unit) => (acting, None),
        _ => (process.uid, unit),
    }
}

/// The uid of the user for whom a process of root's acts, where its unit follows effective uids;
/// its connections are that user's meanwhile.
pub fn acts_for(process: &Process, matcher: &Matcher) -> Option<u32> {
    let acts = process.is_roots && process.acting_uid != 0 && process.is_alive();
    (acts && matcher.units.follows(process.unit.as_deref())).then_some(process.acting_uid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Units;
    use crate::process::{Decision, decide, given};
    use crate::tree::Key;
    use std::collections::{BTreeMap, BTreeSet};

    const ANN: u32 = 1000;
    const BOB: u32 = 1001;
    /// A uid of `everyone`.
    const CAROL: u32 = 2000;
    const NOBODYS: u32 = 33;

    fn key(name: &str) -> Key {
        Key::new(name).unwrap()
    }

    fn matcher() -> Matcher {
        let unit = |name: &str, line: &str| (name.to_string(), key(line));
        Matcher {
            units: Units {
                named: [unit("smbd.service", "files"), unit("borg.service", "backup")].into(),
                following: BTreeSet::from([key("files")]),
                ..Units::default()
            },
            uids: vec![(ANN..=ANN, key("ann")), (BOB..=BOB, key("bob"))],
            groups: vec![],
            everyone: Some((vec![2000..=2999], None)),
            proxied: BTreeMap::new(),
        }
    }

    fn instance() -> InstanceView {
        let others = BTreeMap::new();
        InstanceView { name: "shaper".into(), netns: 1, host: Some(1), others, places: true }
    }

    /// A process of root's server.
    fn server(acting_uid: u32, net_cls: &str) -> Process {
        Process {
            pid: 7,
            parent: 1,
            starttime: 1,
            comm: "smbd".into(),
            uid: 0,
            acting_uid,
            is_roots: true,
            kernel_thread: false,
            zombie: false,
            netns: Some(1),
            net_cls: Some(net_cls.into()),
            unit: Some("smbd.service".into()),
            guest: None,
            serves: None,
        }
    }

    fn asked() -> Accounts {
        Accounts { absent: [ANN, BOB, CAROL, NOBODYS].into(), ..Accounts::default() }
    }

    fn decided(process: &Process) -> Decision {
        decide(process, &matcher(), &asked(), &instance())
    }

    fn to(claim: &str) -> Decision {
        Decision::MoveTo(claim.parse().unwrap())
    }

    #[test]
    fn a_server_is_its_users_for_whom_it_acts() {
        assert_eq!(decided(&server(ANN, "/")), to("user/ann"));
        assert_eq!(decided(&server(BOB, "/shaper/user/ann")), to("user/bob"));
        assert_eq!(decided(&server(CAROL, "/shaper/user/files")), to("uid/2000"));
        assert_eq!(decided(&server(ANN, "/shaper/user/ann")), Decision::Stay);
    }

    #[test]
    fn while_it_is_root_it_stays_with_its_last_user() {
        for stays in ["user/ann", "uid/2000", "user/files", "user/ann/pinned"] {
            assert_eq!(decided(&server(0, &format!("/shaper/{stays}"))), Decision::Stay, "{stays}");
        }
        // The process acted for no user before, or for one whom nobody claims (any more).
        for other in [
            "/",
            "/shaper/user/backup",
            "/shaper/user/gone",
            "/shaper/uid/33",
            "/shaper/retired/1a",
        ] {
            assert_eq!(decided(&server(0, other)), to("user/files"), "{other}");
        }
    }

    #[test]
    fn whom_nobody_claims_is_its_lines() {
        let process = server(NOBODYS, "/shaper/user/ann");
        let decision = decided(&process);
        assert_eq!(decision, to("user/files"));
        // Sockets that it makes as that user count there too.
        let to = given(&process, &matcher(), &asked(), &instance(), &decision);
        assert_eq!(to, Some("user/files".parse().unwrap()));
        let process = server(ANN, "/");
        let to = given(&process, &matcher(), &asked(), &instance(), &decided(&process));
        assert_eq!(to, None, "her own class");
    }

    #[test]
    fn other_units_and_processes_count_by_their_real_uid() {
        let backup = Process { unit: Some("borg.service".into()), ..server(ANN, "/") };
        assert_eq!(decided(&backup), to("user/backup"));
        let ping = Process { unit: None, uid: ANN, ..server(0, "/") };
        assert_eq!(decided(&ping), to("user/ann"));
        assert_eq!(acts_for(&backup, &matcher()), None);
        // A process that has become the user for good is no server that acts for him.
        let for_good = Process { uid: ANN, is_roots: false, ..server(ANN, "/") };
        assert_eq!(acts_for(&for_good, &matcher()), None);
        // smbd changes the real uid as well, and keeps root's as the saved one.
        assert_eq!(acts_for(&Process { uid: ANN, ..server(ANN, "/") }, &matcher()), Some(ANN));
        assert_eq!(acts_for(&server(ANN, "/"), &matcher()), Some(ANN));
        assert_eq!(acts_for(&server(0, "/shaper/user/ann"), &matcher()), None);
    }
}

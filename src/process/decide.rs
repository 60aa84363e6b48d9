//! What to do with one process: the order of CONTRACT ("who claims a process"), and whom to leave
//! alone. Pure.

use crate::model::Matcher;
use crate::state::{Accounts, Claim, Owner};

use super::Process;

/// The instance, as far as placement must know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceView {
    /// Its directory's name right below the hierarchy's root.
    pub name: String,
    /// Inode of the network namespace that it shapes.
    pub netns: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is where it belongs.
    Stay,
    MoveTo(Claim),
    /// It sits in our directories and nobody claims it: to the hierarchy's root.
    TakeOut,
    Leave(Reason),
}

/// Why a process is none of our business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A kernel thread or a zombie.
    NotAlive,
    OtherNamespace,
    /// It may be in ours: we are not permitted to know.
    UnknownNamespace,
    /// Nobody claims it, and it is not in our directories.
    Unclaimed,
    /// Another's directory holds it, a container engine's say. `owner` would have claimed it.
    Foreign {
        owner: Option<Owner>,
    },
}

/// Whose directory a process sits in.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seat {
    /// The hierarchy's root (or there is no hierarchy): nobody's.
    Free,
    Ours(Option<Claim>),
    /// Another instance of this program, known by the layout of its directories.
    Sibling,
    Foreign,
}

pub fn decide(
    process: &Process,
    matcher: &Matcher,
    accounts: &Accounts,
    instance: &InstanceView,
) -> Decision {
    if !process.is_alive() {
        return Decision::Leave(Reason::NotAlive);
    }
    let seat = seat(process.net_cls.as_deref().unwrap_or("/"), &instance.name);
    let owner = matcher
        .claim(process.uid, process.unit.as_deref(), accounts)
        .map(|claimed| claimed.owner());
    match process.netns {
        Some(netns) if netns == instance.netns => {}
        // It was in our namespace once, or its parent was.
        Some(_) if matches!(seat, Seat::Ours(_)) => return Decision::TakeOut,
        Some(_) => return Decision::Leave(Reason::OtherNamespace),
        None if owner.is_none() && !matches!(seat, Seat::Ours(_)) => {
            return Decision::Leave(Reason::Unclaimed);
        }
        None => return Decision::Leave(Reason::UnknownNamespace),
    }
    if let Seat::Ours(Some(Claim::Pinned(_))) = seat {
        return Decision::Stay;
    }
    // NSS could not say who this is: whoever it was yesterday, it still is.
    let unanswered = accounts.unavailable.is_some() && !accounts.by_uid.contains_key(&process.uid);
    if unanswered && matches!(seat, Seat::Ours(Some(Claim::Owner(_)))) {
        return Decision::Stay;
    }
    match (seat, owner) {
        (Seat::Foreign, owner) => Decision::Leave(Reason::Foreign { owner }),
        (Seat::Ours(Some(Claim::Owner(at))), Some(owner)) if at == owner => Decision::Stay,
        (_, Some(owner)) => Decision::MoveTo(Claim::Owner(owner)),
        (Seat::Ours(_), None) => Decision::TakeOut,
        (Seat::Sibling, None) => Decision::Leave(Reason::Foreign { owner: None }),
        (Seat::Free, None) => Decision::Leave(Reason::Unclaimed),
    }
}

/// Whose pinned directory (`run`, `attach`) the process sits in.
pub fn pinned_by(process: &Process, instance: &InstanceView) -> Option<Owner> {
    match seat(process.net_cls.as_deref()?, &instance.name) {
        Seat::Ours(Some(Claim::Pinned(owner))) => Some(owner),
        _ => None,
    }
}

/// `path` is as `/proc/PID/cgroup` has it: `/shaper/user/bob`.
fn seat(path: &str, instance: &str) -> Seat {
    let path = path.trim_start_matches('/');
    let (top, below) = path.split_once('/').unwrap_or((path, ""));
    let claim = below.parse::<Claim>().ok();
    let room = matches!(below, "user" | "uid" | "class" | "group" | "retired");
    match top {
        "" => Seat::Free,
        // Outside our cgroup namespace.
        ".." => Seat::Foreign,
        _ if top == instance => match claim {
            // In the instance's directory itself or in a room: nobody belongs there.
            None if !(room || below.is_empty()) => Seat::Foreign,
            claim => Seat::Ours(claim),
        },
        _ if is_instance(top) && (claim.is_some() || room) => Seat::Sibling,
        _ => Seat::Foreign,
    }
}

/// Whether it is the name that an instance has by itself, which says whose namespace it is for: the
/// host's, or the one with that inode. Whoever named an instance otherwise is left alone.
fn is_instance(name: &str) -> bool {
    name.strip_prefix("shaper").is_some_and(|rest| {
        rest.is_empty() || rest.strip_prefix('-').is_some_and(|inode| inode.parse::<u64>().is_ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Key;
    use std::collections::BTreeMap;

    const OURS: u64 = 1;

    fn key(name: &str) -> Key {
        Key::new(name).unwrap()
    }

    fn decide_for(process: Process) -> Decision {
        let matcher = Matcher {
            units: BTreeMap::from([("borg.service".to_string(), key("backup"))]),
            uids: vec![(1000..=1000, key("bob"))],
            groups: vec![],
            everyone: Some((vec![2000..=2999], None)),
        };
        let instance = InstanceView { name: "shaper".into(), netns: OURS };
        decide(&process, &matcher, &Accounts::default(), &instance)
    }

    fn process(uid: u32, net_cls: &str) -> Process {
        Process {
            pid: 7,
            starttime: 1,
            comm: "x".into(),
            uid,
            kernel_thread: false,
            zombie: false,
            netns: Some(OURS),
            net_cls: Some(net_cls.into()),
            unit: None,
        }
    }

    fn to(claim: &str) -> Decision {
        Decision::MoveTo(claim.parse().unwrap())
    }

    fn foreign(owner: Option<&str>) -> Decision {
        Decision::Leave(Reason::Foreign { owner: owner.map(|name| Owner::User(key(name))) })
    }

    #[test]
    fn a_claimed_process_goes_to_its_claim_and_stays_there() {
        assert_eq!(decide_for(process(1000, "/")), to("user/bob"));
        assert_eq!(decide_for(process(2001, "/")), to("uid/2001"));
        assert_eq!(decide_for(process(1000, "/shaper/uid/2001")), to("user/bob"));
        assert_eq!(decide_for(process(1000, "/shaper/user/bob")), Decision::Stay);
        assert_eq!(decide_for(process(1000, "/shaper/retired/1a")), to("user/bob"));
        assert_eq!(decide_for(process(1000, "/shaper/user")), to("user/bob"));
        assert_eq!(decide_for(process(1000, "/shaper")), to("user/bob"));
    }

    #[test]
    fn while_nss_is_silent_everybody_stays_where_they_are() {
        let matcher = Matcher { everyone: Some((vec![1000..=2999], None)), ..Matcher::default() };
        let instance = InstanceView { name: "shaper".into(), netns: OURS };
        let silent = Accounts { unavailable: Some("sssd is down".into()), ..Accounts::default() };
        let at = |path: &str, accounts: &Accounts| {
            decide(&process(1000, path), &matcher, accounts, &instance)
        };
        assert_eq!(at("/shaper/user/bob", &silent), Decision::Stay);
        assert_eq!(at("/shaper/user/bob", &Accounts::default()), to("uid/1000"));
        assert_eq!(at("/", &silent), to("uid/1000"), "who is new is under everyone by the uid");
    }

    #[test]
    fn the_unit_goes_before_the_account() {
        let unit = Some("borg.service".to_string());
        assert_eq!(decide_for(Process { unit, ..process(1000, "/") }), to("user/backup"));
    }

    #[test]
    fn what_nobody_claims_is_taken_out_of_our_directories_and_left_alone_elsewhere() {
        assert_eq!(decide_for(process(500, "/shaper/user/bob")), Decision::TakeOut);
        assert_eq!(decide_for(process(500, "/shaper/retired/1a")), Decision::TakeOut);
        assert_eq!(decide_for(process(0, "/shaper")), Decision::TakeOut);
        assert_eq!(decide_for(process(500, "/")), Decision::Leave(Reason::Unclaimed));
    }

    #[test]
    fn what_run_and_attach_pinned_stays_whoever_it_is() {
        assert_eq!(decide_for(process(0, "/shaper/user/bob/pinned")), Decision::Stay);
        assert_eq!(decide_for(process(2001, "/shaper/user/bob/pinned")), Decision::Stay);
    }

    #[test]
    fn other_namespaces_are_left_alone_and_taken_out() {
        let netns = Some(2);
        let elsewhere = |path| decide_for(Process { netns, ..process(1000, path) });
        assert_eq!(elsewhere("/"), Decision::Leave(Reason::OtherNamespace));
        assert_eq!(elsewhere("/docker/1"), Decision::Leave(Reason::OtherNamespace));
        assert_eq!(elsewhere("/other/user/bob"), Decision::Leave(Reason::OtherNamespace));
        assert_eq!(elsewhere("/shaper/user/bob"), Decision::TakeOut);
        assert_eq!(elsewhere("/shaper/user/bob/pinned"), Decision::TakeOut);
    }

    #[test]
    fn a_process_whose_namespace_is_unknown_is_not_touched() {
        let unknown = |path| decide_for(Process { netns: None, ..process(1000, path) });
        assert_eq!(unknown("/"), Decision::Leave(Reason::UnknownNamespace));
        assert_eq!(unknown("/shaper/user/bob"), Decision::Leave(Reason::UnknownNamespace));
    }

    #[test]
    fn another_programs_directory_is_left_alone_and_says_whose_the_process_would_be() {
        assert_eq!(decide_for(process(1000, "/docker/3f2a")), foreign(Some("bob")));
        assert_eq!(decide_for(process(0, "/docker/3f2a")), foreign(None));
        assert_eq!(decide_for(process(1000, "/shaper/build")), foreign(Some("bob")));
        assert_eq!(decide_for(process(1000, "/shaper/user/bob/build")), foreign(Some("bob")));
        assert_eq!(decide_for(process(1000, "/../x")), foreign(Some("bob")));
        assert_eq!(decide_for(process(1000, "/shaper2")), foreign(Some("bob")));
    }

    #[test]
    fn a_process_that_came_from_another_instances_namespace_into_ours_is_taken() {
        assert_eq!(decide_for(process(1000, "/shaper-2/user/bob")), to("user/bob"));
        assert_eq!(decide_for(process(1000, "/shaper-2/uid/1000/pinned")), to("user/bob"));
        assert_eq!(decide_for(process(500, "/shaper-2/uid/500")), foreign(None));
    }

    #[test]
    fn kernel_threads_and_zombies_never_move() {
        let dead = Process { zombie: true, ..process(1000, "/") };
        let kernel = Process { kernel_thread: true, ..process(1000, "/shaper/user/bob") };
        assert_eq!(decide_for(dead), Decision::Leave(Reason::NotAlive));
        assert_eq!(decide_for(kernel), Decision::Leave(Reason::NotAlive));
    }

    #[test]
    fn without_a_hierarchy_everybody_is_at_the_root() {
        let process = Process { net_cls: None, ..process(1000, "/") };
        assert_eq!(decide_for(process), to("user/bob"));
    }
}

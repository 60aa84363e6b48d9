//! What is to be done with one process: who claims it (docs/policy.md, "Who claims a process"), and
//! whether it is left alone. Pure.

use crate::facts::Accounts;
use crate::model::Matcher;
use crate::tree::Claim;

use super::Process;
use super::view::{InstanceView, Reason, Seat, claim_of, seat};
use super::whose::{counts_as, whose};

/// What is to be done with a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The process is where it belongs.
    Stay,
    /// It belongs in this claim's directory.
    MoveTo(Claim),
    /// It is in our directories and nobody claims it: it is moved to the hierarchy's root.
    TakeOut,
    /// It is left where it is, for this reason.
    Leave(Reason),
}

impl Decision {
    /// Whether the process may belong to this instance, depending on its account.
    pub fn may_be_ours(&self) -> bool {
        match self {
            Decision::Stay | Decision::MoveTo(_) | Decision::TakeOut => true,
            Decision::Leave(reason) => *reason == Reason::Unclaimed,
        }
    }
}

/// Decides about one process as it was read, by its directory, by who claims it, and by the answers
/// of NSS.
pub fn decide(
    process: &Process,
    matcher: &Matcher,
    accounts: &Accounts,
    instance: &InstanceView,
) -> Decision {
    if !process.is_alive() {
        return Decision::Leave(Reason::NotAlive);
    }
    let seat = seat(process.net_cls.as_deref().unwrap_or("/"), instance);
    if let Seat::Ours(Some(Claim::Pinned(_))) = seat {
        return Decision::Stay;
    }
    let owner = whose(process, matcher, accounts, instance);
    match (instance.left_to(process), &seat) {
        (None, _) => {}
        (Some(Reason::UnknownNamespace), Seat::Free | Seat::Foreign) if owner.is_none() => {
            return Decision::Leave(Reason::Unclaimed);
        }
        (Some(reason @ Reason::UnknownNamespace), _) => return Decision::Leave(reason),
        // Such a process in one of our directories has it from its parent: an engine's shim, or
        // root's command before it entered the other namespace.
        (Some(_), Seat::Ours(_)) => return Decision::TakeOut,
        (Some(reason), _) => return Decision::Leave(reason),
    }
    // NSS has not answered yet about this uid, or could not: a process that has a class keeps it
    // until then. (A process that became another user, whom nobody claims so far, would be in
    // nobody's class meanwhile.) A uid of `everyone` is claimed without a name, unless it is a
    // subordinate uid or NSS is unavailable.
    let (uid, unit) = counts_as(process, matcher);
    let open = matcher.is_open(uid, unit, accounts);
    let certain = owner.is_some()
        && accounts.unavailable.is_none()
        && accounts.subuids.holding(uid).is_none();
    if open && !certain && matches!(seat, Seat::Ours(Some(Claim::Owner(_)))) {
        return Decision::Stay;
    }
    let here = process.netns == Some(instance.netns);
    match (seat, owner) {
        // A process in a namespace that no instance shapes stays with the instance that has it.
        (Seat::Sibling, owner) if !here => Decision::Leave(Reason::Foreign { owner }),
        (Seat::Foreign, owner) => Decision::Leave(Reason::Foreign { owner }),
        (Seat::Ours(Some(Claim::Owner(at))), Some(owner)) if at == owner => Decision::Stay,
        (_, Some(owner)) => Decision::MoveTo(Claim::Owner(owner)),
        (Seat::Ours(_), None) => Decision::TakeOut,
        (Seat::Sibling, None) => Decision::Leave(Reason::Foreign { owner: None }),
        (Seat::Free, None) => Decision::Leave(Reason::Unclaimed),
    }
}

/// The claim that a process was put into on purpose, where its uid alone would not have it there:
/// by `run` and `attach`, by a line's unit, or because it is the proxy of somebody's container.
pub fn given(
    process: &Process,
    matcher: &Matcher,
    accounts: &Accounts,
    instance: &InstanceView,
    decision: &Decision,
) -> Option<Claim> {
    let claim = match decision {
        Decision::Stay => claim_of(process, instance)?,
        Decision::MoveTo(claim) => claim.clone(),
        Decision::TakeOut | Decision::Leave(_) => return None,
    };
    let (uid, _) = counts_as(process, matcher);
    let by_uid = || matcher.claim(uid, None, accounts).map(|claimed| claimed.owner());
    match &claim {
        Claim::Pinned(_) => Some(claim),
        Claim::Owner(owner) => {
            let on_purpose = process.unit.is_some() || process.serves.is_some();
            (on_purpose && by_uid().as_ref() != Some(owner)).then_some(claim)
        }
        Claim::Retired(..) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Account, Subuids};
    use crate::model::{Pattern, Units};
    use crate::process::guest::guest_of;
    use crate::tree::{Key, Owner, UidRange};
    use std::collections::BTreeMap;
    use std::net::IpAddr;

    const OURS: u64 = 1;
    const UNSHARED: u64 = 2;
    const ANOTHERS: u64 = 3;
    const HOST: u64 = 4;

    fn host() -> InstanceView {
        let others = BTreeMap::from([(ANOTHERS, "blue".to_string())]);
        InstanceView { name: "shaper".into(), netns: OURS, host: Some(OURS), others, places: true }
    }

    fn key(name: &str) -> Key {
        Key::new(name).unwrap()
    }

    fn decide_for(process: Process) -> Decision {
        decide_as(&host(), process)
    }

    fn decide_as(instance: &InstanceView, process: Process) -> Decision {
        let matcher = Matcher {
            units: Units {
                named: BTreeMap::from([("borg.service".to_string(), key("backup"))]),
                patterns: vec![(Pattern::new("borg*.service").unwrap(), key("bob"))],
                ..Units::default()
            },
            uids: vec![(1000..=1000, key("bob"))],
            groups: vec![],
            everyone: Some((vec![2000..=2999], None)),
            proxied: BTreeMap::new(),
        };
        decide(&process, &matcher, &answered(), instance)
    }

    /// Accounts as after NSS was asked about every uid of these tests.
    fn answered() -> Accounts {
        Accounts { absent: [500, 1000, 2001].into(), ..Accounts::default() }
    }

    fn process(uid: u32, net_cls: &str) -> Process {
        Process {
            pid: 7,
            parent: 1,
            starttime: 1,
            comm: "x".into(),
            uid,
            acting_uid: uid,
            is_roots: uid == 0,
            kernel_thread: false,
            zombie: false,
            netns: Some(OURS),
            net_cls: Some(net_cls.into()),
            unit: None,
            guest: None,
            serves: None,
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
    fn a_proxy_is_its_containers_owners() {
        let address = IpAddr::from([172, 17, 0, 2]);
        let proxied = BTreeMap::from([(address, Owner::User(key("bob")))]);
        let matcher = Matcher { proxied, ..Matcher::default() };
        let proxy =
            |serves| Process { serves, unit: Some("docker.service".into()), ..process(0, "/") };
        let decided = |process: &Process| decide(process, &matcher, &answered(), &host());
        let bobs = proxy(Some(address));
        assert_eq!(decided(&bobs), to("user/bob"));
        // Root's sockets have their owner's class only where it is known to be on purpose.
        let given = given(&bobs, &matcher, &answered(), &host(), &decided(&bobs));
        assert_eq!(given, Some("user/bob".parse().unwrap()));
        let another = proxy(Some(IpAddr::from([172, 17, 0, 3])));
        assert_eq!(decided(&another), Decision::Leave(Reason::Unclaimed));
        let gone = Process { net_cls: Some("/shaper/user/bob".into()), ..another };
        assert_eq!(decided(&gone), Decision::TakeOut);
    }

    #[test]
    fn while_nss_is_silent_everybody_stays_where_they_are() {
        let matcher = Matcher { everyone: Some((vec![1000..=2999], None)), ..Matcher::default() };
        let instance = host();
        let silent = Accounts { unavailable: Some("sssd is down".into()), ..Accounts::default() };
        let at = |path: &str, accounts: &Accounts| {
            decide(&process(1000, path), &matcher, accounts, &instance)
        };
        assert_eq!(at("/shaper/user/bob", &silent), Decision::Stay);
        assert_eq!(at("/shaper/user/bob", &Accounts::default()), to("uid/1000"));
        assert_eq!(at("/", &silent), to("uid/1000"), "who is new is under everyone by the uid");
    }

    #[test]
    fn nobody_is_taken_out_before_nss_has_said_who_he_is() {
        let range = UidRange { first: 100_000, last: 165_535 };
        let line = Subuids { range, written: "ann".to_string(), owner: None };
        let unasked = Accounts { subuids: vec![line].into(), ..Accounts::default() };
        let instance = host();
        let groups = vec![(7, key("physics"))];
        let matcher =
            Matcher { groups, uids: vec![(1001..=1001, key("ann"))], ..Matcher::default() };
        let at = |uid: u32, accounts: &Accounts| {
            decide(&process(uid, "/shaper/user/ann"), &matcher, accounts, &instance)
        };
        assert_eq!(at(1234, &unasked), Decision::Stay, "may be of the group");
        assert_eq!(at(100_000, &unasked), Decision::Stay, "the owner was not asked for");
        assert_eq!(at(0, &unasked), Decision::TakeOut, "root is known");
        let mut asked = unasked.clone();
        asked.absent.extend([1234, 100_000]);
        assert_eq!(at(1234, &asked), Decision::TakeOut);
        asked.subuids.learn(vec![Subuids { range, written: "ann".to_string(), owner: Some(1001) }]);
        assert_eq!(at(100_000, &asked), Decision::Stay, "ann's, and where she is");
        let account = Account { name: "adam".to_string(), gids: [7].into() };
        asked.by_uid.insert(100_000, account);
        assert_eq!(at(100_000, &asked), to("uid/100000"), "an account in her range");
    }

    #[test]
    fn the_unit_goes_before_the_account() {
        let unit = |name: &str| Some(name.to_string());
        let of = |name| decide_for(Process { unit: unit(name), ..process(1001, "/") });
        assert_eq!(of("borg.service"), to("user/backup"), "the name before the pattern");
        assert_eq!(of("borg@daily.service"), to("user/bob"));
        assert_eq!(of("cron.service"), Decision::Leave(Reason::Unclaimed));
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

    fn elsewhere(netns: u64, path: &str) -> Process {
        Process { netns: Some(netns), ..process(1000, path) }
    }

    #[test]
    fn whose_a_process_is_does_not_depend_on_its_network_namespace() {
        assert_eq!(decide_for(elsewhere(UNSHARED, "/")), to("user/bob"));
        assert_eq!(decide_for(elsewhere(UNSHARED, "/shaper/user/bob")), Decision::Stay);
        assert_eq!(decide_for(elsewhere(UNSHARED, "/shaper/user/bob/pinned")), Decision::Stay);
        assert_eq!(decide_for(elsewhere(UNSHARED, "/docker/1")), foreign(Some("bob")));
        let backup = Process { unit: Some("borg.service".into()), ..elsewhere(UNSHARED, "/") };
        assert_eq!(decide_for(backup), to("user/backup"));
        let unclaimed = Process { uid: 500, ..elsewhere(UNSHARED, "/shaper/user/bob") };
        assert_eq!(decide_for(unclaimed), Decision::TakeOut);
    }

    #[test]
    fn a_namespace_that_cannot_be_read_is_as_good_as_an_unshared_one_on_the_host() {
        let unknown = |path| Process { netns: None, ..process(1000, path) };
        assert_eq!(decide_for(unknown("/")), to("user/bob"));
        assert_eq!(decide_for(unknown("/shaper/user/bob")), Decision::Stay);
        let beside = InstanceView { netns: OURS, host: Some(HOST), ..host() };
        let left = Decision::Leave(Reason::UnknownNamespace);
        assert_eq!(decide_as(&beside, unknown("/")), left);
        assert_eq!(decide_as(&beside, unknown("/shaper/user/bob")), left);
        let nobodys = Process { uid: 500, ..unknown("/") };
        assert_eq!(decide_as(&beside, nobodys), Decision::Leave(Reason::Unclaimed));
    }

    #[test]
    fn a_guest_is_left_alone_in_a_namespace_of_its_own() {
        let guest = |netns, path| Process { guest: guest_of("/lxc/web"), ..elsewhere(netns, path) };
        assert_eq!(decide_for(guest(UNSHARED, "/")), Decision::Leave(Reason::Guest));
        assert_eq!(decide_for(guest(UNSHARED, "/shaper/user/bob")), Decision::TakeOut);
        assert_eq!(decide_for(guest(UNSHARED, "/shaper/user/bob/pinned")), Decision::Stay);
        assert_eq!(decide_for(guest(OURS, "/")), to("user/bob"), "`docker run --network host`");
    }

    #[test]
    fn another_instances_namespace_is_its_own() {
        let theirs = Decision::Leave(Reason::OtherInstance { netns: ANOTHERS });
        assert_eq!(decide_for(elsewhere(ANOTHERS, "/")), theirs);
        assert_eq!(decide_for(elsewhere(ANOTHERS, "/blue/uid/1000")), theirs);
        assert_eq!(decide_for(elsewhere(ANOTHERS, "/shaper/user/bob")), Decision::TakeOut);
        // A process of another instance that unshared its namespace is still that instance's; one
        // that entered our namespace is ours.
        assert_eq!(decide_for(elsewhere(UNSHARED, "/blue/uid/1000")), foreign(Some("bob")));
        assert_eq!(decide_for(elsewhere(OURS, "/blue/uid/1000")), to("user/bob"));
    }

    #[test]
    fn only_the_hosts_instance_takes_who_is_in_the_hosts_namespace() {
        let beside = InstanceView { netns: OURS, host: Some(HOST), ..host() };
        let left = Decision::Leave(Reason::OtherInstance { netns: HOST });
        assert_eq!(decide_as(&beside, elsewhere(HOST, "/")), left);
        assert_eq!(decide_as(&beside, elsewhere(UNSHARED, "/")), to("user/bob"));
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

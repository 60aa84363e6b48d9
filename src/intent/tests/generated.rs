//! What holds of every decision, on hundreds of random hosts: one policy is in force there, and
//! another one, or the same, is decided about after random events.

use proptest::collection::btree_set;
use proptest::prelude::*;

use super::*;

/// A policy as text: which links at which rate, who has a line, which groups and who else.
#[derive(Clone, Debug)]
struct Written {
    /// Mbit/s of eth0 and of eth1; `None`: the link has no line.
    links: [Option<u64>; 2],
    users: BTreeSet<usize>,
    students: bool,
    everyone: bool,
}

impl Written {
    fn text(&self) -> String {
        let links = ["eth0", "eth1"].into_iter().zip(self.links);
        let links = links.filter_map(|(link, rate)| Some(format!("{link}: {}mbit", rate?)));
        let mut text = format!("links: {{{}}}\n", links.collect::<Vec<_>>().join(", "));
        let users = self.users.iter().map(|at| format!("{}: 3mbit", PEOPLE[*at].0));
        text += &format!("users: {{{}}}\n", users.collect::<Vec<_>>().join(", "));
        if self.students {
            text += "groups: {students: {gid: students, ceil: 20mbit}}\n";
        }
        if self.everyone {
            text += "everyone: 5mbit\n";
        }
        text
    }
}

fn written() -> impl Strategy<Value = Written> {
    let links = prop_oneof![
        4 => Just([Some(100), Some(100)]),
        1 => Just([Some(100), None]),
        1 => Just([Some(50), Some(100)]),
    ];
    let users = btree_set(0..2_usize, 0..3);
    (links, users, any::<bool>(), prop_oneof![3 => Just(true), 1 => Just(false)])
        .prop_map(|(links, users, students, everyone)| Written { links, users, students, everyone })
}

/// What happened since the first policy came into force. Each event is a bit, so that each also
/// comes alone.
#[derive(Clone, Debug)]
struct Since {
    run: BTreeSet<usize>,
    came: Option<usize>,
    /// The accounts whose grace time is over; `None`: there is no grace time.
    leaving: Option<BTreeSet<usize>>,
    /// Whose classes are quiet, and in whose directories somebody sits.
    quiet: BTreeSet<usize>,
    occupied: BTreeSet<usize>,
    nss_is_silent: bool,
    held: bool,
    /// eth1 has another root now.
    foreign: bool,
    reclaimed: bool,
    takeover: bool,
    lenient: bool,
    lacks: bool,
    unread: bool,
    /// Somebody deleted all filters of eth0.
    drifted: bool,
}

impl Since {
    /// The accounts whose grace time is over; that of an account that has come back begins anew.
    fn over(&self) -> Option<BTreeSet<usize>> {
        self.leaving.as_ref().map(|leaving| leaving - &self.run)
    }
}

fn since() -> impl Strategy<Value = Since> {
    let people = || btree_set(0..PEOPLE.len(), 0..PEOPLE.len());
    let who = (
        people(),
        proptest::option::weighted(0.2, 0..PEOPLE.len()),
        proptest::option::of(people()),
        people(),
        people(),
    );
    let often = prop_oneof![3 => Just(false), 1 => Just(true)];
    (who, proptest::collection::vec(often, 9)).prop_map(
        |((run, came, leaving, quiet, occupied), bits)| Since {
            run,
            came,
            leaving,
            quiet,
            occupied,
            nss_is_silent: bits[0],
            held: bits[1],
            foreign: bits[2],
            reclaimed: bits[3],
            takeover: bits[4],
            lenient: bits[5],
            lacks: bits[6],
            unread: bits[7],
            drifted: bits[8],
        },
    )
}

fn uid(at: usize) -> u32 {
    PEOPLE[at].1
}

fn owners(of: &BTreeSet<usize>) -> BTreeSet<Owner> {
    of.iter().map(|at| Owner::Uid(uid(*at))).collect()
}

/// The host after the first policy and all that happened, and what is asked then.
fn later(first: &Written, second: &Written, since: &Since) -> (Intent, Observation) {
    let mut seen = shaped(&intent(&first.text()), &[2001, 2002, 2003, 2004]);
    let mut wanted = intent(&second.text());
    wanted.options.takeover = since.takeover;
    wanted.options.absent_links = since.lenient;
    // As cron and the daemon run it; in a run by hand a name that cannot be looked up is an error.
    wanted.options.skip_unknown = since.nss_is_silent;
    wanted.came = since.came.map(|at| Owner::Uid(uid(at))).into_iter().collect();
    wanted.held = since.held.then(|| name("eth0")).into_iter().collect();
    wanted.reclaimed = since.reclaimed.then_some(3).into_iter().collect();
    if let Some(leaving) = since.over() {
        wanted.leaving = Leaving::These(owners(&leaving));
    }
    seen.facts.accounts.running = since.run.iter().map(|at| uid(*at)).collect();
    let class = |at: &usize| seen.state.claims.get(&Claim::Owner(Owner::Uid(uid(*at)))).copied();
    seen.facts.quiet = since.quiet.iter().filter_map(class).collect();
    seen.occupied = owners(&since.occupied);
    if since.nss_is_silent {
        seen.facts.accounts.by_uid.clear();
        seen.facts.accounts.groups = [("students".to_string(), None)].into();
        seen.facts.accounts.unavailable = Some("silent".to_string());
    }
    if since.foreign {
        seen.state.trees.remove(&name("eth1").egress());
        let (kind, handle) = ("fq".to_string(), ClassId(0x8001_0000));
        let root = RootQdisc::Foreign { kind, handle, r2q: None, options: Vec::new() };
        seen.facts.links.get_mut(&name("eth1")).unwrap().root = root;
    }
    if since.lacks {
        seen.facts.lacks = Some(crate::facts::Lack::NetAdmin);
    }
    if since.unread {
        seen.state.owners = None;
        seen.unread.owners = Some("Operation not permitted".to_string());
    }
    if since.drifted {
        let tree = seen.state.trees.get_mut(&name("eth0").egress()).unwrap();
        tree.filters.clear();
    }
    (wanted, seen)
}

/// Whether the second policy is about eth1, somebody else's root stands there, and nobody allowed
/// to take it.
fn in_the_way(second: &Written, since: &Since) -> bool {
    let allowed = since.takeover || since.reclaimed;
    since.foreign && second.links[1].is_some() && !allowed
}

/// The steps that touch a link.
fn touches(plan: &Plan, link: &str) -> bool {
    plan.steps.iter().any(|planned| planned.step.link() == Some(&name(link)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_decision_holds_what_is_promised(
        first in written(),
        second in prop_oneof![Just(None), written().prop_map(Some)],
        since in since(),
    ) {
        let second = second.unwrap_or_else(|| first.clone());
        let (wanted, seen) = later(&first, &second, &since);
        let outcome = resolve(&wanted, seen.clone());

        // A foreign root is a refusal for a run by hand; the daemon passes the link over.
        if in_the_way(&second, &since) && !since.lenient {
            prop_assert!(matches!(outcome, Err(Refusal::InTheWay(_))));
            return Ok(());
        }
        let resolved = outcome.unwrap_or_else(|refusal| panic!("{refusal}"));
        let Resolved { meaning, desired, plan, .. } = &resolved;
        let passed = if in_the_way(&second, &since) { [3].into() } else { BTreeSet::new() };
        prop_assert_eq!(&passed_over(meaning), &passed);
        if !passed.is_empty() {
            prop_assert!(!touches(plan, "eth1"), "{}", plan);
        }

        // Held links stay.
        let held = name("eth0").egress();
        if since.held {
            prop_assert!(!touches(plan, "eth0"), "{}", plan);
            prop_assert_eq!(desired.trees.get(&held), seen.state.trees.get(&held));
        }

        // An account has a class if it runs, came, or does not leave; the class of one that leaves
        // goes only once it is quiet.
        let accounts = &meaning.facts().accounts;
        for at in 0..PEOPLE.len() {
            let owner = Owner::Uid(uid(at));
            let Some(class) = seen.state.claims.get(&Claim::Owner(owner.clone())) else {
                let runs = since.run.contains(&at) || since.came == Some(at);
                prop_assert_eq!(accounts.running.contains(&uid(at)), runs, "{}", uid(at));
                continue;
            };
            let may_leave = match since.over() {
                Some(leaving) => leaving.contains(&at),
                None => !since.run.contains(&at),
            };
            let leaves = may_leave && since.came != Some(at) && !since.occupied.contains(&at);
            let stands = seen.state.trees.values().any(|tree| tree.classes.contains_key(class));
            let drains = leaves && stands && !since.quiet.contains(&at);
            prop_assert_eq!(meaning.draining.contains(class), drains, "{}", uid(at));
            prop_assert_eq!(accounts.running.contains(&uid(at)), !leaves || drains);
        }

        // While NSS does not answer, nobody whose line is unchanged gets another class.
        if since.nss_is_silent && first.text() == second.text() {
            for (claim, classid) in &seen.state.claims {
                let now = desired.claims.get(claim);
                prop_assert!(now.is_none_or(|now| now == classid), "{} has {:?}", claim, now);
            }
        }

        // A process that may not read an object that stands says so, and plans no change of it.
        let said = meaning.warnings.iter().any(|it| it.message.contains("cannot be read"));
        prop_assert_eq!(said, since.unread && since.lacks);
        if said {
            let owners = plan.steps.iter().filter(|it| it.step.to_string().contains("owners"));
            prop_assert_eq!(owners.count(), 0, "{}", plan);
        }

        // After the plan was performed, the same question has no steps and the same warnings.
        // Beside a held link that may take a second plan: an account that leaves and gets another
        // number has no class with that number, so nothing of its drains.
        let mut last = after(&resolved, seen);
        let mut said = desired.clone();
        if since.held {
            let second = resolve(&wanted, last.clone()).unwrap_or_else(|refusal| panic!("{refusal}"));
            last = after(&second, last);
            said = second.desired;
        }
        let again = resolve(&wanted, last).unwrap_or_else(|refusal| panic!("{refusal}"));
        prop_assert!(again.plan.is_empty(), "{}", again.plan);
        prop_assert_eq!(again.desired, said);
    }
}

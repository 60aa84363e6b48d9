//! Golden plans: the whole pure pipeline, policy text to steps, on stated facts. A case is a folder
//! in `tests/golden/`: `policies.yaml`; `observed`, what stands before; `plan`, what is warned of,
//! what it means for people, the steps as `shaper plan -v` prints them, and the commands that they
//! equal. `make bless` writes the plans anew; review them as text.
//!
//! `observed` begins with `nothing` (no link has a tree) or `after CASE` (what that case's plan
//! leaves), and goes on with one line for each thing that happened since:
//!
//! ```text
//! runs carol dave                      these accounts have a process
//! unasked carol                        NSS was not asked who that is
//! drained 1:11                         a class that is to go has sent all that it held
//! class eth0 1:10 rate 1mbit           somebody changed a class by hand
//! root eth0 1:10                       … or made it again, directly below the qdisc
//! gone eth0 class 1:11                 … or deleted something: class, leaf or filter
//! gone cgroup user/b                   … or a directory
//! classid user/a 1:99                  … or wrote another number into one
//! foreign eth0 1:77                    … or added a class of their own
//! macvlan                              the driver is loaded
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use shaper::facts::{
    Account, Accounts, Facts, Features, Helpers, LinkFacts, Observation, RootQdisc,
};
use shaper::intent::{Intent, Options, Resolved, resolve};
use shaper::plan::{Paths, Place, Plan, Tc, diff, people, perform};
use shaper::policy::{self, Diagnostic};
use shaper::tree::{Classifier, Foreign, KernelState, LinkName, Mark, NetCls, Pref};
use shaper::units::{ClassId, Psched, Rate};

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");

const ACCOUNTS: [(&str, u32); 7] = [
    ("a", 1001),
    ("b", 1002),
    ("c", 1003),
    ("ann", 2001),
    ("bob", 2002),
    ("carol", 2003),
    ("dave", 2004),
];

/// The Unix group `students`, and who is in it.
const STUDENTS: (u32, [&str; 2]) = (3000, ["carol", "dave"]);

/// A case, worked out.
struct Outcome {
    before: KernelState,
    desired: KernelState,
    plan: Plan,
    warnings: Vec<Diagnostic>,
    people: Vec<people::Change>,
    left: KernelState,
}

#[test]
fn plans_are_as_they_were_reviewed() {
    let bless = std::env::var_os("SHAPER_BLESS").is_some();
    let mut names: Vec<String> = fs::read_dir(CASES)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(names.len() >= 10, "{CASES} was not read");
    let mut different = Vec::new();
    for name in names {
        let Outcome { before, desired, plan, warnings, people, left } = outcome(&name);
        assert!(left == desired, "{name}: performing the plan does not lead to what is desired");
        let seen = Observation { state: left.clone(), ..Observation::default() };
        assert!(diff(&seen, &desired).is_empty(), "{name}: the second plan is not empty");
        assert_eq!(plan.is_empty(), before == desired, "{name}");
        let printed = print(&plan, &warnings, &people);
        let path = Path::new(CASES).join(&name).join("plan");
        if bless {
            fs::write(&path, printed).unwrap();
        } else if fs::read_to_string(&path).unwrap_or_default() != printed {
            different.push(format!("--- {name}\n{printed}"));
        }
    }
    let cure = "if this is meant, `make bless` and review the difference";
    assert!(different.is_empty(), "{}\n{cure}", different.join("\n"));
}

fn outcome(name: &str) -> Outcome {
    let folder = Path::new(CASES).join(name);
    let file = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let observation = observe(&file("observed"));
    let policy = policy::parse(&file("policies.yaml"), "policies.yaml")
        .unwrap_or_else(|report| panic!("{name}: {}", report.render(false)));
    let before = observation.state.clone();
    let mut left = observation.clone();
    let found = observation.clone();
    let intent = Intent::new(policy, Options::default());
    let Resolved { meaning, desired, plan, .. } =
        resolve(&intent, observation).unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
    plan.steps.iter().for_each(|planned| perform(&planned.step, &mut left));
    assert!(left.is_plain(), "{name}: {:?} is left", left.strange);
    let (matcher, accounts) = (&meaning.model.matcher, &meaning.facts().accounts);
    let people = people::changes(&found, &desired, Some(matcher), accounts);
    Outcome { before, desired, plan, warnings: meaning.warnings, people, left: left.state }
}

fn print(plan: &Plan, warnings: &[Diagnostic], people: &[people::Change]) -> String {
    let paths = Paths {
        mount: PathBuf::from("/run/shaper/net_cls"),
        instance: PathBuf::from("/run/shaper/net_cls/shaper"),
        mark: Mark::for_instance("shaper"),
        psched: Psched::default(),
        place: Place::Here,
    };
    let warnings = warnings.iter().map(|warning| format!("warning: {}\n", warning.message));
    let mut text: String = warnings.collect();
    if plan.is_empty() {
        return text + "in sync\n";
    }
    text.extend(people.iter().map(|change| format!("{change}\n")));
    text.push('\n');
    writeln!(text, "{plan}").unwrap();
    for planned in &plan.steps {
        writeln!(text, "{}", Tc(&planned.step, &paths)).unwrap();
    }
    text
}

fn observe(text: &str) -> Observation {
    let mut lines = text.lines();
    let state = match lines.next().unwrap().split_once(' ') {
        None => KernelState { net_cls: NetCls::Unmounted, ..KernelState::default() },
        Some((_, case)) => outcome(case).left,
    };
    let mut observation = Observation { state, facts: facts(), ..Observation::default() };
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        edit(&mut observation, &words);
    }
    unclaimed_is_foreign(&mut observation);
    for (link, facts) in &mut observation.facts.links {
        if observation.state.trees.contains_key(&link.egress()) {
            facts.root = RootQdisc::Ours;
        }
    }
    observation
}

/// What `observe` makes of a class that no directory claims.
fn unclaimed_is_foreign(observation: &mut Observation) {
    let state = &mut observation.state;
    let claimed: BTreeSet<ClassId> =
        state.claims.values().filter_map(|id| id.our_class()).collect();
    for (port, tree) in &mut state.trees {
        let fixed = [ClassId::LINK, ClassId::DEFAULT, ClassId::UNSHAPED];
        let ours = |id: &ClassId| fixed.contains(id) || claimed.contains(id);
        let foreign = tree.classes.keys().filter(|id| !ours(id));
        observation
            .foreign
            .extend(foreign.map(|id| Foreign::Class { port: port.clone(), classid: *id }));
        tree.classes.retain(|id, _| ours(id));
        tree.leaves.retain(|id, _| ours(id));
    }
}

/// One thing that happened since, as the head of this file lists them.
fn edit(observation: &mut Observation, words: &[&str]) {
    let class = |text: &str| text.parse::<ClassId>().unwrap();
    let port = |name: &str| LinkName::new(name).unwrap().egress();
    let state = &mut observation.state;
    match words {
        ["runs", names @ ..] => {
            let uids = names.iter().map(|name| ACCOUNTS.iter().find(|(n, _)| n == name).unwrap().1);
            observation.facts.accounts.running.extend(uids);
        }
        ["unasked", name] => {
            let accounts = &mut observation.facts.accounts;
            accounts.by_name.remove(*name).unwrap();
            accounts.by_uid.retain(|_, account| account.name != *name);
        }
        ["drained", classid] => {
            observation.facts.quiet.insert(class(classid));
        }
        ["class", dev, classid, numbers @ ..] => {
            let tree = state.trees.get_mut(&port(dev)).unwrap();
            let class = tree.classes.get_mut(&class(classid)).unwrap();
            for number in numbers.chunks(2) {
                let rate: Rate = number[1].parse().unwrap();
                match number[0] {
                    "rate" => class.rate = rate,
                    "ceil" => class.ceil = rate,
                    other => panic!("`{other}` is no number of a class"),
                }
            }
        }
        ["root", dev, classid] => {
            let tree = state.trees.get_mut(&port(dev)).unwrap();
            tree.classes.get_mut(&class(classid)).unwrap().parent = None;
        }
        ["gone", "cgroup", claim] => {
            state.claims.remove(&claim.parse().unwrap()).unwrap();
        }
        ["gone", dev, what, which] => {
            let tree = state.trees.get_mut(&port(dev)).unwrap();
            let gone = match *what {
                "class" => {
                    tree.leaves.remove(&class(which));
                    tree.classes.remove(&class(which)).is_some()
                }
                "leaf" => tree.leaves.remove(&class(which)).is_some(),
                "filter" => tree.filters.remove(&Pref(which.parse().unwrap())).is_some(),
                other => panic!("`{other}` is nothing that can go"),
            };
            assert!(gone, "{words:?}: there was none");
        }
        ["classid", claim, classid] => {
            state.claims.insert(claim.parse().unwrap(), classid.parse().unwrap());
        }
        ["foreign", dev, classid] => {
            let classid = classid.parse().unwrap();
            observation.foreign.push(Foreign::Class { port: port(dev), classid });
        }
        ["macvlan"] => observation.facts.own_sockets_only = false,
        other => panic!("{other:?} is nothing that can happen"),
    }
}

/// A host with two links of 1 Gbit/s and a kernel that has everything.
fn facts() -> Facts {
    let links = ["eth0", "eth1"].into_iter().zip(2..);
    let account = |(name, uid): (&str, u32)| {
        let also = STUDENTS.1.contains(&name).then_some(STUDENTS.0);
        let gids = BTreeSet::from_iter([uid].into_iter().chain(also));
        (uid, Account { name: name.to_string(), gids })
    };
    Facts {
        links: links.map(|(name, index)| (LinkName::new(name).unwrap(), link(index))).collect(),
        features: Features {
            tried: true,
            htb: true,
            classifiers: BTreeSet::from([Classifier::Cgroup, Classifier::Bpf]),
            helpers: Helpers { socket_tag: true, netns_cookie: true, ..Helpers::default() },
            clsact: true,
            no_net_cls: None,
            spared: None,
            leaves: BTreeSet::from(["fq_codel", "sfq", "bfifo", "pfifo", "cake"]),
        },
        down: Some(true),
        own_sockets_only: true,
        accounts: Accounts {
            by_uid: ACCOUNTS.into_iter().map(account).collect(),
            by_name: ACCOUNTS.map(|(name, uid)| (name.to_string(), Some(uid))).into(),
            groups: BTreeMap::from([("students".to_string(), Some(STUDENTS.0))]),
            ..Accounts::default()
        },
        ..Facts::default()
    }
}

fn link(ifindex: u32) -> LinkFacts {
    LinkFacts {
        speed: Rate::from_bits_per_second(1_000_000_000),
        default_route_v4: (ifindex == 2).then_some(100),
        root: RootQdisc::Kernel { kind: "mq".to_string() },
        ..LinkFacts::ethernet(ifindex)
    }
}

//! A host under test, driven through the program's library: policies applied in this process, the
//! state observed before and after, and objects of somebody else's that must stay as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::Duration;

use shaper::apply::{self, Applied, ApplyOptions, Options, Request, Session};
use shaper::desired::{self, Sharding};
use shaper::facts::Observation;
use shaper::failure::Failure;
use shaper::host::Kernel;
use shaper::host::execute::{self, Cause, Gate};
use shaper::host::observe::{self, Wanted};
use shaper::intent::Meaning;
use shaper::plan::{Plan, Step, diff};
use shaper::policy;
use shaper::tree::{Claim, Filter, KernelState, Owner, Tree};
use shaper::units::{ClassId, Shard};

use crate::support::accounts::{self, Account};
use crate::support::actor::Actor;
use crate::support::command::run;
use crate::support::program::NET_CLS;
use crate::support::world::World;

/// The instance's directory.
pub const INSTANCE: &str = "/run/shaper/net_cls/shaper";

/// A handful of users is a crowd.
pub const CROWD: Sharding = Sharding { flat: 1, full: 2, few: 1 };

/// Anything goes, and a retired class that nobody uses is collected at once.
pub const MAY: ApplyOptions = ApplyOptions {
    disrupt: true,
    wait: Duration::from_secs(5),
    quiet: Some(Duration::from_millis(2)),
    learns: true,
    confirm: None,
    force: false,
    repair: false,
};

pub struct Host {
    pub world: World,
    pub session: Session,
    pub request: Request,
    pub actors: BTreeMap<&'static str, Actor>,
}

/// Who may have a process, by the names of `draft::USERS` and beyond.
const PEOPLE: [(&str, Account); 7] = [
    ("ann", accounts::ANN),
    ("bob", accounts::BOB),
    ("carol", accounts::CAROL),
    ("dave", accounts::DAVE),
    ("erin", accounts::ERIN),
    ("4001", Account { uid: 4001, gid: 4001, also: None }),
    ("4105", Account { uid: 4105, gid: 4105, also: None }),
];

impl Host {
    /// `up0`, and two more links beside it.
    pub fn new() -> Host {
        let world = World::new();
        for link in ["up1", "up2"] {
            run(&format!("ip link add {link} type veth peer name {link}-far"));
            run(&format!("ip link set {link} up"));
            run(&format!("ip link set {link}-far up"));
        }
        let session = Session::new(Kernel::open(None).expect("open the kernel"));
        let policy = policy::parse("version: 1\nlinks: {up0: }\n", "-").expect("a policy");
        let request = Request::new(policy, Options::default());
        Host { world, session, request, actors: BTreeMap::new() }
    }

    /// Starts or ends the process of one of the people.
    pub fn come_or_go(&mut self, at: usize) {
        let (name, account) = PEOPLE[at % PEOPLE.len()];
        if self.actors.remove(name).is_none() {
            self.actors.insert(name, self.world.actor(account));
        }
    }

    /// Puts a process into somebody's class for good, as `shaper attach` does.
    pub fn attach(&mut self, at: usize) {
        let state = self.state();
        let users = state.claims.iter().filter_map(|(claim, classid)| match claim {
            Claim::Owner(owner @ (Owner::User(_) | Owner::Uid(_))) => Some((owner, *classid)),
            _ => None,
        });
        let users: Vec<_> = users.collect();
        let (Some(instance), Some((_, actor))) =
            (self.session.kernel.instance(), self.actors.iter().nth(at % PEOPLE.len()))
        else {
            return;
        };
        if let Some((owner, classid)) = users.get(at % users.len().max(1)) {
            let claim = Claim::Pinned((*owner).clone());
            let locked = instance.lock(Duration::from_secs(10)).expect("the lock");
            locked.make(&claim, *classid).expect("make a directory");
            instance.attach(actor.pid(), &claim).expect("move a process");
        }
    }

    pub fn observe(&mut self) -> Observation {
        observe::observe(&mut self.session.kernel, Wanted::default()).expect("observe").observation
    }

    pub fn state(&mut self) -> KernelState {
        self.observe().state
    }

    /// Whose directory each process sits in.
    pub fn seats(&self) -> BTreeMap<&'static str, String> {
        let seat = |actor: &Actor| {
            let cgroups = fs::read_to_string(format!("/proc/{}/cgroup", actor.pid()));
            let cgroups = cgroups.expect("an actor lives");
            let line = cgroups.lines().find(|line| line.contains("net_cls:"));
            line.and_then(|line| line.rsplit(':').next()).unwrap_or("/").to_string()
        };
        self.actors.iter().map(|(name, actor)| (*name, seat(actor))).collect()
    }

    /// Takes up another policy; false if it cannot hold here.
    pub fn take_up(&mut self, text: &str) -> Result<(), Failure> {
        self.request.intent.policy = policy::parse(text, "policies.yaml")?.into();
        self.session.look(&self.request).map(|_| ())
    }

    pub fn try_apply(&mut self, gate: Gate<'_>) -> Result<Applied, Failure> {
        apply::apply(&mut self.session, self.request.clone(), MAY, gate)
    }

    #[track_caller]
    pub fn apply(&mut self) -> Applied {
        match self.try_apply(&mut |_, _| Ok(())) {
            Ok(applied) => applied,
            Err(failure) => panic!("{}", failure.text(false)),
        }
    }

    /// What the policy means here now, and the steps to it.
    #[track_caller]
    pub fn plan(&mut self) -> (Meaning, Plan) {
        let look = self.session.look(&self.request).unwrap_or_else(|e| panic!("{}", e.text(false)));
        let mut meaning = look.meaning;
        match self.session.plan(&self.request.intent, &mut meaning) {
            Ok((plan, _)) => (meaning, plan),
            Err(failure) => panic!("{}", failure.text(false)),
        }
    }

    /// Applies another policy.
    #[track_caller]
    pub fn go_to_text(&mut self, text: &str) {
        self.take_up(text).unwrap_or_else(|e| panic!("{}", e.text(false)));
        self.apply();
    }

    /// The policy is in force: nothing is left to do, a second apply sends nothing, nobody moves,
    /// and what stands is what a first apply on an empty kernel would have built, but for minors,
    /// prefs and shards.
    #[track_caller]
    pub fn is_in_sync(&mut self) {
        let (meaning, plan) = self.plan();
        assert!(plan.is_empty(), "a second plan is not empty:\n{plan}");
        let sent = self.session.kernel.netlink.changes_sent();
        let again = self.apply();
        let steps: Vec<String> = again.steps.iter().map(|it| it.step.to_string()).collect();
        assert!(steps.is_empty() && !again.mounted(), "a second apply does {steps:#?}");
        assert_eq!(self.session.kernel.netlink.changes_sent(), sent, "a second apply sends");
        let moves = (again.placement.added, again.placement.moved, again.placement.gone);
        assert_eq!(moves, (0, 0, 0), "a second apply moves processes");
        let standing = &meaning.observation;
        let retired =
            standing.state.claims.keys().find(|claim| matches!(claim, Claim::Retired(..)));
        assert_eq!(retired, None, "nobody sends, so nothing stays retired");
        let empty = KernelState { net_cls: standing.state.net_cls, ..KernelState::default() };
        let fresh =
            Observation { state: empty, facts: standing.facts.clone(), ..Default::default() };
        let sharding = self.request.intent.options.sharding;
        let fresh = desired::desired_with(&meaning.model, &fresh, sharding).expect("a state");
        // Whoever was there before stays in the root qdisc, and in a shard the bursts are larger.
        let bursts = sharding != CROWD;
        let [found, wanted] = [&standing.state, &fresh].map(|state| without_numbers(state, bursts));
        assert_same(&found, &wanted, "what was built");
    }

    /// Goes to a state that stood before, as undo does.
    #[track_caller]
    pub fn go_to(&mut self, state: &KernelState) {
        let now = self.observe();
        let plan = diff(&now, state);
        let steps = plan.steps.iter().map(|planned| &planned.step);
        let kernel = &mut self.session.kernel;
        let locked = kernel.lock(Duration::from_secs(10)).expect("the lock");
        let (_, done) = execute::perform(kernel, &locked, &now.facts, steps, &mut |_, _| Ok(()));
        drop(locked);
        if let Err(failed) = done {
            panic!("`{}`: {failed}\nin the plan back\n{plan}", failed.step);
        }
        let what = format!("after the plan back\n{plan}");
        assert_same(&lines(&self.state()), &lines(state), &what);
    }
}

/// Compares texts line by line, and shows only the lines that differ.
#[track_caller]
pub fn assert_same(found: &str, wanted: &str, what: &str) {
    let without = |text: &str, other: &str| -> Vec<String> {
        let other: BTreeSet<&str> = other.lines().collect();
        text.lines().filter(|line| !other.contains(line)).map(str::to_string).collect()
    };
    let (more, less) = (without(found, wanted), without(wanted, found));
    assert!(found == wanted, "{what}: found {more:#?} but wanted {less:#?}");
}

/// A state with a line for each object.
pub fn lines(state: &KernelState) -> String {
    let mut text = format!("{:?}\n{:?}\n{:#?}\n", state.net_cls, state.ifbs, state.clsact);
    for (claim, classid) in &state.claims {
        let _ = writeln!(text, "{claim} {classid}");
    }
    for (link, tree) in &state.trees {
        for (minor, class) in &tree.classes {
            let _ = writeln!(text, "{link} {minor} {class:?} {:?}", tree.leaves.get(minor));
        }
        for (pref, filter) in &tree.filters {
            let _ = writeln!(text, "{link} {pref} {filter:?}");
        }
        for (shard, filters) in &tree.shards {
            let _ = writeln!(text, "{link} {shard} {filters:?}");
        }
    }
    text
}

/// A gate that stops before the step with this number, counted over the whole run; what that step
/// was is left in `stopped`.
pub fn stop_before<'a>(
    k: usize,
    stopped: &'a mut Option<Step>,
) -> impl FnMut(usize, &Step) -> Result<(), Cause> + 'a {
    let mut count = 0;
    move |_, step| {
        count += 1;
        if count <= k {
            return Ok(());
        }
        *stopped = Some(step.clone());
        Err(Cause::Stopped("stopped by the test".to_string()))
    }
}

/// A state as text, with owners in place of minors and without the place of a filter, and as if
/// everybody were in the root qdisc: what does not depend on how it came about.
fn without_numbers(state: &KernelState, bursts: bool) -> String {
    let mut names: BTreeMap<ClassId, String> = BTreeMap::from([
        (ClassId::LINK, "link".to_string()),
        (ClassId::DEFAULT, "default".to_string()),
        (ClassId::UNSHAPED, "unshaped".to_string()),
    ]);
    for (claim, classid) in &state.claims {
        if let (Claim::Owner(_), Some(minor)) = (claim, classid.our_class()) {
            names.insert(minor, claim.to_string());
        }
    }
    let name = |minor: ClassId| names.get(&minor).cloned().unwrap_or_else(|| format!("?{minor}"));
    // What `attach` and `run` made is no matter of the policy.
    let lasting = state.claims.keys().filter(|claim| !matches!(claim, Claim::Pinned(_)));
    let claims: BTreeSet<String> = lasting.map(Claim::to_string).collect();
    let mut text = format!("{:?}\n{claims:?}\n", state.net_cls);
    for (link, tree) in &state.trees {
        let _ = writeln!(text, "{link}");
        tree_lines(tree, &name, bursts).iter().for_each(|line| {
            let _ = writeln!(text, "  {line}");
        });
    }
    text
}

fn tree_lines(tree: &Tree, name: &impl Fn(ClassId) -> String, bursts: bool) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    let of_a_shard = |id: ClassId| {
        let own = |shard: Shard| [shard.root(), shard.default()].contains(&id);
        Shard::of_class(id).is_some() || id.shard().is_some_and(own)
    };
    for (minor, class) in tree.classes.iter().filter(|(id, _)| !of_a_shard(**id)) {
        let (parent, leaf) = (tree.parent(*minor).map(name), tree.leaves.get(minor));
        let burst = bursts.then_some(class.burst);
        let class = (class.rate, class.ceil, burst, class.cburst, class.role);
        lines.insert(format!("{} under {parent:?} {class:?} {leaf:?}", name(*minor)));
    }
    for filter in tree.filters.values() {
        lines.insert(match filter {
            Filter::U32 { protocol, rules } => {
                let to = |rule: &shaper::tree::U32Rule| {
                    (rule.keys.clone(), rule.to.our_class().map(name))
                };
                let tables = rules.tables.len();
                format!("{protocol:?} {:?} {tables}", rules.rules().map(to).collect::<Vec<_>>())
            }
            Filter::Program(program) => {
                let rules = program.rules.iter().map(|rule| {
                    let of = rule.from.iter().flat_map(|from| &from.of);
                    let senders: BTreeSet<String> = of.map(|class| name(*class)).collect();
                    let not = rule.from.as_ref().map(|from| from.not);
                    (rule.line, name(rule.to), not, senders, rule.packets.clone())
                });
                format!("{:?} {:?}", program.asks, rules.collect::<Vec<_>>())
            }
            Filter::Tag(tag) if tag.reads_shards() => {
                let within: BTreeSet<String> =
                    tree.shards.values().map(|tags| format!("{:?}", tags.values())).collect();
                assert_eq!(within.len(), 1, "shards differ, or there are none: {within:?}");
                format!("{:?}", tree.shards.values().next().and_then(|tags| tags.values().next()))
            }
            other => format!("{:?}", Some(other)),
        });
    }
    lines
}

/// What somebody else put among ours, and what it looked like.
pub struct Foreign {
    /// Of the class under our root.
    minor: &'static str,
    looked: String,
}

impl Foreign {
    /// Under our root on `up0`, which must stand: a class with this minor that nobody claims, a
    /// filter at another pref; a directory in the hierarchy and one in the instance; a root qdisc
    /// on `up2`.
    pub fn put(minor: &'static str) -> Foreign {
        run(&format!(
            "tc class add dev up0 parent 1:1 classid 1:{minor} htb rate 1mbit quantum 2000"
        ));
        run(&format!("tc qdisc add dev up0 parent 1:{minor} handle 9999: pfifo limit 7"));
        run(&format!(
            "tc filter add dev up0 parent 1: pref 7 protocol ip u32 match ip dport 7 0xffff flowid 1:{minor}"
        ));
        run("tc qdisc add dev up2 root handle 1: htb default 1");
        run("tc class add dev up2 parent 1: classid 1:10 htb rate 1mbit quantum 2000");
        for path in ["engine", "shaper/stranger"] {
            let path = Path::new(NET_CLS).join(path);
            fs::create_dir(&path).expect("make a directory");
            fs::write(path.join("net_cls.classid"), format!("0x000100{minor}"))
                .expect("write a classid");
        }
        Foreign { minor, looked: Foreign::look(minor) }
    }

    fn look(minor: &str) -> String {
        let mut text = run(&format!("tc class show dev up0 classid 1:{minor}"));
        text += &run("tc filter show dev up0 parent 1: pref 7");
        let leaf = run("tc qdisc show dev up0");
        text.extend(leaf.lines().filter(|line| line.contains("9999:")));
        // Neighbour discovery passes through it and is counted.
        let root = run("tc qdisc show dev up2");
        text += root.split(" direct_packets_stat").next().unwrap_or(&root);
        text += &run("tc class show dev up2");
        for path in ["engine", "shaper/stranger"] {
            let path = Path::new(NET_CLS).join(path).join("net_cls.classid");
            text += &fs::read_to_string(path).expect("read a classid");
        }
        text
    }

    #[track_caller]
    pub fn is_untouched(&self) {
        assert_eq!(Foreign::look(self.minor), self.looked);
    }
}

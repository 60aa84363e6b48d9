//! An update never opens a hole: numbered packets of several users while the policy is edited again
//! and again, and packets that outlive the process that sent them.

mod arriving;
mod ledger;
mod moving;
mod orphans;

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use shaper::apply::{self, Applied, ApplyOptions, Options, Request, Session};
use shaper::desired::Sharding;
use shaper::host::Kernel;
use shaper::plan::{Change, Step, Whole};
use shaper::sys::probe;
use shaper::tree::{Classifier, Filter, FoundFilter};

use crate::draft::Draft;
use crate::support::accounts::{ANN, Account, BOB, CAROL, DAVE, ERIN, ROOT};
use crate::support::clock::Micros;
use crate::support::command::run;
use crate::support::harness::{BUDGET, On, Place, Test};
use crate::support::orders::{Order, Proto};
use crate::support::program::{classid, policy, shaper};
use crate::support::random::Random;
use crate::support::settings::setting;
use crate::support::world::{Family, Stream, UPLINK, World};
use ledger::Ledger;

pub const TESTS: &[Test] = &[
    Test {
        name: "updates::every_kind_of_edit_is_made",
        on: On::Host,
        budget: BUDGET,
        body: every_kind_of_edit_is_made,
    },
    Test {
        name: "updates::no_packet_is_lost_or_misclassified_while_the_policy_is_edited",
        on: On::HostAndUml,
        budget: Duration::from_secs(300),
        body: no_packet_is_lost_or_misclassified_while_the_policy_is_edited,
    },
    Test {
        name: "updates::nor_while_users_come_into_shards_and_leave_them",
        on: On::HostAndUml,
        budget: Duration::from_secs(300),
        body: nor_while_users_come_into_shards_and_leave_them,
    },
    Test {
        name: "updates::what_arrives_is_neither_lost_nor_misattributed_while_the_policy_is_edited",
        on: On::Host,
        budget: Duration::from_secs(3600),
        body: arriving::what_arrives_is_neither_lost_nor_misattributed_while_the_policy_is_edited,
    },
    Test {
        name: "updates::between_the_classifiers_each_packet_is_its_owners_out_and_back",
        on: On::Host,
        budget: BUDGET,
        body: moving::between_the_classifiers_each_packet_is_its_owners_out_and_back,
    },
    Test {
        name: "updates::what_an_ended_process_left_queued_keeps_its_limits",
        on: On::HostAndUml,
        budget: BUDGET,
        body: orphans::what_an_ended_process_left_queued_keeps_its_limits,
    },
    Test {
        name: "updates::a_connection_accepted_after_a_move_follows_its_user",
        on: On::Host,
        budget: BUDGET,
        body: orphans::a_connection_accepted_after_a_move_follows_its_user,
    },
    Test {
        name: "updates::a_connection_that_waits_longer_than_a_move_is_nobody_elses",
        on: On::HostAndUml,
        budget: BUDGET,
        body: orphans::a_connection_that_waits_longer_than_a_move_is_nobody_elses,
    },
    Test {
        name: "updates::a_class_stays_while_any_socket_carries_its_number",
        on: On::Host,
        budget: BUDGET,
        body: orphans::a_class_stays_while_any_socket_carries_its_number,
    },
    Test {
        name: "updates::a_line_that_comes_back_while_its_class_drains_finds_it",
        on: On::HostAndUml,
        budget: BUDGET,
        body: orphans::a_line_that_comes_back_while_its_class_drains_finds_it,
    },
];

/// Everybody sends so many packets a second: at most 4 Mbit, of the 20 that any line allows.
fn packets_per_second() -> u64 {
    match Place::current() {
        Place::Host => 400,
        Place::Uml | Place::Qemu | Place::Newest => 50,
    }
}

/// How long a retired class must have been quiet; shorter than what `shaper apply` waits, because
/// 200 edits are to be seen.
const QUIET: Duration = Duration::from_millis(200);

/// Somebody who sends, with a size of frame that nobody else has.
struct Sender {
    name: &'static str,
    account: Account,
    family: Family,
    frame: u64,
}

const SENDERS: [Sender; 6] = [
    Sender { name: "ann", account: ANN, family: Family::V4, frame: 1_009 },
    Sender { name: "bob", account: BOB, family: Family::V6, frame: 1_033 },
    Sender { name: "carol", account: CAROL, family: Family::V4, frame: 1_103 },
    Sender { name: "dave", account: DAVE, family: Family::V6, frame: 1_129 },
    Sender { name: "erin", account: ERIN, family: Family::V4, frame: 1_201 },
    Sender { name: "service", account: ROOT, family: Family::V4, frame: 1_249 },
];

impl Sender {
    fn payload(&self) -> u64 {
        let headers = if self.family == Family::V4 { 14 + 20 + 8 } else { 14 + 40 + 8 };
        self.frame - headers
    }

    /// A process of the account with a socket to a far port of its own; sends nothing yet.
    fn start(&self, world: &mut World) -> Stream {
        let port = world.sink(Proto::Udp);
        let mut actor = world.actor(self.account);
        let socket = actor.socket(&Order::Datagram(world.far_at(self.family, port)));
        Stream { actor, socket, port }
    }

    fn beat(&self, stream: &mut Stream) {
        let bytes = usize::try_from(self.payload()).expect("a small number");
        let bits_per_second = self.payload() * 8 * packets_per_second();
        stream.actor.tell(&Order::Beat { socket: stream.socket, bytes, bits_per_second });
    }
}

/// Applies with a short wait for quiet; reads the counters of each class before it is deleted.
fn apply_watched(text: &str, ledger: &mut Ledger, sharding: Sharding) -> Applied {
    let policy = shaper::policy::parse(text, "policies.yaml")
        .unwrap_or_else(|report| panic!("{}", report.render(false)));
    let kernel = Kernel::open(None).expect("the kernel");
    let mut session = Session::new(kernel);
    let request = Request::new(policy, Options { sharding, ..Options::default() });
    let may = ApplyOptions { quiet: Some(QUIET), ..ApplyOptions::default() };
    let mut gate = |_: usize, step: &Step| {
        if matches!(step, Step::Class(.., Change::Remove(_))) {
            ledger.read();
        }
        Ok(())
    };
    let applied = apply::apply(&mut session, request, may, &mut gate)
        .unwrap_or_else(|failure| panic!("{}", failure.text(false)));
    assert!(applied.left.is_empty(), "steps that disturb: {:?}\n{text}", applied.left);
    applied
}

fn no_packet_is_lost_or_misclassified_while_the_policy_is_edited() {
    edit_under_traffic(Sharding::default());
}

fn nor_while_users_come_into_shards_and_leave_them() {
    // The first policy has five users; carol, dave and erin can share a shard until edits part
    // them.
    let sharded = edit_under_traffic(Sharding { flat: 4, full: 2, few: 1 });
    assert!(sharded > 0, "no edit made a shard");
}

/// How many edits brought the first shard or took away the last.
fn edit_under_traffic(sharding: Sharding) -> u32 {
    let seed = seed();
    println!("SHAPER_SEED={seed} draws these edits again");
    let mut random = Random::new(seed);
    let mut world = World::new();
    run("ip link add up1 type veth peer name far1");
    let mut streams = SENDERS.each_ref().map(|sender| sender.start(&mut world));
    let mut draft = Draft::under_traffic(streams[5].port, &mut random);
    draft.classifiers = &["auto", "bpf", "uid"];
    if probe::features().expect("features").classifiers.contains(&Classifier::Cgroup) {
        draft.classifiers = &["auto", "bpf", "uid", "cgroup"];
    }
    let mut ledger = Ledger::of(UPLINK, SENDERS.iter().map(|sender| (sender.frame, sender.name)));
    let first = apply_watched(&draft.to_string(), &mut ledger, sharding);
    // Their classes stay, so that every one of their packets is in one counter.
    let stay = ["ann", "bob"].map(|user| (user, classid(&format!("user/{user}"))));
    draft.keep_free(stay.iter().map(|(_, id)| minor(id)));
    for (sender, stream) in SENDERS.iter().zip(&mut streams) {
        sender.beat(stream);
    }
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    let (mut steps, mut slowest) = (0, Duration::ZERO);
    let mut swaps = u32::from(brings_or_ends_shards(&first));
    for edit in 0..edits() {
        let (next, what) = draft.edited(&mut random);
        let started = Instant::now();
        let applied = apply_watched(&next.to_string(), &mut ledger, sharding);
        slowest = slowest.max(started.elapsed());
        ledger.read();
        let (before, after) = (draft.to_string(), next.to_string());
        assert!(
            ledger.wrong.is_empty(),
            "after edit {edit}, {what}: {:#?}\n--- from\n{before}--- to\n{after}--- by\n{:#?}",
            ledger.wrong,
            applied.steps.iter().map(|planned| planned.step.to_string()).collect::<Vec<_>>()
        );
        *counts.entry(what).or_default() += 1;
        steps += applied.steps.len();
        swaps += u32::from(brings_or_ends_shards(&applied));
        draft = next;
    }
    println!(
        "{steps} steps, shards came or went {swaps} times, the slowest apply took {} ms, {counts:#?}",
        slowest.as_millis()
    );
    let again = apply_watched(&draft.to_string(), &mut ledger, sharding);
    assert_eq!((again.steps.len(), again.messages), (0, 0), "{:?}", again.steps);
    let sent = streams.each_mut().map(|stream| stream.actor.stop(stream.socket).1);
    // The last ones are on their way.
    sleep(Duration::from_millis(500));
    ledger.read();
    assert!(ledger.wrong.is_empty(), "{:#?}", ledger.wrong);
    all_arrived(&mut world, &streams, sent, &mut ledger);
    for (user, id) in stay {
        let counted = ledger.packets().get(user).copied();
        assert_eq!(ledger.packets_in(&id, user), counted, "{user} stayed");
    }
    let root = run("tc -s qdisc show dev up0 root");
    assert!(root.contains("direct_packets_stat 0 "), "{root}");
    shaper(&["plan", "--exit-code", &policy(&draft.to_string())]).exits(0);
    swaps
}

/// Every packet of every sender came, once, and was counted in a class of its sender's.
fn all_arrived(world: &mut World, streams: &[Stream; 6], sent: [u64; 6], ledger: &mut Ledger) {
    let counted = ledger.packets();
    for ((sender, stream), sent) in SENDERS.iter().zip(streams).zip(sent) {
        let seen = world.far.seen(Proto::Udp, stream.port);
        let numbers = &seen.senders[&sender.account.uid];
        let arrived = numbers.packets - numbers.duplicates;
        println!(
            "{}: {sent} sent, {} lost, {} twice, longest silence {} ms",
            sender.name,
            sent - arrived,
            numbers.duplicates,
            seen.longest_silence / 1_000
        );
        assert_eq!((sent - arrived, numbers.duplicates), (0, 0), "{}", sender.name);
        assert_eq!(counted.get(sender.name), Some(&sent), "what {}'s classes sent", sender.name);
    }
}

/// Whether a root's filter was replaced because the first shard came or the last one went.
fn brings_or_ends_shards(applied: &Applied) -> bool {
    applied.steps.iter().any(|planned| match &planned.step {
        Step::Filter(.., Whole::Add(filter) | Whole::Remove(FoundFilter::Ours(filter))) => {
            matches!(filter, Filter::Tag(tag) if tag.reads_shards())
        }
        _ => false,
    })
}

/// Fewer where everything is slower.
fn edits() -> u32 {
    match Place::current() {
        Place::Host => 100,
        Place::Uml | Place::Qemu | Place::Newest => 20,
    }
}

fn seed() -> u64 {
    setting("SHAPER_SEED").unwrap_or_else(|| Micros::now().0)
}

fn minor(id: &str) -> u64 {
    id.split(':').nth(1).and_then(|minor| u64::from_str_radix(minor, 16).ok()).expect("a classid")
}

/// Every kind of edit is drawn, and gives valid policies.
fn every_kind_of_edit_is_made() {
    let seed = seed();
    println!("SHAPER_SEED={seed} draws these edits again");
    let mut random = Random::new(seed);
    let mut draft = Draft::under_traffic(5001, &mut random);
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for _ in 0..2_000 {
        let (next, what) = draft.edited(&mut random);
        *counts.entry(what).or_default() += 1;
        draft = next;
    }
    assert_eq!(counts.len(), Draft::KINDS, "{counts:#?}");
}

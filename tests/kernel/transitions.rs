//! Random policies, one after the other, on the running kernel: whatever the next one is, what
//! stands after it is what it says, what is not ours is as it was, and there is a way back.

use std::time::{Duration, Instant};

use shaper::desired::Sharding;
use shaper::failure::Failure;

use crate::draft::Draft;
use crate::host::{CROWD, Foreign, Host};
use crate::support::harness::{On, Test};
use crate::support::random::Random;
use crate::support::settings::setting;

pub const TESTS: &[Test] = &[
    Test {
        name: "transitions::every_policy_follows_from_every_other",
        on: On::Host,
        budget: Duration::from_secs(4 * 3600),
        body: every_policy_follows_from_every_other,
    },
    Test {
        name: "transitions::users_come_into_shards_and_leave_them",
        on: On::Host,
        budget: Duration::from_secs(4 * 3600),
        body: users_come_into_shards_and_leave_them,
    },
];

fn transitions() -> u64 {
    setting("SHAPER_TRANSITIONS").unwrap_or(80)
}

fn every_policy_follows_from_every_other() {
    follow(Sharding::default(), transitions());
}

fn users_come_into_shards_and_leave_them() {
    // Of fewer too few have shards.
    let count = (transitions() / 2).max(100);
    let sharded = follow(CROWD, count);
    assert!(sharded > count / 10, "shards stood after {sharded} of {count} transitions only");
}

/// So many transitions; how many of them ended with a shard somewhere. The same `SHAPER_SEED` makes
/// the same policies.
fn follow(sharding: Sharding, count: u64) -> u64 {
    let seed = setting("SHAPER_SEED").unwrap_or(1);
    println!("SHAPER_SEED={seed} SHAPER_TRANSITIONS={count}");
    let mut random = Random::new(seed);
    let mut host = Host::new();
    host.request.intent.options.sharding = sharding;
    let mut draft = Draft::empty(&mut random);
    host.take_up(&draft.to_string()).unwrap_or_else(|e| panic!("{}", e.text(false)));
    host.apply();
    let foreign = Foreign::put("13");
    let (mut done, mut refused, mut steps, mut sharded) = (0, 0, 0, 0);
    let started = Instant::now();
    while done < count {
        let next = draft.next(&mut random);
        while random.maybe(4) {
            host.come_or_go(random.index(16));
        }
        if random.maybe(5) {
            host.attach(random.index(64));
        }
        match host.take_up(&next.to_string()) {
            Ok(()) => {}
            Err(Failure::Policy(_)) => {
                refused += 1;
                continue;
            }
            Err(other) => panic!("{}", other.text(false)),
        }
        println!("--- {done}\n{next}");
        steps += transition(&mut host, &next);
        sharded += u64::from(host.state().trees.values().any(|tree| !tree.shards.is_empty()));
        foreign.is_untouched();
        draft = next;
        done += 1;
    }
    println!(
        "{done} transitions, {refused} refused, {sharded} with shards, {steps} steps, {:?}",
        started.elapsed()
    );
    assert!(refused < 2 * done, "{refused} policies of {} make no sense", refused + done);
    sharded
}

fn transition(host: &mut Host, draft: &Draft) -> usize {
    let before = host.observe();
    let steps = host.apply().steps.len();
    host.is_in_sync();
    pins_hold(host, draft);
    let after = host.observe();
    assert_eq!(before.foreign, after.foreign);
    host.go_to(&before.state);
    host.apply();
    assert_eq!(host.state(), after.state, "forward again leads elsewhere");
    assert_eq!(host.apply().placement.moved, 0);
    steps
}

fn pins_hold(host: &mut Host, draft: &Draft) {
    let state = host.state();
    for (name, pin) in draft.pins() {
        let claim = format!("user/{name}").parse().expect("a claim");
        let minor = state.claims[&claim].our_class().map(|id| u64::from(id.minor().0));
        // Somebody else's class stands at 1:13: its minor is never given out.
        if pin != 0x13 {
            assert_eq!(minor, Some(pin), "{name} is not at its pin");
        }
    }
}

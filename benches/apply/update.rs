//! Applying again with 10,000 users: nothing to do, one rate to change, all rates to change.

use std::fs;
use std::path::Path;
use std::time::Duration;

use shaper::apply::{self, ApplyOptions, Options, Request, Session};
use shaper::host::Kernel;
use shaper::host::execute;
use shaper::plan::Phase;

use super::cost::{self, Against, Cost, Runs, Table};
use super::host::{self, Sleepers};
use super::{write, yardstick};
use crate::support::program::directory;

const USERS: u32 = 10_000;
/// How many of them run something.
const PROCESSES: u32 = 1_000;
const TIMES: usize = 7;

pub fn measure() {
    host::furnish(USERS);
    let one = host::policy("one", USERS, host::usual);
    let one_else = host::policy("one-else", USERS, |n| match n {
        4_321 => "{rate: 400kbit, ceil: 50mbit}".to_string(),
        n => host::usual(n),
    });
    let all_else = host::policy("all-else", USERS, |_| "{rate: 300kbit, ceil: 40mbit}".to_string());
    let first = host::apply(&one);
    println!("first build: {:.1} s", first.micros as f64 / 1e6);
    let _sleepers = Sleepers::start(PROCESSES);
    host::apply(&one);
    host::settle();
    let classes = host::classes();

    let messages = messages(&one);
    let (mut in_sync, mut bare, mut changed_one) = <(Runs, Runs, Runs)>::default();
    let (many, mut in_sync_of_many) = (many_files(), Runs::default());
    let mut parts = Vec::new();
    for _ in 0..TIMES {
        let look = yardstick::look(host::LINK, &directory("user"));
        bare.push(look.cost());
        parts.push(look);
        in_sync.push(host::apply(&one));
        in_sync_of_many.push(host::apply(&many));
        changed_one.push(host::apply(&one_else));
        // Back again, unmeasured: the next round's first is in sync.
        host::apply(&one);
    }

    let all = AllRates::measure(&one, &all_else);
    assert_eq!(host::classes(), classes);

    let mut table = Table::new();
    let look = "the three lists, the classids, one walk over /proc, bare";
    let what = format!("apply in sync, {messages} changing messages");
    table.row(&what, &in_sync, &Against::new(look, &bare).at_most(1.5));
    let of_one = Against::new("apply in sync", &in_sync);
    table.row("the same of a file for each user", &in_sync_of_many, &of_one.at_most(1.5));
    table.row("change one rate", &changed_one, &Against::new("apply in sync", &in_sync));
    let (batch, tc) = ("`tc -batch`", &all.tc);
    let all_of_them = Against::new("`tc -batch`, all of them", tc);
    table.row("change one rate", &changed_one, &all_of_them);
    let messages = Against::new(batch, tc).at_most(1.2);
    table.row("change 10,000 rates: the messages", &all.sending, &messages);
    table.row("change 10,000 rates: the whole run", &all.whole, &Against::new(batch, tc));
    let part = |of: fn(&yardstick::Look) -> Cost| Runs(parts.iter().map(of).collect()).millis();
    let text = format!(
        "{}\nThe policy names each account; {PROCESSES} of them run a process. The bare look: lists \
         {:.1} ms, classids {:.1} ms, /proc {:.1} ms. The peak of `tc -batch` is {}. A whole run that \
         changes something looks twice: before, and afterwards to verify.\n",
        table.text(),
        part(|look| look.lists),
        part(|look| look.classids),
        part(|look| look.processes),
        tc.peak(),
    );
    write(&text);
}

/// The policy `one` as a panel would write it: a drop-in for each account.
fn many_files() -> String {
    let policy = host::policy("many", 0, host::usual);
    let folder = Path::new(&policy).with_extension("d");
    fs::create_dir(&folder).expect("make the folder");
    for n in 0..USERS {
        let text = format!("users:\n  u{n:05}: {}\n", host::usual(n));
        fs::write(folder.join(format!("u{n:05}.yaml")), text).expect("write a drop-in");
    }
    policy
}

/// Every rate changes, there and back again.
#[derive(Default)]
struct AllRates {
    whole: Runs,
    tc: Runs,
    /// The messages alone.
    sending: Runs,
}

impl AllRates {
    /// `one` is in force.
    fn measure(one: &str, other: &str) -> AllRates {
        let there = host::batch("there", other);
        host::apply(other);
        let back = host::batch("back", one);
        let mut all = AllRates::default();
        for round in 0..TIMES {
            let (policy, file, before) = match round % 2 {
                0 => (one, &back, other),
                _ => (other, &there, one),
            };
            all.whole.push(host::apply(policy));
            host::apply(before);
            all.tc.push(host::tc_batch(file));
            host::apply(before);
            all.sending.push(send_only(policy));
        }
        all
    }
}

fn session(policy: &str) -> (Session, Request) {
    let policy = apply::read(Path::new(policy)).unwrap_or_else(|e| panic!("{e:?}"));
    let kernel = Kernel::open(None).unwrap_or_else(|e| panic!("{e}"));
    (Session::new(kernel), Request::new(policy, Options::default()))
}

/// How many messages that may change something an apply sends.
fn messages(policy: &str) -> u64 {
    let (mut session, request) = session(policy);
    let may = ApplyOptions::default();
    let applied = apply::apply(&mut session, request, may, &mut |_, _| Ok(()));
    applied.unwrap_or_else(|e| panic!("{e:?}")).messages
}

/// Performs the plan's steps, and measures that alone.
pub fn send_only(policy: &str) -> Cost {
    let (mut session, request) = session(policy);
    let mut meaning = session.look(&request).unwrap_or_else(|e| panic!("{e:?}")).meaning;
    let (plan, _) = session.plan(&request.intent, &mut meaning).unwrap_or_else(|e| panic!("{e:?}"));
    let facts = &meaning.observation.facts;
    let kernel = &mut session.kernel;
    let locked = kernel.lock(Duration::ZERO).unwrap_or_else(|e| panic!("{e}"));
    cost::of(|| {
        let steps = plan.phase(Phase::Build);
        let (_, done) = execute::perform(kernel, &locked, facts, steps, &mut |_, _| Ok(()));
        done.unwrap_or_else(|e| panic!("{e}"));
    })
}

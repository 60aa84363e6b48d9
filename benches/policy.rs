//! What a policy costs: text → `Policy` → `Model` → state → plan, by the number of users.
//! `cargo bench --bench policy`.

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use shaper::desired::desired;
use shaper::facts::{Facts, LinkFacts, Observation, RootQdisc};
use shaper::model::{BuildOptions, build};
use shaper::plan::diff;
use shaper::policy;
use shaper::tree::{Classifier, LeafQdisc, LinkName};

const SIZES: [u32; 4] = [100, 1_000, 10_000, 50_000];

/// A file in which every kind of line occurs, and a host that knows all its names.
fn case(users: u32) -> (String, Facts) {
    let mut text = String::from("version: 1\nlinks:\n  eth0: 100gbit\nusers:\n");
    let mut facts = Facts::default();
    for n in 0..users {
        let _ = match n % 3 {
            0 => writeln!(text, "  user{n}: 100mbit"),
            1 => writeln!(text, "  user{n}: {{rate: 1mbit, ceil: 200mbit, prio: 2}}"),
            _ => writeln!(
                text,
                "  user{n}:\n    ceil: 10%\n    accounts: [acc{n}]\n    units: [u{n}.service]"
            ),
        };
        facts.accounts.by_name.insert(format!("user{n}"), Some(1_000 + n));
        facts.accounts.by_name.insert(format!("acc{n}"), Some(1_000 + n));
        facts.accounts.running.insert(1_000 + n);
    }
    text.push_str("groups:\n  all: {ceil: 60%, users: [user0, user1]}\neveryone: 50mbit\n");
    let link = LinkFacts {
        speed: "100gbit".parse().ok(),
        default_route_v4: Some(0),
        root: RootQdisc::Kernel { kind: "mq".to_string() },
        ..LinkFacts::ethernet(2)
    };
    facts.links.extend(LinkName::new("eth0").map(|name| (name, link)));
    (text, facts)
}

fn policies(c: &mut Criterion) {
    let mut parsing = c.benchmark_group("parse");
    for users in SIZES {
        let (text, _) = case(users);
        parsing.throughput(Throughput::Elements(u64::from(users)));
        parsing.bench_with_input(BenchmarkId::from_parameter(users), &text, |b, text| {
            b.iter(|| policy::parse(black_box(text), "policies.yaml"));
        });
    }
    parsing.finish();
    let mut building = c.benchmark_group("build");
    for users in SIZES {
        let (text, facts) = case(users);
        let policy = policy::parse(&text, "policies.yaml").unwrap_or_else(|e| panic!("{e}"));
        let options = BuildOptions::default();
        build(&policy, &facts, options).unwrap_or_else(|e| panic!("{e}"));
        building.throughput(Throughput::Elements(u64::from(users)));
        building.bench_with_input(BenchmarkId::from_parameter(users), &policy, |b, policy| {
            b.iter(|| build(black_box(policy), &facts, options));
        });
    }
    building.finish();
    plans(c);
}

/// A first build, and the plan of a second run, which finds everything in sync.
fn plans(c: &mut Criterion) {
    let mut planning = c.benchmark_group("plan");
    for users in SIZES {
        let (text, mut facts) = case(users);
        facts.features.htb = true;
        facts.features.classifiers.insert(Classifier::Cgroup);
        facts.features.leaves.insert(LeafQdisc::FqCodel.kind());
        let policy = policy::parse(&text, "policies.yaml").unwrap_or_else(|e| panic!("{e}"));
        let (model, _) =
            build(&policy, &facts, BuildOptions::default()).unwrap_or_else(|e| panic!("{e}"));
        let nothing = Observation { facts, ..Observation::default() };
        let state = desired(&model, &nothing).unwrap_or_else(|e| panic!("{e}"));
        let standing = Observation { state, ..nothing.clone() };
        planning.throughput(Throughput::Elements(u64::from(users)));
        for (name, observed) in [("first", &nothing), ("in sync", &standing)] {
            planning.bench_with_input(BenchmarkId::new(name, users), observed, |b, observed| {
                b.iter(|| {
                    desired(black_box(&model), observed).map(|wanted| diff(observed, &wanted))
                });
            });
        }
    }
    planning.finish();
}

/// The largest sizes take seconds a time, and the machine is wanted for the other benches too.
fn hurried() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! {
    name = benches;
    config = hurried();
    targets = policies
}
criterion_main!(benches);

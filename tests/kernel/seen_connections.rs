//! What `why` says of connections, beside where their packets went.

use std::thread;

use serde_json::Value;

use crate::support::accounts::{ANN, BOB, CAROL, ROOT};
use crate::support::actor::Actor;
use crate::support::counters::{Classes, classes};
use crate::support::harness::{On, tests};
use crate::support::orders::{Answer, Order};
use crate::support::program::{apply, classid, policy, shaper};
use crate::support::world::{Family, World};

tests!(On::Host =>
    why_says_where_a_connections_packets_go, why_says_where_the_packets_of_a_process_go
);

const POLICY: &str = "
version: 1
links: {up0: {rate: 400mbit, down: 300mbit}}
users:
  ann: {ceil: 200mbit, down: 200mbit}
  bob: {ceil: 200mbit, down: 200mbit}
classes: {games: {ceil: 50mbit}, anns: {ceil: 50mbit}, tagged: {ceil: 50mbit}, far: {ceil: 50mbit}}
rules:
  - {dport: [40000-40100], proto: udp, to: games}
  - {dst: 10.77.0.2, dport: 41000, to: unshaped}
  - {dst: {not: [10.77.0.0/24, 'fd77::/64']}, to: far}
  - {dport: 41001, to: default}
  - {vlan: 22, to: tagged}
  - {dport: 42000, from: ann, to: anns}
  - {dport: 42001, from: {not: ann}, to: bob}
  - {sport: [49000-50000], dport: 42002, to: games}
everyone: {each: {ceil: 60mbit, down: 60mbit}}
";

const COUNT: u32 = 40;

/// The class that has most of the datagrams.
#[track_caller]
fn most(before: &Classes, link: &str) -> String {
    let after = classes(link);
    let is_leaf = |id: &str| id != "1:1" && !id.starts_with("1:f0");
    let grew = after.by_id.iter().filter(|(id, class)| {
        let packets = class.packets - before.by_id.get(*id).map_or(0, |class| class.packets);
        is_leaf(id) && packets >= u64::from(COUNT) * 9 / 10
    });
    let grew: Vec<String> = grew.map(|(id, _)| id.clone()).collect();
    assert_eq!(grew.len(), 1, "{grew:?} on {link}");
    grew.into_iter().next().expect("one")
}

/// Sends datagrams that come back, and gives the classes of both ways.
#[track_caller]
pub fn went(world: &World, actor: &mut Actor, family: Family, port: u16) -> [String; 2] {
    let before = ["up0", "ifb-up0"].map(|link| (link, classes(link)));
    let to = world.far_at(family, port);
    match actor.tell(&Order::Probe { to, count: COUNT, every_ms: 1 }) {
        Answer::Rtts(rtts) => assert_eq!(rtts.len(), COUNT as usize),
        other => panic!("a probe was answered with {other:?}"),
    }
    before.map(|(link, before)| most(&before, link))
}

fn way<'a>(answer: &'a Value, direction: &str) -> &'a Value {
    let ways = answer["connection"].as_array().expect("ways");
    let found = ways.iter().find(|way| way["direction"] == direction);
    found.unwrap_or_else(|| panic!("no {direction} in {answer}"))
}

/// Has datagrams go to a port of the far side and back, and `why` say of this subject's connection
/// with it the classes in which they went.
#[track_caller]
pub fn agrees(world: &World, actor: &mut Actor, subject: &str, port: u16, file: &str) {
    let to = world.far_at(Family::V4, port);
    let went = went(world, actor, Family::V4, port);
    let words = ["why", subject, "--to", &to.to_string(), "--proto", "udp", "--json", "-f", file];
    let answer = shaper(&words).exits(0).json();
    let said = ["egress", "ingress"].map(|it| way(&answer, it)["classid"].clone());
    let went = went.each_ref().map(|it| Value::from(it.as_str()));
    assert_eq!(said, went, "{subject} to {to}: {answer}");
}

/// Put into a class on purpose, by the owner alone, or nobody's.
fn why_says_where_the_packets_of_a_process_go() {
    let world = &mut World::new();
    apply(POLICY);
    let file = policy(POLICY);
    let ports = [40_101, 42_000];
    for port in ports {
        world.far.tell(&Order::Echo(port));
    }
    let mut attached = [CAROL, ROOT, ANN].map(|account| world.actor(account));
    for actor in &attached {
        shaper(&["attach", "bob", &actor.pid().to_string()]).exits(0);
    }
    let mut free = [ANN, CAROL, ROOT].map(|account| world.actor(account));
    for actor in attached.iter_mut().chain(&mut free) {
        for port in ports {
            let subject = format!("pid:{}", actor.pid());
            agrees(world, actor, &subject, port, &file);
        }
    }
}

fn why_says_where_a_connections_packets_go() {
    let mut world = World::new();
    let (mut ann, mut bob) = (world.actor(ANN), world.actor(BOB));
    let mut nobody = world.actor(ROOT);
    apply(POLICY);
    // Of `everyone`, and without a class yet.
    let mut carol = world.actor(CAROL);
    let file = policy(POLICY);
    let ports = [40_000, 40_100, 40_101, 41_000, 41_001, 42_000, 42_001];
    for port in ports {
        world.far.tell(&Order::Echo(port));
    }
    let of_ann = ports.map(|port| (Family::V4, port));
    // By whose they are, or by whom a rule is for.
    let by_sender = [(Family::V4, 40_101), (Family::V4, 42_000), (Family::V4, 42_001)];
    let v6 = [(Family::V6, 42_000)];
    let senders = [
        ("ann", &mut ann, [&of_ann[..], &[(Family::V6, 40_000)], &v6].concat()),
        ("bob", &mut bob, [&by_sender[..], &v6].concat()),
        ("uid:0", &mut nobody, [&by_sender[..], &v6].concat()),
        ("carol", &mut carol, [&by_sender[..], &v6].concat()),
    ];
    let mut all = Vec::new();
    for (name, actor, connections) in senders {
        for (family, port) in connections {
            let to = world.far_at(family, port).to_string();
            all.push((name, to, went(&world, actor, family, port)));
        }
    }
    let ask = |(name, to, went): &(&str, String, [String; 2])| {
        let words = ["why", name, "--to", to, "--proto", "udp", "--json", "-f", &file];
        let answer = shaper(&words).exits(0).json();
        let said = ["egress", "ingress"].map(|it| way(&answer, it)["classid"].clone());
        assert_eq!(
            said,
            went.each_ref().map(|it| Value::from(it.as_str())),
            "{name} to {to}: {answer}"
        );
    };
    for beside_each_other in all.chunks(6) {
        thread::scope(|scope| {
            for one in beside_each_other {
                scope.spawn(|| ask(one));
            }
        });
    }
    // Which rule it is, and for which field the ones before it are not.
    let text = shaper(&["why", "ann", "--to", "10.77.0.2:42000", "--proto", "udp", "-f", &file]);
    let text = text.exits(0).stdout;
    let anns = classid("class/anns");
    assert!(
        text.contains(&format!("up0: rule 6 sends it to class anns, class {anns}; rule 1 is not")),
        "{text}"
    );
    assert!(text.contains("; rule 5 is not for it (vlan); now "), "{text}");
    // The host's own port, where a rule asks for it.
    let own_port = |to: &str, more: &[&str]| {
        let words = ["why", "ann", "--to", to, "--proto", "udp", "--json", "-f", &file];
        let answer = shaper(&[&words[..], more].concat()).exits(0).json();
        let way = way(&answer, "egress");
        (way["rule"].clone(), way.get("assumed_sport").cloned())
    };
    let to = "10.77.0.2:42002";
    assert_eq!(own_port(to, &[]), (8.into(), Some(50_000.into())));
    assert_eq!(own_port(to, &["--from", "10.77.0.1:48999"]), (Value::Null, None));
    assert_eq!(own_port("10.77.0.2:42000", &[]), (6.into(), None));
    let text = shaper(&["why", "ann", "--to", to, "--proto", "udp", "-f", &file]).exits(0).stdout;
    assert!(
        text.contains("; port 50000 is taken for the host's own, for which a rule asks"),
        "{text}"
    );
    // Of nobody in particular, by another route, and with the host's own end.
    let words = ["why", "10.99.1.1:443", "--from", "10.77.0.1:0", "--json", "-f", &file];
    let answer = shaper(&words).exits(0).json();
    assert_eq!(way(&answer, "egress")["rule"], 3, "{answer}");
    assert_eq!(way(&answer, "egress")["classid"], classid("class/far").as_str());
    // To where there is no route.
    world.on_host("ip route add unreachable 198.51.100.0/24").exits(0);
    let text = shaper(&["why", "ann", "--to", "198.51.100.7:443", "-f", &file]).exits(0).stdout;
    assert!(text.contains("there is no route to 198.51.100.7 now"), "{text}");
    assert!(!text.contains("connection:"), "{text}");
    // Of another link's rules, and of a file that says something else by now.
    let other = policy(&POLICY.replace("dport: [40000-40100]", "dport: [42000]"));
    let words = ["why", "ann", "--to", "10.77.0.2:42000", "--proto", "udp", "-f", &other];
    let text = shaper(&words).exits(0).stdout;
    assert!(text.contains("; by the file rule 1 decides: apply has not run since"), "{text}");
}

//! Rules for one user's packets (`from`): whose they are is decided as his class is, while rules
//! and classes change under traffic.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::accounts::{ANN, BOB, CAROL, DAVE};
use crate::support::actor::Actor;
use crate::support::counters;
use crate::support::harness::{On, tests};
use crate::support::orders::{Order, Proto};
use crate::support::program::{apply, classid, shaper};
use crate::support::world::{Family, UPLINK, World};

tests!(
    On::HostAndUml => a_users_packets_to_one_place_go_by_his_rule, so_they_do_where_no_ethernet_is;
    On::Host => no_packet_misses_its_rule_while_rules_and_senders_change,
        the_largest_program_is_taken;
);

const POLICY: &str = "
version: 1
links: {up0: {rate: 100mbit, default: {rate: 1mbit}}}
users: {ann: {ceil: 20mbit}, bob: {ceil: 20mbit}}
everyone: {each: {ceil: 20mbit}}
classes: {fast: {ceil: 90mbit}, far: {ceil: 90mbit}}
rules:
  - {dst: 10.77.0.99, to: far}
  - {from: ann, dst: 10.77.0.2, to: fast}
  - {from: [carol, bob], dst: fd77::2, to: unshaped}
  - {dst: 10.77.0.2, dport: 9, to: far}
";

/// How many packets of an actor's each of these classes got.
fn sends(actor: &mut Actor, world: &World, family: Family, port: u16, ids: &[&str]) -> Vec<u64> {
    let packets = || {
        let classes = counters::classes(UPLINK);
        ids.iter().map(|id| classes.class(id).packets).collect::<Vec<_>>()
    };
    let before = packets();
    let socket = actor.socket(&Order::Datagram(world.far_at(family, port)));
    actor.tell(&Order::Beat { socket, bytes: 100, bits_per_second: 80_000 });
    sleep(Duration::from_millis(300));
    let (_, sent) = actor.stop(socket);
    assert!(sent > 10, "{sent} datagrams");
    let begun = Instant::now();
    loop {
        let got: Vec<u64> = packets().iter().zip(&before).map(|(now, then)| now - then).collect();
        if got.iter().sum::<u64>() >= sent || begun.elapsed() > Duration::from_secs(5) {
            // All of them, or none but what another packet of the link's (a neighbour's) makes.
            return got.into_iter().map(|n| n * 100 / sent).collect();
        }
    }
}

fn a_users_packets_to_one_place_go_by_his_rule() {
    let mut world = World::new();
    let mut of = [ANN, BOB, CAROL, DAVE].map(|account| world.actor(account));
    for port in [9, 10] {
        world.far.sink(Proto::Udp, port);
    }
    apply(POLICY);
    let (fast, far) = (classid("class/fast"), classid("class/far"));
    let own = ["user/ann", "user/bob", "uid/2003", "uid/2004"].map(classid);
    // Who, over which family, to which port; by the rules: `None` is his own class.
    let cases = [
        (0, Family::V4, 9, Some(&fast)),
        (0, Family::V4, 10, Some(&fast)),
        (0, Family::V6, 10, None),
        (1, Family::V4, 9, Some(&far)),
        (1, Family::V4, 10, None),
        (2, Family::V4, 10, None),
        (3, Family::V6, 10, None),
    ];
    for (who, family, port, by_rule) in cases {
        let ids = [by_rule.unwrap_or(&fast).as_str(), &own[who]];
        let got = sends(&mut of[who], &world, family, port, &ids);
        let wanted = if by_rule.is_some() { [100, 0] } else { [0, 100] };
        assert_eq!(got, wanted, "{who} {family:?} {port}");
    }
    for who in [1, 2] {
        let got = sends(&mut of[who], &world, Family::V6, 10, &["1:fffd", &own[who]]);
        assert_eq!(got, [100, 0], "{who} unshaped");
    }
    // What was put into her class on purpose is hers.
    let pid = of[3].pid().to_string();
    shaper(&["attach", "ann", &pid]).exits(0);
    let got = sends(&mut of[3], &world, Family::V4, 10, &[&fast, &own[0], &own[3]]);
    assert_eq!(got, [100, 0, 0], "dave, attached to ann");
    shaper(&["release", &pid]).exits(0);

    let again = apply(POLICY);
    assert!(again.stdout.contains("in sync"), "{}", again.stdout);
    let status = shaper(&["status", "--rules", "--json"]).exits(0).json();
    let rules = status["links"][0]["rules"].as_array().expect("rules").clone();
    let packets = |nth: usize| rules[nth]["packets"].as_u64();
    assert_eq!((packets(0), rules.len()), (packets(0).filter(|n| *n == 0), 4));
    for nth in [1, 2, 3] {
        assert!(packets(nth).is_some_and(|n| n > 10), "rule {}: {rules:?}", nth + 1);
    }
    println!("{}", shaper(&["status", "--rules"]).exits(0).stdout);

    shaper(&["clear"]).exits(0);
}

/// On loopback, as for proxies: the header is found without Ethernet's.
fn so_they_do_where_no_ethernet_is() {
    let world = World::new();
    apply(
        "
version: 1
links: {lo: {rate: 100mbit}}
users: {ann: {ceil: 20mbit}, bob: {ceil: 20mbit}}
classes: {fast: {ceil: 90mbit}}
rules:
  - {from: ann, dst: [127.0.0.1, '::1'], proto: udp, dport: 9, to: fast}
  - {dst: 127.0.0.2-127.0.0.9, to: fast}
",
    );
    let fast = classid("class/fast");
    let counts = |actor: &mut Actor, to: &str, wanted: bool| {
        let packets = || counters::classes("lo").class(&fast).packets;
        let before = packets();
        let socket = actor.socket(&Order::Datagram(to.parse().expect("an address")));
        actor.tell(&Order::Beat { socket, bytes: 100, bits_per_second: 80_000 });
        sleep(Duration::from_millis(200));
        let (_, sent) = actor.stop(socket);
        let begun = Instant::now();
        while wanted && packets() < before + sent && begun.elapsed() < Duration::from_secs(5) {}
        assert_eq!(packets() - before, if wanted { sent } else { 0 }, "{to}");
    };
    // Somebody who takes them, or the kernel answers and a sender hears of it.
    let sinks = ["127.0.0.1:9", "127.0.0.1:10", "[::1]:9", "127.0.0.7:9", "127.0.0.10:9"];
    let _sinks = sinks.map(|at| std::net::UdpSocket::bind(at).expect("a port"));
    let [mut ann, mut bob] = [ANN, BOB].map(|account| world.actor(account));
    counts(&mut ann, "127.0.0.1:9", true);
    counts(&mut ann, "[::1]:9", true);
    counts(&mut ann, "127.0.0.1:10", false);
    counts(&mut ann, "127.0.0.10:9", false);
    counts(&mut bob, "127.0.0.1:9", false);
    counts(&mut bob, "[::1]:9", false);
    counts(&mut bob, "127.0.0.7:9", true);
}

/// Rules come and go around his, and he moves to another class.
fn no_packet_misses_its_rule_while_rules_and_senders_change() {
    let mut world = World::new();
    world.far.sink(Proto::Udp, 9);
    let policy = |ann: &str, rules: &str| {
        format!(
            "
version: 1
links: {{up0: {{rate: 100mbit, default: {{rate: 1mbit}}}}}}
users: {{ann: {{ceil: 20mbit}}, bob: {{ceil: 20mbit}}}}
groups: {{{ann}}}
classes: {{fast: {{ceil: 90mbit}}}}
rules:
{rules}
"
        )
    };
    let hers = "  - {from: ann, to: fast}\n";
    let a_port = "  - {dst: 10.99.0.0/16, to: bob}\n";
    let (alone, grouped) =
        ("staff: {ceil: 50mbit, users: [bob]}", "staff: {ceil: 50mbit, users: [ann, bob]}");
    apply(&policy(alone, hers));
    let mut ann = world.actor(ANN);
    let socket = ann.socket(&Order::Datagram(world.far_at(Family::V4, 9)));
    let before = counters::classes(UPLINK);
    ann.tell(&Order::Beat { socket, bytes: 100, bits_per_second: 1_600_000 });
    let fast = classid("class/fast");
    for (groups, rules) in [
        (alone, format!("{hers}{a_port}")),
        (alone, format!("{a_port}{hers}")),
        (grouped, format!("{a_port}{hers}")),
        (grouped, hers.to_string()),
        (alone, hers.to_string()),
    ] {
        apply(&policy(groups, &rules));
    }
    let (_, sent) = ann.stop(socket);
    assert!(sent > 1_000, "{sent} datagrams");
    sleep(Duration::from_millis(300));
    let after = counters::classes(UPLINK);
    let got = after.class(&fast).packets - before.class(&fast).packets;
    assert_eq!(got, sent, "in the rule's class");
    let elsewhere = |id: &str| {
        let then = before.by_id.get(id).map_or(0, |class| class.packets);
        after.by_id.get(id).map_or(0, |class| class.packets - then)
    };
    // Neighbour discovery alone is nobody's.
    assert!(elsewhere("1:fffe") < 20, "{} in the default class", elsewhere("1:fffe"));
    assert_eq!(elsewhere(&classid("user/ann")), 0, "in her own class");
}

/// By the kernel's verifier, whatever it thinks of thousands of rules in one program.
fn the_largest_program_is_taken() {
    let _world = World::new();
    let networks = (0..999).map(|n| format!("'fd00:{n:x}::5-fd00:{n:x}::9'"));
    let networks = networks.collect::<Vec<_>>().join(", ");
    let different = (1..800).map(|n| match n % 4 {
        0 => format!("from: {{not: ann}}, dst: 10.1.{}.{}", n / 250, n % 250),
        1 => format!("vlan: {n}, dport: {n}"),
        2 => format!("src: 10.98.0.{}-10.98.0.{}, proto: udp, sport: {n}", n % 100, n % 100 + 7),
        _ => format!("from: bob, dport: {}-{}", n, n + 5),
    });
    let many = (1..1_000).map(|n| format!("from: bob, dst: 10.1.{}.{}", n / 250, n % 250));
    let first = format!("from: ann, dst: [{networks}]");
    exchange("of 4,000 ranges", std::iter::once(first).chain(different));
    exchange("of 1,000 rules", std::iter::once("vlan: 7".to_string()).chain(many));
}

/// Builds such a program, sees that it stands, and puts another in its place.
fn exchange(what: &str, rules: impl Iterator<Item = String>) {
    let mut text = String::from(
        "version: 1\nlinks: {up0: {rate: 100mbit}}\n\
         users: {ann: {ceil: 30mbit}, bob: {ceil: 20mbit}}\nrules:\n",
    );
    text.extend(rules.map(|rule| format!("  - {{{rule}, to: ann}}\n")));
    let begun = Instant::now();
    apply(&text);
    println!("{:?} for a program {what}", begun.elapsed());
    let begun = Instant::now();
    let again = apply(&text);
    assert!(again.stdout.contains("in sync"), "{}", again.stdout);
    println!("{:?} to see that it is in sync", begun.elapsed());
    let begun = Instant::now();
    apply(&text.replace("to: ann", "to: bob"));
    println!("{:?} to exchange it", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(60));
}

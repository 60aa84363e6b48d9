//! What `why` says of connections of units, of what `run` starts and of servers, beside where their
//! packets went.

use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use super::seen_connections::agrees;
use crate::support::accounts::{ANN, BOB, CAROL, ROOT};
use crate::support::actor::Actor;
use crate::support::counters::classes;
use crate::support::harness::{On, tests};
use crate::support::orders::{Order, Proto};
use crate::support::program::{apply, binary, classid, policy, shaper};
use crate::support::rates::{Interval, MBIT};
use crate::support::unit::Unit;
use crate::support::world::{Family, World};

tests!(On::Host =>
    why_says_where_the_packets_of_units_and_of_run_go,
    why_says_whose_a_servers_packets_are_before_it_has_answered
);

const IFB: &str = "ifb-up0";

const POLICY: &str = "
version: 1
links: {up0: {rate: 400mbit, down: 300mbit}}
users:
  ann: {ceil: 200mbit, down: 200mbit}
  bob: {ceil: 200mbit, down: 200mbit}
  served: {ceil: 100mbit, down: 100mbit, units: [UNIT]}
classes: {games: {ceil: 50mbit}, serving: {ceil: 50mbit}}
rules:
  - {dport: 40000, to: games}
  - {dport: 42000, from: served, to: serving}
";

/// A process of root's that `shaper run` has started in a user's class.
fn started(user: &str) -> Actor {
    let mut command = Command::new(binary());
    command.args(["run", user, "--"]);
    command.arg(std::env::current_exe().expect("this program")).arg("--actor");
    Actor::start(command)
}

fn why_says_where_the_packets_of_units_and_of_run_go() {
    let unit = Unit::new();
    let text = POLICY.replace("UNIT", &unit.name);
    let world = &mut World::new();
    let mut of_unit = [ROOT, ANN].map(|account| world.actor(account));
    for actor in &of_unit {
        unit.take(actor.pid());
    }
    apply(&text);
    let file = policy(&text);
    let ports = [40_000, 40_101, 42_000];
    for port in ports {
        world.far.tell(&Order::Echo(port));
    }
    for actor in &mut of_unit {
        let process = format!("pid:{}", actor.pid());
        for subject in [&process, &unit.name] {
            for port in ports {
                agrees(world, actor, subject, port, &file);
            }
        }
    }
    for user in ["ann", "served"] {
        let mut actor = started(user);
        let process = format!("pid:{}", actor.pid());
        for subject in [process.as_str(), user] {
            for port in ports {
                agrees(world, &mut actor, subject, port, &file);
            }
        }
    }
}

/// The class on the ifb of what the far side sends to this port of the host.
#[track_caller]
fn arrives_in(world: &mut World, family: Family, port: u16) -> String {
    let before = classes(IFB);
    let socket = world.far.socket(&Order::Datagram(world.host_at(family, port)));
    world.far.tell(&Order::Beat { socket, bytes: 1_000, bits_per_second: 4 * MBIT });
    sleep(Duration::from_millis(300));
    world.far.stop(socket);
    sleep(Duration::from_millis(50));
    let since = Interval::since(before, IFB);
    let seen = since.leaves();
    let of_all: u64 = seen.values().sum();
    let most = seen.into_iter().max_by_key(|(_, bytes)| *bytes).expect("a class");
    assert!(most.1 > 50_000 && most.1 * 100 >= of_all * 99, "{most:?} of {of_all}");
    most.0.to_string()
}

fn why_says_whose_a_servers_packets_are_before_it_has_answered() {
    let text = POLICY.replace("UNIT", "nothing-here.service");
    let mut world = World::new();
    let mut ann = world.actor(ANN);
    ann.sink(Proto::Udp, 7_000);
    // Bob's has his class, the other two have none.
    let mut others = [BOB, CAROL, ROOT].map(|account| world.actor(account));
    others[0].sink(Proto::Udp, 7_001);
    others[1].sink(Proto::Udp, 7_002);
    others[2].sink(Proto::Udp, 7_003);
    apply(&text);
    let file = policy(&text);
    for (port, whose) in [(7_000, "ann"), (7_001, "bob"), (7_002, ""), (7_003, ""), (7_004, "")] {
        for family in [Family::V4, Family::V6] {
            let went = arrives_in(&mut world, family, port);
            let (to, own) = (world.far_at(family, 9).to_string(), world.host_at(family, port));
            let words = ["why", &to, "--from", &own.to_string(), "--proto", "udp", "--json"];
            let answer = shaper(&[&words[..], &["-f", &file]].concat()).exits(0).json();
            let ways = answer["connection"].as_array().expect("ways");
            let arriving = ways.iter().find(|way| way["direction"] == "ingress");
            assert_eq!(arriving.expect("a way")["classid"], went.as_str(), "{own}: {answer}");
            match whose {
                "" => assert_eq!((&answer["claimed_by"], went.as_str()), (&().into(), "1:fffe")),
                user => assert_eq!(went, classid(&format!("user/{user}")), "{answer}"),
            }
        }
    }
    let words = ["why", "10.77.0.2:9", "--from", "10.77.0.1:7000", "--proto", "udp", "-f", &file];
    let said = shaper(&words).exits(0).stdout;
    assert!(said.contains("10.77.0.1:7000 is bound by a socket of that class"), "{said}");
    // The kernel is told of sockets by an apply where no daemon runs, and `why` says so.
    ann.sink(Proto::Udp, 7_005);
    assert_eq!(arrives_in(&mut world, Family::V4, 7_005), "1:fffe");
    let said =
        shaper(&words.map(|word| word.replace("7000", "7005")).each_ref().map(String::as_str));
    let said = said.exits(0).stdout;
    assert!(said.contains("users.ann") && said.contains("no daemon runs"), "{said}");
    apply(&text);
    assert_eq!(arrives_in(&mut world, Family::V4, 7_005), classid("user/ann"));
}

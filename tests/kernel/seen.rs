//! What `top` and `status` say of traffic, beside what its receiver saw.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::accounts::{ANN, BOB, CAROL, ROOT};
use crate::support::clock::{Micros, soon};
use crate::support::command::run;
use crate::support::counters::classes;
use crate::support::harness::{On, tests};
use crate::support::orders::{Order, Proto};
use crate::support::program::{apply, binary, shaper};
use crate::support::rates::{MBIT, between, within};
use crate::support::world::{Family, World};

tests!(On::Host =>
    what_top_says_agrees_with_the_receiver, status_names_the_connections_that_are_in_default
);

const POLICY: &str = "
version: 1
links: {up0: {rate: 100mbit, down: 50mbit}}
groups:
  both: {rate: 60mbit, down: 20mbit, users: [ann, bob]}
users:
  ann: {ceil: 20mbit, down: 10mbit}
  bob: {ceil: 20mbit, down: 10mbit}
";

/// The report of one direction of the uplink.
#[track_caller]
fn way<'r>(report: &'r Value, direction: &str) -> &'r Value {
    let links = report["links"].as_array().expect("links");
    let found = links.iter().find(|link| link["direction"] == direction);
    found.unwrap_or_else(|| panic!("no {direction} in {report}"))
}

/// The row of a user or group.
#[track_caller]
fn row<'r>(link: &'r Value, list: &str, name: &str) -> &'r Value {
    let key = if list == "groups" { "group" } else { "user" };
    let rows = link[list].as_array().expect("rows");
    rows.iter().find(|row| row[key] == name).unwrap_or_else(|| panic!("no {name} in {link}"))
}

#[track_caller]
fn bits(row: &Value) -> u64 {
    row["now_bit"].as_u64().unwrap_or_else(|| panic!("no rate now: {row}"))
}

fn status_names_the_connections_that_are_in_default() {
    let mut world = World::new();
    apply(POLICY);
    let port = world.sink(Proto::Tcp);
    let to = world.far_at(Family::V4, port);
    let before = classes("up0").by_id["1:fffe"].bytes;
    // Ann's go by their owner, wherever her process is; carol has no line, and root has none.
    let mut senders = Vec::from([ANN, CAROL, ROOT].map(|account| world.actor(account)));
    for sender in &mut senders {
        let socket = sender.connect(to);
        sender.tell(&Order::Send { socket, bytes: 48 << 10 });
    }
    let mut sshd = world.actor(ROOT);
    let listener = sshd.socket(&Order::Listen(world.host_at(Family::V4, 2222)));
    world.far.connect(world.host_at(Family::V4, 2222));
    sshd.socket(&Order::Accept(listener));
    senders[2].socket(&Order::Datagram(world.far_at(Family::V6, 53)));
    // By a link that nobody shapes.
    run(&format!("ip link add side0 type veth peer name side1 netns {}", world.far.pid()));
    run("ip addr add 10.78.0.1/24 dev side0");
    run("ip link set side0 up");
    world.on_far("ip addr add 10.78.0.2/24 dev side1");
    world.on_far("ip link set side1 up");
    let beside = SocketAddr::from(([10, 78, 0, 2], port));
    for account in [ROOT, CAROL] {
        senders.push(world.actor(account));
        senders.last_mut().expect("the last").connect(beside);
    }
    let row = |uid: u32, (proto, side, port): (&str, &str, u16), sent: Option<u64>| {
        let mut row = json!({
            "uid": uid, "user": if uid == 0 { "root" } else { "carol" }, "proto": proto,
            "side": side, "port": port, "connections": 1,
        });
        if let Some(sent) = sent {
            row["sent_bytes"] = sent.into();
        }
        row
    };
    let wanted = [
        row(0, ("tcp", "client", port), Some(48 << 10)),
        row(CAROL.uid, ("tcp", "client", port), Some(48 << 10)),
        row(0, ("tcp", "server", 2222), Some(0)),
        row(0, ("udp", "client", 53), None),
    ];
    let connections =
        || shaper(&["status", "--json"]).exits(0).json()["default_connections"].clone();
    soon("all is sent", Duration::from_secs(10), || connections() == Value::from(wanted.to_vec()));
    let sent = classes("up0").by_id["1:fffe"].bytes - before;
    assert!((96 << 10..110 << 10).contains(&sent), "root's and carol's alone: {sent}");
    let said = shaper(&["status"]).exits(0).stdout;
    let line = format!(
        "connections in (default): 1 of root to TCP port {port}, which sent 48KiB; 1 of carol to "
    );
    assert!(said.contains(&line), "{said}");
    // A rule's connections are in its class.
    apply(&format!("{POLICY}rules: [{{dport: {port}, to: ann}}]\n"));
    assert_eq!(connections(), Value::from(wanted[2..].to_vec()));
}

fn what_top_says_agrees_with_the_receiver() {
    let mut world = World::new();
    apply(POLICY);
    // More than ann may send, from more sockets than her queue has room for; less than bob may.
    let ann = [0; 3].map(|_| world.beating(ANN, Family::V4, 10 * MBIT));
    let bob = world.beating(BOB, Family::V4, 8 * MBIT);
    let mut download = world.downloading(BOB, Family::V4);
    apply(POLICY);
    std::thread::sleep(Duration::from_secs(1));
    let began = Micros::now();
    let top = shaper(&["top", "--once", "--json", "--interval", "5"]).exits(0).json();
    let ended = Micros::now();
    assert!((5_000..5_500).contains(&top["interval_ms"].as_u64().unwrap_or(0)), "{top}");
    // A datagram of 1,000 bytes has 42 bytes of headers, a TCP segment of 1,448 bytes 66.
    let up = way(&top, "egress");
    let ports = [("ann", ann.each_ref().map(|it| it.port).to_vec()), ("bob", vec![bob.port])];
    for (name, ports) in ports {
        let mut rate = |port| world.far.seen(Proto::Udp, port).rate(began, ended);
        let seen = ports.into_iter().map(&mut rate).sum::<u64>() * 1_042 / 1_000;
        within(&format!("what {name} sends"), bits(row(up, "users", name)), seen, 2);
    }
    let seen = download.seen().rate(began, ended) * 1_514 / 1_448;
    let down = way(&top, "ingress");
    within("what bob gets", bits(row(down, "users", "bob")), seen, 2);
    // The group and the link have all of it.
    let both = bits(row(up, "groups", "both"));
    within("the group", both, bits(row(up, "users", "ann")) + bits(row(up, "users", "bob")), 1);
    within("the link", bits(up), both, 1);
    let capped = row(up, "users", "ann");
    assert!((98..=102).contains(&capped["of_ceil_percent"].as_u64().unwrap_or(0)), "{capped}");
    assert!(capped["drops_per_1000_seconds"].as_u64() > Some(0), "{capped}");
    between("her queue in ms", capped["queue_ms"].as_u64().unwrap_or(0), 1, 100);
    let free = row(up, "users", "bob");
    assert_eq!(free["drops_per_1000_seconds"], 0, "{free}");
    assert_eq!((&capped["processes"], &free["processes"]), (&3.into(), &2.into()));
    // From one reading to the next, too: the list of what leaves have dropped is read again.
    let mut live = Command::new(binary())
        .args(["top", "--json", "--interval", "0.4"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("start top");
    let lines = BufReader::new(live.stdout.take().expect("its lines")).lines();
    let reports = lines.take(4).map(|line| {
        let report: Value = serde_json::from_str(&line.expect("a line")).expect("JSON");
        let ann = row(way(&report, "egress"), "users", "ann");
        (ann["drops"].as_u64().expect("drops"), ann["sent_packets"].as_u64().expect("packets"))
    });
    let reports: Vec<(u64, u64)> = reports.collect();
    let _ = (live.kill(), live.wait());
    let grow = reports.windows(2).all(|two| two[0].0 < two[1].0 && two[0].1 < two[1].1);
    assert!(grow, "her queue drops all the time: {reports:?}");
    // For scripts.
    let passed = |percent: &str| {
        shaper(&["top", "--once", "--interval", "1", "--exit-over", percent]).status
    };
    assert_eq!((passed("90%"), passed("110%")), (Some(3), Some(0)));
}

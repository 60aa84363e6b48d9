//! What `status` and `why` say of guests, beside whose packets theirs are.

use serde_json::{Value, json};

use super::seen_connections::agrees;
use crate::support::behind::{Guest, bridge};
use crate::support::command::run;
use crate::support::counters::classes;
use crate::support::harness::{On, tests};
use crate::support::orders::Order;
use crate::support::program::{apply, classid, policy, shaper};
use crate::support::world::{Family, World};

tests!(On::Host =>
    status_shows_whose_guests_are_here, why_says_whose_a_guest_is_in_the_kernel_and_in_the_file,
        why_says_where_the_packets_of_a_guest_go
);

const POLICY: &str = "
version: 1
links: {up0: {rate: 400mbit, down: 300mbit}}
users:
  ann: {ceil: 200mbit, down: 200mbit, accounts: [ann], interfaces: [\"vc*\"]}
  bob: {ceil: 200mbit, down: 200mbit, accounts: [], namespaces: [routerns]}
  vpn: {ceil: 200mbit, accounts: [], interfaces: [vpn0], addresses: [10.99.0.7]}
classes: {anns: {ceil: 50mbit}, games: {ceil: 50mbit}}
rules:
  - {dport: 42000, from: ann, to: anns}
  - {dport: 40000, to: games}
";

/// A guest of ann's, one of bob's in a namespace with a name, a client of a VPN, and one that
/// nobody has.
struct Guests {
    world: World,
    ann: Guest,
    bob: Guest,
    _client: Guest,
    nobody: Guest,
}

impl Guests {
    fn shaped() -> Guests {
        let world = World::new();
        bridge(&world);
        let (ann, bob) = (Guest::in_bridge("vc1", 2), Guest::in_bridge("vr0", 3));
        let nobody = Guest::in_bridge("vx1", 4);
        run(&format!("ip netns attach routerns {}", bob.actor.pid()));
        let mut client = Guest::without_link(7);
        client.tunnel(&world, "vpn0");
        apply(POLICY);
        Guests { world, ann, bob, _client: client, nobody }
    }

    /// The classes of what leaves that count what a guest's pings send.
    #[track_caller]
    fn classes(world: &World, guest: &mut Guest) -> Vec<String> {
        guest.ping(world, Family::V4, 1, 56);
        let before = classes("up0");
        guest.ping(world, Family::V4, 20, 1_000);
        let after = classes("up0");
        let grew = after.by_id.iter().filter(|(id, class)| {
            let sent = class.bytes - before.by_id.get(*id).map_or(0, |class| class.bytes);
            sent > 15_000 && *id != "1:1"
        });
        grew.map(|(id, _)| id.clone()).collect()
    }
}

fn row<'r>(report: &'r Value, user: &str) -> &'r Value {
    let rows = report["links"][0]["users"].as_array().expect("rows");
    rows.iter().find(|row| row["user"] == user).unwrap_or_else(|| panic!("{user} in {report}"))
}

fn status_shows_whose_guests_are_here() {
    let mut guests = Guests::shaped();
    let report = shaper(&["status", "--json"]).exits(0).json();
    let link = |name: &str, by: &str| json!({"kind": "link", "name": name, "link": name, "by": by});
    assert_eq!(row(&report, "ann")["guests"], json!([link("vc1", "line")]));
    let of_bob = json!([{
        "kind": "namespace", "name": "routerns", "link": "vr0", "namespace": "routerns", "by": "line",
    }]);
    assert_eq!(row(&report, "bob")["guests"], of_bob);
    let of_vpn = json!([{"kind": "address", "name": "10.99.0.7/32", "link": "vpn0", "by": "line"}]);
    assert_eq!(row(&report, "vpn")["guests"], of_vpn);
    let unowned = |name: &str| json!({"kind": "link", "name": name, "link": name});
    // By the second the client's own packets arrive, in which those of its tunnel are.
    let nobodys = json!([unowned("vx1"), unowned("wire0")]);
    assert_eq!(report["links"][0]["default"]["guests"], nobodys);
    // And so it is.
    let Guests { world, ann, bob, nobody, .. } = &mut guests;
    for (guest, user) in [(ann, "ann"), (bob, "bob")] {
        assert_eq!(Guests::classes(world, guest), [classid(&format!("user/{user}"))], "{user}");
    }
    assert_eq!(Guests::classes(world, nobody), ["1:fffe"]);
    let table = shaper(&["status"]).exits(0).stdout;
    for line in [
        "ann has 1 guest; -v says which",
        "2 guests that nobody owns, in (default): vx1, wire0; for whom a line is: `interfaces: [vx1]`",
    ] {
        assert!(table.lines().any(|it| it == line), "{line:?} in {table}");
    }
    let own = shaper(&["status", "bob"]).exits(0).stdout;
    let said =
        "guests of bob:\n  network namespace routerns by vr0: a line of the policy names it\n";
    assert!(own.ends_with(said), "{own}");
    // Whose they are is in the kernel: a policy that is gone says no more than how it was known.
    std::fs::remove_file(format!("{}/policies.yaml", crate::support::cell::SCRATCH)).expect("rm");
    let report = shaper(&["status", "--json"]).exits(0).json();
    assert_eq!(row(&report, "ann")["guests"], json!([unowned("vc1")]));
}

/// The document of `why`.
#[track_caller]
fn why(subject: &str, text: &str) -> Value {
    shaper(&["why", subject, "--json", "--file", &policy(text)]).exits(0).json()
}

fn notes(answer: &Value) -> String {
    let notes = answer["notes"].as_array().expect("notes");
    notes.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
}

fn why_says_whose_a_guest_is_in_the_kernel_and_in_the_file() {
    let mut guests = Guests::shaped();
    let Guests { world, ann, bob, nobody, .. } = &mut guests;
    for (guest, subjects, user) in
        [(ann, vec!["vc1", "guest:vc1"], "ann"), (bob, vec!["routerns", "vr0"], "bob")]
    {
        let went = Guests::classes(world, guest);
        for subject in subjects {
            let answer = why(subject, POLICY);
            assert_eq!(went, [answer["classid"].as_str().expect("a class")], "{answer}");
            assert_eq!(answer["claimed_by"], format!("users.{user}"), "{answer}");
            assert_eq!(answer["comes_in_by"], json!([if user == "ann" { "vc1" } else { "vr0" }]));
            assert_eq!(answer["links"][0]["in_force"]["ceil_bit"], 200_000_000, "{answer}");
        }
    }
    assert_eq!(Guests::classes(world, nobody), ["1:fffe"]);
    let answer = why("vx1", POLICY);
    assert!(answer["claimed_by"].is_null() && answer["classid"].is_null(), "{answer}");
    assert!(notes(&answer).contains("`interfaces: [vx1]`"), "{answer}");
    // A client of the VPN's.
    let answer = why("10.99.0.7", POLICY);
    assert_eq!(answer["classid"], classid("user/vpn").as_str(), "{answer}");
    // The kernel goes before the file.
    let other = POLICY.replace("[\"vc*\"]", "[vx1]").replace("ceil: 200mbit", "ceil: 100mbit");
    let answer = why("vc1", &other);
    assert_eq!(answer["classid"], classid("user/ann").as_str(), "{answer}");
    assert!(notes(&answer).contains("the file says nobody's: apply has not run"), "{answer}");
    let said = shaper(&["why", "ann", "--file", &policy(&other)]).exits(0).stdout;
    let line = "ceil 200mbit in force (the file says 100mbit: apply has not run since)";
    assert!(said.contains(line), "{said}");
    assert!(notes(&why("vx1", &other)).contains("no label of that owner yet"));
    // Other subjects, by the kernel's numbers.
    let class = classid("user/bob");
    let answer = why(&class, POLICY);
    assert_eq!((&answer["claimed_by"], &answer["classid"]), (&json!("users.bob"), &json!(class)));
    for (word, class) in [("default", "1:fffe"), ("unshaped", "1:fffd")] {
        let answer = why(word, POLICY);
        assert_eq!(answer["classid"], class, "{answer}");
        assert!(answer["links"][0]["in_force"]["ceil_bit"].as_u64() > Some(0), "{answer}");
    }
    let none = shaper(&["why", "1:7777", "--file", &policy(POLICY)]);
    assert_eq!(
        (none.status, none.stderr.as_str()),
        (Some(2), "error: no class 1:7777 is shaper's here\n")
    );
    let near = shaper(&["why", "guest:routers", "--file", &policy(POLICY)]);
    assert!(near.stderr.contains("(did you mean routerns?)"), "{}", near.stderr);
}

fn why_says_where_the_packets_of_a_guest_go() {
    let mut guests = Guests::shaped();
    let Guests { world, ann, bob, nobody, .. } = &mut guests;
    let file = policy(POLICY);
    let ports = [40_000, 40_101, 42_000];
    for port in ports {
        world.far.tell(&Order::Echo(port));
    }
    for (guest, subject) in [(ann, "vc1"), (bob, "routerns"), (nobody, "vx1")] {
        for port in ports {
            agrees(world, &mut guest.actor, subject, port, &file);
        }
    }
}

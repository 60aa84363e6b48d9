//! A window that begins and ends while users send: the daemon switches in time, and no packet is
//! lost.

use std::time::Duration;

use shaper::times::{TimeZone, Timestamp};

use super::beside;
use crate::support::accounts::{ANN, BOB, DAVE};
use crate::support::clock::soon;
use crate::support::counters::{self, Class};
use crate::support::daemon::Daemon;
use crate::support::harness::{On, tests};
use crate::support::program::{classid, policy, shaper};
use crate::support::rates::{MBIT, expect};
use crate::support::world::{Family, UPLINK, World};

tests!(
    // When the daemon switches does not depend on the kernel.
    On::Host => a_window_begins_and_ends_while_users_send;
);

/// How late a switch may be, beside what a busy machine takes.
const LATE: Duration = Duration::from_secs(3);

fn a_window_begins_and_ends_while_users_send() {
    let mut world = World::new();
    let now = Timestamp::now().as_second();
    let moment = |second: i64| Timestamp::from_second(second).expect("a moment");
    let (begin, end) = (moment(now + 12), moment(now + 22));
    let clock =
        |at: Timestamp| at.to_zoned_datetime(TimeZone::UTC).strftime("%H:%M:%S").to_string();
    let file = policy(&format!(
        "
version: 1
links: {{up0: {{rate: 100mbit, default: {{rate: 5mbit, ceil: 50mbit}}}}}}
times: {{short: {{at: \"{}-{}\", tz: UTC}}}}
users:
  ann: {{ceil: 30mbit, when: {{short: {{ceil: 8mbit}}}}}}
  bob: 30mbit
groups:
  students: {{gid: students, ceil: 20mbit, when: {{short: {{ceil: 6mbit}}}}}}
",
        clock(begin),
        clock(end)
    ));
    let _dave = world.actor(DAVE);
    let daemon = Daemon::start(&["watch", &file]);
    let _ann = world.pouring(ANN, Family::V4);
    let mut bob = world.beating(BOB, Family::V4, 2 * MBIT);
    let [of_ann, of_bob] = ["user/ann", "user/bob"].map(classid);
    let ann = || -> Class { counters::classes(UPLINK).class(&of_ann).clone() };
    soon("both send in their classes", Duration::from_secs(8), || {
        ann().bytes > 0 && counters::classes(UPLINK).class(&of_bob).bytes > 0
    });
    let before = ann();
    assert_eq!(before.ceil, 30 * MBIT, "the window begins at {begin}, it is {}", Timestamp::now());
    let in_window = begin.to_string();
    // What will hold is known before.
    let plan = ["plan", &file, "--exit-code", "-q", "--at"];
    shaper(&[&plan[..], &[in_window.as_str()]].concat()).exits(3);
    shaper(&["plan", &file, "--exit-code", "-q"]).exits(0);

    soon("the window has begun", Duration::from_secs(30), || ann().ceil == 8 * MBIT);
    let now = Timestamp::now();
    println!("begun {} after its moment", now.duration_since(begin));
    assert!(now >= begin && now.duration_since(begin).unsigned_abs() < LATE, "{now}, not {begin}");
    expect(UPLINK, Duration::from_millis(1_500), &[(&[&of_ann], 8 * MBIT, 5)]);
    let status = beside(&["status", "ann", "--json"]).exits(0).json();
    let limit = &status["links"][0]["users"][0]["limit"];
    assert_eq!((&limit["by"], &limit["why"]), (&"when".into(), &"short".into()), "{status}");
    let until: Timestamp = limit["until"].as_str().expect("until").parse().expect("a moment");
    assert_eq!(until, end);
    let said = beside(&["why", "ann", "--file", &file]).exits(0).stdout;
    assert!(said.contains("ceil 8mbit (of the window short, until "), "{said}");
    let table = beside(&["status"]).exits(0).stdout;
    assert!(
        table.contains("the window short holds until ") && table.contains(", for ann\n"),
        "{table}"
    );
    // An account of the group writes no cap of its own.
    let dave = DAVE.uid.to_string();
    let said = beside(&["why", &dave, "--file", &file]).exits(0).stdout;
    assert!(said.contains("ceil 6mbit (of the window short of group students, until "), "{said}");
    let status = beside(&["status", "--json"]).exits(0).json();
    let users = status["links"][0]["users"].as_array().expect("users");
    let dave = users.iter().find(|user| user["uid"] == DAVE.uid).expect("a row");
    assert_eq!(dave["limit"]["of"], "group students", "{status}");
    assert!(table.contains(", for [students], and so for dave\n"), "{table}");

    soon("the window has ended", Duration::from_secs(30), || ann().ceil == 30 * MBIT);
    let now = Timestamp::now();
    println!("ended {} after its moment", now.duration_since(end));
    assert!(now >= end && now.duration_since(end).unsigned_abs() < LATE, "{now}, not {end}");
    expect(UPLINK, Duration::from_millis(1_500), &[(&[&of_ann], 30 * MBIT, 5)]);

    // The classes were changed where they stand: their counters went on, and nobody lost a packet.
    assert!(ann().bytes > before.bytes);
    assert!(world.finish_beating(&mut bob).packets > 1_000);
    assert_eq!(counters::classes(UPLINK).class(&of_bob).drops, 0);
    assert!(!daemon.log().contains("changed what stands"), "{}", daemon.log());
    assert!(daemon.end().success());
}

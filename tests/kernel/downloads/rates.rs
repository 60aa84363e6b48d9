//! Caps, guarantees and borrowing of what arrives. More caps are measured in `make bench`.

use std::thread::sleep;
use std::time::Duration;

use crate::support::accounts::{ANN, Account, BOB, CAROL};
use crate::support::goodput::{self, Packets};
use crate::support::harness::{On, tests};
use crate::support::program::{apply, classid, shaper};
use crate::support::rates::{self, MBIT, within};
use crate::support::world::{Family, UPLINK, World};

tests!(
    On::Host => downloads_are_as_fast_as_their_cap,
        a_full_link_is_shared_as_if_it_were_sent;
);

fn downloads_are_as_fast_as_their_cap() {
    const TRIES: u32 = 3;
    let mut world = World::new();
    for (mbit, connections, packets) in
        [(10, 8, Packets::OfTheMtu), (100, 1, Packets::OfTheMtu), (400, 8, Packets::Large)]
    {
        goodput::send(&world, packets);
        let what = format!("{mbit} Mbit, {connections} connections, {packets:?}");
        for left in (0..TRIES).rev() {
            // Anew, so that no queue of the one before is left.
            shaper(&["clear", "-q"]).exits(0);
            apply(&format!(
                "version: 1\nlinks: {{up0: {{rate: 2gbit, down: 2gbit}}}}\n\
                 users: {{ann: {{ceil: 2gbit, down: {mbit}mbit}}}}\n"
            ));
            let rate = goodput::downloads(&mut world, ANN, connections, Duration::from_secs(2));
            // A machine that is busy is slow; a wrong rate is always slow.
            if left > 0 && rate < mbit * MBIT * 98 / 100 {
                println!("{what}: {rate} bit/s, once more");
                continue;
            }
            within(&what, rate, mbit * MBIT, 2);
            break;
        }
    }
}

/// What comes fills the wire: 100 Mbit/s, of which the host has 95 for its classes.
fn a_full_link_is_shared_as_if_it_were_sent() {
    const RATE: u64 = 95 * MBIT;
    const PEOPLE: [(&str, Account); 3] = [("ann", ANN), ("bob", BOB), ("carol", CAROL)];
    let mut world = World::new();
    world.on_far("tc qdisc add dev far0 root tbf rate 100mbit burst 64k latency 50ms");
    let both = |limits: &str| format!("{{{limits}, down: {{{limits}}}}}");
    let users = [
        ("ann", "rate: 45mbit, ceil: 50mbit"),
        ("bob", "rate: 20mbit, ceil: 95mbit"),
        ("carol", "rate: 10mbit, ceil: 95mbit"),
    ];
    let lines = users.map(|(name, limits)| format!("  {name}: {}\n", both(limits)));
    apply(&format!(
        "version: 1\nlinks: {{up0: {{rate: 95mbit, down: 95mbit, default: {{rate: 1mbit}}}}}}\n\
         users:\n{}",
        lines.concat()
    ));
    let shares = |link: &str| {
        sleep(Duration::from_secs(2));
        let interval = rates::expect(link, Duration::from_secs(2), &[(&["1:1"], RATE, 2)]);
        PEOPLE.map(|(name, _)| interval.rate(&classid(&format!("user/{name}"))))
    };
    let sent = {
        let mut streams = PEOPLE.map(|(_, account)| world.pouring(account, Family::V4));
        let all = shares(UPLINK);
        let ann = streams[0].socket;
        streams[0].actor.stop(ann);
        [all, shares(UPLINK)]
    };
    // What the streams have queued leaves.
    sleep(Duration::from_secs(1));
    let received = {
        let mut downloads = PEOPLE.map(|(_, account)| Some(world.downloading(account, Family::V4)));
        let all = shares("ifb-up0");
        drop(downloads[0].take());
        [all, shares("ifb-up0")]
    };
    for (phase, (sent, received)) in sent.into_iter().zip(received).enumerate() {
        for (((name, _), sent), received) in PEOPLE.into_iter().zip(sent).zip(received) {
            println!("{phase} {name}: sends {sent}, receives {received} bit/s");
            let off = sent.abs_diff(received);
            assert!(off * 100 <= RATE * 5, "{name} sends {sent} and receives {received} bit/s");
        }
    }
}

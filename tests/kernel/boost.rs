//! A volume that may pass above the cap after a pause (`boost`): so much and no more, once for each
//! pause, and nothing for whoever logs in anew.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::accounts::{ANN, CAROL};
use crate::support::clock::{Micros, soon};
use crate::support::counters::classes;
use crate::support::harness::{On, tests};
use crate::support::program::{apply, classid, directory, policy, shaper};
use crate::support::rates::{self, MBIT};
use crate::support::world::{Family, UPLINK, World};

tests!(
    On::HostAndUml => who_logs_in_anew_has_saved_up_nothing;
    // What a slow machine begins to send late, its boost does not wait for.
    On::Host => a_boost_passes_once_after_a_pause_and_then_the_cap_holds, a_group_and_what_arrives_have_boosts_of_their_own;
    On::Nightly => the_largest_boost_takes_a_minute_of_silence;
);

const CEIL: u64 = 8 * MBIT;
/// What four seconds at that cap are.
const BOOST: u64 = 4_000_000;
/// Of a pause in which all of it is saved up.
const PAUSE: Duration = Duration::from_millis(4_500);

const IFB: &str = "ifb-up0";

/// What of a boost a user has who sends at any rate from the start: bytes at the parent's rate, and
/// what his cap lets through meanwhile. Waits until so many bytes have passed.
fn passes(link: &str, id: &str, boost: u64) {
    let before = classes(link);
    let sent = || rates::Interval::since(before.clone(), link);
    // At the cap alone it would take four seconds and more.
    soon("the boost has passed", Duration::from_millis(boost * 8 / (CEIL / 1_000) / 2), || {
        sent().bytes(id) >= boost
    });
    sleep(Duration::from_secs(2));
    let all = sent();
    let time = all.after.at.since(all.before.at);
    let at_the_cap = CEIL / 8 * time / 1_000_000;
    let above = all.bytes(id).saturating_sub(at_the_cap);
    println!("{above} bytes above the cap in {time} us");
    assert!(above <= boost * 102 / 100 + 100_000, "{above} bytes above the cap, of {boost}");
    assert!(above >= boost * 90 / 100, "{above} bytes above the cap, of {boost}");
}

/// Nothing differs in what stands, after the kernel has rounded it.
fn is_in_sync(file: &str) {
    shaper(&["plan", "--exit-code", file]).exits(0);
}

fn a_boost_passes_once_after_a_pause_and_then_the_cap_holds() {
    let mut world = World::new();
    let text = |ceil: u64| {
        format!(
            "version: 1\nlinks: {{up0: 100mbit}}\nusers: {{ann: {{ceil: {ceil}mbit, boost: 4MB}}}}\n"
        )
    };
    let first = apply(&text(8));
    assert!(first.stdout.contains("+ ann 8mbit boost 4MB\n"), "{}", first.stdout);
    is_in_sync(&policy(&text(8)));
    let of_ann = classid("user/ann");
    let mut stream = world.stream(ANN, Family::V4);
    sleep(PAUSE);
    stream.actor.pour(stream.socket);
    passes(UPLINK, &of_ann, BOOST);
    rates::expect(UPLINK, Duration::from_secs(4), &[(&[&of_ann], CEIL, 2)]);

    // Another cap, by a change in place, gives nothing back of what is used up.
    let other = apply(&text(16));
    assert!(other.stdout.contains("~ ann 8mbit → 16mbit\n"), "{}", other.stdout);
    is_in_sync(&policy(&text(16)));
    rates::expect(UPLINK, Duration::from_secs(3), &[(&[&of_ann], 16 * MBIT, 2)]);
    apply(&text(8));
    sleep(Duration::from_millis(500));
    rates::expect(UPLINK, Duration::from_secs(3), &[(&[&of_ann], CEIL, 2)]);

    let row = &shaper(&["status", "--json"]).exits(0).json()["links"][0]["users"][0];
    assert_eq!(row["boost_bytes"], BOOST, "{row}");
    let why = shaper(&["why", "ann", "--file", &policy(&text(8))]).exits(0).stdout;
    assert!(why.contains("ceil 8mbit, boost 4MB"), "{why}");
    let without = apply(&text(8).replace(", boost: 4MB", ""));
    assert!(without.stdout.contains("~ ann boost 4MB → none\n"), "{}", without.stdout);
}

fn who_logs_in_anew_has_saved_up_nothing() {
    let mut world = World::new();
    let text = "version: 1\nlinks: {up0: 100mbit}\neveryone: {each: {ceil: 8mbit, boost: 4MB}}\n";
    let claim = format!("uid/{}", CAROL.uid);
    let mut ids = Vec::new();
    for _ in 0..2 {
        let mut stream = world.stream(CAROL, Family::V4);
        let began = Instant::now();
        apply(text);
        is_in_sync(&policy(text));
        let of_carol = classid(&claim);
        stream.actor.pour(stream.socket);
        sleep(Duration::from_secs(2));
        let sent = classes(UPLINK).class(&of_carol).bytes;
        let cap = (CEIL / 8) as u128 * began.elapsed().as_millis() / 1_000;
        println!("{sent} bytes since the class was made, of {cap} at the cap");
        assert!(
            u128::from(sent) <= cap * 102 / 100 + 100_000,
            "{sent} bytes, and {cap} at the cap"
        );
        assert!(u128::from(sent) >= cap / 2, "{sent} bytes, and {cap} at the cap");
        ids.push(of_carol);
        // She has all of it again when she logs out.
        stream.actor.stop(stream.socket);
        sleep(PAUSE);
        drop(stream);
        soon("her class goes", Duration::from_secs(20), || {
            apply(text);
            !directory(&claim).exists()
        });
        soon("it has drained", Duration::from_secs(20), || {
            apply(text);
            !classes(UPLINK).by_id.contains_key(ids.last().expect("hers"))
        });
    }
}

fn a_group_and_what_arrives_have_boosts_of_their_own() {
    let mut world = World::new();
    let text = "version: 1\nlinks: {up0: {rate: 100mbit, down: 100mbit}}\n\
                users:\n  ann: {ceil: 90mbit, down: {ceil: 8mbit, boost: 4MB}}\n  \
                carol: {ceil: 8mbit, boost: 4MB}\n\
                groups: {g: {ceil: 8mbit, boost: 4MB, users: [carol]}}\n";
    apply(text);
    is_in_sync(&policy(text));
    let of_ann = classid("user/ann");
    let group = classid("group/g");
    sleep(PAUSE);
    let mut download = world.downloading(ANN, Family::V4);
    passes(IFB, &of_ann, BOOST);
    let from = Micros::now();
    rates::expect(IFB, Duration::from_secs(4), &[(&[&of_ann], CEIL, 2)]);
    let payload = download.seen().rate(from, Micros::now());
    rates::between("what ann receives", payload, CEIL * 90 / 100, CEIL);
    let _carol = world.pouring(CAROL, Family::V4);
    passes(UPLINK, &group, BOOST);
    rates::expect(UPLINK, Duration::from_secs(3), &[(&[&group], CEIL, 2)]);
}

fn the_largest_boost_takes_a_minute_of_silence() {
    let mut world = World::new();
    let text =
        "version: 1\nlinks: {up0: 100mbit}\nusers: {ann: {ceil: 8mbit, boost: 60MB}, bob: 8mbit}\n";
    apply(text);
    is_in_sync(&policy(text));
    let of_ann = classid("user/ann");
    let mut stream = world.stream(ANN, Family::V4);
    sleep(Duration::from_secs(61));
    stream.actor.pour(stream.socket);
    passes(UPLINK, &of_ann, 60_000_000);
    rates::expect(UPLINK, Duration::from_secs(5), &[(&[&of_ann], CEIL, 2)]);
}

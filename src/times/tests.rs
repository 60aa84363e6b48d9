//! Windows over all zones of the system's database, against a clock that is read second by second
//! (or minute by minute).

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, tz};
use proptest::prelude::*;

use super::{Days, Hours, Window};

fn window(days: &str, hours: &str) -> Window {
    Window { days: Days::parse(days).unwrap(), hours: vec![Hours::parse(hours).unwrap()] }
}

fn berlin() -> TimeZone {
    TimeZone::get("Europe/Berlin").unwrap()
}

fn at(zone: &TimeZone, text: &str) -> Timestamp {
    zone.to_timestamp(text.parse::<DateTime>().unwrap()).unwrap()
}

#[test]
fn what_texts_mean() {
    assert!(Days::parse("fri-mon").unwrap().has(jiff::civil::Weekday::Sunday));
    assert!(!Days::parse("fri-mon").unwrap().has(jiff::civil::Weekday::Tuesday));
    assert_eq!(Days::parse("mon-sun"), Some(Days::ALL));
    assert_eq!(Days::parse("wed-wed"), Days::parse("wed"));
    for none in ["", "monday", "mon-", "-", "mon-fri-sat", "1-5"] {
        assert_eq!(Days::parse(none), None, "{none}");
    }
    assert_eq!(Hours::parse("0:00-24:00"), Some(Hours::ALL));
    assert_eq!(Hours::parse("00:00-00:00"), None);
    assert_eq!(Hours::parse("22:00-24:00"), Hours::parse("22:00:00 - 0:00"));
    for none in [
        "",
        "22:00",
        "22-06",
        "22:00-22:00",
        "24:00-06:00",
        "25:00-06:00",
        "22:60-23:00",
        "22:0-23:00",
        "+2:00-03:00",
        "1:2:3:4-5:00",
        "22:00–06:00",
        "24:00:01-01:00",
    ] {
        assert_eq!(Hours::parse(none), None, "{none}");
    }
}

#[test]
fn a_night_belongs_to_the_day_on_which_it_begins() {
    let (window, zone) = (window("fri", "22:00-06:00"), berlin());
    // 2026-11-27 is a Friday.
    let holds = |text| window.holds(&zone, at(&zone, text));
    assert!(!holds("2026-11-27T05:00") && !holds("2026-11-27T21:59:59"));
    assert!(holds("2026-11-27T22:00") && holds("2026-11-28T05:59:59"));
    assert!(!holds("2026-11-28T06:00") && !holds("2026-11-28T23:00"));
    let next = |text| window.next_change(&zone, at(&zone, text)).unwrap();
    assert_eq!(next("2026-11-27T05:00"), at(&zone, "2026-11-27T22:00"));
    assert_eq!(next("2026-11-27T22:00"), at(&zone, "2026-11-28T06:00"));
    assert_eq!(next("2026-11-28T06:00"), at(&zone, "2026-12-04T22:00"));
    let always = Window { days: Days::ALL, hours: vec![Hours::ALL] };
    assert_eq!(always.next_change(&zone, at(&zone, "2026-11-28T06:00")), None);
}

/// On 2026-03-29 clocks in Berlin go from 02:00 to 03:00, on 2026-10-25 from 03:00 to 02:00.
#[test]
fn a_skipped_hour_is_no_window_and_a_doubled_one_counts_twice() {
    let zone = berlin();
    let next = |window: &Window, from: &str| {
        let next = window.next_change(&zone, from.parse().unwrap()).unwrap();
        next.to_string()
    };
    let spring = window("mon-sun", "02:30-04:00");
    assert_eq!(next(&spring, "2026-03-28T23:00:00Z"), "2026-03-29T01:00:00Z", "03:00, the next");
    assert_eq!(next(&spring, "2026-03-29T01:00:00Z"), "2026-03-29T02:00:00Z");
    let within = window("mon-sun", "02:15-02:45");
    assert_eq!(next(&within, "2026-03-28T23:00:00Z"), "2026-03-30T00:15:00Z", "a day later");
    let weekly = window("sun", "02:15-02:45");
    assert_eq!(next(&weekly, "2026-03-23T00:00:00Z"), "2026-04-05T00:15:00Z", "a week later");
    let autumn = window("mon-sun", "02:00-02:30");
    let changes =
        ["00:00:00", "00:30:00", "01:00:00", "01:30:00"].map(|it| format!("2026-10-25T{it}Z"));
    assert_eq!(next(&autumn, "2026-10-24T20:00:00Z"), changes[0]);
    for pair in changes.windows(2) {
        assert_eq!(next(&autumn, &pair[0]), pair[1]);
    }
}

/// A clock may show anything, and so may `plan --at`.
#[test]
fn at_both_ends_of_time_a_window_has_an_answer() {
    let windows = [window("mon-sun", "22:00-06:00"), window("sun", "02:15-02:45")];
    let (first, last) = (Timestamp::MIN, Timestamp::MAX);
    let ends = [first, first + 1.hours(), last - 1.hours(), last];
    for zone in zones() {
        for (window, after) in windows.iter().flat_map(|it| ends.map(|end| (it, end))) {
            let next = window.next_change(&zone, after);
            assert!(next.is_none_or(|next| next > after), "{:?} {after}", zone.iana_name());
            assert!(next.is_some() || after > ends[1], "{:?} {after}", zone.iana_name());
        }
    }
}

/// All zones of the database of this machine.
fn zones() -> Vec<TimeZone> {
    let names = tz::db().available();
    let zones: Vec<TimeZone> = names.filter_map(|name| TimeZone::get(name.as_str()).ok()).collect();
    assert!(zones.len() > 300, "the package tzdata is needed: {} zones", zones.len());
    zones
}

/// The moment of the first change that stepping by minutes meets, within this many days.
fn stepped(window: &Window, zone: &TimeZone, after: Timestamp, days: i64) -> Option<Timestamp> {
    let now = window.holds(zone, after);
    let first = after.as_second().div_euclid(60) + 1;
    (first..first + days * 1440)
        .map(|minute| Timestamp::from_second(minute * 60).unwrap())
        .find(|at| window.holds(zone, *at) != now)
}

fn hours() -> impl Strategy<Value = Hours> {
    // Whole minutes, so that stepping by minutes meets each change.
    let minute = 0_u32..1440;
    (minute.clone(), minute).prop_filter_map("never", |(from, until)| {
        let text = |minute: u32| format!("{:02}:{:02}", minute / 60, minute % 60);
        Hours::parse(&format!("{}-{}", text(from), text(until)))
    })
}

fn days() -> impl Strategy<Value = Days> {
    prop::collection::vec(0_usize..7, 1..5).prop_map(|days| {
        let days = days.into_iter().map(|day| Days::parse(Days::NAMES[day]).unwrap());
        days.reduce(Days::and).unwrap()
    })
}

fn windows() -> impl Strategy<Value = Window> {
    let hours = prop::collection::vec(hours(), 1..3);
    (prop_oneof![2 => Just(Days::ALL), 3 => days()], hours)
        .prop_map(|(days, hours)| Window { days, hours })
}

/// Seconds of the years 2024 to 2040, one in three close to a change of the zone's clock.
fn moments() -> impl Strategy<Value = (usize, i64, Option<i64>)> {
    let (first, last) = (1_704_067_200_i64, 2_240_611_200_i64);
    let near = prop_oneof![2 => Just(None), 1 => (-100_000_i64..10_000).prop_map(Some)];
    (any::<usize>(), first..last, near)
}

#[test]
fn the_next_change_is_the_first_that_a_clock_shows() {
    let zones = zones();
    let cases = ProptestConfig { cases: 2_000, ..ProptestConfig::default() };
    proptest!(cases, |(window in windows(), (zone, second, near) in moments())| {
        let zone = &zones[zone % zones.len()];
        let mut after = Timestamp::from_second(second).unwrap();
        if let Some(near) = near
            && let Some(set) = zone.following(after).next()
        {
            after = set.timestamp() + near.seconds();
        }
        // Some zones have clocks that are off by seconds, long ago; none since 2024.
        let found = window.next_change(zone, after);
        match stepped(&window, zone, after, 2) {
            Some(at) => prop_assert_eq!(found, Some(at), "{:?}", zone.iana_name()),
            None => {
                let end = after + (2 * 24 - 1).hours();
                prop_assert!(found.is_none_or(|at| at > end), "{:?}", zone.iana_name());
            }
        }
        if let Some(at) = found {
            prop_assert!(at > after);
            prop_assert_ne!(window.holds(zone, at), window.holds(zone, after));
        }
    });
}

/// A window's changes follow each other: none is left out, and none is there twice. In each zone a
/// quarter of another year.
#[test]
fn changes_alternate_in_every_zone() {
    let night = window("mon-sun", "22:00-06:00");
    for (number, zone) in zones().into_iter().enumerate() {
        let (year, month) = (2024 + number % 17, 1 + number / 17 % 4 * 3);
        let mut at = at(&zone, &format!("{year}-{month:02}-01T12:00"));
        let mut holds = night.holds(&zone, at);
        for _ in 0..180 {
            let next = night.next_change(&zone, at).unwrap();
            assert_ne!(night.holds(&zone, next), holds);
            let hours = (next.as_second() - at.as_second()) / 3600;
            assert!((6..=18).contains(&hours), "{:?} {at}: {hours}", zone.iana_name());
            (holds, at) = (!holds, next);
        }
    }
}

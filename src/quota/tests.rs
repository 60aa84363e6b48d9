//! Periods over all time zones, and years of random use against a plain sum.

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use proptest::prelude::*;

use super::*;
use crate::units::{Bytes, Percent, Rate};

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn sent(bytes: u64) -> Traffic {
    Traffic { sent: bytes, received: 0 }
}

fn quota(period: Period, volume: u64) -> Quota {
    let step = |share: &str, rate: &str| Step {
        share: share.parse().unwrap(),
        rate: rate.parse::<Rate>().unwrap(),
    };
    Quota {
        period,
        volume: Bytes(volume),
        steps: vec![step("75%", "500mbit"), step("100%", "10mbit")],
        counts: Counts::Both,
        zone: None,
    }
}

#[test]
fn periods_are_read_and_printed() {
    for (text, seconds) in [("30d", 30 * 86_400), ("12h", 43_200), ("90s", 90), ("2w", 1_209_600)] {
        let period: Period = text.parse().unwrap();
        assert_eq!(period, Period::Rolling { seconds });
        assert_eq!(period.to_string().parse::<Period>(), Ok(period));
    }
    assert_eq!("month".parse(), Ok(Period::Month { starts: 1 }));
    assert_eq!(Period::Rolling { seconds: 86_400 }.to_string(), "1d");
    assert_eq!("0h".parse::<Period>(), Err(PeriodError::Zero));
    for text in ["63d", "99999999999d", "9w"] {
        assert_eq!(text.parse::<Period>(), Err(PeriodError::TooLong(text.into())));
    }
    for text in ["", "year", "d", "-1d", "1.5d", "+3h", "1 d", "1m", "٣d"] {
        assert_eq!(text.parse::<Period>(), Err(PeriodError::Unknown(text.into())), "{text}");
    }
    assert_eq!(Period::Month { starts: 1 }.starting(31), Some(Period::Month { starts: 31 }));
    assert_eq!(Period::Month { starts: 1 }.starting(32), None);
    assert_eq!(Period::Week { starts: 1 }.starting(0), None);
    assert_eq!(Period::Day.starting(1), None);
}

#[test]
fn volumes_are_in_bytes() {
    for (text, bytes) in [
        ("50GiB", 50 << 30),
        ("50gib", 50 << 30),
        ("1TB", 1_000_000_000_000),
        ("1.5 kB", 1_500),
        ("7b", 7),
        ("20mb", 20_000_000),
        ("3 megabytes", 0),
    ] {
        match bytes {
            0 => assert!(matches!(volume(text), Err(VolumeError::UnknownUnit(_)))),
            bytes => assert_eq!(volume(text), Ok(Bytes(bytes)), "{text}"),
        }
    }
    let said = |text: &str| volume(text).unwrap_err().to_string();
    assert_eq!(
        said("50"),
        "`50` has no unit; write for example `50GiB` (powers of 1024) or `50GB` (powers of 1000)"
    );
    assert_eq!(
        said("400gbit"),
        "a volume is in bytes, not in bits: write `50GB` for what `400gbit` is"
    );
    assert_eq!(said("50Gb"), "`50Gb` could be bits or bytes: write `50GB` for bytes");
    for text in ["0GB", "0.0001b", "0.0MiB"] {
        assert_eq!(volume(text), Err(VolumeError::Zero), "{text}");
    }
    for text in ["much", "", "1.GB", "-3GB", ".5GB"] {
        assert!(matches!(volume(text), Err(VolumeError::NotANumber(_))), "{text}");
    }
    assert!(matches!(volume("99999999999TiB"), Err(VolumeError::TooLarge(_))));
    for (bytes, text) in
        [(50 << 30, "50GiB"), (50_000_000_000, "50GB"), (1_500_000, "1.5MB"), (7, "7B"), (0, "0B")]
    {
        assert_eq!(Bytes(bytes).to_volume(), text);
    }
}

#[test]
fn a_period_begins_where_the_calendar_says() {
    let berlin = zone("Europe/Berlin");
    let begins = |period: Period, moment: &str, zone: &TimeZone| {
        let window = period.window(at(moment), zone);
        [window.begin, window.end].map(|it| zone.to_datetime(it).to_string())
    };
    let month = |starts| Period::Month { starts };
    for (starts, moment, [begin, end]) in [
        (1, "2026-03-31T21:59:59Z", ["2026-03-01", "2026-04-01"]),
        (1, "2026-03-31T22:00:00Z", ["2026-04-01", "2026-05-01"]),
        (15, "2026-01-14T12:00:00Z", ["2025-12-15", "2026-01-15"]),
        (31, "2026-02-27T12:00:00Z", ["2026-01-31", "2026-02-28"]),
        (31, "2026-02-28T12:00:00Z", ["2026-02-28", "2026-03-31"]),
        (31, "2024-02-29T12:00:00Z", ["2024-02-29", "2024-03-31"]),
        (29, "2026-03-01T12:00:00Z", ["2026-02-28", "2026-03-29"]),
        (30, "2026-04-29T12:00:00Z", ["2026-03-30", "2026-04-30"]),
    ] {
        let expected = [begin, end].map(|day| format!("{day}T00:00:00"));
        assert_eq!(begins(month(starts), moment, &berlin), expected, "{starts} {moment}");
    }
    // 2026-11-28 is a Saturday.
    let week = |starts| begins(Period::Week { starts }, "2026-11-28T12:00:00Z", &berlin);
    assert_eq!(week(1), ["2026-11-23T00:00:00", "2026-11-30T00:00:00"]);
    assert_eq!(week(6), ["2026-11-28T00:00:00", "2026-12-05T00:00:00"]);
    assert_eq!(week(7), ["2026-11-22T00:00:00", "2026-11-29T00:00:00"]);
    // Cairo has no midnight on that day, and Samoa no such day at all.
    let cairo = begins(Period::Day, "2026-04-24T09:00:00Z", &zone("Africa/Cairo"));
    assert_eq!(cairo, ["2026-04-24T01:00:00", "2026-04-25T00:00:00"]);
    let apia = begins(Period::Day, "2011-12-30T09:59:59Z", &zone("Pacific/Apia"));
    assert_eq!(apia, ["2011-12-29T00:00:00", "2011-12-31T00:00:00"]);
}

fn periods() -> impl Strategy<Value = Period> {
    prop_oneof![
        Just(Period::Day),
        (1_u8..=7).prop_map(|starts| Period::Week { starts }),
        (1_u8..=31).prop_map(|starts| Period::Month { starts }),
    ]
}

/// All names of the tz database that this machine has.
fn zones() -> Vec<TimeZone> {
    let names = jiff::tz::db().available();
    let zones: Vec<TimeZone> = names.filter_map(|name| TimeZone::get(name.as_str()).ok()).collect();
    assert!(zones.len() > 300, "no tz database: install tzdata");
    zones
}

/// Only a damaged clock or file says such moments; asking for their period comes to an end.
#[test]
fn the_ends_of_time_have_periods() {
    let month = (1..=31).map(|starts| Period::Month { starts });
    let week = (1..=7).map(|starts| Period::Week { starts });
    let periods: Vec<_> = month.chain(week).chain([Period::Day]).collect();
    for zone in zones() {
        for moment in [Timestamp::MIN, Timestamp::MAX] {
            for period in &periods {
                let window = period.window(moment, &zone);
                assert!(window.begin <= window.end, "{period:?}, {moment}: {window:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// In every zone each moment is in one period, whose ends are the beginnings of the next.
    #[test]
    fn periods_follow_each_other_without_a_gap(
        (period, which, second) in (periods(), any::<prop::sample::Index>(),
            1_704_067_200_i64..2_240_524_800),
    ) {
        thread_local! { static ZONES: Vec<TimeZone> = zones(); }
        ZONES.with(|zones| {
            let zone = &zones[which.index(zones.len())];
            let moment = Timestamp::from_second(second).unwrap();
            let Window { begin, end } = period.window(moment, zone);
            prop_assert!(begin <= moment && moment < end);
            let last = end - 1.second();
            prop_assert_eq!(period.window(begin, zone), Window { begin, end });
            prop_assert_eq!(period.window(last, zone), Window { begin, end });
            prop_assert_eq!(period.window(end, zone).begin, end);
            let before = period.window(begin - 1.second(), zone);
            prop_assert_eq!(before.end, begin);
            // Buckets are cut at a period's beginnings, so sums are exact.
            let day = Period::Day.window(begin, zone).begin;
            prop_assert_eq!(day, begin);
            Ok(())
        })?;
    }

    #[test]
    fn whatever_volume_is_printed_is_read_as_the_same(bytes in 1_u64..) {
        prop_assert_eq!(volume(&Bytes(bytes).to_volume()), Ok(Bytes(bytes)));
    }

    #[test]
    fn no_text_is_too_strange(text in ".{0,12}") {
        let _ = (volume(&text), text.parse::<Period>());
    }

    /// Whatever the clock does and however buckets are joined: nothing is lost or counted twice
    /// while the period lasts.
    #[test]
    fn a_clock_that_jumps_both_ways_loses_and_doubles_nothing(
        steps in prop::collection::vec((-40_i64 * 86_400..40 * 86_400, 0_u64..1_000), 1..60),
        dates in any::<bool>(),
    ) {
        let zone = TimeZone::UTC;
        let slots = Slots::new([(Period::Day, &zone)]);
        let (mut account, mut now, mut sum) = (Account::default(), 1_800_000_000, 0);
        for (step, bytes) in steps {
            now += step;
            let at = slots.begin(Timestamp::from_second(now).unwrap());
            account.count(at, sent(bytes));
            account.thin(&slots, now);
            if dates {
                account.date_back(now, at);
            }
            sum += bytes;
            let all: u64 = account.buckets().iter().map(|it| it.traffic.sent).sum();
            prop_assert_eq!(all, sum);
            prop_assert!(account.buckets().is_sorted_by(|a, b| a.at < b.at));
            prop_assert!(!dates || account.buckets().iter().all(|it| it.at <= now));
        }
    }
}

#[test]
fn steps_hold_from_their_share_on_and_end_with_the_period() {
    let (berlin, slots) = (zone("Europe/Berlin"), Slots::default());
    let month = quota(Period::Month { starts: 1 }, 1_000);
    let now = at("2026-11-28T12:00:00Z");
    let mut account = Account::default();
    let verdict = |account: &Account, now| month.verdict(account, now, &berlin);
    assert_eq!(verdict(&account, now).to_next, Some(750));
    for (more, share, to_next) in [
        (749, None, Some(1)),
        (1, Some("75%"), Some(250)),
        (249, Some("75%"), Some(1)),
        (1, Some("100%"), None),
        (9_000, Some("100%"), None),
    ] {
        account.count(slots.begin(now), sent(more));
        let verdict = verdict(&account, now);
        let share = share.map(|share| share.parse::<Percent>().unwrap());
        assert_eq!(verdict.held.map(|held| held.step.share), share);
        assert_eq!(verdict.to_next, to_next);
        if let Some(held) = verdict.held {
            assert_eq!(held.until, at("2026-11-30T23:00:00Z"), "midnight in Berlin");
        }
    }
}

#[test]
fn what_is_granted_counts_in_its_period_or_until_its_time() {
    let month = quota(Period::Month { starts: 1 }, 1_000);
    let now = at("2026-11-28T12:00:00Z");
    let slots = Slots::new([(month.period, &TimeZone::UTC)]);
    let mut account = Account::default();
    account.count(slots.begin(now), sent(1_200));
    let grant = |until: Option<&str>| Grant {
        bytes: 1_000,
        at: now.as_second(),
        until: until.map(|until| at(until).as_second()),
    };
    let volume = |account: &Account, now| month.verdict(account, at(now), &TimeZone::UTC).volume;
    account.grants = vec![grant(None)];
    let verdict = month.verdict(&account, now, &TimeZone::UTC);
    assert_eq!((verdict.volume, verdict.held), (2_000, None));
    assert_eq!(verdict.changes, Some(at("2026-12-01T00:00:00Z")));
    assert_eq!(volume(&account, "2026-12-01T00:00:00Z"), 1_000, "for this month only");
    account.grants = vec![grant(Some("2026-12-10T00:00:00Z"))];
    assert_eq!(volume(&account, "2026-12-09T23:59:59Z"), 2_000);
    assert_eq!(volume(&account, "2026-12-10T00:00:00Z"), 1_000);
    account.reset();
    assert_eq!(month.verdict(&account, now, &TimeZone::UTC).used, 0);
}

#[test]
fn of_several_quotas_the_lowest_cap_holds_and_says_why() {
    let rate = |text: &str| text.parse::<Rate>().unwrap();
    let one_step = |period, volume, cap| Quota {
        steps: vec![Step { share: Percent::ALL, rate: rate(cap) }],
        ..quota(period, volume)
    };
    let month =
        Quota { counts: Counts::Sent, ..quota(Period::Month { starts: 15 }, 40_000_000_000) };
    let quotas = [one_step(Period::Day, 5_000_000_000, "100mbit"), month];
    let utc = TimeZone::UTC;
    let slots = Slots::new(quotas.iter().map(|quota| (quota.period, &utc)));
    let mut account = Account::default();
    let mut after = |bytes: u64, now: &str| {
        let now = at(now);
        account.count(slots.begin(now), sent(bytes));
        let verdicts = quotas.each_ref().map(|it| it.verdict(&account, now, &TimeZone::UTC));
        let together = together(&verdicts);
        let words = together.held.map(|(place, held)| {
            format!("{}: {} until {}", held.step.rate, quotas[place].why(held.step), held.until)
        });
        (words.unwrap_or_default(), together.to_next.unwrap_or_default() / 1_000_000_000)
    };
    for (day, gigabytes, words, left) in [
        ("27T08", 4, "", 1),
        ("27T09", 1, "100mbit: 5GB today is used until 2026-11-28T00:00:00Z", 25),
        ("28T08", 1, "", 4),
        ("28T09", 24, "100mbit: 5GB today is used until 2026-11-29T00:00:00Z", 10),
        ("29T08", 1, "500mbit: 75% of 40GB this month is sent until 2026-12-15T00:00:00Z", 4),
        ("29T09", 4, "100mbit: 5GB today is used until 2026-11-30T00:00:00Z", 5),
        ("29T10", 9, "10mbit: 40GB this month is sent until 2026-12-15T00:00:00Z", 0),
    ] {
        let said = after(gigabytes * 1_000_000_000, &format!("2026-11-{day}:00:00Z"));
        assert_eq!(said, (words.to_string(), left), "{day}");
    }
}

#[test]
fn a_rolling_period_lets_go_slot_by_slot() {
    let hour = quota(Period::Rolling { seconds: 3_600 }, 1_000);
    let slots = Slots::new([(hour.period, &TimeZone::UTC)]);
    let mut account = Account::default();
    let moment = |second| Timestamp::from_second(second).unwrap();
    for minute in 0..10 {
        account.count(slots.begin(moment(minute * 60 + 30)), sent(100));
    }
    let verdict = |second| hour.verdict(&account, moment(second), &TimeZone::UTC);
    let held = verdict(600).held.unwrap();
    assert_eq!(held.step.share, Percent::ALL);
    // The first minute's has left one minute after the hour is over.
    assert_eq!(held.until, moment(3_660));
    assert_eq!(verdict(3_659).used, 1_000);
    assert_eq!(verdict(3_660).used, 900);
    assert_eq!(verdict(3_660).held.unwrap().until, moment(3_660 + 120));
    assert_eq!(verdict(4_260).used, 0);
}

#[test]
fn several_rolling_periods_keep_all_of_their_slots() {
    let periods = ["30d", "12h", "1h"].map(|text| text.parse::<Period>().unwrap());
    let quotas = periods.map(|period| quota(period, 1 << 40));
    let utc = TimeZone::UTC;
    let slots = Slots::new(periods.map(|period| (period, &utc)));
    let mut account = Account::default();
    // One byte each minute.
    let second = |minute: i64| 1_800_000_000 + minute * 60;
    for minute in 0..40 * 1_440 {
        let moment = Timestamp::from_second(second(minute)).unwrap();
        account.count(slots.begin(moment), sent(1));
        if account.buckets().len() > slots.most() {
            account.thin(&slots, second(minute));
        }
        if minute % 977 > 0 {
            continue;
        }
        for quota in &quotas {
            let Period::Rolling { seconds } = quota.period else { unreachable!() };
            let (period, slot) = (i64::from(seconds), i64::from(seconds / 60));
            let leaves = |minute: &i64| second(*minute) / slot * slot + slot + period;
            let counted = (0..=minute).rev().take_while(|it| leaves(it) > second(minute));
            let used = quota.verdict(&account, moment, &TimeZone::UTC).used;
            assert_eq!(used, counted.count() as u64, "{}, {moment}", quota.period);
        }
    }
}

/// Random use of `users` over three years, each minute's with its own moment, against plain sums.
fn simulate(users: u64) {
    let zones = ["Europe/Berlin", "America/Sao_Paulo", "Pacific/Chatham", "Africa/Cairo"].map(zone);
    let begin = at("2025-01-01T00:00:00Z");
    for user in 0..users {
        let mut state = user.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut random = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let zone = &zones[usize::try_from(user % 4).unwrap()];
        let starts = u8::try_from(random(31) + 1).unwrap();
        let rolling = Period::Rolling { seconds: 12 * 3_600 };
        let week = Period::Week { starts: u8::try_from(random(7) + 1).unwrap() };
        let periods = [Period::Day, week, Period::Month { starts }, rolling];
        let quotas = periods.map(|period| quota(period, 1 << 40));
        let slots = Slots::new(periods.map(|period| (period, zone)));
        let (mut account, mut all) = (Account::default(), Vec::new());
        let mut second = begin.as_second();
        let end = second + 3 * 365 * 86_400;
        let mut most = 0;
        while second < end {
            // Bursts of a minute after the other, and absences of days.
            second += 60
                + i64::try_from(if random(8) == 0 { random(5 * 86_400) } else { random(3_600) })
                    .unwrap();
            let moment = Timestamp::from_second(second).unwrap();
            let traffic = Traffic { sent: random(1 << 30), received: random(1 << 34) };
            account.count(slots.begin(moment), traffic);
            if account.buckets().len() > slots.most() {
                account.thin(&slots, second);
            }
            most = most.max(account.buckets().len());
            all.push((second, traffic));
            if random(20) > 0 {
                continue;
            }
            for quota in &quotas {
                let window = quota.period.window(moment, zone);
                let counts = |at: i64| match quota.period {
                    // A slot of 12 minutes leaves as a whole.
                    Period::Rolling { .. } => at / 720 * 720 + 720 + 43_200 > second,
                    _ => at >= window.begin.as_second(),
                };
                let plain = all.iter().rev().take_while(|(at, _)| counts(*at));
                let plain: u64 = plain.map(|(_, it)| it.sent + it.received).sum();
                let counted = quota.verdict(&account, moment, zone).used;
                assert_eq!(counted, plain, "user {user}, {quota:?}, {moment}");
            }
        }
        assert!(most <= slots.most() + 1);
    }
}

/// `make nightly` has ten thousand of them.
#[test]
fn years_of_random_use_add_up() {
    let users = std::env::var("SHAPER_QUOTA_USERS").ok();
    simulate(users.map_or(40, |users| users.parse().unwrap()));
}

//! A clock that is set while use is counted, forth and back: no period opens twice, and nothing is
//! of two months.

use std::os::unix::fs::MetadataExt;

use super::*;
use crate::quota::{Counts, Quota};
use crate::units::Bytes;

/// Whether who counts has had the file open all the time, as a daemon has, or opens it anew, as
/// each apply does.
const WHO: [bool; 2] = [true, false];

/// A ledger to which the clock does something.
struct Host {
    folder: tempfile::TempDir,
    ledger: Ledger,
    slots: Slots,
    stays: bool,
    bytes: u64,
}

impl Host {
    fn new(stays: bool) -> Host {
        let folder = tempfile::tempdir().unwrap();
        let ledger = open_in(&path(folder.path(), "shaper"));
        Host { folder, ledger, slots: slots(), stays, bytes: 0 }
    }

    /// Eve sends so much, and then it is counted and written.
    fn sends(&mut self, bytes: u64, now: &str) {
        let time: Timestamp = format!("{now}:00Z").parse().unwrap();
        self.sends_at(bytes, time.as_second());
    }

    fn sends_at(&mut self, bytes: u64, now: i64) {
        let path = path(self.folder.path(), "shaper");
        self.bytes += bytes;
        if !self.stays {
            self.ledger = open_in(&path);
        }
        let readings = [reading(EVE, eve(), self.bytes)];
        self.ledger.count(&readings, &moment(now), &self.slots, &counted());
        self.ledger.write().unwrap();
        assert_eq!(read(&path).unwrap(), *self.ledger.book(), "at {now}");
    }

    /// What eve has used of a month.
    fn used(&self, now: &str) -> u64 {
        let now = format!("{now}:00Z").parse().unwrap();
        let period = Period::Month { starts: 15 };
        let (steps, counts) = (Vec::new(), Counts::Sent);
        let month = Quota { period, volume: Bytes(1 << 40), steps, counts, zone: None };
        let account = self.ledger.book().accounts.get(&eve()).cloned().unwrap_or_default();
        month.verdict(&account, now, &TimeZone::UTC).used
    }
}

#[test]
fn a_clock_that_is_set_back_and_right_again_opens_no_month_twice() {
    for stays in WHO {
        let mut host = Host::new(stays);
        host.sends(0, "2026-11-10T12:00");
        host.sends(30, "2026-12-14T12:00");
        host.sends(100, "2026-12-20T12:00");
        assert_eq!(host.used("2026-12-20T12:00"), 100);
        // Somebody's mistake, or a boot before the time server has answered.
        host.sends(7, "2026-12-01T12:00");
        host.sends(5, "2026-12-01T19:00");
        assert_eq!(host.used("2026-12-01T19:00"), 142, "what has a later time counts too");
        assert_eq!(host.used("2026-12-20T13:00"), 100);
        host.sends(3, "2026-12-20T13:00");
        assert_eq!(host.used("2026-12-20T13:00"), 103);
        assert_eq!(host.used("2027-01-15T00:00"), 0);
        // Across the day of reset, by an hour.
        host.sends(9, "2027-01-15T00:20");
        host.sends(1, "2027-01-14T23:30");
        assert_eq!(host.used("2027-01-14T23:30"), 113);
        host.sends(2, "2027-01-15T00:30");
        assert_eq!(host.used("2027-01-15T00:30"), 11);
    }
}

#[test]
fn what_was_counted_while_the_clock_ran_ahead_is_of_one_month() {
    for stays in WHO {
        let mut host = Host::new(stays);
        host.sends(0, "2026-11-28T09:00");
        host.sends(50, "2026-11-28T10:00");
        let ahead: Timestamp = "2027-03-20T10:00:00Z".parse().unwrap();
        host.sends(7, "2027-03-20T10:00");
        let grant = Grant { bytes: 9, at: ahead.as_second(), until: None };
        host.ledger.grant(eve(), grant).unwrap();
        host.sends(1, "2026-11-28T11:00");
        assert_eq!(host.used("2026-11-28T11:00"), 58);
        // It goes on to another day: nobody sets it forth again.
        host.sends(2, "2026-11-29T08:00");
        assert_eq!(host.used("2026-11-29T08:00"), 60);
        let account = &host.ledger.book().accounts[&eve()];
        let grants: Vec<i64> = account.grants.iter().map(|grant| grant.at).collect();
        let day = "2026-11-28T00:00:00Z".parse::<Timestamp>().unwrap().as_second();
        assert_eq!(grants, [day], "of that month, too");
        host.sends(4, "2026-12-14T08:00");
        assert_eq!(host.used("2026-12-14T23:59"), 64);
        assert_eq!(host.used("2026-12-15T00:00"), 0);
        assert_eq!(host.used("2027-03-20T11:00"), 0, "nothing is of two months");
    }
}

/// A slot of theirs may begin before midnight and end after it.
#[test]
fn of_rolling_quotas_alone_a_clock_that_is_set_back_keeps_its_day_too() {
    for stays in WHO {
        let slots = Slots::new([("7d".parse::<Period>().unwrap(), &TimeZone::UTC)]);
        let mut host = Host { slots, ..Host::new(stays) };
        host.sends(0, "2026-11-10T12:00");
        host.sends(30, "2026-12-20T12:00");
        let later = |host: &Host, now: &str| {
            let now = format!("{now}:00Z").parse::<Timestamp>().unwrap().as_second();
            host.ledger.book().accounts[&eve()].buckets().iter().any(|it| it.at > now)
        };
        // Its slot is one of 2 hours 48 minutes, from 23:12 on.
        for minute in 0..10 {
            let now = format!("2026-12-14T00:0{minute}");
            host.sends(1, &now);
            assert!(later(&host, &now), "{now}: it may be set right again");
        }
        host.sends(1, "2026-12-15T00:01");
        assert!(!later(&host, "2026-12-15T00:01"), "another day");
    }
}

/// What is granted right after midnight, before anything is counted, is of the new day.
#[test]
fn a_grant_of_a_day_in_which_nothing_was_counted_yet_is_of_that_day() {
    let mut host = Host::new(true);
    host.sends(0, "2026-12-14T12:00");
    host.sends(5, "2026-12-14T23:59");
    let at = "2026-12-15T00:01:00Z".parse::<Timestamp>().unwrap().as_second();
    let grant = Grant { bytes: 9, at, until: None };
    host.ledger.grant(eve(), grant).unwrap();
    host.sends(6, "2026-12-15T00:02");
    assert_eq!(host.ledger.book().accounts[&eve()].grants, [grant]);
    assert_eq!(host.used("2026-12-15T00:02"), 6);
}

/// The disk is not waited for; but for a grant that is later than what is dated back.
#[test]
fn what_is_dated_back_is_appended_and_a_grant_that_comes_before_it_is_written_keeps_its_time() {
    for grants in [false, true] {
        let mut host = Host::new(true);
        host.sends(0, "2026-11-28T09:00");
        host.sends(7, "2027-03-20T10:00");
        host.sends(1, "2026-11-28T11:00");
        let path = path(host.folder.path(), "shaper");
        let before = fs::metadata(&path).unwrap().ino();
        let at = |now: &str| now.parse::<Timestamp>().unwrap().as_second();
        // Counted while the clock is ahead, set back and on another day, and written once.
        for (bytes, now) in [
            (9, "2027-03-20T10:01:00Z"),
            (10, "2026-11-28T11:30:00Z"),
            (12, "2026-11-29T08:00:00Z"),
            (15, "2026-11-29T08:00:30Z"),
        ] {
            let readings = [reading(EVE, eve(), bytes)];
            host.ledger.count(&readings, &moment(at(now)), &slots(), &counted());
        }
        let grant = Grant { bytes: 9, at: at("2026-11-29T08:00:40Z"), until: None };
        if grants {
            open_in(&path).grant(eve(), grant).unwrap();
        }
        host.ledger.write().unwrap();
        let book = read(&path).unwrap();
        assert_eq!(&book, host.ledger.book());
        assert_eq!(book.accounts[&eve()].grants.contains(&grant), grants);
        let buckets = book.accounts[&eve()].buckets();
        let days = ["2026-11-28T00:00:00Z", "2026-11-29T00:00:00Z"].map(at);
        assert_eq!(buckets.iter().map(|it| it.at).collect::<Vec<_>>(), days);
        assert_eq!(used(&book, &eve()), 15);
        assert_eq!(fs::metadata(&path).unwrap().ino() == before, !grants);
    }
}

/// In which what has a later time than the next count was dated back as it was read.
#[test]
fn a_file_of_the_first_version_is_read_as_ever_and_written_as_one_of_this() {
    use crate::ledger::record::{Record, frame};
    let folder = tempfile::tempdir().unwrap();
    let path = path(folder.path(), "shaper");
    let grant = Grant { bytes: 9, at: NOW + 5, until: None };
    let counted = |latest: i64, bytes: u64, all: u64| Record::Count {
        born: NOW - 86_400,
        latest,
        epoch: "this boot".into(),
        renamed: vec![],
        traffic: vec![(eve(), latest, Traffic { sent: bytes, received: 0 })],
        readings: vec![((2, EVE), Some((eve(), all)))],
    };
    let records = [
        Record::Begin { born: None, latest: 0, epoch: String::new() },
        Record::Readings(vec![]),
        counted(NOW, 30, 30),
        Record::Grant(eve(), grant),
        counted(NOW - 86_400, 5, 35),
    ];
    let frames: Vec<u8> = records.iter().flat_map(frame).collect();
    let file = |version: &str| [version.as_bytes(), &frames].concat();
    fs::write(&path, file("shaper use 2\n")).unwrap();
    assert_eq!(read(&path).unwrap().accounts[&eve()].buckets().len(), 2);
    for torn in [&b""[..], b"\xffuse\x03"] {
        fs::write(&path, [&file("shaper use 1\n"), torn].concat()).unwrap();
        let before = read(&path).unwrap();
        let traffic = Traffic { sent: 35, received: 0 };
        let account = &before.accounts[&eve()];
        assert_eq!(account.buckets(), [Bucket { at: NOW - 86_400, traffic }]);
        assert_eq!(account.grants, [Grant { at: NOW - 86_400, ..grant }]);
        let Opened { mut ledger, found } = Ledger::open(&path).unwrap();
        assert_eq!((found, ledger.book()), (None, &before));
        assert!(fs::read(&path).unwrap().starts_with(TITLE), "an older shaper refuses it");
        assert_eq!(read(&path).unwrap(), before);
        count(&mut ledger, &[reading(EVE, eve(), 42)]);
        ledger.write().unwrap();
        assert_eq!(used(&read(&path).unwrap(), &eve()), 42);
    }
    assert_eq!(kept_aside(folder.path()), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever the clock does, all that was sent is there once, and a clock that goes on for two
    /// days finds nothing that is later.
    #[test]
    fn a_clock_that_jumps_both_ways_loses_and_doubles_nothing(
        steps in prop::collection::vec((-40_i64 * 86_400..40 * 86_400, 1_u64..1_000), 1..30),
        stays in any::<bool>(),
    ) {
        let mut host = Host::new(stays);
        // Begun so early that every later time is believed.
        host.sends_at(0, NOW - 2_000 * 86_400);
        let (mut now, mut sum) = (NOW, 0);
        for (step, bytes) in steps.into_iter().chain([(86_400, 3), (86_400, 4)]) {
            now += step;
            host.sends_at(bytes, now);
            sum += bytes;
            prop_assert_eq!(used(host.ledger.book(), &eve()), sum);
        }
        let account = &host.ledger.book().accounts[&eve()];
        prop_assert!(account.buckets().iter().all(|it| it.at <= now));
        prop_assert!(account.buckets().is_sorted_by(|a, b| a.at < b.at));
    }
}

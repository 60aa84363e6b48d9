//! The file under everything that may happen to it, in folders of the test's own.

mod harm;
mod renamed;
mod set_clock;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;
use crate::quota::{Account, Bucket, Grant, Period, Slots, Traffic};
use crate::tree::{Direction, Key, Owner};

const EVE: u32 = 0x10;

fn eve() -> Owner {
    Owner::User(Key::new("eve").unwrap())
}

fn slots() -> Slots {
    Slots::new([(Period::Month { starts: 1 }, &TimeZone::UTC)])
}

fn moment(second: i64) -> Moment {
    let time = Timestamp::from_second(second).unwrap();
    Moment { time, is_right: false, epoch: "this boot".into() }
}

fn reading(classid: u32, owner: Owner, bytes: u64) -> Reading {
    Reading { ifindex: 2, classid, direction: Direction::Egress, owner, bytes }
}

/// Those that have a quota.
fn counted() -> BTreeMap<Owner, Option<String>> {
    BTreeMap::from([(eve(), None), (Owner::Uid(1000), Some("ann".to_string()))])
}

fn open_in(path: &Path) -> Ledger {
    Ledger::open(path).unwrap().ledger
}

const NOW: i64 = 1_800_000_000;

/// The first line.
const TITLE: &[u8] = b"shaper use 2\n";

/// How many files of others were kept.
fn kept_aside(folder: &Path) -> usize {
    let names = fs::read_dir(folder).unwrap().map(|it| it.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().contains("damaged")).count()
}

fn count(ledger: &mut Ledger, readings: &[Reading]) {
    ledger.count(readings, &moment(NOW), &slots(), &counted());
}

fn used(book: &Book, owner: &Owner) -> u64 {
    let account = book.accounts.get(owner);
    account.map_or(0, |account| account.buckets().iter().map(|it| it.traffic.sent).sum())
}

#[test]
fn only_differences_count_whatever_becomes_of_classes() {
    let folder = tempfile::tempdir().unwrap();
    let path = path(folder.path(), "shaper");
    let mut ledger = open_in(&path);
    let bob = || Owner::User(Key::new("bob").unwrap());
    for (readings, expected, why) in [
        (vec![(EVE, eve(), 5_000)], 0, "what was sent before there was a quota"),
        (vec![(EVE, eve(), 5_700)], 700, "sent since"),
        (vec![(EVE, eve(), 300)], 1_000, "the class was made again"),
        (vec![(EVE, eve(), 300), (0x11, eve(), 50)], 1_050, "it is retired, and there is another"),
        (vec![(0x11, eve(), 60)], 1_060, "the retired one is gone"),
        (vec![(0x11, bob(), 90)], 1_060, "her number is another's"),
        (vec![(0x11, eve(), 40)], 1_100, "and hers again"),
    ] {
        let readings: Vec<_> =
            readings.into_iter().map(|(id, who, it)| reading(id, who, it)).collect();
        count(&mut ledger, &readings);
        ledger.write().unwrap();
        assert_eq!(used(ledger.book(), &eve()), expected, "{why}");
        ledger = open_in(&path);
        assert_eq!(used(ledger.book(), &eve()), expected, "{why}, read again");
    }
    // Another boot: the same class has counted from 0.
    let other = Moment { epoch: "another boot".into(), ..moment(NOW) };
    ledger.count(&[reading(0x11, eve(), 45)], &other, &slots(), &counted());
    assert_eq!(used(ledger.book(), &eve()), 1_145);
}

#[test]
fn a_book_begins_before_there_are_classes_and_again_after_a_time_without_quotas() {
    let folder = tempfile::tempdir().unwrap();
    let path = path(folder.path(), "shaper");
    let mut ledger = open_in(&path);
    count(&mut ledger, &[]);
    ledger.write().unwrap();
    let mut ledger = open_in(&path);
    count(&mut ledger, &[reading(EVE, eve(), 500)]);
    assert_eq!(used(ledger.book(), &eve()), 500, "her class was made since");
    ledger.pause().unwrap();
    let mut ledger = open_in(&path);
    assert!(!ledger.book().counts());
    assert_eq!(used(ledger.book(), &eve()), 500);
    count(&mut ledger, &[reading(EVE, eve(), 90_000)]);
    assert_eq!(used(ledger.book(), &eve()), 500, "nobody had a quota then");
    count(&mut ledger, &[reading(EVE, eve(), 90_007)]);
    assert_eq!(used(ledger.book(), &eve()), 507);
}

#[test]
fn a_uid_that_another_account_has_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = path(folder.path(), "shaper");
    let mut ledger = open_in(&path);
    let uid = Owner::Uid(1000);
    count(&mut ledger, &[reading(EVE, uid.clone(), 0)]);
    count(&mut ledger, &[reading(EVE, uid.clone(), 900)]);
    assert_eq!(used(ledger.book(), &uid), 900);
    let max = BTreeMap::from([(uid.clone(), Some("max".to_string()))]);
    ledger.count(&[reading(EVE, uid.clone(), 950)], &moment(NOW), &slots(), &max);
    assert_eq!(used(ledger.book(), &uid), 50);
    ledger.write().unwrap();
    let book = read(&path).unwrap();
    assert_eq!(book.accounts[&uid].name.as_deref(), Some("max"));
}

#[test]
fn a_clock_without_a_battery_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = open_in(&path(folder.path(), "shaper"));
    count(&mut ledger, &[reading(EVE, eve(), 0)]);
    count(&mut ledger, &[reading(EVE, eve(), 100)]);
    ledger.count(&[reading(EVE, eve(), 150)], &moment(1_000), &slots(), &counted());
    let account = &ledger.book().accounts[&eve()];
    assert_eq!(account.buckets().len(), 1);
    assert_eq!(account.buckets()[0].traffic.sent, 150);
}

/// A file with a few records, and what eve has used after each of its lengths.
fn some_file(path: &Path) -> Vec<(u64, u64)> {
    let mut ledger = open_in(path);
    let mut lengths = vec![(fs::metadata(path).unwrap().len(), 0)];
    // The clock runs ahead, is set back, and goes on to another day.
    for (step, day) in (0..).zip([0, 0, 0, 40, 0, 1]) {
        let moment = moment(NOW + day * 86_400);
        ledger.count(&[reading(EVE, eve(), step * 100)], &moment, &slots(), &counted());
        ledger.write().unwrap();
        lengths.push((fs::metadata(path).unwrap().len(), step * 100));
    }
    lengths
}

#[test]
fn a_file_that_ends_anywhere_has_all_that_was_whole_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let whole = path(folder.path(), "whole");
    let lengths = some_file(&whole);
    let bytes = fs::read(&whole).unwrap();
    let torn = path(folder.path(), "torn");
    let begun = usize::try_from(lengths[0].0).unwrap();
    for end in 0..=bytes.len() {
        for garbage in [&b""[..], &[0; 9], b"\xffuse\x03\0\0\0"] {
            let _ = fs::remove_file(&torn);
            let content = [&bytes[..end], garbage].concat();
            fs::write(&torn, &content).unwrap();
            // Zeros may be what the file had there.
            let rest = bytes[end..].iter().zip(garbage);
            let end = end + rest.take_while(|(one, other)| one == other).count();
            let kept = lengths.iter().rev().find(|(length, _)| *length <= end as u64);
            let kept = kept.map_or(0, |(_, used)| *used);
            assert_eq!(used(&read(&torn).unwrap(), &eve()), kept, "cut at {end}");
            let Opened { mut ledger, found } = Ledger::open(&torn).unwrap();
            // What it began with was on the disk before it had its name, so that is no torn end.
            let is_whole = end >= begun && content.starts_with(TITLE);
            assert_eq!(found.is_none(), is_whole, "cut at {end}: {found:?}");
            assert_eq!(used(ledger.book(), &eve()), kept);
            // The difference to the last reading that is there: nothing is counted twice.
            count(&mut ledger, &[reading(EVE, eve(), 1_000)]);
            ledger.write().unwrap();
            let is_first = end < usize::try_from(lengths[1].0).unwrap();
            let expected = if is_first { 0 } else { 1_000 };
            assert_eq!(used(&read(&torn).unwrap(), &eve()), expected, "cut at {end}");
        }
    }
}

#[test]
fn of_a_damaged_file_all_else_counts_and_it_is_kept_aside() {
    let folder = tempfile::tempdir().unwrap();
    let whole = path(folder.path(), "whole");
    some_file(&whole);
    let bytes = fs::read(&whole).unwrap();
    let (mut sound, mut reported) = (0, 0);
    for at in 0..bytes.len() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path(), "shaper");
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x40;
        fs::write(&path, &damaged).unwrap();
        let opened = match Ledger::open(&path) {
            Ok(opened) => opened,
            // The digit of the version.
            Err(LedgerError::Newer { .. }) => {
                assert_eq!(fs::read(&path).unwrap(), damaged);
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        let used = used(opened.ledger.book(), &eve());
        assert!(used == 500 || used == 400, "{used} with byte {at} damaged");
        sound += u32::from(used == 500);
        if let Some(found) = opened.found {
            reported += 1;
            let aside = folder.path().join("use-shaper.damaged-1");
            assert!(found.contains(aside.to_str().unwrap()), "{found}");
            assert_eq!(fs::read(aside).unwrap(), damaged);
        }
        assert_eq!(read(&path).unwrap(), *opened.ledger.book());
        assert!(Ledger::open(&path).unwrap().found.is_none(), "mended once");
    }
    assert!(reported > sound / 2 && sound > 0, "{reported} of {}", bytes.len());
}

#[test]
fn a_file_of_somebody_elses_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = path(folder.path(), "shaper");
    fs::write(&path, "a letter").unwrap();
    let Opened { ledger, found } = Ledger::open(&path).unwrap();
    assert!(found.is_some_and(|found| found.contains("8 of 8 bytes cannot be read")));
    assert_eq!((ledger.book(), kept_aside(folder.path())), (&Book::default(), 1));
    assert_eq!(fs::read(folder.path().join("use-shaper.damaged-1")).unwrap(), b"a letter");
}

#[test]
fn a_file_of_a_later_version_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = path(folder.path(), "shaper");
    let later = b"shaper use 3\nwhatever it has";
    fs::write(&path, later).unwrap();
    for error in [Ledger::open(&path).unwrap_err(), read(&path).unwrap_err()] {
        let said = error.to_string();
        assert!(said.contains("version 3") && said.contains("install the shaper"), "{said}");
    }
    assert_eq!(fs::read(&path).unwrap(), later);
}

#[test]
fn two_writers_count_once_what_both_have_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = path(folder.path(), "shaper");
    let mut one = open_in(&path);
    count(&mut one, &[reading(EVE, eve(), 0)]);
    one.write().unwrap();
    let mut other = open_in(&path);
    count(&mut one, &[reading(EVE, eve(), 100)]);
    count(&mut other, &[reading(EVE, eve(), 130)]);
    other.write().unwrap();
    // What it has counted itself is in the other's count.
    one.write().unwrap();
    assert_eq!(used(one.book(), &eve()), 130);
    count(&mut one, &[reading(EVE, eve(), 150)]);
    one.write().unwrap();
    assert!(other.refresh().unwrap());
    assert!(!other.refresh().unwrap());
    assert_eq!(used(other.book(), &eve()), 150);
    let grant = Grant { bytes: 7, at: NOW, until: None };
    count(&mut one, &[reading(EVE, eve(), 160)]);
    other.grant(eve(), grant).unwrap();
    assert!(one.refresh().unwrap());
    assert_eq!(one.book().accounts[&eve()].grants, [grant]);
    assert_eq!(used(one.book(), &eve()), 160, "not written yet, and kept");
    other.reset(eve()).unwrap();
    one.write().unwrap();
    assert_eq!(used(&read(&path).unwrap(), &eve()), 0, "reset after it was counted");
    count(&mut one, &[reading(EVE, eve(), 165)]);
    one.write().unwrap();
    assert_eq!(used(&read(&path).unwrap(), &eve()), 5);
}

#[test]
fn what_was_not_written_before_a_reset_is_not_written_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = path(folder.path(), "shaper");
    let mut ledger = open_in(&path);
    count(&mut ledger, &[reading(EVE, eve(), 0)]);
    count(&mut ledger, &[reading(EVE, eve(), 500)]);
    ledger.reset(eve()).unwrap();
    assert_eq!(used(ledger.book(), &eve()), 0);
    count(&mut ledger, &[reading(EVE, eve(), 520)]);
    ledger.write().unwrap();
    assert_eq!(used(ledger.book(), &eve()), 20);
    assert_eq!(used(&read(&path).unwrap(), &eve()), 20);
}

#[test]
fn a_file_that_was_exchanged_for_its_backup_goes_on_from_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = path(folder.path(), "shaper");
    let mut ledger = open_in(&path);
    for bytes in [0, 100] {
        count(&mut ledger, &[reading(EVE, eve(), bytes)]);
        ledger.write().unwrap();
    }
    let backup = fs::read(&path).unwrap();
    count(&mut ledger, &[reading(EVE, eve(), 900)]);
    ledger.write().unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, backup).unwrap();
    // Of the same boot: what was used since the backup is in the difference to its reading.
    count(&mut ledger, &[reading(EVE, eve(), 950)]);
    ledger.write().unwrap();
    count(&mut ledger, &[reading(EVE, eve(), 1_000)]);
    ledger.write().unwrap();
    assert_eq!(used(&read(&path).unwrap(), &eve()), 1_000);
}

fn written(book: Book) -> Book {
    let mut read = Book::default();
    for record in book.records() {
        let frame = super::record::frame(&record);
        let (again, length) = super::record::unframe(&frame).unwrap();
        assert_eq!((&again, length), (&record, frame.len()));
        read.take(again);
    }
    read
}

fn traffic() -> impl Strategy<Value = Traffic> {
    (any::<u64>(), any::<u64>()).prop_map(|(sent, received)| Traffic { sent, received })
}

prop_compose! {
    fn account()(
        name in prop::option::of("[a-zé]{0,9}"),
        buckets in prop::collection::btree_map(any::<i64>(), traffic(), 0..5),
        grants in prop::collection::vec((any::<u64>(), any::<i64>(), any::<Option<i64>>()), 0..3),
    ) -> Account {
        let buckets = buckets.into_iter().map(|(at, traffic)| Bucket { at, traffic }).collect();
        let grant = |(bytes, at, until)| Grant { bytes, at, until };
        Account::kept(name, buckets, grants.into_iter().map(grant).collect())
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_as_the_same(
        accounts in prop::collection::btree_map(any::<u32>().prop_map(Owner::Uid), account(), 0..6),
        last in prop::collection::btree_map(
            any::<(u32, u32)>(), (any::<u32>().prop_map(Owner::Uid), any::<u64>()), 0..6),
        (born, latest, epoch) in (any::<Option<i64>>(), any::<i64>(), ".{0,9}"),
    ) {
        let book = Book { accounts: accounts.into(), born, latest, epoch, last, promised: None };
        prop_assert_eq!(written(book.clone()), book);
    }

    /// Whatever bytes a frame has: it is refused or read, and nothing panics or takes much memory.
    #[test]
    fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let mut framed = b"\xffuse".to_vec();
        framed.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
        framed.extend(crc32fast::hash(&bytes).to_le_bytes());
        framed.extend(&bytes);
        if let Some((record, length)) = super::record::unframe(&framed) {
            prop_assert_eq!(length, framed.len());
            Book::default().take(record);
        }
    }
}

/// Ten thousand users, each with all days of the longest period.
#[test]
fn the_file_of_ten_thousand_users_is_small_and_soon_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = path(folder.path(), "shaper");
    let mut bytes = TITLE.to_vec();
    let mut book = Book { epoch: "this boot".into(), ..Book::default() };
    for uid in 1_000..11_000_u32 {
        let bucket = |day: i64| Bucket {
            at: NOW + day * 86_400,
            traffic: Traffic { sent: u64::from(uid) << 18, received: u64::from(uid) << 22 },
        };
        let account =
            Account::kept(Some(format!("user{uid}")), (0..62).map(bucket).collect(), vec![]);
        book.accounts_mut().insert(Owner::Uid(uid), account);
        book.last.insert((2, uid), (Owner::Uid(uid), u64::from(uid) << 20));
    }
    book.records().for_each(|record| bytes.extend(super::record::frame(&record)));
    fs::File::create(&path).unwrap().write_all(&bytes).unwrap();
    let began = Instant::now();
    assert_eq!(read(&path).unwrap(), book);
    let took = began.elapsed();
    assert!(bytes.len() < 20 << 20, "{} bytes, read in {took:?}", bytes.len());
    // Without optimization, on a busy machine.
    assert!(took < Duration::from_secs(10), "{took:?}");
}

/// The file that [`counts_without_end`] writes.
const FILE: &str = "SHAPER_TEST_LEDGER";

/// Run by the test below in a process of its own, which it kills.
#[test]
#[ignore = "writes until it is killed"]
fn counts_without_end() {
    let Ok(path) = std::env::var(FILE) else { return };
    let mut ledger = open_in(Path::new(&path));
    let start = ledger.book().accounts.len() as u64;
    let (mut bytes, mut classes) = (start, 1);
    loop {
        bytes += 100;
        classes = classes % 300 + 1;
        let readings: Vec<_> = (0..classes).map(|it| reading(it, eve(), bytes)).collect();
        count(&mut ledger, &readings);
        ledger.write().unwrap();
        if bytes % 700 == 0 {
            ledger.grant(eve(), Grant { bytes: 1, at: NOW, until: None }).unwrap();
        }
    }
}

#[test]
fn a_writer_that_is_killed_at_any_moment_leaves_a_whole_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = path(folder.path(), "shaper");
    let mut before = 0;
    for round in 0..25_u64 {
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "ledger::tests::counts_without_end", "--ignored"])
            .env(FILE, &path)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Any moment: the first at once, the last after some rewriting of the whole file.
        std::thread::sleep(Duration::from_micros(20_000 + round * round * 700));
        writer.kill().unwrap();
        writer.wait().unwrap();
        let Opened { ledger, found } = Ledger::open(&path).unwrap();
        assert_eq!(found, None, "only its end can be torn");
        let now = used(ledger.book(), &eve());
        assert!(now >= before, "{now} after {before}");
        before = now;
        assert_eq!(read(&path).unwrap(), *ledger.book());
    }
    assert!(before > 0);
    assert_eq!(kept_aside(folder.path()), 0);
}

/// Run by the test below, in a namespace in which the folder is a small tmpfs.
#[test]
#[ignore = "fills the disk that it is given"]
fn on_a_small_disk() {
    let Ok(path) = std::env::var(FILE) else { return };
    let (path, filler) = (Path::new(&path), Path::new(&path).with_extension("filler"));
    let mut ledger = open_in(path);
    count(&mut ledger, &[reading(EVE, eve(), 0)]);
    ledger.write().unwrap();
    for round in 1..6_u64 {
        // Ends with an error: the disk is full.
        let _ = fs::File::create(&filler).unwrap().write_all(&vec![1; 1 << 20]);
        let before = read(path).unwrap();
        let readings: Vec<_> = (0..800).map(|it| reading(EVE + it, eve(), round * 1_000)).collect();
        count(&mut ledger, &readings);
        let error = ledger.write().unwrap_err().to_string();
        assert!(error.contains("cannot be kept") && error.contains("No space"), "{error}");
        assert_eq!(read(path).unwrap(), before, "all of a record, or nothing");
        assert_eq!(used(ledger.book(), &eve()), round * 1_000 * 800);
        fs::remove_file(&filler).unwrap();
        ledger.write().unwrap();
        assert_eq!(read(path).unwrap(), *ledger.book(), "nothing was lost meanwhile");
    }
}

#[test]
#[ignore = "mounts a tmpfs in a namespace of its own"]
fn a_full_disk_takes_nothing_back_and_loses_nothing_needs_root() {
    let folder = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=192k none \"$0\" && exec \"$1\" --exact ledger::tests::on_a_small_disk --ignored --nocapture";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .arg(folder.path())
        .arg(std::env::current_exe().unwrap())
        .env(FILE, path(folder.path(), "shaper"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{why}");
}

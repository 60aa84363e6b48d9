//! Lines under other names, and names that are another's.

use super::*;

fn line(name: &str) -> Owner {
    Owner::User(Key::new(name).unwrap())
}

/// Who the lines stand for.
fn lines(persons: &[(&str, &str)]) -> BTreeMap<Owner, Option<String>> {
    persons.iter().map(|(name, person)| (line(name), Some((*person).to_string()))).collect()
}

/// A ledger whose lines each have sent 1,000 bytes, of which the last are not written.
fn having_sent(path: &Path, persons: &[(&str, &str)]) -> Ledger {
    let mut ledger = open_in(path);
    for bytes in [0, 700, 1_000] {
        let readings = persons.iter().zip(EVE..);
        let readings: Vec<Reading> =
            readings.map(|((name, _), class)| reading(class, line(name), bytes)).collect();
        ledger.count(&readings, &moment(NOW), &slots(), &lines(persons));
        if bytes == 700 {
            ledger.write().unwrap();
        }
    }
    ledger
}

/// The lines are these from now on, and nothing more was sent; what they have used then, as the
/// book and the file have it.
#[track_caller]
fn used_as(ledger: &mut Ledger, persons: &[(&str, &str)]) -> Vec<u64> {
    ledger.count(&[], &moment(NOW), &slots(), &lines(persons));
    let of = |book: &Book| persons.iter().map(|(name, _)| used(book, &line(name))).collect();
    let here: Vec<u64> = of(ledger.book());
    ledger.write().unwrap();
    let there = read(ledger.path()).unwrap();
    assert_eq!((of(&there), &there), (here.clone(), ledger.book()));
    here
}

#[test]
fn what_was_used_goes_with_the_uid_and_its_account_whatever_the_line_is_called() {
    let folder = tempfile::tempdir().unwrap();
    let before = [("ann", "2001 ann"), ("bob", "2002")];
    for (place, (after, expected, why)) in [
        (&[("anna", "2001 ann"), ("bob", "2002")][..], &[1_000, 1_000][..], "another name"),
        (
            &[("customer", "2001"), ("bob", "2002")],
            &[1_000, 1_000],
            "of whose account NSS is silent",
        ),
        (&[("ann", "2001 ann"), ("robert", "2002 bob")], &[1_000, 1_000], "that is known by now"),
        (&[("ann", "2002"), ("bob", "2001 ann")], &[1_000, 1_000], "exchanged"),
        (&[("bob", "3001"), ("robert", "2002")], &[0, 1_000], "the name is a stranger's at once"),
        (&[("ann", "3001 ann"), ("bob", "2002")], &[0, 1_000], "a stranger has name and account"),
        (&[("max", "2001 max"), ("bob", "2002")], &[0, 1_000], "another account has the uid"),
        (&[("ann", "2001 anna"), ("bob", "2002")], &[1_000, 1_000], "the line stays as it is"),
        (&[("ann", "2001"), ("bob", "2002 bob")], &[1_000, 1_000], "NSS says less, and more"),
    ]
    .into_iter()
    .enumerate()
    {
        let path = path(folder.path(), &format!("case{place}"));
        let mut ledger = having_sent(&path, &before);
        assert_eq!(used_as(&mut ledger, after), expected, "{why}");
        assert_eq!(used_as(&mut ledger, after), expected, "{why}: again");
    }
}

#[test]
fn a_policy_that_is_taken_back_takes_the_use_back_too() {
    let folder = tempfile::tempdir().unwrap();
    let (before, after) = ([("bob", "2002")], [("robert", "2002")]);
    let mut ledger = having_sent(&path(folder.path(), "shaper"), &before);
    for _ in 0..3 {
        assert_eq!(used_as(&mut ledger, &after), [1_000]);
        assert_eq!(used_as(&mut ledger, &before), [1_000]);
    }
    assert_eq!(ledger.book().accounts.len(), 1);
}

#[test]
fn what_is_not_kept_has_taken_nobodys_use() {
    let folder = tempfile::tempdir().unwrap();
    let before = [("ann", "2001 ann"), ("bob", "2002")];
    for (place, (after, changes_hands)) in [
        (&[("ann", "2001 ann"), ("bob", "2020")][..], true),
        (&[("anna", "2001 ann"), ("bob", "2002")], true),
        (&[("ann", "2002"), ("bob", "2001 ann")], true),
        (&[("ann", "2001 ann"), ("annb", "2001 ann"), ("bob", "2002")], false),
        (&[("ann", "2001 anna"), ("bob", "2002 bob"), ("carol", "2003")], false),
    ]
    .into_iter()
    .enumerate()
    {
        let path = path(folder.path(), &format!("case{place}"));
        let mut ledger = having_sent(&path, &before);
        ledger.write().unwrap();
        let kept = ledger.book().clone();
        let sent = |ledger: &mut Ledger, lines: &BTreeMap<Owner, Option<String>>, bytes: u64| {
            let readings = before.iter().zip(EVE..);
            let readings: Vec<Reading> =
                readings.map(|((name, _), class)| reading(class, line(name), bytes)).collect();
            ledger.count(&readings, &moment(NOW), &slots(), lines);
        };
        assert_eq!(ledger.book().changes_hands(&lines(after)), changes_hands, "{after:?}");
        sent(&mut ledger, &lines(after), 1_500);
        assert!(!ledger.book().changes_hands(&lines(after)), "{after:?}: again");
        ledger.forget().unwrap();
        assert_eq!((ledger.book(), &read(&path).unwrap()), (&kept, &kept), "{after:?}");
        sent(&mut ledger, &lines(&before), 2_000);
        assert_eq!(used_as(&mut ledger, &before), [2_000, 2_000], "{after:?}");
    }
}

#[test]
fn what_cannot_be_read_at_once_is_forgotten_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let before = [("bob", "2002")];
    let path = path(folder.path(), "shaper");
    let mut ledger = having_sent(&path, &before);
    ledger.write().unwrap();
    let kept = ledger.book().clone();
    ledger.count(&[], &moment(NOW), &slots(), &lines(&[("bob", "2020")]));
    ledger.set_waiting(false);
    let other = fs::File::open(&path).unwrap();
    other.lock().unwrap();
    assert!(ledger.forget().is_err_and(|error| error.is_busy()));
    other.unlock().unwrap();
    ledger.write().unwrap();
    assert_eq!((ledger.book(), &read(&path).unwrap()), (&kept, &kept));
}

/// NSS knows the account of neither, and both may be hers.
#[test]
fn of_two_new_lines_for_one_uid_one_has_all_that_was_used() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = having_sent(&path(folder.path(), "shaper"), &[("ann", "2001")]);
    let after = [("guest", "2001"), ("lodger", "2001")];
    let readings = [reading(EVE, line("ann"), 1_500)];
    ledger.count(&readings, &moment(NOW), &slots(), &lines(&after));
    assert_eq!(used_as(&mut ledger, &after), [1_500, 0]);
}

proptest! {
    /// Lines change their names at random, while their people send: each has used what he has sent.
    #[test]
    fn whatever_lines_are_called_each_has_used_what_he_has_sent(
        rounds in prop::collection::vec(
            (prop::collection::vec(0_u64..1_000, 5), 0_usize..120, any::<bool>(), any::<bool>()),
            1..20),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path(), "shaper");
        let mut ledger = open_in(&path);
        let uids = [2001, 2002, 2003, 2004, 2005];
        let mut names: Vec<usize> = (0..5).collect();
        let (mut counters, mut sums) = ([0_u64; 5], [0_u64; 5]);
        let count = |ledger: &mut Ledger, counters: &[u64], names: &[usize]| {
            let classes = (EVE..).zip(counters).enumerate();
            let readings: Vec<Reading> = classes
                .map(|(name, (class, bytes))| reading(class, line(&format!("n{name}")), *bytes))
                .collect();
            let persons = uids.iter().zip(names);
            let persons = persons.map(|(uid, name)| {
                (line(&format!("n{name}")), Some(person(*uid, None)))
            });
            ledger.count(&readings, &moment(NOW), &slots(), &persons.collect());
        };
        count(&mut ledger, &counters, &names);
        for (sent, order, writes, opens) in rounds {
            for (place, sent) in sent.iter().enumerate() {
                counters[names[place]] += sent;
                sums[place] += sent;
            }
            // One of the 120 orders.
            let (mut rest, mut order) = ((0..5).collect::<Vec<usize>>(), order);
            names = (1..=5).rev().map(|left| {
                let name = rest.remove(order % left);
                order /= left;
                name
            }).collect();
            count(&mut ledger, &counters, &names);
            if writes || opens {
                ledger.write().unwrap();
            }
            if opens {
                ledger = open_in(&path);
            }
            for (place, sum) in sums.iter().enumerate() {
                let found = used(ledger.book(), &line(&format!("n{}", names[place])));
                prop_assert_eq!(found, *sum, "{}", place);
            }
        }
    }
}

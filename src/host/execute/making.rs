//! The directories of many claims, made by a thread beside the one that sends messages: the kernel
//! makes cgroups under `cgroup_mutex` and traffic control under RTNL, so two processors do both at
//! once. A class is sent only once its claim's directory stands.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, Scope};

use crate::cgroup::Error;
use crate::plan::{Change, Step};
use crate::tree::Claim;
use crate::units::ClassId;

/// The number of claims from which a thread is worth starting.
const MANY: usize = 256;
/// How many claims are made between two reports.
const REPORTED: usize = 8;

/// A step that makes a claim.
#[derive(Clone, Copy)]
pub(super) struct Making<'s> {
    pub step: &'s Step,
    claim: &'s Claim,
    classid: ClassId,
}

impl<'s> Making<'s> {
    /// The claim that a step makes. `None`: another step, or a retired claim, which needs more than
    /// a directory: pairs of its accounts are given in the deciding program's maps.
    pub(super) fn of(step: &'s Step) -> Option<Making<'s>> {
        match step {
            Step::Claim(Claim::Retired(..), _) => None,
            Step::Claim(claim, Change::Add(classid)) => {
                Some(Making { step, claim, classid: *classid })
            }
            _ => None,
        }
    }
}

/// How many more claims have their directories, and why the next one has not.
struct Report(usize, Result<(), Error>);

/// Claims that are being made.
#[derive(Default)]
pub(super) struct Makers<'s> {
    claims: Vec<Making<'s>>,
    /// How many claims are known to be made.
    made: usize,
    /// The index in `claims` of each classid.
    at: BTreeMap<ClassId, usize>,
    /// The reports of the thread; `None`: making has not begun.
    reports: Option<Receiver<Report>>,
    stop: Arc<AtomicBool>,
}

/// Claims that were made since somebody asked, and the one that was refused.
pub(super) type News<'a, 's> = (&'a [Making<'s>], Result<(), (Making<'s>, Error)>);

impl<'s> Makers<'s> {
    /// Adds a claim that is to be made.
    pub(super) fn add(&mut self, making: Making<'s>) {
        self.claims.push(making);
    }

    /// Whether making has begun, so that no claim may be added.
    pub(super) fn have_begun(&self) -> bool {
        self.reports.is_some()
    }

    /// Begins to make the claims with `make`, unless there are none or it has begun.
    pub(super) fn begin<'scope>(
        &mut self,
        scope: &'scope Scope<'scope, '_>,
        make: impl Fn(&Claim, ClassId) -> Result<(), Error> + Clone + Send + 'scope,
    ) where
        's: 'scope,
    {
        if self.claims.is_empty() || self.have_begun() {
            return;
        }
        // The claims are made in the order of the classes that wait for them. (Steps come by users'
        // names, and neighbours are in different shards.) The sort is stable, since a user's claim
        // and its `pinned` have one number.
        self.claims.sort_by_key(|making| making.classid);
        let each = self.claims.iter().enumerate();
        self.at = each.map(|(at, making)| (making.classid, at)).collect();
        let (reports, receiver) = mpsc::channel();
        self.reports = Some(receiver);
        let (claims, stop) = (self.claims.clone(), Arc::clone(&self.stop));
        let is_worth_it = claims.len() >= MANY;
        let work = move || make_all(&make, &claims, &reports, &stop);
        // No further thread may be allowed (`TasksMax`).
        if !is_worth_it || thread::Builder::new().spawn_scoped(scope, work.clone()).is_err() {
            work();
        }
    }

    /// Whether the claim of this class is among those that were begun and are not known to be made;
    /// `None`: whether any is.
    pub(super) fn owe(&self, class: Option<ClassId>) -> bool {
        match class {
            Some(class) => self.at.get(&class).is_some_and(|at| *at >= self.made),
            None => self.made < self.claims.len(),
        }
    }

    /// What was made since the last call; `None`: nothing. Waits for news if `may_wait`. The
    /// directory of a claim that was refused may exist.
    pub(super) fn news(&mut self, may_wait: bool) -> Option<News<'_, 's>> {
        let reports = self.reports.as_ref()?;
        let Report(more, outcome) = match may_wait {
            // Without a last report the thread has panicked, which the scope makes known.
            true => reports.recv().unwrap_or(Report(0, Err(Error::NotMounted))),
            false => reports.try_recv().ok()?,
        };
        let before = self.made;
        self.made += more;
        let outcome = match (outcome, self.claims.get(self.made)) {
            (Err(error), Some(refused)) => Err((*refused, error)),
            _ => Ok(()),
        };
        Some((&self.claims[before..self.made], outcome))
    }

    /// Ends the making. Returns the claims that may have been made beyond those that are known to
    /// be.
    pub(super) fn stop(&mut self) -> &[Making<'s>] {
        self.stop.store(true, Ordering::Relaxed);
        let before = self.made;
        let mut end = before;
        for Report(more, outcome) in self.reports.iter().flatten() {
            self.made += more;
            end = self.made + usize::from(outcome.is_err());
        }
        self.claims.get(before..end).unwrap_or_default()
    }
}

fn make_all(
    make: &impl Fn(&Claim, ClassId) -> Result<(), Error>,
    claims: &[Making<'_>],
    reports: &Sender<Report>,
    stop: &AtomicBool,
) {
    for claims in claims.chunks(REPORTED) {
        let mut made = 0;
        let outcome = claims.iter().try_for_each(|it| {
            make(it.claim, it.classid)?;
            made += 1;
            Ok(())
        });
        let is_over = outcome.is_err() || stop.load(Ordering::Relaxed);
        if reports.send(Report(made, outcome)).is_err() || is_over {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::tree::{Key, Owner};
    use crate::units::Minor;

    fn class(n: u16) -> ClassId {
        ClassId::ours(Minor(0x10 + n))
    }

    /// Steps in the order of names, which is not that of the numbers.
    fn steps(count: u16) -> Vec<Step> {
        let step = |n| {
            let key = Key::new(&format!("u{n:05}")).unwrap();
            let n = (n * 7) % count;
            Step::Claim(Claim::Owner(Owner::User(key)), Change::Add(class(n)))
        };
        (0..count).map(step).collect()
    }

    fn makers(steps: &[Step]) -> Makers<'_> {
        let mut makers = Makers::default();
        steps.iter().filter_map(Making::of).for_each(|making| makers.add(making));
        makers
    }

    #[test]
    fn a_claim_is_owed_until_it_is_made() {
        for count in [1, 1_000] {
            let steps = steps(count);
            let mut makers = makers(&steps);
            let stands = Mutex::new(Vec::new());
            let mut known = 0;
            thread::scope(|scope| {
                makers.begin(scope, |_, classid| {
                    stands.lock().unwrap().push(classid);
                    Ok(())
                });
                assert!(!makers.owe(Some(class(count))));
                while makers.owe(None) {
                    let (news, outcome) = makers.news(true).unwrap();
                    assert!(outcome.is_ok());
                    known += u16::try_from(news.len()).unwrap();
                    let stands = stands.lock().unwrap();
                    for n in 0..count {
                        assert_eq!(makers.owe(Some(class(n))), n >= known);
                        assert!(makers.owe(Some(class(n))) || stands.contains(&class(n)));
                    }
                }
                assert!(makers.news(false).is_none());
            });
            assert_eq!(known, count);
        }
    }

    #[test]
    fn what_is_refused_ends_it_and_is_named_and_so_is_all_that_was_made() {
        for refused in [0, 7, 8, 700, 999] {
            let steps = steps(1_000);
            let mut makers = makers(&steps);
            thread::scope(|scope| {
                makers.begin(scope, |_, classid| match classid == class(refused) {
                    true => Err(Error::NotMounted),
                    false => Ok(()),
                });
                let mut made = 0;
                let which = loop {
                    let (news, outcome) = makers.news(true).unwrap();
                    made += news.len();
                    if let Err((which, _)) = outcome {
                        break which;
                    }
                };
                assert_eq!(made, usize::from(refused));
                assert_eq!(which.classid, class(refused));
                assert!(makers.owe(Some(class(refused))));
                assert!(makers.stop().is_empty());
            });
        }
    }

    #[test]
    fn whoever_stops_it_is_told_of_all_that_was_begun() {
        for refused in [8, 500] {
            let steps = steps(1_000);
            let mut makers = makers(&steps);
            let begun = Mutex::new(0);
            thread::scope(|scope| {
                makers.begin(scope, |_, classid| {
                    *begun.lock().unwrap() += 1;
                    match classid == class(refused) {
                        true => Err(Error::NotMounted),
                        false => Ok(()),
                    }
                });
                let known = makers.news(true).unwrap().0.len();
                let told = makers.stop().len();
                assert_eq!(known + told, *begun.lock().unwrap());
            });
        }
    }
}

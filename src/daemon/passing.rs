//! Whether what arrives goes through the ifbs: when the daemon reads the counters, and what it says
//! of them. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::host::observe::Passage;
use crate::sample::Passed;
use crate::tree::LinkName;

/// The time between two readings.
const INTERVAL: Duration = Duration::from_secs(2);
/// One part in so many more is clearly more: what is redirected counts without link-layer headers.
const SURE: u64 = 4;
/// After so many intervals in which all is right, it is over: what goes past an ifb may come and
/// go.
const OVER: u32 = 30;

type Passages = BTreeMap<LinkName, Passage>;

/// Readings of the counters, as long as something is shaped that arrives.
#[derive(Debug, Default)]
pub(super) struct Passing {
    due: Option<Instant>,
    last: Option<(Instant, Passages)>,
    links: BTreeMap<LinkName, Course>,
}

/// What the last intervals of a link have shown.
///
/// Some drivers' counters are a second old (they have the device write them to memory), so an
/// interval may have bytes that came, and were redirected, before it; all of them are in the first
/// interval's. So it is sure that something is wrong when all that is missing since then is clearly
/// more than came in any one interval.
#[derive(Debug, Default)]
struct Course {
    /// Bytes that are missing since the last interval in which all was right.
    missing: u64,
    /// The most bytes that came in one interval since then.
    most: u64,
    /// How many intervals have been right since one was wrong.
    right: u32,
    /// What was wrong in the last interval that was.
    last: (Passed, Duration),
    /// What was said, until it is over.
    said: Option<String>,
}

/// What follows from a reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Something is wrong: somebody is in the way.
    Wrong(LinkName),
    /// It is over.
    Over(LinkName),
}

impl Passing {
    /// When the next reading is due; `None`: nobody needs one.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// After an apply. `arrives`: something is shaped that arrives.
    pub(super) fn applied(&mut self, arrives: bool, now: Instant) {
        if !arrives {
            *self = Passing::default();
        }
        self.due = arrives.then(|| self.due.unwrap_or(now + INTERVAL));
    }

    /// Whether a reading is to begin now.
    pub(super) fn begins(&mut self, now: Instant) -> bool {
        let begins = self.due.is_some_and(|due| due <= now);
        if begins {
            self.due = Some(now + INTERVAL);
        }
        begins
    }

    /// Compares a reading with the last one.
    pub(super) fn read(&mut self, passages: Passages, now: Instant) -> Vec<News> {
        let last = self.last.replace((now, passages));
        let (Some((then, before)), Some((_, passages))) = (last, &self.last) else {
            return Vec::new();
        };
        let over = now.saturating_duration_since(then);
        self.links.retain(|link, _| passages.contains_key(link));
        let mut news = Vec::new();
        for (link, passage) in passages {
            let Some(before) = before.get(link) else { continue };
            let course = self.links.entry(link.clone()).or_default();
            match course.goes_on(Passed::between(before, passage, over), over) {
                Some(true) => news.push(News::Wrong(link.clone())),
                Some(false) => news.push(News::Over(link.clone())),
                None => {}
            }
        }
        news
    }

    /// The sentence about what is wrong with a link, which is remembered until it is over.
    /// `suspects`: [`crate::sample::suspects`].
    pub(super) fn say(&mut self, link: &LinkName, suspects: &[String]) -> Option<String> {
        let course = self.links.get_mut(link)?;
        let (passed, over) = course.last;
        course.said = passed.said(link, over, suspects);
        course.said.clone()
    }

    /// What was said and is not over.
    pub(super) fn said(&self) -> Option<&String> {
        self.links.values().find_map(|course| course.said.as_ref())
    }
}

impl Course {
    /// Takes in one interval. True: now it is sure that something is wrong; false: now it is over.
    fn goes_on(&mut self, passed: Passed, over: Duration) -> Option<bool> {
        match passed {
            Passed::Unknown => None,
            Passed::Through => {
                (self.missing, self.most, self.right) = (0, 0, self.right.saturating_add(1));
                self.said.take_if(|_| self.right >= OVER).map(|_| false)
            }
            Passed::Past { came: all, redirected: some }
            | Passed::Lost { redirected: all, reached: some } => {
                self.missing = self.missing.saturating_add(all.saturating_sub(some));
                (self.most, self.right, self.last) = (self.most.max(all), 0, (passed, over));
                let sure = self.missing > self.most.saturating_add(self.most / SURE);
                (self.said.is_none() && sure).then_some(true)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::observe::Led;
    use crate::netlink::received::Received;
    use crate::netlink::redirected::Redirected;
    use crate::tree::Counters;

    /// A link by which so many full frames come in each interval, of which some are redirected.
    struct Link {
        passing: Passing,
        now: Instant,
        came: u64,
        redirected: u64,
    }

    impl Link {
        fn new() -> Link {
            let (mut passing, now) = (Passing::default(), Instant::now());
            passing.applied(true, now);
            let mut link = Link { passing, now, came: 0, redirected: 0 };
            assert_eq!(link.interval(0, 0), Vec::new(), "there is nothing to compare with");
            link
        }

        fn interval(&mut self, came: u64, redirected: u64) -> Vec<News> {
            self.came += came;
            self.redirected += redirected;
            let (packets, bytes) = (self.redirected, self.redirected * 1_500);
            let reached = Counters { sent_bytes: packets * 1_514, ..Counters::default() };
            let redirected = vec![Redirected { program: 5, packets, bytes }];
            let led = Led { redirected, reached };
            let came = Received { packets: self.came, bytes: self.came * 1_514, dropped: 0 };
            let passage = Passage { indexes: [2, 9], before: led.clone(), came, after: led };
            self.now = self.passing.due().unwrap();
            assert!(self.passing.begins(self.now));
            self.passing.read(BTreeMap::from([(eth0(), passage)]), self.now)
        }

        /// After how many further intervals like this one it is sure that something is wrong.
        fn sure_after(&mut self, came: u64, redirected: u64) -> Option<usize> {
            (1..=40).find(|_| self.interval(came, redirected) == [News::Wrong(eth0())])
        }
    }

    fn eth0() -> LinkName {
        LinkName::new("eth0").unwrap()
    }

    #[test]
    fn what_goes_past_an_ifb_is_said_once_until_it_is_over() {
        let mut link = Link::new();
        let nothing: Vec<News> = Vec::new();
        assert_eq!(link.interval(10_000, 10_000), nothing);
        assert_eq!(link.sure_after(10_000, 0), Some(2));
        let said = link.passing.say(&eth0(), &["somebody".to_string()]).unwrap();
        assert!(said.contains("in 2.0 s only 0 kB") && said.ends_with("somebody"), "{said}");
        assert_eq!(link.sure_after(10_000, 0), None, "it is said");
        for _ in 1..OVER {
            assert_eq!(link.interval(10_000, 10_000), nothing);
        }
        assert_eq!(link.interval(0, 0), nothing, "nobody sends");
        assert_eq!(link.passing.said(), Some(&said));
        assert_eq!(link.interval(10_000, 10_000), [News::Over(eth0())]);
        assert_eq!(link.passing.said(), None);
        assert_eq!(link.sure_after(10_000, 5_000), Some(3), "half of it");
        let due = link.passing.due();
        link.passing.applied(true, link.now);
        assert_eq!(link.passing.due(), due, "an apply puts none off");
        link.passing.applied(false, link.now);
        assert_eq!(link.passing.due(), None);
        assert_eq!(link.passing.said(), None);
    }

    /// Counters that are a second old.
    #[test]
    fn what_was_redirected_before_it_was_counted_as_having_come_is_not_missed() {
        let mut link = Link::new();
        // The driver counts half of each interval's frames in the next one, and they become fewer.
        let frames = [100_000, 80_000, 60_000, 40_000, 20_000, 10_000, 5_000, 2_000, 0, 0];
        let mut old = 0;
        for frames in frames {
            assert_eq!(link.interval(old + frames / 2, frames), Vec::new());
            old = frames - frames / 2;
        }
        // A flow that ends at once.
        assert_eq!(link.interval(0, 100_000), Vec::new());
        assert_eq!(link.interval(100_000, 0), Vec::new());
        assert_eq!(link.interval(0, 0), Vec::new());
        assert_eq!(link.sure_after(1_000, 0), Some(26));
    }
}

//! Whether what arrives goes through the ifbs: when the daemon reads the counters, and what it says
//! of them. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::rounds::{PASSAGES, Rounds};
use crate::host::observe::Passage;
use crate::sample::Passed;
use crate::tree::LinkName;

/// One part in so many more is clearly more: what is redirected counts without link-layer headers.
const SURE: u64 = 4;
/// After intervals in which all is right, so long together, it is over: what goes past an ifb may
/// come and go.
const OVER: Duration = Duration::from_secs(60);

type Passages = BTreeMap<LinkName, Passage>;

/// Who may keep packets from the ifb of each link.
pub(super) type Suspects = BTreeMap<LinkName, Vec<String>>;

/// What one reading has found; `None` where that could not be read.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub passages: Option<Passages>,
    /// What of nftables has the ingress hook of a link, by link.
    pub firewalls: Option<BTreeMap<LinkName, String>>,
}

/// Readings of the counters, as long as something is shaped that arrives.
#[derive(Debug)]
pub(super) struct Passing {
    rounds: Rounds,
    last: Option<(Instant, Passages)>,
    links: BTreeMap<LinkName, Course>,
    /// What of nftables has come since to links on which it would see nothing.
    firewalls: BTreeMap<LinkName, String>,
    complaint: Option<Bypassed>,
    /// Whether the complaint differs from the one that [`Passing::news`] has told.
    is_news: bool,
}

/// What was said and is not over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bypassed {
    /// At which links, in a few words.
    pub brief: String,
    /// What is wrong, at the first of them.
    pub whole: String,
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
    /// How long the intervals together were that have been right since one was wrong.
    right: Duration,
    /// What was wrong in the last interval that was.
    last: (Passed, Duration),
    /// What was said, until it is over.
    said: Option<String>,
}

/// What follows from a reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    /// Links at which something is wrong now: somebody is in the way.
    pub wrong: BTreeSet<LinkName>,
    /// Links at which it is over.
    pub over: Vec<LinkName>,
}

impl Passing {
    /// No readings, until something is shaped that arrives.
    pub(super) fn new() -> Passing {
        Passing {
            rounds: Rounds::new(PASSAGES),
            last: None,
            links: BTreeMap::new(),
            firewalls: BTreeMap::new(),
            complaint: None,
            is_news: false,
        }
    }

    /// When the next reading is due; `None`: nobody needs one.
    pub(super) fn due(&self) -> Option<Instant> {
        self.rounds.due()
    }

    /// After an apply. `arrives`: something is shaped that arrives.
    pub(super) fn applied(&mut self, arrives: bool, now: Instant) {
        if !arrives {
            (self.last, self.links) = (None, BTreeMap::new());
            self.complain();
        }
        self.rounds.applied(arrives, now);
    }

    /// Whether a reading is to begin now.
    pub(super) fn begins(&mut self, now: Instant) -> bool {
        self.rounds.begins(now)
    }

    /// After a reading, or a look who is in the way, that took so long.
    pub(super) fn ended(&mut self, took: Duration, now: Instant) {
        self.rounds.ended(took, now);
    }

    /// Whether a firewall has come or gone at the ingress hook of a link, of those that are refused
    /// with one: rtnetlink tells nothing of it, and it sees no packet that is redirected.
    pub(super) fn another_firewall(
        &mut self,
        found: Option<BTreeMap<LinkName, String>>,
        is_refused: impl Fn(&LinkName) -> bool,
    ) -> bool {
        let Some(mut found) = found else { return false };
        found.retain(|link, _| is_refused(link));
        let is_news = found != self.firewalls;
        self.firewalls = found;
        is_news
    }

    /// Compares a reading with the last one.
    pub(super) fn read(&mut self, passages: Passages, now: Instant) -> News {
        let mut news = News::default();
        let last = self.last.replace((now, passages));
        let (Some((then, before)), Some((_, passages))) = (last, &self.last) else {
            return news;
        };
        let over = now.saturating_duration_since(then);
        self.links.retain(|link, _| passages.contains_key(link));
        for (link, passage) in passages {
            let Some(before) = before.get(link) else { continue };
            let course = self.links.entry(link.clone()).or_default();
            match course.goes_on(Passed::between(before, passage, over), over) {
                Some(true) => drop(news.wrong.insert(link.clone())),
                Some(false) => news.over.push(link.clone()),
                None => {}
            }
        }
        self.complain();
        news
    }

    /// The sentence about what is wrong with a link, which is remembered until it is over.
    /// `suspects`: [`crate::sample::suspects`].
    pub(super) fn say(&mut self, link: &LinkName, suspects: &[String]) -> Option<String> {
        let course = self.links.get_mut(link)?;
        let (passed, over) = course.last;
        course.said = passed.said(link, over, suspects);
        let said = course.said.clone();
        self.complain();
        said
    }

    /// What was said and is not over.
    pub(super) fn complaint(&self) -> Option<&Bypassed> {
        self.complaint.as_ref()
    }

    /// Whether that is another complaint than at the last call.
    pub(super) fn news(&mut self) -> bool {
        std::mem::take(&mut self.is_news)
    }

    /// Takes together what is said of each link.
    fn complain(&mut self) {
        let said =
            self.links.iter().filter_map(|(link, course)| Some((link, course.said.as_ref()?)));
        let mut said = said.peekable();
        let first = said.peek().copied();
        let complaint = first.map(|(link, whole)| match said.count() {
            1 => {
                let brief = format!("not all that arrives by {link} goes through its ifb");
                Bypassed { brief, whole: whole.clone() }
            }
            links => {
                let brief =
                    format!("not all that arrives by {links} links goes through their ifbs");
                Bypassed { whole: format!("{brief}: {whole}"), brief }
            }
        });
        self.is_news |= complaint != self.complaint;
        self.complaint = complaint;
    }
}

impl Course {
    /// Takes in one interval. True: now it is sure that something is wrong; false: now it is over.
    fn goes_on(&mut self, passed: Passed, over: Duration) -> Option<bool> {
        match passed {
            Passed::Unknown => None,
            Passed::Through => {
                (self.missing, self.most, self.right) = (0, 0, self.right.saturating_add(over));
                self.said.take_if(|_| self.right >= OVER).map(|_| false)
            }
            Passed::Past { came: all, redirected: some }
            | Passed::Lost { redirected: all, reached: some } => {
                self.missing = self.missing.saturating_add(all.saturating_sub(some));
                self.most = self.most.max(all);
                (self.right, self.last) = (Duration::ZERO, (passed, over));
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
            let (mut passing, now) = (Passing::new(), Instant::now());
            passing.applied(true, now);
            let mut link = Link { passing, now, came: 0, redirected: 0 };
            assert_eq!(link.interval(0, 0), News::default(), "there is nothing to compare with");
            link
        }

        fn interval(&mut self, came: u64, redirected: u64) -> News {
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
            (1..=40).find(|_| self.interval(came, redirected) == wrong())
        }
    }

    fn wrong() -> News {
        News { wrong: [eth0()].into(), ..News::default() }
    }

    fn eth0() -> LinkName {
        LinkName::new("eth0").unwrap()
    }

    #[test]
    fn what_goes_past_an_ifb_is_said_once_until_it_is_over() {
        let mut link = Link::new();
        let nothing = News::default();
        assert_eq!(link.interval(10_000, 10_000), nothing);
        assert_eq!(link.sure_after(10_000, 0), Some(2));
        let said = link.passing.say(&eth0(), &["somebody".to_string()]).unwrap();
        assert!(said.contains("in 2.0 s only 0 kB") && said.ends_with("somebody"), "{said}");
        assert_eq!(link.sure_after(10_000, 0), None, "it is said");
        for _ in 1..OVER.as_secs() / PASSAGES.least.as_secs() {
            assert_eq!(link.interval(10_000, 10_000), nothing);
        }
        assert_eq!(link.interval(0, 0), nothing, "nobody sends");
        assert_eq!(link.passing.complaint().map(|it| &it.whole), Some(&said));
        assert!(link.passing.news() && !link.passing.news(), "once");
        assert_eq!(link.interval(10_000, 10_000), News { over: vec![eth0()], ..News::default() });
        assert_eq!((link.passing.news(), link.passing.complaint()), (true, None));
        assert_eq!(link.sure_after(10_000, 5_000), Some(3), "half of it");
        link.passing.say(&eth0(), &[]).unwrap();
        assert!(link.passing.news());
        let due = link.passing.due();
        link.passing.applied(true, link.now);
        assert_eq!(link.passing.due(), due, "an apply puts none off");
        link.passing.ended(Duration::from_millis(100), link.now);
        assert_eq!(link.passing.due(), Some(link.now + PASSAGES.rest(Duration::from_millis(100))));
        link.passing.applied(false, link.now);
        assert_eq!(link.passing.due(), None);
        assert_eq!((link.passing.news(), link.passing.complaint()), (true, None));
    }

    #[test]
    fn a_firewall_that_comes_or_goes_is_news_where_it_is_refused() {
        let mut passing = Passing::new();
        let at = |links: &[&str]| {
            let each = links.iter().map(|link| (LinkName::new(link).unwrap(), "chain guard in"));
            Some(each.map(|(link, what)| (link, what.to_string())).collect())
        };
        let mut is_news = |found| passing.another_firewall(found, |link| *link == eth0());
        assert!(!is_news(at(&[])) && !is_news(at(&["eth1"])), "whose line says that it is well");
        assert!(is_news(at(&["eth0", "eth1"])) && !is_news(at(&["eth0"])), "once");
        assert!(!is_news(None), "nftables did not answer");
        assert!(is_news(at(&["eth1"])) && !is_news(at(&[])), "it is gone");
    }

    /// Counters that are a second old.
    #[test]
    fn what_was_redirected_before_it_was_counted_as_having_come_is_not_missed() {
        let mut link = Link::new();
        // The driver counts half of each interval's frames in the next one, and they become fewer.
        let frames = [100_000, 80_000, 60_000, 40_000, 20_000, 10_000, 5_000, 2_000, 0, 0];
        let mut old = 0;
        for frames in frames {
            assert_eq!(link.interval(old + frames / 2, frames), News::default());
            old = frames - frames / 2;
        }
        // A flow that ends at once.
        assert_eq!(link.interval(0, 100_000), News::default());
        assert_eq!(link.interval(100_000, 0), News::default());
        assert_eq!(link.interval(0, 0), News::default());
        assert_eq!(link.sure_after(1_000, 0), Some(26));
    }
}

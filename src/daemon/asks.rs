//! When container engines are asked. Pure.

use std::time::{Duration, Instant};

/// The least time between two questions that links cause.
const PAUSE: Duration = Duration::from_millis(50);

/// The next question, and what the last one was about.
#[derive(Debug, Default)]
pub(super) struct Asks {
    due: Option<Instant>,
    last: Option<Instant>,
    /// The highest ifindex of a link that has come: the kernel counts upwards.
    newest: u32,
}

impl Asks {
    /// After a look or an answer. `due`: when engines are to be asked about what they did not say.
    pub(super) fn learned(&mut self, due: Option<Instant>) {
        self.due = due;
    }

    /// A link has come that may be a container's. Its engine knows the name before there is a
    /// process, so the answer is there when a look first finds the container.
    pub(super) fn link_came(&mut self, index: u32, now: Instant) {
        if index <= self.newest {
            return;
        }
        self.newest = index;
        let soonest = self.last.map_or(now, |last| now.max(last + PAUSE));
        self.due = Some(self.due.map_or(soonest, |due| due.min(soonest)));
    }

    /// When engines are asked; `None`: nobody needs them.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether they are to be asked now.
    pub(super) fn begins(&mut self, now: Instant) -> bool {
        let begins = self.due.take_if(|due| *due <= now).is_some();
        self.last = if begins { Some(now) } else { self.last };
        begins
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_link_that_comes_has_engines_asked_once_and_not_question_upon_question() {
        let (mut asks, now) = (Asks::default(), Instant::now());
        assert!(!asks.begins(now));
        // Both ends of a veth.
        [7, 8].into_iter().for_each(|index| asks.link_came(index, now));
        assert!(asks.begins(now) && !asks.begins(now));
        asks.link_came(8, now);
        assert_eq!(asks.due(), None, "it goes up");
        asks.link_came(9, now);
        assert_eq!(asks.due(), Some(now + PAUSE));
        asks.learned(Some(now));
        asks.link_came(10, now);
        assert!(asks.begins(now), "what is due sooner stays so");
        asks.learned(None);
        assert_eq!(asks.due(), None);
    }
}

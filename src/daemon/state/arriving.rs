//! What follows from counters of what arrives. Pure.

use std::time::{Duration, Instant};

use super::State;
use crate::daemon::event::Action;
use crate::daemon::passing::{News, Reading, Suspects};
use crate::daemon::shaping;
use crate::tree::LinkName;

impl State {
    /// Where counters say that packets go past an ifb, it is looked who is in the way. A link
    /// to which a firewall has come is passed over, which the next apply says.
    pub(super) fn passed(&mut self, reading: Reading, took: Duration, now: Instant) {
        self.passing.ended(took, now);
        let heeds = |link: &LinkName| self.standing.heeds_firewall(link);
        if self.passing.another_firewall(reading.firewalls, heeds) {
            self.tell(shaping::Event::Wanted { by: now }, now);
        }
        let Some(passages) = reading.passages else { return };
        let News { wrong, over } = self.passing.read(passages, now);
        if !wrong.is_empty() {
            self.act(Action::LookInTheWay(wrong));
        }
        for link in over {
            let line = format!("what arrives by {link} goes through its ifb again");
            self.say(log::Level::Info, line);
        }
    }

    pub(super) fn in_the_way(&mut self, suspects: &Suspects, took: Duration, now: Instant) {
        self.passing.ended(took, now);
        for (link, suspects) in suspects {
            if let Some(line) = self.passing.say(link, suspects) {
                self.say(log::Level::Warn, line);
            }
        }
    }
}

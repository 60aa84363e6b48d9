//! What the kernel tells of links and of their traffic control, as far as it is about ours.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::Watch;
use crate::netlink::notice::Notice;
use crate::policy::{LinkLine, LinkRef};
use crate::sys::listener::Heard;

/// What changes one thing often changes more: wait so long for the rest.
const GATHER: Duration = Duration::from_millis(20);
/// A link that has come is unshaped until it is looked at, and nothing of it is half done.
const COME: Duration = Duration::from_millis(1);
/// Of the time that a look takes, so many times until the next, however much is told.
const SHARE: u32 = 4;
/// But no longer.
const LONGEST: Duration = Duration::from_millis(500);

impl Watch {
    pub(super) fn hear_links(&mut self) {
        let own = self.session.kernel.netlink.port();
        let mut told = BTreeSet::new();
        let heard = self.links.hear(|port, notice| {
            if port != own {
                told.insert(notice);
            }
        });
        let mut matters = false;
        for notice in &told {
            matters |= self.concerns(notice);
        }
        match heard {
            Ok(Heard::All) => {}
            Ok(Heard::Lost) => matters = true,
            Err(error) => {
                log::warn!("what happens to links cannot be heard: {error}");
                matters = true;
            }
        }
        if matters {
            let (now, pause) =
                (Instant::now(), self.took.saturating_mul(SHARE).clamp(GATHER, LONGEST));
            // Where they come one after the other, looks keep their distance all the same.
            let at = match told.iter().any(|notice| self.has_come(notice)) {
                true => (self.looked + pause).clamp(now + COME, now + pause),
                false => now + pause,
            };
            self.soon(at);
        }
    }

    /// Whether it is of a link that the policy names and that is not shaped.
    fn has_come(&self, notice: &Notice) -> bool {
        let Notice::Link(index, name, altnames) = notice else { return false };
        let mut lines = self.intent.policy.links.iter();
        self.in_force.links.values().all(|shaped| shaped != index)
            && lines.any(|line| line.name.value.means(name, altnames))
    }

    /// Whether a notice is about a link that we shape, or that the policy may mean.
    fn concerns(&mut self, notice: &Notice) -> bool {
        let shaped = |index: &u32| {
            let mut links = self.in_force.links.iter();
            links.find(|(_, shaped)| *shaped == index).map(|(name, _)| name.clone())
        };
        let lines = &self.intent.policy.links;
        let auto = lines.iter().any(|line| line.name.value == LinkRef::Auto);
        match notice {
            Notice::DefaultRoute => auto,
            Notice::TrafficControl(index) => {
                let link = shaped(index);
                let ours = link.is_some();
                self.touched.extend(link);
                // What stood in the way there may have gone.
                ours || self.in_force.in_the_way.contains(index)
            }
            Notice::Link(index, name, altnames) | Notice::Gone(index, name, altnames) => {
                let meant = |line: &LinkLine| line.name.value.means(name, altnames);
                auto || shaped(index).is_some() || lines.iter().any(meant)
            }
        }
    }
}

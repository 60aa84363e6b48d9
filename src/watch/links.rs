//! What the kernel tells of links and of their traffic control, as far as it is about ours.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::Watch;
use crate::netlink::notice::Notice;
use crate::policy::{LinkLine, LinkRef};
use crate::sys::listener::Heard;

/// What changes one thing often changes more: wait so long for the rest.
const GATHER: Duration = Duration::from_millis(20);
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
            let pause = self.took.saturating_mul(SHARE).clamp(GATHER, LONGEST);
            self.soon(Instant::now() + pause);
        }
    }

    /// Whether a notice is about a link that we shape, or that the policy may mean.
    fn concerns(&mut self, notice: &Notice) -> bool {
        let shaped = |index: &u32| {
            let mut links = self.stands.links.iter();
            links.find(|(_, shaped)| *shaped == index).map(|(name, _)| name.clone())
        };
        let lines = &self.session.policy.links;
        let auto = lines.iter().any(|line| line.name.value == LinkRef::Auto);
        match notice {
            Notice::DefaultRoute => auto,
            Notice::TrafficControl(index) => {
                let link = shaped(index);
                let ours = link.is_some();
                self.touched.extend(link);
                ours
            }
            Notice::Link(index, name, altnames) | Notice::Gone(index, name, altnames) => {
                let meant = |line: &LinkLine| line.name.value.means(name, altnames);
                auto || shaped(index).is_some() || lines.iter().any(meant)
            }
        }
    }
}

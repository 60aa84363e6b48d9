//! What the kernel tells of links and of their traffic control, as far as it is about ours.

use std::collections::BTreeSet;

use super::Watch;
use super::shaping::Event;
use crate::netlink::notice::Notice;
use crate::policy::{LinkLine, LinkRef};
use crate::sys::listener::Heard;
use crate::tree::LinkName;

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
            let touched = told.iter().filter_map(|notice| self.touched(notice)).collect();
            let has_come = told.iter().any(|notice| self.has_come(notice));
            self.tell_shaping(Event::LinksTold { touched, has_come });
        }
    }

    /// The shaped link whose traffic control it is about.
    fn touched(&self, notice: &Notice) -> Option<LinkName> {
        match notice {
            Notice::TrafficControl(index) => self.shaped(*index).cloned(),
            _ => None,
        }
    }

    fn shaped(&self, index: u32) -> Option<&LinkName> {
        self.in_force.links.iter().find(|(_, shaped)| **shaped == index).map(|(name, _)| name)
    }

    /// Whether it is of a link that the policy names and that is not shaped.
    fn has_come(&self, notice: &Notice) -> bool {
        let Notice::Link(index, name, altnames) = notice else { return false };
        let mut lines = self.intent.policy.links.iter();
        self.in_force.links.values().all(|shaped| shaped != index)
            && lines.any(|line| line.name.value.means(name, altnames))
    }

    /// Whether a notice is about a link that we shape, or that the policy may mean.
    fn concerns(&self, notice: &Notice) -> bool {
        let lines = &self.intent.policy.links;
        let auto = lines.iter().any(|line| line.name.value == LinkRef::Auto);
        match notice {
            Notice::DefaultRoute => auto,
            // What stood in the way there may have gone.
            Notice::TrafficControl(index) => {
                self.shaped(*index).is_some() || self.in_force.in_the_way.contains(index)
            }
            Notice::Link(index, name, altnames) | Notice::Gone(index, name, altnames) => {
                let meant = |line: &LinkLine| line.name.value.means(name, altnames);
                auto || self.shaped(*index).is_some() || lines.iter().any(meant)
            }
        }
    }
}

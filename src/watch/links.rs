//! What the kernel tells of links and of their traffic control, as far as it is about ours.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Watch;
use super::agenda::Task;
use crate::netlink::notice::Notice;
use crate::policy::LinkRef;
use crate::state::LinkName;
use crate::sys::listener::Heard;

/// What changes one thing often changes more: wait so long for the rest.
const GATHER: Duration = Duration::from_millis(20);
/// Of the time that a look takes, so many times until the next, however much is told.
const SHARE: u32 = 4;

impl Watch {
    pub(super) fn hear_links(&mut self) {
        let own = self.session.kernel.netlink.port();
        let mut told = BTreeMap::new();
        let heard = self.links.hear(|port, Notice { ifindex, name }| {
            if port != own {
                let known = told.entry(ifindex).or_insert(None);
                *known = name.or(known.take());
            }
        });
        let matters = match heard {
            Ok(Heard::All) => told.iter().any(|(index, name)| self.concerns(*index, name.as_ref())),
            Ok(Heard::Lost) => true,
            Err(error) => {
                log::warn!("what happens to links cannot be heard: {error}");
                true
            }
        };
        if matters {
            let pause = GATHER.max(self.took.saturating_mul(SHARE));
            self.agenda.by(Task::Reconcile, Instant::now() + pause);
        }
    }

    /// Whether a notice is about a link that we shape, or that the policy may mean.
    fn concerns(&self, ifindex: u32, name: Option<&LinkName>) -> bool {
        let shaped = self.stands.links.values().any(|index| *index == ifindex);
        let meant = |name: &LinkName| {
            self.session.policy.links.iter().any(|line| match &line.name.value {
                LinkRef::Auto => true,
                LinkRef::Name(written) => written == name,
            })
        };
        shaped || name.is_some_and(meant)
    }
}

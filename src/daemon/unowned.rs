//! When links are looked at again that came without an owner. Podman and CRI-O make a container's
//! network before its first process, and only processes tell whose a network namespace is; the
//! kernel has no event for a process that enters one. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::tree::LinkName;

/// How long after a link was first seen it is looked at again. Most containers have a process
/// within a second; what has none after the last look is found by whatever causes the next one.
const LOOKS: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(10),
];

/// Links to other namespaces that are nobody's, by name and ifindex.
#[derive(Debug, Default)]
pub(super) struct Unowned {
    links: BTreeMap<(LinkName, u32), Wait>,
    /// When the first of them is looked at: asked before each event, and there may be many links.
    due: Option<Instant>,
}

#[derive(Debug)]
struct Wait {
    since: Instant,
    /// How many looks there were.
    looks: usize,
}

impl Wait {
    fn due(&self) -> Option<Instant> {
        Some(self.since + *LOOKS.get(self.looks)?)
    }
}

impl Unowned {
    /// After an apply, which found these.
    pub(super) fn applied(&mut self, links: impl Iterator<Item = (LinkName, u32)>, now: Instant) {
        let mut before = std::mem::take(&mut self.links);
        self.links = links
            .map(|link| {
                let wait = before.remove(&link).unwrap_or(Wait { since: now, looks: 0 });
                (link, wait)
            })
            .collect();
        self.note_due();
    }

    fn note_due(&mut self) {
        self.due = self.links.values().filter_map(Wait::due).min();
    }

    /// When the next look is due; `None`: nobody needs one.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether a look is to begin now.
    pub(super) fn begins(&mut self, now: Instant) -> bool {
        let mut begins = false;
        if self.due.is_none_or(|due| due > now) {
            return begins;
        }
        for wait in self.links.values_mut() {
            while wait.due().is_some_and(|due| due <= now) {
                wait.looks += 1;
                begins = true;
            }
        }
        self.note_due();
        begins
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_without_an_owner_is_looked_at_five_times_in_ten_seconds() {
        let (mut unowned, start) = (Unowned::default(), Instant::now());
        let [one, two] = ["veth1", "veth2"].map(|name| (LinkName::new(name).unwrap(), 7));
        let mut looks = Vec::new();
        unowned.applied([one.clone()].into_iter(), start);
        while let Some(due) = unowned.due() {
            assert!(!unowned.begins(due - Duration::from_millis(1)));
            assert!(unowned.begins(due));
            looks.push((due - start).as_millis());
            unowned.applied([one.clone()].into_iter(), due);
        }
        assert_eq!(looks, [100, 300, 1_000, 3_000, 10_000]);
        // Another one begins anew, also under the same name.
        let later = start + Duration::from_secs(60);
        for link in [two, (one.0.clone(), 8)] {
            unowned.applied([one.clone(), link].into_iter(), later);
            assert_eq!(unowned.due(), Some(later + LOOKS[0]));
        }
        unowned.applied([one].into_iter(), later);
        assert_eq!(unowned.due(), None, "the others have an owner, or went");
    }
}

//! By which links packets leave that go to one link first: each of these may be a shaped one.
//! Touches nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::stacked::is_tunnel;
use crate::facts::LinkFacts;
use crate::tree::LinkName;

/// The links by which packets leave that go to one link first.
#[derive(Debug, PartialEq, Eq)]
pub enum Under {
    /// A tunnel's: by whichever the routes say for the outer packets.
    Any,
    /// The link itself and those below it.
    These(BTreeSet<LinkName>),
}

impl Under {
    /// Those below this link: its slaves, and the link that carries it. `links`: the kernel's.
    pub fn of(link: &LinkName, links: &BTreeMap<LinkName, LinkFacts>) -> Under {
        let (mut under, mut next) = (BTreeSet::new(), vec![link]);
        while let Some(link) = next.pop() {
            let Some(facts) = links.get(link).filter(|_| under.insert(link.clone())) else {
                continue;
            };
            if is_tunnel(facts) {
                return Under::Any;
            }
            let is_under = |it: &LinkFacts| {
                it.master == Some(facts.ifindex) || facts.lower == Some(it.ifindex)
            };
            next.extend(links.iter().filter(|(_, it)| is_under(it)).map(|(name, _)| name));
        }
        Under::These(under)
    }

    /// Whether packets may leave by this link.
    pub fn holds(&self, link: &LinkName) -> bool {
        match self {
            Under::Any => true,
            Under::These(links) => links.contains(link),
        }
    }
}

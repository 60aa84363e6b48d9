//! Which notices about links and their traffic control concern this instance. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::shaping::Event;
use crate::apply::InForce;
use crate::netlink::notice::Notice;
use crate::policy::{LinkLine, LinkRef, Policy};
use crate::process::Changers;
use crate::tree::LinkName;

/// The state in force, and its policy or one that is refused.
pub(super) struct Ours<'a> {
    pub in_force: &'a InForce,
    pub policy: &'a Policy,
}

/// The shaped link, or its ifb, with this index.
pub(super) fn shaped(in_force: &InForce, index: u32) -> Option<&LinkName> {
    in_force.links.iter().find(|(_, shaped)| **shaped == index).map(|(name, _)| name)
}

impl Ours<'_> {
    /// The event that follows from notices; `None`: none concerns this instance. `by`: who changed
    /// the traffic control of shaped links, by ifindex. `is_all`: no notice was lost.
    pub(super) fn told<P>(
        &self,
        told: &BTreeSet<Notice>,
        by: &BTreeMap<u32, Changers>,
        is_all: bool,
    ) -> Option<Event<P>> {
        let matters = !is_all || told.iter().any(|notice| self.concerns(notice));
        matters.then(|| Event::LinksTold {
            touched: told.iter().filter_map(|notice| self.touched(notice, by)).collect(),
            has_come: told.iter().any(|notice| self.has_come(notice)),
        })
    }

    /// The shaped link whose traffic control the notice is about, and who changed it.
    fn touched(
        &self,
        notice: &Notice,
        by: &BTreeMap<u32, Changers>,
    ) -> Option<(LinkName, Changers)> {
        let Notice::TrafficControl(index) = notice else { return None };
        Some((self.shaped(*index)?.clone(), by.get(index).cloned().unwrap_or_default()))
    }

    fn shaped(&self, index: u32) -> Option<&LinkName> {
        shaped(self.in_force, index)
    }

    /// Whether the notice is about a link that the policy names and that is not shaped, or one that
    /// may be a guest's and is not labelled. A link that has the name, but not the index, of one
    /// that was labelled is another link.
    fn has_come(&self, notice: &Notice) -> bool {
        let Notice::Link(index, name, altnames) = notice else { return false };
        let mut lines = self.policy.links.iter();
        let is_labelled = self.in_force.labelled.get(name) == Some(index);
        self.in_force.links.values().all(|shaped| shaped != index)
            && (lines.any(|line| line.name.value.means(name, altnames))
                || (self.names_guests() && !is_labelled))
    }

    /// The links that may be of containers whose engines are to be asked.
    pub(super) fn new_guests(&self, told: &BTreeSet<Notice>) -> impl Iterator<Item = u32> {
        let come = told.iter().filter(|_| self.policy.names_containers());
        come.filter(|notice| self.has_come(notice)).filter_map(|notice| match notice {
            Notice::Link(index, ..) => Some(*index),
            _ => None,
        })
    }

    fn names_guests(&self) -> bool {
        self.in_force.model.inner.is_some()
    }

    /// Whether the policy, which is refused, may hold after what notices tell of. Of shaped links
    /// they tell of the daemon's own changes too. `is_all`: no notice was lost.
    pub(super) fn may_hold_now(&self, told: &BTreeSet<Notice>, is_all: bool) -> bool {
        let lines = &self.policy.links;
        let auto = lines.iter().any(|line| line.name.value == LinkRef::Auto);
        let has_down = lines.iter().any(|line| line.down.is_some());
        let mut told = told.iter();
        !is_all
            || told.any(|notice| match notice {
                Notice::DefaultRoute => auto,
                // What stands where packets arrive keeps a `down` off a link that is shaped.
                Notice::TrafficControl(index) => self.shaped(*index).is_none() || has_down,
                Notice::Link(_, name, altnames) | Notice::Gone(_, name, altnames) => {
                    auto || lines.iter().any(|line| line.name.value.means(name, altnames))
                }
            })
    }

    /// Whether a notice is about a shaped link, or one that the policy may mean.
    fn concerns(&self, notice: &Notice) -> bool {
        let lines = &self.policy.links;
        let auto = lines.iter().any(|line| line.name.value == LinkRef::Auto);
        match notice {
            Notice::DefaultRoute => auto,
            // What stood in the way there may have gone.
            Notice::TrafficControl(index) => {
                self.shaped(*index).is_some()
                    || self.in_force.passes_over(*index)
                    || self.in_force.labelled.values().any(|labelled| labelled == index)
            }
            Notice::Link(index, name, altnames) | Notice::Gone(index, name, altnames) => {
                let meant = |line: &LinkLine| line.name.value.means(name, altnames);
                auto || self.names_guests()
                    || self.shaped(*index).is_some()
                    || self.in_force.passes_over(*index)
                    || lines.iter().any(meant)
            }
        }
    }
}

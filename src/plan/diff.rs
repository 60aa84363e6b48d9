//! The order of steps. A claim is made before its class and removed after it; a class stands on
//! every link before anything sends packets to it; an object that replaces another is whole before
//! the old one goes; the root and the default class come first and go last.

mod claims;
mod classes;
mod comparison;
mod disturbs;
mod filters;
mod hooks;
mod turn;

use super::{Phase, Plan, Replaced, Step, Whole};
use crate::facts::{Observation, RootQdisc};
use crate::tree::{Direction, KernelState, NetCls, OwnerKey, Port};
use classes::FIXED;
use comparison::Comparison;
use turn::Turn;

/// The steps that turn the observed state into `to`. The observation's foreign objects say whom a
/// step disturbs, and its facts which root qdiscs ours replace.
pub fn diff(observed: &Observation, to: &KernelState) -> Plan {
    // Most runs find nothing to do, and comparing the two says so much sooner.
    if observed.state == *to && observed.is_plain() {
        return Plan::default();
    }
    let mut diff = Comparison::new(observed, to);
    diff.mount();
    diff.ifbs();
    diff.clsact();
    diff.roots();
    diff.make_claims();
    diff.left_tables();
    diff.let_go();
    diff.make_owners();
    diff.labels_unread();
    diff.learners();
    diff.learn_before_finding();
    diff.classes();
    diff.cgroups_unread();
    diff.filters();
    diff.old_learners();
    diff.change_owners();
    diff.write_classids();
    diff.labels_read();
    diff.phase = Phase::TearDown;
    diff.learn_before_redirecting();
    diff.redirects();
    diff.old_pulses();
    diff.delete_redirects();
    diff.late_tags();
    diff.late_programs();
    diff.delete_roots();
    diff.delete_ifbs();
    diff.delete_clsact();
    diff.delete_classes();
    diff.drop_owners();
    diff.remove_claims();
    diff.unmount();
    diff.into_plan()
}

impl<'a> Comparison<'a> {
    fn mount(&mut self) {
        if self.from.net_cls == NetCls::Unmounted && self.to.net_cls != NetCls::Unmounted {
            self.push(Step::Mount(Whole::Add(())));
        }
    }

    fn unmount(&mut self) {
        if self.from.net_cls != NetCls::Unmounted && self.to.net_cls == NetCls::Unmounted {
            self.push(Step::Mount(Whole::Remove(())));
        }
    }

    /// Makes new roots, each with the classes that nobody claims: as soon as there is the root the
    /// host sends through it, so the default class follows at once.
    fn roots(&mut self) {
        for turn in self.turns().filter(Turn::is_new) {
            self.push(Step::Root(turn.port.clone(), Whole::Add(self.replaced(turn.port))));
            for id in FIXED {
                self.add_class(&turn, id);
            }
        }
    }

    /// The root qdisc that ours replaces. A link that the facts lack is gone, and its steps fail
    /// whatever this says.
    fn replaced(&self, port: &Port) -> Replaced {
        let standing = match port.direction {
            Direction::Egress => self.facts.links.get(&port.link).map(|link| &link.root),
            // Whatever somebody put there: the ifb is ours.
            Direction::Ingress => self.facts.ifb_roots.get(&port.device()),
        };
        match standing {
            Some(RootQdisc::Foreign { kind, handle, .. }) => {
                Replaced::Foreign { kind: kind.clone(), handle: *handle }
            }
            Some(RootQdisc::Kernel { .. } | RootQdisc::Ours) | None => Replaced::Kernel,
        }
    }

    /// Makes the maps of the deciding programs, where none stands: whole, before the first filter
    /// that reads them.
    fn make_owners(&mut self) {
        if let (None, Some(table)) = (&self.from.owners, &self.to.owners) {
            self.push(Step::Owners(Whole::Add(table.clone())));
        }
    }

    /// Changes entries of those maps, which programs read at once. So by then the classes that come
    /// must stand, with the filters that lead to them, and the classes that go must stand too.
    fn change_owners(&mut self) {
        let (labels, cgroups) = (hooks::read_labels(self.from), self.from.asks_cgroups());
        self.entries(|key| match key {
            OwnerKey::Source(_) => labels,
            OwnerKey::Cgroup(..) => cgroups,
            OwnerKey::Account(_) | OwnerKey::Prefix(_) => true,
        });
    }

    /// The classes of units' cgroups, while no program asks for them yet: before the first that
    /// does.
    fn cgroups_unread(&mut self) {
        if !self.from.asks_cgroups() {
            self.entries(|key| matches!(key, OwnerKey::Cgroup(..)));
        }
    }

    /// The changes of those entries that are about such keys.
    fn entries(&mut self, which: impl Fn(&OwnerKey) -> bool) {
        if let (Some(standing), Some(wanted)) = (&self.from.owners, &self.to.owners) {
            let mut changes = standing.changes(wanted);
            changes.retain(|change| which(&change.key));
            if !changes.is_empty() {
                self.push(Step::Entries(changes));
            }
        }
    }

    fn drop_owners(&mut self) {
        if self.from.owners.is_some() && self.to.owners.is_none() {
            self.push(Step::Owners(Whole::Remove(())));
        }
    }

    fn delete_roots(&mut self) {
        for port in self.from.trees.keys().filter(|port| !self.to.trees.contains_key(port)) {
            self.push(Step::Root(port.clone(), Whole::Remove(())));
        }
    }
}

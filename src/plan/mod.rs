//! From what is to what should be: a list of steps so specific that whoever performs them has no
//! choice left. Pure. The same diff is the dry run, the verification (nothing is left to do), undo
//! (a plan back) and `clear` (a plan towards nothing).

mod diff;
mod journal;
mod print;
mod routine;
mod simulate;

pub use diff::diff;
pub use journal::Journal;
pub use print::{Paths, Tc};
pub use routine::Logins;
pub use simulate::perform;

use std::collections::BTreeSet;

use crate::tree::{
    Claim, Class, Filter, LeafQdisc, LinkName, Owner, OwnerChange, OwnerTable, Port, Pref,
};
use crate::units::{ClassId, Shard};

/// One thing that is done to the kernel. Its `Display` is a line of `shaper plan`; [`Tc`] prints
/// the command that it equals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Mount the `net_cls` hierarchy at our own place.
    Mount,
    Unmount,
    AddRoot {
        port: Port,
        replaces: Replaced,
    },
    /// Takes everything below it along; the kernel puts its own default back.
    DeleteRoot {
        port: Port,
    },
    MakeClaim {
        claim: Claim,
        classid: ClassId,
    },
    /// Moves the sockets of all processes in the directory to the class.
    WriteClassid {
        claim: Claim,
        from: ClassId,
        to: ClassId,
    },
    RemoveClaim {
        claim: Claim,
        classid: ClassId,
    },
    AddClass {
        port: Port,
        id: ClassId,
        class: Class,
    },
    /// In place: no packet is lost. Never changes the parent (the kernel would ignore it).
    ChangeClass {
        port: Port,
        id: ClassId,
        from: Class,
        to: Class,
    },
    DeleteClass {
        port: Port,
        id: ClassId,
        class: Class,
    },
    /// Under another parent, which HTB cannot do in place: deleted and made again, and what it
    /// holds is dropped. Only where somebody moved it by hand, and to undo.
    ReplaceClass {
        port: Port,
        id: ClassId,
        from: Class,
        to: Class,
        leaf: Option<LeafQdisc>,
    },
    AddLeaf {
        port: Port,
        id: ClassId,
        leaf: LeafQdisc,
    },
    /// The same kind, in place: no packet is lost.
    ChangeLeaf {
        port: Port,
        id: ClassId,
        from: LeafQdisc,
        to: LeafQdisc,
    },
    /// Another kind: what the old one holds is dropped.
    ReplaceLeaf {
        port: Port,
        id: ClassId,
        from: LeafQdisc,
        to: LeafQdisc,
    },
    /// The qdisc `clsact`, empty: packets pass it as before.
    AddClsact {
        link: LinkName,
    },
    /// With ours in it; only where there are no others.
    DeleteClsact {
        link: LinkName,
    },
    AddFilter {
        port: Port,
        /// The root qdisc, a shard's, or clsact's egress side.
        parent: ClassId,
        pref: Pref,
        filter: Filter,
    },
    DeleteFilter {
        port: Port,
        parent: ClassId,
        pref: Pref,
        filter: Filter,
    },
    /// New maps for the deciding programs, which hold this. No packet meets them until a filter
    /// comes that reads them.
    MakeOwners {
        table: OwnerTable,
    },
    /// Entries of the maps, one after the other, in place: packets meet each change at once, on all
    /// links.
    ChangeOwners {
        changes: Vec<OwnerChange>,
    },
    /// The last filter that read the maps is gone, and they with it.
    DropOwners,
    /// u32 hash tables that a deleted pref left behind, in the order in which they can go. The
    /// kernel finds them through any other u32 pref that stands; without one they are gone already.
    DeleteTables {
        port: Port,
        through: Pref,
        /// That pref's, as an ethertype.
        protocol: u16,
        tables: Vec<u16>,
    },
}

/// The root qdisc in whose place ours comes. How it goes is a part of the step: the kernel lets an
/// `add` take the place of its own qdisc only, a `replace` that of any other with another handle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// The kernel's own (handle `0:`), whatever its kind.
    Kernel,
    /// Somebody's that was taken over.
    Foreign { kind: String, handle: ClassId },
}

/// When a step is performed. Processes are placed between the two: whoever loses a class is in the
/// next one before the old one goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Build,
    TearDown,
}

impl Step {
    /// The link that the step is about; `None` for directories and the mount.
    pub fn link(&self) -> Option<&LinkName> {
        match self {
            Step::AddClsact { link } | Step::DeleteClsact { link } => Some(link),
            _ => self.port().map(|port| &port.link),
        }
    }

    /// The direction of its link, too; `None` also where a step is about the whole link.
    pub fn port(&self) -> Option<&Port> {
        match self {
            Step::AddRoot { port, .. }
            | Step::DeleteRoot { port }
            | Step::AddClass { port, .. }
            | Step::ChangeClass { port, .. }
            | Step::DeleteClass { port, .. }
            | Step::ReplaceClass { port, .. }
            | Step::AddLeaf { port, .. }
            | Step::ChangeLeaf { port, .. }
            | Step::ReplaceLeaf { port, .. }
            | Step::AddFilter { port, .. }
            | Step::DeleteFilter { port, .. }
            | Step::DeleteTables { port, .. } => Some(port),
            _ => None,
        }
    }

    /// The class that the step is about.
    pub fn class(&self) -> Option<ClassId> {
        match self {
            Step::AddClass { id, .. }
            | Step::ChangeClass { id, .. }
            | Step::DeleteClass { id, .. }
            | Step::ReplaceClass { id, .. }
            | Step::AddLeaf { id, .. }
            | Step::ChangeLeaf { id, .. }
            | Step::ReplaceLeaf { id, .. } => Some(*id),
            _ => None,
        }
    }

    /// The directory that the step is about.
    pub fn claim(&self) -> Option<&Claim> {
        match self {
            Step::MakeClaim { claim, .. }
            | Step::WriteClassid { claim, .. }
            | Step::RemoveClaim { claim, .. } => Some(claim),
            _ => None,
        }
    }

    /// What the step is done to, in tc's words: `class eth0 1:10`, `cgroup user/bob`.
    pub fn object(&self) -> String {
        match self {
            Step::Mount | Step::Unmount => "mount net_cls".to_string(),
            Step::AddRoot { port, .. } | Step::DeleteRoot { port } => format!("qdisc {port} 1:"),
            Step::AddClsact { link } | Step::DeleteClsact { link } => {
                format!("qdisc {link} ffff:")
            }
            Step::MakeClaim { claim, .. }
            | Step::WriteClassid { claim, .. }
            | Step::RemoveClaim { claim, .. } => format!("cgroup {claim}"),
            Step::AddClass { port, id, .. }
            | Step::ChangeClass { port, id, .. }
            | Step::ReplaceClass { port, id, .. }
            | Step::DeleteClass { port, id, .. } => format!("class {port} {id}"),
            Step::AddLeaf { port, id, .. }
            | Step::ChangeLeaf { port, id, .. }
            | Step::ReplaceLeaf { port, id, .. } => format!("qdisc {port} {}:", id.minor()),
            Step::AddFilter { port, pref, .. } | Step::DeleteFilter { port, pref, .. } => {
                format!("filter {port} pref {pref}")
            }
            Step::DeleteTables { port, .. } => format!("hash tables {port}"),
            Step::MakeOwners { .. } | Step::ChangeOwners { .. } | Step::DropOwners => {
                "owners".to_string()
            }
        }
    }

    /// What the step does, in one word: `add`, `change`, `delete`, `replace`, `mount`…
    pub fn op(&self) -> &'static str {
        match self {
            Step::Mount => "mount",
            Step::Unmount => "unmount",
            Step::AddRoot { .. }
            | Step::AddClsact { .. }
            | Step::MakeClaim { .. }
            | Step::AddClass { .. }
            | Step::AddLeaf { .. }
            | Step::MakeOwners { .. }
            | Step::AddFilter { .. } => "add",
            Step::ChangeOwners { .. }
            | Step::WriteClassid { .. }
            | Step::ChangeClass { .. }
            | Step::ChangeLeaf { .. } => "change",
            Step::ReplaceLeaf { .. } | Step::ReplaceClass { .. } => "replace",
            Step::DeleteRoot { .. }
            | Step::DeleteClsact { .. }
            | Step::RemoveClaim { .. }
            | Step::DeleteClass { .. }
            | Step::DeleteFilter { .. }
            | Step::DropOwners
            | Step::DeleteTables { .. } => "delete",
        }
    }
}

/// A step of a plan, with what an administrator should know about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    pub step: Step,
    pub phase: Phase,
    /// Who is disturbed by it, and why; empty for almost all steps.
    pub disturbs: Vec<Disturbance>,
    /// Follows from logins or from packets that have drained, not from a change of the policy or of
    /// the kernel by somebody: cron need not hear of it.
    pub routine: bool,
}

/// Somebody whose packets a step loses or delays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disturbance {
    /// As status names them; `everybody on LINK` for a whole link.
    pub who: String,
    pub why: String,
}

/// Steps in an order in which every prefix is a safe state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub steps: Vec<Planned>,
    /// Classes that change hands in this plan and whose they are, for messages.
    pub names: std::collections::BTreeMap<ClassId, Owner>,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether the policy or the kernel differed, logins aside.
    pub fn changes(&self) -> bool {
        self.steps.iter().any(|planned| !planned.routine)
    }

    pub fn phase(&self, phase: Phase) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(move |planned| planned.phase == phase).map(|planned| &planned.step)
    }

    /// Takes the steps that disturb somebody out of the plan, with what depends on them, and
    /// returns them.
    pub fn without_disruption(&mut self) -> Vec<Planned> {
        let root_stays = self.steps.iter().any(|planned| {
            matches!(planned.step, Step::DeleteRoot { .. }) && !planned.disturbs.is_empty()
        });
        // A shard that is not made again has no place for its classes.
        let shards: BTreeSet<(Port, Shard)> = self
            .steps
            .iter()
            .filter(|planned| !planned.disturbs.is_empty())
            .filter_map(|Planned { step, .. }| match step {
                Step::ReplaceClass { port, id, .. } | Step::ReplaceLeaf { port, id, .. } => {
                    Some((port.clone(), Shard::of_class(*id)?))
                }
                _ => None,
            })
            .collect();
        let in_one = |step: &Step| {
            let place = match step {
                Step::AddFilter { parent, .. } => Some(*parent),
                other => other.class(),
            };
            let shard = place.and_then(ClassId::shard).zip(step.port());
            shard.is_some_and(|(shard, port)| shards.contains(&(port.clone(), shard)))
        };
        // While a root stays, so do the claims that say which of its classes are ours, the maps
        // that its filter reads, and what keeps others from naming its classes.
        let depends = |step: &Step| {
            let needed = matches!(
                step,
                Step::RemoveClaim { .. }
                    | Step::Unmount
                    | Step::DropOwners
                    | Step::DeleteClsact { .. }
                    | Step::DeleteFilter { parent: ClassId::EGRESS, .. }
            );
            (root_stays && needed) || in_one(step)
        };
        let (keep, left) = std::mem::take(&mut self.steps)
            .into_iter()
            .partition(|planned| planned.disturbs.is_empty() && !depends(&planned.step));
        self.steps = keep;
        left
    }
}

#[cfg(test)]
mod tests;

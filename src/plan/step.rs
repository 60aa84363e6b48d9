//! One thing that is done to the kernel: an object, and what becomes of it.

use std::convert::Infallible;

use crate::tree::{
    Claim, Class, Filter, LeafQdisc, LinkName, OwnerChange, OwnerTable, Port, Pref, Seat,
};
use crate::units::ClassId;

/// What is done to an object that can change while it stands. `B`: what comes back below it when it
/// is replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<T, B = ()> {
    /// It comes.
    Add(T),
    /// In place: no packet is lost.
    Alter {
        /// As it stands.
        from: T,
        /// As it will.
        to: T,
    },
    /// Deleted and made again, since the kernel cannot change this in place: what it holds is
    /// dropped.
    Replace {
        /// What goes.
        from: T,
        /// What comes.
        to: T,
        /// What is made again below it.
        below: B,
    },
    /// It goes.
    Remove(T),
}

/// What is done to an object that the kernel changes in place, whatever differs.
pub type InPlace<T> = Change<T, Infallible>;

impl<T, B> Change<T, B> {
    /// Which of the four it is.
    pub fn verb(&self) -> Verb {
        match self {
            Change::Add(_) => Verb::Add,
            Change::Alter { .. } => Verb::Alter,
            Change::Replace { .. } => Verb::Replace,
            Change::Remove(_) => Verb::Remove,
        }
    }

    /// The object as it is to be; `None`: gone.
    pub fn after(&self) -> Option<&T> {
        match self {
            Change::Add(to) | Change::Alter { to, .. } | Change::Replace { to, .. } => Some(to),
            Change::Remove(_) => None,
        }
    }
}

/// What is done to an object that comes and goes whole. `R`: what must be known of one that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whole<T = (), R = T> {
    /// It comes.
    Add(T),
    /// It goes.
    Remove(R),
}

impl<T, R> Whole<T, R> {
    /// Which of the two it is.
    pub fn verb(&self) -> Verb {
        match self {
            Whole::Add(_) => Verb::Add,
            Whole::Remove(_) => Verb::Remove,
        }
    }

    /// The object as it is to be; `None`: gone.
    pub fn after(&self) -> Option<&T> {
        match self {
            Whole::Add(to) => Some(to),
            Whole::Remove(_) => None,
        }
    }
}

/// What a step does to its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// It comes.
    Add,
    /// It changes in place.
    Alter,
    /// It goes, and another comes in its place.
    Replace,
    /// It goes.
    Remove,
}

impl Verb {
    /// What a line of a plan begins with.
    pub fn sign(self) -> char {
        match self {
            Verb::Add => '+',
            Verb::Alter | Verb::Replace => '~',
            Verb::Remove => '-',
        }
    }

    /// The word of `plan --json`.
    pub fn word(self) -> &'static str {
        match self {
            Verb::Add => "add",
            Verb::Alter => "change",
            Verb::Replace => "replace",
            Verb::Remove => "delete",
        }
    }
}

/// One thing that is done to the kernel: which object, and what becomes of it. Its `Display` is a
/// line of `shaper plan`; [`super::Tc`] prints the command that it equals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The `net_cls` hierarchy at our own place.
    Mount(Whole),
    /// Our root qdisc, with what it comes in place of. Everything below goes with it, and the
    /// kernel puts its own default back.
    Root(Port, Whole<Replaced, ()>),
    /// The qdisc `clsact`, empty when it comes: packets pass it as before. Ours go with it; only
    /// where there are no others.
    Clsact(LinkName, Whole),
    /// A class of HTB, which cannot change its parent in place (and says nothing): it is replaced,
    /// and its leaf with it. Only where somebody moved it by hand, and to undo.
    Class(Port, ClassId, Change<Class, Option<LeafQdisc>>),
    /// The qdisc below this class. One of another kind replaces it.
    Leaf(Port, ClassId, Change<LeafQdisc>),
    /// A filter; a changed one is added at another pref before the old one goes.
    Filter(Port, Seat, Whole<Filter>),
    /// u32 hash tables that go after their pref.
    Tables(Port, LeftTables),
    /// A directory and the classid in it. A change moves the sockets of all its processes.
    Claim(Claim, InPlace<ClassId>),
    /// The maps of the deciding programs. No packet meets new ones until a filter comes that reads
    /// them; they go with the last filter that did.
    Owners(Whole<OwnerTable, ()>),
    /// Entries of those maps, one after the other, in place: packets meet each change at once, on
    /// all links.
    Entries(Vec<OwnerChange>),
}

/// The root qdisc in whose place ours comes. How it goes is a part of the step: the kernel lets an
/// `add` take the place of its own qdisc only, a `replace` that of any other with another handle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// The kernel's own (handle `0:`), whatever its kind.
    Kernel,
    /// Somebody's that was taken over.
    Foreign {
        /// `TCA_KIND`.
        kind: String,
        /// Its number, which may be that of ours.
        handle: ClassId,
    },
}

/// u32 hash tables of the root qdisc that a deleted pref left behind. The kernel finds them through
/// any other u32 pref that stands; without one they are gone already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftTables {
    /// Their numbers, in the order in which they can go.
    pub tables: Vec<u16>,
    /// The pref that stands.
    pub through: Pref,
    /// That pref's, as an ethertype.
    pub protocol: u16,
}

impl Step {
    /// What it does to its object.
    pub fn verb(&self) -> Verb {
        match self {
            Step::Mount(change) | Step::Clsact(_, change) => change.verb(),
            Step::Root(_, change) => change.verb(),
            Step::Class(.., change) => change.verb(),
            Step::Leaf(.., change) => change.verb(),
            Step::Filter(.., change) => change.verb(),
            Step::Claim(_, change) => change.verb(),
            Step::Owners(change) => change.verb(),
            Step::Entries(_) => Verb::Alter,
            Step::Tables(..) => Verb::Remove,
        }
    }

    /// The link that the step is about; `None` for directories, the mount and the maps.
    pub fn link(&self) -> Option<&LinkName> {
        match self {
            Step::Clsact(link, _) => Some(link),
            _ => self.port().map(|port| &port.link),
        }
    }

    /// The direction of its link, too; `None` also where a step is about the whole link.
    pub fn port(&self) -> Option<&Port> {
        match self {
            Step::Root(port, _)
            | Step::Class(port, ..)
            | Step::Leaf(port, ..)
            | Step::Filter(port, ..)
            | Step::Tables(port, _) => Some(port),
            Step::Mount(_)
            | Step::Clsact(..)
            | Step::Claim(..)
            | Step::Owners(_)
            | Step::Entries(_) => None,
        }
    }

    /// The class that the step is about, or whose leaf it is.
    pub fn class(&self) -> Option<ClassId> {
        match self {
            Step::Class(_, id, _) | Step::Leaf(_, id, _) => Some(*id),
            _ => None,
        }
    }

    /// What the step is done to, in tc's words: `class eth0 1:10`, `cgroup user/bob`.
    pub fn object(&self) -> String {
        match self {
            Step::Mount(_) => "mount net_cls".to_string(),
            Step::Root(port, _) => format!("qdisc {port} 1:"),
            Step::Clsact(link, _) => format!("qdisc {link} ffff:"),
            Step::Class(port, id, _) => format!("class {port} {id}"),
            Step::Leaf(port, id, _) => format!("qdisc {port} {}:", id.minor()),
            Step::Filter(port, seat, _) => format!("filter {port} pref {}", seat.pref),
            Step::Tables(port, _) => format!("hash tables {port}"),
            Step::Claim(claim, _) => format!("cgroup {claim}"),
            Step::Owners(_) | Step::Entries(_) => "owners".to_string(),
        }
    }

    /// What the step does, in one word: `add`, `change`, `delete`, `replace`, `mount`…
    pub fn op(&self) -> &'static str {
        match self {
            Step::Mount(Whole::Add(())) => "mount",
            Step::Mount(Whole::Remove(())) => "unmount",
            _ => self.verb().word(),
        }
    }
}

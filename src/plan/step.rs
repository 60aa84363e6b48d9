//! One thing that is done to the kernel: an object, and what becomes of it.

use std::convert::Infallible;
use std::time::Duration;

use crate::tree::{
    Claim, Class, Filter, FoundFilter, FoundLeaf, Ifb, LeafQdisc, LinkName, OwnerChange,
    OwnerTable, Port, Pref, Seat,
};
use crate::units::ClassId;

/// What is done to an object that can change while it stands. `B`: what is made again below the
/// object when it is replaced; `F`: what may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<T, B = (), F = T> {
    /// It comes.
    Add(T),
    /// It changes in place, and no packet is lost.
    Alter {
        /// The object as it stands.
        from: T,
        /// The object as it is to be.
        to: T,
    },
    /// It is deleted and made again, since the kernel cannot change this in place; packets in its
    /// queue are dropped.
    Replace {
        /// The object that goes.
        from: F,
        /// The object that comes.
        to: T,
        /// What is made again below the object.
        below: B,
    },
    /// It goes.
    Remove(F),
}

/// What is done to an object that the kernel changes in place, whatever differs.
pub type InPlace<T> = Change<T, Infallible>;

/// What is done below a class. A qdisc that shaper does not make may go, and never comes.
pub type LeafChange = Change<LeafQdisc, (), FoundLeaf>;

impl<T, B, F> Change<T, B, F> {
    /// The change in one word.
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

/// What is done to an object that only comes and goes. `R`: what must be known of an object that
/// goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whole<T = (), R = T> {
    /// It comes.
    Add(T),
    /// It goes.
    Remove(R),
}

/// What is done at a pref. A filter that shaper does not write may go, and never comes.
pub type FilterChange = Whole<Filter, FoundFilter>;

impl<T, R> Whole<T, R> {
    /// The change in one word, [`Verb::Add`] or [`Verb::Remove`].
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
    /// It goes, and another object replaces it.
    Replace,
    /// It goes.
    Remove,
}

impl Verb {
    /// The character with which a line of a plan begins.
    pub fn sign(self) -> char {
        match self {
            Verb::Add => '+',
            Verb::Alter | Verb::Replace => '~',
            Verb::Remove => '-',
        }
    }

    /// The word in `plan --json`.
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
    /// The mount of the `net_cls` hierarchy at shaper's own path.
    Mount(Whole),
    /// Our root qdisc, with the qdisc that it replaces. When it goes, everything below goes with
    /// it, and the kernel makes its own default qdisc.
    Root(Port, Whole<Replaced, ()>),
    /// The qdisc `clsact`. It comes without filters, so packets pass as before. It goes, with our
    /// filters, only where others have none there.
    Clsact(LinkName, Whole),
    /// The ifb of a link, by its name: it comes with the instance's mark, switched on, and goes
    /// with all below it.
    Ifb(LinkName, InPlace<Ifb>),
    /// A class of HTB. Its parent cannot change in place (the kernel keeps the old one without an
    /// error), so then the class is replaced, and its leaf with it; this happens only where
    /// somebody moved a class by hand, and in undoing.
    Class(Port, ClassId, Change<Class, Option<LeafQdisc>>),
    /// The qdisc below this class. A leaf of another kind replaces it.
    Leaf(Port, ClassId, LeafChange),
    /// A filter; a changed one is added at another pref before the old one goes.
    Filter(Port, Seat, FilterChange),
    /// u32 hash tables that go after their pref was deleted.
    Tables(Port, LeftTables),
    /// A directory and its classid. A change gives the sockets of all processes in the directory
    /// the new tag.
    Claim(Claim, InPlace<ClassId>),
    /// The maps of the deciding programs. No packet meets new maps until a filter comes that reads
    /// them; the maps go with the last filter that reads them.
    Owners(Whole<OwnerTable, ()>),
    /// Changes of single entries of those maps, in this order, in place: packets on all links meet
    /// each change at once.
    Entries(Vec<OwnerChange>),
    /// A pause in which what leaves by these links says whose the flows are that run already, for
    /// programs that know none yet. It changes nothing.
    Learn(Vec<LinkName>),
}

/// How long the pause is ([`Step::Learn`]): of a connection that runs something leaves sooner, if
/// only an acknowledgement.
pub const LEARNT: Duration = Duration::from_secs(1);

/// The root qdisc that ours replaces. It decides about the request: the kernel lets an `add`
/// replace only its own qdisc, and a `replace` only a qdisc with another handle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// The kernel's own qdisc (handle `0:`), whatever its kind.
    Kernel,
    /// Somebody else's qdisc, which is taken over.
    Foreign {
        /// `TCA_KIND`.
        kind: String,
        /// The qdisc's handle, which may be that of ours.
        handle: ClassId,
    },
}

/// u32 hash tables of the root qdisc that a deleted pref left behind. The kernel finds them through
/// any other u32 pref that stands; where none does, the tables are gone already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftTables {
    /// The tables' numbers, in the order in which they can be deleted.
    pub tables: Vec<u16>,
    /// The u32 pref through which the kernel finds the tables.
    pub through: Pref,
    /// The protocol of that pref, as an ethertype.
    pub protocol: u16,
}

/// Names with commas between them.
pub(super) fn list(links: &[LinkName]) -> String {
    links.iter().map(LinkName::as_str).collect::<Vec<_>>().join(", ")
}

impl Step {
    /// What the step does to its object.
    pub fn verb(&self) -> Verb {
        match self {
            Step::Mount(change) | Step::Clsact(_, change) => change.verb(),
            Step::Root(_, change) => change.verb(),
            Step::Class(.., change) => change.verb(),
            Step::Leaf(.., change) => change.verb(),
            Step::Filter(.., change) => change.verb(),
            Step::Claim(_, change) => change.verb(),
            Step::Ifb(_, change) => change.verb(),
            Step::Owners(change) => change.verb(),
            Step::Entries(_) | Step::Learn(_) => Verb::Alter,
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

    /// The port that the step is about; `None` also where a step is about the whole link.
    pub fn port(&self) -> Option<&Port> {
        match self {
            Step::Root(port, _)
            | Step::Class(port, ..)
            | Step::Leaf(port, ..)
            | Step::Filter(port, ..)
            | Step::Tables(port, _) => Some(port),
            Step::Mount(_)
            | Step::Clsact(..)
            | Step::Ifb(..)
            | Step::Claim(..)
            | Step::Owners(_)
            | Step::Entries(_)
            | Step::Learn(_) => None,
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
            Step::Ifb(name, _) => format!("link {name}"),
            Step::Class(port, id, _) => format!("class {port} {id}"),
            Step::Leaf(port, id, _) => format!("qdisc {port} {}:", id.minor()),
            Step::Filter(port, seat, _) => format!("filter {port} pref {}", seat.pref),
            Step::Tables(port, _) => format!("hash tables {port}"),
            Step::Claim(claim, _) => format!("cgroup {claim}"),
            Step::Owners(_) | Step::Entries(_) => "owners".to_string(),
            Step::Learn(links) => format!("flows {}", list(links)),
        }
    }

    /// What the step does, in one word: `add`, `change`, `delete`, `replace`, `mount`…
    pub fn op(&self) -> &'static str {
        match self {
            Step::Mount(Whole::Add(())) => "mount",
            Step::Mount(Whole::Remove(())) => "unmount",
            Step::Learn(_) => "wait",
            _ => self.verb().word(),
        }
    }
}

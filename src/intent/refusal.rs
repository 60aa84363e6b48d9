//! Why a policy is refused on a host, each cause with its sentence and its cure.

use std::fmt;

use crate::desired::Impossible;
use crate::policy::{Report, quote};
use crate::text::shown;
use crate::tree::LinkName;
use crate::units::{ClassId, Rate};

/// Why an intent is refused.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refusal {
    /// The policy does not hold on what was seen.
    #[error("{}", .0.render(false))]
    Policy(Box<Report>),
    /// A root qdisc may not be replaced.
    #[error("{0}")]
    InTheWay(#[from] InTheWay),
    /// Two instances in one namespace would put the same processes into their own directories, in
    /// turn, and read each other's classids.
    #[error(
        "{who} shapes {link} in this network namespace, and there can be only one: name it with --cgroup, or clear it first (shaper clear --cgroup {})",
        .who.cgroup()
    )]
    OtherInstance {
        /// The link with the root qdisc.
        link: LinkName,
        /// The instance.
        who: Neighbour,
    },
    /// The decision depends on what this kernel can do, and that was not tried
    /// ([`crate::facts::Features::tried`]): the caller tries it, and asks again.
    #[error("nobody has tried what this kernel can do")]
    Untried,
    /// What this kernel can do is not known, because this process may not try it.
    #[error(
        "a plan depends on what this kernel can do, and finding that out needs root: run it with sudo (`shaper check` needs no root)"
    )]
    NeedsRoot,
    /// There is no such state on this kernel.
    #[error(transparent)]
    Impossible(#[from] Impossible),
}

impl From<Report> for Refusal {
    fn from(report: Report) -> Refusal {
        Refusal::Policy(Box::new(report))
    }
}

/// A root qdisc that may not be replaced without `--takeover`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InTheWay {
    /// The kernel's own, with a queue for each CPU, at a rate that one lock may not carry.
    #[error(
        "{link} has one queue for each CPU ({kind}) and {rate} to shape, which is {packets} packets a second of its MTU; HTB takes one lock for all of them, and about a million a second. If most are larger, as this host's own TCP makes them (TSO), use --takeover (that is: tc qdisc replace dev {link} root handle 1: htb default fffe)"
    )]
    Queues {
        /// Which link.
        link: LinkName,
        /// Its root's `TCA_KIND`: `mq`.
        kind: String,
        /// The rate to which the link is to be shaped.
        rate: Rate,
        /// So many packets a second of the link's MTU.
        packets: u64,
    },
    /// Another instance's of this program.
    #[error(
        "{who} shapes {link}: clear it there (shaper clear --cgroup {0}), or use that instance (--cgroup {0})",
        .who.cgroup()
    )]
    Instance {
        /// The link with the root qdisc.
        link: LinkName,
        /// The instance.
        who: Neighbour,
    },
    /// Somebody else's root qdisc.
    #[error(
        "{link} has a root qdisc that shaper did not make ({kind} {handle}); to replace it, use --takeover (that is: tc qdisc replace dev {link} root handle 1: htb default fffe)"
    )]
    Foreign {
        /// Which link.
        link: LinkName,
        /// Its root's `TCA_KIND`.
        kind: String,
        /// Its root's handle.
        handle: ClassId,
    },
}

impl InTheWay {
    /// The link with the root qdisc in the way.
    pub fn link(&self) -> &LinkName {
        match self {
            InTheWay::Queues { link, .. }
            | InTheWay::Instance { link, .. }
            | InTheWay::Foreign { link, .. } => link,
        }
    }
}

/// Another instance of this program, known by its mark. Its name is known while its directory is in
/// the hierarchy that this process sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour(pub Option<String>);

impl Neighbour {
    /// What to write after `--cgroup`.
    pub fn cgroup(&self) -> String {
        self.0.as_ref().map_or_else(|| "NAME".to_string(), |name| shown(name).to_string())
    }
}

/// A sentence's subject.
impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(name) => write!(f, "the instance {} of shaper", quote(name)),
            None => f.write_str("another instance of shaper"),
        }
    }
}

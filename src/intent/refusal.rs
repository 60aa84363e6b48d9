//! Why a policy is not made so on a host, each cause with its sentence and its cure.

use std::fmt;

use crate::desired::Impossible;
use crate::policy::{Report, quote};
use crate::text::shown;
use crate::tree::LinkName;
use crate::units::{ClassId, Rate};

/// Why nothing follows from an intent.
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
    /// It depends on what this kernel can do, and only what stands is known to work
    /// ([`crate::facts::Features::tried`]): to be tried, and asked again.
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
        "{link} has one queue for each CPU ({kind}) and {rate} to shape; HTB takes one lock for all of them, which may not keep up. If that is well, use --takeover (that is: tc qdisc replace dev {link} root handle 1: htb default fffe)"
    )]
    Queues {
        /// Which link.
        link: LinkName,
        /// Its root's `TCA_KIND`: `mq`.
        kind: String,
        /// What is to be shaped.
        rate: Rate,
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
    /// Somebody's.
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
    /// The link whose root it is.
    pub fn link(&self) -> &LinkName {
        match self {
            InTheWay::Queues { link, .. }
            | InTheWay::Instance { link, .. }
            | InTheWay::Foreign { link, .. } => link,
        }
    }
}

/// Another instance of this program, by its mark: its name is known as long as its directory is in
/// the hierarchy that we see.
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

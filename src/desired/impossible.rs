//! Why a model cannot be built on this kernel.

use super::identity::OutOfMinors;
use crate::classify::NoClassifier;
use crate::tree::LinkName;

/// Why what arrives cannot be shaped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoDown {
    /// Nobody has tried what the kernel can do.
    #[error("what this kernel can do was not tried")]
    Untried,
    /// Some of what it takes cannot be made.
    #[error(
        "that takes Linux 5.12 with `ifb`, `act_mirred`, `sch_ingress` and `cls_bpf`, of which this kernel, or this process's capabilities (CAP_BPF), lack something; remove `down`, or install the distribution's full kernel"
    )]
    Kernel,
    /// `ingress` and `clsact` cannot both be at a link.
    #[error(
        "an `ingress` qdisc stands in the place of `clsact`; make it one (tc qdisc del dev … ingress, tc qdisc add dev … clsact)"
    )]
    Ingress,
    /// What an administrator forbids there would pass.
    #[error(
        "the nftables {0} has the link's ingress hook, and would see nothing of what arrives; filter in `inet` or `ip` (hook prerouting) instead, remove `down`, or write `bypass_firewall: true` beside it if that is well"
    )]
    Firewall(String),
    /// Cilium decides about all that arrives, and what is redirected passes its policies by.
    #[error(
        "Cilium's {0} is there, which decides about every packet: what goes through an ifb passes its policies by; remove `down`"
    )]
    Cilium(String),
    /// Another's device has the name.
    #[error("a device that shaper did not make has the name {0}; rename it")]
    Name(LinkName),
    /// No filter can note flows.
    #[error("filters that shaper did not make have the prefs 3 and 4 at its clsact egress")]
    Learn,
    /// No filter can redirect.
    #[error(
        "filters that shaper did not make have the prefs 65000 and 65001 at its clsact ingress"
    )]
    Redirect,
    /// Nothing can tell whose a packet is that leaves.
    #[error(transparent)]
    Classifier(NoClassifier),
}

/// Why there is no state of this kernel that the model means.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Impossible {
    /// No classifier can say whose a packet is.
    #[error("link {link}: {source}")]
    Classifier {
        /// The link that needs a classifier.
        link: LinkName,
        /// What is missing.
        source: NoClassifier,
    },
    /// The policy names a leaf qdisc that the kernel cannot make.
    #[error("link {link}: this kernel has no `{kind}` qdisc; write `leaf: auto`")]
    Leaf {
        /// The link whose line names it.
        link: LinkName,
        /// The kind, as in `TCA_KIND`.
        kind: &'static str,
    },
    /// What arrives by a link with a `down` cannot be shaped.
    #[error("link {link} has a `down`: {why}")]
    Down {
        /// The link whose line has it.
        link: LinkName,
        /// What is missing, or in the way.
        why: NoDown,
    },
    /// HTB cannot be made.
    #[error(
        "this kernel has no HTB (`sch_htb`), which does the shaping; load it with `modprobe sch_htb` or install the distribution's full kernel"
    )]
    NoHtb,
    /// There are more users or groups than minors.
    #[error(transparent)]
    Minors(#[from] OutOfMinors),
    /// The model names a link that the facts lack.
    #[error("link {0} is gone")]
    LinkGone(LinkName),
}

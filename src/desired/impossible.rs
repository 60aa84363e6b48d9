//! Why a model cannot be built on this kernel.

use super::identity::OutOfMinors;
use crate::classify::NoClassifier;
use crate::tree::LinkName;

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

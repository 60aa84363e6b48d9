//! What is wanted of a host, as a value.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::desired::Sharding;
use crate::facts::LinkFacts;
use crate::policy::{LinkRef, Policy};
use crate::tree::{LinkName, Owner};

/// What is wanted of a host: a policy, and how it is to be read in this run.
#[derive(Clone, Debug)]
pub struct Intent {
    /// The policy, as written.
    pub policy: Arc<Policy>,
    /// What the command line says about how to read it.
    pub options: Options,
    /// Accounts, and ranges of subordinate uids, whose processes were found in this run when they
    /// had no class: they count as running, also if the processes have ended since.
    pub came: BTreeSet<Owner>,
    /// Which owners lose their class.
    pub leaving: Leaving,
    /// Held links, which are left as they are, whatever the policy says.
    pub held: BTreeSet<LinkName>,
    /// Links that were shaped before, by ifindex: a foreign root qdisc there replaced ours.
    pub reclaimed: BTreeSet<u32>,
    /// The facts of the last model's links, as they were then.
    pub good: BTreeMap<LinkName, LinkFacts>,
}

/// What the command line says about how to read the policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Names that NSS does not know are warned of, and are no error.
    pub skip_unknown: bool,
    /// Root qdiscs of others are replaced.
    pub takeover: bool,
    /// Links come and go during the run: a link that cannot be shaped is passed over.
    pub absent_links: bool,
    /// What becomes of a policy that holds on none of the links that could be passed over.
    pub none_fits: NoneFits,
    /// The sizes of shards. No option of the command line, since the defaults are right for every
    /// host.
    pub sharding: Sharding,
}

/// What becomes of a policy that holds on none of the links that are there, where links may be
/// passed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NoneFits {
    /// All are passed over.
    #[default]
    PassedOver,
    /// It is refused, unless it is about the links themselves, whose speed is not known for
    /// example: that may become otherwise.
    RefusedUnlessTheirs,
    /// It is refused.
    Refused,
}

/// Which accounts and ranges of subordinate uids lose their class. One that leaves keeps its class
/// until that is known to be quiet and the directory is empty: if it comes back before, it has that
/// class, and not a second one beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Leaving {
    /// Owners without a process.
    #[default]
    WithoutProcess,
    /// Owners whose grace time is over. Every other owner that has a class keeps it, with or
    /// without processes.
    These(BTreeSet<Owner>),
}

impl Intent {
    /// An intent without knowledge of earlier runs.
    pub fn new(policy: impl Into<Arc<Policy>>, options: Options) -> Intent {
        Intent {
            policy: policy.into(),
            options,
            came: BTreeSet::new(),
            leaving: Leaving::default(),
            held: BTreeSet::new(),
            reclaimed: BTreeSet::new(),
            good: BTreeMap::new(),
        }
    }

    /// The names of links in the policy, also alternative names. The caller asks the kernel for
    /// each where no list of all links is complete.
    pub fn named_links(&self) -> BTreeSet<String> {
        let names = self.policy.links.iter().filter_map(|line| match &line.name.value {
            LinkRef::Name(name) => Some(name.clone()),
            LinkRef::Auto | LinkRef::Pattern(_) => None,
        });
        names.collect()
    }

    /// Whether the policy may be about a link, so that the caller must ask the device for its
    /// speed.
    pub fn is_about(&self, name: &LinkName, link: &LinkFacts) -> bool {
        self.policy.links.iter().any(|line| match &line.name.value {
            LinkRef::Auto => link.has_default_route(),
            written => written.means(name, &link.altnames),
        })
    }
}

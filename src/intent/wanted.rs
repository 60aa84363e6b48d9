//! What somebody wants of a host, as a value.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::desired::Sharding;
use crate::facts::LinkFacts;
use crate::policy::{LinkRef, Policy};
use crate::tree::{LinkName, Owner};

/// What somebody wants of a host: a policy, and how it is to be read in this run.
#[derive(Clone, Debug)]
pub struct Intent {
    /// The policy, as written.
    pub policy: Arc<Policy>,
    /// What the command line says about how to read it.
    pub options: Options,
    /// Accounts, and ranges of subordinate uids, whose processes were found in this run and that
    /// had no class then: they run, also if their processes ended since.
    pub came: BTreeSet<Owner>,
    /// Whose class may go.
    pub leaving: Leaving,
    /// Links that stay as they stand, whatever the policy says.
    pub held: BTreeSet<LinkName>,
    /// Links that were shaped before, by ifindex: another root qdisc there was put in the place of
    /// ours.
    pub reclaimed: BTreeSet<u32>,
    /// The links of the last model, as they were then.
    pub good: BTreeMap<LinkName, LinkFacts>,
}

/// What the command line says about how to read the policy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Names that NSS does not know are warned of, and are no error.
    pub skip_unknown: bool,
    /// Root qdiscs of others are replaced.
    pub takeover: bool,
    /// Links come and go while this goes on: whatever is unfit to be shaped is passed over.
    pub absent_links: bool,
    /// No option of the command line: the numbers are right for every host.
    pub sharding: Sharding,
}

/// Whose class may go, of accounts and ranges of subordinate uids. Whoever leaves keeps it for as
/// long as it is not known to be quiet, or somebody is in the directory: who comes back then finds
/// the one class, and not a second one beside what still drains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Leaving {
    /// Whoever has no process.
    #[default]
    WithoutProcess,
    /// Those whose time of grace is over. Any other uid that has a class keeps it, with or without
    /// processes.
    These(BTreeSet<Owner>),
}

impl Intent {
    /// A policy, with nothing known of any time before.
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

    /// The links that the policy names, also by alternative names: asked for one by one where no
    /// list of all is whole.
    pub fn named_links(&self) -> BTreeSet<String> {
        let names = self.policy.links.iter().filter_map(|line| match &line.name.value {
            LinkRef::Name(name) => Some(name.clone()),
            LinkRef::Auto | LinkRef::Pattern(_) => None,
        });
        names.collect()
    }

    /// Whether the policy may be about a link: then its device is asked for its speed.
    pub fn is_about(&self, name: &LinkName, link: &LinkFacts) -> bool {
        self.policy.links.iter().any(|line| match &line.name.value {
            LinkRef::Auto => link.has_default_route(),
            written => written.means(name, &link.altnames),
        })
    }
}

//! What the kernel can do, as far as what stands shows it.

use std::collections::{BTreeMap, BTreeSet};

use crate::facts::{Features, Helpers, Observation};
use crate::tree::{Classifier, Filter, LeafQdisc, Sockets, Tag, TagHelper};

/// What stands of ours: the kernel can do that, and maybe more.
#[derive(Clone, Debug)]
pub struct Evidence {
    features: Features,
    /// All of it is the best that there is, so that whatever else the kernel can do would not be
    /// used.
    is_best: bool,
}

impl Evidence {
    /// What an observation shows.
    pub fn of(seen: &Observation) -> Evidence {
        let trees = || seen.state.trees.values();
        let tags: BTreeSet<Tag> = trees()
            .flat_map(|tree| tree.shards.values().chain([&tree.filters]))
            .flat_map(BTreeMap::values)
            .filter_map(|filter| match filter {
                Filter::Tag(tag) => Some(*tag),
                _ => None,
            })
            .collect();
        let programs = tags.iter().filter_map(|tag| match tag {
            Tag::Bpf(program) => Some(*program),
            Tag::Cgroup => None,
        });
        let helpers = programs.fold(Helpers::default(), |helpers, program| Helpers {
            socket_tag: helpers.socket_tag || program.tag == TagHelper::Socket,
            netns_cookie: helpers.netns_cookie || matches!(program.sockets, Sockets::Cookie(_)),
            // A daemon of an older unit may load programs, but none that reads what it does not
            // hold.
            mptcp: helpers.mptcp.or(program.mptcp.filter(|_| !seen.facts.may_not_read_kernel)),
        });
        let leaves = trees().flat_map(|tree| tree.leaves.values());
        let features = Features {
            tried: false,
            htb: trees().next().is_some(),
            classifiers: tags.iter().map(|tag| tag.classifier()).collect(),
            helpers,
            clsact: seen.state.clsact.keys().any(|link| seen.clears_priorities(link)),
            leaves: leaves.map(LeafQdisc::kind).collect(),
        };
        let is_best = features.classifiers.contains(&Classifier::Bpf)
            && (features.clsact || seen.facts.own_sockets_only)
            && features.leaves.contains(LeafQdisc::FqCodel.kind());
        Evidence { features, is_best }
    }

    /// What stands, where that is the best that there is; otherwise as [`Evidence::tried`].
    ///
    /// # Errors
    /// The trial's.
    pub fn or_tried<E>(
        self,
        trial: impl FnOnce(Option<Helpers>) -> Result<Features, E>,
    ) -> Result<Features, E> {
        match self.is_best {
            true => Ok(self.features),
            false => self.tried(trial),
        }
    }

    /// What `trial` finds out, and what stands. The trial is told which functions a deciding
    /// program that stands calls, if they are all that one can call: that it stands shows more
    /// cheaply than any trial that they can be called.
    ///
    /// # Errors
    /// The trial's.
    pub fn tried<E>(
        self,
        trial: impl FnOnce(Option<Helpers>) -> Result<Features, E>,
    ) -> Result<Features, E> {
        let shown = self.features;
        let Helpers { socket_tag, netns_cookie, mptcp } = shown.helpers;
        let are_all = socket_tag && netns_cookie && mptcp.is_some();
        let mut features = trial(are_all.then_some(shown.helpers))?;
        // Where nothing may be tried, what stands speaks for itself.
        features.htb |= shown.htb;
        features.classifiers.extend(shown.classifiers);
        features.clsact |= shown.clsact;
        features.helpers.socket_tag |= socket_tag;
        features.helpers.netns_cookie |= netns_cookie;
        features.helpers.mptcp = features.helpers.mptcp.or(mptcp);
        features.leaves.extend(shown.leaves);
        Ok(features)
    }
}

//! What the kernel can do, as far as objects that stand show it.

use std::collections::{BTreeMap, BTreeSet};

use crate::facts::{Features, Helpers, Observation};
use crate::tree::{Classifier, Filter, LeafQdisc, Sockets, Tag, TagHelper};

/// The features that objects of ours show by standing; the kernel may have more.
#[derive(Clone, Debug)]
pub struct Evidence {
    features: Features,
    /// Whether these features are the best of their kinds, so that no further one would be used.
    is_best: bool,
}

/// The classifiers that a filter shows by standing. A program that reads tags shows also that there
/// can be one that reads none; the other way round nobody knows which function would read them.
fn shown_by(tag: Tag) -> impl Iterator<Item = Classifier> {
    let uid = matches!(tag, Tag::Bpf(_)).then_some(Classifier::Uid);
    uid.into_iter().chain([tag.classifier()])
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
            socket_tag: helpers.socket_tag || program.tag == Some(TagHelper::Socket),
            netns_cookie: helpers.netns_cookie || matches!(program.sockets, Sockets::Cookie(_)),
            // A daemon of an older unit file may load programs, but none that reads the kernel's
            // own values.
            namespace: helpers.namespace.or(match program.sockets {
                Sockets::Inode(_, layout) if !seen.facts.may_not_read_kernel => Some(layout),
                _ => None,
            }),
            mptcp: helpers.mptcp.or(program.mptcp.filter(|_| !seen.facts.may_not_read_kernel)),
            // Where a kernel has sockets' tags it has their cgroups (CONFIG_SOCK_CGROUP_DATA), and
            // the function that reads the socket's tag came later.
            ancestor_cgroup: helpers.ancestor_cgroup
                || program.asks_cgroups()
                || program.tag == Some(TagHelper::Socket),
        });
        // A program that was made while all sockets were ours does not show whether one can tell.
        let tells = helpers.netns_cookie || helpers.namespace.is_some();
        let is_mixed =
            |tag: &Tag| matches!(tag, Tag::Bpf(program) if program.sockets == Sockets::Mixed);
        let whose_sockets = seen.facts.own_sockets_only || tells || tags.iter().any(is_mixed);
        let leaves = trees().flat_map(|tree| tree.leaves.values());
        let features = Features {
            tried: false,
            htb: trees().next().is_some(),
            classifiers: tags.iter().flat_map(|tag| shown_by(*tag)).collect(),
            no_net_cls: seen.facts.features.no_net_cls,
            spared: seen.facts.features.spared,
            helpers,
            clsact: seen.state.clsact.keys().any(|link| seen.has_hooks(link)),
            leaves: leaves.map(LeafQdisc::kind).collect(),
        };
        let best = match (features.no_net_cls, features.spared) {
            (None, None) => Classifier::Bpf,
            _ => Classifier::Uid,
        };
        let is_best = features.classifiers.contains(&best)
            && features.helpers.ancestor_cgroup
            && (features.clsact || seen.facts.own_sockets_only)
            && whose_sockets
            && features.leaves.contains(LeafQdisc::FqCodel.kind());
        Evidence { features, is_best }
    }

    /// The features that the evidence shows, where they are the best; otherwise as
    /// [`Evidence::tried`].
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

    /// The features that `trial` finds, and those that the evidence shows. Where a deciding program
    /// stands that calls every function that one can call, the trial is told so and need not try
    /// them.
    ///
    /// # Errors
    /// The trial's.
    pub fn tried<E>(
        self,
        trial: impl FnOnce(Option<Helpers>) -> Result<Features, E>,
    ) -> Result<Features, E> {
        let shown = self.features;
        let Helpers { socket_tag, netns_cookie, mptcp, .. } = shown.helpers;
        let are_all = socket_tag && netns_cookie && mptcp.is_some();
        let mut features = trial(are_all.then_some(shown.helpers))?;
        // A trial that may not try everything finds less than the evidence shows.
        add(&mut features, &shown);
        Ok(features)
    }

    /// With what an earlier look has shown, or a trial has found.
    #[must_use]
    pub fn and_known(mut self, known: Option<&Features>) -> Evidence {
        known.into_iter().for_each(|known| add(&mut self.features, known));
        self
    }
}

/// Adds what others have shown; whether all was tried stays as it is.
fn add(features: &mut Features, shown: &Features) {
    let Helpers { socket_tag, netns_cookie, namespace, mptcp, ancestor_cgroup } = shown.helpers;
    features.htb |= shown.htb;
    features.classifiers.extend(&shown.classifiers);
    features.clsact |= shown.clsact;
    features.helpers.socket_tag |= socket_tag;
    features.helpers.netns_cookie |= netns_cookie;
    features.helpers.namespace = features.helpers.namespace.or(namespace);
    features.helpers.mptcp = features.helpers.mptcp.or(mptcp);
    features.helpers.ancestor_cgroup |= ancestor_cgroup;
    features.leaves.extend(&shown.leaves);
}

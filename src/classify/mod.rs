//! How a packet finds its class: explicit u32 rules first, then whoever sent it, by the socket's
//! owner and its tag. Each way is a small file that answers pure questions and knows nothing of
//! execution.

pub mod assembler;
pub mod cgroups;
pub mod decision;
pub mod flows;
pub mod frame;
pub mod hash;
pub mod inner;
pub mod interpret;
mod ip_header;
pub mod label;
pub mod noted;
pub mod program;
pub mod program_rules;
mod ranges;
pub mod redirect;
pub mod servers;
pub mod u32;

use crate::facts::{Features, NoNetCls};
use crate::tree::Classifier;

/// The classifiers, the best first: only an eBPF program decides by the owner of the socket, which
/// a user cannot change. `cls_cgroup` believes the tag, which a hostile user can lose or pass on.
/// Without a tag there are no `run` and `attach`.
const CLASSIFIERS: [Classifier; 3] = [Classifier::Bpf, Classifier::Cgroup, Classifier::Uid];

/// The policy asks for a classifier that this kernel lacks, or the kernel has none at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoClassifier {
    /// The policy asks for `cls_cgroup`, which is not there.
    #[error(
        "this kernel has no `cls_cgroup` classifier; load it (`modprobe cls_cgroup`) or write `classifier: auto`"
    )]
    Cgroup,
    /// The policy asks for eBPF, which the kernel or the process's capabilities do not allow.
    #[error(
        "this kernel, or this process's capabilities (CAP_BPF), allow no eBPF classifier; write `classifier: auto`"
    )]
    Bpf,
    /// The policy asks for a classifier that reads tags, and there are none.
    #[error("{0}, and this classifier goes by its tags; write `classifier: auto`, or `uid`")]
    NetCls(NoNetCls),
    /// There are no tags, and no eBPF that would go without.
    #[error(
        "{0}, and this kernel, or this process's capabilities (CAP_BPF), allow no eBPF classifier (`uid`), which goes without"
    )]
    Nothing(NoNetCls),
    /// The policy says `auto`, and the kernel has neither.
    #[error(
        "this kernel has neither `cls_cgroup` nor `cls_bpf`, so packets cannot be told apart by user; install a kernel that has one (Debian: linux-modules-extra or the distribution's full kernel), or run this with CAP_SYS_ADMIN and CAP_BPF, where a container has too little to try them"
    )]
    Neither,
}

/// The classifier for what the policy chooses (`None`: `classifier: auto`).
pub fn classifier(
    choice: Option<Classifier>,
    features: &Features,
) -> Result<Classifier, NoClassifier> {
    let has = |classifier: &Classifier| {
        let lacks_tags = *classifier != Classifier::Uid && features.no_net_cls.is_some();
        !lacks_tags && features.classifiers.contains(classifier)
    };
    match (choice, features.no_net_cls) {
        (None, _) if features.spared.is_some() && has(&Classifier::Uid) => Ok(Classifier::Uid),
        (None, why) => CLASSIFIERS
            .into_iter()
            .find(has)
            .ok_or(why.map_or(NoClassifier::Neither, NoClassifier::Nothing)),
        (Some(classifier), _) if has(&classifier) => Ok(classifier),
        (Some(Classifier::Bpf | Classifier::Cgroup), Some(why)) => Err(NoClassifier::NetCls(why)),
        (Some(Classifier::Cgroup), None) => Err(NoClassifier::Cgroup),
        (Some(Classifier::Bpf | Classifier::Uid), _) => Err(NoClassifier::Bpf),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Spared;

    fn features(classifiers: &[Classifier]) -> Features {
        Features { classifiers: classifiers.iter().copied().collect(), ..Features::default() }
    }

    #[test]
    fn auto_prefers_what_a_user_cannot_change() {
        let both = features(&[Classifier::Cgroup, Classifier::Bpf]);
        assert_eq!(classifier(None, &both), Ok(Classifier::Bpf));
        assert_eq!(classifier(None, &features(&[Classifier::Cgroup])), Ok(Classifier::Cgroup));
        assert_eq!(classifier(None, &features(&[])), Err(NoClassifier::Neither));
    }

    #[test]
    fn without_net_cls_only_the_owner_counts() {
        let all = [Classifier::Cgroup, Classifier::Bpf, Classifier::Uid];
        assert_eq!(classifier(None, &features(&all)), Ok(Classifier::Bpf));
        let why = NoNetCls::Forbidden;
        let without = Features { no_net_cls: Some(why), ..features(&all) };
        assert_eq!(classifier(None, &without), Ok(Classifier::Uid));
        assert_eq!(classifier(Some(Classifier::Uid), &without), Ok(Classifier::Uid));
        for tags in [Classifier::Bpf, Classifier::Cgroup] {
            assert_eq!(classifier(Some(tags), &without), Err(NoClassifier::NetCls(why)));
        }
        let neither = Features { no_net_cls: Some(why), ..features(&[Classifier::Cgroup]) };
        assert_eq!(classifier(None, &neither), Err(NoClassifier::Nothing(why)));
    }

    #[test]
    fn auto_disturbs_nobody_where_it_can_do_without() {
        let all = [Classifier::Cgroup, Classifier::Bpf, Classifier::Uid];
        let spared = |classifiers: &[Classifier]| Features {
            spared: Some(Spared::Podman),
            ..features(classifiers)
        };
        assert_eq!(classifier(None, &spared(&all)), Ok(Classifier::Uid));
        for written in all {
            assert_eq!(classifier(Some(written), &spared(&all)), Ok(written));
        }
        assert_eq!(classifier(None, &spared(&[Classifier::Cgroup])), Ok(Classifier::Cgroup));
    }

    #[test]
    fn a_written_classifier_is_taken_or_refused() {
        let both = features(&[Classifier::Cgroup, Classifier::Bpf]);
        assert_eq!(classifier(Some(Classifier::Cgroup), &both), Ok(Classifier::Cgroup));
        let bpf = features(&[Classifier::Bpf]);
        assert_eq!(classifier(Some(Classifier::Cgroup), &bpf), Err(NoClassifier::Cgroup));
        let cgroup = features(&[Classifier::Cgroup]);
        assert_eq!(classifier(Some(Classifier::Bpf), &cgroup), Err(NoClassifier::Bpf));
    }
}

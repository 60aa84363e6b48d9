//! How a packet finds its class: explicit u32 rules first, then the tag of the process that sent
//! it. Small peers that answer pure questions and know nothing of execution.

pub mod frame;
pub mod hash;
pub mod interpret;
pub mod u32;

use crate::state::{Features, Tag};

/// Back ends that read the tag, the best first. Both call the same kernel helper; `cls_cgroup`
/// needs no privilege for bpf(2).
const TAGS: [Tag; 2] = [Tag::Cgroup, Tag::Bpf];

/// The policy asks for a classifier that this kernel lacks, or the kernel has none at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTag {
    #[error(
        "this kernel has no `cls_cgroup` classifier; load it (`modprobe cls_cgroup`) or write `classifier: auto`"
    )]
    Cgroup,
    #[error(
        "this kernel, or this process's capabilities (CAP_BPF), allow no eBPF classifier; write `classifier: auto`"
    )]
    Bpf,
    #[error(
        "this kernel has neither `cls_cgroup` nor `cls_bpf`, so packets cannot be told apart by user; install a kernel that has one (Debian: linux-modules-extra or the distribution's full kernel)"
    )]
    Neither,
}

/// The back end to use for `choice` (`None`: `classifier: auto`).
pub fn tag(choice: Option<Tag>, features: &Features) -> Result<Tag, NoTag> {
    match choice {
        None => TAGS.into_iter().find(|t| features.tags.contains(t)).ok_or(NoTag::Neither),
        Some(tag) if features.tags.contains(&tag) => Ok(tag),
        Some(Tag::Cgroup) => Err(NoTag::Cgroup),
        Some(Tag::Bpf | Tag::Shards) => Err(NoTag::Bpf),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(tags: &[Tag]) -> Features {
        Features { tags: tags.iter().copied().collect(), ..Features::default() }
    }

    #[test]
    fn auto_prefers_cls_cgroup() {
        assert_eq!(tag(None, &features(&[Tag::Cgroup, Tag::Bpf])), Ok(Tag::Cgroup));
        assert_eq!(tag(None, &features(&[Tag::Bpf])), Ok(Tag::Bpf));
        assert_eq!(tag(None, &features(&[])), Err(NoTag::Neither));
    }

    #[test]
    fn a_written_classifier_is_taken_or_refused() {
        assert_eq!(tag(Some(Tag::Bpf), &features(&[Tag::Cgroup, Tag::Bpf])), Ok(Tag::Bpf));
        assert_eq!(tag(Some(Tag::Cgroup), &features(&[Tag::Bpf])), Err(NoTag::Cgroup));
    }
}

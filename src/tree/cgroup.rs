//! A cgroup (v2) whose sockets have a class, and the names of those that shaper makes.

use std::fmt;

use super::claim::{Claim, Owner};

/// A cgroup of version 2 as the kernel's functions know it. A socket is in the cgroup in which its
/// process was when it made the socket, and stays in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cgroup {
    /// How many directories deep it is below the hierarchy's root, which is 0.
    pub level: u8,
    /// The kernel's number of it, which is the inode of its directory and never another's.
    pub id: u64,
}

/// When it is asked which cgroup a socket is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Turn {
    /// Before its owner.
    First,
    /// For what no line claims by its owner, and for what root owns: the processes of the cgroup
    /// act for users (`follow: effective`).
    AfterOwner,
}

impl fmt::Display for Cgroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cgroup {} at level {}", self.id, self.level)
    }
}

/// How the names of cgroups (v2) end that shaper makes. systemd has no kind of unit of this name.
const OURS: &str = ".shaper";

/// The name of the cgroup (v2) for what `run` and `attach` put into an owner's class where no tags
/// are read: `shaper:user:bob.shaper`.
pub fn pinned_name(instance: &str, owner: &Owner) -> String {
    let claim = Claim::Owner(owner.clone()).to_string().replacen('/', ":", 1);
    format!("{}:{claim}{OURS}", escaped(instance))
}

/// The owner of the cgroup of this name; `None`: the name is none that this instance gives.
pub fn pinned_owner(instance: &str, name: &str) -> Option<Owner> {
    let claim = name.strip_prefix(&escaped(instance))?.strip_prefix(':')?.strip_suffix(OURS)?;
    match format!("{}/pinned", claim.replacen(':', "/", 1)).parse() {
        Ok(Claim::Pinned(owner)) => Some(owner),
        _ => None,
    }
}

/// The instance's name without a colon, which ends it.
fn escaped(instance: &str) -> String {
    instance.replace('%', "%25").replace(':', "%3a")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_owners_of_one_instance() {
        let owners = ["user/bob", "user/a:b", "user/x.service", "uid/1000", "subuid/100000-165535"];
        let owners = owners.map(|claim| match claim.parse() {
            Ok(Claim::Owner(owner)) => owner,
            other => panic!("{other:?}"),
        });
        let instances = ["shaper", "shaper-4026531840", "a", "a:user", "a%3auser", "x.shaper"];
        let mut seen = std::collections::BTreeSet::new();
        for instance in instances {
            for owner in &owners {
                let name = pinned_name(instance, owner);
                for other in instances {
                    let is = pinned_owner(other, &name);
                    assert_eq!(is.as_ref(), (other == instance).then_some(owner), "{name}");
                }
                assert!(name.ends_with(".shaper") && !name.contains('/'));
                assert!(seen.insert(name));
            }
        }
        for name in ["shaper:class:nfs.shaper", "shaper:group:a.shaper", "shaper:user:bob", "x"] {
            assert_eq!(pinned_owner("shaper", name), None, "{name}");
        }
    }
}

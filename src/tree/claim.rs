//! Directories of the instance as values: whose each is, and how it is named.

use std::fmt;
use std::str::FromStr;

use super::name::{Group, Key, Reserved};
use super::uid_range::UidRange;
use crate::units::Minor;

/// Whose a class and its directory are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// A line of `users`.
    User(Key),
    /// An account of `everyone` or of a group's `each`.
    Uid(u32),
    /// Subordinate uids whose owner nobody claims and that `everyone` covers: one class for all of
    /// a range, or whoever has it would have as many classes as it has uids.
    Subuids(UidRange),
    /// A line of `classes`.
    Class(Key),
    /// All accounts of `everyone` that have no class of their own yet: a socket that is made before
    /// its account's class.
    Newcomers,
    /// A line of `groups`, or all of `everyone` together.
    Group(Group),
}

/// As status and errors name it: `bob`, `uid 1000`, `group students`, `class nfs`.
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::User(key) => write!(f, "{key}"),
            Owner::Uid(uid) => write!(f, "uid {uid}"),
            Owner::Subuids(range) => write!(f, "subuids {range}"),
            Owner::Class(key) => write!(f, "class {key}"),
            Owner::Newcomers => write!(f, "class {}", Reserved::Everyone),
            Owner::Group(group) => write!(f, "group {group}"),
        }
    }
}

/// A directory of the instance, whose `net_cls.classid` says which minor its owner has. The
/// directory is made before the class and removed after it, so that the kernel alone says which
/// minors are taken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Claim {
    /// The directory of a user, an account, a range, a class or a group.
    Owner(Owner),
    /// `…/pinned` below a user's or uid's directory. Processes that `run` and `attach` put there
    /// stay there, whosever they are.
    Pinned(Owner),
    /// A class that was replaced or removed and may still carry packets. The directory is named by
    /// the class's minor and, where that is known, by its last owner: an owner that comes back
    /// while the class drains has that class again.
    Retired(Minor, Option<Owner>),
}

impl Claim {
    /// The uid of an account without a line of its own; `None` for every other owner.
    pub fn uid(&self) -> Option<u32> {
        match self {
            Claim::Owner(Owner::Uid(uid)) => Some(*uid),
            _ => None,
        }
    }

    /// The owner, where that is an account or a range of subordinate uids without a line of its
    /// own: such a claim comes with its owner's processes and goes after them.
    pub fn comes_and_goes(&self) -> Option<&Owner> {
        match self {
            Claim::Owner(owner @ (Owner::Uid(_) | Owner::Subuids(_))) => Some(owner),
            _ => None,
        }
    }

    /// The owner below whose directory this `pinned` is; `None` for every other claim.
    pub fn pinned(&self) -> Option<&Owner> {
        match self {
            Claim::Pinned(owner) => Some(owner),
            _ => None,
        }
    }

    /// The minor of a retired class; `None` for every other claim.
    pub fn retired(&self) -> Option<Minor> {
        match self {
            Claim::Retired(minor, _) => Some(*minor),
            _ => None,
        }
    }
}

/// The directory's path below the instance's: `user/bob/pinned`, `uid/1000`, `retired/1a:user:bob`.
impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (owner, separator) = match self {
            Claim::Owner(owner) | Claim::Pinned(owner) => (owner, '/'),
            Claim::Retired(minor, None) => return write!(f, "retired/{minor}"),
            Claim::Retired(minor, Some(owner)) => {
                write!(f, "retired/{minor}:")?;
                (owner, ':')
            }
        };
        match owner {
            Owner::User(key) => write!(f, "user{separator}{key}"),
            Owner::Uid(uid) => write!(f, "uid{separator}{uid}"),
            Owner::Subuids(range) => write!(f, "subuid{separator}{range}"),
            Owner::Class(key) => write!(f, "class{separator}{key}"),
            Owner::Newcomers => write!(f, "class{separator}{}", Reserved::Everyone),
            Owner::Group(group) => write!(f, "group{separator}{group}"),
        }?;
        match self {
            Claim::Pinned(_) => f.write_str("/pinned"),
            _ => Ok(()),
        }
    }
}

/// The owner of the directory `room/name`: `user/bob`, `uid/1000`.
fn owner_of(room: &str, name: &str) -> Option<Owner> {
    Some(match room {
        "user" => Owner::User(Key::new(name)?),
        "uid" => Owner::Uid(name.parse().ok()?),
        "subuid" => Owner::Subuids(name.parse().ok()?),
        "class" if Reserved::of(name) == Some(Reserved::Everyone) => Owner::Newcomers,
        "class" => Owner::Class(Key::new(name)?),
        "group" => Owner::Group(Group::of(name)?),
        _ => return None,
    })
}

/// The claim of the directory `retired/NAME`, of which this is the name: `1a`, `1a:user:bob`.
fn retired(name: &str) -> Option<Claim> {
    let (minor, owner) = match name.split_once(':') {
        None => (name, None),
        Some((minor, owner)) => {
            let (room, name) = owner.split_once(':')?;
            (minor, Some(owner_of(room, name)?))
        }
    };
    Some(Claim::Retired(minor.parse().ok()?, owner))
}

/// The path is no directory of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a directory that shaper makes")]
pub struct NotAClaim;

impl FromStr for Claim {
    type Err = NotAClaim;

    /// The inverse of `Display`.
    fn from_str(path: &str) -> Result<Claim, NotAClaim> {
        let (room, name) = path.split_once('/').ok_or(NotAClaim)?;
        let (name, pinned) = match name.split_once('/') {
            None => (name, false),
            Some((name, "pinned")) => (name, true),
            Some(_) => return Err(NotAClaim),
        };
        if room == "retired" && !pinned {
            return retired(name).ok_or(NotAClaim);
        }
        let owner = owner_of(room, name).ok_or(NotAClaim)?;
        match (pinned, &owner) {
            (true, Owner::Class(_) | Owner::Newcomers | Owner::Group(_)) => Err(NotAClaim),
            (true, _) => Ok(Claim::Pinned(owner)),
            (false, _) => Ok(Claim::Owner(owner)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_print_and_parse_as_paths() {
        for path in [
            "user/bob",
            "user/bob/pinned",
            "uid/1000",
            "uid/1000/pinned",
            "subuid/100000-165535",
            "subuid/100000-165535/pinned",
            "class/nfs",
            "class/everyone",
            "group/students",
            "group/everyone",
            "retired/1a",
            "retired/1a:user:bob",
            "retired/1a:user:a:b",
            "retired/f000:group:students",
            "retired/1a:subuid:100000-165535",
        ] {
            assert_eq!(path.parse::<Claim>().unwrap().to_string(), path);
        }
        for path in [
            "user",
            "user/..",
            "user/everyone",
            "other/bob",
            "uid/bob",
            "subuid/7",
            "user/bob/x",
            "class/nfs/pinned",
            "retired/1a:user",
            "retired/1a:retired:1b",
            "retired/1a:uid:bob",
            "",
        ] {
            assert_eq!(path.parse::<Claim>(), Err(NotAClaim), "{path}");
        }
    }
}

//! Connections over which a server of root's serves the users for whom it acts (`follow:
//! effective`).

use std::io;
use std::path::PathBuf;

use super::descriptors::{Protocol, reach};
use crate::netlink::inet_diag::Listening;

/// A process of root's that acts for a user, and its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    pub uid: u32,
    pub held: Vec<Held>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub inode: u64,
    pub entry: PathBuf,
    pub protocol: Listening,
    pub owner: u32,
}

impl Held {
    /// Reads a connection; `None`: the descriptor is none, or closed by now.
    pub(super) fn read(entry: PathBuf, inode: u64) -> io::Result<Option<Held>> {
        let Some(socket) = reach(&entry, inode)? else { return Ok(None) };
        let Some(Protocol::Connections(protocol)) = Protocol::of(&socket.protocol()?) else {
            return Ok(None);
        };
        Ok(Some(Held { inode, entry, protocol, owner: socket.owner }))
    }
}

/// The connections that are given to the user `uid` for whom the process acts now: those that it
/// accepted as root. Where it has none of these, and none of the user's, he is served over the
/// connections of the user before, so those are given.
pub(super) fn go_along(uid: u32, mut held: Vec<Held>) -> Vec<Held> {
    let has = |owner: u32| held.iter().any(|held| held.owner == owner);
    match (has(0), has(uid)) {
        (true, _) => held.retain(|held| held.owner == 0),
        (false, true) => held.clear(),
        (false, false) => {}
    }
    held
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The owners whose connections are given to `uid`, where a process that acts for this user has
    /// connections of `owners`.
    fn owners_of_what_goes_to(uid: u32, owners: &[u32]) -> Vec<u32> {
        let held = owners.iter().zip(0_u32..).map(|(owner, at)| Held {
            inode: at.into(),
            entry: PathBuf::from(format!("/proc/7/fd/{at}")),
            protocol: Listening::Tcp,
            owner: *owner,
        });
        go_along(uid, held.collect()).into_iter().map(|held| held.owner).collect()
    }

    #[test]
    fn a_server_serves_whom_it_acts_for_over_what_it_accepted_last() {
        let (ann, bob) = (1000, 1001);
        assert_eq!(owners_of_what_goes_to(ann, &[0, 0]), [0, 0]);
        let nothing: [u32; 0] = [];
        assert_eq!(owners_of_what_goes_to(ann, &[ann]), nothing);
        // The process acts for another user now, over the same connection.
        assert_eq!(owners_of_what_goes_to(bob, &[ann, ann]), [ann, ann]);
        // A process that serves both users keeps their connections apart.
        assert_eq!(owners_of_what_goes_to(bob, &[ann, 0]), [0]);
        assert_eq!(owners_of_what_goes_to(bob, &[ann, bob]), nothing);
        assert_eq!(owners_of_what_goes_to(ann, &[ann, bob]), nothing);
        assert_eq!(owners_of_what_goes_to(ann, &[]), nothing);
    }
}

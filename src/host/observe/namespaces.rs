//! The named network namespaces, and which of them the peers of our links are in.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;

use crate::facts::NamespaceId;
use crate::netlink::namespace_id;
use crate::sys::netns;
use crate::sys::route::{Netlink, SocketError};

/// Every namespace that ip-netns(8) lists, with its number. To be asked after the links were
/// listed, which gives a number to each namespace that has the peer of one. A file that is no
/// namespace (its namespace was not mounted over it yet, or not any more) is left out.
pub(super) fn named(
    netlink: &mut Netlink,
) -> Result<BTreeMap<String, Option<NamespaceId>>, SocketError> {
    let mut found = BTreeMap::new();
    for (name, file) in netns::named() {
        let answer = netlink.get(&namespace_id::of_file(file.as_raw_fd()), namespace_id::decode)?;
        if let Ok(id) = answer {
            found.insert(name, id);
        }
    }
    Ok(found)
}

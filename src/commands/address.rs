//! Which link has an address.

use std::net::IpAddr;

use nix::ifaddrs::{InterfaceAddress, getifaddrs};

use crate::tree::LinkName;

/// The link that has an address.
pub(super) fn link_of(address: IpAddr) -> Option<LinkName> {
    let mut all = getifaddrs().ok()?;
    let has = |it: &InterfaceAddress| {
        let storage = it.address.as_ref()?;
        let v4 = storage.as_sockaddr_in().map(|it| IpAddr::from(it.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|it| IpAddr::from(it.ip())))
    };
    let found = all.find(|it| has(it) == Some(address))?;
    LinkName::new(&found.interface_name)
}

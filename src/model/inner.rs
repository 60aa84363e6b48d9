//! Links behind which guests are: whose is what comes in by each. Touches nothing.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::facts::Facts;
use crate::policy::{Findings, LinkRef, Policy};
use crate::tree::{LinkName, Owner};

use super::positions::users;

/// A link behind which guests are: a veth of the host's, a tap, a bridge, a tunnel, a port of Open
/// vSwitch. It is no shaped link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InnerLink {
    /// Whose what comes in by the link is, if its source is in no network of `addresses`; `None`:
    /// nobody's.
    pub owner: Option<Owner>,
    /// Whose it is by its source: the longest prefix decides. No network is there twice.
    pub addresses: Vec<(IpNet, Owner)>,
}

/// The links that are here now and of which lines or `guests` say whose they are.
pub(super) fn resolve(
    policy: &Policy,
    facts: &Facts,
    _findings: &mut Findings,
) -> BTreeMap<LinkName, InnerLink> {
    let mut inner: BTreeMap<LinkName, InnerLink> = BTreeMap::new();
    for (_, line) in users(policy) {
        for interface in line.interfaces.iter().flatten() {
            let LinkRef::Name(name) = &interface.value else { continue };
            let Some(name) = LinkName::new(name).filter(|name| facts.links.contains_key(name))
            else {
                continue;
            };
            let owner = || Owner::User(line.key.value.clone());
            let link = inner.entry(name).or_default();
            match &line.addresses {
                None => link.owner = Some(owner()),
                Some(addresses) => {
                    let nets = addresses.iter().flat_map(|written| written.value.iter().copied());
                    link.addresses.extend(nets.map(|net| (net, owner())));
                }
            }
        }
    }
    inner
}

//! Whose what an engine's proxy serves is: the owner of the links to the container. Touches
//! nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::InnerLink;
use crate::facts::{Facts, NamespaceId};
use crate::tree::{LinkName, Owner};

/// The addresses of containers that somebody has.
pub(super) fn proxied(
    facts: &Facts,
    inner: &BTreeMap<LinkName, InnerLink>,
) -> BTreeMap<IpAddr, Owner> {
    let mut owners: BTreeMap<NamespaceId, &Owner> = BTreeMap::new();
    for (name, link) in inner {
        let namespace = facts.links.get(name).and_then(|device| device.peer_namespace);
        if let (Some(namespace), Some(owner)) = (namespace, &link.owner) {
            owners.entry(namespace).or_insert(owner);
        }
    }
    let mut proxied = BTreeMap::new();
    for container in &facts.guests.containers {
        let owner = container.namespace.and_then(|namespace| owners.get(&namespace));
        let Some(owner) = owner else { continue };
        proxied.extend(container.addresses.iter().map(|address| (*address, (*owner).clone())));
    }
    proxied
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Container, Engine, Guests, LinkFacts};
    use crate::tree::Key;

    #[test]
    fn a_proxy_serves_whoever_has_the_containers_link() {
        let link = |name: &str| LinkName::new(name).unwrap();
        let veth = |index, id| LinkFacts {
            peer_namespace: Some(NamespaceId(id)),
            ..LinkFacts::ethernet(index)
        };
        let container = |id: i32| Container {
            engine: Engine::Docker,
            id: id.to_string(),
            name: None,
            labels: BTreeMap::new(),
            addresses: vec![IpAddr::from([172, 17, 0, u8::try_from(id).unwrap()])],
            namespace: Some(NamespaceId(id)),
            slice: None,
            uid: Some(0),
        };
        let links = [(link("veth2"), veth(2, 2)), (link("veth3"), veth(3, 3))].into();
        let containers = vec![container(2), container(3)];
        let guests = Guests { containers, ..Guests::default() };
        let facts = Facts { links, guests, ..Facts::default() };
        let bob = Owner::User(Key::new("bob").unwrap());
        let owned = InnerLink { owner: Some(bob.clone()), ..InnerLink::default() };
        let inner = [(link("veth2"), owned), (link("veth3"), InnerLink::default())].into();
        let expected = [(IpAddr::from([172, 17, 0, 2]), bob)];
        assert_eq!(proxied(&facts, &inner), expected.into());
    }
}

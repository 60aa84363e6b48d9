//! Where nftables has a link's ingress hook: what is redirected there passes none of it
//! (linux/netfilter/nf_tables.h).

use super::decode::Decoded;
use super::{Message, Request, attr};
use crate::tree::LinkName;

/// `NFNL_SUBSYS_NFTABLES`, the upper half of a message's type.
const NFTABLES: u16 = 10 << 8;
/// `enum nf_tables_msg_types`.
const NEW_CHAIN: u16 = NFTABLES | 3;
const GET_CHAIN: u16 = NFTABLES | 4;
const NEW_FLOWTABLE: u16 = NFTABLES | 22;
const GET_FLOWTABLE: u16 = NFTABLES | 23;
/// `NFPROTO_NETDEV`: only this family has chains at a link.
const NETDEV: u8 = 5;
/// `struct nfgenmsg`: family, version, resource.
const HEADER: usize = 4;

/// What has a link's ingress hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AtIngress {
    /// `chain TABLE NAME` or `flowtable TABLE NAME`.
    pub what: String,
    /// On these links.
    pub links: Vec<LinkName>,
}

/// All chains at links.
pub fn chains() -> Request {
    Request::raw_dump(GET_CHAIN, vec![NETDEV, 0, 0, 0])
}

/// All flowtables.
pub fn flowtables() -> Request {
    Request::raw_dump(GET_FLOWTABLE, vec![0; HEADER])
}

/// Reads a message of either list; `None`: it has no ingress hook.
pub fn at_ingress(message: Message<'_>) -> Decoded<AtIngress> {
    const TABLE: u16 = 1;
    // Of a chain its name is the third attribute and its hook the fourth.
    const CHAIN: (u16, u16, &str) = (3, 4, "chain");
    const FLOWTABLE: (u16, u16, &str) = (2, 3, "flowtable");
    // Inside: the hook's number, of a chain its one device, and devices as a list.
    const NUMBER: u16 = 1;
    const DEVICE: u16 = 3;
    const CHAIN_DEVICES: u16 = 4;
    // `NF_NETDEV_INGRESS`, in network byte order; 1 is egress.
    const INGRESS: [u8; 4] = [0; 4];
    let (name, hook, word) = match message.kind {
        NEW_CHAIN => CHAIN,
        NEW_FLOWTABLE => FLOWTABLE,
        _ => return Ok(None),
    };
    let attributes = message.payload.get(HEADER..).unwrap_or(&[]);
    let Some(hook) = attr::find(attributes, hook) else { return Ok(None) };
    if attr::find(hook, NUMBER) != Some(&INGRESS) {
        return Ok(None);
    }
    let one = attr::find(hook, DEVICE).filter(|_| message.kind == NEW_CHAIN);
    let list = if message.kind == NEW_CHAIN { CHAIN_DEVICES } else { DEVICE };
    let list = attr::find(hook, list).unwrap_or(&[]);
    let devices = one.into_iter().chain(attr::attrs(list).map(|(_, device)| device));
    let mut links: Vec<LinkName> =
        devices.filter_map(|device| LinkName::new(&attr::text(device))).collect();
    links.dedup();
    let text = |kind| attr::find(attributes, kind).map(attr::text).unwrap_or_default();
    let what = format!("{word} {} {}", text(TABLE), text(name));
    Ok((!links.is_empty()).then_some(AtIngress { what, links }))
}

#[cfg(test)]
mod tests {
    use super::attr::attribute;
    use super::*;

    /// With the numbers of the attributes: the name, the hook, and in it the devices.
    fn message(number: u8, [name, hook, list]: [u16; 3], devices: &[u8]) -> Vec<u8> {
        let hook_of = [attribute(1, &[0, 0, 0, number]), attribute(list, devices)].concat();
        let head = [NETDEV, 0, 0, 0].to_vec();
        [head, attribute(1, b"guard\0"), attribute(name, b"in\0"), attribute(hook, &hook_of)]
            .concat()
    }

    fn read(kind: u16, payload: &[u8]) -> Option<AtIngress> {
        at_ingress(Message { kind, payload }).unwrap()
    }

    #[test]
    fn what_has_the_ingress_hook_of_a_link_is_found() {
        let eth0 = vec![LinkName::new("eth0").unwrap()];
        let one = message(0, [3, 4, 3], b"eth0\0");
        let wanted = AtIngress { what: "chain guard in".to_string(), links: eth0.clone() };
        assert_eq!(read(NEW_CHAIN, &one), Some(wanted.clone()));
        let list = attribute(1, b"eth0\0");
        let several = message(0, [3, 4, 4], &list);
        assert_eq!(read(NEW_CHAIN, &several), Some(wanted));
        let flowtable = message(0, [2, 3, 3], &list);
        let wanted = AtIngress { what: "flowtable guard in".to_string(), links: eth0 };
        assert_eq!(read(NEW_FLOWTABLE, &flowtable), Some(wanted));
        let egress = message(1, [3, 4, 3], b"eth0\0");
        assert_eq!(read(NEW_CHAIN, &egress), None);
        assert_eq!(read(NEW_CHAIN, &[NETDEV, 0, 0, 0]), None, "a chain without a hook");
        for end in 0..one.len() {
            let _ = read(NEW_CHAIN, &one[..end]);
        }
    }
}

//! rtnetlink's notices to everybody who listens: which link one is about. What has changed there is
//! read anew, since notices come late and can be lost.

use super::{RTM_NEWLINK, RTM_NEWROUTE, attr, decode};
use crate::tree::LinkName;

const RTM_DELLINK: u16 = 17;
const RTM_DELROUTE: u16 = 25;
/// RTM_NEWQDISC to RTM_GETTFILTER.
const TRAFFIC_CONTROL: std::ops::RangeInclusive<u16> = 36..=46;
/// `struct ifinfomsg`; the index is its second word, as in `struct tcmsg`.
const IFINFOMSG: usize = 16;
const IFLA_IFNAME: u16 = 3;
const AF_UNSPEC: u8 = 0;

/// What a notice is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Notice {
    /// A link changed or came: its ifindex, name and alternative names.
    Link(u32, LinkName, Vec<String>),
    /// A link left this network namespace: its ifindex, last name and alternative names.
    Gone(u32, LinkName, Vec<String>),
    /// The traffic control of the link with this ifindex changed.
    TrafficControl(u32),
    /// A default route changed.
    DefaultRoute,
}

/// The notice in a message; `None`: about something else.
pub fn notice(kind: u16, payload: &[u8]) -> Option<Notice> {
    match kind {
        RTM_NEWLINK | RTM_DELLINK => {
            let attributes = payload.get(IFINFOMSG..)?;
            let name = LinkName::new(&attr::text(attr::find(attributes, IFLA_IFNAME)?))?;
            let (index, altnames) = (attr::u32_at(payload, 4)?, decode::altnames(attributes));
            // That a slave left its bridge is told as the end of a link of family AF_BRIDGE
            // (`br_ifinfo_notify`, net/bridge/br_netlink.c).
            match kind == RTM_DELLINK && *payload.first()? == AF_UNSPEC {
                true => Some(Notice::Gone(index, name, altnames)),
                false => Some(Notice::Link(index, name, altnames)),
            }
        }
        // `struct rtmsg`: family, and the length of the destination's prefix.
        RTM_NEWROUTE | RTM_DELROUTE => (*payload.get(1)? == 0).then_some(Notice::DefaultRoute),
        kind if TRAFFIC_CONTROL.contains(&kind) => {
            Some(Notice::TrafficControl(attr::u32_at(payload, 4)?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_named_and_traffic_control_has_its_index() {
        let mut payload = vec![0; IFINFOMSG];
        payload[4] = 9;
        assert_eq!(notice(36, &payload), Some(Notice::TrafficControl(9)));
        assert_eq!(notice(RTM_NEWLINK, &payload), None, "a link without a name");
        payload.extend([9, 0, 3, 0]);
        payload.extend(b"eth0\0\0\0\0");
        let name = LinkName::new("eth0").unwrap();
        let link = || Notice::Link(9, name.clone(), Vec::new());
        assert_eq!(notice(RTM_NEWLINK, &payload), Some(link()));
        assert_eq!(notice(RTM_DELLINK, &payload), Some(Notice::Gone(9, name.clone(), Vec::new())));
        payload[0] = 7;
        assert_eq!(notice(RTM_DELLINK, &payload), Some(link()), "left its bridge");
        payload[0] = 0;
        assert_eq!(notice(36, &payload[..6]), None);
        assert_eq!(notice(RTM_NEWROUTE, &[2, 0, 0, 0]), Some(Notice::DefaultRoute));
        assert_eq!(notice(RTM_NEWROUTE, &[2, 24, 0, 0]), None, "a route to somewhere");
        assert_eq!(notice(28, &payload), None, "a neighbour");
    }
}

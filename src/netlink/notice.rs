//! rtnetlink's notices to everybody who listens: which link one is about. What has changed there is
//! read anew, since notices come late and can be lost.

use super::decode::{self, TCA_KIND, TCA_OPTIONS};
use super::{RTM_NEWLINK, RTM_NEWQDISC, RTM_NEWROUTE, TC_H_ROOT, attr, htb};
use crate::tree::{LinkName, Mark};
use crate::units::ClassId;

const RTM_DELLINK: u16 = 17;
const RTM_DELROUTE: u16 = 25;
/// RTM_NEWQDISC to RTM_GETTFILTER.
const TRAFFIC_CONTROL: std::ops::RangeInclusive<u16> = 36..=46;
/// `struct ifinfomsg`; the index is its second word, as in `struct tcmsg`.
const IFINFOMSG: usize = 16;
const IFLA_IFNAME: u16 = 3;
/// `struct tcmsg`: its length, and where two of its words are.
const TCMSG: usize = 20;
const HANDLE: usize = 8;
const PARENT: usize = 12;
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
        RTM_NEWQDISC if is_our_root(payload) => None,
        kind if TRAFFIC_CONTROL.contains(&kind) => {
            Some(Notice::TrafficControl(attr::u32_at(payload, 4)?))
        }
        _ => None,
    }
}

/// Whether a new qdisc is a root of shaper's. The kernel tells everybody also what it answers to a
/// question for one qdisc (`tc_get_qdisc`, net/sched/sch_api.c), and `top` asks for the root of an
/// ifb with each reading: that is no change. Where such a root comes, the end of the one before it
/// is told, too, and the classes below it.
fn is_our_root(payload: &[u8]) -> bool {
    let word = |at| attr::u32_at(payload, at);
    if (word(HANDLE), word(PARENT)) != (Some(ClassId::ROOT.0), Some(TC_H_ROOT)) {
        return false;
    }
    let attributes = payload.get(TCMSG..).unwrap_or(&[]);
    let is_htb = attr::find(attributes, TCA_KIND).map(attr::borrowed).as_deref() == Some(htb::KIND);
    let globals = attr::find(attributes, TCA_OPTIONS).filter(|_| is_htb).and_then(htb::globals);
    globals.is_some_and(|globals| Mark::is_shaper(globals.rate2quantum))
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

    #[test]
    fn what_is_answered_of_our_root_is_no_change_and_its_end_is() {
        let qdisc = |handle: u32, r2q: u32| {
            let header = [0, 9, handle, TC_H_ROOT, 0].map(u32::to_ne_bytes).concat();
            // TCA_HTB_INIT.
            let glob = [3, r2q, 0xfffe, 0, 0].map(u32::to_ne_bytes).concat();
            let options = attr::attribute(TCA_OPTIONS, &attr::attribute(2, &glob));
            [header, attr::attribute(TCA_KIND, b"htb\0"), options].concat()
        };
        let mark = Mark::for_instance("shaper").0;
        let changed = Some(Notice::TrafficControl(9));
        let of = |kind, payload: &[u8]| notice(kind, payload);
        assert_eq!(of(RTM_NEWQDISC, &qdisc(ClassId::ROOT.0, mark)), None);
        assert_eq!(of(37, &qdisc(ClassId::ROOT.0, mark)), changed, "RTM_DELQDISC");
        assert_eq!(of(RTM_NEWQDISC, &qdisc(ClassId::ROOT.0, 10)), changed, "somebody else's");
        assert_eq!(of(RTM_NEWQDISC, &qdisc(0x2_0000, mark)), changed);
        assert_eq!(of(RTM_NEWQDISC, &qdisc(ClassId::ROOT.0, mark)[..30]), changed);
    }
}

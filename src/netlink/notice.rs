//! What rtnetlink tells everybody: which link a notice is about. What exactly changed is looked up
//! anew, since notices can be lost and come late.

use super::attr;
use crate::state::LinkName;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
/// RTM_NEWQDISC to RTM_GETTFILTER.
const TRAFFIC_CONTROL: std::ops::RangeInclusive<u16> = 36..=46;
/// `struct ifinfomsg`; the index is its second word, as in `struct tcmsg`.
const IFINFOMSG: usize = 16;
const IFLA_IFNAME: u16 = 3;

/// One notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub ifindex: u32,
    /// What the link is called now; `None`: the notice is about its traffic control.
    pub name: Option<LinkName>,
}

/// The notice in a message; `None`: about something else.
pub fn notice(kind: u16, payload: &[u8]) -> Option<Notice> {
    let ifindex = attr::u32_at(payload, 4)?;
    match kind {
        RTM_NEWLINK | RTM_DELLINK => {
            let name = attr::find(payload.get(IFINFOMSG..)?, IFLA_IFNAME)?;
            let name = std::str::from_utf8(name).ok()?.trim_end_matches('\0');
            Some(Notice { ifindex, name: Some(LinkName::new(name)?) })
        }
        kind if TRAFFIC_CONTROL.contains(&kind) => Some(Notice { ifindex, name: None }),
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
        assert_eq!(notice(36, &payload), Some(Notice { ifindex: 9, name: None }));
        assert_eq!(notice(RTM_NEWLINK, &payload), None, "a link without a name");
        payload.extend([9, 0, 3, 0]);
        payload.extend(b"eth0\0\0\0\0");
        let name = LinkName::new("eth0");
        assert_eq!(notice(RTM_DELLINK, &payload), Some(Notice { ifindex: 9, name }));
        assert_eq!(notice(24, &payload), None, "a route");
        assert_eq!(notice(36, &payload[..6]), None);
    }
}

//! The device through which packets go that arrive by a link with a `down`.

use super::port::{Direction, LinkName, Port};

/// An ifb of ours. It carries the instance's mark in its alias, and is in the namespace of the link
/// whose packets it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ifb {
    /// It is switched on (`IFF_UP`); one that is not drops every packet.
    pub up: bool,
}

/// Bytes of a name (`IFNAMSIZ` without the NUL).
const MOST: usize = 15;

impl LinkName {
    /// The name of the link's ifb: `ifb-eth0`. Of a name that is too long for that, its beginning
    /// and a hash.
    pub fn ifb(&self) -> LinkName {
        let name = format!("ifb-{self}");
        if name.len() <= MOST {
            return LinkName(name);
        }
        let fnv = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        let hash = self.0.bytes().fold(0x811c_9dc5, fnv);
        let end = (0..=5).rev().find(|end| self.0.is_char_boundary(*end)).unwrap_or(0);
        LinkName(format!("ifb-{}-{:05x}", &self.0[..end], hash & 0xf_ffff))
    }
}

impl Port {
    /// The device whose root qdisc its packets pass.
    pub fn device(&self) -> LinkName {
        match self.direction {
            Direction::Egress => self.link.clone(),
            Direction::Ingress => self.link.ifb(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_link_has_an_ifb_of_its_own() {
        let ifb = |name: &str| LinkName::new(name).unwrap().ifb();
        assert_eq!(ifb("eth0").as_str(), "ifb-eth0");
        assert_eq!(ifb("enp0s31f6.1").as_str(), "ifb-enp0s31f6.1");
        let (one, other) = (ifb("enp0s31f6.1234"), ifb("enp0s31f6.1235"));
        assert_ne!(one, other);
        for name in [one, other, ifb("äöüäöüä")] {
            assert_eq!(LinkName::new(name.as_str()), Some(name));
        }
    }
}

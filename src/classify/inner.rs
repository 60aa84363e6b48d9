//! The program that labels what comes in by an inner link ([`super::label`] says what for), and the
//! map in which it looks sources up. Pure.

use std::net::Ipv6Addr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::assembler::{
    Assembler, FRAME, Instruction, Label as Target, R0, R1, R6, R7, TC_ACT_UNSPEC, Width,
};
use super::ip_header::{self, Room, load};
use super::label::SKB_TC_INDEX;
use super::program::{SOURCES, look_up};
use crate::tree::{Label, Source};
use crate::units::Minor;

/// Bytes of a key of [`SOURCES`], a longest-prefix-match trie: `{u32 bits; u32 ifindex; u8
/// address[16]}` → classid, numbers in the machine's byte order. An IPv4 address is the last four
/// bytes behind `::ffff:`; with one of IPv6 the ifindex has [`OF_V6`], so that no network of the
/// one family holds an address of the other.
pub const SOURCE_KEY_BYTES: usize = 24;

/// The offset of `ifindex` in `struct __sk_buff`: of the link by which the packet comes in.
pub const SKB_IFINDEX: i16 = 40;

/// The key on the stack.
const KEY: i16 = -24;
const KEY_IFINDEX: i16 = KEY + 4;
const KEY_ADDRESS: i16 = KEY + 8;
/// Set in the ifindex of a key of IPv6; an ifindex is an `int` above 0.
const OF_V6: u32 = 1 << 31;
/// What the kernel's tries compare before the address.
const IFINDEX_BITS: u8 = 32;
/// Of an IPv4 address that is written as one of IPv6.
const MAPPED_BITS: u8 = 96;
const ROOM: Room = Room { from: KEY - 4, tag: KEY - 8 };
const V4_SOURCE: i32 = 12;
const V6_SOURCE: i32 = 8;

/// The map's key of a source.
pub fn key(source: Source) -> [u8; SOURCE_KEY_BYTES] {
    let Source { ifindex, net } = source;
    let (ifindex, address, bits) = match net {
        IpNet::V4(net) => (ifindex, net.network().to_ipv6_mapped(), MAPPED_BITS + net.prefix_len()),
        IpNet::V6(net) => (ifindex | OF_V6, net.network(), net.prefix_len()),
    };
    let mut key = [0; SOURCE_KEY_BYTES];
    key[..4].copy_from_slice(&u32::from(IFINDEX_BITS + bits).to_ne_bytes());
    key[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    key[8..].copy_from_slice(&address.octets());
    key
}

/// The source of a key; `None` for one that [`key`] never makes.
pub fn source(key: [u8; SOURCE_KEY_BYTES]) -> Option<Source> {
    let [a, b, c, d, e, f, g, h, address @ ..] = key;
    let bits = u32::from_ne_bytes([a, b, c, d]).checked_sub(IFINDEX_BITS.into())?;
    let bits = u8::try_from(bits).ok()?;
    let (address, ifindex) = (Ipv6Addr::from(address), u32::from_ne_bytes([e, f, g, h]));
    let net = match ifindex & OF_V6 {
        0 => {
            let bits = bits.checked_sub(MAPPED_BITS)?;
            Ipv4Net::new(address.to_ipv4_mapped()?, bits).ok()?.into()
        }
        _ => Ipv6Net::new(address, bits).ok()?.into(),
    };
    Some(Source { ifindex: ifindex & !OF_V6, net })
}

/// The program. Every packet goes on (`TC_ACT_UNSPEC`). Where it asks by source its one map is
/// [`SOURCES`].
pub fn label(label: Label) -> Vec<Instruction> {
    let mut a = Assembler::default();
    let (write, done) = (a.label(), a.label());
    a.copy(R6, R1);
    if label.keeps {
        let none = a.label();
        a.load(Width::Word, R7, R6, SKB_TC_INDEX);
        a.jump_if_less(R7, Minor::FIRST_USER.0.into(), none);
        a.jump_if_at_most(R7, Minor::LAST_USER.0.into(), done);
        a.bind(none);
    }
    if label.by_source {
        let unknown = a.label();
        read_source(&mut a, unknown);
        look_up(&mut a, SOURCES, KEY);
        a.jump_if_is(R0, 0, unknown);
        a.load(Width::Word, R1, R0, 0);
        a.and(R1, 0xffff);
        a.jump(write);
        a.bind(unknown);
    }
    a.set(R1, label.owner.map_or(0, |owner| owner.0.into()));
    a.bind(write);
    a.store(Width::Word, R6, SKB_TC_INDEX, R1);
    a.bind(done);
    a.set(R0, TC_ACT_UNSPEC);
    a.exit();
    a.finish()
}

/// Fills the key from the packet, behind a VLAN tag that is in its bytes; on to `none` where it is
/// no IP.
fn read_source(a: &mut Assembler, none: Target) {
    a.store_value(Width::Word, FRAME, KEY, (IFINDEX_BITS + 128).into());
    a.load(Width::Word, R1, R6, SKB_IFINDEX);
    a.store(Width::Word, FRAME, KEY_IFINDEX, R1);
    a.store_value(Width::Double, FRAME, KEY_ADDRESS, 0);
    a.store_value(Width::Double, FRAME, KEY_ADDRESS + 8, 0);
    let (v4, v6, found) = (a.label(), a.label(), a.label());
    ip_header::find(a, ROOM, [v4, v6, none]);
    a.bind(v4);
    a.store_value(Width::Half, FRAME, KEY_ADDRESS + 10, 0xffff);
    load(a, ROOM, (V4_SOURCE, KEY_ADDRESS + 12), 4, none);
    a.jump(found);
    a.bind(v6);
    a.load(Width::Word, R1, FRAME, KEY_IFINDEX);
    a.or(R1, OF_V6.cast_signed());
    a.store(Width::Word, FRAME, KEY_IFINDEX, R1);
    load(a, ROOM, (V6_SOURCE, KEY_ADDRESS), 16, none);
    a.bind(found);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back() {
        for net in [
            "10.8.0.5/32",
            "10.8.0.0/24",
            "0.0.0.0/0",
            "fd00::/8",
            "::/0",
            "fd00::1/128",
            "::ffff:10.8.0.5/128",
        ] {
            let it = Source { ifindex: 7, net: net.parse().unwrap() };
            assert_eq!(source(key(it)), Some(it), "{net}");
        }
        let mut short = key(Source { ifindex: 7, net: "::/0".parse().unwrap() });
        short[..4].copy_from_slice(&7_u32.to_ne_bytes());
        assert_eq!(source(short), None, "a part of the ifindex");
    }
}

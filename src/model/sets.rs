//! The values that a rule's field allows, in pieces that one comparison can decide: blocks of
//! numbers whose size is a power of two, networks, and with `not` what those leave over. Touches
//! nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Net, Ipv4Subnets, Ipv6Net, Ipv6Subnets};

use crate::policy::{Field, Networks, RuleLine};
use crate::tree::{Bits, Packets, Ranges};

/// All fields of a rule, as ranges.
pub(super) fn packets(line: &RuleLine, with_ports: Option<&[u8]>) -> Packets {
    Packets {
        vlan: numbers(&line.vlan),
        proto: one_by_one(&protocols(&line.proto, with_ports)),
        src: addresses(&line.src),
        dst: addresses(&line.dst),
        sport: numbers(&line.sport),
        dport: numbers(&line.dport),
    }
}

/// The ports or VLAN ids of a field, as ranges.
fn numbers(field: &Field<RangeInclusive<u16>>) -> Option<Ranges<u16>> {
    let ranges = field.values.iter().map(|range| wide(&range.value)).collect();
    let chosen = chosen(ranges, field.not, u16::MAX.into());
    let narrow = |(from, to)| (from as u16, to as u16);
    (!field.is_empty()).then(|| chosen.into_iter().map(narrow).collect())
}

/// The protocols of a field as ranges, from its pieces.
fn one_by_one(pieces: &[Option<Bits<u8>>]) -> Option<Ranges<u8>> {
    let pieces: Option<Vec<Bits<u8>>> = pieces.iter().copied().collect();
    let range = |bits: Bits<u8>| wide(&(bits.value..=bits.value | !bits.mask));
    let ranges = chosen(pieces?.into_iter().map(range).collect(), false, u8::MAX.into());
    Some(ranges.into_iter().map(|(from, to)| (from as u8, to as u8)).collect())
}

/// The networks of a field, of both families, as ranges.
fn addresses(field: &Field<Networks>) -> Option<Ranges<IpAddr>> {
    let networks: Option<Vec<IpNet>> = networks(field).into_iter().collect();
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for network in networks? {
        match network {
            IpNet::V4(it) => v4.push((it.network().to_bits(), it.broadcast().to_bits())),
            IpNet::V6(it) => v6.push((it.network().to_bits(), it.broadcast().to_bits())),
        }
    }
    let v4 = merged(v4, |last| last.checked_add(1));
    let v4 =
        v4.into_iter().map(|(first, last)| [first, last].map(|bits| Ipv4Addr::from(bits).into()));
    let v6 = merged(v6, |last| last.checked_add(1));
    let v6 =
        v6.into_iter().map(|(first, last)| [first, last].map(|bits| Ipv6Addr::from(bits).into()));
    Some(v4.chain(v6).map(|[first, last]| (first, last)).collect())
}

/// The same ranges ascending, with overlapping and adjacent ones merged.
fn merged<T: Copy + Ord>(mut ranges: Vec<(T, T)>, next: impl Fn(T) -> Option<T>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut merged: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (from, to) in ranges {
        match merged.last_mut() {
            Some((_, end)) if next(*end).is_none_or(|next| from <= next) => *end = (*end).max(to),
            _ => merged.push((from, to)),
        }
    }
    merged
}

/// A field's pieces; `None`: it may be anything.
pub(super) fn ports(field: &Field<RangeInclusive<u16>>) -> Vec<Option<Bits<u16>>> {
    if field.is_empty() {
        return vec![None];
    }
    let ranges = field.values.iter().map(|range| wide(&range.value));
    let pieces = pieces(chosen(ranges.collect(), field.not, u16::MAX.into()), 16);
    pieces.map(|(value, mask)| Some(Bits { value: value as u16, mask: mask as u16 })).collect()
}

/// IPv6's extension headers and AH: a packet that has one says only behind it of which protocol it
/// is, and any user may send TCP behind a routing header (IPV6_RTHDR). Not those of Mobile IP, HIP
/// and SHIM6, behind which nothing follows.
const HEADERS: [u8; 5] = [0, 43, 44, 51, 60];

/// The pieces of a protocol field. `not` means that the packet is known to be of another protocol.
/// With ports, a field that is empty or says `not` means only protocols of `with_ports`.
pub(super) fn protocols(field: &Field<u8>, with_ports: Option<&[u8]>) -> Vec<Option<Bits<u8>>> {
    let written = || field.values.iter().map(|proto| proto.value);
    match with_ports {
        Some(default) if field.is_empty() || field.not => {
            let left = default.iter().filter(|proto| !written().any(|other| other == **proto));
            left.map(|proto| Some((*proto).into())).collect()
        }
        None if field.is_empty() => vec![None],
        None if field.not => {
            let gone = written().chain(HEADERS);
            let ranges = gone.map(|proto| wide(&(proto..=proto))).collect();
            let pieces = pieces(chosen(ranges, true, u8::MAX.into()), 8);
            let bits = |(value, mask)| Some(Bits { value: value as u8, mask: mask as u8 });
            pieces.map(bits).collect()
        }
        // One piece for each written protocol, because the caller looks at the family of each.
        _ => written().map(|proto| Some(proto.into())).collect(),
    }
}

/// Whether a field that was written allows this number.
pub(super) fn has(field: &Field<RangeInclusive<u16>>, port: u16) -> bool {
    !field.is_empty() && field.values.iter().any(|range| range.value.contains(&port)) != field.not
}

/// The networks of a field; with `not`, the networks of all other addresses of both families, since
/// a packet of the other family has none of the field's addresses.
pub(super) fn networks(field: &Field<Networks>) -> Vec<Option<IpNet>> {
    if field.is_empty() {
        return vec![None];
    }
    let written = field.values.iter().flat_map(|networks| networks.value.iter().copied());
    if !field.not {
        return written.map(Some).collect();
    }
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for network in written {
        match network {
            IpNet::V4(network) => v4.push(network),
            IpNet::V6(network) => v6.push(network),
        }
    }
    let v4 = Ipv4Net::aggregate(&v4);
    let v4 =
        v4.iter().map(|net| (net.network().to_bits().into(), net.broadcast().to_bits().into()));
    let v4 = outside(v4, u32::MAX.into()).into_iter().flat_map(|(first, last)| {
        let [first, last] = [first, last].map(|bits| Ipv4Addr::from(bits as u32));
        Ipv4Subnets::new(first, last, 0).map(IpNet::V4)
    });
    let v6 = Ipv6Net::aggregate(&v6);
    let v6 = v6.iter().map(|net| (net.network().to_bits(), net.broadcast().to_bits()));
    let v6 = outside(v6, u128::MAX).into_iter().flat_map(|(first, last)| {
        let [first, last] = [first, last].map(Ipv6Addr::from);
        Ipv6Subnets::new(first, last, 0).map(IpNet::V6)
    });
    v4.chain(v6).map(Some).collect()
}

/// Whether one packet can have an address of each network.
pub(super) fn one_family(a: IpNet, b: IpNet) -> bool {
    matches!((a.addr(), b.addr()), (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)))
}

type Range = (u32, u32);

fn wide<T: Copy + Into<u32>>(range: &RangeInclusive<T>) -> Range {
    ((*range.start()).into(), (*range.end()).into())
}

/// The numbers in these ranges, or with `not` all others up to `last`, as ascending ranges that
/// neither overlap nor touch.
fn chosen(ranges: Vec<Range>, not: bool, last: u32) -> Vec<Range> {
    let merged = merged(ranges, |last| last.checked_add(1));
    if !not {
        return merged;
    }
    let merged = merged.into_iter().map(|(from, to)| (from.into(), to.into()));
    let narrow = |(from, to)| (from as u32, to as u32);
    outside(merged, last.into()).into_iter().map(narrow).collect()
}

/// The numbers from 0 to `last` outside these ranges, which ascend and do not overlap.
fn outside(ranges: impl Iterator<Item = (u128, u128)>, last: u128) -> Vec<(u128, u128)> {
    let mut left = Vec::new();
    let mut next = Some(0);
    for (from, to) in ranges {
        left.extend(next.filter(|next| *next < from).map(|next| (next, from - 1)));
        next = to.checked_add(1);
    }
    left.extend(next.filter(|next| *next <= last).map(|next| (next, last)));
    left
}

/// Ranges of numbers with `bits` bits, as values and masks: at most twice as many for each range as
/// a number has bits.
fn pieces(ranges: Vec<Range>, bits: u32) -> impl Iterator<Item = (u32, u32)> {
    ranges.into_iter().flat_map(move |(from, to)| {
        let mut next = from;
        std::iter::from_fn(move || {
            if next > to {
                return None;
            }
            // The largest block that begins here and ends in the range.
            let aligned = next.trailing_zeros().min(bits);
            let fits = (to - next + 1).ilog2();
            let size = 1_u32 << aligned.min(fits);
            let piece = (next, ((1 << bits) - 1) & !(size - 1));
            next += size;
            Some(piece)
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::{Span, Written};

    fn field<T>(not: bool, values: Vec<T>) -> Field<T> {
        let written = |value| Written { value, at: Span::START };
        Field { not, values: values.into_iter().map(written).collect() }
    }

    #[test]
    fn a_range_of_ports_is_few_pieces() {
        assert_eq!(ports(&field(false, vec![40_000..=41_000])).len(), 7);
        assert_eq!(ports(&field(false, vec![1..=65_535])).len(), 16);
        let all = Bits { value: 0, mask: 0 };
        assert_eq!(ports(&field(false, vec![0..=65_535])), [Some(all)]);
        let two = Bits { value: 80, mask: 0xfffe };
        assert_eq!(ports(&field(false, vec![81..=81, 80..=80])), [Some(two)], "neighbours");
        assert_eq!(ports(&field(true, vec![0..=65_535])), []);
        assert_eq!(ports(&field(true, vec![])), [None]);
    }

    #[test]
    fn protocols_without_some_are_all_others() {
        assert_eq!(protocols(&field(true, vec![6]), Some(&[6, 17])), [Some(17.into())]);
        assert_eq!(protocols(&field(true, vec![6, 17]), Some(&[6, 17])), []);
        assert_eq!(protocols(&field(false, vec![132]), Some(&[6, 17])), [Some(132.into())]);
        let others = protocols(&field(true, vec![6]), None);
        let has = |proto: u8| others.iter().flatten().any(|b| proto & b.mask == b.value);
        // Behind an extension header the packet may be TCP after all.
        assert!((0..=255).all(|proto| has(proto) == (proto != 6 && !HEADERS.contains(&proto))));
    }

    #[test]
    fn not_one_network_is_the_rest_of_its_family_and_all_of_the_other() {
        let left = networks(&field(true, vec![vec!["10.0.0.0/8".parse().unwrap()]]));
        assert_eq!(left.len(), 8 + 1);
        assert!(left.contains(&Some("::/0".parse().unwrap())));
        let both = ["0.0.0.0/0", "::/0"].map(|net| net.parse().unwrap());
        assert_eq!(networks(&field(true, vec![both.to_vec()])), []);
    }

    proptest! {
        #[test]
        fn pieces_are_the_ranges(
            ranges in prop::collection::vec((0_u16..1_200, 0_u16..400), 1..6),
            not in any::<bool>(),
            tests in prop::collection::vec(0_u16..2_000, 50),
        ) {
            let ranges: Vec<_> = ranges.into_iter().map(|(from, more)| from..=from + more).collect();
            let pieces = ports(&field(not, ranges.clone()));
            for port in tests.into_iter().chain([u16::MAX]) {
                let wanted = ranges.iter().any(|range| range.contains(&port)) != not;
                let found = pieces.iter().flatten().filter(|b| port & b.mask == b.value).count();
                prop_assert_eq!(found, usize::from(wanted), "{}", port);
            }
        }

        #[test]
        fn networks_without_some_are_the_others(
            gone in prop::collection::vec((0_u32..64, 26_u8..=32), 0..6),
            tests in prop::collection::vec(0_u32..128, 50),
        ) {
            let v4 = |(host, length)| Ipv4Net::new(Ipv4Addr::from(host), length).unwrap().trunc();
            let v6 = |(host, length): (u32, u8)| {
                Ipv6Net::new(Ipv6Addr::from(u128::from(host)), length + 96).unwrap().trunc()
            };
            for six in [false, true] {
                let one = |n| if six { IpNet::V6(v6(n)) } else { IpNet::V4(v4(n)) };
                let gone: Vec<IpNet> = gone.iter().copied().map(one).collect();
                let field = field(true, vec![gone.clone()]);
                let left = networks(&field);
                for host in &tests {
                    let address = if six {
                        IpAddr::V6(u128::from(*host).into())
                    } else {
                        IpAddr::V4((*host).into())
                    };
                    let wanted = !gone.iter().any(|net| net.contains(&address));
                    let found = left.iter().flatten().filter(|net| net.contains(&address)).count();
                    prop_assert_eq!(found, usize::from(wanted));
                }
            }
        }
    }
}

//! The numbers of one class on one link: bursts, quantum, and which queue a leaf has. Pure.

use crate::tree::{BURST_MS, Class, Guarantee, LeafQdisc, Quantum, Role};
use crate::units::{Bytes, ClassId, Psched, Rate, Ticks};

/// `GSO_LEGACY_MAX_SIZE` (include/linux/netdevice.h), in bytes.
pub(super) const GSO_PACKET: u64 = 65_536;

/// How long a packet may wait in a full queue, where the qdisc does not control that itself.
const FULL_QUEUE_MS: u64 = 50;

/// The part of the link's rate that a shard's guarantees are taken for: 1/16 ([`Scale::in_turn`]).
const SMALL_SHARD: u64 = 16;

/// Smallest and largest quantum, in bytes. With quanta below one 64 kB GSO packet HTB shares what
/// is left over equally, whatever the rates; above 200,000 `htb_change_class` warns.
const QUANTUM: std::ops::RangeInclusive<u64> = 60_000..=200_000;

/// What the numbers of a link's classes depend on beside the class's own limits.
#[derive(Clone, Copy)]
pub(super) struct Scale {
    /// The link's rate, which all its classes share.
    pub link: Rate,
    /// The largest packet, in bytes, without its link-layer header.
    pub mtu: u32,
    pub psched: Psched,
}

/// The rate and ceil of a class, wherever it hangs, and its boost.
#[derive(Clone, Copy)]
pub(super) struct Allowed {
    pub rate: Rate,
    pub ceil: Rate,
    pub boost: Option<Bytes>,
}

impl Allowed {
    /// Rate and ceil are the same: the class borrows nothing.
    pub(super) fn flat(rate: Rate) -> Allowed {
        Allowed::plain(rate, rate)
    }

    /// Without a boost.
    pub(super) fn plain(rate: Rate, ceil: Rate) -> Allowed {
        Allowed { rate, ceil, boost: None }
    }
}

impl Scale {
    pub(super) fn class(&self, parent: Option<ClassId>, allowed: Allowed, role: Role) -> Class {
        let Allowed { rate, ceil, boost } = allowed;
        // While a class has ctokens it borrows whatever its parent has left over, so its cburst is
        // what may pass above its ceil.
        let boost = boost.map(|bytes| Ticks::for_bytes(bytes, ceil, self.psched));
        let cburst = self.burst(ceil).max(boost.unwrap_or_default());
        Class { parent, rate, ceil, burst: self.burst(rate), cburst, role }
    }

    /// The burst of a class at `rate`: [`BURST_MS`] worth, at least two full frames.
    fn burst(&self, rate: Rate) -> Ticks {
        let frames = 2 * (u64::from(self.mtu) + 18);
        Ticks::for_bytes(Bytes(rate.bytes_in_ms(BURST_MS).0.max(frames)), rate, self.psched)
    }

    /// A leaf's quantum: in proportion to its share of the link (a tenth of the link has the
    /// smallest, a third the largest), so that what is left over is shared about as the rates are.
    pub(super) fn leaf(&self, prio: u8, rate: Rate, guarantee: Guarantee) -> Role {
        let (rate, link) = (rate.bytes_per_second(), self.link.bytes_per_second());
        let share = u128::from(rate) * 600_000 / u128::from(link);
        let share = u64::try_from(share).unwrap_or(u64::MAX);
        let bytes = share.clamp(*QUANTUM.start(), *QUANTUM.end()) as u32;
        Role::Leaf { prio, quantum: Quantum::new(bytes, guarantee) }
    }

    /// The same class with a larger burst, for a link on which shards take turns. The burst has
    /// also the bytes that the guarantee earns while others send: a class of a shard waits for one
    /// packet on the link and for one in its shard, each of which can be a GSO packet of 64 kB, and
    /// tokens beyond the burst are lost meanwhile (of 2 Mbit in a shard with 35, on a link of 60, a
    /// burst of 3,036 bytes left 1.87). The shard's own rate changes with each user who comes, so
    /// it is taken for [`SMALL_SHARD`] of the link's, and for the class's at least.
    pub(super) fn in_turn(&self, class: Class) -> Class {
        let (rate, link) = (class.rate.bytes_per_second(), self.link.bytes_per_second());
        let earned = u128::from(GSO_PACKET) * u128::from(rate) / u128::from(link);
        let earned = u64::try_from(earned).unwrap_or(GSO_PACKET);
        let bytes = Bytes(earned + (earned * SMALL_SHARD).min(GSO_PACKET));
        let turns = Ticks::for_bytes(bytes, class.rate, self.psched);
        Class { burst: Ticks(class.burst.0.saturating_add(turns.0)), ..class }
    }
}

/// The kind of a link's leaf qdiscs; a class's ceil makes a [`LeafQdisc`] of it.
#[derive(Clone, Copy)]
pub(super) enum LeafKind {
    FqCodel,
    Sfq,
    Bfifo,
    Pfifo,
    Cake,
}

impl LeafKind {
    /// The leaf of a class with this ceil, on a link with this MTU (bytes).
    pub(super) fn leaf(self, ceil: Rate, mtu: u32) -> LeafQdisc {
        // A queue of fewer bytes than one 64 kB GSO packet drops each of those whole, and a TCP
        // that sends in them starves (55 kbit/s came through limits of 25 and 50 kB).
        let floor = GSO_PACKET + 2 * u64::from(mtu);
        let bytes = ceil.bytes_in_ms(FULL_QUEUE_MS).0.max(floor).min(u64::from(u32::MAX));
        match self {
            LeafKind::FqCodel => LeafQdisc::FqCodel,
            LeafKind::Sfq => LeafQdisc::Sfq,
            LeafKind::Cake => LeafQdisc::Cake,
            LeafKind::Bfifo => LeafQdisc::Bfifo { limit: Bytes(bytes) },
            LeafKind::Pfifo => {
                let packets = (bytes / u64::from(mtu.max(1))).clamp(10, 10_000);
                LeafQdisc::Pfifo { limit: packets as u32 }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scale(link: &str) -> Scale {
        Scale { link: link.parse().unwrap(), mtu: 1500, psched: Psched::default() }
    }

    #[test]
    fn quantum_follows_the_rate_between_one_gso_packet_and_the_kernels_limit() {
        let at =
            |rate: &str| match scale("50mbit").leaf(0, rate.parse().unwrap(), Guarantee::Written) {
                Role::Leaf { quantum, .. } => quantum.0,
                Role::Inner => panic!("a leaf"),
            };
        assert_eq!(
            (at("1mbit"), at("5mbit"), at("15mbit"), at("50mbit")),
            (60_000, 60_000, 180_000, 200_000)
        );
    }

    fn any_class() -> impl Strategy<Value = (Class, Option<Bytes>)> {
        let rates = (125..12_500_000_000_u64, 125..12_500_000_000_u64);
        // Of the link's MTU, also one that no driver has.
        let mtu = prop_oneof![68..9_217_u32, 65_500..65_537_u32];
        // A boost of so many thousandths of what a minute at the ceil is.
        let boost = proptest::option::of(1..=1_000_u64);
        let role = any::<(bool, bool, bool)>();
        (rates, mtu, boost, role).prop_map(|((one, other), mtu, boost, role)| {
            let (rate, ceil) = (one.min(other), one.max(other));
            let scale = Scale { mtu, ..scale("100gbit") };
            let ceil = Rate::literal(ceil);
            let boost = boost.map(|part| Bytes(ceil.bytes_in_ms(60 * part).0.max(1 << 18)));
            let allowed = Allowed { rate: Rate::literal(rate), ceil, boost };
            let (is_inner, is_written, in_turn) = role;
            let guarantee = if is_written { Guarantee::Written } else { Guarantee::Derived };
            let class = match is_inner {
                true => scale.class(None, allowed, Role::Inner).with_inner_guarantee(guarantee),
                false => scale.class(None, allowed, scale.leaf(0, ceil, guarantee)),
            };
            (if in_turn { scale.in_turn(class) } else { class }, boost)
        })
    }

    proptest! {
        #[test]
        fn a_class_shows_whether_it_has_a_boost((class, boost) in any_class()) {
            match (boost, class.without_boost()) {
                (None, first) => prop_assert_eq!(first, None),
                // Beyond this many ticks the kernel counts nothing.
                (Some(_), _) if class.cburst == Ticks(u32::MAX) => {}
                (Some(boost), Some(first)) => {
                    prop_assert!(first.cburst < class.cburst);
                    prop_assert_eq!(first.without_boost(), None);
                    prop_assert_eq!(Class { cburst: class.cburst, ..first }, class);
                    let shown = class.boost().map(|it| Ticks::for_bytes(it, class.ceil, Psched::default()));
                    prop_assert_eq!(shown, Some(Ticks::for_bytes(boost, class.ceil, Psched::default())));
                }
                // It is no more than the class sends at once.
                (Some(boost), None) => {
                    let frames = Ticks(class.burst.0.saturating_add(2)).bytes_at(class.rate, Psched::default());
                    let at_once = frames.0.max(class.ceil.bytes_in_ms(BURST_MS).0);
                    prop_assert!(boost.0 <= at_once + 1 || class.burst == Ticks(u32::MAX));
                }
            }
        }
    }

    #[test]
    fn a_burst_is_4_ms_of_the_rate_and_at_least_two_frames() {
        let bytes = |rate: &str| {
            let rate: Rate = rate.parse().unwrap();
            scale("1gbit").burst(rate).bytes_at(rate, Psched::default()).0
        };
        assert_eq!(bytes("1gbit"), 500_000);
        assert_eq!(bytes("64kbit"), 3_036);
    }
}

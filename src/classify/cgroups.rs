//! The class of the cgroup (v2) that a packet's socket is in, where no tags are read: what the
//! deciding program does for the processes of a unit. The map of what was given on purpose
//! ([`super::program::GIVEN`]) has such cgroups by their numbers and levels, and a mask of the
//! levels, so that a packet is not asked about others. The deepest one decides. Pure.

use super::assembler::{Assembler, FRAME, Label, R0, R1, R2, R6, R7, Register, Width};
use crate::tree::{Cgroup, Turn};

/// `bpf_skb_ancestor_cgroup_id`, Linux 4.19: the number of the cgroup at this level above the
/// packet's socket or at it, 0 where there is none. Of a request for a connection it is the
/// listener's.
pub const ANCESTOR_CGROUP: i32 = 83;

/// The levels that are asked about are 1 to this one. systemd's slices are at most as deep as their
/// names have dashes.
pub const DEEPEST: u8 = 8;

/// A key is two numbers of 32 bits in the machine's byte order, as a pair of owner and tag is. Of a
/// cgroup they are the lower bits of its number, and the upper 16 of that with these above them and
/// the level between; in a pair the second one is the tag, whose upper bits are 1 or 0xe000 to
/// 0xefff. The numbers of cgroups count up from 1 and have 48 bits for it.
const KIND: [u32; 2] = [0x0100_0000, 0x0200_0000];
const KINDS: u32 = 0xff00_0000;

/// The second half of the key whose value is a mask of levels; the first is 0. Those of
/// [`Turn::First`] are from bit 0 on, those of [`Turn::AfterOwner`] from bit 16 on.
const MASK: u32 = KIND[0];

/// The map's key of the mask.
pub const MASK_KEY: [u8; 8] = halves(0, MASK);

/// The map's key of a cgroup; `None`: it is too deep, or the number too big, to be asked about.
pub fn key(cgroup: Cgroup, turn: Turn) -> Option<[u8; 8]> {
    let Cgroup { level, id } = cgroup;
    let fits = (1..=DEEPEST).contains(&level) && id >> 48 == 0 && id != 0;
    fits.then(|| halves(id as u32, above(level, turn) | (id >> 32) as u32))
}

/// The cgroup of a key; `None`: that is the mask's, or a pair of owner and tag.
pub fn cgroup(key: [u8; 8]) -> Option<(Cgroup, Turn)> {
    let [low, high] = numbers(key);
    let turn = match high & KINDS {
        kind if kind == KIND[0] => Turn::First,
        kind if kind == KIND[1] => Turn::AfterOwner,
        _ => return None,
    };
    let level = u8::try_from(high >> 16 & 0xff).ok()?;
    let id = u64::from(high & 0xffff) << 32 | u64::from(low);
    ((1..=DEEPEST).contains(&level) && id != 0).then_some((Cgroup { level, id }, turn))
}

/// Whether the key is a pair's of owner and tag.
pub fn is_pair(key: [u8; 8]) -> bool {
    let [_, high] = numbers(key);
    !KIND.contains(&(high & KINDS))
}

const fn halves(low: u32, high: u32) -> [u8; 8] {
    let ([a, b, c, d], [e, f, g, h]) = (low.to_ne_bytes(), high.to_ne_bytes());
    [a, b, c, d, e, f, g, h]
}

fn numbers([a, b, c, d, e, f, g, h]: [u8; 8]) -> [u32; 2] {
    [[a, b, c, d], [e, f, g, h]].map(u32::from_ne_bytes)
}

/// What a cgroup's key has above its number.
fn above(level: u8, turn: Turn) -> u32 {
    KIND[usize::from(turn == Turn::AfterOwner)] | u32::from(level) << 16
}

/// The bit of a level in the mask.
pub fn bit(level: u8, turn: Turn) -> u32 {
    1 << (u32::from(level) + if turn == Turn::First { 0 } else { 16 })
}

/// Has the mask once [`read_mask`] has run.
const LEVELS: Register = R7;
/// The context.
const CONTEXT: Register = R6;

/// Where on the stack a key is put, and what looks it up in the map.
pub(super) struct Asking<L> {
    /// Eight bytes.
    pub key: i16,
    /// R0 = the address of the value, or 0.
    pub look_up: L,
}

/// [`LEVELS`] = the mask, 0 where there are no such cgroups.
pub(super) fn read_mask(a: &mut Assembler, asking: &Asking<impl Fn(&mut Assembler)>) {
    let Asking { key, look_up } = asking;
    let key = *key;
    let none = a.label();
    a.store_value(Width::Word, FRAME, key, 0);
    a.store_value(Width::Word, FRAME, key + 4, MASK as i32);
    look_up(a);
    a.set(LEVELS, 0);
    a.jump_if_is(R0, 0, none);
    a.load(Width::Word, LEVELS, R0, 0);
    a.bind(none);
}

/// Goes to `found` with `class` set where the packet's socket is in a cgroup that has one at this
/// turn. After [`read_mask`].
pub(super) fn class_of_cgroup(
    a: &mut Assembler,
    turn: Turn,
    class: Register,
    asking: &Asking<impl Fn(&mut Assembler)>,
    found: Label,
) {
    let Asking { key, look_up } = asking;
    let key = *key;
    let (none, known) = (a.label(), a.label());
    let all: u32 = (1..=DEEPEST).map(|level| bit(level, turn)).sum();
    unless(a, all, none);
    for level in (1..=DEEPEST).rev() {
        let next = a.label();
        unless(a, bit(level, turn), next);
        a.copy(R1, CONTEXT);
        a.set(R2, level.into());
        a.call(ANCESTOR_CGROUP);
        a.jump_if_is(R0, 0, next);
        a.store(Width::Word, FRAME, key, R0);
        a.shift_right(R0, 32);
        a.or(R0, above(level, turn) as i32);
        a.store(Width::Word, FRAME, key + 4, R0);
        look_up(a);
        a.jump_if_not(R0, 0, known);
        a.bind(next);
    }
    a.jump(none);
    a.bind(known);
    a.load(Width::Word, class, R0, 0);
    a.jump(found);
    a.bind(none);
}

/// Goes to `to` unless the mask has one of these bits.
fn unless(a: &mut Assembler, bits: u32, to: Label) {
    a.copy(R1, LEVELS);
    // Bit 31 is no level's.
    a.and(R1, bits as i32);
    a.jump_if_is(R1, 0, to);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Shard;

    #[test]
    fn a_key_is_one_cgroups_and_no_pairs() {
        for turn in [Turn::First, Turn::AfterOwner] {
            for level in 0..=u8::MAX {
                for id in [0, 1, 4711, u64::from(u32::MAX) + 1, (1 << 48) - 1, 1 << 48] {
                    let it = Cgroup { level, id };
                    let made = key(it, turn);
                    let fits = (1..=DEEPEST).contains(&level) && (1..1 << 48).contains(&id);
                    assert_eq!(made.is_some(), fits, "{it}");
                    assert_eq!(made.and_then(cgroup), made.map(|_| (it, turn)));
                    assert!(made.is_none_or(|key| !is_pair(key)));
                }
            }
        }
        assert!(cgroup(MASK_KEY).is_none() && !is_pair(MASK_KEY));
        let majors = [1, Shard::FIRST, Shard::LAST].map(u32::from);
        for tag in majors.map(|major| major << 16 | 0x10) {
            for uid in [0, 1, 1000, u32::MAX] {
                let pair = halves(uid, tag);
                assert!(is_pair(pair) && cgroup(pair).is_none(), "{uid} {tag:x}");
            }
        }
    }

    #[test]
    fn each_level_has_a_bit_of_its_own() {
        let all = [Turn::First, Turn::AfterOwner]
            .into_iter()
            .flat_map(|turn| (1..=DEEPEST).map(move |level| bit(level, turn)));
        let mut seen = 0;
        for bit in all {
            assert!(bit.count_ones() == 1 && seen & bit == 0 && bit < 1 << 31);
            seen |= bit;
        }
    }
}

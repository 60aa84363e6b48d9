//! The kernel's answer to u32 nodes, which tests hold against what the rules mean: `u32_classify`
//! (net/sched/cls_u32.c) as a function. Pure.

use crate::tree::{U32Hash, U32Key, U32Link, U32Node, U32Rule, U32Rules};
use crate::units::ClassId;

/// Whether a packet matches the keys of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Matches,
    Differs,
    /// A key looked beyond the packet's end: the kernel then gives up on the whole pref.
    TooShort,
}

/// `from`: the byte of the packet from which offsets are counted.
fn verdict(keys: &[U32Key], packet: &[u8], from: usize) -> Verdict {
    for key in keys {
        match word(packet, from, key.offset) {
            None => return Verdict::TooShort,
            Some(word) if (word ^ key.value) & key.mask != 0 => return Verdict::Differs,
            Some(_) => {}
        }
    }
    Verdict::Matches
}

fn word(packet: &[u8], from: usize, offset: i32) -> Option<u32> {
    let at = from.checked_add_signed(isize::try_from(offset).ok()?)?;
    let bytes = packet.get(at..at.checked_add(4)?)?.try_into().ok()?;
    Some(u32::from_be_bytes(bytes))
}

/// Whether the kernel would say that this rule, alone, matches; `packet` begins at the network
/// header.
pub fn matches(rule: &U32Rule, packet: &[u8]) -> bool {
    verdict(&rule.keys, packet, 0) == Verdict::Matches
}

/// The class to which a plain list of rules sends a packet; `None`: the next pref is asked.
pub fn first_match(rules: &[U32Rule], packet: &[u8]) -> Option<ClassId> {
    for rule in rules {
        match verdict(&rule.keys, packet, 0) {
            Verdict::Matches => return Some(rule.to),
            Verdict::Differs => {}
            Verdict::TooShort => return None,
        }
    }
    None
}

/// The class to which the rules of one pref send a packet, `None`: the next pref is asked; and how
/// many nodes the packet met.
pub fn classify(rules: &U32Rules, packet: &[u8]) -> (Option<ClassId>, usize) {
    classify_frame(rules, packet, 0)
}

/// As [`classify`], for a packet with its link-layer header; `network` is the offset of the network
/// header.
pub fn classify_frame(rules: &U32Rules, frame: &[u8], network: usize) -> (Option<ClassId>, usize) {
    let mut asked = Asked { rules, packet: frame, depth: 0, met: 0 };
    let answer = asked.ask(&rules.root, network);
    (answer.unwrap_or(None).map(|rule| rule.to), asked.met)
}

/// The rule that decides about such a packet; `None`: the next pref is asked.
pub fn deciding<'a>(rules: &'a U32Rules, frame: &'a [u8], network: usize) -> Option<&'a U32Rule> {
    let mut asked = Asked { rules, packet: frame, depth: 0, met: 0 };
    asked.ask(&rules.root, network).unwrap_or(None)
}

/// `TC_U32_MAXDEPTH`.
const MAX_DEPTH: usize = 8;

/// The packet leaves the pref without an answer.
struct GivenUp;

/// A packet on its way through the tables.
struct Asked<'a> {
    rules: &'a U32Rules,
    packet: &'a [u8],
    depth: usize,
    met: usize,
}

impl<'a> Asked<'a> {
    fn ask(&mut self, nodes: &'a [U32Node], from: usize) -> Result<Option<&'a U32Rule>, GivenUp> {
        for node in nodes {
            self.met += 1;
            let keys = match node {
                U32Node::Rule(rule) => &rule.keys,
                U32Node::Link(link) => &link.keys,
            };
            match (verdict(keys, self.packet, from), node) {
                (Verdict::TooShort, _) => return Err(GivenUp),
                (Verdict::Differs, _) => {}
                (Verdict::Matches, U32Node::Rule(rule)) => return Ok(Some(rule)),
                (Verdict::Matches, U32Node::Link(link)) => {
                    if self.depth == MAX_DEPTH {
                        return Err(GivenUp);
                    }
                    let bucket = self.bucket(link, from)?;
                    // A link is not terminal: a packet that the table does not match goes on after
                    // the link.
                    self.depth += 1;
                    let below = self.ask(bucket, from + usize::from(link.advance))?;
                    self.depth -= 1;
                    if below.is_some() {
                        return Ok(below);
                    }
                }
            }
        }
        Ok(None)
    }

    fn bucket(&self, link: &U32Link, from: usize) -> Result<&'a [U32Node], GivenUp> {
        let Some(table) = self.rules.tables.get(&link.table) else { return Ok(&[]) };
        let divisor = u32::from(table.divisor).saturating_sub(1);
        // In a table with one bucket the kernel reads no hash.
        let select = match link.hash {
            Some(hash) if divisor > 0 => divisor & fold(hash, self.packet, from).ok_or(GivenUp)?,
            // The mask is 0.
            _ => 0,
        };
        let bucket = u8::try_from(select).ok().and_then(|bucket| table.buckets.get(&bucket));
        Ok(bucket.map_or(&[], Vec::as_slice))
    }
}

/// `u32_hash_fold`.
fn fold(hash: U32Hash, packet: &[u8], from: usize) -> Option<u32> {
    let masked = word(packet, from, hash.offset.into())? & hash.mask;
    Some(masked.checked_shr(hash.mask.trailing_zeros()).unwrap_or(0))
}

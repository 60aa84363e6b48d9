//! Handles and classids of HTB (`TC_H_MAJ`, `TC_H_MIN`, linux/pkt_sched.h), and which number of
//! ours is whose: ARCHITECTURE.md, "The tree on one link".

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// The low half of a classid of our tree. The minor of a user, class or group is unique on the
/// whole link, whatever qdisc the class is in, because it is also the handle of the leaf qdisc.
/// Prints in hexadecimal, as `tc` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Minor(pub u16);

impl Minor {
    /// The class of the link itself, `1:1`, and the root class of a shard, `e000:1`.
    pub const LINK: Minor = Minor(1);
    /// The lowest that a user or a class may have, `1:10`.
    pub const FIRST_USER: Minor = Minor(0x10);
    /// The highest that a user or a class may have, `1:dfff`.
    pub const LAST_USER: Minor = Minor(0xdfff);
    /// The lowest that a group may have, `1:f000`.
    pub const FIRST_GROUP: Minor = Minor(0xf000);
    /// The highest that a group may have, `1:ffef`.
    pub const LAST_GROUP: Minor = Minor(0xffef);
    /// `1:fffd`: outside every limit, beside the link's class.
    pub const UNSHAPED: Minor = Minor(0xfffd);
    /// `1:fffe`: whatever no rule and no user claims.
    pub const DEFAULT: Minor = Minor(0xfffe);

    /// The minors that users and classes may have, the same on every link.
    pub const USERS: RangeInclusive<Minor> = Minor::FIRST_USER..=Minor::LAST_USER;
    /// The minors that groups may have.
    pub const GROUPS: RangeInclusive<Minor> = Minor::FIRST_GROUP..=Minor::LAST_GROUP;

    /// How many minors a range has.
    pub fn count(range: &RangeInclusive<Minor>) -> usize {
        usize::from(range.end().0 - range.start().0) + 1
    }

    /// Whether the minor is that of an inner class: the link's, a shard's root class or a group's.
    /// The minor says it, because to the kernel an empty group is a leaf.
    pub fn is_inner(self) -> bool {
        self == Minor::LINK || self.is_group()
    }

    /// Whether the number is one that users and classes may have.
    pub fn is_user(self) -> bool {
        Minor::USERS.contains(&self)
    }

    /// Whether the number is one that groups may have.
    pub fn is_group(self) -> bool {
        Minor::GROUPS.contains(&self)
    }
}

impl fmt::Display for Minor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl FromStr for Minor {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<Minor, Self::Err> {
        u16::from_str_radix(text, 16).map(Minor)
    }
}

/// A whole classid `AAAA:BBBB`; also how qdiscs are named (minor 0). Its `u32` is what
/// `net_cls.classid` and `tcm_handle` hold: `0xAAAABBBB`.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(transparent)]
pub struct ClassId(pub u32);

impl ClassId {
    /// Our root qdisc, `1:`.
    pub const ROOT: ClassId = ClassId(0x0001_0000);
    /// Where `clsact` hangs (`TC_H_CLSACT`), and its two sides (linux/pkt_sched.h).
    pub const CLSACT: ClassId = ClassId(0xffff_fff1);
    /// Filters of what arrives (`TC_H_MIN_INGRESS`).
    pub const INGRESS: ClassId = ClassId(0xffff_fff2);
    /// Filters of what leaves, before the root qdisc (`TC_H_MIN_EGRESS`).
    pub const EGRESS: ClassId = ClassId(0xffff_fff3);
    /// No classid: what `net_cls.classid` holds when nobody wrote it.
    pub const NONE: ClassId = ClassId(0);
    /// `1:1`, the link's class.
    pub const LINK: ClassId = ClassId::ours(Minor::LINK);
    /// `1:fffd`: outside every limit, beside the link's class.
    pub const UNSHAPED: ClassId = ClassId::ours(Minor::UNSHAPED);
    /// `1:fffe`: whatever no rule and no user claims.
    pub const DEFAULT: ClassId = ClassId::ours(Minor::DEFAULT);

    /// The class `1:minor` of our root qdisc.
    pub const fn ours(minor: Minor) -> ClassId {
        ClassId(0x0001_0000 | minor.0 as u32)
    }

    /// The qdisc with this major, `major:`.
    pub const fn qdisc(major: u16) -> ClassId {
        ClassId((major as u32) << 16)
    }

    /// The upper half: which qdisc.
    pub const fn major(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// The lower half: which class of the qdisc; 0: the qdisc itself.
    pub const fn minor(self) -> Minor {
        Minor((self.0 & 0xffff) as u16)
    }

    /// This class, if it can be one of our tree: `1:x`, or `e000:x` of a shard; x not 0.
    pub fn our_class(self) -> Option<ClassId> {
        let ours = self.major() == 1 || self.shard().is_some();
        (ours && self.minor().0 != 0).then_some(self)
    }

    /// The shard that the class is in, by its major.
    pub fn shard(self) -> Option<Shard> {
        Shard::new(self.major())
    }
}

/// An HTB qdisc of its own for a part of a link's users: the kernel walks all classes of a qdisc
/// for each one that is added, so many classes are built faster in several. The number is its
/// major; it hangs below the class `1:MAJOR` of the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(u16);

impl Shard {
    /// The lowest major of a shard.
    pub const FIRST: u16 = 0xe000;
    /// The highest major of a shard: 4,096 shards can be.
    pub const LAST: u16 = 0xefff;

    /// `None` for a number that is no shard's.
    pub fn new(major: u16) -> Option<Shard> {
        (Shard::FIRST..=Shard::LAST).contains(&major).then_some(Shard(major))
    }

    /// All that there can be.
    pub fn all() -> impl Iterator<Item = Shard> {
        (Shard::FIRST..=Shard::LAST).map(Shard)
    }

    /// The shard whose class in the root qdisc this is (`1:e000`).
    pub fn of_class(classid: ClassId) -> Option<Shard> {
        (classid.major() == 1).then(|| Shard::new(classid.minor().0)).flatten()
    }

    /// Its class in the root qdisc: what all its users have together.
    pub const fn class(self) -> ClassId {
        ClassId::ours(Minor(self.0))
    }

    /// Its qdisc, `e000:`.
    pub const fn qdisc(self) -> ClassId {
        ClassId::qdisc(self.0)
    }

    /// Its own root class, `e000:1`, of which its users borrow.
    pub const fn root(self) -> ClassId {
        self.user(Minor::LINK)
    }

    /// Where packets go whose class is gone: `e000:fffe`.
    pub const fn default(self) -> ClassId {
        self.user(Minor::DEFAULT)
    }

    /// The class of one of its users.
    pub const fn user(self, minor: Minor) -> ClassId {
        ClassId((self.0 as u32) << 16 | minor.0 as u32)
    }
}

/// As its qdisc is written: `e000:`.
impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.qdisc().fmt(f)
    }
}

/// `1:1a` for a class, `1:` for a qdisc, hexadecimal, as `tc` prints them.
impl fmt::Display for ClassId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.minor().0 {
            0 => write!(f, "{:x}:", self.major()),
            minor => write!(f, "{:x}:{minor:x}", self.major()),
        }
    }
}

/// The text is no classid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no classid: write major:minor in hexadecimal, such as \"1:1a\"")]
pub struct ClassIdError(String);

impl FromStr for ClassId {
    type Err = ClassIdError;
    fn from_str(text: &str) -> Result<ClassId, ClassIdError> {
        let half = |t: &str| {
            let digits = (1..=4).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_hexdigit());
            digits.then(|| u32::from_str_radix(t, 16).ok()).flatten()
        };
        text.split_once(':')
            .and_then(|(major, minor)| Some(ClassId(half(major)? << 16 | half(minor)?)))
            .ok_or_else(|| ClassIdError(text.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classids_are_hexadecimal_both_ways() {
        assert_eq!(ClassId::ours(Minor(0x1a)).to_string(), "1:1a");
        assert_eq!("1:1a".parse(), Ok(ClassId(0x0001_001a)));
        assert_eq!(ClassId::ROOT.to_string(), "1:");
        assert!("1:10000".parse::<ClassId>().is_err());
        assert!("1:+1".parse::<ClassId>().is_err());
        assert!("110".parse::<ClassId>().is_err());
    }
}

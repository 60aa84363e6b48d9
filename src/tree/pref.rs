//! Which filter is asked when.

use std::fmt;

use super::port::Direction;

/// A filter's preference: lower is asked first. We use the ones named here and no other; a filter
/// of ours under our root at any other pref is foreign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pref(pub u16);

impl Pref {
    /// The program at the root of an ifb that notes that packets come there, asked before all
    /// others.
    pub const PULSE: [Pref; 2] = [Pref(50), Pref(51)];
    /// The u32 rules of IPv4, which are asked before the tag. Each kind of filter has a pair of
    /// prefs, so that a changed filter is added whole at one of them before the old one is deleted
    /// at the other. Two protocols cannot share a pref (`Protocol mismatch for filter with
    /// specified priority`), nor can two kinds. On Ethernet the rules of both families are one
    /// filter of protocol all, at this pair.
    pub const RULES_V4: [Pref; 2] = [Pref(100), Pref(101)];
    /// The u32 rules of IPv6 on a link that is no Ethernet.
    pub const RULES_V6: [Pref; 2] = [Pref(102), Pref(103)];
    /// The prefs of the u32 rules of both families.
    pub const RULES: [Pref; 4] =
        [Pref::RULES_V4[0], Pref::RULES_V4[1], Pref::RULES_V6[0], Pref::RULES_V6[1]];
    /// What finds the flow of a packet that arrives, for the rules behind it.
    pub const FIND: [Pref; 2] = [Pref(140), Pref(141)];
    /// The eBPF program of the rules that u32 cannot decide, asked after the u32 rules.
    pub const PROGRAM: [Pref; 2] = [Pref(150), Pref(151)];
    /// The filter that says whose a packet is, asked last.
    pub const TAG: [Pref; 2] = [Pref(200), Pref(201)];
    /// The program that clears priorities at clsact's egress, asked before all other filters there,
    /// which may end the search.
    pub const PRIORITY: [Pref; 2] = [Pref(1), Pref(2)];
    /// The program that notes flows at clsact's egress, before filters that may end the search.
    pub const LEARN: [Pref; 2] = [Pref(3), Pref(4)];
    /// What redirects at clsact's ingress, behind all others: they would never see what is
    /// redirected.
    pub const REDIRECT: [Pref; 2] = [Pref(65_000), Pref(65_001)];

    /// The program that labels what comes in by an inner link, before filters that may end the
    /// search.
    pub const LABEL: [Pref; 2] = [Pref(1), Pref(2)];

    /// Whether shaper has filters at this pref below roots of this direction.
    pub fn is_ours(self, direction: Direction) -> bool {
        let arrives = direction == Direction::Ingress;
        let both = [Pref::RULES_V4, Pref::RULES_V6, Pref::PROGRAM, Pref::TAG];
        both.iter().any(|pair| pair.contains(&self))
            || (arrives && [Pref::PULSE, Pref::FIND].iter().any(|pair| pair.contains(&self)))
    }
}

impl fmt::Display for Pref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

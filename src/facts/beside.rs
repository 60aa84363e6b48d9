//! What others have at the hooks of a link by which packets pass that arrive. Touches nothing.

use std::fmt;

use crate::tree::{Direction, Pref};

/// Somebody else's, at a hook of a link at which ours are too where the link has a `down`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beside {
    /// A filter at clsact.
    Filter {
        /// At which side.
        side: Direction,
        /// The filter's preference: a lower one is asked earlier.
        pref: Pref,
        /// Its kind, and the name of a program.
        what: String,
    },
    /// A program of tcx, which runs before all filters at clsact.
    Tcx {
        /// At which side.
        side: Direction,
        /// The program's name, or its number where the name may not be asked.
        what: String,
    },
    /// Whether there is one could not be asked.
    Unasked {
        /// Why.
        why: String,
    },
    /// A program of generic XDP, by its number.
    GenericXdp(u32),
}

impl Beside {
    /// Whether it matters to what arrives: a filter behind ours at egress does not.
    pub fn matters(&self) -> bool {
        match self {
            Beside::Filter { side: Direction::Egress, pref, .. } => *pref <= Pref::LEARN[1],
            _ => true,
        }
    }

    /// Whether packets that arrive come to it before they come to shaper's filter at clsact
    /// ingress, from which it may keep them.
    pub fn is_first(&self) -> bool {
        match self {
            Beside::Filter { side, pref, .. } => {
                *side == Direction::Ingress && *pref <= Pref::REDIRECT[0]
            }
            Beside::Tcx { side, .. } => *side == Direction::Ingress,
            Beside::GenericXdp(_) => true,
            Beside::Unasked { .. } => false,
        }
    }

    /// What helps where it keeps packets from what is behind it.
    pub fn cure(&self) -> &'static str {
        match self {
            Beside::Filter { .. } => "have it go on (TC_ACT_UNSPEC), or take it away",
            Beside::Tcx { .. } | Beside::Unasked { .. } => {
                "have it go on (TCX_NEXT), or take it away"
            }
            Beside::GenericXdp(_) => "it may drop them or lead them elsewhere",
        }
    }

    /// Whether it is Cilium's: that decides about every packet, and what is redirected passes its
    /// policies by.
    pub fn is_ciliums(&self) -> bool {
        const NAMES: [&str; 4] = ["cil_", "cilium", "bpf_netdev", "bpf_host"];
        match self {
            Beside::Filter { what, .. } | Beside::Tcx { what, .. } => {
                NAMES.iter().any(|name| what.contains(name))
            }
            _ => false,
        }
    }

    /// A short name.
    pub fn name(&self) -> String {
        match self {
            Beside::Filter { what, pref, .. } => format!("filter {what} (pref {pref})"),
            Beside::Tcx { what, .. } => format!("tcx program {what}"),
            Beside::Unasked { .. } => "tcx".to_string(),
            Beside::GenericXdp(id) => format!("generic XDP program {id}"),
        }
    }
}

impl fmt::Display for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name();
        match self {
            Beside::Filter { side: Direction::Ingress, pref, .. } if *pref > Pref::REDIRECT[0] => {
                write!(f, "the {name} at clsact ingress sees nothing of what goes through the ifb")
            }
            Beside::Filter { side: Direction::Ingress, .. } => write!(
                f,
                "the {name} at clsact ingress is asked before shaper's: what it accepts (ok) or takes goes past the ifb, unshaped"
            ),
            Beside::Filter { side: Direction::Egress, .. } => write!(
                f,
                "the {name} at clsact egress is asked before shaper's: what answers packets that it accepts (ok) or takes counts for nobody"
            ),
            Beside::Tcx { side: Direction::Ingress, .. } => write!(
                f,
                "the {name} at ingress runs before shaper's filter: what it lets pass (TCX_PASS) rather than go on (TCX_NEXT) goes past the ifb, unshaped"
            ),
            Beside::Tcx { side: Direction::Egress, .. } => write!(
                f,
                "the {name} at egress runs before shaper's filter: what answers packets that it lets pass (TCX_PASS) rather than go on (TCX_NEXT) counts for nobody"
            ),
            Beside::Unasked { why } => {
                write!(f, "whether tcx programs run before shaper's filters cannot be asked: {why}")
            }
            Beside::GenericXdp(_) => {
                write!(f, "the {name} runs twice for each packet that goes through the ifb")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cilium_is_known_by_its_programs() {
        let filter = |what: &str| Beside::Filter {
            side: Direction::Ingress,
            pref: Pref(1),
            what: what.to_string(),
        };
        let tcx = |what: &str| Beside::Tcx { side: Direction::Egress, what: what.to_string() };
        assert!(filter("bpf cil_from_netdev-eth0").is_ciliums());
        assert!(filter("bpf bpf_netdev_eth0.o:[from-netdev]").is_ciliums());
        assert!(tcx("cil_to_netdev").is_ciliums());
        assert!(!filter("bpf council").is_ciliums() && !tcx("count").is_ciliums());
        assert!(!Beside::GenericXdp(7).is_ciliums());
    }
}

//! The numbers of a class in a report, of what was counted. Pure.

use std::collections::BTreeMap;

use super::report::{ClassNumbers, Now};
use crate::facts::Observation;
use crate::host::observe::Snapshot;
use crate::sample::{self, Differences, Pace};
use crate::tree::{Counters, Direction, Filter, KernelState, Port, Role, Tree};
use crate::units::ClassId;

/// What waits in the leaves below an inner class, and what they drop: the kernel counts neither
/// there.
#[derive(Clone, Copy, Default)]
pub(super) struct Below {
    backlog_bytes: u64,
    drops_in_1000: u64,
}

impl ClassNumbers {
    /// Takes in what the class has counted, and what it does now.
    pub(super) fn count(&mut self, counters: &Counters, below: Option<&Below>, pace: Option<Pace>) {
        self.sent_bytes = counters.sent_bytes;
        self.sent_packets = counters.sent_packets;
        self.drops = counters.drops;
        self.overlimits = counters.overlimits;
        self.backlog_bytes = backlog(counters, below);
        self.lends = counters.lends;
        self.borrows = counters.borrows;
        let rates = (self.rate_bit, self.ceil_bit);
        self.now = pace.map(|pace| now(pace, rates, self.backlog_bytes, below));
    }
}

pub(super) fn backlog(counters: &Counters, below: Option<&Below>) -> u64 {
    counters.backlog_bytes + below.map_or(0, |below| below.backlog_bytes)
}

/// What a class does now. `rates`: its guarantee and its ceil, in bits a second.
pub(super) fn now(
    pace: Pace,
    (rate_bit, ceil_bit): (u64, u64),
    backlog_bytes: u64,
    below: Option<&Below>,
) -> Now {
    let leaves_at = pace.bits.max(rate_bit).max(1);
    Now {
        now_bit: pace.bits,
        now_packets: pace.packets,
        of_ceil_percent: sample::percent(pace.bits, ceil_bit),
        borrowed_percent: pace.borrowed_percent,
        queue_ms: backlog_bytes.saturating_mul(8_000).div_ceil(leaves_at),
        drops_in_1000: below.map_or(pace.drops_in_1000, |below| below.drops_in_1000),
    }
}

pub(super) fn interval_ms(differences: &Differences) -> u64 {
    u64::try_from(differences.over().as_millis()).unwrap_or(u64::MAX)
}

/// What inner classes have below them.
pub(super) fn below(
    snapshot: &Snapshot,
    differences: Option<&Differences>,
    port: &Port,
    tree: &Tree,
) -> BTreeMap<ClassId, Below> {
    let mut below: BTreeMap<ClassId, Below> = BTreeMap::new();
    let mut add = |id: ClassId, more: Below| {
        let is_leaf = tree.classes.get(&id).map(|class| matches!(class.role, Role::Leaf { .. }));
        let mut above = if is_leaf == Some(true) { tree.parent(id) } else { None };
        while let Some(parent) = above {
            let sums = below.entry(parent).or_default();
            sums.backlog_bytes += more.backlog_bytes;
            sums.drops_in_1000 += more.drops_in_1000;
            above = tree.parent(parent);
        }
    };
    for (id, counters) in snapshot.counters.get(port).into_iter().flatten() {
        if counters.backlog_bytes > 0 {
            add(*id, Below { backlog_bytes: counters.backlog_bytes, drops_in_1000: 0 });
        }
    }
    let counted = differences.into_iter().flat_map(|it| it.counted(port));
    for (id, counters) in counted.filter(|(_, counters)| counters.drops > 0) {
        let pace = differences.and_then(|it| it.pace_of(counters));
        let drops_in_1000 = pace.map_or(0, |pace| pace.drops_in_1000);
        if drops_in_1000 > 0 {
            add(id, Below { backlog_bytes: 0, drops_in_1000 });
        }
    }
    below
}

/// What is wrong with a port: what the interval shows, which names the causes, else as it stands.
pub(super) fn warning(
    snapshot: &Snapshot,
    differences: Option<&Differences>,
    port: &Port,
) -> Option<String> {
    let counted = differences.and_then(|it| gone_past(&snapshot.observation, it, port));
    counted.or_else(|| unled(&snapshot.observation.state, port))
}

/// Where what arrives is meant to go through an ifb that does not take it.
fn unled(state: &KernelState, port: &Port) -> Option<String> {
    let (link, ifb) = (&port.link, port.link.ifb());
    let is_off = state.ifbs.get(&ifb).is_some_and(|ifb| !ifb.up);
    let is_meant = || {
        let filters = state.clsact.get(link).map(|clsact| &clsact.egress.filters);
        filters.is_some_and(|it| it.values().any(|filter| matches!(filter, Filter::Learn(_))))
    };
    let what = match port.direction {
        Direction::Ingress if is_off => format!("{ifb} is switched off"),
        Direction::Egress if !state.trees.contains_key(&link.ingress()) && is_meant() => {
            format!("{ifb} has gone, or its root qdisc")
        }
        _ => return None,
    };
    Some(format!("what arrives is not shaped: {what}; `shaper apply` mends it"))
}

/// What went past the ifb in the interval. Some drivers' counters are a second old, so that of a
/// device of hardware one interval says nothing unless it is known who may be in the way.
fn gone_past(observation: &Observation, differences: &Differences, port: &Port) -> Option<String> {
    let link = &port.link;
    if port.direction == Direction::Egress {
        return None;
    }
    let suspects = sample::suspects(link, observation);
    let facts = observation.facts.links.get(link);
    let is_exact = facts.is_some_and(|facts| facts.kind.is_some());
    let said = differences.passed(link).said(link, differences.over(), &suspects);
    said.filter(|_| is_exact || !suspects.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Clsact, Ifb, LinkName, Pref, Tag};

    #[test]
    fn an_ifb_that_takes_nothing_is_said() {
        let link = LinkName::new("eth0").unwrap();
        let mut state = KernelState::default();
        let said =
            |state: &KernelState| [link.egress(), link.ingress()].map(|it| unled(state, &it));
        assert_eq!(said(&state), [None, None], "nothing that arrives is to be shaped");
        state.ifbs.insert(link.ifb(), Ifb { up: true });
        let mut clsact = Clsact::default();
        clsact.egress.filters.insert(Pref(3), Filter::Learn(Tag::Cgroup));
        state.clsact.insert(link.clone(), clsact);
        let gone = "what arrives is not shaped: ifb-eth0 has gone, or its root qdisc; `shaper apply` mends it";
        assert_eq!(said(&state), [Some(gone.to_string()), None]);
        state.trees.insert(link.ingress(), Tree::default());
        assert_eq!(said(&state), [None, None]);
        state.ifbs.insert(link.ifb(), Ifb { up: false });
        let off = "what arrives is not shaped: ifb-eth0 is switched off; `shaper apply` mends it";
        assert_eq!(said(&state), [None, Some(off.to_string())]);
    }
}

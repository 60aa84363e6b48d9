//! What each owner's classes have counted all in all, also those that are gone: totals that never
//! go down while the ledger is kept, whatever classes are retired and made again.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Reading, Sample, Whose, counted};
use crate::tree::{Claim, Counters, Direction, LinkName, Port};
use crate::units::ClassId;

/// The totals by port and owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger(BTreeMap<Port, OfPort>);

/// Those of one port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct OfPort {
    /// All that was counted until the last sample.
    totals: BTreeMap<Whose, Counters>,
    /// The classes as they were read last.
    last: BTreeMap<ClassId, Reading>,
}

impl Ledger {
    /// Takes in a sample: of each class what it has counted since the last one, or since it was
    /// made. What a class counts between its last reading and its end is lost.
    pub fn count(&mut self, sample: &Sample) {
        let mut before: BTreeMap<Port, BTreeMap<ClassId, Reading>> = BTreeMap::new();
        for (port, known) in &mut self.0 {
            before.insert(port.clone(), std::mem::take(&mut known.last));
        }
        let mut readings = sample.readings().peekable();
        while let Some(port) = readings.peek().map(|(port, ..)| (*port).clone()) {
            let mut before = before.remove(&port).unwrap_or_default().into_iter().peekable();
            let OfPort { totals, last } = self.0.entry(port.clone()).or_default();
            let mut now = Vec::new();
            // Both are by class.
            while let Some((_, classid, whose, counters)) = readings.next_if(|it| *it.0 == port) {
                while before.next_if(|(earlier, _)| *earlier < classid).is_some() {}
                let earlier = before.next_if(|(earlier, _)| *earlier == classid);
                let earlier = earlier.filter(|(_, reading)| reading.whose == *whose);
                // A name that is known need not be copied.
                let (whose, earlier) = match earlier {
                    Some((_, Reading { whose, counters })) => (whose, counters),
                    None => (whose.clone(), Counters::default()),
                };
                let more = counted(&earlier, counters);
                match totals.get_mut(&whose) {
                    Some(total) => add(total, &more),
                    None => add(totals.entry(whose.clone()).or_default(), &more),
                }
                now.push((classid, Reading { whose, counters: *counters }));
            }
            *last = now.into_iter().collect();
        }
    }

    /// The total at a port of whoever ever had a class there. What waits is not in it.
    pub fn total(&self, port: &Port, whose: &Whose) -> Option<&Counters> {
        self.0.get(port)?.totals.get(whose)
    }

    /// The ledger as text, to be kept until the next sample.
    pub fn print(&self) -> String {
        let totals = self.0.iter().flat_map(|(port, OfPort { totals, .. })| {
            totals.iter().map(move |(whose, counters)| Line::new(port, whose, None, counters))
        });
        let last = self.0.iter().flat_map(|(port, OfPort { last, .. })| {
            let line = move |(classid, Reading { whose, counters }): (&ClassId, &Reading)| {
                Line::new(port, whose, Some(*classid), counters)
            };
            last.iter().map(line)
        });
        let page = Page { version: 1, lines: totals.chain(last).collect() };
        serde_json::to_string(&page).unwrap_or_default()
    }

    /// Reads what was printed; `None`: it is something else.
    pub fn parse(text: &str) -> Option<Ledger> {
        let page: Page<'_> = serde_json::from_str(text).ok().filter(|it: &Page| it.version == 1)?;
        let mut ledger = Ledger::default();
        let mut of_one: Option<LinesOfPort> = None;
        for line in page.lines {
            let (whose, counters) = (line.whose()?, line.counters());
            let lines = match &mut of_one {
                Some(lines) if line.is_at(&lines.port) => lines,
                of_one => {
                    of_one.take().into_iter().for_each(|lines| ledger.take_in(lines));
                    let port = line.port()?;
                    of_one.insert(LinesOfPort { port, totals: Vec::new(), last: Vec::new() })
                }
            };
            match line.classid {
                Some(classid) => lines.last.push((ClassId(classid), Reading { whose, counters })),
                None => lines.totals.push((whose, counters)),
            }
        }
        of_one.into_iter().for_each(|lines| ledger.take_in(lines));
        Some(ledger)
    }

    fn take_in(&mut self, lines: LinesOfPort) {
        let here = self.0.entry(lines.port).or_default();
        here.totals.append(&mut lines.totals.into_iter().collect());
        here.last.append(&mut lines.last.into_iter().collect());
    }
}

/// What lines of one port say that stand one after the other, in order: such a list makes a map
/// without a search for each.
struct LinesOfPort {
    port: Port,
    totals: Vec<(Whose, Counters)>,
    last: Vec<(ClassId, Reading)>,
}

/// Adds to a total what was counted since.
fn add(total: &mut Counters, more: &Counters) {
    total.sent_bytes += more.sent_bytes;
    total.sent_packets += more.sent_packets;
    total.drops += more.drops;
    total.overlimits += more.overlimits;
    total.lends += more.lends;
    total.borrows += more.borrows;
}

/// The text's form.
#[derive(Serialize, Deserialize)]
struct Page<'t> {
    version: u32,
    #[serde(borrow)]
    lines: Vec<Line<'t>>,
}

/// A total, or (with a classid) the last reading of a class.
#[derive(Serialize, Deserialize)]
struct Line<'t> {
    #[serde(borrow)]
    link: Cow<'t, str>,
    #[serde(borrow)]
    direction: Cow<'t, str>,
    /// The owner's claim, or the word for who is none.
    #[serde(borrow)]
    whose: Cow<'t, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    classid: Option<u32>,
    /// Bytes, packets, drops, overlimits, lends, borrows.
    counted: [u64; 6],
}

/// Those that are no owners, each with its word.
const NO_OWNERS: [(Whose, &str); 5] = [
    (Whose::Link, "link"),
    (Whose::Direct, "direct"),
    (Whose::Default, "default"),
    (Whose::Unshaped, "unshaped"),
    (Whose::Retired, "retired"),
];

impl Line<'_> {
    fn new<'t>(
        port: &'t Port,
        whose: &Whose,
        classid: Option<ClassId>,
        counters: &Counters,
    ) -> Line<'t> {
        let whose = match whose {
            Whose::Owner(owner) => Claim::Owner(owner.clone()).to_string().into(),
            _ => NO_OWNERS.iter().find(|(it, _)| it == whose).map_or("", |(_, word)| word).into(),
        };
        let Counters { sent_bytes, sent_packets, drops, overlimits, lends, borrows, .. } =
            *counters;
        Line {
            link: port.link.as_str().into(),
            direction: port.direction.as_str().into(),
            whose,
            classid: classid.map(|classid| classid.0),
            counted: [sent_bytes, sent_packets, drops, overlimits, lends, borrows],
        }
    }

    fn is_at(&self, port: &Port) -> bool {
        self.link == port.link.as_str() && self.direction == port.direction.as_str()
    }

    fn port(&self) -> Option<Port> {
        let directions = [Direction::Egress, Direction::Ingress];
        let direction = directions.into_iter().find(|it| it.as_str() == self.direction)?;
        Some(Port { link: LinkName::new(&self.link)?, direction })
    }

    fn whose(&self) -> Option<Whose> {
        let no_owner = NO_OWNERS.iter().find(|(_, word)| *word == self.whose);
        match (no_owner, self.whose.parse()) {
            (Some((whose, _)), _) => Some(whose.clone()),
            (None, Ok(Claim::Owner(owner))) => Some(Whose::Owner(owner)),
            _ => None,
        }
    }

    fn counters(&self) -> Counters {
        let [sent_bytes, sent_packets, drops, overlimits, lends, borrows] = self.counted;
        let none = Counters::default();
        Counters { sent_bytes, sent_packets, drops, overlimits, lends, borrows, ..none }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Owners;
    use super::*;
    use crate::tree::{Key, Owner};
    use crate::units::Minor;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn port() -> Port {
        LinkName::new("eth0").unwrap().egress()
    }

    fn sample(readings: &[(u16, Whose, u64)]) -> Sample {
        let class = |minor: &u16| ClassId::ours(Minor(*minor));
        let owners = readings.iter().map(|(minor, whose, _)| (class(minor), whose.clone()));
        let counters = |(minor, _, bytes): &(u16, Whose, u64)| {
            let (sent_bytes, sent_packets) = (*bytes, bytes / 100);
            (class(minor), Counters { sent_bytes, sent_packets, ..Counters::default() })
        };
        Sample {
            owners: Owners(Arc::new(owners.collect())),
            counted: [(port(), readings.iter().map(counters).collect())].into(),
            ..Sample::default()
        }
    }

    fn ann() -> Whose {
        Whose::Owner(Owner::User(Key::new("ann").unwrap()))
    }

    fn of_ann(ledger: &Ledger) -> u64 {
        ledger.total(&port(), &ann()).unwrap().sent_bytes
    }

    #[test]
    fn a_class_that_is_replaced_or_made_again_adds_to_its_owners_total() {
        let mut ledger = Ledger::default();
        let uid = Whose::Owner(Owner::Uid(1000));
        let steps = [
            (vec![(0, Whose::Direct, 100), (0x10, ann(), 500)], 500),
            // Her class is retired, and drains; she has a new one.
            (vec![(0x10, ann(), 700), (0x11, ann(), 50)], 750),
            (vec![(0x11, ann(), 90)], 790),
            // Made again.
            (vec![(0x11, ann(), 20)], 810),
            // She has none, and the number is another's.
            (vec![(0x11, uid.clone(), 9_000)], 810),
            (vec![(0x10, ann(), 5)], 815),
        ];
        for (readings, total) in steps {
            ledger.count(&sample(&readings));
            ledger = Ledger::parse(&ledger.print()).unwrap();
            assert_eq!(of_ann(&ledger), total, "{readings:?}");
        }
        for text in ["", "{}", "{\"version\":2,\"lines\":[]}"] {
            assert_eq!(Ledger::parse(text), None);
        }
    }

    #[test]
    fn what_a_class_has_dropped_is_counted_once_when_its_leaf_is_made_again() {
        let mut ledger = Ledger::default();
        for (drops, total) in [(100, 100), (90, 100), (95, 105), (95, 105)] {
            let mut now = sample(&[(0x10, ann(), 500)]);
            for counters in now.counted.values_mut().flat_map(BTreeMap::values_mut) {
                counters.drops = drops;
            }
            ledger.count(&now);
            ledger = Ledger::parse(&ledger.print()).unwrap();
            assert_eq!(ledger.total(&port(), &ann()).unwrap().drops, total);
        }
    }

    #[test]
    fn what_was_kept_before_an_upgrade_goes_on() {
        let kept = "{\"version\":1,\"lines\":[{\"link\":\"eth0\",\"direction\":\"egress\",\"whose\":\"user/ann\",\"counted\":[700,7,1,2,3,4]},{\"link\":\"eth0\",\"direction\":\"egress\",\"whose\":\"user/ann\",\"classid\":65552,\"counted\":[500,5,0,0,0,0]}]}";
        let mut ledger = Ledger::parse(kept).unwrap();
        assert_eq!(ledger.print(), kept);
        ledger.count(&sample(&[(0x10, ann(), 600)]));
        assert_eq!(of_ann(&ledger), 800);
    }

    proptest! {
        /// Whatever classes come, go, change their owners and begin again: no total goes down, and
        /// what is kept as text is the same ledger.
        #[test]
        fn totals_never_go_down(
            looks in prop::collection::vec(
                prop::collection::vec((0x10_u16..0x14, 0_u8..3, 0_u64..1 << 34), 0..4), 1..20)
        ) {
            let mut ledger = Ledger::default();
            for look in looks {
                let whose = |number| match number {
                    0 => ann(),
                    1 => Whose::Default,
                    _ => Whose::Owner(Owner::Uid(7)),
                };
                let readings: Vec<_> =
                    look.into_iter().map(|(minor, who, bytes)| (minor, whose(who), bytes)).collect();
                let before = ledger.clone();
                ledger.count(&sample(&readings));
                for (whose, total) in before.0.values().flat_map(|here| &here.totals) {
                    let now = ledger.total(&port(), whose).unwrap();
                    prop_assert!(now.sent_bytes >= total.sent_bytes);
                    prop_assert!(now.sent_packets >= total.sent_packets);
                }
                prop_assert_eq!(Ledger::parse(&ledger.print()), Some(ledger.clone()));
            }
        }
    }
}

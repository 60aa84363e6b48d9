//! What each owner's classes have counted all in all, also those that are gone: totals that never
//! go down while the ledger is kept, whatever classes are retired and made again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Reading, Sample, Whose, counted};
use crate::tree::{Claim, Counters, Direction, LinkName, Port};
use crate::units::ClassId;

/// The totals by port and owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// All that was counted until the last sample.
    totals: BTreeMap<(Port, Whose), Counters>,
    /// The classes as they were read last.
    last: BTreeMap<(Port, ClassId), Reading>,
}

impl Ledger {
    /// Takes in a sample: of each class what it has counted since the last one, or since it was
    /// made. What a class counts between its last reading and its end is lost.
    pub fn count(&mut self, sample: &Sample) {
        for (key, now) in &sample.readings {
            let before = self.last.get(key).filter(|before| before.whose == now.whose);
            let before = before.map(|before| before.counters).unwrap_or_default();
            let more = counted(&before, &now.counters);
            let total = self.totals.entry((key.0.clone(), now.whose.clone())).or_default();
            total.sent_bytes += more.sent_bytes;
            total.sent_packets += more.sent_packets;
            total.drops += more.drops;
            total.overlimits += more.overlimits;
            total.lends += more.lends;
            total.borrows += more.borrows;
        }
        self.last.clone_from(&sample.readings);
    }

    /// The totals of whoever ever had a class, by port. What waits is in none of them.
    pub fn totals(&self) -> &BTreeMap<(Port, Whose), Counters> {
        &self.totals
    }

    /// The ledger as text, to be kept until the next sample.
    pub fn print(&self) -> String {
        let totals = self
            .totals
            .iter()
            .map(|((port, whose), counters)| Line::new(port, whose, None, counters));
        let last = self.last.iter().map(|((port, classid), reading)| {
            Line::new(port, &reading.whose, Some(*classid), &reading.counters)
        });
        let page = Page { version: 1, lines: totals.chain(last).collect() };
        serde_json::to_string(&page).unwrap_or_default()
    }

    /// Reads what was printed; `None`: it is something else.
    pub fn parse(text: &str) -> Option<Ledger> {
        let page: Page = serde_json::from_str(text).ok().filter(|page: &Page| page.version == 1)?;
        let mut ledger = Ledger::default();
        for line in page.lines {
            let (port, whose) = (line.port()?, line.whose()?);
            let counters = line.counters();
            match line.classid {
                Some(classid) => {
                    let reading = Reading { whose, counters };
                    ledger.last.insert((port, ClassId(classid)), reading);
                }
                None => drop(ledger.totals.insert((port, whose), counters)),
            }
        }
        Some(ledger)
    }
}

/// The text's form.
#[derive(Serialize, Deserialize)]
struct Page {
    version: u32,
    lines: Vec<Line>,
}

/// A total, or (with a classid) the last reading of a class.
#[derive(Serialize, Deserialize)]
struct Line {
    link: String,
    direction: String,
    /// The owner's claim, or the word for who is none.
    whose: String,
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

impl Line {
    fn new(port: &Port, whose: &Whose, classid: Option<ClassId>, counters: &Counters) -> Line {
        let word =
            NO_OWNERS.iter().find(|(it, _)| it == whose).map(|(_, word)| (*word).to_string());
        let whose = match whose {
            Whose::Owner(owner) => Claim::Owner(owner.clone()).to_string(),
            _ => word.unwrap_or_default(),
        };
        let Counters { sent_bytes, sent_packets, drops, overlimits, lends, borrows, .. } =
            *counters;
        Line {
            link: port.link.to_string(),
            direction: port.direction.to_string(),
            whose,
            classid: classid.map(|classid| classid.0),
            counted: [sent_bytes, sent_packets, drops, overlimits, lends, borrows],
        }
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
    use super::*;
    use crate::tree::{Key, Owner};
    use crate::units::Minor;
    use proptest::prelude::*;

    fn sample(readings: &[(u16, Whose, u64)]) -> Sample {
        let port = || LinkName::new("eth0").unwrap().egress();
        let reading = |(minor, whose, bytes): &(u16, Whose, u64)| {
            let counters =
                Counters { sent_bytes: *bytes, sent_packets: bytes / 100, ..Counters::default() };
            let key = (port(), ClassId::ours(Minor(*minor)));
            (key, Reading { whose: whose.clone(), counters })
        };
        let readings = readings.iter().map(reading).collect();
        Sample { readings, ..Sample::default() }
    }

    fn ann() -> Whose {
        Whose::Owner(Owner::User(Key::new("ann").unwrap()))
    }

    fn of_ann(ledger: &Ledger) -> u64 {
        ledger.totals().iter().find(|((_, whose), _)| *whose == ann()).unwrap().1.sent_bytes
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
                for (key, total) in before.totals() {
                    let now = ledger.totals()[key];
                    prop_assert!(now.sent_bytes >= total.sent_bytes);
                    prop_assert!(now.sent_packets >= total.sent_packets);
                }
                prop_assert_eq!(Ledger::parse(&ledger.print()), Some(ledger.clone()));
            }
        }
    }
}

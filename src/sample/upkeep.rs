//! What the daemon has done to keep the policy in force, all in all: totals that go on where the
//! daemon before it ended, kept as text as the ledger is.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::times::Timestamp;
use crate::tree::LinkName;

/// Something that the daemon did or met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// A process came into its claim so long after the kernel's event about it.
    Placed(Duration),
    /// More events came than a buffer holds, and everything was looked at instead.
    Lost,
    /// What somebody had changed on this link was made good.
    Repaired {
        /// The link.
        link: LinkName,
        /// Who changed it, in words.
        by: String,
        /// When it was as it should be again.
        at: Timestamp,
    },
}

/// Repairs of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repairs<'a> {
    /// How many.
    pub count: u64,
    /// The last one; `None`: a daemon counted it that noted no more.
    pub last: Option<&'a Repair>,
}

/// One repair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repair {
    /// When, in seconds since 1970.
    pub at: i64,
    /// Who had changed the link, in words.
    pub by: String,
}

/// The longest time of each bucket of placements, in microseconds; the last bucket has none.
const BOUNDS: [u64; 14] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000,
];

/// The totals.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upkeep {
    /// Placements by the bucket into which their time falls.
    placed: [u64; BOUNDS.len() + 1],
    /// The time of all placements together.
    placed_micros: u64,
    lost: u64,
    repairs: BTreeMap<String, u64>,
    /// The last repair of each link.
    #[serde(default)]
    last: BTreeMap<String, Repair>,
}

impl Upkeep {
    /// Adds a deed.
    pub fn note(&mut self, deed: &Deed) {
        match deed {
            Deed::Placed(took) => {
                let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
                let bucket = BOUNDS.iter().position(|most| micros <= *most);
                self.placed[bucket.unwrap_or(BOUNDS.len())] += 1;
                self.placed_micros = self.placed_micros.saturating_add(micros);
            }
            Deed::Lost => self.lost += 1,
            Deed::Repaired { link, by, at } => {
                *self.repairs.entry(link.to_string()).or_default() += 1;
                let repair = Repair { at: at.as_second(), by: by.clone() };
                self.last.insert(link.to_string(), repair);
            }
        }
    }

    /// How many placements took no longer than each of some times; `None`: all.
    pub fn placed(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        let bounds = BOUNDS.into_iter().map(|most| Some(Duration::from_micros(most)));
        let mut so_far = 0;
        bounds.chain([None]).zip(self.placed).map(move |(most, more)| {
            so_far += more;
            (most, so_far)
        })
    }

    /// The time of all placements together.
    pub fn placed_in(&self) -> Duration {
        Duration::from_micros(self.placed_micros)
    }

    /// How often events were lost.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// The repairs of each link, by its name.
    pub fn repairs(&self) -> impl Iterator<Item = (&str, Repairs<'_>)> {
        let one = |(link, count): (&'_ String, &u64)| Repairs {
            count: *count,
            last: self.last.get(link),
        };
        self.repairs.iter().map(move |of| (of.0.as_str(), one(of)))
    }

    /// The totals as text, to be kept for the metrics and for the next daemon.
    pub fn print(&self) -> String {
        serde_json::to_string(&Page { version: 1, upkeep: self.clone() }).unwrap_or_default()
    }

    /// Reads what was printed; `None`: it is something else.
    pub fn parse(text: &str) -> Option<Upkeep> {
        let page: Page = serde_json::from_str(text).ok()?;
        (page.version == 1).then_some(page.upkeep)
    }
}

/// The text's form.
#[derive(Serialize, Deserialize)]
struct Page {
    version: u32,
    upkeep: Upkeep,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deeds_add_up_and_are_read_as_they_were_kept() {
        let mut upkeep = Upkeep::default();
        for micros in [7, 100, 101, 2_500, 9_000_000] {
            upkeep.note(&Deed::Placed(Duration::from_micros(micros)));
        }
        let link = LinkName::new("eth0").unwrap();
        upkeep.note(&Deed::Lost);
        for second in [1_000, 2_000] {
            let at = Timestamp::from_second(second).unwrap();
            upkeep.note(&Deed::Repaired { link: link.clone(), by: format!("tc {second}"), at });
        }
        let placed: Vec<_> = upkeep.placed().collect();
        assert_eq!(placed.len(), BOUNDS.len() + 1);
        assert_eq!(placed[0], (Some(Duration::from_micros(100)), 2));
        assert_eq!(placed[1], (Some(Duration::from_micros(250)), 3));
        assert_eq!(placed[4], (Some(Duration::from_micros(2_500)), 4));
        assert_eq!(placed[BOUNDS.len() - 1].1, 4, "longer than every bound");
        assert_eq!(placed[BOUNDS.len()], (None, 5));
        assert_eq!(upkeep.placed_in(), Duration::from_micros(9_002_708));
        let last = Repair { at: 2_000, by: "tc 2000".to_string() };
        let repairs: Vec<_> = upkeep.repairs().collect();
        assert_eq!(repairs, [("eth0", Repairs { count: 2, last: Some(&last) })]);
        assert_eq!(upkeep.lost(), 1);
        assert_eq!(Upkeep::parse(&upkeep.print()), Some(upkeep));
        for text in ["", "{}", "{\"version\":2}"] {
            assert_eq!(Upkeep::parse(text), None);
        }
    }

    #[test]
    fn totals_of_a_daemon_that_kept_less_go_on() {
        let mut page: serde_json::Value = serde_json::from_str(&Upkeep::default().print()).unwrap();
        page["upkeep"]["repairs"] = serde_json::json!({"eth0": 7});
        page["upkeep"].as_object_mut().unwrap().remove("last").expect("it is kept now");
        let upkeep = Upkeep::parse(&page.to_string()).expect("totals");
        let repairs: Vec<_> = upkeep.repairs().collect();
        assert_eq!(repairs, [("eth0", Repairs { count: 7, last: None })]);
    }
}

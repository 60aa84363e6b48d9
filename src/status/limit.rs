//! Which limit a class has now, why, and until when: as the policy in force says. Pure.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::model::{By, Holds, Model};
use crate::text::Foreign;
use crate::times::{TimeZone, Timestamp};
use crate::tree::{Owner, Port};
use crate::units::Rate;

/// Which limit a class has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Limit {
    /// `ceil`: the line's own; `when`: that of a window.
    pub by: &'static str,
    /// The window's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The first moment at which another limit holds, in the host's zone; absent where none ever
    /// does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// By port and owner, the ceil that the policy gives a class now, and which limit that is; none
/// where it has the same limit for ever.
pub type Limits = BTreeMap<(Port, Owner), (Rate, Limit)>;

impl Limit {
    /// `zone`: the host's. `None`: it is the line's own, for ever.
    pub fn of(holds: &Holds, zone: &TimeZone) -> Option<Limit> {
        if *holds == Holds::default() {
            return None;
        }
        let why = holds.why.as_deref().map(str::to_string);
        let until = holds.until.map(|until| shown(until, zone));
        Some(Limit { by: holds.by.as_str(), why, until })
    }

    /// Whether a window gives it.
    pub fn is_of_window(&self) -> bool {
        self.by == By::When.as_str()
    }
}

/// As `shaper why` says it: `of the window night until 2026-11-29T06:00:00+01:00`.
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(why) = &self.why {
            write!(f, "of the window {}", Foreign::from(why.as_str()))?;
        } else {
            f.write_str("the line's own")?;
        }
        self.until.as_ref().map_or(Ok(()), |until| write!(f, ", until {until}"))
    }
}

fn shown(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned_datetime(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

/// The limits of all classes of a model.
pub fn limits(model: &Model, zone: &TimeZone) -> Limits {
    let mut found = Limits::new();
    for node in &model.nodes {
        for ((link, limits), holds) in model.links.iter().zip(&node.limits).zip(&node.holds) {
            if let (Some(limits), Some(limit)) = (limits, Limit::of(holds, zone)) {
                found.insert((link.port.clone(), node.owner.clone()), (limits.ceil, limit));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_says_its_window_and_its_end_in_the_hosts_zone() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let until = Some("2026-11-29T05:00:00Z".parse().unwrap());
        let night = Holds { by: By::When, why: Some("night".into()), until };
        let limit = Limit::of(&night, &zone).unwrap();
        assert_eq!(limit.to_string(), "of the window night, until 2026-11-29T06:00:00+01:00");
        let json = serde_json::to_string(&limit).unwrap();
        let expected = r#"{"by":"when","why":"night","until":"2026-11-29T06:00:00+01:00"}"#;
        assert_eq!(json, expected);
        let own = Limit::of(&Holds { until, ..Holds::default() }, &zone).unwrap();
        assert_eq!(own.to_string(), "the line's own, until 2026-11-29T06:00:00+01:00");
        assert_eq!(Limit::of(&Holds::default(), &zone), None);
    }
}

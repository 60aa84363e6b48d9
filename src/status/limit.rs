//! Which limit a class has now, why, and until when: as the policy in force says. Pure.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::{By, Holds, LimitOf, Model};
use crate::text::Foreign;
use crate::times::{TimeZone, Timestamp};
use crate::tree::{Group, Owner, Port, Reserved};
use crate::units::Rate;

/// Which limit a class has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// `ceil`: what a line has at all times; `when`: that of a window; `quota`: that of a quota.
    pub by: By,
    /// The window's name; what is used of the quota.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Whose it is, where it is not the line's own: `group students`, `everyone`, `the link`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// The first moment at which another limit may hold, in the host's zone; absent where none ever
    /// does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// Which limits there are, with the rates that the policy gives; none where they are the same for
/// ever.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// The ceil of each class, by port and owner.
    pub classes: BTreeMap<(Port, Owner), (Rate, Limit)>,
    /// The rate of each link.
    pub links: BTreeMap<Port, (Rate, Limit)>,
}

impl Limit {
    /// Whose a link's own limit is.
    pub const LINK: &str = "the link";

    /// `zone`: the host's. `None`: it is the line's own, for ever.
    pub fn of(holds: &Holds, zone: &TimeZone) -> Option<Limit> {
        if *holds == Holds::default() {
            return None;
        }
        let of = match &holds.of {
            LimitOf::Own => None,
            LimitOf::Group(Group::Everyone) => Some(Reserved::Everyone.to_string()),
            LimitOf::Group(Group::Line(key)) => Some(format!("group {key}")),
            LimitOf::Link => Some(Limit::LINK.to_string()),
        };
        let why = holds.why.as_deref().map(str::to_string);
        let until = holds.until.map(|until| shown_moment(until, zone));
        Some(Limit { by: holds.by, why, of, until })
    }

    /// That of a link, as it is for the classes below it that have no lower one.
    pub fn of_link(holds: &Holds, zone: &TimeZone) -> Option<Limit> {
        let of = match holds.until {
            Some(_) => LimitOf::Link,
            None => LimitOf::Own,
        };
        Limit::of(&Holds { of, ..holds.clone() }, zone)
    }

    /// What gives it, in words; `None`: the line itself.
    pub fn what(&self) -> Option<String> {
        let why = Foreign::from(self.why.as_deref()?);
        Some(match self.by == By::Quota {
            true => format!("the quota ({why})"),
            false => format!("the window {why}"),
        })
    }
}

/// As `shaper why` says it: `of the window night until 2026-11-29T06:00:00+01:00`.
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.what(), self.of.as_deref().map(Foreign::from)) {
            (Some(what), None) => write!(f, "of {what}")?,
            (Some(what), Some(of)) => write!(f, "of {what} of {of}")?,
            (None, None) => f.write_str("the line's own")?,
            (None, Some(of)) => write!(f, "that of {of}")?,
        }
        self.until.as_ref().map_or(Ok(()), |until| write!(f, ", until {until}"))
    }
}

/// A moment in a zone, as programs read it.
pub(super) fn shown_moment(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned_datetime(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

/// The limits of all classes and links of a model.
pub fn limits(model: &Model, zone: &TimeZone) -> Limits {
    let mut found = Limits::default();
    for link in &model.links {
        if let Some(limit) = Limit::of_link(&link.holds, zone) {
            found.links.insert(link.port.clone(), (link.rate, limit));
        }
    }
    for node in &model.nodes {
        for ((link, limits), holds) in model.links.iter().zip(&node.limits).zip(&node.holds) {
            if let (Some(limits), Some(limit)) = (limits, Limit::of(holds, zone)) {
                found.classes.insert((link.port.clone(), node.owner.clone()), (limits.ceil, limit));
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
        let night =
            Holds { by: By::When, why: Some("night".into()), until, of: LimitOf::default() };
        let limit = Limit::of(&night, &zone).unwrap();
        assert_eq!(limit.to_string(), "of the window night, until 2026-11-29T06:00:00+01:00");
        let json = serde_json::to_string(&limit).unwrap();
        let expected = r#"{"by":"when","why":"night","until":"2026-11-29T06:00:00+01:00"}"#;
        assert_eq!(json, expected);
        let above = |of| Limit::of(&Holds { of, ..night.clone() }, &zone).unwrap().to_string();
        let staff = Group::of("staff").unwrap();
        let end = ", until 2026-11-29T06:00:00+01:00";
        assert_eq!(above(LimitOf::Link), format!("of the window night of the link{end}"));
        let said = above(LimitOf::Group(staff.clone()));
        assert_eq!(said, format!("of the window night of group staff{end}"));
        let said = above(LimitOf::Group(Group::Everyone));
        assert_eq!(said, format!("of the window night of everyone{end}"));
        let by_day = Holds { of: LimitOf::Group(staff), until, ..Holds::default() };
        let said = Limit::of(&by_day, &zone).unwrap().to_string();
        assert_eq!(said, format!("that of group staff{end}"));
        let own = Limit::of(&Holds { until, ..Holds::default() }, &zone).unwrap();
        assert_eq!(own.to_string(), "the line's own, until 2026-11-29T06:00:00+01:00");
        assert_eq!(Limit::of(&Holds::default(), &zone), None);
        let used = Some("1TB this month is used".into());
        let of = LimitOf::Own;
        let limit = Limit::of(&Holds { by: By::Quota, why: used, of, until }, &zone).unwrap();
        let said = "of the quota (1TB this month is used), until 2026-11-29T06:00:00+01:00";
        assert_eq!(limit.to_string(), said);
        let json = serde_json::to_value(&limit).unwrap();
        assert_eq!(
            (&json["by"], &json["why"]),
            (&"quota".into(), &"1TB this month is used".into())
        );
    }
}

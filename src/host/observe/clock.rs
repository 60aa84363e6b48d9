//! The clock, and the system's database of zones.

use std::collections::BTreeSet;

use jiff::tz::{self, TimeZone};

use crate::facts::Facts;
use crate::policy::{Policy, closest};
use crate::times::{Timestamp, Unknown, Zones};

/// Fills in the moment, and the zones that the windows of a policy are in.
pub fn clock(facts: &mut Facts, policy: &Policy) {
    facts.now = Timestamp::now();
    if !policy.times.is_empty() {
        facts.zones = zones(&policy.zones());
    }
}

/// The host's zone as it is now, and the zones with these names.
fn zones(names: &BTreeSet<&str>) -> Zones {
    let named = names.iter().map(|name| ((*name).to_string(), zone(name)));
    Zones { here: here(), named: named.collect() }
}

/// The host's zone as it is now; where it cannot be told, UTC.
pub fn here() -> TimeZone {
    // It may have been changed since it was read last.
    tz::reset_system_time_zone_cache();
    TimeZone::try_system().unwrap_or(TimeZone::UTC)
}

fn zone(name: &str) -> Result<TimeZone, Unknown> {
    let database = tz::db();
    database.get(name).map_err(|_| match database.is_definitively_empty() {
        true => Unknown::NoDatabase,
        false => {
            let names: Vec<String> = database.available().map(|it| it.to_string()).collect();
            let names = names.iter().map(String::as_str);
            // Who knows a city leaves out the continent.
            let city = |full: &&str| full.rsplit('/').next() == Some(name);
            let found = names.clone().find(city).or_else(|| closest(name, names));
            Unknown::Name(found.map(str::to_string))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_that_is_unknown_has_a_name_that_is_near() {
        assert!(zone("Europe/Berlin").is_ok());
        let near = |name: &str| match zone(name) {
            Err(Unknown::Name(near)) => near,
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(near("Europe/Berln").as_deref(), Some("Europe/Berlin"));
        assert_eq!(near("Berlin").as_deref(), Some("Europe/Berlin"));
        assert_eq!(near("no such place at all"), None);
    }
}

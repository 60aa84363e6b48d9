//! The clock, and the system's database of zones.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use jiff::tz::{self, TimeZone, TimeZoneDatabase};

use crate::facts::Facts;
use crate::policy::{Policy, closest};
use crate::times::{Timestamp, Unknown, Zones};

/// The host's zone is what this file, or this link to one, says (localtime(5)).
const LOCALTIME: &str = "/etc/localtime";

/// Fills in the moment, and the zones that the windows and the quotas of a policy are in.
pub fn clock(facts: &mut Facts, policy: &Policy) {
    facts.now = Timestamp::now();
    if !policy.times.is_empty() || policy.quotas().next().is_some() {
        facts.zones = zones(&policy.zones());
    }
}

/// The host's zone as it is now, and the zones with these names.
fn zones(names: &BTreeSet<&str>) -> Zones {
    let database = database();
    let named = names.iter().map(|name| ((*name).to_string(), zone(&database, name)));
    Zones { here: zone_of(Path::new(LOCALTIME), &database), named: named.collect() }
}

/// The host's zone as it is now; where it cannot be told, UTC. It is the same for whoever asks:
/// [`TimeZone::system`] goes by the caller's `$TZ`.
pub fn here() -> TimeZone {
    zone_of(Path::new(LOCALTIME), &database())
}

/// The zone that a file says: by the name of what it links to in a database, else by its bytes.
fn zone_of(localtime: &Path, database: &TimeZoneDatabase) -> TimeZone {
    let by_name = || {
        let target = fs::read_link(localtime).ok()?;
        let (_, name) = target.to_str()?.rsplit_once("zoneinfo/")?;
        database.get(name).ok()
    };
    let by_bytes = || TimeZone::tzif("localtime", &fs::read(localtime).ok()?).ok();
    by_name().or_else(by_bytes).unwrap_or(TimeZone::UTC)
}

/// The system's database. The process's own is looked for once: where there was none, the package
/// tzdata may have been installed since.
fn database() -> TimeZoneDatabase {
    let own = tz::db();
    match own.is_definitively_empty() {
        false => own.clone(),
        true => TimeZoneDatabase::from_env(),
    }
}

fn zone(database: &TimeZoneDatabase, name: &str) -> Result<TimeZone, Unknown> {
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
    use std::os::unix::fs::symlink;

    /// Whatever `$TZ` says.
    #[test]
    fn the_zone_of_the_host_is_what_its_link_or_file_says() {
        let folder = tempfile::tempdir().unwrap();
        let (localtime, own) = (folder.path().join("localtime"), folder.path().join("own"));
        let database = database();
        let zone_of = |localtime: &Path| zone_of(localtime, &database);
        let hours = |zone: &TimeZone| zone.to_offset(Timestamp::UNIX_EPOCH).seconds() / 3600;
        assert_eq!(zone_of(&localtime), TimeZone::UTC, "no file");
        symlink("../usr/share/zoneinfo/Asia/Tokyo", &localtime).unwrap();
        assert_eq!(zone_of(&localtime).iana_name(), Some("Asia/Tokyo"));
        let file = fs::read("/usr/share/zoneinfo/Asia/Tokyo").unwrap();
        fs::write(&own, file).unwrap();
        assert_eq!(hours(&zone_of(&own)), 9, "a file that is a copy");
        fs::remove_file(&localtime).unwrap();
        symlink(&own, &localtime).unwrap();
        assert_eq!(hours(&zone_of(&localtime)), 9, "a link to a file of another name");
        fs::write(&own, "no zone").unwrap();
        assert_eq!(zone_of(&localtime), TimeZone::UTC);
    }

    #[test]
    fn a_zone_that_is_unknown_has_a_name_that_is_near() {
        let database = database();
        assert!(zone(&database, "Europe/Berlin").is_ok());
        let near = |name: &str| match zone(&database, name) {
            Err(Unknown::Name(near)) => near,
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(near("Europe/Berln").as_deref(), Some("Europe/Berlin"));
        assert_eq!(near("Berlin").as_deref(), Some("Europe/Berlin"));
        assert_eq!(near("no such place at all"), None);
        let none = zone(&TimeZoneDatabase::none(), "Europe/Berlin");
        assert_eq!(none, Err(Unknown::NoDatabase));
    }
}

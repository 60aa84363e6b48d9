//! The zones that a policy names, as the system's database has them. Values only.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;

/// The host's zone, and the zones that a policy names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zones {
    /// The zone of the host.
    pub here: TimeZone,
    /// Zones by the names that the policy has for them.
    pub named: BTreeMap<String, Result<TimeZone, Unknown>>,
}

/// Why there is no zone of that name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// The database does not have it; the name that comes nearest, if one does.
    Name(Option<String>),
    /// This host has no database (the package tzdata).
    NoDatabase,
}

/// The zone is UTC, and no other is named.
impl Default for Zones {
    fn default() -> Zones {
        Zones { here: TimeZone::UTC, named: BTreeMap::new() }
    }
}

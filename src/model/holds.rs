//! Which limit a class has now, why, and until when. Touches nothing.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::times::Timestamp;
use crate::tree::Group;

/// What gives a class its ceil now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holds {
    /// Which sort of limit.
    pub by: By,
    /// The window's name; of a quota, what is used of it. `None`: what a line has at all times.
    pub why: Option<Arc<str>>,
    /// Whose limit it is.
    pub of: LimitOf,
    /// The first moment at which another limit may hold; `None`: none ever does, as far as is
    /// known.
    pub until: Option<Timestamp>,
}

/// Sorts of limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// That of a line at all times.
    #[default]
    Ceil,
    /// That of a window.
    When,
    /// That of a quota, or of a group's.
    Quota,
}

impl By {
    /// As documents and metrics spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            By::Ceil => "ceil",
            By::When => "when",
            By::Quota => "quota",
        }
    }
}

/// Whose limit a class has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LimitOf {
    /// That of its own line, or where nothing ever changes its parent's.
    #[default]
    Own,
    /// That of a group above it.
    Group(Group),
    /// That of the link.
    Link,
}

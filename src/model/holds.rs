//! Which limit a class has now, why, and until when. Touches nothing.

use std::sync::Arc;

use crate::times::Timestamp;

/// What gives a class its ceil now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holds {
    /// Which sort of limit.
    pub by: By,
    /// What it is called in the policy: the window's name. `None`: the line's own.
    pub why: Option<Arc<str>>,
    /// The first moment at which another limit holds; `None`: none ever does, as far as is known.
    pub until: Option<Timestamp>,
}

/// Sorts of limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum By {
    /// The line's own, at all times, or its parent's.
    #[default]
    Ceil,
    /// That of a window.
    When,
}

impl By {
    /// As JSON has it.
    pub fn as_str(self) -> &'static str {
        match self {
            By::Ceil => "ceil",
            By::When => "when",
        }
    }
}

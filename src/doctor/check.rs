//! One thing that was looked at, and what came of it.

use serde::Serialize;

/// How good it is what a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nothing is to be done.
    Ok,
    /// Shaping holds, but not for everybody, not exactly, or not for long.
    Warning,
    /// Nothing is shaped, or not as the policy says.
    Error,
}

impl State {
    /// The word in the table.
    pub fn word(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Warning => "warning",
            State::Error => "error",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at, in a word that stays the same.
    pub id: &'static str,
    /// The link that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// How good it is.
    pub state: State,
    /// What was found, in a sentence.
    pub what: String,
    /// What to do about it; `None`: nothing.
    pub cure: Option<String>,
}

impl Check {
    pub(super) fn ok(id: &'static str, what: impl Into<String>) -> Check {
        Check { id, link: None, state: State::Ok, what: what.into(), cure: None }
    }

    pub(super) fn warning(
        id: &'static str,
        what: impl Into<String>,
        cure: impl Into<String>,
    ) -> Check {
        Check { state: State::Warning, cure: Some(cure.into()), ..Check::ok(id, what) }
    }

    pub(super) fn error(
        id: &'static str,
        what: impl Into<String>,
        cure: impl Into<String>,
    ) -> Check {
        Check { state: State::Error, cure: Some(cure.into()), ..Check::ok(id, what) }
    }
}

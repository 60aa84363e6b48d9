//! What becomes of one subject, as a line says it.

use std::fmt;

/// What becomes of one subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// `+`, `~`, `-`, or `!` for what of somebody else's a link loses.
    pub sign: char,
    /// What the subject is: `link`, `user`, `account`, `class`, `group`, `everyone`, `guests`.
    pub kind: &'static str,
    /// The subject, as status names it.
    pub who: String,
    /// How many it is: accounts whose limits are alike are one subject.
    pub count: usize,
    /// What is so afterwards, and what was so before where that differs; with `!` what is lost.
    pub what: String,
}

/// `~ ann 800mbit → 300mbit`.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Change { sign, who, what, .. } = self;
        match (*sign, what.as_str()) {
            (_, "") => write!(f, "{sign} {who}"),
            ('-', _) => write!(f, "- {who}: {what}"),
            ('!', _) => write!(f, "! replaces {what} of {who}"),
            _ => write!(f, "{sign} {who} {what}"),
        }
    }
}

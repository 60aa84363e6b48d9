//! A quota as a line has it. Touches nothing.

use super::source::{Span, Written};
use crate::quota::Quota;

/// A quota of a line, and where it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaLine {
    /// What it says.
    pub quota: Quota,
    /// The volume as it is spelled.
    pub volume: Written<String>,
    /// The time zone that it names; `None`: the host's.
    pub tz: Option<Written<String>>,
    /// Where each of its steps is written.
    pub steps: Vec<Span>,
    /// The mapping.
    pub at: Span,
}

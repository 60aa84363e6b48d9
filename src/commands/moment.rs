//! Moments on the command line.

use crate::failure::Failure;
use crate::host::observe;
use crate::text::Foreign;
use crate::times::{DateTime, Timestamp};

/// A text that is no time of a day.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is no moment: write the date and the time, \"2026-12-24 23:00\" in the host's zone, or \"2026-12-24T22:00:00Z\""
)]
pub(super) struct NoMoment(Foreign);

impl From<NoMoment> for Failure {
    fn from(error: NoMoment) -> Failure {
        Failure::Usage(error.to_string())
    }
}

/// A date and a time in the host's zone, or with an offset of their own.
pub(super) fn moment(text: &str) -> Result<Timestamp, NoMoment> {
    let none = || NoMoment(text.into());
    if let Ok(moment) = text.parse() {
        return Ok(moment);
    }
    let local: DateTime = text.trim().parse().map_err(|_| none())?;
    observe::here().to_timestamp(local).map_err(|_| none())
}

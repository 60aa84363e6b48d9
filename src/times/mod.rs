//! Windows of the week: whether one holds at a moment, and when that changes next. A window is what
//! a clock on the wall shows, so an hour that the clock skips is in no window, and one that it
//! shows twice is in a window twice. Pure: moments and zones come in as values.

mod days;
#[cfg(test)]
mod tests;
mod window;
mod zones;

pub use days::Days;
pub use jiff::Timestamp;
pub use jiff::civil::DateTime;
pub use jiff::tz::TimeZone;
pub use window::{Hours, Window};
pub use zones::{Unknown, Zones};

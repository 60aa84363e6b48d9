//! Quantities with their units, as policies spell them, and handles, as `tc` does. Checked
//! integer arithmetic only: a wrapped rate would shape the wrong thing in silence. Touches nothing
//! else.

mod bytes;
mod classid;
mod meant;
mod rate;
mod ticks;

pub use bytes::Bytes;
pub use classid::{ClassId, ClassIdError, Minor, Shard};
pub use meant::{Reading, readings, two_rates};
pub use rate::{InWholeUnits, Percent, Rate, RateError};
pub use ticks::{Psched, Ticks};

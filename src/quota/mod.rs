//! Volume quotas as arithmetic: in which period a moment is, what was used in it, which limit
//! follows from that, why, and until when. A function of the quota, the use and the moment. Pure.

mod account;
mod period;
mod reach;
mod verdict;
mod volume;

#[cfg(test)]
mod tests;

pub use account::{Account, Bucket, Grant, Slots, Traffic};
pub use period::{Period, PeriodError, Window};
pub use reach::{Outlook, Reach};
pub use verdict::{Counts, Held, Quota, SLOWEST, Step, Together, Verdict, together};
pub use volume::{VolumeError, volume};

//! Who has which class, with its limits and counters: read from the kernel alone, printed as a
//! table or as JSON; and who uses the links now.

mod cells;
mod columns;
mod defaulted;
mod guests;
mod holding;
mod limit;
mod listed;
mod live;
mod metrics;
mod numbers;
mod own;
mod quota;
mod renew;
mod repaired;
mod report;
mod rows;
mod table;
#[cfg(test)]
mod tests;
mod told;
mod top;
mod unclaimed;
mod usage;
mod view;
mod words;

pub use cells::fitted;
pub use guests::{guest_lines, label};
pub use limit::{Limit, Limits, limits};
pub use live::is_over;
pub use metrics::{Format as MetricsFormat, metrics};
pub use quota::{Quota, quotas};
pub use renew::Places;
pub use repaired::rows as repaired;
pub use report::{
    ClassNumbers, Connections, Daemon, Group, Guest, GuestKind, Link, Now, Pending, PolicyInForce,
    Pool, Repaired, Retired, Rule, Status, Unclaimed, User,
};
pub use table::table;
pub use told::{Told, tells, told};
pub use top::{Board, Key, Size, Then, keys, top_table};
pub use usage::usage_table;
pub use view::{StatusInputs, status};
pub use words::{limit as limit_words, measured as measured_words};

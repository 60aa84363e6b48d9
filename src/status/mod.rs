//! Who has which class, with its limits and counters: read from the kernel alone, printed as a
//! table or as JSON.

mod report;
mod table;
mod view;

pub use report::{ClassNumbers, Daemon, Group, Link, Pool, Retired, Rule, Status, User};
pub use table::table;
pub use view::{StatusInputs, status};

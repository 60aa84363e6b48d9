//! Who has which class, what it may send and what it sent: read from the kernel alone, as a table
//! or as CONTRACT's JSON.

mod report;
mod table;
mod view;

pub use report::{ClassNumbers, Daemon, Group, Link, Pool, Retired, Rule, Status, User};
pub use table::table;
pub use view::{StatusInputs, status};

//! What owners with a quota have used, kept in one file across restarts and reboots: the one thing
//! that the kernel cannot remember. `book` is the use as a value, `record` how a change of it is
//! written, and `file` the log of these changes. Touches that file, and those beside it by which it
//! is replaced.

mod book;
mod file;
mod place;
mod readings;
mod record;

#[cfg(test)]
mod tests;

pub use book::{Book, Moment, Reading};
pub use file::{Ledger, LedgerError, Opened, read};
pub use place::{folder, path};
pub use readings::readings;

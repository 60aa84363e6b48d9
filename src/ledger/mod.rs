//! What owners with a quota have used, kept in one file across restarts and reboots: the one thing
//! that the kernel cannot remember. `book` is the use as a value, `record` how a change of it is
//! written, `unwritten` what is to be written, `contents` what a file of them says, and `file` the
//! log. Touches that file, and those beside it by which it is replaced.

mod book;
mod contents;
mod file;
mod forget;
mod person;
mod place;
mod readings;
mod record;
mod unwritten;

#[cfg(test)]
mod tests;

pub use book::{Book, Moment, Reading};
pub use contents::{LedgerError, read};
pub use file::{Ledger, Opened};
pub use person::person;
pub use place::{folder, path};
pub use readings::readings;

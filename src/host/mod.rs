//! The host: opened, read and changed. Reads without judging, and performs without choosing: what
//! follows from what was read is decided by the pure rooms, and what is performed is a `Step`.

pub mod execute;
pub mod observe;
mod open;

pub use self::open::{Kernel, OpenError};

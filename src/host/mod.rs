//! The host: opened, read and changed. Reads without deciding, and performs without choosing: the
//! pure rooms decide what follows from an observation, and all that is performed is a `Step`.

mod cgroups;
pub mod execute;
pub mod kept;
mod made;
pub mod observe;
mod open;
mod pinned;
pub mod told;

pub use self::open::{Kernel, OpenError};

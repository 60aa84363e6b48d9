//! The daemon: an apply, and then a loop that keeps it so. One thread that sleeps in one poll until
//! the kernel, the policy file, NSS or a signal has something to say, or until the next task of the
//! agenda is due ([`sources`]). What follows is decided by values ([`state`]), and done by
//! [`actor`]: it places processes as they become their users; what else there is to change goes
//! through `apply`, so it is planned, verified and undone like any other.

mod actor;
mod agenda;
mod applied;
mod arrivals;
mod backoff;
#[cfg(test)]
mod chance;
mod event;
mod first;
mod followed;
mod links;
mod muted;
mod names;
mod namespace;
mod people;
mod placing;
mod queue;
mod refusal;
mod registry;
mod roster;
mod service_manager;
mod settings;
mod shaping;
mod sources;
mod standing;
mod state;
mod sweeps;
mod watch;

use crate::apply::Session;
use crate::failure::Failure;
use crate::intent::Intent;
use crate::sys::listener::ProcessListener;
pub use namespace::Bound;
pub use settings::Settings;

/// Applies what is wanted, then keeps it so until SIGTERM or SIGINT. `processes` was opened
/// where there are process events: before another network namespace was entered.
///
/// # Errors
/// Only what keeps it from beginning. Afterwards every failure is logged and tried again.
pub fn watch(
    session: Session,
    intent: Intent,
    processes: Option<ProcessListener>,
    settings: &Settings,
    bound: Option<&Bound>,
) -> Result<(), Failure> {
    match bound {
        Some(bound) => namespace::follow(session, intent, processes, settings, bound),
        None => watch::keep(session, intent, processes, settings, None).map(|_| ()),
    }
}

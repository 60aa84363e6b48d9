//! The daemon: an apply, and then a loop that keeps it so. One thread that sleeps in one poll until
//! the kernel, the policy file, NSS or a signal has an event, or until the next task is due
//! ([`sources`]). [`state`] decides, purely, what follows from events, and [`actor`] performs it:
//! it places processes as they become their users; every other change goes through `apply`, and so
//! is planned, verified and undone as always.

mod actor;
mod agenda;
mod applied;
mod arrivals;
mod asks;
mod backoff;
#[cfg(test)]
mod chance;
mod counts;
mod event;
mod first;
mod followed;
mod last_good;
mod links;
mod listening;
mod metering;
mod muted;
mod names;
mod namespace;
mod passing;
mod people;
mod placing;
mod queue;
mod refusal;
mod registry;
mod roster;
mod rounds;
mod service_manager;
mod settings;
mod shaping;
mod sources;
mod standing;
mod state;
mod sweeps;
mod telling;
mod unowned;
mod watch;
mod watchdog;

use crate::apply::Session;
use crate::failure::Failure;
use crate::intent::Intent;
use crate::sys::listener::ProcessListener;
pub use last_good::instead;
pub use namespace::Bound;
pub use settings::Settings;

/// Applies the policy, then keeps it in force until SIGTERM or SIGINT. `processes` must be opened
/// where the kernel sends process events, so before another network namespace is entered.
///
/// # Errors
/// Whatever keeps the daemon from beginning. Later failures are logged, and tried again.
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

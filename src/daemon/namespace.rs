//! A network namespace that the command line names, and what becomes of the daemon when it ends: a
//! container stops and is started again. A process that holds a namespace keeps its links alive, so
//! a dead one is let go at once. One named by a pid is over then; a name or a path may stand for
//! another one later, which is shaped in its turn.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use sd_notify::NotifyState;

use super::service_manager::tell;
use super::{Ended, Settings, keep, signals};
use crate::apply::{Options, Session};
use crate::failure::Failure;
use crate::host::Kernel;
use crate::intent::Intent;
use crate::policy::Policy;
use crate::sys::listener::ProcessListener;
use crate::sys::netns::{Home, Target};

/// How often it is looked whether the name still stands for the namespace: one stat(2).
pub(super) const LOOK: Duration = Duration::from_millis(500);
/// After a failure to take up another namespace.
const AGAIN: Duration = Duration::from_secs(2);

/// The namespace that is shaped, as the command line names it.
pub struct Bound {
    /// As the command line names it.
    pub target: Target,
    /// Where the program was started.
    pub home: Home,
    /// The instance's name, if it has one of its own.
    pub instance: Option<String>,
}

/// Shapes whatever namespace the name stands for, one after the other.
pub(super) fn follow(
    session: Session,
    intent: Intent,
    processes: Option<ProcessListener>,
    settings: &Settings,
    bound: &Bound,
) -> Result<(), Failure> {
    let options = intent.options;
    let mut ended = keep(session, intent, processes, settings, Some(&bound.target))?;
    loop {
        let Ended::WithNamespace(policy) = ended else { return Ok(()) };
        bound.home.enter().map_err(|error| {
            Failure::refused(format!(
                "cannot go back to the namespace that this was started in: {error}"
            ))
        })?;
        if bound.target.is_process() {
            tell(&[NotifyState::Stopping]);
            return Err(Failure::refused(format!(
                "process {} has ended or left its network namespace, which is not shaped any more: name it in another way (ip netns, a path), or start this again with the next process",
                bound.target
            )));
        }
        log::warn!(
            "the network namespace {} is gone, and is let go; the next one of that name will be shaped",
            bound.target
        );
        ended = loop {
            if !wait_for(&bound.target)? {
                return Ok(());
            }
            match take_up(bound, &policy, options, settings) {
                Ok(ended) => break ended,
                Err(failure) => {
                    log::error!("{}: {}", bound.target, failure.message());
                    bound.home.enter().map_err(Failure::refused)?;
                    std::thread::sleep(AGAIN);
                }
            }
        };
    }
}

/// Process events can be had only at home.
fn take_up(
    bound: &Bound,
    policy: &Arc<Policy>,
    options: Options,
    settings: &Settings,
) -> Result<Ended, Failure> {
    let processes = ProcessListener::open().map_err(Failure::refused)?;
    let kernel = Kernel::open_at(Some(&bound.target), bound.instance.as_deref())?;
    log::info!("shaping the namespace that is called {} now", bound.target);
    let intent = Intent::new(Arc::clone(policy), options);
    keep(Session::new(kernel), intent, processes, settings, Some(&bound.target))
}

/// Waits until the name stands for a namespace; false: a signal came.
fn wait_for(target: &Target) -> Result<bool, Failure> {
    let signals = signals()?;
    let mut told = Instant::now();
    while target.inode().ok().flatten().is_none() {
        if ends(&signals)? {
            log::info!("ended");
            return Ok(false);
        }
        if told.elapsed() > super::applying::ALIVE {
            told = Instant::now();
            tell(&[NotifyState::Watchdog]);
        }
    }
    Ok(true)
}

/// Waits a moment for a signal to end.
fn ends(signals: &SignalFd) -> Result<bool, Failure> {
    use std::os::fd::AsFd;
    let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::MAX);
    match poll(&mut fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(Failure::refused(errno)),
    }
    let mut ends = false;
    while let Ok(Some(signal)) = signals.read_signal() {
        ends |= signal.ssi_signo != Signal::SIGHUP as u32;
    }
    Ok(ends)
}

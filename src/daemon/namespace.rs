//! A network namespace that the command line names, and what the daemon does when it ends, as when
//! a container is stopped and started again. A process with a socket in a namespace keeps its links
//! alive, so the daemon leaves a dead one at once. With a pid, the daemon then ends; a name or a
//! path may stand for another namespace later, which is shaped then.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sd_notify::NotifyState;

use super::event::{Ended, Wish};
use super::refusal::CannotGoOn;
use super::service_manager::{ALIVE, tell};
use super::settings::Settings;
use super::sources::{LOOK_AT_NAME, Signals};
use super::watch::keep;
use crate::apply::{Options, Session};
use crate::failure::Failure;
use crate::host::Kernel;
use crate::intent::Intent;
use crate::policy::Policy;
use crate::sys::listener::ProcessListener;
use crate::sys::netns::{Home, Target};

/// The pause after a failure to take up another namespace.
const AGAIN: Duration = Duration::from_secs(2);

/// The namespace that is shaped, as the command line names it.
pub struct Bound {
    /// As the command line names it.
    pub target: Target,
    /// The network namespace in which the program was started.
    pub home: Home,
    /// The instance's name, if it has one of its own.
    pub instance: Option<String>,
}

/// Shapes the namespaces that the name stands for, one after the other.
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
        bound.home.enter().map_err(CannotGoOn::NotHome)?;
        if bound.target.is_process() {
            tell(&[NotifyState::Stopping]);
            return Err(CannotGoOn::ProcessGone(bound.target.clone()).into());
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
                    bound.home.enter().map_err(CannotGoOn::NotHome)?;
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
    let processes = ProcessListener::open().map_err(CannotGoOn::Processes)?;
    let kernel = Kernel::open_at(Some(&bound.target), bound.instance.as_deref())?;
    log::info!("shaping the namespace that is called {} now", bound.target);
    let intent = Intent::new(Arc::clone(policy), options);
    keep(Session::new(kernel), intent, processes, settings, Some(&bound.target))
}

/// Waits until the name stands for a namespace; false: a signal came.
fn wait_for(target: &Target) -> Result<bool, Failure> {
    let signals = Signals::open().map_err(CannotGoOn::Signals)?;
    signals.block().map_err(CannotGoOn::Signals)?;
    let mut told = Instant::now();
    while target.inode().ok().flatten().is_none() {
        if ends(&signals)? {
            log::info!("ended");
            return Ok(false);
        }
        if told.elapsed() > ALIVE {
            told = Instant::now();
            tell(&[NotifyState::Watchdog]);
        }
    }
    Ok(true)
}

/// Waits a moment; whether a signal to end came.
fn ends(signals: &Signals) -> Result<bool, CannotGoOn> {
    let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(LOOK_AT_NAME).unwrap_or(PollTimeout::MAX);
    match poll(&mut fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(CannotGoOn::Wait(errno)),
    }
    Ok(std::iter::from_fn(|| signals.next()).any(|wish| wish == Wish::End))
}

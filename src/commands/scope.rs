//! What the command line is about: which kernel, which policy, and what may be done there.

use std::path::Path;

use crate::apply::{self, ApplyOptions, Options, Request, Session};
use crate::cli::Global;
use crate::failure::Failure;
use crate::host::Kernel;
use crate::policy::Policy;
use crate::sys::netns::Target;

/// Enters the network namespace that the command line names and opens the kernel there.
pub(super) fn open(global: &Global) -> Result<Kernel, Failure> {
    let target = global.netns.as_deref().map(Target::new);
    Ok(Kernel::open_at(target.as_ref(), global.cgroup.as_deref())?)
}

/// A policy on the kernel that the command line names.
pub(super) fn session(
    global: &Global,
    file: &Path,
    options: Options,
) -> Result<(Session, Request), Failure> {
    session_of(global, apply::read(file)?, options)
}

/// The same for a policy that was read.
pub(super) fn session_of(
    global: &Global,
    policy: Policy,
    options: Options,
) -> Result<(Session, Request), Failure> {
    Ok((Session::new(open(global)?), Request::new(policy, options)))
}

/// What the command line allows a run to do.
pub(super) fn may(global: &Global, disrupt: bool) -> ApplyOptions {
    ApplyOptions { disrupt, wait: global.wait, ..ApplyOptions::default() }
}

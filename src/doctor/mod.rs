//! What a host has and lacks for shaping: what was found there → checks, each with its cure. Pure.

mod check;
mod keeping;
mod kernel;
mod links;
mod manager;
mod names;
mod net_cls;
mod print;

pub use check::{Check, State};
pub use keeping::{Keeper, Keeping, PolicyFound, Sync};
pub use kernel::{Capability, Machine};
pub use links::LinkFound;
pub use manager::{Manager, networkd, shapes};
pub use names::Names;
pub use net_cls::NetClsFound;
pub use print::text;

use crate::facts::Lack;

/// All that was found on a host.
#[derive(Clone, Debug)]
pub struct Findings {
    /// What this process lacks to see and change everything.
    pub lacks: Option<Lack>,
    /// The kernel, and what processes may do there.
    pub machine: Machine,
    /// The hierarchy in which processes are placed.
    pub net_cls: NetClsFound,
    /// How NSS answers.
    pub names: Names,
    /// The policy, and who keeps it in force.
    pub keeping: Keeping,
    /// The links that the policy names, or that are shaped; where there is neither, that of the
    /// default route.
    pub links: Vec<LinkFound>,
}

/// The checks, in the order in which they are told.
pub fn checks(found: &Findings) -> Vec<Check> {
    let mut checks: Vec<Check> = found.lacks.iter().map(without_root).collect();
    checks.extend(kernel::checks(&found.machine, found.lacks.is_some()));
    checks.extend(net_cls::checks(&found.net_cls, &found.machine));
    checks.push(names::check(&found.names));
    let unprivileged = found.lacks.is_some();
    checks.extend(keeping::checks(&found.keeping, unprivileged));
    checks.extend(found.links.iter().flat_map(|link| links::checks(link, unprivileged)));
    checks
}

/// The worst state of all; of no checks, ok.
pub fn worst(checks: &[Check]) -> State {
    checks.iter().map(|check| check.state).max().unwrap_or(State::Ok)
}

fn without_root(_: &Lack) -> Check {
    let what = "without root: what the kernel can do, others' programs and the daemon's state were looked at only as far as everybody may";
    Check::warning("root", what, "sudo shaper doctor")
}

//! A plan as people think of it: whose limits come, change and go, and which links. It is the
//! difference of two states, joined by owner, and says nothing of how the steps get there.

mod change;
mod guests;
mod held;
mod links;
mod owners;

use crate::facts::{Accounts, Observation};
use crate::model::Matcher;
use crate::tree::KernelState;

pub use self::change::Change;
use self::links::Ports;

/// What a plan means for people, from what was `seen` to the state `after`. `matcher`: who claims
/// whom by then; `accounts`: their names.
pub fn changes(
    seen: &Observation,
    after: &KernelState,
    matcher: Option<&Matcher>,
    accounts: &Accounts,
) -> Vec<Change> {
    let (before, facts) = (&seen.state, &seen.facts);
    let ports = Ports::of(before, after);
    let mut changes = links::changes(&ports, facts);
    changes.extend(owners::changes(&ports, matcher, accounts));
    changes.extend(guests::changes(before, after, facts));
    changes.extend(links::parts(&ports));
    changes
}

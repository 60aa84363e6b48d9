//! Steps as people read them: a line of `shaper plan`, and the `tc` (or shell) command that a step
//! equals, which is also how errors name a step.

mod command;
mod line;
mod place;
mod words;

use std::fmt;

pub use command::{Paths, Tc};
pub use place::Place;

use super::Plan;

/// The whole plan, a step a line, with who is disturbed below the step.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for planned in &self.steps {
            write!(f, "{}", planned.step)?;
            let owner = planned.step.class().and_then(|id| self.names.get(&id));
            match owner {
                Some(owner) => writeln!(f, "  ({owner})")?,
                None => writeln!(f)?,
            }
            for disturbance in &planned.disturbs {
                writeln!(f, "    ! disturbs {}: {}", disturbance.who, disturbance.why)?;
            }
        }
        Ok(())
    }
}

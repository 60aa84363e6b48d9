//! Steps as people read them: a line of `shaper plan`, and the `tc` (or shell) command that a step
//! equals, which is also how errors name a step.

mod command;
mod line;

use std::fmt;

pub use command::{Paths, Tc};

use super::Plan;
use crate::tree::RuleProgram;

/// As `tc` spells an ethertype.
fn protocol(ethertype: u16) -> String {
    match ethertype {
        0x0003 => "all".to_string(),
        0x0800 => "ip".to_string(),
        0x86dd => "ipv6".to_string(),
        other => format!("{other:#06x}"),
    }
}

/// Which lines of `rules` a program decides.
fn program_words(program: &RuleProgram) -> String {
    let lines: Vec<u32> = program.rules.iter().map(|rule| rule.line.get()).collect();
    match lines[..] {
        [] => "no rule".to_string(),
        [only] => format!("rule {only}"),
        [first, .., last] => format!("{} rules, {first} to {last} of the file", lines.len()),
    }
}

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

//! What is said of a repair.

use std::collections::BTreeSet;
use std::time::Duration;

use super::event::Order;
use crate::process::{Behind, Changers};
use crate::tree::LinkName;

/// How many of those who changed a link are named.
const NAMED: usize = 3;

/// Adds who has changed a link since. A process that was found once stays known: a `tc` that makes
/// many changes may have ended when the last of them are heard of.
pub(super) fn add(by: &mut Changers, since: Changers) {
    for (port, who) in since {
        let known = by.entry(port).or_default();
        *known = known.take().or(who);
    }
}

/// What `shaper status` is to say of it.
pub(super) fn counted(link: &LinkName, by: &Changers) -> Order {
    Order::CountRepair { link: link.clone(), by: words(by) }
}

/// The line of the journal. `by`: who changed the link. `pause`: for so long the link is left
/// alone.
pub(super) fn said(link: &LinkName, by: &Changers, pause: Option<Duration>) -> Order {
    let who = words(by);
    match pause {
        None => Order::Inform(format!(
            "{who} changed what stands on {link}; it is again as the policy says"
        )),
        Some(pause) => Order::Warn(format!(
            "{link} keeps being changed by {who}; it is left alone for {} s",
            pause.as_secs_f32()
        )),
    }
}

/// Names those who changed a link.
fn words(by: &Changers) -> String {
    let known: BTreeSet<&Behind> = by.values().flatten().collect();
    let mut who: Vec<String> = known.iter().take(NAMED).map(ToString::to_string).collect();
    if known.len() > NAMED {
        who.push(format!("{} more", known.len() - NAMED));
    }
    // Who is known need not have made the change that was repaired.
    if known.is_empty() || by.values().any(Option::is_none) {
        who.push("somebody else".to_string());
    }
    let last = who.pop().unwrap_or_default();
    match who.is_empty() {
        true => last,
        false => format!("{} and {last}", who.join(", ")),
    }
}

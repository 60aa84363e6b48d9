//! What is said of a repair.

use std::collections::BTreeSet;
use std::time::Duration;

use super::event::Order;
use crate::process::Behind;
use crate::tree::LinkName;

/// How many of those who changed a link are named.
const NAMED: usize = 3;

/// The line of the journal. `by`: who changed the link, as far as that is known. `pause`: for so
/// long the link is left alone.
pub(super) fn said(link: &LinkName, by: &BTreeSet<Behind>, pause: Option<Duration>) -> Order {
    let mut who: Vec<String> = by.iter().take(NAMED).map(ToString::to_string).collect();
    if by.len() > NAMED {
        who.push(format!("{} more", by.len() - NAMED));
    }
    let who = match who.pop() {
        None => "somebody else".to_string(),
        Some(last) if who.is_empty() => last,
        Some(last) => format!("{} and {last}", who.join(", ")),
    };
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

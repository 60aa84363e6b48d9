//! What one owner has at one port, and how a change of it is said.

use crate::tree::{Class, Group, Guarantee, Role};
use crate::units::{Bytes, Rate};

/// The limits of a class, as a policy could have them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// The guarantee, where a line has it; a share of what is left follows the others'.
    pub rate: Option<Rate>,
    /// What it may reach by borrowing.
    pub ceil: Rate,
    /// What may pass above it after a pause.
    pub boost: Option<Bytes>,
    /// 0 to 7; `None`: a group.
    pub prio: Option<u8>,
    /// The group that it is in.
    pub group: Option<Group>,
}

impl Held {
    /// Of a class in a group.
    pub(super) fn new(class: &Class, group: Option<Group>) -> Held {
        let prio = match class.role {
            Role::Leaf { prio, .. } => Some(prio),
            Role::Inner => None,
        };
        let rate = (class.guarantee() == Guarantee::Written).then_some(class.rate);
        Held { rate, ceil: class.ceil, boost: class.boost(), prio, group }
    }

    /// `100mbit`, `rate 10mbit ceil 200mbit prio 2`, `100mbit boost 500MiB`.
    pub(super) fn words(&self) -> String {
        let limits = match self.rate {
            None => self.ceil.to_string(),
            Some(rate) if rate == self.ceil => format!("rate {rate}"),
            Some(rate) => format!("rate {rate} ceil {}", self.ceil),
        };
        let boost = self.boost.map(|boost| format!(" boost {}", boost.to_volume()));
        let prio = self.prio.filter(|prio| *prio > 0).map(|prio| format!(" prio {prio}"));
        format!("{limits}{}{}", boost.unwrap_or_default(), prio.unwrap_or_default())
    }
}

/// What differs of the limits: `800mbit → 300mbit`, `rate 1mbit → none`; empty: nothing. `named`:
/// the ceil is called so, as that of a group is.
pub(super) fn difference(from: &Held, to: &Held, named: bool) -> String {
    let mut parts = Vec::new();
    if from.rate != to.rate {
        let words = |rate: Option<Rate>| rate.map_or("none".to_string(), |rate| rate.to_string());
        parts.push(format!("rate {} → {}", words(from.rate), words(to.rate)));
    }
    if from.ceil != to.ceil {
        let is_named = named || from.rate.or(to.rate).is_some();
        let name = if is_named { "ceil " } else { "" };
        parts.push(format!("{name}{} → {}", from.ceil, to.ceil));
    }
    if from.boost != to.boost {
        let words = |boost: Option<Bytes>| boost.map_or("none".to_string(), Bytes::to_volume);
        parts.push(format!("boost {} → {}", words(from.boost), words(to.boost)));
    }
    if let (Some(from), Some(to)) = (from.prio, to.prio)
        && from != to
    {
        parts.push(format!("prio {from} → {to}"));
    }
    match (&from.group, &to.group) {
        (from, to) if from == to => {}
        (Some(from), Some(to)) => parts.push(format!("from group {from} to group {to}")),
        (None, Some(to)) => parts.push(format!("into group {to}")),
        (Some(from), None) => parts.push(format!("out of group {from}")),
        (None, None) => {}
    }
    parts.join(", ")
}

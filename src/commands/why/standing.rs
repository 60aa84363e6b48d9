//! What is in force for a class, what it does now, and what holds it back: from the report that
//! `status` shows.

use serde::Serialize;

use crate::status::{ClassNumbers, Link, Now, Status, limit_words, measured_words};
use crate::tree::Port;
use crate::units::ClassId;

/// From so many percent of its ceil on a class has no more to come.
const FULL: u64 = 95;

/// What stands in the kernel for one class at one port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct InForce {
    pub ceil_bit: u64,
    /// Bits a second, with link-layer headers.
    pub now_bit: u64,
    /// How long what waits takes to leave, in milliseconds.
    pub queue_ms: u64,
    /// Packets dropped a second, in thousandths.
    pub drops_per_1000_seconds: u64,
    /// What keeps it from sending more now; absent where nothing does.
    pub held_by: Option<String>,
    /// The lowest ceil of the class itself, the groups above it and the link; absent where that is
    /// the class's own.
    pub lowest: Option<String>,
}

/// A class, or one above it.
struct Above<'a> {
    what: String,
    ceil_bit: u64,
    now: Option<&'a Now>,
}

/// A class's row at one port, by its classid.
pub(super) struct Standing<'a> {
    link: &'a Link,
    pub class: &'a ClassNumbers,
    id: ClassId,
    group: Option<&'a str>,
}

/// The row that a class has at a port, if it stands there.
pub(super) fn row<'a>(status: &'a Status, port: &Port, id: ClassId) -> Option<Standing<'a>> {
    let is_it =
        |link: &&Link| link.dev == port.link.as_str() && link.direction == port.direction.as_str();
    let link = status.links.iter().find(is_it)?;
    let classid = id.to_string();
    let user = link.users.iter().find(|it| it.classid == classid);
    let user = user.map(|it| (&it.class, it.group.as_deref()));
    let group = || {
        let group = link.groups.iter().find(|it| it.classid == classid)?;
        Some((&group.class, group.parent.as_deref()))
    };
    let pool = || {
        let pools = [&link.default, &link.unshaped].into_iter().flatten();
        let pool = pools.into_iter().find(|it| it.classid == classid)?;
        Some((&pool.class, None))
    };
    let retired = || {
        let retired = link.retired.iter().find(|it| it.classid == classid)?;
        Some((&retired.class, None))
    };
    let (class, group) = user.or_else(group).or_else(pool).or_else(retired)?;
    Some(Standing { link, class, id, group })
}

impl<'a> Standing<'a> {
    /// The group right above it.
    pub(super) fn group(&self) -> Option<&'a str> {
        self.group
    }

    /// The groups above the class, the nearest first, and the link.
    fn above(&self) -> Vec<Above<'a>> {
        let mut above = Vec::new();
        let mut name = self.group;
        while let Some(group) = self.link.groups.iter().find(|it| Some(it.group.as_str()) == name) {
            above.push(Above {
                what: format!("group {}", group.group),
                ceil_bit: group.class.ceil_bit,
                now: group.class.now.as_ref(),
            });
            name = group.parent.as_deref();
        }
        above.push(Above {
            what: format!("the link {}", self.link.dev),
            ceil_bit: self.link.rate_bit,
            now: self.link.now.as_ref(),
        });
        above
    }

    /// What is in force, and what it does now.
    pub(super) fn in_force(&self) -> InForce {
        let now = self.class.now.unwrap_or_default();
        let above = if self.id == ClassId::UNSHAPED { Vec::new() } else { self.above() };
        let is_full = |now: Option<&Now>| now.is_some_and(|now| now.of_ceil_percent >= FULL);
        let held_by = match above.iter().find(|it| is_full(it.now)) {
            _ if now.now_bit == 0 && now.queue_ms == 0 => None,
            _ if now.of_ceil_percent >= FULL => Some("its own ceil".to_string()),
            Some(full) => Some(format!("{}, which is full", full.what)),
            None if now.drops_in_1000 > 0 => Some("its queue, which drops".to_string()),
            None => None,
        };
        let lowest = above.iter().min_by_key(|it| it.ceil_bit);
        let lowest = lowest.filter(|it| it.ceil_bit < self.class.ceil_bit);
        InForce {
            ceil_bit: self.class.ceil_bit,
            now_bit: now.now_bit,
            queue_ms: now.queue_ms,
            drops_per_1000_seconds: now.drops_in_1000,
            held_by,
            lowest: lowest.map(|it| format!("{} of {}", limit_words(it.ceil_bit), it.what)),
        }
    }
}

impl InForce {
    /// `19.8mbit, 12ms of queue, held back by its own ceil`.
    pub(super) fn text(&self) -> String {
        let mut text = match self.now_bit {
            0 => "0bit".to_string(),
            now_bit => measured_words(now_bit),
        };
        if self.queue_ms > 0 {
            text.push_str(&format!(", {} ms of queue", self.queue_ms));
        }
        if self.drops_per_1000_seconds > 0 {
            text.push_str(&format!(", {} drops/s", self.drops_per_1000_seconds.div_ceil(1_000)));
        }
        if let Some(held_by) = &self.held_by {
            text.push_str(&format!(", held back by {held_by}"));
        }
        if let Some(lowest) = &self.lowest {
            text.push_str(&format!("; never more than {lowest}"));
        }
        text
    }
}

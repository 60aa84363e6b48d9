//! What is known of a link and its groups, while what their members promise is added up. Touches
//! nothing.

use crate::policy::{GroupLine, Policy};

use super::Asked;
use super::above::Above;
use super::limits::{self, OfAll, Promise};
use super::positions::{GroupAt, Per};
use super::shaped::Shaped;

/// Makes `best` the better one of the two, which is the lower.
pub(super) fn better(best: &mut Option<u8>, prio: u8) {
    *best = Some(best.map_or(prio, |best| best.min(prio)));
}

/// One group on one link.
pub(super) struct GroupHere<'a> {
    pub(super) of_all: OfAll,
    /// A window gives it that ceil, or what it is in.
    pub(super) by_window: bool,
    /// What it is to those below it.
    pub(super) above: Above,
    /// Written rates of its members.
    pub(super) promises: Vec<Promise<'a>>,
    /// The best prio of its members; `None`: it has no member there.
    pub(super) best: Option<u8>,
}

/// One link, while what its classes promise is added up.
pub(super) struct Here<'a> {
    /// Written rates directly below the link.
    pub(super) promises: Vec<Promise<'a>>,
    pub(super) link: Above,
    pub(super) groups: Per<GroupAt, GroupHere<'a>>,
}

impl<'a> Here<'a> {
    pub(super) fn new(policy: &Policy, shaped: &Shaped<'a>) -> Here<'a> {
        let each = |line: &GroupLine| {
            let written = line.each.as_ref().map(|each| shaped.written(each));
            line.gid.is_some().then(|| written.map_or(0, |each| limits::prio(&each)))
        };
        let group = |line: &GroupLine| GroupHere {
            of_all: OfAll { rate: None, ceil: shaped.link.rate, boost: None },
            by_window: false,
            above: Above::link(shaped),
            promises: Vec::new(),
            best: each(line),
        };
        Here {
            promises: of_default(shaped).into_iter().collect(),
            link: Above::link(shaped),
            groups: Per::group(policy, |_, line| group(line)),
        }
    }

    /// Written rates directly below the group, or below the link.
    pub(super) fn below(&mut self, group: Option<GroupAt>) -> &mut Vec<Promise<'a>> {
        match group {
            Some(group) => &mut self.groups[group].promises,
            None => &mut self.promises,
        }
    }
}

/// What the link owes its default class.
fn of_default<'a>(shaped: &Shaped<'a>) -> Option<Promise<'a>> {
    let Asked::Promised(rate) = shaped.link.default.rate else { return None };
    let default = shaped.line.default.as_ref();
    let written = default.and_then(|limits| shaped.written(limits).rate);
    let (name, at) = match written {
        Some(written) => ("default", written.at),
        None => ("default (5 % unless written)", shaped.line.name.at),
    };
    Some(Promise { name, rate, at })
}

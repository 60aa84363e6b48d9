//! The links that are shaped, each with its line.

use std::collections::BTreeMap;

use crate::policy::{
    self, Amount, Diagnostic, Kind, LinkLine, LinkRef, Policy, Written, closest, quote,
};
use crate::tree::{Direction, LinkName};
use crate::units::Rate;

use super::positions::{LinkAt, Per};
use super::schedule::Situation;
use super::{By, Holds, Link};

/// In the place of a link's rate that is unknown: whatever is written fits below it.
pub(super) const UNBOUNDED: Rate = Rate::literal(u64::MAX);

/// The shaped links: those that exist and whose rate is known.
pub(super) struct Links<'p> {
    pub shaped: Per<LinkAt, Shaped<'p>>,
    /// [`super::Model::unfit`].
    pub unfit: BTreeMap<LinkName, String>,
    /// For each line that means no link now, the link that may come, as far as its limits are
    /// known.
    pub to_come: Vec<Shaped<'p>>,
    /// Offline, the links whose rate depends on the device.
    pub unrated: Vec<Shaped<'p>>,
    pub(super) policy: &'p Policy,
    /// `auto` is in the file and may be any interface, so another line's name may mean the same
    /// one.
    pub(super) auto_is_open: bool,
}

pub(super) struct Shaped<'p> {
    pub line: &'p LinkLine,
    /// The windows that hold.
    pub situation: &'p Situation<'p>,
    pub link: Link,
    pub(super) altnames: Vec<String>,
    /// Patterns may mean the link: it is neither the loopback nor an ifb.
    pub(super) may_fit_patterns: bool,
    /// `link.rate` is the link's, and not [`UNBOUNDED`].
    pub(super) has_rate: bool,
    /// Packets there can have VLAN tags. Assumed of a link of which nothing is known.
    pub ethernet: bool,
}

impl Shaped<'_> {
    /// The rate that `amount` is on this link; `None`: a share of a rate that is unknown.
    pub(super) fn amount(&self, amount: Amount) -> Option<Rate> {
        let is_known = self.has_rate || matches!(amount, Amount::Rate(_));
        is_known.then(|| absolute(amount, self.link.rate))
    }

    /// Whether packets arrive here, and not leave.
    pub(super) fn arrives(&self) -> bool {
        self.link.port.direction == Direction::Ingress
    }

    /// Who has the room that rates on this link are promised from, for messages.
    pub(super) fn words(&self) -> String {
        match self.arrives() {
            false => format!("the link {}", self.link.port.link),
            true => format!("the `down` of the link {}", self.link.port.link),
        }
    }

    /// What a line with these limits says of this direction.
    pub(super) fn written(&self, line: &policy::Limits) -> policy::Limits {
        let Some(when) = self.situation.window(line) else { return self.here(line) };
        let mut limits = self.here(&line.replaced(&when.limits));
        // A guarantee never exceeds the cap of a window that writes none.
        let window = self.here(&when.limits);
        if window.ceil.is_some() && window.rate.is_none() {
            let known = |amount: Option<Written<Amount>>| self.amount(amount?.value);
            if known(limits.rate) > known(limits.ceil) {
                limits.rate = limits.ceil;
            }
        }
        limits
    }

    /// What of these limits is about this direction, whatever windows hold.
    pub(super) fn here(&self, limits: &policy::Limits) -> policy::Limits {
        if self.arrives() { limits.arriving() } else { limits.always() }
    }

    /// What gives a line with these limits its ceil in this direction.
    pub(super) fn holds(&self, line: &policy::Limits) -> Holds {
        self.situation.holds(line, |window| {
            let window = self.here(window);
            window.rate.is_some() || window.ceil.is_some()
        })
    }

    /// The lowest rate that the link has at any time, as far as that is known.
    pub(super) fn lowest(&self) -> Rate {
        let LinkLine { rate, down, when, .. } = self.line;
        let (always, windows): (_, Vec<_>) = match self.arrives() {
            false => (rate, when.iter().map(|when| when.rate).collect()),
            true => (down, when.iter().map(|when| when.down).collect()),
        };
        let known = |written: Written<Amount>| match (written.value, self.link.speed) {
            (Amount::Rate(rate), _) => Some(rate),
            (Amount::Percent(share), speed) => speed.map(|speed| share.of(speed)),
        };
        let written = windows.into_iter().chain([*always]).flatten().filter_map(known);
        written.fold(self.link.rate, Rate::min)
    }

    /// The least that `amount` is on this link at any time; `None`: that is unknown.
    pub(super) fn at_least(&self, amount: Amount) -> Option<Rate> {
        let is_known = self.has_rate || matches!(amount, Amount::Rate(_));
        is_known.then(|| absolute(amount, self.lowest()))
    }

    /// Whether a window gives the link its rate.
    pub(super) fn by_window(&self) -> bool {
        self.link.holds.by == By::When
    }
}

impl<'p> Links<'p> {
    pub(super) fn into_model(self) -> (Per<LinkAt, Link>, BTreeMap<LinkName, String>) {
        (self.shaped.along(|_, shaped| shaped.link.clone()), self.unfit)
    }

    /// The same policy with the links that may come instead of those that exist.
    pub(super) fn only_to_come(&mut self) -> Links<'p> {
        let shaped = std::mem::take(&mut self.to_come);
        self.only(shaped)
    }

    /// The same policy with the links whose rate is unknown instead of those that exist.
    pub(super) fn only_unrated(&mut self) -> Links<'p> {
        let shaped = std::mem::take(&mut self.unrated);
        self.only(shaped)
    }

    fn only(&self, shaped: Vec<Shaped<'p>>) -> Links<'p> {
        let (shaped, policy) = (Per::new(shaped), self.policy);
        let (unfit, to_come, unrated) = (BTreeMap::new(), Vec::new(), Vec::new());
        Links { shaped, unfit, to_come, unrated, policy, auto_is_open: true }
    }

    /// Positions in `shaped` of the links that `name`, in another line, means. Empty: the file has
    /// the link, and this host has not.
    pub(super) fn find(&self, name: &Written<LinkRef>) -> Result<Vec<LinkAt>, Diagnostic> {
        let means = |shaped: &Shaped<'_>| match &name.value {
            LinkRef::Auto => shaped.line.name.value == LinkRef::Auto,
            LinkRef::Pattern(_) if !shaped.may_fit_patterns => false,
            // A link to come is also found by the name in its own line, since its alternative names
            // are not known.
            written => {
                shaped.line.name.value == *written
                    || written.means(&shaped.link.port.link, &shaped.altnames)
            }
        };
        let found = self.shaped.pairs().filter(|(_, shaped)| means(shaped));
        let found: Vec<LinkAt> = found.map(|(link, _)| link).collect();
        let may_mean = |line: &LinkLine| match (&line.name.value, &name.value) {
            (LinkRef::Pattern(line), LinkRef::Pattern(written)) => line.meets(written),
            (LinkRef::Pattern(pattern), LinkRef::Name(name))
            | (LinkRef::Name(name), LinkRef::Pattern(pattern)) => pattern.fits(name),
            (line, written) => line == written,
        };
        match found.is_empty() && !self.auto_is_open && !self.policy.links.iter().any(may_mean) {
            true => Err(self.unknown(name)),
            false => Ok(found),
        }
    }

    fn unknown(&self, name: &Written<LinkRef>) -> Diagnostic {
        let text = name.value.as_str();
        let written = self.policy.links.iter().map(|line| line.name.value.as_str());
        let names = self.shaped.iter().map(|shaped| shaped.link.port.link.as_str()).chain(written);
        let help = match closest(text, names) {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("add a line `{text}:` to `links`"),
        };
        Diagnostic::error(Kind::Link, name.at, format!("{} is no link of this policy", quote(text)))
            .help(help)
    }
}

/// The rate that `amount` is on a link of this rate.
pub(super) fn absolute(amount: Amount, link: Rate) -> Rate {
    match amount {
        Amount::Rate(rate) => rate,
        Amount::Percent(share) => share.of(link),
    }
}

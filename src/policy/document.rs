//! What a policy file says, line by line, every value with its place. Touches nothing.

use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::pattern::Pattern;
use super::quota_line::QuotaLine;
use super::source::{Source, Span, Written};
use crate::times::Window;
use crate::tree::{Classifier, Group, Key, LinkName};
use crate::units::{Bytes, Minor, Percent, Rate};

/// The `prio` that is served last (`TC_HTB_NUMPRIO`, include/uapi/linux/pkt_sched.h).
pub(crate) const LAST_PRIO: u8 = 7;

/// A policy file, version 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The file's name and text, from which later rooms draw the lines of their errors.
    pub source: Source,
    /// The key `links`, where findings about links in general are shown.
    pub links_at: Span,
    /// Lines of `links`. These and all other lists are in file order.
    pub links: Vec<LinkLine>,
    /// Lines of `users`.
    pub users: Vec<UserLine>,
    /// Lines of `groups`.
    pub groups: Vec<GroupLine>,
    /// `None`: no account without a line has a class.
    pub everyone: Option<EveryoneLine>,
    /// Lines of `classes`.
    pub classes: Vec<ClassLine>,
    /// Lines of `times`.
    pub times: Vec<WindowLine>,
    /// `owner` of `guests`: where the user of a guest is looked for, in this order; where it was
    /// left out, only lines name guests.
    pub guests: Vec<Written<GuestOwner>>,
    /// Lines of `rules`: the first that matches wins.
    pub rules: Vec<RuleLine>,
}

/// A line of `times`: a window of the week, for `when` of other lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowLine {
    /// The window's name.
    pub key: Written<Key>,
    /// Its days and hours.
    pub window: Window,
    /// In which zone; `None`: the host's.
    pub tz: Option<Written<String>>,
}

/// Which of these lines is a link's: one with its name, else a pattern that it fits, else `auto`.
pub fn line_of(lines: &[LinkRef], link: &LinkName, altnames: &[String]) -> Option<usize> {
    let is = |fits: &dyn Fn(&LinkRef) -> bool| lines.iter().position(fits);
    is(&|line| matches!(line, LinkRef::Name(_)) && line.means(link, altnames))
        .or_else(|| is(&|line| line.means(link, altnames)))
        .or_else(|| is(&|line| *line == LinkRef::Auto))
}

/// A rate as written: absolute, or a share of the link's (for a link: of the device's speed).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// An absolute rate.
    Rate(Rate),
    /// A share of the device's speed for a link's rate, and of the link's rate elsewhere.
    Percent(Percent),
}

/// How a link is named in the file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkRef {
    /// The interface of the default route.
    Auto,
    /// The link's name, or one of its alternative names, as `tc` takes them too.
    Name(String),
    /// Each link whose name fits, also one that comes later, unless another line names it.
    Pattern(Pattern),
}

impl LinkRef {
    /// As written.
    pub fn as_str(&self) -> &str {
        match self {
            LinkRef::Auto => "auto",
            LinkRef::Name(name) => name,
            LinkRef::Pattern(pattern) => pattern.as_str(),
        }
    }

    /// Whether a link with this name and these alternative names is meant; `auto` means none by its
    /// name.
    pub fn means(&self, name: &LinkName, altnames: &[String]) -> bool {
        let mut names = std::iter::once(name.as_str()).chain(altnames.iter().map(String::as_str));
        match self {
            LinkRef::Auto => false,
            LinkRef::Name(written) => names.any(|name| name == written),
            LinkRef::Pattern(pattern) => names.any(|name| pattern.fits(name)),
        }
    }
}

/// A line of `links`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkLine {
    /// A name, a pattern or `auto`.
    pub name: Written<LinkRef>,
    /// The link's rate; `None`: the device's speed.
    pub rate: Option<Written<Amount>>,
    /// What arrives by the link; left out, that is not shaped.
    pub down: Option<Written<Amount>>,
    /// Other rates while windows hold; the first that holds counts.
    pub when: Vec<LinkWhen>,
    /// What arrives goes past the link's nftables `netdev` chains and flowtables.
    pub bypass_firewall: bool,
    /// Limits of the default class; `None`: 5 % of the link, at least 1mbit.
    pub default: Option<Limits>,
    /// The classifier; `None`: `auto`.
    pub classifier: Option<Classifier>,
    /// The queue of each leaf.
    pub leaf: LeafChoice,
    /// `optional`: the daemon does not warn while the link is absent; it is shaped when it comes.
    pub optional: bool,
}

/// The rates of a link while a window holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkWhen {
    /// The window's name.
    pub window: Written<String>,
    /// The link's rate; `None`: its line's.
    pub rate: Option<Written<Amount>>,
    /// What arrives; `None`: its line's.
    pub down: Option<Written<Amount>>,
}

/// The queue in a leaf class, as the policy names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeafChoice {
    /// fq_codel, else sfq, else a bfifo of 50 ms.
    Auto,
    /// `fq_codel`.
    FqCodel,
    /// `sfq`.
    Sfq,
    /// `bfifo`.
    Bfifo,
    /// `pfifo`.
    Pfifo,
    /// `cake`.
    Cake,
}

/// `rate`, `ceil` and `prio` of one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A guarantee; alone it is the cap too. `None`: left out.
    pub rate: Option<Written<Amount>>,
    /// A cap; `None`: left out.
    pub ceil: Option<Written<Amount>>,
    /// A volume that may pass above the cap after a pause; `None`: left out.
    pub boost: Option<Written<Bytes>>,
    /// 0 (served first) to 7.
    pub prio: Option<Written<u8>>,
    /// The key of `background: true`: the class sends what all others leave.
    pub background: Option<Span>,
    /// Of what arrives; `None`: left out.
    pub down: Option<Down>,
    /// Other limits while windows hold; the first that holds counts.
    pub when: Vec<When>,
    /// Lower caps once volumes are used.
    pub quotas: Vec<QuotaLine>,
    /// The mapping, or the value of the short form.
    pub at: Span,
}

/// The limits of a line while a window holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct When {
    /// The window's name.
    pub window: Written<String>,
    /// What is written replaces what the line has; all else stays. Never `background`, and without
    /// a `when` of its own.
    pub limits: Limits,
}

/// `down` of one line: the same of what arrives, where the link has a `down`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Down {
    /// A guarantee; alone it is the cap too. `None`: left out.
    pub rate: Option<Written<Amount>>,
    /// A cap; `None`: left out.
    pub ceil: Option<Written<Amount>>,
    /// As the line's; `None`: none, whatever the line has for what is sent.
    pub boost: Option<Written<Bytes>>,
    /// `None`: the line's own.
    pub prio: Option<Written<u8>>,
    /// The key.
    pub at: Span,
}

impl Limits {
    /// None of them is written; `at`: the line.
    pub(super) fn none(at: Span) -> Limits {
        let (rate, ceil, boost, prio, background, down) = (None, None, None, None, None, None);
        let (when, quotas) = (Vec::new(), Vec::new());
        Limits { rate, ceil, boost, prio, background, down, when, quotas, at }
    }

    /// The line's limits without those for windows and quotas.
    pub fn always(&self) -> Limits {
        let Limits { rate, ceil, boost, prio, background, down, at, .. } = *self;
        Limits { rate, ceil, boost, prio, background, down, ..Limits::none(at) }
    }

    /// These limits with what `other` writes in the place of theirs.
    #[must_use]
    pub fn replaced(&self, other: &Limits) -> Limits {
        let down = match (self.down, other.down) {
            (Some(own), Some(other)) => Some(Down {
                rate: other.rate.or(own.rate),
                ceil: other.ceil.or(own.ceil),
                boost: other.boost.or(own.boost),
                prio: other.prio.or(own.prio),
                at: other.at,
            }),
            (own, other) => other.or(own),
        };
        Limits {
            rate: other.rate.or(self.rate),
            ceil: other.ceil.or(self.ceil),
            boost: other.boost.or(self.boost),
            prio: other.prio.or(self.prio),
            down,
            ..self.always()
        }
    }

    /// Each `down` of the line, those for windows too.
    pub fn downs(&self) -> impl Iterator<Item = Down> {
        let in_windows = self.when.iter().filter_map(|when| when.limits.down);
        self.down.into_iter().chain(in_windows)
    }

    /// The limits of what arrives: without a `down` there is neither a guarantee nor a cap.
    pub fn arriving(&self) -> Limits {
        let Limits { prio, background, down, at, .. } = *self;
        let none = Limits { prio, background, ..Limits::none(at) };
        match down {
            None => none,
            Some(Down { rate, ceil, boost, prio: own, at }) => {
                Limits { rate, ceil, boost, prio: own.or(prio), at, ..none }
            }
        }
    }
}

/// A line of `users`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserLine {
    /// The line's name, which is an account's where the line names nobody.
    pub key: Written<Key>,
    /// On every link that the line does not name itself.
    pub limits: Limits,
    /// The minor that the line's class must have; `None`: any free one.
    pub classid: Option<Written<Minor>>,
    /// The accounts that the line names. `None`: the key is absent, which is not the same as an
    /// empty list, see [`UserLine::names_account`].
    pub accounts: Option<Vec<Written<String>>>,
    /// Ranges of uids; `None`: absent.
    pub uids: Option<Vec<Written<RangeInclusive<u32>>>>,
    /// systemd's units; `None`: absent.
    pub units: Option<Vec<Written<UnitRef>>>,
    /// Containers; `None`: absent, as of the other guests.
    pub containers: Option<Vec<Written<ContainerRef>>>,
    /// Links behind which the user's guests are; never [`LinkRef::Auto`].
    pub interfaces: Option<Vec<Written<LinkRef>>>,
    /// Network namespaces, by the names that ip-netns(8) gives.
    pub namespaces: Option<Vec<Written<String>>>,
    /// Source addresses. Beside `interfaces` they say which packets of those links; alone they
    /// count on every link behind which guests are and that nobody else has.
    pub addresses: Option<Vec<Written<Networks>>>,
    /// By which uid processes of these units are claimed.
    pub follow: Follow,
    /// The group that the line names; `None`: the group that lists the line, or a `gid` group of
    /// its account.
    pub group: Option<Written<Membership>>,
    /// Other limits, or no class, on these links.
    pub links: Vec<(Written<LinkRef>, OnLink)>,
}

impl UserLine {
    /// Whether the key names the account; otherwise it is a label. Of a line that has guests
    /// ([`UserLine::has_guests`]) the key names the account where there is one of that name.
    pub fn names_account(&self) -> bool {
        self.accounts.is_none() && self.uids.is_none() && self.units.is_none()
    }

    /// Whether the line names guests.
    pub fn has_guests(&self) -> bool {
        self.containers.is_some()
            || self.interfaces.is_some()
            || self.namespaces.is_some()
            || self.addresses.is_some()
    }
}

/// Whether processes of a unit are claimed by a uid of theirs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Follow {
    /// By none: the unit's line claims them.
    #[default]
    No,
    /// By the effective uid, where a line claims that; else the unit's line claims them.
    Effective,
}

/// How a systemd unit is named in the file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UnitRef {
    /// One unit.
    Name(String),
    /// Each unit whose name fits; a template, `foo@.service`, is all of its instances.
    Pattern(Pattern),
}

impl UnitRef {
    /// As written.
    pub fn as_str(&self) -> &str {
        match self {
            UnitRef::Name(name) => name,
            UnitRef::Pattern(pattern) => pattern.as_str(),
        }
    }
}

/// How containers are named in the file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ContainerRef {
    /// One container, by the name that its engine lists.
    Name(String),
    /// Each container whose name fits.
    Pattern(Pattern),
    /// Each container that has the label with this value: `label:KEY=VALUE`.
    Label(String, String),
}

/// Where the user of a guest is looked for that no line names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestOwner {
    /// The container's label `shaper.user`.
    Label,
    /// `user-UID.slice` in its cgroup's path.
    Slice,
    /// The owner of the subordinate uid that it runs as, or a uid of 1000 and up outside engines'
    /// cgroups.
    Uid,
}

impl GuestOwner {
    /// As the policy spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            GuestOwner::Label => "label",
            GuestOwner::Slice => "slice",
            GuestOwner::Uid => "uid",
        }
    }
}

/// `group` of a user's line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Membership {
    /// In no group, whatever Unix groups the account is in.
    None,
    /// In the group with this name.
    In(String),
}

/// What a line says for one link.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "lines have few of them")]
pub enum OnLink {
    /// No class there.
    None,
    /// Instead of the line's own limits.
    Limits(Limits),
}

/// A line of `groups`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupLine {
    /// The group's name.
    pub key: Written<Key>,
    /// The limits of all members together.
    pub limits: Limits,
    /// The Unix group whose accounts are members too.
    pub gid: Option<Written<Gid>>,
    /// The group in which this one is; `None`: directly below the link.
    pub parent: Option<Written<String>>,
    /// Keys of `users`.
    pub users: Vec<Written<String>>,
    /// The limits of each account of `gid`; `None`: left out.
    pub each: Option<Limits>,
}

/// A Unix group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Gid {
    /// As NSS knows it.
    Name(String),
    /// A gid.
    Number(u32),
}

/// The line `everyone`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EveryoneLine {
    /// The key `everyone`.
    pub at: Span,
    /// The uids that the line covers; `None`: 1000 and up, but not 61184–65534.
    pub uids: Option<Vec<Written<RangeInclusive<u32>>>>,
    /// The limits of all accounts together.
    pub limits: Limits,
    /// Limits of each account by itself; `None`: left out.
    pub each: Option<Limits>,
}

impl EveryoneLine {
    /// The group of all accounts of `everyone`, where the line has a rate, a ceil or a quota for
    /// them together.
    pub fn group(&self) -> Option<Group> {
        let asks = |it: &Limits| it.rate.is_some() || it.ceil.is_some() || it.down.is_some();
        // A class that is there in a window only would come and go, and packets with it.
        let in_windows = self.limits.when.iter().any(|when| asks(&when.limits));
        let asks = asks(&self.limits) || in_windows || !self.limits.quotas.is_empty();
        asks.then_some(Group::Everyone)
    }
}

/// A line of `classes`: a class without members, a target for rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassLine {
    /// The class's name, for `to` of rules.
    pub key: Written<Key>,
    /// On every link that the line does not name itself.
    pub limits: Limits,
    /// The minor that the class must have; `None`: any free one.
    pub classid: Option<Written<Minor>>,
    /// Other limits, or no class, on these links.
    pub links: Vec<(Written<LinkRef>, OnLink)>,
}

/// A field of a rule: a packet matches with one of the values, or with `{not: …}` with none of
/// them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field<T> {
    /// None of the values may match.
    pub not: bool,
    /// The values; where there are none, every packet matches.
    pub values: Vec<Written<T>>,
}

impl<T> Field<T> {
    /// Whether the field was left out, so that every packet matches.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

/// An address, a network, or a range of addresses as the networks that make it up; of one family.
pub type Networks = Vec<IpNet>;

/// A line of `rules`; an empty list is a field that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleLine {
    /// The whole line.
    pub at: Span,
    /// Source addresses.
    pub src: Field<Networks>,
    /// Destination addresses.
    pub dst: Field<Networks>,
    /// Source ports.
    pub sport: Field<RangeInclusive<u16>>,
    /// Destination ports.
    pub dport: Field<RangeInclusive<u16>>,
    /// IP protocol numbers.
    pub proto: Field<u8>,
    /// VLAN ids, 1 to 4094.
    pub vlan: Field<RangeInclusive<u16>>,
    /// Who sends: lines of `users`, accounts, uids.
    pub from: Field<String>,
    /// The links that the rule is for; `None`: all.
    pub link: Option<Written<LinkRef>>,
    /// A user, a class, `default` or `unshaped`.
    pub to: Written<String>,
}

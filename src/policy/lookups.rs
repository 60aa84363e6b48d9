//! Which names and uids a policy makes it necessary to ask about. Touches nothing.

use std::collections::{BTreeSet, HashSet};

use super::document::{Gid, Limits, Policy};
use super::quota_line::QuotaLine;
use super::source::Written;
use crate::tree::Classifier;

/// The names and uids that NSS must be asked about before the policy can be resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lookups {
    /// Account names.
    pub accounts: BTreeSet<String>,
    /// Uids that stand in the file one by one: their Unix groups decide which group they are in.
    pub uids: BTreeSet<u32>,
    /// Unix group names.
    pub groups: BTreeSet<String>,
    /// Whether some group has a `gid`, so that it matters which Unix groups an account is in.
    /// Otherwise NSS is not asked that, since it costs more than everything else of 10,000 lines
    /// together.
    pub memberships: bool,
}

impl Policy {
    /// Whether it depends on which containers run.
    pub fn names_containers(&self) -> bool {
        !self.guests.is_empty() || self.users.iter().any(|line| line.containers.is_some())
    }

    /// Whether a link names a classifier that goes by the tags of `net_cls`.
    pub fn names_tags(&self) -> bool {
        let by_tags = |it: Classifier| it != Classifier::Uid;
        self.links.iter().any(|line| line.classifier.is_some_and(by_tags))
    }

    /// The zones that lines of `times`, and quotas, name.
    pub fn zones(&self) -> BTreeSet<&str> {
        let of_times = self.times.iter().filter_map(|line| line.tz.as_ref());
        let named = of_times.chain(self.quotas().filter_map(|quota| quota.tz.as_ref()));
        named.map(|tz| tz.value.as_str()).collect()
    }

    /// All quotas, line by line.
    pub fn quotas(&self) -> impl Iterator<Item = &QuotaLine> {
        let users = self.users.iter().map(|line| &line.limits);
        let groups = self.groups.iter().map(|line| &line.limits);
        let everyone = self.everyone.iter().map(|line| &line.limits);
        let together = users.chain(groups).chain(everyone);
        together.chain(self.limits_of_each()).flat_map(|limits| &limits.quotas)
    }

    /// Whether limits may change while the policy stays as it is.
    pub fn has_times_or_quotas(&self) -> bool {
        !self.times.is_empty() || self.quotas().next().is_some()
    }

    /// The limits of each account by itself, of groups and of `everyone`.
    pub fn limits_of_each(&self) -> impl Iterator<Item = &Limits> {
        let groups = self.groups.iter().filter_map(|line| line.each.as_ref());
        groups.chain(self.everyone.iter().filter_map(|line| line.each.as_ref()))
    }

    /// The names and uids that NSS is asked about.
    pub fn lookups(&self) -> Lookups {
        let memberships = self.groups.iter().any(|group| group.gid.is_some());
        let names = self.users.iter().flat_map(|user| {
            let own = user.names_account().then(|| user.key.value.as_str().to_string());
            own.into_iter().chain(user.accounts.iter().flatten().map(|name| name.value.clone()))
        });
        let lines: HashSet<&str> = self.users.iter().map(|user| user.key.value.as_str()).collect();
        let senders = self.rules.iter().flat_map(|rule| &rule.from.values);
        let senders = senders.filter(|name| !lines.contains(name.value.as_str()));
        let (senders_by_uid, senders): (Vec<_>, Vec<_>) =
            senders.map(|name| &name.value).partition(|name| name.parse::<u32>().is_ok());
        let names = names.chain(senders.into_iter().cloned());
        let uids = self.users.iter().filter(|_| memberships).flat_map(|user| &user.uids).flatten();
        let uids = uids.map(|uids| &uids.value).filter(|uids| uids.start() == uids.end());
        let groups = self.groups.iter().filter_map(|group| match &group.gid {
            Some(Written { value: Gid::Name(name), .. }) => Some(name.clone()),
            _ => None,
        });
        Lookups {
            accounts: names.collect(),
            uids: uids
                .map(|uids| *uids.start())
                .chain(senders_by_uid.into_iter().filter_map(|uid| uid.parse().ok()))
                .collect(),
            groups: groups.collect(),
            memberships,
        }
    }
}

//! What an account is told of itself where only root may read the reasons: what was used of its
//! quotas, and which limits hold, why and until when. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::limit::{Limit, Limits};
use super::quota::{Quota, quotas_of};
use crate::model::{Meters, Model};
use crate::quota::Account;
use crate::times::{TimeZone, Timestamp};
use crate::tree::{Claim, Direction, Group, LinkName, Owner, Port};
use crate::units::Rate;

/// What an account is told. A text of it is written by one run and read by another, which may be of
/// another version: what it does not know is as if it were not said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Who claims the account, as its directory is called.
    owner: String,
    /// Whom it is for: a uid may be another account's by the time it is read.
    #[serde(default)]
    account: Option<String>,
    /// In which network namespace it is so, by inode.
    #[serde(default)]
    netns: Option<u64>,
    #[serde(default)]
    quotas: Vec<OfQuota>,
    #[serde(default)]
    limits: Vec<OfClass>,
}

/// A quota, with what its JSON for others lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct OfQuota {
    #[serde(flatten)]
    quota: Quota,
    in_words: String,
    anew: Option<String>,
}

/// The limit of a class, or of a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct OfClass {
    dev: String,
    direction: Direction,
    /// As its directory is called; `None`: the link.
    owner: Option<String>,
    rate_bit: u64,
    limit: Limit,
}

/// What the accounts of each of these owners are told. `used`: what all have used, and the moment
/// for which quotas are judged; `None`: it is not known.
/// `zone`: the host's.
pub fn told(
    model: &Model,
    owners: &BTreeSet<Owner>,
    used: Option<(&BTreeMap<Owner, Account>, Timestamp)>,
    zone: &TimeZone,
) -> BTreeMap<Owner, Told> {
    let told = |owner: &Owner| {
        let quotas = used.and_then(|used| quotas(&model.metered, owner, used, zone));
        let told = Told {
            owner: Claim::Owner(owner.clone()).to_string(),
            account: None,
            netns: None,
            quotas: quotas.unwrap_or_default(),
            limits: Vec::new(),
        };
        (owner.clone(), told)
    };
    let mut told: BTreeMap<Owner, Told> = owners.iter().map(told).collect();
    let is_wanted = |owner: &Owner| owners.contains(owner) || matches!(owner, Owner::Group(_));
    let nodes = model.nodes.iter().filter(|node| is_wanted(&node.owner));
    let nodes: BTreeMap<&Owner, _> = nodes.map(|node| (&node.owner, node)).collect();
    for (owner, told) in &mut told {
        let mut next = nodes.get(owner);
        if let Some(node) = next {
            for ((link, limits), _) in model.links.iter().zip(&node.limits).zip(&node.holds) {
                if let Some(limit) = Limit::of_link(&link.holds, zone).filter(|_| limits.is_some())
                {
                    told.limits.push(OfClass::new(&link.port, None, link.rate, limit));
                }
            }
        }
        while let Some(node) = next {
            for ((link, limits), holds) in model.links.iter().zip(&node.limits).zip(&node.holds) {
                if let (Some(limits), Some(limit)) = (limits, Limit::of(holds, zone)) {
                    let limit = OfClass::new(&link.port, Some(&node.owner), limits.ceil, limit);
                    told.limits.push(limit);
                }
            }
            let above: Option<&Group> = node.group.as_ref();
            next = above.and_then(|group| nodes.get(&Owner::Group(group.clone())));
        }
    }
    told
}

fn quotas(
    meters: &Meters,
    owner: &Owner,
    (accounts, moment): (&BTreeMap<Owner, Account>, Timestamp),
    zone: &TimeZone,
) -> Option<Vec<OfQuota>> {
    let nothing = Account::default();
    let account = accounts.get(owner).unwrap_or(&nothing);
    let metered = meters.owners.get(owner)?.after(account, moment);
    let of = |quota: Quota| OfQuota {
        in_words: quota.in_words.clone(),
        anew: quota.anew.clone(),
        quota,
    };
    Some(quotas_of(owner, &metered, zone).into_iter().map(of).collect())
}

/// Whether somebody has a quota, or a limit that changes.
pub fn tells(model: &Model) -> bool {
    let changes = |node: &crate::model::Node| node.holds.iter().any(|it| *it != Default::default());
    !model.metered.owners.is_empty()
        || model.links.iter().any(|link| link.holds != Default::default())
        || model.nodes.iter().any(changes)
}

impl OfClass {
    fn new(port: &Port, owner: Option<&Owner>, rate: Rate, limit: Limit) -> OfClass {
        OfClass {
            dev: port.link.to_string(),
            direction: port.direction,
            owner: owner.map(|owner| Claim::Owner(owner.clone()).to_string()),
            rate_bit: rate.bits_per_second(),
            limit,
        }
    }
}

impl Told {
    /// What a text says.
    pub fn parse(text: &str) -> Option<Told> {
        serde_json::from_str(text).ok()
    }

    /// The text for one account. `name`: the account's, if it is known; `netns`: the inode of the
    /// network namespace.
    pub fn text(&self, name: Option<&str>, netns: u64) -> String {
        let mut told = self.clone();
        (told.account, told.netns) = (name.map(str::to_string), Some(netns));
        if let (Some(Owner::Uid(_)), Some(name)) = (self.owner(), name) {
            told.quotas.iter_mut().for_each(|it| it.quota.user = name.to_string());
        }
        serde_json::to_string(&told).unwrap_or_default()
    }

    /// Whether it is so in this network namespace, and was told to the account that has the uid
    /// now, whose `name` this is, as far as both are known.
    pub fn is_for(&self, name: Option<&str>, netns: u64) -> bool {
        self.netns.is_none_or(|it| it == netns)
            && self.account.as_deref().zip(name).is_none_or(|(told, now)| told == now)
    }

    /// Who claims the account.
    pub fn owner(&self) -> Option<Owner> {
        match self.owner.parse() {
            Ok(Claim::Owner(owner)) => Some(owner),
            _ => None,
        }
    }

    /// What was used of its quotas.
    pub fn quotas(&self) -> Vec<Quota> {
        let Some(owner) = self.owner() else { return Vec::new() };
        let quota = |it: &OfQuota| Quota {
            owner: owner.clone(),
            in_words: it.in_words.clone(),
            anew: it.anew.clone(),
            ..it.quota.clone()
        };
        self.quotas.iter().map(quota).collect()
    }

    /// Which limits hold, of his classes and of the groups above them.
    pub fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        for OfClass { dev, direction, owner, rate_bit, limit } in &self.limits {
            let Some(link) = LinkName::new(dev) else { continue };
            let Some(rate) = Rate::from_bits_per_second(*rate_bit) else { continue };
            let (port, said) = (Port { link, direction: *direction }, (rate, limit.clone()));
            match owner.as_ref().map(|owner| owner.parse()) {
                None => drop(limits.links.insert(port, said)),
                Some(Ok(Claim::Owner(owner))) => drop(limits.classes.insert((port, owner), said)),
                Some(_) => {}
            }
        }
        limits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Facts, LinkFacts, Used};
    use crate::model::{By, build};
    use crate::policy;
    use crate::quota::{Bucket, Traffic};
    use crate::tree::Key;
    use std::sync::Arc;

    const POLICY: &str = "
version: 1
times: {night: {at: \"22:00-06:00\"}}
links: {eth0: {rate: 1gbit}}
users:
  ann: {ceil: 20mbit, uids: 1001, quota: {month: 10GB, then: 1mbit}, group: team}
  bob: {ceil: 30mbit, uids: 1002, when: {night: {ceil: 40mbit}}, quota: {day: 5GB, then: 2mbit}}
  zoe: {ceil: 50mbit, uids: 1003}
groups: {team: {ceil: 100mbit, quota: {week: 1TB, then: 5mbit}}}
";

    fn owner(name: &str) -> Owner {
        Owner::User(Key::new(name).unwrap())
    }

    /// The model at a Saturday's noon, and what was used by then.
    fn noon() -> (Model, Arc<BTreeMap<Owner, Account>>, Timestamp) {
        let now: Timestamp = "2026-11-28T12:00:00Z".parse().unwrap();
        let account = |bytes| {
            let traffic = Traffic { sent: bytes, received: 0 };
            let at = now.as_second() - 3_600;
            Account::kept(None, vec![Bucket { at, traffic }], Vec::new())
        };
        let used = [(owner("ann"), 10_000_000_000), (owner("bob"), 7)];
        let used: BTreeMap<_, _> = used.map(|(owner, bytes)| (owner, account(bytes))).into();
        let used = Arc::new(used);
        let facts = Facts {
            now,
            used: Used { accounts: Arc::clone(&used), ..Used::default() },
            links: [(LinkName::new("eth0").unwrap(), LinkFacts::ethernet(2))].into(),
            ..Facts::default()
        };
        let policy = policy::parse(POLICY, "policies.yaml").unwrap();
        let (model, _) = build(&policy, &facts, Default::default()).unwrap();
        (model, used, now)
    }

    fn told_at_noon() -> BTreeMap<Owner, Told> {
        let (model, used, now) = noon();
        let owners = ["ann", "bob", "zoe"].map(owner).into();
        told(&model, &owners, Some((&used, now)), &TimeZone::UTC)
    }

    #[test]
    fn each_is_told_what_status_says_of_him_and_nothing_of_others() {
        let (model, ..) = noon();
        let told = told_at_noon();
        let all = crate::status::limits(&model, &TimeZone::UTC);
        let quotas = crate::status::quotas(&model, &TimeZone::UTC);
        for name in ["ann", "bob", "zoe"] {
            let text = told[&owner(name)].text(Some("somebody"), 7);
            let others = ["ann", "bob", "zoe"].into_iter().filter(|other| *other != name);
            others.for_each(|other| assert!(!text.contains(other), "{text}"));
            let read = Told::parse(&format!("{text}   ")).unwrap();
            assert_eq!(read.owner(), Some(owner(name)));
            assert!(read.is_for(Some("somebody"), 7) && read.is_for(None, 7));
            assert!(!read.is_for(Some("another"), 7), "the uid is another account's now");
            assert!(!read.is_for(Some("somebody"), 8), "in another namespace it is not so");
            let mut own = quotas.clone();
            own.retain(|quota| quota.owner == owner(name));
            assert_eq!(read.quotas(), own, "{name}");
            let (limits, mut expected) = (read.limits(), all.clone());
            expected.classes.retain(|(_, of), _| {
                *of == owner(name) || (name == "ann" && matches!(of, Owner::Group(_)))
            });
            assert_eq!((limits.classes, limits.links), (expected.classes, expected.links));
        }
        let ann = told[&owner("ann")].limits();
        let (rate, limit) = ann.classes.values().next().unwrap();
        assert_eq!((rate.bits_per_second(), limit.by), (1_000_000, By::Quota));
        assert!(limit.until.is_some(), "{limit:?}");
        assert!(tells(&model));
    }

    #[test]
    fn what_was_used_is_judged_by_the_moment_and_not_by_the_model() {
        let (model, used, now) = noon();
        let next_month = now.as_second() + 4 * 86_400;
        let later = Timestamp::from_second(next_month).unwrap();
        let owners = [owner("ann")].into();
        let told = told(&model, &owners, Some((&used, later)), &TimeZone::UTC);
        assert_eq!(told[&owner("ann")].quotas()[0].used_bytes, 0);
        let unknown = super::told(&model, &owners, None, &TimeZone::UTC);
        assert_eq!(unknown[&owner("ann")].quotas(), [], "where the file cannot be read");
    }

    #[test]
    fn a_text_of_another_version_is_read_as_far_as_it_goes() {
        let read = Told::parse(r#"{"owner":"uid/1001","more":1}"#).unwrap();
        assert_eq!((read.owner(), read.quotas()), (Some(Owner::Uid(1001)), vec![]));
        assert!(read.is_for(Some("ann"), 7));
        assert_eq!(Told::parse(r#"{"owner":"retired/1a"}"#).unwrap().owner(), None);
        assert_eq!(Told::parse("{"), None);
    }
}

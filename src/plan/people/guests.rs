//! Whose guests are: by the links by which they come in, and by their addresses there.

use std::collections::{BTreeMap, BTreeSet};

use super::change::Change;
use super::links::NAMED;
use crate::facts::Facts;
use crate::tree::{Claim, Filter, KernelState, Label, LinkName, Source};
use crate::units::{ClassId, Minor};

/// A state, and who has which class in it.
struct State<'a> {
    state: &'a KernelState,
    owners: BTreeMap<Minor, String>,
}

impl<'a> State<'a> {
    fn of(state: &'a KernelState) -> State<'a> {
        let owner = |(claim, id): (&Claim, &ClassId)| match claim {
            Claim::Owner(owner) => Some((id.minor(), format!("{owner}'s"))),
            _ => None,
        };
        State { state, owners: state.claims.iter().filter_map(owner).collect() }
    }

    /// `ann's`, `nobody's`.
    fn whose(&self, minor: Option<Minor>) -> String {
        let owner = minor.and_then(|minor| self.owners.get(&minor));
        owner.cloned().unwrap_or_else(|| "nobody's".to_string())
    }

    fn label(&self, link: &LinkName) -> Option<Label> {
        let clsact = self.state.clsact.get(link)?;
        clsact.ingress.filters.values().find_map(|filter| match filter {
            Filter::Label(label) => Some(*label),
            _ => None,
        })
    }

    fn sources(&self) -> impl Iterator<Item = (&'a Source, &'a ClassId)> {
        self.state.owners.iter().flat_map(|owners| &owners.sources)
    }

    /// Whose what comes from exactly this network is; `None`: no line has the network.
    fn of_source(&self, source: &Source) -> Option<String> {
        let class = self.state.owners.as_ref()?.sources.get(source)?;
        Some(self.whose(Some(*class).filter(|class| *class != ClassId::NONE).map(ClassId::minor)))
    }
}

/// What becomes of what has been somebody's before, if it was known whose, and is somebody's after.
fn change(before: Option<String>, after: Option<String>) -> Option<(char, String)> {
    match (before, after) {
        (None, Some(to)) => Some(('+', format!("are {to}"))),
        (Some(from), None) => Some(('-', format!("no longer {from}"))),
        (Some(from), Some(to)) if from != to => Some(('~', format!("{from} → {to}"))),
        _ => None,
    }
}

/// The networks behind links that are somebody's, then the links.
pub(super) fn changes(before: &KernelState, after: &KernelState, facts: &Facts) -> Vec<Change> {
    let (before, after) = (State::of(before), State::of(after));
    let mut changes = by_source(&before, &after, facts);
    changes.extend(by_link(&before, &after));
    changes
}

fn by_source(before: &State<'_>, after: &State<'_>, facts: &Facts) -> Vec<Change> {
    let name = |ifindex: u32| {
        let mut links = facts.links.iter();
        let link = links.find(|(_, device)| device.ifindex == ifindex);
        link.map_or_else(|| format!("link {ifindex}"), |(name, _)| name.to_string())
    };
    let all: BTreeSet<&Source> =
        before.sources().chain(after.sources()).map(|(source, _)| source).collect();
    let mut said: BTreeMap<(u32, char, String), Vec<String>> = BTreeMap::new();
    for source in all {
        if let Some((sign, what)) = change(before.of_source(source), after.of_source(source)) {
            said.entry((source.ifindex, sign, what)).or_default().push(source.net.to_string());
        }
    }
    let line = |((ifindex, sign, what), nets): ((u32, char, String), Vec<String>)| {
        let count = nets.len();
        let nets = match count {
            0..=NAMED => nets.join(", "),
            more => format!("of {more} networks"),
        };
        let who = format!("guests {nets} by {}", name(ifindex));
        Change { sign, kind: "guests", who, count, what }
    };
    said.into_iter().map(line).collect()
}

fn by_link(before: &State<'_>, after: &State<'_>) -> Vec<Change> {
    let links: BTreeSet<&LinkName> =
        before.state.clsact.keys().chain(after.state.clsact.keys()).collect();
    let mut said: BTreeMap<(char, String, bool), Vec<&LinkName>> = BTreeMap::new();
    for link in links {
        let labels = [before.label(link), after.label(link)];
        let by_source = labels.iter().flatten().any(|label| label.by_source);
        // Of a link where sources alone decide nothing was said of the others.
        let whose = |state: &State<'_>, label: Option<Label>| {
            let is_said = |label: &Label| label.owner.is_some() || !label.by_source;
            label.filter(is_said).map(|label| state.whose(label.owner))
        };
        let nobody = |label: Option<Label>| label.map(|_| "nobody's".to_string());
        let [from, to] = [whose(before, labels[0]), whose(after, labels[1])];
        let changed = match (from, to) {
            (None, None) => None,
            (from, to) => change(from.or(nobody(labels[0])), to.or(nobody(labels[1]))),
        };
        if let Some((sign, what)) = changed {
            said.entry((sign, what, by_source)).or_default().push(link);
        }
    }
    let line = |((sign, what, by_source), links): ((char, String, bool), Vec<&LinkName>)| {
        let names: Vec<String> = links.iter().map(ToString::to_string).collect();
        let names = match links.len() {
            0..=NAMED => names.join(", "),
            more => format!("{more} links"),
        };
        let all_other = if by_source { "all other " } else { "" };
        let who = format!("{all_other}guests behind {names}");
        Change { sign, kind: "guests", who, count: links.len(), what }
    };
    said.into_iter().map(line).collect()
}

//! The numbers of a report that was made before, made anew: of what is said of 10,000 users most
//! stays as it is from one reading of the counters to the next, and needs no new text.

use super::numbers::{backlog, below, interval_ms, now, warning};
use super::report::{Link, Status};
use super::view::StatusInputs;
use crate::host::observe::Snapshot;
use crate::tree::{Direction, LinkName, Port};
use crate::units::ClassId;

/// Where in a report each class is, in the order of classes.
#[derive(Clone, Debug, Default)]
pub struct Places(Vec<Option<OfLink>>);

/// The classes of one link of the report.
#[derive(Clone, Debug)]
struct OfLink {
    port: Port,
    classes: Vec<(ClassId, Place)>,
}

/// One class's place among those of its link.
#[derive(Clone, Copy, Debug)]
enum Place {
    Link,
    User(usize),
    Group(usize),
    Default,
    Unshaped,
    Retired(usize),
}

impl Places {
    /// The places of a report's classes.
    pub fn of(status: &Status) -> Places {
        Places(status.links.iter().map(OfLink::new).collect())
    }
}

impl OfLink {
    fn new(link: &Link) -> Option<OfLink> {
        let directions = [Direction::Egress, Direction::Ingress];
        let direction = directions.into_iter().find(|it| it.as_str() == link.direction)?;
        let port = Port { link: LinkName::new(&link.dev)?, direction };
        let users = link.users.iter().enumerate().map(|(at, it)| (&it.classid, Place::User(at)));
        let groups = link.groups.iter().enumerate().map(|(at, it)| (&it.classid, Place::Group(at)));
        let retired = link.retired.iter().enumerate();
        let retired = retired.map(|(at, it)| (&it.classid, Place::Retired(at)));
        let default = link.default.iter().map(|it| (&it.classid, Place::Default));
        let unshaped = link.unshaped.iter().map(|it| (&it.classid, Place::Unshaped));
        let all = users.chain(groups).chain(retired).chain(default).chain(unshaped);
        let place = |(classid, place): (&String, Place)| Some((classid.parse().ok()?, place));
        let mut classes: Vec<(ClassId, Place)> = all.filter_map(place).collect();
        classes.push((ClassId::LINK, Place::Link));
        classes.sort_by_key(|(classid, _)| *classid);
        Some(OfLink { port, classes })
    }
}

impl Status {
    /// Takes in what counters say since, where the classes are those that this report is about.
    /// `places`: theirs in it.
    pub fn renew(&mut self, places: &Places, snapshot: &Snapshot, inputs: &StatusInputs) {
        self.interval_ms = inputs.differences.as_ref().map(interval_ms);
        for (link, of_link) in self.links.iter_mut().zip(&places.0) {
            let Some(OfLink { port, classes }) = of_link else { continue };
            let Some(tree) = snapshot.observation.state.trees.get(port) else { continue };
            let differences = inputs.differences.as_ref();
            let below = below(snapshot, differences, port, tree);
            link.warnings = warning(snapshot, inputs.moment(), port).into_iter().collect();
            let mut places = classes.iter().peekable();
            let mut counted = differences.into_iter().flat_map(|it| it.counted(port)).peekable();
            for (id, counters) in snapshot.counters.get(port).into_iter().flatten() {
                while counted.next_if(|(other, _)| other < id).is_some() {}
                let counted = counted.next_if(|(other, _)| other == id);
                let pace = counted.and_then(|(_, counted)| differences?.pace_of(counted));
                while places.next_if(|(other, _)| other < id).is_some() {}
                while let Some((_, place)) = places.next_if(|(other, _)| other == id) {
                    let below = below.get(id);
                    let numbers = match *place {
                        Place::Link => {
                            let class = tree.classes.get(id);
                            let rates = class.map(|it| (it.rate, it.ceil));
                            link.now = rates.and_then(|(rate, ceil)| {
                                let rates = (rate.bits_per_second(), ceil.bits_per_second());
                                Some(now(pace?, rates, backlog(counters, below), below))
                            });
                            continue;
                        }
                        Place::User(at) => link.users.get_mut(at).map(|it| &mut it.class),
                        Place::Group(at) => link.groups.get_mut(at).map(|it| &mut it.class),
                        Place::Retired(at) => link.retired.get_mut(at).map(|it| &mut it.class),
                        Place::Default => link.default.as_mut().map(|it| &mut it.class),
                        Place::Unshaped => link.unshaped.as_mut().map(|it| &mut it.class),
                    };
                    if let Some(numbers) = numbers {
                        numbers.count(counters, below, pace);
                    }
                }
            }
        }
    }

    /// Takes in how many processes owners have.
    pub fn renew_processes(&mut self, inputs: &StatusInputs) {
        for user in self.links.iter_mut().flat_map(|link| &mut link.users) {
            user.processes = inputs.processes.get(&user.owner).copied().unwrap_or(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;
    use crate::status::status;
    use crate::tree::{Claim, Class, Counters, Group, Key, Owner, Quantum, Role, Tree};
    use crate::units::{Minor, Rate, Ticks};
    use proptest::prelude::*;
    use std::time::Duration;

    /// A link with a group, its members, a user beside it and a retired class, both ways.
    fn seen() -> Snapshot {
        let mut snapshot = Snapshot::default();
        let user = |name: &str| Owner::User(Key::new(name).unwrap());
        let group = Owner::Group(Group::of("team").unwrap());
        let claims = [
            (Claim::Owner(user("ann")), 0x13, Some(0xf000)),
            (Claim::Owner(user("bob")), 0x11, Some(0xf000)),
            (Claim::Owner(user("zoe")), 0x12, Some(1)),
            (Claim::Owner(group), 0xf000, Some(1)),
            (Claim::Retired(Minor(0x1a), None), 0x1a, Some(1)),
        ];
        let rate: Rate = "1mbit".parse().unwrap();
        let class = |minor: u16, parent: Option<u16>| Class {
            parent: parent.map(|parent| ClassId::ours(Minor(parent))),
            rate,
            ceil: "9mbit".parse().unwrap(),
            burst: Ticks(1),
            cburst: Ticks(1),
            role: match Minor(minor).is_inner() {
                true => Role::Inner,
                false => Role::Leaf { prio: 0, quantum: Quantum(1_500) },
            },
        };
        let mut tree = Tree::default();
        let own = [(1, None), (0xfffd, None), (0xfffe, Some(1))];
        let claimed = claims.iter().map(|(_, minor, parent)| (*minor, *parent));
        for (minor, parent) in own.into_iter().chain(claimed) {
            tree.classes.insert(ClassId::ours(Minor(minor)), class(minor, parent));
        }
        let link = LinkName::new("eth0").unwrap();
        for port in [link.egress(), link.ingress()] {
            snapshot.observation.state.trees.insert(port, tree.clone());
        }
        let claims = claims.map(|(claim, minor, _)| (claim, ClassId::ours(Minor(minor))));
        snapshot.observation.state.claims = claims.into();
        snapshot
    }

    fn count(snapshot: &mut Snapshot, counted: &[Counters]) {
        let trees = &snapshot.observation.state.trees;
        let mut next = counted.iter().cycle().copied();
        let mut of = |tree: &Tree| {
            tree.classes.keys().map(|id| (*id, next.next().unwrap_or_default())).collect()
        };
        snapshot.counters = trees.iter().map(|(port, tree)| (port.clone(), of(tree))).collect();
    }

    prop_compose! {
        fn counters()(sent in 0_u64..1 << 40, rest in prop::array::uniform5(0_u64..3)) -> Counters {
            let [drops, backlog, lends, borrows, overlimits] = rest;
            Counters {
                sent_bytes: sent,
                sent_packets: sent / 1_000,
                drops,
                overlimits,
                backlog_bytes: backlog * 1_500,
                backlog_packets: backlog,
                lends,
                borrows,
            }
        }
    }

    proptest! {
        /// A report that is renewed is the one that would be made.
        #[test]
        fn what_is_renewed_is_what_would_be_written_anew(
            looks in prop::collection::vec(prop::collection::vec(counters(), 1..9), 2..5),
        ) {
            let (mut snapshot, mut inputs) = (seen(), StatusInputs::default());
            count(&mut snapshot, &looks[0]);
            let mut last = Sample::of(&snapshot, Duration::ZERO);
            let mut report = status(&snapshot, &inputs);
            let places = Places::of(&report);
            for (at, counted) in looks.iter().enumerate().skip(1) {
                count(&mut snapshot, counted);
                let sample = Sample::of(&snapshot, Duration::from_secs(at as u64));
                inputs.differences = Some(sample.since(&last));
                let owner = Owner::User(Key::new("zoe").unwrap());
                inputs.processes.insert(owner, at);
                last = sample;
                report.renew(&places, &snapshot, &inputs);
                report.renew_processes(&inputs);
                let anew = status(&snapshot, &inputs);
                let text = |it: &Status| serde_json::to_string(it).unwrap();
                prop_assert_eq!(text(&report), text(&anew));
            }
        }
    }
}

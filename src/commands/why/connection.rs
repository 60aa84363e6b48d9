//! Where a connection's packets go, both ways: the rules in their order, then whose it is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::num::NonZeroU32;

use nix::ifaddrs::getifaddrs;
use serde::Serialize;

use super::standing::{self, InForce};
use crate::classify::decision::decide;
use crate::facts::Observation;
use crate::intent::Meaning;
use crate::status::Status;
use crate::text::shown;
use crate::tree::{Claim, Direction, Headers, LinkName, Port, Reserved, Tree};
use crate::units::ClassId;

/// A port that is taken for the connection's own where the command line names none: of those that
/// the kernel chooses (`ip_local_port_range`).
const SOME_PORT: u16 = 50_000;
/// The protocols that have ports (net/sched: where u32 rules look for them).
const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];

/// What the command line says of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// The other end.
    pub to: SocketAddr,
    /// The host's own end; a port 0: some port.
    pub from: Option<SocketAddr>,
    pub proto: u8,
}

/// What stands and goes now, and what the file means.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    pub seen: &'a Observation,
    pub status: &'a Status,
    pub meaning: &'a Meaning,
}

/// Where packets go at one port of a link.
#[derive(Serialize)]
pub(super) struct Way {
    pub dev: String,
    pub direction: &'static str,
    /// As plans have the two.
    #[serde(skip)]
    pub port: String,
    /// The line of `rules` that decides, counted from 1; absent where none does.
    pub rule: Option<NonZeroU32>,
    pub classid: String,
    /// Whose the class is.
    pub whose: String,
    /// The rules before it, by the file, and the field for which each is not for this connection;
    /// `null`: by the file it is, and apply has not run since.
    pub passed: Vec<(NonZeroU32, Option<&'static str>)>,
    pub in_force: Option<InForce>,
}

/// The ways of a connection of whoever has the class (`None`: nobody has), out and back.
pub(super) fn ways(known: Known<'_>, asked: &Asked, sender: Option<ClassId>) -> Vec<Way> {
    let seen = known.seen;
    let own = asked.from.map(|from| from.ip()).filter(|ip| !ip.is_unspecified());
    let own = own.or_else(|| source(asked.to)).unwrap_or(match asked.to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    });
    let own_port = asked.from.map(|from| from.port()).filter(|port| *port != 0);
    let leaves = Headers {
        vlan: 0,
        proto: Some(asked.proto),
        addresses: Some((own, asked.to.ip())),
        ports: WITH_PORTS
            .contains(&asked.proto)
            .then(|| (own_port.unwrap_or(SOME_PORT), asked.to.port())),
    };
    let link = link_of(own).filter(|link| seen.state.trees.keys().any(|it| it.link == *link));
    let trees = seen.state.trees.iter();
    let here = trees.filter(|(port, _)| link.as_ref().is_none_or(|link| port.link == *link));
    here.map(|(port, tree)| {
        let headers = match port.direction {
            Direction::Egress => leaves,
            Direction::Ingress => leaves.mirrored(),
        };
        way(known, (port, tree), &headers, sender)
    })
    .collect()
}

fn way(
    known: Known<'_>,
    (port, tree): (&Port, &Tree),
    headers: &Headers,
    sender: Option<ClassId>,
) -> Way {
    let decision = decide(tree, headers, sender);
    let (class, text) = (decision.class, decision.class.to_string());
    let rows = standing::rows(known.status, &text);
    let (dev, direction) = (port.link.to_string(), port.direction.as_str());
    let row = rows.iter().find(|row| row.link.dev == dev && row.link.direction == direction);
    Way {
        in_force: row.map(|row| row.in_force(class == ClassId::UNSHAPED)),
        dev,
        direction,
        port: port.to_string(),
        rule: decision.rule,
        classid: text,
        whose: whose(known.seen, class),
        passed: passed(known.meaning, port, headers, (decision.rule, sender)),
    }
}

/// The file's rules before the one that decides, each with the field in which the packet differs.
fn passed(
    meaning: &Meaning,
    port: &Port,
    headers: &Headers,
    (decides, sender): (Option<NonZeroU32>, Option<ClassId>),
) -> Vec<(NonZeroU32, Option<&'static str>)> {
    let claims = &meaning.observation.state.claims;
    let rules = meaning.model.rules.iter();
    let before = rules.filter(|rule| decides.is_none_or(|line| rule.line < line));
    let here = before.filter(|rule| rule.links.as_ref().is_none_or(|it| it.contains(&port.link)));
    here.map(|rule| {
        let packets = match port.direction {
            Direction::Egress => rule.packets.clone(),
            Direction::Ingress => rule.packets.mirrored(),
        };
        let is_theirs = rule.from.as_ref().is_none_or(|from| {
            let class = |owner| claims.get(&Claim::Owner(owner)).copied();
            let mut classes = from.owners.iter().cloned().filter_map(class);
            classes.any(|class| Some(class) == sender) != from.not
        });
        (rule.line, packets.differs(headers).or((!is_theirs).then_some("from")))
    })
    .collect()
}

fn whose(seen: &Observation, class: ClassId) -> String {
    let is_it = |(_, id): &(&Claim, &ClassId)| id.our_class() == Some(class);
    match (class, seen.state.claims.iter().find(is_it).map(|(claim, _)| claim)) {
        (ClassId::DEFAULT, _) => Reserved::Default.to_string(),
        (ClassId::UNSHAPED, _) => Reserved::Unshaped.to_string(),
        (_, Some(Claim::Owner(owner) | Claim::Pinned(owner))) => owner.to_string(),
        _ => "nobody".to_string(),
    }
}

/// The address from which this host would send there. Nothing is sent for that.
fn source(to: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(to).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// The link that has an address.
fn link_of(address: IpAddr) -> Option<LinkName> {
    let mut all = getifaddrs().ok()?;
    let has = |it: &nix::ifaddrs::InterfaceAddress| {
        let storage = it.address.as_ref()?;
        let v4 = storage.as_sockaddr_in().map(|it| IpAddr::from(it.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|it| IpAddr::from(it.ip())))
    };
    let found = all.find(|it| has(it) == Some(address))?;
    LinkName::new(&found.interface_name)
}

impl Way {
    /// `up0: rule 2 sends it to games, class 1:11; rule 1 is not for it (dport); now 0bit`.
    pub(super) fn text(&self) -> String {
        let whose = shown(&self.whose);
        let mut text = match self.rule {
            Some(rule) => {
                format!("{}: rule {rule} sends it to {whose}, class {}", self.port, self.classid)
            }
            None => format!("{}: no rule decides: {whose}, class {}", self.port, self.classid),
        };
        for (rule, differs) in &self.passed {
            text.push_str(&match differs {
                Some(field) => format!("; rule {rule} is not for it ({field})"),
                None => format!("; by the file rule {rule} decides: apply has not run since"),
            });
        }
        if let Some(now) = &self.in_force {
            text.push_str(&format!("; now {}", now.text()));
        }
        text
    }
}

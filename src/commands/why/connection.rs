//! Where a connection's packets go, both ways: the rules in their order, then whose it is.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::num::NonZeroU32;

use serde::Serialize;

use super::standing::{self, InForce};
use crate::classify::decision::decide;
use crate::commands::address::link_of;
use crate::facts::Observation;
use crate::intent::Meaning;
use crate::model::Rule;
use crate::status::Status;
use crate::text::shown;
use crate::tree::{
    Claim, Direction, Filter, Headers, LinkName, Packets, Port, Reserved, Tree, U32Key,
};
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

/// What stands and goes now, and what the file means, where it is one that holds here.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    pub seen: &'a Observation,
    pub status: &'a Status,
    pub meaning: Option<&'a Meaning>,
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
    /// The port that was taken for the host's own, where the command line names none and a rule's
    /// `sport` asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assumed_sport: Option<u16>,
    pub in_force: Option<InForce>,
}

/// The ways of a connection of whoever has the class (`None`: nobody has), out and back.
pub(super) fn ways(known: Known<'_>, asked: &Asked, sender: Option<ClassId>) -> Vec<Way> {
    let seen = known.seen;
    let own = asked.from.map(|from| from.ip()).filter(|ip| !ip.is_unspecified());
    let own = own.or_else(|| source(asked.to)).unwrap_or(any(asked.to));
    let own_port = asked.from.map(|from| from.port()).filter(|port| *port != 0);
    let has_ports = WITH_PORTS.contains(&asked.proto);
    let leaves = Headers {
        vlan: 0,
        proto: Some(asked.proto),
        addresses: Some((own, asked.to.ip())),
        ports: has_ports.then(|| (own_port.unwrap_or(SOME_PORT), asked.to.port())),
    };
    let is_assumed = has_ports && own_port.is_none();
    if stays(asked.to) && !is_lo_shaped(seen) {
        return Vec::new();
    }
    let link = match stays(asked.to) {
        true => LinkName::new(LO),
        false => link_of(own),
    };
    let link = link.filter(|link| seen.state.trees.keys().any(|it| it.link == *link));
    let trees = seen.state.trees.iter();
    let here = trees.filter(|(port, _)| link.as_ref().is_none_or(|link| port.link == *link));
    here.map(|(port, tree)| {
        let packet = Packet { port, leaves, sender };
        let mut way = way(known, tree, &packet);
        let asks = is_assumed
            && match known.meaning {
                Some(meaning) => packet.asks_sport(meaning, way.rule),
                None => asks_own_port(tree, port.direction),
            };
        way.assumed_sport = asks.then_some(SOME_PORT);
        way
    })
    .collect()
}

/// The link of what the host sends to itself.
const LO: &str = "lo";

/// Whether packets to this end come by no other link than `lo`: the host has the address itself.
fn stays(to: SocketAddr) -> bool {
    to.ip().is_loopback() || !to.ip().is_unspecified() && link_of(to.ip()).is_some()
}

fn is_lo_shaped(seen: &Observation) -> bool {
    seen.state.trees.keys().any(|port| port.link.as_str() == LO)
}

/// Why nothing is said of where the packets of a connection with this end go; `None`: it is said.
pub(super) fn unseen(seen: &Observation, to: SocketAddr) -> Option<String> {
    let is_unseen = stays(to) && !is_lo_shaped(seen);
    is_unseen
        .then(|| format!("{} is this host: such packets go by {LO}, which is not shaped", to.ip()))
}

/// Why nothing is said of where a guest's packets to this end go: they leave the host by no link.
/// `comes_in_by`: the guest's links; none: no guest was asked about.
pub(super) fn ends_before_a_link(to: SocketAddr, comes_in_by: &[String]) -> Option<String> {
    let ip = to.ip();
    match comes_in_by {
        [] => None,
        _ if ip.is_loopback() => {
            Some(format!("{ip} is the guest itself: such packets do not leave it"))
        }
        links => stays(to).then(|| {
            let links = shown(&links.join(", ")).to_string();
            format!("{ip} is this host: such packets come in by {links} and go on by no link")
        }),
    }
}

/// A packet of the connection at one port of a link.
struct Packet<'a> {
    port: &'a Port,
    /// What the connection's packets have that leave.
    leaves: Headers,
    sender: Option<ClassId>,
}

impl Packet<'_> {
    fn headers(&self) -> Headers {
        match self.port.direction {
            Direction::Egress => self.leaves,
            Direction::Ingress => self.leaves.mirrored(),
        }
    }

    /// The file's rules that are on the link, up to this line or all.
    fn rules<'m>(
        &self,
        meaning: &'m Meaning,
        to: Option<NonZeroU32>,
    ) -> impl Iterator<Item = &'m Rule> {
        let rules = meaning.model.rules.iter();
        let first = rules.filter(move |rule| to.is_none_or(|line| rule.line <= line));
        let link = &self.port.link;
        first.filter(move |rule| rule.links.as_ref().is_none_or(|it| it.contains(link)))
    }

    /// The field for which a rule is not for the connection, if it is for such packets, as the file
    /// spells it: what leaves; `None`: the rule is for it.
    fn differs(&self, meaning: &Meaning, rule: &Rule, packets: &Packets) -> Option<&'static str> {
        let claims = &meaning.observation.state.claims;
        let is_theirs = rule.from.as_ref().is_none_or(|from| {
            let class = |owner| claims.get(&Claim::Owner(owner)).copied();
            let mut classes = from.owners.iter().cloned().filter_map(class);
            classes.any(|class| Some(class) == self.sender) != from.not
        });
        packets.differs(&self.leaves).or((!is_theirs).then_some("from"))
    }

    /// Whether one of the file's rules, up to the one that decides, asks for the host's own port
    /// and for nothing else that this packet has not.
    fn asks_sport(&self, meaning: &Meaning, decides: Option<NonZeroU32>) -> bool {
        self.rules(meaning, decides).any(|rule| {
            let any_port = Packets { sport: None, ..rule.packets.clone() };
            rule.packets.sport.is_some() && self.differs(meaning, rule, &any_port).is_none()
        })
    }
}

/// Whether a rule that stands asks for the host's own port, which is the source of what leaves.
fn asks_own_port(tree: &Tree, direction: Direction) -> bool {
    // Where the ports are behind an IPv4 header without options, and behind an IPv6 header.
    const PORTS: [i32; 2] = [20, 40];
    let half = match direction {
        Direction::Egress => 0xffff_0000,
        Direction::Ingress => 0x0000_ffff,
    };
    let by_key = |key: &U32Key| PORTS.contains(&key.offset) && key.mask & half != 0;
    let by_packets = |packets: &Packets| match direction {
        Direction::Egress => packets.sport.is_some(),
        Direction::Ingress => packets.dport.is_some(),
    };
    tree.filters.values().any(|filter| match filter {
        Filter::U32 { rules, .. } => rules.rules().any(|rule| rule.keys.iter().any(by_key)),
        Filter::Program(program) => program.rules.iter().any(|rule| by_packets(&rule.packets)),
        _ => false,
    })
}

fn way(known: Known<'_>, tree: &Tree, packet: &Packet<'_>) -> Way {
    let port = packet.port;
    let decision = decide(tree, &packet.headers(), packet.sender);
    let class = decision.class;
    Way {
        dev: port.link.to_string(),
        direction: port.direction.as_str(),
        port: port.to_string(),
        rule: decision.rule,
        classid: class.to_string(),
        whose: whose(known.seen, class),
        passed: known.meaning.map_or_else(Vec::new, |it| passed(it, packet, decision.rule)),
        assumed_sport: None,
        in_force: standing::row(known.status, port, class).map(|row| row.in_force()),
    }
}

/// The file's rules before the one that decides, each with the field in which the packet differs.
fn passed(
    meaning: &Meaning,
    packet: &Packet<'_>,
    decides: Option<NonZeroU32>,
) -> Vec<(NonZeroU32, Option<&'static str>)> {
    let before = packet.rules(meaning, decides).filter(|rule| Some(rule.line) != decides);
    before.map(|rule| (rule.line, packet.differs(meaning, rule, &rule.packets))).collect()
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

/// What is said of a connection whose packets can go nowhere. The host's own end may have a route
/// of its own, so where that is named nothing is said.
pub(super) fn unreachable(asked: &Asked) -> Option<String> {
    if asked.from.is_some() {
        return None;
    }
    let error = connect(any(asked.to), asked.to).err()?;
    let is_so = matches!(error.kind(), ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable);
    let to = asked.to.ip();
    is_so.then(|| {
        format!("there is no route to {to} now, so nothing is sent there (`ip route get {to}`)")
    })
}

/// The address from which this host would send there. Nothing is sent for that.
fn source(to: SocketAddr) -> Option<IpAddr> {
    Some(connect(any(to), to).ok()?.local_addr().ok()?.ip())
}

fn connect(from: IpAddr, to: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((from, 0))?;
    socket.connect(to)?;
    Ok(socket)
}

/// All addresses of the family.
fn any(to: SocketAddr) -> IpAddr {
    match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
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
        if let Some(port) = self.assumed_sport {
            text.push_str(&format!(
                "; port {port} is taken for the host's own, for which a rule asks: `--from` says another"
            ));
        }
        if let Some(now) = &self.in_force {
            text.push_str(&format!("; now {}", now.text()));
        }
        text
    }
}

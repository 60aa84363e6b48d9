//! Dump messages → typed records. Each function reads one message: `Ok(None)` where the message is
//! about something else, an error where it does not make sense, never a panic, whatever the bytes.

use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{LinkFlags, LinkHeader, LinkLayerType};
use netlink_packet_route::route::{RouteFlags, RouteHeader, RouteType};
use netlink_packet_route::tc::TcHeader;

use super::cls_u32::{self, U32Record};
use super::htb::{self, Globals, Parms};
use super::{
    Message, RTM_NEWLINK, RTM_NEWQDISC, RTM_NEWROUTE, RTM_NEWTCLASS, RTM_NEWTFILTER, TC_H_ROOT,
    attr, leaf, mirred,
};
use crate::facts::{NamespaceId, RootQdisc};
use crate::tree::{Class, Counters, Family, LeafQdisc, LinkName, Mark, Pref};
use crate::units::ClassId;

/// The message lacks what every message of its kind has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kernel's description of a {what} cannot be read: {why}")]
pub struct Undecodable {
    what: &'static str,
    why: &'static str,
}

impl Undecodable {
    pub(super) fn new(what: &'static str, why: &'static str) -> Undecodable {
        Undecodable { what, why }
    }
}

/// One record of a dump; `None`: the message is about something else.
pub type Decoded<T> = Result<Option<T>, Undecodable>;

pub(super) const TCA_KIND: u16 = 1;
pub(super) const TCA_OPTIONS: u16 = 2;
const TCA_XSTATS: u16 = 4;
pub(super) const TCA_STATS2: u16 = 7;
const TCA_CHAIN: u16 = 11;

pub(super) const TCA_STATS_BASIC: u16 = 1;
pub(super) const TCA_STATS_QUEUE: u16 = 3;
const TCA_STATS_APP: u16 = 4;
pub(super) const TCA_STATS_PKT64: u16 = 8;

const TC_HEADER: usize = 20;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkRecord {
    /// `ifi_index`.
    pub ifindex: u32,
    /// `IFLA_IFNAME`.
    pub name: LinkName,
    /// The link's alternative names (`IFLA_PROP_LIST`).
    pub altnames: Vec<String>,
    /// `IFLA_MTU`, bytes.
    pub mtu: u32,
    /// `IFLA_INFO_KIND`; `None` for hardware.
    pub kind: Option<String>,
    /// The ifindex of the bond or bridge that the link is a slave of (`IFLA_MASTER`).
    pub master: Option<u32>,
    /// The ifindex of the link below this one (`IFLA_LINK`), where that is in the same namespace;
    /// not of a veth's peer.
    pub lower: Option<u32>,
    /// The network namespace in which a veth's peer is, where that is another one.
    pub peer_namespace: Option<NamespaceId>,
    /// `IFF_LOOPBACK`.
    pub loopback: bool,
    /// Whether the link-layer type is Ethernet's (`ARPHRD_ETHER`).
    pub ethernet: bool,
    /// `IFF_UP`: an administrator switched the link on.
    pub up: bool,
    /// The number of a program of generic XDP (`IFLA_XDP`).
    pub generic_xdp: Option<u32>,
    /// `IFLA_IFALIAS`.
    pub alias: Option<String>,
    /// The kind of the root qdisc, as the link itself says (`IFLA_QDISC`).
    pub qdisc: Option<String>,
}

/// A qdisc, ours or another's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QdiscRecord {
    /// The link's number (`tcm_ifindex`).
    pub ifindex: u32,
    /// `None`: the link's root.
    pub parent: Option<ClassId>,
    /// Major 0: the kernel put it there itself.
    pub handle: ClassId,
    /// `TCA_KIND`.
    pub kind: String,
    /// What an HTB qdisc says of itself; `None` for another kind.
    pub htb: Option<Globals>,
    /// The qdisc as a leaf, where it is of a kind that shaper puts below a class.
    pub leaf: Option<LeafQdisc>,
    /// `TCA_OPTIONS` as dumped, of a root qdisc that somebody made: most kinds can be made again
    /// with the same bytes.
    pub options: Vec<u8>,
    /// Packets and bytes that have passed the qdisc or wait in it.
    pub counters: Counters,
}

/// An HTB class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassRecord {
    /// The link's number (`tcm_ifindex`).
    pub ifindex: u32,
    /// The class's handle (`tcm_handle`).
    pub classid: ClassId,
    /// `None`: directly below the qdisc.
    pub parent: Option<ClassId>,
    /// The class as a value of our tree, whoever made it; the role follows from the classid.
    pub class: Class,
    /// The qdisc below it; [`ClassId::NONE`] for the fifo that a class has by itself and for inner
    /// classes.
    pub leaf: ClassId,
    /// The class's parameters, as the kernel has them.
    pub parms: Parms,
    /// Packets and bytes that have passed the class or wait in it and below it.
    pub counters: Counters,
}

/// One record of a filter's dump: a u32 filter has several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterRecord {
    /// The link's number (`tcm_ifindex`).
    pub ifindex: u32,
    /// The qdisc, or the side of `clsact`, that asks the filter.
    pub parent: ClassId,
    /// The filter's preference: a lower one is asked earlier (the upper half of `tcm_info`).
    pub pref: Pref,
    /// Ethertype.
    pub protocol: u16,
    /// `TCA_CHAIN`; 0 where the kernel says none.
    pub chain: u32,
    /// `TCA_KIND`: `u32`, `cgroup`, `bpf` or any other.
    pub kind: String,
    /// The filter's handle at its pref (`tcm_handle`), as its kind numbers filters.
    pub handle: u32,
    /// The class that the filter sends packets to, whoever made either: while the filter exists,
    /// HTB refuses to delete that class.
    pub binds: Option<ClassId>,
    /// How many packets a u32 rule has matched, where the kernel counts it.
    pub hits: Option<u64>,
    /// The filter's options, by its kind.
    pub detail: FilterDetail,
}

/// What a filter record says beyond its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterDetail {
    /// The pref itself, before its filters.
    Pref,
    /// A rule or a hash table of `cls_u32`.
    U32(U32Record),
    /// `cls_cgroup`; `plain`: without ematches and actions.
    Cgroup {
        /// Neither ematches nor actions: such as ours are.
        plain: bool,
    },
    /// `cls_bpf`.
    Bpf {
        /// `TCA_BPF_NAME`, which says of our filters which program they are.
        name: Option<String>,
        /// `TCA_BPF_CLASSID`: the class of packets to which the program gives none.
        classid: Option<ClassId>,
        /// Neither direct action nor actions: such as our filters below the root are.
        plain: bool,
        /// Direct action without actions: such as our filters at clsact's egress are.
        direct: bool,
        /// The ifindex of the device to whose root qdisc its one action sends what matches, without
        /// direct action: such as our filter at clsact's ingress is.
        redirects_to: Option<u32>,
    },
    /// A kind of filter that shaper never makes.
    Other,
}

/// A default route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    /// Which family's packets take the route.
    pub family: Family,
    /// The metric (`RTA_PRIORITY`); of two routes the lower one is taken.
    pub metric: u32,
    /// The ifindexes of the links by which the route leaves; several with multipath.
    pub links: Vec<u32>,
}

/// Reads a message of [`super::request::dump::qdiscs`].
pub fn qdisc(message: Message<'_>) -> Decoded<QdiscRecord> {
    let Some(tc) = Tc::read("qdisc", RTM_NEWQDISC, message)? else { return Ok(None) };
    let options = tc.find(TCA_OPTIONS);
    let htb = if tc.kind == htb::KIND { options.and_then(htb::globals) } else { None };
    Ok(Some(QdiscRecord {
        ifindex: tc.ifindex,
        parent: tc.parent(),
        handle: tc.handle,
        htb,
        leaf: leaf::read(&tc.kind, options),
        options: match tc.parent() {
            None if tc.handle != ClassId::NONE => options.unwrap_or_default().to_vec(),
            _ => Vec::new(),
        },
        counters: counters(&tc, false),
        kind: tc.kind.into_owned(),
    }))
}

/// Reads a message of [`super::request::dump::classes`]; `None` also for classes of other qdiscs
/// than HTB.
pub fn class(message: Message<'_>) -> Decoded<ClassRecord> {
    let Some(tc) = Tc::read("class", RTM_NEWTCLASS, message)? else { return Ok(None) };
    if tc.kind != htb::KIND {
        return Ok(None);
    }
    let parms = tc
        .find(TCA_OPTIONS)
        .and_then(htb::read_parms)
        .ok_or(Undecodable { what: "class", why: "no HTB parameters" })?;
    let parent = tc.parent();
    Ok(Some(ClassRecord {
        ifindex: tc.ifindex,
        classid: tc.handle,
        parent,
        class: parms.class(tc.handle, parent),
        leaf: ClassId(tc.info),
        parms,
        counters: counters(&tc, true),
    }))
}

/// Reads a message of [`super::request::dump::filters`].
pub fn filter(message: Message<'_>) -> Decoded<FilterRecord> {
    let Some(tc) = Tc::read("filter", RTM_NEWTFILTER, message)? else { return Ok(None) };
    let detail = match (tc.find(TCA_OPTIONS), tc.handle.0) {
        (None, 0) => FilterDetail::Pref,
        (None, _) => FilterDetail::Other,
        (Some(options), _) => match &*tc.kind {
            cls_u32::KIND => FilterDetail::U32(cls_u32::read(options)),
            "cgroup" => FilterDetail::Cgroup { plain: plain_cgroup(options) },
            "bpf" => bpf(options),
            _ => FilterDetail::Other,
        },
    };
    Ok(Some(FilterRecord {
        ifindex: tc.ifindex,
        parent: ClassId(tc.raw_parent),
        pref: Pref((tc.info >> 16) as u16),
        protocol: u16::from_be((tc.info & 0xffff) as u16),
        chain: tc.find(TCA_CHAIN).and_then(|value| attr::u32_at(value, 0)).unwrap_or(0),
        handle: tc.handle.0,
        binds: binds(&tc),
        hits: (tc.kind == cls_u32::KIND).then(|| cls_u32::hits(tc.find(TCA_OPTIONS)?)).flatten(),
        detail,
        kind: tc.kind.into_owned(),
    }))
}

/// Without actions and ematches. A kernel with CONFIG_NET_EMATCH dumps a tree of ematches also
/// where there are none: a header (`struct tcf_ematch_tree_hdr`) that counts 0 (`tcf_em_tree_dump`,
/// net/sched/ematch.c).
fn plain_cgroup(options: &[u8]) -> bool {
    const EMATCHES: u16 = 3;
    const TREE_HDR: u16 = 1;
    attr::attrs(options).all(|(kind, value)| {
        let header = attr::find(value, TREE_HDR).unwrap_or(&[]);
        kind == EMATCHES && header.starts_with(&[0, 0])
    })
}

/// `TCA_BPF_*` (net/sched/cls_bpf.c, `cls_bpf_dump`).
fn bpf(options: &[u8]) -> FilterDetail {
    const ACT: u16 = 1;
    const POLICE: u16 = 2;
    const CLASSID: u16 = 3;
    const OPS: u16 = 5;
    const NAME: u16 = 7;
    const FLAGS: u16 = 8;
    // `TCA_BPF_FLAG_ACT_DIRECT`.
    const DIRECT_ACTION: u32 = 1;
    let flags = attr::find(options, FLAGS).and_then(|value| attr::u32_at(value, 0)).unwrap_or(0);
    let extra = [ACT, POLICE, OPS].iter().any(|kind| attr::find(options, *kind).is_some());
    let classid = attr::find(options, CLASSID).and_then(|value| attr::u32_at(value, 0));
    FilterDetail::Bpf {
        name: attr::find(options, NAME).map(attr::text),
        classid: classid.map(ClassId),
        plain: flags == 0 && !extra,
        redirects_to: if flags == 0 { mirred::redirects_to(options) } else { None },
        direct: flags == DIRECT_ACTION && !extra,
    }
}

/// The fields that every message of traffic control has (`struct tcmsg`).
struct Tc<'a> {
    ifindex: u32,
    handle: ClassId,
    raw_parent: u32,
    info: u32,
    kind: std::borrow::Cow<'a, str>,
    attributes: &'a [u8],
}

impl<'a> Tc<'a> {
    fn read(what: &'static str, wanted: u16, message: Message<'a>) -> Decoded<Tc<'a>> {
        if message.kind != wanted {
            return Ok(None);
        }
        let bad = |why| Undecodable { what, why };
        let header = TcHeader::parse(message.payload).map_err(|_| bad("it is too short"))?;
        let attributes = message.payload.get(TC_HEADER..).unwrap_or(&[]);
        Ok(Some(Tc {
            ifindex: u32::try_from(header.index).map_err(|_| bad("its ifindex is negative"))?,
            handle: ClassId(header.handle.into()),
            raw_parent: header.parent.into(),
            info: header.info,
            kind: attr::borrowed(attr::find(attributes, TCA_KIND).ok_or(bad("it has no kind"))?),
            attributes,
        }))
    }

    fn find(&self, kind: u16) -> Option<&'a [u8]> {
        attr::find(self.attributes, kind)
    }

    fn parent(&self) -> Option<ClassId> {
        (self.raw_parent != TC_H_ROOT).then_some(ClassId(self.raw_parent))
    }
}

/// `TCA_U32_CLASSID`, `TCA_BASIC_CLASSID`, `TCA_FLOWER_CLASSID`… are all the first attribute of
/// their kind (linux/pkt_cls.h); `TCA_BPF_CLASSID` is the third, and names only our root.
fn binds(tc: &Tc<'_>) -> Option<ClassId> {
    let kind = match &*tc.kind {
        "u32" | "basic" | "flower" | "matchall" | "fw" | "route" => 1,
        "bpf" => 3,
        _ => return None,
    };
    let classid = attr::find(tc.find(TCA_OPTIONS)?, kind)?;
    attr::u32_at(classid, 0).map(ClassId)
}

/// `TCA_STATS2` (net/core/gen_stats.c). The packets in BASIC are a 32-bit number that wraps; the
/// kernel adds PKT64 once it has. `class`: `TCA_STATS_APP` is HTB's.
fn counters(tc: &Tc<'_>, class: bool) -> Counters {
    let mut counters = Counters::default();
    let Some(stats) = tc.find(TCA_STATS2) else { return counters };
    if let Some(basic) = attr::find(stats, TCA_STATS_BASIC) {
        counters.sent_bytes = attr::u64_at(basic, 0).unwrap_or(0);
        counters.sent_packets = attr::u32_at(basic, 8).unwrap_or(0).into();
    }
    if let Some(packets) = attr::find(stats, TCA_STATS_PKT64).and_then(|v| attr::u64_at(v, 0)) {
        counters.sent_packets = packets;
    }
    if let Some(queue) = attr::find(stats, TCA_STATS_QUEUE) {
        let word = |at| attr::u32_at(queue, at).unwrap_or(0).into();
        counters.backlog_packets = word(0);
        counters.backlog_bytes = word(4);
        counters.drops = word(8);
        counters.overlimits = word(16);
    }
    let xstats = attr::find(stats, TCA_STATS_APP).or_else(|| tc.find(TCA_XSTATS));
    if class && let Some((lends, borrows)) = xstats.and_then(htb::lends_and_borrows) {
        (counters.lends, counters.borrows) = (lends, borrows);
    }
    counters
}

/// The root qdisc of a link, from the qdiscs of that link. `known`: the kind that the link itself
/// says, for a root that the kernel does not list (`noop` of a link that is down).
pub fn root(qdiscs: &[QdiscRecord], known: Option<&str>, mark: Mark) -> RootQdisc {
    let Some(root) = qdiscs.iter().find(|qdisc| qdisc.parent.is_none()) else {
        return RootQdisc::Kernel { kind: known.unwrap_or("noqueue").to_string() };
    };
    let r2q = root.htb.map(|globals| globals.rate2quantum);
    if root.handle == ClassId::NONE {
        RootQdisc::Kernel { kind: root.kind.clone() }
    } else if root.handle == ClassId::ROOT && r2q == Some(mark.0) {
        RootQdisc::Ours
    } else {
        let options = root.options.clone();
        RootQdisc::Foreign { kind: root.kind.clone(), handle: root.handle, r2q, options }
    }
}

/// Reads a message of [`super::request::dump::links`].
pub fn link(message: Message<'_>) -> Decoded<LinkRecord> {
    // linux/if_link.h
    const IFLA_IFNAME: u16 = 3;
    const IFLA_MTU: u16 = 4;
    const IFLA_LINK: u16 = 5;
    const IFLA_QDISC: u16 = 6;
    const IFLA_MASTER: u16 = 10;
    const IFLA_LINKINFO: u16 = 18;
    const IFLA_IFALIAS: u16 = 20;
    const IFLA_LINK_NETNSID: u16 = 37;
    const IFLA_XDP: u16 = 43;
    // What is attached (`XDP_ATTACHED_SKB`: 2), and the program's number.
    const IFLA_XDP_ATTACHED: u16 = 2;
    const IFLA_XDP_PROG_ID: u16 = 4;
    const IFLA_INFO_KIND: u16 = 1;
    const HEADER: usize = 16;

    if message.kind != RTM_NEWLINK {
        return Ok(None);
    }
    let bad = |why| Undecodable { what: "link", why };
    let header = LinkHeader::parse(message.payload).map_err(|_| bad("it is too short"))?;
    // Bridges list their ports a second time, as messages of their own family.
    if header.interface_family != AddressFamily::Unspec {
        return Ok(None);
    }
    let attributes = message.payload.get(HEADER..).unwrap_or(&[]);
    let number = |kind| attr::find(attributes, kind).and_then(|value| attr::u32_at(value, 0));
    let name = attr::find(attributes, IFLA_IFNAME).map(attr::text);
    let info = attr::find(attributes, IFLA_LINKINFO);
    let kind = info.and_then(|info| attr::find(info, IFLA_INFO_KIND)).map(attr::text);
    let below = number(IFLA_LINK).filter(|index| *index != 0 && *index != header.index);
    let elsewhere = number(IFLA_LINK_NETNSID).map(|id| NamespaceId(id.cast_signed()));
    let beside = matches!(kind.as_deref(), Some("veth" | "netkit" | "vxcan"));
    let xdp = attr::find(attributes, IFLA_XDP).unwrap_or(&[]);
    let is_generic = attr::find(xdp, IFLA_XDP_ATTACHED).is_some_and(|it| it.first() == Some(&2));
    let xdp = attr::find(xdp, IFLA_XDP_PROG_ID).and_then(|value| attr::u32_at(value, 0));
    Ok(Some(LinkRecord {
        generic_xdp: xdp.filter(|_| is_generic),
        ifindex: header.index,
        name: name.and_then(|name| LinkName::new(&name)).ok_or(bad("it has no name"))?,
        altnames: altnames(attributes),
        mtu: number(IFLA_MTU).ok_or(bad("it has no MTU"))?,
        kind,
        master: number(IFLA_MASTER).filter(|index| *index != 0),
        lower: if elsewhere.is_some() || beside { None } else { below },
        peer_namespace: elsewhere.filter(|id| beside && id.0 >= 0),
        loopback: header.link_layer_type == LinkLayerType::Loopback,
        ethernet: header.link_layer_type == LinkLayerType::Ether,
        up: header.flags.contains(LinkFlags::Up),
        alias: attr::find(attributes, IFLA_IFALIAS).map(attr::text),
        qdisc: attr::find(attributes, IFLA_QDISC).map(attr::text),
    }))
}

/// The alternative names in a link's attributes (`rtnl_fill_prop_list`, net/core/rtnetlink.c).
pub(super) fn altnames(attributes: &[u8]) -> Vec<String> {
    const IFLA_PROP_LIST: u16 = 52;
    const IFLA_ALT_IFNAME: u16 = 53;
    let list = attr::find(attributes, IFLA_PROP_LIST).unwrap_or(&[]);
    let names = attr::attrs(list).filter(|(kind, _)| *kind == IFLA_ALT_IFNAME);
    names.map(|(_, name)| attr::text(name)).collect()
}

/// Reads a message of [`super::request::dump::routes`]; `None` for all but default routes of the
/// main table that lead somewhere.
pub fn default_route(message: Message<'_>) -> Decoded<DefaultRoute> {
    // linux/rtnetlink.h
    const RTA_OIF: u16 = 4;
    const RTA_PRIORITY: u16 = 6;
    const RTA_MULTIPATH: u16 = 9;
    const RTA_TABLE: u16 = 15;
    const HEADER: usize = 12;

    if message.kind != RTM_NEWROUTE {
        return Ok(None);
    }
    let bad = |why| Undecodable { what: "route", why };
    let header = RouteHeader::parse(message.payload).map_err(|_| bad("it is too short"))?;
    let family = match header.address_family {
        AddressFamily::Inet => Family::V4,
        AddressFamily::Inet6 => Family::V6,
        _ => return Ok(None),
    };
    let attributes = message.payload.get(HEADER..).unwrap_or(&[]);
    let number = |kind| attr::find(attributes, kind).and_then(|value| attr::u32_at(value, 0));
    let table = number(RTA_TABLE).unwrap_or(header.table.into());
    if header.destination_prefix_length != 0
        || header.kind != RouteType::Unicast
        || header.flags.contains(RouteFlags::Cloned)
        || table != u32::from(RouteHeader::RT_TABLE_MAIN)
    {
        return Ok(None);
    }
    let mut links: Vec<u32> = number(RTA_OIF).into_iter().collect();
    links.extend(attr::find(attributes, RTA_MULTIPATH).into_iter().flat_map(next_hops));
    Ok(Some(DefaultRoute { family, metric: number(RTA_PRIORITY).unwrap_or(0), links }))
}

/// The links of a multipath route (`struct rtnexthop`: length, flags, hops, ifindex, attributes).
fn next_hops(mut bytes: &[u8]) -> Vec<u32> {
    let mut links = vec![];
    while let Some(ifindex) = attr::u32_at(bytes, 4) {
        links.push(ifindex);
        let length = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        if length < 8 {
            break;
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    links
}

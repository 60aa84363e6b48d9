//! Each link: whether its root is ours to make, who else configures it, and whether it is as exact
//! and as fast as its rate.

use super::check::Check;
use super::manager::Manager;
use crate::facts::{LinkFacts, RootQdisc};
use crate::intent::{ONE_LOCK, packets_a_second};
use crate::text::shown;
use crate::tree::{LinkName, Mark};
use crate::units::Rate;

/// A link.
#[derive(Clone, Debug)]
pub struct LinkFound {
    /// Its name.
    pub name: LinkName,
    /// As the kernel describes it, with the device's speed.
    pub facts: LinkFacts,
    /// What it is shaped to, or would be; `None`: no policy says so.
    pub rate: Option<Rate>,
    /// The same for what arrives.
    pub down: Option<Rate>,
    /// The lowest cap of a line, and whose it is.
    pub lowest: Option<(Rate, String)>,
    /// What others have at its hooks or before them, a sentence for each.
    pub beside: Vec<String>,
    /// Those of `beside` that say only that nobody could look.
    pub unseen: Vec<String>,
    /// Some of that is Cilium's.
    pub is_ciliums: bool,
    /// Who else configures it.
    pub manager: Option<Manager>,
    /// The device's queues for sending; `None`: it is not known.
    pub queues: Option<u32>,
    /// Bytes of the largest packet that the device is given in one piece.
    pub largest: Option<u32>,
    /// Large receive offload is on; `None`: the driver does not say.
    pub lro: Option<bool>,
    /// Filters of others at our roots there that are asked before ours, each with the command that
    /// removes it.
    pub foreign: Vec<(String, String)>,
    /// Packets that passed no class at all.
    pub direct_packets: u32,
}

/// What an ifb carries of packets as large as an MTU of 1,500 bytes (benches/RESULTS.md).
const ONE_IFB: u64 = 333_000;

/// `GSO_LEGACY_MAX_SIZE` (include/linux/netdevice.h), in bytes.
const GSO_PACKET: u64 = 65_536;

/// How long a packet may take at somebody's cap before it is felt.
const LONG_MS: u64 = 50;

pub(super) fn checks(link: &LinkFound, unprivileged: bool) -> Vec<Check> {
    let found = [
        root(link),
        manager(link),
        speed(link),
        lock(link),
        ifb(link),
        mtu(link),
        big_tcp(link),
        lro(link),
    ];
    let mut checks: Vec<Check> = found.into_iter().flatten().collect();
    checks.extend(others(link, unprivileged));
    checks.extend(link.foreign.iter().map(|(what, cure)| {
        let what = format!(
            "the {} is not shaper's and is asked first: what it takes is where it says, whosever it is",
            shown(what)
        );
        Check::warning("foreign", what, format!("if nobody needs it: {cure}"))
    }));
    if link.direct_packets > 0 {
        checks.push(Check::warning(
            "direct",
            format!("{} packets passed no class at all", link.direct_packets),
            "none is to be feared if that was while the tree was built; if the number grows (`shaper status`), see who sets SO_PRIORITY or has a filter to 1:0",
        ));
    }
    if checks.is_empty() {
        let rate = link.rate.map_or_else(String::new, |rate| format!(", {rate} to shape"));
        let (mtu, queues) = (link.facts.mtu, queues(link));
        checks.push(Check::ok("link", format!("MTU {mtu}, {queues}{rate}: nobody is in the way")));
    }
    for check in &mut checks {
        check.link = Some(link.name.to_string());
    }
    checks
}

fn queues(link: &LinkFound) -> String {
    match link.queues {
        Some(1) => "1 queue".to_string(),
        Some(count) => format!("{count} queues"),
        None => "queues unknown".to_string(),
    }
}

fn root(link: &LinkFound) -> Option<Check> {
    match &link.facts.root {
        RootQdisc::Foreign { r2q: Some(r2q), .. } if Mark::is_shaper(*r2q) => Some(Check::error(
            "root",
            "another instance of shaper shapes it",
            "ask that one (--cgroup NAME), or clear it there",
        )),
        RootQdisc::Foreign { kind, handle, .. } => Some(Check::error(
            "root",
            format!("somebody else's qdisc {} {handle} is at its root", shown(kind)),
            "take that program off the link, or replace its qdisc: shaper apply --takeover",
        )),
        RootQdisc::Kernel { .. } | RootQdisc::Ours => None,
    }
}

fn manager(link: &LinkFound) -> Option<Check> {
    let manager = link.manager.as_ref().filter(|manager| manager.shapes)?;
    let file =
        manager.file.as_deref().map_or_else(String::new, |file| format!(" ({})", shown(file)));
    Some(Check::warning(
        "manager",
        format!("{} configures traffic control there{file}, and replaces shaper's", manager.name),
        "take its sections of traffic control away, and reload it",
    ))
}

fn speed(link: &LinkFound) -> Option<Check> {
    let (rate, speed) = (link.rate?, link.facts.speed?);
    (rate > speed).then(|| {
        Check::warning(
            "speed",
            format!("it is shaped to {rate}, and the device has {speed}: what is queued is queued elsewhere"),
            "a rate that the link really carries",
        )
    })
}

fn lock(link: &LinkFound) -> Option<Check> {
    let rate = link.rate?;
    let count = packets_a_second(rate, link.facts.mtu);
    let mq = matches!(&link.facts.root, RootQdisc::Kernel { kind } if kind == "mq");
    (count > ONE_LOCK).then(|| {
        let mtu = link.facts.mtu;
        let queues = queues(link);
        let what = format!("{rate} are {count} packets of {mtu} bytes a second, and one HTB (the device has {queues}) carries about {ONE_LOCK}");
        let cure = match mq {
            true => "leave TSO and GRO on, which make packets larger; shaper apply --takeover replaces mq",
            false => "leave TSO and GRO on, which make packets larger; a larger MTU helps too",
        };
        Check::warning("packets", what, cure)
    })
}

fn ifb(link: &LinkFound) -> Option<Check> {
    let rate = link.down?;
    let count = packets_a_second(rate, link.facts.mtu);
    (count > ONE_IFB).then(|| {
        let what = format!("{rate} that arrive are {count} packets a second, and one ifb, which one processor serves, carries about {ONE_IFB} that GRO does not merge");
        Check::warning("packets_down", what, "leave GRO on; a larger MTU helps too")
    })
}

fn mtu(link: &LinkFound) -> Option<Check> {
    let (rate, whose) = link.lowest.as_ref()?;
    let mtu = link.facts.mtu;
    let takes = u64::from(mtu) * 1_000 / rate.bytes_per_second().max(1);
    (takes > LONG_MS && !link.facts.loopback).then(|| {
        let whose = shown(whose);
        let what = format!("one packet of {mtu} bytes takes {takes} ms at the cap of {whose} ({rate}): nothing else of theirs goes meanwhile");
        Check::warning("mtu", what, "a higher cap, or a smaller MTU")
    })
}

/// Shares, and queues of bytes, are made for packets of at most 64 KiB ([`GSO_PACKET`]).
fn big_tcp(link: &LinkFound) -> Option<Check> {
    let largest = u64::from(link.largest?);
    let (rate, whose) = link.lowest.as_ref()?;
    let takes = largest * 1_000 / rate.bytes_per_second().max(1);
    (largest > GSO_PACKET && takes > LONG_MS && !link.facts.loopback).then(|| {
        let (name, whose) = (&link.name, shown(whose));
        let what = format!("BIG TCP: one packet may have {largest} bytes and takes {takes} ms at the cap of {whose} ({rate}); caps hold over seconds only, and shares of what is left are uneven");
        let cure = format!("ip link set dev {name} gso_max_size {GSO_PACKET} gso_ipv4_max_size {GSO_PACKET}");
        Check::warning("big_tcp", what, cure)
    })
}

fn lro(link: &LinkFound) -> Option<Check> {
    (link.lro == Some(true) && link.down.is_some()).then(|| {
        let what = "LRO merges what arrives, and its headers are gone before they are counted";
        Check::warning(
            "offloads",
            what,
            format!("ethtool -K {} lro off (GRO may stay on)", link.name),
        )
    })
}

fn others(link: &LinkFound, unprivileged: bool) -> Vec<Check> {
    if link.down.is_none() {
        let what = "Cilium has programs there: it may send packets past every qdisc (bpf_redirect)";
        let cure = "see that its bandwidth manager is off, and with `shaper status` that its packets are counted";
        return link.is_ciliums.then(|| Check::warning("beside", what, cure)).into_iter().collect();
    }
    // What nobody has seen may not be there.
    let cure = |what: &String| match (link.unseen.contains(what), unprivileged) {
        (true, true) => "sudo shaper doctor".to_string(),
        (true, false) => {
            format!("bpftool net show dev {} shows them, on the host itself", link.name)
        }
        (false, _) if what.starts_with("the nftables ") => {
            "filter in `inet` or `ip` (hook prerouting) instead, which sees all".to_string()
        }
        (false, _) => {
            "take it away, or have it go on (TC_ACT_UNSPEC, TCX_NEXT) where it lets a packet pass"
                .to_string()
        }
    };
    link.beside.iter().map(|what| Check::warning("beside", what.clone(), cure(what))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::check::State::{self, Error, Ok, Warning};
    use super::*;
    use crate::units::ClassId;

    fn rate(mbit: u64) -> Option<Rate> {
        Rate::from_bits_per_second(mbit * 1_000_000)
    }

    fn link() -> LinkFound {
        LinkFound {
            name: LinkName::new("eth0").unwrap(),
            facts: LinkFacts { speed: rate(1_000), ..LinkFacts::ethernet(2) },
            rate: rate(950),
            down: None,
            lowest: rate(1).map(|rate| (rate, "ann".into())),
            beside: Vec::new(),
            unseen: Vec::new(),
            is_ciliums: false,
            manager: None,
            queues: Some(4),
            largest: Some(65_536),
            lro: Some(true),
            foreign: Vec::new(),
            direct_packets: 0,
        }
    }

    #[test]
    fn a_link_is_fine_until_somebody_or_its_numbers_are_in_the_way() {
        let of = |change: fn(&mut LinkFound)| {
            let mut link = link();
            change(&mut link);
            let checks = checks(&link, false);
            assert!(checks.iter().all(|check| check.link.as_deref() == Some("eth0")));
            checks.into_iter().map(|check| (check.id, check.state)).collect::<Vec<(_, State)>>()
        };
        assert_eq!(of(|_| {}), [("link", Ok)]);
        let foreign = |link: &mut LinkFound| {
            let handle = ClassId(0x8001_0000);
            let (kind, r2q, options) = ("tbf".to_string(), None, Vec::new());
            link.facts.root = RootQdisc::Foreign { kind, handle, r2q, options };
        };
        assert_eq!(of(foreign), [("root", Error)]);
        let shapes = |link: &mut LinkFound| {
            link.manager = Some(Manager { name: "systemd-networkd", file: None, shapes: true });
        };
        assert_eq!(of(shapes), [("manager", Warning)]);
        let manages = |link: &mut LinkFound| {
            link.manager = Some(Manager { name: "NetworkManager", file: None, shapes: false });
        };
        assert_eq!(of(manages), [("link", Ok)]);
        assert_eq!(of(|it| it.rate = rate(2_000)), [("speed", Warning)]);
        let fast = |it: &mut LinkFound| (it.rate, it.facts.speed) = (rate(25_000), rate(25_000));
        assert_eq!(of(fast), [("packets", Warning)]);
        let jumbo = |it: &mut LinkFound| {
            (it.rate, it.facts.speed, it.facts.mtu) = (rate(25_000), rate(25_000), 9_000);
        };
        assert_eq!(of(jumbo), [("mtu", Warning)], "9,000 bytes take 72 ms at 1 Mbit");
        assert_eq!(of(|it| it.largest = Some(200_000)), [("big_tcp", Warning)]);
        let quick = |it: &mut LinkFound| {
            (it.largest, it.lowest) = (Some(200_000), rate(100).map(|rate| (rate, "ann".into())));
        };
        assert_eq!(of(quick), [("link", Ok)], "16 ms");
        assert_eq!(of(|it| it.queues = None), [("link", Ok)]);
        assert_eq!(of(|it| (it.down, it.lro) = (rate(900), None)), [("link", Ok)]);
        assert_eq!(of(|it| (it.down, it.lro) = (rate(5_000), None)), [("packets_down", Warning)]);
        assert_eq!(of(|it| it.down = rate(900)), [("offloads", Warning)]);
        let beside = |it: &mut LinkFound| {
            (it.down, it.lro, it.beside) = (rate(900), None, vec!["the tcx program x".into()]);
        };
        assert_eq!(of(beside), [("beside", Warning)]);
        let cure = |what: &str| {
            let beside = vec![what.to_string()];
            let link = LinkFound { down: rate(900), lro: None, beside, ..link() };
            checks(&link, false)[0].cure.clone().unwrap()
        };
        assert!(cure("the tcx program x").contains("TCX_NEXT"));
        assert!(cure("the nftables chain guard in sees nothing").contains("prerouting"));
        assert_eq!(of(|it| it.is_ciliums = true), [("beside", Warning)]);
        let foreign = |it: &mut LinkFound| it.foreign = vec![("u32 filter".into(), "tc".into())];
        assert_eq!(of(foreign), [("foreign", Warning)]);
        assert_eq!(of(|it| it.direct_packets = 3), [("direct", Warning)]);
    }
}

//! Whether what arrives by a link goes through its ifb, by the counters on the way: the link's, the
//! redirecting filter's and those of the ifb's root qdisc. Another's program before the filter may
//! keep packets from it without any error. Pure.
//!
//! The counters count different things. A driver counts frames, with their link-layer headers. The
//! filter's action counts what GRO has merged: with one set of headers, but as many packets as it
//! was (`bstats_update`, include/net/sch_generic.h). A veth counts a packet that its peer has not
//! cut into segments as one. A packet from a VM that is larger than the MTU counts as none at the
//! action. So bytes and packets are compared each with what they may differ by, and what is said to
//! be missing is missing by both.

use std::time::Duration;

use crate::facts::Observation;
use crate::host::observe::{Led, Passage};
use crate::tree::LinkName;

/// What one frame may have that the action does not count: headers of Ethernet with two VLAN tags
/// and its checksum.
const LINK_HEADER: u64 = 32;
/// The same of a frame that is merged with others, whose headers of IP and TCP go too; at a device
/// of a tunnel, also the tunnel's.
const HEADERS: u64 = 160;
/// What is not IP is not redirected, nor is neighbour discovery, and one address of many hosts may
/// be asked for thousands of times: less than so many bytes, or so many a second, is nothing.
const LEAST: u64 = 64_000;
const A_SECOND: u64 = 128_000;
/// One in so many bytes or packets may be missing.
const SHARE: u64 = 20;
/// The largest packet, in bytes (`GSO_MAX_SIZE`, include/linux/netdevice.h).
const LARGEST: u64 = 8 * 65_536;
/// Less time than this says nothing: a processor may be taken away for longer between what one
/// counter counts and what the next one does.
const SHORTEST: Duration = Duration::from_millis(200);

/// What the counters say of one interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Passed {
    /// Nothing: so little has been redirected, or something of the way was made anew.
    #[default]
    Unknown,
    /// All but little has gone through the ifb.
    Through,
    /// Of the bytes that came, so many were redirected, and far more were not.
    Past {
        /// By the link.
        came: u64,
        /// To the ifb.
        redirected: u64,
    },
    /// Of the bytes that were redirected, so many have come to the ifb's root qdisc.
    Lost {
        /// To the ifb.
        redirected: u64,
        /// To its root.
        reached: u64,
    },
}

/// Packets and bytes.
#[derive(Clone, Copy, Default)]
struct Amount {
    packets: u64,
    bytes: u64,
}

impl Passed {
    /// Compares two readings.
    pub fn between(before: &Passage, now: &Passage, over: Duration) -> Passed {
        if over < SHORTEST || before.indexes != now.indexes {
            return Passed::Unknown;
        }
        // What was led on is read around the other counters: more time for what should be there.
        let most = redirected(&before.before, &now.after);
        let least = redirected(&before.after, &now.before);
        let reached = reached(&before.before, &now.after);
        let (Some(came), Some(most), Some(least), Some(reached)) =
            (came(before, now), most, least, reached)
        else {
            return Passed::Unknown;
        };
        let seconds = |bytes: u64| u128::from(bytes) * over.as_millis() / 1_000;
        let little = LEAST.max(u64::try_from(seconds(A_SECOND)).unwrap_or(u64::MAX));
        let is_missing = |all: u64, of: u64, allowed: u64| {
            all.saturating_sub(of + of / SHARE + allowed) > little
        };
        let frames = came.packets.max(most.packets);
        let no_packets = came.packets > most.packets + most.packets / SHARE;
        if is_missing(came.bytes, most.bytes, HEADERS * frames)
            || (no_packets && is_missing(came.bytes, most.bytes, LINK_HEADER * came.packets))
        {
            return Passed::Past { came: came.bytes, redirected: most.bytes };
        }
        if is_missing(least.bytes, reached, 0) {
            return Passed::Lost { redirected: least.bytes, reached };
        }
        if most.bytes > little { Passed::Through } else { Passed::Unknown }
    }

    /// What is wrong, in a sentence; `None`: nothing that is known. `suspects`: see [`suspects`].
    pub fn said(self, link: &LinkName, over: Duration, suspects: &[String]) -> Option<String> {
        let tenths = over.as_millis() / 100;
        let time = format!("{}.{} s", tenths / 10, tenths % 10);
        let kilobytes = |bytes: u64| format!("{} kB", bytes / 1_000);
        let who = match suspects {
            [] => format!(
                "see whether they are not IP (PPPoE, MPLS), and what takes them (tc filter show dev {link} ingress; ip link show {link}: XDP)"
            ),
            some => some.join("; "),
        };
        match self {
            Passed::Unknown | Passed::Through => None,
            Passed::Past { came, redirected } => Some(format!(
                "of {} that came by {link} in {time} only {} went through its ifb, and no limit holds the rest: {who}",
                kilobytes(came),
                kilobytes(redirected),
            )),
            Passed::Lost { redirected, reached } => Some(format!(
                "of {} that were led to the ifb of {link} in {time} only {} came to its root qdisc: see who has filters there (tc filter show dev {} egress)",
                kilobytes(redirected),
                kilobytes(reached),
                link.ifb(),
            )),
        }
    }
}

/// What came by the link. What it dropped itself came to no filter.
fn came(before: &Passage, now: &Passage) -> Option<Amount> {
    let packets = now.came.packets.checked_sub(before.came.packets)?;
    let bytes = now.came.bytes.checked_sub(before.came.bytes)?;
    let dropped = now.came.dropped.checked_sub(before.came.dropped)?;
    let kept = packets.saturating_sub(dropped);
    let bytes = u128::from(bytes) * u128::from(kept) / u128::from(packets.max(1));
    Some(Amount { packets: kept, bytes: u64::try_from(bytes).ok()? })
}

/// What the filters have redirected; `None`: others stand now.
fn redirected(before: &Led, now: &Led) -> Option<Amount> {
    let [before, now] = [&before.redirected, &now.redirected];
    if before.is_empty() || before.len() != now.len() {
        return None;
    }
    let mut sum = Amount::default();
    for (before, now) in before.iter().zip(now) {
        if before.program != now.program {
            return None;
        }
        sum.packets += now.packets.checked_sub(before.packets)?;
        sum.bytes += now.bytes.checked_sub(before.bytes)?;
    }
    Some(sum)
}

/// The most bytes that may have come to the ifb's root qdisc: sent, waiting or dropped. `None`: it
/// was made anew.
fn reached(before: &Led, now: &Led) -> Option<u64> {
    let (before, now) = (&before.reached, &now.reached);
    let sent = now.sent_bytes.checked_sub(before.sent_bytes)?;
    let dropped = now.drops.checked_sub(before.drops).unwrap_or(now.drops);
    Some(sent.saturating_add(now.backlog_bytes).saturating_add(dropped.saturating_mul(LARGEST)))
}

/// Who or what may keep packets that arrive by a link from its ifb, as far as it is known, each
/// with what to do.
pub fn suspects(link: &LinkName, seen: &Observation) -> Vec<String> {
    let (ifb, facts) = (link.ifb(), &seen.facts);
    let is_down = seen.state.ifbs.get(&ifb).is_some_and(|ifb| !ifb.up);
    let down = is_down.then(|| format!("{ifb} is down (ip link set {ifb} up)"));
    let first = facts.beside.get(link).into_iter().flatten().filter(|it| it.is_first());
    let first = first.map(|it| format!("the {} is first: {}", it.name(), it.cure()));
    down.into_iter().chain(first).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Beside;
    use crate::netlink::received::Received;
    use crate::netlink::redirected::Redirected;
    use crate::tree::{Counters, Direction, Ifb, Pref};

    const SECOND: Duration = Duration::from_secs(1);

    fn led(packets: u64, bytes: u64, reached: Counters) -> Led {
        Led { redirected: vec![Redirected { program: 5, packets, bytes }], reached }
    }

    /// A reading: (packets, bytes) that came and that were redirected; bytes sent by the ifb.
    fn reading(came: (u64, u64), redirected: (u64, u64), sent_bytes: u64) -> Passage {
        let led = led(redirected.0, redirected.1, Counters { sent_bytes, ..Counters::default() });
        let (packets, bytes) = came;
        let came = Received { packets, bytes, dropped: 0 };
        Passage { indexes: [2, 9], before: led.clone(), came, after: led }
    }

    /// The verdict where so much came and was redirected in a second, and reached the ifb.
    fn passed(came: (u64, u64), redirected: (u64, u64)) -> Passed {
        let (before, after) = ((7, 700), (7 + redirected.0, 700 + redirected.1));
        let now = reading((7 + came.0, 700 + came.1), after, 700 + redirected.1 + 14);
        Passed::between(&reading((7, 700), before, 700), &now, SECOND)
    }

    #[test]
    fn honest_traffic_goes_through_however_it_is_counted() {
        for (what, packets, frame, skbs, skb) in [
            ("full frames", 10_000, 1_514, 10_000, 1_500),
            ("pings", 10_000, 98, 10_000, 84),
            ("the smallest frames, with VLAN tags and checksums", 50_000, 72, 50_000, 40),
            ("full frames, 44 merged into one", 44_000, 1_514, 44_000, 1_449),
            ("small segments, merged", 44_000, 166, 44_000, 101),
            ("jumbo frames, merged", 8_000, 9_014, 8_000, 8_949),
            ("what a veth's peer did not cut", 1_000, 64_066, 44_000, 1_456),
            ("what a VM did not cut", 1_000, 64_066, 0, 0),
            ("WireGuard's full packets, merged", 40_000, 1_452, 40_000, 1_369),
        ] {
            let came = (packets, packets * frame);
            // The action of what a VM did not cut counts no packets, and the bytes.
            let bytes = if skbs == 0 { packets * (frame - 14) } else { skbs * skb };
            assert_eq!(passed(came, (skbs, bytes)), Passed::Through, "{what}");
        }
        let both = ((1_100, 64_066 * 1_000 + 100 * 1_514), (100, 64_052 * 1_000 + 100 * 1_449));
        assert_eq!(passed(both.0, both.1), Passed::Through, "both of a VM");
    }

    #[test]
    fn what_is_not_redirected_on_purpose_is_too_little_to_tell() {
        assert_eq!(passed((0, 0), (0, 0)), Passed::Unknown);
        assert_eq!(passed((1_000, 60_000), (0, 0)), Passed::Unknown, "ARP");
        assert_eq!(passed((1_000, 86_000), (0, 0)), Passed::Unknown, "neighbour discovery");
        assert_eq!(passed((4_000, 4_000 * 60), (0, 0)), Passed::Unknown, "a scan of the subnet");
        let both = passed((12_000, 10_000 * 1_514 + 2_000 * 60), (10_000, 10_000 * 1_500));
        assert_eq!(both, Passed::Through, "beside downloads");
    }

    #[test]
    fn what_goes_past_the_ifb_is_missed() {
        for (what, came, redirected) in [
            ("all", (10_000, 15_140_000), (0, 0)),
            ("half of the frames", (10_000, 15_140_000), (5_000, 7_500_000)),
            ("a tenth of the frames", (10_000, 15_140_000), (9_000, 13_500_000)),
            ("half of a flood of small ones", (100_000, 9_800_000), (50_000, 4_200_000)),
            ("half of what a veth's peer did not cut", (1_000, 64_066_000), (22_000, 32_026_000)),
            ("a slow flow", (150, 227_100), (0, 0)),
        ] {
            let (all, some) = (came.1, redirected.1);
            let past = Passed::Past { came: all, redirected: some };
            assert_eq!(passed(came, redirected), past, "{what}");
        }
    }

    #[test]
    fn what_is_led_to_an_ifb_and_does_not_come_there_is_lost() {
        let before = reading((0, 0), (0, 0), 0);
        let now = |counters: Counters| {
            let led = led(10_000, 15_000_000, counters);
            let came = Received { packets: 10_000, bytes: 15_140_000, dropped: 0 };
            Passage { indexes: [2, 9], before: led.clone(), came, after: led }
        };
        let of = |counters: Counters| Passed::between(&before, &now(counters), SECOND);
        let none = Counters::default();
        assert_eq!(of(none), Passed::Lost { redirected: 15_000_000, reached: 0 });
        assert_eq!(of(Counters { sent_bytes: 15_140_000, ..none }), Passed::Through);
        assert_eq!(of(Counters { backlog_bytes: 15_140_000, ..none }), Passed::Through);
        assert_eq!(of(Counters { sent_bytes: 1_000_000, drops: 300, ..none }), Passed::Through);
    }

    #[test]
    fn nothing_is_said_of_what_was_made_anew_or_dropped_before() {
        let (start, all) = (reading((0, 0), (0, 0), 0), (10_000, 15_140_000));
        let of = |now: &Passage| Passed::between(&start, now, SECOND);
        let now = reading(all, (0, 0), 0);
        assert!(matches!(of(&now), Passed::Past { .. }));
        assert_eq!(Passed::between(&start, &now, SECOND / 10), Passed::Unknown, "too short");
        let other = |change: fn(&mut Passage)| {
            let mut now = now.clone();
            change(&mut now);
            of(&now)
        };
        assert_eq!(other(|it| it.indexes[1] = 10), Passed::Unknown, "another ifb");
        assert_eq!(other(|it| it.after.redirected[0].program = 6), Passed::Unknown);
        assert_eq!(other(|it| it.after.redirected.clear()), Passed::Unknown, "no filter");
        assert_eq!(other(|it| it.came.dropped = 10_000), Passed::Unknown, "its own queue was full");
        let twice = Passed::between(&now, &start, SECOND);
        assert_eq!(twice, Passed::Unknown, "the link was made again");
        // What is redirected between the readings of one moment is no loss.
        let mut late = reading(all, (10_000, 15_000_000), 15_140_000);
        late.before = led(0, 0, Counters::default());
        assert_eq!(of(&late), Passed::Through);
    }

    #[test]
    fn who_may_be_in_the_way_is_named_with_a_cure() {
        let link = LinkName::new("eth0").unwrap();
        let mut seen = Observation::default();
        let said = |seen: &Observation| {
            let past = Passed::Past { came: 9_999_999, redirected: 1_000 };
            past.said(&link, SECOND * 2, &suspects(&link, seen)).unwrap()
        };
        let unknown = said(&seen);
        assert!(unknown.contains("of 9999 kB that came by eth0 in 2.0 s only 1 kB"), "{unknown}");
        assert!(unknown.contains("tc filter show dev eth0 ingress"), "{unknown}");
        let filter = |side, pref| Beside::Filter { side, pref, what: "u32".to_string() };
        let tcx = Beside::Tcx { side: Direction::Ingress, what: "guard".to_string() };
        let others = vec![
            filter(Direction::Ingress, Pref(10)),
            filter(Direction::Ingress, Pref(65_100)),
            filter(Direction::Egress, Pref(1)),
            tcx,
            Beside::GenericXdp(7),
        ];
        seen.facts.beside.insert(link.clone(), others);
        seen.state.ifbs.insert(link.ifb(), Ifb { up: false });
        let known = said(&seen);
        assert!(
            known.ends_with(
                "no limit holds the rest: ifb-eth0 is down (ip link set ifb-eth0 up); \
             the filter u32 (pref 10) is first: have it go on (TC_ACT_UNSPEC), or take it away; \
             the tcx program guard is first: have it go on (TCX_NEXT), or take it away; \
             the generic XDP program 7 is first: it may drop them or lead them elsewhere"
            ),
            "{known}"
        );
        assert_eq!(Passed::Through.said(&link, SECOND, &[]), None);
    }
}

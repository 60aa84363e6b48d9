//! The same for what arrives: datagrams of users and of a guest come back while the policy is
//! edited again and again. Each is counted in a class of its owner's where it arrives.

use std::time::{Duration, Instant};

use shaper::desired::Sharding;

use super::ledger::Ledger;
use super::{apply_watched, seed};
use crate::support::accounts::{ANN, BOB};
use crate::support::actor::Actor;
use crate::support::behind::{Guest, bridge};
use crate::support::command::run;
use crate::support::orders::{Order, SocketId};
use crate::support::random::Random;
use crate::support::settings::setting;
use crate::support::world::{Family, World};

const IFB: &str = "ifb-up0";
/// Of each sender, a second.
const PACKETS: u64 = 300;

/// What is switched by the edits.
#[derive(Clone, Copy, Debug, Default)]
struct Switches([bool; 5]);

impl Switches {
    fn policy(self) -> String {
        let Switches([slower, asks, more_guests, more_users, narrow]) = self;
        let pick = |is: bool, one: &'static str, other: &'static str| if is { one } else { other };
        format!(
            "version: 1\nlinks: {{up0: {{rate: 400mbit, down: {}}}}}\nusers:\n  \
             ann: {{ceil: 40mbit, down: {}}}\n  \
             bob: {{ceil: 40mbit, down: 40mbit, accounts: [bob]{}}}\n  \
             carol: {{ceil: 40mbit, down: 40mbit, accounts: [carol], interfaces: [vc1]}}\n{}{}",
            pick(narrow, "300mbit", "400mbit"),
            pick(slower, "30mbit", "40mbit"),
            pick(more_guests, ", interfaces: [vc2]", ""),
            pick(more_users, "  dave: {ceil: 9mbit, down: 9mbit}\n  erin: 8mbit\n", ""),
            pick(asks, "rules: [{from: ann, dst: 203.0.113.0/24, to: bob}]\n", ""),
        )
    }

    fn flipped(self, at: usize) -> Switches {
        let mut next = self;
        next.0[at] ^= true;
        next
    }
}

/// Sends datagrams of a size that nobody else has, which the far side sends back.
fn beat(actor: &mut Actor, world: &mut World, family: Family, frame: u64, port: u16) -> SocketId {
    let headers = if family == Family::V4 { 14 + 20 + 8 } else { 14 + 40 + 8 };
    let payload = frame - headers;
    world.far.tell(&Order::Echo(port));
    let socket = actor.socket(&Order::Datagram(world.far_at(family, port)));
    let bytes = usize::try_from(payload).expect("a small number");
    actor.tell(&Order::Beat { socket, bytes, bits_per_second: payload * 8 * PACKETS });
    socket
}

pub fn what_arrives_is_neither_lost_nor_misattributed_while_the_policy_is_edited() {
    let (seed, edits) = (seed(), setting("SHAPER_ARRIVING_EDITS").unwrap_or(20));
    println!("SHAPER_SEED={seed} SHAPER_ARRIVING_EDITS={edits}");
    let mut random = Random::new(seed);
    let mut world = World::new();
    bridge(&world);
    run("ip link add vc2 type veth peer name vp2");
    let mut guest = Guest::in_bridge("vc1", 2);
    guest.ping(&world, Family::V4, 1, 56);
    let mut ledger =
        Ledger::of(IFB, [(1_009, "ann"), (1_033, "bob"), (1_103, "carol's guest")].into_iter());
    let mut switches = Switches::default();
    apply_watched(&switches.policy(), &mut ledger, Sharding::default());
    let (mut ann, mut bob) = (world.actor(ANN), world.actor(BOB));
    let sockets = [
        beat(&mut ann, &mut world, Family::V4, 1_009, 7_101),
        beat(&mut bob, &mut world, Family::V6, 1_033, 7_102),
        beat(&mut guest.actor, &mut world, Family::V4, 1_103, 7_103),
    ];
    let (mut steps, mut slowest) = (0, Duration::ZERO);
    for edit in 0..edits {
        let at = random.index(switches.0.len());
        let next = switches.flipped(at);
        let began = Instant::now();
        let applied = apply_watched(&next.policy(), &mut ledger, Sharding::default());
        slowest = slowest.max(began.elapsed());
        ledger.read();
        let made: Vec<String> = applied.steps.iter().map(|it| it.step.to_string()).collect();
        assert!(ledger.wrong.is_empty(), "edit {edit}, {at}: {:#?}\n{made:#?}", ledger.wrong);
        steps += made.len();
        switches = next;
    }
    println!("{edits} edits, {steps} steps, the slowest took {slowest:?}");
    let actors = [&mut ann, &mut bob, &mut guest.actor];
    let sent = actors.into_iter().zip(sockets).map(|(actor, socket)| actor.stop(socket).1);
    let sent: Vec<u64> = sent.collect();
    let counted = |ledger: &mut Ledger| {
        ledger.read();
        let packets = ledger.packets();
        ["ann", "bob", "carol's guest"].map(|who| packets.get(who).copied().unwrap_or(0))
    };
    // The last ones are on their way.
    world.until("all have come back", |_| {
        counted(&mut ledger).iter().sum::<u64>() >= sent.iter().sum()
    });
    assert!(ledger.wrong.is_empty(), "{:#?}", ledger.wrong);
    println!("{sent:?} packets sent, and as many came back into their owners' classes");
    assert_eq!(counted(&mut ledger).to_vec(), sent);
}

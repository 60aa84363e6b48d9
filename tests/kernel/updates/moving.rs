//! The way from one classifier to another and back, both ways of a link, both families, with shards
//! and without: each packet out and back is counted in its owner's class.

use shaper::desired::Sharding;

use super::ledger::Ledger;
use super::{SENDERS, Sender, apply_watched};
use crate::support::orders::Order;
use crate::support::random::Random;
use crate::support::world::{UPLINK, World};

const IFB: &str = "ifb-up0";
/// Of each sender, a second.
const PACKETS: u64 = 200;

fn text(classifier: &str) -> String {
    let users = SENDERS.iter().take(5);
    let users = users.map(|it| format!("  {}: {{ceil: 40mbit, down: 40mbit}}\n", it.name));
    format!(
        "version: 1\nlinks: {{up0: {{rate: 400mbit, down: 400mbit, classifier: {classifier}}}}}\nusers:\n{}",
        users.collect::<String>()
    )
}

pub fn between_the_classifiers_each_packet_is_its_owners_out_and_back() {
    let mut world = World::new();
    let people: Vec<&Sender> = SENDERS.iter().take(5).collect();
    let frames = || people.iter().map(|it| (it.frame, it.name));
    let mut ledgers = [UPLINK, IFB].map(|device| Ledger::of(device, frames()));
    let few = Sharding { flat: 2, full: 2, few: 1 };
    let [out, _] = &mut ledgers;
    apply_watched(&text("bpf"), out, few);
    let mut senders = Vec::new();
    for (sender, port) in people.iter().zip(7_201..) {
        world.far.tell(&Order::Echo(port));
        let mut actor = world.actor(sender.account);
        let socket = actor.socket(&Order::Datagram(world.far_at(sender.family, port)));
        let bytes = usize::try_from(sender.payload()).expect("a small number");
        let bits_per_second = sender.payload() * 8 * PACKETS;
        actor.tell(&Order::Beat { socket, bytes, bits_per_second });
        senders.push((actor, socket));
    }
    let mut random = Random::new(19);
    let mut before = "bpf";
    for turn in 0..24 {
        let next = [["uid", "auto"], ["bpf", "auto"]][usize::from(before == "uid")];
        let next = next[usize::from(random.maybe(4))];
        // A link that is made again with another classifier, and with fewer shards.
        let sharding = if random.maybe(3) { Sharding::default() } else { few };
        let [out, back] = &mut ledgers;
        let applied = apply_watched(&text(next), out, sharding);
        for ledger in [out, back] {
            ledger.read();
            let steps: Vec<String> = applied.steps.iter().map(|it| it.step.to_string()).collect();
            assert!(
                ledger.wrong.is_empty(),
                "turn {turn}, {next}: {:#?}\n{steps:#?}",
                ledger.wrong
            );
        }
        before = next;
    }
    let sent: Vec<u64> = senders.iter_mut().map(|(actor, socket)| actor.stop(*socket).1).collect();
    let mut counted = || {
        ledgers.each_mut().map(|ledger| {
            ledger.read();
            assert!(ledger.wrong.is_empty(), "{:#?}", ledger.wrong);
            let packets = ledger.packets();
            let of = |it: &&Sender| packets.get(it.name).copied().unwrap_or(0);
            people.iter().map(of).collect::<Vec<u64>>()
        })
    };
    world.until("all have come back", |_| counted()[1].iter().sum::<u64>() >= sent.iter().sum());
    println!("{sent:?} packets, each in its owner's class, out and back");
    assert!(sent.iter().all(|packets| *packets > 300), "{sent:?}");
    assert_eq!(counted(), [sent.clone(), sent]);
}

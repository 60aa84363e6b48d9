//! Ways of sending that were tried and never left the class: what a user may set on his sockets,
//! what he is refused, and how the kernel makes packets of what he writes.

use std::time::Duration;

use super::tag_only;
use crate::support::accounts::ANN;
use crate::support::attempt::{Attempt, Attempting};
use crate::support::clock::soon;
use crate::support::harness::{On, tests};
use crate::support::orders::Proto;
use crate::support::program::{apply, classid};
use crate::support::rates::{self, MBIT};
use crate::support::world::{Family, UPLINK, World};

tests!(
    On::HostAndUml => no_way_of_sending_leaves_the_class;
);

const POLICY: &str = "
version: 1
links: {up0: {rate: 100mbit, default: {rate: 1mbit}}}
users: {ann: 10mbit}
";

pub fn no_way_of_sending_leaves_the_class() {
    let mut world = World::new();
    apply(POLICY);
    let class = classid("user/ann");
    let tcp = world.sink(Proto::Tcp);
    world.far.sink(Proto::Udp, tcp);
    let of = |world: &World, attempt, family| {
        let trying = Attempting::start(ANN, attempt, world.far_at(family, tcp));
        // Three hundred connections are not made at once on a busy machine.
        let flows =
            || rates::over(UPLINK, Duration::from_millis(50)).leaves().values().sum::<u64>();
        soon("something flows", Duration::from_secs(20), || flows() > 20_000);
        let sent = rates::over(UPLINK, Duration::from_millis(500));
        println!("{attempt:?}: {:?}", sent.leaves());
        (trying, sent)
    };
    for attempt in Attempt::ALL {
        // What makes packets of another shape there.
        let six = matches!(attempt, Attempt::Ping | Attempt::Fragments | Attempt::UdpGso);
        for family in [Family::V4, Family::V6].into_iter().take(1 + usize::from(six)) {
            let (trying, sent) = of(&world, attempt, family);
            // Placed or not: nobody has been since the policy was put in force.
            assert!(sent.rate(&class) > 3 * MBIT, "{attempt:?}: {:?}", sent.leaves());
            sent.others_stay_below(20_000, &[&class]);
            assert_eq!(trying.allowed, "", "{attempt:?}");
        }
    }
    // None of these processes was placed: without the guard, each is in the default class.
    tag_only::decides();
    let (_trying, sent) = of(&world, Attempt::Priority, Family::V4);
    assert!(sent.rate("1:fffe") > 20 * MBIT, "it should escape: {:?}", sent.leaves());
}

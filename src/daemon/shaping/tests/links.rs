//! How soon links that come are looked at, and what is said of those that others changed.

use super::*;
use crate::process::{Behind, Changers};

/// All of them, changed by nobody who is known.
pub(super) fn all(links: &BTreeSet<LinkName>) -> Touched {
    links.iter().map(|link| (link.clone(), Changers::new())).collect()
}

/// How long it takes until the look begins that a link wants.
fn comes(world: &mut World) -> Duration {
    let (before, told) = (world.repairs, world.now);
    world.tell(Event::LinksTold { touched: Touched::new(), has_come: true });
    while world.repairs == before {
        world.pass(MILLISECOND);
    }
    world.now - told - world.takes
}

#[test]
fn a_link_that_comes_after_a_storm_of_looks_is_looked_at_at_once() {
    let mut world = World::new();
    world.takes = 125 * MILLISECOND;
    // Of accounts, whose looks do not rest; and of links.
    for _ in 0..1_000 {
        world.tell(Event::Wanted { by: world.now });
        world.pass(MILLISECOND);
        comes(&mut world);
    }
    world.pass(SECOND);
    let waited = comes(&mut world);
    assert!(waited <= 2 * MILLISECOND, "{waited:?}");
}

/// As a machine is whose processors are busy: a look takes long, and so would its rest.
#[test]
fn a_few_links_that_come_are_looked_at_at_once_and_many_leave_time_for_others() {
    let mut world = World::new();
    world.takes = 125 * MILLISECOND;
    assert!((0..4).all(|_| comes(&mut world) <= 2 * MILLISECOND));
    let (before, end) = (world.repairs, world.now + MINUTE);
    while world.now < end {
        comes(&mut world);
    }
    let looks = world.repairs - before;
    assert!((80..=110).contains(&looks), "{looks} of an eighth of a second each");
}

#[test]
fn who_changed_a_link_is_named_once_where_it_is_known() {
    let now = Instant::now();
    let (mut shaping, _) = Shaping::<Source>::new("policies.yaml".to_string(), false, now);
    let links = ["up0", "up1", "up2", "up3"].map(|name| LinkName::new(name).unwrap());
    let by = |pids: &[u32]| -> Changers {
        let one = |pid: &u32| Behind { pid: *pid, comm: "tc".to_string(), login: None };
        pids.iter().map(|pid| (*pid, Some(one(pid)))).collect()
    };
    let told = |shaping: &mut Shaping<Source>, link: &LinkName, pids: &[u32]| {
        let touched = Touched::from([(link.clone(), by(pids))]);
        assert_eq!(shaping.on(Event::LinksTold { touched, has_come: false }, now), []);
    };
    told(&mut shaping, &links[0], &[4711]);
    told(&mut shaping, &links[0], &[]);
    told(&mut shaping, &links[1], &[1, 2]);
    told(&mut shaping, &links[1], &[3, 4, 5]);
    told(&mut shaping, &links[2], &[]);
    told(&mut shaping, &links[3], &[9]);
    let repair = |repaired: &[LinkName]| {
        let repaired = repaired.iter().cloned().collect();
        let outcome = Outcome::InForce { took: None, repaired, drains: false };
        Event::Applied { attempt: Attempt::Repair, outcome }
    };
    let said = |orders: Vec<Order>| -> Vec<String> {
        let line = |order| match order {
            Order::Inform(line) | Order::Warn(line) => Some(line),
            _ => None,
        };
        orders.into_iter().filter_map(line).collect()
    };
    let again = "it is again as the policy says";
    assert_eq!(
        said(shaping.on(repair(&links[..3]), now)),
        [
            format!("process 4711 (tc) changed what stands on up0; {again}"),
            format!(
                "process 1 (tc), process 2 (tc), process 3 (tc) and 2 more changed what stands on up1; {again}"
            ),
            format!("somebody else changed what stands on up2; {again}"),
        ]
    );
    assert!(said(shaping.on(repair(&links), now)).is_empty(), "it is said once");
    for _ in 0..5 {
        told(&mut shaping, &links[0], &[4711]);
        let said = said(shaping.on(repair(&links), now)).concat();
        assert_eq!(said.matches("process 4711 (tc)").count(), 1, "{said}");
    }
    told(&mut shaping, &links[0], &[4711]);
    let said = said(shaping.on(repair(&links), now));
    assert_eq!(said, ["up0 keeps being changed by process 4711 (tc); it is left alone for 4 s"]);
}

#[test]
fn who_is_known_is_not_blamed_alone_for_what_others_may_have_done() {
    let link = LinkName::new("up0").unwrap();
    let tc = |port| (port, Some(Behind { pid: 4711, comm: "tc".to_string(), login: None }));
    let said = |by: &Changers| match (repairs::said(&link, by, None), repairs::counted(&link, by)) {
        (Order::Inform(line), Order::CountRepair { by, .. }) => {
            assert_eq!(line.split(" changed ").next(), Some(by.as_str()));
            by
        }
        other => panic!("{other:?}"),
    };
    let mut by = Changers::new();
    assert_eq!(said(&by), "somebody else");
    repairs::add(&mut by, [(4712, None), (4713, None)].into());
    assert_eq!(said(&by), "somebody else");
    repairs::add(&mut by, [tc(4711)].into());
    assert_eq!(said(&by), "process 4711 (tc) and somebody else");
    // It has ended, and its last changes are heard of.
    let mut by = Changers::from([tc(4711)]);
    repairs::add(&mut by, [(4711, None)].into());
    assert_eq!(said(&by), "process 4711 (tc)");
    // By another socket.
    repairs::add(&mut by, [tc(9_000_000)].into());
    assert_eq!(said(&by), "process 4711 (tc)");
}

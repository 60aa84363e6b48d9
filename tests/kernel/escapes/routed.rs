//! A guest that is root in its own network namespace and forwards there, with a number that it has
//! written itself where a label would be. On links with a peer in another namespace labels write
//! over it; a macvlan has no such link of the host's.

use crate::support::behind::Guest;
use crate::support::command::run;
use crate::support::counters::classes;
use crate::support::harness::{On, tests};
use crate::support::program::{apply, classid};
use crate::support::rates::Interval;
use crate::support::world::{Family, UPLINK, World};

tests!(
    On::Host => a_macvlans_guest_can_have_what_it_forwards_counted_for_others;
);

const POLICY: &str = "
version: 1
links: {up0: {rate: 400mbit}}
users:
  bob: {ceil: 200mbit, accounts: [bob], interfaces: [vc2]}
";
const DEFAULT: &str = "1:fffe";

/// A guest that forwards, and another behind it.
struct Forger {
    router: Guest,
    behind: Guest,
}

impl Forger {
    /// Has a link of the host's, and an address in the uplink's network.
    fn with(link: &str, world: &World) -> Forger {
        let (router, behind) = (Guest::without_link(4), Guest::without_link(5));
        let pid = router.actor.pid();
        run(&format!("ip link add in0 type veth peer name eth0 netns {}", behind.actor.pid()));
        for link in [link, "in0"] {
            run(&format!("ip link set {link} netns {pid}"));
        }
        let forger = Forger { router, behind };
        for line in [
            "ip link set lo up",
            "ip addr add 10.99.0.1/24 dev in0",
            "ip addr add fd99::1/64 dev in0 nodad",
            "ip link set in0 up",
            &format!("ip addr add 10.77.0.9/24 dev {link}"),
            &format!("ip link set {link} up"),
            "tc qdisc add dev in0 clsact",
        ] {
            forger.runs(line);
        }
        let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
        forger.router.run(&["sh", "-c", forward]).exits(0);
        forger.behind.furnish();
        world.on_far("ip route replace 10.99.0.0/24 via 10.77.0.9");
        forger
    }

    fn runs(&self, line: &str) {
        self.router.run(&line.split(' ').collect::<Vec<_>>()).exits(0);
    }

    /// Forwards datagrams with the number of this class, which are in the other one then.
    #[track_caller]
    fn sends(&mut self, world: &mut World, forged: &str, then: &str) {
        let minor = forged.replace("1:", "");
        self.runs("tc qdisc del dev in0 clsact");
        self.runs("tc qdisc add dev in0 clsact");
        let all = "tc filter add dev in0 ingress protocol all u32 match u32 0 0";
        self.runs(&format!("{all} flowid :{minor}"));
        let before = classes(UPLINK);
        self.behind.datagrams(world, Family::V4, 300);
        Interval::since(before, UPLINK).has_share("what it forwards", then, 99.0);
    }
}

fn of_bob() -> String {
    classid("user/bob")
}

/// Nothing that a program can ask tells these packets from those that the host forwards, so that is
/// said in docs/limits.md. Where no line names a guest no number is read.
fn a_macvlans_guest_can_have_what_it_forwards_counted_for_others() {
    let mut world = World::new();
    run(&format!("ip link add link {UPLINK} name guest0 type macvlan mode bridge"));
    let mut forger = Forger::with("guest0", &world);
    apply(POLICY);
    forger.sends(&mut world, &of_bob(), &of_bob());
    apply(&POLICY.replace(", interfaces: [vc2]", ""));
    forger.sends(&mut world, &of_bob(), DEFAULT);
}

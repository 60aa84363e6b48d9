//! Guests: what a container, a VM or a client of a VPN sends and receives is in its owner's class.

use std::net::SocketAddr;

use crate::faults::{apply_gated, every_step_fails, populated};
use crate::support::accounts::{ANN, BOB};
use crate::support::behind::{Guest, bridge, nat, route};
use crate::support::command::run;
use crate::support::counters::{Classes, classes};
use crate::support::harness::{On, tests};
use crate::support::program::{apply, classid, policy, shaper};
use crate::support::rates::Interval;
use crate::support::world::{Family, World};

tests!(
    On::HostAndUml => what_a_container_sends_and_receives_is_in_its_owners_class,
        clients_of_a_tunnel_are_told_apart_by_their_addresses,
        an_uplink_that_is_a_port_of_the_guests_bridge_is_shaped_as_any_other;
    On::HostAndNight => a_guest_without_an_owner_cannot_choose_a_class,
        a_label_is_repaired_and_goes_with_its_link,
        a_machine_behind_a_tap_shares_its_owners_class,
        a_step_that_fails_leaves_the_guests_as_they_were;
    On::Qemu => clients_of_a_wireguard_of_the_kernels_are_told_apart_by_their_addresses;
);

pub const IFB: &str = "ifb-up0";
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
pub const MEGABYTE: u64 = 1_000_000;

pub const POLICY: &str = "
version: 1
links: {up0: {rate: 400mbit, down: 300mbit}}
users:
  ann: {ceil: 200mbit, down: 200mbit, accounts: [ann], interfaces: [vc1]}
  bob: {ceil: 200mbit, down: 200mbit, accounts: [bob], interfaces: [vc2]}
";

/// What both directions' classes have sent since.
pub struct Both([(&'static str, Classes); 2]);

impl Both {
    pub fn now() -> Both {
        Both(["up0", IFB].map(|link| (link, classes(link))))
    }

    /// The share of the class in each direction. Of the few bytes that answer, others have none but
    /// what links say to each other.
    #[track_caller]
    pub fn share(self, what: &str, class: &str, least: f64) {
        for (link, before) in self.0 {
            let interval = Interval::since(before, link);
            if interval.leaves().values().sum::<u64>() < MEGABYTE {
                interval.others_stay_below(1_000, &[class]);
            } else {
                interval.has_share(&format!("{what}, {link}"), class, least);
            }
        }
    }
}

pub fn in_sync(text: &str) {
    let plan = shaper(&["plan", "--exit-code", &policy(text)]);
    assert_eq!(plan.status, Some(0), "{}", plan.stdout);
}

fn what_a_container_sends_and_receives_is_in_its_owners_class() {
    let mut world = World::new();
    bridge(&world);
    let (mut guest, mut other) = (Guest::in_bridge("vc1", 2), Guest::in_bridge("vc2", 3));
    apply(POLICY);
    in_sync(POLICY);
    let (of_ann, of_bob) = (classid("user/ann"), classid("user/bob"));
    for family in FAMILIES {
        // Neighbours are found first: that is nobody's traffic.
        guest.ping(&world, family, 1, 56);
        let before = Both::now();
        guest.upload(&mut world, family, 20 * MEGABYTE);
        guest.datagrams(&mut world, family, 1_000);
        before.share(&format!("a container's upload, {family:?}"), &of_ann, 99.9);
        let before = Both::now();
        guest.download(&mut world, family, 20 * MEGABYTE);
        before.share(&format!("its download, {family:?}"), &of_ann, 99.9);
        other.ping(&world, family, 1, 56);
        let before = Both::now();
        other.download(&mut world, family, 5 * MEGABYTE);
        other.ping(&world, family, 50, 4_000);
        before.share(&format!("another's download and fragments, {family:?}"), &of_bob, 99.9);
    }
    // A port of the host's that leads to the container's.
    nat("-A PREROUTING -p tcp --dport 80 -j DNAT --to-destination 10.99.0.2:8080");
    let before = Both::now();
    let at = SocketAddr::new(guest.address(Family::V4), 8080);
    guest.serve(&mut world, at, "10.77.0.1:80".parse().expect("an address"), 20 * MEGABYTE);
    before.share("what comes to a published port", &of_ann, 99.5);
    // A user's own processes have the same class.
    let mut ann = world.actor(ANN);
    let before = Both::now();
    for _ in 0..5 {
        world.ping_from(&mut ann, Family::V4, 20, 4_000);
    }
    before.share("the owner's own processes", &of_ann, 99.0);
    shaper(&["clear"]).exits(0);
    for link in ["vc1", "vc2", "br0", "up0"] {
        assert!(!run(&format!("tc qdisc show dev {link}")).contains("clsact"), "{link}");
    }
}

/// As root in its own namespace it writes a label, a priority and a mark.
fn a_guest_without_an_owner_cannot_choose_a_class() {
    let world = World::new();
    bridge(&world);
    let (mut forger, mut owned) = (Guest::in_bridge("vx1", 4), Guest::in_bridge("vc1", 2));
    apply(POLICY);
    let (of_ann, of_bob) = (classid("user/ann"), classid("user/bob"));
    let minor = of_bob.trim_start_matches("1:");
    for guest in [&forger, &owned] {
        guest.run(&["tc", "qdisc", "add", "dev", "eth0", "clsact"]).exits(0);
        let line =
            format!("tc filter add dev eth0 egress protocol all u32 match u32 0 0 flowid :{minor}");
        guest.run(&line.split_whitespace().collect::<Vec<_>>()).exits(0);
    }
    for family in FAMILIES {
        let before = Both::now();
        forger.ping(&world, family, 30, 1_000);
        before.share("a guest's that nobody has", "1:fffe", 100.0);
        let before = Both::now();
        owned.ping(&world, family, 1, 56);
        owned.ping(&world, family, 30, 4_000);
        before.share("a guest's that has another owner", &of_ann, 99.0);
    }
    assert_eq!(classes("up0").class(&of_bob).bytes, 0);
    // Without the program that writes over it, the label would have been believed.
    run("tc filter del dev vx1 ingress");
    let before = Both::now();
    forger.ping(&world, Family::V4, 30, 1_000);
    before.share("a guest's whose link is not labelled", &of_bob, 99.0);
    assert!(apply(POLICY).stdout.contains("vx1"));
    let before = Both::now();
    forger.ping(&world, Family::V4, 30, 1_000);
    before.share("it, repaired", "1:fffe", 100.0);
}

fn a_label_is_repaired_and_goes_with_its_link() {
    let world = World::new();
    bridge(&world);
    let mut guest = Guest::in_bridge("vc1", 2);
    apply(POLICY);
    let (of_ann, of_bob) = (classid("user/ann"), classid("user/bob"));
    let is_in = |guest: &mut Guest, class: &str, what: &str| {
        guest.ping(&world, Family::V4, 1, 56);
        let before = Both::now();
        guest.ping(&world, Family::V4, 20, 4_000);
        before.share(what, class, 99.0);
    };
    is_in(&mut guest, &of_ann, "at first");
    for line in [
        "tc filter del dev vc1 ingress",
        "tc qdisc del dev vc1 clsact",
        "tc filter del dev up0 parent 1:",
        "ip link set vc1 name other",
    ] {
        // Older kernels refuse another name to a link that is up.
        let renamed = line.contains("other");
        if renamed {
            run("ip link set vc1 down");
        }
        run(line);
        if renamed {
            run("ip link set other up");
        }
        let repair = apply(POLICY);
        assert!(!repair.stdout.is_empty(), "{line}");
        in_sync(POLICY);
        let now = if renamed { "1:fffe" } else { &of_ann };
        is_in(&mut guest, now, line);
    }
    // A link that takes the name and the index of one that went is another.
    let index = run("cat /sys/class/net/other/ifindex").trim().to_string();
    run("ip link del other");
    in_sync(POLICY);
    let pid = guest.actor.pid();
    run(&format!("ip link add vc2 index {index} type veth peer name eth0 netns {pid}"));
    run("ip link set vc2 master br0 up");
    guest.furnish();
    is_in(&mut guest, "1:fffe", "before it is labelled");
    apply(POLICY);
    is_in(&mut guest, &of_bob, "then");
    // The owner of a link changes, and so does the class.
    apply(&POLICY.replace("vc2", "vc3").replace("vc1", "vc2"));
    is_in(&mut guest, &of_ann, "another line's");
    // Without guests in the policy nothing is labelled, and nothing reads labels.
    apply(&POLICY.replace(", interfaces: [vc1]", "").replace(", interfaces: [vc2]", ""));
    is_in(&mut guest, "1:fffe", "nobody's");
    assert!(!run("tc qdisc show dev vc2").contains("clsact"));
    let filters = run("tc filter show dev up0");
    assert!(filters.contains("labels=0") && !filters.contains("labels=1"), "{filters}");
}

/// A VPN's daemon has a tun device, behind which are its clients, each with an address.
fn clients_of_a_tunnel_are_told_apart_by_their_addresses() {
    are_told_apart_by_their_addresses(Guest::tunnel);
}

fn clients_of_a_wireguard_of_the_kernels_are_told_apart_by_their_addresses() {
    are_told_apart_by_their_addresses(Guest::wireguard);
}

fn are_told_apart_by_their_addresses(tunnel: fn(&mut Guest, &World, &str)) {
    let mut world = World::new();
    route(&world);
    let mut client = Guest::without_link(2);
    tunnel(&mut client, &world, "vpn0");
    client.also_has("10.99.0.5");
    let text = "
version: 1
links: {up0: {rate: 400mbit, down: 300mbit}}
users:
  ann: {ceil: 200mbit, down: 200mbit, accounts: [ann], interfaces: [vpn0],
        addresses: [10.99.0.2, fd99::/64]}
  bob: {ceil: 200mbit, down: 200mbit, accounts: [bob], interfaces: [vpn0],
        addresses: [10.99.0.0/24]}
";
    apply(text);
    in_sync(text);
    let (of_ann, of_bob) = (classid("user/ann"), classid("user/bob"));
    for family in FAMILIES {
        client.ping(&world, family, 1, 56);
        let before = Both::now();
        client.upload(&mut world, family, 5 * MEGABYTE);
        before.share(&format!("a client's upload, {family:?}"), &of_ann, 99.9);
        let before = Both::now();
        client.download(&mut world, family, 5 * MEGABYTE);
        before.share(&format!("its download, {family:?}"), &of_ann, 99.9);
    }
    // Another's address.
    let from = |client: &Guest, address: &str| {
        let before = Both::now();
        client
            .run(&["ping", "-q", "-c", "5", "-i", "0.02", "-s", "4000", "-I", address, "10.77.0.2"])
            .exits(0);
        before
    };
    from(&client, "10.99.0.5").share("another client's", &of_bob, 99.0);
    // An address changes hands: an entry of the map, and no filter.
    let swapped = text.replace("addresses: [10.99.0.2, fd99::/64]", "addresses: [fd99::/64]");
    let steps = apply(&swapped).stdout;
    assert!(!steps.contains("filter"), "{steps}");
    from(&client, "10.99.0.2").share("an address that changed hands", &of_bob, 99.0);
    // What was changed by hand is repaired: a filter that reads other maps, and none.
    run("tc filter del dev vpn0 ingress");
    apply(&swapped);
    in_sync(&swapped);
    from(&client, "10.99.0.2").share("repaired", &of_bob, 99.0);
    shaper(&["clear"]).exits(0);
    assert!(!run("tc qdisc show dev vpn0").contains("clsact"));
}

fn a_machine_behind_a_tap_shares_its_owners_class() {
    let mut world = World::new();
    bridge(&world);
    let mut machine = Guest::without_link(2);
    machine.machine(&world, "vc1");
    apply(POLICY);
    in_sync(POLICY);
    let of_ann = classid("user/ann");
    for family in FAMILIES {
        machine.ping(&world, family, 1, 56);
        let before = Both::now();
        machine.upload(&mut world, family, 5 * MEGABYTE);
        before.share(&format!("a machine's upload, {family:?}"), &of_ann, 99.9);
        let before = Both::now();
        machine.download(&mut world, family, 5 * MEGABYTE);
        before.share(&format!("its download, {family:?}"), &of_ann, 99.9);
    }
}

/// The host of virtual machines that has its own address on the bridge.
fn an_uplink_that_is_a_port_of_the_guests_bridge_is_shaped_as_any_other() {
    let mut world = World::new();
    run("ip link add br0 type bridge");
    run("ip addr flush dev up0");
    run("ip link set up0 master br0");
    run("ip addr add 10.77.0.1/24 dev br0");
    run("ip addr add fd77::1/64 dev br0 nodad");
    run("ip link set br0 up");
    let guest = Guest::without_link(2);
    run(&format!("ip link add vc1 type veth peer name eth0 netns {}", guest.actor.pid()));
    run("ip link set vc1 master br0 up");
    let mut guest = guest.on_the_far_sides_net();
    apply(POLICY);
    in_sync(POLICY);
    let (of_ann, of_bob) = (classid("user/ann"), classid("user/bob"));
    let mut bob = world.actor(BOB);
    for family in FAMILIES {
        guest.ping(&world, family, 1, 56);
        let before = Both::now();
        guest.upload(&mut world, family, 5 * MEGABYTE);
        before.share(&format!("a guest's upload over the bridge, {family:?}"), &of_ann, 99.9);
        let before = Both::now();
        guest.download(&mut world, family, 5 * MEGABYTE);
        before.share(&format!("its download, {family:?}"), &of_ann, 99.9);
        // The host's own processes beside it.
        world.ping_from(&mut bob, family, 1, 56);
        let before = Both::now();
        world.ping_from(&mut bob, family, 20, 4_000);
        before.share(&format!("a local user, {family:?}"), &of_bob, 99.0);
    }
}

/// Guests come to a host that shapes what arrives, and leave it: the programs that decide are
/// others then, and so are those that note and find flows.
fn a_step_that_fails_leaves_the_guests_as_they_were() {
    let mut host = populated();
    bridge(&host.world);
    let _guests = [Guest::in_bridge("vc1", 2), Guest::in_bridge("vc2", 3)];
    let without = POLICY.replace(", interfaces: [vc1]", "").replace(", interfaces: [vc2]", "");
    host.go_to_text(&without);
    for (text, least) in [(POLICY, 4), (without.as_str(), 4)] {
        host.take_up(text).unwrap_or_else(|e| panic!("{}", e.text(false)));
        let steps = every_step_fails(&mut host, apply_gated);
        assert!(steps >= least, "{steps} steps");
        host.is_in_sync();
    }
}

//! Guests whose packets pass the uplink without being forwarded: those of a macvlan or ipvlan in
//! another namespace are nobody's, whatever their uid and priority are. And tunnels of the kernel's.

use super::{IFB, measured};
use crate::support::accounts::ANN;
use crate::support::actor::Actor;
use crate::support::cell::myself;
use crate::support::command::{run, run_with};
use crate::support::counters::classes;
use crate::support::exchange::Parcel;
use crate::support::guest::{COUNT, Sender};
use crate::support::harness::{On, tests};
use crate::support::orders::Order;
use crate::support::program::{apply, classid};
use crate::support::rates::Interval;
use crate::support::world::{Family, UPLINK, World};

tests!(
    On::Host => a_download_through_a_tunnel_of_the_kernels_is_shaped_by_its_name,
        a_macvlans_guest_is_nobodys_whatever_its_uid_and_priority;
    On::Carriers => an_ipvlans_guest_is_nobodys_whatever_its_uid_and_priority;
);

const DEFAULT: &str = "1:fffe";
const PORT: u16 = 8_080;
const PARCEL: Parcel = Parcel { sent: 100, received: 5_000_000 };

fn policy(link: &str) -> String {
    format!(
        "version: 1\nlinks: {{{link}: {{rate: 100mbit, down: 100mbit, default: {{rate: 50mbit, \
         ceil: 80mbit, down: {{rate: 50mbit, ceil: 80mbit}}}}}}}}\n\
         users: {{ann: {{ceil: 80mbit, down: 80mbit}}}}\n"
    )
}

fn a_download_through_a_tunnel_of_the_kernels_is_shaped_by_its_name() {
    let mut world = World::new();
    let vxlan = "link add vx0 type vxlan id 5 dstport 4789";
    world.on_host(&format!("ip {vxlan} local 10.77.0.1 remote 10.77.0.2")).exits(0);
    world.on_host("ip addr add 10.78.0.1/24 dev vx0").exits(0);
    world.on_host("ip link set vx0 up").exits(0);
    world.on_far(&format!("ip {vxlan} local 10.77.0.2 remote 10.77.0.1"));
    world.on_far("ip addr add 10.78.0.2/24 dev vx0");
    world.on_far("ip link set vx0 up");
    apply(&policy("vx0"));
    let at = "10.78.0.2:8080".parse().expect("an address");
    world.far.tell(&Order::Serve { at, parcel: PARCEL });
    let mut ann = world.actor(ANN);
    let before = classes("ifb-vx0");
    ann.tell(&Order::Exchange { to: at, times: 1, parcel: PARCEL });
    let interval = Interval::since(before, "ifb-vx0");
    interval.has_share("through vxlan, down", &classid("user/ann"), 99.9);
}

/// A new link on the uplink, in the namespace of this process.
fn give(pid: u32, name: &str, how: &str, address: &str) {
    run(&format!("ip link add link {UPLINK} name {name} type {how}"));
    run(&format!("ip link set {name} netns {pid}"));
    let lines = format!("addr add {address} dev {name}\nlink set {name} up\n");
    let pid = pid.to_string();
    run_with(myself(&["--enter", &pid, "ip", "-batch", "-"]), &lines).exits(0);
}

/// Packets that went past all limits of a link.
fn unlimited(link: &str) -> u64 {
    let text = run(&format!("tc -s -d qdisc show dev {link} root"));
    let (_, rest) = text.split_once("direct_packets_stat ").expect("HTB's counter");
    let direct: u64 = rest.split(' ').next().unwrap_or_default().parse().expect("a number");
    direct + classes(link).class("1:fffd").packets
}

fn is_nobodys(how: &str) {
    let mut world = World::new();
    apply(&policy(UPLINK));
    let at = world.far_at(Family::V4, PORT);
    world.far.tell(&Order::Serve { at, parcel: PARCEL });
    let mut guest = Actor::start(myself(&["--isolated-actor"]));
    give(guest.pid(), "guest0", how, "10.77.0.8/24");
    guest.become_account(ANN);
    measured("of ann's uid", DEFAULT, [99.9, 99.9], || {
        guest.tell(&Order::Exchange { to: at, times: 1, parcel: PARCEL });
    });
    let of_ann = classid("user/ann");
    assert_eq!([IFB, UPLINK].map(|link| classes(link).class(&of_ann).bytes), [0, 0]);

    let mut root = Sender::guest();
    run(&format!("ip link add link {UPLINK} name guest1 type {how}"));
    root.give("guest1", "10.77.0.9/24");
    world.far.tell(&Order::Echo(9));
    measured("of a priority", DEFAULT, [99.9, 99.9], || {
        for priority in [0x0001_0000, 0x0001_fffd] {
            root.send(priority, world.far_at(Family::V4, 9));
        }
    });
    assert!(classes(IFB).class(DEFAULT).packets >= 2 * COUNT, "the echoes came");
    assert_eq!([IFB, UPLINK].map(unlimited), [0, 0]);
}

fn a_macvlans_guest_is_nobodys_whatever_its_uid_and_priority() {
    is_nobodys("macvlan mode bridge");
}

fn an_ipvlans_guest_is_nobodys_whatever_its_uid_and_priority() {
    is_nobodys("ipvlan mode l2");
}

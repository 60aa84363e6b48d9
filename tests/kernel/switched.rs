//! Guests on a bridge of Open vSwitch's: behind veths, and on internal ports, which are in their
//! guests' network namespaces and send there by their guests' sockets.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::mount::{MsFlags, mount};

use crate::guests::{Both, MEGABYTE, POLICY, in_sync};
use crate::support::accounts::BOB;
use crate::support::actor::Actor;
use crate::support::behind::{Guest, nat, route};
use crate::support::cell::myself;
use crate::support::clock::soon;
use crate::support::command::{run, run_with};
use crate::support::counters::classes;
use crate::support::exchange::Parcel;
use crate::support::guest::{COUNT, Sender, tells_sockets_apart};
use crate::support::harness::{On, tests};
use crate::support::orders::Order;
use crate::support::program::{apply, classid};
use crate::support::world::{Family, UPLINK, World};

tests!(
    On::Switches => what_a_guest_of_a_switch_sends_and_receives_is_its_owners,
        whoever_has_an_internal_port_cannot_name_a_class;
);

const DEFAULT: &str = "1:fffe";

/// The switch's two daemons, which end with this value.
struct Switch([Child; 2]);

impl Drop for Switch {
    fn drop(&mut self) {
        for daemon in &mut self.0 {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

impl Switch {
    /// With a bridge `br0`, which learns addresses as any other does.
    fn start() -> Switch {
        const PLACE: &str = "/run/openvswitch";
        fs::create_dir_all(PLACE).expect("a folder for the switch");
        // The database's log is written there, and a lab's kernel has no such folder, or a
        // read-only one.
        let _is_there = fs::create_dir("/tmp");
        mount(None::<&str>, "/tmp", Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("/tmp");
        let database = format!("{PLACE}/conf.db");
        run(&format!("ovsdb-tool create {database} /usr/share/openvswitch/vswitch.ovsschema"));
        let daemon = |words: &[&str]| {
            let mut command = Command::new(words[0]);
            command.args(&words[1..]).args(["--no-chdir", "-vconsole:warn"]);
            command.stdin(Stdio::null()).spawn().expect("start a daemon of the switch")
        };
        let socket = format!("{PLACE}/db.sock");
        let server = daemon(&["ovsdb-server", &database, &format!("--remote=punix:{socket}")]);
        let patience = Duration::from_secs(20);
        soon("the database serves", patience, || fs::exists(&socket).unwrap_or(false));
        let switch = Switch([server, daemon(&["ovs-vswitchd", &format!("unix:{socket}")])]);
        run("ovs-vsctl --timeout=25 add-br br0");
        switch
    }
}

fn add_port(port: &str, options: &str) {
    run(&format!("ovs-vsctl --timeout=25 add-port br0 {port} {options}"));
}

/// The host routes between its uplink and the switch, with NAT for IPv4.
fn what_a_guest_of_a_switch_sends_and_receives_is_its_owners() {
    let mut world = World::new();
    let _switch = Switch::start();
    run("ip addr add 10.99.0.1/24 dev br0");
    run("ip addr add fd99::1/64 dev br0 nodad");
    run("ip link set br0 up");
    route(&world);
    nat("-A POSTROUTING -o up0 -j MASQUERADE");
    let mut guest = Guest::without_link(2);
    run(&format!("ip link add vc1 type veth peer name eth0 netns {}", guest.actor.pid()));
    run("ip link set vc1 up");
    add_port("vc1", "");
    guest.furnish();
    apply(POLICY);
    in_sync(POLICY);
    let of_ann = classid("user/ann");
    for family in [Family::V4, Family::V6] {
        guest.ping(&world, family, 1, 56);
        let before = Both::now();
        guest.upload(&mut world, family, 5 * MEGABYTE);
        before.share(&format!("a guest's upload, {family:?}"), &of_ann, 99.9);
        let before = Both::now();
        guest.download(&mut world, family, 5 * MEGABYTE);
        before.share(&format!("its download, {family:?}"), &of_ann, 99.9);
    }
}

/// Moves an internal port of the switch into a process's namespace, with an address of the
/// uplink's network.
fn internal_port(port: &str, pid: u32, address: &str) {
    add_port(port, &format!("-- set interface {port} type=internal"));
    run(&format!("ip link set {port} netns {pid}"));
    let lines = format!("addr add {address} dev {port}\nlink set {port} up\n");
    run_with(myself(&["--enter", &pid.to_string(), "ip", "-batch", "-"]), &lines).exits(0);
}

/// The uplink is a port of the switch, and so the guest's socket comes as far as the uplink.
fn whoever_has_an_internal_port_cannot_name_a_class() {
    let mut world = World::new();
    let _switch = Switch::start();
    run("ip addr flush dev up0");
    add_port(UPLINK, "");
    run("ip addr add 10.77.0.1/24 dev br0");
    run("ip link set br0 up");
    apply(POLICY);
    in_sync(POLICY);
    let at = world.far_at(Family::V4, 8_080);
    let parcel = Parcel { sent: 2_000_000, received: 2_000_000 };
    world.far.tell(&Order::Serve { at, parcel });
    let mut guest = Actor::start(myself(&["--isolated-actor"]));
    internal_port("int0", guest.pid(), "10.77.0.8/24");
    let before = Both::now();
    guest.tell(&Order::Exchange { to: at, times: 1, parcel });
    before.share("a guest's", DEFAULT, 99.9);
    if tells_sockets_apart() {
        guest.become_account(BOB);
        let before = Both::now();
        guest.tell(&Order::Exchange { to: at, times: 1, parcel });
        before.share("a guest's of bob's uid", DEFAULT, 99.9);
    }
    // Whoever is root in the namespace may set any priority.
    let mut root = Sender::guest();
    add_port("int1", "-- set interface int1 type=internal");
    root.give("int1", "10.77.0.9/24");
    world.far.tell(&Order::Echo(9));
    for priority in [0x0001_0000, 0x0001_fffd] {
        root.send(priority, world.far_at(Family::V4, 9));
    }
    assert_eq!(classes(UPLINK).class("1:fffd").packets, 0, "past all limits");
    assert!(classes(UPLINK).class(DEFAULT).packets >= 2 * COUNT, "the datagrams were sent");
    // The host's own users are who they are.
    let mut bob = world.actor(BOB);
    let before = Both::now();
    bob.tell(&Order::Exchange { to: at, times: 1, parcel });
    before.share("a local user's", &classid("user/bob"), 99.9);
}

//! Guests whose packets pass the uplink without being forwarded. Those of a rootless container are
//! its user's, who runs the program that carries them; those of a macvlan or ipvlan in another
//! namespace are nobody's, whatever their uid and priority are. And tunnels of the kernel's.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use shaper::apply::Session;
use shaper::facts::{Features, Helpers};
use shaper::host::{Kernel, observe};

use super::{IFB, measured};
use crate::host::Host;
use crate::support::accounts::{ANN, own_etc};
use crate::support::actor::Actor;
use crate::support::cell::{SCRATCH, myself};
use crate::support::command::{run, run_with};
use crate::support::counters::classes;
use crate::support::exchange::Parcel;
use crate::support::guest::{COUNT, Sender, tells_sockets_apart};
use crate::support::harness::{On, tests};
use crate::support::orders::{Order, Proto};
use crate::support::program::{apply, classid};
use crate::support::rates::Interval;
use crate::support::world::{Family, UPLINK, World};

tests!(
    On::Host => what_a_rootless_container_sends_and_receives_is_its_users,
        a_download_through_a_tunnel_of_the_kernels_is_shaped_by_its_name,
        a_macvlans_guest_is_nobodys_whatever_its_uid,
        so_it_is_where_the_namespace_is_read_in_the_kernels_memory,
        a_macvlans_guest_is_nobodys_whatever_its_priority;
    On::Carriers => an_ipvlans_guest_is_nobodys_whatever_its_uid,
        an_ipvlans_guest_is_nobodys_whatever_its_priority;
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

/// Runs `$1` in a rootless container, as slirp4netns' manual has it.
const ROOTLESS: &str = "
unshare -rn bash -c \"until ip route show default | grep -q tap0; do sleep 0.02; done; $1\" &
guest=$!
until [ \"$(readlink /proc/$guest/ns/net)\" != \"$(readlink /proc/$$/ns/net)\" ]; do sleep 0.02; done
slirp4netns --configure --mtu=65520 $guest tap0 >/dev/null 2>&1 &
slirp=$!
wait $guest
kill $slirp
";

fn what_a_rootless_container_sends_and_receives_is_its_users() {
    own_etc();
    fs::write("/etc/subgid", "ann:700000:65536\n").expect("ann's subordinate gids");
    let mut world = World::new();
    fs::write("/etc/subuid", "ann:700000:65536\n").expect("ann's subordinate uids");
    // For everybody, as udev has it.
    let tun = format!("{SCRATCH}/tun");
    run(&format!("mknod -m 666 {tun} c 10 200"));
    run(&format!("mount --bind {tun} /dev/net/tun"));
    let home = format!("{SCRATCH}/ann");
    fs::create_dir(&home).expect("ann's folder");
    std::os::unix::fs::chown(&home, Some(ANN.uid), Some(ANN.gid)).expect("it is hers");
    // Of which pasta makes the container's own.
    run("ip route add default via 10.77.0.254");
    apply(&policy(UPLINK));
    let ways: [(&str, &[&str]); 3] = [
        ("slirp4netns", &["bash", "-c", ROOTLESS, "bash"]),
        ("pasta", &["pasta", "--config-net", "--", "bash", "-c"]),
        ("rootlesskit", &["rootlesskit", "--net=slirp4netns", "bash", "-c"]),
    ];
    let most = PARCEL.received;
    let mut port = PORT;
    for (carrier, words) in ways {
        // Of the other direction there are few bytes.
        for (sent, received, least) in
            [(PARCEL.sent, most, [99.9, 95.0]), (most, 100, [95.0, 99.9])]
        {
            port += 1;
            let (at, parcel) = (world.far_at(Family::V4, port), Parcel { sent, received });
            world.far.tell(&Order::Serve { at, parcel });
            let exchange = format!(
                "exec 3<>/dev/tcp/{}/{port}; head -c {sent} /dev/zero >&3; wc -c <&3",
                at.ip()
            );
            measured(carrier, &classid("user/ann"), least, || {
                let mut ann = Command::new("timeout");
                ann.arg("20").args(words).arg(&exchange);
                ann.envs([("HOME", &home), ("XDG_RUNTIME_DIR", &home)]);
                ann.uid(ANN.uid).gid(ANN.gid).current_dir("/");
                let done = run_with(ann, "");
                assert_eq!(done.stdout.trim(), received.to_string(), "{}", done.stderr);
            });
        }
    }
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

/// A guest's process with the uid of ann's, once her policy is applied.
fn is_nobodys_whatever_its_uid(world: &mut World, how: &str) {
    let at = world.far_at(Family::V4, PORT);
    world.far.tell(&Order::Serve { at, parcel: PARCEL });
    let to = world.far_at(Family::V4, 9);
    world.far.sink(Proto::Udp, 9);
    let mut guest = Actor::start(myself(&["--isolated-actor"]));
    give(guest.pid(), "guest0", how, "10.77.0.8/24");
    guest.become_account(ANN);
    if !tells_sockets_apart() {
        return;
    }
    measured("of ann's uid", DEFAULT, [99.9, 99.9], || {
        guest.tell(&Order::Exchange { to: at, times: 1, parcel: PARCEL });
        let socket = guest.socket(&Order::Datagram(to));
        guest.tell(&Order::Beat { socket, bytes: 1_000, bits_per_second: 800_000 });
        sleep(Duration::from_millis(300));
        assert!(guest.stop(socket).1 > 10);
    });
    let of_ann = classid("user/ann");
    assert_eq!([IFB, UPLINK].map(|link| classes(link).class(&of_ann).bytes), [0, 0]);
    // She herself is who she is.
    let mut ann = world.actor(ANN);
    measured("ann's own", &of_ann, [99.9, 95.0], || {
        ann.tell(&Order::Exchange { to: at, times: 1, parcel: PARCEL });
    });
}

fn a_macvlans_guest_is_nobodys_whatever_its_uid() {
    let mut world = World::new();
    apply(&policy(UPLINK));
    is_nobodys_whatever_its_uid(&mut world, "macvlan mode bridge");
}

fn an_ipvlans_guest_is_nobodys_whatever_its_uid() {
    let mut world = World::new();
    apply(&policy(UPLINK));
    is_nobodys_whatever_its_uid(&mut world, "ipvlan mode l2");
}

/// As Linux before 6.15 has it: no function says in which namespace a socket is.
fn so_it_is_where_the_namespace_is_read_in_the_kernels_memory() {
    let mut host = Host::new();
    let features = observe::try_features(None).expect("what this kernel can do");
    let helpers = Helpers { netns_cookie: false, ..features.helpers };
    let kernel = Kernel::open(None).expect("open the kernel");
    host.session = Session::knowing(kernel, Features { helpers, ..features }, true);
    host.go_to_text(&policy(UPLINK));
    for parent in ["parent 1:", "egress"] {
        let filters = run(&format!("tc filter show dev {UPLINK} {parent}"));
        assert!(filters.contains("sockets=inode:"), "{filters}");
    }
    is_nobodys_whatever_its_uid(&mut host.world, "macvlan mode bridge");
    // Priorities are cleared that a guest asks for, and those of the host's root stay.
    let root = Sender::guest();
    run(&format!("ip link add link {UPLINK} name guest1 type macvlan mode bridge"));
    root.give("guest1", "10.77.0.9/24");
    let to = host.world.far_at(Family::V4, 9);
    for (mut sender, past) in [(root, 0), (Sender::host(), COUNT)] {
        let before = unlimited(UPLINK);
        sender.send(0x0001_0000, to);
        assert_eq!(unlimited(UPLINK) - before, past);
    }
    host.is_in_sync();
}

fn is_nobodys_whatever_its_priority(how: &str) {
    let mut world = World::new();
    apply(&policy(UPLINK));
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

fn a_macvlans_guest_is_nobodys_whatever_its_priority() {
    is_nobodys_whatever_its_priority("macvlan mode bridge");
}

fn an_ipvlans_guest_is_nobodys_whatever_its_priority() {
    is_nobodys_whatever_its_priority("ipvlan mode l2");
}

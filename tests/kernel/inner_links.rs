//! Whose the links of guests are: those of a named network namespace with guests of its own, and
//! links that come, go and change their names, beside a daemon.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::support::behind::{Guest, bridge, iptables, nat};
use crate::support::clock::soon;
use crate::support::command::run;
use crate::support::counters::classes;
use crate::support::daemon::Daemon;
use crate::support::harness::{On, tests};
use crate::support::labels::label;
use crate::support::program::{apply, classid, policy, shaper};
use crate::support::rates::Interval;
use crate::support::world::{Family, World};

tests!(
    On::HostAndUml => what_is_behind_a_router_in_a_namespace_is_its_users;
    On::HostAndNight => a_link_is_labelled_as_it_comes_and_never_the_wrong_users,
        a_link_that_comes_is_no_change;
);

const PATIENCE: Duration = Duration::from_secs(10);
const MEGABYTE: u64 = 1_000_000;
const LINKS: &str = "version: 1\nlinks: {up0: {rate: 400mbit, down: 300mbit}}\n";

/// Of what leaves and of what arrives, the class must have this share.
fn shares(class: &str, what: &str, act: impl FnOnce()) {
    let before = ["up0", "ifb-up0"].map(|link| (link, classes(link)));
    act();
    for (link, before) in before {
        let interval = Interval::since(before, link);
        match interval.leaves().values().sum::<u64>() < MEGABYTE {
            // Of few bytes, what hosts say to each other is a part.
            true => interval.others_stay_below(1_000, &[class]),
            false => interval.has_share(&format!("{what}, {link}"), class, 99.9),
        }
    }
}

/// A router in a namespace with a name, as textbooks have it: a guest behind it, SNAT for what the
/// guest begins, DNAT for a port of the guest's.
fn what_is_behind_a_router_in_a_namespace_is_its_users() {
    let mut world = World::new();
    bridge(&world);
    let router = Guest::in_bridge("vr0", 2);
    run(&format!("ip netns attach routerns {}", router.actor.pid()));
    let mut behind = Guest::without_link(3);
    let pid = behind.actor.pid();
    run(&format!("ip -n routerns link add tap-a type veth peer name eth0 netns {pid}"));
    let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
    router.run(&["sh", "-c", forward]).exits(0);
    let tables = iptables();
    let to = "--to-destination 10.60.0.2:8080";
    for line in [
        "ip addr add 10.60.0.1/24 dev tap-a",
        "ip link set tap-a up",
        &format!(
            "{tables} -t nat -A POSTROUTING -o eth0 -s 10.60.0.0/24 -j SNAT --to-source 10.99.0.2"
        ),
        &format!("{tables} -t nat -A PREROUTING -i eth0 -p tcp --dport 80 -j DNAT {to}"),
    ] {
        router.run(&line.split(' ').collect::<Vec<_>>()).exits(0);
    }
    for line in [
        "ip link set lo up",
        "ip link set eth0 up",
        "ip addr add 10.60.0.2/24 dev eth0",
        "ip route add default via 10.60.0.1",
    ] {
        behind.run(&line.split(' ').collect::<Vec<_>>()).exits(0);
    }
    nat("-A PREROUTING -p tcp --dport 80 -j DNAT --to-destination 10.99.0.2:80");
    apply(&format!(
        "{LINKS}users: {{lab: {{ceil: 200mbit, down: 200mbit, accounts: [], namespaces: routerns}}}}"
    ));
    let class = classid("user/lab");
    shares(&class, "an upload through SNAT", || {
        behind.upload(&mut world, Family::V4, 10 * MEGABYTE);
    });
    shares(&class, "a download", || behind.download(&mut world, Family::V4, 10 * MEGABYTE));
    shares(&class, "what comes to a published port", || {
        let at = SocketAddr::new("10.60.0.2".parse().expect("an address"), 8080);
        behind.serve(&mut world, at, "10.77.0.1:80".parse().expect("one"), 10 * MEGABYTE);
    });
    // A second link into the namespace is its user's, too, and a name that goes is nobody's.
    run("ip link add vr1 type veth peer name eth1 netns routerns");
    let named = "users: {lab: {ceil: 200mbit, accounts: [], namespaces: routerns}}";
    assert!(apply(&format!("{LINKS}{named}")).stdout.contains("+ guests behind vr1 are lab's"));
    run("ip netns del routerns");
    apply(&format!("{LINKS}{named}"));
    assert_eq!(label("vr0"), Some("0".to_string()));
}

const TWO: &str = "users:
  ann: {ceil: 100mbit, down: 100mbit, interfaces: [\"va*\", vx]}
  bob: {ceil: 100mbit, down: 100mbit, interfaces: [\"vb*\"]}
";

fn a_link_is_labelled_as_it_comes_and_never_the_wrong_users() {
    let world = World::new();
    bridge(&world);
    let text = format!("{LINKS}{TWO}");
    let file = policy(&text);
    let daemon = Daemon::start(&["watch", &file]);
    let minor = |name: &str| classid(&format!("user/{name}")).replace("1:", "");
    let (of_ann, of_bob) = (minor("ann"), minor("bob"));
    // From the moment at which ip(8) has made the link, and has ended.
    let labelled = |link: &str, minor: &str| {
        soon(&format!("{link} is {minor}'s"), PATIENCE, || label(link).as_deref() == Some(minor))
    };
    let mut guest = Guest::without_link(4);
    let pid = guest.actor.pid();
    let mut took = Vec::new();
    for round in 0..15 {
        let (link, minor) = if round % 2 == 0 { ("va0", &of_ann) } else { ("vb0", &of_bob) };
        let began = Instant::now();
        // Always with one index, as if it had come round again.
        run(&format!("ip link add {link} index 900 type veth peer name eth0 netns {pid}"));
        labelled(link, minor);
        took.push(began.elapsed());
        if round == 14 {
            break;
        }
        run(&format!("ip link del {link}"));
        // A daemon's looks keep their distance, so that it has time for others.
        std::thread::sleep(Duration::from_millis(100));
    }
    took.sort();
    println!("labelled {:?} (median), {:?} (longest) after it was asked for", took[7], took[14]);
    assert!(took[7] < Duration::from_millis(500), "{took:?}");
    run("ip link set va0 master br0 up");
    guest.furnish();
    guest.ping(&world, Family::V4, 1, 56);
    shares(&format!("1:{of_ann}"), "at first", || {
        guest.ping(&world, Family::V4, 20, 4_000);
    });
    // It changes its name, so it is another line's.
    run("ip link set va0 down");
    run("ip link set va0 name vb7");
    run("ip link set vb7 up");
    labelled("vb7", &of_bob);
    // Nobody's name.
    run("ip link set vb7 down");
    run("ip link set vb7 name other");
    run("ip link set other up");
    labelled("other", "0");
    // An alternative name counts as well.
    run("ip link property add dev other altname vx");
    labelled("other", &of_ann);
    // It moves to another namespace and back: its filters went with the move.
    let away = Guest::without_link(5);
    run(&format!("ip link set other netns {}", away.actor.pid()));
    let back = format!("ip link set other netns {} name va1", std::process::id());
    away.run(&back.split(' ').collect::<Vec<_>>()).exits(0);
    labelled("va1", &of_ann);
    // Somebody takes the label away.
    run("tc qdisc del dev va1 clsact");
    labelled("va1", &of_ann);
    assert!(daemon.end().success());
    let plan = shaper(&["plan", &policy(&text)]);
    assert!(plan.stdout.contains("in sync"), "{}", plan.stdout);
}

fn a_link_that_comes_is_no_change() {
    let world = World::new();
    bridge(&world);
    let text = format!("{LINKS}{TWO}").replace(", vx", "");
    let _first = Guest::in_bridge("va0", 2);
    apply(&text);
    let _second = Guest::in_bridge("vb0", 3);
    let plan = shaper(&["plan", "--exit-code", &policy(&text)]);
    assert_eq!(plan.status, Some(0));
    assert!(plan.stdout.contains("+ guests behind vb0 are bob's"), "{}", plan.stdout);
    let quiet = shaper(&["apply", "-q", &policy(&text)]).exits(0);
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
    assert_eq!(label("vb0").as_deref(), Some(classid("user/bob").trim_start_matches("1:")));
    // Another user's link is a change.
    let other = text.replace("\"va*\"", "\"vc*\"").replace("\"vb*\"", "\"v?0\"");
    let plan = shaper(&["plan", "--exit-code", &policy(&other)]);
    assert_eq!(plan.status, Some(3), "{}", plan.stdout);
}

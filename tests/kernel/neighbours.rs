//! Programs that a mounted `net_cls` might disturb, beside a shaped host: those that see it in
//! /proc/self/cgroup, and those that share the kernel's memory of a socket's cgroup with it. What
//! needs a host of cgroup v2 alone is in tests/boot/neighbours.sh, in a machine of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use nix::mount::{MsFlags, mount};

use crate::support::accounts::{ANN, BOB};
use crate::support::cell::SCRATCH;
use crate::support::command::run;
use crate::support::counters;
use crate::support::harness::{On, tests};
use crate::support::orders::Proto;
use crate::support::program::{CLAIMS, NET_CLS, apply, confined_shaper, policy, shaper};
use crate::support::world::{Family, UPLINK, World};

tests!(
    On::Host => auto_leaves_a_users_old_podman_alone, where_it_cannot_be_written_auto_goes_without,
    nftables_still_sees_the_cgroups_of_sockets;
);

const POLICY: &str = "
version: 1
links: {up0: {rate: 100mbit, default: {rate: 5mbit}}}
users: {ann: 30mbit, bob: 20mbit}
";

fn with(classifier: &str) -> String {
    POLICY.replace("{rate: 100mbit,", &format!("{{classifier: {classifier}, rate: 100mbit,"))
}

/// Where the instance stands, and whether `net_cls` is mounted.
#[track_caller]
fn stands_in(root: &str) {
    let stands = |root: &str| Path::new(root).join("shaper/user/ann").exists();
    assert!(stands(root), "the instance is in {root}");
    assert!(!stands(if root == CLAIMS { NET_CLS } else { CLAIMS }), "and nowhere else");
    assert_eq!(Path::new(NET_CLS).exists(), root == NET_CLS);
}

/// The check of this name, as `doctor` tells it: its state and what it found.
fn doctor(id: &str) -> Option<(String, String)> {
    let told = shaper(&["doctor", "--json"]).json();
    let checks = told["checks"].as_array().expect("checks").clone();
    let check = checks.into_iter().find(|check| check["id"] == id)?;
    let text = |key: &str| check[key].as_str().unwrap_or_default().to_string();
    Some((text("state"), text("what")))
}

/// Podman's own behaviour beside `net_cls` is shown by tests/boot/neighbours.sh.
fn auto_leaves_a_users_old_podman_alone() {
    let mut world = World::new();
    let _stream = world.pouring(ANN, Family::V4);
    // Whatever version this machine has.
    let packages = format!("{SCRATCH}/packages");
    let text = "Package: podman\nStatus: install ok installed\nVersion: 4.3.1+ds1-8\n";
    fs::write(&packages, text).expect("a list of packages");
    let none: Option<&str> = None;
    mount(Some(packages.as_str()), "/var/lib/dpkg/status", none, MsFlags::MS_BIND, none)
        .expect("the cell's list of packages");
    assert!(Path::new("/usr/bin/podman").exists(), "the tests have Podman");
    apply(POLICY);
    stands_in(NET_CLS);
    shaper(&["clear"]).exits(0);
    // Ann has started it.
    let used = format!("/run/user/{}/libpod", ANN.uid);
    fs::create_dir_all(&used).expect("her folder");
    apply(POLICY);
    stands_in(CLAIMS);
    let again = shaper(&["plan", "--exit-code", &policy(POLICY)]);
    assert_eq!(again.status, Some(0), "{}{}", again.stdout, again.stderr);
    let (state, what) = doctor("net_cls").expect("a check");
    assert!(state == "ok" && what.contains("Podman before 5.3"), "{what}");
    assert_eq!(doctor("neighbours"), None, "nobody is disturbed");
    // What needs tags has them, and doctor says whom that disturbs.
    let of_a_unit = format!(
        "{}  web: {{units: [web.service], rate: 1mbit}}\n",
        POLICY.replace("users: {ann: 30mbit, bob: 20mbit}", "users:\n  ann: 30mbit\n  bob: 20mbit")
    );
    for text in [with("bpf"), of_a_unit] {
        apply(&text);
        stands_in(NET_CLS);
        let (state, what) = doctor("neighbours").expect("a check");
        assert!(state == "warning" && what.contains("Podman before 5.3"), "{what}");
        // Where it is mounted it is taken, also by `auto`.
        apply(POLICY);
        stands_in(NET_CLS);
        apply(&with("uid"));
        stands_in(CLAIMS);
    }
    assert!(what.contains("or once none of them is logged in or lingers"), "{what}");
    // The daemon of the unit may not mount it: it stays without also when she has left.
    fs::remove_dir_all(&used).expect("her folder goes");
    let file = policy(POLICY);
    let daemons = confined_shaper(&["plan", "-v", &file]).exits(0).stdout;
    assert!(!daemons.contains("mount"), "{daemons}");
    let roots = shaper(&["plan", "-v", &file]).exits(0).stdout;
    assert!(roots.contains("+ mount net_cls"), "{roots}");
    let (_, what) = doctor("net_cls").expect("a check");
    assert!(what.contains("the next `shaper apply` mounts it and takes `bpf`"), "{what}");
    apply(POLICY);
    stands_in(NET_CLS);
    shaper(&["clear"]).exits(0);
    // In a container that may not mount it, `doctor` says what `auto` does there.
    let told = confined_shaper(&["doctor", "--json"]).json().to_string();
    assert!(told.contains("does without (`uid`): nothing here has it mounted"), "{told}");
}

/// As in a container to which its engine shows the host's hierarchies for reading.
fn where_it_cannot_be_written_auto_goes_without() {
    let mut world = World::new();
    let _stream = world.pouring(ANN, Family::V4);
    let at = format!("{SCRATCH}/theirs");
    fs::create_dir(&at).expect("a mount point");
    run(&format!("mount -t cgroup -o net_cls,favordynmods none {at}"));
    run(&format!("mount -o remount,bind,ro {at}"));
    let refused = shaper(&["apply", &policy(&with("bpf"))]);
    assert_eq!(refused.status, Some(1), "{}", refused.stdout);
    let says = |words: &str| {
        let (state, what) = doctor("net_cls").expect("a check");
        assert!(state == "ok" && what.contains(words), "{what}");
        assert_eq!(doctor("neighbours"), None, "nobody is disturbed");
    };
    says("does without (`uid`): it is mounted for reading only");
    apply(POLICY);
    stands_in(CLAIMS);
    let ann = |root: &str| fs::read_to_string(format!("{root}/shaper/user/ann/net_cls.classid"));
    assert!(ann(CLAIMS).is_ok());
    let again = shaper(&["plan", "--exit-code", &policy(POLICY)]);
    assert_eq!(again.status, Some(0), "{}{}", again.stdout, again.stderr);
    says("does without (`uid`): it is mounted for reading only");
    // Once it can be written `auto` takes it, and goes on so, though it is seen as before again.
    run(&format!("mount -o remount,bind,rw {at}"));
    says("so `classifier: auto` is `bpf`");
    apply(POLICY);
    assert!(ann(&at).is_ok() && ann(CLAIMS).is_err());
    run(&format!("mount -o remount,bind,ro {at}"));
    says("so `classifier: auto` is `bpf`");
    run(&format!("mount -o remount,bind,rw {at}"));
    shaper(&["clear"]).exits(0);
    run(&format!("umount {at}"));
}

/// A cgroup of the machine's, outside of the cell.
struct Group(PathBuf);

impl Group {
    fn new(name: &str) -> Group {
        let group = Path::new("/sys/fs/cgroup").join(name);
        fs::create_dir_all(&group).expect("a cgroup");
        Group(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let procs = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        for pid in procs.lines() {
            let _ = fs::write("/sys/fs/cgroup/cgroup.procs", pid);
        }
        let _ = fs::remove_dir(&self.0);
    }
}

/// Before Linux 5.15 a tag took a socket its cgroup.
fn nftables_still_sees_the_cgroups_of_sockets() {
    let mut world = World::new();
    let none: Option<&str> = None;
    mount(none, "/sys/fs/cgroup", Some("cgroup2"), MsFlags::empty(), none).expect("cgroups");
    let name = "shaper-test-of-nftables";
    let Group(group) = &Group::new(name);
    run("nft add table inet t");
    run("nft add chain inet t out { type filter hook output priority 0 ; }");
    run(&format!("nft add rule inet t out socket cgroupv2 level 1 {name} counter"));
    let counted = || {
        let rules = run("nft list chain inet t out");
        let (_, bytes) = rules.split_once(" bytes ").expect("a counter");
        let bytes = bytes.split_whitespace().next().expect("a number");
        bytes.parse::<u64>().expect("a number")
    };
    for classifier in ["bpf", "uid"] {
        apply(&with(classifier));
        let port = world.sink(Proto::Tcp);
        let to = world.far_at(Family::V4, port);
        let mut ann = world.actor(ANN);
        fs::write(group.join("cgroup.procs"), ann.pid().to_string()).expect("she is moved");
        let socket = ann.connect(to);
        apply(&with(classifier));
        let root = if classifier == "uid" { CLAIMS } else { NET_CLS };
        let [of_ann, of_bob] = ["ann", "bob"].map(|user| {
            let file = format!("{root}/shaper/user/{user}/net_cls.classid");
            let text = fs::read_to_string(file).expect("a class");
            let raw: u32 = text.trim().parse().expect("a number");
            format!("{:x}:{:x}", raw >> 16, raw & 0xffff)
        });
        let sent = |class: &str| counters::classes(UPLINK).class(class).bytes;
        let (before, seen) = (sent(&of_ann), counted());
        ann.pour(socket);
        world.until("nftables and her class count what she sends", |_| {
            counted() - seen > 1_000_000 && sent(&of_ann) - before > 1_000_000
        });
        // What nobody in the cgroup sends is not counted.
        drop(ann);
        world.until("what she had queued has left", |_| {
            let before = counted();
            sleep(Duration::from_millis(300));
            counted() == before
        });
        let (before, seen) = (sent(&of_bob), counted());
        let _bob = world.pouring(BOB, Family::V4);
        world.until("bob sends", |_| sent(&of_bob) - before > 1_000_000);
        assert!(counted() - seen < 10_000, "{classifier}: {}", counted() - seen);
    }
}

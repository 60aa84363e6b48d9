//! The daemon as its unit file runs it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::beside;
use crate::escapes::handed_on::{Heir, accepted};
use crate::support::accounts::{ANN, CAROL};
use crate::support::cell::{SCRATCH, myself};
use crate::support::clock::soon;
use crate::support::command::{run, run_with};
use crate::support::counters;
use crate::support::daemon::Daemon;
use crate::support::harness::{On, tests};
use crate::support::orders::Order;
use crate::support::program::{binary, classid, directory, members, policy, shaper};
use crate::support::world::{Family, UPLINK, World};

tests!(
    On::Every => the_capabilities_of_the_unit_are_enough;
    On::Host => the_units_are_hardened, the_units_are_well_written;
);

const UNIT: &str = include_str!("../../../systemd/shaper.service");
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd");

/// linux/capability.h.
const NUMBERS: [(&str, &str); 7] = [
    ("CAP_CHOWN", "0"),
    ("CAP_DAC_READ_SEARCH", "2"),
    ("CAP_NET_ADMIN", "12"),
    ("CAP_SYS_PTRACE", "19"),
    ("CAP_SYS_ADMIN", "21"),
    ("CAP_PERFMON", "38"),
    ("CAP_BPF", "39"),
];

/// What the files grant, as numbers.
fn capabilities(files: &[&str]) -> String {
    let lines = files.iter().flat_map(|text| text.lines());
    let words = lines.filter_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let numbers = words.flat_map(str::split_whitespace).map(|word| {
        let (_, number) = NUMBERS.iter().find(|(name, _)| *name == word).expect(word);
        *number
    });
    numbers.collect::<Vec<_>>().join(",")
}

/// After the first build, as in the unit: it tries what the kernel can do.
fn the_capabilities_of_the_unit_are_enough() {
    let world = World::new();
    let text = "
version: 1
links: {up0: {rate: 100mbit, default: {rate: 5mbit}}}
users: {ann: 10mbit}
everyone: 25mbit
classes: {fast: {ceil: 50mbit}}
rules: [{from: carol, dport: 7, to: fast}]
";
    let file = policy(text);
    beside(&["apply", &file]).exits(0);
    let granted = capabilities(&[UNIT]);
    let mut command = myself(&["--with-capabilities", &granted]);
    command.arg(binary());
    command.args(["--cgroup", "shaper", "watch", "--skip-unknown", &file]);
    let daemon = Daemon::run(command);
    let [ann, mut carol] = [world.actor(ANN), world.actor(CAROL)];
    soon("ann is placed", Duration::from_secs(20), || members("user/ann").contains(&ann.pid()));
    let place = format!("uid/{}", CAROL.uid);
    soon("carol has a class and is in it", Duration::from_secs(20), || {
        directory(&place).exists() && members(&place).contains(&carol.pid())
    });
    // Her rule is for her as soon as she has a class.
    let socket = carol.socket(&Order::Datagram(world.far_at(Family::V4, 7)));
    carol.tell(&Order::Beat { socket, bytes: 100, bits_per_second: 80_000 });
    let fast = classid("class/fast");
    soon("carol's rule counts", Duration::from_secs(20), || {
        counters::classes(UPLINK).class(&fast).packets > 5
    });
    carol.stop(socket);
    let status = shaper(&["status", "--rules", "--json"]).exits(0).json();
    let counted = &status["links"][0]["rules"][0]["packets"];
    assert!(counted.as_u64().is_some_and(|packets| packets > 5), "{counted}");
    let (accepted, _far) = accepted();
    let heir = Heir::start(ANN, accepted);
    soon("ann's connection is hers", Duration::from_secs(20), || heir.owner() == ANN.uid);
    run("tc qdisc del dev up0 root");
    soon("the root is back", Duration::from_secs(10), || {
        run("tc qdisc show dev up0").contains("htb 1: root")
    });
    // User-mode Linux has no MPTCP.
    let reads_mptcp = !run("tc filter show dev up0").contains("mptcp=no");
    assert!(
        reads_mptcp || !Path::new("/proc/sys/net/mptcp").exists(),
        "the program is a lesser one"
    );
    assert!(
        !daemon.log().contains("denied") && !daemon.log().contains("EPERM"),
        "{}",
        daemon.log()
    );
    assert!(daemon.end().success());
}

/// Of 100; `systemd-analyze` refuses what is above. The figures of docs/service.md.
fn the_units_are_hardened() {
    let unit = format!("{FOLDER}/shaper.service");
    is_at_most(&unit, 32);
    is_at_most(&format!("{FOLDER}/shaper-apply.service"), 36);
    // Without what eBPF and handing over connections take.
    let text = fs::read_to_string(&unit).expect("the unit");
    let mut lesser = text.clone();
    for (taken, left) in [(" CAP_CHOWN CAP_BPF", ""), ("SystemCallFilter=bpf fchownat\n", "")] {
        assert!(lesser.contains(taken), "no {taken:?} in {unit}");
        lesser = lesser.replace(taken, left);
    }
    is_at_most(&copied("less", &lesser), 29);
    let with_drop_in = copied("dropped", &text);
    fs::create_dir_all(format!("{with_drop_in}.d")).expect("a folder");
    fs::copy(format!("{FOLDER}/no-bpf.conf"), format!("{with_drop_in}.d/no-bpf.conf"))
        .expect("a copy");
    is_at_most(&with_drop_in, 29);
}

#[track_caller]
fn is_at_most(unit: &str, threshold: u32) {
    run(&format!(
        "systemd-analyze security --offline=true --threshold={threshold} --no-pager {unit}"
    ));
}

/// The unit with this text, in a folder of its own.
fn copied(folder: &str, text: &str) -> String {
    let folder = format!("{SCRATCH}/{folder}");
    fs::create_dir_all(&folder).expect("a folder");
    let unit = format!("{folder}/shaper.service");
    fs::write(&unit, text).expect("a copy");
    unit
}

/// Where it is installed, which a unit's `ExecStart` must be. With the binary of this test.
fn the_units_are_well_written() {
    let folder = Path::new(SCRATCH).join("units");
    fs::create_dir_all(folder.join("shaper.service.d")).expect("a folder");
    for unit in fs::read_dir(FOLDER).expect("the units").map(|unit| unit.expect("a unit").path()) {
        let name = unit.file_name().and_then(|name| name.to_str()).expect("its name");
        let text = fs::read_to_string(&unit).expect("a unit");
        let text = text.replace("/usr/local/bin/shaper", &binary().display().to_string());
        let place = match name {
            "netns.conf" | "no-bpf.conf" => format!("shaper.service.d/{name}"),
            name => name.to_string(),
        };
        fs::write(folder.join(place), text).expect("a copy");
    }
    let verify = format!("systemd-analyze verify --man=no {}/shaper.service", folder.display());
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{verify} 2>&1")]);
    let done = run_with(command, "").exits(0);
    let ours = done.stdout.lines().filter(|line| line.contains("shaper"));
    assert_eq!(ours.collect::<Vec<_>>(), Vec::<&str>::new(), "{}", done.stdout);
}

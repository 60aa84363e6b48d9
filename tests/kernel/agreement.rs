//! What the program says against what others see: nothing sent when nothing is to do, the same
//! numbers as `tc`, two instances that do not see each other, nothing left after `clear`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use netlink_bindings::tc::{OpNewtclassDo, OptionsMsg};
use serde_json::Value;
use shaper::netlink::request::dump;
use shaper::sys::Netlink;

use crate::support::accounts::{ANN, BOB};
use crate::support::cell::SCRATCH;
use crate::support::clock::Micros;
use crate::support::command::{Done, run, run_with};
use crate::support::counters;
use crate::support::harness::{On, tests};
use crate::support::program::{NET_CLS, apply, binary, classid, directory, policy, shaper};
use crate::support::rates::{self, MBIT};
use crate::support::world::{Family, UPLINK, World};

tests!(
    On::Every => status_says_what_tc_says;
    On::HostAndUml => applying_twice_changes_nothing, clear_leaves_nothing_behind,
        status_tc_and_an_independent_decoder_see_the_same_classes;
    On::Host => two_instances_do_not_see_each_other,
        applying_twice_sends_no_changing_message;
);

const POLICY: &str = "
version: 1
links: {up0: {rate: 100mbit, default: {rate: 5mbit, ceil: 10mbit}}}
users:
  ann: {rate: 40mbit, prio: 2}
  bob: {rate: 20mbit, ceil: 80mbit}
groups: {team: {users: [bob], rate: 30mbit, ceil: 90mbit}}
rules: [{src: 1.2.3.4, proto: tcp, dport: 80, to: ann}, {dst: 'fd77::9', to: unshaped}]
";

fn applying_twice_changes_nothing() {
    let world = World::new();
    let _processes = [world.actor(ANN), world.actor(BOB)];
    let first = shaper(&["apply", "--json", &policy(POLICY)]).exits(0).json();
    assert_eq!(first["changed"], true);
    let before = (counters::classes(UPLINK).by_id, run("tc -j filter show dev up0"));
    let second = shaper(&["apply", "--json", &policy(POLICY)]).exits(0).json();
    assert_eq!(second["changed"], false, "{second}");
    assert_eq!(second["steps"].as_array().map(Vec::len), Some(0), "{second}");
    let after = (counters::classes(UPLINK).by_id, run("tc -j filter show dev up0"));
    assert_eq!(before.0.keys().collect::<Vec<_>>(), after.0.keys().collect::<Vec<_>>());
    assert_eq!(before.1, after.1);
    let text = apply(POLICY).stdout;
    assert!(text.contains("in sync"), "{text}");
    shaper(&["plan", "--exit-code", &policy(POLICY)]).exits(0);
    assert_eq!(shaper(&["apply", "-q", &policy(POLICY)]).exits(0).stdout, "");
}

/// Every message sent over a socket, as strace decodes it, and every write below the hierarchy.
fn traced_apply() -> String {
    let log = format!("{SCRATCH}/strace");
    let mut command = Command::new("strace");
    command.args(["-f", "-y", "-s", "65536", "-o", &log]);
    command.args(["-e", "trace=sendto,sendmsg,sendmmsg,write,mkdir,mkdirat,rmdir,unlinkat,mount"]);
    command.arg(binary()).args(["apply", &policy(POLICY)]);
    run_with(command, "").exits(0);
    fs::read_to_string(&log).expect("strace's log")
}

fn applying_twice_sends_no_changing_message() {
    let world = World::new();
    let _processes = [world.actor(ANN), world.actor(BOB)];
    let changing = |log: &str| -> Vec<String> {
        let changes = |line: &&str| {
            ["RTM_NEW", "RTM_DEL", "RTM_SET", "mkdir", "rmdir", "mount(", "unlink"]
                .iter()
                .any(|word| line.contains(word))
                || (line.contains("write(") && line.contains(NET_CLS))
        };
        // What the kernel refused (a directory that is there already) changed nothing.
        let refused = |line: &&str| line.contains(" = -1 E");
        log.lines().filter(|line| changes(line) && !refused(line)).map(str::to_string).collect()
    };
    let first = changing(&traced_apply());
    assert!(first.iter().any(|line| line.contains("RTM_NEWTCLASS")), "strace sees the messages");
    assert!(first.iter().any(|line| line.contains(NET_CLS)), "strace sees the cgroup writes");
    let second = changing(&traced_apply());
    assert!(second.is_empty(), "{second:#?}");
}

/// The member of a JSON list whose `user` is this.
#[track_caller]
fn user<'a>(status: &'a Value, name: &str) -> &'a Value {
    let users = status["links"][0]["users"].as_array().expect("a list of users");
    users.iter().find(|user| user["user"] == name).unwrap_or_else(|| panic!("no {name}: {status}"))
}

fn status_says_what_tc_says() {
    let mut world = World::new();
    let (mut ann, mut bob) = (world.pouring(ANN, Family::V4), world.pouring(BOB, Family::V4));
    apply(POLICY);
    sleep(Duration::from_millis(500));
    world.finish(&mut ann);
    world.finish(&mut bob);
    sleep(Duration::from_millis(300));
    // Nothing moves any more, but for what the kernel sends by itself (IPv6): both see the same
    // counters. A flow of an fq_codel may say for ever how long ago it should have dropped its next
    // packet.
    let counters = || {
        let all = run(&format!("tc -s class show dev {UPLINK}"));
        let counts = |line: &&str| !line.contains("drop_next");
        all.lines().filter(counts).map(|line| format!("{line}\n")).collect::<String>()
    };
    let looks = (0..20).find_map(|_| {
        let before = counters();
        let looks = (shaper(&["status", "--json"]).exits(0).json(), counters::classes(UPLINK));
        let after = counters();
        if before != after {
            println!("they do not rest yet:\n{before}{after}");
        }
        (before == after).then_some(looks)
    });
    let (status, tc) = looks.expect("counters that rest");
    assert_eq!(status["version"], 1);
    assert_eq!(status["links"][0]["dev"], UPLINK);
    assert_eq!(status["links"][0]["rate_bit"], tc.class("1:1").rate);
    let qdiscs: Value = serde_json::from_str(&run("tc -s -j qdisc show dev up0")).expect("JSON");
    let of_leaf = |id: &str| {
        let leaf = qdiscs.as_array()?.iter().find(|qdisc| qdisc["parent"] == id)?;
        leaf["drops"].as_u64()
    };
    for name in ["ann", "bob"] {
        let (said, seen) = (user(&status, name), tc.class(&classid(&format!("user/{name}"))));
        assert_eq!(said["classid"], classid(&format!("user/{name}")).as_str());
        for (key, value) in [
            ("rate_bit", seen.rate),
            ("ceil_bit", seen.ceil),
            ("prio", u64::from(seen.prio.unwrap_or(99))),
            ("sent_bytes", seen.bytes),
            ("sent_packets", seen.packets),
            // HTB does not count what its leaf drops from the queue (fq_codel).
            ("drops", seen.drops.max(of_leaf(&classid(&format!("user/{name}"))).unwrap_or(0))),
            ("overlimits", seen.overlimits),
            ("lends", seen.lends),
            ("borrows", seen.borrows),
        ] {
            assert_eq!(said[key], value, "{key} of {name}");
        }
        assert!(seen.quantum.is_some_and(|quantum| (60_000..=200_000).contains(&quantum)));
    }
    assert_eq!(tc.class(&classid("user/ann")).parent.as_deref(), Some("1:1"));
    assert_eq!(tc.class(&classid("user/bob")).parent, Some(classid("group/team")));
    let default = tc.class("1:fffe");
    assert_eq!(status["links"][0]["default"]["sent_bytes"], default.bytes);
    let qdiscs: Value = serde_json::from_str(&run("tc -j qdisc show dev up0")).expect("tc's JSON");
    let root = &qdiscs.as_array().expect("qdiscs")[0];
    assert_eq!((&root["kind"], &root["handle"]), (&"htb".into(), &"1:".into()));
    assert_eq!(root["options"]["default"], "0xfffe");
    // A leaf's handle is its class's minor.
    let leaves = qdiscs.as_array().into_iter().flatten().skip(1);
    for leaf in leaves.filter(|qdisc| qdisc["kind"] != "clsact") {
        let (handle, parent) = (&leaf["handle"], &leaf["parent"]);
        let minor = parent.as_str().and_then(|parent| parent.split(':').nth(1)).unwrap_or("");
        assert_eq!(*handle, format!("{minor}:").as_str(), "{leaf}");
    }
}

/// Every class in `status --json`, by its classid.
fn said_of_classes(status: &Value) -> BTreeMap<String, Value> {
    let link = &status["links"][0];
    let lists = ["users", "groups", "retired"].map(|list| link[list].as_array().cloned());
    let pools = ["default", "unshaped"].map(|pool| link[pool].clone());
    let all = lists.into_iter().flatten().flatten().chain(pools);
    all.map(|class| (class["classid"].as_str().expect("a classid").to_string(), class)).collect()
}

/// What netlink-bindings reads of each class, in `status`'s words; bursts in nanoseconds.
fn decoded_classes(link: &str) -> BTreeMap<String, (Value, u64, u64)> {
    let index = fs::read_to_string(format!("/sys/class/net/{link}/ifindex")).expect("an ifindex");
    let index: u32 = index.trim().parse().expect("a number");
    let mut netlink = Netlink::open().expect("a netlink socket");
    let raw = netlink
        .dump(&dump::classes(index), |message| Ok(Some(message.payload.to_vec())))
        .expect("a dump of the classes");
    let decode = |payload: &Vec<u8>| {
        let (header, attributes) = OpNewtclassDo::decode_request(payload);
        // fq_codel lists the flows that it holds packets of as classes of its own.
        if header.handle >> 16 != 1 {
            return None;
        }
        let OptionsMsg::Htb(htb) = attributes.get_options().expect("options") else {
            panic!("not HTB: {header:?}")
        };
        let parms = htb.get_parms().expect("parms");
        let bits = |narrow: u32, wide: Option<u64>| wide.unwrap_or(u64::from(narrow)) * 8;
        let fields = serde_json::json!({
            "rate_bit": bits(parms.rate.rate, htb.get_rate64().ok()),
            "ceil_bit": bits(parms.ceil.rate, htb.get_ceil64().ok()),
            "prio": parms.prio,
            "quantum": parms.quantum,
        });
        // A psched tick is 64 ns (PSCHED_SHIFT, include/net/pkt_sched.h).
        let nanoseconds = |ticks: u32| u64::from(ticks) * 64;
        let id = format!("{:x}:{:x}", header.handle >> 16, header.handle & 0xffff);
        Some((id, (fields, nanoseconds(parms.buffer), nanoseconds(parms.cbuffer))))
    };
    raw.iter().filter_map(decode).collect()
}

/// Bytes and how many `tc` may be off: it prints whole kilobytes where 16 bytes are all that is
/// missing, and calculates in microseconds.
fn printed_size(text: &str, rate_bit: u64) -> (u64, u64) {
    let a_microsecond = rate_bit / 8_000_000 + 1;
    let scaled = |unit: &str| text.strip_suffix(unit).and_then(|n| n.parse::<u64>().ok());
    if let Some(n) = scaled("Mb") {
        (n << 20, 1_024 + a_microsecond)
    } else if let Some(n) = scaled("Kb") {
        (n << 10, 16 + a_microsecond)
    } else {
        (scaled("b").unwrap_or_else(|| panic!("a size: {text}")), 1 + a_microsecond)
    }
}

fn status_tc_and_an_independent_decoder_see_the_same_classes() {
    let _world = World::new();
    apply(
        "
version: 1
links: {up0: {rate: 940mbit, default: {rate: 5mbit, ceil: 10mbit}}}
users:
  ann: {rate: 40mbit, prio: 2, classid: '1:1a'}
  bob: {rate: 20500kbit, ceil: 80mbit, prio: 7}
  carol: 33mbit
classes: {nfs: {rate: 30%, prio: 1}}
groups: {team: {users: [bob], rate: 30mbit, ceil: 90mbit}}
",
    );
    let status = shaper(&["status", "--json"]).exits(0).json();
    let said = said_of_classes(&status);
    let decoded = decoded_classes(UPLINK);
    let tc = counters::classes(UPLINK).by_id;
    // The link's own class is a line of its own in status.
    let classes: Vec<&String> = tc.keys().filter(|id| *id != "1:1").collect();
    assert_eq!(said.keys().collect::<Vec<_>>(), classes);
    assert_eq!(decoded.keys().filter(|id| *id != "1:1").collect::<Vec<_>>(), classes);
    assert_eq!(status["links"][0]["rate_bit"], decoded["1:1"].0["rate_bit"]);
    let qdiscs: Value = serde_json::from_str(&run("tc -j qdisc show dev up0")).expect("tc's JSON");
    for (id, said) in &said {
        let ((fields, burst, cburst), text) = (&decoded[id], &tc[id]);
        let inner = said["prio"].is_null();
        for (key, value) in fields.as_object().expect("fields") {
            if !(inner && (key == "prio" || key == "quantum")) {
                assert_eq!(&said[key], value, "{key} of {id}, by the decoder");
            }
        }
        assert_eq!(said["rate_bit"], text.rate, "rate of {id}, by tc");
        assert_eq!(said["ceil_bit"], text.ceil, "ceil of {id}, by tc");
        if !inner {
            assert_eq!(said["prio"], text.prio.map_or(Value::Null, Value::from), "prio of {id}");
            assert_eq!(said["quantum"], text.quantum.map_or(Value::Null, Value::from), "{id}");
        }
        for (key, rate, nanoseconds, printed) in [
            ("burst_bytes", text.rate, burst, &text.burst),
            ("cburst_bytes", text.ceil, cburst, &text.cburst),
        ] {
            let said = said[key].as_u64().expect("bytes");
            let decoded = u128::from(*nanoseconds) * u128::from(rate) / 8_000_000_000;
            assert!(u128::from(said).abs_diff(decoded) <= 1, "{key} of {id}: {said}, {decoded}");
            let (printed, most) = printed_size(printed, rate);
            assert!(said.abs_diff(printed) <= most, "{key} of {id}: {said}, tc: {printed}");
        }
        let leaf = qdiscs.as_array().into_iter().flatten().find(|leaf| leaf["parent"] == **id);
        assert_eq!(said["leaf"], leaf.map_or(Value::Null, |leaf| leaf["kind"].clone()), "{id}");
        if let Some(leaf) = leaf {
            assert_eq!(leaf["handle"], format!("{}:", &id[2..]).as_str());
        }
    }
}

fn two_instances_do_not_see_each_other() {
    let mut here = World::new();
    let mut there = here.beside();
    let pid = there.netns_pid().expect("a namespace beside").to_string();
    let in_there = |words: &[&str]| -> Done {
        let mut all = vec!["--netns", &pid];
        all.extend(words);
        shaper(&all)
    };
    let _streams = (here.pouring(ANN, Family::V4), there.pouring(ANN, Family::V4));
    let slower = policy(&POLICY.replace("rate: 40mbit", "rate: 10mbit"));
    in_there(&["apply", &slower]).exits(0);
    apply(POLICY);
    assert_eq!(shaper(&["apply", "--json", &policy(POLICY)]).exits(0).json()["changed"], false);
    let class = classid("user/ann");
    sleep(Duration::from_secs(1));
    rates::expect(UPLINK, Duration::from_secs(3), &[(&[&class], 40 * MBIT, 2)]);
    let asked = || {
        let before = Micros::now();
        let status = in_there(&["status", "--json"]).exits(0).json();
        let ann = user(&status, "ann");
        assert_eq!(ann["rate_bit"], 10 * MBIT);
        let sent = ann["sent_bytes"].as_u64().expect("a counter");
        (before.0 + Micros::now().since(before) / 2, sent)
    };
    let (from, first) = asked();
    sleep(Duration::from_secs(3));
    let (to, second) = asked();
    let rate = (second - first) * 8_000_000 / (to - from);
    rates::within("the other ann", rate, 10 * MBIT, 5);
    in_there(&["clear"]).exits(0);
    assert!(!there.on_host("tc qdisc show dev up0").stdout.contains("htb"));
    assert_eq!(shaper(&["apply", "--json", &policy(POLICY)]).exits(0).json()["changed"], false);
}

fn clear_leaves_nothing_behind() {
    let world = World::new();
    let before = run("tc qdisc show dev up0");
    let ann = world.actor(ANN);
    apply(POLICY);
    assert!(directory("user/ann").exists());
    shaper(&["clear"]).exits(0);
    assert_eq!(run("tc qdisc show dev up0"), before);
    assert_eq!(run("tc class show dev up0"), "");
    assert_eq!(run("tc filter show dev up0"), "");
    assert!(!Path::new(NET_CLS).join("shaper").exists());
    let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", ann.pid())).expect("ann's cgroup");
    assert!(cgroup.lines().any(|line| line.ends_with("net_cls:/")), "{cgroup}");
    shaper(&["clear"]).exits(0);
}

//! Several accounts in one class, a class for each account of a Unix group, and ping, which Debian
//! gives a capability, others the set-uid bit, and the kernel a socket of its own.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use super::{DEFAULT, Keeper, Place, Shell};
use crate::support::accounts::{ANN, Account, BOB, CAROL, DAVE, ERIN};
use crate::support::cell::SCRATCH;
use crate::support::command::run;
use crate::support::counters::classes;
use crate::support::harness::{On, tests};
use crate::support::program::{classid, members};
use crate::support::rates::{self, Interval, MBIT, between};
use crate::support::world::UPLINK;

tests!(
    On::HostEvents => accounts_under_one_label_share_its_rate, each_of_a_unix_group_has_a_rate,
        a_ping_is_its_users;
);

/// Shells that pour.
fn pouring(place: &mut Place, accounts: &[Account]) -> Vec<(Shell, super::Running)> {
    let start = |account: &Account| {
        let script = place.pouring();
        let mut shell = Shell::of(*account);
        shell.types(&format!("bash -c '{}' &", script.text));
        (shell, script.runs())
    };
    accounts.iter().map(start).collect()
}

fn accounts_under_one_label_share_its_rate() {
    let text = "
version: 1
links: {up0: {rate: 100mbit, default: {rate: 1mbit, ceil: 40mbit}}}
users:
  lab: {ceil: 20mbit, accounts: [ann, bob], uids: [2003]}
";
    Place::under_both(text, |place| {
        let lab = classid("user/lab");
        let all = pouring(place, &[ANN, BOB, CAROL]);
        place.all_is("three accounts of a label", &[&lab]);
        place.passes();
        assert!(all.iter().all(|(_, it)| members("user/lab").contains(&it.pid())));
        place.all_is("three accounts of a label, placed", &[&lab]);
        let sent = rates::over(UPLINK, std::time::Duration::from_secs(1));
        between("all of the label together", sent.rate(&lab), 18 * MBIT, 21 * MBIT);
    });
}

fn each_of_a_unix_group_has_a_rate() {
    let text = "
version: 1
links: {up0: {rate: 100mbit, default: {rate: 1mbit, ceil: 40mbit}}}
groups: {students: {gid: students, ceil: 60mbit, each: {ceil: 10mbit}}}
users: {ann: 15mbit}
";
    Place::under_both(text, |place| {
        // One by his supplementary group, one by her primary one, and one who is in none.
        let all = pouring(place, &[DAVE, ERIN, ANN]);
        place.passes();
        std::thread::sleep(std::time::Duration::from_millis(500));
        let [dave, erin] = [DAVE, ERIN].map(|it| format!("uid/{}", it.uid));
        assert!(
            members(&dave).contains(&all[0].1.pid()) && members(&erin).contains(&all[1].1.pid())
        );
        let [dave, erin, ann] = [&dave, &erin, "user/ann"].map(classid);
        place.all_is("students", &[&dave, &erin, &ann]);
        let sent = rates::over(UPLINK, std::time::Duration::from_secs(1));
        for (class, rate) in [(dave, 10), (erin, 10), (ann, 15)] {
            between("one of them", sent.rate(&class), (rate - 2) * MBIT, (rate + 1) * MBIT);
        }
    });
}

fn a_ping_is_its_users() {
    let text = "
version: 1
links: {up0: {rate: 100mbit, default: {rate: 1mbit, ceil: 40mbit}}}
users: {ann: 10mbit}
";
    Place::under_both(text, |place| {
        let ann = classid("user/ann");
        let by = |mode: &str| format!("{SCRATCH}/ping-{mode}");
        if place.keeper == Keeper::Cron {
            for mode in ["socket", "set-uid", "capability"] {
                fs::copy("/usr/bin/ping", by(mode)).expect("a copy of ping");
            }
            fs::set_permissions(by("set-uid"), Permissions::from_mode(0o4755)).expect("chmod");
            run(&format!("setcap cap_net_raw+ep {}", by("capability")));
        }
        let range = "/proc/sys/net/ipv4/ping_group_range";
        let mut shell = Shell::of(ANN);
        place.passes();
        for mode in ["socket", "set-uid", "capability"] {
            // Only the first may use the kernel's own sockets for it.
            let groups = if mode == "socket" { "0 2147483647" } else { "1 0" };
            fs::write(range, groups).expect("who may have ping sockets");
            let before = classes(UPLINK);
            let script = place.script(&format!("{} -q -c 20 -i 0.01 -s 1000 10.77.0.2", by(mode)));
            shell.types(&script.text);
            script.ends();
            let sent = Interval::since(before, UPLINK);
            println!("{:?}, ping by {mode}: {:?}", place.keeper, sent.leaves());
            assert!(sent.bytes(&ann) >= 20 * 1_000, "{mode}: {:?}", sent.leaves());
            sent.others_stay_below(2_000, &[&ann]);
            assert!(sent.bytes(DEFAULT) < 2_000);
        }
    });
}

//! What changes underneath a daemon, and the policy file.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::beside;
use crate::support::accounts::{ANN, CAROL, DAVE, own_etc};
use crate::support::clock::soon;
use crate::support::command::run;
use crate::support::counters;
use crate::support::daemon::Daemon;
use crate::support::harness::{On, tests};
use crate::support::program::{classid, directory, members, policy, shaper};
use crate::support::world::{UPLINK, World};

tests!(
    // What the daemon makes of its file, of its clock and of other runs does not depend on the
    // kernel.
    On::Host => a_name_service_that_hangs_delays_nobody, links_that_fit_a_pattern_come_and_go,
        a_policy_is_followed_as_its_file_changes, a_pending_confirmation_is_respected,
        a_root_that_is_fought_over_is_shaped_again_after_each_pause,
        a_policy_that_is_written_in_two_goes_is_adopted_whole,
        a_policy_can_be_tried_beside_the_daemon, who_changed_a_link_is_named;
    On::HostAndUml => what_others_change_is_repaired, links_come_and_go,
        one_odd_link_stops_nothing_else, whoever_fights_us_is_left_alone_for_a_while,
        links_that_are_absent_or_unfit_at_the_start_keep_no_other_from_being_shaped;
);

const POLICY: &str = super::logins::POLICY;

/// After which all must be well again, beside what a busy machine takes.
const SECOND: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(10);

fn in_sync(text: &str) -> bool {
    shaper(&["plan", "-q", "--exit-code", &policy(text)]).status == Some(0)
}

fn what_others_change_is_repaired() {
    let world = World::new();
    let daemon = Daemon::start(&["watch", &policy(POLICY)]);
    let ann = world.actor(ANN);
    soon("ann is placed", PATIENCE, || members("user/ann").contains(&ann.pid()));
    let class = classid("user/ann");
    for line in [
        &*format!("tc class change dev up0 classid {class} htb rate 1mbit quantum 60000"),
        &*format!("tc class del dev up0 classid {class}"),
        "tc qdisc del dev up0 root",
        "tc qdisc replace dev up0 root handle 7: tbf rate 1gbit burst 100kb latency 50ms",
        "ip link set dev up0 down",
    ] {
        run(line);
        let took = soon(line, PATIENCE, || in_sync(POLICY));
        println!("{line}: repaired {took:?} later");
        assert!(members("user/ann").contains(&ann.pid()));
        // The patience of three repairs is not to be used up.
        sleep(SECOND);
    }
    run("ip link set dev up0 up");
    // Everything, by hand: it is there again, and so are the processes.
    shaper(&["clear", "--despite-daemon"]).exits(0);
    soon("all is back", PATIENCE, || {
        fs::exists(directory("user/ann")).unwrap_or(false)
            && members("user/ann").contains(&ann.pid())
            && in_sync(POLICY)
    });
    assert!(daemon.end().success());
}

/// One that still runs. A `tc` that ends with its change may be gone before it is looked for.
fn who_changed_a_link_is_named() {
    let _world = World::new();
    let daemon = Daemon::start(&["watch", &policy(POLICY)]);
    let mut tc = Command::new("tc");
    let mut tc = tc.args(["-batch", "-"]).stdin(Stdio::piped()).spawn().expect("start tc");
    let mut says = |line: &str| {
        let lines = tc.stdin.as_mut().expect("its input");
        lines.write_all(line.as_bytes()).and_then(|()| lines.flush()).expect("tell tc");
    };
    says("qdisc del dev up0 root\n");
    soon("it is repaired", PATIENCE, || in_sync(POLICY));
    let said = "(tc) changed what stands on up0; it is again as the policy says";
    soon("that is said", PATIENCE, || daemon.log().contains(said));
    let line = format!("process {} {said}", tc.id());
    assert_eq!(daemon.log().matches(&line).count(), 1, "{}", daemon.log());
    drop(tc.stdin.take());
    assert!(tc.wait().expect("tc ends").success());
    assert!(daemon.end().success());
}

fn a_policy_is_followed_as_its_file_changes() {
    let _world = World::new();
    let file = policy(POLICY);
    let daemon = Daemon::start(&["watch", &file]);
    let ceil = |name: &str| {
        let classes = counters::classes(UPLINK);
        classes.class(&classid(&format!("user/{name}"))).ceil
    };
    assert_eq!(ceil("ann"), 30_000_000);
    // Written in place.
    policy(&POLICY.replace("ann: 30mbit", "ann: 20mbit"));
    let took = soon("a new rate", PATIENCE, || ceil("ann") == 20_000_000);
    println!("a changed file: {took:?}");
    // A bad one: said, with its place, and not obeyed.
    policy(&POLICY.replace("ann: 30mbit", "ann: 30mbps"));
    soon("the mistake is said", PATIENCE, || daemon.log().contains("mbps"));
    assert!(daemon.log().contains("policies.yaml:4"), "{}", daemon.log());
    assert_eq!(ceil("ann"), 20_000_000);
    // Replaced by a rename, as editors do.
    let new = format!("{file}.new");
    fs::write(&new, POLICY.replace("ann: 30mbit", "ann: 10mbit")).expect("write a new policy");
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).expect("chmod");
    fs::rename(&new, &file).expect("rename the policy");
    soon("another rate", PATIENCE, || ceil("ann") == 10_000_000);
    // Gone, and back.
    fs::remove_file(&file).expect("remove the policy");
    soon("the loss is said", PATIENCE, || daemon.log().contains("cannot read"));
    assert_eq!(ceil("ann"), 10_000_000);
    policy(POLICY);
    soon("the first rate", PATIENCE, || ceil("ann") == 30_000_000);
    daemon.signal(Signal::SIGHUP);
    soon("the hangup is heard", PATIENCE, || daemon.log().contains("SIGHUP"));
    // Told before the change is noticed, it also asks again who everybody is: the new name, too.
    policy(&POLICY.replace("bob: 30mbit", "bob: 30mbit, dave: 7mbit"));
    daemon.signal(Signal::SIGHUP);
    soon("a line for somebody new", PATIENCE, || {
        fs::exists(directory("user/dave")).unwrap_or(false) && ceil("dave") == 7_000_000
    });
    assert!(!daemon.log().contains("there is no account"), "{}", daemon.log());
    assert!(daemon.end().success());
    assert_eq!(ceil("ann"), 30_000_000, "what was made stays");
}

/// `cat a >file; cat b >>file`: in between nobody has it open, and what is there is a policy by
/// itself.
fn a_policy_that_is_written_in_two_goes_is_adopted_whole() {
    let _world = World::new();
    let text = |ceil: u64| {
        let half = "version: 1\nlinks: {up0: 100mbit}\n".to_string();
        let whole = format!("{half}users: {{ann: {ceil}mbit}}\n");
        (half, whole)
    };
    let file = policy(&text(5).1);
    let daemon = Daemon::start(&["watch", &file]);
    for ceil in 10..30 {
        let (half, whole) = text(ceil);
        let start = std::time::Instant::now();
        fs::write(&file, &half).expect("the first half");
        sleep(Duration::from_millis(80));
        let mut second = fs::File::options().append(true).open(&file).expect("the policy");
        std::io::Write::write_all(&mut second, &whole.as_bytes()[half.len()..]).expect("the rest");
        drop(second);
        let paused = start.elapsed();
        let is = || counters::classes(UPLINK).class(&classid("user/ann")).ceil == ceil * 1_000_000;
        soon("all of it", PATIENCE, || fs::exists(directory("user/ann")).unwrap_or(false) && is());
        // A busy machine may have made more of the pause.
        if paused < Duration::from_millis(140) {
            // The half has no line for ann.
            assert!(!daemon.log().contains("retired"), "{}", daemon.log());
            assert!(daemon.end().success());
            return;
        }
    }
    panic!("the machine is too busy");
}

fn links_come_and_go() {
    let world = World::new();
    let text = "
version: 1
links: {up0: {rate: 100mbit}, later0: {rate: 50mbit, optional: true}}
users: {ann: 30mbit}
";
    let daemon = Daemon::start(&["watch", &policy(text)]);
    assert!(world.on_host("ip link add later0 type veth peer name peer0").status == Some(0));
    let shaped = |link: &str| {
        let text = world.on_host(&format!("tc qdisc show dev {link}")).stdout;
        text.contains("qdisc htb 1: root")
    };
    let took = soon("the link that came is shaped", PATIENCE, || shaped("later0"));
    println!("shaped {took:?} after it came");
    world.on_host("ip link set later0 name away0").exits(0);
    soon("the link that has another name is let go", PATIENCE, || !shaped("away0"));
    world.on_host("ip link set away0 name later0").exits(0);
    soon("and shaped again", PATIENCE, || shaped("later0"));
    world.on_host("ip link del later0").exits(0);
    sleep(SECOND);
    assert!(shaped("up0"));
    world.on_host("ip link add later0 type veth peer name peer0").exits(0);
    soon("shaped once more", PATIENCE, || shaped("later0"));
    assert!(daemon.end().success());
    shaper(&["plan", "-q", "--exit-code", &policy(text)]).exits(0);
}

fn links_that_fit_a_pattern_come_and_go() {
    let world = World::new();
    let text = "
version: 1
links: {up0: {rate: 100mbit}, \"l2tp*\": {rate: 50mbit, optional: true}}
users: {ann: {ceil: 30mbit, links: {\"l2tp?\": {ceil: 5mbit}}}}
rules: [{dport: 80, link: \"l2tp1*\", to: unshaped}]
";
    let daemon = Daemon::start(&["watch", &policy(text)]);
    let shaped = |link: &str| run(&format!("tc qdisc show dev {link}")).contains("htb 1: root");
    let add =
        |link: &str| world.on_host(&format!("ip link add {link} type veth peer name p{link}"));
    add("l2tp1").exits(0);
    let took = soon("the link that came is shaped", PATIENCE, || shaped("l2tp1"));
    println!("shaped {took:?} after it came");
    let ceil = counters::classes("l2tp1").class(&classid("user/ann")).ceil;
    assert_eq!(ceil, 5_000_000, "the user's own limit there");
    assert!(run("tc filter show dev l2tp1").contains("u32") && !shaped("pl2tp1"));
    add("other0").exits(0);
    sleep(SECOND);
    assert!(!shaped("other0"));
    world.on_host("ip link property add dev other0 altname l2tp-of-the-other-site").exits(0);
    // Of a link that is down the kernel does not tell this (`netdev_state_change`, net/core/dev.c).
    world.on_host("ip link set other0 up").exits(0);
    soon("a link that has such a name too", PATIENCE, || shaped("other0"));
    let before = daemon.log();
    world.on_host("ip link del l2tp1").exits(0);
    add("l2tp1").exits(0);
    soon("shaped once more", PATIENCE, || shaped("l2tp1"));
    world.on_host("ip link del l2tp1").exits(0);
    sleep(SECOND);
    let all = daemon.log();
    let since = &all[before.len()..];
    assert!(
        !since.contains("WARN") && !since.contains("ERROR"),
        "who goes, goes silently: {since}"
    );
    // A bridge and its port: the bridge has the packets of both.
    add("l2tp2").exits(0);
    soon("the port by itself", PATIENCE, || shaped("l2tp2"));
    world.on_host("ip link add l2tpbr type bridge").exits(0);
    world.on_host("ip link set l2tp2 master l2tpbr").exits(0);
    soon("the bridge", PATIENCE, || shaped("l2tpbr") && !shaped("l2tp2"));
    let said = "`l2tp*` fits the bridge l2tpbr and its port l2tp2";
    soon("it is said", PATIENCE, || daemon.log().contains(said));
    assert!(shaped("up0") && shaped("other0"));
    assert!(daemon.end().success());
    let by_hand = shaper(&["plan", &policy(text)]);
    assert_eq!(by_hand.status, Some(2), "{}", by_hand.stderr);
    assert!(by_hand.stderr.contains("policies.yaml:3:31"), "{}", by_hand.stderr);
    world.on_host("ip link set l2tp2 nomaster").exits(0);
    shaper(&["apply", &policy(text)]).exits(0);
    assert!(shaped("l2tp2"));
}

/// A link whose speed nobody knows, where the policy needs it; and one with somebody else's qdisc.
fn one_odd_link_stops_nothing_else() {
    let world = World::new();
    let text = "
version: 1
links: {up0: {rate: 100mbit}, later0: {rate: 50%, optional: true}, other0: {rate: 50mbit, optional: true}}
users: {ann: 30mbit}
everyone: 20mbit
";
    let daemon = Daemon::start(&["watch", &policy(text)]);
    world.on_host("ip link add later0 type ifb").exits(0);
    soon("the odd link is said", PATIENCE, || daemon.log().contains("later0"));
    let [ann, carol] = [world.actor(ANN), world.actor(CAROL)];
    let place = format!("uid/{}", CAROL.uid);
    soon("carol has a class", PATIENCE, || {
        fs::exists(directory(&place)).unwrap_or(false) && members(&place).contains(&carol.pid())
    });
    soon("ann is placed", PATIENCE, || members("user/ann").contains(&ann.pid()));
    world.on_host("ip link add other0 type veth peer name peer0").exits(0);
    run("tc qdisc replace dev other0 root handle 7: tbf rate 1gbit burst 100kb latency 50ms");
    run("tc qdisc del dev up0 root");
    soon("up0 is repaired", PATIENCE, in_sync_tree);
    assert!(!run("tc qdisc show dev later0").contains("htb"));
    assert!(daemon.end().success());
}

fn whoever_fights_us_is_left_alone_for_a_while() {
    let world = World::new();
    world.on_host("ip link add calm0 type veth peer name peer0").exits(0);
    let text = "
version: 1
links: {up0: {rate: 100mbit}, calm0: {rate: 50mbit}}
users: {ann: 30mbit}
";
    let daemon = Daemon::start(&["watch", &policy(text)]);
    let class = classid("user/ann");
    let change = |link: &str| {
        world
            .on_host(&format!(
                "tc class change dev {link} classid {class} htb rate 1mbit quantum 60000"
            ))
            .exits(0);
    };
    let ceil = |link: &str| counters::classes(link).class(&class).ceil;
    // One repair may undo two of these, where the second comes in the midst of it.
    soon("it says so", Duration::from_secs(30), || {
        change("up0");
        let paused = || daemon.log().contains("up0 keeps being changed");
        soon("a repair, or a pause", PATIENCE, || ceil("up0") == 30_000_000 || paused());
        paused()
    });
    // The other link is looked after all the same.
    for _ in 0..4 {
        change("up0");
        sleep(Duration::from_millis(300));
    }
    change("calm0");
    soon("a repair of the calm link", PATIENCE, || ceil("calm0") == 30_000_000);
    soon("and of the other one in the end", Duration::from_secs(30), || ceil("up0") == 30_000_000);
}

/// A root that somebody else puts there while the link is left alone is taken back after the pause.
fn a_root_that_is_fought_over_is_shaped_again_after_each_pause() {
    let world = World::new();
    let daemon = Daemon::start(&["watch", &policy(POLICY)]);
    let shaped = || run("tc qdisc show dev up0").contains("qdisc htb 1: root");
    let fight = |times: u32| {
        for _ in 0..times {
            run("tc qdisc replace dev up0 root handle 7: pfifo limit 100");
            sleep(Duration::from_millis(60));
        }
    };
    // One repair may undo two of these, where the second comes in the midst of it.
    soon("it says so", PATIENCE, || {
        run("tc qdisc replace dev up0 root handle 7: pfifo limit 100");
        let paused = || daemon.log().contains("up0 keeps being changed");
        soon("a repair, or a pause", PATIENCE, || shaped() || paused());
        paused()
    });
    let refused = "cannot be brought into order";
    assert!(!daemon.log().contains(refused), "{}", daemon.log());
    soon("it is shaped again after the pause", PATIENCE, shaped);
    fight(12);
    soon("and after the next, longer one", Duration::from_secs(40), shaped);
    assert!(!daemon.log().contains("passed over"), "{}", daemon.log());
    drop(world);
    assert!(daemon.end().success());
}

/// The others are shaped at once, and each of these when it can be.
fn links_that_are_absent_or_unfit_at_the_start_keep_no_other_from_being_shaped() {
    let world = World::new();
    let text = "
version: 1
links: {up0: {rate: 100mbit}, later0: {rate: 50mbit}, odd0: {rate: 50%}, theirs0: {rate: 50mbit}}
users: {ann: {ceil: 30mbit, links: {later0: {ceil: 5mbit}}}}
";
    world.on_host("ip link add odd0 type ifb").exits(0);
    world.on_host("ip link add theirs0 type veth peer name ptheirs0").exits(0);
    run("tc qdisc replace dev theirs0 root handle 7: pfifo limit 100");
    let shaped = |link: &str| run(&format!("tc qdisc show dev {link}")).contains("htb 1: root");
    let daemon = Daemon::start(&["watch", &policy(text)]);
    assert!(shaped("up0") && !shaped("odd0") && !shaped("theirs0"));
    for said in ["`later0` is not there", "speed of odd0", "theirs0 has a root qdisc"] {
        assert!(daemon.log().contains(said), "{said}: {}", daemon.log());
    }
    world.on_host("ip link add later0 type veth peer name plater0").exits(0);
    soon("the one that came", PATIENCE, || shaped("later0"));
    let word = || shaper(&["status", "--json"]).exits(0).json()["daemon"].clone();
    let said = word();
    assert_eq!(said["state"], "partial", "{said}");
    let why = said["why"].as_str().unwrap_or_default();
    assert!(why.contains("odd0 is not shaped") && why.contains("theirs0"), "{said}");
    run("tc qdisc del dev theirs0 root");
    // Nobody shapes that link, and the kernel's word of it is heard all the same.
    soon("the one that is free now", PATIENCE, || shaped("theirs0"));
    assert!(shaped("up0"));
    assert!(daemon.end().success());
    // A boot beside a link on which a user's cap does not fit, which the error does not name.
    shaper(&["clear"]).exits(0);
    let unfit = text.replace(", odd0: {rate: 50%}", "");
    let unfit =
        unfit.replace("theirs0: {rate: 50mbit}", "\"theirs*\": {rate: 20mbit, optional: true}");
    let daemon = Daemon::start(&["watch", &policy(&unfit)]);
    assert!(shaped("up0") && shaped("later0") && !shaped("theirs0"), "{}", daemon.log());
    assert!(!daemon.log().contains("is not there"), "{}", daemon.log());
    assert_eq!(word()["state"], "partial");
    run("ip link set theirs0 name ours0");
    soon("nothing is left to say", PATIENCE, || word()["state"] == "idle");
    run("ip link set ours0 name theirs0");
    assert!(daemon.end().success());
    // By hand: what is there is shaped, and what is not is said, each time.
    world.on_host("ip link del later0").exits(0);
    let by_hand = text.replace(", odd0: {rate: 50%}", "");
    for _ in 0..2 {
        let done = shaper(&["apply", &policy(&by_hand)]).exits(0);
        assert!(done.stderr.contains("the link `later0` is not there now"), "{}", done.stderr);
        assert!(shaped("up0") && shaped("theirs0"));
    }
    // None of them at all is a mistake.
    let none = "version: 1\nlinks: {later0: {rate: 50mbit}}\n";
    let done = shaper(&["apply", &policy(none)]).exits(2);
    assert!(done.stderr.contains("there is no link `later0`"), "{}", done.stderr);
    assert!(shaped("up0"));
}

fn a_pending_confirmation_is_respected() {
    let _world = World::new();
    let file = policy(POLICY);
    let daemon = Daemon::start(&["watch", &file]);
    let other = format!("{file}.other");
    fs::write(&other, POLICY.replace("ann: 30mbit", "ann: 20mbit")).expect("write a policy");
    fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).expect("chmod");
    let ceil = || counters::classes(UPLINK).class(&classid("user/ann")).ceil;
    beside(&["apply", "--confirm", "4", &other]).exits(0);
    sleep(SECOND);
    assert_eq!(ceil(), 20_000_000, "it waits until the change is confirmed, or taken back");
    soon("the change is taken back", PATIENCE, || ceil() == 30_000_000);
    soon("and all is well", PATIENCE, || in_sync(POLICY));
    assert!(daemon.end().success());
}

/// As docs/service.md says: tried from another file, which takes the place of the first while it
/// waits.
fn a_policy_can_be_tried_beside_the_daemon() {
    let _world = World::new();
    let file = policy(POLICY);
    let daemon = Daemon::start(&["watch", &file]);
    let ceil = || counters::classes(UPLINK).class(&classid("user/ann")).ceil;
    let tried = |rate: &str, time: &str| {
        let other = format!("{file}.new");
        fs::write(&other, POLICY.replace("ann: 30mbit", rate)).expect("write a policy");
        fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).expect("chmod");
        beside(&["apply", "--confirm", time, &other]).exits(0);
        fs::rename(&other, &file).expect("rename the policy");
        sleep(Duration::from_millis(300));
    };
    tried("ann: 20mbit", "20");
    beside(&["confirm"]).exits(0);
    soon("it is in force", PATIENCE, || daemon.log().contains("is in force"));
    assert_eq!(ceil(), 20_000_000);
    // The next one nobody confirms: it is taken back, and stays refused.
    tried("ann: 10mbit", "3");
    assert_eq!(ceil(), 10_000_000);
    soon("it is taken back", PATIENCE, || ceil() == 20_000_000);
    soon("it is refused", PATIENCE, || daemon.log().contains("taken back"));
    sleep(SECOND);
    assert_eq!(ceil(), 20_000_000);
    assert!(daemon.end().success());
}

/// `/etc/passwd` becomes a pipe that nobody writes to: whoever asks who somebody is waits for ever.
fn a_name_service_that_hangs_delays_nobody() {
    own_etc();
    let world = World::new();
    let text = "
version: 1
links: {up0: {rate: 100mbit}}
users: {ann: 30mbit}
groups: {students: {gid: students, ceil: 60mbit, each: {ceil: 20mbit}}}
everyone: 25mbit
";
    let daemon = Daemon::start(&["watch", &policy(text)]);
    let accounts = fs::read("/etc/passwd").expect("the accounts");
    run("umount /etc/passwd");
    run("rm /etc/passwd");
    run("mkfifo /etc/passwd");
    let dave = world.actor(DAVE);
    let place = format!("uid/{}", DAVE.uid);
    let class_of = |place: &str| counters::classes(UPLINK).by_id.remove(&classid(place));
    soon("dave has a class by his uid", PATIENCE, || {
        directory(&place).exists() && members(&place).contains(&dave.pid())
    });
    assert_eq!(class_of(&place).expect("his class").ceil, 25_000_000);
    run("tc qdisc del dev up0 root");
    let took = soon("a repair", PATIENCE, in_sync_tree);
    println!("repaired {took:?} later, while NSS hangs");
    run("rm /etc/passwd");
    fs::write("/etc/passwd", accounts).expect("the accounts");
    fs::set_permissions("/etc/passwd", fs::Permissions::from_mode(0o644)).expect("chmod");
    daemon.signal(Signal::SIGHUP);
    // Whoever asked when it hung is given up after ten seconds.
    let group = classid("group/students");
    soon("dave is a student", Duration::from_secs(30), || {
        class_of(&place).is_some_and(|class| class.parent.as_ref() == Some(&group))
    });
    assert!(members(&place).contains(&dave.pid()));
    assert!(daemon.end().success());
}

fn in_sync_tree() -> bool {
    run("tc qdisc show dev up0").contains("htb 1: root")
}

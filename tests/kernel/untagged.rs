//! Without `net_cls`: the owner of a packet's socket alone says whose it is (`classifier: uid`),
//! and the instance has its directories in `/run`. The tests of the other classifiers again, on the
//! same packets; what differs; and the way from one to the other and back.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::escapes::{
    answers, handed_on, headers, hidden, kernel_sockets, mptcp, passed_on, priority, tried,
};
use crate::follow;
use crate::processes::{self, all_passes_through};
use crate::support::accounts::{ANN, BOB};
use crate::support::cell::SCRATCH;
use crate::support::command::run;
use crate::support::counters;
use crate::support::harness::{BUDGET, On, Test, tests};
use crate::support::program::{
    CLAIMS, NET_CLS, apply, binary, classid, directory, policy, shaper, without_tags,
};
use crate::support::random::Random;
use crate::support::rates::{self, MBIT};
use crate::support::world::{Family, UPLINK, World};
use crate::watch::logins;
use crate::{arriving, engines, namespaces, servers, shards, textbook};

tests!(
    On::HostAndUml => a_host_without_the_hierarchy_is_shaped, between_the_two_no_packet_is_lost_or_nobodys, a_move_that_is_not_confirmed_is_taken_back;
    On::Uml => where_it_is_tied_to_others_auto_goes_without;
    On::Untagged => a_kernel_that_forbids_net_cls_goes_without;
    On::Host => a_run_that_is_killed_anywhere_is_made_good, a_rule_with_from_knows_the_sender;
);

/// These tests again, without tags.
macro_rules! as_with_tags {
    ($($on:expr => $name:ident: $body:path;)+) => {
        pub const AS_WITH_TAGS: &[Test] = &[$(Test {
            name: concat!("untagged::", stringify!($name)),
            on: $on,
            budget: BUDGET,
            body: || {
                without_tags();
                $body();
            },
        }),+];
    };
}

as_with_tags!(
    On::Every => a_login_accepted_by_root: processes::a_login_accepted_by_root_is_the_users;
    On::Host => a_child: processes::a_child_inherits_the_class_of_its_socket;
    On::Host => a_stream: processes::a_stream_follows_its_process;
    On::HostAndUml => everyone: processes::everyone_covers_accounts_without_a_line;
    On::Host => a_unix_group: processes::members_of_a_unix_group_are_its_own;
    On::Every => what_users_hold_of_roots: handed_on::apply_gives_what_users_hold_of_roots;
    On::Host => what_is_not_one_users: handed_on::what_is_not_one_users_stays_roots;
    On::HostAndUml => a_session_of_pam: handed_on::a_session_that_pam_places_has_its_connection;
    On::Events => a_login: handed_on::a_login_gets_its_connection_as_its_own;
    On::HostEvents => first_bytes: logins::a_login_is_the_users_from_its_first_bytes;
    On::HostEvents => newcomers: logins::newcomers_get_a_class_and_give_it_back;
    On::HostEvents => sshd: logins::what_a_real_sshd_sends_is_the_users;
    On::Host => pam: logins::pam_places_a_session_without_a_daemon;
    On::Nightly => a_download: arriving::a_download_is_held_to_its_users_down;
    On::Host => what_arrives: arriving::what_arrives_is_in_its_users_class_whatever_it_is;
    On::Nightly => shards: shards::guarantees_caps_and_borrowing_hold_across_shards;
    On::Host => ways_of_sending: tried::no_way_of_sending_leaves_the_class;
    On::Host => subordinate_uids: hidden::what_he_chowns_to_a_subordinate_uid_is_his;
    On::Host => a_server_that_acts_for_users: follow::an_apply_follows_whom_a_server_acts_for;
    On::Host => a_passed_connection: passed_on::a_passed_connection_stays_its_owners;
    On::Host => a_passed_connection_of_roots: passed_on::so_does_one_that_root_accepted_and_handed_on;
    On::Host => who_becomes_another: passed_on::who_becomes_another_with_a_connection_does_not_pay_for_it;
    On::HostEvents => a_new_accounts_subordinate_uids: hidden::an_account_that_is_new_has_its_subordinate_uids;
    On::HostEvents => a_new_range: hidden::a_range_that_is_new_counts_at_once;
    On::Host => namespaces: namespaces::whoever_enters_a_namespace_stays_in_his_class;
    On::HostAndUml => extension_headers: headers::no_extension_header_reaches_a_rules_class;
    On::Uml => rxrpc: kernel_sockets::an_rxrpc_call_is_its_users;
    On::Uml => rds: kernel_sockets::an_rds_stream_is_the_kernels_and_bounded;
    On::Nightly => answers_for_nobody: answers::answers_for_nobody_are_no_more_than_the_questions;
    On::Nightly => what_the_kernel_says: answers::what_users_make_the_kernel_say_is_bounded;
    On::HostAndUml => hidden_sockets: hidden::none_leaves_the_class;
    On::HostAndUml => both_families: textbook::tcp_udp_and_icmp_of_both_families_carry_the_tag;
    On::HostAndUml => answers: answers::the_answer_to_a_connection_is_its_listeners;
    On::Host => resets: answers::the_reset_of_a_connection_is_its_users;
    On::HostEvents => multipath: mptcp::a_connection_that_root_accepted_is_its_users;
    On::Host => receivers: servers::udp_that_nobody_answers_is_its_receivers;
    On::Host => receivers_in_shards: servers::a_server_whose_user_is_in_a_shard_is_found_as_well;
    On::Host => a_macvlans_guest: priority::a_macvlans_guest_cannot_name_a_class;
    On::HostEvents => many_connections: handed_on::a_login_with_many_connections_has_them_at_once;
    On::Nightly => docker: engines::what_dockers_containers_send_and_receive_is_in_their_owners_class;
    On::Nightly => lxc: engines::what_lxcs_containers_send_and_receive_is_in_their_owners_class;
    On::Nightly => podman: engines::what_podmans_containers_send_and_receive_is_in_their_owners_class;
);

const ANN_AND_BOB: &str = "
version: 1
links: {up0: {rate: 100mbit, classifier: uid, default: {rate: 5mbit, ceil: 50mbit}}}
users: {ann: 30mbit, bob: 20mbit}
";

fn with(classifier: &str) -> String {
    ANN_AND_BOB.replace("classifier: uid", &format!("classifier: {classifier}"))
}

/// What the default class has sent.
fn nobodys() -> u64 {
    counters::classes(UPLINK).class("1:fffe").bytes
}

/// The classid in `root`, an instance's claims.
fn number(root: &str, claim: &str) -> String {
    let file = Path::new(root).join("shaper").join(claim).join("net_cls.classid");
    let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let raw: u32 = text.trim().parse().expect("a number");
    format!("{:x}:{:x}", raw >> 16, raw & 0xffff)
}

fn stands(root: &str) -> bool {
    Path::new(root).join("shaper").exists()
}

fn a_host_without_the_hierarchy_is_shaped() {
    let mut world = World::new();
    let _streams = [world.pouring(ANN, Family::V4), world.pouring(BOB, Family::V6)];
    let text = ANN_AND_BOB.replace("{rate: 100mbit,", "{rate: 100mbit, down: 90mbit,");
    let file = policy(&text);
    let plan = shaper(&["plan", "-v", &file]).exits(0).stdout;
    assert!(!plan.contains("mount"), "{plan}");
    apply(&text);
    assert!(!Path::new(NET_CLS).exists(), "nothing was mounted");
    without_tags();
    let [ann, bob] = ["user/ann", "user/bob"].map(classid);
    sleep(Duration::from_millis(500));
    let before = nobodys();
    rates::expect(
        UPLINK,
        Duration::from_secs(1),
        &[(&[&ann], 30 * MBIT, 4), (&[&bob], 20 * MBIT, 4)],
    );
    // Of others' packets (neighbour discovery) there are a few.
    assert!(nobodys() - before < 3_000, "{}", nobodys() - before);
    let again = shaper(&["plan", "--exit-code", &file]);
    assert_eq!(again.status, Some(0), "{}{}", again.stdout, again.stderr);
    let status = shaper(&["status", "--json"]).exits(0).json();
    // In both directions.
    for at in [0, 1] {
        assert_eq!(status["links"][at]["classifier"], "uid", "{status}");
    }
    let users = status["links"][0]["users"].as_array().expect("users");
    let processes = |name: &str| {
        users.iter().find(|row| row["user"] == name).map(|row| row["processes"].clone())
    };
    assert_eq!(processes("ann"), Some(1.into()), "{status}");
    let why = shaper(&["why", "ann", "--file", &file]).exits(0).stdout;
    assert!(why.contains(&ann), "{why}");
    // A process that is born later is right from its first packet.
    let before = nobodys();
    let late = world.stream(ANN, Family::V4);
    let pid = late.pid().to_string();
    let why = shaper(&["why", &format!("pid:{pid}"), "--file", &file]).exits(0).stdout;
    assert!(why.contains(&ann), "{why}");
    assert!(!why.contains("not in its directory") && !why.contains("net_cls"), "{why}");
    assert!(nobodys() - before < 3_000, "{}", nobodys() - before);
    shaper(&["clear"]).exits(0);
    assert!(!Path::new("/run/shaper").exists(), "clear leaves nothing");
    assert!(!world.on_host("tc qdisc show dev up0").stdout.contains("htb"));
}

/// With `cgroup_no_v1=net_cls`: `auto` finds it out, and says what there is not.
fn a_kernel_that_forbids_net_cls_goes_without() {
    let mut world = World::new();
    let groups = fs::read_to_string("/proc/self/cgroup").expect("its cgroups");
    assert!(!groups.contains("net_cls"), "{groups}");
    let refused = shaper(&["apply", &policy(&with("bpf"))]);
    assert_ne!(refused.status, Some(0), "{}", refused.stdout);
    assert!(refused.stderr.contains("started with `cgroup_no_v1`"), "{}", refused.stderr);
    let _streams = [world.pouring(ANN, Family::V4), world.pouring(BOB, Family::V6)];
    apply(&with("auto"));
    let link = shaper(&["status", "--json"]).exits(0).json()["links"][0].clone();
    assert_eq!(link["classifier"], "uid", "{link}");
    without_tags();
    let [ann, bob] = ["user/ann", "user/bob"].map(classid);
    sleep(Duration::from_millis(500));
    rates::expect(
        UPLINK,
        Duration::from_secs(1),
        &[(&[&ann], 30 * MBIT, 6), (&[&bob], 20 * MBIT, 6)],
    );
    let told = shaper(&["doctor", "--json"]).json();
    let checks = told["checks"].as_array().expect("checks");
    let check = checks.iter().find(|check| check["id"] == "net_cls").expect("a check");
    assert_eq!(check["state"], "warning", "{check}");
    assert!(check["what"].as_str().is_some_and(|it| it.contains("cgroup_no_v1")), "{check}");
    shaper(&["clear"]).exits(0);
    assert!(!Path::new("/run/shaper").exists(), "clear leaves nothing");
}

/// Somebody had `net_cls` together with `net_prio`, and its mount is gone: by itself it cannot be
/// mounted any more.
fn where_it_is_tied_to_others_auto_goes_without() {
    let mut world = World::new();
    let at = format!("{SCRATCH}/both");
    fs::create_dir(&at).expect("a mount point");
    let mount = format!("mount -t cgroup -o net_cls,net_prio none {at}");
    run(&mount);
    fs::create_dir(format!("{at}/kept")).expect("a group of somebody's");
    run(&format!("umount {at}"));
    let refused = shaper(&["apply", &policy(&with("bpf"))]);
    assert!(refused.stderr.contains("tied to net_prio"), "{}", refused.stderr);
    let _streams = [world.pouring(ANN, Family::V4), world.pouring(BOB, Family::V6)];
    apply(&with("auto"));
    let link = shaper(&["status", "--json"]).exits(0).json()["links"][0].clone();
    assert_eq!(link["classifier"], "uid", "{link}");
    without_tags();
    all_passes_through_both(&["user/ann", "user/bob"].map(classid));
    let told = shaper(&["doctor", "--json"]).json().to_string();
    assert!(told.contains("tied to other controllers"), "{told}");
    shaper(&["clear"]).exits(0);
    assert!(!Path::new("/run/shaper").exists(), "clear leaves nothing");
    run(&mount);
    fs::remove_dir(format!("{at}/kept")).expect("remove the group");
    run(&format!("umount {at}"));
}

fn all_passes_through_both([ann, bob]: &[String; 2]) {
    sleep(Duration::from_millis(500));
    rates::expect(
        UPLINK,
        Duration::from_secs(1),
        &[(&[ann], 30 * MBIT, 6), (&[bob], 20 * MBIT, 6)],
    );
}

/// Numbered datagrams of ann's, and bytes of nobody's, while the claims go to and fro.
fn between_the_two_no_packet_is_lost_or_nobodys() {
    let mut world = World::new();
    apply(&with("bpf"));
    let ann = number(NET_CLS, "user/ann");
    let mut beat = world.beating(ANN, Family::V4, 5 * MBIT);
    world.until("it sends", |_| counters::classes(UPLINK).class(&ann).bytes > 100_000);
    let before = nobodys();
    for classifier in ["uid", "bpf", "uid", "auto", "uid", "uid", "bpf"] {
        let text = with(classifier);
        apply(&text);
        let (here, there) = match classifier {
            "uid" => (CLAIMS, NET_CLS),
            _ => (NET_CLS, CLAIMS),
        };
        assert!(stands(here) && !stands(there), "{classifier}");
        assert_eq!(number(here, "user/ann"), ann, "she keeps her number");
        assert_eq!(Path::new(NET_CLS).exists(), here == NET_CLS, "our mount goes with its use");
        let again = shaper(&["plan", "--exit-code", &policy(&text)]);
        assert_eq!(again.status, Some(0), "{}{}", again.stdout, again.stderr);
    }
    let strange = nobodys() - before;
    assert!(strange < 5_000, "{strange} bytes went through the default class");
    let seen = world.finish_beating(&mut beat);
    let (packets, silence) = (seen.packets, seen.longest_silence);
    println!("{packets} datagrams, {silence} us of silence, {strange} bytes");
    shaper(&["clear"]).exits(0);
    assert!(!Path::new("/run/shaper").exists());
}

fn a_move_that_is_not_confirmed_is_taken_back() {
    let mut world = World::new();
    let _stream = world.pouring(ANN, Family::V4);
    for (from, to, here, there) in
        [("bpf", "uid", NET_CLS, CLAIMS), ("uid", "bpf", CLAIMS, NET_CLS)]
    {
        apply(&with(from));
        let ann = number(here, "user/ann");
        shaper(&["apply", "--confirm", "2", &policy(&with(to))]).exits(0);
        assert_eq!(number(there, "user/ann"), ann);
        world.until("it is taken back", |_| !stands(there));
        let link = shaper(&["status", "--json"]).exits(0).json()["links"][0].clone();
        assert_eq!(link["classifier"], from, "{link}");
        let again = shaper(&["plan", "--exit-code", &policy(&with(from))]);
        assert_eq!(again.status, Some(0), "{}{}", again.stdout, again.stderr);
        all_passes_through(&ann);
        shaper(&["apply", "--force", "--confirm", "60", &policy(&with(to))]).exits(0);
        shaper(&["confirm"]).exits(0);
        world.until("the old place is empty", |_| stands(there) && !stands(here));
        all_passes_through(&ann);
    }
}

/// Killed after so many microseconds, whatever it does then: the next run ends in the state that
/// its policy says, at one place, and ann has her class all the while.
fn a_run_that_is_killed_anywhere_is_made_good() {
    let mut world = World::new();
    apply(&with("bpf"));
    let ann = number(NET_CLS, "user/ann");
    let _beat = world.beating(ANN, Family::V4, 5 * MBIT);
    world.until("it sends", |_| counters::classes(UPLINK).class(&ann).bytes > 100_000);
    let before = nobodys();
    let mut random = Random::new(7);
    let (mut killed, mut both) = (0, 0);
    // As long as a run takes, on a machine that is busy with other things, too.
    let mut takes = Duration::from_millis(120);
    for turn in 0..60 {
        let text = with(["uid", "bpf"][turn % 2]);
        let mut run = Command::new(binary());
        run.args(["apply", &policy(&text)]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut run = run.spawn().expect("start a run");
        sleep(takes * random.index(100) as u32 / 100);
        let _ended = run.kill();
        killed += usize::from(!run.wait().expect("its end").success());
        both += usize::from(stands(NET_CLS) && stands(CLAIMS));
        // The same policy, or the other one.
        let (next, here, there) = match random.maybe(2) {
            true => ("uid", CLAIMS, NET_CLS),
            false => ("bpf", NET_CLS, CLAIMS),
        };
        let began = Instant::now();
        apply(&with(next));
        takes = (takes + began.elapsed()) / 2;
        assert!(stands(here) && !stands(there), "turn {turn}: {next}");
        assert_eq!(number(here, "user/ann"), ann, "turn {turn}");
        let again = shaper(&["plan", "--exit-code", &policy(&with(next))]);
        assert_eq!(again.status, Some(0), "{}{}", again.stdout, again.stderr);
    }
    let strange = nobodys() - before;
    println!("{killed} runs were killed, {both} with claims at both places; {strange} bytes");
    assert!(killed > 20 && both > 0, "{killed} runs were killed, {both} in a move");
    assert!(strange < 20_000, "{strange} bytes went through the default class");
}

fn a_rule_with_from_knows_the_sender() {
    let mut world = World::new();
    let text = format!("{ANN_AND_BOB}classes: {{bulk: 8mbit}}\nrules: [{{from: ann, to: bulk}}]\n");
    let _streams = [world.pouring(ANN, Family::V4), world.pouring(BOB, Family::V4)];
    apply(&text);
    without_tags();
    let [bulk, bob] = ["class/bulk", "user/bob"].map(classid);
    assert!(directory("class/bulk").exists());
    sleep(Duration::from_millis(500));
    rates::expect(
        UPLINK,
        Duration::from_secs(1),
        &[(&[&bulk], 8 * MBIT, 5), (&[&bob], 20 * MBIT, 4)],
    );
}

//! `usage`, `grant` and `quota reset`: their words, and what a later apply makes of them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::Duration;

use assert_cmd::Command;

use super::invoke::{Sleeper, as_user, exactly, host, shaper};
use crate::support::accounts::{ANN, Account, BOB, CAROL};
use crate::support::cell::SCRATCH;
use crate::support::clock::soon;
use crate::support::command::run;
use crate::support::daemon::Daemon;
use crate::support::harness::{On, tests};
use crate::support::program::{binary, policy};

tests!(On::Host =>
    what_is_used_is_a_table_of_all_who_have_a_quota, a_grant_is_more_of_each_quota_until_it_ends,
    what_cannot_be_granted_says_the_cure, users_are_told_of_their_own_use_at_most,
    who_is_not_logged_in_has_a_quota_all_the_same,
    what_one_is_told_nobody_else_reads_and_nobody_writes,
    a_daemon_tells_who_has_used_his_quota_up_what_holds_him,
    what_is_confirmed_is_told, what_went_by_a_link_that_is_gone_was_used
);

const POLICY: &str = "
version: 1
links: {up0: {rate: 1gbit, leaf: bfifo}}
users:
  ann: {ceil: 20mbit, quota: [{30d: 1TiB, then: 1mbit, counts: sent}, {12h: 10GiB, then: {50%: 10mbit, 100%: 2mbit}}]}
  bob: 10mbit
groups: {team: {ceil: 100mbit, users: [bob], quota: {30d: 2TiB, then: 64kbit}}}
everyone: {each: {ceil: 5mbit, quota: {30d: 5GiB, then: 1mbit}}}
";

/// A command that keeps use where the test does.
fn keeping(mut command: Command) -> Command {
    command.env("SHAPER_STATE", format!("{SCRATCH}/state"));
    command
}

fn usage(words: &str) -> Command {
    keeping(shaper(words))
}

fn shaped() -> (String, Sleeper) {
    host();
    let path = policy(POLICY);
    let carol = Sleeper::of(CAROL);
    usage(&format!("apply -q {path}")).assert().code(0);
    (path, carol)
}

const TABLE: &str = "\
USER   PERIOD   USED GRANTED    OF  LEFT ANEW HOLDS
ann    30d sent   0B       -  1TiB  1TiB -    -
ann    12h        0B       - 10GiB 10GiB -    -
carol  30d        0B       -  5GiB  5GiB -    -
[team] 30d        0B       -  2TiB  2TiB -    -
";

fn what_is_used_is_a_table_of_all_who_have_a_quota() {
    host();
    // A daemon's or a noted policy is not there yet: the usual one is not either.
    usage("usage").assert().code(2);
    let path = policy("version: 1\nlinks: {up0: 1gbit}\nusers: {bob: 10mbit}\n");
    usage(&format!("apply -q {path}")).assert().code(0);
    exactly(&mut usage("usage"), 0, &format!("nobody has a quota in {path}\n"), "");
    let none = format!(
        "error: bob has no quota; write one in {path}, such as `quota: {{month: 1TB, then: 10mbit}}`\n"
    );
    exactly(&mut usage("usage bob"), 2, "", &none);
    let _carol = Sleeper::of(CAROL);
    let path = policy(POLICY);
    usage(&format!("apply -q {path}")).assert().code(0);
    exactly(&mut usage("usage"), 0, TABLE, "");
    let of = |words: &str, rows: &[usize]| {
        let lines: Vec<&str> = TABLE.lines().collect();
        let output = usage(words).assert().code(0).stderr("").get_output().stdout.clone();
        let said = String::from_utf8(output).expect("text");
        let cells = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let said: Vec<String> = said.lines().skip(1).map(cells).collect();
        assert_eq!(said, rows.iter().map(|row| cells(lines[*row])).collect::<Vec<_>>(), "{words}");
    };
    of("usage ann", &[1, 2]);
    of("usage team carol", &[3, 4]);
    of("usage --period 12h", &[2]);
    // Bob has no process here, and no line of his own has a quota; an account of `each` that is
    // not here has used nothing.
    let lines = usage("usage carol --json").assert().code(0).get_output().stdout.clone();
    let json: serde_json::Value = serde_json::from_slice(&lines).expect("JSON");
    let expected = serde_json::json!({
        "version": 1,
        "quotas": [{
            "user": "carol", "group": false, "period": "30d", "counts": "both", "used_bytes": 0,
            "granted_bytes": 0, "limit_bytes": 5_u64 << 30, "left_bytes": 5_u64 << 30
        }]
    });
    assert_eq!(json, expected);
    let other = "error: nobody here has a quota of this period: `week`; there are: 12h, 30d\n";
    exactly(&mut usage("usage --period week"), 2, "", other);
    let zorro = "error: there is no user, group or account zorro; `shaper usage` without a name lists who has a quota\n";
    exactly(&mut usage("usage zorro"), 2, "", zorro);
}

fn a_grant_is_more_of_each_quota_until_it_ends() {
    let (_path, _carol) = shaped();
    let note = "note: no daemon runs here, so the next `shaper apply` puts it in force\n";
    let said = "\
ann has 2GiB more
  0B of 1TiB sent in the last 30d, 1TiB left
  0B of 12GiB used in the last 12h, 12GiB left
";
    exactly(&mut usage("grant ann 2GiB"), 0, said, note);
    exactly(&mut usage("grant ann 1GiB -q"), 0, "", "");
    let output = usage("usage ann --json").assert().code(0).get_output().stdout.clone();
    let json: serde_json::Value = serde_json::from_slice(&output).expect("JSON");
    for quota in [0, 1] {
        assert_eq!(json["quotas"][quota]["granted_bytes"], 3_u64 << 30, "{json}");
    }
    let words = "grant carol 1TB --until 2099-12-24T22:00:00Z --json";
    let output = usage(words).assert().code(0).stderr("").get_output().stdout.clone();
    let json: serde_json::Value = serde_json::from_slice(&output).expect("JSON");
    assert_eq!(json["granted"]["bytes"], 1_000_000_000_000_u64, "{json}");
    assert_eq!(json["granted"]["until"], "2099-12-24T22:00:00Z", "{json}");
    assert_eq!((&json["daemon"], &json["version"]), (&false.into(), &1.into()), "{json}");
    assert_eq!(json["quotas"][0]["limit_bytes"], 1_000_000_000_000 + (5_u64 << 30), "{json}");
    // Groups, too.
    usage("grant team 1TiB").assert().code(0);
    let reset = "\
what team uses is counted anew from now on
  0B of 3TiB used in the last 30d, 3TiB left
";
    exactly(&mut usage("quota reset team"), 0, reset, note);
    let output = usage("quota reset ann --json").assert().code(0).get_output().stdout.clone();
    let json: serde_json::Value = serde_json::from_slice(&output).expect("JSON");
    assert_eq!((&json["reset"]["user"], &json["daemon"]), (&"ann".into(), &false.into()));
}

fn what_cannot_be_granted_says_the_cure() {
    let (path, _carol) = shaped();
    for (words, error) in [
        ("grant ann 0GB", "a grant of 0 changes nothing; write for example `10GiB`"),
        ("grant ann 8Gbit", "a volume is in bytes, not in bits: write `1GB` for what `8Gbit` is"),
        (
            "grant ann 5",
            "`5` has no unit; write for example `5GiB` (powers of 1024) or `5GB` (powers of 1000)",
        ),
        (
            "grant ann 1G",
            "`1G` has an unknown unit; the units are kB, MB, GB, TB (powers of 1000) and KiB, MiB, GiB, TiB (powers of 1024); write `1GB` (powers of 1000), or `1GiB` (powers of 1024)",
        ),
        (
            "grant ann -5GB",
            "a grant only adds, and `-5GB` is less than nothing; what was granted by mistake counts until its period ends, and a lower `quota` in the policy makes up for it",
        ),
        (
            "grant ann --untill",
            "`--untill` is no volume, and no option of grant's, which has `--until TIME`",
        ),
        (
            "grant ann 1GB --until 2001-01-01T00:00:00Z",
            "`2001-01-01T00:00:00Z` is over already; write a later moment, or leave --until out",
        ),
        (
            "grant zorro 1GB",
            "there is no user, group or account zorro; `shaper usage` without a name lists who has a quota",
        ),
        (
            "quota reset zorro",
            "there is no user, group or account zorro; `shaper usage` without a name lists who has a quota",
        ),
    ] {
        exactly(&mut usage(words), 2, "", &format!("error: {error}\n"));
    }
    for words in ["grant bob 1GB", "quota reset bob"] {
        let error = format!(
            "error: bob has no quota; write one in {path}, such as `quota: {{month: 1TB, then: 10mbit}}`\n"
        );
        exactly(&mut usage(words), 2, "", &error);
    }
    let moment = usage("grant ann 1GB --until tomorrow").assert().code(2).get_output().clone();
    let error = String::from_utf8_lossy(&moment.stderr).into_owned();
    assert!(error.starts_with("error: `tomorrow` is no moment: "), "{error}");
    exactly(&mut usage("usage ann --period 12h"), 0, &ann_alone(), "");
    // A file of a later version is left as it is.
    let kept = format!("{SCRATCH}/state/use-shaper");
    fs::write(&kept, "shaper use 99\nsomething").expect("write it");
    for words in ["usage", "grant ann 1GB", "quota reset ann"] {
        let output = usage(words).assert().code(1).stdout("").get_output().clone();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains("is of version 99"), "{words}: {error}");
    }
    assert_eq!(fs::read_to_string(&kept).expect("it is there"), "shaper use 99\nsomething");
}

/// Nothing of what was refused was granted.
fn ann_alone() -> String {
    "USER PERIOD USED GRANTED    OF  LEFT ANEW HOLDS\nann  12h      0B       - 10GiB 10GiB -    -\n"
        .to_string()
}

fn who_is_not_logged_in_has_a_quota_all_the_same() {
    host();
    let path = policy(POLICY);
    usage(&format!("apply -q {path}")).assert().code(0);
    let listed = |words: &str| {
        let output = usage(words).assert().code(0).stderr("").get_output().stdout.clone();
        let said = String::from_utf8(output).expect("text");
        let row = said.lines().find(|line| line.starts_with("carol"))?;
        Some(row.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    assert_eq!(listed("usage"), None, "nothing is kept of her");
    assert_eq!(listed("usage carol").as_deref(), Some("carol 30d 0B - 5GiB 5GiB - -"));
    usage("quota reset carol").assert().code(0);
    usage("grant carol 3GiB").assert().code(0);
    let granted = Some("carol 30d 0B 3GiB 8GiB 8GiB - -");
    assert_eq!(listed("usage").as_deref(), granted);
    // It is hers when she comes, and after that.
    let carol = Sleeper::of(CAROL);
    usage(&format!("apply -q {path}")).assert().code(0);
    assert_eq!(listed("usage").as_deref(), granted);
    drop(carol);
    usage(&format!("apply -q {path}")).assert().code(0);
    assert_eq!(listed("usage").as_deref(), granted);
    // Bob's line has no quota, wherever he is.
    usage("grant bob 3GiB").assert().code(2);
}

fn users_are_told_of_their_own_use_at_most() {
    let (path, _carol) = shaped();
    let _sleepers = [ANN, BOB].map(Sleeper::of);
    usage(&format!("apply -q {path}")).assert().code(0);
    assert_eq!(fs::metadata(&path).expect("its mode").permissions().mode() & 0o077, 0);
    let of = |account, words: &str| {
        let output = as_user(account, words).assert().code(0).get_output().clone();
        let [said, noted] = [output.stdout, output.stderr].map(String::from_utf8);
        (said.expect("text"), noted.expect("text"))
    };
    let cells = |text: &str| -> Vec<String> {
        let cells = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        text.lines().map(cells).collect()
    };
    let table = cells(TABLE);
    let (said, noted) = of(ANN, "usage");
    assert_eq!(cells(&said), table[..3], "{said}");
    assert!(noted.starts_with("note: as counted at 20") && noted.contains("daemon"), "{noted}");
    assert_eq!(
        cells(&of(ANN, "usage ann --period 12h").0),
        [&table[0], &table[2]].map(Clone::clone)
    );
    assert_eq!(cells(&of(CAROL, "usage").0), [&table[0], &table[3]].map(Clone::clone));
    let none = ("you have no quota of your own here\n".to_string(), String::new());
    assert_eq!(of(BOB, "usage"), none, "that of his group is of all its members");
    let json: serde_json::Value = serde_json::from_str(&of(CAROL, "usage --json").0).expect("JSON");
    assert_eq!(json["quotas"].as_array().map(Vec::len), Some(1), "{json}");
    assert_eq!(json["quotas"][0]["user"], "carol", "{json}");
    assert!(json["counted_at"].is_string(), "{json}");
    for (words, sought) in [
        ("status", "quota of ann: 0B of 1TiB sent in the last 30d, 1TiB left"),
        ("why ann", "  quota: 0B of 10GiB used in the last 12h, 10GiB left"),
    ] {
        let said = of(ANN, &by_file(words, &path)).0;
        assert!(said.contains(sought), "{said}");
        assert!(!said.contains("carol") && !said.contains("team"), "{said}");
    }
    for words in ["usage carol", "usage team", "usage zorro"] {
        let name = words.trim_start_matches("usage ");
        let error = format!(
            "error: what {name} has only root may see, and whose it is; `shaper status` without a name says what you have\n"
        );
        exactly(&mut as_user(ANN, words), 2, "", &error);
    }
}

/// `why` asks a policy; that it is not the usual one it must be told.
fn by_file(words: &str, path: &str) -> String {
    if words.starts_with("why") { format!("{words} --file {path}") } else { words.to_string() }
}

/// As one account, with the tools that everybody has.
fn by_hand(account: Account, line: &str) -> std::process::Output {
    let Account { uid, gid, .. } = account;
    let mut command = std::process::Command::new("sh");
    command.args(["-c", line]).uid(uid).gid(gid).output().expect("run sh")
}

fn what_one_is_told_nobody_else_reads_and_nobody_writes() {
    const ROOM: &str = "/run/shaper/told/shaper";
    let (path, _carol) = shaped();
    let _sleepers = [ANN, BOB].map(Sleeper::of);
    usage(&format!("apply -q {path}")).assert().code(0);
    let of = |account: Account| format!("{ROOM}/{}", account.uid);
    let may = |account, line: &str| by_hand(account, line).status.success();
    let lengths: Vec<u64> =
        [ANN, BOB, CAROL].map(|it| fs::metadata(of(it)).expect("it is there").len()).into();
    assert!(lengths.iter().all(|length| length % 1_024 == 0), "{lengths:?}");
    for whose in [ANN, BOB, CAROL] {
        for who in [ANN, BOB, CAROL] {
            let reads = may(who, &format!("cat {}", of(whose)));
            assert_eq!(reads, who == whose, "uid {} reads {}", who.uid, whose.uid);
            for line in ["echo x >", "chmod 644", "rm -f", "mv -t /tmp"] {
                assert!(!may(who, &format!("{line} {}", of(whose))), "{line} {}", who.uid);
            }
        }
        // A link of one's own in the way of another's.
        assert!(!may(whose, &format!("ls {ROOM}")) && !may(whose, &format!("ln -s x {ROOM}/9")));
    }
    // The group of a file says nothing: that of carol is ann's, too.
    let namesake = Account { gid: CAROL.gid, ..ANN };
    assert!(!may(namesake, &format!("cat {}", of(CAROL))));
    // Of whoever has none any more nothing is left.
    let without = POLICY.replace("users: [bob], quota: {30d: 2TiB, then: 64kbit}", "users: [bob]");
    let without = without.replace(", quota: {30d: 5GiB, then: 1mbit}", "");
    usage(&format!("apply -q {}", policy(&without))).assert().code(0);
    assert!(may(ANN, &format!("grep -q 1TiB {0} || grep -q 12h {0}", of(ANN))));
    assert!(may(CAROL, &format!("cat {}", of(CAROL))), "still whose class hers is");
    assert!(!may(CAROL, &format!("grep 30d {}", of(CAROL))));
    let plain =
        policy("version: 1\nlinks: {up0: {rate: 1gbit, leaf: bfifo}}\nusers: {ann: 20mbit}\n");
    usage(&format!("apply -q {plain}")).assert().code(0);
    assert!(!Path::new(ROOM).exists(), "there is nothing to tell");
    usage(&format!("apply -q {}", policy(POLICY))).assert().code(0);
    assert!(Path::new(&of(ANN)).exists());
    usage("clear -q").assert().code(0);
    assert!(!Path::new("/run/shaper/told").exists());
}

/// Without a daemon nobody else would until the next apply.
fn what_is_confirmed_is_told() {
    host();
    let _ann = Sleeper::of(ANN);
    let of = |limits: &str| {
        policy(&format!(
            "version: 1\nlinks: {{up0: {{rate: 1gbit, leaf: bfifo}}}}\nusers: {{ann: {{{limits}}}}}\n"
        ))
    };
    let told = || {
        let output = as_user(ANN, "usage").assert().code(0).get_output().stdout.clone();
        String::from_utf8(output).expect("text")
    };
    let tries = |limits: &str| {
        usage(&format!("apply -q --confirm 60 {}", of(limits))).assert().code(0);
    };
    let old = of("ceil: 20mbit, quota: {30d: 1TiB, then: 1mbit}");
    usage(&format!("apply -q {old}")).assert().code(0);
    assert!(told().contains("1TiB"), "{}", told());
    tries("ceil: 30mbit, quota: {30d: 2TiB, then: 1mbit}");
    assert!(told().contains("1TiB"), "it may be taken back: {}", told());
    usage("confirm").assert().code(0);
    assert!(told().contains("2TiB") && !told().contains("1TiB"), "{}", told());
    // Nothing in the kernel is otherwise, so that nothing may be taken back.
    tries("ceil: 30mbit, quota: {30d: 3TiB, then: 1mbit}");
    assert!(told().contains("3TiB"), "{}", told());
    usage("confirm").assert().code(2);
    // The file is another one by the time: what was told before is true no more.
    tries("ceil: 20mbit, quota: {30d: 4TiB, then: 1mbit}");
    let newer = of("ceil: 20mbit, quota: {30d: 5TiB, then: 1mbit}");
    usage("confirm").assert().code(0);
    assert!(told().starts_with("nobody has told you"), "{}", told());
    usage(&format!("apply -q {newer}")).assert().code(0);
    assert!(told().contains("5TiB"), "{}", told());
    // There is nothing to tell any more.
    tries("ceil: 30mbit");
    assert!(told().contains("5TiB"), "{}", told());
    usage("confirm").assert().code(0);
    assert!(!Path::new("/run/shaper/told").exists());
    usage("clear -q").assert().code(0);
}

const USED_UP: &str = "
version: 1
links: {up0: {rate: 1gbit, leaf: bfifo}}
users:
  ann: {ceil: 200mbit, quota: {12h: 1MB, then: 2mbit}}
  bob: {ceil: 100mbit, quota: {12h: 1GB, then: 3mbit}}
";

fn a_daemon_tells_who_has_used_his_quota_up_what_holds_him() {
    host();
    run("ip addr add 10.9.9.1/24 dev up0");
    run("ip neigh add 10.9.9.2 lladdr 02:00:00:00:00:02 dev up0");
    let path = policy(USED_UP);
    let _sleepers = [ANN, BOB].map(Sleeper::of);
    let mut command = std::process::Command::new(binary());
    command.args(["watch", &path]).env("SHAPER_STATE", format!("{SCRATCH}/state"));
    let daemon = Daemon::run(command);
    let of = |account, words: &str| {
        let output = as_user(account, words).assert().code(0).get_output().stdout.clone();
        String::from_utf8(output).expect("text")
    };
    let until = |what: &str, account, words: &str, sought: &str| {
        let mut said = String::new();
        let mut has_come = || {
            said = of(account, words);
            said.contains(sought)
        };
        soon(what, Duration::from_secs(60), &mut has_come);
        said
    };
    until("she is told of her quota", ANN, "usage", "ann  12h      0B       - 976KiB");
    let sends = "for i in $(seq 1500); do head -c 1000 /dev/zero; done > /dev/udp/10.9.9.2/9";
    let sends = format!("bash -c '{sends}'");
    assert!(by_hand(ANN, &sends).status.success(), "she sends");
    let said = until("the step holds, and she is told", ANN, "usage", "100%: 2mbit");
    assert!(said.contains(" 976KiB   0B "), "{said}");
    for words in ["status", "why ann"] {
        let words = by_file(words, &path);
        let said =
            until("she is told why", ANN, &words, "may use 2mbit, by its own cap (of the quota");
        assert!(said.contains("(1MB in the last 12h is used), until "), "{said}");
        assert!(!said.contains("bob"), "{said}");
    }
    let said = of(BOB, "usage");
    assert!(said.contains("bob  12h  ") && !said.contains("2mbit"), "{said}");
    // More of it is known soon, and not after a minute.
    usage("grant ann 1GB -q").assert().code(0);
    let said = until("she is told of more", ANN, "usage", " 953MiB 954MiB ");
    assert!(!said.contains("100%"), "{said}");
    assert!(daemon.end().success());
}

const BY_TWO_LINKS: &str = "
version: 1
links: {up0: {rate: 1gbit, leaf: bfifo}, d1: {rate: 1gbit, leaf: bfifo, optional: true}}
users: {ann: {ceil: 200mbit, quota: {12h: 1GB, then: 2mbit}}}
";

/// Without a daemon, and whatever number the link has when it is back.
fn what_went_by_a_link_that_is_gone_was_used() {
    host();
    let path = policy(BY_TWO_LINKS);
    let comes = || {
        run("ip link add d1 type veth peer name d1-far");
        run("ip addr add 10.9.9.1/24 dev d1");
        run("ip link set d1-far up");
        run("ip link set d1 up");
        run("ip neigh add 10.9.9.2 lladdr 02:00:00:00:00:02 dev d1");
    };
    let apply = || {
        usage(&format!("apply -q {path}")).assert().code(0);
    };
    let json = |words: &str| -> serde_json::Value {
        let output = usage(words).assert().code(0).get_output().stdout.clone();
        serde_json::from_slice(&output).expect("JSON")
    };
    let used = || json("usage ann --json")["quotas"][0]["used_bytes"].as_u64().expect("bytes");
    let sends = "for i in $(seq 100); do head -c 1000 /dev/zero; done > /dev/udp/10.9.9.2/9";
    let sends = || assert!(by_hand(ANN, &format!("bash -c '{sends}'")).status.success());
    comes();
    apply();
    sends();
    apply();
    let first = used();
    assert!((100_000..150_000).contains(&first), "{first}");
    run("ip link del d1");
    apply();
    assert_eq!(used(), first, "it stays used");
    comes();
    apply();
    assert_eq!(used(), first, "and counts once");
    sends();
    apply();
    let status = json("status ann --json");
    let mut links = status["links"].as_array().expect("links").iter();
    let d1 = links.find(|link| link["dev"] == "d1").expect("the link");
    let of_d1 = d1["users"][0]["sent_bytes"].as_u64().expect("bytes");
    assert!((100_000..150_000).contains(&of_d1), "{of_d1}");
    assert_eq!(used(), first + of_d1);
    // Its class ends with what was not counted yet: `clear` counts that.
    sends();
    usage("clear -q").assert().code(0);
    apply();
    assert!(used() >= first + of_d1 + 100_000, "{}", used());
    run("ip link del d1");
    usage("clear -q").assert().code(0);
}

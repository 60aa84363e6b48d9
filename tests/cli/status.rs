//! `status`: its columns, what is below a group, names that nobody has, the policy in force, and a
//! change that waits to be confirmed.

use unicode_width::UnicodeWidthStr;

use super::invoke::{Sleeper, exactly, host, shaper};
use super::terminal::{Terminal, tmux};
use crate::support::accounts::{ANN, BOB, CAROL};
use crate::support::command::run;
use crate::support::harness::{On, tests};
use crate::support::program::{binary, policy};

tests!(On::Host =>
    members_are_below_their_group_in_80_columns, a_group_shows_all_that_is_below_it,
    a_user_is_shown_with_the_groups_above_him, other_words_than_users_names_are_told_apart,
    the_nearest_name_is_said, the_policy_in_force_is_named, a_pending_change_says_until_when,
    what_goes_now_is_shown_in_the_same_report, who_is_in_the_default_class_is_named,
    whose_sockets_are_in_his_class_is_not_said_to_be_in_default,
    a_terminal_has_the_columns_that_it_has_room_for, an_ifb_that_takes_nothing_is_said
);

const POLICY: &str = "
version: 1
links: {up0: {rate: 1gbit, leaf: bfifo}}
users: {ann: 20mbit, bob: 10mbit, 日本語の名前: {uids: 4711, ceil: 5mbit}}
groups:
  students: {rate: 100mbit, users: [ann]}
  year1: {parent: students, rate: 50mbit, users: [bob]}
";

fn shaped() -> String {
    let _host = host();
    let path = policy(POLICY);
    shaper(&format!("apply -q {path}")).assert().code(0);
    path
}

fn text(words: &str) -> String {
    let output = shaper(words).assert().code(0).get_output().stdout.clone();
    String::from_utf8(output).expect("text")
}

fn json(words: &str) -> serde_json::Value {
    serde_json::from_str(&text(words)).expect("JSON")
}

/// The first words of the rows, with how far they are from the left.
fn names(table: &str) -> Vec<(usize, &str)> {
    let rows = table.lines().filter(|line| line.starts_with("  ")).skip(1);
    rows.map(|row| {
        let first = row.split_whitespace().next().unwrap_or("");
        (row.len() - row.trim_start().len(), first)
    })
    .collect()
}

fn members_are_below_their_group_in_80_columns() {
    shaped();
    let table = text("status");
    let long = "日本語の名前";
    let all = [
        (2, long),
        (2, "[students]"),
        (4, "ann"),
        (4, "[year1]"),
        (6, "bob"),
        (2, "(default)"),
        (2, "(unshaped)"),
    ];
    let rows = names(&table);
    assert_eq!(rows, all, "{table}");
    // Each of these characters takes two columns.
    let wide =
        |line: &str| line.chars().map(|c| 1 + usize::from(c >= '\u{1100}' && c != '…')).sum();
    let widths: Vec<usize> = table.lines().filter(|line| line.starts_with(' ')).map(wide).collect();
    assert!(widths.iter().all(|width| *width <= 80 && *width == widths[0]), "{widths:?}\n{table}");
}

/// In a real one no line breaks, at 80 columns and at 60, also where characters take two columns,
/// or none; a pipe gets everything.
fn a_terminal_has_the_columns_that_it_has_room_for() {
    let _host = host();
    let more = "
  e\u{301}le\u{300}ve: {uids: 4712, ceil: 5mbit}
  🦀🦞: {uids: 4713, rate: 1.25mbit, ceil: 42.75mbit}
  a-name-that-is-longer-than-there-is-room-for-it: {uids: 4714, ceil: 5mbit}
groups:";
    let rules = "rules:\n  - {dport: 80, to: 🦀🦞}\n  - {dport: 443, to: ann}\n";
    let path = policy(
        &(POLICY
            .replace("users: {", "users:\n  ")
            .replace(", bob:", "\n  bob:")
            .replace(", 日", "\n  日")
            .replace("5mbit}}\ngroups:", &format!("5mbit}}{more}"))
            + rules),
    );
    shaper(&format!("apply -q {path}")).assert().code(0);
    let status = format!("{} status --rules; sleep 600", binary().display());
    let terminal = Terminal::open(80, 40, &status);
    let shown = |wide: usize| {
        let screen = terminal.until("all of it", |screen| screen.contains("\npolicy: "));
        let table = |first: &str| {
            let lines = screen.lines().skip_while(|line| !line.trim_start().starts_with(first));
            let lines = lines.skip(1).take_while(|line| line.starts_with("  "));
            let lines = lines.take_while(|line| line.contains(" 1:"));
            lines.map(str::to_string).collect::<Vec<String>>()
        };
        let (users, rules) = (table("USER"), table("RULE"));
        assert_eq!((users.len(), rules.len()), (10, 2), "{screen}");
        for rows in [&users, &rules] {
            let widths: Vec<usize> = rows.iter().map(|row| row.width()).collect();
            assert!(
                widths.iter().all(|it| *it <= wide && *it == widths[0]),
                "{widths:?}\n{screen}"
            );
        }
        assert!(users.iter().any(|row| row.starts_with("  日本語の名前 ")), "{screen}");
        let heading = screen.lines().find(|line| line.starts_with("  USER")).unwrap_or("");
        (heading.split_whitespace().map(str::to_string).collect::<Vec<_>>().join(" "), screen)
    };
    let (at_80, screen) = shown(80);
    assert_eq!(at_80, "USER CLASS RATE CEIL SENT DROPS BACKLOG PROCS", "{screen}");
    terminal.resize(60, 40);
    tmux(&["respawn-pane", "-k", &status]);
    terminal.until("another screen", |screen| !screen.contains("BACKLOG"));
    let (at_60, screen) = shown(60);
    assert!(at_60.starts_with("USER CLASS RATE CEIL SENT"), "{screen}");
    // Sentences are broken between words.
    let said = screen.replace("\n  ", " ");
    assert!(said.contains(" of root ("), "{screen}");
    let whole = text("status");
    assert!(whole.contains("a-name-that-is-longer-than-there-is-room-for-it"), "{whole}");
}

fn an_ifb_that_takes_nothing_is_said() {
    let _host = host();
    let path = policy(&POLICY.replace("1gbit,", "1gbit, down: 500mbit,"));
    for (hand, what) in [
        ("ip link set ifb-up0 down", "ifb-up0 is switched off"),
        ("tc qdisc del dev ifb-up0 root", "ifb-up0 has gone, or its root qdisc"),
        ("ip link del ifb-up0", "ifb-up0 has gone, or its root qdisc"),
    ] {
        shaper(&format!("apply -q {path}")).assert().code(0);
        assert!(!text("status").contains("not shaped"));
        run(hand);
        let said = format!("! what arrives is not shaped: {what}; `shaper apply` mends it\n");
        assert!(text("status").contains(&said), "{hand}: {}", text("status"));
        // In 80 columns it takes more than one line.
        let top = text("top --once --interval 0.1").replace("\n  ", " ");
        assert!(top.contains(said.trim_end()), "{hand}: {top}");
    }
}

fn who_is_in_the_default_class_is_named() {
    shaped();
    let (_ann, carol) = (Sleeper::of(ANN), Sleeper::of(CAROL));
    shaper("apply -q -").write_stdin(POLICY).assert().code(0);
    let table = text("status");
    let said = table.lines().find(|line| line.starts_with("in (default): "));
    let said = said.unwrap_or_else(|| panic!("{table}"));
    assert!(said.contains("1 process of carol (sleep)") && !said.contains("ann"), "{said}");
    assert!(said.contains(" of root ("), "{said}");
    let unclaimed = &json("status --json")["unclaimed"];
    let rows = unclaimed.as_array().expect("a list");
    let row = rows.iter().find(|row| row["uid"] == CAROL.uid).expect("carol's");
    assert_eq!((&row["user"], &row["processes"]), (&"carol".into(), &1.into()), "{row}");
    assert_eq!(row["names"]["sleep"], 1);
    assert!(rows.iter().all(|row| row["user"] != "ann"), "{unclaimed}");
    assert!(!text("status ann").contains("in (default)"), "she alone was asked about");
    drop(carol);
}

fn whose_sockets_are_in_his_class_is_not_said_to_be_in_default() {
    let path = shaped();
    let (ann, _carol) = (Sleeper::of(ANN), Sleeper::of(CAROL));
    // Nobody has placed the processes that came since.
    let table = text("status");
    let said = table.lines().find(|line| line.starts_with("in (default): "));
    let said = said.unwrap_or_else(|| panic!("{table}"));
    assert!(said.contains("1 process of carol (sleep)") && !said.contains("ann"), "{said}");
    let why = text(&format!("why -f {path} pid:{}", ann.pid()));
    let note = "  it is not in its directory yet, and what it sends is in a class all the same, by the sockets' owner: the next apply places it\n";
    assert!(why.ends_with(note), "{why}");
}

fn a_group_shows_all_that_is_below_it() {
    shaped();
    let below = |group: &str| {
        let table = text(&format!("status --group {group}"));
        let rows = names(&table).into_iter().map(|row| row.1.to_string());
        rows.filter(|name| !name.starts_with('(')).collect::<Vec<_>>()
    };
    assert_eq!(below("students"), ["[students]", "ann", "[year1]", "bob"]);
    assert_eq!(below("year1"), ["[year1]", "bob"]);
}

/// And with no others; what a group has is what all who are below it have.
fn a_user_is_shown_with_the_groups_above_him() {
    let path = shaped();
    let _bob = Sleeper::of(BOB);
    shaper(&format!("apply -q {path}")).assert().code(0);
    let table = text("status ann");
    let rows = [(2, "[students]"), (4, "ann"), (2, "(default)"), (2, "(unshaped)")];
    assert_eq!(names(&table)[..4], rows, "{table}");
    let groups = &json("status --json ann")["links"][0]["groups"];
    assert_eq!(groups.as_array().map(Vec::len), Some(1), "{groups}");
    assert_eq!((&groups[0]["group"], &groups[0]["processes"]), (&"students".into(), &1.into()));
    let live = text("status ann --interval 0.1");
    let students = live.lines().find(|line| line.contains("[students]")).expect("its row");
    assert!(students.ends_with(" 1"), "{live}");
    let rules = text("status --interval 0.1 --rules");
    assert!(rules.contains("\nup0  egress\n  "), "{rules}");
}

fn other_words_than_users_names_are_told_apart() {
    shaped();
    let group =
        "error: students is a group: `shaper status --group students` shows all that is below it\n";
    exactly(&mut shaper("status students"), 2, "", group);
    for pool in ["default", "unshaped"] {
        let table = text(&format!("status {pool}"));
        assert_eq!(names(&table)[..2], [(2, "(default)"), (2, "(unshaped)")], "{table}");
    }
    let near = "error: ANN has no class here (did you mean ann?); `shaper why ANN` says why\n";
    exactly(&mut shaper("status ANN"), 2, "", near);
}

fn the_nearest_name_is_said() {
    let path = shaped();
    let user = "error: anne has no class here (did you mean ann?); `shaper why anne` says why\n";
    exactly(&mut shaper("status anne"), 2, "", user);
    let group = "error: there is no group studnets here (did you mean students?)\n";
    exactly(&mut shaper("status --group studnets"), 2, "", group);
    let user = "error: ann is a user: `shaper status ann` shows what is theirs\n";
    exactly(&mut shaper("status --group ann"), 2, "", user);
    exactly(&mut shaper("status --group zoo"), 2, "", "error: there is no group zoo here\n");
    let any = "error: studnets is no line of the policy, no account, no process and no guest (did you mean students?)\n";
    exactly(&mut shaper(&format!("why -f {path} studnets")), 2, "", any);
    let link = "error: up0 is a link, and `why` answers about whom its classes are for: `shaper status` shows them all\n";
    exactly(&mut shaper(&format!("why -f {path} up0")), 2, "", link);
}

fn the_policy_in_force_is_named() {
    let path = shaped();
    let line = |table: String| {
        let lines: Vec<String> = table.lines().map(str::to_string).collect();
        lines.into_iter().find(|line| line.starts_with("policy: ")).expect("the policy")
    };
    let said = line(text("status"));
    assert!(said.starts_with(&format!("policy: {path}, for ")), "{said}");
    let first = json("status --json");
    assert_eq!(first["policy"]["file"], path.as_str());
    // The same again is not applied anew.
    shaper(&format!("apply -q {path}")).assert().code(0);
    assert_eq!(json("status --json")["policy"], first["policy"]);
    shaper("apply -q -").write_stdin(POLICY.replace("20mbit", "30mbit")).assert().code(0);
    assert!(line(text("status")).starts_with("policy: one from standard input, for "));
    shaper("clear").assert().code(0);
    exactly(&mut shaper("status"), 3, "nothing is shaped here; `shaper apply` does it\n", "");
}

fn a_pending_change_says_until_when() {
    let path = shaped();
    policy(&POLICY.replace("20mbit", "30mbit"));
    shaper(&format!("apply -q --confirm 50 {path}")).assert().code(0);
    let pending = json("status --json")["pending"].clone();
    let left = pending["seconds_left"].as_u64().expect("seconds");
    assert!((20..=50).contains(&left), "{pending}");
    let output = shaper("status").assert().code(0).get_output().clone();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("`shaper confirm` keeps it, within "), "{said}");
    shaper("confirm").assert().code(0);
    assert!(json("status --json")["pending"].is_null());
}

fn what_goes_now_is_shown_in_the_same_report() {
    shaped();
    let table = text("status --interval 0.2 --rules");
    let heading = table.lines().next().unwrap_or("");
    assert!(heading.contains("  UP ") && heading.contains("DROPS/S"), "{table}");
    assert!(table.contains("\n    ann ") && table.contains("\npolicy: "), "{table}");
    let report = json("status ann --interval 0.2 --json");
    assert_eq!(report["links"][0]["users"][0]["now_bit"], 0, "{report}");
    assert!(json("status ann --json")["links"][0]["users"][0]["now_bit"].is_null());
}

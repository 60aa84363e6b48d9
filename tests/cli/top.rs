//! `top` in a real terminal: keys are pressed, and screens are looked at. And without a terminal:
//! tables and lines of JSON.

use std::process::Command;

use serde_json::Value;

use super::invoke::{exactly, host, shaper};
use super::terminal::{PATIENCE, Terminal, tmux};
use crate::support::cell::SCRATCH;
use crate::support::clock::soon;
use crate::support::command::run_with;
use crate::support::harness::{On, tests};
use crate::support::program::{binary, policy};

tests!(On::Host =>
    keys_and_sizes_change_the_screen, a_terminal_is_as_it_was_afterwards,
    nothing_is_coloured_where_no_colour_is_wanted,
    without_a_terminal_there_are_tables_or_lines_of_json, bad_options_are_said,
    what_is_shaped_comes_and_goes_while_it_runs, it_stops_and_goes_on_as_other_programs_do,
    a_terminal_that_has_no_screen_gets_tables, what_comes_and_goes_is_counted_once
);

const POLICY: &str = "
version: 1
links: {up0: {rate: 1gbit, leaf: bfifo}}
users: {ann: 20mbit, bob: 10mbit}
groups:
  students: {rate: 100mbit, users: [bob]}
everyone: 5mbit
";

/// Shapes, and says how `top` is called.
fn shaped() -> String {
    let _host = host();
    shaper(&format!("apply -q {}", policy(POLICY))).assert().code(0);
    format!("{} top --interval 0.2", binary().display())
}

fn widest(screen: &str) -> usize {
    screen.lines().map(|line| line.chars().count()).max().unwrap_or(0)
}

fn keys_and_sizes_change_the_screen() {
    let top = shaped();
    let terminal = Terminal::open(80, 24, &top);
    let first = terminal.until("numbers", |screen| screen.contains("up0  up "));
    assert!(first.starts_with("shaper top  sorted by up"), "{first}");
    let headings =
        "  USER                   UP      DOWN  OF CAP  BORROWED    QUEUE  DROPS/S  PROCS\n";
    assert!(first.contains(headings), "{first}");
    assert!(first.contains("  [students]") && first.contains("\n    bob "), "a tree\n{first}");
    assert!(first.lines().nth(23).unwrap_or("").starts_with("q quit  ? keys"), "{first}");
    assert!(widest(&first) <= 80, "{first}");
    terminal.press(&["n"]);
    terminal.until("sorted by name", |screen| screen.contains("sorted by name"));
    terminal.press(&["t"]);
    terminal.until("a list", |screen| !screen.contains("[students]"));
    terminal.press(&["t"]);
    terminal.press(&["/"]);
    terminal.press(&["-l", "bo"]);
    let typed = |screen: &str| screen.contains("show only: bo_") && !screen.contains("\n  ann ");
    terminal.until("only bob and his group", typed);
    terminal.press(&["Enter"]);
    let filtered = terminal.until("a filter", |screen| screen.contains("only *bo*"));
    assert!(filtered.contains("[students]") && filtered.contains("\n    bob "), "{filtered}");
    terminal.press(&["Escape"]);
    terminal.until("all again", |screen| screen.contains("\n  ann "));
    terminal.resize(60, 10);
    let narrow = terminal.until("a narrow screen", |screen| {
        !screen.contains("BORROWED") && screen.contains("DROPS/S")
    });
    assert!(widest(&narrow) <= 60 && narrow.lines().count() <= 10, "{narrow}");
    assert!(narrow.contains("up0  up ") && narrow.contains("q quit"), "{narrow}");
    terminal.resize(80, 5);
    terminal.until("few lines", |screen| screen.contains("lines more"));
    terminal.press(&["End"]);
    terminal.until("the last line", |screen| screen.contains("(unshaped)"));
    terminal.press(&["Home"]);
    terminal.until("the first line", |screen| screen.contains("up0  up "));
    terminal.press(&["?"]);
    terminal.until("help", |screen| screen.contains("sort by what goes up"));
}

fn a_terminal_is_as_it_was_afterwards() {
    let top = shaped();
    let before = "stty -a > /run/cell/before";
    let after = "echo ended with $?; stty -a > /run/cell/after; sleep 60";
    let terminal = Terminal::open(80, 24, &format!("{before}; echo before; {top}; {after}"));
    for end in ["q", "C-c"] {
        terminal.until("top is there", |screen| screen.contains("sorted by up"));
        terminal.press(&[end]);
        let screen = terminal.until("it has ended", |screen| screen.contains("ended with 0"));
        assert!(screen.contains("before\n") && !screen.contains("sorted by"), "{screen}");
        let stty = |when: &str| std::fs::read_to_string(format!("{SCRATCH}/{when}"));
        soon("stty", PATIENCE, || stty("after").is_ok_and(|text| text.ends_with('\n')));
        assert_eq!(stty("before").expect("before"), stty("after").expect("after"));
        let again = format!("{before}; echo before; {top}; {after}");
        tmux(&["respawn-pane", "-k", &again]);
    }
    // A signal is an end like another.
    terminal.until("top is there", |screen| screen.contains("sorted by up"));
    run_with(signal("TERM"), "").exits(0);
    terminal.until("it has ended", |screen| screen.contains("ended with 0"));
}

/// By Ctrl-Z and by signals, and the terminal is the shell's meanwhile.
fn it_stops_and_goes_on_as_other_programs_do() {
    let top = shaped();
    let terminal = Terminal::open(80, 24, "PS1='now> ' bash --norc --noprofile -i");
    terminal.until("a prompt", |screen| screen.contains("now>"));
    let enter = |line: &str| {
        terminal.press(&["-l", line]);
        terminal.press(&["Enter"]);
    };
    let stty = |when: &str| {
        enter(&format!("stty -a > {SCRATCH}/{when}; echo {when}-is-written"));
        let written = format!("\n{when}-is-written");
        terminal.until("stty", |screen| screen.contains(&written));
        std::fs::read_to_string(format!("{SCRATCH}/{when}")).expect("stty")
    };
    let before = stty("before");
    enter(&top);
    for round in 0..2 {
        terminal.until("top is there", |screen| screen.contains("sorted by"));
        match round {
            0 => terminal.press(&["C-z"]),
            _ => drop(run_with(signal("TSTP"), "").exits(0)),
        }
        let screen = terminal.until("it has stopped", |screen| screen.contains("Stopped"));
        assert!(screen.contains(&top) && !screen.contains("sorted by"), "{screen}");
        assert_eq!(stty(["first", "second"][round]), before);
        enter("clear; fg");
    }
    terminal.until("it goes on", |screen| screen.contains("up0  up "));
    terminal.press(&["n"]);
    terminal.until("sorted by name", |screen| screen.contains("sorted by name"));
    // Nobody asks it before this, and somebody else may have used the terminal.
    run_with(signal("STOP"), "").exits(0);
    terminal.until("it has stopped", |screen| screen.contains("Stopped"));
    enter("stty echo icanon; fg");
    terminal.press(&["d"]);
    terminal.until("sorted by down", |screen| screen.contains("sorted by down"));
    terminal.press(&["q"]);
    terminal.until("the prompt", |screen| !screen.contains("sorted by"));
    assert_eq!(stty("after"), before);
    // Without a shell nobody could have it go on.
    tmux(&["respawn-pane", "-k", &format!("exec {top}")]);
    terminal.until("top is there", |screen| screen.contains("sorted by up"));
    terminal.press(&["C-z", "n"]);
    terminal.until("it went on", |screen| screen.contains("sorted by name"));
}

fn signal(name: &str) -> Command {
    let mut kill = Command::new("sh");
    kill.args(["-c", &format!("kill -{name} $(pidof shaper)")]);
    kill
}

fn a_terminal_that_has_no_screen_gets_tables() {
    let top = shaped();
    let terminal = Terminal::open(80, 60, &format!("TERM=dumb {top}"));
    let tables = |screen: &str| screen.matches("  USER  ").count() > 1;
    let screen = terminal.until("two tables", tables);
    assert!(!screen.contains("q quit"), "{screen}");
    assert!(!tmux(&["capture-pane", "-p", "-e"]).contains("\x1b[7m"));
}

fn nothing_is_coloured_where_no_colour_is_wanted() {
    let top = shaped();
    let coloured = |terminal: &Terminal| {
        terminal.until("numbers", |screen| screen.contains("up0  up "));
        tmux(&["capture-pane", "-p", "-e"]).contains("\x1b[7m")
    };
    let terminal = Terminal::open(80, 24, &top);
    assert!(coloured(&terminal));
    tmux(&["respawn-pane", "-k", &format!("NO_COLOR=1 {top}")]);
    assert!(!coloured(&terminal));
}

fn without_a_terminal_there_are_tables_or_lines_of_json() {
    shaped();
    let once = shaper("top --once --interval 0.2").assert().code(0).stderr("").get_output().clone();
    let table = String::from_utf8(once.stdout).expect("text");
    assert!(table.lines().nth(1).is_some_and(|line| line.starts_with("up0  up ")), "{table}");
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    let mut lines = Command::new("sh");
    let two = format!("{} top --json --interval 0.1 | head -n 2", binary().display());
    lines.args(["-c", &two]);
    let lines = run_with(lines, "").exits(0).stdout;
    assert_eq!(lines.lines().count(), 2, "{lines}");
    for line in lines.lines() {
        let report: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(report["version"], 1);
        assert!(report["interval_ms"].as_u64().is_some_and(|ms| ms >= 90), "{line}");
        assert!(report["links"][0]["users"][0]["now_bit"].is_u64(), "{line}");
    }
    shaper("clear").assert().code(0);
    let nothing = "nothing is shaped here; `shaper apply` does it\n";
    exactly(&mut shaper("top --once --interval 0.1"), 0, nothing, "");
}

/// The hierarchy of `net_cls`, too, comes with the first apply and goes with `clear`.
fn what_is_shaped_comes_and_goes_while_it_runs() {
    let _host = host();
    let path = policy(POLICY);
    let top = format!("{} top --interval 0.2", binary().display());
    let terminal = Terminal::open(80, 24, &top);
    terminal.until("nothing yet", |screen| screen.contains("nothing is shaped here"));
    for _ in 0..2 {
        shaper(&format!("apply -q {path}")).assert().code(0);
        let is_all = |screen: &str| screen.contains("  [students]") && screen.contains("\n  ann ");
        terminal.until("users and groups", is_all);
        shaper("clear -q").assert().code(0);
        terminal.until("nothing any more", |screen| screen.contains("nothing is shaped here"));
    }
}

/// Each reading is a document, whatever comes and goes between the list of classes and the
/// counters, and nobody has sent what was not sent.
fn what_comes_and_goes_is_counted_once() {
    let _host = host();
    let path = policy(POLICY);
    let output = format!("{SCRATCH}/readings");
    let mut top = Command::new(binary());
    top.args(["top", "--json", "--interval", "0.1"]);
    let file = std::fs::File::create(&output).expect("a file");
    let mut top = top.stdout(file).spawn().expect("top");
    let others = POLICY.replace("ann: 20mbit, bob", "zoe: {uids: 4711, ceil: 1mbit}, bob");
    for round in 0..4 {
        shaper(&format!("apply -q {path}")).assert().code(0);
        shaper("apply -q -").write_stdin(others.as_str()).assert().code(0);
        if round % 2 == 0 {
            shaper("clear -q").assert().code(0);
        }
    }
    let readings = || std::fs::read_to_string(&output).expect("readings");
    let has_all = || readings().lines().last().is_some_and(|line| line.contains("\"zoe\""));
    soon("the last policy", PATIENCE, || readings().ends_with('\n') && has_all());
    assert!(top.try_wait().expect("a child").is_none(), "it goes on");
    top.kill().expect("end it");
    top.wait().expect("its status");
    let readings = readings();
    assert!(readings.lines().count() > 5, "{readings}");
    for line in readings.lines() {
        let report: Value = serde_json::from_str(line).expect("JSON");
        for link in report["links"].as_array().expect("links") {
            let rows = [&link["users"], &link["groups"]].map(|rows| rows.as_array().expect("rows"));
            for row in rows.into_iter().flatten().chain([&link["default"]]) {
                // The kernel's own packets of a link that is new come meanwhile.
                assert!(row["now_bit"].as_u64() < Some(200_000), "{row}");
                assert_eq!(row["drops"], 0, "{row}");
            }
        }
    }
}

fn bad_options_are_said() {
    for (words, said) in [
        ("top --interval 0", "a number of seconds from 0.1 to 3600 is needed"),
        ("top --interval x", "a number of seconds from 0.1 to 3600 is needed"),
        ("top --interval inf", "a number of seconds from 0.1 to 3600 is needed"),
        ("top --exit-over much", "a percentage is needed, as 90%"),
    ] {
        let output = shaper(words).assert().code(2).get_output().clone();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains(said), "{words}: {text}");
    }
}

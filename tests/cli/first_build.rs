//! `apply` on a terminal over ssh asks before a first build, and does what was answered.

use super::invoke::{host, root, shaper};
use super::terminal::{Terminal, tmux};
use crate::support::command::run;
use crate::support::harness::{On, tests};
use crate::support::program::{binary, directory};

tests!(On::Host =>
    a_first_build_over_ssh_is_asked_about, who_answers_or_hears_nothing_is_not_asked,
    where_it_is_no_first_build_nothing_is_asked, nothing_is_asked_of_links_that_do_not_carry_the_session
);

/// What sshd tells a session.
const OVER_UP0: &str = "SSH_CONNECTION='192.0.2.9 50000 192.0.2.1 22'";

const QUESTION: &str = "This is the first build on up0, over which you are connected.\n\
    y: apply; c: apply with --confirm 60; anything else: nothing is changed\n>";

/// A cell with an address on its uplink: the words that apply its policy.
fn apply() -> String {
    let path = host();
    run("ip addr add 192.0.2.1/24 dev up0");
    format!("{} apply {path}", binary().display())
}

/// A shell that says how these words ended, and stays.
fn ended(words: &str) -> String {
    format!("{words}; echo it ended with $?; sleep 60")
}

fn a_first_build_over_ssh_is_asked_about() {
    let apply = apply();
    let before = root();
    let terminal = Terminal::open(80, 24, &ended(&format!("{OVER_UP0} {apply}")));
    let answer = |key: &str, status: u8| {
        terminal.until("the question", |screen| screen.contains(QUESTION));
        assert_eq!(root(), before, "it acted before it asked");
        assert!(!directory("").exists());
        terminal.press(&[key, "Enter"]);
        let ended = format!("it ended with {status}\n");
        terminal.until("an end", |screen| screen.contains(&ended))
    };
    let said = answer("n", 2);
    assert!(said.contains("not applied, as you said; nothing was changed"), "{said}");
    assert!(!said.contains("error"), "{said}");
    assert_eq!(root(), before);
    assert!(!directory("").exists());
    // sudo takes the variables away from what it starts, and not from what started it.
    let below = format!("sh -c 'env -u SSH_CONNECTION {apply}; echo it ended with $?'");
    tmux(&["respawn-pane", "-k", &format!("{OVER_UP0} {below}; sleep 60")]);
    let said = answer("c", 0);
    assert!(said.contains("This is taken back in 60 s unless you say: shaper confirm"), "{said}");
    shaper("confirm").assert().code(0);
    assert!(root().contains("htb 1: root"));
    shaper("clear").assert().code(0);
    tmux(&["respawn-pane", "-k", &ended(&format!("{OVER_UP0} {apply}"))]);
    let said = answer("y", 0);
    assert!(!said.contains("taken back") && !said.contains("hint"), "{said}");
    assert!(root().contains("htb 1: root"));
}

fn who_answers_or_hears_nothing_is_not_asked() {
    let apply = apply();
    let mut terminal: Option<Terminal> = None;
    for option in ["--yes", "-q", "--json", "--confirm 60"] {
        let words = ended(&format!("{OVER_UP0} {apply} {option}"));
        match &terminal {
            None => terminal = Some(Terminal::open(80, 24, &words)),
            Some(_) => drop(tmux(&["respawn-pane", "-k", &words])),
        }
        let terminal = terminal.as_ref().expect("a terminal");
        let said = terminal.until("an end", |screen| screen.contains("it ended with 0\n"));
        assert!(!said.contains("first build"), "{option}: {said}");
        assert_eq!(said.contains("hint: over ssh"), option == "--yes", "{option}: {said}");
        assert!(root().contains("htb 1: root"), "{option}");
        if option.starts_with("--confirm") {
            shaper("confirm").assert().code(0);
        }
        shaper("clear").assert().code(0);
    }
    // No terminal: a script's.
    let path = apply.split_once(" apply ").expect("its policy").1;
    let value = OVER_UP0.split('\'').nth(1).expect("a value");
    shaper(&format!("apply {path}")).env("SSH_CONNECTION", value).assert().code(0).stderr("");
}

fn where_it_is_no_first_build_nothing_is_asked() {
    let apply = apply();
    shaper(apply.split_once(' ').expect("its words").1).assert().code(0);
    let terminal = Terminal::open(80, 24, &ended(&format!("{OVER_UP0} {apply}")));
    let said = terminal.until("an end", |screen| screen.contains("it ended with 0\n"));
    assert!(said.contains("in sync") && !said.contains("first build"), "{said}");
    // A policy that is refused is refused before anybody is asked.
    shaper("clear").assert().code(0);
    let bad = apply.replace("policies.yaml", "missing.yaml");
    tmux(&["respawn-pane", "-k", &ended(&format!("{OVER_UP0} {bad}"))]);
    let said = terminal.until("an end", |screen| screen.contains("it ended with 2\n"));
    assert!(!said.contains("first build"), "{said}");
}

fn nothing_is_asked_of_links_that_do_not_carry_the_session() {
    let apply = apply();
    // The session's own namespace, by a name, and another with a link and an address of the same.
    run("ip netns attach here 1");
    run("ip netns add there");
    run("ip -n there link add up0 type veth peer name far0");
    run("ip -n there addr add 192.0.2.1/24 dev up0");
    run("ip -n there link set up0 up");
    let mut terminal: Option<Terminal> = None;
    let mut over = |words: &str| match &terminal {
        None => terminal.insert(Terminal::open(80, 24, words)).screen(),
        Some(_) => tmux(&["respawn-pane", "-k", words]),
    };
    let ends = |status: u8| {
        let ended = format!("it ended with {status}\n");
        Terminal.until("an end", |screen| screen.contains(&ended))
    };
    for options in ["--netns there", "--netns there --yes"] {
        over(&ended(&format!("{OVER_UP0} {apply} {options}")));
        let said = ends(0);
        assert!(!said.contains("first build") && !said.contains("hint"), "{options}: {said}");
        shaper(&format!("clear {options}").replace("--yes", "")).assert().code(0);
    }
    // Whoever has entered the other namespace is still connected in the first one.
    over(&ended(&format!("{OVER_UP0} sh -c 'ip netns exec there {apply}; exit $?'")));
    assert!(!ends(0).contains("first build"));
    shaper("clear --netns there").assert().code(0);
    let inside = format!("{OVER_UP0} sh -c 'ip netns exec there {apply} --netns here; exit $?'");
    over(&ended(&inside));
    Terminal.until("the question", |screen| screen.contains(QUESTION));
    Terminal.press(&["n", "Enter"]);
    ends(2);
    // A session that has all of its processes there is connected there.
    over(&ended(&format!("{OVER_UP0} ip netns exec there {apply}")));
    Terminal.until("the question", |screen| screen.contains(QUESTION));
    Terminal.press(&["n", "Enter"]);
    ends(2);
    // Packets to the client leave by another link.
    run("ip link add up1 type veth peer name far1");
    run("ip addr add 192.0.2.1/24 dev up1");
    run("ip link set far1 up");
    run("ip link set up1 up");
    run("ip route replace 192.0.2.9/32 dev up1");
    over(&ended(&format!("{OVER_UP0} {apply} --yes")));
    let said = ends(0);
    assert!(!said.contains("first build") && !said.contains("hint"), "{said}");
    // A link-local address says by which link; each link has some of them.
    shaper("clear").assert().code(0);
    let via = |link: &str| format!("SSH_CONNECTION='fe80::9%{link} 50000 fe80::1%{link} 22'");
    over(&ended(&format!("{} {apply} --yes", via("up1"))));
    let said = ends(0);
    assert!(!said.contains("first build") && !said.contains("hint"), "{said}");
    shaper("clear").assert().code(0);
    over(&ended(&format!("{} {apply}", via("up0"))));
    Terminal.until("the question", |screen| screen.contains(QUESTION));
    Terminal.press(&["n", "Enter"]);
    ends(2);
}

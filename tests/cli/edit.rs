//! `edit`, in a real terminal, with editors that are scripts: what holds is applied and written,
//! and whatever goes wrong, the file stays as it is and what was typed is kept.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::invoke::{exactly, host, root, shaper, text};
use super::terminal::{Terminal, tmux};
use crate::support::cell::SCRATCH;
use crate::support::clock::soon;
use crate::support::command::run;
use crate::support::harness::{On, tests};
use crate::support::program::{binary, directory};

tests!(On::Host =>
    what_holds_is_applied_and_written, what_was_typed_is_kept_until_it_is_saved,
    a_mistake_is_shown_where_the_file_would_have_it, two_edits_do_not_meet,
    whatever_an_editor_does_nothing_is_lost, signals_lose_nothing, somebody_elses_change_stays,
    a_new_file_begins_as_init_has_it, over_ssh_a_change_is_on_trial, without_a_terminal_or_a_place_nothing_begins
);

/// A host with its policy in force: the policy's path.
pub fn shaped() -> String {
    let path = host();
    shaper(&format!("apply {path}")).assert().code(0);
    // The script that is the editor, and what it does: take the text that the test has ready.
    editor(&format!("cp {SCRATCH}/next \"$1\""));
    path
}

/// What the editor does with "$1".
pub fn editor(line: &str) {
    fs::write(format!("{SCRATCH}/editor"), format!("{line}\n")).expect("the editor");
}

/// What the editor will write.
pub fn next(text: &str) {
    fs::write(format!("{SCRATCH}/next"), text).expect("the next text");
}

fn words(before: &str, words: &str) -> String {
    format!(
        "trap : INT; {before} SHAPER_EDITOR='sh {SCRATCH}/editor' {} edit {words}; echo it ended with $?; sleep 600",
        binary().display()
    )
}

/// A terminal with an edit of the file in it.
pub fn edit(file: &str) -> Terminal {
    Terminal::open(160, 50, &words("", file))
}

/// Another edit in its place.
pub fn once_more(_: &Terminal, file: &str) {
    tmux(&["respawn-pane", "-k", &words("", file)]);
}

#[track_caller]
pub fn ends(terminal: &Terminal, status: u8) -> String {
    let ended = format!("it ended with {status}\n");
    terminal.until(&ended, |screen| screen.contains(&ended))
}

/// Waits for a question that has these words, and answers it.
#[track_caller]
pub fn answer(terminal: &Terminal, question: &str, key: &str) -> String {
    let screen = asks(terminal, question);
    terminal.press(&[key, "Enter"]);
    screen
}

#[track_caller]
pub fn asks(terminal: &Terminal, question: &str) -> String {
    let is_asked = |screen: &str| screen.contains(question) && screen.trim_end().ends_with('>');
    terminal.until(question, is_asked)
}

/// Answers that it is to be edited again, to this.
fn again(terminal: &Terminal, text: &str) {
    next(text);
    terminal.press(&["e", "Enter"]);
}

/// Whether the screen has this sentence, which may go on on the next line.
pub fn says(screen: &str, sentence: &str) -> bool {
    let flat = |text: &str| text.split_whitespace().collect::<String>();
    flat(screen).contains(&flat(sentence))
}

pub fn read(path: &str) -> String {
    fs::read_to_string(path).expect(path)
}

pub fn ceil_of_ann() -> String {
    run("tc class show dev up0 classid 1:10")
}

/// The folder of a file's copy.
fn folder(path: &str) -> String {
    let (above, name) = path.rsplit_once('/').expect("a path");
    format!("{above}/.{name}.edit")
}

pub fn copy(path: &str) -> String {
    format!("{}/{}", folder(path), path.rsplit_once('/').expect("a path").1)
}

fn what_holds_is_applied_and_written() {
    let path = shaped();
    fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("chmod");
    run(&format!("chgrp 7 {path}"));
    let link = format!("{SCRATCH}/link.yaml");
    symlink(&path, &link).expect("link");
    next(&text("ann: 30mbit"));
    let terminal = edit(&link);
    let screen = asks(&terminal, &format!("y: apply, and write {link};"));
    assert!(screen.contains("~ ann 20mbit → 30mbit"), "{screen}");
    assert!(ceil_of_ann().contains("ceil 20Mbit"), "it acted before it asked");
    terminal.press(&["y", "Enter"]);
    let screen = ends(&terminal, 0);
    assert!(screen.contains("applied: "), "{screen}");
    assert!(ceil_of_ann().contains("ceil 30Mbit"));
    assert_eq!(read(&path), text("ann: 30mbit"));
    let meta = fs::symlink_metadata(&path).expect("the policy");
    assert_eq!((meta.mode() & 0o7777, meta.gid()), (0o640, 7));
    assert!(fs::symlink_metadata(&link).expect("the link").is_symlink());
    assert!(!Path::new(&folder(&path)).exists());
    // The same text again.
    once_more(&terminal, &path);
    let screen = ends(&terminal, 0);
    assert!(screen.contains(&format!("{path} is unchanged")), "{screen}");
    assert!(!Path::new(&folder(&path)).exists());
}

fn what_was_typed_is_kept_until_it_is_saved() {
    let path = shaped();
    next(&text("ann: 30mbit"));
    let terminal = edit(&path);
    answer(&terminal, "y: apply", "n");
    let screen = ends(&terminal, 2);
    let kept = format!("what you typed is kept in {}", copy(&path));
    assert!(screen.contains("not saved, as you said") && screen.contains(&kept), "{screen}");
    assert!(!screen.contains("error"), "a decision is none: {screen}");
    assert_eq!((read(&path), read(&copy(&path))), (text("ann: 20mbit"), text("ann: 30mbit")));
    let mode = |path: &str| fs::metadata(path).expect(path).mode() & 0o7777;
    assert_eq!((mode(&folder(&path)), mode(&copy(&path))), (0o700, 0o600));
    assert!(ceil_of_ann().contains("ceil 20Mbit"));
    // The next edit goes on with it.
    editor("true");
    once_more(&terminal, &path);
    let screen = answer(&terminal, &format!("An edit of {path} did not end."), "g");
    assert!(!screen.contains("was changed"), "{screen}");
    answer(&terminal, "y: apply", "n");
    ends(&terminal, 2);
    // Or drops it.
    fs::write(&path, text("ann: 25mbit")).expect("another text");
    once_more(&terminal, &path);
    answer(&terminal, &format!("since it began, {path} was changed"), "d");
    let screen = ends(&terminal, 0);
    assert!(screen.contains("is unchanged"), "{screen}");
    assert!(!Path::new(&folder(&path)).exists());
}

fn a_mistake_is_shown_where_the_file_would_have_it() {
    let path = shaped();
    let drop_ins = path.replace(".yaml", ".d");
    fs::create_dir(&drop_ins).expect("the folder");
    let bob = format!("{drop_ins}/bob.yaml");
    fs::write(&bob, "users: {bob: 5mbit}\n").expect("a drop-in");
    next("users:\n  bob: 10M\n");
    let terminal = edit(&bob);
    let screen = asks(&terminal, "e: edit again");
    assert!(screen.contains(&format!("--> {bob}:2:8")) && screen.contains("^^^"), "{screen}");
    // It is checked with the policy that it is a part of.
    again(&terminal, "users: {ann: 5mbit}\n");
    let screen = asks(&terminal, "`ann` stands twice");
    assert!(screen.contains(&format!("{bob}:1:9")), "{screen}");
    again(&terminal, "users: {bob: 6mbit}\n");
    answer(&terminal, "y: apply", "y");
    ends(&terminal, 0);
    assert_eq!(read(&bob), "users: {bob: 6mbit}\n");
    assert!(directory("user/bob").exists());
    // Also where its folder is the working directory.
    for (name, text) in
        [("bob.yaml", "users: {bob: 7mbit}\n"), ("./bob.yaml", "users: {bob: 8mbit}\n")]
    {
        next(text);
        tmux(&["respawn-pane", "-k", &words(&format!("cd {drop_ins};"), name)]);
        answer(&terminal, "y: apply", "y");
        ends(&terminal, 0);
        assert_eq!(read(&bob), text);
    }
    // One that is not there yet belongs to it, too.
    next("users: {carol: 7mbit}\n");
    editor(&format!("cp \"$1\" {SCRATCH}/seen; : >\"$1\"; cat {SCRATCH}/next >\"$1\""));
    once_more(&terminal, &format!("{drop_ins}/carol.yaml"));
    let screen = answer(&terminal, "y: apply", "y");
    assert!(screen.contains("+ carol 7mbit"), "{screen}");
    ends(&terminal, 0);
    assert!(directory("user/carol").exists() && directory("user/bob").exists());
    // It begins as something that holds beside the policy.
    let begins = read(&format!("{SCRATCH}/seen"));
    let schema = "# yaml-language-server: $schema=/usr/share/shaper/drop-in.schema.json\n";
    assert!(begins.starts_with(&format!("{schema}# A part of {path}: ")), "{begins}");
    fs::write(format!("{drop_ins}/dave.yaml"), begins).expect("another drop-in");
    let said = format!("{path}: ok: 1 link, 3 users\n");
    exactly(&mut shaper(&format!("check --offline {path}")), 0, &said, "");
}

fn two_edits_do_not_meet() {
    let path = shaped();
    next(&text("ann: 30mbit"));
    editor(&format!("cp {SCRATCH}/next \"$1\"; touch {SCRATCH}/began; sleep 60"));
    let terminal = edit(&path);
    soon("it edits", super::terminal::PATIENCE, || Path::new(SCRATCH).join("began").exists());
    tmux(&["new-window", "-t", ":7", &words("", &path)]);
    let screen = ends(&terminal, 4);
    let said = format!("error: {path} is being edited by process ");
    assert!(screen.contains(&said) && screen.contains(&copy(&path)), "{screen}");
    assert_eq!(read(&copy(&path)), text("ann: 30mbit"), "the other's text stays");
}

fn whatever_an_editor_does_nothing_is_lost() {
    let path = shaped();
    next(&text("ann: 30mbit"));
    let take = format!("cp {SCRATCH}/next \"$1\"");
    let mut terminal: Option<Terminal> = None;
    for (line, status, said, kept) in [
        ("exit 3".to_string(), 1, "ended with status 3", false),
        (format!("{take}; exit 3"), 1, "ended with status 3", true),
        (format!("{take}; kill -KILL $$"), 1, "was ended by signal 9", true),
        (format!("{take}; kill -INT $$"), 1, "was ended by signal 2", true),
        ("rm \"$1\"".to_string(), 1, "the editor has left no text", false),
        ("rm -r \"${1%/*}\"".to_string(), 1, "the editor has left no text", false),
    ] {
        editor(&line);
        match &terminal {
            None => terminal = Some(edit(&path)),
            Some(terminal) => once_more(terminal, &path),
        }
        let terminal = terminal.as_ref().expect("a terminal");
        let screen = ends(terminal, status);
        assert!(screen.contains(said) && screen.contains("stays as it is"), "{line}: {screen}");
        assert_eq!(screen.contains("is kept in"), kept, "{line}: {screen}");
        assert_eq!(read(&path), text("ann: 20mbit"), "{line}");
        assert_eq!(Path::new(&copy(&path)).exists(), kept, "{line}");
        let _none_is_left = fs::remove_dir_all(folder(&path));
    }
    // No text that a policy could be.
    let terminal = terminal.expect("a terminal");
    for (line, said) in [
        ("printf 'version: 1\\n\\377' >\"$1\"", ":2: this is not UTF-8 text"),
        ("rm \"$1\"; ln -s /etc/passwd \"$1\"", "Too many levels of symbolic links"),
        (": >\"$1\"", "version"),
    ] {
        editor(line);
        once_more(&terminal, &path);
        let screen = answer(&terminal, "e: edit again", "q");
        assert!(screen.contains(said), "{line}: {screen}");
        ends(&terminal, 2);
        assert_eq!(read(&path), text("ann: 20mbit"), "{line}");
        fs::remove_dir_all(folder(&path)).expect("it is kept");
    }
}

fn signals_lose_nothing() {
    let path = shaped();
    next(&text("ann: 30mbit"));
    let lost_nothing = |screen: &str| {
        assert!(screen.contains(&format!("kept in {}", copy(&path))), "{screen}");
        let now = (read(&path), read(&copy(&path)));
        assert_eq!(now, (text("ann: 20mbit"), text("ann: 30mbit")));
        fs::remove_dir_all(folder(&path)).expect("it is kept");
    };
    // Ctrl-C at the question.
    let terminal = edit(&path);
    terminal.until("the question", |screen| screen.contains("y: apply"));
    terminal.press(&["C-c"]);
    lost_nothing(&ends(&terminal, 130));
    // In an editor that means something else by it.
    editor(&format!(
        "trap 'echo it was heard' INT; cp {SCRATCH}/next \"$1\"; echo it edits; sleep 3; true"
    ));
    once_more(&terminal, &path);
    terminal.until("the editor", |screen| screen.contains("it edits"));
    terminal.press(&["C-c"]);
    let screen = answer(&terminal, "y: apply", "n");
    assert!(screen.contains("it was heard"), "{screen}");
    lost_nothing(&ends(&terminal, 2));
    // Told to end, it has the editor end first.
    editor(&format!("cp {SCRATCH}/next \"$1\"; kill -TERM $PPID; exec sleep 60"));
    once_more(&terminal, &path);
    lost_nothing(&ends(&terminal, 143));
    // What an editor that is ended keeps for itself, with nothing in the copy.
    let swap = format!("{}/.{}.swp", folder(&path), path.rsplit_once('/').expect("a path").1);
    editor("printf x >\"${1%/*}/.${1##*/}.swp\"; kill -TERM $PPID; exit 1");
    once_more(&terminal, &path);
    let screen = ends(&terminal, 143);
    let left = format!("what the editor left is in {}", folder(&path));
    assert!(says(&screen, &left), "{screen}");
    assert_eq!(read(&swap), "x");
    assert!(!Path::new(&copy(&path)).exists());
    // The next edit leaves that to whoever knows what it is.
    editor(&format!("cp {SCRATCH}/next \"$1\""));
    once_more(&terminal, &path);
    answer(&terminal, "y: apply", "y");
    let screen = ends(&terminal, 0);
    let left = format!("note: what an editor left is in {}", folder(&path));
    assert!(screen.contains(&left), "{screen}");
    assert_eq!((read(&path), read(&swap)), (text("ann: 30mbit"), "x".to_string()));
}

fn somebody_elses_change_stays() {
    let path = shaped();
    next(&text("ann: 30mbit"));
    let theirs = text("ann: 40mbit");
    fs::write(format!("{SCRATCH}/theirs"), &theirs).expect("another's text");
    editor(&format!("cp {SCRATCH}/next \"$1\"; cp {SCRATCH}/theirs {path}"));
    let terminal = edit(&path);
    answer(&terminal, "y: apply", "y");
    let screen = ends(&terminal, 2);
    assert!(screen.contains("was changed by somebody else meanwhile"), "{screen}");
    assert_eq!((read(&path), read(&copy(&path))), (theirs, text("ann: 30mbit")));
    assert!(ceil_of_ann().contains("ceil 20Mbit"));
}

fn a_new_file_begins_as_init_has_it() {
    shaped();
    let path = format!("{SCRATCH}/etc/new.yaml");
    let starter = shaper("init").output().expect("init").stdout;
    editor(&format!("cp \"$1\" {SCRATCH}/seen; cp {SCRATCH}/next \"$1\""));
    next(&text("ann: 30mbit"));
    let terminal = edit(&path);
    answer(&terminal, "y: apply", "y");
    ends(&terminal, 0);
    assert_eq!(fs::read(format!("{SCRATCH}/seen")).expect("a starter policy"), starter);
    assert_eq!(read(&path), text("ann: 30mbit"));
    assert_eq!(fs::metadata(&path).expect("the policy").mode() & 0o7777, 0o644);
    // One that somebody else makes meanwhile is not written over.
    let other = format!("{SCRATCH}/etc/other.yaml");
    editor(&format!("cp {SCRATCH}/next \"$1\"; echo mine >{other}"));
    once_more(&terminal, &other);
    answer(&terminal, "y: apply", "y");
    let screen = ends(&terminal, 2);
    assert!(screen.contains("was changed by somebody else meanwhile"), "{screen}");
    assert_eq!(read(&other), "mine\n");
}

fn over_ssh_a_change_is_on_trial() {
    let path = shaped();
    run("ip addr add 192.0.2.1/24 dev up0");
    next(&text("ann: 30mbit"));
    let ssh = "SSH_CONNECTION='192.0.2.9 50000 192.0.2.1 22'";
    let terminal = Terminal::open(160, 50, &words(ssh, &path));
    answer(&terminal, "y: apply on trial, for 60 s", "y");
    let on_trial = "It is in force, on trial.";
    terminal.until(on_trial, |screen| screen.contains(on_trial));
    assert!(ceil_of_ann().contains("ceil 30Mbit"));
    assert_eq!(read(&path), text("ann: 20mbit"), "written before it was kept");
    terminal.press(&["y", "Enter"]);
    ends(&terminal, 0);
    assert_eq!(read(&path), text("ann: 30mbit"));
    exactly(&mut shaper("confirm"), 2, "", "error: no change waits to be confirmed\n");
    exactly(&mut shaper(&format!("plan {path} --exit-code")), 0, "in sync\n", "");
    // One that is not kept is not written.
    next(&text("ann: 40mbit"));
    tmux(&["respawn-pane", "-k", &words(ssh, &path)]);
    asks(&terminal, "y: apply on trial, for 60 s");
    // What is typed before it is asked does not keep it.
    terminal.press(&["y", "Enter", "y", "Enter"]);
    answer(&terminal, on_trial, "n");
    let screen = ends(&terminal, 1);
    let comes_back = "what was in force before comes back by itself in less than 60 s";
    assert!(screen.contains("\nnot kept") && says(&screen, comes_back), "{screen}");
    assert_eq!((read(&path), read(&copy(&path))), (text("ann: 30mbit"), text("ann: 40mbit")));
    // Here nobody waits for that.
    shaper("confirm").assert().code(0);
    // Nor one during whose trial somebody else changes the file, or a signal comes.
    let changed = text("ann: 45mbit");
    for (ceil, theirs, keys, status) in
        [("50mbit", Some(&changed), &["y", "Enter"][..], 2), ("60mbit", None, &["C-c"][..], 130)]
    {
        fs::remove_dir_all(folder(&path)).expect("it is kept");
        next(&text(&format!("ann: {ceil}")));
        tmux(&["respawn-pane", "-k", &words(ssh, &path)]);
        answer(&terminal, "y: apply on trial, for 60 s", "y");
        asks(&terminal, on_trial);
        if let Some(theirs) = theirs {
            fs::write(&path, theirs).expect("another's text");
        }
        terminal.press(keys);
        let screen = ends(&terminal, status);
        let is_wrong = says(&screen, "next apply of it");
        assert!(says(&screen, comes_back) && !is_wrong, "{screen}");
        assert_eq!(read(&path), changed);
        shaper("confirm").assert().code(0);
    }
    assert!(root().contains("htb 1:"));
}

fn without_a_terminal_or_a_place_nothing_begins() {
    let path = shaped();
    let error =
        "edit asks before it saves, and there is no terminal; write the file, then: shaper apply";
    exactly(&mut shaper(&format!("edit {path}")), 2, "", &format!("error: {error}\n"));
    let error = "error: standard input cannot be edited; name the policy file\n";
    exactly(&mut shaper("edit -"), 2, "", error);
    assert!(!Path::new(&folder(&path)).exists());
    let place = format!("{SCRATCH}/read-only");
    fs::create_dir(&place).expect("a place");
    run(&format!("mount -t tmpfs tmpfs {place}"));
    let file = format!("{place}/p.yaml");
    fs::copy(&path, &file).expect("a policy there");
    run(&format!("mount -o remount,ro {place}"));
    let terminal = edit(&file);
    let screen = ends(&terminal, 1);
    assert!(screen.contains("cannot make a copy in") && screen.contains("Read-only"), "{screen}");
    // What is there must be ours alone.
    fs::create_dir(folder(&path)).expect("a folder");
    fs::set_permissions(folder(&path), Permissions::from_mode(0o755)).expect("chmod");
    once_more(&terminal, &path);
    let screen = ends(&terminal, 2);
    assert!(screen.contains("is in the way"), "{screen}");
    // Named editors that are not there.
    fs::remove_dir(folder(&path)).expect("remove it");
    let words = words("", &path).replace(&format!("sh {SCRATCH}/editor"), "/no/such/editor");
    tmux(&["respawn-pane", "-k", &words]);
    let screen = ends(&terminal, 1);
    assert!(screen.contains("cannot run the editor /no/such/editor"), "{screen}");
    assert!(!Path::new(&folder(&path)).exists());
}

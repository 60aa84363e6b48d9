//! Output that cannot be written is an error; a reader that has read enough is none.

use std::fs::OpenOptions;
use std::process::{Command, Stdio};

use super::invoke::{HEAD, host, shaper};
use crate::support::harness::{On, tests};
use crate::support::program::{binary, policy};

tests!(On::Host => a_full_disk_is_an_error, a_reader_that_has_read_enough_is_none,
    a_command_keeps_its_own_error);

fn full() -> Stdio {
    OpenOptions::new().write(true).open("/dev/full").expect("/dev/full").into()
}

fn ends(words: &str, stdout: Stdio) -> (Option<i32>, String) {
    let mut command = Command::new(binary());
    command.args(words.split(' ')).stdin(Stdio::null()).stdout(stdout).env_remove("RUST_LOG");
    let output = command.stderr(Stdio::piped()).output().expect("run shaper");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

const UNWRITTEN: &str = "error: cannot write the output: No space left on device (os error 28); \
                         what was done is done\n";

fn a_full_disk_is_an_error() {
    let path = host();
    for words in ["init", "--help", "--version"] {
        assert_eq!(ends(words, full()), (Some(1), UNWRITTEN.to_string()), "{words}");
    }
    for words in ["status", "status --json"] {
        assert_eq!(ends(words, full()), (Some(3), UNWRITTEN.to_string()), "{words}");
    }
    for words in [format!("check {path}"), format!("plan {path}"), format!("apply {path}")] {
        assert_eq!(ends(&words, full()), (Some(1), UNWRITTEN.to_string()), "{words}");
    }
    // It was done all the same, and nothing to print is nothing that fails.
    assert_eq!(ends(&format!("apply -q {path}"), full()), (Some(0), String::new()));
    shaper(&format!("apply {path}")).assert().code(0).stdout("in sync\n");
}

fn a_reader_that_has_read_enough_is_none() {
    let path = policy(HEAD);
    let (reader, writer) = nix::unistd::pipe().expect("a pipe");
    drop(reader);
    let ended = ends(&format!("check --offline {path}"), writer.into());
    assert_eq!(ended, (Some(0), String::new()));
}

fn a_command_keeps_its_own_error() {
    let path = host();
    assert_eq!(ends(&format!("plan --exit-code {path}"), full()).0, Some(3));
    assert_eq!(ends("--json status zorro", full()).0, Some(2));
}

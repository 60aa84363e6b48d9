//! What is printed before anything is done: help, versions, words that are no command.

use crate::shaper;
use crate::words::exactly;

fn output(words: &str) -> String {
    let output = shaper(words).assert().code(0).stderr("").get_output().stdout.clone();
    String::from_utf8(output).expect("help is text")
}

#[test]
fn every_command_teaches_by_example() {
    for command in ["check", "plan", "apply", "status", "top", "why", "run", "attach", "init"] {
        let help = output(&format!("{command} --help"));
        let example = format!("  shaper {command} ");
        assert!(help.contains("Example"), "{help}");
        assert!(help.contains(&example), "{help}");
        assert_eq!(help.lines().find(|line| line.chars().count() > 100), None, "{help}");
    }
    // `clear` has one thing to do: its own line says it.
    assert!(output("clear --help").starts_with("Remove everything that shaper made\n"));
}

#[test]
fn the_whole_is_on_one_screen() {
    let help = output("-h");
    for command in
        ["check", "plan", "apply", "status", "top", "why", "run", "attach", "clear", "init"]
    {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is missing:\n{help}");
    }
    assert!(help.contains("  shaper apply                              make it so"), "{help}");
    assert!(help.contains("Exit status:\n  0  done, or already in sync"), "{help}");
    assert!(help.lines().count() <= 60, "{help}");
}

#[test]
fn an_unknown_command_exits_with_2() {
    let error = "error: unrecognized subcommand 'frobnicate'\n\n\
                 Usage: shaper [OPTIONS] <COMMAND>\n\n\
                 For more information, try '--help'.\n";
    exactly(&mut shaper("frobnicate"), 2, "", error);
}

#[test]
fn a_wrong_command_line_is_a_document_too() {
    for (words, begins) in [
        ("frobnicate --json", "unrecognized subcommand 'frobnicate'"),
        ("status --json --wait soon", "invalid value 'soon' for '--wait <SECONDS>'"),
    ] {
        let output = shaper(words).assert().code(2).stderr("").get_output().stdout.clone();
        let document: serde_json::Value = serde_json::from_slice(&output).expect("a document");
        assert_eq!(document["error"]["kind"], "usage");
        let message = document["error"]["message"].as_str().expect("a message");
        assert!(message.starts_with(begins), "{message}");
    }
}

#[test]
fn help_and_versions_are_documents_too() {
    let document = |words: &str| -> serde_json::Value {
        serde_json::from_str(&output(words)).expect("a document")
    };
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(document("--json --version"), serde_json::json!({"version": 1, "shaper": version}));
    for words in ["--json --help", "--json help", "plan --json --help"] {
        let help = document(words)["help"].as_str().expect("text").to_string();
        assert!(help.contains("Usage: shaper"), "{help}");
    }
}

#[test]
fn missing_words_exit_with_2() {
    for words in ["", "run", "run ann", "attach", "attach ann"] {
        shaper(words).assert().code(2).stdout("");
    }
}

#[test]
fn bad_options_say_what_is_needed() {
    let error = "error: invalid value 'soon' for '--wait <SECONDS>': a number of seconds is needed\n\n\
                 For more information, try '--help'.\n";
    exactly(&mut shaper("status --wait soon"), 2, "", error);
    // Seconds that no clock can reach, and none at all.
    for (words, needed) in [
        ("apply --confirm 18446744073709551615", "a number of seconds is needed"),
        ("apply --confirm 4000000000", "1 second to 604800 (a week)"),
        ("apply --confirm 0", "1 second to 604800 (a week)"),
    ] {
        let output = shaper(words).assert().code(2).get_output().stderr.clone();
        let said = String::from_utf8_lossy(&output).into_owned();
        assert!(said.contains(needed), "{said}");
    }
    shaper("--wait 9223372036854775807 status").assert().code(2);
    let error = "error: invalid value '../x' for '--cgroup <NAME>': a plain directory name is needed\n\n\
                 For more information, try '--help'.\n";
    exactly(&mut shaper("--cgroup ../x status"), 2, "", error);
    let error = "error: no network namespace `nowhere`: /run/netns/nowhere: No such file or directory (os error 2)\n";
    exactly(&mut shaper("status --netns nowhere"), 2, "", error);
}

#[test]
fn a_reader_that_went_away_is_no_panic() {
    let script = format!(
        "trap '' PIPE; {} check --offline {}/policies/textbook.yaml | true; echo ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_shaper"),
        env!("CARGO_MANIFEST_DIR"),
    );
    for prefix in ["", "exec 2>&1; "] {
        let mut command = assert_cmd::Command::new("bash");
        command.args(["-c", &format!("{prefix}{script}")]);
        command.assert().code(0).stdout("0\n").stderr("");
    }
}

#[test]
fn the_version_is_the_crates() {
    exactly(&mut shaper("--version"), 0, concat!("shaper ", env!("CARGO_PKG_VERSION"), "\n"), "");
}

//! How the program is called in tests: words as one typed them; and what exactly comes of it.

use std::time::Duration;

use assert_cmd::Command;

/// What begins every policy that is checked `--offline`; the next line is the fifth.
pub const HEAD: &str = "version: 1\nlinks:\n  eth0: 100mbit\n";

const LIMIT: Duration = Duration::from_secs(30);

/// A command with these words, whatever this test's own environment says.
pub fn prepared<'w>(mut command: Command, words: impl Iterator<Item = &'w str>) -> Command {
    command.args(words).env_remove("RUST_LOG").env_remove("NO_COLOR").timeout(LIMIT);
    command
}

/// Ends with this status and prints exactly this.
#[track_caller]
pub fn exactly(command: &mut Command, status: i32, stdout: &str, stderr: &str) {
    command.assert().code(status).stdout(stdout.to_string()).stderr(stderr.to_string());
}

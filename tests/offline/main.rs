//! The command line as far as it asks nothing of the host: help, and `check --offline`. As anybody,
//! without a kernel of its own.

mod bad_policy;
mod check;
mod help;
mod words;

use assert_cmd::Command;

/// `shaper` with these words, as whoever runs the test.
fn shaper(words: &str) -> Command {
    words::prepared(Command::new(env!("CARGO_BIN_EXE_shaper")), words.split_whitespace())
}

//! The `shaper` binary: command line in, text and exit status out.
#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use shaper::cli::{Cli, Command};
use shaper::commands::{self, Output, color};
use shaper::failure::Failure;
use shaper::text;

fn main() -> ExitCode {
    let output = match Cli::try_parse() {
        Ok(cli) => {
            log_to_stderr(&cli);
            commands::dispatch(&cli).unwrap_or_else(|failure| {
                let status = failure.exit_status();
                match cli.global.json {
                    true => Output { status, ..Output::json(&failure.json()) },
                    false => {
                        let text = failure.text(color(&io::stderr()));
                        let stderr = format!("{}\n", text.trim_end());
                        Output { stderr, status, ..Output::default() }
                    }
                }
            })
        }
        Err(said) => said_by_clap(&said, asks_for_json(std::env::args_os())),
    };
    ExitCode::from(output.deliver())
}

fn log_to_stderr(cli: &Cli) {
    // What a daemon does is told by its log alone.
    let daemon = matches!(cli.command, Command::Watch { .. });
    let level = match cli.global.verbose + u8::from(daemon && !cli.global.quiet) {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    let mut logger =
        env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level));
    // The journal has the time already.
    let timed = std::env::var_os("JOURNAL_STREAM").is_none();
    logger.format(move |to, record| {
        let level = record.level();
        let style = to.default_level_style(level);
        let message = text::record(&record.args().to_string());
        match timed {
            true => {
                let time = to.timestamp_seconds();
                writeln!(to, "[{time} {style}{level:<5}{style:#}] {message}")
            }
            false => writeln!(to, "[{style}{level:<5}{style:#}] {message}"),
        }
    });
    logger.init();
}

/// Whether a command line that cannot be read asks for `json`; what comes after `--` is a command's
/// of its own.
fn asks_for_json(words: impl Iterator<Item = OsString>) -> bool {
    let mut own = words.take_while(|word| word != "--");
    own.any(|word| word == "--json")
}

/// Help, the version, or what is wrong with the command line; a document for whoever asked for
/// `json`.
fn said_by_clap(said: &clap::Error, json: bool) -> Output {
    let draw = |color| match color {
        true => said.render().ansi().to_string(),
        false => said.render().to_string(),
    };
    let status = u8::try_from(said.exit_code()).unwrap_or(u8::MAX);
    match said.use_stderr() {
        true if json => {
            let text = draw(false);
            let message = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
            let failure = Failure::Usage(message.to_string());
            Output { status, ..Output::json(&failure.json()) }
        }
        true => Output { stderr: draw(color(&io::stderr())), status, ..Output::default() },
        false if json => {
            let key = match said.kind() {
                ErrorKind::DisplayVersion => "shaper",
                _ => "help",
            };
            let text = draw(false);
            let text = text.strip_prefix("shaper ").unwrap_or(&text).trim_end();
            Output::json(&serde_json::json!({"version": 1, key: text}).to_string())
        }
        false => Output { stdout: draw(color(&io::stdout())), status, ..Output::default() },
    }
}

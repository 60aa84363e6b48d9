//! The `shaper` binary: command line in, text and exit status out.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use shaper::cli::{Cli, Command};
use shaper::commands::{self, Output};
use shaper::failure::Failure;

fn main() -> ExitCode {
    let cli = Cli::parse();
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
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        logger.format_timestamp(None);
    }
    logger.format_target(false).init();
    match commands::dispatch(&cli) {
        Ok(Output { stdout, stderr, status }) => {
            say(std::io::stderr(), &stderr);
            say(std::io::stdout(), &stdout);
            ExitCode::from(status)
        }
        Err(failure) => {
            if cli.global.json {
                say(std::io::stdout(), &format!("{}\n", failure.json()));
            } else {
                say(
                    std::io::stderr(),
                    &format!("{}\n", failure.text(commands::color()).trim_end()),
                );
            }
            ExitCode::from(Failure::exit_status(&failure))
        }
    }
}

/// A reader that went away (`shaper status | head`) is no reason to panic.
fn say(mut to: impl Write, text: &str) {
    if let Err(error) = to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        log::debug!("cannot print: {error}");
    }
}

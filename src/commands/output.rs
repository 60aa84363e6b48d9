//! What a command prints and how it ends: the one way to standard output and standard error.
//! Whatever is printed passes `text` here, so no process name reaches a terminal as a command.

use std::io::{self, IsTerminal, Write};

use crate::text;

/// What a command prints, and its exit status.
#[derive(Debug, Default)]
pub struct Output {
    /// What standard output gets.
    pub stdout: String,
    /// What standard error gets, such as warnings.
    pub stderr: String,
    /// The exit status.
    pub status: u8,
}

/// Output that could not be written, of a command that was done otherwise.
const UNWRITTEN: u8 = 1;

impl Output {
    /// A text for standard output, and success.
    pub fn text(stdout: String) -> Output {
        Output { stdout, ..Output::default() }
    }

    /// A document for standard output, and success.
    pub fn json(document: &str) -> Output {
        Output::text(format!("{}\n", text::json(document)))
    }

    /// Prints both texts. The exit status: the command's own, and 1 instead of 0 where they could
    /// not be written. A reader that went away (`| head`) has read what it wanted: no failure.
    pub fn deliver(&self) -> u8 {
        let written = stderr(&self.stderr).and_then(|()| stdout(&self.stdout));
        let Err(error) = written else { return self.status };
        if error.kind() == io::ErrorKind::BrokenPipe {
            return self.status;
        }
        let _nowhere_left =
            stderr(&format!("error: cannot write the output: {error}; what was done is done\n"));
        self.status.max(UNWRITTEN)
    }
}

/// Writes to standard output, at once.
pub(super) fn stdout(text: &str) -> io::Result<()> {
    write(io::stdout().lock(), &text::page(text, color(&io::stdout())))
}

/// Writes to standard error.
pub(super) fn stderr(text: &str) -> io::Result<()> {
    write(io::stderr().lock(), &text::page(text, color(&io::stderr())))
}

fn write(mut to: impl Write, text: &str) -> io::Result<()> {
    match text.is_empty() {
        true => Ok(()),
        false => to.write_all(text.as_bytes()).and_then(|()| to.flush()),
    }
}

/// Whether what is written there may be in colour.
pub fn color(to: &impl IsTerminal) -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && to.is_terminal()
}

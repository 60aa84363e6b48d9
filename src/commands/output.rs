//! What a command prints and how it ends: the one way to standard output and standard error.
//! Whatever is printed passes `text` here, so no process name reaches a terminal as a command.

use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};

use serde::Serialize;

use crate::cli::Global;
use crate::failure::Failure;
use crate::policy::{Diagnostic, Policy, Report, Severity};
use crate::sys::terminal;
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

    /// Success without words, which is a document too where one is asked for.
    pub(super) fn silent(global: &Global) -> Output {
        match global.json {
            true => Output::json("{\"version\":1}"),
            false => Output::default(),
        }
    }

    /// Adds the policy's warnings, drawn for people, to standard error; with --json they are in the
    /// document. With --quiet they come only beside other output, and notes ([`Severity::Info`])
    /// not at all.
    pub(super) fn warn(&mut self, policy: &Policy, warnings: &[Diagnostic], global: &Global) {
        if global.json || (global.quiet && self.stdout.is_empty()) {
            return;
        }
        let said = |warning: &&Diagnostic| !global.quiet || warning.severity == Severity::Warning;
        let warnings: Vec<Diagnostic> = warnings.iter().filter(said).cloned().collect();
        self.stderr.push_str(&draw(policy, &warnings, color(&io::stderr())));
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

/// An answer for whoever asked, and then the failure for which it has no more.
pub(super) fn answered(
    global: &Global,
    document: &impl Serialize,
    text: String,
    failure: Option<Failure>,
) -> Result<Output, Failure> {
    if global.json {
        let status = failure.as_ref().map_or(0, Failure::exit_status);
        let document = serde_json::to_string(document).map_err(Failure::refused)?;
        return Ok(Output { status, ..Output::json(&document) });
    }
    let Some(failure) = failure else { return Ok(Output::text(text)) };
    // A reader that went away is told no error either.
    let _may_be_gone = stdout(&text);
    Err(failure)
}

/// Warnings as they are drawn, with their places.
pub(super) fn draw(policy: &Policy, warnings: &[Diagnostic], color: bool) -> String {
    match warnings.is_empty() {
        true => String::new(),
        false => Report::new(&policy.source, warnings.to_vec()).render(color),
    }
}

/// How many columns the terminal has that standard output is; `None`: it is none.
pub(super) fn columns() -> Option<usize> {
    io::stdout().is_terminal().then(terminal::size)?.map(|(_, columns)| columns)
}

/// Writes to standard output, at once.
pub(super) fn stdout(text: &str) -> io::Result<()> {
    write(io::stdout().lock(), &text::page(text, color(&io::stdout())))
}

/// Answers an HTTP request on standard output.
pub(super) fn http(status: &str, kind: &str, body: &str) -> io::Result<()> {
    let body = text::page(body, false);
    let length = body.len();
    let head = format!(
        "HTTP/1.0 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    write(io::stdout().lock(), &(head + &body))
}

/// The terminal that standard error is, for a program that has it for itself meanwhile: an editor.
pub(super) fn terminal() -> io::Result<OwnedFd> {
    io::stderr().as_fd().try_clone_to_owned()
}

/// Writes to standard error.
pub(super) fn stderr(text: &str) -> io::Result<()> {
    write(io::stderr().lock(), &text::page(text, color(&io::stderr())))
}

/// A screen of the terminal that standard output is, over what it showed before; nothing of that
/// is lost, and all of it is back once this is dropped.
pub(super) struct Screen(());

impl Screen {
    pub(super) fn open() -> io::Result<Screen> {
        let screen = Screen(());
        screen.enter()?;
        Ok(screen)
    }

    /// Changes to an empty screen, without a cursor.
    pub(super) fn enter(&self) -> io::Result<()> {
        write(io::stdout().lock(), "\x1b[?1049h\x1b[?25l")
    }

    /// Changes back to what was there before.
    pub(super) fn leave(&self) -> io::Result<()> {
        write(io::stdout().lock(), "\x1b[?25h\x1b[?1049l")
    }

    /// Shows these lines from the top, each cut where the terminal ends.
    pub(super) fn show(&self, lines: &[String]) -> io::Result<()> {
        let color = color(&io::stdout());
        let mut text = "\x1b[?7l\x1b[H".to_string();
        for (index, line) in lines.iter().enumerate() {
            // A newline after the last line would scroll. What was on a line goes first: after it,
            // the cursor is on the last column of a full line, and would take that along.
            let end = if index == 0 { "" } else { "\r\n" };
            text.push_str(&format!("{end}\x1b[2K{}", text::page(line, color)));
        }
        text.push_str("\x1b[?7h");
        write(io::stdout().lock(), &text)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _ = self.leave();
    }
}

fn write(mut to: impl Write, text: &str) -> io::Result<()> {
    match text.is_empty() {
        true => Ok(()),
        false => to.write_all(text.as_bytes()).and_then(|()| to.flush()),
    }
}

/// Whether what is written there may be in colour.
pub fn color(to: &impl IsTerminal) -> bool {
    let is_wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    is_wanted && to.is_terminal() && !terminal::is_dumb()
}

//! The editor: which one, and how it ends.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{SetArg, tcgetattr, tcsetattr};
use nix::unistd::Pid;

use crate::commands::output;
use crate::sys::signal;
use crate::text::Foreign;

/// The variables that name an editor, in their order, and the programs that are tried otherwise.
const VARIABLES: [&str; 3] = ["SHAPER_EDITOR", "VISUAL", "EDITOR"];
const USUAL: [&str; 2] = ["sensible-editor", "vi"];

/// Between two looks whether the editor has ended.
const TURN: Duration = Duration::from_millis(20);
/// How long an editor may take to end that was told to.
const PATIENCE: Duration = Duration::from_secs(5);

/// The editor left no text to be taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum EditorError {
    /// None is named, and none is installed.
    #[error("there is no editor here: say which one, as SHAPER_EDITOR=nano shaper edit")]
    None,
    /// It cannot be started.
    #[error("cannot run the editor {program}: {source}; SHAPER_EDITOR says another one")]
    NotRun { program: Foreign, source: io::Error },
    /// It says itself that something went wrong.
    #[error("the editor {program} ended with status {status}")]
    Status { program: Foreign, status: i32 },
    /// A signal ended it.
    #[error("the editor {program} was ended by signal {signal}")]
    Killed { program: Foreign, signal: i32 },
    /// This process was told to end while it ran.
    #[error("interrupted by signal {0}")]
    Interrupted(i32),
}

/// A program, and the words before the file's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Editor {
    words: Vec<String>,
}

impl Editor {
    /// The one that the environment names, or the first usual one in `PATH`.
    pub(super) fn of_the_caller() -> Result<Editor, EditorError> {
        Editor::of(
            |name| std::env::var_os(name),
            |program| {
                let path = std::env::var_os("PATH").unwrap_or_default();
                std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
            },
        )
    }

    fn of(
        variable: impl Fn(&str) -> Option<OsString>,
        is_here: impl Fn(&str) -> bool,
    ) -> Result<Editor, EditorError> {
        let words = |text: OsString| -> Vec<String> {
            text.to_string_lossy().split_whitespace().map(str::to_string).collect()
        };
        let named = VARIABLES.into_iter().filter_map(variable).map(words);
        let usual = USUAL.into_iter().filter(|program| is_here(program));
        let mut all = named.chain(usual.map(|program| vec![program.to_string()]));
        let words = all.find(|words| !words.is_empty()).ok_or(EditorError::None)?;
        Ok(Editor { words })
    }

    /// Edits a file, and waits for the editor's end. Signals are caught ([`signal::catch`]): one
    /// that the terminal sends is for the editor, and one that tells this process to end is passed
    /// on.
    pub(super) fn edit(&self, file: &Path) -> Result<(), EditorError> {
        let program = || Foreign::from(self.words[0].as_str());
        let not_run = |source| EditorError::NotRun { program: program(), source };
        // An editor writes to the terminal, wherever standard output leads.
        let terminal = output::terminal().map_err(not_run)?;
        let before = tcgetattr(io::stdin()).ok();
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]).arg(file).stdout(Stdio::from(terminal));
        let mut child = command.spawn().map_err(not_run)?;
        let status = match wait(&mut child).map_err(not_run)? {
            Ok(status) => status,
            Err(signal) => {
                restore(before.as_ref());
                return Err(EditorError::Interrupted(signal));
            }
        };
        if status.success() {
            return Ok(());
        }
        restore(before.as_ref());
        Err(match status.signal() {
            Some(signal) => EditorError::Killed { program: program(), signal },
            None => EditorError::Status {
                program: program(),
                status: status.code().unwrap_or_default(),
            },
        })
    }
}

/// The terminal as it was before an editor that could not put it back.
fn restore(before: Option<&nix::sys::termios::Termios>) {
    if let Some(before) = before {
        let _it_may_be_gone = tcsetattr(io::stdin(), SetArg::TCSADRAIN, before);
    }
}

/// How the child ended, or which signal told this process to end.
fn wait(child: &mut Child) -> io::Result<Result<ExitStatus, i32>> {
    let mut until: Option<Instant> = None;
    loop {
        let ended = child.try_wait()?;
        match signal::caught() {
            // Ctrl-C: the editor has it too, and may mean something else by it.
            Some(signal) if signal == Signal::SIGINT as i32 => signal::forget(),
            Some(signal) if ended.is_some() || until.is_some_and(|it| it <= Instant::now()) => {
                return Ok(Err(signal));
            }
            Some(signal) if until.is_none() => {
                let pid = Pid::from_raw(child.id().cast_signed());
                let _ended_just_now = Signal::try_from(signal).map(|signal| kill(pid, signal));
                until = Some(Instant::now() + PATIENCE);
            }
            _ => {}
        }
        if let Some(status) = ended {
            return Ok(Ok(status));
        }
        std::thread::sleep(TURN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_is_named_is_taken_and_then_what_is_usual() {
        let editor = |named: &[(&str, &str)], here: &[&str]| {
            let value = |name: &str| named.iter().find(|it| it.0 == name).map(|it| it.1.into());
            Editor::of(value, |program| here.contains(&program)).ok().map(|it| it.words.join("|"))
        };
        let is = |words: &str| Some(words.to_string());
        let all = [("EDITOR", "ed"), ("VISUAL", "code --wait"), ("SHAPER_EDITOR", "nano")];
        assert_eq!(editor(&all, &["vi"]), is("nano"));
        assert_eq!(editor(&all[..2], &["vi"]), is("code|--wait"));
        assert_eq!(editor(&[("VISUAL", " "), ("EDITOR", "ed")], &["vi"]), is("ed"));
        assert_eq!(editor(&[], &["vi", "sensible-editor"]), is("sensible-editor"));
        assert_eq!(editor(&[], &["vi"]), is("vi"));
        assert_eq!(editor(&[], &["emacs"]), None);
    }
}

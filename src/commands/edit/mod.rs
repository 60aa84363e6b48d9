//! `shaper edit`: a copy of the policy, the editor, what would change, and then the file and the
//! kernel together. Until a text holds, is wanted and is in force, the file stays as it is, and
//! what was typed stays in the copy.

mod editor;
mod follower;

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::apply::report_of;
use super::daemon::{self, Beside, Daemon};
use super::output::{Output, color, stderr};
use super::question::{Answer, ask};
use super::report::Look;
use super::ssh::Ssh;
use super::{init, plan, scope};
use crate::apply::{self, ApplyOptions, Draft, Options, Remains, Request, Session};
use crate::cli::{DEFAULT_FILE, Edit as Words, Global};
use crate::failure::Failure;
use crate::sys::signal;
use crate::text::{Foreign, shown};
use editor::{Editor, EditorError};
use follower::Taken;

/// In which time a change that is made over ssh is to be kept.
const ON_TRIAL: Duration = Duration::from_secs(60);

/// Why nothing is edited, or the file stays as it is.
#[derive(Debug, thiserror::Error)]
enum EditError {
    #[error(
        "edit asks before it saves, and there is no terminal; write the file, then: shaper apply"
    )]
    NoTerminal,
    #[error("standard input cannot be edited; name the policy file")]
    StandardInput,
    #[error(transparent)]
    Editor(#[from] EditorError),
    #[error("the editor has left no text")]
    NoText,
    #[error("not saved, as you said")]
    NotSaved,
    #[error("not kept")]
    NotKept,
    #[error("interrupted by signal {0}")]
    Interrupted(i32),
}

impl From<EditError> for Failure {
    fn from(error: EditError) -> Failure {
        let message = error.to_string();
        match error {
            EditError::Interrupted(signal)
            | EditError::Editor(EditorError::Interrupted(signal)) => {
                Failure::Interrupted { signal, message }
            }
            EditError::Editor(EditorError::None)
            | EditError::NoTerminal
            | EditError::StandardInput => Failure::Usage(message),
            EditError::NotSaved => Failure::Declined { status: 2, message },
            EditError::NotKept => Failure::Declined { status: 1, message },
            _ => Failure::refused(message),
        }
    }
}

pub(super) fn edit(global: &Global, words: &Words) -> Result<Output, Failure> {
    if words.file.as_deref() == Some(Path::new("-")) {
        return Err(EditError::StandardInput.into());
    }
    let mut kernel = scope::open(global)?;
    apply::may_change(&kernel)?;
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(EditError::NoTerminal.into());
    }
    let editor = Editor::of_the_caller().map_err(EditError::from)?;
    let daemon = Daemon::of(&kernel)?;
    let of_daemon = || daemon.as_ref().and_then(Daemon::path).map(Path::to_path_buf);
    let file = words.file.clone().or_else(of_daemon).unwrap_or_else(|| DEFAULT_FILE.into());
    let whole = apply::whole(&file);
    let daemon = daemon::follows(&kernel, &whole, Beside::Edit)?;
    let draft = Draft::begin(&file, || match whole == file {
        true => init::text(&mut kernel),
        false => Ok(drop_in_of(&whole)),
    })?;
    signal::catch();
    let ssh = Ssh::of_caller(&kernel.proc_root, global.netns.is_some());
    let ssh = ssh.filter(|ssh| !ssh.is_elsewhere(&kernel));
    let may = ApplyOptions {
        confirm: ssh.is_some().then_some(ON_TRIAL),
        // Whoever is asked here has the policy before his eyes.
        force: true,
        ..scope::may(global, words.allow_disruption)
    };
    let session = Session::new(kernel);
    let mut edit = Edit { global, words, editor, daemon, whole, may, session, draft };
    let outcome = edit.run();
    let name = edit.draft.name();
    let keeps = |end: &End| end.file != FileNow::Written;
    let remains = edit.draft.end(outcome.as_ref().is_err_and(keeps));
    let mut output = outcome.map_err(|end| end.with(&name, remains.as_ref()))?;
    if let Some(Remains::Folder(folder)) = remains.filter(|_| !global.json && !global.quiet) {
        let folder = folder.to_string_lossy();
        output.stderr.push_str(&format!("note: what an editor left is in {}\n", shown(&folder)));
    }
    Ok(output)
}

/// How a new drop-in begins: it holds beside its policy as it is.
fn drop_in_of(policy: &Path) -> String {
    format!(
        "{}# A part of {}: what stands here is beside what stands there.\n\
         users:\n\
         #  ann: 20mbit\n",
        init::Schema::DropIn.modeline(),
        shown(&policy.to_string_lossy())
    )
}

/// What became of the file in an edit that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileNow {
    AsItWas,
    /// And a guard takes back what is in force.
    OnTrial,
    /// But what was typed is in force.
    NotWritten,
    /// But what was there before is in force.
    Written,
}

impl FileNow {
    fn words(self) -> String {
        match self {
            FileNow::AsItWas => "stays as it is".to_string(),
            FileNow::OnTrial => format!(
                "stays as it is, and what was in force before comes back by itself in less than {} s",
                ON_TRIAL.as_secs()
            ),
            FileNow::NotWritten => {
                "stays as it is, and the next apply of it takes this back".to_string()
            }
            FileNow::Written => "is written, and what it says is not in force yet".to_string(),
        }
    }
}

/// How an edit ended that failed.
struct End {
    failure: Failure,
    file: FileNow,
}

impl<E: Into<Failure>> From<E> for End {
    fn from(error: E) -> End {
        End { failure: error.into(), file: FileNow::AsItWas }
    }
}

impl End {
    /// With what became of the file, and of what was typed.
    fn with(self, name: &Foreign, remains: Option<&Remains>) -> Failure {
        let file = self.file.words();
        let text = match remains {
            Some(Remains::Copy(copy)) => format!(
                "; what you typed is kept in {}, and the next edit begins with it",
                shown(&copy.to_string_lossy())
            ),
            Some(Remains::Folder(folder)) => {
                format!("; what the editor left is in {}", shown(&folder.to_string_lossy()))
            }
            None => String::new(),
        };
        let aftermath = format!("{name} {file}{text}");
        match self.failure {
            Failure::Usage(message) => Failure::Usage(format!("{message}\n  {aftermath}")),
            Failure::Locked(message) if self.file == FileNow::AsItWas => {
                Failure::Locked(format!("{message}\n  {aftermath}"))
            }
            failure => failure.in_the_middle(&aftermath),
        }
    }
}

/// What is to be done with a text that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Save,
    EditAgain,
    Quit,
}

/// An edit under way.
struct Edit<'a> {
    global: &'a Global,
    words: &'a Words,
    editor: Editor,
    daemon: Option<Daemon>,
    /// The policy to which the file belongs.
    whole: PathBuf,
    may: ApplyOptions,
    session: Session,
    draft: Draft,
}

impl Edit<'_> {
    fn run(&mut self) -> Result<Output, End> {
        self.begin()?;
        loop {
            self.editor.edit(&self.draft.copy()).map_err(EditError::from)?;
            let text = match self.draft.read() {
                Ok(Some(text)) => text,
                Ok(None) => return Err(EditError::NoText.into()),
                Err(error) => {
                    self.again(&error.into())?;
                    continue;
                }
            };
            if self.draft.is_as_before(&text) {
                return Ok(self.say(format!("{} is unchanged\n", self.draft.name())));
            }
            let request = match self.checked(&text) {
                Ok(request) => request,
                Err(failure) => {
                    self.again(&failure)?;
                    continue;
                }
            };
            match self.wish()? {
                Wish::Save => {}
                Wish::EditAgain => continue,
                Wish::Quit => return Err(EditError::NotSaved.into()),
            }
            self.draft.unchanged()?;
            // The question may have been open for an hour, too.
            let request = self.beside_whom(request)?;
            if self.is_daemons() && self.may.confirm.is_none() {
                self.draft.put(&text)?;
                return self.followed(request);
            }
            match self.applied(request, &text) {
                Err(End { failure, file: FileNow::AsItWas }) if is_correctable(&failure) => {
                    self.again(&failure)?;
                }
                outcome => return outcome,
            }
        }
    }

    /// Makes the copy, of which an earlier edit may have left one.
    fn begin(&self) -> Result<(), End> {
        let name = self.draft.name();
        let goes_on = match self.draft.left() {
            None => false,
            Some(left) => {
                let copy = self.draft.copy();
                let old = match left.is_old {
                    true => format!("; since it began, {name} was changed"),
                    false => String::new(),
                };
                let question = format!(
                    "An edit of {name} did not end{old}. What was typed is in {}.\n\
                     g: go on with it; d: drop it, and begin with {name}; anything else: nothing\n> ",
                    shown(&copy.to_string_lossy())
                );
                match said(&question)?.as_str() {
                    "g" | "G" => true,
                    "d" | "D" => false,
                    _ => return Err(EditError::NotSaved.into()),
                }
            }
        };
        Ok(self.draft.make(goes_on)?)
    }

    /// The request that the text makes, once it was shown what it would change.
    fn checked(&mut self, text: &str) -> Result<Request, Failure> {
        // The editor may have been open for an hour.
        self.look_for_daemon()?;
        let policy = apply::read_as_if(&self.whole, self.draft.real(), text)?;
        let request = Request::new(policy, self.options());
        let look =
            Look { quiet: false, color: color(&io::stderr()), ..Look::on_stdout(self.global) };
        let plan = plan::for_people(&mut self.session, &request, look)?;
        tell(&plan)?;
        Ok(request)
    }

    fn look_for_daemon(&mut self) -> Result<(), Failure> {
        self.daemon = daemon::follows(&self.session.kernel, &self.whole, Beside::Edit)?;
        Ok(())
    }

    /// The request as it is beside the daemon that there is by now, or is not any more.
    fn beside_whom(&mut self, request: Request) -> Result<Request, Failure> {
        let before = self.is_daemons();
        self.look_for_daemon()?;
        Ok(match self.is_daemons() == before {
            true => request,
            false => Request::new(request.intent.policy, self.options()),
        })
    }

    /// How the policy is read: as the daemon reads it that follows it.
    fn options(&self) -> Options {
        let Words { skip_unknown, takeover, .. } = *self.words;
        let daemon = self.daemon.as_ref();
        Options {
            skip_unknown: skip_unknown || daemon.is_some_and(Daemon::skips_unknown),
            takeover: takeover || daemon.is_some_and(Daemon::takes_over),
            absent_links: daemon.is_some(),
            ..Options::default()
        }
    }

    /// Says what is wrong, and asks what now.
    fn again(&self, failure: &Failure) -> Result<(), End> {
        tell(&format!("{}\n", failure.text(color(&io::stderr())).trim_end()))?;
        let name = self.draft.name();
        let question = format!("e: edit again; anything else: {name} stays as it is\n> ");
        match said(&question)?.as_str() {
            "e" | "E" => Ok(()),
            _ => Err(EditError::NotSaved.into()),
        }
    }

    fn is_daemons(&self) -> bool {
        self.daemon.is_some()
    }

    fn wish(&self) -> Result<Wish, End> {
        let name = self.draft.name();
        let save = match (self.may.confirm, &self.daemon) {
            (Some(time), _) => {
                format!(
                    "apply on trial, for {} s, since you are connected over ssh",
                    time.as_secs()
                )
            }
            (None, Some(daemon)) => {
                format!("write {name}, which the daemon (process {}) follows", daemon.pid())
            }
            (None, None) => format!("apply, and write {name}"),
        };
        let question = format!("y: {save}; e: edit again; anything else: nothing is changed\n> ");
        Ok(match said(&question)?.as_str() {
            "y" | "Y" | "yes" => Wish::Save,
            "e" | "E" => Wish::EditAgain,
            _ => Wish::Quit,
        })
    }

    /// Applies, and then writes the file: what cannot be made so is not written. Over ssh the file
    /// is written once the change is kept.
    fn applied(&mut self, request: Request, text: &str) -> Result<Output, End> {
        let policy = std::sync::Arc::clone(&request.intent.policy);
        let gate = &mut apply::unless_interrupted;
        let applied = apply::apply(&mut self.session, request, self.may, gate)?;
        let mut output = report_of(&self.session, &policy, &applied, self.global);
        let on_trial = self.may.confirm.is_some() && applied.changed();
        if on_trial {
            tell(&std::mem::take(&mut output.stderr))?;
            self.kept().map_err(|end| End { file: FileNow::OnTrial, ..end })?;
        }
        let file = if on_trial { FileNow::OnTrial } else { FileNow::NotWritten };
        self.draft.put(text).map_err(|error| End { file, ..End::from(error) })?;
        if on_trial {
            let late = |failure| End { failure, file: FileNow::Written };
            apply::confirm(&self.session.kernel).map_err(late)?;
        }
        Ok(output)
    }

    /// Asks whether a change on trial is kept.
    fn kept(&self) -> Result<(), End> {
        let until = Instant::now() + ON_TRIAL.saturating_sub(Duration::from_secs(2));
        let question = format!(
            "It is in force, on trial. Does all that you need still work?\n\
             y: keep it, and write {}; anything else, or {} s of silence: it is taken back\n> ",
            self.draft.name(),
            ON_TRIAL.as_secs()
        );
        match ask(&question, Some(until))? {
            Answer::Said(line) if matches!(line.as_str(), "y" | "Y" | "yes") => Ok(()),
            Answer::Said(_) | Answer::Silence => Err(EditError::NotKept.into()),
            Answer::Signal(signal) => Err(EditError::Interrupted(signal).into()),
        }
    }

    /// What the daemon makes of the file, which was written. One that ends over it leaves it to
    /// this process.
    fn followed(&mut self, request: Request) -> Result<Output, End> {
        let late = |failure| End { failure, file: FileNow::Written };
        let hash = apply::hash(&request.intent.policy.source.text);
        let taken = follower::taken(&self.session.kernel, hash).map_err(late)?;
        let name = self.draft.name();
        if taken == Taken::IsInForce {
            return Ok(
                self.say(format!("{name} is written, and in force: the daemon has taken it\n"))
            );
        }
        tell("The daemon has ended, and had not taken it: it is applied without one.\n")
            .map_err(late)?;
        // As it was checked, with what the daemon had been told of unknown accounts, foreign qdiscs
        // and absent links: the file is written by now, and refusing it would be too late.
        let policy = std::sync::Arc::clone(&request.intent.policy);
        let gate = &mut apply::unless_interrupted;
        let applied = apply::apply(&mut self.session, request, self.may, gate).map_err(late)?;
        Ok(report_of(&self.session, &policy, &applied, self.global))
    }

    /// A last sentence.
    fn say(&self, sentence: String) -> Output {
        match self.global.json || self.global.quiet {
            true => Output::silent(self.global),
            false => Output::text(sentence),
        }
    }
}

/// Whether another text may do better.
fn is_correctable(failure: &Failure) -> bool {
    matches!(failure, Failure::Policy(_) | Failure::Usage(_) | Failure::Refused(_))
}

/// To the person at the terminal.
fn tell(text: &str) -> Result<(), Failure> {
    stderr(text).map_err(|error| Failure::refused(format!("the terminal does not answer: {error}")))
}

/// What the person answers; the terminal's end is no answer.
fn said(question: &str) -> Result<String, End> {
    match ask(question, None)? {
        Answer::Said(line) => Ok(line),
        Answer::Silence => Ok(String::new()),
        Answer::Signal(signal) => Err(EditError::Interrupted(signal).into()),
    }
}

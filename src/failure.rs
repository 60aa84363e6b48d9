//! What a command can end with: exit status, one sentence, and the same as JSON.

use serde::Serialize;

use crate::cgroup;
use crate::desired::Impossible;
use crate::facts::Lack;
use crate::host::OpenError;
use crate::host::execute::{Cause, Failed};
use crate::host::observe::ObserveError;
use crate::intent;
use crate::plan::{Paths, Tc};
use crate::policy::{Diagnostic, Report, Severity};

/// A command that did not do what it was asked to.
#[derive(Debug)]
pub enum Failure {
    /// The policy is wrong; nothing was touched.
    Policy(Box<Report>),
    /// The command line is wrong, or a file or name in it; nothing was touched.
    Usage(String),
    /// The kernel or the system refused; the state from before is back, except for what the text
    /// names.
    Refused(Box<Refusal>),
    /// Another run holds the lock.
    Locked(String),
    /// A signal came, and the run undid its steps.
    Interrupted {
        /// The signal's number.
        signal: i32,
        /// What became of the run's steps.
        message: String,
    },
    /// The person who was asked did not want it: no error, and not what the command was for.
    Declined {
        /// 2 where nothing was touched, 1 where a change on trial is taken back.
        status: u8,
        /// What was not done, as said.
        message: String,
    },
    /// A command of `run` that could not be started: its own exit status, 125 to 127.
    Run {
        /// 125, 126 or 127, as of env(1).
        status: u8,
        /// Why the command was not run.
        message: String,
    },
}

/// What was refused, in which step, and what became of the steps before.
#[derive(Debug)]
pub struct Refusal {
    /// A sentence, without the step.
    pub message: String,
    /// The refused step, in tc words.
    pub step: Option<String>,
    /// The kernel's error number, positive.
    pub errno: Option<i32>,
}

/// The step in tc words. Where a step is thousands of commands, only the refused one, or else the
/// first.
fn commands(failed: &Failed, paths: &Paths) -> String {
    const MANY: usize = 16;
    let commands = Tc(&failed.step, paths).to_string();
    let count = commands.lines().count();
    match commands.lines().nth(failed.message.unwrap_or(0)) {
        Some(refused) if count > MANY && failed.message.is_some() => refused.to_string(),
        Some(first) if count > MANY => format!("{first}\n  … and {} commands more", count - 1),
        _ => commands,
    }
}

impl Failure {
    /// A refusal that no step caused.
    pub fn refused(message: impl ToString) -> Failure {
        Failure::Refused(Box::new(Refusal {
            message: message.to_string(),
            step: None,
            errno: None,
        }))
    }

    /// A failed step, with what became of the undo.
    pub fn step(failed: &Failed, paths: &Paths, aftermath: &str) -> Failure {
        let step = commands(failed, paths);
        match &*failed.source {
            Cause::Interrupted(signal) => Failure::Interrupted {
                signal: *signal,
                message: format!("interrupted by signal {signal} before `{step}`; {aftermath}"),
            },
            cause => Failure::Refused(Box::new(Refusal {
                message: format!("{cause}\n  while doing: {step}\n  {aftermath}"),
                step: Some(step),
                errno: cause.errno(),
            })),
        }
    }

    /// A failure of no step, after others had changed something: whichever kind it is by itself, it
    /// becomes a refusal, with what became of the undo.
    pub fn in_the_middle(self, aftermath: &str) -> Failure {
        match self {
            Failure::Refused(mut refusal) => {
                refusal.message = format!("{}\n  {aftermath}", refusal.message);
                Failure::Refused(refusal)
            }
            Failure::Interrupted { signal, message } => {
                Failure::Interrupted { signal, message: format!("{message}; {aftermath}") }
            }
            Failure::Declined { status, message } => {
                Failure::Declined { status, message: format!("{message}\n  {aftermath}") }
            }
            other => Failure::refused(format!("{}\n  {aftermath}", other.message())),
        }
    }

    /// The sentence of [`Failure::text`] without colour and without the word `error`.
    pub fn message(&self) -> String {
        let text = self.text(false);
        text.strip_prefix("error: ").unwrap_or(&text).trim_end().to_string()
    }

    /// The exit status, as docs/commands.md lists them.
    pub fn exit_status(&self) -> u8 {
        match self {
            Failure::Policy(_) | Failure::Usage(_) => 2,
            Failure::Refused(_) => 1,
            Failure::Locked(_) => 4,
            Failure::Interrupted { signal, .. } => 128_u8.saturating_add(*signal as u8),
            Failure::Run { status, .. } | Failure::Declined { status, .. } => *status,
        }
    }

    /// The failure as text for people, with a caret where it has a place in the policy.
    pub fn text(&self, color: bool) -> String {
        match self {
            Failure::Policy(report) => report.render(color),
            Failure::Usage(message)
            | Failure::Locked(message)
            | Failure::Interrupted { message, .. }
            | Failure::Run { message, .. } => format!("error: {message}"),
            Failure::Declined { message, .. } => message.clone(),
            Failure::Refused(refusal) => format!("error: {}", refusal.message),
        }
    }

    /// The JSON document `{"version":1,"error":{…}}`; of a policy with all its `errors`.
    pub fn json(&self) -> String {
        let document = Document { version: 1, errors: self.errors() };
        serde_json::to_string(&document).unwrap_or_else(|_| "{\"version\":1}".to_string())
    }

    /// The fields of [`Failure::json`] beside its version.
    pub fn errors(&self) -> JsonErrors {
        let mut error = JsonError::default();
        let mut errors = Vec::new();
        match self {
            Failure::Policy(report) => {
                error.kind = "policy";
                error.file = Some(report.source.file().to_string());
                let is_error = |it: &&Diagnostic| it.severity == Severity::Error;
                let all = report.diagnostics.iter().filter(is_error);
                errors = all.map(|one| JsonError::of_policy(report, one)).collect();
                if let Some(first) = report.first() {
                    error = JsonError::of_policy(report, first);
                }
            }
            Failure::Usage(message) => (error.kind, error.message) = ("usage", message.clone()),
            Failure::Locked(message) => (error.kind, error.message) = ("locked", message.clone()),
            Failure::Interrupted { message, .. } => {
                (error.kind, error.message) = ("interrupted", message.clone());
            }
            Failure::Run { message, .. } => (error.kind, error.message) = ("run", message.clone()),
            Failure::Declined { message, .. } => {
                (error.kind, error.message) = ("declined", message.clone());
            }
            Failure::Refused(refusal) => {
                (error.kind, error.message) = ("refused", refusal.message.clone());
                (error.step, error.errno) = (refusal.step.clone(), refusal.errno);
            }
        }
        JsonErrors { error, errors }
    }
}

#[derive(Serialize)]
struct Document {
    version: u32,
    #[serde(flatten)]
    errors: JsonErrors,
}

/// `error`, and `errors` of a policy: fields of a JSON document.
#[derive(Serialize)]
pub struct JsonErrors {
    /// The first one.
    error: JsonError,
    /// All errors of a policy, in file order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<JsonError>,
}

#[derive(Default, Serialize)]
struct JsonError {
    kind: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'static str>,
    file: Option<String>,
    line: Option<u32>,
    column: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
    step: Option<String>,
    errno: Option<i32>,
}

impl JsonError {
    fn of_policy(report: &Report, diagnostic: &Diagnostic) -> JsonError {
        JsonError {
            kind: "policy",
            message: diagnostic.message.clone(),
            rule: Some(diagnostic.kind.as_str()),
            file: Some(report.file_of(diagnostic).to_string()),
            line: diagnostic.place().map(|place| place.line),
            column: diagnostic.place().map(|place| place.column),
            help: diagnostic.help.clone(),
            ..JsonError::default()
        }
    }
}

impl From<Report> for Failure {
    fn from(report: Report) -> Failure {
        Failure::Policy(Box::new(report))
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Failure {
        match error {
            OpenError::Enter(error) => Failure::Usage(error.to_string()),
            error => Failure::refused(error),
        }
    }
}

impl From<ObserveError> for Failure {
    fn from(error: ObserveError) -> Failure {
        Failure::refused(error)
    }
}

impl From<Lack> for Failure {
    fn from(lack: Lack) -> Failure {
        Failure::Usage(lack.to_string())
    }
}

impl From<intent::Refusal> for Failure {
    fn from(refusal: intent::Refusal) -> Failure {
        match refusal {
            intent::Refusal::Policy(report) => Failure::Policy(report),
            intent::Refusal::Untried | intent::Refusal::Impossible(_) => Failure::refused(refusal),
            intent::Refusal::InTheWay(_)
            | intent::Refusal::OtherInstance { .. }
            | intent::Refusal::NeedsRoot => Failure::Usage(refusal.to_string()),
        }
    }
}

impl From<Impossible> for Failure {
    fn from(error: Impossible) -> Failure {
        Failure::refused(error)
    }
}

impl From<cgroup::Error> for Failure {
    fn from(error: cgroup::Error) -> Failure {
        match error {
            cgroup::Error::Locked { .. } => Failure::Locked(error.to_string()),
            error => Failure::Refused(Box::new(Refusal {
                message: error.to_string(),
                step: None,
                errno: error.errno(),
            })),
        }
    }
}

//! `why` for whoever asks: root, or a caller who is told of himself.

use std::path::Path;
use std::time::Duration;

use nix::unistd;
use serde::Serialize;

use super::counting::Counting;
use super::output::{Output, answered};
use super::own::{self, Asked, ForRoot};
use super::why::{self, OnLink};
use crate::apply;
use crate::cli::{Global, WhyOptions};
use crate::failure::{Failure, JsonErrors};
use crate::policy;
use crate::status::{Quota, User};
use crate::text::shown;

/// Between two readings of the counters that say what holds the caller back.
const MOMENT: Duration = Duration::from_millis(300);

/// For root, and for a caller who may read the policy, what that says; for any other caller what
/// the kernel has for him. A caller who is not root is told of himself only.
pub(super) fn why(global: &Global, options: &WhyOptions) -> Result<Output, Failure> {
    let himself = WhyOptions { subject: format!("uid:{}", unistd::getuid()), ..options.clone() };
    let options = if options.subject.is_empty() { &himself } else { options };
    let subject = options.subject.as_str();
    if own::caller().is_none() {
        return why::why(global, options);
    }
    let mut counting = Counting::begin(global)?;
    let mut notes = Vec::new();
    let by_tags = counting.kernel.instance().is_none_or(|instance| instance.places());
    if let Some(own) = &mut counting.own {
        match own.admit_subject(&counting.kernel, subject)? {
            Asked::Process(Some(owner)) | Asked::Line(owner) => own.owners = [owner].into(),
            Asked::Process(None) if by_tags => {
                notes.push("the process is in none of shaper's directories: this is the account's");
            }
            Asked::Process(None) | Asked::Himself => {}
        }
    }
    let failure = match unread(&options.file) {
        None => return why::why(global, options),
        Some(Unread::Forbidden) => None,
        Some(Unread::Refused(failure)) => Some(failure),
    };
    if failure.is_none() && options.to.or(options.from).is_some() {
        return Err(ForRoot::Connections.into());
    }
    notes.push(match failure {
        None => "the policy is not yours to read: this is what the kernel has",
        Some(_) => own::ALL_THERE_IS,
    });
    let differences = counting.over(MOMENT)?;
    let status = counting.status(Some(differences));
    let failure = match failure {
        Some(failure) if status.links.is_empty() => return Err(failure),
        failure => failure,
    };
    let first = || status.links.iter().flat_map(|link| &link.users).next();
    let ports = counting.observation().state.trees.keys();
    let class = first().and_then(|user| user.classid.parse().ok());
    let answer = Answer {
        version: 1,
        subject: shown(subject).to_string(),
        claimed_by: first().map(User::line),
        classid: first().map(|user| user.classid.clone()),
        links: class.map_or_else(Vec::new, |class| why::on_links(&status, ports, class)),
        held_back: status.held_back(),
        quotas: status.quotas.clone(),
        notes,
        file: None,
        line: None,
        column: None,
        directory: None,
        shares_with: Vec::new(),
        errors: failure.as_ref().map(Failure::errors),
        by_tags,
    };
    answered(global, &answer, answer.text(), failure)
}

/// Why the policy says nothing to a caller who is not root.
enum Unread {
    /// It is not his to read.
    Forbidden,
    /// It is refused, or cannot be read by anybody.
    Refused(Failure),
}

/// `None`: the file is a policy.
fn unread(file: &Path) -> Option<Unread> {
    if file == Path::new("-") {
        return None;
    }
    match apply::texts(file) {
        Err(error) if error.is_forbidden() => Some(Unread::Forbidden),
        Err(error) => Some(Unread::Refused(error.into())),
        Ok(source) => policy::read(source).err().map(|report| Unread::Refused(report.into())),
    }
}

/// What the kernel has for the caller; the fields that `why` has for root mean the same.
#[derive(Serialize)]
struct Answer {
    version: u32,
    subject: String,
    claimed_by: Option<String>,
    classid: Option<String>,
    links: Vec<OnLink>,
    held_back: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    quotas: Vec<Quota>,
    notes: Vec<&'static str>,
    /// What only the policy says, or is not told, so that a program finds each field everywhere.
    file: Option<String>,
    line: Option<u32>,
    column: Option<u32>,
    directory: Option<String>,
    shares_with: Vec<String>,
    /// Why no policy says anything of it, where that is so and is his to know.
    #[serde(flatten)]
    errors: Option<JsonErrors>,
    /// Whether directories say whose a process is.
    #[serde(skip)]
    by_tags: bool,
}

impl Answer {
    fn text(&self) -> String {
        let whose = self.claimed_by.as_deref().unwrap_or(match self.by_tags {
            true => "nobody claims it, so the default class",
            false => "which line claims it only the policy says here (`classifier: uid`)",
        });
        let class = self.classid.iter().map(|classid| format!("class {classid}"));
        let notes = self.notes.iter().map(ToString::to_string);
        let quotas = self.quotas.iter().map(|quota| format!("quota: {}", quota.words()));
        let lines = class.chain(self.held_back.iter().cloned()).chain(quotas).chain(notes);
        let lines: String = lines.map(|line| format!("  {line}\n")).collect();
        format!("{}: {}\n{lines}", self.subject, shown(whose))
    }
}

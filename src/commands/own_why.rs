//! `why` for whoever asks: root, or a caller who is told of himself.

use std::fs::File;
use std::io;
use std::time::Duration;

use serde::Serialize;

use super::counting::Counting;
use super::output::Output;
use super::{own, why};
use crate::cli::{Global, WhyOptions};
use crate::failure::Failure;
use crate::text::shown;

/// Between two readings of the counters that say what holds the caller back.
const MOMENT: Duration = Duration::from_millis(300);

/// For root, and for a caller who may read the policy, what that says; for any other caller what
/// the kernel has for him. A caller who is not root is told of himself only.
pub(super) fn why(global: &Global, options: &WhyOptions) -> Result<Output, Failure> {
    let subject = options.subject.as_str();
    if own::caller().is_none() {
        return why::why(global, options);
    }
    let mut counting = Counting::begin(global)?;
    if let Some(own) = &counting.own {
        own.admit_process(&counting.kernel, subject)?;
    }
    let opened = File::open(&options.file);
    if !opened.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
        return why::why(global, options);
    }
    let differences = counting.over(MOMENT)?;
    let status = counting.status(Some(differences));
    let first = || status.links.iter().flat_map(|link| &link.users).next();
    let answer = Answer {
        version: 1,
        subject: shown(subject).to_string(),
        claimed_by: first().map(|user| format!("{}.{}", user.source, user.user)),
        classid: first().map(|user| user.classid.clone()),
        held_back: status.held_back(),
        notes: ["the policy is not yours to read: this is what the kernel has"],
    };
    Ok(match global.json {
        true => Output::json(&serde_json::to_string(&answer).map_err(Failure::refused)?),
        false => Output::text(answer.text()),
    })
}

/// What the kernel has for the caller; the fields that `why` has for root mean the same.
#[derive(Serialize)]
struct Answer {
    version: u32,
    subject: String,
    claimed_by: Option<String>,
    classid: Option<String>,
    held_back: Vec<String>,
    notes: [&'static str; 1],
}

impl Answer {
    fn text(&self) -> String {
        let whose = self.claimed_by.as_deref().unwrap_or("nobody claims it, so the default class");
        let class = self.classid.iter().map(|classid| format!("class {classid}"));
        let notes = self.notes.into_iter().map(str::to_string);
        let lines = class.chain(self.held_back.iter().cloned()).chain(notes);
        let lines: String = lines.map(|line| format!("  {line}\n")).collect();
        format!("{}: {}\n{lines}", self.subject, shown(whose))
    }
}

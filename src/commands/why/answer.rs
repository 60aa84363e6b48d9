//! The answer of `shaper why`: what is in force, and which line of the policy says so.

use std::fmt::Write;

use serde::Serialize;

use super::connection::Way;
use super::standing::InForce;
use crate::failure::JsonErrors;
use crate::status::{Limit, Quota, Status, Told, limit_words};
use crate::text::shown;
use crate::units::{Bytes, ClassId, Rate};

/// The answer; its JSON only grows.
#[derive(Serialize)]
pub(super) struct Answer {
    pub version: u32,
    pub subject: String,
    /// `users.bob`, `everyone`, `groups.students`; nothing when nobody claims it.
    pub claimed_by: Option<String>,
    pub file: Option<String>,
    pub line: Option<u32>,
    pub column: Option<u32>,
    pub classid: Option<String>,
    /// The class of its packets that no rule decides about; `None`: nobody's.
    #[serde(skip)]
    pub sender: Option<ClassId>,
    /// The subject is a group, in whose own class no packet is.
    #[serde(skip)]
    pub is_group: bool,
    /// The subject is a class that is there for whoever has no line.
    #[serde(skip)]
    pub is_for_nobody: bool,
    /// Where the process sits now.
    pub directory: Option<String>,
    /// The links by which a guest's packets come in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub comes_in_by: Vec<String>,
    pub links: Vec<OnLink>,
    /// Where a connection's packets go, if one was asked about.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub connection: Vec<Way>,
    /// What was used of the owner's quotas.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quotas: Vec<Quota>,
    pub shares_with: Vec<String>,
    pub notes: Vec<String>,
    /// Why no policy says anything of it, where that is so.
    #[serde(flatten)]
    pub errors: Option<JsonErrors>,
}

/// One port of a link.
#[derive(Serialize)]
pub(crate) struct OnLink {
    pub dev: String,
    pub direction: &'static str,
    /// The two as plans have them.
    #[serde(skip)]
    pub port: String,
    /// The guarantee in force.
    pub rate_bit: Option<u64>,
    pub asked_rate_bit: Option<u64>,
    /// As the file says; where that says nothing of the class, as is in force.
    pub ceil_bit: u64,
    /// What may pass above it after a pause; absent where that is nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boost_bytes: Option<u64>,
    /// Which limit that is, as the file says; absent where it is the line's own for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
    pub prio: Option<u8>,
    /// What the kernel has and does; absent while there is no class.
    pub in_force: Option<InForce>,
    /// What of it the file no longer has: the `link`, as it is shaped in this direction, or the
    /// `class` there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_lacks: Option<Lacks>,
}

/// What the kernel has and the file has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Lacks {
    Link,
    Class,
}

impl Answer {
    /// An answer about a class that is no line's.
    pub(super) fn about(subject: String, class: Option<ClassId>) -> Answer {
        Answer {
            version: 1,
            subject,
            claimed_by: None,
            file: None,
            line: None,
            column: None,
            classid: class.map(|class| class.to_string()),
            sender: class,
            is_group: false,
            is_for_nobody: false,
            directory: None,
            comes_in_by: Vec::new(),
            links: Vec::new(),
            connection: Vec::new(),
            quotas: Vec::new(),
            shares_with: Vec::new(),
            notes: Vec::new(),
            errors: None,
        }
    }

    /// Limits and quotas as whoever is not root is told of them: how much was used, which says what
    /// a quota has for a limit now, is not his to read.
    pub(super) fn as_told(&mut self, told: Option<&Told>, status: &Status) {
        let Some(told) = told else { return };
        let rows = status.links.iter().flat_map(|link| link.users.iter().map(move |it| (link, it)));
        let mut is_his = false;
        for (link, user) in rows.filter(|(_, user)| Some(&user.classid) == self.classid.as_ref()) {
            is_his |= Some(&user.owner) == told.owner().as_ref();
            let is_it = |it: &&mut OnLink| it.dev == link.dev && it.direction == link.direction;
            if let (Some(it), Some(limit)) = (self.links.iter_mut().find(is_it), &user.limit) {
                (it.ceil_bit, it.limit) = (user.class.ceil_bit, Some(limit.clone()));
            }
        }
        if is_his {
            self.quotas = told.quotas();
        }
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let _ = match (&self.claimed_by, &self.file, self.line, self.column) {
            (Some(line), Some(file), Some(number), Some(column)) => {
                writeln!(text, "{}: {line} at {file}:{number}:{column}", self.subject)
            }
            (Some(line), ..) => writeln!(text, "{}: {line}", self.subject),
            _ if self.is_for_nobody => writeln!(text, "{}", self.subject),
            _ => writeln!(text, "{}: no line of the policy", self.subject),
        };
        if !self.comes_in_by.is_empty() {
            let _ = writeln!(text, "  comes in by {}", shown(&self.comes_in_by.join(", ")));
        }
        if let Some(classid) = &self.classid {
            let _ = writeln!(text, "  class {classid}");
        }
        for link in &self.links {
            let _ = writeln!(text, "  {}", link.text());
        }
        for way in &self.connection {
            let _ = writeln!(text, "  connection: {}", way.text());
        }
        for quota in &self.quotas {
            let _ = writeln!(text, "  quota: {}", quota.words());
        }
        if !self.shares_with.is_empty() {
            let _ = writeln!(text, "  accounts in it now: {}", shown(&self.shares_with.join(", ")));
        }
        if let Some(directory) = &self.directory {
            let _ = writeln!(text, "  net_cls directory: {}", shown(directory));
        }
        for note in &self.notes {
            let _ = writeln!(text, "  {note}");
        }
        text
    }
}

impl OnLink {
    fn text(&self) -> String {
        let rate = match (self.rate_bit, self.asked_rate_bit) {
            (Some(rate), Some(asked)) if rate != asked => {
                format!("{} in force ({} asked)", limit_words(rate), limit_words(asked))
            }
            (Some(rate), Some(_)) => limit_words(rate),
            (Some(rate), None) if rate <= Rate::MIN_GUARANTEE.bits_per_second() => {
                format!("{} (a token: what is left goes to others first)", limit_words(rate))
            }
            (Some(rate), None) => format!("{} (a share of what is left)", limit_words(rate)),
            (None, Some(asked)) => format!("{} (not in force yet)", limit_words(asked)),
            (None, None) => "a share of what is left".to_string(),
        };
        let ceil = match &self.in_force {
            Some(now) if now.ceil_bit != self.ceil_bit => format!(
                "{} in force (the file says {}: apply has not run since)",
                limit_words(now.ceil_bit),
                limit_words(self.ceil_bit)
            ),
            _ => limit_words(self.ceil_bit),
        };
        let limit = self.limit.as_ref().map_or_else(String::new, |limit| format!(" ({limit})"));
        let mut text = format!("{}: rate {rate}, ceil {ceil}{limit}", self.port);
        if let Some(boost) = self.boost_bytes {
            let _ = write!(text, ", boost {}", Bytes(boost).to_volume());
        }
        if let Some(prio) = self.prio {
            let _ = write!(text, ", prio {prio}");
        }
        if let Some(now) = &self.in_force {
            let _ = write!(text, "; now {}", now.text());
        }
        let _ = match self.file_lacks {
            Some(Lacks::Link) => {
                write!(text, "; the file does not shape {}: apply has not run since", self.port)
            }
            Some(Lacks::Class) => {
                write!(text, "; the file says no class here: apply has not run since")
            }
            None => Ok(()),
        };
        text
    }
}

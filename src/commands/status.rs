//! `shaper status`: who has which class, and what went through it. Reads the kernel only.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::counting::Counting;
use super::output::{self, Output};
use super::own::{self, ForRoot};
use super::{metrics, whom};
use crate::cli::{Global, StatusOptions};
use crate::failure::Failure;
use crate::host::Kernel;
use crate::status::{self, Link, Pending, Status, User};
use crate::text::Foreign;
use crate::tree::{Owner, Reserved};

/// Nothing is shaped here.
const NOTHING: u8 = 3;

/// A name of the command line that no row has.
#[derive(Debug, thiserror::Error)]
enum Unknown {
    #[error("{name} has no class here{}; `shaper why {name}` says why", .nearest.did_you_mean())]
    User { name: Foreign, nearest: Nearest },
    #[error("{0} is a group: `shaper status --group {0}` shows all that is below it")]
    IsGroup(Foreign),
    #[error("{0} is a user: `shaper status {0}` shows what is theirs")]
    IsUser(Foreign),
    #[error("there is no group {name} here{}", .nearest.did_you_mean())]
    Group { name: Foreign, nearest: Nearest },
}

/// Two formats are asked for at once.
#[derive(Debug, thiserror::Error)]
#[error("--metrics is a text for Prometheus, and --json a document: name one of the two")]
struct TwoFormats;

impl From<TwoFormats> for Failure {
    fn from(error: TwoFormats) -> Failure {
        Failure::Usage(error.to_string())
    }
}

/// The name that may have been meant.
#[derive(Debug)]
struct Nearest(Option<Foreign>);

impl Nearest {
    fn did_you_mean(&self) -> String {
        self.0.as_ref().map_or_else(String::new, |name| format!(" (did you mean {name}?)"))
    }
}

impl From<Unknown> for Failure {
    fn from(error: Unknown) -> Failure {
        Failure::Usage(error.to_string())
    }
}

pub(super) fn status(global: &Global, options: &StatusOptions) -> Result<Output, Failure> {
    if global.json && options.metrics.is_some() {
        return Err(TwoFormats.into());
    }
    if own::caller().is_some() {
        may_see(options)?;
    }
    if let Some(format) = options.metrics {
        return metrics::metrics(global, options, format);
    }
    let mut counting = Counting::begin(global)?;
    counting.with_rules(options.rules);
    let differences = options.interval.map(|interval| counting.over(interval)).transpose()?;
    if counting.own.is_none() {
        if differences.is_none() {
            counting.with_passages()?;
        }
        counting.with_guests()?;
    }
    let is_whole = options.users.is_empty() && options.group.is_none();
    if counting.own.is_none() && is_whole {
        counting.with_unclaimed()?;
    }
    let mut status = counting.status(differences);
    match &counting.own {
        None => narrow(&counting.kernel, &mut status, options)?,
        Some(own) => options.users.iter().try_for_each(|name| own.admit(name).map(drop))?,
    }
    let held = if counting.own.is_some() { status.held_back() } else { Vec::new() };
    let mut output = match global.json {
        true => Output::json(&document(&status, &held).map_err(Failure::refused)?),
        false => {
            let which = global.verbose > 0 || !options.users.is_empty();
            let guests = status::guest_lines(&status, which, options.users.is_empty());
            let held: String = held.iter().map(|sentence| format!("{sentence}\n")).collect();
            let wide = output::columns();
            let page = status::table(&status, now(), wide) + &guests + &held;
            Output::text(match wide {
                Some(wide) => status::fitted(&page, wide),
                None => page,
            })
        }
    };
    if let Some(why) = &counting.nameless {
        let note = format!("note: NSS: {why}; accounts have their numbers instead of names\n");
        output.stderr.push_str(&note);
    }
    if counting.own.is_none() {
        output.stderr.push_str(&pending(&counting.kernel, &status)?);
    }
    output.status = if status.links.is_empty() { NOTHING } else { 0 };
    Ok(output)
}

/// The report as JSON; for a caller who is not root, with what holds him back.
fn document(status: &Status, held: &[String]) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct Document<'a> {
        #[serde(flatten)]
        status: &'a Status,
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        held_back: &'a [String],
    }
    serde_json::to_string(&Document { status, held_back: held })
}

/// Refuses what shows others to a caller who is not root.
fn may_see(options: &StatusOptions) -> Result<(), ForRoot> {
    match () {
        () if options.metrics.is_some() => Err(ForRoot::Everybody("metrics")),
        () if options.rules => Err(ForRoot::Everybody("rules")),
        () if options.group.is_some() => Err(ForRoot::Everybody("groups")),
        () => Ok(()),
    }
}

/// Leaves in the report what the command line names.
fn narrow(kernel: &Kernel, status: &mut Status, options: &StatusOptions) -> Result<(), Failure> {
    let (users, group) = (&options.users, options.group.as_deref());
    let rows = users.iter().map(|user| row(kernel, status, user));
    let rows = rows.collect::<Result<Vec<String>, Failure>>()?;
    let nearest = |name: &str, of| Nearest(status.nearest(name, of).map(Foreign::from));
    let has = |name: &str| status.links.iter().any(|link| link.group_names().contains(&name));
    if let Some((name, _)) = users.iter().zip(&rows).find(|(_, row)| !has_class(row, status)) {
        if has(name) {
            return Err(Unknown::IsGroup(name.as_str().into()).into());
        }
        let nearest = nearest(name, Link::user_names);
        return Err(Unknown::User { name: name.as_str().into(), nearest }.into());
    }
    if let Some(name) = group.filter(|name| !has(name)) {
        if status.links.iter().any(|link| link.user_names().contains(&name)) {
            return Err(Unknown::IsUser(name.into()).into());
        }
        let nearest = nearest(name, Link::group_names);
        return Err(Unknown::Group { name: name.into(), nearest }.into());
    }
    status.narrow(&rows, group);
    match users.iter().zip(&rows).find(|(_, row)| !has_class(row, status)) {
        Some((name, _)) => {
            Err(Unknown::User { name: name.as_str().into(), nearest: Nearest(None) }.into())
        }
        None => Ok(()),
    }
}

/// Whether a row has the name. Those of the default and the unshaped class are always shown.
fn has_class(name: &str, status: &Status) -> bool {
    let is = |user: &User| user.user == name || user.uid.is_some_and(|uid| uid.to_string() == name);
    let is_pool = matches!(Reserved::of(name), Some(Reserved::Default | Reserved::Unshaped));
    status.links.iter().any(|link| is_pool || link.users.iter().any(is))
}

/// The row that shows whom a word of the command line means: an account may be named although its
/// line has another name.
fn row(kernel: &Kernel, status: &Status, user: &str) -> Result<String, Failure> {
    if has_class(user, status) {
        return Ok(user.to_string());
    }
    let Some(uid) = whom::uid(user)? else { return Ok(user.to_string()) };
    Ok(match whom::claimant(&kernel.name, uid, None)? {
        Some(Owner::User(key)) => key.to_string(),
        Some(Owner::Uid(uid)) => uid.to_string(),
        _ => user.to_string(),
    })
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// What a change that waits to be confirmed, or whose guard was killed, means for what is in the
/// kernel.
fn pending(kernel: &Kernel, status: &Status) -> Result<String, Failure> {
    if let Some(Pending { guard, seconds_left }) = status.pending {
        let left = seconds_left.map_or_else(String::new, |left| format!(", within {left} s"));
        return Ok(format!(
            "note: a change waits to be confirmed (guard process {guard}): `shaper confirm` keeps it{left}\n"
        ));
    }
    let Some(instance) = kernel.instance() else { return Ok(String::new()) };
    Ok(match instance.lost_guard()? {
        true => {
            "warning: a change waited to be confirmed, and its guard process was killed: what stands may be half taken back; `shaper apply` makes it whole\n".to_string()
        }
        false => String::new(),
    })
}

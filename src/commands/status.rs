//! `shaper status`: who has which class, and what went through it. Reads the kernel only.

use std::time::{SystemTime, UNIX_EPOCH};

use super::counting::Counting;
use super::output::Output;
use super::whom;
use crate::cli::Global;
use crate::failure::Failure;
use crate::host::Kernel;
use crate::status;
use crate::text::Foreign;
use crate::tree::Owner;

/// A user who was named has no class on any link that is shown.
#[derive(Debug, thiserror::Error)]
#[error("{0} has no class here; `shaper why {0}` says why")]
struct NoClass(Foreign);

impl From<NoClass> for Failure {
    fn from(error: NoClass) -> Failure {
        Failure::Usage(error.to_string())
    }
}

pub(super) fn status(
    global: &Global,
    users: &[String],
    group: Option<&str>,
    rules: bool,
) -> Result<Output, Failure> {
    let mut counting = Counting::begin(global)?;
    counting.with_rules(rules);
    let mut status = counting.status(None);
    let kernel = &counting.kernel;
    let rows = users.iter().map(|user| row(kernel, &status, user));
    let rows = rows.collect::<Result<Vec<String>, Failure>>()?;
    status.narrow(&rows, group);
    let missing = users.iter().zip(&rows).find(|(_, row)| !has_class(row, &status));
    if let Some((missing, _)) = missing {
        return Err(NoClass(missing.as_str().into()).into());
    }
    let mut output = match global.json {
        true => Output::json(&serde_json::to_string(&status).map_err(Failure::refused)?),
        false => Output::text(status::table(&status, now())),
    };
    if let Some(why) = &counting.nameless {
        let note = format!("note: NSS: {why}; accounts have their numbers instead of names\n");
        output.stderr.push_str(&note);
    }
    output.stderr.push_str(&pending(kernel)?);
    Ok(output)
}

fn has_class(name: &str, status: &status::Status) -> bool {
    let is = |user: &status::User| {
        user.user == name || user.uid.is_some_and(|uid| uid.to_string() == name)
    };
    status.links.iter().any(|link| link.users.iter().any(is))
}

/// The row that shows whom a word of the command line means: an account may be named although its
/// line has another name.
fn row(kernel: &Kernel, status: &status::Status, user: &str) -> Result<String, Failure> {
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
fn pending(kernel: &Kernel) -> Result<String, Failure> {
    let Some(instance) = kernel.instance() else { return Ok(String::new()) };
    if let Some(guard) = instance.guards()?.first() {
        return Ok(format!(
            "note: a change waits to be confirmed (guard process {guard}): `shaper confirm` keeps it\n"
        ));
    }
    Ok(match instance.lost_guard()? {
        true => {
            "warning: a change waited to be confirmed, and its guard process was killed: what stands may be half taken back; `shaper apply` makes it whole\n".to_string()
        }
        false => String::new(),
    })
}

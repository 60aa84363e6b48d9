//! `shaper status`: who has which class, and what went through it. Reads the kernel only.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::output::Output;
use super::{scope, whom};
use crate::accounts::{Limit, Question};
use crate::cgroup::Instance;
use crate::cli::Global;
use crate::failure::Failure;
use crate::host::Kernel;
use crate::host::observe::{self, Snapshot, Wanted};
use crate::status::{self, StatusInputs};
use crate::text::Foreign;
use crate::tree::{Claim, Owner};

/// How long NSS may take from one name to the next.
const NSS: Duration = Duration::from_secs(3);

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
    let mut kernel = scope::open(global)?;
    let snapshot = observe::observe(&mut kernel, Wanted::default())?;
    let (inputs, nameless) = inputs(&kernel, &snapshot)?;
    let mut status = status::status(&snapshot, &StatusInputs { rules, ..inputs });
    let rows = users.iter().map(|user| row(&kernel, &status, user));
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
    if let Some(why) = nameless {
        let note = format!("note: NSS: {why}; accounts have their numbers instead of names\n");
        output.stderr.push_str(&note);
    }
    output.stderr.push_str(&pending(&kernel)?);
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

/// The daemon that keeps the instance, and its condition.
fn daemon(instance: &Instance) -> Result<Option<status::Daemon>, Failure> {
    let Some(pid) = instance.keeper()? else { return Ok(None) };
    let condition = instance.condition()?;
    let since = condition.as_ref().and_then(|told| told.since.duration_since(UNIX_EPOCH).ok());
    let (state, why) = condition.map_or((None, None), |told| (Some(told.word), told.why));
    Ok(Some(status::Daemon { pid, state, why, since: since.map(|since| since.as_secs()) }))
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

/// What the snapshot does not have; and why names are missing, where NSS did not say them all.
fn inputs(kernel: &Kernel, snapshot: &Snapshot) -> Result<(StatusInputs, Option<String>), Failure> {
    let mut inputs = StatusInputs {
        netns: kernel.netns,
        forwarded_packets: forwarded(kernel),
        ..StatusInputs::default()
    };
    let Some(instance) = kernel.instance() else { return Ok((inputs, None)) };
    inputs.daemon = daemon(&instance)?;
    let mut question = Question { without_groups: true, ..Question::default() };
    for claim in snapshot.observation.state.claims.keys() {
        let Claim::Owner(owner) = claim else { continue };
        if let Owner::Uid(uid) = owner {
            question.uids.insert(*uid);
        }
        inputs.processes.insert(owner.clone(), members(&instance, owner)?);
        let made = std::fs::metadata(instance.directory(claim)).and_then(|meta| meta.modified());
        if let Ok(made) = made {
            inputs.since.insert(owner.clone(), made);
        }
    }
    // Nobody to ask about, no child.
    if question.uids.is_empty() {
        return Ok((inputs, None));
    }
    let found = question.ask_or_read(Limit::Each(NSS));
    let names = found.by_uid.into_iter().map(|(uid, account)| (uid, account.name));
    inputs.names = names.collect();
    Ok((inputs, found.unavailable))
}

/// Processes of an owner, with those that `run` and `attach` put there.
fn members(instance: &Instance, owner: &Owner) -> Result<usize, Failure> {
    let own = instance.members(&Claim::Owner(owner.clone()))?.len();
    Ok(match owner {
        Owner::User(_) | Owner::Uid(_) | Owner::Subuids(_) => {
            own + instance.members(&Claim::Pinned(owner.clone()))?.len()
        }
        Owner::Class(_) | Owner::Newcomers | Owner::Group(_) => own,
    })
}

/// `Ip: ForwDatagrams` of /proc/net/snmp (net/ipv4/proc.c, `snmp_seq_show`): a line of names and a
/// line of values.
fn forwarded(kernel: &Kernel) -> Option<u64> {
    let text = std::fs::read_to_string(kernel.proc_root.join("net/snmp")).ok()?;
    let mut lines = text.lines().filter(|line| line.starts_with("Ip:"));
    let names = lines.next()?.split_whitespace();
    let values: BTreeMap<&str, &str> = names.zip(lines.next()?.split_whitespace()).collect();
    values.get("ForwDatagrams")?.parse().ok()
}

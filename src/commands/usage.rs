//! `shaper usage`, `shaper grant` and `shaper quota reset`: what was used of quotas, more of them,
//! and their use counted anew.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Serialize;

use super::moment::moment;
use super::output::{self, Output};
use super::own::{self, Own};
use super::{daemon, scope, whom};
use crate::apply::{self, Keeps, Look, Request, Session, may_change, use_file};
use crate::cli::{Global, UsageOptions};
use crate::failure::Failure;
use crate::host::Kernel;
use crate::host::observe::here;
use crate::ledger;
use crate::policy::for_volume;
use crate::quota::{Grant, Period, VolumeError, volume};
use crate::status::{self, Quota, Told, usage_table};
use crate::text::{Foreign, shown};
use crate::times::Timestamp;
use crate::tree::{Group, Owner};

/// Why there is nothing to say, or to grant.
#[derive(Debug, thiserror::Error)]
enum UsageError {
    #[error(
        "there is no user, group or account {0}; `shaper usage` without a name lists who has a quota"
    )]
    NoSuchUser(Foreign),
    #[error("{0} has no quota; write one in {1}, such as `quota: {{month: 1TB, then: 10mbit}}`")]
    NoQuota(Foreign, Foreign),
    #[error("nobody here has a quota of this period: `{0}`; there are: {1}")]
    NoPeriod(String, String),
    #[error("a grant of 0 changes nothing; write for example `10GiB`")]
    Nothing,
    #[error(
        "a grant only adds, and `{0}` is less than nothing; what was granted by mistake counts until its period ends, and a lower `quota` in the policy makes up for it"
    )]
    Negative(Foreign),
    #[error("`{0}` is no volume, and no option of grant's, which has `--until TIME`")]
    Option(Foreign),
    #[error("`{0}` is over already; write a later moment, or leave --until out")]
    Over(Foreign),
    #[error("nothing is shaped here")]
    NothingHere,
    #[error("{0}")]
    Unread(Foreign),
}

impl From<UsageError> for Failure {
    fn from(error: UsageError) -> Failure {
        match error {
            UsageError::Unread(_) => Failure::refused(error),
            _ => Failure::Usage(error.to_string()),
        }
    }
}

/// What the policy in force means, and what was used of its quotas.
struct Metered {
    session: Session,
    request: Request,
    look: Look,
    file: PathBuf,
}

impl Metered {
    /// `names`: those that are asked about.
    fn look(global: &Global, names: &[String], keeps: Keeps) -> Result<Metered, Failure> {
        let kernel = scope::open(global)?;
        if keeps != Keeps::Nobody {
            may_change(&kernel)?;
        }
        let file = daemon::policy_applied(&kernel)?;
        let policy = apply::read(&file)?;
        let is_line = |name: &str| {
            policy.users.iter().any(|line| line.key.value.as_str() == name)
                || policy.groups.iter().any(|line| line.key.value.as_str() == name)
                || matches!(Group::of(name), Some(Group::Everyone))
        };
        let mut also = BTreeSet::new();
        for name in names.iter().filter(|name| !is_line(name)) {
            match whom::uid(name)? {
                Some(uid) => also.insert(uid),
                None => return Err(UsageError::NoSuchUser(name.as_str().into()).into()),
            };
        }
        if names.is_empty() && keeps == Keeps::Nobody {
            also.extend(those_kept(&kernel));
        }
        let mut request = whom::request(policy, also.clone());
        // Who has logged out has a quota all the same: what he used is kept, and may be added to.
        request.intent.came = also.into_iter().map(Owner::Uid).collect();
        let mut session = Session::without_names(kernel);
        session.keep_use(keeps);
        let look = session.look(&request)?;
        let metered = Metered { session, request, look, file };
        match &metered.look.meaning.facts().used.unread {
            None => Ok(metered),
            Some(why) => Err(UsageError::Unread(why.as_str().into()).into()),
        }
    }

    /// Whose a name is that has a quota: a line's, an account's own, or that of the line which
    /// claims the account.
    fn owner(&self, name: &str) -> Result<Owner, Failure> {
        let meaning = &self.look.meaning;
        let owners = &meaning.model.metered.owners;
        let has = |owner: &Owner| owners.contains_key(owner);
        let group = || Group::of(name).map(Owner::Group).filter(has);
        if let Some(owner) = whom::line(name).filter(has).or_else(group) {
            return Ok(owner);
        }
        let accounts = &meaning.facts().accounts;
        let claimed = |uid| meaning.model.matcher.claim(uid, None, accounts);
        let uid = whom::uid(name).ok().flatten();
        let owner = uid.and_then(claimed).map(|claimed| claimed.owner());
        let none =
            || UsageError::NoQuota(name.into(), self.file.display().to_string().as_str().into());
        Ok(owner.filter(has).ok_or_else(none)?)
    }

    /// All quotas here, by the names of owners.
    fn quotas(&self) -> Vec<Quota> {
        let facts = self.look.meaning.facts();
        let mut quotas = status::quotas(&self.look.meaning.model, &facts.zones.here);
        for quota in &mut quotas {
            if let Owner::Uid(uid) = quota.owner
                && let Some(account) = facts.accounts.by_uid.get(&uid)
            {
                quota.user.clone_from(&account.name);
            }
        }
        quotas
    }

    /// Those of one owner, after a change.
    fn again(mut self, owner: &Owner) -> Result<Vec<Quota>, Failure> {
        self.look = self.session.look(&self.request)?;
        let mut quotas = self.quotas();
        quotas.retain(|quota| quota.owner == *owner);
        Ok(quotas)
    }
}

/// Accounts without a line of their own of which something is kept, wherever they are now.
fn those_kept(kernel: &Kernel) -> Vec<u32> {
    let Ok(book) = ledger::read(&use_file(kernel)) else { return Vec::new() };
    let kept = book.accounts.iter().filter(|(_, account)| account.has_any());
    let uid = |(owner, _): (&Owner, _)| match owner {
        Owner::Uid(uid) => Some(*uid),
        _ => None,
    };
    kept.filter_map(uid).collect()
}

#[derive(Serialize)]
struct Used<'a> {
    version: u32,
    /// When that was, where it is not now.
    #[serde(skip_serializing_if = "Option::is_none")]
    counted_at: Option<&'a str>,
    quotas: &'a [Quota],
}

/// Counts what was sent by now and writes it down, before classes go with their counters.
pub(super) fn count_out(global: &Global) -> Result<(), Failure> {
    if use_file(&scope::open(global)?).exists() {
        Metered::look(global, &[], Keeps::Caller)?.session.write_use();
    }
    Ok(())
}

pub(super) fn usage(global: &Global, options: &UsageOptions) -> Result<Output, Failure> {
    let period = options.period.as_deref().map(str::parse::<Period>).transpose();
    let period = period.map_err(|error| Failure::Usage(error.to_string()))?;
    if own::caller().is_some() {
        return own_usage(global, options, period);
    }
    let metered = Metered::look(global, &options.users, Keeps::Nobody)?;
    let mut quotas = metered.quotas();
    let owners = options.users.iter().map(|name| metered.owner(name));
    let owners: BTreeSet<Owner> = owners.collect::<Result<_, _>>()?;
    quotas.retain(|quota| owners.is_empty() || owners.contains(&quota.owner));
    of_period(&mut quotas, period)?;
    if global.json {
        let document = Used { version: 1, counted_at: None, quotas: &quotas };
        return Ok(Output::json(&serde_json::to_string(&document).map_err(Failure::refused)?));
    }
    Ok(Output::text(match quotas.is_empty() {
        true => format!("nobody has a quota in {}\n", shown(&metered.file.display().to_string())),
        false => usage_table(&quotas, output::columns()),
    }))
}

/// What whoever is not root is told of himself.
fn own_usage(
    global: &Global,
    options: &UsageOptions,
    period: Option<Period>,
) -> Result<Output, Failure> {
    let kernel = scope::open(global)?;
    let Some(own) = Own::of(&kernel)? else { return Err(UsageError::NothingHere.into()) };
    options.users.iter().try_for_each(|name| own.admit(name).map(drop))?;
    if kernel.instance().is_none_or(|instance| !instance.root().exists()) {
        return Err(UsageError::NothingHere.into());
    }
    let mut quotas = own.told.as_ref().map(Told::quotas).unwrap_or_default();
    of_period(&mut quotas, period)?;
    let at = own.told_at.and_then(|at| Timestamp::try_from(at).ok());
    let at = at.map(|at| at.to_zoned_datetime(here()).strftime("%Y-%m-%dT%H:%M:%S%:z"));
    let counted_at = at.map(|at| at.to_string()).filter(|_| !quotas.is_empty());
    if global.json {
        let document = Used { version: 1, counted_at: counted_at.as_deref(), quotas: &quotas };
        return Ok(Output::json(&serde_json::to_string(&document).map_err(Failure::refused)?));
    }
    let note = counted_at.map(|at| {
        format!("note: as counted at {at}: the daemon notes it once a minute, or `shaper apply`\n")
    });
    let stdout = match (own.told_at, quotas.is_empty()) {
        (None, _) => "nobody has told you of a quota here: the daemon does within a minute, or the next `shaper apply`\n".to_string(),
        (_, true) => "you have no quota of your own here\n".to_string(),
        (_, false) => usage_table(&quotas, output::columns()),
    };
    Ok(Output { stdout, stderr: note.unwrap_or_default(), ..Output::default() })
}

/// Leaves those of a period.
fn of_period(quotas: &mut Vec<Quota>, period: Option<Period>) -> Result<(), UsageError> {
    let Some(period) = period.map(|period| period.to_string()) else { return Ok(()) };
    let all: BTreeSet<String> = quotas.iter().map(|quota| quota.period.clone()).collect();
    quotas.retain(|quota| quota.period == period);
    match quotas.is_empty() && !all.is_empty() {
        true => {
            let all: Vec<String> = all.into_iter().collect();
            Err(UsageError::NoPeriod(period, all.join(", ")))
        }
        false => Ok(()),
    }
}

/// What was changed, and what is used of the owner's quotas then.
#[derive(Serialize)]
struct Changed {
    version: u32,
    #[serde(flatten)]
    what: What,
    /// Whether a daemon puts it in force; without one the next apply does.
    daemon: bool,
    quotas: Vec<Quota>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum What {
    Granted {
        user: String,
        bytes: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        until: Option<String>,
    },
    Reset {
        user: String,
    },
}

pub(super) fn grant(
    global: &Global,
    user: &str,
    bytes: &str,
    until: Option<&str>,
) -> Result<Output, Failure> {
    let bytes = match volume(bytes) {
        Ok(bytes) => bytes,
        Err(VolumeError::Zero) => return Err(UsageError::Nothing.into()),
        Err(VolumeError::NotANumber(text)) if text.starts_with('-') => {
            let is_less = text[1..].starts_with(|first: char| first.is_ascii_digit());
            let text = text.as_str().into();
            let error = if is_less { UsageError::Negative(text) } else { UsageError::Option(text) };
            return Err(error.into());
        }
        Err(error @ (VolumeError::NotANumber(_) | VolumeError::UnknownUnit(_))) => {
            let cure = for_volume(bytes).map(|cure| format!("; {cure}"));
            return Err(Failure::Usage(format!("{error}{}", cure.unwrap_or_default())));
        }
        Err(error) => return Err(Failure::Usage(error.to_string())),
    };
    let ends = until.map(moment).transpose()?;
    let mut metered = Metered::look(global, &[user.to_string()], Keeps::Caller)?;
    let facts = metered.look.meaning.facts();
    let now = facts.used.time.unwrap_or(facts.now);
    if let (Some(text), Some(ends)) = (until, ends)
        && ends <= now
    {
        return Err(UsageError::Over(text.into()).into());
    }
    let owner = metered.owner(user)?;
    let daemon = daemon::Daemon::of(&metered.session.kernel)?.is_some();
    let grant =
        Grant { bytes: bytes.0, at: now.as_second(), until: ends.map(Timestamp::as_second) };
    metered.session.grant_use(owner.clone(), grant).map_err(Failure::refused)?;
    let said = format!("{} has {} more", shown(user), bytes.to_volume());
    let said = said + &until.map_or_else(String::new, |until| format!(", until {}", shown(until)));
    let until = ends.map(|ends| ends.to_string());
    let what = What::Granted { user: user.to_string(), bytes: bytes.0, until };
    changed(global, metered, &owner, (said, what), daemon)
}

pub(super) fn reset(global: &Global, user: &str) -> Result<Output, Failure> {
    let mut metered = Metered::look(global, &[user.to_string()], Keeps::Caller)?;
    let owner = metered.owner(user)?;
    let daemon = daemon::Daemon::of(&metered.session.kernel)?.is_some();
    metered.session.reset_use(owner.clone()).map_err(Failure::refused)?;
    let said = format!("what {} uses is counted anew from now on", shown(user));
    changed(global, metered, &owner, (said, What::Reset { user: user.to_string() }), daemon)
}

fn changed(
    global: &Global,
    metered: Metered,
    owner: &Owner,
    (said, what): (String, What),
    daemon: bool,
) -> Result<Output, Failure> {
    // What was asked for is done: whoever reads of a failure would ask again.
    let quotas = metered.again(owner).unwrap_or_else(|failure| {
        log::warn!("what is used by now cannot be told: {}", failure.message());
        Vec::new()
    });
    if global.json {
        let document = Changed { version: 1, what, daemon, quotas };
        return Ok(Output::json(&serde_json::to_string(&document).map_err(Failure::refused)?));
    }
    if global.quiet {
        return Ok(Output::default());
    }
    let lines: String = quotas.iter().map(|quota| format!("  {}\n", quota.words())).collect();
    let note = match daemon {
        true => String::new(),
        false => "note: no daemon runs here, so the next `shaper apply` puts it in force\n".into(),
    };
    Ok(Output { stdout: format!("{said}\n{lines}"), stderr: note, ..Output::default() })
}

//! `shaper login`: a session's process into its user's class, while it is still root's. For pam_exec(8),
//! on hosts without the daemon.

use std::path::Path;

use nix::unistd::User;

use super::{Output, run};
use crate::accounts::{self, SUBUID};
use crate::apply::{self, May, Options, Session};
use crate::cgroup::Attached;
use crate::cli::Global;
use crate::failure::Failure;
use crate::plan::Planned;
use crate::state::{Claim, Owner};

pub fn login(global: &Global, file: &Path, options: Options) -> Result<Output, Failure> {
    // pam_exec runs us for the end of a session too, unless its line says otherwise.
    if std::env::var_os("PAM_TYPE").is_some_and(|kind| kind != "open_session") {
        return Ok(Output::default());
    }
    let user = std::env::var("PAM_USER").map_err(|_| {
        Failure::Usage(
            "login is for pam_exec, which says whose session it is in PAM_USER".to_string(),
        )
    })?;
    let account = User::from_name(&user)
        .map_err(|errno| Failure::refused(format!("cannot look up {user}: {errno}")))?
        .ok_or_else(|| Failure::Usage(format!("there is no account {user}")))?;
    let mut session = super::session(global, file, options)?;
    apply::may_change(&session.kernel)?;
    let Some(owner) = owner_with_class(&mut session, account.uid.as_raw(), global)? else {
        return Ok(Output::default());
    };
    let nothing = || Failure::Usage(format!("{user}'s class went away meanwhile"));
    let instance = session.kernel.instance().ok_or_else(nothing)?;
    let _lock = instance.lock(global.wait)?;
    let (claims, _) = instance.observe()?;
    let classid = *claims.get(&Claim::Owner(owner.clone())).ok_or_else(nothing)?;
    let claim = run::pin(&instance, &claims, owner, classid)?;
    let caller = nix::unistd::getppid().as_raw().cast_unsigned();
    match instance.attach(caller, &claim)? {
        Attached::Moved => Ok(Output::default()),
        other => Err(Failure::refused(format!("cannot place {user}'s session: {other:?}"))),
    }
}

/// Whose class the account's session belongs in; made if the account has none yet. `None`: nobody's.
fn owner_with_class(
    session: &mut Session,
    uid: u32,
    global: &Global,
) -> Result<Option<Owner>, Failure> {
    let nothing = || Failure::Usage("nothing is shaped here yet: `shaper apply` first".to_string());
    let instance = session.kernel.instance().filter(|i| i.root().exists()).ok_or_else(nothing)?;
    let (claims, _) = instance.observe()?;
    // As if the account ran already; the others are those who have a class.
    let mut question = session.question();
    question.running = claims.keys().filter_map(Claim::uid).chain([uid]).collect();
    let known = accounts::lookup(&question, Path::new(SUBUID));
    session.known = Some(known);
    session.processes = false;
    let mut meaning = session.look()?;
    let accounts = &meaning.sight.facts().accounts;
    let claimed = meaning.model.matcher.claim(uid, None, accounts);
    let Some(owner) = claimed.map(|claimed| claimed.owner()) else { return Ok(None) };
    if claims.contains_key(&Claim::Owner(owner.clone())) {
        return Ok(Some(owner));
    }
    let (plan, _) = session.plan(&mut meaning)?;
    if let Some(Planned { step, .. }) = plan.steps.iter().find(|planned| !planned.routine) {
        return Err(Failure::Usage(format!(
            "a login changes nothing but its own class, and here more is to do: `shaper apply` first ({step})"
        )));
    }
    let may = May { wait: global.wait, quiet: None, ..May::default() };
    apply::apply(session, may, &mut apply::unless_interrupted)?;
    Ok(Some(owner))
}

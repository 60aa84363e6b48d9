//! `shaper login`: a session's process into its user's class, while it is still root's. For
//! pam_exec(8), on hosts without the daemon.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use super::{Output, run};
use crate::accounts::{How, Question};
use crate::apply::{self, ApplyOptions, Options, Request, Session};
use crate::cgroup::Attached;
use crate::cli::Global;
use crate::facts::Accounts;
use crate::failure::Failure;
use crate::intent::Leaving;
use crate::plan::Planned;
use crate::process::{self, Handover};
use crate::text::{Foreign, shown};
use crate::tree::{Claim, Owner};

/// How long NSS may take: somebody waits for the login.
const NSS: Duration = Duration::from_secs(3);
/// How long other runs may take, at most.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn login(global: &Global, file: &Path, options: Options) -> Result<Output, Failure> {
    // Whose session it is: asked first, because it may end while we work, and another be our
    // parent.
    let caller = nix::unistd::getppid();
    // pam_exec runs us for the end of a session too, unless its line says otherwise.
    if std::env::var_os("PAM_TYPE").is_some_and(|kind| kind != "open_session") {
        return Ok(Output::default());
    }
    let user = std::env::var("PAM_USER").map_err(|_| {
        Failure::Usage(
            "login is for pam_exec, which says whose session it is in PAM_USER".to_string(),
        )
    })?;
    let name = Foreign::from(user.as_str());
    // Whatever is wrong here, root can log in and see to it.
    if user == "root" {
        return Ok(Output::default());
    }
    let (mut session, request) = super::session(global, file, options)?;
    apply::may_change(&session.kernel)?;
    let wait = global.wait.min(PATIENCE);
    let Some((owner, uid)) = owner_with_class(&mut session, request, &user, wait)? else {
        return Ok(Output::default());
    };
    let gone = || Failure::refused(format!("{name}'s class went away meanwhile"));
    let instance = session.kernel.instance().ok_or_else(gone)?;
    let _lock = instance.lock(wait)?;
    let (claims, _) = instance.observe()?;
    let classid = *claims.get(&Claim::Owner(owner.clone())).ok_or_else(gone)?;
    let claim = run::pin(&instance, &claims, owner, classid)?;
    if nix::unistd::getppid() != caller || caller.as_raw() <= 1 {
        return Err(Failure::refused(format!("{name}'s session ended before it began")));
    }
    let caller = caller.as_raw().cast_unsigned();
    match instance.attach(caller, &claim)? {
        Attached::Moved => {}
        other => return Err(Failure::refused(format!("cannot place {name}'s session: {other:?}"))),
    }
    let (proc_root, mut handover) = (&session.kernel.proc_root, Handover::default());
    if let Some(process) = process::read_one(proc_root, caller)? {
        handover.look_at_session(proc_root, &process, uid);
    }
    if let Some(why) = handover.give().refused {
        log::warn!("the connection that the session came by stays root's: {why}");
    }
    Ok(Output::default())
}

/// Whose class the account's session belongs in, made if the account has none yet, and the
/// account's uid. `None`: nobody's.
fn owner_with_class(
    session: &mut Session,
    mut request: Request,
    user: &str,
    wait: Duration,
) -> Result<Option<(Owner, u32)>, Failure> {
    let instance = run::standing(&session.kernel)?;
    let mut question = Question::of(&request.intent.policy);
    question.names.insert(user.to_string());
    let mut known = ask(question, user)?;
    let Some(uid) = known.by_name.get(user).copied().flatten() else {
        return Err(Failure::Usage(format!("there is no account {}", shown(user))));
    };
    let about_him = Question { running: [uid].into(), ..Question::default() };
    let him = ask(about_him, user)?;
    known.subuids.name_owners(&him.by_uid);
    known.by_uid.extend(him.by_uid);
    known.subuids.learn(him.subuids.into());
    // As if the account ran already; all others are as they stand.
    known.running = [uid].into();
    request.known = Some(known);
    request.intent.leaving = Leaving::These(BTreeSet::new());
    request.processes = false;
    let mut meaning = session.look(&request)?.meaning;
    let accounts = &meaning.facts().accounts;
    let claimed = meaning.model.matcher.claim(uid, None, accounts);
    let Some(owner) = claimed.map(|claimed| claimed.owner()) else { return Ok(None) };
    let (claims, _) = instance.observe()?;
    if claims.contains_key(&Claim::Owner(owner.clone())) {
        return Ok(Some((owner, uid)));
    }
    let (plan, _) = session.plan(&request.intent, &mut meaning)?;
    if let Some(Planned { step, .. }) = plan.steps.iter().find(|planned| !planned.routine) {
        return Err(Failure::Usage(format!(
            "a login changes nothing but its own class, and here more is to do: `shaper apply` first ({step})"
        )));
    }
    let may = ApplyOptions { wait, quiet: None, repair: true, ..ApplyOptions::default() };
    apply::apply(session, request, may, &mut apply::unless_interrupted)?;
    Ok(Some((owner, uid)))
}

/// A name service that hangs must not keep anybody from logging in.
fn ask(question: Question, user: &str) -> Result<Accounts, Failure> {
    let unknown = |why| Failure::refused(format!("cannot find out who {} is: {why}", shown(user)));
    let accounts = question.ask(How::Within(NSS)).map_err(|why| unknown(why.to_string()))?;
    match &accounts.unavailable {
        Some(why) => Err(unknown(why.clone())),
        None => Ok(accounts),
    }
}

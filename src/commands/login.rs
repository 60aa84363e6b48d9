//! `shaper login`: a session's process into its user's class, while it is still root's. For
//! pam_exec(8), on hosts without the daemon.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use super::output::Output;
use super::run::{self, RunError};
use super::scope;
use super::whom::Unknown;
use crate::accounts::{Limit, Question};
use crate::apply::{self, ApplyOptions, Options, Request, Session, Who};
use crate::cgroup::Attached;
use crate::cli::Global;
use crate::facts::Accounts;
use crate::failure::Failure;
use crate::intent::Leaving;
use crate::plan::{Planned, Step};
use crate::process::{self, Handover};
use crate::text::Foreign;
use crate::tree::{Claim, Owner};

/// How long NSS may take: somebody waits for the login.
const NSS: Duration = Duration::from_secs(3);
/// How long a login waits for another run's lock, at most.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a session is not in its user's class.
#[derive(Debug, thiserror::Error)]
enum LoginError {
    /// There is no PAM_USER in the environment.
    #[error("login is for pam_exec, which says whose session it is in PAM_USER")]
    NotFromPam,
    /// NSS answered that there is none.
    #[error("there is no account {0}")]
    NoAccount(Foreign),
    /// The kernel is not as the policy says, in more than this user's class: this step would be the
    /// first that no login may do.
    #[error(
        "a login changes nothing but its own class, and here more is to do: `shaper apply` first ({0})"
    )]
    MoreToDo(Box<Step>),
    /// The process that asked for the session is gone.
    #[error("{0}'s session ended before it began")]
    SessionEnded(Foreign),
    /// The session's process, or the class's directory, went away while it was moved.
    #[error("cannot place {user}'s session: {came_of_it:?}")]
    NotPlaced { user: Foreign, came_of_it: Attached },
}

/// What an administrator has to mend is exit status 2; what the system did not do, 1.
impl From<LoginError> for Failure {
    fn from(error: LoginError) -> Failure {
        match error {
            LoginError::NotFromPam | LoginError::NoAccount(_) | LoginError::MoreToDo(_) => {
                Failure::Usage(error.to_string())
            }
            LoginError::SessionEnded(_) | LoginError::NotPlaced { .. } => Failure::refused(error),
        }
    }
}

pub(super) fn login(global: &Global, file: &Path, options: Options) -> Result<Output, Failure> {
    // The session's process is our parent. It is asked for first: were it to end meanwhile, our
    // parent would be another process.
    let caller = nix::unistd::getppid();
    // pam_exec runs us for the end of a session too, unless its line says otherwise.
    if std::env::var_os("PAM_TYPE").is_some_and(|kind| kind != "open_session") {
        return Ok(Output::silent(global));
    }
    let user = std::env::var("PAM_USER").map_err(|_| LoginError::NotFromPam)?;
    let name = || Foreign::from(user.as_str());
    // Whatever is wrong with shaper, root logs in, and can mend it.
    if user == "root" {
        return Ok(Output::silent(global));
    }
    let (mut session, request) = scope::session(global, file, options)?;
    // Whose session it is no container's name says, and somebody waits for the login.
    session.engines.may_be_asked = false;
    apply::may_change(&session.kernel)?;
    let wait = global.wait.min(PATIENCE);
    let Some((owner, uid)) = owner_with_class(&mut session, request, &user, wait)? else {
        return Ok(Output::silent(global));
    };
    let gone = || RunError::ClassGone(name());
    let instance = session.kernel.instance().ok_or_else(gone)?;
    let locked = instance.lock(wait)?;
    let (claims, _) = instance.observe()?;
    let classid = *claims.get(&Claim::Owner(owner.clone())).ok_or_else(gone)?;
    let claim = match instance.places() {
        true => run::pin(&locked, &claims, owner, classid)?,
        false => Claim::Owner(owner),
    };
    if nix::unistd::getppid() != caller || caller.as_raw() <= 1 {
        return Err(LoginError::SessionEnded(name()).into());
    }
    let caller = caller.as_raw().cast_unsigned();
    match instance.attach(caller, &claim)? {
        Attached::Moved | Attached::Counted => {}
        came_of_it => return Err(LoginError::NotPlaced { user: name(), came_of_it }.into()),
    }
    let (proc_root, mut handover) = (&session.kernel.proc_root, Handover::default());
    if let Some(process) = process::read_one(proc_root, caller)? {
        handover.look_at_session(proc_root, &process, uid);
    }
    if let Some(why) = handover.give().refused {
        log::warn!("the connection that the session came by stays root's: {why}");
    }
    Ok(Output::silent(global))
}

/// The owner of the class that the account's session belongs in, and the account's uid. The class
/// is made if there is none yet. `None`: nobody claims the account.
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
        return Err(LoginError::NoAccount(user.into()).into());
    };
    let about_him = Question { running: [uid].into(), ..Question::default() };
    let him = ask(about_him, user)?;
    known.subuids.name_owners(&him.by_uid);
    known.by_uid.extend(him.by_uid);
    known.subuids.learn(him.subuids.into());
    // The account counts as one that has a process already; whoever else has a class keeps it.
    known.running = [uid].into();
    request.who = Who::Known { accounts: Box::new(known), processes: false };
    request.intent.leaving = Leaving::These(BTreeSet::new());
    let mut meaning = session.look(&request)?.meaning;
    let accounts = &meaning.facts().accounts;
    let claimed = meaning.model.matcher.claim(uid, None, accounts);
    let Some(owner) = claimed.map(|claimed| claimed.owner()) else { return Ok(None) };
    let (claims, _) = instance.observe()?;
    if claims.contains_key(&Claim::Owner(owner.clone())) {
        return Ok(Some((owner, uid)));
    }
    // Without names the guests' links would seem to be to be changed.
    if session.engines.known.due().is_some() {
        session.engines.may_be_asked = true;
        meaning = session.look(&request)?.meaning;
    }
    let (plan, _) = session.plan(&request.intent, &mut meaning)?;
    if let Some(Planned { step, .. }) = plan.steps.iter().find(|planned| !planned.routine) {
        return Err(LoginError::MoreToDo(Box::new(step.clone())).into());
    }
    let may = ApplyOptions { wait, quiet: None, repair: true, ..ApplyOptions::default() };
    apply::apply(session, request, may, &mut apply::unless_interrupted)?;
    Ok(Some((owner, uid)))
}

/// A name service that hangs must not keep anybody from logging in.
fn ask(question: Question, user: &str) -> Result<Accounts, Failure> {
    let unknown = |why| Unknown { user: user.into(), why };
    let accounts = question.ask(Limit::Whole(NSS)).map_err(|why| unknown(why.to_string()))?;
    match &accounts.unavailable {
        Some(why) => Err(unknown(why.clone()).into()),
        None => Ok(accounts),
    }
}

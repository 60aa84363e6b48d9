//! What the daemon does before it takes events: it finds out who runs, and applies its policy.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::applied::log_of;
use super::last_good;
use super::names::{LIMIT, unanswered, warn_of_gaps};
use super::shaping;
use super::standing::Standing;
use crate::accounts::{Limit, Question};
use crate::apply::{self, Applied, ApplyOptions, Request, Session, Who};
use crate::facts::Accounts;
use crate::failure::Failure;
use crate::host::Kernel;
use crate::intent::{Intent, NoneFits};
use crate::policy::Policy;
use crate::process;
use crate::sys::signal;

/// The outcome of the first apply.
pub(super) struct First {
    /// The state in force; `None`: the apply did not come to rest.
    pub standing: Option<Standing>,
    pub accounts: Accounts,
    /// See [`Applied::postponed`].
    pub postponed: bool,
    /// The warnings that were logged.
    pub said: Vec<String>,
}

/// Applies the policy; where it is refused, or holds on none of the links, the last good one; where
/// that is refused too, the policy again, which may then wait for a link that is fit for it.
pub(super) fn apply(
    session: &mut Session,
    intent: Intent,
    kept: Option<&Path>,
    how: (Duration, bool),
) -> Result<First, Failure> {
    let mut one = |policy, none_fits| {
        let mut intent = Intent { policy, ..intent.clone() };
        intent.options.none_fits = none_fits;
        apply_one(session, intent, how)
    };
    let policy = Arc::clone(&intent.policy);
    let refusal = match one(Arc::clone(&policy), NoneFits::Refused) {
        Err(refusal @ Failure::Policy(_)) => refusal,
        first => return first,
    };
    if let Some(good) = last_good::other_than(&policy, kept) {
        match one(Arc::new(good), NoneFits::Refused) {
            Err(Failure::Policy(_)) => {}
            first => {
                last_good::say(&refusal, kept);
                return first;
            }
        }
    }
    one(policy, NoneFits::RefusedUnlessTheirs)
}

/// The first apply, of what is wanted. `learns`: it is all that is wanted, so that it waits for
/// what another one would do.
fn apply_one(
    session: &mut Session,
    mut intent: Intent,
    (wait, learns): (Duration, bool),
) -> Result<First, Failure> {
    let mut accounts = who_runs(&session.kernel, &intent.policy)?;
    signal::catch();
    // A link that is absent or unfit keeps no other from being shaped, and is shaped when it is
    // fit.
    intent.options.absent_links = true;
    let none_fits = std::mem::take(&mut intent.options.none_fits);
    let who = Who::Known { accounts: Box::new(accounts.clone()), processes: true };
    let mut request = Request { who, ..Request::from(intent.clone()) };
    request.intent.options.none_fits = none_fits;
    let may = ApplyOptions { wait, learns, quiet: None, ..ApplyOptions::default() };
    let applied = apply_once_unlocked(session, &request, may)?;
    let said = log_of(&applied, &intent.policy.source);
    said.iter().for_each(|line| log::warn!("{line}"));
    if let Some(in_force) = &applied.in_force {
        accounts.running.clone_from(&in_force.accounts.running);
        accounts.running_ranges.clone_from(&in_force.accounts.running_ranges);
    }
    let postponed = applied.postponed;
    let standing = applied.in_force.map(|in_force| Standing::new(intent, in_force));
    Ok(First { standing, accounts, postponed, said })
}

/// The accounts that run now, and those that the policy names.
fn who_runs(kernel: &Kernel, policy: &Policy) -> Result<Accounts, Failure> {
    let scan = process::scan(&kernel.proc_root).map_err(Failure::refused)?;
    let mut question = Question::of(policy);
    question.running = process::running_uids(&scan.processes, &kernel.view()?);
    Ok(ask(question))
}

/// Applies; where a change waits to be confirmed, only once that is over.
fn apply_once_unlocked(
    session: &mut Session,
    request: &Request,
    may: ApplyOptions,
) -> Result<Applied, Failure> {
    let mut said = false;
    loop {
        match apply::apply(session, request.clone(), may, &mut apply::unless_interrupted) {
            Err(Failure::Locked(why)) if signal::caught().is_none() => {
                if !said {
                    log::warn!("waiting: {why}");
                    said = true;
                }
                std::thread::sleep(shaping::LOCKED);
            }
            done => return done,
        }
    }
}

/// Waits for the answer.
fn ask(question: Question) -> Accounts {
    let files = question.clone();
    match question.ask(Limit::Whole(LIMIT)) {
        Ok(accounts) => {
            warn_of_gaps(&accounts);
            accounts
        }
        Err(why) => {
            let mut accounts = why.accounts(files);
            unanswered(&mut accounts, &why);
            accounts
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::threads::alone;
    use std::collections::BTreeSet;

    #[test]
    fn nss_is_asked_by_a_child() {
        let question = Question { running: BTreeSet::from([0]), ..Question::default() };
        alone(|| {
            let accounts = ask(question);
            assert_eq!(accounts.by_uid[&0].name, "root");
            assert_eq!(accounts.running, BTreeSet::from([0]));
            assert_eq!(accounts.unavailable, None);
        });
    }
}

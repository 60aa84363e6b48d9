//! What the daemon does before it hears anything: it finds out who runs, and applies its policy.

use std::time::Duration;

use super::{applying, names, shaping};
use crate::accounts::Question;
use crate::apply::{self, Applied, ApplyOptions, Request, Session, Who};
use crate::facts::Accounts;
use crate::failure::Failure;
use crate::host::Kernel;
use crate::intent::Intent;
use crate::policy::Policy;
use crate::process;
use crate::sys::signal;

/// Who runs now, and who they and the policy's names are.
pub(super) fn who_runs(kernel: &Kernel, policy: &Policy) -> Result<Accounts, Failure> {
    let scan = process::scan(&kernel.proc_root).map_err(Failure::refused)?;
    let mut question = Question::of(policy);
    question.running = process::running_uids(&scan.processes, &kernel.view()?);
    Ok(names::ask_first(question))
}

/// The first apply. A change that waits to be confirmed is waited for.
pub(super) fn apply(
    session: &mut Session,
    intent: &Intent,
    accounts: &mut Accounts,
    wait: Duration,
) -> Result<Applied, Failure> {
    let may = ApplyOptions { wait, quiet: None, ..ApplyOptions::default() };
    let mut said = false;
    loop {
        let who = Who::Known { accounts: accounts.clone(), processes: true };
        let request = Request { who, ..Request::from(intent.clone()) };
        match apply::apply(session, request, may, &mut apply::unless_interrupted) {
            Ok(applied) => {
                applying::log_of(&applied).iter().for_each(|line| log::warn!("{line}"));
                if let Some(in_force) = &applied.in_force {
                    accounts.running.clone_from(&in_force.accounts.running);
                    accounts.running_ranges.clone_from(&in_force.accounts.running_ranges);
                }
                return Ok(applied);
            }
            Err(Failure::Locked(why)) if signal::caught().is_none() => {
                if !said {
                    log::warn!("waiting: {why}");
                    said = true;
                }
                std::thread::sleep(shaping::LOCKED);
            }
            Err(failure) => return Err(failure),
        }
    }
}

//! Moving every process into the directory of its class.

use super::session::Session;
use crate::facts::Accounts;
use crate::failure::Failure;
use crate::model::Model;
use crate::process::{self, Placement, Seen, Verdict};

/// Moves every process to the directory that the model has for it.
pub fn place(session: &Session, model: &Model, accounts: &Accounts) -> Result<Placement, Failure> {
    place_seen(session, model, accounts, None)
}

/// As [`place`]; `seen`: an earlier look at all processes.
pub(super) fn place_seen(
    session: &Session,
    model: &Model,
    accounts: &Accounts,
    seen: Option<Seen>,
) -> Result<Placement, Failure> {
    let Some(instance) = session.kernel.instance() else { return Ok(Placement::default()) };
    let view = session.kernel.view()?;
    instance.note_namespace(session.kernel.netns)?;
    let decide = |process: &process::Process| {
        let decision = session.kernel.decide(process, &model.matcher, accounts, &view);
        Verdict { decision, acts_for: process::acts_for(process, &model.matcher) }
    };
    Ok(process::place_seen(&session.kernel.proc_root, &instance, seen, decide)?)
}

//! The last good policy: kept as soon as it is in force, and in force again where the file is
//! refused, or cannot be read, at a start.

use std::path::Path;

use crate::apply;
use crate::failure::Failure;
use crate::policy::{Policy, Source};

/// Keeps the policy that is in force; what cannot be kept is a warning.
pub(super) fn keep(source: &Source, path: Option<&Path>) {
    let kept = path.map(|path| (path, apply::keep(source, path)));
    if let Some((path, Err(error))) = kept {
        log::warn!(
            "{} cannot be written ({error}): after a start with a policy that is refused nothing would be shaped",
            path.display()
        );
    }
}

/// The policy that was in force last, if it is another one than this.
pub(super) fn other_than(policy: &Policy, path: Option<&Path>) -> Option<Policy> {
    match apply::read_kept(path?) {
        Ok(kept) => Some(kept).filter(|kept| kept.source != policy.source),
        Err(why) => {
            log::warn!("there is no last good policy: {}", why.message());
            None
        }
    }
}

/// Says that the last good policy is in force, and why.
pub(super) fn say(refusal: &Failure, path: Option<&Path>) {
    let path = path.map(Path::display).into_iter();
    log::error!(
        "the policy is refused, and the last good one{} is in force until it is mended: {}",
        path.map(|path| format!(" ({path})")).collect::<String>(),
        refusal.message()
    );
}

/// The policy that was in force last, in the place of one that is refused; the refusal, where there
/// is none.
///
/// # Errors
/// `refusal`.
pub fn instead(refusal: Failure, path: Option<&Path>) -> Result<Policy, Failure> {
    let Some(path) = path else { return Err(refusal) };
    match apply::read_kept(path) {
        Ok(policy) => {
            say(&refusal, Some(path));
            Ok(policy)
        }
        Err(why) => {
            log::warn!("there is no last good policy: {}", why.message());
            Err(refusal)
        }
    }
}

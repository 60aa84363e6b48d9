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

/// The policy that was in force last, in the place of one that is refused; the refusal, where there
/// is none.
///
/// # Errors
/// `refusal`.
pub fn instead(refusal: Failure, path: Option<&Path>) -> Result<Policy, Failure> {
    let Some(path) = path else { return Err(refusal) };
    match apply::read_kept(path) {
        Ok(policy) => {
            log::error!(
                "the policy is refused, and the last good one ({}) is in force until it is mended: {}",
                path.display(),
                refusal.message()
            );
            Ok(policy)
        }
        Err(why) => {
            log::warn!("there is no last good policy: {}", why.message());
            Err(refusal)
        }
    }
}

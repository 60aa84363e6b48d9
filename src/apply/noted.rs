//! The note of the policy that is in force, for who asks later what is.

use std::time::SystemTime;

use crate::cgroup::{Locked, PolicyNote};
use crate::policy::Policy;

/// `loginuid` of a process that nobody's login started (kernel/auditsc.c, `AUDIT_UID_UNSET`).
const NOBODY: u32 = u32::MAX;

/// Notes that the policy, whose text has this hash, is in force. That it cannot be noted is no
/// failure of the run.
pub(super) fn note(locked: &Locked, policy: &Policy, hash: u64) {
    let file = policy.source.file();
    let file = match file {
        "-" => file.to_string(),
        // Without the working directory the name is as good as can be had.
        file => std::path::absolute(file)
            .map_or_else(|_| file.to_string(), |path| path.to_string_lossy().into_owned()),
    };
    let login = std::fs::read_to_string("/proc/self/loginuid").ok();
    let login = login.and_then(|text| text.trim().parse().ok()).filter(|uid| *uid != NOBODY);
    let by = login.unwrap_or_else(|| nix::unistd::getuid().as_raw());
    let note = PolicyNote { file, hash, since: SystemTime::now(), by };
    if let Err(error) = locked.note_policy(&note) {
        log::debug!("the policy in force cannot be noted: {error}");
    }
}

/// Notes again what was noted before a change that is taken back.
pub(super) fn note_again(locked: &Locked, before: Option<&PolicyNote>) {
    let noted = match before {
        Some(before) => locked.note_policy(before),
        None => locked.forget_policy(),
    };
    if let Err(error) = noted {
        log::debug!("the policy in force cannot be noted: {error}");
    }
}

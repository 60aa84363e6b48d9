//! What the daemon makes of a file that was written for it.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::cgroup::{Condition, Instance};
use crate::failure::Failure;
use crate::host::Kernel;
use crate::sys::signal;

/// Between two looks.
const TURN: Duration = Duration::from_millis(50);
/// How long the daemon may take: it waits until the file has stayed the same, and for NSS.
const PATIENCE: Duration = Duration::from_secs(30);

/// For how long there is no daemon once it has ended: one that systemd starts again, after 5 s
/// (`RestartSec`), is back by then.
const GONE: Duration = Duration::from_secs(10);

/// What became of a policy that was written for the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    IsInForce,
    /// No daemon is there any more to take it.
    ByNobody,
}

/// Waits until the policy whose text has this hash is in force, or there is no daemon.
///
/// # Errors
/// The daemon refuses it, or has not taken it in time; a signal came, which is caught.
pub(super) fn taken(kernel: &Kernel, hash: u64) -> Result<Taken, Failure> {
    let mut seen = Instant::now();
    let until = Instant::now() + PATIENCE;
    let condition = |instance: &Instance| instance.condition().ok().flatten();
    let before = kernel.instance().as_ref().and_then(condition);
    loop {
        let Some(instance) = kernel.instance() else {
            return Err(Failure::refused("nothing is shaped here any more: was shaper clear run?"));
        };
        if instance.policy().is_some_and(|note| note.hash == hash) {
            return Ok(Taken::IsInForce);
        }
        if instance.keeper()?.is_some() {
            seen = Instant::now();
        } else if seen.elapsed() > GONE {
            return Ok(Taken::ByNobody);
        }
        let now = condition(&instance);
        let is_no = now.as_ref().is_some_and(|now| is_no(before.as_ref(), now));
        if is_no || Instant::now() > until {
            return Err(Failure::refused(no(now.as_ref())));
        }
        if let Some(signal) = signal::caught() {
            let message = format!("interrupted by signal {signal}");
            return Err(Failure::Interrupted { signal, message });
        }
        sleep(TURN);
    }
}

/// Whether the daemon has come to refuse since.
fn is_no(before: Option<&Condition>, now: &Condition) -> bool {
    matches!(now.word.as_str(), "refusing" | "failing") && before != Some(now)
}

fn no(condition: Option<&Condition>) -> String {
    match condition {
        Some(Condition { word, why: Some(why), .. }) => format!("the daemon is {word}: {why}"),
        Some(Condition { word, why: None, .. }) => {
            format!("the daemon has not taken it so far, and is {word}; see: shaper status")
        }
        None => "the daemon has not taken it so far; see: shaper status".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    #[test]
    fn a_refusal_from_before_says_nothing_of_the_new_text() {
        let condition = |word: &str, why: &str| Condition {
            word: word.to_string(),
            why: Some(why.to_string()),
            since: UNIX_EPOCH,
        };
        let refusing = condition("refusing", "p.yaml:1:1: no");
        assert!(!is_no(Some(&refusing), &refusing));
        assert!(is_no(Some(&refusing), &condition("refusing", "p.yaml:2:1: no")));
        assert!(is_no(None, &refusing));
        assert!(is_no(Some(&condition("idle", "")), &condition("failing", "busy")));
        assert!(!is_no(None, &condition("adopting", "")));
    }
}

//! How NSS answers.

use std::time::Duration;

use super::check::Check;
use crate::text::shown;

/// How NSS answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// How long one look-up took that went through all of NSS's sources; `None`: no answer came.
    pub one: Option<Duration>,
    /// Why there is no answer, or not a whole one.
    pub unavailable: Option<String>,
    /// How many names and uids the policy and the processes here ask for.
    pub asked: usize,
}

/// What a look-up may take: of a thousand names, `apply` would wait this long a thousand times.
const SLOW: Duration = Duration::from_millis(20);

impl Names {
    /// Whether so long is too long for one look-up.
    pub fn is_slow(one: Duration) -> bool {
        one > SLOW
    }
}

pub(super) fn check(names: &Names) -> Check {
    let Names { one, unavailable, asked } = names;
    let why = unavailable.as_deref().map(|why| shown(why).to_string()).unwrap_or_default();
    let cure = "see whether the directory's client is well (systemctl status sssd nslcd; `getent passwd NAME`); the daemon, and `apply --skip-unknown`, go on without it";
    match (one, unavailable) {
        (None, _) => Check::error("nss", format!("NSS does not say who accounts are: {why}"), cure),
        (Some(_), Some(_)) => Check::warning(
            "nss",
            format!("of {asked} names and uids NSS did not say all: {why}"),
            cure,
        ),
        (Some(one), None) if Names::is_slow(*one) => Check::warning(
            "nss",
            format!("NSS takes {} ms for a name that no file has", one.as_millis()),
            "have it answered nearby: a cache (nscd, sssd), or a directory server that is nearer",
        ),
        (Some(one), None) => {
            Check::ok("nss", format!("NSS answers within {} ms", one.as_millis() + 1))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::State;
    use super::*;

    #[test]
    fn names_are_known_slowly_in_part_or_not_at_all() {
        let ms = |ms| Some(Duration::from_millis(ms));
        let why = || Some("no answer within 1 s".to_string());
        for (one, unavailable, state) in [
            (ms(1), None, State::Ok),
            (ms(80), None, State::Warning),
            (ms(1), why(), State::Warning),
            (None, why(), State::Error),
        ] {
            let check = check(&Names { one, unavailable, asked: 3 });
            assert_eq!(check.state, state, "{check:?}");
        }
    }
}

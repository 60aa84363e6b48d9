//! Two lines of `users` that claim the same.

use crate::policy::{Diagnostic, Kind, Policy, Span, quote};

pub(super) fn user_name(policy: &Policy, user: usize) -> String {
    policy.users.get(user).map_or_else(String::new, |line| quote(line.key.value.as_str()))
}

/// Two lines claim the same thing; the later place comes first.
pub(super) fn twice(policy: &Policy, what: &str, a: (usize, Span), b: (usize, Span)) -> Diagnostic {
    let (first, second) = if a.1 < b.1 { (a, b) } else { (b, a) };
    let (one, other) = (user_name(policy, first.0), user_name(policy, second.0));
    Diagnostic::error(Kind::Claim, second.1, format!("{what} is claimed by {one} and by {other}"))
        .label(format!("for {other}"))
        .also(first.1, format!("for {one}"))
        .help("a process can be in one class only: remove it from one of the two lines")
}

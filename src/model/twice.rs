//! Two lines of `users` that claim the same.

use super::positions::UserAt;
use crate::policy::{Diagnostic, Kind, Policy, Span, quote};

pub(super) fn user_name(policy: &Policy, user: UserAt) -> String {
    quote(user.line(policy).key.value.as_str())
}

/// Two lines claim the same thing; the later place comes first.
pub(super) fn twice(
    policy: &Policy,
    what: &str,
    a: (UserAt, Span),
    b: (UserAt, Span),
) -> Diagnostic {
    let (first, second) = if a.1 < b.1 { (a, b) } else { (b, a) };
    let (one, other) = (user_name(policy, first.0), user_name(policy, second.0));
    Diagnostic::error(Kind::Claim, second.1, format!("{what} is claimed by {one} and by {other}"))
        .label(format!("for {other}"))
        .also(first.1, format!("for {one}"))
        .help("a process can be in one class only: remove it from one of the two lines")
}

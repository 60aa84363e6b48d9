//! Who a line stands for, where that is one uid: the uid, with its account's name as far as it is
//! known. What was used follows them, whatever the line is called. Pure.

use crate::tree::Owner;

/// `2001 ann`, or `2001`.
pub fn person(uid: u32, account: Option<&str>) -> String {
    match account {
        Some(account) => format!("{uid} {account}"),
        None => uid.to_string(),
    }
}

/// Its parts.
fn parts(person: &str) -> (&str, Option<&str>) {
    person.split_once(' ').map_or((person, None), |(uid, account)| (uid, Some(account)))
}

/// The uid, as text.
pub(super) fn uid(person: &str) -> &str {
    parts(person).0
}

/// Whether a line that stands for one of them may have become a line for the other: an account that
/// has another's uid is another.
pub(super) fn may_be_one(one: &str, other: &str) -> bool {
    let ((uid, account), (its_uid, its_account)) = (parts(one), parts(other));
    uid == its_uid && account.zip(its_account).is_none_or(|(account, its)| account == its)
}

/// Whether an owner's account that has the name `known` is another's than the one with `name`. A
/// line goes by its uid, since its own name is a part of it; a uid by its account's name.
pub(super) fn is_another(owner: &Owner, known: &str, name: &str) -> bool {
    match owner {
        Owner::User(_) => uid(known) != uid(name),
        _ => known != name,
    }
}

/// Whether the name says more than the one that is known.
pub(super) fn is_news(owner: &Owner, known: Option<&str>, name: &str) -> bool {
    let Some(known) = known else { return true };
    let says_less = matches!(owner, Owner::User(_))
        && known.strip_prefix(name).is_some_and(|it| it.starts_with(' '));
    known != name && !says_less
}

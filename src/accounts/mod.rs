//! Accounts and groups, as NSS has them (files, LDAP, SSSD, systemd), and `/etc/subuid`. NSS is
//! asked about names and uids one by one and never for a list, which for 100,000 accounts in a
//! directory would stall; only `/etc/passwd` is read as a whole. All questions go through
//! [`asking`].

pub mod asking;
mod files;
mod lookup;
mod question;
mod subuid;

pub use asking::Limit;
pub use question::Question;
pub use subuid::{SubuidLine, SubuidOwner, parse_subuid};

/// The file of subordinate uids (subuid(5)).
pub const SUBUID: &str = "/etc/subuid";

//! Accounts and groups, as NSS has them (files, LDAP, SSSD, systemd), and `/etc/subuid`. Asks for
//! names and uids one by one and never enumerates: a directory of 100,000 accounts would stall.
//! Only the local file is read as a whole. Reads only. [`asking`] is the one door.

pub mod asking;
mod files;
mod lookup;
mod question;
mod subuid;

pub use asking::How;
pub use question::Question;
pub use subuid::{SubuidLine, SubuidOwner, parse_subuid};

/// Where subordinate uids are kept (subuid(5)).
pub const SUBUID: &str = "/etc/subuid";

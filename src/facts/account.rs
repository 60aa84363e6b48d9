//! One account.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// An account as NSS has it; its uid is the key under which it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The account's name; of several accounts with one uid, the one with which NSS answers.
    pub name: String,
    /// The gids of the account's groups, primary and supplementary.
    pub gids: BTreeSet<u32>,
}

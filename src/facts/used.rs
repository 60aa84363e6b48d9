//! What owners with a quota have used. Touches nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::quota::Account;
use crate::times::Timestamp;
use crate::tree::Owner;

/// The use of owners with a quota; empty where the policy has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// By owner; who has none has used nothing.
    pub accounts: Arc<BTreeMap<Owner, Account>>,
    /// The moment for which quotas are judged, where that is another one than the clock's: a clock
    /// that is before the time of the use is wrong.
    pub time: Option<Timestamp>,
    /// Why it cannot be read; `None`: it was read, or nobody wants it.
    pub unread: Option<String>,
}

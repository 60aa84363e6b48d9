//! Counts that are not kept: a policy that is not in force has said in them whose use is whose.

use super::{Ledger, LedgerError};

impl Ledger {
    /// Forgets what was counted and is not written. The book is the file's then, and the next count
    /// goes on from the readings there: no byte is lost of a class that still stands.
    ///
    /// # Errors
    /// The file cannot be read now; then it is read before anything is counted, or written, again.
    pub fn forget(&mut self) -> Result<(), LedgerError> {
        // As if nothing of it was read.
        self.length = 0;
        self.refresh().map(drop)
    }
}

//! u32 hash tables that a deleted pref left behind.

use std::time::Duration;

use nix::errno::Errno;

use super::failed::Cause;
use crate::netlink::extack::KernelError;
use crate::netlink::request::filter;
use crate::plan::LeftTables;
use crate::sys::route::Netlink;
use crate::tree::Pref;

/// How long the kernel may take to free the keys of a u32 pref that was deleted; 20 ms are usual.
const KEYS_ARE_FREED: Duration = Duration::from_secs(5);
/// The pause before the kernel is asked again.
const AGAIN: Duration = Duration::from_millis(5);

/// Tables whose last link went a moment ago are still in use, and so, when they have gone, are
/// those that they led to: asked again and again. A pref's first table goes last: it tells of
/// the others, if this run ends here.
pub(super) fn delete(netlink: &mut Netlink, device: u32, left: &LeftTables) -> Result<(), Cause> {
    let LeftTables { tables, through, protocol } = left;
    let is_first = |table: &u16| Pref::RULES.iter().any(|pref| pref.tables().start == *table);
    let (mut left, mut pause) = (tables.clone(), Duration::ZERO);
    while !left.is_empty() {
        let mut busy = None;
        let mut still = Vec::new();
        // Unless somebody's link leads from it to another.
        let keep_first = pause < KEYS_ARE_FREED / 10 && !left.iter().all(is_first);
        for table in &left {
            if keep_first && is_first(table) {
                still.push(*table);
                continue;
            }
            let request = filter::delete_table(device, *through, *protocol, *table);
            match netlink.change(&request)? {
                // One that the kernel numbered was the pref's own, and went with it.
                Ok(_) | Err(KernelError { errno: Errno::ENOENT, .. }) => {}
                Err(error) if error.errno == Errno::EBUSY => {
                    still.push(*table);
                    busy = Some(error);
                }
                Err(error) => return Err(Cause::Kernel(error)),
            }
        }
        if still.len() < left.len() {
            pause = Duration::ZERO;
        } else if let Some(error) = busy.filter(|_| pause > KEYS_ARE_FREED) {
            return Err(Cause::Kernel(error));
        } else {
            std::thread::sleep(AGAIN);
            pause += AGAIN;
        }
        left = still;
    }
    Ok(())
}

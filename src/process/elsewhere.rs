//! Processes in other network namespaces than the links' own.

use std::fs;
use std::path::Path;

use super::Process;
use super::scan::{Listing, Reader, namespace};
use crate::cgroup::Error;
use crate::sys::threads::in_parts;

/// All living processes that are in another network namespace than the one with this inode. One
/// link of each process of the host is read, and all of a process only where that leads elsewhere.
///
/// # Errors
/// `/proc` cannot be listed. A process that cannot be read is left out.
pub fn elsewhere(proc_root: &Path, own: u64) -> Result<Vec<Process>, Error> {
    let is_elsewhere = |pid: u32| {
        let link = fs::read_link(proc_root.join(format!("{pid}/ns/net")));
        link.ok().and_then(|link| namespace(&link)).is_some_and(|inode| inode != own)
    };
    let read = |pids: &[u32]| {
        let mut reader = Reader::default();
        let others = pids.iter().filter(|pid| is_elsewhere(**pid));
        let read = others.filter_map(|pid| reader.process(proc_root, *pid).ok().flatten());
        read.filter(Process::is_alive).collect::<Vec<_>>()
    };
    let mut found = Vec::new();
    for pids in Listing::open(proc_root)? {
        found.extend(in_parts(&pids?, read).into_iter().flatten());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_is_in_no_other_namespace() {
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        let own = namespace(&own).unwrap();
        let is_ours = |process: &Process| process.pid == std::process::id();
        assert!(!elsewhere(Path::new("/proc"), own).unwrap().iter().any(is_ours));
        let all = elsewhere(Path::new("/proc"), own + 1).unwrap();
        assert_eq!(all.iter().find(|it| is_ours(it)).unwrap().netns, Some(own));
    }
}

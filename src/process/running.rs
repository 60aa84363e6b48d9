//! Which uids run processes, by a walk over `/proc` in turns: a look at 10,000 processes takes a
//! tenth of a second on a machine that does nothing else, and seconds on one that is busy.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::scan::{Listing, Reader};
use super::view::{InstanceView, running_uids};
use crate::cgroup::Error;

/// How many processes are read in one turn: some milliseconds.
const TURN: usize = 256;

/// A walk over all processes that is not at its end yet. A process that lives all the while is
/// seen; one that is born meanwhile, or becomes another user's, may not be.
pub struct Running {
    proc_root: PathBuf,
    pids: Listing,
    uids: BTreeSet<u32>,
}

impl Running {
    /// Before the first process.
    ///
    /// # Errors
    /// As [`super::scan()`].
    pub fn begin(proc_root: &Path) -> Result<Running, Error> {
        let pids = Listing::open(proc_root)?;
        Ok(Running { proc_root: proc_root.to_path_buf(), pids, uids: BTreeSet::new() })
    }

    /// Reads the next processes; once all are read, the real uids of those that live and that the
    /// instance may claim.
    ///
    /// # Errors
    /// As [`super::scan()`].
    pub fn turn(&mut self, instance: &InstanceView) -> Result<Option<&BTreeSet<u32>>, Error> {
        let Some(pids) = self.pids.part(TURN) else { return Ok(Some(&self.uids)) };
        let mut reader = Reader::default();
        for pid in pids? {
            let process = reader.process(&self.proc_root, pid)?;
            self.uids.extend(running_uids(process.as_slice(), instance));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn in_turns_each_uid_is_found_whose_process_the_instance_may_claim() {
        let proc = tempfile::tempdir().unwrap();
        for pid in 1..=1_000_u32 {
            let folder = proc.path().join(pid.to_string());
            fs::create_dir_all(folder.join("ns")).unwrap();
            let (uid, netns) = (1_000 + pid / 2, if pid % 100 == 0 { 2 } else { 1 });
            let state = if pid == 42 { 'Z' } else { 'S' };
            let stat = format!("{pid} (a) {state} 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 9 0 0");
            fs::write(folder.join("stat"), stat).unwrap();
            let uids = format!("Name:\ta\nPPid:\t1\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n");
            fs::write(folder.join("status"), uids).unwrap();
            fs::write(folder.join("cgroup"), "0::/\n").unwrap();
            symlink(format!("net:[{netns}]"), folder.join("ns/net")).unwrap();
        }
        let (name, others) = ("shaper".to_string(), BTreeMap::from([(2, "shaper-2".to_string())]));
        let view = InstanceView { name, netns: 1, host: Some(1), others, places: false };
        let mut running = Running::begin(proc.path()).unwrap();
        let mut turns = 1;
        while running.turn(&view).unwrap().is_none() {
            turns += 1;
        }
        assert!(turns >= 1_000 / TURN, "{turns}");
        let whole = super::super::scan(proc.path()).unwrap();
        assert_eq!(running.uids, running_uids(&whole.processes, &view));
        // Each uid has two processes, but for the first, of which one is another's.
        assert_eq!(running.uids.len(), 501 - usize::from(!running.uids.contains(&1_500)));
    }
}

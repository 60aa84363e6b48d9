//! How many processes are in each directory of the instance, by one walk over `/proc`: where more
//! owners have directories than processes run, that takes less than a look into each.

use std::collections::BTreeMap;
use std::path::Path;

use super::parse::net_cls_path;
use super::scan::{Listing, Reader};
use super::view::{InstanceView, Seat, seat};
use crate::cgroup::Error;
use crate::tree::Claim;

/// How many processes each claim's directory has; a claim that is not named has none. `None`: more
/// than `most` processes run.
///
/// # Errors
/// As [`super::scan()`].
pub fn inhabited(
    proc_root: &Path,
    instance: &InstanceView,
    most: usize,
) -> Result<Option<BTreeMap<Claim, usize>>, Error> {
    let mut pids = Vec::new();
    for listed in Listing::open(proc_root)? {
        pids.extend(listed?);
        if pids.len() > most {
            return Ok(None);
        }
    }
    let mut by_path: BTreeMap<String, usize> = BTreeMap::new();
    let mut reader = Reader::default();
    for pid in pids {
        reader.net_cls(proc_root, pid, |path| match by_path.get_mut(path) {
            Some(count) => *count += 1,
            None => drop(by_path.insert(path.to_string(), 1)),
        })?;
    }
    let claims = by_path.into_iter().filter_map(|(path, count)| match seat(&path, instance) {
        Seat::Ours(Some(claim)) => Some((claim, count)),
        _ => None,
    });
    Ok(Some(claims.collect()))
}

impl Reader {
    /// Tells the directory in the `net_cls` hierarchy of one process, if it lives and there is such
    /// a hierarchy.
    fn net_cls(
        &mut self,
        proc_root: &Path,
        pid: u32,
        tell: impl FnOnce(&str),
    ) -> Result<(), Error> {
        let folder = proc_root.join(pid.to_string());
        let Some(text) = self.of_living(&folder.join("cgroup"))? else { return Ok(()) };
        match net_cls_path(text) {
            // Here is, too, what lives on after its main thread.
            Some("/") => {
                let membership = self.of_other_thread(&folder)?;
                if let Some(path) = membership.and_then(|it| it.net_cls) {
                    tell(&path);
                }
            }
            Some(path) => tell(path),
            None => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn view() -> InstanceView {
        let (name, others) = ("shaper".to_string(), BTreeMap::new());
        InstanceView { name, netns: 1, host: Some(1), others, places: true }
    }

    #[test]
    fn each_directory_has_the_processes_that_are_in_it() {
        let proc = tempfile::tempdir().unwrap();
        let task = |folder: &str, state: char, threads: u32, cgroup: &str| {
            let folder = proc.path().join(folder);
            fs::create_dir_all(&folder).unwrap();
            let stat = format!("7 (a) {state} 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 {threads} 0 9 0 0");
            fs::write(folder.join("stat"), stat).unwrap();
            fs::write(folder.join("cgroup"), cgroup).unwrap();
        };
        task("7", 'S', 1, "9:cpu:/x\n5:net_cls,net_prio:/shaper/user/bob\n0::/y\n");
        task("8", 'S', 3, "5:net_prio,net_cls:/shaper/user/bob\n");
        task("9", 'S', 1, "5:net_cls:/shaper/user/bob/pinned\n");
        task("10", 'S', 1, "5:net_cls:/shaper/user/bob/theirs\n");
        task("11", 'S', 1, "5:net_cls:/shaper-7/user/bob\n");
        task("12", 'S', 1, "5:net_cls:/\n");
        task("13", 'Z', 1, "5:net_cls:/\n");
        // The main thread of this one has ended.
        task("14", 'Z', 2, "5:net_cls:/\n");
        task("14/task/14", 'Z', 2, "5:net_cls:/\n");
        task("14/task/15", 'S', 2, "5:net_cls:/shaper/uid/1000\n");
        task("15", 'S', 1, "0::/\n");
        fs::create_dir(proc.path().join("16")).unwrap();
        let found = inhabited(proc.path(), &view(), 100).unwrap().unwrap();
        let found: Vec<(String, usize)> =
            found.into_iter().map(|(claim, count)| (claim.to_string(), count)).collect();
        let wanted = [("user/bob", 2), ("uid/1000", 1), ("user/bob/pinned", 1)];
        assert_eq!(found, wanted.map(|(claim, count)| (claim.to_string(), count)));
        assert_eq!(inhabited(proc.path(), &view(), 3).unwrap(), None);
    }
}

//! One pass over `/proc`. Reads only; processes that end meanwhile are left out.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::unistd::geteuid;

use super::parse::{
    Identity, Membership, Stat, Uids, parse_cgroup, parse_identity, parse_stat, parse_uids,
};
use super::{Process, proxy};
use crate::cgroup::Error;
use crate::sys::threads::in_parts;

/// The processes that one pass over `/proc` saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// The processes that were read, by pid.
    pub processes: Vec<Process>,
    /// How many listed processes had ended before they could be read. Their children may not have
    /// been listed.
    pub vanished: u32,
    /// The newest pid before the pass began.
    pub newest: Option<u32>,
}

impl Scan {
    /// The same pass, as it would be with a newly mounted `net_cls` hierarchy: all processes are in
    /// its root.
    pub fn in_new_hierarchy(mut self) -> Scan {
        for process in self.processes.iter_mut().filter(|process| process.is_alive()) {
            process.net_cls = Some("/".to_string());
        }
        self
    }
}

/// All processes below `proc_root` (normally `/proc`), in its order: by pid.
///
/// # Errors
/// Whatever keeps a process from being read, except that it has ended: no descriptor, memory or
/// permission. A caller that is not root gets without an error what it may see.
pub fn scan(proc_root: &Path) -> Result<Scan, Error> {
    let mut scan = Scan { newest: newest(proc_root), ..Scan::default() };
    for pids in Listing::open(proc_root)? {
        for part in in_parts(&pids?, |pids| read_all(proc_root, pids)) {
            let part = part?;
            scan.processes.extend(part.processes);
            scan.vanished += part.vanished;
        }
    }
    Ok(scan)
}

/// The pid that was given out last in our process namespace; pids go upwards until they begin anew
/// (`alloc_pid`, kernel/pid.c). `None`: this kernel does not say (CONFIG_CHECKPOINT_RESTORE). The
/// last field of `/proc/loadavg` would be the same number, but containers are shown one of lxcfs's
/// own there.
pub(super) fn newest(proc_root: &Path) -> Option<u32> {
    fs::read_to_string(proc_root.join("sys/kernel/ns_last_pid")).ok()?.trim().parse().ok()
}

fn read_all(proc_root: &Path, pids: &[u32]) -> Result<Scan, Error> {
    let mut scan = Scan::default();
    let mut reader = Reader::default();
    for pid in pids {
        match reader.process(proc_root, *pid)? {
            Some(process) => scan.processes.push(process),
            None => scan.vanished += 1,
        }
    }
    Ok(scan)
}

/// One process as it is now; `None`: it is gone.
///
/// # Errors
/// As [`scan`].
pub fn read_one(proc_root: &Path, pid: u32) -> Result<Option<Process>, Error> {
    Reader::default().process(proc_root, pid)
}

/// The pids below `/proc`, [`LISTED`] at a time. The kernel lists them by number
/// (`proc_pid_readdir`, fs/proc/base.c) and goes on from the last pid (`next_tgid`), not from a
/// position in a list that could shift. So a process that lives all the while is never skipped,
/// whichever others end. One that is forked meanwhile may be skipped, which is why there are
/// further passes. (`cgroup.procs` of a v1 hierarchy is a copy made at one moment, for as many as
/// there were a moment before that (`pidlist_array_load`, kernel/cgroup/cgroup-v1.c): under a fork
/// storm the copy is cut off. So it serves only to see that a directory is empty, and rmdir decides
/// about that.)
pub(super) struct Listing {
    entries: fs::ReadDir,
    path: PathBuf,
}

impl Listing {
    pub(super) fn open(proc_root: &Path) -> Result<Listing, Error> {
        // With hidepid=invisible `/proc` has no processes of others. Process 1 always exists, so
        // its absence shows that.
        if geteuid().is_root() && proc_root.join("self").exists() && !proc_root.join("1").exists() {
            let hidden = io::Error::other(
                "processes are hidden (the mount option hidepid); give CAP_SYS_PTRACE, or the group of its option gid",
            );
            return Err(Error::io("list", proc_root)(hidden));
        }
        let entries = fs::read_dir(proc_root).map_err(Error::io("list", proc_root))?;
        Ok(Listing { entries, path: proc_root.to_path_buf() })
    }

    /// The next pids, of at most so many entries; `None`: all are listed.
    pub(super) fn part(&mut self, most: usize) -> Option<Result<Vec<u32>, Error>> {
        let mut pids = Vec::new();
        let mut listed = 0;
        for entry in self.entries.by_ref().take(most) {
            listed += 1;
            match entry {
                Ok(entry) => {
                    pids.extend(
                        entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()),
                    );
                }
                Err(error) => return Some(Err(Error::io("list", &self.path)(error))),
            }
        }
        (listed > 0).then_some(Ok(pids))
    }
}

impl Iterator for Listing {
    type Item = Result<Vec<u32>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.part(LISTED)
    }
}

/// The inode in the link of a namespace, `net:[4026531840]`.
pub(super) fn namespace(link: &Path) -> Option<u64> {
    link.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

/// How many pids are listed and then read before more are listed: the sooner a process is read, the
/// fewer have ended by then, and those that are forked meanwhile are mostly listed later.
const LISTED: usize = 1024;

/// The bytes of the first read: more than any of the files has on most hosts.
const READ: usize = 4096;

/// Reads processes, with one buffer for every file of a pass: 10,000 processes are 30,000 files.
#[derive(Default)]
pub(super) struct Reader(Vec<u8>);

impl Reader {
    /// Reads one process; `None`: it has ended, or is hidden from the caller.
    pub(super) fn process(&mut self, proc_root: &Path, pid: u32) -> Result<Option<Process>, Error> {
        let folder = proc_root.join(pid.to_string());
        match self.living(&folder, pid) {
            Err(error) if error.errno().is_some_and(is_gone) => Ok(None),
            other => other,
        }
    }

    /// Reads a process again that was seen a moment ago and is to be moved. Where it is still the
    /// same process, that takes two files instead of four.
    pub(super) fn again(
        &mut self,
        proc_root: &Path,
        seen: Process,
    ) -> Result<Option<Process>, Error> {
        let folder = proc_root.join(seen.pid.to_string());
        let same = |identity: &Identity| {
            let Identity { comm, parent, uids, ended } = identity;
            let Uids { real, saved, acting } = *uids;
            let uids = (real, acting, real == 0 || saved == 0);
            !ended
                && (comm, *parent) == (&seen.comm, seen.parent)
                && uids == (seen.uid, seen.acting_uid, seen.is_roots)
        };
        let pid = seen.pid;
        let is_same = match self.read(&folder.join("status")) {
            Ok(status) => parse_identity(status).as_ref().is_some_and(same),
            Err(error) if error.errno().is_some_and(is_gone) => return Ok(None),
            Err(error) => return Err(error),
        };
        if !is_same {
            return self.process(proc_root, pid);
        }
        match self.read(&folder.join("cgroup")).map(parse_cgroup) {
            Ok(Membership { net_cls, unit, guest }) => {
                Ok(Some(Process { net_cls, unit, guest, ..seen }))
            }
            Err(error) if error.errno().is_some_and(is_gone) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// When the process with this pid started, in clock ticks after boot; `None`: there is none.
    pub(super) fn starttime(&mut self, proc_root: &Path, pid: u32) -> Result<Option<u64>, Error> {
        match self.read(&proc_root.join(pid.to_string()).join("stat")) {
            Ok(text) => Ok(parse_stat(text).map(|stat| stat.starttime)),
            Err(error) if error.errno().is_some_and(is_gone) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The text of a file of a process; `None`: that has ended, or is hidden from the caller.
    pub(super) fn of_living(&mut self, path: &Path) -> Result<Option<&[u8]>, Error> {
        match self.read(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.errno().is_some_and(is_gone) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The cgroups of a process that lives and whose main thread has ended.
    pub(super) fn of_other_thread(&mut self, folder: &Path) -> Result<Option<Membership>, Error> {
        let stat = self.of_living(&folder.join("stat"))?.and_then(parse_stat);
        let Some(stat) = stat.filter(|stat| stat.ended) else { return Ok(None) };
        match self.living_thread(folder, &stat) {
            Ok(Some(living)) => Ok(self.of_living(&living.join("cgroup"))?.map(parse_cgroup)),
            Ok(None) => Ok(None),
            Err(error) if error.errno().is_some_and(is_gone) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn living(&mut self, folder: &Path, pid: u32) -> Result<Option<Process>, Error> {
        let mut membership = Membership::default();
        let mut netns = None;
        let uids = parse_uids(self.read(&folder.join("status"))?);
        self.belongings(folder, &mut membership, &mut netns)?;
        // `stat` is read last: a process that ends shows the root as its cgroup, and a moment later
        // has no namespaces, and only `stat` tells that it was ending (`cgroup_path_ns_locked` of a
        // dead task, kernel/cgroup/cgroup.c).
        let stat = parse_stat(self.read(&folder.join("stat"))?);
        let (Some(stat), Some(Uids { real, saved, acting })) = (stat, uids) else {
            return Ok(None);
        };
        let mut zombie = false;
        if stat.ended {
            match self.living_thread(folder, &stat)? {
                Some(living) => self.belongings(&living, &mut membership, &mut netns)?,
                None => zombie = true,
            }
        }
        if zombie || stat.kernel_thread {
            (membership, netns) = (Membership::default(), None);
        }
        let Stat { comm, parent, starttime, kernel_thread, .. } = stat;
        let Membership { net_cls, unit, guest } = membership;
        let is_proxy = comm.raw() == proxy::NAME && real == 0 && !kernel_thread && guest.is_none();
        let serves = match is_proxy && !zombie {
            true => proxy::serves(self.read(&folder.join("cmdline"))?),
            false => None,
        };
        Ok(Some(Process {
            pid,
            parent,
            starttime,
            comm,
            uid: if kernel_thread { 0 } else { real },
            acting_uid: if kernel_thread { 0 } else { acting },
            is_roots: kernel_thread || real == 0 || saved == 0,
            kernel_thread,
            zombie,
            netns,
            net_cls,
            unit,
            guest,
            serves,
        }))
    }

    /// Reads the cgroups and the network namespace of a process.
    fn belongings(
        &mut self,
        folder: &Path,
        membership: &mut Membership,
        netns: &mut Option<u64>,
    ) -> Result<(), Error> {
        *membership = parse_cgroup(self.read(&folder.join("cgroup"))?);
        let path = folder.join("ns/net");
        *netns = match fs::read_link(&path) {
            Ok(link) => namespace(&link),
            // A main thread that has ended has no namespaces (ENOENT); those of others may be
            // secret (CAP_SYS_PTRACE).
            Err(error) if error.raw_os_error().is_some_and(|it| is_gone(it) || is_secret(it)) => {
                None
            }
            Err(error) => return Err(Error::io("read", &path)(error)),
        };
        Ok(())
    }

    /// The folder of a living thread, from which cgroups and namespaces are read where the main
    /// thread has ended. Such a main thread looks like a zombie in the hierarchy's root
    /// (`proc_cgroup_show`, kernel/cgroup/cgroup.c) and has no namespaces, but the process lives,
    /// sends, and can be moved by its pid.
    fn living_thread(&mut self, folder: &Path, main: &Stat) -> Result<Option<PathBuf>, Error> {
        if main.threads < 2 {
            return Ok(None);
        }
        let path = folder.join("task");
        for task in fs::read_dir(&path).map_err(Error::io("list", &path))? {
            let task = task.map_err(Error::io("list", &path))?.path();
            match self.read(&task.join("stat")).map(parse_stat) {
                Ok(Some(stat)) if !stat.ended => return Ok(Some(task)),
                Err(error) if !error.errno().is_some_and(is_gone) => return Err(error),
                _ => {}
            }
        }
        Ok(None)
    }

    fn read(&mut self, path: &Path) -> Result<&[u8], Error> {
        self.0.resize(READ, 0);
        let failed = |error| Error::io("read", path)(error);
        let mut file = File::open(path).map_err(failed)?;
        let mut length = 0;
        // Each of these files is one record, which the kernel returns whole if the buffer has room
        // (`seq_read_iter`, fs/seq_file.c). So a read that leaves room was the last, which saves a
        // third of the system calls.
        loop {
            length += file.read(&mut self.0[length..]).map_err(failed)?;
            if length < self.0.len() {
                return Ok(&self.0[..length]);
            }
            self.0.resize(length + READ, 0);
        }
    }
}

/// Whether a process has ended: ENOENT at open, ESRCH at read. To a caller that is not root a
/// secret file also counts as absent.
fn is_gone(errno: i32) -> bool {
    matches!(errno, libc::ENOENT | libc::ESRCH) || is_secret(errno) && !geteuid().is_root()
}

fn is_secret(errno: i32) -> bool {
    matches!(errno, libc::EACCES | libc::EPERM)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct Proc(tempfile::TempDir);

    impl Proc {
        fn new() -> Proc {
            Proc(tempfile::tempdir().unwrap())
        }

        #[allow(clippy::too_many_arguments, reason = "they are the fields of files of /proc")]
        fn task(&self, folder: &str, state: char, flags: u32, threads: u32, cgroup: &str) {
            let folder = self.0.path().join(folder);
            fs::create_dir_all(folder.join("ns")).unwrap();
            let stat = format!(
                "7 (a b) {state} 1 7 7 0 -1 {flags} 0 0 0 0 0 0 0 0 20 0 {threads} 0 99 0 0"
            );
            fs::write(folder.join("stat"), stat).unwrap();
            fs::write(folder.join("status"), "Name:\ta b\nUid:\t1000\t0\t0\t0\n").unwrap();
            fs::write(folder.join("cgroup"), cgroup).unwrap();
            if state != 'Z' {
                symlink("net:[4026531840]", folder.join("ns/net")).unwrap();
            }
        }

        fn scan(&self) -> Vec<Process> {
            let mut processes = scan(self.0.path()).unwrap().processes;
            processes.sort_by_key(|process| process.pid);
            processes
        }
    }

    #[test]
    fn a_process_is_read_from_its_folder() {
        let proc = Proc::new();
        proc.task("7", 'S', 0, 1, "5:net_cls:/shaper/user/bob\n0::/system.slice/x.service\n");
        fs::create_dir(proc.0.path().join("sys")).unwrap();
        assert_eq!(
            proc.scan(),
            [Process {
                pid: 7,
                parent: 1,
                starttime: 99,
                comm: "a b".into(),
                uid: 1000,
                acting_uid: 0,
                is_roots: true,
                kernel_thread: false,
                zombie: false,
                netns: Some(4_026_531_840),
                net_cls: Some("/shaper/user/bob".into()),
                unit: Some("x.service".into()),
                guest: None,
                serves: None,
            }]
        );
    }

    #[test]
    fn a_process_that_vanishes_between_two_reads_is_left_out() {
        let proc = Proc::new();
        proc.task("7", 'S', 0, 1, "0::/\n");
        proc.task("8", 'S', 0, 1, "0::/\n");
        fs::remove_file(proc.0.path().join("8/cgroup")).unwrap();
        fs::create_dir(proc.0.path().join("9")).unwrap();
        let pids: Vec<u32> = proc.scan().iter().map(|process| process.pid).collect();
        assert_eq!(pids, [7]);
        assert_eq!(scan(proc.0.path()).unwrap().vanished, 2);
    }

    #[test]
    fn a_namespace_that_may_not_be_read_is_unknown() {
        let proc = Proc::new();
        proc.task("7", 'S', 0, 1, "0::/\n");
        fs::remove_file(proc.0.path().join("7/ns/net")).unwrap();
        assert_eq!(proc.scan()[0].netns, None);
    }

    /// A folder instead of a file answers EISDIR, which says nothing of the process.
    #[test]
    fn what_cannot_be_read_is_an_error_and_no_end_of_a_process() {
        for file in ["stat", "status", "cgroup"] {
            let proc = Proc::new();
            proc.task("7", 'S', 0, 1, "0::/\n");
            let path = proc.0.path().join("7").join(file);
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
            let error = scan(proc.0.path()).unwrap_err().to_string();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
        }
    }

    #[test]
    fn who_was_seen_is_read_again_as_he_is_now() {
        let proc = Proc::new();
        proc.task("7", 'S', 0, 1, "5:net_cls:/\n");
        let status = |uid: u32| {
            let text =
                format!("Name:\ta b\nState:\tS (sleeping)\nPPid:\t1\nUid:\t{uid}\t0\t0\t0\n");
            fs::write(proc.0.path().join("7/status"), text).unwrap();
        };
        status(1000);
        let again =
            |seen: &Process| Reader::default().again(proc.0.path(), seen.clone()).unwrap().unwrap();
        let seen = proc.scan().remove(0);
        assert_eq!(again(&seen), seen);
        fs::write(proc.0.path().join("7/cgroup"), "5:net_cls:/shaper/user/bob\n").unwrap();
        assert_eq!(again(&seen).net_cls.as_deref(), Some("/shaper/user/bob"));
        status(2000);
        assert_eq!(again(&seen).uid, 2000);
        fs::remove_file(proc.0.path().join("7/status")).unwrap();
        assert_eq!(Reader::default().again(proc.0.path(), seen).unwrap(), None);
    }

    #[test]
    fn zombies_and_kernel_threads_are_told_apart() {
        let proc = Proc::new();
        proc.task("2", 'S', 0x0020_0000, 1, "0::/\n");
        proc.task("7", 'Z', 0, 1, "0::/\n");
        let seen: Vec<_> = proc.scan().iter().map(|p| (p.kernel_thread, p.zombie)).collect();
        assert_eq!(seen, [(true, false), (false, true)]);
    }

    #[test]
    fn a_process_lives_on_after_its_main_thread() {
        let proc = Proc::new();
        proc.task("7", 'Z', 0, 2, "5:net_cls:/\n");
        proc.task("7/task/7", 'Z', 0, 2, "5:net_cls:/\n");
        proc.task("7/task/8", 'S', 0, 2, "5:net_cls:/shaper/uid/1000\n");
        let process = &proc.scan()[0];
        assert!(process.is_alive());
        assert_eq!(process.net_cls.as_deref(), Some("/shaper/uid/1000"));
        assert_eq!(process.netns, Some(4_026_531_840));
    }

    #[test]
    fn a_long_cgroup_file_is_read_to_its_end() {
        let proc = Proc::new();
        let many = format!("9:cpu:/{}\n5:net_cls:/x\n0::/\n", "a".repeat(3 * READ));
        proc.task("7", 'S', 0, 1, &many);
        assert_eq!(proc.scan()[0].net_cls.as_deref(), Some("/x"));
    }

    #[test]
    fn our_own_process_is_found_in_our_own_namespace() {
        let own = read_one(Path::new("/proc"), std::process::id()).unwrap().unwrap();
        assert!(own.is_alive());
        assert_eq!(own.netns, Some(crate::sys::netns::current().unwrap()));
    }
}

//! One pass over `/proc`. Reads only; processes that end meanwhile are left out.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::Process;
use super::parse::{Stat, parse_cgroup, parse_real_uid, parse_stat};
use crate::sys::threads::in_parts;
use crate::text::Foreign;

/// What one pass over `/proc` saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    pub processes: Vec<Process>,
    /// Pids that were listed and had ended before they could be read. What they forked since may
    /// not have been listed.
    pub vanished: u32,
}

/// All processes below `proc_root` (normally `/proc`), in its order: by pid.
pub fn scan(proc_root: &Path) -> io::Result<Scan> {
    scan_except(proc_root, |_| false)
}

/// As [`scan`], without those pids that `known` says need no reading: listing costs a hundredth.
pub(super) fn scan_except(proc_root: &Path, known: impl Fn(u32) -> bool) -> io::Result<Scan> {
    let mut scan = Scan::default();
    let mut entries = fs::read_dir(proc_root)?;
    loop {
        let mut pids = Vec::new();
        for entry in entries.by_ref().take(LISTED) {
            let pid = entry?.file_name().to_str().and_then(|name| name.parse().ok());
            pids.push(pid);
        }
        if pids.is_empty() {
            return Ok(scan);
        }
        let pids: Vec<u32> = pids.into_iter().flatten().filter(|pid| !known(*pid)).collect();
        for part in in_parts(&pids, |pids| read_all(proc_root, pids)) {
            scan.processes.extend(part.processes);
            scan.vanished += part.vanished;
        }
    }
}

fn read_all(proc_root: &Path, pids: &[u32]) -> Scan {
    let mut scan = Scan::default();
    let mut buffer = Buffer::default();
    for pid in pids {
        match buffer.process(proc_root, *pid) {
            Some(process) => scan.processes.push(process),
            None => scan.vanished += 1,
        }
    }
    scan
}

/// One process as it is now; `None`: it is gone.
pub fn read_one(proc_root: &Path, pid: u32) -> Option<Process> {
    Buffer::default().process(proc_root, pid)
}

/// Inode of the calling thread's own network namespace.
pub fn namespace_of_caller() -> io::Result<u64> {
    let path = Path::new("/proc/thread-self/ns/net");
    let link = fs::read_link(path)?;
    namespace(&link).ok_or_else(|| io::Error::other(format!("{}: {link:?}", path.display())))
}

/// `net:[4026531840]`
fn namespace(link: &Path) -> Option<u64> {
    link.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

/// So many are listed and then read, before more are listed: the shorter that takes, the fewer end in
/// between, and those that are forked meanwhile are mostly listed later.
const LISTED: usize = 1024;

/// More than any of the files has on most hosts.
const READ: usize = 4096;

/// Reused for every file of a pass: 10,000 processes are 30,000 files.
#[derive(Default)]
struct Buffer(Vec<u8>);

impl Buffer {
    fn process(&mut self, proc_root: &Path, pid: u32) -> Option<Process> {
        let folder = proc_root.join(pid.to_string());
        let stat = parse_stat(self.read(&folder.join("stat"))?)?;
        let mut process = Process {
            pid,
            starttime: stat.starttime,
            comm: Foreign::default(),
            uid: 0,
            kernel_thread: stat.kernel_thread,
            zombie: false,
            netns: None,
            net_cls: None,
            unit: None,
            guest: false,
        };
        // Nobody moves these, so the rest is not worth reading.
        if stat.kernel_thread {
            return Some(Process { comm: stat.comm, ..process });
        }
        process.uid = parse_real_uid(self.read(&folder.join("status"))?)?;
        let Some(living) = self.living_thread(&folder, &stat) else {
            return Some(Process { comm: stat.comm, zombie: true, ..process });
        };
        let membership = parse_cgroup(self.read(&living.join("cgroup"))?);
        process.comm = stat.comm;
        process.netns = fs::read_link(living.join("ns/net")).ok().as_deref().and_then(namespace);
        // It may have begun to end since its stat was read. From then on the root is shown as its
        // cgroup, and a moment later it has no namespaces: neither is its own any more.
        let doubtful = process.netns.is_none() || membership.net_cls.as_deref() == Some("/");
        if doubtful && parse_stat(self.read(&living.join("stat"))?)?.ended {
            return Some(Process { zombie: true, ..process });
        }
        process.net_cls = membership.net_cls;
        process.unit = membership.unit;
        process.guest = membership.guest;
        Some(process)
    }

    /// Where to read what only a living thread still has. A main thread that ended while others go
    /// on looks like a zombie in the hierarchy's root (`proc_cgroup_show`, kernel/cgroup/cgroup.c)
    /// and has no namespaces, but the process lives, sends, and can be moved by its pid.
    fn living_thread(&mut self, folder: &Path, main: &Stat) -> Option<PathBuf> {
        if !main.ended {
            return Some(folder.to_path_buf());
        }
        if main.threads < 2 {
            return None;
        }
        let tasks = fs::read_dir(folder.join("task")).ok()?;
        tasks.filter_map(|task| Some(task.ok()?.path())).find(|task| {
            let stat = self.read(&task.join("stat")).and_then(parse_stat);
            stat.is_some_and(|stat| !stat.ended)
        })
    }

    /// `None`: the process is gone (ENOENT at open, ESRCH at read), or is none of our business to
    /// see: both are no process to place.
    fn read(&mut self, path: &Path) -> Option<&[u8]> {
        self.0.resize(READ, 0);
        let mut file = File::open(path).ok()?;
        let mut length = 0;
        // These files are one record, which a read gives whole if there is room (`seq_read_iter`,
        // fs/seq_file.c): one that leaves room is the last. Saves a third of the system calls.
        loop {
            length += file.read(self.0.get_mut(length..)?).ok()?;
            if length < self.0.len() {
                return self.0.get(..length);
            }
            self.0.resize(length + READ, 0);
        }
    }
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
                starttime: 99,
                comm: "a b".into(),
                uid: 1000,
                kernel_thread: false,
                zombie: false,
                netns: Some(4_026_531_840),
                net_cls: Some("/shaper/user/bob".into()),
                unit: Some("x.service".into()),
                guest: false,
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
        let own = read_one(Path::new("/proc"), std::process::id()).unwrap();
        assert!(own.is_alive());
        assert_eq!(own.netns, Some(namespace_of_caller().unwrap()));
    }
}

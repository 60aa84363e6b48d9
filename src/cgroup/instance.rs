//! The directories of one instance: `<hierarchy>/<name>/user/bob`, `…/uid/1000/pinned`, … Each is a
//! claim, which has a minor; those of users and accounts also have processes. Touches only files
//! below the instance's directory, and the hierarchy root's `cgroup.procs` to let processes go.
//! Without `net_cls` the same directories stand in `/run` ([`super::claims`]), and no process is
//! placed in them.

use std::path::{Path, PathBuf};

use super::directory::{
    Attached, CLASSID, PROCS, count_in, members_of, move_process, read_classid, vanished,
};
use super::error::Error;
use crate::tree::{Claim, Owner};
use crate::units::ClassId;

/// One instance's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    root: PathBuf,
    kind: Root,
}

/// In which of its two places an instance has its directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// In the `net_cls` hierarchy: each directory is a cgroup, and has processes.
    NetCls,
    /// In `/run`, where nothing needs tags: plain directories, in which `net_cls.classid` is a
    /// plain file.
    Plain,
}

impl Instance {
    /// `root` is `<where the hierarchy is mounted>/<the instance's name>`; it need not exist.
    pub fn new(root: PathBuf) -> Instance {
        Instance { root, kind: Root::NetCls }
    }

    /// The instance whose directory is this plain one.
    pub fn plain(root: PathBuf) -> Instance {
        Instance { root, kind: Root::Plain }
    }

    /// In which of its places this is.
    pub fn kind(&self) -> Root {
        self.kind
    }

    /// Whether processes are placed in the instance's directories.
    pub fn places(&self) -> bool {
        self.kind == Root::NetCls
    }

    /// The instance's directory below the hierarchy's root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The instance's name: the last part of its path.
    pub fn name(&self) -> String {
        self.root.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The path of the claim's directory, whether or not it exists.
    pub fn directory(&self, claim: &Claim) -> PathBuf {
        self.root.join(claim.to_string())
    }

    /// The classid of a claim's directory; 0 where none was written.
    pub fn classid(&self, claim: &Claim) -> Result<ClassId, Error> {
        let path = self.directory(claim).join(CLASSID);
        match read_classid(&path) {
            // It was killed that made the directory.
            Err(error) if vanished(&error) && !self.places() => Ok(ClassId::NONE),
            read => Ok(read.map_err(Error::io("read", &path))?.unwrap_or_default()),
        }
    }

    /// The processes in the claim's directory (not those in `…/pinned` below it), in no order. A
    /// directory that does not exist has none.
    pub fn members(&self, claim: &Claim) -> Result<Vec<u32>, Error> {
        members_of(&self.directory(claim))
    }

    /// How many processes are in the claim's directory, as [`Instance::members`] lists them.
    pub fn count(&self, claim: &Claim) -> Result<usize, Error> {
        count_in(&self.directory(claim))
    }

    /// Whether any process is in the owner's directory or in `…/pinned` below it.
    pub fn is_occupied(&self, owner: &Owner) -> Result<bool, Error> {
        let own = Claim::Owner(owner.clone());
        let pinned = Claim::Pinned(owner.clone());
        Ok(!self.members(&own)?.is_empty() || !self.members(&pinned)?.is_empty())
    }

    /// Moves a process, all its threads and all its sockets, into the claim's directory.
    pub fn attach(&self, pid: u32, claim: &Claim) -> Result<Attached, Error> {
        let directory = self.directory(claim);
        match self.kind {
            Root::NetCls => move_process(pid, &directory.join(PROCS)),
            Root::Plain if directory.is_dir() => Ok(Attached::Counted),
            Root::Plain => Ok(Attached::NoDirectory),
        }
    }

    /// Whether a path below the hierarchy's root, as `/proc/PID/cgroup` has it, is in the instance.
    pub fn holds(&self, path: &str) -> bool {
        let top = path.trim_start_matches('/').split('/').next();
        top.is_some_and(|top| self.root.file_name().is_some_and(|name| name == top))
    }

    /// Moves a process to a directory, by its path below the hierarchy's root.
    pub fn seat(&self, pid: u32, path: &str) -> Result<Attached, Error> {
        if !self.places() {
            return Ok(Attached::Counted);
        }
        let directory = self.root.with_file_name(path.trim_start_matches('/'));
        move_process(pid, &directory.join(PROCS))
    }

    /// Moves a process to the hierarchy's root, whose classid is 0.
    pub fn release(&self, pid: u32) -> Result<Attached, Error> {
        match self.kind {
            Root::NetCls => move_process(pid, &self.root.with_file_name(PROCS)),
            Root::Plain => Ok(Attached::Counted),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;
    use std::io::Write;
    use std::thread;
    use std::time::Duration;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;
    use crate::tree::Foreign;
    use crate::units::Minor;

    /// A folder that looks like an instance: each path with its classid in decimal, as the kernel
    /// prints it.
    fn instance(paths: &[(&str, u32)]) -> (tempfile::TempDir, Instance) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("shaper");
        for (path, classid) in paths {
            let directory = root.join(path);
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join(CLASSID), format!("{classid}\n")).unwrap();
            fs::write(directory.join(PROCS), "").unwrap();
        }
        (folder, Instance::new(root))
    }

    fn claim(path: &str) -> Claim {
        path.parse().unwrap()
    }

    #[test]
    fn every_claim_is_observed_with_its_classid() {
        let (_folder, instance) = instance(&[
            ("user/bob", 0x1_0010),
            ("user/bob/pinned", 0x1_0010),
            ("uid/1000", 0x1_0011),
            ("class/nfs", 0x1_0012),
            ("group/students", 0x1_f000),
            ("retired/1a", 0x1_001a),
        ]);
        let (claims, foreign) = instance.observe().unwrap();
        assert_eq!(foreign, []);
        assert_eq!(claims.len(), 6);
        assert_eq!(claims[&claim("user/bob/pinned")], ClassId::ours(Minor(0x10)));
        assert_eq!(claims[&claim("retired/1a")], ClassId::ours(Minor(0x1a)));
        let mut unpinned = claims;
        unpinned.remove(&claim("user/bob/pinned"));
        assert_eq!(instance.classids().unwrap(), unpinned);
    }

    #[test]
    fn directories_that_are_not_ours_are_reported_and_are_no_claims() {
        let (_folder, instance) = instance(&[
            ("user/bob", 1),
            ("user/bob/build", 1),
            ("uid/007", 1),
            ("uid/bob", 1),
            ("class/nfs", 1),
            ("class/nfs/pinned", 1),
            ("spare", 1),
            ("retired/1A", 1),
        ]);
        let (claims, foreign) = instance.observe().unwrap();
        let names: Vec<String> = claims.keys().map(Claim::to_string).collect();
        assert_eq!(names, ["user/bob", "class/nfs"]);
        let mut paths: Vec<String> = foreign
            .iter()
            .map(|foreign| match foreign {
                Foreign::Directory { path, .. } => {
                    path.strip_prefix(instance.root().to_str().unwrap()).unwrap().to_string()
                }
                other => panic!("{other:?}"),
            })
            .collect();
        paths.sort();
        assert_eq!(
            paths,
            [
                "/class/nfs/pinned",
                "/retired/1A",
                "/spare",
                "/uid/007",
                "/uid/bob",
                "/user/bob/build"
            ]
        );
    }

    #[test]
    fn a_claim_that_retires_while_claims_are_read_is_seen() {
        let (_folder, instance) =
            instance(&[("retired/1a", 0x1_001a), ("uid/7", 0), ("user/ann", 0)]);
        // A pipe, at which the reading waits when it has read `retired`, and not `user`.
        let pipe = instance.directory(&claim("uid/7")).join(CLASSID);
        fs::remove_file(&pipe).unwrap();
        mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        let claims = thread::scope(|scope| {
            let reading = scope.spawn(|| instance.classids().unwrap());
            let mut writer = fs::File::options().write(true).open(&pipe).unwrap();
            let retired = instance.directory(&claim("retired/10:user:ann"));
            fs::create_dir(&retired).unwrap();
            fs::write(retired.join(CLASSID), "65552\n").unwrap();
            fs::remove_dir_all(instance.directory(&claim("user/ann"))).unwrap();
            writer.write_all(b"65553\n").unwrap();
            drop(writer);
            reading.join().unwrap()
        });
        let wanted = [("uid/7", 0x11), ("retired/10:user:ann", 0x10), ("retired/1a", 0x1a)];
        let wanted = wanted.map(|(path, minor)| (claim(path), ClassId::ours(Minor(minor))));
        assert_eq!(claims, wanted.into());
    }

    #[test]
    fn what_was_touched_is_looked_at_again_and_nothing_else() {
        let paths = [("user/ann", 0x1_0010), ("user/bob", 0x1_0011), ("uid/7", 0x1_0012)];
        let (_folder, instance) = instance(&paths);
        let (before, _) = instance.observe().unwrap();
        for (path, text) in [("user/ann", "65567\n"), ("user/bob", "65568\n")] {
            fs::write(instance.directory(&claim(path)).join(CLASSID), text).unwrap();
        }
        fs::remove_dir_all(instance.directory(&claim("uid/7"))).unwrap();
        let touched = ["user/ann", "uid/7", "uid/8"].map(claim);
        let now = instance.observe_again(before, &BTreeSet::from(touched)).unwrap();
        let wanted = [("user/ann", 0x1_001f), ("user/bob", 0x1_0011)];
        assert_eq!(now, wanted.map(|(path, id)| (claim(path), ClassId(id))).into());
    }

    #[test]
    fn a_claim_that_comes_or_goes_is_seen_in_the_listing() {
        let (_folder, instance) = instance(&[("user/ann", 1), ("uid/7", 2), ("watch", 0)]);
        let before = instance.listing().unwrap();
        assert_eq!(before, ["7", "uid", "ann", "user", "watch"]);
        fs::create_dir(instance.root().join("watch/idle-1-")).unwrap();
        fs::write(instance.directory(&claim("uid/7")).join(PROCS), "12\n").unwrap();
        assert_eq!(instance.listing().unwrap(), before, "no claim");
        fs::create_dir(instance.root().join("retired")).unwrap();
        let retired = instance.directory(&claim("retired/10:user:ann"));
        fs::rename(instance.directory(&claim("user/ann")), retired).unwrap();
        let after = instance.listing().unwrap();
        assert_eq!(after, ["10:user:ann", "retired", "7", "uid", "user", "watch"]);
    }

    #[test]
    fn an_instance_that_does_not_exist_has_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let instance = Instance::new(folder.path().join("shaper"));
        assert_eq!(instance.observe().unwrap(), (BTreeMap::new(), vec![]));
        assert_eq!(instance.members(&claim("user/bob")).unwrap(), Vec::<u32>::new());
        let locked = instance.lock(Duration::ZERO).unwrap();
        assert!(locked.remove(&claim("user/bob")).is_ok());
        assert!(locked.remove_if_empty().unwrap());
    }

    #[test]
    fn members_are_the_pids_in_the_directory() {
        let (_folder, instance) = instance(&[("user/bob", 1)]);
        fs::write(instance.directory(&claim("user/bob")).join(PROCS), "12\n4711\n").unwrap();
        assert_eq!(instance.members(&claim("user/bob")).unwrap(), [12, 4711]);
        assert_eq!(instance.count(&claim("user/bob")).unwrap(), 2);
        let many: String = (1..5_000).map(|pid| format!("{pid}\n")).collect();
        fs::write(instance.directory(&claim("user/bob")).join(PROCS), many).unwrap();
        assert_eq!(instance.count(&claim("user/bob")).unwrap(), 4_999);
        assert_eq!(instance.count(&claim("user/eve")).unwrap(), 0);
    }

    #[test]
    fn a_process_is_not_moved_into_a_directory_that_is_not_there() {
        let (_folder, instance) = instance(&[]);
        assert_eq!(instance.attach(4711, &claim("uid/1")).unwrap(), Attached::NoDirectory);
    }

    #[test]
    fn pid_0_would_be_ourselves_and_is_never_written() {
        let (_folder, instance) = instance(&[("user/bob", 1)]);
        assert_eq!(instance.attach(0, &claim("user/bob")).unwrap(), Attached::Dead);
        assert_eq!(instance.members(&claim("user/bob")).unwrap(), Vec::<u32>::new());
    }
}

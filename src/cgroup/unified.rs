//! The cgroup v2 hierarchy: where no tags are read, `run` and `attach` put processes into cgroups
//! of ours there, each right below the cgroup in which the process was. So a process stays in its
//! unit, which goes on to count it, limits it and ends it: controllers are switched on from above,
//! and a cgroup that has processes has none for those below it (the rule of no internal processes).
//! Touches no other cgroups.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::sys::statvfs::{FsFlags, statvfs};

use super::directory::{
    Attached, MODE, PROCS, make, members_of, move_process, subdirectories, vanished,
};
use super::error::Error;
use super::hierarchy::unified;
use crate::facts::NoCgroups;
use crate::sys::cgroup_id::cgroup_id;
use crate::tree::{Cgroup, Owner, pinned_name, pinned_owner};

/// The inode of the hierarchy's root (`kernfs_create_root`, fs/kernfs/dir.c). Of a mount made in a
/// cgroup namespace the root is that of the namespace.
const ROOT: u64 = 1;
/// What a cgroup is: a domain, or below one whose threads are spread out.
const TYPE: &str = "cgroup.type";
/// How often a process is moved that leaves its cgroup, or whose cgroup goes, meanwhile.
const MOST_TRIES: u32 = 20;
/// How often a cgroup's processes are moved out, as for a directory of `net_cls`.
const MOST_PASSES: u32 = 200;

/// The whole hierarchy where this thread sees it mounted.
#[derive(Clone, Debug)]
pub struct Unified {
    root: PathBuf,
    /// Who makes cgroups of ours: a user may make one of the same name below his own.
    maker: u32,
}

/// A cgroup of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedCgroup {
    /// Whose class its sockets are in.
    pub owner: Owner,
    /// Which cgroup it is.
    pub cgroup: Cgroup,
    /// Its path below the hierarchy's root.
    pub path: String,
}

impl Unified {
    /// Finds it.
    ///
    /// # Errors
    /// The mounts or the root cannot be read.
    pub fn find() -> Result<Result<Unified, NoCgroups>, Error> {
        let Some(root) = unified()? else { return Ok(Err(NoCgroups::NotMounted)) };
        Ok(match fs::metadata(&root).map_err(Error::io("read", &root))?.ino() {
            ROOT => Ok(Unified { root, maker: 0 }),
            _ => Err(NoCgroups::Inside),
        })
    }

    /// The directory of the hierarchy's root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Which cgroup this path below the root is; `None`: there is none.
    pub fn cgroup(&self, path: &str) -> Option<Cgroup> {
        let id = number(&self.root.join(relative(path)))?;
        Some(Cgroup { level: level(path)?, id })
    }

    /// All cgroups of an instance's, down to this level. Cgroups without others below them, most of
    /// all, are not listed.
    ///
    /// # Errors
    /// The root cannot be listed.
    pub fn pinned(&self, instance: &str, deepest: u8) -> Result<Vec<PinnedCgroup>, Error> {
        let mut found = Vec::new();
        self.below("", instance, deepest, &mut found)?;
        Ok(found)
    }

    fn below(
        &self,
        path: &str,
        instance: &str,
        levels: u8,
        found: &mut Vec<PinnedCgroup>,
    ) -> Result<(), Error> {
        let Some(levels) = levels.checked_sub(1) else { return Ok(()) };
        for name in subdirectories(&self.root.join(path))? {
            let path = if path.is_empty() { name } else { format!("{path}/{name}") };
            found.extend(self.of_ours(&path, instance));
            // The kernel counts a directory's links: two, and one of each directory in it.
            let is_leaf = fs::metadata(self.root.join(&path)).is_ok_and(|it| it.nlink() == 2);
            if !is_leaf {
                self.below(&path, instance, levels, found)?;
            }
        }
        Ok(())
    }

    /// All cgroups down to this level, each after the one above it, with the number of that.
    pub fn all(&self, deepest: u8) -> Vec<(Cgroup, Option<u64>)> {
        let mut found = Vec::new();
        let mut pending = vec![(self.root.clone(), 0_u8, None)];
        while let Some((path, level, above)) = pending.pop() {
            // It may have gone.
            let Ok(entries) = fs::read_dir(&path) else { continue };
            for entry in entries.flatten() {
                let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
                let Some(level) = level.checked_add(1).filter(|it| *it <= deepest) else {
                    continue;
                };
                if is_directory && let Some(id) = number(&entry.path()) {
                    found.push((Cgroup { level, id }, above));
                    pending.push((entry.path(), level, Some(id)));
                }
            }
        }
        found
    }

    /// The cgroup of ours at this path.
    fn of_ours(&self, path: &str, instance: &str) -> Option<PinnedCgroup> {
        let owner = pinned_owner(instance, path.rsplit('/').next()?)?;
        let at = self.root.join(path);
        let found = fs::metadata(&at).ok()?;
        let cgroup = Cgroup { level: level(path)?, id: number(&at)? };
        (found.uid() == self.maker).then(|| PinnedCgroup { owner, cgroup, path: path.to_string() })
    }

    /// The cgroup of ours that decides for what is made at this path: the deepest one.
    pub fn pinned_at(&self, path: &str, instance: &str) -> Option<PinnedCgroup> {
        let path = relative(path);
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        let above: Vec<&str> = ends.filter_map(|end| path.get(..end)).collect();
        above.into_iter().rev().find_map(|path| self.of_ours(path, instance))
    }

    /// Puts a process that is at `path` into the owner's cgroup below that, which is made where it
    /// is missing. `deepest`: at which level the cgroup may be; `tell` is told which cgroup it is,
    /// before anything is in it.
    ///
    /// # Errors
    /// The cgroup cannot be made, or is somebody else's; the process cannot be moved.
    pub fn pin(
        &self,
        (pid, path): (u32, &str),
        (instance, owner): (&str, &Owner),
        deepest: u8,
        tell: impl FnOnce(Cgroup) -> Result<(), Error>,
    ) -> Result<Attached, Error> {
        let base = self.base(path, instance);
        let path = below(base, pinned_name(instance, owner));
        let at = self.root.join(&path);
        let Some(level) = level(&path).filter(|level| *level <= deepest) else {
            return Err(Error::TooDeep { path: self.root.join(base), deepest });
        };
        match make(&at, MODE) {
            // The process's own cgroup has gone: it is in another one by now, or has ended.
            Err(error) if vanished(&error) => return Ok(Attached::NoDirectory),
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                return Err(Error::ReadOnly { path: at });
            }
            made => made.map_err(Error::io("make", &at))?,
        }
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
            .open(&at);
        let directory = match opened {
            Err(error) if vanished(&error) => return Ok(Attached::NoDirectory),
            opened => opened.map_err(Error::io("open", &at))?,
        };
        let found = directory.metadata().map_err(Error::io("read", &at))?;
        if found.uid() != self.maker {
            return Err(Error::NotOurs { path: at });
        }
        // Whatever is at the path by then, the process comes into the cgroup that was looked at.
        let there = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        as_thread(&there);
        let Some(id) = number(&there) else { return Ok(Attached::NoDirectory) };
        tell(Cgroup { level, id })?;
        match move_process(pid, &there.join(PROCS)) {
            Err(error) if error.errno() == Some(libc::EROFS) => Err(Error::ReadOnly { path: at }),
            moved => moved,
        }
    }

    /// Into which cgroup [`Unified::pin`] puts a process that is at `path`.
    pub fn place(&self, path: &str, (instance, owner): (&str, &Owner)) -> PathBuf {
        self.root.join(below(self.base(path, instance), pinned_name(instance, owner)))
    }

    /// Whether nothing can be written or made at `path`, as this thread sees it mounted.
    pub fn is_read_only(&self, path: &str) -> bool {
        let at = statvfs(&self.root.join(relative(path)));
        at.is_ok_and(|it| it.flags().contains(FsFlags::ST_RDONLY))
    }

    /// Below which cgroup a process that is at `path` is put: that path, or the one above where
    /// this is a cgroup of ours.
    pub fn base<'p>(&self, path: &'p str, instance: &str) -> &'p str {
        let path = relative(path);
        match self.of_ours(path, instance) {
            Some(_) => path.rsplit_once('/').map_or("", |(above, _)| above),
            None => path,
        }
    }

    /// The processes in a cgroup of ours, each by one of its threads; none where it is gone.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn members(&self, pinned: &PinnedCgroup) -> Result<Vec<u32>, Error> {
        let path = self.root.join(&pinned.path);
        match members_of(&path) {
            // One for threads says only which of these it has (`cgroup_procs_start`).
            Err(error) if error.errno() == Some(libc::EOPNOTSUPP) => {
                let threads = path.join("cgroup.threads");
                let text = fs::read_to_string(&threads).map_err(Error::io("read", &threads))?;
                Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
            }
            members => members,
        }
    }

    /// Moves a process of a cgroup of ours to the one above it.
    ///
    /// # Errors
    /// It cannot be moved: most of all where whoever has the cgroup above it has switched on
    /// controllers there meanwhile, which takes processes in no more.
    pub fn release(&self, pid: u32, pinned: &PinnedCgroup) -> Result<Attached, Error> {
        let above = Path::new(&pinned.path).parent().unwrap_or(Path::new(""));
        let above = self.root.join(above);
        match move_process(pid, &above.join(PROCS)) {
            Err(error) if error.errno() == Some(libc::EBUSY) => {
                let above = above.join("cgroup.subtree_control");
                let controllers = fs::read_to_string(&above).unwrap_or_default();
                let controllers = controllers.trim_end().to_string();
                let path = self.root.join(&pinned.path);
                Err(Error::NoWayBack { pid, path, above, controllers })
            }
            moved => moved,
        }
    }

    /// Removes a cgroup of ours in which no process is; whether it is gone.
    pub fn remove_if_empty(&self, pinned: &PinnedCgroup) -> bool {
        !self.is_occupied(pinned) && self.removed(pinned).is_ok()
    }

    /// Whether a process is in the cgroup or below it.
    pub fn is_occupied(&self, pinned: &PinnedCgroup) -> bool {
        let events = self.root.join(&pinned.path).join("cgroup.events");
        fs::read_to_string(events).is_ok_and(|text| text.contains("populated 1"))
    }

    fn removed(&self, pinned: &PinnedCgroup) -> io::Result<()> {
        match fs::remove_dir(self.root.join(&pinned.path)) {
            Err(error) if !vanished(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes a cgroup of ours; its processes go to the one above it.
    ///
    /// # Errors
    /// A process cannot be moved, or somebody has made cgroups in it.
    pub fn remove(&self, pinned: &PinnedCgroup) -> Result<(), Error> {
        let path = self.root.join(&pinned.path);
        for _ in 0..MOST_PASSES {
            match self.removed(pinned) {
                Ok(()) => return Ok(()),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::ResourceBusy | io::ErrorKind::DirectoryNotEmpty
                    ) => {}
                Err(error) => return Err(Error::io("remove", &path)(error)),
            }
            if let Some(name) = subdirectories(&path)?.first() {
                return Err(Error::Occupied { path, what: format!("a directory `{name}`") });
            }
            let members = self.members(pinned)?;
            if members.is_empty() {
                // A process is ending.
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            for pid in members {
                self.release(pid, pinned)?;
            }
        }
        Err(Error::Occupied { path, what: "processes that cannot be moved out".to_string() })
    }
}

/// The number of the cgroup at this path, as programs of the kernel see it; `None`: it is gone.
/// Where there are no handles of files it is the inode, which is right from Linux 5.5 on (systemd
/// runs on no kernel without them).
pub fn number(path: &Path) -> Option<u64> {
    match cgroup_id(path).ok()? {
        Some(id) => Some(id),
        None => Some(fs::metadata(path).ok()?.ino()),
    }
}

/// How often to try again where [`Unified::pin`] finds that the process or the cgroup has gone.
pub const TRIES: std::ops::Range<u32> = 0..MOST_TRIES;

fn below(base: &str, name: String) -> String {
    if base.is_empty() { name } else { format!("{base}/{name}") }
}

fn relative(path: &str) -> &str {
    path.trim_start_matches('/')
}

/// How deep a path below the root is.
fn level(path: &str) -> Option<u8> {
    u8::try_from(path.split('/').filter(|part| !part.is_empty()).count()).ok()
}

/// Below a cgroup whose threads are spread out over others a new one takes no process until it is
/// one for threads as well (`cgroup_is_valid_domain`, kernel/cgroup/cgroup.c).
fn as_thread(directory: &Path) {
    let kind = directory.join(TYPE);
    if fs::read_to_string(&kind).is_ok_and(|text| text.trim_end() == "domain invalid") {
        let written = File::options().write(true).open(&kind);
        let written = written.and_then(|mut file| io::Write::write_all(&mut file, b"threaded"));
        log::debug!("{}: {written:?}", kind.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Claim, Key};

    const OURS: &str = "shaper:user:bob.shaper";

    fn made(paths: &[&str]) -> (tempfile::TempDir, Unified) {
        let folder = tempfile::tempdir().unwrap();
        for path in paths {
            fs::create_dir_all(folder.path().join(path)).unwrap();
            fs::write(folder.path().join(path).join(PROCS), "").unwrap();
        }
        let root = folder.path().to_path_buf();
        let maker = fs::metadata(&root).unwrap().uid();
        (folder, Unified { root, maker })
    }

    fn bob() -> Owner {
        Owner::User(Key::new("bob").unwrap())
    }

    #[test]
    fn cgroups_of_ours_are_found_however_deep_and_no_others() {
        let deep = format!("user.slice/user-7.slice/session-3.scope/{OURS}");
        let (_folder, unified) = made(&[
            &deep,
            OURS,
            &format!("a.service/{OURS}/payload/shaper:uid:7.shaper"),
            "b.service/blue:user:bob.shaper",
            "b.service/shaper:class:nfs.shaper",
        ]);
        let mut found = unified.pinned("shaper", 8).unwrap();
        found.sort_by(|a, b| a.path.cmp(&b.path));
        let seen: Vec<_> = found.iter().map(|it| (it.cgroup.level, it.path.as_str())).collect();
        let inner = format!("a.service/{OURS}/payload/shaper:uid:7.shaper");
        let outer = format!("a.service/{OURS}");
        assert_eq!(seen, [(2, outer.as_str()), (4, &inner), (1, OURS), (4, &deep)]);
        assert!(found.iter().all(|it| unified.cgroup(&it.path) == Some(it.cgroup)));
        assert_eq!(unified.pinned("shaper", 3).unwrap().len(), 2);
        let all = unified.all(8);
        assert_eq!(all.len(), 12);
        let numbers: Vec<u64> = all.iter().map(|(cgroup, _)| cgroup.id).collect();
        for (at, (cgroup, above)) in all.iter().enumerate() {
            assert_eq!(above.is_none(), cgroup.level == 1);
            assert!(above.is_none_or(|above| numbers[..at].contains(&above)));
        }
        // What is deeper decides, and a path may lie below.
        let at = |path: &str| unified.pinned_at(path, "shaper").map(|it| it.owner);
        assert_eq!(at(&format!("/{inner}/x")), Some(Owner::Uid(7)));
        assert_eq!(at(&format!("/{outer}/payload")), Some(bob()));
        assert_eq!(at("/a.service"), None);
        let not_ours = Unified { maker: unified.maker + 1, ..unified.clone() };
        assert!(not_ours.pinned("shaper", 8).unwrap().is_empty(), "a user's of the same name");
    }

    #[test]
    fn a_process_is_put_below_where_it_is_and_not_below_another_of_ours() {
        let (_folder, unified) = made(&["a.service", &format!("b.service/{OURS}")]);
        let other = "shaper:uid:7.shaper";
        for (path, base) in
            [("/a.service", "a.service"), (&format!("/b.service/{OURS}"), "b.service"), ("/", "")]
        {
            assert_eq!(unified.base(path, "shaper"), base);
            let mut known = None;
            let owner = Owner::Uid(7);
            let put = |known: &mut Option<Cgroup>| {
                let tell = |cgroup| {
                    *known = Some(cgroup);
                    Ok(())
                };
                unified.pin((4711, path), ("shaper", &owner), 8, tell)
            };
            // A plain folder has no such file, as a cgroup that was removed meanwhile.
            assert_eq!(put(&mut known).unwrap(), Attached::NoDirectory);
            let place = unified.place(path, ("shaper", &owner));
            let path = Path::new(base).join(other);
            assert_eq!(place, unified.root.join(&path));
            fs::write(unified.root.join(&path).join(PROCS), "").unwrap();
            assert_eq!(put(&mut known).unwrap(), Attached::Moved);
            assert_eq!(known, unified.cgroup(path.to_str().unwrap()));
            let pinned = unified.pinned_at(path.to_str().unwrap(), "shaper").unwrap();
            assert_eq!(unified.members(&pinned).unwrap(), [4711]);
        }
        let deep = unified.pin((7, "/a/b"), ("shaper", &Owner::Uid(7)), 2, |_| Ok(()));
        assert!(matches!(deep, Err(Error::TooDeep { .. })), "{deep:?}");
        let gone = unified.pin((7, "/x/y"), ("shaper", &Owner::Uid(7)), 8, |_| Ok(()));
        assert_eq!(gone.unwrap(), Attached::NoDirectory);
        let refused = Unified { maker: unified.maker + 1, ..unified };
        let refused = refused.pin((7, "/a.service"), ("shaper", &Owner::Uid(7)), 8, |_| Ok(()));
        assert!(matches!(refused, Err(Error::NotOurs { .. })), "{refused:?}");
    }

    #[test]
    fn a_claim_has_one_name() {
        let claim: Claim = "user/bob".parse().unwrap();
        assert_eq!(Claim::Owner(bob()), claim);
        assert_eq!(pinned_name("shaper", &bob()), OURS);
    }
}

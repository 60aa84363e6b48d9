//! Where the `net_cls` hierarchy is, and mounting it where there is none. Reads the calling
//! thread's mountinfo and `/proc/cgroups`; mounts and unmounts only at the path that it is given.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags};

use super::claims::CLAIMS;
use super::directory::make_folder;
use super::error::Error;
use super::instance::Instance;
use super::mountinfo::{Mount, is_below_v2, net_cls_mount, parse_mountinfo, unified_mount};

/// Where shaper mounts the hierarchy if it is mounted nowhere. Not in `/sys/fs/cgroup`: where that
/// is the cgroup v2 root, a mkdir there makes a v2 cgroup.
pub const DEFAULT_MOUNT: &str = "/run/shaper/net_cls";

/// The mount options, known since Linux 6.0. Without `favordynmods` the first move of a process
/// after 10 ms without one waits for a grace period of RCU, 8 to 25 ms (`cgroup_threadgroup_rwsem`,
/// kernel/cgroup/cgroup.c), and the move of a login is always such a first one; with the option
/// each move takes 0.1 ms, and each fork pays with a memory barrier.
const QUICK: &str = "net_cls,favordynmods";

/// The calling thread's mounts: a thread may have entered another mount namespace than its process.
const MOUNTINFO: &str = "/proc/thread-self/mountinfo";
const CONTROLLERS: &str = "/proc/cgroups";

/// A mounted `net_cls` hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where the hierarchy is mounted. Processes that are placed nowhere are in this directory, the
    /// hierarchy's root.
    pub path: PathBuf,
}

impl Hierarchy {
    /// The folder of the instances that need no `net_cls`, which need not exist.
    pub fn plain() -> Hierarchy {
        Hierarchy { path: PathBuf::from(CLAIMS) }
    }

    /// The instance of this name: a directory right below the hierarchy's root.
    pub fn instance(&self, name: &str) -> Instance {
        Instance::new(self.path.join(name))
    }
}

/// The hierarchy where this thread sees it mounted; `None`: nowhere.
pub fn find() -> Result<Option<Hierarchy>, Error> {
    let mounts = mounts()?;
    Ok(net_cls_mount(&mounts).map(|mount| Hierarchy { path: mount.point.clone() }))
}

/// Where this thread sees the cgroup v2 hierarchy mounted; `None`: nowhere. Its root is that of the
/// calling process's cgroup namespace.
pub(super) fn unified() -> Result<Option<PathBuf>, Error> {
    let mounts = mounts()?;
    Ok(unified_mount(&mounts).map(|mount| mount.point.clone()))
}

/// Mounts the hierarchy at `at`, making the directory and those above it. Where the hierarchy is
/// mounted already, here or elsewhere, that mount is the answer, since the kernel has only one
/// `net_cls` hierarchy.
pub fn mount(at: &Path) -> Result<Hierarchy, Error> {
    if let Some(found) = find()? {
        return Ok(found);
    }
    let controllers = Controllers::read()?;
    let together = controllers.together_with_net_cls().ok_or(Error::NoNetCls)?;
    make_folder(at).map_err(Error::io("make", at))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let mount_with =
        |options| nix::mount::mount(Some("net_cls"), at, Some("cgroup"), flags, Some(options));
    mount_with(QUICK)
        .or_else(|_| mount_with("net_cls"))
        .map(|()| Hierarchy { path: at.to_path_buf() })
        .map_err(|errno| {
            remove_mount_point(at);
            refusal(errno, at, &together)
        })
}

/// The error for a mount that the kernel refused, with its cure. `together`: the controllers that
/// share the hierarchy.
fn refusal(errno: Errno, at: &Path, together: &[&str]) -> Error {
    match errno {
        // cgroup1_root_to_use (kernel/cgroup/cgroup-v1.c): the controller is bound to a hierarchy
        // that has others too, so that one must be mounted with all of its options.
        Errno::EBUSY if !together.is_empty() => Error::Paired {
            at: at.to_path_buf(),
            with: together.join(", "),
            options: format!("net_cls,{}", together.join(",")),
        },
        Errno::EBUSY => Error::MountPointTaken { at: at.to_path_buf() },
        // check_cgroupfs_options: a controller that `cgroup_no_v1` names cannot be asked for,
        // though /proc/cgroups says that it is enabled.
        Errno::EINVAL => Error::Disabled { at: at.to_path_buf() },
        Errno::ENODEV => Error::NoNetCls,
        errno => Error::io("mount net_cls at", at)(errno.into()),
    }
}

/// What a host has of `net_cls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provision {
    /// Whether the kernel has the controller.
    pub exists: bool,
    /// The kernel was started with `cgroup_no_v1` for it.
    pub is_forbidden: bool,
    /// The mount that is used; `None`: it is mounted nowhere.
    pub mount: Option<Mount>,
    /// One that is mounted below cgroup v2, whether or not it is the one that is used.
    pub below_v2: Option<Mount>,
    /// It is in one hierarchy with other controllers: the kernel mounts it only with all of these.
    pub is_tied: bool,
}

impl Provision {
    /// Reads it. Mounts nothing.
    ///
    /// # Errors
    /// Mountinfo or `/proc/cgroups` cannot be read.
    pub fn read() -> Result<Provision, Error> {
        // A kernel that hides its command line may have any.
        let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
        let mounts = mounts()?;
        let is_below =
            |mount: &&Mount| mount.has_controller("net_cls") && is_below_v2(mount, &mounts);
        let controllers = Controllers::read()?;
        let together = controllers.together_with_net_cls();
        Ok(Provision {
            exists: together.is_some(),
            is_tied: together.is_some_and(|others| !others.is_empty()),
            is_forbidden: is_forbidden(&line),
            mount: net_cls_mount(&mounts).cloned(),
            below_v2: mounts.iter().find(is_below).cloned(),
        })
    }
}

/// `cgroup_no_v1=` of the kernel's command line (`cgroup_no_v1`, kernel/cgroup/cgroup-v1.c).
fn is_forbidden(line: &str) -> bool {
    let lists = line.split_whitespace().filter_map(|word| word.strip_prefix("cgroup_no_v1="));
    lists.flat_map(|list| list.split(',')).any(|name| ["all", "net_cls"].contains(&name))
}

/// What came of [`unmount`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unmounted {
    /// The hierarchy was unmounted, and the mount point removed if shaper had made it.
    Done,
    /// The hierarchy is not mounted at that path, so shaper did not mount it.
    NotOurs,
    /// Others have directories or open files in the hierarchy.
    InUse,
}

/// Unmounts the hierarchy if it is mounted at `at` itself and nobody uses it, and removes `at` (and
/// `/run/shaper` above it) if it is empty. Drop the lock first: an open directory keeps the
/// mount busy.
pub fn unmount(at: &Path) -> Result<Unmounted, Error> {
    let ours = |mount: &Mount| mount.point == at && mount.has_controller("net_cls");
    if !mounts()?.iter().any(ours) {
        return Ok(Unmounted::NotOurs);
    }
    let entries = fs::read_dir(at).map_err(Error::io("list", at))?;
    for entry in entries {
        let entry = entry.map_err(Error::io("list", at))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            return Ok(Unmounted::InUse);
        }
    }
    // No lazy unmount (MNT_DETACH): a process with a file open there would go on in a hierarchy
    // that nobody sees.
    match nix::mount::umount2(at, MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) => {}
        Err(Errno::EBUSY) => return Ok(Unmounted::InUse),
        Err(errno) => return Err(Error::io("unmount", at)(errno.into())),
    }
    remove_mount_point(at);
    Ok(Unmounted::Done)
}

/// Removes the folder, and `/run/shaper` above it, if they are empty. That they are not empty is no
/// error: others may have files there, or be about to mount again.
pub(super) fn remove_mount_point(at: &Path) {
    let ours = |above: &&Path| above.file_name().is_some_and(|name| name == "shaper");
    if fs::remove_dir(at).is_ok()
        && let Some(above) = at.parent().filter(ours)
    {
        let _kept_if_not_empty = fs::remove_dir(above);
    }
}

fn mounts() -> Result<Vec<Mount>, Error> {
    let path = Path::new(MOUNTINFO);
    let text = fs::read(path).map_err(Error::io("read", path))?;
    Ok(parse_mountinfo(&text))
}

/// `/proc/cgroups`: which v1 hierarchy each controller is in; 0 is none (or cgroup v2).
struct Controllers(Vec<(String, u32)>);

impl Controllers {
    fn read() -> Result<Controllers, Error> {
        let path = Path::new(CONTROLLERS);
        match fs::read_to_string(path) {
            Ok(text) => Ok(Controllers::parse(&text)),
            // Kernels without CONFIG_CGROUPS.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Controllers(Vec::new())),
            Err(error) => Err(Error::io("read", path)(error)),
        }
    }

    /// Name, hierarchy, number of cgroups, enabled, with tabs between; after one line of titles.
    fn parse(text: &str) -> Controllers {
        let row = |line: &str| {
            let mut fields = line.split_whitespace();
            Some((fields.next()?.to_string(), fields.next()?.parse().ok()?))
        };
        Controllers(text.lines().filter(|line| !line.starts_with('#')).filter_map(row).collect())
    }

    /// The controllers that share a hierarchy with net_cls; `None`: there is no net_cls.
    fn together_with_net_cls(&self) -> Option<Vec<&str>> {
        let (_, hierarchy) = self.0.iter().find(|(name, _)| name == "net_cls")?;
        let beside = |(name, other): &&(String, u32)| {
            *hierarchy != 0 && other == hierarchy && name != "net_cls"
        };
        Some(self.0.iter().filter(beside).map(|(name, _)| name.as_str()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAIRED: &str = "#subsys_name\thierarchy\tnum_cgroups\tenabled\n\
                          cpu\t0\t1\t1\nnet_cls\t7\t1\t1\nperf_event\t0\t1\t1\nnet_prio\t7\t1\t1\n";

    #[test]
    fn a_shared_hierarchy_names_its_other_controllers() {
        assert_eq!(Controllers::parse(PAIRED).together_with_net_cls(), Some(vec!["net_prio"]));
    }

    #[test]
    fn controllers_in_no_hierarchy_are_not_together() {
        let text = PAIRED.replace("\t7\t", "\t0\t");
        assert_eq!(Controllers::parse(&text).together_with_net_cls(), Some(vec![]));
    }

    #[test]
    fn a_command_line_may_forbid_net_cls() {
        assert!(is_forbidden("ro cgroup_no_v1=cpu,net_cls quiet"));
        assert!(is_forbidden("cgroup_no_v1=all"));
        assert!(!is_forbidden("cgroup_no_v1=named quiet net_cls"));
    }

    #[test]
    fn a_refused_mount_says_what_to_do() {
        let at = Path::new("/run/shaper/net_cls");
        assert_eq!(
            refusal(Errno::EBUSY, at, &["net_prio"]).to_string(),
            "cannot mount net_cls at /run/shaper/net_cls: its hierarchy is tied to net_prio, and is \
             not mounted where it can be seen from here; mount it with `mount -t cgroup -o \
             net_cls,net_prio net_cls /run/shaper/net_cls`"
        );
        assert_eq!(
            refusal(Errno::EINVAL, at, &[]).to_string(),
            "cannot mount net_cls at /run/shaper/net_cls: the kernel was started with \
             `cgroup_no_v1`, which switches it off; take `net_cls` (or `all`) off that parameter \
             and boot again"
        );
        assert_eq!(
            refusal(Errno::EPERM, at, &[]).to_string(),
            "cannot mount net_cls at /run/shaper/net_cls: Operation not permitted (os error 1)"
        );
    }

    #[test]
    fn a_kernel_without_net_cls_says_so() {
        assert_eq!(Controllers::parse("cpu\t0\t1\t1\n").together_with_net_cls(), None);
    }
}

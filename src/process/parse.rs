//! The texts of `/proc/PID` as values: `stat`, `status`, `cgroup`. Pure.

use super::guest::{Guest, guest_of, is_slice};
use crate::text::Foreign;

/// Flags of a task, include/linux/sched.h.
const PF_EXITING: u64 = 0x0000_0004;
const PF_KTHREAD: u64 = 0x0020_0000;

/// The fields of `/proc/PID/stat` (proc_pid_stat(5)) that are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Up to 15 bytes that the process chose itself.
    pub comm: Foreign,
    /// Whether the main thread is a zombie or about to be one: it has no namespaces any more, and
    /// shows the root as its v1 cgroup. So does a main thread that ended before others.
    pub ended: bool,
    /// The pid of its parent; 0: none in this process namespace.
    pub parent: u32,
    /// How many threads the process has.
    pub threads: u32,
    /// Clock ticks after boot.
    pub starttime: u64,
    /// `PF_KTHREAD` (linux/sched.h).
    pub kernel_thread: bool,
}

/// `None`: the text is not what the kernel writes, or is cut off.
pub fn parse_stat(text: &[u8]) -> Option<Stat> {
    // The name stands in parentheses and may itself hold parentheses, spaces and newlines.
    let open = text.iter().position(|byte| *byte == b'(')?;
    let close = text.iter().rposition(|byte| *byte == b')')?;
    let comm = String::from_utf8_lossy(text.get(open + 1..close)?).into_owned().into();
    let rest = std::str::from_utf8(text.get(close + 1..)?).ok()?;
    // The first field after the name is number 3 of the man page.
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let flags: u64 = fields.nth(9 - 5)?.parse().ok()?;
    let threads = fields.nth(20 - 10)?.parse().ok()?;
    let starttime = fields.nth(22 - 21)?.parse().ok()?;
    Some(Stat {
        comm,
        ended: matches!(state, "Z" | "X" | "x") || flags & PF_EXITING != 0,
        parent,
        threads,
        starttime,
        kernel_thread: flags & PF_KTHREAD != 0,
    })
}

/// What the `Uid:` line of `/proc/PID/status` says of a process's main thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uids {
    /// The real uid. (The owner of the folder `/proc/PID` is the effective one, and root for a
    /// process that must not be dumped.)
    pub real: u32,
    /// The saved uid, to which the thread may go back.
    pub saved: u32,
    /// The file system uid, which owns the sockets that the thread makes (`sock_alloc`,
    /// net/socket.c). It changes with the effective uid (`__sys_setresuid`, kernel/sys.c), or by
    /// itself with setfsuid(2).
    pub acting: u32,
}

/// Real, effective, saved and file system's uid, in that order.
pub fn parse_uids(text: &[u8]) -> Option<Uids> {
    let line = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"Uid:"))?;
    let mut uids = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let real = uids.next()?.parse().ok()?;
    let saved = uids.nth(1)?.parse().ok()?;
    Some(Uids { real, saved, acting: uids.next()?.parse().ok()? })
}

/// What `/proc/PID/status` says of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Up to 15 bytes that the process chose itself.
    pub comm: Foreign,
    /// The pid of its parent; 0: none in this process namespace.
    pub parent: u32,
    /// The uids of the main thread.
    pub uids: Uids,
    /// Whether the main thread is a zombie or about to be one.
    pub ended: bool,
}

/// Reads the text. `None`: it is not what the kernel writes, or the name has characters that the
/// kernel escapes in this file.
pub fn parse_identity(text: &[u8]) -> Option<Identity> {
    let field = |name: &str| {
        let mut lines = text.split(|byte| *byte == b'\n');
        let value = lines.find_map(|line| line.strip_prefix(name.as_bytes()))?;
        std::str::from_utf8(value.strip_prefix(b"\t")?).ok()
    };
    let comm = field("Name:").filter(|name| !name.contains('\\'))?;
    Some(Identity {
        comm: comm.to_string().into(),
        parent: field("PPid:")?.parse().ok()?,
        uids: parse_uids(text)?,
        ended: field("State:")?.starts_with(['Z', 'X', 'x']),
    })
}

/// What `/proc/PID/cgroup` (cgroups(7)) says of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// The path in the `net_cls` hierarchy; `None`: it is not mounted.
    pub net_cls: Option<String>,
    /// The systemd unit in which the process is, by the path in systemd's own hierarchy.
    pub unit: Option<String>,
    /// The guest below whose cgroup some hierarchy has the process, a container's or a machine's.
    pub guest: Option<Guest>,
}

/// Each line is `hierarchy:controllers:path`.
pub fn parse_cgroup(text: &[u8]) -> Membership {
    let mut net_cls = None;
    let mut v1_unit = None;
    let mut v2_unit = None;
    let mut guest: Option<Guest> = None;
    for line in text.split(|byte| *byte == b'\n') {
        let mut fields = line.splitn(3, |byte| *byte == b':');
        let (Some(number), Some(controllers), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        // Another hierarchy may say more, where an engine has only some of them.
        if guest.as_ref().is_none_or(|guest| guest.id.is_none()) {
            let other = std::str::from_utf8(path).ok().and_then(guest_of);
            guest = other.or(guest);
        }
        if controllers.split(|byte| *byte == b',').any(|name| name == b"net_cls") {
            net_cls = Some(String::from_utf8_lossy(path).into_owned());
        } else if controllers == b"name=systemd" {
            v1_unit = std::str::from_utf8(path).ok().and_then(system_unit);
        } else if number == b"0" && controllers.is_empty() {
            v2_unit = std::str::from_utf8(path).ok().and_then(system_unit);
        }
    }
    Membership { net_cls, unit: v1_unit.or(v2_unit).map(str::to_string), guest }
}

/// The path of a process in the `net_cls` hierarchy, and nothing else of its text; `None`: it is
/// not mounted, or the path is no UTF-8, and so none of ours.
pub(super) fn net_cls_path(text: &[u8]) -> Option<&str> {
    text.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.splitn(3, |byte| *byte == b':');
        let (_number, mut controllers) = (fields.next()?, fields.next()?.split(|it| *it == b','));
        let path = fields.next()?;
        controllers.any(|name| name == b"net_cls").then(|| std::str::from_utf8(path).ok())?
    })
}

/// Where in cgroup v2 a process is, as `/proc/PID/cgroup` has it.
pub fn unified_path(text: &[u8]) -> Option<String> {
    let mut lines = text.split(|byte| *byte == b'\n');
    let path = lines.find_map(|line| line.strip_prefix(b"0::"))?;
    Some(std::str::from_utf8(path).ok()?.to_string())
}

/// The cgroup (v2) of the system unit in which the process is, as `/proc/PID/cgroup` has it, and
/// the unit's name.
pub fn unit_cgroup(text: &[u8]) -> Option<(String, String)> {
    let path = unified_path(text)?;
    let unit = system_unit(&path)?;
    let parts = || path.split('/').filter(|part| !part.is_empty());
    let depth = parts().position(|part| !is_slice(part))? + 1;
    let own: Vec<&str> = parts().take(depth).collect();
    Some((own.join("/"), unit.to_string()))
}

/// The system unit in a path of systemd's tree: below any slices, the first part that is a unit
/// (as `cg_path_get_unit`, src/basic/cgroup-util.c). What lies deeper is not looked at: a user's
/// own manager (`user@1000.service/app.slice/borg.service`) and a container name their units as
/// they like, and must not get another's class by it.
fn system_unit(path: &str) -> Option<&str> {
    let first = path.split('/').filter(|part| !part.is_empty()).find(|part| !is_slice(part))?;
    unit_of_directory(first)
}

/// The unit whose cgroup has this name; `None`: it is no unit's, or a slice's.
pub fn unit_of_directory(name: &str) -> Option<&str> {
    // systemd puts `_` before a name that could be taken for a file of the cgroup (`cg_escape`).
    let name = name.strip_prefix('_').unwrap_or(name);
    is_unit(name).then_some(name)
}

/// The kinds of unit that have processes (systemd.unit(5)).
fn is_unit(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(stem, kind)| {
        !stem.is_empty() && matches!(kind, "service" | "scope" | "socket" | "mount" | "swap")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Captured on Linux 6.18.
    const BASH: &[u8] = b"4711 (bash) S 1 4711 4711 0 -1 4194304 1520 0 0 0 1 0 0 0 20 0 3 0 \
        123456 4538368 823 18446744073709551615 1 1 0 0 0 0 65536 3686404 1266761467 0 0 0 17 1 0 \
        0 0 0 0 0 0 0 0 0 0 0 0\n";

    fn unit(path: &str) -> Option<String> {
        parse_cgroup(format!("1:name=systemd:{path}\n0::/\n").as_bytes()).unit
    }

    #[test]
    fn stat_gives_name_threads_and_start() {
        let stat = parse_stat(BASH).unwrap();
        assert_eq!((stat.comm.raw(), stat.threads, stat.starttime), ("bash", 3, 123_456));
        assert!(!stat.ended && !stat.kernel_thread);
    }

    #[test]
    fn a_name_may_hold_parentheses_spaces_and_newlines() {
        let text = String::from_utf8_lossy(BASH).replace("bash", "a) Z 1\n(b");
        let stat = parse_stat(text.as_bytes()).unwrap();
        assert_eq!((stat.comm.raw(), stat.ended, stat.starttime), ("a) Z 1\n(b", false, 123_456));
    }

    #[test]
    fn a_kernel_thread_is_known_by_its_flag_and_not_by_its_name() {
        let kthreadd = b"2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 1 0 0 20 0 1 0 8 0 0 0";
        assert!(parse_stat(kthreadd).unwrap().kernel_thread);
        let fake = String::from_utf8_lossy(BASH).replace("bash", "kthreadd");
        assert!(!parse_stat(fake.as_bytes()).unwrap().kernel_thread);
    }

    #[test]
    fn a_zombie_and_what_is_about_to_be_one_have_ended() {
        let text = String::from_utf8_lossy(BASH).replace(") S", ") Z");
        assert!(parse_stat(text.as_bytes()).unwrap().ended);
        let text = String::from_utf8_lossy(BASH).replace("4194304", "4194308");
        assert!(parse_stat(text.as_bytes()).unwrap().ended, "on its way");
    }

    #[test]
    fn a_cut_off_stat_is_no_stat() {
        for end in [0, 3, 10, 30, 60] {
            assert_eq!(parse_stat(&BASH[..end]), None, "{end}");
        }
    }

    #[test]
    fn the_real_uid_and_the_file_systems_are_read() {
        let status = b"Name:\tping\nUmask:\t0022\nUid:\t1000\t0\t5\t7\nGid:\t1000\t0\t0\t0\n";
        assert_eq!(parse_uids(status), Some(Uids { real: 1000, saved: 5, acting: 7 }));
        assert_eq!(parse_uids(b"Name:\tping\n"), None);
        assert_eq!(parse_uids(b"Uid:\t1000\t0\t0\n"), None, "cut off");
    }

    #[test]
    fn a_status_says_which_process_it_is() {
        let status =
            b"Name:\tping\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t9\nPid:\t9\nPPid:\t7\n\
            Uid:\t1000\t0\t0\t0\n";
        let identity = Identity {
            comm: "ping".into(),
            parent: 7,
            uids: Uids { real: 1000, saved: 0, acting: 0 },
            ended: false,
        };
        assert_eq!(parse_identity(status), Some(identity));
        let zombie = String::from_utf8_lossy(status).replace("S (sleeping)", "Z (zombie)");
        assert!(parse_identity(zombie.as_bytes()).unwrap().ended);
        let odd = String::from_utf8_lossy(status).replace("ping", "a\\nb");
        assert_eq!(parse_identity(odd.as_bytes()), None);
    }

    #[test]
    fn the_net_cls_line_is_the_one_whose_controllers_have_it() {
        let text = b"12:net_cls,net_prio:/shaper/user/a:b\n3:cpu,cpuacct:/x\n0::/y\n";
        assert_eq!(parse_cgroup(text).net_cls.as_deref(), Some("/shaper/user/a:b"));
        assert_eq!(parse_cgroup(b"3:cpu:/net_cls\n0::/net_cls\n").net_cls, None);
    }

    #[test]
    fn the_unit_is_the_system_one() {
        assert_eq!(unit("/system.slice/borg.service").as_deref(), Some("borg.service"));
        assert_eq!(
            unit("/system.slice/system-getty.slice/getty@tty1.service").as_deref(),
            Some("getty@tty1.service")
        );
        assert_eq!(unit("/system.slice/borg.service/payload").as_deref(), Some("borg.service"));
        assert_eq!(unit("/init.scope").as_deref(), Some("init.scope"));
        assert_eq!(
            unit("/user.slice/user-1000.slice/session-3.scope").as_deref(),
            Some("session-3.scope")
        );
        assert_eq!(unit("/"), None);
        assert_eq!(unit("/user.slice"), None);
    }

    #[test]
    fn a_units_own_cgroup_is_above_what_it_makes_there() {
        let own = |text: &str| unit_cgroup(text.as_bytes());
        let borg = Some(("system.slice/borg.service".to_string(), "borg.service".to_string()));
        assert_eq!(own("5:net_cls:/\n0::/system.slice/borg.service/payload/x\n"), borg);
        assert_eq!(own("0::/system.slice/borg.service\n"), borg);
        assert_eq!(own("0::/user.slice/user-1000.slice\n"), None);
        assert_eq!(own("0::/\n1:name=systemd:/system.slice/borg.service\n"), None);
        let escaped = Some(("_cpu.service".to_string(), "cpu.service".to_string()));
        assert_eq!(own("0::/_cpu.service/x\n"), escaped);
    }

    #[test]
    fn nobody_gets_a_units_class_by_naming_his_own_unit_so() {
        assert_eq!(
            unit("/user.slice/user-1000.slice/user@1000.service/app.slice/borg.service").as_deref(),
            Some("user@1000.service")
        );
        assert_eq!(unit("/docker/3f2a/system.slice/borg.service"), None);
        assert_eq!(unit("/../system.slice/borg.service"), None, "outside our cgroup namespace");
    }

    #[test]
    fn a_guest_is_known_by_any_hierarchy() {
        let guest = |text: &str| parse_cgroup(text.as_bytes()).guest;
        let web = guest_of("/lxc.payload.web");
        assert!(web.is_some());
        assert_eq!(guest("5:net_cls:/\n4:cpu:/lxc.payload.web\n0::/\n"), web);
        assert_eq!(guest("5:net_cls:/\n4:cpu:/\n0::/lxc.payload.web/init.scope\n"), web);
        assert_eq!(guest("4:cpu:/lxc\n0::/lxc.payload.web\n"), web, "this one has its name");
        assert_eq!(guest("0::/user.slice/user-1000.slice/session-3.scope/docker\n"), None);
        assert_eq!(guest("0::/../docker/3f2a\n"), None, "outside our cgroup namespace");
    }

    #[test]
    fn a_unit_name_keeps_its_own_escapes_and_loses_the_cgroups() {
        assert_eq!(
            unit(r"/system.slice/dev\x2dx.service").as_deref(),
            Some(r"dev\x2dx.service"),
            "as systemctl prints it"
        );
        assert_eq!(unit("/system.slice/_cpu.service").as_deref(), Some("cpu.service"));
    }

    #[test]
    fn where_systemd_has_no_v1_tree_the_unit_is_in_the_v2_path() {
        let text = b"5:net_cls:/\n0::/system.slice/borg.service\n";
        assert_eq!(parse_cgroup(text).unit.as_deref(), Some("borg.service"));
    }
}

//! What of a host matters to shaping beside its kernel objects: who else configures links, what
//! keeps the policy in force, what processes may do. Reads files only.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::error::ObserveError;
use super::podman::disturbed;
use crate::cgroup::{Mount, Provision, Root};
use crate::doctor::{Manager, NetClsFound, networkd, shapes};
use crate::facts::{LinkFacts, NoNetCls, Spared};
use crate::host::Kernel;
use crate::netlink;
use crate::netlink::device::Device;
use crate::netlink::request::dump;
use crate::sys::{ethtool, probe};
use crate::tree::{KernelState, LinkName};

pub use crate::sys::probe::Unloaded;

/// `PROC_PID_INIT_INO` (include/linux/proc_ns.h): the first process namespace.
const FIRST_PROCESS_NAMESPACE: u64 = 0xefff_fffc;
/// Linux's number of CAP_SYS_ADMIN (linux/capability.h).
const CAP_SYS_ADMIN: u32 = 21;

/// What can be told of this kernel without having it load a module.
///
/// # Errors
/// No memory or no descriptor for the trial.
pub fn without_loading() -> Result<Unloaded, ObserveError> {
    probe::without_loading().map_err(ObserveError::Probe)
}

/// Whether the kernel may still load modules.
pub fn may_load(proc_root: &Path) -> bool {
    let disabled = fs::read_to_string(proc_root.join("sys/kernel/modules_disabled"));
    disabled.is_ok_and(|text| text.trim() == "0")
}

/// The first two numbers of the kernel's release.
pub fn release(proc_root: &Path) -> Option<(u32, u32)> {
    let text = fs::read_to_string(proc_root.join("sys/kernel/osrelease")).ok()?;
    let mut numbers = text.split(['.', '-', '\n']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Whether the kernel tells of processes here (CONFIG_PROC_EVENTS): asked in the network namespace
/// in which the daemon would be started. Subscribing would tell too, but kernels before 6.6 would
/// go on making events for a listener that has gone.
pub fn process_events(proc_root: &Path) -> bool {
    let listed = fs::read_to_string(proc_root.join("net/connector"));
    let namespace = fs::metadata(proc_root.join("self/ns/pid")).map(|meta| meta.ino());
    listed.is_ok_and(|text| text.contains("cn_proc"))
        && namespace.is_ok_and(|inode| inode == FIRST_PROCESS_NAMESPACE)
}

/// The capabilities in force (`CapEff`) of a process; `None`: it is gone, or cannot be read.
pub fn capabilities(proc_root: &Path, pid: u32) -> Option<u64> {
    let status = fs::read_to_string(proc_root.join(format!("{pid}/status"))).ok()?;
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

/// The `net_cls` hierarchy. `others`: the top directories there that are not this instance's.
///
/// # Errors
/// As [`Provision::read`].
pub fn net_cls(
    kernel: &Kernel,
    stands: &KernelState,
    others: Vec<String>,
) -> Result<NetClsFound, ObserveError> {
    let Provision { exists, is_forbidden, mount, below_v2, .. } = Provision::read()?;
    let is_quick = |option: &String| option == "favordynmods";
    Ok(NetClsFound {
        exists,
        is_forbidden,
        is_unused: !kernel.places(),
        is_quick: mount.iter().flat_map(|mount| &mount.super_options).any(is_quick),
        disturbs: match spared(kernel, stands)? {
            None if mount.is_some() => disturbed(Path::new("/")),
            why => why,
        },
        mounted: mount.map(|mount| mount.point.display().to_string()),
        below_v2: below_v2.map(|mount| mount.point.display().to_string()),
        others,
    })
}

/// Why the hierarchy can be had neither where it is mounted nor by mounting it.
///
/// # Errors
/// As [`net_cls`].
pub fn no_net_cls(kernel: &Kernel) -> Result<Option<NoNetCls>, ObserveError> {
    if kernel.hierarchy().is_some() {
        return Ok(None);
    }
    let Provision { exists, is_forbidden, mount, .. } = Provision::read()?;
    Ok(match (exists, is_forbidden) {
        _ if mount.is_some() => None,
        (false, _) => Some(NoNetCls::Kernel),
        (true, true) => Some(NoNetCls::Forbidden),
        (true, false) => None,
    })
}

/// Why `auto` leaves `net_cls` alone, though the kernel has it; `None`: it is mounted, or may be.
/// `stands`: what our links have now. Where they read tags, a mount that has gone comes again, and
/// sockets have their tags meanwhile: whoever may not mount it leaves that to who may.
///
/// # Errors
/// As [`no_net_cls`].
pub fn spared(kernel: &Kernel, stands: &KernelState) -> Result<Option<Spared>, ObserveError> {
    if kernel.hierarchy().is_some() {
        // The daemon of the unit sees other mounts than the run before it that made the instance.
        let is_there = kernel.at(Root::NetCls).is_some_and(|it| it.root().is_dir());
        let mount = if is_there { None } else { Provision::read()?.mount };
        return Ok(mount.filter(Mount::read_only).map(|_| Spared::ReadOnly));
    }
    if no_net_cls(kernel)?.is_some() {
        return Ok(None);
    }
    let may_mount = capabilities(&kernel.proc_root, std::process::id())
        .is_some_and(|set| set & (1 << CAP_SYS_ADMIN) != 0);
    let stands_without = kernel.at(Root::Plain).is_some_and(|it| it.root().is_dir());
    // Others than root are told what root would find.
    if !may_mount && (stands_without || geteuid().is_root() && !stands.reads_tags()) {
        return Ok(Some(Spared::Unmountable));
    }
    if Provision::read()?.is_tied {
        return Ok(Some(Spared::Tied));
    }
    Ok(disturbed(Path::new("/")))
}

/// Whether the device merges what arrives (LRO).
///
/// # Errors
/// No descriptor or memory to ask it.
pub fn lro(link: &LinkName) -> Result<Option<bool>, ObserveError> {
    let speed = |source| ObserveError::Speed { link: link.clone(), source };
    ethtool::lro(link).map_err(speed)
}

/// What the device makes of packets; nothing is known where the link is gone.
///
/// # Errors
/// The socket's.
pub fn device(kernel: &mut Kernel, ifindex: u32) -> Result<Device, ObserveError> {
    let answer = kernel.netlink.get(&dump::link(ifindex), netlink::device::device)?;
    Ok(answer.ok().flatten().unwrap_or_default())
}

/// Who configures a link of the namespace in which networkd and NetworkManager run. `host`: the
/// root of the files.
pub fn manager(host: &Path, link: &LinkFacts) -> Option<Manager> {
    let read = |path: &str| fs::read_to_string(host.join(path.trim_start_matches('/'))).ok();
    let ifindex = link.ifindex;
    if let Some(mut files) =
        read(&format!("run/systemd/netif/links/{ifindex}")).and_then(|it| networkd(&it))
    {
        if let [main] = &files[..] {
            files.extend(drop_ins(host, main));
        }
        let file = files.iter().find(|file| read(file).is_some_and(|text| shapes(&text)));
        let shapes = file.is_some();
        let file = file.or(files.first()).cloned();
        return Some(Manager { name: "systemd-networkd", file, shapes });
    }
    let device = read(&format!("run/NetworkManager/devices/{ifindex}"))?;
    let value = |key: &str| device.lines().find_map(|line| line.strip_prefix(key));
    if value("managed=") == Some("false") {
        return None;
    }
    let connection = format!("uuid={}", value("connection-uuid=")?);
    let folders =
        ["etc", "run", "usr/lib"].map(|at| host.join(at).join("NetworkManager/system-connections"));
    let files = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten();
    let of_the_link = files.filter_map(|entry| {
        let path: PathBuf = entry.ok()?.path();
        let text = fs::read_to_string(&path).ok()?;
        text.lines().any(|line| line.trim() == connection).then_some((path, text))
    });
    let found = of_the_link.into_iter().next();
    Some(Manager {
        name: "NetworkManager",
        shapes: found.as_ref().is_some_and(|(_, text)| shapes(text)),
        file: found.map(|(path, _)| path.display().to_string()),
    })
}

/// The files beside one of networkd's that add to it (systemd.network(5)), of each name the first:
/// the state that systemd 252 writes does not name them.
fn drop_ins(host: &Path, file: &str) -> Vec<String> {
    let Some(name) = Path::new(file).file_name() else { return Vec::new() };
    let mut files: BTreeMap<OsString, String> = BTreeMap::new();
    for at in ["etc", "run", "usr/local/lib", "usr/lib"] {
        let folder = format!("/{at}/systemd/network/{}.d", name.display());
        let entries = fs::read_dir(host.join(folder.trim_start_matches('/'))).ok();
        let names = entries.into_iter().flatten().filter_map(|entry| Some(entry.ok()?.file_name()));
        for name in names.filter(|name| Path::new(name).extension() == Some(OsStr::new("conf"))) {
            let path = format!("{folder}/{}", name.display());
            files.entry(name).or_insert(path);
        }
    }
    files.into_values().collect()
}

/// Where the link of a masked unit leads.
const NOWHERE: &str = "/dev/null";

/// Whether systemd starts the daemon's unit at boot, and what applies the policy now and then.
/// `host`: the root of the files.
pub fn kept_by(host: &Path) -> (bool, Option<&'static str>) {
    let units = ["etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"];
    // A masked unit keeps the links by which it was enabled, and is not started (systemd.unit(5)).
    let is_masked = |unit: &str| {
        let mut links = ["etc/systemd/system", "run/systemd/system"].into_iter();
        links.any(|at| {
            fs::read_link(host.join(at).join(unit)).is_ok_and(|to| to == Path::new(NOWHERE))
        })
    };
    let is_wanted = |by: &str, unit: &str| {
        let wants = format!("{by}.wants/{unit}");
        units.iter().any(|at| host.join(at).join(&wants).is_symlink()) && !is_masked(unit)
    };
    let timer = "shaper-apply.timer";
    let cron = "/etc/cron.d/shaper";
    let by_timer = is_wanted("timers.target", timer).then_some(timer);
    let by_cron = host.join(&cron[1..]).exists().then_some(cron);
    (is_wanted("multi-user.target", "shaper.service"), by_timer.or(by_cron))
}

/// Whether the links are those of the namespace that the host's own programs configure.
pub fn is_hosts(kernel: &Kernel) -> bool {
    let first = fs::metadata(kernel.proc_root.join("1/ns/net")).map(|meta| meta.ino());
    first.is_ok_and(|inode| inode == kernel.netns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::modules::write_files;

    fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
        let host = tempfile::tempdir().unwrap();
        write_files(host.path(), files);
        host
    }

    #[test]
    fn whoever_configures_a_link_is_named_with_its_file() {
        let link = LinkFacts::ethernet(7);
        let of = |files: &[(&str, &str)]| manager(host(files).path(), &link);
        assert_eq!(of(&[]), None);
        let state =
            ("run/systemd/netif/links/7", "ADMIN_STATE=configured\nNETWORK_FILE=/etc/a.network\n");
        let found = of(&[state, ("etc/a.network", "[CAKE]\nParent=root\n")]);
        let file = Some("/etc/a.network".to_string());
        assert_eq!(found, Some(Manager { name: "systemd-networkd", file, shapes: true }));
        assert!(
            of(&[state, ("etc/a.network", "[Network]\nDHCP=yes\n")]).is_some_and(|it| !it.shapes)
        );
        // The state that systemd 252 writes says nothing of what stands beside the file.
        let beside = "etc/systemd/network/a.network.d/queue.conf";
        let found = of(&[state, ("etc/a.network", ""), (beside, "[QDisc]\nParent=clsact\n")]);
        let found = found.expect("networkd");
        assert!(found.shapes && found.file.is_some_and(|it| it.ends_with("d/queue.conf")));
        // A vendor's file, and an administrator's of the same name in its place.
        let vendors = "usr/lib/systemd/network/a.network.d/queue.conf";
        let vendors = (vendors, "[QDisc]\nParent=clsact\n");
        let found = of(&[state, ("etc/a.network", ""), vendors, (beside, "")]);
        assert!(found.is_some_and(|it| !it.shapes));
        let device =
            ("run/NetworkManager/devices/7", "[device]\nmanaged=true\nconnection-uuid=1-2\n");
        let connection = "etc/NetworkManager/system-connections/a.nmconnection";
        let text = "[connection]\nuuid=1-2\n[tc]\nqdisc.root=fq_codel\n";
        let found = of(&[device, (connection, text)]).unwrap();
        assert!(found.shapes && found.file.unwrap().ends_with("a.nmconnection"));
        let other = "[connection]\nuuid=3\n[tc]\nqdisc.root=fq_codel\n";
        assert!(of(&[device, (connection, other)]).is_some_and(|it| !it.shapes));
    }

    #[test]
    fn units_that_are_enabled_keep_the_policy() {
        let host = host(&[("etc/cron.d/shaper", "")]);
        assert_eq!(kept_by(host.path()), (false, Some("/etc/cron.d/shaper")));
        let wants = host.path().join("etc/systemd/system/multi-user.target.wants");
        fs::create_dir_all(&wants).unwrap();
        std::os::unix::fs::symlink("/gone", wants.join("shaper.service")).unwrap();
        assert!(kept_by(host.path()).0);
        let unit = host.path().join("etc/systemd/system/shaper.service");
        std::os::unix::fs::symlink("/dev/null", unit).unwrap();
        assert!(!kept_by(host.path()).0);
    }

    #[test]
    fn a_release_has_two_numbers() {
        let of = |text| release(host(&[("sys/kernel/osrelease", text)]).path());
        assert_eq!(of("6.1.0-18-amd64\n"), Some((6, 1)));
        assert_eq!(of("6.18\n"), Some((6, 18)));
        assert_eq!(of("x"), None);
    }
}

//! Which guest a cgroup's path means. Pure.

use crate::facts::Engine;

/// The guest in whose cgroup a process is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Guest {
    /// What runs it, as far as the path tells.
    pub engine: Engine,
    /// The engine's own id of it: 64 hexadecimal digits of Docker's and Podman's, a name of LXC's.
    /// `None`: the path names none.
    pub id: Option<String>,
    /// The uid of `user-UID.slice` above it.
    pub slice: Option<u32>,
}

/// Cgroups right below a hierarchy's root in which engines put their guests, without systemd: the
/// next part of the path is the guest's.
const ROOMS: [(&str, Engine); 7] = [
    ("docker", Engine::Docker),
    ("buildkit", Engine::Docker),
    ("lxc", Engine::Lxc),
    ("lxc.payload", Engine::Lxc),
    ("default", Engine::Containerd),
    ("k8s.io", Engine::Containerd),
    ("machine", Engine::Machine),
];

/// The same where more lies between: what a guest's own cgroup is its name alone tells.
const DEEP_ROOMS: [(&str, Engine); 4] = [
    ("kubepods", Engine::Containerd),
    ("kubepods.slice", Engine::Containerd),
    ("libpod_parent", Engine::Podman),
    ("machine.slice", Engine::Machine),
];

/// How the names of scopes begin that engines have systemd make, in a slice of their choice.
const SCOPES: [(&str, Engine); 7] = [
    ("docker-", Engine::Docker),
    ("buildkit-", Engine::Docker),
    ("libpod-", Engine::Podman),
    ("cri-containerd-", Engine::Containerd),
    ("nerdctl-", Engine::Containerd),
    ("crio-", Engine::Containerd),
    ("machine-", Engine::Machine),
];

/// Whose guest's a path of any hierarchy is; `None`: nobody's. Only parts that root alone can make
/// count, from the root down to the first that is no slice; otherwise a user could name a cgroup so
/// and pass for a guest. Users make cgroups below their own manager
/// (`user.slice/user-1000.slice/user@1000.service/…`), below a unit that is delegated to them, and
/// nowhere else; logind names their sessions. So a container that a user runs himself is his, and
/// so is one below a unit (`web.service/libpod-payload-…`), which may be delegated to its user. No
/// name holds a newline (`cgroup_mkdir`, kernel/cgroup/cgroup.c).
pub(super) fn guest_of(path: &str) -> Option<Guest> {
    let parts = || path.split('/').filter(|part| !part.is_empty());
    let top = parts().next()?;
    let mut slices = parts().take_while(|part| is_slice(part));
    let slice = (slices.next() == Some("user.slice")).then(|| slices.next()).flatten();
    let slice = slice.and_then(uid_of_slice);
    let guest = |(engine, id): (Engine, Option<&str>)| {
        let id = id.map(|id| if engine == Engine::Machine { machine(id) } else { id.to_string() });
        Guest { engine, id, slice }
    };
    if let Some(name) = top.strip_prefix("lxc.payload.") {
        return Some(guest((Engine::Lxc, Some(name))));
    }
    if let Some((_, engine)) = ROOMS.iter().find(|(room, _)| *room == top) {
        return Some(guest((*engine, parts().nth(1))));
    }
    if let Some((_, engine)) = DEEP_ROOMS.iter().find(|(room, _)| *room == top) {
        let named = parts().skip(1).find_map(|part| own_cgroup(part, *engine));
        return Some(guest(named.map_or((*engine, None), |(engine, id)| (engine, Some(id)))));
    }
    let first = parts().find(|part| !is_slice(part))?;
    own_cgroup(first, Engine::Docker).map(|(engine, id)| guest((engine, Some(id))))
}

/// The guest whose own cgroup has this name. `bare`: whose it is if it is an id and nothing else.
fn own_cgroup(part: &str, bare: Engine) -> Option<(Engine, &str)> {
    if let Some(name) = part.strip_prefix("systemd-nspawn@") {
        return Some((Engine::Machine, name.strip_suffix(".service")?));
    }
    // Its monitor's, which is in the host's namespaces.
    if part.starts_with("libpod-conmon-") {
        return None;
    }
    let scope = part.strip_suffix(".scope");
    let name = scope.unwrap_or(part);
    let of = SCOPES.iter().find_map(|(begin, engine)| Some((*engine, name.strip_prefix(begin)?)));
    match of {
        Some(_) if scope.is_some() => of,
        // Without systemd: Podman's have their prefix, Docker's none, whichever cgroup is above.
        Some((Engine::Podman, id)) if is_id(id) => of,
        _ if is_id(part) => Some((bare, part)),
        _ => None,
    }
}

/// 64 hexadecimal digits, as Docker, Podman and containerd's clients number their containers.
fn is_id(part: &str) -> bool {
    part.len() == 64 && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The name of a machine: systemd escapes it (`unit_name_escape`, src/basic/unit-name.c), and
/// libvirt gives it the driver and a number before it (`virDomainDriverGenerateMachineName`), or
/// the driver behind it.
fn machine(part: &str) -> String {
    let name = unescaped(part);
    let behind = [".libvirt-qemu", ".libvirt-lxc"].iter().find_map(|end| name.strip_suffix(end));
    let name = behind.unwrap_or(&name);
    let domain = ["qemu-", "lxc-"].iter().find_map(|driver| {
        let (number, domain) = name.strip_prefix(driver)?.split_once('-')?;
        number.parse::<u32>().is_ok().then_some(domain)
    });
    domain.unwrap_or(name).to_string()
}

/// `\x2d` is a minus. What is no escape stays as it is.
fn unescaped(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let digits = rest.strip_prefix(b"\\x").and_then(|digits| digits.get(..2));
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => (bytes.push(byte), rest = &rest[4..]),
            None => (bytes.push(*first), rest = behind),
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether a part of a path is a slice of systemd's.
pub fn is_slice(part: &str) -> bool {
    part.strip_prefix('_').unwrap_or(part).ends_with(".slice")
}

fn uid_of_slice(part: &str) -> Option<u32> {
    part.strip_prefix("user-")?.strip_suffix(".slice")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f2a00000000000000000000000000000000000000000000000000000000beef";

    #[test]
    fn a_path_says_which_guests_it_is() {
        let table = [
            ("/docker/ID", Engine::Docker, "ID"),
            ("/docker/ID/init.scope", Engine::Docker, "ID"),
            // An engine in a container: the outer one is what has our link.
            ("/docker/ID/docker/0000", Engine::Docker, "ID"),
            ("/system.slice/docker-ID.scope", Engine::Docker, "ID"),
            ("/team.slice/team-a.slice/docker-ID.scope/init.scope", Engine::Docker, "ID"),
            ("/team.slice/ID", Engine::Docker, "ID"),
            ("/machine.slice/libpod-ID.scope", Engine::Podman, "ID"),
            ("/machine.slice/libpod-ID.scope/container", Engine::Podman, "ID"),
            ("/machine.slice/machine-libpod_pod_0.slice/libpod-ID.scope", Engine::Podman, "ID"),
            ("/libpod_parent/libpod-ID", Engine::Podman, "ID"),
            ("/libpod_parent/0000/libpod-ID", Engine::Podman, "ID"),
            ("/kubepods/burstable/pod12ab/ID", Engine::Containerd, "ID"),
            (
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1.slice/cri-containerd-ID.scope",
                Engine::Containerd,
                "ID",
            ),
            ("/kubepods.slice/kubepods-pod1.slice/crio-ID.scope", Engine::Containerd, "ID"),
            ("/default/ID", Engine::Containerd, "ID"),
            ("/lxc.payload.web/init.scope", Engine::Lxc, "web"),
            ("/lxc.payload.web", Engine::Lxc, "web"),
            ("/lxc.payload/web", Engine::Lxc, "web"),
            ("/lxc/100/ns", Engine::Lxc, "100"),
            ("/machine.slice/systemd-nspawn@web.service/payload", Engine::Machine, "web"),
            ("/machine.slice/machine-web.scope", Engine::Machine, "web"),
            ("/machine.slice/machine-qemu\\x2d1\\x2dvm\\x2da.scope", Engine::Machine, "vm-a"),
            ("/machine.slice/machine-lxc\\x2d77\\x2db.scope/libvirt", Engine::Machine, "b"),
            ("/machine/qemu-1-vm.libvirt-qemu/emulator", Engine::Machine, "vm"),
        ];
        for (path, engine, id) in table {
            let guest = guest_of(&path.replace("ID", ID));
            let id = Some(id.replace("ID", ID));
            assert_eq!(guest, Some(Guest { engine, id, slice: None }), "{path}");
        }
    }

    #[test]
    fn the_slice_of_a_user_above_it_says_for_whom_it_runs() {
        for (path, engine) in [
            ("/user.slice/user-1000.slice/docker-ID.scope", Engine::Docker),
            ("/user.slice/user-1000.slice/libpod-ID.scope/container", Engine::Podman),
            ("/user.slice/user-1000.slice/ID", Engine::Docker),
            ("/user.slice/user-1000.slice/libpod-ID", Engine::Podman),
        ] {
            let guest = guest_of(&path.replace("ID", ID));
            assert_eq!(guest, Some(Guest { engine, id: Some(ID.into()), slice: Some(1000) }));
        }
    }

    #[test]
    fn a_guests_path_may_name_no_guest() {
        for path in ["/docker", "/machine.slice/libpod-conmon-ID.scope", "/machine.slice", "/lxc"] {
            let guest = guest_of(&path.replace("ID", ID)).unwrap();
            assert_eq!((guest.id, guest.slice), (None, None), "{path}");
        }
    }

    #[test]
    fn what_a_user_can_name_makes_no_guest() {
        for path in [
            "/",
            "/user.slice",
            "/user.slice/user-1000.slice/user@1000.service/docker/ID",
            "/user.slice/user-1000.slice/user@1000.service/app.slice/docker-ID.scope",
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container",
            "/user.slice/user-1000.slice/user@1000.service/machine.slice/x",
            "/user.slice/user-1000.slice/session-3.scope/docker",
            "/user.slice/user-1000.slice/session-3.scope/ID",
            // A unit that is delegated to the user whom it runs as.
            "/system.slice/ci.service/docker/ID",
            "/system.slice/ci.service/libpod-payload-ID",
            "/system.slice/ci.service/lxc.payload.web",
            "/system.slice/vsftpd.service",
            "/system.slice/docker.service",
            "/lxc.monitor.web",
            "/init.scope",
            "/shaper/user/docker-ID",
        ] {
            assert_eq!(guest_of(&path.replace("ID", ID)), None, "{path}");
        }
    }

    #[test]
    fn what_is_no_escape_stays() {
        assert_eq!(unescaped("a\\x2db\\x"), "a-b\\x");
        assert_eq!(unescaped("\\x2"), "\\x2");
        assert_eq!(unescaped("\\xzz"), "\\xzz");
    }
}

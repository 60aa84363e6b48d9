//! bpf(2): loads the programs, whose maps the files below make and open (linux/bpf.h,
//! kernel/bpf/syscall.c).

mod attached;
mod call;
mod flows;
mod load;
mod map;
mod owner_maps;
mod pulse;
mod rule_maps;
mod servers;

use std::io;
use std::os::fd::OwnedFd;

use nix::sys::resource::{Resource, setrlimit};

use super::btf;
use super::shortage::is_shortage;
use crate::classify::assembler::Instruction;
use crate::classify::{inner, program};
use crate::facts::Helpers;
use crate::tree::{Label, Program, Sockets, TagHelper};
pub use attached::tcx;
pub use flows::Flows;
use load::load_with;
pub use owner_maps::Maps;
pub use pulse::Pulse;
pub use rule_maps::{RuleMaps, load_rules};
pub use servers::ServerMap;

/// Loads a deciding program that reads these maps. Needs CAP_BPF and CAP_NET_ADMIN (CAP_SYS_ADMIN
/// before Linux 5.8); EPERM without. A filter that uses it keeps it alive; the descriptor may be
/// closed then.
pub fn load(program: Program, maps: &Maps) -> io::Result<OwnedFd> {
    load_instructions(&program::decide(program), maps)
}

/// Loads any program of traffic control whose maps are numbered as the deciding one's.
pub fn load_instructions(program: &[Instruction], maps: &Maps) -> io::Result<OwnedFd> {
    let maps = [&maps.accounts, &maps.ranges, &maps.given, &maps.sources];
    load_with(program, &maps, *b"shaper_decide\0\0\0")
}

/// Loads the program that clears priorities.
pub fn load_clear_priority(sockets: Sockets) -> io::Result<OwnedFd> {
    // Before Linux 5.11 programs count as locked memory, too.
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, libc::RLIM_INFINITY, libc::RLIM_INFINITY);
    load_with(&program::clear_priority(sockets), &[], *b"shaper_priority\0")
}

/// Loads the program that labels what comes in by an inner link. `maps`: where it asks for sources.
pub fn load_label(label: Label, maps: Option<&Maps>) -> io::Result<OwnedFd> {
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, libc::RLIM_INFINITY, libc::RLIM_INFINITY);
    let maps: Vec<_> = maps
        .map(|maps| [&maps.sources; program::SOURCES as usize + 1])
        .into_iter()
        .flatten()
        .collect();
    load_with(&inner::label(label), &maps, *b"shaper_label\0\0\0\0")
}

/// Whether this process may load programs, but no program that reads the kernel's own values, for
/// lack of CAP_PERFMON.
pub fn may_not_read_kernel() -> bool {
    /// Bits of `CapEff` (linux/capability.h): CAP_SYS_ADMIN, which stands for both of the others,
    /// then CAP_PERFMON and CAP_BPF (Linux 5.8).
    const SYS_ADMIN: u64 = 1 << 21;
    const PERFMON: u64 = 1 << 38;
    const BPF: u64 = 1 << 39;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & BPF != 0 && mask & (SYS_ADMIN | PERFMON) == 0
}

/// Which functions a deciding program can call here; `None` where none can be loaded at all.
pub fn helpers() -> io::Result<Helpers> {
    let maps = Maps::for_trial()?;
    let loads = |tag, sockets| {
        let tag = Some(tag);
        load(
            Program { shards: true, tag, cgroups: false, sockets, mptcp: None, labels: false },
            &maps,
        )
    };
    let takes = |tag, sockets| match loads(tag, sockets) {
        Err(error) if is_shortage(&error) => Err(error),
        answer => Ok(answer.is_ok()),
    };
    let netns_cookie = takes(TagHelper::Task, Sockets::Cookie(1))?;
    let socket_tag = takes(TagHelper::Socket, Sockets::All)?;
    if !netns_cookie && !socket_tag {
        loads(TagHelper::Task, Sockets::All)?;
    }
    let btf::Layouts { mptcp, namespace, .. } = btf::layouts()?;
    let mptcp = mptcp.filter(|layout| {
        let (tag, sockets) = (Some(TagHelper::Task), Sockets::All);
        let mptcp = Some(*layout);
        load(Program { shards: true, tag, cgroups: false, sockets, mptcp, labels: false }, &maps)
            .is_ok()
    });
    let namespace =
        namespace.filter(|layout| loads(TagHelper::Task, Sockets::Inode(1, *layout)).is_ok());
    let by_cgroup = Program {
        shards: true,
        tag: None,
        cgroups: true,
        sockets: Sockets::All,
        mptcp: None,
        labels: false,
    };
    let ancestor_cgroup = match load(by_cgroup, &maps) {
        Err(error) if is_shortage(&error) => return Err(error),
        answer => answer.is_ok(),
    };
    Ok(Helpers { socket_tag, netns_cookie, namespace, mptcp, ancestor_cgroup })
}

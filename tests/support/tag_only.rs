//! The guard taken away: the deciding filter replaced by an eBPF program that reads the `net_cls` tag and
//! nothing else, which is what `cls_cgroup` does. What must not leave its class with the guard is shown to
//! leave it without, so that no test of it holds for another reason.
#![allow(unsafe_code, reason = "bpf(2), which neither the standard library nor nix has")]

use std::fs;
use std::io;

use nix::libc;
use nix::mount::{MsFlags, mount};

use super::cell::SCRATCH;
use super::command::run;
use super::world::UPLINK;

/// `call 17` (`bpf_get_cgroup_classid`); `exit`.
const PROGRAM: [[u8; 4]; 4] =
    [[0x85, 0, 0, 0], 17_u32.to_ne_bytes(), [0x95, 0, 0, 0], 0_u32.to_ne_bytes()];

/// The pair of prefs at which the tag's filter may stand.
const PREFS: [&str; 2] = ["200", "201"];

/// From now on the tag alone decides on the uplink, until the next `apply`.
pub fn decides() {
    let at = format!("{SCRATCH}/bpf");
    if !fs::exists(format!("{at}/tag")).unwrap_or(false) {
        fs::create_dir_all(&at).expect("a mount point");
        mount(Some("cell"), at.as_str(), Some("bpf"), MsFlags::empty(), None::<&str>)
            .expect("mount a BPF file system");
        pin(&format!("{at}/tag\0")).expect("load a program that reads the tag");
    }
    let shown = run(&format!("tc filter show dev {UPLINK} parent 1:"));
    let deciding = shown.lines().find(|line| line.contains("shaper-decide")).expect("the filter");
    let [old, new] = match PREFS.map(|pref| deciding.contains(&format!(" pref {pref} "))) {
        [true, false] => PREFS,
        [false, true] => [PREFS[1], PREFS[0]],
        _ => panic!("{shown}"),
    };
    run(&format!(
        "tc filter add dev {UPLINK} parent 1: protocol all pref {new} handle 1 bpf object-pinned {at}/tag"
    ));
    run(&format!("tc filter del dev {UPLINK} parent 1: protocol all pref {old}"));
}

/// Loads it and gives it a name.
fn pin(path: &str) -> io::Result<()> {
    /// The head of `union bpf_attr` for `BPF_PROG_LOAD`.
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log: [u32; 2],
        log_buffer: u64,
        kernel_version: u32,
        flags: u32,
    }
    /// The same for `BPF_OBJ_PIN`.
    #[repr(C)]
    struct Pin {
        path: u64,
        descriptor: u32,
        flags: u32,
    }
    const PROG_LOAD: libc::c_long = 5;
    const OBJ_PIN: libc::c_long = 6;
    const SCHED_CLS: u32 = 3;
    let load = Load {
        kind: SCHED_CLS,
        count: 2,
        instructions: PROGRAM.as_ptr().addr() as u64,
        license: c"GPL".as_ptr().addr() as u64,
        log: [0; 2],
        log_buffer: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: the layout is the command's; what it points to lives until the call is over.
    let loaded =
        unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const load, size_of::<Load>()) };
    let descriptor = u32::try_from(loaded).map_err(|_| io::Error::last_os_error())?;
    let pin = Pin { path: path.as_ptr().addr() as u64, descriptor, flags: 0 };
    // SAFETY: as above; the path ends with a zero. The descriptor is open until the test ends.
    match unsafe { libc::syscall(libc::SYS_bpf, OBJ_PIN, &raw const pin, size_of::<Pin>()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

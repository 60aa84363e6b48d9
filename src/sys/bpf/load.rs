//! Loading one program of traffic control, whatever it does.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::call::new_descriptor;
use super::map::Map;
use crate::classify::assembler::Instruction;

/// `BPF_PROG_LOAD` of `enum bpf_cmd`.
const PROG_LOAD: libc::c_long = 5;

/// `BPF_PROG_TYPE_SCHED_CLS`.
const SCHED_CLS: u32 = 3;

/// Loads a program. `maps` are in the order of the numbers by which the instructions name them;
/// `name` is what the kernel lists.
pub(super) fn load_with(
    program: &[Instruction],
    maps: &[&Map],
    name: [u8; 16],
) -> io::Result<OwnedFd> {
    /// The head of `union bpf_attr` for `BPF_PROG_LOAD`; the rest counts as zero.
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
    }
    let mut bytes = Vec::with_capacity(program.len() * 8);
    for instruction in program {
        let map = instruction.map().and_then(|number| maps.get(number));
        let immediate = map.map_or(instruction.immediate, |map| map.fd.as_raw_fd());
        bytes.extend(Instruction { immediate, ..*instruction }.bytes());
    }
    let mut attr = Load {
        kind: SCHED_CLS,
        count: u32::try_from(program.len()).map_err(io::Error::other)?,
        instructions: bytes.as_ptr().addr() as u64,
        // The functions that read the tag are for programs under the GPL only.
        license: c"GPL".as_ptr().addr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name,
    };
    // SAFETY: the layout is the command's; instructions and licence outlive the call, which only
    // reads them.
    unsafe { new_descriptor(PROG_LOAD, &mut attr) }
}

//! bpf(2): loads the few instructions that read a packet's `net_cls` classid, on kernels without
//! `cls_cgroup` and at the root of links with shards.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use crate::state::Tag;
use crate::units::{ClassId, Shard};

/// `enum bpf_cmd` and `enum bpf_prog_type` (linux/bpf.h).
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;

/// `r0 = bpf_get_cgroup_classid(ctx); exit`. 17 is what `cls_cgroup` itself calls (`task_get_classid`: the current task in process context,
/// else the socket); 151 (`bpf_skb_cgroup_classid`) would read the socket only. r1 holds the
/// context when the program starts, and r0 is its answer.
const READ: [Instruction; 2] = [CALL, EXIT];
const CALL: Instruction = Instruction { code: 0x85, registers: 0, offset: 0, immediate: 17 };
const EXIT: Instruction = Instruction { code: 0x95, registers: 0, offset: 0, immediate: 0 };

/// The same, and a classid whose major is a shard's becomes that of the shard's class: `w1 = w0 >> 16;
/// if FIRST <= w1 <= LAST: w0 = 1:w1`. Unsigned; the comparisons in 64 bits, for kernels before 5.1.
const READ_SHARD: [Instruction; 8] = [
    CALL,
    Instruction { code: 0xbc, registers: 0x01, offset: 0, immediate: 0 },
    Instruction { code: 0x74, registers: 0x01, offset: 0, immediate: 16 },
    Instruction { code: 0xa5, registers: 0x01, offset: 3, immediate: Shard::FIRST as i32 },
    Instruction { code: 0x25, registers: 0x01, offset: 2, immediate: Shard::LAST as i32 },
    Instruction { code: 0xbc, registers: 0x10, offset: 0, immediate: 0 },
    Instruction { code: 0x44, registers: 0x00, offset: 0, immediate: ClassId::ROOT.0 as i32 },
    EXIT,
];

/// `struct bpf_insn`; the low half of `registers` is the destination, the high half the source.
#[repr(C)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// The head of `union bpf_attr` for `BPF_PROG_LOAD`; the kernel takes what it is given as the rest
/// being zero.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

/// Loads the program that answers with the classid of the packet's sender, 0 for none, as this tag is
/// read. Needs
/// CAP_BPF and CAP_NET_ADMIN (CAP_SYS_ADMIN before Linux 5.8); EPERM without. A filter that uses it
/// keeps it alive; the descriptor may be closed then.
pub fn load_tag(tag: Tag) -> io::Result<OwnedFd> {
    let program: &'static [Instruction] = match tag {
        Tag::Shards => &READ_SHARD,
        Tag::Bpf | Tag::Cgroup => &READ,
    };
    let load = ProgLoad {
        prog_type: BPF_PROG_TYPE_SCHED_CLS,
        insn_cnt: u32::try_from(program.len()).map_err(io::Error::other)?,
        insns: program.as_ptr().addr() as u64,
        // The function is for programs under the GPL only.
        license: c"GPL".as_ptr().addr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name: *b"shaper_classid\0\0",
    };
    // SAFETY: `load` has the layout of the head of `union bpf_attr`, its length is given, and the
    // instructions and the licence that it points to are statics; the kernel only reads them.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, size_of::<ProgLoad>())
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just opened this descriptor (close-on-exec) for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

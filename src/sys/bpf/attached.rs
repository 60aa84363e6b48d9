//! Programs of tcx at a link, whoever attached them (Linux 6.6; `tcx_prog_query`,
//! kernel/bpf/tcx.c).

use std::io;
use std::os::fd::AsFd;

use super::call::{bpf, descriptor, new_descriptor};
use crate::tree::Direction;

/// `enum bpf_cmd`.
const PROG_FD_BY_ID: libc::c_long = 13;
const INFO_BY_FD: libc::c_long = 15;
const PROG_QUERY: libc::c_long = 16;

/// `BPF_TCX_INGRESS` and `BPF_TCX_EGRESS` of `enum bpf_attach_type`.
const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;

/// More than the kernel lets be there (`BPF_MPROG_MAX`).
const MOST: u32 = 64;

/// The programs at one side of the link with this ifindex, by their names, or their numbers where
/// the names may not be asked (that takes CAP_SYS_ADMIN). None where the kernel has no tcx. EPERM
/// without CAP_NET_ADMIN.
pub fn tcx(ifindex: u32, side: Direction) -> io::Result<Vec<String>> {
    /// The head of `union bpf_attr` for `BPF_PROG_QUERY`.
    #[repr(C)]
    struct Query {
        ifindex: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        ids: u64,
        count: u32,
        padding: u32,
        program_flags: u64,
        links: u64,
        link_flags: u64,
        revision: u64,
    }
    let mut ids = [0_u32; MOST as usize];
    let attach_type = match side {
        Direction::Ingress => TCX_INGRESS,
        Direction::Egress => TCX_EGRESS,
    };
    let mut attr = Query {
        ifindex,
        attach_type,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr().addr() as u64,
        count: MOST,
        padding: 0,
        program_flags: 0,
        links: 0,
        link_flags: 0,
        revision: 0,
    };
    // SAFETY: the attributes have the layout that the command reads and writes; it writes at most
    // `count` numbers to `ids`, which outlive the call.
    if let Err(error) = unsafe { bpf(PROG_QUERY, &mut attr) } {
        let has_no_tcx = error.raw_os_error() == Some(libc::EINVAL);
        return if has_no_tcx { Ok(Vec::new()) } else { Err(error) };
    }
    let found = ids.iter().take(attr.count as usize);
    Ok(found.map(|id| name(*id).unwrap_or_else(|_| format!("number {id}"))).collect())
}

/// The name that the program was loaded with.
fn name(id: u32) -> io::Result<String> {
    /// The head of `union bpf_attr` for `BPF_PROG_GET_FD_BY_ID`.
    #[repr(C)]
    struct ById {
        id: u32,
        next_id: u32,
        flags: u32,
    }
    /// For `BPF_OBJ_GET_INFO_BY_FD`.
    #[repr(C)]
    struct InfoByFd {
        fd: u32,
        length: u32,
        info: u64,
    }
    /// Of `struct bpf_prog_info`: where the name is, and how much of it to ask for.
    const NAME: usize = 64;
    const INFO: usize = NAME + 16;
    let mut attr = ById { id, next_id: 0, flags: 0 };
    // SAFETY: the attributes have the layout that the command reads, and hold no pointers.
    let fd = unsafe { new_descriptor(PROG_FD_BY_ID, &mut attr) }?;
    let mut info = [0_u8; INFO];
    let mut attr = InfoByFd {
        fd: descriptor(fd.as_fd()),
        length: INFO as u32,
        info: info.as_mut_ptr().addr() as u64,
    };
    // SAFETY: the command writes at most `length` bytes to `info`, which outlives the call.
    unsafe { bpf(INFO_BY_FD, &mut attr) }?;
    let name = info[NAME..].split(|byte| *byte == 0).next().unwrap_or_default();
    match name {
        [] => Err(io::Error::other("it has no name")),
        name => Ok(String::from_utf8_lossy(name).into_owned()),
    }
}

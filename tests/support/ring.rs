//! One io_uring that holds one socket among its registered files, where nobody who looks through
//! descriptors finds it (io_uring_setup(2), io_uring_register(2), io_uring_enter(2)).
#![allow(unsafe_code, reason = "io_uring has no function in the standard library or in nix")]

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::libc;

/// `struct io_uring_params` as words of 32 bits, and where in it things stand.
type Params = [u32; 30];
const SQ_TAIL: usize = 11;
const SQ_MASK: usize = 12;
const SQ_ARRAY: usize = 16;
const CQ_HEAD: usize = 20;
const CQ_MASK: usize = 22;
const CQ_ENTRIES: usize = 25;

/// Where the rings and the submissions are mapped from.
const RINGS: libc::off_t = 0;
const SUBMISSIONS: libc::off_t = 0x1000_0000;
const PAGE: usize = 4_096;

pub struct Ring {
    fd: OwnedFd,
    params: Params,
    rings: *mut u8,
    submissions: *mut u8,
}

impl Ring {
    /// Registers the connection as file 0 and closes the descriptor.
    pub fn keep(stream: TcpStream) -> io::Result<Ring> {
        let mut params: Params = [0; 30];
        // SAFETY: the kernel reads and writes one `struct io_uring_params`, 120 bytes.
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1_u32, params.as_mut_ptr()) };
        let fd =
            i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
        // SAFETY: the kernel has just opened it for us alone.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let map = |offset| {
            let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
            // SAFETY: a new mapping; nothing of ours is there. Rings of one entry fit in one page,
            // both in the same since Linux 5.4.
            let at = unsafe {
                libc::mmap(std::ptr::null_mut(), PAGE, access, kind, fd.as_raw_fd(), offset)
            };
            if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(at.cast()) }
        };
        let (rings, submissions) = (map(RINGS)?, map(SUBMISSIONS)?);
        const REGISTER_FILES: u32 = 2;
        let files = [stream.as_raw_fd()];
        // SAFETY: it reads one descriptor.
        let done = unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                fd.as_raw_fd(),
                REGISTER_FILES,
                files.as_ptr(),
                1_u32,
            )
        };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Ring { fd, params, rings, submissions })
    }

    fn word(&self, offset: u32) -> &AtomicU32 {
        // SAFETY: the kernel said that a word of 32 bits is there, and the mapping lives as long as
        // this.
        unsafe { AtomicU32::from_ptr(self.rings.add(offset as usize).cast()) }
    }

    /// Sends a block over file 0 and waits until it has gone.
    pub fn send(&self, block: &[u8]) -> io::Result<()> {
        const SEND: u8 = 26;
        const FIXED_FILE: u8 = 1;
        const GETEVENTS: u32 = 1;
        let mut entry = [0_u8; 64];
        entry[0] = SEND;
        entry[1] = FIXED_FILE;
        entry[16..24].copy_from_slice(&(block.as_ptr().addr() as u64).to_ne_bytes());
        entry[24..28].copy_from_slice(&u32::try_from(block.len()).unwrap_or(0).to_ne_bytes());
        let tail = self.word(self.params[SQ_TAIL]);
        let number = tail.load(Ordering::Relaxed);
        let slot = number & self.word(self.params[SQ_MASK]).load(Ordering::Relaxed);
        // SAFETY: the mapping has as many entries of 64 bytes as the mask allows, and the kernel
        // has taken the last one.
        unsafe {
            self.submissions
                .add(slot as usize * entry.len())
                .copy_from_nonoverlapping(entry.as_ptr(), entry.len());
        }
        self.word(self.params[SQ_ARRAY] + slot * 4).store(slot, Ordering::Relaxed);
        tail.store(number.wrapping_add(1), Ordering::Release);
        // SAFETY: no pointers; the block that the entry names outlives the wait.
        let taken = unsafe {
            let (ring, none) = (self.fd.as_raw_fd(), std::ptr::null::<u8>());
            libc::syscall(libc::SYS_io_uring_enter, ring, 1_u32, 1_u32, GETEVENTS, none, 0_usize)
        };
        if taken != 1 {
            return Err(io::Error::last_os_error());
        }
        let head = self.word(self.params[CQ_HEAD]);
        let number = head.load(Ordering::Acquire);
        let slot = number & self.word(self.params[CQ_MASK]).load(Ordering::Relaxed);
        // The answer is the third word of a completion of 16 bytes.
        let answer = self.word(self.params[CQ_ENTRIES] + slot * 16 + 8).load(Ordering::Relaxed);
        head.store(number.wrapping_add(1), Ordering::Release);
        match answer.cast_signed() {
            error if error < 0 => Err(io::Error::from_raw_os_error(-error)),
            _ => Ok(()),
        }
    }
}

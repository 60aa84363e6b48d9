//! System calls that no safe crate offers, or offers only with a limit that real hosts exceed: the
//! netlink socket, bpf(2), the ethtool ioctl, group lookups; also network namespaces, and threads
//! that share out many system calls. The room is thin: messages and their meaning are in `netlink`.
// The only room where `unsafe` is allowed; each block says why it is sound.
#![allow(unsafe_code, reason = "system calls are made here and in no other room")]

pub mod bpf;
pub mod btf;
pub mod cgroup_id;
pub mod clock;
pub mod ethtool;
pub mod guard;
pub mod held;
pub mod lease;
pub mod listener;
pub mod memory;
pub mod modules;
pub mod netns;
pub mod nss;
pub mod offspring;
pub mod priority;
pub mod probe;
pub mod record_lock;
pub mod route;
pub mod shortage;
pub mod signal;
pub mod terminal;
pub mod threads;
pub mod witness;
pub mod xattr;

pub use route::Netlink;

//! The deciding program: one eBPF program that, after the rules, says whose a packet is. It asks
//! the packet's *socket*, whose owner a user cannot change: socket(2) or accept(2) sets the owner,
//! and afterwards only CAP_CHOWN changes it. The socket's `net_cls` tag is that of the process that
//! was last moved, or that received the descriptor last.
//!
//! 0. Where there are guests ([`super::label`]): a packet that came in by another link, and has a
//!    label: the label's class. Its socket, if it has one, is not the guest's.
//! 1. No full socket (a forwarded packet, an answer of the kernel where nobody listens), or a
//!    socket of another network namespace: the tag. But a SYN-ACK counts for the listener.
//! 2. An owner other than root: the class of that uid. Where the tag names another class, and the
//!    pair (owner, tag) was given on purpose (`run`, `attach`, a unit's line): the tag.
//! 3. Root: the tag (what root accepted and handed on, root's processes); without one, root's line.
//! 4. Otherwise nobody: 0, which is the default class.
//!
//! For a packet of an MPTCP connection the program asks for the owner and the tag of the MPTCP
//! socket, which follow fchown and moves of the process, and not for those of the sending subflow,
//! which do not.
//!
//! Without a tag ([`Program::tag`], `classifier: uid`) a unit's processes are known by the cgroup
//! of the packet's socket ([`super::cgroups`]), before its owner; else an owner's class is the
//! owner's, root's is root's line, and a packet without a full socket of ours is nobody's.
//!
//! A uid that nobody claims is in case 4 whatever the tag, unless the pair was given.

use super::assembler::{
    Assembler, FRAME, Instruction, Label, R0, R1, R2, R3, R6, R7, R8, R9, Register, TC_ACT_UNSPEC,
    Width,
};
use super::cgroups::{self, Asking};
use super::label::class_of_label;
use super::noted;
use crate::tree::{MptcpLayout, Program, Sockets, TagHelper, Turn};
use crate::units::{ClassId, Shard};

/// Hash map: uid → classid, both `u32` in the machine's byte order.
pub const ACCOUNTS: u8 = 0;
/// Longest-prefix-match trie: `{u32 bits; be32 uid}` → classid.
pub const RANGES: u8 = 1;
/// Hash map of what was given on purpose: `{u32 uid; u32 tag}` → any value, a pair of owner and
/// tag, for programs that read tags; for those that do not, cgroups → classid ([`super::cgroups`]).
pub const GIVEN: u8 = 2;
/// The map of [`super::inner`], which the deciding program only names: while that stands so does
/// the map, with or without a label that reads it.
pub const SOURCES: u8 = 3;

/// Functions of the kernel (`enum bpf_func_id`, linux/bpf.h).
pub const MAP_LOOKUP: i32 = 1;
/// `bpf_get_cgroup_classid`.
pub const TASK_CLASSID: i32 = 17;
/// Linux 4.12.
pub const SOCKET_UID: i32 = 47;
/// `bpf_skc_to_mptcp_sock`, Linux 5.19.
pub const MPTCP_SOCKET: i32 = 196;
/// Linux 5.1.
pub const FULL_SOCKET: i32 = 95;
/// For tc since Linux 6.15.
pub const NETNS_COOKIE: i32 = 122;
/// `bpf_probe_read_kernel`, for tc since Linux 5.13.
pub const READ_KERNEL: i32 = 113;
/// `bpf_skb_cgroup_classid`, Linux 5.10.
pub const SOCKET_CLASSID: i32 = 151;

/// `struct __sk_buff`'s `sk`, which is a pointer to a socket or 0.
pub const SKB_SOCKET: i16 = 168;

/// The offset of `priority` in `struct __sk_buff`.
pub const SKB_PRIORITY: i16 = 32;

/// `struct bpf_sock` (linux/bpf.h): type and protocol of a full socket, and the state of any.
pub const SOCKET_TYPE: i16 = 8;
/// Offset of `protocol`, 32 bits, a number of the IP header's.
pub const SOCKET_PROTOCOL: i16 = 12;
/// Offset of `state`, 32 bits.
pub const SOCKET_STATE: i16 = 72;
/// The state of a request (`BPF_TCP_NEW_SYN_RECV`).
pub const TCP_NEW_SYN_RECV: i32 = 12;
const SOCK_STREAM: i32 = 1;
const IPPROTO_TCP: i32 = 6;

/// The deciding program. What a root with shards has decided ([`super::noted`]) a shard's takes.
/// Its maps are numbered [`ACCOUNTS`], [`RANGES`], [`GIVEN`] and [`SOURCES`].
pub fn decide(program: Program) -> Vec<Instruction> {
    let mut a = Assembler::default();
    let known = a.label();
    a.map(R0, SOURCES);
    if program.tag.is_none() {
        a.map(R0, GIVEN);
    }
    a.copy(CONTEXT, R1);
    if !program.shards {
        noted::take(&mut a, known);
    }
    class_of_sender(&mut a, program);
    a.bind(known);
    if program.shards {
        to_shard(&mut a);
    }
    a.copy(R0, R9);
    a.exit();
    a.finish()
}

/// Clears a packet's priority where that names a class of ours, and lets every packet go on
/// (`TC_ACT_UNSPEC`). `htb_classify` (net/sched/sch_htb.c) obeys the priority before any filter
/// (`1:0` is *direct*, past every class), and CAP_NET_RAW in a guest's own user namespace is enough
/// to set one. Where sockets of our own network namespace can be told from others'
/// ([`Sockets::Cookie`], [`Sockets::Inode`]), their priorities stay: setting one above 6 there
/// takes CAP_NET_ADMIN or CAP_NET_RAW on the host. What looks like a decision of ours
/// ([`super::noted`]) it clears too.
pub fn clear_priority(sockets: Sockets) -> Vec<Instruction> {
    let mut a = Assembler::default();
    let (ours, clear, done) = (a.label(), a.label(), a.label());
    a.copy(R6, R1);
    noted::clear(&mut a);
    a.load(Width::Word, R7, R6, SKB_PRIORITY);
    a.shift_right(R7, 16);
    a.jump_if_is(R7, ClassId::ROOT.major().into(), ours);
    a.jump_if_less(R7, Shard::FIRST.into(), done);
    a.jump_if_more(R7, Shard::LAST.into(), done);
    a.bind(ours);
    if matches!(sockets, Sockets::Cookie(_) | Sockets::Inode(..)) {
        a.load(Width::Double, SOCKET, R6, SKB_SOCKET);
        a.jump_if_is(SOCKET, 0, clear);
        unless_ours(&mut a, sockets, clear);
        a.jump(done);
    }
    a.bind(clear);
    a.set(R1, 0);
    a.store(Width::Word, R6, SKB_PRIORITY, R1);
    a.bind(done);
    a.set(R0, TC_ACT_UNSPEC);
    a.exit();
    a.finish()
}

/// A hash that differs between programs, also between versions of shaper: FNV-1a of the
/// instructions.
pub fn hash(program: &[Instruction]) -> u32 {
    let bytes = program.iter().flat_map(|instruction| instruction.bytes());
    bytes.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Registers of [`class_of_sender`]. The socket is of no use any more when there is a class.
const CONTEXT: Register = R6;
const TAG: Register = R7;
const OWNER: Register = R8;
const SOCKET: Register = R9;
const CLASS: Register = R9;

/// R9 = the class of whoever sent the packet, 0 for nobody. R1 is the context, which R6 has
/// afterwards.
pub(super) fn class_of_sender(a: &mut Assembler, program: Program) {
    let (by_tag, done) = (a.label(), a.label());
    a.copy(CONTEXT, R1);
    if program.labels {
        class_of_label(a, CONTEXT, CLASS, done);
    }
    match program.tag {
        Some(helper) => {
            a.call(match helper {
                TagHelper::Socket => SOCKET_CLASSID,
                TagHelper::Task => TASK_CLASSID,
            });
            a.copy(TAG, R0);
        }
        None => a.set(TAG, 0),
    }
    if program.sockets == Sockets::Mixed && program.tag.is_some() {
        a.jump_if_not(TAG, 0, by_tag);
    }
    find_socket(a, program, by_tag);
    if program.asks_cgroups() {
        cgroups::read_mask(a, &GIVEN_CGROUPS);
        cgroups::class_of_cgroup(a, Turn::First, CLASS, &GIVEN_CGROUPS, done);
    }
    find_owner(a, program);
    class_of_owner(a, program, by_tag, done);
    a.bind(by_tag);
    a.copy(CLASS, TAG);
    a.bind(done);
}

/// SOCKET = the packet's socket, where that is a full socket of our namespace; otherwise goes to
/// `by_tag`. Where MPTCP is asked about, OWNER is 1 for a TCP socket until [`find_owner`] sets it.
fn find_socket(a: &mut Assembler, program: Program, by_tag: Label) {
    // Without a full socket the kernel answers with the overflow uid as the owner, and a line for
    // `nobody` or "1000-" would get every forwarded packet.
    a.load(Width::Double, R1, CONTEXT, SKB_SOCKET);
    a.jump_if_is(R1, 0, by_tag);
    a.copy(SOCKET, R1);
    a.call(FULL_SOCKET);
    let (full, ours) = (a.label(), a.label());
    a.jump_if_not(R0, 0, full);
    // A SYN-ACK's socket is the connection request, for which the kernel's functions answer with
    // the listener's owner and tag (`sk_to_full_sk`), but not `bpf_sk_fullsock`. A connection in
    // TIME_WAIT has no full socket either.
    a.load(Width::Word, R1, SOCKET, SOCKET_STATE);
    a.jump_if_not(R1, TCP_NEW_SYN_RECV, by_tag);
    a.set(OWNER, 0);
    a.jump(ours);
    a.bind(full);
    // `bpf_mptcp_sock_from_subflow` (net/mptcp/bpf.c) takes every socket of protocol 6 for one,
    // also a raw one, and reads behind its end: the kernel's own, with which it answers for TCP
    // (`tcp_v4_send_ack`), is such a socket, and Linux 6.1 went down by that.
    if program.mptcp.is_some() {
        let other = a.label();
        a.set(OWNER, 0);
        a.load(Width::Word, R1, R0, SOCKET_TYPE);
        a.jump_if_not(R1, SOCK_STREAM, other);
        a.load(Width::Word, R1, R0, SOCKET_PROTOCOL);
        a.jump_if_not(R1, IPPROTO_TCP, other);
        a.set(OWNER, 1);
        a.bind(other);
    }
    a.bind(ours);
    unless_ours(a, program.sockets, by_tag);
}

/// Goes to `others` unless SOCKET, which is that of the packet, is one of our namespace, or nobody
/// can tell.
fn unless_ours(a: &mut Assembler, sockets: Sockets, others: Label) {
    match sockets {
        Sockets::Cookie(cookie) => {
            a.copy(R1, CONTEXT);
            a.call(NETNS_COOKIE);
            a.set_64(R1, cookie);
            a.jump_if_differ(R0, R1, others);
        }
        Sockets::Inode(inode, layout) => {
            // To the verifier a socket's address is no number to add to, until its bytes were
            // turned around (`BPF_END` in `check_alu_op`, kernel/bpf/verifier.c).
            a.copy(R3, SOCKET);
            a.big_endian_64(R3);
            a.big_endian_64(R3);
            read_kernel(a, layout.namespace, Width::Double, others);
            a.load(Width::Double, R3, FRAME, READ);
            read_kernel(a, layout.inode, Width::Word, others);
            a.load(Width::Word, R0, FRAME, READ);
            a.set_64(R1, inode.into());
            a.jump_if_differ(R0, R1, others);
        }
        Sockets::All | Sockets::Mixed => {}
    }
}

/// Reads what the kernel has at `offset` bytes from the address in R3, onto the stack at [`READ`].
fn read_kernel(a: &mut Assembler, offset: i16, width: Width, failed: Label) {
    a.add(R3, offset.into());
    a.copy(R1, FRAME);
    a.add(R1, READ.into());
    a.set(R2, width.bytes());
    a.call(READ_KERNEL);
    a.jump_if_not(R0, 0, failed);
}

/// OWNER = the uid of whoever made the socket or accepted it; of a subflow's the MPTCP socket's,
/// and so TAG.
fn find_owner(a: &mut Assembler, program: Program) {
    let (plain, owned) = (a.label(), a.label());
    if let Some(MptcpLayout { owner: owner_at, tag: tag_at }) = program.mptcp {
        a.jump_if_is(OWNER, 0, plain);
        a.copy(R1, SOCKET);
        a.call(MPTCP_SOCKET);
        a.jump_if_is(R0, 0, plain);
        a.load(Width::Word, OWNER, R0, owner_at);
        if program.tag.is_some() {
            a.load(Width::Word, TAG, R0, tag_at);
        }
        a.jump(owned);
        a.bind(plain);
    }
    a.copy(R1, CONTEXT);
    a.call(SOCKET_UID);
    a.copy(OWNER, R0);
    a.bind(owned);
}

/// CLASS = the owner's, and on to `done`; or on to `by_tag`, where the tag was given to the owner
/// on purpose, or the owner is root and the tag somebody's.
fn class_of_owner(a: &mut Assembler, program: Program, by_tag: Label, done: Label) {
    let (root, known, decided) = (a.label(), a.label(), a.label());
    a.store(Width::Word, FRAME, UID, OWNER);
    a.jump_if_is(OWNER, 0, root);
    look_up(a, ACCOUNTS, UID);
    a.jump_if_not(R0, 0, known);
    a.copy(R1, OWNER);
    a.big_endian_32(R1);
    a.store(Width::Word, FRAME, PREFIX_UID, R1);
    a.store_value(Width::Word, FRAME, PREFIX_BITS, 32);
    look_up(a, RANGES, PREFIX_BITS);
    a.set(CLASS, 0);
    a.jump_if_is(R0, 0, decided);
    a.bind(known);
    a.load(Width::Word, CLASS, R0, 0);
    // Most packets end here: the tag is that of the owner's class, or there is none.
    a.bind(decided);
    if program.tag.is_some() {
        a.jump_if_is(TAG, 0, done);
        a.jump_if_same(TAG, CLASS, done);
        a.store(Width::Word, FRAME, PAIR_UID, OWNER);
        a.store(Width::Word, FRAME, PAIR_TAG, TAG);
        look_up(a, GIVEN, PAIR_UID);
        a.jump_if_is(R0, 0, done);
        a.jump(by_tag);
    } else {
        if program.asks_cgroups() {
            a.jump_if_not(CLASS, 0, done);
            cgroups::class_of_cgroup(a, Turn::AfterOwner, CLASS, &GIVEN_CGROUPS, done);
        }
        a.jump(done);
    }
    a.bind(root);
    if program.tag.is_some() {
        a.jump_if_not(TAG, 0, by_tag);
    } else if program.asks_cgroups() {
        cgroups::class_of_cgroup(a, Turn::AfterOwner, CLASS, &GIVEN_CGROUPS, done);
        // From here on the register is the tag again, which there is none of.
        a.set(TAG, 0);
    }
    look_up(a, ACCOUNTS, UID);
    a.jump_if_is(R0, 0, by_tag);
    a.load(Width::Word, CLASS, R0, 0);
    a.jump(done);
}

/// Where keys of the maps are on the stack.
const UID: i16 = -4;
const PREFIX_BITS: i16 = -16;
const PREFIX_UID: i16 = -12;
const PAIR_UID: i16 = -24;
const PAIR_TAG: i16 = -20;
/// What was read in the kernel's memory, 64 bits at most; before there is a pair.
const READ: i16 = PAIR_UID;

const GIVEN_CGROUPS: Asking<fn(&mut Assembler)> =
    Asking { key: PAIR_UID, look_up: |a| look_up(a, GIVEN, PAIR_UID) };

/// R0 = the address of the map's value for the key at `key`, or 0.
pub(super) fn look_up(a: &mut Assembler, map: u8, key: i16) {
    a.map(R1, map);
    a.copy(R2, FRAME);
    a.add(R2, key.into());
    a.call(MAP_LOOKUP);
}

/// Where R9 is the class of a shard's user, it becomes the shard's class in the root qdisc, and is
/// left for the program there. R6 is the context.
pub(super) fn to_shard(a: &mut Assembler) {
    let done = a.label();
    a.copy(R1, R9);
    a.shift_right(R1, 16);
    a.jump_if_less(R1, Shard::FIRST.into(), done);
    a.jump_if_more(R1, Shard::LAST.into(), done);
    noted::leave(a);
    a.shift_right(R9, 16);
    a.or(R9, ClassId::ROOT.0 as i32);
    a.bind(done);
}

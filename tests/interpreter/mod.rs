//! Programs run by an interpreter over a packet.

use std::cell::RefCell;

use shaper::classify::assembler::Instruction;
use shaper::classify::program_rules::{LOAD_BYTES, LOAD_BYTES_RELATIVE};

/// Bytes of `struct __sk_buff`.
pub type Context = [u8; 192];

/// A packet in its socket buffer.
#[derive(Clone, Debug, Default)]
pub struct Packet {
    /// From the Ethernet header on.
    pub bytes: Vec<u8>,
    /// Where the network header is in them.
    pub network_header: usize,
}

/// What a program meets beside its own instructions.
pub struct Machine<'m> {
    pub packet: &'m Packet,
    /// The kernel's functions by number, beside those that read the packet.
    pub functions: &'m [(i32, rbpf::ebpf::Helper)],
    /// Where it may read and write, beside its stack and the context: addresses, each with how
    /// many bytes.
    pub memory: &'m [(u64, u64)],
}

thread_local! {
    /// What the functions answer about: they are plain functions.
    static PACKET: RefCell<Packet> = RefCell::default();
}

impl Machine<'_> {
    /// What the program returns.
    pub fn run(&self, code: &[Instruction], context: &mut Context) -> u64 {
        PACKET.with_borrow_mut(|packet| packet.clone_from(self.packet));
        let bytes = bytes(code);
        let machine = rbpf::EbpfVmRaw::new(Some(&bytes));
        let mut machine = machine.expect("a program that the checker takes");
        let read: [(i32, rbpf::ebpf::Helper); 2] =
            [(LOAD_BYTES, load), (LOAD_BYTES_RELATIVE, load_relative)];
        for (number, function) in read.iter().chain(self.functions) {
            machine.register_helper(*number as u32, *function).expect("a function");
        }
        for (start, bytes) in self.memory {
            machine.register_allowed_memory(*start..start + bytes);
        }
        machine.execute_program(context).expect("runs to its end")
    }
}

/// The code in the kernel's own bytes. The interpreter knows no maps: their numbers are plain
/// values to it.
fn bytes(code: &[Instruction]) -> Vec<u8> {
    let plain = code.iter().map(|instruction| match instruction.map() {
        Some(_) => Instruction { registers: instruction.registers & 0x0f, ..*instruction },
        None => *instruction,
    });
    plain.flat_map(Instruction::bytes).collect()
}

/// As `bpf_skb_load_bytes`.
fn load(_: u64, offset: u64, to: u64, count: u64, _: u64) -> u64 {
    copy(offset as usize, to, count as usize)
}

/// As `bpf_skb_load_bytes_relative`: from the Ethernet header (0) or the network header (1) on.
fn load_relative(_: u64, offset: u64, to: u64, count: u64, from: u64) -> u64 {
    let start = match from {
        0 => 0,
        1 => PACKET.with_borrow(|packet| packet.network_header),
        other => panic!("header {other}"),
    };
    copy(start + offset as usize, to, count as usize)
}

/// What is not there becomes zeros.
fn copy(offset: usize, to: u64, count: usize) -> u64 {
    let found = PACKET
        .with_borrow(|packet| Some(packet.bytes.get(offset..offset.checked_add(count)?)?.to_vec()));
    let (bytes, answer) = match found {
        Some(bytes) => (bytes, 0),
        None => (vec![0; count], -14_i64 as u64),
    };
    let to = std::ptr::with_exposed_provenance_mut::<u8>(to as usize);
    // SAFETY: the program's stack, below its end by what the program says.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, count) };
    answer
}

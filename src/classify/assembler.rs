//! eBPF instructions as values: a builder with labels and numbered maps, so that a program can be
//! read, run under a test's interpreter and told apart by its hash before any kernel sees it.
//!
//! Opcodes are those of the BPF instruction set (linux/bpf.h, RFC 9669). Only comparisons of 64
//! bits and forward jumps are built, which the verifiers of old kernels (from Linux 4.12 on)
//! accept.

/// `struct bpf_insn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// `BPF_OP`: class, source and operation.
    pub code: u8,
    /// The low half is the destination, the high half the source.
    pub registers: u8,
    /// In a jump, instructions beyond the next; in a load or store, bytes from the register.
    pub offset: i16,
    /// The constant that the instruction works with (`imm`).
    pub immediate: i32,
}

impl Instruction {
    /// An operation on one register, with a constant or without a second operand (`BPF_K`).
    const fn of_constant(code: u8, to: Register, immediate: i32) -> Instruction {
        Instruction { code, registers: to.0, offset: 0, immediate }
    }

    /// An operation on two registers (`BPF_X`), or a load or store with an address in the second.
    const fn of_register(code: u8, to: Register, from: Register) -> Instruction {
        Instruction { code, registers: to.0 | from.0 << 4, offset: 0, immediate: 0 }
    }

    /// The same load or store at `offset` bytes from the register's address.
    const fn at(self, offset: i16) -> Instruction {
        Instruction { offset, ..self }
    }

    /// The instruction's bytes in the byte order of this machine, as bpf(2) takes them.
    pub fn bytes(self) -> [u8; 8] {
        let ([a, b], [c, d, e, f]) = (self.offset.to_ne_bytes(), self.immediate.to_ne_bytes());
        [self.code, self.registers, a, b, c, d, e, f]
    }

    /// The number of the map whose descriptor is to become the immediate (`BPF_PSEUDO_MAP_FD`);
    /// `None`: the instruction loads no map.
    pub fn map(self) -> Option<usize> {
        (self.code == LOAD_64 && self.registers >> 4 == PSEUDO_MAP)
            .then(|| usize::try_from(self.immediate).ok())?
    }
}

/// `BPF_LD | BPF_DW | BPF_IMM`: an immediate of 64 bits in two instructions, or a map.
const LOAD_64: u8 = 0x18;
const PSEUDO_MAP: u8 = 1;

/// The target of jumps: an instruction, once [`Assembler::bind`] was called.
#[derive(Clone, Copy, Debug)]
pub struct Label(usize);

/// A 64-bit register of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register(u8);

/// Has a function's result, and at the end the program's.
pub const R0: Register = Register(0);
/// The first argument of a function. R1 to R5 do not survive a call; at the start R1 is the
/// context.
pub const R1: Register = Register(1);
/// The second argument.
pub const R2: Register = Register(2);
/// The third argument.
pub const R3: Register = Register(3);
/// The fourth argument.
pub const R4: Register = Register(4);
/// The fifth and last argument.
pub const R5: Register = Register(5);
/// Survives calls.
pub const R6: Register = Register(6);
/// Survives calls.
pub const R7: Register = Register(7);
/// Survives calls.
pub const R8: Register = Register(8);
/// Survives calls.
pub const R9: Register = Register(9);
/// The end of the stack, which grows downwards.
pub const FRAME: Register = Register(10);

/// How many bytes are read or written.
#[derive(Clone, Copy, Debug)]
pub enum Width {
    /// 8 bits (`BPF_B`).
    Byte,
    /// 16 bits (`BPF_H`).
    Half,
    /// 32 bits (`BPF_W`).
    Word,
    /// 64 bits (`BPF_DW`).
    Double,
}

impl Width {
    /// How many.
    pub(super) fn bytes(self) -> i32 {
        match self {
            Width::Byte => 1,
            Width::Half => 2,
            Width::Word => 4,
            Width::Double => 8,
        }
    }

    fn bits(self) -> u8 {
        match self {
            Width::Byte => 0x10,
            Width::Half => 0x08,
            Width::Word => 0x00,
            Width::Double => 0x18,
        }
    }
}

/// What a program at clsact returns to have the next filter asked (linux/pkt_cls.h).
pub(super) const TC_ACT_UNSPEC: i32 = -1;

/// A program in the making. A jump to a label that is never bound goes nowhere: the verifier
/// refuses such a program, and so does every test that runs it.
#[derive(Debug, Default)]
pub struct Assembler {
    instructions: Vec<Instruction>,
    /// Where each label is, once it is bound.
    labels: Vec<Option<usize>>,
    /// Jumps, with the labels that they go to.
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    fn push(&mut self, instruction: Instruction) {
        self.instructions.push(instruction);
    }

    /// A new label, which [`Assembler::bind`] sets to an instruction, once.
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Sets the label to the next instruction.
    pub fn bind(&mut self, label: Label) {
        let here = self.instructions.len();
        if let Some(place) = self.labels.get_mut(label.0) {
            *place = Some(here);
        }
    }

    /// `to = from`, all 64 bits.
    pub fn copy(&mut self, to: Register, from: Register) {
        self.push(Instruction::of_register(0xbf, to, from));
    }

    /// Sets all 64 bits; a negative value keeps its sign.
    pub fn set(&mut self, to: Register, value: i32) {
        self.push(Instruction::of_constant(0xb7, to, value));
    }

    /// `to = value`: one instruction in two slots (`BPF_LD | BPF_IMM | BPF_DW`).
    pub fn set_64(&mut self, to: Register, value: u64) {
        self.push(Instruction::of_constant(LOAD_64, to, value as u32 as i32));
        self.push(Instruction::of_constant(0, R0, (value >> 32) as u32 as i32));
    }

    /// The address of the program's `number`th map.
    pub fn map(&mut self, to: Register, number: u8) {
        self.push(Instruction {
            immediate: number.into(),
            ..Instruction::of_register(LOAD_64, to, Register(PSEUDO_MAP))
        });
        self.push(Instruction::of_constant(0, R0, 0));
    }

    /// `to += value`, 64 bits.
    pub fn add(&mut self, to: Register, value: i32) {
        self.push(Instruction::of_constant(0x07, to, value));
    }

    /// `to += from`, 64 bits.
    pub fn add_register(&mut self, to: Register, from: Register) {
        self.push(Instruction::of_register(0x0f, to, from));
    }

    /// `to -= from`, 64 bits.
    pub fn subtract_register(&mut self, to: Register, from: Register) {
        self.push(Instruction::of_register(0x1f, to, from));
    }

    /// `to |= value`, 64 bits; a negative value has its upper half set too.
    pub fn or(&mut self, to: Register, value: i32) {
        self.push(Instruction::of_constant(0x47, to, value));
    }

    /// `to &= value`, 64 bits; a negative value keeps the upper half.
    pub fn and(&mut self, to: Register, value: i32) {
        self.push(Instruction::of_constant(0x57, to, value));
    }

    /// `to <<= bits`, 64 bits.
    pub fn shift_left(&mut self, to: Register, bits: i32) {
        self.push(Instruction::of_constant(0x67, to, bits));
    }

    /// `to >>= bits`, 64 bits, filled with zeros.
    pub fn shift_right(&mut self, to: Register, bits: i32) {
        self.push(Instruction::of_constant(0x77, to, bits));
    }

    /// The low 32 bits in network byte order; the high ones become 0.
    pub fn big_endian_32(&mut self, to: Register) {
        self.push(Instruction::of_constant(0xdc, to, 32));
    }

    /// The low 16 bits in network byte order; the others become 0.
    pub fn big_endian_16(&mut self, to: Register) {
        self.push(Instruction::of_constant(0xdc, to, 16));
    }

    /// From the machine's byte order to the network's, or back.
    pub fn big_endian_64(&mut self, to: Register) {
        self.push(Instruction::of_constant(0xdc, to, 64));
    }

    /// `to = *(from + offset)`, zeros above the width.
    pub fn load(&mut self, width: Width, to: Register, from: Register, offset: i16) {
        self.push(Instruction::of_register(0x61 | width.bits(), to, from).at(offset));
    }

    /// `*(to + offset) = from`, its low bits.
    pub fn store(&mut self, width: Width, to: Register, offset: i16, from: Register) {
        self.push(Instruction::of_register(0x63 | width.bits(), to, from).at(offset));
    }

    /// `*(to + offset) = value`.
    pub fn store_value(&mut self, width: Width, to: Register, offset: i16, value: i32) {
        self.push(Instruction::of_constant(0x62 | width.bits(), to, value).at(offset));
    }

    /// A function of the kernel by its number (`enum bpf_func_id`).
    pub fn call(&mut self, function: i32) {
        self.push(Instruction::of_constant(0x85, R0, function));
    }

    /// Ends the program; R0 is its result.
    pub fn exit(&mut self) {
        self.push(Instruction::of_constant(0x95, R0, 0));
    }

    fn jump_if(&mut self, condition: Instruction, label: Label) {
        self.jumps.push((self.instructions.len(), label));
        self.push(condition);
    }

    /// Jumps always.
    pub fn jump(&mut self, label: Label) {
        self.jump_if(Instruction::of_constant(0x05, R0, 0), label);
    }

    /// Jumps if `left == value`, 64 bits.
    pub fn jump_if_is(&mut self, left: Register, value: i32, label: Label) {
        self.jump_if(Instruction::of_constant(0x15, left, value), label);
    }

    /// Jumps if `left != value`, 64 bits.
    pub fn jump_if_not(&mut self, left: Register, value: i32, label: Label) {
        self.jump_if(Instruction::of_constant(0x55, left, value), label);
    }

    /// Unsigned.
    pub fn jump_if_less(&mut self, left: Register, value: i32, label: Label) {
        self.jump_if(Instruction::of_constant(0xa5, left, value), label);
    }

    /// Unsigned.
    pub fn jump_if_more(&mut self, left: Register, value: i32, label: Label) {
        self.jump_if(Instruction::of_constant(0x25, left, value), label);
    }

    /// Unsigned.
    pub fn jump_if_at_least(&mut self, left: Register, value: i32, label: Label) {
        self.jump_if(Instruction::of_constant(0x35, left, value), label);
    }

    /// Unsigned. Linux 4.14, as [`Assembler::jump_if_less`].
    pub fn jump_if_at_most(&mut self, left: Register, value: i32, label: Label) {
        self.jump_if(Instruction::of_constant(0xb5, left, value), label);
    }

    /// Unsigned, as the next two.
    pub fn jump_if_above(&mut self, left: Register, right: Register, label: Label) {
        self.jump_if(Instruction::of_register(0x2d, left, right), label);
    }

    /// Jumps if `left >= right`, unsigned, 64 bits.
    pub fn jump_if_not_below(&mut self, left: Register, right: Register, label: Label) {
        self.jump_if(Instruction::of_register(0x3d, left, right), label);
    }

    /// Jumps if `left <= right`, unsigned, 64 bits.
    pub fn jump_if_not_above(&mut self, left: Register, right: Register, label: Label) {
        self.jump_if(Instruction::of_register(0xbd, left, right), label);
    }

    /// Jumps if `left == right`, 64 bits.
    pub fn jump_if_same(&mut self, left: Register, right: Register, label: Label) {
        self.jump_if(Instruction::of_register(0x1d, left, right), label);
    }

    /// Jumps if `left != right`, 64 bits.
    pub fn jump_if_differ(&mut self, left: Register, right: Register, label: Label) {
        self.jump_if(Instruction::of_register(0x5d, left, right), label);
    }

    /// The whole program.
    pub fn finish(mut self) -> Vec<Instruction> {
        for (jump, label) in &self.jumps {
            let target = self.labels.get(label.0).copied().flatten();
            let ahead = target.and_then(|target| target.checked_sub(jump + 1));
            if let (Some(ahead), Some(jump)) = (ahead, self.instructions.get_mut(*jump)) {
                jump.offset = i16::try_from(ahead).unwrap_or(-1);
            }
        }
        self.instructions
    }
}

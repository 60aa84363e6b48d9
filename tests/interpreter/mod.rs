//! Programs as the interpreter reads them.

use shaper::classify::assembler::Instruction;

/// The code in the kernel's own bytes. The interpreter knows no maps: their numbers are plain
/// values to it.
pub fn bytes(code: &[Instruction]) -> Vec<u8> {
    let plain = code.iter().map(|instruction| match instruction.map() {
        Some(_) => Instruction { registers: instruction.registers & 0x0f, ..*instruction },
        None => *instruction,
    });
    plain.flat_map(Instruction::bytes).collect()
}

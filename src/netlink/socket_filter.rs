//! Classic socket filters (linux/filter.h): which messages the kernel gives to a socket, and wakes
//! its process for.

/// BPF_LD | BPF_W | BPF_ABS, and so on (linux/bpf_common.h). A load reads network byte order, from
/// the beginning of `struct nlmsghdr`.
pub(super) const LOAD: u16 = 0x20;
pub(super) const TO_X: u16 = 0x07;
pub(super) const IF_EQUAL: u16 = 0x15;
pub(super) const IF_EQUAL_X: u16 = 0x1d;
pub(super) const RETURN: u16 = 0x06;

/// Where `struct nlmsghdr` has the netlink port of the socket that a message answers or tells of.
const PORT: u32 = 12;

/// One instruction of a socket filter (`struct sock_filter`, linux/filter.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Class, width and operation.
    pub code: u16,
    /// How many instructions a jump skips whose condition is true.
    pub if_true: u8,
    /// How many instructions a jump skips whose condition is false.
    pub if_false: u8,
    /// The constant that the instruction works with.
    pub k: u32,
}

impl Instruction {
    /// One that jumps nowhere.
    pub(super) fn plain(code: u16, k: u32) -> Instruction {
        Instruction { code, if_true: 0, if_false: 0, k }
    }

    /// Whether the word that was loaded is this one, in the machine's byte order.
    pub(super) fn is(word: u32, if_true: u8, if_false: u8) -> Instruction {
        let k = u32::from_be_bytes(word.to_ne_bytes());
        Instruction { code: IF_EQUAL, if_true, if_false, k }
    }
}

/// Passes all notices but those of what the socket with this netlink port does and asks. (The
/// kernel tells all messages in one datagram of the same socket.)
pub fn of_others_than(port: u32) -> Vec<Instruction> {
    vec![
        Instruction::plain(LOAD, PORT),
        Instruction::is(port, 1, 0),
        Instruction::plain(RETURN, u32::MAX),
        Instruction::plain(RETURN, 0),
    ]
}

/// What the kernel does with a filter (net/core/filter.c), as far as ours go: whether it passes the
/// message.
#[cfg(test)]
pub(super) fn passes(program: &[Instruction], message: &[u8]) -> bool {
    let (mut a, mut x, mut at) = (0, 0, 0);
    loop {
        let Instruction { code, if_true, if_false, k } = program[at];
        at += 1;
        let jump = |yes: bool| usize::from(if yes { if_true } else { if_false });
        match code {
            LOAD => match message.get(k as usize..k as usize + 4) {
                Some(word) => a = u32::from_be_bytes(word.try_into().unwrap()),
                None => return false,
            },
            TO_X => x = a,
            IF_EQUAL => at += jump(a == k),
            IF_EQUAL_X => at += jump(a == x),
            RETURN => return k > 0,
            other => panic!("{other:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_of_one_socket_are_dropped_and_all_others_pass() {
        let own = 0x0102_0304;
        let program = of_others_than(own);
        let notice = |port: u32| [20_u32, 36, 7, port, 0].map(u32::to_ne_bytes).concat();
        assert!(!passes(&program, &notice(own)));
        for other in [0, 1, own + 1, own.swap_bytes(), u32::MAX] {
            assert!(passes(&program, &notice(other)), "{other}");
        }
    }
}

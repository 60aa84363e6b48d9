//! Process events (`linux/cn_proc.h`, `linux/connector.h`, drivers/connector/cn_proc.c): the kernel
//! says when a process forks, runs a program, or becomes another user. All integers are the host's.

/// `CN_IDX_PROC`: the connector's multicast group and the first half of its messages' id.
pub const GROUP: u32 = 1;
/// `CN_VAL_PROC`.
const VALUE: u32 = 1;
/// `PROC_CN_MCAST_LISTEN`.
const LISTEN: u32 = 1;
/// `struct cn_msg`, before its data: id, seq, ack, length, flags.
const CN_MSG: usize = 20;
/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// `NLMSG_DONE`, the kind of every connector message.
const DONE: u16 = 3;

const NONE: u32 = 0;
const FORK: u32 = 1;
const EXEC: u32 = 2;
const UID: u32 = 4;

/// What happened, to whole processes: events of single threads are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The answer to a subscription: its error number, 0 for none.
    Subscribed(u32),
    Fork {
        parent: u32,
        child: u32,
    },
    Exec {
        pid: u32,
    },
    /// The real or effective uid changed.
    Uid {
        pid: u32,
    },
}

/// An event, and when it happened by the monotonic clock, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcEvent {
    pub at: u64,
    pub event: Event,
}

/// Asks for all events. The kernel answers with [`Event::Subscribed`], or not at all outside the
/// first process namespace (`cn_proc_mcast_ctl`).
pub fn subscribe() -> Vec<u8> {
    control(&LISTEN.to_ne_bytes())
}

/// Asks for forks, changes of uid, and perhaps programs run, and nothing else. Since Linux 6.6, and
/// without an answer; older kernels ignore it and go on sending everything.
pub fn narrow(exec: bool) -> Vec<u8> {
    let events = FORK | UID | if exec { EXEC } else { 0 };
    control(&[LISTEN.to_ne_bytes(), events.to_ne_bytes()].concat())
}

fn control(data: &[u8]) -> Vec<u8> {
    let length = HEADER + CN_MSG + data.len();
    let mut bytes = Vec::with_capacity(length);
    let word = |bytes: &mut Vec<u8>, value: u32| bytes.extend(value.to_ne_bytes());
    let half = |bytes: &mut Vec<u8>, value: usize| {
        bytes.extend(u16::try_from(value).unwrap_or(u16::MAX).to_ne_bytes());
    };
    word(&mut bytes, u32::try_from(length).unwrap_or(u32::MAX));
    half(&mut bytes, usize::from(DONE));
    [0; 10].iter().for_each(|byte| bytes.push(*byte)); // flags, sequence, port
    word(&mut bytes, GROUP);
    word(&mut bytes, VALUE);
    word(&mut bytes, 0);
    word(&mut bytes, 0);
    half(&mut bytes, data.len());
    half(&mut bytes, 0);
    bytes.extend(data);
    bytes
}

/// The event in a message's payload (after `struct nlmsghdr`); `None`: none that is listened for.
pub fn decode(payload: &[u8]) -> Option<ProcEvent> {
    let word = |at: usize| Some(u32::from_ne_bytes(payload.get(at..at + 4)?.try_into().ok()?));
    if (word(0)?, word(4)?) != (GROUP, VALUE) {
        return None;
    }
    // `struct proc_event`: what, cpu, timestamp, and then what depends on it.
    let at = u64::from_ne_bytes(payload.get(CN_MSG + 8..CN_MSG + 16)?.try_into().ok()?);
    let field = |n: usize| word(CN_MSG + 16 + 4 * n);
    let event = match word(CN_MSG)? {
        NONE => Event::Subscribed(field(0)?),
        FORK => {
            let (child, child_process) = (field(2)?, field(3)?);
            if child != child_process {
                return None;
            }
            Event::Fork { parent: field(1)?, child }
        }
        EXEC => Event::Exec { pid: field(1)? },
        // Each thread of a process says so by itself: all mean the process.
        UID => Event::Uid { pid: field(1)? },
        _ => return None,
    };
    Some(ProcEvent { at, event })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(what: u32, fields: &[u32]) -> Vec<u8> {
        let mut payload = vec![];
        for value in [GROUP, VALUE, 7, 8, 40] {
            payload.extend(value.to_ne_bytes());
        }
        payload.extend(what.to_ne_bytes());
        payload.extend(3_u32.to_ne_bytes());
        payload.extend(1_000_000_007_u64.to_ne_bytes());
        fields.iter().for_each(|field| payload.extend(field.to_ne_bytes()));
        payload
    }

    #[test]
    fn events_of_processes_are_read_and_those_of_threads_are_not() {
        let read = |what, fields: &[u32]| decode(&event(what, fields)).map(|told| told.event);
        assert_eq!(read(FORK, &[11, 10, 20, 20]), Some(Event::Fork { parent: 10, child: 20 }));
        assert_eq!(read(FORK, &[11, 10, 12, 10]), None, "a new thread");
        assert_eq!(read(UID, &[12, 10, 1000, 0]), Some(Event::Uid { pid: 10 }));
        assert_eq!(read(EXEC, &[10, 10]), Some(Event::Exec { pid: 10 }));
        assert_eq!(read(NONE, &[1]), Some(Event::Subscribed(1)));
        assert_eq!(read(0x200, &[10, 10]), None, "a new name");
        assert_eq!(
            decode(&event(UID, &[12, 10, 1000, 0])).map(|told| told.at),
            Some(1_000_000_007)
        );
    }

    #[test]
    fn what_is_cut_off_or_anothers_is_no_event() {
        let whole = event(UID, &[12, 10]);
        for length in 0..whole.len() {
            assert_eq!(decode(&whole[..length]), None, "{length}");
        }
        let mut other = whole.clone();
        other[0] ^= 1;
        assert_eq!(decode(&other), None);
    }

    #[test]
    fn a_subscription_has_the_lengths_that_the_kernel_checks() {
        // nlmsghdr 16, cn_msg 20, data 4; and the same with `struct proc_input`.
        assert_eq!(subscribe().len(), 40);
        assert_eq!(subscribe()[..4], 40_u32.to_ne_bytes());
        assert_eq!(narrow(true).len(), 44);
        assert_eq!(narrow(true)[32..34], 8_u16.to_ne_bytes());
        assert_eq!(narrow(false)[40..], (FORK | UID).to_ne_bytes());
    }
}

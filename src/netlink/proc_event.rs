//! Process events (`linux/cn_proc.h`, `linux/connector.h`, drivers/connector/cn_proc.c): the kernel
//! says when a process forks, runs a program, or becomes another user. All integers are the host's.

use std::time::{Duration, Instant};

use super::HEADER;
use super::socket_filter::{IF_EQUAL_X, Instruction, LOAD, RETURN, TO_X};

/// `CN_IDX_PROC`: the connector's multicast group and the first half of its messages' id.
pub const GROUP: u32 = 1;
/// `CN_VAL_PROC`.
const VALUE: u32 = 1;
/// `PROC_CN_MCAST_LISTEN`.
const LISTEN: u32 = 1;
/// `struct cn_msg`, before its data: id, seq, ack, length, flags.
const CN_MSG: usize = 20;
/// `NLMSG_DONE`, the kind of every connector message.
const DONE: u16 = 3;

const NONE: u32 = 0;
const FORK: u32 = 1;
const EXEC: u32 = 2;
const UID: u32 = 4;

/// What happened to a process; what happens to a single thread is no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The answer to a subscription: its error number, 0 for none.
    Subscribed(u32),
    /// A process has a new child; a new thread is no such event.
    Fork {
        /// The process that forked, or with CLONE_PARENT the parent of that process.
        parent: u32,
        /// The new process.
        child: u32,
    },
    /// A process runs another program.
    Exec {
        /// The process (`process_tgid`).
        pid: u32,
    },
    /// One of its uids changed: the real, effective, saved or file system's (`commit_creds`,
    /// kernel/cred.c).
    Uid {
        /// The process (`process_tgid`).
        pid: u32,
        /// The real uid of the thread that changed.
        uid: u32,
        /// The effective uid of the main thread; `None`: the uid of another thread changed.
        effective: Option<u32>,
    },
}

/// An event, and when it happened by the monotonic clock, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcEvent {
    /// Nanoseconds of CLOCK_MONOTONIC, those of the first time namespace.
    pub at: u64,
    /// What happened then.
    pub event: Event,
}

/// One moment by both clocks: the kernel's of process events, which in a time namespace is not the
/// daemon's own, and ours.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// As in [`ProcEvent`].
    pub at: u64,
    /// The same, or a moment later.
    pub ours: Instant,
}

impl Moment {
    /// How long before `now` an event was that has this time.
    pub fn since(&self, at: u64, now: Instant) -> Duration {
        let now = Duration::from_nanos(self.at) + now.saturating_duration_since(self.ours);
        now.saturating_sub(Duration::from_nanos(at))
    }
}

/// The request for all events. The kernel answers with [`Event::Subscribed`], or outside the first
/// process namespace not at all (`cn_proc_mcast_ctl`).
pub fn subscribe() -> Vec<u8> {
    control(&LISTEN.to_ne_bytes())
}

/// A socket filter that passes only changes of uid (but not of the first 64 processes in `muted`),
/// forks of processes (not new threads), answers to a subscription and, with `exec`, programs that
/// are run. A fork storm has two to five other events for each fork. (Since Linux 6.6 a
/// subscription can name events; a socket filter does it on every kernel.)
pub fn filter(exec: bool, muted: &[u32]) -> Vec<Instruction> {
    let load = |field: usize| {
        let at = HEADER + CN_MSG + field;
        Instruction::plain(LOAD, u32::try_from(at).unwrap_or(u32::MAX))
    };
    let (is, plain) = (Instruction::is, Instruction::plain);
    let mut program = vec![
        load(0),
        is(UID, 9, 0),
        is(NONE, 7, 0),
        is(if exec { EXEC } else { NONE }, 6, 0),
        is(FORK, 0, 4),
        // The child's thread and process, which are the same number for a new process.
        load(16 + 8),
        plain(TO_X, 0),
        load(16 + 12),
        Instruction { if_true: 1, ..plain(IF_EQUAL_X, 0) },
        plain(RETURN, 0),
        plain(RETURN, u32::MAX),
        // The process whose uid changed.
        load(16 + 4),
    ];
    let muted = muted.get(..MUTED).unwrap_or(muted);
    let mut after = u8::try_from(muted.len()).unwrap_or(0);
    for pid in muted {
        program.push(is(*pid, after, 0));
        after = after.saturating_sub(1);
    }
    program.push(plain(RETURN, u32::MAX));
    program.push(plain(RETURN, 0));
    program
}

/// The most processes that can be muted: more would need longer jumps than an instruction can
/// express.
const MUTED: usize = 64;

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

/// The event in a message's payload (after `struct nlmsghdr`); `None`: an event that is not asked
/// for.
pub fn decode(payload: &[u8]) -> Option<ProcEvent> {
    let word = |at: usize| Some(u32::from_ne_bytes(payload.get(at..at + 4)?.try_into().ok()?));
    if (word(0)?, word(4)?) != (GROUP, VALUE) {
        return None;
    }
    // `struct proc_event`: what, cpu, timestamp, and then the data of that kind of event.
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
        // Each thread that changes its uid has an event of its own; all are about the process.
        UID => {
            let (thread, pid) = (field(0)?, field(1)?);
            let effective = field(3)?;
            let effective = (thread == pid).then_some(effective);
            Event::Uid { pid, uid: field(2)?, effective }
        }
        _ => return None,
    };
    Some(ProcEvent { at, event })
}

#[cfg(test)]
mod tests {
    use super::super::socket_filter::passes;
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
        let uid = |effective| Some(Event::Uid { pid: 10, uid: 1000, effective });
        assert_eq!(read(UID, &[12, 10, 1000, 0]), uid(None), "a thread by itself");
        assert_eq!(read(UID, &[10, 10, 1000, 7]), uid(Some(7)));
        assert_eq!(read(EXEC, &[10, 10]), Some(Event::Exec { pid: 10 }));
        assert_eq!(read(NONE, &[1]), Some(Event::Subscribed(1)));
        assert_eq!(read(0x200, &[10, 10]), None, "a new name");
        assert_eq!(
            decode(&event(UID, &[12, 10, 1000, 0])).map(|told| told.at),
            Some(1_000_000_007)
        );
    }

    #[test]
    fn how_long_an_event_is_past_is_known_by_one_moment_of_both_clocks() {
        let ours = Instant::now();
        let moment = Moment { at: 5_000_000_000, ours };
        let second = Duration::from_secs(1);
        assert_eq!(moment.since(5_500_000_000, ours + second), second / 2);
        assert_eq!(moment.since(4_000_000_000, ours), second, "it was before");
        assert_eq!(moment.since(9_000_000_000, ours + second), Duration::ZERO);
    }

    #[test]
    fn what_is_cut_off_or_anothers_is_no_event() {
        let whole = event(UID, &[12, 10, 1000, 0]);
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
    }

    #[test]
    fn the_filter_lets_through_what_is_listened_for() {
        let message = |what, fields: &[u32]| [vec![0; HEADER], event(what, fields)].concat();
        let process = message(FORK, &[11, 10, 20, 20]);
        let thread = message(FORK, &[11, 10, 12, 10]);
        let (exec, uid) = (message(EXEC, &[10, 10]), message(UID, &[10, 10, 0, 0]));
        let (exit, answer) = (message(0x8000_0000, &[10, 10, 0, 17]), message(NONE, &[0]));
        for with_exec in [true, false] {
            for (muted, heard) in [(&[][..], true), (&[9, 11], true), (&[9, 10, 11], false)] {
                let program = filter(with_exec, muted);
                let all = [&process, &thread, &exec, &uid, &exit, &answer];
                let passed = all.map(|message| passes(&program, message));
                assert_eq!(passed, [true, false, with_exec, heard, false, true]);
            }
            let many: Vec<u32> = (1_000..1_200).collect();
            assert!(passes(&filter(with_exec, &many), &uid));
        }
    }
}

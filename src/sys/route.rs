//! A blocking rtnetlink socket: lists ([`Netlink::dump`]) and changes ([`Netlink::transact`]). It
//! stays with the network namespace in which it was opened.

use std::borrow::Borrow;
use std::io;
use std::time::{Duration, Instant};

use log::{debug, warn};
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE, NETLINK_SOCK_DIAG};
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};

use crate::netlink::decode::Decoded;
use crate::netlink::extack::{self, KernelError, Outcome};
use crate::netlink::{Message, Request};

/// The dialogue with the kernel broke down; refusals of single requests are [`Outcome`]s.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// socket(2) or one of its options.
    #[error("cannot open a netlink socket: {0}")]
    Open(#[source] io::Error),
    /// sendto(2).
    #[error("cannot send to the kernel over netlink: {0}")]
    Send(#[source] io::Error),
    /// recvmsg(2).
    #[error("cannot read the kernel's answer from netlink: {0}")]
    Receive(#[source] io::Error),
    /// A dump was answered with an error.
    #[error("the kernel refused to list: {0}")]
    Refused(#[source] KernelError),
    /// The list changed each time that it was read, for [`PATIENCE`].
    #[error("links or their traffic control kept changing while they were listed, for {} s", PATIENCE.as_secs())]
    Restless,
    /// Answers were lost, so some requests may be done and others not: the caller must look again.
    #[error("the kernel dropped some of its answers (receive buffer overrun)")]
    Overrun,
    /// A message that no kernel sends; the text says what is wrong with it.
    #[error("the kernel's answer makes no sense: {0}")]
    Nonsense(&'static str),
}

impl SocketError {
    /// Whether the kernel has no such list: no such netlink protocol, or no module that answers for
    /// the family (net/core/sock_diag.c, net/ipv4/inet_diag.c).
    pub fn is_not_supported(&self) -> bool {
        match self {
            SocketError::Open(error) => is(error, Errno::EPROTONOSUPPORT),
            SocketError::Refused(error) => matches!(
                error.errno,
                Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT | Errno::EINVAL
            ),
            _ => false,
        }
    }
}

/// For how long a list is read again because it changed meanwhile. A list of 2,000 links takes
/// about 10 ms; a host that starts and ends a hundred containers a second leaves that long quite
/// often.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of requests in one send, well below the default send buffer.
const BATCH_BYTES: usize = 64 * 1024;
/// Requests in one send. Their answers all arrive before it returns, and each takes about 1 kB of
/// the receive buffer, which without privilege has only 2 × 208 kB.
const BATCH_REQUESTS: usize = 256;
/// Receive buffer; the kernel doubles it for its own bookkeeping.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;
/// No message of a dump is longer (`NLMSG_GOODSIZE` and the 32 kB of `netlink_dump`).
const DATAGRAM: usize = 64 * 1024;
/// A small part of a list, and the least that the kernel sends at once (`NLMSG_GOODSIZE`).
const PART: usize = 8 * 1024;

const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;
const NLM_F_DUMP_INTR: u16 = 0x10;
const HEADER: usize = 16;

/// The socket.
pub struct Netlink {
    socket: Socket,
    port: u32,
    sequence: u32,
    changes_sent: u64,
    buffer: Vec<u8>,
}

/// A list that was read once, whether or not it changed meanwhile.
pub struct List<T> {
    /// The entries, in the kernel's order.
    pub entries: Vec<T>,
    /// The kernel did not say that the list changed meanwhile, and no answer was lost.
    pub is_whole: bool,
}

/// One netlink message as received.
pub(super) struct Received<'a> {
    pub kind: u16,
    flags: u16,
    sequence: u32,
    /// The netlink port of the socket whose request the message answers or tells of; 0: no
    /// socket's.
    pub port: u32,
    pub payload: &'a [u8],
}

impl Netlink {
    /// Opens a socket in this thread's network namespace.
    pub fn open() -> Result<Netlink, SocketError> {
        Netlink::of(NETLINK_ROUTE)
    }

    /// Opens a socket whose lists come in small parts. The kernel writes each part of a list at
    /// once, with RTNL, and as much as there is room to read (`netlink_dump`,
    /// net/netlink/af_netlink.c); where it preempts no system call, nothing else runs on that
    /// processor meanwhile, a login's placement neither. Of 1,000 classes a part takes a tenth of a
    /// millisecond then, and the whole list a third more time.
    pub fn in_parts() -> Result<Netlink, SocketError> {
        Ok(Netlink { buffer: vec![0; PART], ..Netlink::open()? })
    }

    /// Opens a socket for lists of sockets ([`crate::netlink::inet_diag`]).
    pub fn for_sockets() -> Result<Netlink, SocketError> {
        Netlink::of(NETLINK_SOCK_DIAG)
    }

    /// Opens a socket for what nftables has ([`crate::netlink::nftables`]).
    pub fn for_nftables() -> Result<Netlink, SocketError> {
        Netlink::of(NETLINK_NETFILTER)
    }

    fn of(protocol: isize) -> Result<Netlink, SocketError> {
        let mut socket = Socket::new(protocol).map_err(SocketError::Open)?;
        let port = socket.bind_auto().map_err(SocketError::Open)?.port_number();
        // A buffer beyond rmem_max takes CAP_NET_ADMIN; without that nothing can be changed either,
        // and the kernel sends a dump only as fast as it is read.
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            let size = libc::c_int::try_from(RECEIVE_BUFFER).unwrap_or(libc::c_int::MAX);
            socket.set_rx_buf_sz::<libc::c_int>(size).map_err(SocketError::Open)?;
        }
        // Answers have the kernel's sentence (since Linux 4.12), and no copy of the request (since
        // 4.3).
        socket.set_ext_ack(true).map_err(SocketError::Open)?;
        socket.set_cap_ack(true).map_err(SocketError::Open)?;
        Ok(Netlink { socket, port, sequence: 0, changes_sent: 0, buffer: vec![0; DATAGRAM] })
    }

    /// The socket's netlink port, by which notices name the socket that made a change.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// How many messages that may change something were sent over this socket.
    pub fn changes_sent(&self) -> u64 {
        self.changes_sent
    }

    /// What `request` lists, each message read by `decode`. Begins again when the kernel says that
    /// the list changed meanwhile, or when answers were lost. A message that cannot be read is
    /// logged and left out.
    ///
    /// Whether a list can lack an entry that existed all the time:
    /// - links: not unsaid. `rtnl_dump_ifinfo` (net/core/rtnetlink.c) compares `dev_base_seq`,
    ///   which each link that comes or goes raises (`nl_dump_check_consistent`).
    /// - routes: `fib_table_dump` (net/ipv4/fib_trie.c) goes on by key, and a default route has the
    ///   first key of all; `fib6_dump_table` (net/ipv6/ip6_fib.c) begins a changed node again.
    /// - traffic control: yes, and the kernel does not say so. See
    ///   [`Witness`](super::witness::Witness).
    /// - sockets: yes. `inet_diag_dump_icsk` (net/ipv4/inet_diag.c) goes on by position in a hash
    ///   bucket: see `observe::tags`.
    pub fn dump<T>(
        &mut self,
        request: &Request,
        mut decode: impl FnMut(Message<'_>) -> Decoded<T>,
    ) -> Result<Vec<T>, SocketError> {
        let began = Instant::now();
        loop {
            let list = self.list(request, &mut decode)?;
            if list.is_whole {
                return Ok(list.entries);
            }
            if began.elapsed() > PATIENCE {
                return Err(SocketError::Restless);
            }
            debug!("a list changed while it was read; reading it again");
        }
    }

    /// What `request` lists, read once.
    pub fn list<T>(
        &mut self,
        request: &Request,
        decode: impl FnMut(Message<'_>) -> Decoded<T>,
    ) -> Result<List<T>, SocketError> {
        let rest = self.buffer.len();
        self.list_until(request, decode, |_| false, rest)
    }

    /// The first entries of what `request` lists, until `is_enough` says so of one, or all. The
    /// kernel lists as much as is read, and a socket whose list has not ended can ask for no other:
    /// so this takes the socket. The first part is a small one.
    pub fn beginning<T>(
        mut self,
        request: &Request,
        decode: impl FnMut(Message<'_>) -> Decoded<T>,
        is_enough: impl FnMut(&T) -> bool,
    ) -> Result<List<T>, SocketError> {
        self.buffer.truncate(PART);
        self.list_until(request, decode, is_enough, DATAGRAM)
    }

    /// `rest`: how long the buffer is after the first part.
    fn list_until<T>(
        &mut self,
        request: &Request,
        mut decode: impl FnMut(Message<'_>) -> Decoded<T>,
        mut is_enough: impl FnMut(&T) -> bool,
        rest: usize,
    ) -> Result<List<T>, SocketError> {
        let sequence = self.next_sequence();
        let mut bytes = vec![];
        request.write_to(sequence, &mut bytes);
        self.send(&bytes)?;
        let mut list = List { entries: vec![], is_whole: true };
        loop {
            let length = match self.receive() {
                Ok(length) => length,
                // The rest of the list is still to come, and until it has ended the socket can ask
                // for no other list (EBUSY).
                Err(error) if is(&error, Errno::ENOBUFS) => {
                    list.is_whole = false;
                    continue;
                }
                Err(error) => return Err(SocketError::Receive(error)),
            };
            for message in messages(&self.buffer[..length]) {
                let message = message?;
                if message.sequence != sequence {
                    continue;
                }
                list.is_whole &= message.flags & NLM_F_DUMP_INTR == 0;
                let Received { kind, flags, payload, .. } = message;
                match kind {
                    NLMSG_DONE => {
                        extack::done(flags, payload).map_err(SocketError::Refused)?;
                        return Ok(list);
                    }
                    NLMSG_ERROR => {
                        extack::outcome(flags, payload).map_err(SocketError::Refused)?;
                        return Err(SocketError::Nonsense("an ACK for a list"));
                    }
                    NLMSG_NOOP | NLMSG_OVERRUN => {}
                    _ => match decode(Message { kind, payload }) {
                        Ok(Some(found)) => {
                            let is_last = is_enough(&found);
                            list.entries.push(found);
                            if is_last {
                                return Ok(list);
                            }
                        }
                        Ok(None) => {}
                        Err(error) => warn!("{error}; it is ignored"),
                    },
                }
            }
            self.buffer.resize(rest, 0);
        }
    }

    /// Asks for one object: its description, read by `decode`, or the kernel's refusal. `None`: the
    /// kernel answered without a description.
    pub fn get<T>(
        &mut self,
        question: &Request,
        mut decode: impl FnMut(Message<'_>) -> Decoded<T>,
    ) -> Result<Result<Option<T>, KernelError>, SocketError> {
        let sequence = self.next_sequence();
        let mut bytes = vec![];
        question.write_to(sequence, &mut bytes);
        self.send(&bytes)?;
        let mut answer = None;
        loop {
            let length = self.receive().map_err(SocketError::Receive)?;
            for message in messages(&self.buffer[..length]) {
                let message = message?;
                if message.sequence != sequence {
                    continue;
                }
                let Received { kind, flags, payload, .. } = message;
                match kind {
                    NLMSG_ERROR => {
                        return Ok(extack::outcome(flags, payload).map(|_| answer));
                    }
                    NLMSG_NOOP | NLMSG_OVERRUN | NLMSG_DONE => {}
                    _ => match decode(Message { kind, payload }) {
                        Ok(found) => answer = found.or(answer),
                        Err(error) => warn!("{error}; it is ignored"),
                    },
                }
            }
        }
    }

    /// Sends all `requests`, several in one system call, and returns what became of each, in their
    /// order. The kernel performs all requests of one system call (at most 256) also when one of
    /// them is refused; the requests of later calls are then not sent, and have no outcome.
    pub fn transact<R: Borrow<Request>>(
        &mut self,
        requests: &[R],
    ) -> Result<Vec<Outcome>, SocketError> {
        let mut outcomes = Vec::with_capacity(requests.len());
        let mut rest = requests;
        let mut bytes = Vec::with_capacity(BATCH_BYTES);
        while !rest.is_empty() && outcomes.iter().all(Result::is_ok) {
            bytes.clear();
            let first = self.sequence.wrapping_add(1);
            let mut count = 0;
            while bytes.len() < BATCH_BYTES
                && count < BATCH_REQUESTS
                && let Some(request) = rest.get(count)
            {
                let request = request.borrow();
                request.write_to(self.next_sequence(), &mut bytes);
                self.changes_sent += u64::from(request.changes());
                count += 1;
            }
            self.send(&bytes)?;
            outcomes.extend(self.acks(first, count)?);
            rest = &rest[count..];
        }
        Ok(outcomes)
    }

    /// Sends one request and returns its outcome.
    pub fn change(&mut self, request: &Request) -> Result<Outcome, SocketError> {
        let outcomes = self.transact(std::slice::from_ref(request))?;
        outcomes.into_iter().next().ok_or(SocketError::Nonsense("no answer"))
    }

    /// The answers to `count` requests numbered from `first` on.
    fn acks(&mut self, first: u32, count: usize) -> Result<Vec<Outcome>, SocketError> {
        let mut outcomes: Vec<Option<Outcome>> = vec![None; count];
        let mut missing = count;
        while missing > 0 {
            let length = self.receive().map_err(|error| {
                if is(&error, Errno::ENOBUFS) {
                    SocketError::Overrun
                } else {
                    SocketError::Receive(error)
                }
            })?;
            for message in messages(&self.buffer[..length]) {
                let message = message?;
                let place = usize::try_from(message.sequence.wrapping_sub(first));
                let slot = place.ok().and_then(|place| outcomes.get_mut(place));
                if let (NLMSG_ERROR, Some(slot @ None)) = (message.kind, slot) {
                    *slot = Some(extack::outcome(message.flags, message.payload));
                    missing -= 1;
                }
            }
        }
        Ok(outcomes.into_iter().flatten().collect())
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    fn send(&self, bytes: &[u8]) -> Result<(), SocketError> {
        let kernel = SocketAddr::new(0, 0);
        let sent = retry(|| self.socket.send_to(bytes, &kernel, 0)).map_err(SocketError::Send)?;
        if sent == bytes.len() { Ok(()) } else { Err(SocketError::Nonsense("a short write")) }
    }

    /// Reads one datagram of the kernel into the buffer.
    fn receive(&mut self) -> io::Result<usize> {
        loop {
            let buffer = &mut self.buffer;
            let socket = &self.socket;
            let (length, sender) =
                retry(|| socket.recv_from(&mut &mut buffer[..], libc::MSG_TRUNC))?;
            if length > self.buffer.len() {
                return Err(io::Error::from(Errno::EMSGSIZE));
            }
            // Others may write to our port; the kernel's own is 0.
            if sender.port_number() == 0 {
                return Ok(length);
            }
        }
    }
}

/// Repeats a system call that a signal interrupted.
pub(super) fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

pub(super) fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}

/// The messages in one datagram (`NLMSG_OK`, `NLMSG_NEXT`).
pub(super) fn messages(
    mut bytes: &[u8],
) -> impl Iterator<Item = Result<Received<'_>, SocketError>> {
    std::iter::from_fn(move || {
        let header = bytes.get(..HEADER)?;
        let word = |at: usize| {
            u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let length = usize::try_from(word(0)).unwrap_or(usize::MAX);
        let Some(payload) = bytes.get(HEADER..length) else {
            bytes = &[];
            return Some(Err(SocketError::Nonsense("a message longer than its datagram")));
        };
        let message =
            Received { kind: half(4), flags: half(6), sequence: word(8), port: word(12), payload };
        let next = length.checked_next_multiple_of(4).and_then(|end| bytes.get(end..));
        bytes = next.unwrap_or(&[]);
        Some(Ok(message))
    })
}

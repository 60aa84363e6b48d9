//! Netlink sockets on which the kernel speaks by itself: process events, and what happens to links
//! and to traffic control. Never blocks.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use netlink_sys::protocols::{NETLINK_CONNECTOR, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};

use super::route::{SocketError, is, messages, retry};
use crate::netlink::notice::{Notice, notice};
use crate::netlink::proc_event::{self, Event, Moment, ProcEvent};
use crate::netlink::socket_filter::{self, Instruction};

/// Bytes for messages that come while the daemon is busy. Each event takes about 1 kB, and the
/// kernel doubles the number: that is enough for some seconds of 2,000 forks a second, or for 50 ms
/// of the most events that one process can cause (155,000 changes of uid a second, until it is
/// muted). When the buffer runs over, all processes are looked at anew.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;
/// Bytes of the longest datagram that is read. Only a link with many attributes is longer, and is
/// cut off behind its name.
const DATAGRAM: usize = 32 * 1024;
/// How many datagrams are read before the caller is returned to: half a millisecond's work.
const AT_ONCE: usize = 256;
/// Milliseconds that the kernel may take to confirm a subscription; it does so within the call.
const CONFIRMATION: u8 = 200;

/// RTNLGRP_LINK and RTNLGRP_TC (linux/rtnetlink.h).
const LINKS_AND_QDISCS: [u32; 2] = [1, 4];
/// RTNLGRP_IPV4_ROUTE and RTNLGRP_IPV6_ROUTE.
const ROUTES: [u32; 2] = [7, 11];

/// Whether all messages were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// All messages were read.
    All,
    /// The buffer ran over: everything must be looked at again.
    Lost,
}

/// Hears of changes of links, traffic control and default routes in the network namespace in which
/// it was opened.
pub struct LinkListener(Listener);

impl LinkListener {
    /// Subscribes to the multicast groups. Needs no privilege.
    pub fn open() -> Result<LinkListener, SocketError> {
        LinkListener::of(&[LINKS_AND_QDISCS, ROUTES].concat())
    }

    /// Subscribes without routes, of which a router has many.
    pub(super) fn without_routes() -> Result<LinkListener, SocketError> {
        LinkListener::of(&LINKS_AND_QDISCS)
    }

    fn of(groups: &[u32]) -> Result<LinkListener, SocketError> {
        let listener = Listener::open(NETLINK_ROUTE)?;
        for group in groups {
            listener.socket.add_membership(*group).map_err(SocketError::Open)?;
        }
        Ok(LinkListener(listener))
    }

    /// From now on nobody is woken up for what the socket with this netlink port does, or asks: the
    /// kernel tells everybody also what it answers to a question for one qdisc (`tc_get_qdisc`,
    /// net/sched/sch_api.c).
    pub fn pass_over(&self, port: u32) -> io::Result<()> {
        self.0.attach(&socket_filter::of_others_than(port))
    }

    /// Calls `each` for all messages that have come, with the netlink port of the socket that made
    /// the change.
    pub fn hear(&mut self, mut each: impl FnMut(u32, Notice)) -> Result<Heard, SocketError> {
        self.0.hear(|message| {
            if let Some(notice) = notice(message.kind, message.payload) {
                each(message.port, notice);
            }
        })
    }
}

/// Hears of forks, programs run and changes of uid, on the whole machine.
pub struct ProcessListener {
    listener: Listener,
    /// When the kernel confirmed the subscription.
    began: Moment,
}

impl ProcessListener {
    /// `None`: this kernel or this namespace has no process events. Only the first network and
    /// process namespaces have.
    pub fn open() -> Result<Option<ProcessListener>, SocketError> {
        // Without CONFIG_CONNECTOR there is no such protocol.
        let Ok(listener) = Listener::open(NETLINK_CONNECTOR) else { return Ok(None) };
        if listener.socket.add_membership(proc_event::GROUP).is_err()
            || listener.send(&proc_event::subscribe()).is_err()
        {
            return Ok(None);
        }
        let mut listener =
            ProcessListener { listener, began: Moment { at: 0, ours: Instant::now() } };
        let until = Instant::now() + Duration::from_millis(u64::from(CONFIRMATION));
        loop {
            // Others may be told of what happens while we are not.
            if Instant::now() > until {
                return Ok(None);
            }
            let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::from(CONFIRMATION)) {
                Ok(0) => return Ok(None),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(SocketError::Receive(errno.into())),
            }
            let mut answer = None;
            listener.hear(|told| {
                if let Event::Subscribed(errno) = told.event {
                    answer = Some((errno, told.at));
                }
            })?;
            match answer {
                None => {}
                Some((0, at)) => {
                    listener.began = Moment { at, ours: Instant::now() };
                    break;
                }
                Some((errno, _)) => {
                    log::debug!("process events are refused: error {errno}");
                    return Ok(None);
                }
            }
        }
        Ok(Some(listener))
    }

    /// Has the kernel drop all events but forks, changes of uid (but of the processes in `muted`)
    /// and, with `exec`, programs run.
    pub fn narrow(&self, exec: bool, muted: &[u32]) -> io::Result<()> {
        self.listener.attach(&proc_event::filter(exec, muted))
    }

    /// A moment by both clocks.
    pub fn began(&self) -> Moment {
        self.began
    }

    /// Calls `each` for all events that have come.
    pub fn hear(&mut self, mut each: impl FnMut(ProcEvent)) -> Result<Heard, SocketError> {
        self.listener.hear(|message| {
            if let Some(event) = proc_event::decode(message.payload) {
                each(event);
            }
        })
    }
}

impl AsFd for LinkListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.socket.as_fd()
    }
}

impl AsFd for ProcessListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.socket.as_fd()
    }
}

struct Listener {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Listener {
    fn open(protocol: isize) -> Result<Listener, SocketError> {
        let mut socket = Socket::new(protocol).map_err(SocketError::Open)?;
        socket.bind_auto().map_err(SocketError::Open)?;
        socket.set_non_blocking(true).map_err(SocketError::Open)?;
        // A buffer beyond rmem_max takes CAP_NET_ADMIN; without it the buffer runs over sooner.
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER)
                .map_err(|errno| SocketError::Open(errno.into()))?;
        }
        Ok(Listener { socket, buffer: vec![0; DATAGRAM] })
    }

    /// Has the kernel drop what the filter does not pass.
    fn attach(&self, filter: &[Instruction]) -> io::Result<()> {
        let mut program: Vec<libc::sock_filter> = filter
            .iter()
            .map(|it| libc::sock_filter { code: it.code, jt: it.if_true, jf: it.if_false, k: it.k })
            .collect();
        let filter = libc::sock_fprog {
            len: u16::try_from(program.len()).unwrap_or(u16::MAX),
            filter: program.as_mut_ptr(),
        };
        // SAFETY: the kernel copies the `len` instructions at `filter` and keeps no pointer.
        let result = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                std::ptr::from_ref(&filter).cast(),
                libc::socklen_t::try_from(size_of_val(&filter)).unwrap_or(0),
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn send(&self, bytes: &[u8]) -> Result<(), SocketError> {
        let kernel = SocketAddr::new(0, 0);
        retry(|| self.socket.send_to(bytes, &kernel, 0)).map(|_| ()).map_err(SocketError::Send)
    }

    fn hear(
        &mut self,
        mut each: impl FnMut(super::route::Received<'_>),
    ) -> Result<Heard, SocketError> {
        let mut heard = Heard::All;
        let mut count = 0;
        // Once the buffer ran over, the kernel drops all messages until the buffer is empty,
        // without a further error (`netlink_overrun`, net/netlink/af_netlink.c): so it is emptied
        // before anybody looks at everything.
        while count < AT_ONCE || heard == Heard::Lost {
            count += 1;
            let (socket, buffer) = (&self.socket, &mut self.buffer);
            let (length, sender) = match retry(|| socket.recv_from(&mut &mut buffer[..], 0)) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if is(&error, Errno::ENOBUFS) => {
                    heard = Heard::Lost;
                    continue;
                }
                Err(error) => return Err(SocketError::Receive(error)),
            };
            // Anybody may write to our port; the kernel's own is 0.
            if sender.port_number() != 0 {
                continue;
            }
            for message in messages(&self.buffer[..length.min(self.buffer.len())]) {
                match message {
                    Ok(message) => each(message),
                    Err(error) => log::debug!("{error}"),
                }
            }
        }
        Ok(heard)
    }
}

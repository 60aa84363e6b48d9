//! An actor: a process that does what it is told, step by step. It stands for a user's program, for
//! a server that hands its connections on, or for the far side's receivers.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::Context;

use super::accounts::Account;
use super::cell::myself;
use super::exchange;
use super::mptcp;
use super::orders::{Acting, Answer, Order, Proto, SocketId};
use super::passing;
use super::sink::{self, Sinks};
use super::source::{self, Source};
use super::timeline::Timeline;
use super::tunnel;

/// The test's handle of an actor. When it is dropped, the actor and its sockets end.
pub struct Actor {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Actor {
    /// Starts an actor with this command: the test binary with `--actor` as its last words.
    pub fn start(mut command: Command) -> Actor {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("start an actor");
        let orders = child.stdin.take().expect("the actor's orders");
        let answers = BufReader::new(child.stdout.take().expect("the actor's answers"));
        let mut actor = Actor { child, orders, answers };
        actor.tell(&Order::Ready);
        actor
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives an order and waits until it is done.
    pub fn tell(&mut self, order: &Order) -> Answer {
        let mut line = serde_json::to_string(order).expect("an order is always JSON");
        line.push('\n');
        self.orders.write_all(line.as_bytes()).expect("the actor takes orders");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("the actor answers");
        let answer = serde_json::from_str(&answer)
            .unwrap_or_else(|e| panic!("{order:?} was answered with {answer:?}: {e}"));
        match answer {
            Answer::Failed(why) => panic!("{order:?}: {why}"),
            answer => answer,
        }
    }

    pub fn become_account(&mut self, account: Account) {
        self.tell(&Order::Become(account));
    }

    pub fn connect(&mut self, to: SocketAddr) -> SocketId {
        self.socket(&Order::Connect(to))
    }

    /// Gives an order whose answer is a socket.
    pub fn socket(&mut self, order: &Order) -> SocketId {
        match self.tell(order) {
            Answer::Socket(id) => id,
            other => panic!("{order:?} was answered with {other:?}"),
        }
    }

    pub fn pour(&mut self, socket: SocketId) {
        self.tell(&Order::Pour(socket));
    }

    /// Ends sending; returns the bytes and packets sent.
    pub fn stop(&mut self, socket: SocketId) -> (u64, u64) {
        match self.tell(&Order::Stop(socket)) {
            Answer::Sent { bytes, packets } => (bytes, packets),
            other => panic!("a stop was answered with {other:?}"),
        }
    }

    pub fn sink(&mut self, proto: Proto, port: u16) {
        self.tell(&Order::Sink { proto, port });
    }

    pub fn seen(&mut self, proto: Proto, port: u16) -> Timeline {
        match self.tell(&Order::Seen { proto, port }) {
            Answer::Seen(timeline) => timeline,
            other => panic!("a question was answered with {other:?}"),
        }
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The actor's own side: orders from standard input until it closes.
pub fn run() -> ExitCode {
    let mut stage = Stage::default();
    let mut out = io::stdout();
    for line in io::stdin().lock().lines() {
        let answer = match line.map_err(anyhow::Error::from).and_then(|line| stage.obey(&line)) {
            Ok(answer) => answer,
            Err(e) => Answer::Failed(format!("{e:#}")),
        };
        let Ok(mut text) = serde_json::to_string(&answer) else { return ExitCode::FAILURE };
        text.push('\n');
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
            break;
        }
    }
    stage.children.iter_mut().for_each(|child| {
        let _ = child.kill();
    });
    ExitCode::SUCCESS
}

/// The sockets and threads of an actor.
#[derive(Default)]
struct Stage {
    streams: BTreeMap<SocketId, TcpStream>,
    listeners: BTreeMap<SocketId, TcpListener>,
    datagrams: BTreeMap<SocketId, UdpSocket>,
    sources: BTreeMap<SocketId, Source>,
    sinks: Sinks,
    children: Vec<Child>,
    mailbox: Option<UnixDatagram>,
    sockets: u32,
}

impl Stage {
    fn obey(&mut self, line: &str) -> anyhow::Result<Answer> {
        Ok(match serde_json::from_str(line)? {
            Order::Ready => Answer::Done,
            Order::Become(account) => source::become_account(account).map(done)?,
            Order::Act { uid, by } => source::act(uid, by).map(done)?,
            Order::Flip { uid, times, rest_us } => flip(uid, times, rest_us).map(done)?,
            Order::Connect(to) => {
                self.connected(TcpStream::connect_timeout(&to, Duration::from_secs(5))?)
            }
            Order::ConnectFrom { from, to } => self.connected(source::connect_from(from, to)?),
            Order::ConnectMptcp(to) => self.connected(mptcp::connect_to(to)?),
            Order::Listen(at) => self.listen(at)?,
            Order::Accept(listener) => {
                let listener = self.listeners.get(&listener).context("no such listener")?;
                let (stream, _) = listener.accept()?;
                self.connected(stream)
            }
            Order::Datagram(to) => self.datagram(to)?,
            Order::Pour(id) => self.pour(id).map(done)?,
            Order::Send { socket, bytes } => {
                Answer::Sent { bytes: source::send(self.connection(socket)?, bytes)?, packets: 0 }
            }
            Order::Beat { socket, bytes, bits_per_second } => {
                self.beat(socket, bytes, bits_per_second).map(done)?
            }
            Order::Flood { socket, bytes } => self.flood(socket, bytes).map(done)?,
            Order::Stop(id) => {
                let source = self.sources.remove(&id).context("nothing is being sent there")?;
                let (bytes, packets) = source.stop();
                Answer::Sent { bytes, packets }
            }
            Order::Hand { socket, to } => Answer::Child(self.hand(socket, to)?),
            Order::Mailbox(name) => {
                self.mailbox = Some(passing::mailbox(&name)?);
                Answer::Done
            }
            Order::Give { socket, to } => passing::give(self.connection(socket)?, &to).map(done)?,
            Order::Take => {
                let mailbox = self.mailbox.as_ref().context("no mailbox")?;
                let stream = passing::take(mailbox)?;
                self.connected(stream)
            }
            Order::Tunnel { device, from, to } => {
                tunnel::carry(&device, tunnel::TUN, (from, to)).map(done)?
            }
            Order::Tap { device, from, to } => {
                tunnel::carry(&device, tunnel::TAP, (from, to)).map(done)?
            }
            Order::Ping { to, count, payload } => {
                Answer::Replies(source::ping(to, count, payload)?)
            }
            Order::Probe { to, count, every_ms } => {
                Answer::Rtts(source::probe(to, count, Duration::from_millis(every_ms))?)
            }
            Order::Sink { proto, port } => self.sinks.open(proto, port).map(done)?,
            Order::Drain { socket, port } => {
                let stream = self.streams.remove(&socket).context("no such connection")?;
                self.sinks.drain(stream, port);
                Answer::Done
            }
            Order::Serve { at, parcel } => exchange::serve(at, parcel).map(done)?,
            Order::Exchange { to, times, parcel } => {
                exchange::exchange(to, times, parcel).map(done)?
            }
            Order::Echo(port) => sink::echo(port).map(done)?,
            Order::Seen { proto, port } => {
                Answer::Seen(self.sinks.seen(proto, port).context("no such sink")?)
            }
        })
    }

    fn next(&mut self) -> SocketId {
        self.sockets += 1;
        SocketId(self.sockets)
    }

    /// Keeps a connection that has just been made.
    fn connected(&mut self, stream: TcpStream) -> Answer {
        let id = self.next();
        self.streams.insert(id, stream);
        Answer::Socket(id)
    }

    fn listen(&mut self, at: SocketAddr) -> anyhow::Result<Answer> {
        let id = self.next();
        self.listeners.insert(id, TcpListener::bind(at)?);
        Ok(Answer::Socket(id))
    }

    fn datagram(&mut self, to: SocketAddr) -> anyhow::Result<Answer> {
        let socket = source::unbound(to)?;
        socket.connect(to)?;
        let id = self.next();
        self.datagrams.insert(id, socket);
        Ok(Answer::Socket(id))
    }

    fn connection(&self, socket: SocketId) -> anyhow::Result<&TcpStream> {
        self.streams.get(&socket).context("no such connection")
    }

    fn pour(&mut self, socket: SocketId) -> anyhow::Result<()> {
        let stream = self.streams.remove(&socket).context("no such connection")?;
        self.sources.insert(socket, Source::pour(stream)?);
        Ok(())
    }

    fn beat(&mut self, socket: SocketId, bytes: usize, bits_per_second: u64) -> anyhow::Result<()> {
        let datagram = self.datagrams.remove(&socket).context("no such UDP socket")?;
        self.sources.insert(socket, Source::beat(datagram, bytes, bits_per_second));
        Ok(())
    }

    fn flood(&mut self, socket: SocketId, bytes: usize) -> anyhow::Result<()> {
        let source = match self.streams.remove(&socket) {
            Some(stream) => Source::flood(stream, bytes)?,
            None => {
                let datagram = self.datagrams.remove(&socket);
                Source::flood(datagram.context("no such socket")?, bytes)?
            }
        };
        self.sources.insert(socket, source);
        Ok(())
    }

    /// Hands a connection to a child that becomes the account; the child's pid.
    fn hand(&mut self, socket: SocketId, to: Account) -> anyhow::Result<u32> {
        let stream = self.streams.remove(&socket).context("no such connection")?;
        let child = myself(&["--heir", &to.uid.to_string(), &to.gid.to_string()])
            .stdin(Stdio::from(OwnedFd::from(stream)))
            .stdout(Stdio::null())
            .spawn()?;
        let pid = child.id();
        self.children.push(child);
        Ok(pid)
    }
}

/// The answer to an order that asks for nothing back.
fn done((): ()) -> Answer {
    Answer::Done
}

/// Acts for the uid and for root in turn, `times` times, with a rest after each change.
fn flip(uid: u32, times: u32, rest_us: u64) -> anyhow::Result<()> {
    for uid in (0..times).flat_map(|_| [uid, 0]) {
        source::act(uid, Acting::Effective)?;
        std::thread::sleep(Duration::from_micros(rest_us));
    }
    Ok(())
}

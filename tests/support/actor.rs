//! An actor: a process that does what it is told, step by step. It stands for a user's program, for
//! a server that hands its connections on, or for the far side's receivers.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::Duration;

use super::accounts::Account;
use super::cell::myself;
use super::mptcp;
use super::orders::{Acting, Answer, Order, Proto, SocketId};
use super::passing;
use super::sink::{self, Sinks};
use super::source::{self, Source};
use super::timeline::Timeline;
use super::tunnel;

/// The test's hold on an actor; dropped, the actor and its sockets end.
pub struct Actor {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Actor {
    /// Starts one with this command: the test binary with `--actor` as its last words.
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

    /// Tells it something that is answered with a socket.
    pub fn socket(&mut self, order: &Order) -> SocketId {
        match self.tell(order) {
            Answer::Socket(id) => id,
            other => panic!("{order:?} was answered with {other:?}"),
        }
    }

    pub fn pour(&mut self, socket: SocketId) {
        self.tell(&Order::Pour(socket));
    }

    /// Bytes and packets sent.
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

/// All that an actor holds.
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
        use anyhow::Context;
        Ok(match serde_json::from_str(line)? {
            Order::Ready => Answer::Done,
            Order::Become(account) => {
                source::become_account(account)?;
                Answer::Done
            }
            Order::Act { uid, by } => {
                source::act(uid, by)?;
                Answer::Done
            }
            Order::Flip { uid, times, rest_us } => {
                for uid in (0..times).flat_map(|_| [uid, 0]) {
                    source::act(uid, Acting::Effective)?;
                    std::thread::sleep(Duration::from_micros(rest_us));
                }
                Answer::Done
            }
            Order::Connect(to) => {
                let stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
                let id = self.next();
                self.streams.insert(id, stream);
                Answer::Socket(id)
            }
            Order::ConnectFrom { from, to } => {
                let stream = source::connect_from(from, to)?;
                let id = self.next();
                self.streams.insert(id, stream);
                Answer::Socket(id)
            }
            Order::ConnectMptcp(to) => {
                let stream = mptcp::connect_to(to)?;
                let id = self.next();
                self.streams.insert(id, stream);
                Answer::Socket(id)
            }
            Order::Listen(at) => {
                let listener = TcpListener::bind(at)?;
                let id = self.next();
                self.listeners.insert(id, listener);
                Answer::Socket(id)
            }
            Order::Accept(listener) => {
                let listener = self.listeners.get(&listener).context("no such listener")?;
                let (stream, _) = listener.accept()?;
                let id = self.next();
                self.streams.insert(id, stream);
                Answer::Socket(id)
            }
            Order::Datagram(to) => {
                let socket = source::unbound(to)?;
                socket.connect(to)?;
                let id = self.next();
                self.datagrams.insert(id, socket);
                Answer::Socket(id)
            }
            Order::Pour(id) => {
                let stream = self.streams.remove(&id).context("no such connection")?;
                self.sources.insert(id, Source::pour(stream)?);
                Answer::Done
            }
            Order::Send { socket, bytes } => {
                let stream = self.streams.get(&socket).context("no such connection")?;
                Answer::Sent { bytes: source::send(stream, bytes)?, packets: 0 }
            }
            Order::Beat { socket, bytes, bits_per_second } => {
                let datagram = self.datagrams.remove(&socket).context("no such UDP socket")?;
                self.sources.insert(socket, Source::beat(datagram, bytes, bits_per_second));
                Answer::Done
            }
            Order::Flood { socket, bytes } => {
                let source = match self.streams.remove(&socket) {
                    Some(stream) => Source::flood(stream, bytes)?,
                    None => {
                        let datagram = self.datagrams.remove(&socket);
                        Source::flood(datagram.context("no such socket")?, bytes)?
                    }
                };
                self.sources.insert(socket, source);
                Answer::Done
            }
            Order::Stop(id) => {
                let source = self.sources.remove(&id).context("nothing is being sent there")?;
                let (bytes, packets) = source.stop();
                Answer::Sent { bytes, packets }
            }
            Order::Hand { socket, to } => {
                let stream = self.streams.remove(&socket).context("no such connection")?;
                let child = myself(&["--heir", &to.uid.to_string(), &to.gid.to_string()])
                    .stdin(Stdio::from(OwnedFd::from(stream)))
                    .stdout(Stdio::null())
                    .spawn()?;
                let pid = child.id();
                self.children.push(child);
                Answer::Child(pid)
            }
            Order::Mailbox(name) => {
                self.mailbox = Some(passing::mailbox(&name)?);
                Answer::Done
            }
            Order::Give { socket, to } => {
                let stream = self.streams.get(&socket).context("no such connection")?;
                passing::give(stream, &to)?;
                Answer::Done
            }
            Order::Take => {
                let stream = passing::take(self.mailbox.as_ref().context("no mailbox")?)?;
                let id = self.next();
                self.streams.insert(id, stream);
                Answer::Socket(id)
            }
            Order::Tunnel { device, from, to } => {
                tunnel::carry(&device, from, to)?;
                Answer::Done
            }
            Order::Ping { to, count, payload } => {
                Answer::Replies(source::ping(to, count, payload)?)
            }
            Order::Probe { to, count, every_ms } => {
                Answer::Rtts(source::probe(to, count, Duration::from_millis(every_ms))?)
            }
            Order::Sink { proto, port } => {
                self.sinks.open(proto, port)?;
                Answer::Done
            }
            Order::Drain { socket, port } => {
                let stream = self.streams.remove(&socket).context("no such connection")?;
                self.sinks.drain(stream, port);
                Answer::Done
            }
            Order::Echo(port) => {
                sink::echo(port)?;
                Answer::Done
            }
            Order::Seen { proto, port } => {
                Answer::Seen(self.sinks.seen(proto, port).context("no such sink")?)
            }
        })
    }

    fn next(&mut self) -> SocketId {
        self.sockets += 1;
        SocketId(self.sockets)
    }
}

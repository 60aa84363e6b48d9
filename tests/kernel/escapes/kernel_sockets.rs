//! Sockets of the kernel's own that users drive. Whose they are depends on who makes them: the
//! user's process, as for RXRPC, or a thread of the kernel's, as for RDS, CIFS and NFS.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::Duration;

use super::tag_only;
use crate::support::accounts::{ANN, Account, BOB};
use crate::support::cell::SCRATCH;
use crate::support::clock::soon;
use crate::support::command::run;
use crate::support::counters::classes;
use crate::support::harness::{On, tests};
use crate::support::program::{apply, classid};
use crate::support::rates::{self, Interval, KBIT, MBIT, between};
use crate::support::world::{UPLINK, World};

tests!(
    // Of the lab's kernels this one has them, and any user's socket(2) loads them.
    On::Uml => an_rxrpc_call_is_its_users, an_rds_stream_is_the_kernels_and_bounded;
);

const DEFAULT: &str = "1:fffe";
const POLICY: &str = "
version: 1
links: {up0: {rate: 100mbit, default: {rate: 1mbit}}}
users: {ann: 5mbit, bob: 5mbit}
";

/// Loads modules, each after what it needs. They stay: unloading RXRPC stops Linux 6.1 (`rxrpc:
/// Assertion failed`).
fn load(paths: &[&str]) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("the release");
    for path in paths {
        let name = path.rsplit('/').next().unwrap_or(path);
        if !Path::new(&format!("/sys/module/{name}")).exists() {
            run(&format!("insmod /usr/lib/uml/modules/{}/kernel/{path}.ko", release.trim()));
        }
    }
}

/// A program in Python; dropped, it ends.
struct Python(Child);

impl Python {
    fn start(mut command: Command, account: Account, program: &str) -> Python {
        let path = format!("{SCRATCH}/{}-{}.py", account.uid, program.len());
        fs::write(&path, program.replace("UID", &account.uid.to_string())).expect("a program");
        Python(command.arg(path).spawn().expect("start it"))
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Ann's calls of a service at the far side, which has none: all that matters leaves here.
const CALLS: &str = "
import ctypes, os, socket, struct, time
os.setgroups([]); os.setgid(UID); os.setuid(UID)
RXRPC, USER_CALL_ID, DONTWAIT = 33, 1, 0x40
libc = ctypes.CDLL(None, use_errno=True)
def address(service, ip, port):
    inner = struct.pack('=H', socket.AF_INET) + struct.pack('!H', port) + socket.inet_aton(ip)
    return struct.pack('HHHH', RXRPC, service, socket.SOCK_DGRAM, 16) + inner.ljust(28, bytes(1))
class Part(ctypes.Structure):
    _fields_ = [('base', ctypes.c_void_p), ('length', ctypes.c_size_t)]
class Message(ctypes.Structure):
    _fields_ = [('name', ctypes.c_void_p), ('name_length', ctypes.c_uint), ('parts', ctypes.c_void_p),
                ('count', ctypes.c_size_t), ('control', ctypes.c_void_p), ('control_length', ctypes.c_size_t),
                ('flags', ctypes.c_int)]
def pointer(it):
    return ctypes.cast(it, ctypes.c_void_p)
sockets = []
while True:
    s = socket.socket(RXRPC, socket.SOCK_DGRAM, socket.AF_INET)
    sockets.append(s)
    own = address(0, 'FROM', 0)
    libc.bind(s.fileno(), own, len(own))
    to = address(52, '10.77.0.2', 7000)
    for call in range(COUNT):
        data, name = ctypes.create_string_buffer(b'y' * 1000), ctypes.create_string_buffer(to, len(to))
        part = Part(pointer(data), 1000)
        control = struct.pack('=QiiQ', 24, 272, USER_CALL_ID, call + 1)
        control = ctypes.create_string_buffer(control, len(control))
        message = Message(pointer(name), len(to), pointer(ctypes.pointer(part)), 1, pointer(control), 24, 0)
        libc.sendmsg(s.fileno(), ctypes.byref(message), DONTWAIT)
    if len(sockets) > 50:
        sockets.pop(0).close()
    time.sleep(0.005)
";

pub fn an_rxrpc_call_is_its_users() {
    let _world = World::new();
    load(&["net/ipv4/udp_tunnel", "net/ipv6/ip6_udp_tunnel", "net/rxrpc/rxrpc"]);
    apply(POLICY);
    let [ann, bob] = ["user/ann", "user/bob"].map(classid);
    // From another address each time: the kernel keeps what was at one for a while.
    let calls = |account, from, count| {
        let program = CALLS.replace("FROM", from).replace("COUNT", count);
        Python::start(Command::new("python3"), account, &program)
    };
    const PATIENCE: Duration = Duration::from_secs(20);
    let sends = |from, class: &str| -> Interval {
        let before = classes(UPLINK);
        let _calls = calls(ANN, from, "4");
        soon("something is sent", PATIENCE, || {
            Interval::since(before.clone(), UPLINK).bytes(class) > 3_000
        });
        sleep(Duration::from_millis(500));
        let sent = Interval::since(before, UPLINK);
        println!("{:?}", sent.leaves());
        sent
    };
    // The socket that sends is made by her bind(2).
    let sent = sends("0.0.0.0", &ann);
    sent.others_stay_below(2_000, &[&ann]);
    // Who comes second to an address and a port shares the first one's, who calls nobody here.
    let bobs = calls(BOB, "10.77.0.1", "0");
    // 10.77.0.1 as the kernel writes it.
    let is_bound = || fs::read_to_string("/proc/net/udp").is_ok_and(|it| it.contains("01004D0A:"));
    soon("bob's socket is bound", PATIENCE, is_bound);
    let sent = sends("10.77.0.1", &bob);
    sent.others_stay_below(2_000, &[&bob]);
    drop(bobs);
    tag_only::decides();
    // It escapes.
    sends("1.2.3.4", DEFAULT);
}

/// Any user's, over TCP connections that a thread of the kernel's makes.
const STREAM: &str = "
import os, socket, time
os.setgroups([]); os.setgid(UID); os.setuid(UID)
s = socket.socket(21, socket.SOCK_SEQPACKET, 0)
s.bind(('10.77.0.1', 4001))
s.setblocking(False)
while True:
    try:
        s.sendto(b'x' * 16384, ('10.77.0.2', 4000))
    except OSError:
        time.sleep(0.005)
";
const RECEIVER: &str = "
import socket
s = socket.socket(21, socket.SOCK_SEQPACKET, 0)
s.bind(('10.77.0.2', 4000))
while True:
    s.recv(65536)
";

pub fn an_rds_stream_is_the_kernels_and_bounded() {
    // Before the namespaces, or these have no listener.
    load(&["net/rds/rds", "net/rds/rds_tcp"]);
    let world = World::new();
    apply(POLICY);
    let ann = classid("user/ann");
    let _receiver = Python::start(world.far_command(&["python3"]), ANN, RECEIVER);
    let _stream = Python::start(Command::new("python3"), ANN, STREAM);
    sleep(Duration::from_secs(2));
    let sent = rates::over(UPLINK, Duration::from_secs(1));
    println!("RDS: {:?}", sent.leaves());
    between("RDS in the default class", sent.rate(DEFAULT), 8 * MBIT, 110 * MBIT);
    assert_eq!(sent.bytes(&ann), 0, "the socket has no user");
    // What bounds it: the default class's ceil,
    apply(&POLICY.replace("{rate: 1mbit}", "{rate: 1mbit, ceil: 3mbit}"));
    sleep(Duration::from_secs(1));
    let sent = rates::over(UPLINK, Duration::from_secs(2));
    between("RDS under the default's ceil", sent.rate(DEFAULT), 500 * KBIT, 3_300 * KBIT);
    // or a rule for the one port that it has.
    apply(&format!(
        "{POLICY}rules: [{{proto: tcp, dport: 16385, to: ann}}, {{proto: tcp, sport: 16385, to: ann}}]\n"
    ));
    sleep(Duration::from_secs(1));
    let sent = rates::over(UPLINK, Duration::from_secs(2));
    between("RDS by a rule", sent.rate(&ann), 2 * MBIT, 5_500 * KBIT);
    sent.others_stay_below(30_000, &[&ann]);
}

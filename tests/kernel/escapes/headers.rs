//! IPv6 extension headers beside rules: they stand where a rule looks for the protocol and the
//! ports. Of hop-by-hop and destination options a user may send none, of routing headers and
//! fragments any.

use std::time::Duration;

use crate::support::accounts::ANN;
use crate::support::cell::SCRATCH;
use crate::support::command::run_with;
use crate::support::counters::classes;
use crate::support::harness::{On, tests};
use crate::support::program::{apply, classid};
use crate::support::rates::Interval;
use crate::support::world::{UPLINK, World};

tests!(
    On::HostAndUml => no_extension_header_reaches_a_rules_class;
);

/// Becomes ann, tries what she is refused, and sends: TCP and UDP behind a routing header,
/// datagrams in fragments, whose payload is full of what the rules look for, and one that a rule is
/// for.
const PROGRAM: &str = "
import os, socket, struct
os.setgroups([]); os.setgid(UID); os.setuid(UID)
V6, HOPOPTS, RTHDRDSTOPTS, RTHDR, DSTOPTS = 41, 54, 55, 57, 59
far = socket.inet_pton(socket.AF_INET6, 'fd77::2')
# Type 4, through the far side to the far side.
route = struct.pack('!BBBBBBH', 0, 4, 4, 1, 1, 0, 0) + far + far
def udp():
    return socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
options = bytes([17, 0, 1, 4, 0, 53, 0, 53])
for option in (HOPOPTS, RTHDRDSTOPTS, DSTOPTS):
    for try_it in (lambda s: s.setsockopt(V6, option, options),
                   lambda s: s.sendmsg([b'x'], [(V6, option, options)], 0, ('fd77::2', 9))):
        try:
            try_it(udp())
            if option != RTHDRDSTOPTS:
                raise SystemExit(f'option {option} was allowed')
        except PermissionError:
            pass
        except OSError:
            pass
routed = udp()
routed.setsockopt(V6, RTHDR, route)
for _ in range(50):
    routed.sendto(struct.pack('!HH', 53, 53) * 100, ('fd77::2', 53))
tcp = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
tcp.setsockopt(V6, RTHDR, route)
tcp.setblocking(False)
tcp.connect_ex(('fd77::2', 53))
fragments = udp()
for _ in range(20):
    fragments.sendto(struct.pack('!HH', 53, 53) * 2000, ('fd77::2', 53))
udp().sendto(b'plain', ('fd77::2', 53))
";

/// Each rule's class is past ann's cap.
fn rules(more: &str) -> String {
    format!(
        "
version: 1
links: {{up0: {{rate: 100mbit, default: {{rate: 1mbit}}}}}}
users: {{ann: 10mbit}}
classes: {{names: {{ceil: 50mbit}}, others: {{ceil: 50mbit}}}}
rules:
  - {{proto: udp, dport: 53, to: names}}
  - {{sport: 53, to: others}}
  - {{proto: {{not: [tcp, udp, icmpv6]}}, to: others}}
{more}"
    )
}

fn send() -> Interval {
    let before = classes(UPLINK);
    let path = format!("{SCRATCH}/headers.py");
    std::fs::write(&path, PROGRAM.replace("UID", &ANN.uid.to_string())).expect("a program");
    let mut command = std::process::Command::new("python3");
    command.arg(path);
    run_with(command, "").exits(0);
    std::thread::sleep(Duration::from_millis(500));
    let sent = Interval::since(before, UPLINK);
    println!("{:?}", sent.leaves());
    sent
}

pub fn no_extension_header_reaches_a_rules_class() {
    let _world = World::new();
    apply(&rules(""));
    let [ann, names, others] = ["user/ann", "class/names", "class/others"].map(classid);
    let sent = send();
    // 50 packets of 400 bytes, and 20 of 8,000, of which the queue has no room for all.
    assert!(sent.bytes(&ann) > 50_000, "{:?}", sent.leaves());
    assert_eq!(sent.bytes(&others), 0, "{:?}", sent.leaves());
    // The plain one, for which the rule is.
    assert!((1..200).contains(&sent.bytes(&names)), "{:?}", sent.leaves());
    sent.others_stay_below(2_000, &[&ann]);
    // Who names the header's own number has them: they do stand where a rule looks.
    apply(&rules("  - {proto: [43, 44], to: others}\n"));
    let sent = send();
    assert!(sent.bytes(&others) > 50_000, "{:?}", sent.leaves());
    sent.others_stay_below(2_000, &[&others]);
}

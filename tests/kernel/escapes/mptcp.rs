//! MPTCP: the packets of a connection are sent by its subflows, sockets of their own, which neither
//! fchown nor a move of their process reaches. Of a connection that root accepted, all 277 Mbit/s
//! went past a cap of 20.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::handed_on::Heir;
use crate::support::accounts::ANN;
use crate::support::daemon::Daemon;
use crate::support::harness::{On, tests};
use crate::support::mptcp;
use crate::support::orders::Order;
use crate::support::program::{classid, policy};
use crate::support::rates::{self, MBIT, between};
use crate::support::world::{Family, UPLINK, World};

tests!(
    // User-mode Linux has no MPTCP.
    On::Events => a_connection_that_root_accepted_is_its_users;
);

const POLICY: &str = "
version: 1
links: {up0: {rate: 1gbit, default: {rate: 50mbit}}}
users: {ann: 10mbit}
";

pub fn a_connection_that_root_accepted_is_its_users() {
    let mut world = World::new();
    let daemon = Daemon::with_events(&["watch", &policy(POLICY)]);
    let at = world.host_at(Family::V4, 2_224);
    let listener = mptcp::listen(at).expect("an MPTCP listener");
    let far = world.far.socket(&Order::ConnectMptcp(at));
    world.far.tell(&Order::Drain { socket: far, port: 2_224 });
    let accepted = listener.accept().expect("a connection").0;
    assert!(mptcp::is_mptcp(accepted.as_fd()), "it has fallen back to TCP");
    let mut command = Command::new("sh");
    command.args(["-c", "exec cat /dev/zero"]).stdout(Stdio::from(OwnedFd::from(accepted)));
    let heir = Heir::of(ANN, &mut command);
    heir.is_placed("user/ann");
    let socket = std::fs::metadata(format!("/proc/{}/fd/1", heir.pid())).expect("her socket");
    assert_eq!(socket.uid(), ANN.uid, "it is given to her: {}", daemon.log());
    // The listener stays root's, also where she holds it.
    let ann = Heir::start(ANN, listener.as_fd().try_clone_to_owned().expect("a copy"));
    ann.is_placed("user/ann");
    assert_eq!(ann.owner(), 0, "who listens for others is nobody's");
    let class = classid("user/ann");
    let interval = rates::over(UPLINK, Duration::from_secs(3));
    println!("{:?}", interval.leaves());
    between("ann's class", interval.rate(&class), 5 * MBIT, 11 * MBIT);
    interval.others_stay_below(100_000, &[&class]);
    assert!(daemon.end().success());
}

//! What the kernel tells everybody, and whom it wakes up for it.

use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use shaper::netlink::decode;
use shaper::netlink::request::root;
use shaper::sys::Netlink;
use shaper::sys::listener::LinkListener;
use shaper::tree::Mark;

use super::{LO, in_a_namespace, run};

/// Notices come within the call that makes the change.
fn is_woken(listener: &LinkListener) -> bool {
    let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).unwrap() > 0
}

fn ask(netlink: &mut Netlink) {
    let root = netlink.get(&root::get(LO), decode::qdisc).unwrap().unwrap();
    assert!(root.is_some_and(|root| root.kind == "htb"));
}

#[test]
fn who_asks_and_changes_is_not_woken_up_for_it_and_is_for_what_others_do() {
    in_a_namespace(|netlink| {
        let mut listener = LinkListener::open().unwrap();
        let heard = |listener: &mut LinkListener| {
            let mut ports = Vec::new();
            listener.hear(|port, _| ports.push(port)).unwrap();
            ports
        };
        netlink.change(&root::add(LO, Mark::for_instance("shaper"))).unwrap().unwrap();
        ask(netlink);
        assert!(is_woken(&listener), "as long as nobody is passed over");
        heard(&mut listener);

        listener.pass_over(netlink.port()).unwrap();
        ask(netlink);
        assert!(!is_woken(&listener), "the answer to its own question");
        let mut other = Netlink::open().unwrap();
        ask(&mut other);
        assert!(is_woken(&listener), "somebody else's question");
        heard(&mut listener);
        run("tc", "class add dev lo parent 1: classid 1:7 htb rate 1mbit");
        assert!(!heard(&mut listener).is_empty());
        run("tc", "qdisc del dev lo root");
        let ends = heard(&mut listener);
        assert!(!ends.is_empty() && !ends.contains(&netlink.port()), "{ends:?}");
        run("ip", "link set lo mtu 1500");
        assert!(!heard(&mut listener).is_empty());
    });
}

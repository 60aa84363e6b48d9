//! The guard taken away: the deciding filter replaced by an eBPF program that reads the `net_cls`
//! tag and nothing else, which is what `cls_cgroup` does. What must not leave its class with the
//! guard is shown to leave it without, so that no test of it holds for another reason.

use std::os::fd::AsFd;

use nix::net::if_::if_nametoindex;
use shaper::classify::assembler::Assembler;
use shaper::classify::program::TASK_CLASSID;
use shaper::netlink::request::filter::{self, Loaded};
use shaper::sys::Netlink;
use shaper::sys::bpf::{self, Maps};
use shaper::tree::{Pref, Program, Sockets, TagHelper};
use shaper::units::ClassId;

use crate::support::command::run;
use crate::support::world::UPLINK;

/// From now on the tag alone decides on the uplink, until the next `apply`.
pub fn decides() {
    let shown = run(&format!("tc filter show dev {UPLINK} parent 1:"));
    let deciding = shown.lines().find(|line| line.contains("shaper-decide")).expect("the filter");
    let [old, new] = match Pref::TAG.map(|pref| deciding.contains(&format!(" pref {} ", pref.0))) {
        [true, false] => Pref::TAG,
        [false, true] => [Pref::TAG[1], Pref::TAG[0]],
        _ => panic!("{shown}"),
    };
    let mut tag_alone = Assembler::default();
    tag_alone.call(TASK_CLASSID);
    tag_alone.exit();
    let maps = Maps::for_trial().expect("BPF maps");
    let file = bpf::load_instructions(&tag_alone.finish(), &maps).expect("a program");
    // What the filter's name says is not so, and nobody asks before the test ends.
    let any = Program {
        shards: false,
        tag: Some(TagHelper::Task),
        cgroups: false,
        sockets: Sockets::All,
        mptcp: None,
        labels: false,
    };
    let link = if_nametoindex(UPLINK).expect("the uplink");
    let add =
        filter::add_bpf(link, ClassId::ROOT, new, Loaded::deciding(any, maps.ids(), file.as_fd()));
    let mut netlink = Netlink::open().expect("a netlink socket");
    let added = netlink.change(&add).unwrap_or_else(|e| panic!("{e}"));
    added.unwrap_or_else(|e| panic!("{e}"));
    run(&format!("tc filter del dev {UPLINK} parent 1: protocol all pref {}", old.0));
}

//! Others at the hooks by which packets arrive: they are named, and left alone.

use std::io::{BufRead, BufReader};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use shaper::sys::bpf;
use shaper::tree::{Direction, Sockets};

use crate::support::accounts::ANN;
use crate::support::command::run;
use crate::support::harness::{On, tests};
use crate::support::program::{apply, binary, policy, shaper};
use crate::support::world::{Family, World};

tests!(On::Host => filters_and_programs_of_others_are_named_and_left_alone);

const POLICY: &str = "
version: 1
links: {up0: {rate: 100mbit, down: 50mbit}}
users: {ann: {ceil: 20mbit, down: 10mbit}}
";

/// Attaches a program of tcx at the link's ingress; it stays when this process ends.
#[allow(unsafe_code, reason = "the system call itself")]
fn attach(program: BorrowedFd<'_>, ifindex: u32) {
    const PROG_ATTACH: nix::libc::c_long = 8;
    const TCX_INGRESS: u32 = 46;
    let program = u32::try_from(program.as_raw_fd()).expect("a descriptor");
    // `union bpf_attr`: the link, the program, the hook, flags, what is replaced; then where.
    let attr: [u32; 8] = [ifindex, program, TCX_INGRESS, 0, 0, 0, 0, 0];
    // SAFETY: the command reads these numbers.
    let answer = unsafe {
        nix::libc::syscall(
            nix::libc::SYS_bpf,
            PROG_ATTACH,
            attr.as_ptr(),
            std::mem::size_of_val(&attr),
        )
    };
    assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
}

/// Starts `top`, has a program attached, of which no notice tells, and waits until `top` names it.
fn top_names(attach: impl FnOnce()) {
    let mut top = Command::new(binary())
        .args(["top", "--json", "--interval", "0.5"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("start top");
    let mut lines = BufReader::new(top.stdout.take().expect("its lines")).lines();
    let mut is_named = || lines.next().expect("a line").expect("text").contains("tcx program");
    assert!(!is_named());
    attach();
    let began = Instant::now();
    let mut found = is_named();
    while !found && began.elapsed() < Duration::from_secs(30) {
        found = is_named();
    }
    let _ = (top.kill(), top.wait());
    assert!(found, "not within half a minute");
}

fn filters_and_programs_of_others_are_named_and_left_alone() {
    let world = World::new();
    run("tc qdisc add dev up0 clsact");
    run("tc filter add dev up0 ingress pref 10 protocol 802.1ad u32 match u32 0 0 flowid 1:1");
    run("tc filter add dev up0 egress pref 7 protocol 802.1ad u32 match u32 0 0 flowid 1:1");
    let line = run("ip -o link show up0");
    let index = line.split(':').next().and_then(|it| it.parse().ok()).expect("an ifindex");
    let program = bpf::load_clear_priority(Sockets::Mixed).expect("load a program");
    apply(POLICY);
    top_names(|| attach(std::os::fd::AsFd::as_fd(&program), index));
    shaper(&["clear"]).exits(0);
    let tcx = || bpf::tcx(index, Direction::Ingress).expect("ask for programs of tcx");
    assert_eq!(tcx(), ["shaper_priority"]);
    for command in ["check", "plan", "apply", "plan"] {
        let said = shaper(&[command, &policy(POLICY)]).exits(0).stderr;
        for name in ["filter u32 (pref 10)", "tcx program shaper_priority"] {
            assert!(said.contains(name), "{command} does not name the {name}: {said}");
        }
        // What is behind ours at egress keeps nothing from it.
        assert!(!said.contains("pref 7"), "{said}");
    }
    let status = shaper(&["status"]).exits(0).stdout;
    assert!(status.contains("! the tcx program shaper_priority"), "{status}");
    apply(POLICY);
    world.ping_from(&mut world.actor(ANN), Family::V4, 3, 56);
    shaper(&["clear"]).exits(0);
    let left = run("tc filter show dev up0 ingress") + &run("tc filter show dev up0 egress");
    assert!(left.contains("pref 10") && left.contains("pref 7"), "{left}");
    assert!(!left.contains("shaper"), "{left}");
    assert_eq!(tcx(), ["shaper_priority"]);
}

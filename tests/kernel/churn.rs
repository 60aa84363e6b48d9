//! Links, addresses, classes, directories and processes that come and go while somebody looks, applies
//! or watches: nothing that stands is taken to be absent, and nothing healthy is touched.

use std::fmt::Write;
use std::process::{Child, Command, Stdio};

use crate::host::Host;
use crate::support::harness::{On, tests};

tests!(
    On::Host => no_look_misses_a_tree_while_other_links_go;
);

/// `ip -batch`, which goes on beside the test.
fn batch(lines: &str) -> Child {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("start ip");
    let mut stdin = child.stdin.take().expect("its input");
    std::io::Write::write_all(&mut stdin, lines.as_bytes()).expect("tell it");
    child
}

/// The kernel's list of qdiscs goes on by position: each link that goes can hide those behind it.
fn no_look_misses_a_tree_while_other_links_go() {
    const OTHERS: usize = 400;
    const SHAPED: usize = 60;
    let mut host = Host::new();
    let mut add = String::new();
    for at in 0..OTHERS {
        let _ = writeln!(add, "link add c{at} up type veth peer name d{at}\nlink set d{at} up");
    }
    for at in 0..SHAPED {
        let _ = writeln!(add, "link add s{at} up type veth peer name t{at}\nlink set t{at} up");
    }
    assert!(batch(&add).wait().expect("links").success());
    let lines: String = (0..SHAPED).map(|at| format!("  s{at}: {{rate: 1gbit}}\n")).collect();
    host.go_to_text(&format!(
        "version: 1\nlinks:\n{lines}users: {{label: {{ceil: 9mbit, uids: [4001]}}}}\n"
    ));
    let whole = host.state();
    assert_eq!(whole.links.len(), SHAPED);
    let del: String = (0..OTHERS).map(|at| format!("link del c{at}\n")).collect();
    let mut going = batch(&del);
    let mut looks = 0;
    while going.try_wait().expect("ip").is_none() {
        let state = host.state();
        looks += 1;
        assert_eq!(state, whole, "look {looks} saw something else");
    }
    println!("{looks} looks while {OTHERS} links went");
    assert!(looks > 20, "only {looks} looks");
}

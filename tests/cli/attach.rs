//! `shaper attach`: processes that run already.

use super::invoke::{Sleeper, exactly, host, shaper};
use crate::support::accounts::BOB;
use crate::support::harness::{On, tests};
use crate::support::program::members;

tests!(On::Host => bad_process_ids_are_said, a_process_stays_where_it_is_put);

fn bad_process_ids_are_said() {
    let path = host();
    let error = "error: nothing is shaped here yet: `shaper apply` first\n";
    exactly(&mut shaper("attach ann 1"), 2, "", error);
    shaper(&format!("apply {path}")).assert().code(0);
    exactly(&mut shaper("attach ann 99999"), 1, "", "error: no such process: 99999\n");
    let error = "error: 0 is no process id; name processes one by one\n";
    exactly(&mut shaper("attach ann 0"), 2, "", error);
    let error = "error: -1 is no process id; name processes one by one\n";
    exactly(&mut shaper("attach ann -- -1"), 2, "", error);
    shaper("attach ann sshd").assert().code(2).stdout("");
    let error =
        "error: bob has no class; `shaper status` lists who has, `shaper why bob` says why\n";
    exactly(&mut shaper("attach bob 1"), 2, "", error);
}

fn a_process_stays_where_it_is_put() {
    let path = host();
    shaper(&format!("apply {path}")).assert().code(0);
    let (one, two) = (Sleeper::of(BOB), Sleeper::of(BOB));
    let said = "1 process is in ann's class, and stays there\n";
    exactly(&mut shaper(&format!("attach ann {}", one.pid())), 0, said, "");
    let said = "2 processes are in ann's class, and stay there\n";
    exactly(&mut shaper(&format!("attach ann {} {}", one.pid(), two.pid())), 0, said, "");
    exactly(&mut shaper(&format!("attach -q ann {}", two.pid())), 0, "", "");
    exactly(&mut shaper(&format!("apply {path}")), 0, "in sync\n", "");
    let mut pinned = members("user/ann/pinned");
    pinned.sort_unstable();
    let mut put = vec![one.pid(), two.pid()];
    put.sort_unstable();
    assert_eq!(pinned, put);
}

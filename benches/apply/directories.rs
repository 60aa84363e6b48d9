//! Making 10,000 `net_cls` directories, beside the bare system calls.

use std::path::Path;
use std::time::Duration;

use shaper::cgroup::Instance;
use shaper::tree::{Claim, Key, Owner};
use shaper::units::{ClassId, Minor};

use super::cost::{self, Against, Runs, Table};
use super::{host, write, yardstick};
use crate::support::program::{NET_CLS, shaper};

const COUNT: u32 = 10_000;
const TIMES: usize = 5;

pub fn measure() {
    host::furnish(1);
    // It mounts the hierarchy.
    let policy = host::policy("one", 1, host::usual);
    shaper(&["apply", &policy]).exits(0);
    let hierarchy = Path::new(NET_CLS);
    let (ours_at, bare_at) = (hierarchy.join("ours"), hierarchy.join("bare"));
    let instance = Instance::new(ours_at.clone());
    let claims: Vec<(Claim, ClassId)> = (0..COUNT)
        .map(|n| {
            let key = Key::new(&format!("u{n:05}")).expect("a key");
            let minor = u16::try_from(0x10 + n).expect("a minor");
            (Claim::Owner(Owner::User(key)), ClassId::ours(Minor(minor)))
        })
        .collect();
    let (mut ours, mut bare) = <(Runs, Runs)>::default();
    for _ in 0..TIMES {
        bare.push(cost::of(|| yardstick::make_directories(&bare_at, COUNT)));
        yardstick::remove_directories(&bare_at);
        host::settle();
        let locked = instance.lock(Duration::ZERO).unwrap_or_else(|e| panic!("{e}"));
        ours.push(cost::of(|| {
            for (claim, classid) in &claims {
                locked.make(claim, *classid).unwrap_or_else(|e| panic!("{e}"));
            }
        }));
        yardstick::remove_directories(&ours_at.join("user"));
        locked.remove_if_empty().unwrap_or_else(|e| panic!("{e}"));
        host::settle();
    }
    let mut table = Table::new();
    let bare = Against::new("bare system calls", &bare).at_most(1.2);
    table.row("make, write, read back", &ours, &bare);
    write(&table.text());
}

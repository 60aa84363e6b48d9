//! First builds of 1,000 and 10,000 users, beside `tc -batch` with the same tree and bare system
//! calls with the same directories.

use std::path::Path;

use super::cost::{self, Against, Cost, Runs, Table};
use super::host;
use super::update::send_only;
use super::{write, yardstick};
use crate::support::program::{NET_CLS, shaper};

pub fn measure() {
    host::furnish(10_000);
    let mut table = Table::new();
    build(&mut table, 1_000, 7, 1.0);
    build(&mut table, 10_000, 3, 0.25);
    let text = format!(
        "{}\n*Whole run* is `shaper apply` on a host that holds nothing of ours: read the policy, ask who \
         the accounts are, look, make tree and directories, place, verify. *Tree* is the same where the \
         directories stand already (the root qdisc was deleted by hand). *Messages* is what it sends, \
         from the first byte to the last answer. `tc -batch` makes one flat tree with as many users.\n",
        table.text()
    );
    write(&text);
}

fn build(table: &mut Table, users: u32, times: usize, wanted: f64) {
    let policy = host::policy("first", users, host::usual);
    let file = flat(users);
    let directories = Path::new(NET_CLS).join("bare");
    let (mut whole, mut tree, mut messages) = <(Runs, Runs, Runs)>::default();
    let (mut tc, mut both) = <(Runs, Runs)>::default();
    for _ in 0..times {
        host::drop_tree();
        clear();
        whole.push(host::apply(&policy));
        let classes = host::classes();
        assert!(classes >= users as usize);

        host::drop_tree();
        let theirs = host::tc_batch(&file);
        assert!(host::classes() >= users as usize);
        tc.push(theirs);
        let bare = cost::of(|| yardstick::make_directories(&directories, users));
        yardstick::remove_directories(&directories);
        host::settle();
        both.push(Cost {
            micros: theirs.micros + bare.micros,
            cpu_micros: theirs.cpu_micros + bare.cpu_micros,
            ..theirs
        });

        host::drop_tree();
        tree.push(host::apply(&policy));
        assert_eq!(host::classes(), classes);
        host::drop_tree();
        messages.push(send_only(&policy));
    }
    let name = |part: &str| format!("{users} users, {part}");
    let batch = || Against::new("`tc -batch`", &tc);
    table.row(&name("messages"), &messages, &batch().at_most(wanted));
    table.row(&name("tree"), &tree, &batch().at_most(wanted));
    table.row(&name("whole run"), &whole, &batch());
    let both = Against::new("`tc -batch` and bare directories", &both);
    table.row(&name("whole run"), &whole, &both);
    host::drop_tree();
    clear();
}

fn clear() {
    shaper(&["clear"]).exits(0);
    host::settle();
}

/// What an administrator would write: one tree, a class and a leaf for each user. Its rates and
/// leaves are those of shaper's own plan for one user.
fn flat(users: u32) -> String {
    let one = host::batch("one", &host::policy("one", 1, host::usual));
    let text = std::fs::read_to_string(&one).expect("the batch of one");
    let (of_user, of_link): (Vec<&str>, Vec<&str>) =
        text.lines().partition(|line| line.contains(" classid 1:10 ") || line.contains(" 1:10 "));
    let of_users = (0..users).flat_map(|n| {
        let minor = format!("{:x}", 0x10 + n);
        let line = move |line: &&str| {
            line.replace("1:10 ", &format!("1:{minor} "))
                .replace("handle 10: ", &format!("handle {minor}: "))
        };
        of_user.iter().map(line).collect::<Vec<String>>()
    });
    let lines: Vec<String> = of_link.iter().map(ToString::to_string).chain(of_users).collect();
    let path = one.replace("one.tc", "flat.tc");
    std::fs::write(&path, lines.join("\n") + "\n").expect("write the batch");
    path
}

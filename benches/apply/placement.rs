//! The first placement of everybody who runs, beside a bare loop that reads what says whose a
//! process is, once, and writes its pid to `cgroup.procs`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Stdio};

use super::cost::{self, Against, Runs, Table};
use super::{host, write, yardstick};
use crate::support::cell::myself;
use crate::support::program::{NET_CLS, shaper};

const FIRST: u32 = 20_000;
const ACCOUNTS: u32 = 500;
const CROWDS: [u32; 2] = [8_000, 25_000];
const TIMES: usize = 5;

pub fn measure() {
    host::furnish(0);
    let text = format!(
        "version: 1\nlinks: {{{}: {{rate: 1gbit}}}}\neveryone: {{uids: \"{FIRST}-\", each: {{ceil: 20mbit}}}}\n",
        host::LINK
    );
    let policy = host::policy_of("everyone", &text);
    let mut table = Table::new();
    let hierarchy = Path::new(NET_CLS);
    let last = (FIRST + ACCOUNTS - 1).to_string();
    for processes in CROWDS {
        let crowd = Crowd::gather(processes);
        let share = (processes / ACCOUNTS) as usize;
        let (mut ours, mut bare) = <(Runs, Runs)>::default();
        for _ in 0..TIMES {
            // It mounts the hierarchy, which then is there for the bare loop.
            ours.push(host::apply(&policy));
            assert_eq!(members(&hierarchy.join("shaper/uid").join(&last)), share);
            let nobodys = door(hierarchy);
            move_all(|_| Some(&nobodys));
            let at = hierarchy.join("bare");
            let doors = make(&at);
            bare.push(cost::of(|| move_all(|uid| doors.get(&uid))));
            assert_eq!(members(&at.join(&last)), share);
            move_all(|_| Some(&nobodys));
            drop((doors, nobodys));
            yardstick::remove_directories(&at);
            shaper(&["clear"]).exits(0);
            host::settle();
        }
        drop(crowd);
        let bare = Against::new("each read once, bare, and moved", &bare).at_most(2.0);
        table.row(&format!("first placement of {processes} processes"), &ours, &bare);
    }
    let text = format!(
        "{}\n{ACCOUNTS} accounts of `everyone`. Ours is the whole first `shaper apply`: it reads the policy, finds out \
         who runs, makes {ACCOUNTS} classes and directories, moves every process, and verifies. The bare loop reads \
         `stat`, `status`, `cgroup` and `ns/net` of each process and writes `cgroup.procs`, in directories that \
         stand already, with one thread.\n",
        table.text()
    );
    write(&text);
}

fn members(directory: &Path) -> usize {
    fs::read_to_string(directory.join("cgroup.procs")).expect("its processes").lines().count()
}

/// A directory for each account, open.
fn make(at: &Path) -> BTreeMap<u32, File> {
    fs::create_dir(at).expect("mkdir");
    let one = |uid: u32| {
        let directory = at.join(uid.to_string());
        fs::create_dir(&directory).expect("mkdir");
        (uid, door(&directory))
    };
    (FIRST..FIRST + ACCOUNTS).map(one).collect()
}

fn door(directory: &Path) -> File {
    File::options().write(true).open(directory.join("cgroup.procs")).expect("open")
}

/// Reads all processes, and moves each of the crowd's to where its uid says.
fn move_all<'a>(to: impl Fn(u32) -> Option<&'a File>) {
    yardstick::walk(|pid, uid| {
        if uid >= FIRST
            && let Some(mut door) = to(uid)
        {
            door.write_all(pid.to_string().as_bytes()).expect("move it");
        }
    });
}

/// Processes that sleep until this is dropped.
struct Crowd(Child);

impl Crowd {
    fn gather(processes: u32) -> Crowd {
        let words = ["--crowd", &FIRST.to_string(), &ACCOUNTS.to_string(), &processes.to_string()];
        let mut command = myself(&words);
        let mut crowd =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a crowd");
        let mut line = String::new();
        let said = crowd.stdout.as_mut().expect("what the crowd says");
        BufReader::new(said).read_line(&mut line).expect("the crowd gathers");
        assert_eq!(line.trim(), processes.to_string());
        Crowd(crowd)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

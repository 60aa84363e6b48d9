//! The least that a look can cost: the bytes of the three lists out of the kernel, unread; the
//! classids; one walk over `/proc`. And the least that making a directory can.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use super::cost::{self, Cost};

const RTM_GETQDISC: u16 = 38;
const RTM_GETTCLASS: u16 = 42;
const RTM_GETTFILTER: u16 = 46;
const NLMSG_DONE: u16 = 3;

/// What each part of a bare look took.
#[derive(Clone, Copy, Default)]
pub struct Look {
    pub lists: Cost,
    pub classids: Cost,
    pub processes: Cost,
}

impl Look {
    pub fn cost(self) -> Cost {
        self.lists + self.classids + self.processes
    }
}

/// The lists that have the counters: classes and qdiscs.
pub fn counters(link: &str) -> Cost {
    cost::of(|| {
        for kind in [RTM_GETTCLASS, RTM_GETQDISC] {
            assert!(dump(kind, index_of(link)) > 0);
        }
    })
}

fn index_of(link: &str) -> u32 {
    let index = fs::read_to_string(format!("/sys/class/net/{link}/ifindex")).expect("the link");
    index.trim().parse().expect("a number")
}

/// Reads all of it once. `owners`: the folder whose folders hold a classid each.
pub fn look(link: &str, owners: &Path) -> Look {
    let lists = cost::of(|| {
        let index = index_of(link);
        for kind in [RTM_GETTCLASS, RTM_GETQDISC, RTM_GETTFILTER] {
            assert!(dump(kind, index) > 0);
        }
    });
    let classids = cost::of(|| {
        let mut buffer = [0; 64];
        for entry in fs::read_dir(owners).expect("the directories") {
            let file = entry.expect("a directory").path().join("net_cls.classid");
            if let Ok(mut file) = File::open(file) {
                assert!(file.read(&mut buffer).expect("a classid") > 1);
            }
        }
    });
    let processes = cost::of(|| assert!(walk(|_, _| ()) > 0));
    Look { lists, classids, processes }
}

/// Asks for one list of one link and counts its bytes.
fn dump(kind: u16, index: u32) -> usize {
    let mut socket = Socket::new(NETLINK_ROUTE).expect("a netlink socket");
    socket.bind_auto().expect("bind");
    // nlmsghdr, then tcmsg.
    let mut request = Vec::new();
    request.extend(36u32.to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(0x301u16.to_ne_bytes()); // REQUEST | DUMP
    request.extend([1, 0, 0, 0, 0, 0, 0, 0]); // sequence 1, our port
    request.extend([0; 4]);
    request.extend(index.to_ne_bytes());
    request.extend(0u32.to_ne_bytes());
    request.extend(if kind == RTM_GETTFILTER { 0x1_0000u32 } else { 0 }.to_ne_bytes());
    request.extend(0u32.to_ne_bytes());
    socket.send_to(&request, &SocketAddr::new(0, 0), 0).expect("ask");
    let mut buffer = vec![0; 65_536];
    let mut bytes = 0;
    loop {
        let length = socket.recv(&mut &mut buffer[..], 0).expect("an answer");
        bytes += length;
        let mut rest = &buffer[..length];
        while let [a, b, c, d, kind, kind2, ..] = *rest {
            if u16::from_ne_bytes([kind, kind2]) == NLMSG_DONE {
                return bytes;
            }
            let length = u32::from_ne_bytes([a, b, c, d]).next_multiple_of(4) as usize;
            rest = rest.get(length..).unwrap_or(&[]);
        }
    }
}

/// The four things that say whose a process is and where, of every process: its pid and its real
/// uid.
pub fn walk(mut each: impl FnMut(u32, u32)) -> usize {
    let mut buffer = vec![0; 4096];
    let mut bytes = 0;
    for entry in fs::read_dir("/proc").expect("/proc") {
        let entry = entry.expect("an entry");
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let folder = entry.path();
        for file in ["stat", "cgroup", "status"] {
            if let Ok(mut file) = File::open(folder.join(file)) {
                bytes += file.read(&mut buffer).unwrap_or(0);
            }
        }
        let text = String::from_utf8_lossy(&buffer);
        let uid = text.split_once("\nUid:\t").and_then(|(_, rest)| rest.split_once('\t'));
        bytes += fs::read_link(folder.join("ns/net")).map_or(0, |link| link.as_os_str().len());
        each(pid, uid.and_then(|(uid, _)| uid.parse().ok()).unwrap_or(0));
    }
    bytes
}

/// Makes so many directories, writes a classid into each and reads it back.
pub fn make_directories(at: &Path, count: u32) {
    fs::create_dir(at).expect("mkdir");
    for n in 0..count {
        let folder = at.join(format!("u{n:05}"));
        fs::create_dir(&folder).expect("mkdir");
        let path = folder.join("net_cls.classid");
        let mut file = File::options().write(true).open(&path).expect("open");
        // In one write(2): what it says in two is two numbers.
        file.write_all(format!("0x0001{:04x}", 0x10 + n).as_bytes()).expect("write");
        let mut buffer = [0; 16];
        let length = File::open(&path).and_then(|mut file| file.read(&mut buffer)).expect("read");
        assert!(length > 1);
    }
}

pub fn remove_directories(at: &Path) {
    for entry in fs::read_dir(at).expect("the directories").flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            fs::remove_dir(entry.path()).expect("rmdir");
        }
    }
    fs::remove_dir(at).expect("rmdir");
}

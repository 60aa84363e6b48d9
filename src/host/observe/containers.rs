//! Containers that run, and which of our links lead to them: `/proc` says in whose cgroup and in
//! which network namespace each process is, and the kernel's own number of that namespace is what
//! the links' peers are known by. No engine need answer for that.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

use super::error::ObserveError;
use super::snapshot::Snapshot;
use crate::facts::{Container, Guests, NamespaceId};
use crate::host::Kernel;
use crate::netlink::namespace_id;
use crate::process::{self, Guest, Process};

/// Fills in the containers, without what their engines alone know, and the namespaces that users
/// made themselves. To be asked after the links were listed, which gives a number to each namespace
/// that has the peer of one.
///
/// # Errors
/// `/proc` cannot be listed; the netlink socket's.
pub fn containers(kernel: &mut Kernel, seen: &mut Snapshot) -> Result<(), ObserveError> {
    let facts = &mut seen.observation.facts;
    let peers: BTreeSet<NamespaceId> =
        facts.links.values().filter_map(|link| link.peer_namespace).collect();
    let read;
    let processes = match seen.scan.processes.is_empty() {
        // Without a link to anybody there is nobody to look for.
        true if peers.is_empty() => return Ok(()),
        true => {
            read = process::elsewhere(&kernel.proc_root, kernel.netns)?;
            &read
        }
        false => &seen.scan.processes,
    };
    let mut by_namespace: BTreeMap<u64, Vec<&Process>> = BTreeMap::new();
    for process in processes.iter().filter(|process| process.is_alive()) {
        let Some(inode) = process.netns else { continue };
        by_namespace.entry(inode).or_default().push(process);
    }
    for (inode, inhabitants) in by_namespace {
        let has_guests = inhabitants.iter().any(|process| process.guest.is_some());
        let is_ours = inode == kernel.netns;
        if !has_guests && (is_ours || peers.is_empty()) {
            continue;
        }
        let number = if is_ours { None } else { number(kernel, inode, &inhabitants)? };
        let number = number.filter(|number| peers.contains(number));
        add(&mut facts.guests, number, inhabitants);
    }
    Ok(())
}

/// What inhabitants of a namespace say of who is there.
fn add(guests: &mut Guests, namespace: Option<NamespaceId>, mut inhabitants: Vec<&Process>) {
    // The namespace is the first container's; another one may join it later.
    inhabitants.sort_by_key(|process| (process.starttime, process.pid));
    let mut known = BTreeSet::new();
    for process in &inhabitants {
        let Some(Guest { engine, id: Some(id), slice }) = &process.guest else { continue };
        if !known.insert((*engine, id)) {
            continue;
        }
        guests.containers.push(Container {
            engine: *engine,
            id: id.clone(),
            name: engine.names_by_id().then(|| id.clone()),
            labels: BTreeMap::new(),
            addresses: Vec::new(),
            namespace,
            slice: *slice,
            uid: Some(process.uid),
        });
    }
    let is_engines = inhabitants.iter().any(|process| process.guest.is_some());
    // Root waits there for who runs (`ip netns exec NAME sudo -u bob`).
    let uids: BTreeSet<u32> = inhabitants.iter().map(|it| it.uid).filter(|uid| *uid != 0).collect();
    if let (Some(namespace), 1, false) = (namespace, uids.len(), is_engines) {
        guests.users.extend(uids.first().map(|uid| (namespace, *uid)));
    }
}

/// The number of a namespace, through the first of its inhabitants that is still there. The pid may
/// be another process's by now, so the file that is opened must be the namespace.
fn number(
    kernel: &mut Kernel,
    inode: u64,
    inhabitants: &[&Process],
) -> Result<Option<NamespaceId>, ObserveError> {
    let open = |process: &&Process| {
        let file = File::open(kernel.proc_root.join(format!("{}/ns/net", process.pid))).ok()?;
        file.metadata().is_ok_and(|meta| meta.ino() == inode).then_some(file)
    };
    let Some(file) = inhabitants.iter().find_map(open) else { return Ok(None) };
    let question = namespace_id::of_file(file.as_raw_fd());
    Ok(kernel.netlink.get(&question, namespace_id::decode)?.ok().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Engine;

    fn process(pid: u32, uid: u32, id: Option<&str>) -> Process {
        let guest = |id: &str| Guest { engine: Engine::Docker, id: Some(id.into()), slice: None };
        Process {
            pid,
            parent: 1,
            starttime: u64::from(pid),
            comm: "sleep".into(),
            uid,
            acting_uid: uid,
            is_roots: uid == 0,
            kernel_thread: false,
            zombie: false,
            netns: Some(7),
            net_cls: None,
            unit: None,
            guest: id.map(guest),
            serves: None,
        }
    }

    fn guests(inhabitants: &[Process]) -> Guests {
        let mut guests = Guests::default();
        add(&mut guests, Some(NamespaceId(3)), inhabitants.iter().collect());
        guests
    }

    #[test]
    fn a_namespace_is_first_of_the_container_that_began_it() {
        let all = [process(12, 0, Some("1")), process(10, 0, Some("2")), process(13, 0, Some("2"))];
        let containers = guests(&all).containers;
        let ids: Vec<&str> = containers.iter().map(|it| it.id.as_str()).collect();
        assert_eq!(ids, ["2", "1"], "whatever its id is");
    }

    #[test]
    fn a_namespace_of_no_engines_is_the_one_users_who_is_there_beside_root() {
        let user = |uids: &[u32]| {
            let all: Vec<_> = (10..).zip(uids).map(|(pid, uid)| process(pid, *uid, None)).collect();
            guests(&all).users.get(&NamespaceId(3)).copied()
        };
        assert_eq!(user(&[0, 1001, 1001]), Some(1001), "a sudo waits");
        assert_eq!(user(&[1001, 1002]), None);
        assert_eq!(user(&[0]), None);
        let all = [process(10, 1001, None), process(11, 0, Some("1"))];
        assert_eq!(guests(&all).users.len(), 0, "an engine's");
    }
}

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
    for (inode, mut inhabitants) in by_namespace {
        inhabitants.sort_by_key(|process| (process.starttime, process.pid));
        let has_guests = inhabitants.iter().any(|process| process.guest.is_some());
        let is_ours = inode == kernel.netns;
        if !has_guests && (is_ours || peers.is_empty()) {
            continue;
        }
        let number = if is_ours { None } else { number(kernel, inode, &inhabitants)? };
        let number = number.filter(|number| peers.contains(number));
        add(&mut facts.guests, number, &inhabitants);
    }
    facts.guests.containers.sort_by(|a, b| (a.engine, &a.id).cmp(&(b.engine, &b.id)));
    Ok(())
}

/// What inhabitants of a namespace, the first to start first, say of who is there.
fn add(guests: &mut Guests, namespace: Option<NamespaceId>, inhabitants: &[&Process]) {
    let mut known = BTreeSet::new();
    for process in inhabitants {
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
    if let (Some(namespace), Some(first), false) = (namespace, inhabitants.first(), is_engines) {
        guests.users.insert(namespace, first.uid);
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

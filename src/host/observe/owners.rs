//! The maps of the deciding programs, which the filters name, opened and read.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::OnceLock;

use log::debug;

use super::error::ObserveError;
use super::snapshot::Snapshot;
use crate::host::Kernel;
use crate::netlink::{assemble, decode, request};
use crate::sys::bpf::Maps;
use crate::tree::MapIds;
use crate::units::ClassId;

/// Reads the maps that are in force into `snapshot`. Filters that read others (half an exchange)
/// are strange: they are replaced.
pub(super) fn read(kernel: &mut Kernel, snapshot: &mut Snapshot) {
    let ours = kernel.owners.as_ref().map(Maps::ids);
    let Some(ids) = snapshot.observation.maps_in_force(ours) else { return };
    if ours != Some(ids) {
        match Maps::open(ids) {
            Ok(maps) => kernel.owners = Some(maps),
            Err(error) => {
                debug!("BPF maps {ids}: {error}");
                snapshot.observation.unread.owners = Some(error.to_string());
                return;
            }
        }
    }
    match kernel.owners.as_ref().map(Maps::table) {
        Some(Ok(table)) => snapshot.observation.state.owners = Some(table),
        Some(Err(error)) => {
            snapshot.observation.unread.owners = Some(error.to_string());
            return;
        }
        None => return,
    }
    snapshot.observation.distrust_all_but(Some(ids));
}

/// Opens the maps that the filters of the instance's links name, without looking at anything else.
/// Does nothing where no deciding program stands. Returns whether one asks for sockets' cgroups.
///
/// # Errors
/// The links or their filters cannot be listed; EPERM without CAP_SYS_ADMIN.
pub fn open_owners(kernel: &mut Kernel) -> Result<bool, ObserveError> {
    let links = kernel.netlink.dump(&request::dump::links(), decode::link)?;
    let mut named: Option<MapIds> = None;
    let mut asks_cgroups = false;
    for link in links {
        let filters = request::dump::filters(link.ifindex, ClassId::ROOT);
        // The link may be gone by now, and most have no root qdisc of this number.
        let records = kernel.netlink.dump(&filters, decode::filter).unwrap_or_default();
        let programs = assemble::programs(&records);
        named = named.max(programs.values().map(|(_, maps)| *maps).max());
        asks_cgroups |= programs.values().any(|(program, _)| program.asks_cgroups());
    }
    if let Some(ids) = named.filter(|ids| kernel.owners.as_ref().map(Maps::ids) != Some(*ids)) {
        let open = |source| ObserveError::Read { path: format!("BPF maps {ids}"), source };
        kernel.owners = Some(Maps::open(ids).map_err(open)?);
    }
    Ok(asks_cgroups)
}

/// Drivers whose devices send packets of other network namespaces' sockets through a link of this
/// one, and how a function of each is called in the kernel's list of symbols. Internal ports of
/// Open vSwitch are such devices, where the link is a port of the same switch
/// (`internal_dev_xmit`, net/openvswitch/vport-internal_dev.c).
const CARRIERS: [(&str, &str); 3] =
    [("macvlan", "macvlan_init"), ("ipvlan", "ipvlan_init"), ("openvswitch", "ovs_vport_init")];

/// Whether no such driver is there.
///
/// # Errors
/// The list of modules cannot be read. A driver that wrongly counted as absent would make the
/// program believe the owners of guests' sockets.
pub(super) fn own_sockets_only(proc_root: &Path) -> Result<bool, ObserveError> {
    static BUILT_IN: OnceLock<bool> = OnceLock::new();
    let built_in = BUILT_IN
        .get_or_init(|| CARRIERS.iter().any(|(driver, init)| is_built_in(driver, init, proc_root)));
    let modules = proc_root.join("modules");
    let loaded = match fs::read_to_string(&modules) {
        // A kernel without modules has no such file.
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        other => other
            .map_err(|source| ObserveError::Read { path: modules.display().to_string(), source })?,
    };
    Ok(!built_in && !has_carrier(&loaded))
}

/// Whether one of them is in the list of modules.
fn has_carrier(loaded: &str) -> bool {
    let is_loaded = |driver| loaded.lines().any(|line| line.split(' ').next() == Some(driver));
    CARRIERS.iter().any(|(driver, _)| is_loaded(driver))
}

/// Whether the driver is built into the kernel, by its list of built-in modules, or where that is
/// not installed by its symbols.
fn is_built_in(driver: &str, init: &str, proc_root: &Path) -> bool {
    let release = fs::read_to_string(proc_root.join("sys/kernel/osrelease")).unwrap_or_default();
    let list = Path::new("/lib/modules").join(release.trim()).join("modules.builtin");
    if let Ok(list) = fs::read_to_string(list) {
        return list.contains(&format!("/{driver}.ko"));
    }
    // A kernel without modules has no such list, and reading all of its symbols would be megabytes
    // at each run: the driver counts as present.
    if !proc_root.join("modules").exists() {
        return true;
    }
    match fs::read_to_string(proc_root.join("kallsyms")) {
        // `0000000000000000 t macvlan_init [macvlan]` is a module's.
        Ok(symbols) => symbols.lines().any(|line| {
            let name = line.splitn(3, ' ').nth(2).unwrap_or_default();
            name.starts_with(init) && !name.contains('[')
        }),
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_with_internal_ports_is_a_carrier_as_macvlan_is() {
        let list = "nf_nat 57344 2 openvswitch,iptable_nat, Live 0x0\nveth 36864 0 - Live 0x0\n";
        assert!(!has_carrier(list));
        for driver in ["macvlan", "ipvlan", "openvswitch"] {
            assert!(has_carrier(&format!("{list}{driver} 1 0 - Live 0x0\n")), "{driver}");
        }
    }

    #[test]
    fn modules_that_cannot_be_read_are_an_error_and_none_are_none() {
        let proc_root = tempfile::tempdir().unwrap();
        assert!(own_sockets_only(proc_root.path()).is_ok(), "a kernel without modules");
        fs::create_dir(proc_root.path().join("modules")).unwrap();
        assert!(own_sockets_only(proc_root.path()).is_err());
    }
}

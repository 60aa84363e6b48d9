//! What is known of an instance beside its classes: the daemon that keeps it, a change that waits,
//! what was forwarded, the order of its links.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::daemon;
use crate::apply;
use crate::cgroup::Instance;
use crate::failure::Failure;
use crate::host::Kernel;
use crate::host::kept::{self, Totals};
use crate::host::observe::Snapshot;
use crate::policy::LinkRef;
use crate::sample::Upkeep;
use crate::status::{self, Pending};

/// The lines of `links` of the policy in force, for the order of several; none where that cannot be
/// read, which is no reason to show nothing.
pub(super) fn links_of_policy(kernel: &Kernel, snapshot: &Snapshot) -> Vec<LinkRef> {
    let mut links = snapshot.observation.state.trees.keys().map(|port| &port.link);
    let first = links.next();
    if links.all(|link| Some(link) == first) {
        return Vec::new();
    }
    let policy = daemon::policy_in_force(kernel).and_then(|file| apply::read(&file));
    match policy {
        Ok(policy) => policy.links.iter().map(|line| line.name.value.clone()).collect(),
        Err(failure) => {
            log::debug!("the links are not in the policy's order: {}", failure.message());
            Vec::new()
        }
    }
}

/// The daemon that keeps the instance, and its condition.
pub(super) fn keeper(
    kernel: &Kernel,
    instance: &Instance,
) -> Result<Option<status::Daemon>, Failure> {
    let Some(pid) = instance.keeper()? else { return Ok(None) };
    let condition = instance.condition()?;
    let since = condition.as_ref().and_then(|told| told.since.duration_since(UNIX_EPOCH).ok());
    let (state, why) = condition.map_or((None, None), |told| (Some(told.word), told.why));
    let since = since.map(|since| since.as_secs());
    let file = daemon::Daemon::of(kernel)?.and_then(|daemon| daemon.file());
    Ok(Some(status::Daemon { pid, file, state, why, since }))
}

/// A change that waits to be confirmed.
pub(super) fn pending(instance: &Instance) -> Result<Option<Pending>, Failure> {
    let Some(guard) = instance.guards()?.first().copied() else { return Ok(None) };
    let left = |until: SystemTime| until.duration_since(SystemTime::now()).unwrap_or_default();
    let seconds_left = instance.confirm_until().map(|until| left(until).as_secs());
    Ok(Some(Pending { guard, seconds_left }))
}

/// `Ip: ForwDatagrams` of /proc/net/snmp (net/ipv4/proc.c, `snmp_seq_show`): a line of names and a
/// line of values.
pub(super) fn forwarded(proc_root: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(proc_root.join("net/snmp")).ok()?;
    let mut lines = text.lines().filter(|line| line.starts_with("Ip:"));
    let names = lines.next()?.split_whitespace();
    let values: BTreeMap<&str, &str> = names.zip(lines.next()?.split_whitespace()).collect();
    values.get("ForwDatagrams")?.parse().ok()
}

/// `Ip6OutForwDatagrams` of /proc/net/snmp6 (net/ipv6/proc.c, `snmp6_seq_show`): a line for each
/// counter.
pub(super) fn forwarded_v6(proc_root: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(proc_root.join("net/snmp6")).ok()?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Ip6OutForwDatagrams"));
    lines.next()?.trim().parse().ok()
}

/// What daemons have done, as the last one has written it down for root; `None`: none has.
pub(super) fn upkeep(kernel: &Kernel) -> Option<Upkeep> {
    let text = std::fs::read_to_string(kept::path(Totals::Daemon, &kernel.name)).ok()?;
    Upkeep::parse(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_forwarded_is_read_of_both_families() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("net")).unwrap();
        let write = |name: &str, text: &str| std::fs::write(root.path().join(name), text).unwrap();
        assert_eq!((forwarded(root.path()), forwarded_v6(root.path())), (None, None));
        write("net/snmp", "Ip: Forwarding DefaultTTL ForwDatagrams\nIp: 1 64 7\nTcp: a\nTcp: 1\n");
        write("net/snmp6", "Ip6InReceives\t\t5\nIp6OutForwDatagrams             \t3\n");
        assert_eq!((forwarded(root.path()), forwarded_v6(root.path())), (Some(7), Some(3)));
    }
}

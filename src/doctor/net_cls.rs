//! The hierarchy in which processes are placed, and whom it disturbs.

use super::check::Check;
use super::kernel::Machine;
use crate::facts::Spared;
use crate::text::shown;

/// The `net_cls` hierarchy of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetClsFound {
    /// Whether the kernel has the controller.
    pub exists: bool,
    /// The kernel was started with `cgroup_no_v1` for this controller.
    pub is_forbidden: bool,
    /// Where it is mounted; `None`: nowhere.
    pub mounted: Option<String>,
    /// The instance stands, and needs none.
    pub is_unused: bool,
    /// It is mounted with `favordynmods`.
    pub is_quick: bool,
    /// Where it is mounted below cgroup v2; `None`: nowhere.
    pub below_v2: Option<String>,
    /// Whom it disturbs wherever it is mounted, and why `auto` does not mount it.
    pub disturbs: Option<Spared>,
    /// The top directories of others in it.
    pub others: Vec<String>,
}

pub(super) fn checks(found: &NetClsFound, machine: &Machine) -> Vec<Check> {
    let mut checks = vec![mount(found, machine)];
    checks.extend(neighbours(found));
    // Before 8520e224f547 (Linux 5.15) a socket had either a tag or a cgroup, and the first tag
    // switched the other off for all sockets that come.
    if found.exists && !machine.is_since((5, 15)) {
        checks.push(Check::warning(
            "cgroup_v2",
            "before Linux 5.15 net_cls takes sockets their cgroup v2: `socket cgroupv2` of nftables, and systemd's IPAddressAllow, IPAccounting and the like, no longer see them",
            "boot Linux 5.15 or later where such rules are used",
        ));
    }
    checks
}

fn mount(found: &NetClsFound, machine: &Machine) -> Check {
    if !found.exists {
        return without(
            machine,
            "this kernel has no net_cls",
            "boot a kernel that is built with CONFIG_CGROUP_NET_CLASSID",
        );
    }
    let Some(at) = found.mounted.as_deref().map(shown) else { return unmounted(found, machine) };
    if let Some(why) = found.disturbs.filter(|why| *why == Spared::ReadOnly) {
        return Check::ok(
            "net_cls",
            format!(
                "net_cls is mounted at {at}, and `classifier: auto` does without (`uid`): {why}; {}",
                otherwise(why)
            ),
        );
    }
    if !found.is_quick && machine.is_since((6, 0)) {
        return Check::warning(
            "net_cls",
            format!(
                "net_cls is mounted at {at} without `favordynmods`: the kernel takes 10 ms and more to place a login"
            ),
            remount(&at.to_string(), &found.others),
        );
    }
    let others = match found.others.as_slice() {
        [] => String::new(),
        others => format!(
            "; others have directories there, and are left alone: {}",
            others.iter().map(|name| shown(name).to_string()).collect::<Vec<_>>().join(", ")
        ),
    };
    let auto = with_tags(machine);
    Check::ok(
        "net_cls",
        format!("net_cls is mounted at {at}, so `classifier: auto` is `{auto}`{others}"),
    )
}

/// What is said where it is mounted nowhere.
fn unmounted(found: &NetClsFound, machine: &Machine) -> Check {
    match found.is_forbidden {
        true => without(
            machine,
            "the kernel was started with `cgroup_no_v1`, which switches net_cls off",
            "take `net_cls` (or `all`) off that parameter and boot again",
        ),
        false if let Some(why) = found.disturbs => Check::ok(
            "net_cls",
            format!(
                "net_cls is not mounted, and `classifier: auto` does without (`uid`): {why}; {}",
                otherwise(why)
            ),
        ),
        false if found.is_unused => Check::ok(
            "net_cls",
            format!(
                "net_cls is not mounted, and no link needs it: all have `uid`; where the policy says `classifier: auto`, the next `shaper apply` mounts it and takes `{}`",
                with_tags(machine)
            ),
        ),
        false => Check::ok(
            "net_cls",
            format!(
                "net_cls is not mounted: `shaper apply` mounts it, and `classifier: auto` is `{}`; with `uid` it stays unmounted",
                with_tags(machine)
            ),
        ),
    }
}

/// What `auto` is where there is `net_cls`.
fn with_tags(machine: &Machine) -> &'static str {
    match machine.features.has_programs() {
        true => "bpf",
        false => "cgroup",
    }
}

/// What would have `auto` take `net_cls`.
fn otherwise(why: Spared) -> &'static str {
    match why {
        Spared::Podman => {
            "with Podman 5.3, or once none of them is logged in or lingers, the next `shaper apply` mounts it again, and with `classifier: bpf` all the same; with `uid` it stays unmounted"
        }
        Spared::Tied => {
            "once it is mounted together with these (`mount -t cgroup -o net_cls,…`), or none of them is used there, `auto` takes it"
        }
        Spared::ReadOnly => {
            "once it can be written there (`mount -o remount,rw`), or elsewhere, `auto` takes it"
        }
        Spared::Unmountable => {
            "an `apply` that has it (by hand, or `systemctl restart shaper`) mounts it"
        }
    }
}

/// Whom the hierarchy disturbs where it is mounted.
fn neighbours(found: &NetClsFound) -> Vec<Check> {
    let mut checks = Vec::new();
    if let Some(at) = found.below_v2.as_deref().map(shown) {
        // LXC joins the path of each line of /proc/self/cgroup to a mount of its controller, and
        // systemd takes the directory for one of its own.
        checks.push(Check::warning(
            "neighbours",
            format!(
                "net_cls is mounted at {at}, in a directory of cgroup v2: containers of LXC, Incus and LXD do not start, and `systemctl status` shows a wrong tree"
            ),
            format!(
                "umount {at}, and where the daemon runs then `systemctl restart shaper`; have whoever mounts it there do so elsewhere; shaper finds it anywhere, and else mounts it at /run/shaper/net_cls"
            ),
        ));
    }
    if let (Some(_), Some(why @ Spared::Podman)) = (&found.mounted, found.disturbs) {
        checks.push(Check::warning(
            "neighbours",
            format!("net_cls is mounted, and {why}"),
            "`classifier: uid` for each link, `shaper apply`, then `systemctl mask --now run-shaper-net_cls.mount run-shaper-cgroup.mount`; or Podman 5.3",
        ));
    }
    checks
}

/// Where there is no `net_cls`: eBPF goes without, by the sockets' owner alone.
fn without(machine: &Machine, why: &str, cure: &str) -> Check {
    match machine.features.has_programs() {
        true => Check::warning(
            "net_cls",
            format!(
                "{why}: `classifier: auto` is `uid`, by the sockets' owner, and for `units`, `run` and `attach` by their cgroup (v2)"
            ),
            format!("where a process is to take its sockets along into a class: {cure}"),
        ),
        false => Check::error(
            "net_cls",
            format!(
                "{why}, and there is no eBPF that would do without: users cannot be told apart"
            ),
            cure,
        ),
    }
}

/// The kernel changes the options of no mounted hierarchy (`cgroup1_reconfigure`), and keeps one
/// whose mount is gone for as long as it has directories.
fn remount(at: &str, others: &[String]) -> String {
    let ours = format!("shaper clear, umount {at}, shaper apply");
    match others.is_empty() {
        true => format!("{ours} (without the daemon meanwhile)"),
        false => format!("{ours}, once the directories that others have there are gone"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::State::{self, Error, Ok, Warning};
    use super::*;
    use crate::facts::Features;
    use crate::tree::Classifier;

    #[test]
    fn whom_it_disturbs_is_named() {
        let mounted = NetClsFound {
            exists: true,
            is_quick: true,
            mounted: Some("/sys/fs/cgroup/net_cls".into()),
            below_v2: Some("/sys/fs/cgroup/net_cls".into()),
            ..NetClsFound::default()
        };
        let of = |found: &NetClsFound| {
            let machine = Machine { release: Some((6, 1)), ..Machine::default() };
            let checks = checks(found, &machine);
            checks.into_iter().map(|it| (it.id, it.state, it.what)).collect::<Vec<_>>()
        };
        let told = of(&mounted);
        assert_eq!((told[1].0, told[1].1), ("neighbours", Warning));
        assert!(told[1].2.contains("LXC, Incus and LXD do not start"), "{told:?}");
        let own = NetClsFound {
            mounted: Some("/run/shaper/net_cls".into()),
            below_v2: None,
            disturbs: Some(Spared::Podman),
            ..mounted
        };
        let told = of(&own);
        assert_eq!((told.len(), told[1].1), (2, Warning));
        assert!(told[1].2.contains("Podman before 5.3"), "{told:?}");
        let told = of(&NetClsFound { mounted: None, ..own.clone() });
        assert_eq!((told.len(), told[0].1), (1, Ok));
        assert!(told[0].2.contains("does without (`uid`): users here run Podman"), "{told:?}");
        assert_eq!(of(&NetClsFound { disturbs: None, ..own }).len(), 1);
    }

    #[test]
    fn a_hierarchy_is_there_or_can_be_mounted() {
        let mounted =
            NetClsFound { exists: true, mounted: Some("/x".into()), ..NetClsFound::default() };
        let of = |found: NetClsFound, release| {
            let machine = Machine { release: Some(release), ..Machine::default() };
            let of = |check: Check| (check.id, check.state);
            checks(&found, &machine).into_iter().map(of).collect::<Vec<(_, State)>>()
        };
        let unmounted = NetClsFound { mounted: None, ..mounted.clone() };
        assert_eq!(of(NetClsFound::default(), (6, 1)), [("net_cls", Error)]);
        assert_eq!(of(unmounted.clone(), (6, 1)), [("net_cls", Ok)]);
        let unmounted_again = unmounted.clone();
        let forbidden = NetClsFound { is_forbidden: true, ..unmounted };
        assert_eq!(of(forbidden, (6, 1)), [("net_cls", Error)]);
        assert_eq!(of(mounted.clone(), (6, 1)), [("net_cls", Warning)]);
        assert_eq!(of(mounted.clone(), (5, 15)), [("net_cls", Ok)]);
        assert_eq!(of(mounted.clone(), (5, 10)), [("net_cls", Ok), ("cgroup_v2", Warning)]);
        let features = Features { classifiers: [Classifier::Uid].into(), ..Features::default() };
        let without = mount(&NetClsFound::default(), &Machine { features, ..Machine::default() });
        assert_eq!(without.state, Warning);
        let unused = NetClsFound { is_unused: true, ..unmounted_again };
        assert!(mount(&unused, &Machine::default()).what.contains("no link needs it"));
        let cure = mount(&mounted, &Machine::default()).cure.unwrap();
        assert_eq!(cure, "shaper clear, umount /x, shaper apply (without the daemon meanwhile)");
        let quick = NetClsFound { is_quick: true, ..mounted };
        assert_eq!(of(quick.clone(), (6, 1)), [("net_cls", Ok)]);
        let others = NetClsFound { others: vec!["lxc".into()], ..quick };
        let said = mount(&others, &Machine::default()).what;
        assert!(said.ends_with("left alone: lxc"), "{said}");
        assert!(said.contains("so `classifier: auto` is `cgroup`"), "{said}");
        let features = Features { classifiers: [Classifier::Bpf].into(), ..Features::default() };
        let machine = Machine { features, ..Machine::default() };
        assert!(mount(&others, &machine).what.contains("so `classifier: auto` is `bpf`"));
        let whys = [Spared::Podman, Spared::Tied, Spared::Unmountable, Spared::ReadOnly];
        for (why, at) in whys.into_iter().zip([None, None, None, Some("/x".to_string())]) {
            let found = NetClsFound { mounted: at, disturbs: Some(why), ..others.clone() };
            assert_eq!(checks(&found, &machine).len(), 1, "it disturbs nobody");
            let said = mount(&found, &machine).what;
            assert!(said.contains("does without (`uid`): ") && said.ends_with(otherwise(why)));
        }
    }
}

//! What the kernel can do, and what processes may do with it.

use std::collections::BTreeSet;

use super::check::{Check, State};
use crate::facts::Features;
use crate::tree::Classifier;

/// The kernel, and what processes may do there.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// The release's first two numbers; `None`: it could not be read.
    pub release: Option<(u32, u32)>,
    /// What the kernel can do.
    pub features: Features,
    /// Whether it has u32.
    pub u32: bool,
    /// Whether it can shape what arrives.
    pub down: bool,
    /// Features were tried, or looked up in lists that this kernel has; otherwise what was not
    /// found may be there.
    pub known: bool,
    /// Modules that the kernel has still to load, as it does when they are used first.
    pub would_load: BTreeSet<&'static str>,
    /// Whether it may (`kernel.modules_disabled`).
    pub may_load: bool,
    /// Whether the kernel tells this process namespace of processes that change.
    pub process_events: bool,
    /// What the daemon is not allowed; `None`: there is none that could be asked.
    pub daemon_lacks: Option<Vec<Capability>>,
}

impl Machine {
    /// Whether the release is that one or later; a release that nobody knows is.
    pub(super) fn is_since(&self, release: (u32, u32)) -> bool {
        self.release.is_none_or(|this| this >= release)
    }
}

/// A capability that the daemon needs, with its number in linux/capability.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// As in capabilities(7).
    pub name: &'static str,
    bit: u32,
    /// Another capability that includes it, if any.
    or: Option<u32>,
    /// What does not work without it.
    pub lost: &'static str,
}

const SYS_ADMIN: u32 = 21;
const DAC_OVERRIDE: u32 = 1;

/// What the daemon needs, as its unit says why.
const NEEDED: [Capability; 6] = [
    Capability { name: "CAP_NET_ADMIN", bit: 12, or: None, lost: "nothing can be shaped" },
    Capability {
        name: "CAP_SYS_PTRACE",
        bit: 19,
        or: None,
        lost: "processes whose network namespace it cannot tell are left alone",
    },
    Capability {
        name: "CAP_DAC_READ_SEARCH",
        bit: 2,
        or: Some(DAC_OVERRIDE),
        lost: "connections that root accepted stay root's",
    },
    Capability {
        name: "CAP_CHOWN",
        bit: 0,
        or: None,
        lost: "connections that root accepted stay root's",
    },
    Capability {
        name: "CAP_BPF",
        bit: 39,
        or: Some(SYS_ADMIN),
        lost: "users are told apart by their tags alone",
    },
    Capability {
        name: "CAP_PERFMON",
        bit: 38,
        or: Some(SYS_ADMIN),
        lost: "MPTCP connections that root accepted count in the default class",
    },
];

impl Capability {
    /// Those of the needed ones that a set (`CapEff` of /proc/PID/status) lacks.
    pub fn lacking(effective: u64) -> Vec<Capability> {
        let has = |bit: u32| effective & (1 << bit) != 0;
        let lacks = |it: &Capability| !has(it.bit) && !it.or.is_some_and(has);
        NEEDED.into_iter().filter(lacks).collect()
    }
}

/// The checks of the kernel. `unprivileged`: root would find out what is not known.
pub(super) fn checks(machine: &Machine, unprivileged: bool) -> Vec<Check> {
    let features = &machine.features;
    let unknown = !machine.known;
    let untold = |id| untold(id, unprivileged);
    let absent = |id, what: &str, cure: &str| match unknown {
        true => untold(id),
        false => Check::error(id, what, cure),
    };
    let mut checks = vec![match features.htb {
        true => Check::ok("htb", "the kernel has HTB"),
        false => absent(
            "htb",
            "this kernel has no HTB: nothing can be shaped",
            "boot a kernel that has sch_htb, or install the package with its modules",
        ),
    }];
    let told = classifiers(features);
    // Where one of two was found, the other may be there, too.
    checks.push(told.filter(|it| !unknown || it.state == State::Ok).unwrap_or_else(|| {
        absent(
            "classifiers",
            "this kernel has neither cls_bpf nor cls_cgroup: packets cannot be told apart by user",
            "boot a kernel that has one of the two, or install the package with its modules",
        )
    }));
    checks.push(match machine.u32 {
        true => Check::ok("rules", "the kernel has u32, by which `rules` are asked"),
        false => absent(
            "rules",
            "this kernel has no u32: a policy with `rules` cannot be applied",
            "boot a kernel that has cls_u32, or install the package with its modules",
        ),
    });
    checks.push(match unknown && !features.leaves.contains("fq_codel") {
        true => untold("leaves"),
        false => leaves(features),
    });
    // Loading a program to try it takes root.
    checks.push(match (machine.down, unprivileged || unknown) {
        (true, _) => Check::ok("down", "what arrives can be shaped (ifb, mirred, clsact, eBPF)"),
        (false, true) => untold("down"),
        (false, false) => Check::warning(
            "down",
            "what arrives cannot be shaped: no line of `links` may have a `down`",
            "boot a kernel that has ifb, act_mirred, sch_ingress and cls_bpf, if you want that",
        ),
    });
    checks.extend(modules(machine));
    checks.push(match machine.process_events {
        true => Check::ok("process_events", "the kernel tells of every process that changes"),
        false => Check::warning(
            "process_events",
            "no process events here, as in containers: the daemon looks at all processes every second or so",
            "run shaper on the host itself (there `--netns` names the namespace to shape)",
        ),
    });
    checks.extend(machine.daemon_lacks.as_deref().map(capabilities));
    checks
}

/// What was not found may be there, and root finds out, or a trial does.
fn untold(id: &'static str, unprivileged: bool) -> Check {
    match unprivileged {
        true => Check::warning(
            id,
            format!("whether {} takes root to find out", whether(id)),
            "sudo shaper doctor",
        ),
        false => Check::warning(
            id,
            format!(
                "whether {} is not known: the lists of this kernel's modules are not here, and a trial could load one",
                whether(id)
            ),
            "shaper plan tries it, or give this container the host's /lib/modules to read",
        ),
    }
}

/// What is still to be loaded.
fn modules(machine: &Machine) -> Option<Check> {
    let list = machine.would_load.iter().copied().collect::<Vec<_>>().join(", ");
    match (list.is_empty(), machine.may_load) {
        (true, _) => None,
        (false, true) => {
            Some(Check::ok("modules", format!("the kernel loads at their first use: {list}")))
        }
        (false, false) => Some(Check::error(
            "modules",
            format!(
                "the kernel may load no further module (kernel.modules_disabled), and has not loaded {list}"
            ),
            "have them loaded at boot (/etc/modules-load.d), and boot again",
        )),
    }
}

fn whether(id: &str) -> &'static str {
    match id {
        "htb" => "there is HTB",
        "classifiers" => "there are classifiers",
        "rules" => "there is u32",
        "leaves" => "there are fq_codel and sfq",
        _ => "what arrives can be shaped",
    }
}

/// `None`: there is none.
fn classifiers(features: &Features) -> Option<Check> {
    let has = |classifier| features.classifiers.contains(&classifier);
    match (has(Classifier::Bpf), has(Classifier::Cgroup)) {
        (true, cgroup) => {
            let also = if cgroup { ", and cgroup" } else { "; there is no cls_cgroup" };
            let what = format!("users are told apart by eBPF, by their sockets' owner{also}");
            Some(Check::ok("classifiers", what))
        }
        (false, true) => Some(Check::warning(
            "classifiers",
            "no eBPF classifier: users are told apart by their tags alone, and one who wants to can get into the default class",
            "boot a kernel that has cls_bpf; until then give `default` a `ceil`",
        )),
        (false, false) => None,
    }
}

fn leaves(features: &Features) -> Check {
    let list = features.leaves.iter().copied().collect::<Vec<_>>().join(", ");
    match features.leaves.contains("fq_codel") {
        true => Check::ok("leaves", format!("queues: {list}")),
        false => Check::warning(
            "leaves",
            format!("no fq_codel: a user's own latency grows under load (queues: {list})"),
            "boot a kernel that has sch_fq_codel, or install the package with its modules",
        ),
    }
}

fn capabilities(lacks: &[Capability]) -> Check {
    if lacks.is_empty() {
        return Check::ok("capabilities", "the daemon has all capabilities that it needs");
    }
    let each = lacks.iter().map(|it| format!("{} ({})", it.name, it.lost));
    let list = each.collect::<Vec<_>>().join(", ");
    Check::warning(
        "capabilities",
        format!("the daemon lacks {list}"),
        "run it by the unit shaper.service, without drop-ins that take capabilities away",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Machine {
        Machine {
            release: Some((6, 12)),
            features: Features {
                tried: true,
                htb: true,
                classifiers: [Classifier::Bpf, Classifier::Cgroup].into(),
                leaves: ["fq_codel", "bfifo"].into(),
                ..Features::default()
            },
            u32: true,
            down: true,
            known: true,
            process_events: true,
            ..Machine::default()
        }
    }

    fn states(machine: &Machine, unprivileged: bool) -> Vec<(&'static str, State)> {
        let checks = checks(machine, unprivileged);
        let bad = checks.into_iter().filter(|check| check.state != State::Ok);
        bad.map(|check| (check.id, check.state)).collect()
    }

    #[test]
    fn a_kernel_is_as_good_as_what_it_has() {
        let of = |change: fn(&mut Machine)| {
            let mut machine = whole();
            change(&mut machine);
            states(&machine, false)
        };
        assert_eq!(of(|_| {}), []);
        assert_eq!(of(|it| it.features.htb = false), [("htb", State::Error)]);
        let tags_alone = of(|it| it.features.classifiers = [Classifier::Cgroup].into());
        assert_eq!(tags_alone, [("classifiers", State::Warning)]);
        assert_eq!(of(|it| it.features.classifiers.clear()), [("classifiers", State::Error)]);
        assert_eq!(of(|it| it.u32 = false), [("rules", State::Error)]);
        let leaves = of(|it| _ = it.features.leaves.remove("fq_codel"));
        assert_eq!(leaves, [("leaves", State::Warning)]);
        assert_eq!(of(|it| it.down = false), [("down", State::Warning)]);
        assert_eq!(of(|it| it.process_events = false), [("process_events", State::Warning)]);
        let later = |it: &mut Machine| it.would_load = ["sch_sfq"].into();
        assert_eq!(of(later), [("modules", State::Error)]);
        let may = |it: &mut Machine| (it.would_load, it.may_load) = (["sch_sfq"].into(), true);
        assert_eq!(of(may), []);
    }

    #[test]
    fn what_takes_root_to_find_out_is_no_error() {
        let machine = Machine { process_events: true, ..Machine::default() };
        let bad = states(&machine, true);
        assert!(bad.len() == 5 && bad.iter().all(|it| it.1 == State::Warning), "{bad:?}");
        let listed = Machine { known: true, process_events: true, ..Machine::default() };
        assert!(states(&listed, true).contains(&("htb", State::Error)));
        let said = checks(&listed, true);
        assert!(said.iter().all(|check| !check.what.is_empty()), "{said:?}");
    }

    #[test]
    fn what_no_list_says_is_no_error_to_root_either() {
        // As in a container whose /lib/modules is empty.
        let unlisted = Machine { known: false, ..whole() };
        assert_eq!(states(&unlisted, false), []);
        let features =
            Features { tried: true, leaves: ["bfifo", "pfifo"].into(), ..Features::default() };
        let loads_them_later = Machine { features, u32: false, down: false, ..unlisted };
        let all = ["htb", "classifiers", "rules", "leaves", "down"];
        assert_eq!(states(&loads_them_later, false), all.map(|id| (id, State::Warning)));
        let mut cures = checks(&loads_them_later, false).into_iter().filter_map(|check| check.cure);
        assert!(cures.all(|cure| !cure.contains("sudo")), "root is told to become root");
    }

    #[test]
    fn a_daemon_is_told_what_it_lacks() {
        let all = Capability::lacking(u64::MAX);
        assert_eq!(all, []);
        // As the unit has them: no CAP_SYS_ADMIN.
        let unit: u64 = [12, 19, 2, 0, 39, 38].iter().map(|bit| 1_u64 << bit).sum();
        assert_eq!(Capability::lacking(unit), []);
        let names = |set| Capability::lacking(set).into_iter().map(|it| it.name);
        assert!(names(unit & !(1 << 39)).eq(["CAP_BPF"]));
        assert_eq!(names((unit & !(1 << 39)) | 1 << SYS_ADMIN).count(), 0);
        let lacks = Some(Capability::lacking(unit & !(1 << 0)));
        let machine = Machine { daemon_lacks: lacks, ..whole() };
        assert_eq!(states(&machine, false), [("capabilities", State::Warning)]);
    }
}

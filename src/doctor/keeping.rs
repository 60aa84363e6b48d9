//! The policy: whether it holds here and is in force, and who keeps it so.

use super::check::Check;
use crate::text::shown;

/// The policy, and who keeps it in force.
#[derive(Clone, Debug)]
pub struct Keeping {
    /// The daemon that runs.
    pub keeper: Option<Keeper>,
    /// The daemon's unit is started at boot.
    pub is_service_enabled: bool,
    /// What applies the policy now and then: a timer, or a file of cron's.
    pub timer: Option<&'static str>,
    /// The policy.
    pub policy: PolicyFound,
    /// A change waits to be confirmed, for so many seconds.
    pub pending: Option<Option<u64>>,
    /// Whoever asks may see whether there is a daemon.
    pub may_see_keeper: bool,
}

/// The daemon that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keeper {
    /// Its pid; 0: it is in another process namespace.
    pub pid: u32,
    /// What it does, in a word; `None`: it has not said so yet.
    pub state: Option<String>,
    /// Why.
    pub why: Option<String>,
}

/// The policy.
#[derive(Clone, Debug)]
pub struct PolicyFound {
    /// The file; `-`: standard input.
    pub file: String,
    /// What follows a command that is to take it; empty: it takes it anyway.
    pub argument: String,
    /// What came of reading and comparing it.
    pub sync: Sync,
    /// What is warned of where it holds.
    pub warnings: Vec<String>,
}

/// What came of reading a policy and comparing the kernel with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sync {
    /// There is no file.
    Absent,
    /// Root alone may read it.
    Forbidden,
    /// It is refused.
    Refused(String),
    /// It is good; what is in force could not be compared with it.
    Uncompared(String),
    /// It is in force.
    Same,
    /// Nothing is shaped.
    Nothing,
    /// So many steps lead to it.
    Differs(usize),
}

/// What a policy is called that is no file.
const STDIN: &str = "the policy from standard input";

pub(super) fn checks(keeping: &Keeping, unprivileged: bool) -> Vec<Check> {
    let mut checks = policy(&keeping.policy, unprivileged);
    if let Some(left) = keeping.pending {
        let left = left.map_or_else(String::new, |left| format!(", within {left} s"));
        let what = "a change waits to be confirmed, and is taken back unless it is";
        checks.push(Check::warning("pending", what, format!("shaper confirm{left}")));
    }
    checks.extend(keeper(keeping));
    checks
}

fn policy(found: &PolicyFound, unprivileged: bool) -> Vec<Check> {
    let is_a_file = found.file != "-";
    let file = if is_a_file { shown(&found.file).to_string() } else { STDIN.to_string() };
    let argument = shown(&found.argument);
    let whose = if is_a_file { ", and root's alone to write" } else { "" };
    let good = || Check::ok("policy", format!("{file} is good{whose}"));
    let sync = |check| vec![good(), check];
    let mut checks = match &found.sync {
        Sync::Absent => vec![Check::warning(
            "policy",
            format!("there is no policy {file}"),
            format!("shaper init --write {file}, and edit it"),
        )],
        Sync::Forbidden => {
            vec![Check::warning(
                "policy",
                format!("{file} is not yours to read"),
                format!("sudo shaper doctor{argument}"),
            )]
        }
        Sync::Refused(why) => {
            let usual = format!("mend {file}; `shaper check{argument}` shows the place");
            let (what, cure) = match why.split_once("; cure: ") {
                Some((what, cure)) => (what, cure.to_string()),
                None => (why.as_str(), usual),
            };
            let what = format!("the policy is refused: {}", first_lines(what));
            vec![Check::error("policy", what, cure)]
        }
        Sync::Uncompared(why) => sync(Check::warning(
            "sync",
            format!("whether {file} is in force cannot be told: {}", first_lines(why)),
            format!("{}shaper plan{argument}", if unprivileged { "sudo " } else { "" }),
        )),
        Sync::Same => sync(Check::ok("sync", "what is in force is what the policy says")),
        Sync::Nothing => sync(Check::warning(
            "sync",
            "nothing is shaped here",
            match found.argument.is_empty() {
                true => "shaper apply, or systemctl enable --now shaper".to_string(),
                false => format!("shaper apply{argument}"),
            },
        )),
        Sync::Differs(steps) => {
            let steps = if *steps == 1 { "1 step".to_string() } else { format!("{steps} steps") };
            sync(Check::warning(
                "sync",
                format!("what is in force is not what the policy says: {steps} would change that"),
                format!("shaper plan{argument} shows them, shaper apply{argument} does them"),
            ))
        }
    };
    let warning = |text: &String| {
        Check::warning(
            "warning",
            first_lines(text),
            format!("shaper check{argument} shows the place, where it has one"),
        )
    };
    checks.extend(found.warnings.iter().map(warning));
    checks
}

/// A message without the drawing of its place, which begins at a line of its own.
fn first_lines(message: &str) -> String {
    let drawing = |line: &&str| !line.trim_start().starts_with(['|', '╭', '-']);
    let lines = message.lines().take_while(drawing).take(3);
    lines.map(|line| shown(line.trim()).to_string()).collect::<Vec<_>>().join(" ")
}

fn keeper(keeping: &Keeping) -> Vec<Check> {
    let mut checks = match (&keeping.keeper, keeping.timer) {
        (Some(keeper), _) => vec![running(keeper)],
        (None, _) if !keeping.may_see_keeper => vec![],
        (None, _) if keeping.is_service_enabled => vec![Check::error(
            "daemon",
            "shaper.service is enabled, and the daemon does not run: nobody places logins, and the connections that root accepts for them stay in the default class",
            "systemctl status shaper says why; systemctl restart shaper",
        )],
        (None, Some(timer)) => vec![Check::ok(
            "daemon",
            format!("no daemon: {timer} applies the policy, so logins wait for its next run"),
        )],
        (None, None) => vec![Check::warning(
            "daemon",
            "nobody keeps the policy in force, neither the daemon nor a timer: nobody places logins, and the connections that root accepts for them stay in the default class",
            "systemctl enable --now shaper",
        )],
    };
    if let (Some(timer), true) =
        (keeping.timer, keeping.keeper.is_some() || keeping.is_service_enabled)
    {
        checks.push(Check::warning(
            "timer",
            format!("{timer} applies the policy beside the daemon, which does that already"),
            match timer.starts_with('/') {
                true => format!("rm {timer}"),
                false => format!("systemctl disable --now {timer}"),
            },
        ));
    }
    checks
}

fn running(keeper: &Keeper) -> Check {
    let who = match keeper.pid {
        0 => "the daemon".to_string(),
        pid => format!("the daemon (process {pid})"),
    };
    let state = keeper.state.as_deref().unwrap_or("beginning");
    let why = keeper.why.as_deref().map(|why| format!(": {}", shown(why)));
    let what = format!("{who} is {}{}", shown(state), why.unwrap_or_default());
    match state {
        "failing" => Check::error("daemon", what, "journalctl -u shaper tells more"),
        "refusing" => Check::warning(
            "daemon",
            what,
            "mend the policy; the one before it stays in force until then",
        ),
        "waiting" => Check::warning("daemon", what, "let the other run end, or shaper confirm"),
        "partial" => Check::warning(
            "daemon",
            what,
            "change the policy so that it fits the link, or take the link out of it",
        ),
        "bypassed" => Check::warning(
            "daemon",
            what,
            "shaper status --interval 2 shows whether it is still so",
        ),
        _ => Check::ok("daemon", what),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::State::{self, Error, Ok, Warning};
    use super::*;

    fn kept(sync: Sync) -> Keeping {
        let keeper = Keeper { pid: 812, state: Some("idle".into()), why: None };
        let policy = PolicyFound {
            file: "/p.yaml".into(),
            argument: String::new(),
            sync,
            warnings: Vec::new(),
        };
        Keeping {
            keeper: Some(keeper),
            is_service_enabled: true,
            timer: None,
            policy,
            pending: None,
            may_see_keeper: true,
        }
    }

    fn states(keeping: &Keeping) -> Vec<(&'static str, State)> {
        checks(keeping, false).into_iter().map(|check| (check.id, check.state)).collect()
    }

    #[test]
    fn a_policy_is_in_force_or_not() {
        let of = |sync| states(&kept(sync));
        let daemon = ("daemon", Ok);
        assert_eq!(of(Sync::Same), [("policy", Ok), ("sync", Ok), daemon]);
        assert_eq!(of(Sync::Differs(3)), [("policy", Ok), ("sync", Warning), daemon]);
        assert_eq!(of(Sync::Nothing), [("policy", Ok), ("sync", Warning), daemon]);
        assert_eq!(of(Sync::Uncompared("x".into())), [("policy", Ok), ("sync", Warning), daemon]);
        assert_eq!(of(Sync::Absent), [("policy", Warning), daemon]);
        assert_eq!(of(Sync::Forbidden), [("policy", Warning), daemon]);
        assert_eq!(of(Sync::Refused("no".into())), [("policy", Error), daemon]);
    }

    #[test]
    fn who_is_not_root_is_told_to_compare_as_root() {
        let cure = |unprivileged| {
            let checks = checks(&kept(Sync::Uncompared("x".into())), unprivileged);
            checks.into_iter().find(|check| check.id == "sync").and_then(|check| check.cure)
        };
        assert_eq!(cure(true).as_deref(), Some("sudo shaper plan"));
        assert_eq!(cure(false).as_deref(), Some("shaper plan"));
    }

    #[test]
    fn a_policy_from_standard_input_is_nobodys_to_write() {
        let mut keeping = kept(Sync::Same);
        keeping.policy.file = "-".to_string();
        let said = checks(&keeping, false).remove(0).what;
        assert_eq!(said, "the policy from standard input is good");
    }

    /// Commands without a file take the usual one.
    #[test]
    fn a_cure_is_about_the_policy_that_was_asked_about() {
        let cure = |sync| {
            let mut keeping = kept(sync);
            keeping.policy.argument = " /p.yaml".to_string();
            checks(&keeping, false).into_iter().find_map(|check| check.cure)
        };
        assert_eq!(cure(Sync::Nothing).as_deref(), Some("shaper apply /p.yaml"));
        let both = "shaper plan /p.yaml shows them, shaper apply /p.yaml does them";
        assert_eq!(cure(Sync::Differs(2)).as_deref(), Some(both));
        let place = "mend /p.yaml; `shaper check /p.yaml` shows the place";
        assert_eq!(cure(Sync::Refused("no".into())).as_deref(), Some(place));
        assert_eq!(cure(Sync::Uncompared("x".into())).as_deref(), Some("shaper plan /p.yaml"));
    }

    #[test]
    fn a_refusal_is_said_without_its_drawing() {
        let drawn =
            "unknown key `rte`; did you mean `rate`?\n  --> p.yaml:3:5\n   |\n 3 | rte: 1\n";
        assert_eq!(first_lines(drawn), "unknown key `rte`; did you mean `rate`?");
    }

    #[test]
    fn the_daemon_or_a_timer_keeps_it_and_not_both() {
        let of = |change: fn(&mut Keeping)| {
            let mut keeping = kept(Sync::Same);
            change(&mut keeping);
            states(&keeping).split_off(2)
        };
        assert_eq!(of(|it| it.timer = Some("a.timer")), [("daemon", Ok), ("timer", Warning)]);
        assert_eq!(of(|it| it.keeper = None), [("daemon", Error)]);
        let nobody = |it: &mut Keeping| (it.keeper, it.is_service_enabled) = (None, false);
        let mut keeping = kept(Sync::Same);
        nobody(&mut keeping);
        assert_eq!(states(&keeping).split_off(2), [("daemon", Warning)]);
        keeping.timer = Some("/etc/cron.d/shaper");
        assert_eq!(states(&keeping).split_off(2), [("daemon", Ok)]);
        (keeping.timer, keeping.may_see_keeper) = (None, false);
        assert_eq!(states(&keeping).split_off(2), []);
        let words = [
            ("failing", Error),
            ("refusing", Warning),
            ("draining", Ok),
            ("bypassed", Warning),
            ("partial", Warning),
        ];
        for (word, state) in words {
            let mut keeping = kept(Sync::Same);
            keeping.keeper.as_mut().unwrap().state = Some(word.into());
            assert_eq!(states(&keeping).split_off(2), [("daemon", state)]);
        }
        assert_eq!(of(|it| it.pending = Some(Some(7)))[0], ("pending", Warning));
    }
}

//! Status for people: a table for each link, widths as wide as their contents.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use super::cells::Side;
use super::columns::{LEAST_NAME, Layout, SPACE};
use super::holding;
use super::live::live_table;
use super::quota::quota_lines;
use super::repaired;
use super::report::{ClassNumbers, Daemon, Link, PolicyInForce, Pool, Rule, Status};
use super::words::{self, bytes, lasting};
use crate::text::shown;
use crate::tree::Direction;

/// Names left, numbers right.
const CLASSES: Layout<8> = Layout {
    headings: ["USER", "CLASS", "RATE", "CEIL", "SENT", "DROPS", "BACKLOG", "PROCS"],
    sides: {
        use Side::{Left, Right};
        [Left, Left, Right, Right, Right, Right, Right, Right]
    },
    names: 0,
    least: LEAST_NAME,
    begin: SPACE,
    between: SPACE,
    go_first: &["BACKLOG", "DROPS", "PROCS", "CLASS", "RATE", "SENT"],
};

const RULES: Layout<4> = Layout {
    headings: ["RULE", "TO", "CLASS", "PACKETS"],
    sides: [Side::Right, Side::Left, Side::Left, Side::Right],
    names: 1,
    least: LEAST_NAME,
    begin: SPACE,
    between: SPACE,
    go_first: &["CLASS"],
};

/// The columns of a table of what goes now, where no terminal says how many it has.
const USUAL: usize = 80;
/// What stands and what it has counted, or (of a report with rates) what it does now.
/// `now`, in seconds since 1970, is what the daemon's times are compared with. `wide`: how many
/// columns a terminal has, for which columns are left out and long names shortened (sentences are
/// for [`super::fitted`]); `None`: whoever reads it wants all of it.
pub fn table(status: &Status, now: u64, wide: Option<usize>) -> String {
    let mut text = match status.interval_ms {
        Some(_) if !status.links.is_empty() => live_table(status, wide.unwrap_or(USUAL)),
        _ => String::new(),
    };
    let is_live = status.interval_ms.is_some();
    for (index, link) in status.links.iter().enumerate() {
        if is_live {
            if link.rules.is_some() {
                let _ = writeln!(text, "{}  {}", link.dev, link.direction);
            }
            rules(link, wide, &mut text);
            continue;
        }
        if index > 0 {
            text.push('\n');
        }
        one_link(link, wide, &mut text);
    }
    if status.links.is_empty() {
        text.push_str("nothing is shaped here; `shaper apply` does it\n");
    }
    // Without rates each link's own table has them.
    let held = if is_live { holding::lines(status) } else { Vec::new() };
    for line in held.into_iter().chain(quota_lines(&status.quotas)) {
        text.push_str(&line);
        text.push('\n');
    }
    text.push_str(&status.unclaimed_line());
    text.push_str(&status.default_connections_line());
    if let Some(policy) = &status.policy {
        text.push_str(&in_force(policy, now));
    }
    let mut pools = status.links.iter().filter_map(|link| link.default.as_ref());
    if let Some(packets) = pools.find_map(forwarded) {
        text.push_str(&format!(
            "{packets} packets were forwarded in this namespace since it began, such as containers' behind a bridge; those that left by a link above count in its (default)\n"
        ));
    }
    for object in &status.foreign {
        text.push_str(&format!("not ours, left alone: {object}\n"));
    }
    text.push_str(&repaired::lines(&status.repairs, now));
    if let Some(daemon) = &status.daemon {
        text.push_str(&condition(daemon, now));
    }
    text
}

/// `7 IPv4 and 3 IPv6`: what the namespace has forwarded, where some of it may be in the class.
fn forwarded(pool: &Pool) -> Option<String> {
    let families = [("IPv4", pool.forwarded_packets), ("IPv6", pool.forwarded_v6_packets)];
    let some = families.iter().filter_map(|(family, packets)| Some((family, (*packets)?)));
    let some = some.filter(|(_, packets)| *packets > 0 && pool.class.sent_packets > 0);
    let words: Vec<String> = some.map(|(family, packets)| format!("{packets} {family}")).collect();
    (!words.is_empty()).then(|| words.join(" and "))
}

/// One line: which policy, since when, and who applied it.
fn in_force(policy: &PolicyInForce, now: u64) -> String {
    let file = match policy.file.as_str() {
        "-" => "one from standard input",
        file => file,
    };
    let by = policy.by.clone().unwrap_or_else(|| format!("uid {}", policy.by_uid));
    let time = lasting(Duration::from_secs(now.saturating_sub(policy.since)));
    format!("policy: {}, for {time}, by {}\n", shown(file), shown(&by))
}

/// One line: the daemon's state, since when, and why.
fn condition(daemon: &Daemon, now: u64) -> String {
    let state = shown(daemon.state.as_deref().unwrap_or("of an unknown state"));
    let since = daemon.since.map_or_else(String::new, |since| {
        let elapsed = Duration::from_secs(now.saturating_sub(since));
        format!(" for {}", lasting(elapsed))
    });
    let why = daemon.why.as_deref().map_or_else(String::new, |why| format!(": {}", shown(why)));
    match daemon.pid {
        0 => format!("the daemon is {state}{since}{why}\n"),
        pid => format!("the daemon (process {pid}) is {state}{since}{why}\n"),
    }
}

fn one_link(link: &Link, wide: Option<usize>, text: &mut String) {
    // What arrives goes by the flow that leaves: nothing there asks whose a packet is.
    let classifier = match (link.classifier, link.direction) {
        (None, direction) if direction == Direction::Ingress.as_str() => String::new(),
        (classifier, _) => format!("  classifier {}", classifier.unwrap_or("none")),
    };
    text.push_str(&format!(
        "{}  {}  rate {}{classifier}\n",
        link.dev,
        link.direction,
        words::limit(link.rate_bit),
    ));
    if link.classifier == Some("cgroup") {
        text.push_str("! by the tag alone: a local user who wants to can get into (default)\n");
    }
    let mut rows = Vec::new();
    let dash = || "-".to_string();
    below(link, None, 0, &mut rows);
    for (name, pool) in [("(default)", &link.default), ("(unshaped)", &link.unshaped)] {
        if let Some(pool) = pool {
            rows.push(row(name, &pool.classid, &pool.class, dash()));
        }
    }
    for retired in &link.retired {
        rows.push(row("(retired)", &retired.classid, &retired.class, dash()));
    }
    text.push_str(&CLASSES.table(rows, wide));
    for line in holding::of_link(link) {
        text.push_str(&format!("  {line}\n"));
    }
    rules(link, wide, text);
    for sentence in link.beside.iter().chain(&link.warnings) {
        text.push_str(&format!("! {}\n", shown(sentence)));
    }
    if link.direct_packets > 0 {
        text.push_str(&format!("! {} packets passed no class at all\n", link.direct_packets));
    }
}

/// What is directly below a group or the link, each group with all that is below it.
fn below(link: &Link, group: Option<&str>, depth: usize, rows: &mut Vec<[String; 8]>) {
    let indent = "  ".repeat(depth);
    for user in link.users.iter().filter(|user| user.group.as_deref() == group) {
        let processes = match user.source {
            "class" => "-".to_string(),
            _ => user.processes.to_string(),
        };
        let name = format!("{indent}{}", user.user);
        rows.push(row(&name, &user.classid, &user.class, processes));
    }
    for of in link.groups.iter().filter(|of| of.parent.as_deref() == group) {
        let name = format!("{indent}[{}]", of.group);
        rows.push(row(&name, &of.classid, &of.class, "-".to_string()));
        below(link, Some(&of.group), depth + 1, rows);
    }
    // A report of one group lacks what is above it.
    let has = |name: &str| link.groups.iter().any(|of| of.group == name);
    let parents = link.users.iter().map(|user| &user.group);
    let parents = parents.chain(link.groups.iter().map(|of| &of.parent)).flatten();
    let lost: BTreeSet<&String> = parents.filter(|parent| !has(parent)).collect();
    for parent in lost.into_iter().filter(|_| group.is_none()) {
        below(link, Some(parent), depth, rows);
    }
}

fn row(name: &str, classid: &str, class: &ClassNumbers, processes: String) -> [String; 8] {
    // A guarantee that was not asked for is a share of what is left, and says so.
    let rate = match class.asked_rate_bit {
        Some(_) => words::limit(class.rate_bit),
        None => format!("~{}", words::limit(class.rate_bit)),
    };
    [
        shown(name).to_string(),
        classid.to_string(),
        rate,
        words::limit(class.ceil_bit),
        bytes(class.sent_bytes),
        class.drops.to_string(),
        bytes(class.backlog_bytes),
        processes,
    ]
}

fn rules(link: &Link, wide: Option<usize>, text: &mut String) {
    let Some(rules) = &link.rules else { return };
    let packets = |rule: &Rule| rule.packets.map_or("-".to_string(), |packets| packets.to_string());
    let rows = rules.iter().map(|rule| {
        [rule.rule.to_string(), shown(&rule.to).to_string(), rule.classid.clone(), packets(rule)]
    });
    text.push_str(&RULES.table(rows.collect(), wide));
    if rules.is_empty() {
        text.push_str("  no rules\n");
    } else if rules.iter().all(|rule| rule.packets.is_none()) {
        text.push_str("  this kernel does not count what a rule matches (it is built without CONFIG_CLS_U32_PERF)\n");
    } else if rules.iter().any(|rule| rule.packets.is_none()) {
        text.push_str("  this kernel counts what rules match only from the first with `from` or `vlan` on (it is built without CONFIG_CLS_U32_PERF)\n");
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::numbers;
    use super::*;

    #[test]
    fn forwarded_packets_are_said_where_they_may_be_in_the_default_class() {
        let class = |sent_packets| ClassNumbers { sent_packets, ..numbers(None) };
        let link_of = |forwarded, forwarded_v6, sent_packets| Link {
            rules: None,
            dev: "eth0".to_string(),
            netns: 1,
            direction: "egress",
            classifier: None,
            rate_bit: 8,
            limit: None,
            now: None,
            users: Vec::new(),
            groups: Vec::new(),
            default: Some(Pool {
                classid: "1:fffe".to_string(),
                class: class(sent_packets),
                forwarded_packets: Some(forwarded),
                forwarded_v6_packets: Some(forwarded_v6),
                guests: Vec::new(),
            }),
            unshaped: None,
            retired: Vec::new(),
            beside: Vec::new(),
            warnings: Vec::new(),
            direct_packets: 0,
        };
        let link = |forwarded, sent_packets| link_of(forwarded, 0, sent_packets);
        let said = |links: Vec<Link>| {
            let text = table(
                &Status {
                    version: 1,
                    interval_ms: None,
                    links,
                    foreign: Vec::new(),
                    daemon: None,
                    repairs: Vec::new(),
                    policy: None,
                    pending: None,
                    quotas: Vec::new(),
                    unclaimed: Vec::new(),
                    default_connections: Vec::new(),
                },
                0,
                None,
            );
            let lines = text.lines().filter(|line| line.contains("forwarded"));
            lines.map(str::to_string).collect::<Vec<_>>()
        };
        let nothing: Vec<String> = Vec::new();
        assert_eq!(said(vec![link(0, 5)]), nothing, "none was forwarded");
        assert_eq!(said(vec![link(7, 0)]), nothing, "none is in the class");
        let both = said(vec![link_of(7, 3, 5)]);
        assert!(both[0].starts_with("7 IPv4 and 3 IPv6 packets were forwarded "), "{both:?}");
        assert!(said(vec![link_of(0, 3, 5)])[0].starts_with("3 IPv6 packets were forwarded "));
        assert_eq!(
            said(vec![link(7, 5), link(7, 9)]),
            [
                "7 IPv4 packets were forwarded in this namespace since it began, such as containers' behind a bridge; those that left by a link above count in its (default)"
            ]
        );
    }

    #[test]
    fn the_daemons_state_is_said_with_its_reason_and_since_when() {
        let daemon = Daemon {
            pid: 812,
            file: None,
            state: Some("failing".to_string()),
            why: Some("no\u{1b}".to_string()),
            since: Some(1_000),
        };
        let of = |daemon: &Daemon, now| {
            let daemon = Some(daemon.clone());
            let status = Status {
                version: 1,
                interval_ms: None,
                links: Vec::new(),
                foreign: Vec::new(),
                daemon,
                repairs: Vec::new(),
                policy: None,
                pending: None,
                quotas: Vec::new(),
                unclaimed: Vec::new(),
                default_connections: Vec::new(),
            };
            table(&status, now, None).lines().last().unwrap().to_string()
        };
        assert_eq!(of(&daemon, 1_119), "the daemon (process 812) is failing for 119 s: no\\u{1b}");
        assert_eq!(of(&daemon, 999), "the daemon (process 812) is failing for 0 s: no\\u{1b}");
        let idle = Daemon { pid: 0, state: Some("idle".to_string()), why: None, ..daemon };
        assert_eq!(of(&idle, 1_000 + 2 * 86_400), "the daemon is idle for 2 days");
        assert_eq!(of(&idle, 1_000 + 86_400), "the daemon is idle for 24 h");
        assert_eq!(of(&idle, 1_120), "the daemon is idle for 2 min");
    }
}

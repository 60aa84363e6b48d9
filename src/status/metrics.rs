//! The counters as metrics: Prometheus' text format, which node_exporter's textfile collector and
//! `promtool` read, or OpenMetrics.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::limit::Limit;
use super::quota::Quota;
use super::report::{ClassNumbers, Link, Status, User};
use crate::sample::{Ledger, Upkeep, Whose};
use crate::times::Timestamp;
use crate::tree::{Counters, Direction, LinkName, Owner, Port, Reserved};

/// How metrics are spelled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format, version 0.0.4.
    #[default]
    Prometheus,
    /// OpenMetrics 1.0: a counter's family is named without `_total`, and the end is marked.
    Openmetrics,
}

/// Families of metrics, as they are written.
struct Page {
    format: Format,
    text: String,
}

impl Page {
    /// A family with its samples, each its labels and value; nothing where there are none.
    fn family<L: AsRef<str>>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, u64)>,
    ) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
        let family = match self.format {
            Format::Prometheus => name,
            Format::Openmetrics => name.strip_suffix("_total").unwrap_or(name),
        };
        self.head(family, kind, help);
        // There may be a hundred thousand of them.
        for (labels, value) in samples {
            self.text.push_str(name);
            if !labels.as_ref().is_empty() {
                ["{", labels.as_ref(), "}"].iter().for_each(|part| self.text.push_str(part));
            }
            let _ = writeln!(self.text, " {value}");
        }
    }

    fn head(&mut self, family: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP {family} {help}");
        let _ = writeln!(self.text, "# TYPE {family} {kind}");
    }

    /// How long placements took.
    fn placements(&mut self, upkeep: &Upkeep) {
        const NAME: &str = "shaper_placement_seconds";
        let help = "From a process's event (a login, a fork) to the process in its user's class.";
        self.head(NAME, "histogram", help);
        let mut count = 0;
        for (most, so_far) in upkeep.placed() {
            let most =
                most.map_or_else(|| "+Inf".to_string(), |most| format!("{:?}", most.as_secs_f64()));
            let _ = writeln!(self.text, "{NAME}_bucket{{{}}} {so_far}", label("le", &most));
            count = so_far;
        }
        let _ = writeln!(self.text, "{NAME}_sum {:?}", upkeep.placed_in().as_secs_f64());
        let _ = writeln!(self.text, "{NAME}_count {count}");
    }
}

/// A label: `user="ann"`. The exposition formats escape these three characters, and no others.
fn label(name: &str, value: &str) -> String {
    [name, "=\"", &escaped(value), "\""].concat()
}

fn escaped(value: &str) -> Cow<'_, str> {
    match value.contains(['\\', '"', '\n']) {
        true => value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").into(),
        false => value.into(),
    }
}

/// A class as the metrics name it.
struct Series<'a> {
    name: Cow<'a, str>,
    /// `link`, `direction` and `user`: of each of its families.
    labels: String,
    classid: &'a str,
    group: &'a str,
    source: &'a str,
    /// The total of its owner.
    total: Counters,
    class: &'a ClassNumbers,
    limit: Option<&'a Limit>,
    processes: Option<usize>,
}

/// Metrics of the report and of what is kept: the classes' ledger, and what a daemon has done,
/// where there was one. `top`: only so many users with the most bytes in each direction of each
/// link, and the pools.
pub fn metrics(
    status: &Status,
    (ledger, upkeep): (&Ledger, Option<&Upkeep>),
    top: Option<usize>,
    format: Format,
) -> String {
    let mut page = Page { format, text: String::new() };
    let series = series(status, ledger, top);
    classes(&mut page, &series);
    links(&mut page, status, ledger);
    quotas(&mut page, status);
    if let Some(in_sync) = in_sync(status) {
        let help = "Whether the daemon has found everything as the policy says.";
        page.family("shaper_in_sync", help, [("", in_sync.into())]);
    }
    if let Some(upkeep) = upkeep {
        daemon(&mut page, status, upkeep);
    }
    let applied = status.policy.as_ref().map(|policy| ("", policy.since));
    let help = "When the policy in force was applied first, in seconds since 1970.";
    page.family("shaper_last_apply_timestamp_seconds", help, applied);
    let build = label("version", env!("CARGO_PKG_VERSION"));
    page.family("shaper_build_info", "The version of shaper.", [(build, 1)]);
    if format == Format::Openmetrics {
        page.text.push_str("# EOF\n");
    }
    page.text
}

/// 1 while the daemon is content, 0 while it is not; `None`: nobody looks.
fn in_sync(status: &Status) -> Option<u8> {
    let state = status.daemon.as_ref()?.state.as_deref()?;
    Some(u8::from(matches!(state, "idle" | "draining")))
}

/// The users and pools of each direction of each link.
fn series<'a>(status: &'a Status, ledger: &Ledger, top: Option<usize>) -> Vec<Series<'a>> {
    let mut all = Vec::new();
    for link in &status.links {
        let Some(port) = port(link) else { continue };
        let total = |whose: Whose| ledger.total(&port, &whose).copied().unwrap_or_default();
        let mut users: Vec<_> =
            link.users.iter().map(|user| (user, total(Whose::Owner(user.owner.clone())))).collect();
        if let Some(top) = top {
            users.sort_by_key(|(user, total)| (Reverse(total.sent_bytes), &user.user));
            users.truncate(top);
        }
        // The pools are called so, whatever accounts are.
        let pools = [Reserved::Default, Reserved::Unshaped].map(|pool| pool.to_string());
        let mut rows: BTreeMap<&str, usize> = pools.iter().map(|pool| (pool.as_str(), 1)).collect();
        link.users.iter().for_each(|user| *rows.entry(&user.user).or_default() += 1);
        let way = way(link);
        let labels = |name: &str| [&way, ",user=\"", &escaped(name), "\""].concat();
        all.reserve(users.len() + 2);
        for (user, total) in users {
            let name = name(user, rows.get(user.user.as_str()).is_some_and(|rows| *rows > 1));
            all.push(Series {
                labels: labels(&name),
                name,
                classid: &user.classid,
                group: user.group.as_deref().unwrap_or_default(),
                source: user.source,
                total,
                class: &user.class,
                limit: user.limit.as_ref(),
                processes: (user.source != "class").then_some(user.processes),
            });
        }
        let pools = [
            (Reserved::Default, Whose::Default, &link.default),
            (Reserved::Unshaped, Whose::Unshaped, &link.unshaped),
        ];
        for (word, whose, pool) in pools {
            let (Some(pool), name) = (pool, word.as_str()) else { continue };
            all.push(Series {
                labels: labels(name),
                name: name.into(),
                classid: &pool.classid,
                group: "",
                source: name,
                total: total(whose),
                class: &pool.class,
                limit: None,
                processes: None,
            });
        }
    }
    all
}

/// How a user is called. An account or a class that has the name of another row is called by what
/// it is, too: each series has one owner.
fn name(user: &User, is_twice: bool) -> Cow<'_, str> {
    match user.owner {
        Owner::User(_) => user.user.as_str().into(),
        _ if is_twice => user.owner.to_string().into(),
        _ => user.user.as_str().into(),
    }
}

fn port(link: &Link) -> Option<Port> {
    let name = LinkName::new(&link.dev)?;
    Some(if link.direction == Direction::Ingress.as_str() { name.ingress() } else { name.egress() })
}

fn way(link: &Link) -> String {
    [label("link", &link.dev), label("direction", link.direction)].join(",")
}

/// What each class has counted, and its limits.
fn classes(page: &mut Page, series: &[Series<'_>]) {
    type Of = fn(&Series<'_>) -> u64;
    let families: [(&str, &str, Of); 9] = [
        ("sent_bytes_total", "Bytes sent, with link-layer headers.", |it| it.total.sent_bytes),
        ("sent_packets_total", "Packets sent.", |it| it.total.sent_packets),
        ("dropped_packets_total", "Packets dropped by the class or its queue.", |it| {
            it.total.drops
        }),
        ("overlimits_total", "How often the class had used up its ceil and had to wait.", |it| {
            it.total.overlimits
        }),
        ("lent_packets_total", "Packets sent within the class's own rate.", |it| it.total.lends),
        ("borrowed_packets_total", "Packets sent on what others left over.", |it| it.total.borrows),
        ("backlog_bytes", "Bytes that wait in the queue.", |it| it.class.backlog_bytes),
        ("rate_bytes_per_second", "The guarantee in force.", |it| it.class.rate_bit / 8),
        ("ceil_bytes_per_second", "What the class may at most.", |it| it.class.ceil_bit / 8),
    ];
    // A line has some eighty bytes, and a few more that are the same in a family.
    let lines: usize = series.iter().map(|it| it.labels.len() + 64).sum();
    page.text.reserve(lines * (families.len() + 2));
    for (name, help, of) in families {
        let samples = series.iter().map(|it| (&it.labels, of(it)));
        page.family(&format!("shaper_class_{name}"), help, samples);
    }
    let mut seen = BTreeSet::new();
    let users = series.iter().filter(|it| it.processes.is_some() && seen.insert(&it.name));
    let users = users.map(|it| (label("user", &it.name), it.processes.unwrap_or(0) as u64));
    page.family("shaper_user_processes", "Processes in the user's directories.", users);
    let info = series.iter().map(|it| {
        let classid = ["classid=\"", it.classid, "\""].concat();
        let (group, source) = (label("group", it.group), label("source", it.source));
        ([&it.labels, ",", &classid, ",", &group, ",", &source].concat(), 1)
    });
    page.family("shaper_class_info", "Which class a user has.", info);
    let held = series.iter().filter_map(|it| Some((it.labels.as_str(), it.limit?)));
    limits(page, "shaper_class", &held.collect::<Vec<_>>());
}

/// Which windows and quotas give classes, or links, their limits now, why, and until when.
fn limits(page: &mut Page, of: &str, held: &[(&str, &Limit)]) {
    let info = held.iter().filter_map(|(labels, limit)| {
        let why = label("why", limit.why.as_deref()?);
        let (by, whose) = (limit.by.as_str(), limit.of.as_deref().unwrap_or_default());
        Some(([labels, ",", &label("by", by), ",", &why, ",", &label("of", whose)].concat(), 1))
    });
    let help = "Which window or quota gives the limit in force; `of`: of whom above.";
    page.family(&format!("{of}_limit_info"), help, info);
    let until = held.iter().filter_map(|(labels, limit)| {
        let until: Timestamp = limit.until.as_ref()?.parse().ok()?;
        Some((*labels, u64::try_from(until.as_second()).ok()?))
    });
    let help = "Until when the limit in force is the same, unless more is used of a quota.";
    page.family(&format!("{of}_limit_until_timestamp_seconds"), help, until);
}

/// What all of a link have together. A sum over the classes is the same but for retired classes
/// without an owner, and packets without a class.
fn links(page: &mut Page, status: &Status, ledger: &Ledger) {
    let ports = status.links.iter().filter_map(|link| Some((link, port(link)?)));
    let ports: Vec<_> = ports.collect();
    let total = |whose: Whose, of: fn(&Counters) -> u64| {
        let of = |(link, port): &(&Link, Port)| Some((way(link), of(ledger.total(port, &whose)?)));
        ports.iter().filter_map(of).collect::<Vec<_>>()
    };
    let sent = total(Whose::Link, |it| it.sent_bytes);
    page.family("shaper_link_sent_bytes_total", "Bytes sent below the link's limit.", sent);
    let rates = status.links.iter().map(|link| (way(link), link.rate_bit / 8));
    page.family("shaper_link_rate_bytes_per_second", "The link's limit.", rates);
    // Nobody is above a link.
    let own = |limit: &Limit| Limit { of: None, ..limit.clone() };
    let held = ports.iter().filter_map(|(link, _)| Some((way(link), own(link.limit.as_ref()?))));
    let held: Vec<_> = held.collect();
    let held: Vec<_> = held.iter().map(|(way, limit)| (way.as_str(), limit)).collect();
    limits(page, "shaper_link", &held);
    let default = total(Whose::Default, |it| it.sent_bytes);
    page.family("shaper_default_bytes_total", "Bytes of whatever nobody claims.", default);
    let direct = total(Whose::Direct, |it| it.sent_packets);
    page.family("shaper_direct_packets_total", "Packets that passed no class.", direct);
}

/// What was used of quotas, on all links together.
fn quotas(page: &mut Page, status: &Status) {
    let mut owners: BTreeMap<&str, BTreeSet<&Owner>> = BTreeMap::new();
    for quota in &status.quotas {
        owners.entry(&quota.user).or_default().insert(&quota.owner);
    }
    let is_twice = |name: &str| owners.get(name).is_some_and(|owners| owners.len() > 1);
    let samples = |of: fn(&Quota) -> Option<u64>| -> Vec<(String, u64)> {
        let labels = |quota: &Quota| {
            // As of classes: each series has one owner.
            let name = match quota.owner {
                Owner::Uid(_) if is_twice(&quota.user) => quota.owner.to_string(),
                _ => quota.user.clone(),
            };
            let whose = label(if quota.group { "group" } else { "user" }, &name);
            let (period, counts) =
                (label("period", &quota.period), label("counts", quota.counts.as_str()));
            [whose, period, counts].join(",")
        };
        status.quotas.iter().filter_map(|quota| Some((labels(quota), of(quota)?))).collect()
    };
    let used = "Bytes used of the quota in its period.";
    page.family("shaper_quota_used_bytes", used, samples(|it| Some(it.used_bytes)));
    let limit = "The quota's volume, with what was granted.";
    page.family("shaper_quota_limit_bytes", limit, samples(|it| Some(it.limit_bytes)));
    let cap = "The cap that the quota sets now, where it sets one.";
    let ceil = samples(|it| it.ceil_bit.map(|ceil| ceil / 8));
    page.family("shaper_quota_ceil_bytes_per_second", cap, ceil);
}

/// What daemons have done since the machine started.
fn daemon(page: &mut Page, status: &Status, upkeep: &Upkeep) {
    page.placements(upkeep);
    let help = "How often events were lost, and everything was looked at instead.";
    page.family("shaper_events_lost_total", help, [("", upkeep.lost())]);
    let shaped = status.links.iter().map(|link| (link.dev.as_str(), 0));
    let mut repairs: BTreeMap<&str, u64> = shaped.collect();
    repairs.extend(upkeep.repairs().map(|(link, repairs)| (link, repairs.count)));
    let repairs = repairs.into_iter().map(|(link, count)| (label("link", link), count));
    let help = "How often what somebody had changed on the link was made good.";
    page.family("shaper_repairs_total", help, repairs);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::By;
    use crate::sample::Deed;
    use crate::status::tests::busy;
    use std::time::Duration;

    #[test]
    fn both_formats_have_the_same_samples() {
        let mut status = busy();
        status.links[0].users[0].user = "a\\\"n".to_string();
        let of = |format| metrics(&status, (&Ledger::default(), None), None, format);
        let (text, open) = (of(Format::Prometheus), of(Format::Openmetrics));
        let samples = |text: &str| {
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            lines.map(str::to_string).collect::<Vec<_>>()
        };
        assert_eq!(samples(&text), samples(&open));
        assert!(text.contains("# TYPE shaper_class_sent_bytes_total counter\n"), "{text}");
        assert!(open.contains("# TYPE shaper_class_sent_bytes counter\n"), "{open}");
        assert!(open.ends_with("\n# EOF\n") && !text.contains("EOF"));
        let ann = "direction=\"egress\",user=\"a\\\\\\\"n\"} 2500000\n";
        assert!(text.contains(ann), "{text}");
        assert!(text.contains("shaper_user_processes{user=\"bob\"} 2\n"), "{text}");
        assert!(!text.contains("shaper_in_sync"), "nobody looks");
        assert!(!text.contains("shaper_repairs_total"), "nobody repairs");
    }

    #[test]
    fn what_the_daemon_has_done_is_a_histogram_and_counters() {
        let mut upkeep = Upkeep::default();
        let placed = [90, 800, 3_000_000].map(|micros| Deed::Placed(Duration::from_micros(micros)));
        let link = LinkName::new("gone0").unwrap();
        let repaired = Deed::Repaired { link, by: "tc".to_string(), at: Timestamp::UNIX_EPOCH };
        placed.iter().chain([&Deed::Lost, &repaired]).for_each(|deed| upkeep.note(deed));
        let ledger = Ledger::default();
        let of = |format| metrics(&busy(), (&ledger, Some(&upkeep)), None, format);
        let (text, open) = (of(Format::Prometheus), of(Format::Openmetrics));
        for line in [
            "# TYPE shaper_placement_seconds histogram\n",
            "shaper_placement_seconds_bucket{le=\"0.0001\"} 1\n",
            "shaper_placement_seconds_bucket{le=\"0.001\"} 2\n",
            "shaper_placement_seconds_bucket{le=\"1.0\"} 2\n",
            "shaper_placement_seconds_bucket{le=\"+Inf\"} 3\n",
            "shaper_placement_seconds_sum 3.00089\n",
            "shaper_placement_seconds_count 3\n",
            "shaper_events_lost_total 1\n",
            "shaper_repairs_total{link=\"eth0\"} 0\n",
            "shaper_repairs_total{link=\"gone0\"} 1\n",
        ] {
            assert!(text.contains(line) && open.contains(line), "{line} of\n{text}");
        }
        assert!(open.contains("# TYPE shaper_events_lost counter\n"), "{open}");
    }

    #[test]
    fn an_account_with_the_name_of_a_pool_is_another_series() {
        let mut status = busy();
        let users = status.links[0].users.iter_mut().zip(["default", "unshaped"]);
        for (uid, (user, name)) in (2103..).zip(users) {
            (user.owner, user.user) = (Owner::Uid(uid), name.to_string());
        }
        let text = metrics(&status, (&Ledger::default(), None), None, Format::Prometheus);
        let samples = text.lines().filter(|line| line.starts_with("shaper_class_ceil"));
        let names: Vec<&str> = samples.filter_map(|line| Some(line.rsplit_once(' ')?.0)).collect();
        let unique: BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(unique.len(), names.len(), "{text}");
    }

    #[test]
    fn two_owners_of_one_name_are_two_series() {
        let mut status = busy();
        let key = crate::tree::Key::new("bob").unwrap();
        status.links[0].users[0].owner = Owner::Class(key);
        status.links[0].users[0].user = "bob".to_string();
        let ledger = Ledger::default();
        let text = metrics(&status, (&ledger, None), None, Format::Prometheus);
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let names = samples.iter().filter_map(|line| line.rsplit_once(' ')).map(|(name, _)| name);
        let unique: BTreeSet<&str> = names.clone().collect();
        assert_eq!(unique.len(), names.count(), "{text}");
        let few = metrics(&status, (&ledger, None), Some(1), Format::Prometheus);
        assert_eq!(few.matches("shaper_class_sent_bytes_total{").count(), 2 + 2, "{few}");
    }

    #[test]
    fn which_limit_holds_is_said_with_its_reason_and_end() {
        let (mut status, until) = (busy(), Some("2026-11-29T06:00:00+01:00".to_string()));
        let limit = |by, why: Option<&str>, of: Option<&str>| {
            let [why, of] = [why, of].map(|it| it.map(str::to_string));
            Some(Limit { by, why, of, until: until.clone() })
        };
        let link = &mut status.links[0];
        link.users[0].limit = limit(By::Quota, Some("75% of 1TB this month is used"), None);
        link.users[1].limit = limit(By::When, Some("night"), Some("group staff"));
        link.users[2].limit = limit(By::Ceil, None, None);
        link.limit = limit(By::When, Some("night"), Some(Limit::LINK));
        let text = metrics(&status, (&Ledger::default(), None), None, Format::Prometheus);
        let samples =
            text.lines().filter(|line| line.contains("_limit_") && !line.starts_with('#'));
        let samples: Vec<String> =
            samples.map(|line| line.replace("link=\"eth0\",direction=\"egress\"", "L")).collect();
        let user = |user: &str| format!("{{L,user=\"{user}\"");
        let info = |user: &str, rest: &str| format!("shaper_class_limit_info{user},{rest}}} 1");
        let end =
            |user: &str| format!("shaper_class_limit_until_timestamp_seconds{user}}} 1795928400");
        let [ann, bob, third] =
            [0, 1, 2].map(|at| user(&status.links[0].users[at].user.replace('\\', "")));
        let quota = "by=\"quota\",why=\"75% of 1TB this month is used\",of=\"\"";
        assert_eq!(
            samples,
            [
                info(&ann, quota),
                info(&bob, "by=\"when\",why=\"night\",of=\"group staff\""),
                end(&ann),
                end(&bob),
                end(&third),
                "shaper_link_limit_info{L,by=\"when\",why=\"night\",of=\"\"} 1".to_string(),
                "shaper_link_limit_until_timestamp_seconds{L} 1795928400".to_string(),
            ]
        );
    }
}

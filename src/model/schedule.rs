//! Which windows hold at a moment, which limits they give lines, and until when that is so.
//! Touches nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::facts::Facts;
use crate::policy::{
    self, Amount, Diagnostic, Findings, Kind, LinkLine, OnLink, Policy, Written, closest, quote,
};
use crate::times::{TimeZone, Timestamp, Unknown, Window};

use super::holds::{By, Holds};

/// For how many seconds, from now on and from half a year on, changes are followed to find out
/// which windows ever hold together: a week and a day, since windows are of the week.
const SPELL: i64 = 8 * 86_400;
/// Half a year, when zones are in the other season.
const SEASON: i64 = 182 * 86_400;
/// So many changes are followed at most, from now on and from half a year on each.
const MOST_CHANGES: usize = 1_000;
/// So many situations are checked, and beyond these only those in which a window counts for a line
/// that counted in none before.
const MOST_SITUATIONS: usize = 16;

/// The names of the windows in one `when`, in file order.
type Names<'p> = Vec<&'p str>;

/// The windows of a policy, and which lines ask for them together.
pub(super) struct Schedule<'p> {
    windows: HashMap<&'p str, (&'p Window, &'p TimeZone)>,
    /// Each `when` once, with the place of its first window.
    lists: BTreeMap<Names<'p>, policy::Span>,
}

/// What a `when` comes to at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Turn {
    /// Which of its windows counts; `None`: none holds.
    chosen: Option<usize>,
    /// Until when that is so; `None`: for ever.
    until: Option<Timestamp>,
}

/// The windows that hold at one moment.
#[derive(Default)]
pub(super) struct Situation<'p> {
    turns: HashMap<Names<'p>, Turn>,
}

/// The windows that each `when` of the policy names, with their places.
fn whens(policy: &Policy) -> Vec<Vec<&Written<String>>> {
    let Policy { links, users, groups, everyone, classes, .. } = policy;
    let of_users = users.iter().map(|line| (&line.limits, &line.links));
    let of_classes = classes.iter().map(|line| (&line.limits, &line.links));
    let mut limits = Vec::new();
    for (always, on_links) in of_users.chain(of_classes) {
        limits.push(always);
        limits.extend(on_links.iter().filter_map(|(_, on_link)| match on_link {
            OnLink::Limits(limits) => Some(limits),
            OnLink::None => None,
        }));
    }
    limits.extend(groups.iter().flat_map(|line| [&line.limits].into_iter().chain(&line.each)));
    limits.extend(everyone.iter().flat_map(|line| [&line.limits].into_iter().chain(&line.each)));
    let of_lines = limits.into_iter().map(|it| it.when.iter().map(|when| &when.window).collect());
    let of_links = links.iter().map(|it| it.when.iter().map(|when| &when.window).collect());
    of_lines.chain(of_links).filter(|names: &Vec<_>| !names.is_empty()).collect()
}

impl<'p> Schedule<'p> {
    /// Says what is wrong with the windows, too: those and the zones that do not exist.
    pub(super) fn new(
        policy: &'p Policy,
        facts: &'p Facts,
        findings: &mut Findings,
    ) -> Schedule<'p> {
        let mut windows = HashMap::with_capacity(policy.times.len());
        for line in &policy.times {
            let zone = zone(line.tz.as_ref(), facts, findings);
            windows.extend(zone.map(|zone| (line.key.value.as_str(), (&line.window, zone))));
        }
        let mut lists = BTreeMap::new();
        let known = || policy.times.iter().map(|line| line.key.value.as_str());
        let mut unknown = BTreeSet::new();
        for when in whens(policy) {
            for name in &when {
                if !known().any(|known| known == name.value) && unknown.insert(name.at) {
                    findings.push(unknown_window(name, known()));
                }
            }
            let names = when.iter().map(|name| name.value.as_str()).collect();
            lists.entry(names).or_insert(when[0].at);
        }
        Schedule { windows, lists }
    }

    /// What holds at this moment.
    pub(super) fn at(&self, moment: Timestamp) -> Situation<'p> {
        let turns = self.lists.keys().map(|names| (names.clone(), self.turn(names, moment)));
        Situation { turns: turns.collect() }
    }

    fn holds(&self, name: &str, at: Timestamp) -> bool {
        self.windows.get(name).is_some_and(|(window, zone)| window.holds(zone, at))
    }

    fn chosen(&self, names: &[&str], at: Timestamp) -> Option<usize> {
        names.iter().position(|name| self.holds(name, at))
    }

    /// The first moment after this one at which one of these windows begins or ends.
    fn next(&self, names: &[&str], after: Timestamp) -> Option<Timestamp> {
        let changes = names.iter().filter_map(|name| {
            let (window, zone) = self.windows.get(name)?;
            window.next_change(zone, after)
        });
        changes.min()
    }

    fn turn(&self, names: &[&str], now: Timestamp) -> Turn {
        let chosen = self.chosen(names, now);
        // None before the one that counts holds, so the first change of these is a change for the
        // line. A window behind it makes no difference.
        let matter = chosen.map_or(names.len(), |at| at + 1);
        Turn { chosen, until: self.next(&names[..matter], now) }
    }

    /// All moments at which windows begin or end that lines name, in the weeks that say which
    /// windows ever hold together.
    fn changes(&self, now: Timestamp) -> Vec<Timestamp> {
        let mut moments = vec![now];
        let used: BTreeSet<&str> = self.lists.keys().flatten().copied().collect();
        let used: Vec<&str> = used.into_iter().collect();
        for start in [0, SEASON] {
            let second = |after: i64| Timestamp::from_second(now.as_second() + start + after);
            let (Ok(mut at), Ok(end)) = (second(0), second(SPELL)) else { continue };
            moments.push(at);
            let before = moments.len();
            while let Some(next) = self.next(&used, at)
                && next <= end
                && moments.len() - before < MOST_CHANGES
            {
                moments.push(next);
                at = next;
            }
        }
        moments
    }

    /// One moment of each situation that is another than that of now, with the names of the windows
    /// that count then.
    pub(super) fn others(&self, now: Timestamp) -> Vec<(Timestamp, String)> {
        let key = |at: Timestamp| -> Vec<Option<usize>> {
            self.lists.keys().map(|names| self.chosen(names, at)).collect()
        };
        // Of each `when`, which of its windows counts, `None` for none.
        let each = |key: &[Option<usize>]| key.iter().copied().enumerate().collect::<Vec<_>>();
        let mut once: BTreeSet<(usize, Option<usize>)> = each(&key(now)).into_iter().collect();
        let mut seen = BTreeSet::from([key(now)]);
        let mut others = Vec::new();
        for at in self.changes(now) {
            let chosen = key(at);
            let names = self.lists.keys().zip(&chosen);
            let names: BTreeSet<String> =
                names.filter_map(|(names, chosen)| Some(quote(names[(*chosen)?]))).collect();
            let of_each = each(&chosen);
            let is_first = of_each.iter().any(|it| !once.contains(it));
            if seen.insert(chosen) && (others.len() < MOST_SITUATIONS || is_first) {
                once.extend(of_each);
                let words = match names.is_empty() {
                    true => "outside all windows".to_string(),
                    false => {
                        let verb = if names.len() == 1 { "holds" } else { "hold" };
                        let names: Vec<String> = names.into_iter().collect();
                        format!("while {} {verb}", names.join(" and "))
                    }
                };
                others.push((at, words));
            }
        }
        others
    }

    /// Notes on windows that hold together and of which a line names several, and on those that no
    /// line names.
    pub(super) fn notes(&self, policy: &Policy, now: Timestamp, findings: &mut Findings) {
        let changes = if self.lists.keys().any(|names| names.len() > 1) {
            self.changes(now)
        } else {
            Vec::new()
        };
        for (names, at) in &self.lists {
            let together = changes.iter().find_map(|at| {
                let mut holding = names.iter().filter(|name| self.holds(name, *at));
                Some((holding.next()?, holding.next()?))
            });
            if let Some((first, second)) = together {
                let (first, second) = (quote(first), quote(second));
                let message = format!("the windows {first} and {second} overlap");
                findings.push(
                    Diagnostic::info(Kind::Time, *at, message)
                        .help(format!("while both hold {first} counts here, which is first")),
                );
            }
            for (place, name) in names.iter().enumerate().skip(1) {
                let holding = || changes.iter().filter(|at| self.holds(name, **at));
                let counts = holding().any(|at| self.chosen(names, *at) == Some(place));
                if !counts && holding().next().is_some() {
                    let message = format!("the window {} never counts here", quote(name));
                    findings.push(Diagnostic::warning(Kind::Time, *at, message).help(
                        "whenever it holds, one that stands before it holds too: write it in front of that one",
                    ));
                }
            }
        }
        for line in &policy.times {
            let name = line.key.value.as_str();
            let window = self.windows.get(name);
            let never_ends = |(window, zone): &(&Window, &TimeZone)| {
                window.holds(zone, now) && window.next_change(zone, now).is_none()
            };
            if window.is_some_and(never_ends) {
                let message = format!("the window {} always holds", quote(name));
                findings.push(
                    Diagnostic::info(Kind::Time, line.key.at, message)
                        .help("what always holds can stand on the line itself, without `when`"),
                );
            }
            if !self.lists.keys().any(|names| names.contains(&name)) {
                let message = format!("no line says what holds in the window {}", quote(name));
                findings.push(
                    Diagnostic::info(Kind::Time, line.key.at, message).help(format!(
                        "a line's `when` does: `when: {{{name}: {{ceil: 800mbit}}}}`"
                    )),
                );
            }
        }
    }
}

/// The zone that is written, else the host's; `None`: it does not exist, which is an error.
pub(super) fn zone<'f>(
    tz: Option<&Written<String>>,
    facts: &'f Facts,
    findings: &mut Findings,
) -> Option<&'f TimeZone> {
    let Some(tz) = tz else { return Some(&facts.zones.here) };
    match facts.zones.named.get(&tz.value)? {
        Ok(zone) => Some(zone),
        Err(unknown) => {
            findings.push(unknown_zone(tz, unknown));
            None
        }
    }
}

fn unknown_zone(tz: &Written<String>, unknown: &Unknown) -> Diagnostic {
    let name = quote(&tz.value);
    let help = match unknown {
        Unknown::Name(Some(close)) => format!("did you mean `{close}`?"),
        Unknown::Name(None) => {
            "write a name of the tz database, such as `Europe/Berlin` (timedatectl list-timezones), or leave `tz` out for the host's zone".to_string()
        }
        Unknown::NoDatabase => {
            "this host has no database of zones: install the package tzdata".to_string()
        }
    };
    Diagnostic::error(Kind::Time, tz.at, format!("there is no zone {name}")).help(help)
}

fn unknown_window<'a>(
    name: &Written<String>,
    known: impl Iterator<Item = &'a str> + Clone,
) -> Diagnostic {
    let help = match closest(&name.value, known) {
        Some(close) => format!("did you mean `{close}`?"),
        None if name.value.contains(':') => {
            "name it at the top level, `times: {night: {at: \"22:00-06:00\"}}`, and write that name here".into()
        }
        None => {
            format!("add it at the top level: `times: {{{}: {{at: \"22:00-06:00\"}}}}`", name.value)
        }
    };
    let message = format!("there is no window {}", quote(&name.value));
    Diagnostic::error(Kind::Time, name.at, message).help(help)
}

impl Situation<'_> {
    fn turn<'a>(&self, names: impl Iterator<Item = &'a Written<String>>) -> Turn {
        let names: Vec<&str> = names.map(|name| name.value.as_str()).collect();
        match names.is_empty() {
            true => Turn::default(),
            false => self.turns.get(&names).copied().unwrap_or_default(),
        }
    }

    /// Until when all of this is so; `None`: for ever.
    pub(super) fn until(&self) -> Option<Timestamp> {
        self.turns.values().filter_map(|turn| turn.until).min()
    }

    /// The limits of a line that its window writes, and the window; `None`: no window holds.
    pub(super) fn window<'a>(&self, line: &'a policy::Limits) -> Option<&'a policy::When> {
        let turn = self.turn(line.when.iter().map(|when| &when.window));
        line.when.get(turn.chosen?)
    }

    /// What gives the line its limits. `gives`: whether a window does that, by what it writes.
    /// Where none of the line's windows does, they never change anything for it.
    pub(super) fn holds(
        &self,
        line: &policy::Limits,
        gives: impl Fn(&policy::Limits) -> bool,
    ) -> Holds {
        if !line.when.iter().any(|when| gives(&when.limits)) {
            return Holds::default();
        }
        let turn = self.turn(line.when.iter().map(|when| &when.window));
        let window = turn.chosen.and_then(|at| line.when.get(at));
        let window = window.filter(|when| gives(&when.limits)).map(|when| &when.window);
        held(window, turn)
    }

    /// The link's rate.
    pub(super) fn rate(&self, line: &LinkLine) -> Option<Written<Amount>> {
        self.window_of_link(line).and_then(|when| when.rate).or(line.rate)
    }

    /// What is shaped of what arrives by the link.
    pub(super) fn down(&self, line: &LinkLine) -> Option<Written<Amount>> {
        self.window_of_link(line).and_then(|when| when.down).or(line.down)
    }

    fn window_of_link<'a>(&self, line: &'a LinkLine) -> Option<&'a policy::LinkWhen> {
        let turn = self.turn(line.when.iter().map(|when| &when.window));
        line.when.get(turn.chosen?)
    }

    /// What gives the link its rate, of what leaves or of what `arrives`.
    pub(super) fn holds_of_link(&self, line: &LinkLine, arrives: bool) -> Holds {
        let gives = |when: &policy::LinkWhen| match arrives {
            false => when.rate.is_some(),
            true => when.down.is_some(),
        };
        if !line.when.iter().any(gives) {
            return Holds::default();
        }
        let turn = self.turn(line.when.iter().map(|when| &when.window));
        let window = self.window_of_link(line).filter(|when| gives(when));
        held(window.map(|when| &when.window), turn)
    }
}

fn held(window: Option<&Written<String>>, turn: Turn) -> Holds {
    let (by, why) = match window {
        Some(window) => (By::When, Some(window.value.as_str().into())),
        None => (By::Ceil, None),
    };
    Holds { by, why, until: turn.until, ..Holds::default() }
}

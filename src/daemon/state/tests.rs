//! The daemon's state, from event to event, without a kernel.

mod together;

mod leaving;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::*;
use crate::daemon::event::{Newcomer, Swept};
use crate::daemon::passing::Reading;
use crate::daemon::shaping::Found;
use crate::facts::Accounts;
use crate::failure::Failure;
use crate::host::observe::{Led, Passage};
use crate::intent::{Intent, Misfit, Options};
use crate::model::{Matcher, Model, Per};
use crate::netlink::proc_event::{self, ProcEvent};
use crate::netlink::received::Received;
use crate::netlink::redirected::Redirected;
use crate::process::{Handover, PlacedOne, Placement};
use crate::sample::Upkeep;
use crate::times::Timestamp;
use crate::tree::{Claim, KernelState, Key, LinkName, Owner, Tree};
use crate::units::{ClassId, Minor};

const SECOND: Duration = Duration::from_secs(1);

fn parsed(text: &str) -> Arc<Policy> {
    Arc::new(policy::parse(text, "p.yaml").map_err(|report| report.render(false)).unwrap())
}

fn in_force() -> InForce {
    let matcher = Matcher::default();
    InForce {
        model: Model {
            metered: Default::default(),
            links: Per::new(Vec::new()),
            classifiers: [None].into(),
            nodes: Vec::new(),
            matcher,
            inner: None,
            rules: Vec::new(),
            valid_until: None,
            unfit: BTreeMap::new(),
        },
        accounts: Accounts::default(),
        state: KernelState::default(),
        draining: false,
        links: [(LinkName::new("eth0").unwrap(), 2)].into(),
        labelled: BTreeMap::new(),
        good: BTreeMap::new(),
        passed_over: BTreeMap::new(),
        looked_at: Timestamp::from_second(1_800_000_000).unwrap(),
        zone: crate::times::TimeZone::UTC,
        places: true,
    }
}

const POLICY: &str = "version: 1\nlinks: {eth0: 1gbit}\nusers: {bob: 10mbit}\n";

/// The state right after the first apply, with the decisions that were due at once carried out.
fn rested(now: Instant) -> State {
    let file = PathBuf::from("p.yaml");
    let settings = Settings { file, grace: 60 * SECOND, wait: SECOND, kept: None, once: false };
    let intent = Intent::new(parsed(POLICY), Options::default());
    let moment = proc_event::Moment { at: 0, ours: now };
    let people = People::new(settings.grace, Accounts::default(), Some(moment), now);
    let standing = (Standing::new(intent, in_force()), false);
    let mut state = State::new(settings, standing, people, Counts::default(), now);
    let begins = state.begin(None, now);
    assert!(matches!(
        begins[..],
        [Decision::Narrow { exec: false, .. }, Decision::Do(Action::KeepCounts(_))]
    ));
    assert!(matches!(state.on(Event::Time, now)[..], [Decision::ReadFile]), "it may have changed");
    let read = Event::FileRead { found: Found::InForce, watched: true };
    assert!(state.on(read, now).is_empty());
    assert!(state.due(now) > now);
    state
}

fn applied(attempt: Attempt, in_force: InForce, start: Instant) -> Event {
    let applied = Applied { in_force: Some(in_force), ..Applied::default() };
    Event::Applied { asks: None, attempt, start, came_of_it: Ok(Box::new(applied)) }
}

/// Has the state hear of processes; returns the first one that is placed in the turn that then
/// begins, and when the turn ends.
#[track_caller]
fn first_of_a_turn(state: &mut State, told: Vec<ProcEvent>, now: Instant) -> (Newcomer, Instant) {
    let heard = state.on(Event::Processes { told, heard: Ok(Heard::All) }, now);
    assert!(matches!(heard[..], [Decision::GoOnPlacing { until: None }]));
    let turn = state.on(Event::Turn { until: None }, now);
    let [Decision::Do(Action::Place(newcomer)), Decision::GoOnPlacing { until: Some(until) }] =
        turn[..]
    else {
        panic!("one is placed");
    };
    (newcomer, until)
}

#[test]
fn who_logs_in_is_placed_and_has_a_class_made_where_there_is_none() {
    let now = Instant::now();
    let mut state = rested(now);
    let login = proc_event::Event::Uid { pid: 10, uid: 1000, effective: None };
    let told = vec![ProcEvent { at: 1, event: login }];
    let newcomer = Newcomer { pid: 10, uid: 1000, acted_for: None, told: Some(1) };
    let (placed, until) = first_of_a_turn(&mut state, told, now);
    assert_eq!(placed, newcomer);
    let bob = Claim::Owner(Owner::User(Key::new("bob").unwrap()));
    let looked = |waiting: BTreeMap<Claim, u32>| Event::Looked {
        newcomer,
        placed: PlacedOne {
            placement: Placement { waiting, ..Placement::default() },
            stayed: false,
            handover: Handover::default(),
            parent: Some(1),
            home: None,
        },
        open: None,
        owner: None,
    };
    assert!(state.on(looked([(bob, 1)].into()), now).is_empty());
    let turn = state.on(Event::Turn { until: Some(until) }, now);
    assert!(matches!(turn[..], [Decision::Do(Action::HandOver)]), "nobody else waits");
    assert_eq!(state.due(now), now, "his class is missing");
    let decisions = state.on(Event::Time, now);
    assert!(matches!(
        decisions[..],
        [Decision::Do(Action::Apply { attempt: Attempt::Repair, .. })]
    ));
    let request = state.request(Attempt::Repair, BTreeSet::new());
    assert!(!request.who.moves_processes(), "nobody else is looked at");
    let decisions = state.on(applied(Attempt::Repair, in_force(), now), now);
    let again =
        |decision: &Decision| matches!(decision, Decision::Do(Action::Place(it)) if it.pid == 10);
    assert!(decisions.iter().any(again), "now that it may be there");
}

#[test]
fn what_goes_past_an_ifb_is_said_with_who_is_in_the_way_and_is_the_condition() {
    let now = Instant::now();
    let mut state = rested(now);
    let links = ["eth0", "eth1"].map(|name| LinkName::new(name).unwrap());
    let mut arrives = in_force();
    arrives.state.trees.extend(links.iter().map(|link| (link.ingress(), Tree::default())));
    state.on(applied(Attempt::Repair, arrives, now), now);
    let passage = |packets: u64| {
        let redirected = vec![Redirected { program: 5, packets: 0, bytes: 0 }];
        let led = Led { redirected, ..Led::default() };
        let came = Received { packets, bytes: packets * 1_514, dropped: 0 };
        Passage { indexes: [2, 9], before: led.clone(), came, after: led }
    };
    let is_read = |it: &Decision| matches!(it, Decision::Do(Action::ReadPassages));
    let mut looks = Vec::new();
    for n in 1..=3 {
        let at = now + 2 * SECOND * n;
        assert!(state.on(Event::Time, at).iter().any(is_read));
        let each = links.iter().map(|link| (link.clone(), passage(10_000 * u64::from(n))));
        let passages = Some(each.collect());
        let reading = Reading { passages, firewalls: None };
        looks.extend(state.on(Event::Passed { reading, took: Duration::ZERO }, at));
    }
    let [Decision::Do(Action::LookInTheWay(wrong))] = &looks[..] else {
        panic!("one look for both");
    };
    assert!(wrong.iter().eq(&links), "{wrong:?}");
    assert_eq!(state.word(), ("idle", None));
    let suspects = links.iter().map(|link| (link.clone(), vec!["somebody".to_string()])).collect();
    let looked = now + 6 * SECOND;
    let said = state.on(Event::InTheWay { suspects, took: SECOND / 2 }, looked);
    let [
        Decision::Do(Action::Log(log::Level::Warn, line)),
        Decision::Do(Action::Log(log::Level::Warn, _)),
        Decision::Do(Action::TellCondition { word: "bypassed", why: Some(why), is_said: true }),
    ] = &said[..]
    else {
        panic!("it is said");
    };
    assert!(line.contains("came by eth0") && line.ends_with("somebody"), "{line}");
    let both = "not all that arrives by 2 links goes through their ifbs";
    assert_eq!(*why, format!("{both}: {line}"));
    assert!(!state.on(Event::Time, looked + 99 * SECOND).iter().any(is_read), "it took long");
    assert!(state.on(Event::Time, looked + 100 * SECOND).iter().any(is_read));
    // Beside another reason, as long as it holds.
    let found = Found::Unreadable("p.yaml is gone".to_string());
    state.on(Event::FileRead { found, watched: false }, looked);
    assert_eq!(state.word(), ("refusing", Some(format!("{both}; p.yaml is gone"))));
    state.on(applied(Attempt::Repair, in_force(), looked), looked);
    assert_eq!(state.word(), ("refusing", Some("p.yaml is gone".to_string())));
}

#[test]
fn a_link_that_is_passed_over_is_said_until_it_is_not() {
    let mut state = rested(Instant::now());
    let link = LinkName::new("eth1").unwrap();
    let why = "the ceil of `ann` is above that of eth1".to_string();
    let misfit = Misfit { ifindex: 3, why: why.clone() };
    state.standing.in_force.passed_over.insert(link, misfit);
    assert_eq!(state.word(), ("partial", Some(format!("eth1 is not shaped: {why}"))));
    state.standing.in_force.passed_over.clear();
    assert_eq!(state.word(), ("idle", None));
}

#[test]
fn what_comes_with_time_left_over_is_placed_in_the_next_turn() {
    let now = Instant::now();
    let mut state = rested(now);
    let event = |pid| proc_event::Event::Uid { pid, uid: 1000, effective: None };
    let told = [10, 11].map(|pid| ProcEvent { at: 1, event: event(pid) }).to_vec();
    let (_, until) = first_of_a_turn(&mut state, told, now);
    assert!(state.on(Event::Turn { until: Some(until) }, until).is_empty(), "what else has come?");
    assert_eq!(state.due(until), until, "but at once");
    let (next, _) = first_of_a_turn(&mut state, Vec::new(), until);
    assert_eq!(next.pid, 11);
}

/// In a storm the events alone take longer than a turn.
#[test]
fn a_turn_begins_once_the_events_are_taken_in() {
    let heard = Instant::now();
    let mut state = rested(heard);
    let event = |pid| proc_event::Event::Uid { pid, uid: 1000, effective: None };
    let told = [10, 11].map(|pid| ProcEvent { at: 1, event: event(pid) }).to_vec();
    state.on(Event::Processes { told, heard: Ok(Heard::All) }, heard);
    let begins = heard + Duration::from_secs(1);
    let turn = state.on(Event::Turn { until: None }, begins);
    let [Decision::Do(Action::Place(_)), Decision::GoOnPlacing { until: Some(until) }] = turn[..]
    else {
        panic!("one is placed");
    };
    let then = state.on(Event::Turn { until: Some(until) }, begins + Duration::from_micros(100));
    assert!(matches!(then[..], [Decision::Do(Action::Place(Newcomer { pid: 11, .. })), _]));
}

#[test]
fn a_hangup_reads_looks_and_asks_again() {
    let now = Instant::now();
    let mut state = rested(now);
    let said = state.on(Event::Signal(Wish::ReadAgain), now);
    assert!(matches!(said[..], [Decision::Do(Action::Log(log::Level::Info, _))]));
    let mut done = Vec::new();
    while state.due(now) <= now {
        for decision in state.on(Event::Time, now) {
            let then = match decision {
                Decision::Do(Action::Apply { attempt, .. }) => {
                    done.push("look");
                    state.on(applied(attempt, in_force(), now), now)
                }
                Decision::ReadFile => {
                    done.push("read");
                    Vec::new()
                }
                Decision::Ask(question) => {
                    assert!(question.names.contains("bob"), "{question:?}");
                    done.push("ask");
                    Vec::new()
                }
                _ => panic!("more than a hangup asks for"),
            };
            assert!(matches!(then[..], [] | [Decision::Do(Action::Keep)]));
        }
        assert!(done.len() < 4, "{done:?}");
    }
    assert_eq!(done, ["look", "read", "ask"]);
}

#[test]
fn another_policy_is_in_force_once_it_was_applied() {
    let now = Instant::now();
    let mut state = rested(now);
    let text = POLICY.replace("bob", "ann");
    let found = Found::Text(policy::Source::new("p.yaml", &text));
    let decisions = state.on(Event::FileRead { found, watched: true }, now);
    let asks = |decision: &Decision| matches!(decision, Decision::Ask(question) if question.names.len() == 2);
    assert!(decisions.iter().any(asks), "for the names of both");
    let down = Accounts { unavailable: Some("down".to_string()), ..Accounts::default() };
    let decisions = state.on(Event::Answered(Ok(down)), now);
    assert!(
        decisions
            .iter()
            .all(|decision| matches!(decision, Decision::Do(Action::TellCondition { .. })))
    );
    let decisions = state.on(Event::Time, now);
    assert!(matches!(decisions[..], [Decision::Do(Action::Apply { attempt: Attempt::Adopt, .. })]));
    let request = state.request(Attempt::Adopt, BTreeSet::new());
    assert_eq!(*request.intent.policy.source.text, text);
    assert!(request.who.moves_processes(), "each may be another line's");
    assert_eq!(*state.policy().source.text, *POLICY);
    state.on(applied(Attempt::Adopt, in_force(), now), now);
    assert_eq!(*state.policy().source.text, text);
    assert!(!state.request(Attempt::Repair, BTreeSet::new()).who.moves_processes());
}

/// A state in which this policy is refused.
fn refusing(text: &str, now: Instant) -> State {
    let mut state = rested(now);
    let found = Found::Text(policy::Source::new("p.yaml", text));
    state.on(Event::FileRead { found, watched: true }, now);
    let came_of_it = Err(Failure::Usage("there is no link late0".to_string()));
    state.on(Event::Answered(Ok(Accounts::default())), now);
    state.on(Event::Applied { asks: None, attempt: Attempt::Adopt, start: now, came_of_it }, now);
    assert_eq!(state.word().0, "refusing");
    state
}

/// Whether the policy that is refused is being tried again a second after a notice.
fn is_tried_after(state: &mut State, notice: Notice, then: Instant) -> bool {
    let (told, by) = ([notice].into(), BTreeMap::new());
    state.on(Event::Links { told, by, heard: Ok(Heard::All) }, then);
    let then = then + SECOND;
    for _ in 0..5 {
        for decision in state.on(Event::Time, then) {
            if let Decision::Do(Action::Apply { attempt: Attempt::Repair, .. }) = decision {
                state.on(applied(Attempt::Repair, in_force(), then), then);
            }
        }
    }
    state.word().0 == "adopting"
}

#[test]
fn a_policy_that_is_refused_is_tried_again_when_one_of_its_links_is_told_of() {
    let now = Instant::now();
    let mut state = refusing(&POLICY.replace("eth0", "late0"), now);
    let mut is_tried_after =
        |notice, seconds: u32| is_tried_after(&mut state, notice, now + seconds * SECOND);
    let link = |index, name: &str| Notice::Link(index, LinkName::new(name).unwrap(), Vec::new());
    assert!(!is_tried_after(link(8, "other0"), 10), "it does not mean that link");
    assert!(!is_tried_after(Notice::TrafficControl(2), 12), "it is shaped, and that was we");
    assert!(is_tried_after(link(9, "late0"), 14));
    // A qdisc that has gone there may have kept a `down` off it.
    let mut state = refusing(&POLICY.replace("1gbit", "{rate: 1gbit, down: 1gbit}"), now);
    assert!(self::is_tried_after(&mut state, Notice::TrafficControl(2), now + 10 * SECOND));
}

#[test]
fn the_end_of_the_namespace_hands_its_policy_on() {
    let now = Instant::now();
    let mut state = rested(now);
    let ended = state.on(Event::CutOff, now);
    let [Decision::End(Ended::WithNamespace(policy))] = &ended[..] else { panic!("it is over") };
    assert_eq!(*policy.source.text, *POLICY);
    let ended = state.on(Event::Signal(Wish::End), now);
    assert!(matches!(ended[..], [Decision::End(Ended::BySignal)]));
}

#[test]
fn what_the_daemon_does_is_counted_and_written_down_a_moment_later_or_as_it_ends() {
    let now = Instant::now();
    let mut state = rested(now);
    let lost = || Event::Processes { told: Vec::new(), heard: Ok(Heard::Lost) };
    let written = |decisions: &[Decision]| match decisions {
        [Decision::Do(Action::KeepCounts(text)), ..] => Upkeep::parse(text),
        _ => None,
    };
    state.on(lost(), now);
    assert!(state.due(now) <= now + SECOND);
    let placed = Event::Looked {
        newcomer: Newcomer { pid: 10, uid: 1000, acted_for: None, told: Some(1_000_000) },
        placed: PlacedOne {
            placement: Placement { added: 1, ..Placement::default() },
            stayed: false,
            handover: Handover::default(),
            parent: Some(1),
            home: Some(1000),
        },
        open: None,
        owner: None,
    };
    state.on(placed, now + Duration::from_millis(3));
    let upkeep = written(&state.on(Event::Time, now + SECOND)).expect("it is written down");
    assert_eq!((upkeep.lost(), upkeep.placed_in()), (1, Duration::from_millis(2)));
    assert_eq!(written(&state.on(Event::Time, now + 2 * SECOND)), None);
    state.on(lost(), now + 2 * SECOND);
    let ended = state.on(Event::Signal(Wish::End), now + 2 * SECOND);
    assert_eq!(written(&ended).map(|upkeep| upkeep.lost()), Some(2));
    assert!(matches!(ended[1..], [Decision::End(Ended::BySignal)]));
}

#[test]
fn a_sign_of_life_comes_twice_in_the_time_that_the_service_manager_waits() {
    let now = Instant::now();
    let mut state = rested(now);
    state.begin(Some(10 * SECOND), now);
    assert!(state.due(now) <= now + 5 * SECOND);
    let alive = state.on(Event::Time, now + 5 * SECOND);
    assert!(matches!(alive[..], [Decision::Do(Action::SignOfLife), ..]));
}

#[test]
fn engines_are_asked_when_it_is_due_and_an_apply_is_for_news_alone() {
    let now = Instant::now();
    let mut state = rested(now);
    let applied = Applied { in_force: Some(in_force()), ..Applied::default() };
    let came_of_it = Ok(Box::new(applied));
    state.on(
        Event::Applied { asks: Some(now), attempt: Attempt::Repair, start: now, came_of_it },
        now,
    );
    assert_eq!(state.due(now), now);
    assert!(matches!(state.on(Event::Time, now)[..], [Decision::AskEngines]));
    assert!(state.due(now) > now, "once");
    let later = now + 10 * SECOND;
    assert!(state.on(Event::Learned { is_news: false, asks: Some(later) }, now).is_empty());
    assert_eq!(state.due(now), later, "and nothing is applied before");
    assert!(matches!(state.on(Event::Time, later)[..], [Decision::AskEngines]));
    state.on(Event::Learned { is_news: true, asks: None }, later);
    assert_eq!(state.due(later), later);
    let applies = |it: &Decision| matches!(it, Decision::Do(Action::Apply { .. }));
    assert!(state.on(Event::Time, later).iter().any(applies));
}

#[test]
fn a_look_at_all_processes_that_fails_again_and_again_is_said_once_a_minute() {
    let now = Instant::now();
    let mut state = rested(now);
    let said = (0..=61).map(|n| {
        let failed = Event::NotSwept { why: "no descriptor".to_string() };
        state.on(failed, now + n * SECOND).len()
    });
    assert_eq!(said.sum::<usize>(), 2);
}

#[test]
fn a_look_at_all_processes_that_fails_is_tried_again_a_second_later() {
    let now = Instant::now();
    let mut state = rested(now);
    state.on(Event::NotSwept { why: "no descriptor".to_string() }, now);
    let later = now + SECOND;
    let sweeps = |it: &Decision| matches!(it, Decision::Do(Action::Sweep));
    // One task at a time.
    assert!((0..3).any(|_| state.on(Event::Time, later).iter().any(sweeps)));
}

/// Where a look at all processes takes long, containers that come one after the other cause none
/// upon the other.
#[test]
fn proxies_that_are_another_users_now_are_looked_for_after_a_rest() {
    let now = Instant::now();
    let mut state = rested(now);
    let swept = Swept {
        start: now,
        running: BTreeSet::new(),
        open: BTreeMap::new(),
        placement: Placement::default(),
        ended: BTreeSet::new(),
    };
    let ended = now + SECOND;
    state.on(Event::Swept(swept), ended);
    let mut other = in_force();
    let bob = Owner::User(Key::new("bob").unwrap());
    other.model.matcher.proxied.insert("172.17.0.2".parse().unwrap(), bob);
    state.on(applied(Attempt::Repair, other, ended), ended);
    assert_eq!(state.people.due(ended), Some(ended + SECOND));
}

#[test]
fn a_guests_link_without_an_owner_is_looked_at_again() {
    let start = Instant::now();
    let mut state = rested(start);
    let mut unowned = in_force();
    unowned.labelled = [(LinkName::new("veth1").unwrap(), 7)].into();
    let applied = Applied { in_force: Some(unowned), ..Applied::default() };
    let attempt = Attempt::Repair;
    state.on(
        Event::Applied { asks: None, attempt, start, came_of_it: Ok(Box::new(applied)) },
        start,
    );
    let due = state.due(start);
    assert!(due <= start + Duration::from_millis(100), "{:?}", due - start);
    let mut now = due;
    let looks = (0..10).any(|_| {
        let decisions = state.on(Event::Time, now);
        now = state.due(now).max(now);
        decisions.iter().any(|it| matches!(it, Decision::Do(Action::Apply { .. })))
    });
    assert!(looks && now < start + SECOND, "{:?}", now - start);
}

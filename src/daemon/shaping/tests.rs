//! The daemon's state against a small model of the world: the file changes in every way, NSS is
//! slow, applies fail or meet a lock, and somebody keeps changing links.

mod adopting;
mod links;
mod refused;

use super::super::chance::Chance;
use super::*;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

impl Text for Source {
    fn source(&self) -> &Source {
        self
    }
}

fn source(text: &str) -> Source {
    Source::new("policies.yaml", text)
}

fn refusal(why: &str) -> Refusal {
    Refusal { text: why.to_string(), brief: why.to_string() }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernel {
    Obeys,
    Refuses,
    /// New policies are refused, but the one in force can be repaired.
    RefusesNew,
    IsLocked,
}

struct World {
    now: Instant,
    shaping: Shaping<Source>,
    /// The file's text; `None`: there is no file. A text that begins with `bad` is no policy, and
    /// one that begins with `unfit` is refused here.
    file: Option<String>,
    is_being_written: bool,
    /// The file's text at the look before.
    seen: Option<String>,
    /// The text that was refused since the file last changed.
    refused: Option<String>,
    in_force: String,
    kernel: Kernel,
    /// Links are such that `unfit` ones hold.
    fits: bool,
    drains: bool,
    /// How long an apply takes.
    takes: Duration,
    names_by: Option<Instant>,
    /// Links that somebody changes again a moment after each repair.
    fought: BTreeSet<LinkName>,
    /// Before which time each attempt may not be tried again.
    pauses: BTreeMap<(Attempt, String), Instant>,
    /// How many repairs of such links there were.
    fights: usize,
    /// How many of them were counted.
    counted: usize,
    repairs: usize,
    adoptions: usize,
    reads: usize,
    complaints: Vec<String>,
}

impl World {
    fn new() -> World {
        let now = Instant::now();
        let (shaping, orders) = Shaping::new("policies.yaml".to_string(), false, now);
        assert_eq!(orders, []);
        World {
            now,
            shaping,
            file: Some("good".to_string()),
            is_being_written: false,
            seen: Some("good".to_string()),
            refused: None,
            in_force: "good".to_string(),
            kernel: Kernel::Obeys,
            fits: false,
            drains: false,
            takes: Duration::ZERO,
            names_by: None,
            fought: BTreeSet::new(),
            pauses: BTreeMap::new(),
            fights: 0,
            counted: 0,
            repairs: 0,
            adoptions: 0,
            reads: 0,
            complaints: Vec::new(),
        }
    }

    fn word(&self) -> &'static str {
        self.shaping.word().0
    }

    fn tell(&mut self, event: Event<Source>) {
        let orders = self.shaping.on(event, self.now);
        for order in orders {
            match order {
                Order::Read => self.read(),
                Order::Parse(source) => {
                    let parsed = match source.text.starts_with("bad") {
                        true => Err(refusal(&format!("{}: a mistake", source.text))),
                        false => Ok(source),
                    };
                    if parsed.is_err() {
                        self.refused.clone_from(&self.file);
                    }
                    self.tell(Event::Parsed(parsed));
                }
                Order::AskForNames => self.names_by = Some(self.now + 300 * MILLISECOND),
                Order::Adopt => {
                    let policy =
                        self.shaping.candidate().expect("a policy on its way in").text.to_string();
                    assert_ne!(Some(&policy), self.refused.as_ref(), "it was refused");
                    self.adoptions += 1;
                    let outcome = self.apply(Attempt::Adopt, &policy);
                    self.tell(Event::Applied { attempt: Attempt::Adopt, outcome });
                }
                Order::Repair { held, collects } => {
                    self.repairs += 1;
                    let policy = self.in_force.clone();
                    let mut outcome = self.apply(Attempt::Repair, &policy);
                    if let Outcome::InForce { repaired, drains, .. } = &mut outcome {
                        *repaired = self.fought.difference(&held).cloned().collect();
                        self.fights += repaired.len();
                        self.drains &= !collects;
                        *drains = self.drains;
                    }
                    self.tell(Event::Applied { attempt: Attempt::Repair, outcome });
                }
                Order::LookAtRetired => assert!(self.drains),
                Order::Complain(complaint) => self.complaints.push(complaint),
                Order::CountRepair { .. } => self.counted += 1,
                Order::Warn(_) | Order::Inform(_) => {}
            }
        }
    }

    fn read(&mut self) {
        self.reads += 1;
        let found = match &self.file {
            None => Found::Unreadable("there is no such file".to_string()),
            Some(_) if self.is_being_written => Found::BeingWritten(2 * SECOND),
            Some(text) if self.seen.as_ref() != Some(text) => {
                self.seen = Some(text.clone());
                Found::Changing
            }
            Some(text) if *text == self.in_force => Found::InForce,
            Some(text) => Found::Text(source(text)),
        };
        self.tell(Event::FileRead { watched: self.file.is_some(), found });
    }

    fn apply(&mut self, attempt: Attempt, policy: &str) -> Outcome {
        self.now += self.takes;
        let took = Some(self.takes.max(MILLISECOND));
        let key = (attempt, policy.to_string());
        let pause = self.pauses.get(&key);
        assert!(pause.is_none_or(|pause| *pause <= self.now), "{attempt:?} again too soon");
        match self.kernel {
            Kernel::IsLocked => {
                self.pauses.insert(key, self.now + LOCKED);
                Outcome::Locked("another run holds the lock".to_string())
            }
            Kernel::RefusesNew if attempt == Attempt::Repair => {
                let drains = self.drains;
                Outcome::InForce { took, repaired: BTreeSet::new(), drains }
            }
            Kernel::Refuses | Kernel::RefusesNew => {
                self.pauses.insert(key, self.now + SECOND);
                Outcome::Failed("the kernel says no".to_string())
            }
            Kernel::Obeys if policy.starts_with("unfit") && !self.fits => {
                self.refused = Some(policy.to_string());
                Outcome::Refused(refusal("no such link"))
            }
            Kernel::Obeys => {
                self.pauses.clear();
                self.in_force = policy.to_string();
                let drains = self.drains;
                Outcome::InForce { took, repaired: BTreeSet::new(), drains }
            }
        }
    }

    /// Whatever is due until then happens in its turn.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        for step in 0.. {
            assert!(step < 200_000, "it never rests: {:?}", self.shaping);
            let named = self.names_by.unwrap_or(until);
            let next = named.min(self.shaping.due());
            if next >= until {
                break;
            }
            self.now = self.now.max(next);
            if self.names_by == Some(next) {
                self.names_by = None;
                self.tell(Event::Named { asks: false });
                continue;
            }
            let before = (self.repairs, self.adoptions, self.reads, self.names_by);
            self.tell(Event::Time);
            let after = (self.repairs, self.adoptions, self.reads, self.names_by);
            assert_ne!(before, after, "due, and nothing was to be done: {:?}", self.shaping);
        }
        self.now = self.now.max(until);
    }

    fn write(&mut self, text: Option<&str>) {
        if self.file.as_deref() != text {
            self.refused = None;
            self.pauses.retain(|(attempt, _), _| *attempt != Attempt::Adopt);
        }
        self.file = text.map(str::to_string);
    }

    /// Links are otherwise than they were, so that what was refused may be tried again.
    fn links_differ(&mut self) {
        self.refused = None;
        self.tell(Event::LinksDiffer);
    }

    fn something_happens(&mut self, chance: &mut Chance) {
        match chance.below(12) {
            0..=2 => {
                let texts = ["good", "better", "best", "bad 1", "bad 2", "unfit 1", "unfit 2"];
                self.write(Some(chance.of(&texts)));
                if chance.below(4) > 0 {
                    self.tell(Event::FileTold);
                }
            }
            3 => self.write(None),
            4 => self.is_being_written = chance.below(3) == 0,
            5 => {
                self.kernel = chance.of(&[
                    Kernel::Obeys,
                    Kernel::Refuses,
                    Kernel::RefusesNew,
                    Kernel::IsLocked,
                ]);
            }
            6 => {
                let has_come = chance.below(2) == 0;
                self.tell(Event::LinksTold { touched: Touched::new(), has_come });
                if has_come {
                    self.links_differ();
                }
            }
            7 => {
                let by = self.now + chance.of(&[Duration::ZERO, 200 * MILLISECOND]);
                self.tell(Event::Wanted { by });
            }
            8 => self.drains = chance.below(2) == 0,
            9 if chance.below(4) == 0 => {
                self.refused = None;
                self.pauses.clear();
                self.tell(Event::Hangup);
            }
            10 => self.tell(Event::Named { asks: true }),
            _ => {
                let times = [MILLISECOND, 60 * MILLISECOND, SECOND, 10 * SECOND, 2 * MINUTE];
                self.pass(chance.of(&times));
            }
        }
    }
}

/// Three thousand histories. Each ends in calm: then the file's policy is in force, or the daemon
/// says why not, and there is next to nothing to do.
#[test]
fn what_the_file_holds_comes_into_force_or_is_refused_whatever_happens() {
    for seed in 1..=3_000_u64 {
        let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut world = World::new();
        for _ in 0..chance.below(100) {
            world.something_happens(&mut chance);
        }
        (world.kernel, world.is_being_written) = (Kernel::Obeys, false);
        world.pass(5 * MINUTE);
        let (word, why) = world.shaping.word();
        match &world.file {
            Some(text) if !text.starts_with("bad") && !text.starts_with("unfit") => {
                assert_eq!(&world.in_force, text, "{seed}: {word} {why:?}");
                assert_eq!((word, why), ("idle", None), "{seed}");
            }
            _ => assert_eq!(word, "refusing", "{seed}: {why:?}"),
        }
        assert_eq!(world.shaping.candidate(), None, "{seed}");
        let before = (world.repairs, world.adoptions, world.complaints.len());
        world.pass(10 * MINUTE);
        assert!(world.repairs - before.0 <= 11, "{seed}: {} repairs", world.repairs - before.0);
        let after = (world.adoptions, world.complaints.len());
        assert_eq!(after, (before.1, before.2), "{seed}: it was said, and is not tried again");
        // An event is followed by a look soon.
        let before = world.repairs;
        world.tell(Event::Wanted { by: world.now });
        world.pass(SECOND);
        assert_eq!(world.repairs, before + 1, "{seed}");
        world.tell(Event::LinksTold { touched: Touched::new(), has_come: true });
        world.pass(2 * MILLISECOND);
        assert_eq!(world.repairs, before + 2, "{seed}");
    }
}

#[test]
fn what_fails_is_tried_again_later_and_later_and_said_once() {
    let mut world = World::new();
    world.kernel = Kernel::Refuses;
    world.tell(Event::Wanted { by: world.now });
    let (mut pauses, mut last): (Vec<u64>, Option<Instant>) = (Vec::new(), None);
    while pauses.len() < 9 {
        // However much happens meanwhile.
        world.tell(Event::Wanted { by: world.now });
        let before = world.repairs;
        world.pass(MILLISECOND);
        if world.repairs > before {
            pauses.extend(last.map(|last| (world.now - last).as_secs()));
            last = Some(world.now);
            assert_eq!((world.word(), world.repairs), ("failing", before + 1));
        }
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    assert_eq!(world.complaints.len(), 1);
    assert_eq!(world.shaping.failures(), 10);
    world.kernel = Kernel::Obeys;
    world.pass(MINUTE);
    assert_eq!((world.word(), world.shaping.failures()), ("idle", 0));
}

/// A new policy that the kernel refuses again and again, while the policy in force is kept in
/// force.
#[test]
fn a_policy_that_fails_is_tried_again_and_what_is_in_force_is_looked_after() {
    let mut world = World::new();
    world.write(Some("better"));
    world.tell(Event::FileTold);
    world.pass(400 * MILLISECOND);
    assert_eq!(world.word(), "adopting");
    world.kernel = Kernel::Refuses;
    world.pass(2 * SECOND);
    assert_eq!((world.word(), world.in_force.as_str()), ("failing", "good"));
    assert_eq!(*world.shaping.candidate().unwrap(), source("better"));
    let (repairs, adoptions) = (world.repairs, world.adoptions);
    world.pass(10 * MINUTE);
    assert!(world.repairs - repairs >= 5, "{}", world.repairs - repairs);
    assert!((5..20).contains(&(world.adoptions - adoptions)), "{}", world.adoptions - adoptions);
    world.kernel = Kernel::Obeys;
    world.pass(MINUTE + SECOND);
    assert_eq!((world.word(), world.in_force.as_str()), ("idle", "better"));
}

#[test]
fn another_run_is_waited_for_and_named() {
    let mut world = World::new();
    world.kernel = Kernel::IsLocked;
    world.write(Some("better"));
    world.tell(Event::FileTold);
    world.pass(20 * SECOND);
    assert_eq!(world.shaping.word(), ("waiting", Some("another run holds the lock".to_string())));
    assert!((30..45).contains(&world.adoptions), "{}", world.adoptions);
    world.kernel = Kernel::Obeys;
    world.pass(LOCKED);
    assert_eq!(world.in_force, "better");
}

#[test]
fn a_link_that_is_fought_over_is_left_alone_longer_and_longer() {
    let mut world = World::new();
    let link = LinkName::new("eth0").unwrap();
    world.fought = BTreeSet::from([link.clone()]);
    let end = world.now + MINUTE;
    let mut held = 0;
    while world.now < end {
        world.tell(Event::LinksTold { touched: links::all(&world.fought), has_come: false });
        held += usize::from(world.shaping.backoff.held(world.now).contains(&link));
        world.pass(10 * MILLISECOND);
    }
    assert!(held > 5_000, "{held} of 6,000 moments");
    assert!(world.fights <= 12, "{} repairs of it", world.fights);
    assert_eq!(world.counted, world.fights);
}

#[test]
fn what_drains_is_looked_at_less_and_less_and_by_no_look_that_is_too_young() {
    let mut world = World::new();
    world.drains = true;
    world.tell(Event::Wanted { by: world.now });
    world.pass(MILLISECOND);
    assert_eq!(world.word(), "draining");
    // Looks in between are too young to be compared.
    for _ in 0..15 {
        world.tell(Event::Wanted { by: world.now });
        world.pass(100 * MILLISECOND);
        assert_eq!((world.word(), world.drains), ("draining", true));
    }
    world.pass(SECOND);
    assert_eq!((world.word(), world.drains), ("idle", false));
}

/// As while somebody's time of grace is over: a repair each second, and each takes a while.
#[test]
fn looks_that_come_regularly_do_not_keep_what_drains_from_being_compared() {
    for takes in [1, 10, 300] {
        let mut world = World::new();
        world.takes = takes * MILLISECOND;
        world.drains = true;
        for _ in 0..5 {
            world.tell(Event::Wanted { by: world.now });
            let next = world.now + SECOND;
            world.pass(MILLISECOND);
            world.pass(next - world.now);
        }
        assert!(!world.drains, "{takes} ms");
    }
}

#[test]
fn a_link_that_was_changed_by_others_once_is_not_fought_over() {
    let mut world = World::new();
    let link = LinkName::new("eth0").unwrap();
    world.fought = BTreeSet::from([link.clone()]);
    world.tell(Event::LinksTold { touched: links::all(&world.fought), has_come: false });
    // What is repaired there later has reasons of ours.
    for _ in 0..20 {
        world.tell(Event::Wanted { by: world.now });
        world.pass(SECOND);
        assert!(!world.shaping.backoff.held(world.now).contains(&link));
    }
}

#[test]
fn classes_that_do_not_become_quiet_are_looked_at_less_and_less() {
    let (mut now, mut pauses) = (Instant::now(), Vec::new());
    let (mut shaping, mut orders) = Shaping::<Source>::new("policies.yaml".to_string(), true, now);
    let mut last: Option<Instant> = None;
    while pauses.len() < 7 {
        if orders.contains(&Order::LookAtRetired) {
            pauses.extend(last.map(|last| (now - last).as_secs()));
            last = Some(now);
        }
        now = now.max(shaping.due());
        orders = match shaping.on(Event::Time, now)[..] {
            [Order::Repair { .. }] => {
                let outcome =
                    Outcome::InForce { took: None, repaired: BTreeSet::new(), drains: true };
                shaping.on(Event::Applied { attempt: Attempt::Repair, outcome }, now)
            }
            _ => Vec::new(),
        };
    }
    assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60]);
}

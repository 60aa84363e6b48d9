//! What engines said, kept: an id never means another container; and when engines are asked about
//! what they did not say. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Answer, Described};
use crate::facts::{Container, Engine, Guests, NamespaceId};

/// The least time between an answer and the next question: a container that comes waits so long at
/// most because of another one.
const PAUSE: Duration = Duration::from_millis(50);
/// The pause after a first answer that lacks a container: the question may be older than the
/// container, or its network may be on the way.
const SOON: Duration = Duration::from_millis(100);
/// The same after a second answer.
const LATER: Duration = Duration::from_secs(1);
/// The same after a third; each one after it is twice as long.
const AGAIN: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(600);

/// What engines said so far of containers that run, and last of others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    by_id: BTreeMap<String, Described>,
    silent: Vec<String>,
    /// The containers of the last look that have an engine with a socket.
    running: BTreeMap<String, Option<NamespaceId>>,
    /// Those of them of which an engine may say more.
    lacking: BTreeMap<String, Lack>,
    answered: Option<Instant>,
}

/// A container of which an engine may say more. Many never are said more of: a path does not tell
/// a build's container from Docker's, and Podman may run without its socket.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Lack {
    /// How many answers came without it.
    answers: u32,
    /// When engines are asked about it.
    next: Instant,
}

impl Known {
    /// Takes in which containers run. The addresses of others are forgotten: one that is started
    /// again may have another.
    pub fn look(&mut self, guests: &Guests, now: Instant) {
        let has_an_engine = |it: &&Container| matches!(it.engine, Engine::Docker | Engine::Podman);
        let containers = guests.containers.iter().filter(has_an_engine);
        let running = containers.map(|it| (it.id.clone(), it.namespace)).collect();
        let before = std::mem::replace(&mut self.running, running);
        for (id, described) in &mut self.by_id {
            // Either it does not run, or its restart fell between two looks. The name stays, or its
            // link would be nobody's until the engine answers.
            let [was, is] = [&before, &self.running].map(|it| it.get(id).copied().flatten());
            let has_moved = was.is_some() && is.is_some() && was != is;
            if has_moved || !self.running.contains_key(id) {
                described.addresses.clear();
                self.lacking.remove(id);
            }
        }
        self.note_lacking(now);
    }

    /// Takes in an answer. Containers that are in it no longer are forgotten, unless they run and
    /// an engine was silent. Whether it has any news of containers that run.
    pub fn learn(&mut self, answer: Answer, now: Instant) -> bool {
        let before = self.by_id.clone();
        let keeps = !answer.silent.is_empty();
        self.by_id.retain(|id, _| keeps && self.running.contains_key(id));
        self.silent = answer.silent;
        let described = answer.containers.into_iter().map(|it| (it.id.clone(), it));
        self.by_id.extend(described);
        self.answered = Some(now);
        for lack in self.lacking.values_mut() {
            let pause = match lack.answers {
                0 => SOON,
                1 => LATER,
                more => AGAIN.saturating_mul(2_u32.saturating_pow(more - 2)).min(LONGEST),
            };
            *lack = Lack { answers: lack.answers.saturating_add(1), next: now + pause };
        }
        self.note_lacking(now);
        self.running.keys().any(|id| self.by_id.get(id) != before.get(id))
    }

    /// When engines are to be asked; `None`: they have said all of the containers that run.
    pub fn due(&self) -> Option<Instant> {
        let next = self.lacking.values().map(|lack| lack.next).min()?;
        Some(self.answered.map_or(next, |answered| next.max(answered + PAUSE)))
    }

    fn note_lacking(&mut self, now: Instant) {
        let lacks = |id: &String| match self.by_id.get(id) {
            // Docker lists a container before its network has given it an address.
            Some(described) => described.engine == Engine::Docker && described.addresses.is_empty(),
            None => true,
        };
        self.lacking.retain(|id, _| self.running.contains_key(id) && lacks(id));
        for id in self.running.keys().filter(|id| lacks(id)) {
            let unasked = Lack { answers: 0, next: now };
            self.lacking.entry(id.clone()).or_insert(unasked);
        }
    }

    /// Fills in what is known of containers.
    pub fn describe(&self, guests: &mut Guests) {
        for container in &mut guests.containers {
            let Some(described) = self.by_id.get(&container.id) else { continue };
            container.name.clone_from(&described.name);
            container.labels.clone_from(&described.labels);
            container.addresses.clone_from(&described.addresses);
            // A path without systemd tells Docker's from others' by nothing.
            container.engine = described.engine;
        }
        guests.silent.clone_from(&self.silent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(engine: Engine, id: &str) -> Container {
        Container {
            engine,
            id: id.to_string(),
            name: None,
            labels: BTreeMap::new(),
            addresses: Vec::new(),
            namespace: None,
            slice: None,
            uid: None,
        }
    }

    fn described(id: &str, name: &str) -> Described {
        Described {
            engine: Engine::Docker,
            id: id.to_string(),
            name: Some(name.to_string()),
            labels: [("owner".to_string(), "bob".to_string())].into(),
            addresses: vec!["172.17.0.2".parse().unwrap()],
            pid: None,
        }
    }

    fn running(ids: &[&str]) -> Guests {
        let containers = ids.iter().map(|id| container(Engine::Docker, id)).collect();
        Guests { containers, ..Guests::default() }
    }

    fn said(containers: Vec<Described>) -> Answer {
        Answer { containers, silent: Vec::new() }
    }

    #[test]
    fn what_was_said_is_kept_while_an_engine_is_silent() {
        let (mut known, now) = (Known::default(), Instant::now());
        let containers = vec![container(Engine::Docker, "1"), container(Engine::Lxc, "web")];
        let mut guests = Guests { containers, ..Guests::default() };
        known.look(&guests, now);
        assert_eq!(known.due(), Some(now));
        let answer = said(vec![described("1", "db")]);
        assert!(known.learn(answer.clone(), now));
        assert!(!known.learn(answer, now), "it is known");
        assert_eq!(known.due(), None);
        let silence = Answer { silent: vec!["Docker: no answer".into()], ..Answer::default() };
        known.learn(silence, now);
        known.describe(&mut guests);
        let db = &guests.containers[0];
        assert_eq!((db.name.as_deref(), db.labels["owner"].as_str()), (Some("db"), "bob"));
        assert_eq!(db.addresses.len(), 1);
        assert_eq!(guests.silent, ["Docker: no answer"]);
        known.learn(Answer::default(), now);
        assert!(known.due().is_some(), "an engine without containers knows none");
    }

    #[test]
    fn about_what_no_engine_describes_they_are_asked_ever_more_seldom() {
        let (mut known, mut now) = (Known::default(), Instant::now());
        known.look(&running(&["build"]), now);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            assert!(!known.learn(Answer::default(), now), "no news");
            known.look(&running(&["build"]), now);
            let due = known.due().unwrap();
            pauses.push((due - now).as_millis());
            now = due;
        }
        assert_eq!(pauses[..3], [100, 1_000, 10_000]);
        assert_eq!(
            pauses[3..].iter().map(|it| it / 1_000).collect::<Vec<_>>(),
            [20, 40, 80, 160, 320, 600, 600]
        );
        known.look(&running(&["build", "new"]), now);
        assert_eq!(known.due(), Some(now), "about another one at once");
        known.learn(said(vec![described("new", "web")]), now);
        known.look(&running(&["build", "another"]), now);
        assert_eq!(known.due(), Some(now + PAUSE), "but not question upon question");
    }

    #[test]
    fn what_does_not_run_is_no_news() {
        let (mut known, now) = (Known::default(), Instant::now());
        known.look(&running(&["1"]), now);
        assert!(known.learn(said(vec![described("1", "db")]), now));
        assert!(!known.learn(said(vec![described("1", "db"), described("2", "job")]), now));
        assert!(!known.learn(said(vec![described("1", "db")]), now));
        known.learn(said(vec![described("1", "db"), described("2", "job")]), now);
        let silence = Answer { silent: vec!["Docker: no answer".into()], ..Answer::default() };
        known.learn(silence, now);
        assert_eq!(known.by_id.len(), 1, "nor is it kept for ever");
    }

    #[test]
    fn a_container_that_is_started_again_has_no_address_until_its_engine_says_so() {
        let (mut known, now) = (Known::default(), Instant::now());
        known.look(&running(&["1"]), now);
        known.learn(said(vec![described("1", "db")]), now);
        let later = now + AGAIN;
        known.look(&running(&[]), later);
        assert_eq!(known.due(), None);
        let mut again = running(&["1"]);
        known.look(&again, later);
        assert_eq!(known.due(), Some(later), "its engine is asked at once");
        known.describe(&mut again);
        let db = &again.containers[0];
        assert_eq!((db.name.as_deref(), db.addresses.len()), (Some("db"), 0));
        let not_yet = Described { addresses: Vec::new(), ..described("1", "db") };
        assert!(!known.learn(said(vec![not_yet.clone()]), later));
        assert_eq!(known.due(), Some(later + SOON), "its network may be on the way");
        known.learn(said(vec![not_yet]), later);
        assert_eq!(known.due(), Some(later + LATER), "or it has none");
        known.learn(said(vec![described("1", "db")]), later);
        assert_eq!(known.due(), None);
    }

    #[test]
    fn a_restart_between_two_looks_takes_the_address_and_not_the_name() {
        let (mut known, now) = (Known::default(), Instant::now());
        let mut guests = running(&["1"]);
        for (number, addresses) in [(4, 1), (4, 1), (5, 0)] {
            guests.containers[0].namespace = Some(NamespaceId(number));
            known.look(&guests, now + AGAIN);
            if known.by_id.is_empty() {
                known.learn(said(vec![described("1", "db")]), now);
            }
            known.describe(&mut guests);
            assert_eq!(guests.containers[0].name.as_deref(), Some("db"));
            assert_eq!(guests.containers[0].addresses.len(), addresses);
        }
        assert_eq!(known.due(), Some(now + AGAIN));
    }
}

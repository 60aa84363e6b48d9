//! What engines said, kept: an id never means another container. Pure.

use std::collections::BTreeMap;

use super::{Answer, Described};
use crate::facts::{Container, Engine, Guests};

/// What engines said so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    by_id: BTreeMap<String, Described>,
    silent: Vec<String>,
}

impl Known {
    /// Takes in an answer. Containers that are in it no longer are forgotten, unless an engine was
    /// silent. Whether it has any news.
    pub fn learn(&mut self, answer: Answer) -> bool {
        let before = self.clone();
        if answer.silent.is_empty() {
            self.by_id.clear();
        }
        self.silent = answer.silent;
        let described = answer.containers.into_iter().map(|it| (it.id.clone(), it));
        self.by_id.extend(described);
        *self != before
    }

    /// Whether there is a container of which its engine could say more.
    pub fn lacks_some(&self, guests: &Guests) -> bool {
        let has_an_engine = |it: &&Container| matches!(it.engine, Engine::Docker | Engine::Podman);
        let mut with_engines = guests.containers.iter().filter(has_an_engine);
        with_engines.any(|container| !self.by_id.contains_key(&container.id))
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

    #[test]
    fn what_was_said_is_kept_while_an_engine_is_silent() {
        let mut known = Known::default();
        let containers = vec![container(Engine::Docker, "1"), container(Engine::Lxc, "web")];
        let mut guests = Guests { containers, ..Guests::default() };
        assert!(known.lacks_some(&guests));
        let answer = Answer { containers: vec![described("1", "db")], silent: Vec::new() };
        assert!(known.learn(answer.clone()));
        assert!(!known.learn(answer), "it is known");
        assert!(!known.lacks_some(&guests));
        known.learn(Answer { silent: vec!["Docker: no answer".into()], ..Answer::default() });
        known.describe(&mut guests);
        let db = &guests.containers[0];
        assert_eq!((db.name.as_deref(), db.labels["owner"].as_str()), (Some("db"), "bob"));
        assert_eq!(db.addresses.len(), 1);
        assert_eq!(guests.silent, ["Docker: no answer"]);
        known.learn(Answer::default());
        assert!(known.lacks_some(&guests), "an engine without containers knows none");
    }
}

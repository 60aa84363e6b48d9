//! What was counted and is not in the file yet. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::book::{Added, Book, Class};
use super::record::Record;
use crate::quota::Traffic;
use crate::tree::Owner;

/// What several counts have added.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Unwritten {
    /// What comes before the count, one after the other: lines that are called otherwise, and what
    /// is dated back.
    before: Vec<Record>,
    pub(super) traffic: BTreeMap<(Owner, i64), Traffic>,
    classes: BTreeSet<Class>,
    renamed: BTreeMap<Owner, String>,
    /// To be written although nothing was sent.
    pub(super) begins: bool,
    /// No record says it in its place: the file is to be written anew.
    pub(super) is_anew: bool,
}

impl Unwritten {
    /// Takes in one more count; `others`: the owners who were somebody else until then.
    pub(super) fn add(&mut self, added: Added, others: &BTreeSet<Owner>) {
        let unwritten = std::mem::take(&mut self.traffic);
        for ((owner, at), traffic) in unwritten {
            let heir = added.moves.iter().find(|(from, _)| *from == owner);
            let owner = match heir {
                Some((_, to)) => to.clone(),
                // What another account of the same uid has used, or another person of the same
                // line, is not written behind its new name.
                None if others.contains(&owner) => continue,
                None => owner,
            };
            let at = added.dated.filter(|(now, _)| at > *now).map_or(at, |(_, to)| to);
            self.count((owner, at), traffic);
        }
        if !added.moves.is_empty() {
            // A name that was not written goes with its account.
            let renamed = &mut self.renamed;
            let names: Vec<_> = added.moves.iter().map(|(from, _)| renamed.remove(from)).collect();
            for ((_, to), name) in added.moves.iter().zip(names) {
                renamed.remove(to);
                renamed.extend(name.map(|name| (to.clone(), name)));
            }
            self.before.push(Record::Move(added.moves));
        }
        self.before.extend(added.dated.map(|(now, at)| Record::DateBack { now, at }));
        added.traffic.into_iter().for_each(|(key, traffic)| self.count(key, traffic));
        self.classes.extend(added.classes);
        self.renamed.extend(added.renamed);
        self.begins |= added.begins;
    }

    fn count(&mut self, key: (Owner, i64), traffic: Traffic) {
        let sum = self.traffic.entry(key).or_default();
        *sum = sum.plus(traffic);
    }

    /// Somebody has written a grant or a reset meanwhile. What was counted before a reset is not
    /// written behind it, and a grant is not dated back by what was counted before it.
    pub(super) fn follow(&mut self, change: &Record) {
        match change {
            Record::Reset(owner) => self.traffic.retain(|(of, _), _| of != owner),
            _ => {
                let is_dated = |record: &Record| matches!(record, Record::DateBack { .. });
                self.is_anew |= self.before.iter().any(is_dated);
            }
        }
    }

    /// It as records, of a book that has it.
    pub(super) fn records(&self, book: &Book) -> Vec<Record> {
        let Book { born, latest, epoch, last, .. } = book;
        let traffic = self.traffic.iter().map(|((owner, at), it)| (owner.clone(), *at, *it));
        let classes = self.classes.iter();
        let renamed = self.renamed.iter().map(|(owner, name)| (owner.clone(), name.clone()));
        let count = Record::Count {
            born: born.unwrap_or(*latest),
            latest: *latest,
            epoch: epoch.clone(),
            renamed: renamed.collect(),
            traffic: traffic.collect(),
            readings: classes.map(|class| (*class, last.get(class).cloned())).collect(),
        };
        self.before.iter().cloned().chain([count]).collect()
    }
}

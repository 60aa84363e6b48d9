//! What a look is for, and so what is read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::accounts::{How, Question};
use crate::cgroup::{self, Instance};
use crate::facts::{Accounts, Observation};
use crate::process::{self, Scan};
use crate::tree::{Claim, Foreign};
use crate::units::ClassId;

/// What a look is for.
#[derive(Clone, Debug, Default)]
pub struct Wanted<'a> {
    /// Links that somebody means by name: asked for one by one where no list of all is whole.
    pub links: BTreeSet<String>,
    /// Who the accounts are; `None`: nobody is asked for.
    pub accounts: Option<Whom<'a>>,
    /// Which of `/proc` to read.
    pub processes: Processes,
    /// Which systemd units there are.
    pub units: bool,
    /// Which of the instance's directories are read.
    pub directories: Directories<'a>,
}

/// Which of the instance's directories are read.
#[derive(Clone, Debug, Default)]
pub enum Directories<'a> {
    /// Every one.
    #[default]
    All,
    /// Those of the claims that a run has made, written or removed since the look that saw
    /// `before`. What it did to them has no effect on any other directory, and the lock keeps other
    /// runs away: what else is there was seen by that look.
    Touched {
        /// What that look saw.
        before: &'a Observation,
        /// What the run did something to.
        touched: &'a BTreeSet<Claim>,
    },
}

/// Whether all processes are looked at: where each sits, and so which accounts run.
#[derive(Clone, Debug, Default)]
pub enum Processes {
    /// None: who runs is known, or is of no interest.
    #[default]
    Unwanted,
    /// All of them.
    All,
    /// Somebody looked a moment ago.
    Seen(Scan),
}

/// Who says who the accounts are.
#[derive(Clone, Debug)]
pub enum Whom<'a> {
    /// NSS, which is asked this and about those that run.
    Nss {
        /// The names and uids to ask about.
        question: Question,
        /// In this process or by a child, and for how long.
        how: How,
    },
    /// Somebody asked before.
    Known(&'a Accounts),
}

impl Directories<'_> {
    /// The claims of the instance with their numbers, and others' directories there.
    pub(super) fn read(
        self,
        instance: &Instance,
    ) -> Result<(BTreeMap<Claim, ClassId>, Vec<Foreign>), cgroup::Error> {
        match self {
            // Most of them: a look at all of them is shared out between processors.
            Directories::Touched { before, touched }
                if touched.len() <= before.state.claims.len() / 4 =>
            {
                let claims = instance.observe_again(before.state.claims.clone(), touched)?;
                let is_directory = |it: &&Foreign| matches!(it, Foreign::Directory { .. });
                Ok((claims, before.foreign.iter().filter(is_directory).cloned().collect()))
            }
            _ => instance.observe(),
        }
    }
}

impl Processes {
    /// All processes; `None`: they are not wanted.
    pub(super) fn read(self, proc_root: &Path) -> Result<Option<Scan>, cgroup::Error> {
        match self {
            Processes::Unwanted => Ok(None),
            Processes::All => process::scan(proc_root).map(Some),
            Processes::Seen(scan) => Ok(Some(scan)),
        }
    }
}

impl Whom<'_> {
    /// Who the accounts are. `running`: the uids of all processes, where these were looked at.
    pub(super) fn accounts(self, running: Option<BTreeSet<u32>>) -> Accounts {
        match self {
            Whom::Nss { mut question, how } => {
                question.running.extend(running.unwrap_or_default());
                let running = question.running.clone();
                question.ask(how).unwrap_or_else(|why| why.accounts(running))
            }
            Whom::Known(accounts) => {
                let mut accounts = accounts.clone();
                accounts.running = running.unwrap_or(accounts.running);
                accounts
            }
        }
    }
}

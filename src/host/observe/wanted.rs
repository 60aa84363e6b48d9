//! What a look is for, and so what is read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::accounts::{Limit, Question};
use crate::cgroup::{self, Instance};
use crate::facts::{Accounts, Observation};
use crate::process::{self, Scan};
use crate::tree::{Claim, Foreign};
use crate::units::ClassId;

/// What a look is for.
#[derive(Clone, Debug, Default)]
pub struct Wanted<'a> {
    /// Names of links that are asked for one by one where no list of all links is complete.
    pub links: BTreeSet<String>,
    /// Where the accounts come from; `None`: they are not needed.
    pub accounts: Option<Whom<'a>>,
    /// Which of `/proc` to read.
    pub processes: Processes,
    /// Whether named network namespaces are listed.
    pub namespaces: bool,
    /// Whether systemd's units are listed.
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
    /// `before`. All others are taken from that look: a change of one directory has no effect on
    /// others, and the lock keeps other runs away.
    Touched {
        /// The observation of that look.
        before: &'a Observation,
        /// The claims that the run has made, written or removed.
        touched: &'a BTreeSet<Claim>,
    },
}

/// Whether all processes are looked at, which says in which directory each is and so which accounts
/// run.
#[derive(Clone, Debug, Default)]
pub enum Processes {
    /// No processes are looked at: who runs is known, or does not matter.
    #[default]
    Unwanted,
    /// All of them.
    All,
    /// A look at all processes from a moment ago is used.
    Seen(Scan),
}

/// Where the accounts come from.
#[derive(Clone, Debug)]
pub enum Whom<'a> {
    /// NSS, which is asked this and about those that run: by a child, so that this process does not
    /// hang where NSS does, and may fork.
    Nss(Question),
    /// They are known from an earlier question.
    Known(&'a Accounts),
}

impl Directories<'_> {
    /// The claims of the instance with their numbers, and others' directories there.
    pub(super) fn read(
        self,
        instance: &Instance,
    ) -> Result<(BTreeMap<Claim, ClassId>, Vec<Foreign>), cgroup::Error> {
        match self {
            // For most of the directories a look at all is faster, since that is shared out between
            // processors.
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
            Whom::Nss(mut question) => {
                question.running.extend(running.unwrap_or_default());
                question.ask_or_read(Limit::PATIENT)
            }
            Whom::Known(accounts) => {
                let mut accounts = accounts.clone();
                accounts.running = running.unwrap_or(accounts.running);
                accounts
            }
        }
    }
}

//! A policy on a host: made into a model, the state that it means there, and the plan. Reads only.

use std::collections::BTreeSet;
use std::fs;

use crate::accounts::Question;
use crate::desired::{self, Impossible};
use crate::failure::Failure;
use crate::kernel::Kernel;
use crate::model::{self, BuildOptions, Model};
use crate::observe::{self, Sight, Wanted};
use crate::plan::{Plan, diff};
use crate::policy::{Diagnostic, Policy};
use crate::state::{KernelState, RootQdisc};
use crate::sys::probe;
use crate::units::Rate;

/// A policy that was read, and the host that it is for.
pub struct Session {
    pub kernel: Kernel,
    pub policy: Policy,
    pub options: Options,
    /// Uids to ask NSS about beyond those that the policy names and those that run.
    pub ask: BTreeSet<u32>,
}

/// What the command line says about how to read the policy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    pub skip_unknown: bool,
    pub takeover: bool,
}

/// The policy's meaning on the host as it was seen.
pub struct Meaning {
    pub sight: Sight,
    pub model: Model,
    pub warnings: Vec<Diagnostic>,
}

impl Session {
    fn question(&self) -> Question {
        let lookups = self.policy.lookups();
        Question {
            names: lookups.accounts,
            uids: lookups.uids.into_iter().chain(self.ask.iter().copied()).collect(),
            groups: lookups.groups,
            running: Default::default(),
        }
    }

    /// Looks at the host and makes the policy into a model. A policy that cannot hold here is an
    /// error, and so is a root qdisc that is somebody else's.
    pub fn look(&mut self) -> Result<Meaning, Failure> {
        let question = self.question();
        let sight = observe::observe(
            &mut self.kernel,
            Wanted { accounts: Some(&question), features: true },
        )?;
        let options = BuildOptions { offline: false, skip_unknown: self.options.skip_unknown };
        let (model, warnings) = model::build(&self.policy, sight.facts(), options)?;
        self.roots_are_free(&model, &sight)?;
        Ok(Meaning { sight, model, warnings })
    }

    /// The state that the model means on what was seen.
    pub fn desired(&self, meaning: &mut Meaning) -> Result<KernelState, Failure> {
        match desired::desired(&meaning.model, &meaning.sight.observation) {
            // What stands shows only the best; something lesser was asked for, so find out.
            Err(Impossible::Tag { .. } | Impossible::Leaf { .. }) => {
                meaning.sight.observation.facts.features = probe::features();
                Ok(desired::desired(&meaning.model, &meaning.sight.observation)?)
            }
            result => Ok(result?),
        }
    }

    /// The steps from what was seen to what is desired.
    pub fn plan(&self, meaning: &mut Meaning) -> Result<(Plan, KernelState), Failure> {
        let desired = self.desired(meaning)?;
        let observation = &meaning.sight.observation;
        Ok((diff(&observation.state, &desired, &observation.foreign), desired))
    }

    fn roots_are_free(&self, model: &Model, sight: &Sight) -> Result<(), Failure> {
        for link in &model.links {
            let Some(facts) = sight.facts().links.get(&link.name) else { continue };
            if self.options.takeover {
                continue;
            }
            if let RootQdisc::Kernel { kind } = &facts.root
                && kind == "mq"
                && link.rate > ONE_LOCK
            {
                return Err(Failure::Usage(format!(
                    "{0} has one queue for each CPU ({kind}) and {1} to shape; HTB takes one lock for all of them, which may not keep up. If that is well, use --takeover (that is: tc qdisc replace dev {0} root handle 1: htb default fffe)",
                    link.name, link.rate
                )));
            }
            if let RootQdisc::Foreign { kind, handle, .. } = &facts.root {
                return Err(Failure::Usage(format!(
                    "{} has a root qdisc that shaper did not make ({kind} {handle}); to replace it, use --takeover (that is: tc qdisc replace dev {} root handle 1: htb default fffe)",
                    link.name, link.name
                )));
            }
        }
        Ok(())
    }
}

/// Above this rate (10 Gbit) one HTB for the whole link may be what limits it.
const ONE_LOCK: Rate = match Rate::from_bits_per_second(10_000_000_000) {
    Some(rate) => rate,
    None => Rate::MIN_GUARANTEE,
};

/// Whether this process may change links and directories; one sentence that says what is missing.
pub fn may_change(kernel: &Kernel) -> Result<(), Failure> {
    const CAP_NET_ADMIN: u32 = 12;
    let path = kernel.proc_root.join("self/status");
    let status = fs::read_to_string(&path)
        .map_err(|error| Failure::refused(format!("cannot read {}: {error}", path.display())))?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    if effective & (1 << CAP_NET_ADMIN) == 0 {
        return Err(Failure::Usage(
            "this needs the capability CAP_NET_ADMIN, which this process lacks: run it as root (sudo shaper …)"
                .to_string(),
        ));
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(Failure::Usage(
            "moving processes into net_cls cgroups needs root: run it with sudo".to_string(),
        ));
    }
    Ok(())
}

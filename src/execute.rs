//! Performs steps: the only writer of tc objects and of the instance's directories. Has no choice
//! left to make; says which step failed and what the kernel said.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use log::{debug, info, warn};

use crate::cgroup;
use crate::kernel::Kernel;
use crate::netlink::Request;
use crate::netlink::extack::KernelError;
use crate::netlink::request::{class, filter, leaf, root};
use crate::plan::{Step, Tc};
use crate::state::{Facts, Filter, LinkName, RootQdisc, Tag};
use crate::sys::bpf;
use crate::sys::route::SocketError;
use crate::units::ClassId;

/// What a refused step was, and why.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct Failed {
    pub step: Box<Step>,
    #[source]
    pub source: Box<Cause>,
}

/// Why a step was not performed.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    #[error("{0}")]
    Kernel(#[source] KernelError),
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    #[error("cannot load the eBPF program that reads the tag: {0}")]
    Bpf(#[source] io::Error),
    #[error(transparent)]
    Rules(#[from] filter::TooManyRules),
    #[error("the link is gone")]
    LinkGone,
    #[error("interrupted by signal {0}")]
    Interrupted(i32),
    /// Said by whoever asked to be asked before each step.
    #[error("{0}")]
    Stopped(String),
}

impl Cause {
    /// The system's error number, where there was one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Cause::Kernel(error) => Some(error.errno as i32),
            Cause::Cgroup(error) => error.errno(),
            Cause::Bpf(error) => error.raw_os_error(),
            _ => None,
        }
    }
}

/// Asked before each step, with its place in the plan: an error stops there.
pub type Gate<'a> = &'a mut dyn FnMut(usize, &Step) -> Result<(), Cause>;

/// Messages that go to the kernel together at the most; what is sent cannot be stopped.
const TOGETHER: usize = 256;

/// Performs `steps` in their order. `facts` are those that the plan was made with. The first step
/// that fails ends it; steps sent to the kernel together with it may have been performed as well, so
/// whoever wants to know what stands observes.
pub fn perform<'a>(
    kernel: &mut Kernel,
    facts: &Facts,
    steps: impl IntoIterator<Item = &'a Step>,
    gate: Gate<'_>,
) -> Result<usize, Failed> {
    let indexes = facts.links.iter().map(|(name, link)| (name, link.ifindex)).collect();
    let mut run = Run { kernel, facts, indexes, program: None, waiting: Vec::new() };
    let mut count = 0;
    for step in steps {
        let fail = |source| Failed { step: Box::new(step.clone()), source: Box::new(source) };
        if let Err(cause) = gate(count, step) {
            // What was let through before is performed, so that "stopped before step k" is true.
            run.flush()?;
            return Err(fail(cause));
        }
        info!("{}", Tc(step, &run.kernel.paths(facts.psched)));
        if step.link().is_none() {
            run.flush()?;
            run.directory(step).map_err(|error| fail(error.into()))?;
        } else {
            // What is sent together is carried out together, also what follows a refused message: nothing
            // may go before what takes its place is known to stand.
            if matches!(
                step,
                Step::DeleteFilter { .. } | Step::ReplaceClass { .. } | Step::ReplaceLeaf { .. }
            ) {
                run.flush()?;
            }
            for request in run.requests(step).map_err(fail)? {
                run.waiting.push((request, step.clone()));
            }
            if run.waiting.len() >= TOGETHER {
                run.flush()?;
            }
        }
        count += 1;
    }
    run.flush()?;
    Ok(count)
}

/// Puts back a root qdisc that a run took over before it failed. The kernel's own default must
/// stand there again.
pub fn restore_root(
    kernel: &mut Kernel,
    ifindex: u32,
    kind: &str,
    handle: ClassId,
    options: &[u8],
) -> Result<(), Cause> {
    let request = root::restore(ifindex, kind, handle, options);
    kernel.netlink.change(&request)?.map(|_| ()).map_err(Cause::Kernel)
}

struct Run<'k> {
    kernel: &'k mut Kernel,
    facts: &'k Facts,
    indexes: BTreeMap<&'k LinkName, u32>,
    /// The eBPF program, loaded once when first needed.
    program: Option<OwnedFd>,
    waiting: Vec<(Request, Step)>,
}

impl Run<'_> {
    /// Sends what waits, and reads what became of it.
    fn flush(&mut self) -> Result<(), Failed> {
        let (requests, steps): (Vec<Request>, Vec<Step>) = self.waiting.drain(..).unzip();
        if requests.is_empty() {
            return Ok(());
        }
        debug!("{} messages to the kernel", requests.len());
        let fail =
            |step: &Step, source| Failed { step: Box::new(step.clone()), source: Box::new(source) };
        let outcomes = self
            .kernel
            .netlink
            .transact(&requests)
            .map_err(|error| fail(&steps[0], error.into()))?;
        for (outcome, step) in outcomes.into_iter().zip(&steps) {
            match outcome {
                Ok(None) => {}
                Ok(Some(warning)) => {
                    warn!("{}: {warning}", Tc(step, &self.kernel.paths(self.facts.psched)));
                }
                Err(error) => return Err(fail(step, Cause::Kernel(error))),
            }
        }
        Ok(())
    }

    fn directory(&mut self, step: &Step) -> Result<(), cgroup::Error> {
        match step {
            Step::Mount => return self.kernel.mount().map(|_| ()),
            Step::Unmount => return self.kernel.unmount(),
            _ => {}
        }
        let Some(instance) = self.kernel.instance() else { return Err(cgroup::Error::NotMounted) };
        match step {
            Step::MakeClaim { claim, classid } => instance.make(claim, *classid),
            Step::WriteClassid { claim, to, .. } => instance.write(claim, *to),
            Step::RemoveClaim { claim, .. } => instance.remove(claim),
            _ => Ok(()),
        }
    }

    fn requests(&mut self, step: &Step) -> Result<Vec<Request>, Cause> {
        let link = step.link().ok_or(Cause::LinkGone)?;
        let ifindex = *self.indexes.get(link).ok_or(Cause::LinkGone)?;
        Ok(match step {
            Step::AddRoot { link } => self.add_root(link, ifindex),
            Step::DeleteRoot { .. } => vec![root::delete(ifindex, ClassId::ROOT)],
            Step::AddClass { minor, class, .. } => vec![class::add(ifindex, *minor, class)],
            Step::ChangeClass { minor, to, .. } => vec![class::change(ifindex, *minor, to)],
            Step::DeleteClass { minor, .. } => vec![class::delete(ifindex, *minor)],
            Step::ReplaceClass { minor, to, leaf, .. } => {
                let leaf = leaf.map(|leaf| leaf::add(ifindex, *minor, &leaf));
                let class = [class::delete(ifindex, *minor), class::add(ifindex, *minor, to)];
                class.into_iter().chain(leaf).collect()
            }
            Step::AddLeaf { minor, leaf, .. } => vec![leaf::add(ifindex, *minor, leaf)],
            Step::ChangeLeaf { minor, to, .. } => vec![leaf::change(ifindex, *minor, to)],
            Step::ReplaceLeaf { minor, from, to, .. } => vec![
                leaf::delete(ifindex, *minor, from.handle(*minor)),
                leaf::add(ifindex, *minor, to),
            ],
            Step::AddFilter { pref, filter, .. } => match filter {
                Filter::U32 { family, rules } => filter::add_rules(ifindex, *pref, *family, rules)?,
                Filter::Tag(Tag::Cgroup) => vec![filter::add_cgroup(ifindex, *pref)],
                Filter::Tag(Tag::Bpf) => {
                    let program = match self.program.take() {
                        Some(program) => program,
                        None => bpf::load_tag().map_err(Cause::Bpf)?,
                    };
                    let request = filter::add_bpf(ifindex, *pref, program.as_fd());
                    self.program = Some(program);
                    vec![request]
                }
                Filter::Unknown { .. } => Vec::new(),
            },
            Step::DeleteFilter { pref, filter, .. } => {
                vec![filter::delete(ifindex, *pref, filter::protocol(filter))]
            }
            Step::Mount
            | Step::Unmount
            | Step::MakeClaim { .. }
            | Step::WriteClassid { .. }
            | Step::RemoveClaim { .. } => Vec::new(),
        })
    }

    /// The kernel's own root is replaced by an add; a foreign one that was taken over by a replace, or,
    /// where it has our handle, only after it is deleted (HTB refuses every change).
    fn add_root(&self, link: &LinkName, ifindex: u32) -> Vec<Request> {
        let mark = self.kernel.mark;
        match self.facts.links.get(link).map(|facts| &facts.root) {
            Some(RootQdisc::Foreign { handle: ClassId::ROOT, .. }) => {
                vec![root::delete(ifindex, ClassId::ROOT), root::add(ifindex, mark)]
            }
            Some(RootQdisc::Foreign { .. }) => vec![root::replace(ifindex, mark)],
            _ => vec![root::add(ifindex, mark)],
        }
    }
}

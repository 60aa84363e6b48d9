//! Performs steps: the only writer of tc objects and of the instance's directories. It has no
//! choice left, and reports which step failed with the kernel's answer.

mod arriving;
mod failed;
mod making;
mod owned;
mod programs;
mod servers;
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread::{self, Scope};

use log::{debug, info, warn};
use nix::errno::Errno;

use crate::cgroup::Locked;
use crate::facts::{Facts, RootQdisc};
use crate::host::Kernel;
use crate::netlink::Request;
use crate::netlink::request::filter::{self, Loaded};
use crate::netlink::request::{class, clsact, hook, leaf, root};
use crate::plan::{Change, Journal, Replaced, Step, Tc, Whole};
use crate::sys::bpf::{self, Maps, RuleMaps};
use crate::tree::{Asks, Direction, Filter, FoundLeaf, LinkName, Parent, RuleMapIds, Seat, Tag};
use crate::units::ClassId;
use arriving::{Arriving, learn};
pub use failed::{Cause, Failed};
use making::{Makers, Making};
use programs::Programs;
pub use servers::refresh_servers;

/// Called before each step, with the step's position in the plan; an error stops the run there.
pub type Gate<'a> = &'a mut dyn FnMut(usize, &Step) -> Result<(), Cause>;

/// The most messages that are sent to the kernel together: those cannot be stopped any more.
const TOGETHER: usize = 256;

/// Performs `steps` in their order, on the instance that is locked; `facts` are those that the plan
/// was made with. Returns what was done, and how it ended. The first step that fails ends it; later
/// steps that were sent together with it may have been performed as well, so only a new look tells
/// what stands.
///
/// A link that goes meanwhile (the only reason for ENODEV) ends its own steps and no others.
pub fn perform<'a>(
    kernel: &mut Kernel,
    instance: &'a Locked,
    facts: &Facts,
    steps: impl IntoIterator<Item = &'a Step>,
    gate: Gate<'_>,
) -> (Journal, Result<(), Failed>) {
    let indexes = facts.links.iter().map(|(name, link)| (name, link.ifindex)).collect();
    let programs = Programs::default();
    let (rule_programs, waiting, gone) = (BTreeMap::new(), Vec::new(), BTreeSet::new());
    let (makers, journal) = (Makers::default(), Journal::default());
    let arriving = Arriving::new(facts);
    let mut run = Run {
        kernel,
        instance,
        facts,
        indexes,
        programs,
        rule_programs,
        arriving,
        waiting,
        makers,
        journal,
        gone,
    };
    let outcome = thread::scope(|scope| {
        let outcome = run.all(scope, steps, gate);
        // After a failure more claims may have been made than any step waited for.
        for making in run.makers.stop() {
            run.journal.note(making.step, 0);
        }
        outcome
    });
    (run.journal, outcome)
}

/// Makes the root qdisc again that a failed run had taken over; does nothing where the root was the
/// kernel's. The kernel's own default must stand there.
pub fn restore_root(
    kernel: &mut Kernel,
    _: &Locked,
    ifindex: u32,
    before: &RootQdisc,
) -> Result<(), Cause> {
    let RootQdisc::Foreign { kind, handle, options, .. } = before else { return Ok(()) };
    let request = root::restore(ifindex, kind, *handle, options);
    kernel.netlink.change(&request)?.map(|_| ()).map_err(Cause::Kernel)
}

struct Run<'k, 's> {
    kernel: &'k mut Kernel,
    instance: &'s Locked,
    facts: &'k Facts,
    indexes: BTreeMap<&'k LinkName, u32>,
    programs: Programs,
    /// Programs of rules, open until the message that hands them over is sent.
    rule_programs: BTreeMap<RuleMapIds, OwnedFd>,
    arriving: Arriving,
    waiting: Vec<Waiting<'s>>,
    makers: Makers<'s>,
    journal: Journal,
    /// Links that went since the plan was made.
    gone: BTreeSet<&'s LinkName>,
}

/// A message that is to be sent, and its step.
struct Waiting<'s> {
    request: Request,
    step: &'s Step,
    /// The message's index among those of its step.
    message: usize,
}

fn no_maps() -> Cause {
    Cause::Bpf(io::Error::other("the maps that it reads are not open"))
}

fn failed(step: &Step, message: Option<usize>, source: Cause) -> Failed {
    Failed { step: Box::new(step.clone()), message, source: Box::new(source) }
}

impl<'s> Run<'_, 's> {
    fn all<'scope>(
        &mut self,
        scope: &'scope Scope<'scope, '_>,
        steps: impl IntoIterator<Item = &'s Step>,
        gate: Gate<'_>,
    ) -> Result<(), Failed>
    where
        's: 'scope,
    {
        let mut count = 0;
        for step in steps {
            if let Err(cause) = gate(count, step) {
                // All steps before this one are performed first, so that "stopped before step k" is
                // true.
                self.begin_to_make(scope);
                self.finish()?;
                return Err(failed(step, None, cause));
            }
            match step {
                // A login is one entry, and an entry may be dozens of commands.
                Step::Entries(_) => {
                    info!("{step}");
                    debug!("{}", Tc(step, &self.kernel.paths(self.facts.psched)));
                }
                _ => info!("{}", Tc(step, &self.kernel.paths(self.facts.psched))),
            }
            if step.link().is_some_and(|link| self.gone.contains(link)) {
                continue;
            }
            if let Step::Learn(_) = step {
                self.begin_to_make(scope);
                self.finish()?;
                learn(|| gate(count, step)).map_err(|cause| failed(step, None, cause))?;
            }
            match Making::of(step) {
                Some(making) => {
                    if self.makers.have_begun() || !self.waiting.is_empty() {
                        self.finish()?;
                    }
                    self.makers.add(making);
                }
                None => {
                    self.begin_to_make(scope);
                    self.one(step)?;
                }
            }
            count += 1;
        }
        self.begin_to_make(scope);
        self.finish()?;
        Ok(())
    }

    fn begin_to_make<'scope>(&mut self, scope: &'scope Scope<'scope, '_>)
    where
        's: 'scope,
    {
        let instance = self.instance;
        self.makers.begin(scope, move |claim, classid| instance.make(claim, classid));
    }

    /// Waits until the claim of this class is made; `None`: until all claims are. Messages that can
    /// be sent are sent meanwhile.
    fn wait_for_claims(&mut self, class: Option<ClassId>) -> Result<(), Failed> {
        while self.makers.owe(class) {
            if !self.hear_of_claims(false)? {
                self.flush()?;
                self.hear_of_claims(true)?;
            }
        }
        Ok(())
    }

    /// Notes which claims were made since the last call; whether there were any.
    fn hear_of_claims(&mut self, may_wait: bool) -> Result<bool, Failed> {
        let Some((made, outcome)) = self.makers.news(may_wait) else { return Ok(false) };
        made.iter().for_each(|making| self.journal.note(making.step, 0));
        match outcome {
            Ok(()) => Ok(true),
            Err((refused, error)) => {
                // Its directory may have been made before it was refused its classid.
                self.journal.note(refused.step, 0);
                Err(failed(refused.step, None, error.into()))
            }
        }
    }

    /// Performs all steps that the gate has let through.
    fn finish(&mut self) -> Result<(), Failed> {
        self.wait_for_claims(None)?;
        self.makers = Makers::default();
        self.flush()
    }

    fn one(&mut self, step: &'s Step) -> Result<(), Failed> {
        let fail = |source| failed(step, None, source);
        self.wait_for_claims(match step {
            Step::Class(_, id, Change::Add(_)) | Step::Leaf(_, id, Change::Add(_)) => Some(*id),
            _ => None,
        })?;
        if step.link().is_none() {
            self.flush()?;
            let done = self.without_message(step);
            // A part of the step may have been done before the rest was refused: a directory made,
            // entries set.
            let in_part = matches!(
                step,
                Step::Claim(_, Change::Add(_)) | Step::Ifb(_, Change::Add(_)) | Step::Entries(_)
            );
            if done.is_ok() || in_part {
                self.journal.note(step, 0);
            }
            return done.map_err(fail);
        }
        // Messages that are sent together are all performed, also those behind a refused one. So a
        // step that removes an object is sent only once the object that replaces it is known to
        // stand.
        if matches!(
            step,
            Step::Filter(.., Whole::Remove(_))
                | Step::Clsact(_, Whole::Remove(()))
                | Step::Class(.., Change::Replace { .. })
                | Step::Leaf(.., Change::Replace { .. })
        ) {
            self.flush()?;
        }
        if let Step::Root(port, Whole::Remove(())) = step
            && port.direction == Direction::Ingress
        {
            self.flush()?;
            let ifindex = self.device(step).map_err(fail)?;
            self.arriving.drain(self.kernel, ifindex).map_err(fail)?;
        }
        if let Step::Tables(_, left) = step {
            self.flush()?;
            let done = self
                .note_and_find(step)
                .and_then(|device| tables::delete(&mut self.kernel.netlink, device, left));
            match done {
                Err(Cause::Kernel(error)) if error.errno == Errno::ENODEV => self.lost(step),
                done => done.map_err(fail)?,
            }
        }
        let mut message = 0;
        for (turn, requests) in self.turns(step).map_err(fail)?.into_iter().enumerate() {
            if turn > 0 {
                self.flush()?;
            }
            for request in requests {
                self.waiting.push(Waiting { request, step, message });
                message += 1;
            }
        }
        if self.waiting.len() >= TOGETHER { self.flush() } else { Ok(()) }
    }

    /// Sends the messages that wait, and reads the outcomes.
    fn flush(&mut self) -> Result<(), Failed> {
        let mut waiting = std::mem::take(&mut self.waiting);
        loop {
            // Messages behind a refused one may not have been sent.
            waiting.retain(|it| it.step.link().is_none_or(|link| !self.gone.contains(link)));
            let Some(first) = waiting.first() else {
                self.arriving.sent();
                return Ok(());
            };
            debug!("{} messages to the kernel", waiting.len());
            let requests: Vec<&Request> = waiting.iter().map(|waiting| &waiting.request).collect();
            let outcomes = self
                .kernel
                .netlink
                .transact(&requests)
                .map_err(|error| failed(first.step, None, error.into()))?;
            let sent = outcomes.len();
            let mut refused = None;
            for (outcome, Waiting { step, message, .. }) in outcomes.into_iter().zip(&waiting) {
                match outcome {
                    Ok(warning) => {
                        self.note(step);
                        if let Some(warning) = warning {
                            warn!("{}: {warning}", Tc(step, &self.kernel.paths(self.facts.psched)));
                        }
                    }
                    Err(error) if error.errno == Errno::ENODEV => self.lost(step),
                    Err(error) => {
                        let cause = Cause::Kernel(error);
                        refused = refused.or(Some(failed(step, Some(*message), cause)));
                    }
                }
            }
            if let Some(refused) = refused {
                return Err(refused);
            }
            waiting.drain(..sent);
        }
    }

    /// Notes a step before it is done, and finds its device.
    fn note_and_find(&mut self, step: &Step) -> Result<u32, Cause> {
        let ifindex = self.ifindex(step)?;
        self.journal.note(step, ifindex);
        self.device(step)
    }

    fn note(&mut self, step: &Step) {
        if let Ok(ifindex) = self.ifindex(step) {
            self.journal.note(step, ifindex);
        }
    }

    /// Notes that the step's link is gone.
    fn lost(&mut self, step: &'s Step) {
        if let (Some(link), Ok(ifindex)) = (step.link(), self.ifindex(step))
            && self.gone.insert(link)
        {
            info!("{link} is gone");
            self.journal.gone.insert(ifindex);
        }
    }

    fn ifindex(&self, step: &Step) -> Result<u32, Cause> {
        step.link().and_then(|link| self.indexes.get(link)).copied().ok_or(Cause::LinkGone)
    }

    /// A step's messages, in turns: a turn is sent when all messages of the one before are known to
    /// be done.
    fn turns(&mut self, step: &Step) -> Result<Vec<Vec<Request>>, Cause> {
        let Step::Filter(_, seat, Whole::Add(Filter::U32 { protocol, rules })) = step else {
            return Ok(vec![self.requests(step)?]);
        };
        let add = filter::add_rules(self.device(step)?, seat.pref, *protocol, rules)?;
        Ok(if add.tables.is_empty() { vec![add.root] } else { vec![add.tables, add.root] })
    }

    /// The device that the step's messages are about: of what arrives the ifb, but its filters at
    /// clsact are on the link.
    fn device(&self, step: &Step) -> Result<u32, Cause> {
        match step {
            Step::Filter(_, Seat { parent: Parent::Egress | Parent::Ingress, .. }, _) => {
                self.ifindex(step)
            }
            _ => match step.port() {
                Some(port) if port.direction == Direction::Ingress => {
                    self.arriving.ifb(self.kernel, &port.device()).ok_or(Cause::LinkGone)
                }
                _ => self.ifindex(step),
            },
        }
    }

    fn requests(&mut self, step: &Step) -> Result<Vec<Request>, Cause> {
        let ifindex = self.device(step)?;
        Ok(match step {
            Step::Root(_, change) => {
                let mark = self.kernel.mark;
                match change {
                    Whole::Add(Replaced::Kernel) => vec![root::add(ifindex, mark)],
                    Whole::Add(Replaced::Foreign { handle: ClassId::ROOT, .. }) => {
                        vec![root::delete(ifindex, ClassId::ROOT), root::add(ifindex, mark)]
                    }
                    Whole::Add(Replaced::Foreign { .. }) => vec![root::replace(ifindex, mark)],
                    Whole::Remove(()) => vec![root::delete(ifindex, ClassId::ROOT)],
                }
            }
            Step::Clsact(_, Whole::Add(())) => vec![clsact::add(ifindex)],
            Step::Clsact(_, Whole::Remove(())) => vec![clsact::delete(ifindex)],
            Step::Class(_, id, change) => match change {
                Change::Add(class) => vec![class::add(ifindex, *id, class)],
                Change::Alter { to, .. } => vec![class::change(ifindex, *id, to)],
                Change::Replace { to, below, .. } => {
                    let leaf = below.map(|leaf| leaf::add(ifindex, *id, &leaf));
                    let class = [class::delete(ifindex, *id), class::add(ifindex, *id, to)];
                    class.into_iter().chain(leaf).collect()
                }
                Change::Remove(_) => vec![class::delete(ifindex, *id)],
            },
            Step::Leaf(_, id, change) => {
                let delete = |leaf: &FoundLeaf| leaf::delete(ifindex, *id, leaf.handle(*id));
                match change {
                    Change::Add(leaf) => vec![leaf::add(ifindex, *id, leaf)],
                    Change::Alter { to, .. } => vec![leaf::change(ifindex, *id, to)],
                    Change::Replace { from, to, .. } => {
                        vec![delete(from), leaf::add(ifindex, *id, to)]
                    }
                    Change::Remove(leaf) => vec![delete(leaf)],
                }
            }
            Step::Filter(port, seat, Whole::Add(filter)) => {
                let place = (*seat, ifindex);
                match self.arriving.filter(self.kernel, port, place, filter)? {
                    Some(request) => vec![request],
                    None => self.new_filter(ifindex, *seat, filter)?.into_iter().collect(),
                }
            }
            Step::Filter(_, seat, Whole::Remove(filter)) if seat.parent.is_clsact() => {
                let side = seat.parent.classid();
                vec![hook::delete(ifindex, side, seat.pref, filter.protocol())]
            }
            Step::Filter(_, Seat { parent, pref }, Whole::Remove(filter)) => {
                vec![filter::delete(ifindex, parent.classid(), *pref, filter.protocol())]
            }
            // Tables are deleted one by one, since some are in use; the other steps have no
            // message.
            Step::Tables(..)
            | Step::Mount(_)
            | Step::Ifb(..)
            | Step::Claim(..)
            | Step::Owners(_)
            | Step::Entries(_)
            | Step::Learn(_) => Vec::new(),
        })
    }

    /// The message that adds a filter, its program loaded. `None`: a set of rules goes in turns.
    fn new_filter(
        &mut self,
        ifindex: u32,
        Seat { parent, pref }: Seat,
        filter: &Filter,
    ) -> Result<Option<Request>, Cause> {
        let parent = parent.classid();
        Ok(Some(match filter {
            Filter::Tag(Tag::Cgroup) => filter::add_cgroup(ifindex, parent, pref),
            Filter::Tag(Tag::Bpf(program)) => {
                let maps = self.kernel.owners.as_ref().ok_or_else(no_maps)?;
                let file = self.programs.deciding(*program, maps)?;
                let loaded = Loaded::deciding(*program, maps.ids(), file);
                filter::add_bpf(ifindex, parent, pref, loaded)
            }
            Filter::Program(rules) => {
                let maps = RuleMaps::create(&rules.rules).map_err(Cause::Bpf)?;
                let asked = match rules.asks {
                    Some(Asks::Socket(_)) => Some(self.kernel.owners.as_ref().ok_or_else(no_maps)?),
                    Some(Asks::Flow) | None => None,
                };
                let file = bpf::load_rules(rules, &maps, asked).map_err(Cause::Bpf)?;
                let (ids, asked) = (maps.ids(), asked.map(Maps::ids));
                self.kernel.rules.insert(ids, maps);
                let file = self.rule_programs.entry(ids).or_insert(file);
                let loaded = Loaded::rules(rules, ids, asked, file.as_fd());
                filter::add_bpf(ifindex, parent, pref, loaded)
            }
            Filter::ClearPriority(sockets) => {
                let file = self.programs.clearing(*sockets)?;
                let loaded = Loaded::clearing(*sockets, self.kernel.mark, file);
                hook::add_egress(ifindex, pref, loaded)
            }
            Filter::Label(label) => {
                let maps = match label.by_source {
                    true => Some(self.kernel.owners.as_ref().ok_or_else(no_maps)?),
                    false => None,
                };
                let file = self.programs.labelling(*label, maps)?;
                let loaded = Loaded::labelling(*label, self.kernel.mark, maps.map(Maps::ids), file);
                hook::add_ingress(ifindex, pref, loaded)
            }
            Filter::U32 { .. }
            | Filter::Learn(_)
            | Filter::Find { .. }
            | Filter::Pulse
            | Filter::Redirect => return Ok(None),
        }))
    }
}

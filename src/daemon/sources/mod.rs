//! The sources of events: signals, process events, notices of links, the policy file,
//! `/etc/subuid`, the file of what was used, the clock, the children that ask NSS and container
//! engines, the namespace's name, and time. Nothing here decides what follows from an event.

mod clock;
mod policy_file;
mod signals;
mod use_file;
mod watched;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::event::Event;
use super::links;
use super::names::LIMIT;
use super::refusal::CannotGoOn;
use super::rounds::is_time;
use super::settings::Settings;
use super::shaping::Found;
use crate::accounts::asking::Asking;
use crate::accounts::{Limit, Question, SUBUID};
use crate::apply::InForce;
use crate::engines;
use crate::facts::Accounts;
use crate::host::Kernel;
use crate::netlink::notice::Notice;
use crate::policy;
use crate::process::{self, Changers};
use crate::sys::listener::{Heard, LinkListener, ProcessListener};
use crate::sys::netns::Target;
use clock::Clock;
use policy_file::{Now, PolicyFile};
pub(super) use signals::Signals;
use use_file::UseFile;
use watched::WatchedFile;

/// How often a stat(2) looks whether the name still stands for the namespace.
pub(super) const LOOK_AT_NAME: Duration = Duration::from_millis(500);

/// How many of those who changed shaped links are looked for, of all notices that came together.
const MOST_NAMED: usize = 4;

/// A source that may have an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Signals,
    Processes,
    Links,
    PolicyFile,
    Nss,
    Engines,
    Subuids,
    UseFile,
    Clock,
    Namespace,
    Time,
}

/// The name that the command line gives the network namespace.
struct Name {
    target: Target,
    /// The inode of the namespace for which it stood at first.
    inode: u64,
    /// When the name is looked at next.
    due: Instant,
}

/// All sources, and those that have an event now.
pub(super) struct Sources {
    signals: Signals,
    processes: Option<ProcessListener>,
    links: LinkListener,
    /// The netlink port of the socket by which this daemon changes links.
    own_port: u32,
    proc_root: PathBuf,
    file: PolicyFile,
    /// `/etc/subuid`; `None`: it cannot be watched, and is read whenever NSS is asked again.
    subuid: Option<WatchedFile>,
    /// What owners with a quota have used; others write there what they grant.
    used: UseFile,
    /// When the policy in force means something else.
    clock: Clock,
    /// The question to NSS that is under way.
    asking: Option<Asking<Accounts>>,
    /// The same to container engines.
    engines: Option<Asking<engines::Answer>>,
    name: Option<Name>,
    ready: VecDeque<Source>,
}

impl Sources {
    /// Whatever happens from now on is told, but for signals. `target`: what names this thread's
    /// network namespace, where the command line does.
    pub(super) fn open(
        kernel: &Kernel,
        processes: Option<ProcessListener>,
        settings: &Settings,
        target: Option<&Target>,
    ) -> Result<Sources, CannotGoOn> {
        let subuid = WatchedFile::watch(Path::new(SUBUID))
            .inspect_err(|error| log::warn!("changes of {SUBUID} are read late: {error}"));
        let name = |target: &Target| Name {
            target: target.clone(),
            inode: kernel.netns,
            due: Instant::now(),
        };
        let links = LinkListener::open().map_err(CannotGoOn::Links)?;
        let own_port = kernel.netlink.port();
        if let Err(error) = links.pass_over(own_port) {
            log::debug!("what this daemon asks wakes it up once more: {error}");
        }
        Ok(Sources {
            signals: Signals::open().map_err(CannotGoOn::Signals)?,
            processes,
            links,
            own_port,
            proc_root: kernel.proc_root.clone(),
            file: PolicyFile::new(settings.file.clone()).map_err(CannotGoOn::Inotify)?,
            subuid: subuid.ok(),
            used: UseFile::of(kernel),
            clock: Clock::default(),
            asking: None,
            engines: None,
            name: target.map(name),
            ready: VecDeque::new(),
        })
    }

    /// From now on signals are events.
    pub(super) fn hear_signals(&self) -> Result<(), CannotGoOn> {
        self.signals.block().map_err(CannotGoOn::Signals)
    }

    /// Waits for the next event until `by`, when it is [`Event::Time`]; events that came until then
    /// go before. `in_force`: what is shaped now.
    pub(super) fn next(&mut self, by: Instant, in_force: &InForce) -> Result<Event, CannotGoOn> {
        self.clock.wake_at(in_force.model.valid_until);
        self.used.watch(!in_force.model.metered.owners.is_empty());
        self.ready.extend(self.clock.is_due().then_some(Source::Clock));
        loop {
            match self.ready.pop_front() {
                Some(source) => {
                    if let Some(event) = self.hear(source, in_force) {
                        return Ok(event);
                    }
                }
                None => self.wait(by).map_err(CannotGoOn::Wait)?,
            }
        }
    }

    /// Waits until a source has an event, or until `by`.
    fn wait(&mut self, by: Instant) -> nix::Result<()> {
        let (asking, engines) = (self.asking.as_ref(), self.engines.as_ref());
        let [turn, zone] = self.clock.fds();
        let fds: [(Source, Option<BorrowedFd<'_>>); 10] = [
            (Source::Signals, Some(self.signals.as_fd())),
            (Source::Processes, self.processes.as_ref().map(AsFd::as_fd)),
            (Source::Links, Some(self.links.as_fd())),
            (Source::PolicyFile, self.file.listen()),
            (Source::Nss, asking.map(AsFd::as_fd)),
            (Source::Engines, engines.map(AsFd::as_fd)),
            (Source::Subuids, self.subuid.as_ref().map(AsFd::as_fd)),
            (Source::UseFile, self.used.fd()),
            (Source::Clock, turn),
            (Source::Clock, zone),
        ];
        let mut polled: Vec<PollFd<'_>> =
            fds.iter().filter_map(|(_, fd)| Some(PollFd::new((*fd)?, PollFlags::POLLIN))).collect();
        let named = self.name.as_ref().map(|name| name.due);
        let own = [asking.map(Asking::due), engines.map(Asking::due)];
        let until = own.into_iter().chain([named]).flatten().fold(by, Instant::min);
        // Rounded up to milliseconds, so that poll(2) does not return before the time.
        let rest = until.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
        let timeout = PollTimeout::try_from(rest).unwrap_or(PollTimeout::MAX);
        match poll(&mut polled, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        let now = Instant::now();
        let is_over = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        let mut readable = polled.iter().map(|fd| fd.any().unwrap_or(false));
        for (source, fd) in &fds {
            let told = fd.is_some() && readable.next().unwrap_or(false);
            let is_ready = match source {
                // Processes that wait to be placed go first.
                Source::Processes => told || is_over(Some(by)),
                Source::Nss => told || is_over(own[0]),
                Source::Engines => told || is_over(own[1]),
                _ => told,
            };
            self.ready.extend(is_ready.then_some(*source));
        }
        let is_named = named.is_some_and(|due| is_time(due, now));
        self.ready.extend(is_named.then_some(Source::Namespace));
        self.ready.push_back(Source::Time);
        Ok(())
    }

    /// The event of a source; `None`: it has none after all.
    fn hear(&mut self, source: Source, in_force: &InForce) -> Option<Event> {
        match source {
            Source::Signals => {
                let wish = self.signals.next()?;
                // Further signals may have come.
                self.ready.push_front(Source::Signals);
                Some(Event::Signal(wish))
            }
            Source::Processes => Some(self.hear_processes()),
            Source::Links => Some(self.hear_links(in_force)),
            Source::PolicyFile => self.file.heard().then_some(Event::PolicyFile),
            Source::Nss => {
                let answer = self.asking.as_mut()?.answer()?;
                self.asking = None;
                Some(Event::Answered(answer))
            }
            Source::Engines => {
                let answer = self.engines.as_mut()?.answer()?;
                self.engines = None;
                Some(Event::Described(answer.unwrap_or_else(|why| engines::Answer::none(&why))))
            }
            Source::Subuids => self.subuid.as_ref()?.changed().then_some(Event::Subuids),
            Source::UseFile => self.used.changed().then_some(Event::UseChanged),
            Source::Clock => self.clock.has_turned().then_some(Event::AnotherTime),
            Source::Namespace => self.look_at_name(),
            Source::Time => Some(Event::Time),
        }
    }

    fn hear_processes(&mut self) -> Event {
        let mut told = Vec::new();
        let heard = match &mut self.processes {
            Some(listener) => listener.hear(|event| told.push(event)),
            None => Ok(Heard::All),
        };
        if heard.is_err() {
            self.processes = None;
        }
        Event::Processes { told, heard }
    }

    fn hear_links(&mut self, in_force: &InForce) -> Event {
        let (own, mut told) = (self.own_port, BTreeSet::new());
        let mut changes: BTreeSet<(u32, u32)> = BTreeSet::new();
        let heard = self.links.hear(|port, notice| {
            if port == own {
                return;
            }
            if let Notice::TrafficControl(index) = notice {
                changes.insert((port, index));
            }
            told.insert(notice);
        });
        // At once: a `tc` ends within a millisecond of its change.
        changes.retain(|(_, index)| links::shaped(in_force, *index).is_some());
        let ports: BTreeSet<u32> = changes.iter().map(|(port, _)| *port).collect();
        let ports = ports.into_iter().take(MOST_NAMED).collect();
        let found = process::behind(&self.proc_root, ports);
        let mut by: BTreeMap<u32, Changers> = BTreeMap::new();
        for (port, index) in changes {
            by.entry(index).or_default().insert(port, found.get(&port).cloned().flatten());
        }
        Event::Links { told, by, heard }
    }

    fn look_at_name(&mut self) -> Option<Event> {
        let name = self.name.as_mut()?;
        name.due = Instant::now() + LOOK_AT_NAME;
        match name.target.inode() {
            Ok(inode) => (inode != Some(name.inode)).then_some(Event::CutOff),
            Err(error) => {
                log::debug!("{}: {error}", name.target);
                None
            }
        }
    }

    /// Whether the kernel sends process events.
    pub(super) fn has_process_events(&self) -> bool {
        self.processes.is_some()
    }

    /// Has the kernel drop all process events but forks, changes of uid (of all but the muted
    /// processes) and, with `exec`, programs that are run.
    pub(super) fn narrow(&self, exec: bool, muted: &[u32]) {
        let narrowed = self.processes.as_ref().map(|listener| listener.narrow(exec, muted));
        if let Some(Err(error)) = narrowed {
            log::debug!("all process events will come: {error}");
        }
    }

    /// Has a child ask NSS; the outcome is an event, and so is that no child can be started.
    pub(super) fn ask(&mut self, question: Question) -> Option<Event> {
        match question.start(Limit::Whole(LIMIT)) {
            Ok(asking) => {
                self.asking = Some(asking);
                None
            }
            Err(why) => Some(Event::NotAsked(why)),
        }
    }

    /// Has a child ask container engines, unless one does so already; the outcome is an event, and
    /// so is that no child can be started.
    pub(super) fn ask_engines(&mut self) -> Option<Event> {
        if self.engines.is_some() {
            return None;
        }
        match engines::Question::of_the_host().start() {
            Ok(asking) => {
                self.engines = Some(asking);
                None
            }
            Err(why) => Some(Event::Described(engines::Answer::none(&why))),
        }
    }

    /// Looks at the policy file, whose further changes are events from then on. `in_force`: that
    /// of the policy in force.
    pub(super) fn read_file(&mut self, in_force: &policy::Source) -> Event {
        let found = match self.file.read() {
            // A policy of 10,000 lines takes a while to be parsed, and seldom differs.
            Ok(Now::Text(source)) if *in_force == source => Found::InForce,
            Ok(Now::Text(source)) => Found::Text(source),
            Ok(Now::BeingWritten(since)) => Found::BeingWritten(since),
            Ok(Now::Changing) => Found::Changing,
            Err(failure) => Found::Unreadable(failure.message()),
        };
        Event::FileRead { found, watched: self.file.is_watched() }
    }
}

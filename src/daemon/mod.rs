//! The daemon: an apply, and then a loop that keeps it so. One thread that sleeps in one poll until
//! the kernel, the policy file, NSS or a signal has something to say, or until the next task of the
//! agenda is due. Places processes as they become their users; what else there is to change goes
//! through `apply`, so it is planned, verified and undone like any other.

mod agenda;
mod applying;
mod backoff;
#[cfg(test)]
mod chance;
mod file;
mod first;
mod followed;
mod links;
mod muted;
mod names;
mod namespace;
mod processes;
mod queue;
mod roster;
mod service_manager;
mod shaping;
mod subuid;

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use sd_notify::NotifyState;

use crate::accounts::{Question, SUBUID};
use crate::apply::{InForce, Session};
use crate::cgroup::Keeping;
use crate::facts::Accounts;
use crate::failure::Failure;
use crate::host::observe::Snapshot;
use crate::intent::Intent;
use crate::policy::Policy;
use crate::process::Handover;
use crate::sys::listener::{LinkListener, ProcessListener};
use crate::sys::netns::Target;
use crate::sys::{memory, priority, signal};
use crate::tree::KernelState;
use agenda::{Agenda, Task};
use file::PolicyFile;
use followed::Followed;
use muted::Muted;
use names::{Names, News};
pub use namespace::Bound;
use queue::Queue;
use roster::Roster;
use service_manager::tell;
use shaping::{Event, Order, Shaping};
use subuid::SubuidFile;

/// How often NSS is asked who everybody is now.
const ASK: Duration = Duration::from_secs(600);
/// The same while it does not answer.
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// So many failures in a row are more than a bad moment.
const HOPELESS: u32 = 3;
/// After a look at all processes, rest at least so many times as long as it took.
const IDLE_SHARE: u32 = 2_000;

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The policy file, as the command line names it.
    pub file: PathBuf,
    /// How long an account without processes keeps its class.
    pub grace: Duration,
    /// How long the first apply waits for another run to finish.
    pub wait: Duration,
}

/// A daemon that has made its first apply.
pub struct Watch {
    session: Session,
    /// What is wanted: the policy in force, and what became known of its links.
    intent: Intent,
    /// The next apply looks at all processes, and moves them.
    everybody: bool,
    /// Others find this daemon by it.
    keeping: Option<Keeping>,
    settings: Settings,
    /// What names this network namespace, where the command line does.
    target: Option<Target>,
    /// The namespace has lost that name.
    is_cut_off: bool,
    file: PolicyFile,
    /// `None`: it is read as seldom as NSS is asked again.
    subuid: Option<SubuidFile<'static>>,
    signals: SignalFd,
    processes: Option<ProcessListener>,
    links: LinkListener,
    agenda: Agenda,
    /// What NSS says of everybody; who runs is as the roster said when it was last asked.
    accounts: Accounts,
    names: Names,
    in_force: InForce,
    followed: Followed,
    /// What processes that became users in this batch of events hold of root's.
    handover: Handover,
    /// That some of it cannot be given was said.
    told_of_handover: bool,
    /// How often in a row it was put off.
    handed_over_late: u32,
    /// Processes that the kernel told of.
    queue: Queue,
    /// Those of whom it had better not tell.
    muted: Muted,
    /// The last user whose effective uid each had that waits to be looked at, where a line follows
    /// these.
    acted_for: HashMap<u32, u32>,
    clock: processes::EventClock,
    view: processes::View,
    roster: Roster,
    shaping: Shaping<Arc<Policy>>,
    /// When the state began that its word names.
    since: SystemTime,
    /// What the last apply had to say, so that it is said once.
    said: Vec<String>,
    /// When the last sweep ended, and how long it took.
    swept: (Instant, Duration),
    /// When it was last said that events were lost.
    lost: Option<Instant>,
    /// When it was last said that a process could not be read.
    unread: Option<Instant>,
    /// What retired classes are compared with.
    earlier: Option<Snapshot>,
}

/// Applies what is wanted, then keeps it so until SIGTERM or SIGINT. `processes` was opened
/// where there are process events: before another network namespace was entered.
///
/// # Errors
/// Only what keeps it from beginning. Afterwards every failure is logged and tried again.
pub fn watch(
    session: Session,
    intent: Intent,
    processes: Option<ProcessListener>,
    settings: &Settings,
    bound: Option<&Bound>,
) -> Result<(), Failure> {
    match bound {
        Some(bound) => namespace::follow(session, intent, processes, settings, bound),
        None => keep(session, intent, processes, settings, None).map(|_| ()),
    }
}

/// Why the daemon stopped to look after a network namespace.
enum Ended {
    BySignal,
    /// The namespace's name stands for it no more. The policy that was in force.
    WithNamespace(Arc<Policy>),
}

/// What the signals that end the daemon, or have it read its file again, come through.
fn signals() -> Result<SignalFd, Failure> {
    let mut signals = SigSet::empty();
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().for_each(|s| signals.add(s));
    let listen = |signals: &SigSet| {
        signals.thread_block()?;
        SignalFd::with_flags(signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
    };
    listen(&signals).map_err(|errno| Failure::refused(format!("signalfd: {errno}")))
}

/// `target`: what names this thread's network namespace.
fn keep(
    mut session: Session,
    mut intent: Intent,
    processes: Option<ProcessListener>,
    settings: &Settings,
    target: Option<&Target>,
) -> Result<Ended, Failure> {
    // Whatever happens from now on is told, and heard after the first apply.
    let links = LinkListener::open().map_err(Failure::refused)?;
    let file = PolicyFile::new(settings.file.clone())
        .map_err(|error| Failure::refused(format!("inotify: {error}")))?;
    let subuid = SubuidFile::watch(Path::new(SUBUID))
        .inspect_err(|error| log::warn!("changes of {SUBUID} are read late: {error}"));
    let mut accounts = first::who_runs(&session.kernel, &intent.policy)?;
    signal::catch();
    // One link that is absent or unfit keeps no other from being shaped: it is shaped when it is
    // fit.
    intent.options.absent_links = true;
    let mut first = first::apply(&mut session, &intent, &mut accounts, settings.wait)?;
    let signals = signals()?;
    if let Some(signal) = signal::caught().filter(|signal| *signal != Signal::SIGHUP as i32) {
        log::info!("ended by signal {signal}; what was made stays");
        return Ok(Ended::BySignal);
    }
    let Some(in_force) = first.in_force.take() else {
        return Err(Failure::refused("the first apply did not come to rest"));
    };
    intent.reclaimed.extend(in_force.links.values());
    intent.good.clone_from(&in_force.good);
    let (running, ranges) = (&accounts.running, &accounts.running_ranges);
    let roster = Roster::new(settings.grace, running, ranges);
    let (shaping, orders) =
        Shaping::new(settings.file.display().to_string(), in_force.draining, Instant::now());
    let mut watch = Watch {
        session,
        intent,
        everybody: false,
        keeping: None,
        settings: settings.clone(),
        target: target.cloned(),
        is_cut_off: false,
        file,
        subuid: subuid.ok(),
        signals,
        processes,
        links,
        agenda: Agenda::default(),
        accounts,
        names: Names::default(),
        in_force,
        followed: Followed::default(),
        handover: Handover::default(),
        told_of_handover: false,
        handed_over_late: 0,
        queue: Queue::default(),
        muted: Muted::default(),
        acted_for: HashMap::new(),
        clock: processes::EventClock::default(),
        view: processes::View::default(),
        roster,
        shaping,
        since: SystemTime::now(),
        said: applying::log_of(&first),
        swept: (Instant::now(), Duration::ZERO),
        lost: None,
        unread: None,
        earlier: None,
    };
    watch.keep_instance();
    watch.begin(orders);
    match watch.go_on()? {
        true => Ok(Ended::WithNamespace(watch.intent.policy)),
        false => Ok(Ended::BySignal),
    }
}

/// What a poll found readable.
#[derive(Clone, Copy, Default)]
struct Readable {
    signals: bool,
    processes: bool,
    links: bool,
    file: bool,
    names: bool,
    subuid: bool,
}

impl Watch {
    fn begin(&mut self, orders: Vec<Order>) {
        let now = Instant::now();
        // Whoever logs in is placed before he, or a storm of processes, has the processors again.
        if !priority::before_others() {
            log::debug!("the daemon has no more right to a processor than others (CAP_SYS_NICE)");
        }
        match &self.processes {
            Some(_) => self.narrow_events(),
            None => log::warn!(
                "this kernel or namespace has no process events: all processes are looked at every second or so instead"
            ),
        }
        self.agenda.by(Task::Ask, now + self.ask_interval());
        self.agenda.by(Task::Leave, now + self.settings.grace / 2);
        self.schedule_sweep(Duration::ZERO);
        self.carry_out(orders);
        self.schedule_sign_of_life(now);
        self.look_at_namespace(now);
        memory::give_back();
        tell(&[NotifyState::Ready]);
        let links = self.in_force.state.trees.len();
        log::info!(
            "watching {}, {links} link{}",
            self.settings.file.display(),
            if links == 1 { "" } else { "s" }
        );
    }

    /// Until a signal ends it; true: until the namespace had lost its name.
    fn go_on(&mut self) -> Result<bool, Failure> {
        loop {
            if self.is_cut_off {
                return Ok(true);
            }
            let rest = match self.queue.is_empty() {
                true => self.agenda.rest(Instant::now()),
                false => Some(Duration::ZERO),
            };
            let readable = self.wait(rest).map_err(|errno| {
                Failure::refused(format!("cannot wait for what happens: {errno}"))
            })?;
            if readable.signals && self.hear_signals() {
                tell(&[NotifyState::Stopping]);
                log::info!("ended; what was made stays (shaper clear removes it)");
                return Ok(false);
            }
            // First of all those who wait to be placed.
            if readable.processes || !self.queue.is_empty() {
                self.hear_processes();
            }
            if readable.links {
                self.hear_links();
            }
            if readable.file {
                self.file.heard();
                self.tell_shaping(Event::FileTold);
            }
            if readable.names {
                self.hear_names();
            }
            if readable.subuid && self.subuid.as_ref().is_some_and(SubuidFile::changed) {
                self.agenda.by(Task::Subuids, Instant::now() + shaping::SETTLE);
            }
            if let Some(task) = self.agenda.take(Instant::now()) {
                self.perform(task);
            }
            if self.shaping.failures() > HOPELESS && self.session.kernel.hierarchy().is_none() {
                // A hardened service cannot mount it; what starts it again can.
                return Err(Failure::refused(
                    "the net_cls hierarchy is gone, and cannot be mounted",
                ));
            }
        }
    }

    fn wait(&self, rest: Option<Duration>) -> nix::Result<Readable> {
        let fds: [Option<BorrowedFd<'_>>; 6] = [
            Some(self.signals.as_fd()),
            self.processes.as_ref().map(AsFd::as_fd),
            Some(self.links.as_fd()),
            self.file.listen(),
            self.names.asking().map(AsFd::as_fd),
            self.subuid.as_ref().map(AsFd::as_fd),
        ];
        let mut polled: Vec<PollFd<'_>> =
            fds.iter().flatten().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
        // Rounded up: what is due in half a millisecond is not due yet.
        let timeout = rest.map_or(PollTimeout::NONE, |rest| {
            PollTimeout::try_from(rest + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut polled, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        let mut found = polled.iter().map(|fd| fd.any().unwrap_or(false));
        let mut is = |fd: &Option<BorrowedFd<'_>>| fd.is_some() && found.next().unwrap_or(false);
        let [signals, processes, links, file, names, subuid] = &fds;
        Ok(Readable {
            signals: is(signals),
            processes: is(processes),
            links: is(links),
            file: is(file),
            names: is(names),
            subuid: is(subuid),
        })
    }

    /// Whether it was told to end.
    fn hear_signals(&mut self) -> bool {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            if signal.ssi_signo != Signal::SIGHUP as u32 {
                return true;
            }
            log::info!("SIGHUP: reading {} and asking NSS again", self.settings.file.display());
            self.tell_shaping(Event::Hangup);
            self.agenda.at(Task::Ask, Instant::now());
        }
        false
    }

    fn hear_names(&mut self) {
        self.count_running();
        let news = self.names.hear(&mut self.accounts);
        self.after_names(news);
    }

    /// NSS has answered, or not in time.
    fn after_names(&mut self, news: News) {
        match self.names.due() {
            Some(limit) => self.agenda.at(Task::GiveUpAsking, limit),
            None => self.agenda.drop(Task::GiveUpAsking),
        }
        if self.accounts.unavailable.is_some() {
            self.agenda.by(Task::Ask, Instant::now() + ASK_AGAIN);
        }
        let asks = self.names.is_asking_about_all();
        self.tell_shaping(Event::Named { asks });
        if news != News::None {
            // Somebody may be another line's now.
            self.everybody |= news == News::Everybody;
            self.soon(Instant::now());
        }
        // Who has a class needs no look at the kernel to be placed.
        self.admit(Instant::now());
    }

    fn perform(&mut self, task: Task) {
        let now = Instant::now();
        match task {
            Task::Muted => self.look_at_muted(now),
            Task::Shape => self.tell_shaping(Event::Time),
            Task::Namespace => self.look_at_namespace(now),
            Task::Sweep => self.sweep(),
            Task::Leave => self.look_who_left(),
            Task::Ask => {
                let question = self.question();
                self.names.ask_all(question);
                self.agenda.by(Task::Ask, now + self.ask_interval());
                self.after_asking();
            }
            Task::Subuids => {
                self.names.read_subuids();
                self.after_asking();
            }
            Task::GiveUpAsking => {
                self.count_running();
                let news = self.names.on_due(&mut self.accounts, now);
                self.after_names(news);
            }
            Task::Alive => {
                tell(&[NotifyState::Watchdog]);
                self.schedule_sign_of_life(now);
            }
        }
    }

    /// Whether it still has the name that the command line gives it.
    fn look_at_namespace(&mut self, now: Instant) {
        let Some(target) = &self.target else { return };
        match target.inode() {
            Ok(inode) => self.is_cut_off = inode != Some(self.session.kernel.netns),
            Err(error) => log::debug!("{target}: {error}"),
        }
        self.agenda.by(Task::Namespace, now + namespace::LOOK);
    }

    /// Where the service manager waits for one.
    fn schedule_sign_of_life(&mut self, now: Instant) {
        if let Some(interval) = sd_notify::watchdog_enabled() {
            self.agenda.by(Task::Alive, now + interval / 2);
        }
    }

    fn ask_interval(&self) -> Duration {
        // An account that the policy names may be made any time.
        let unknown = self.accounts.by_name.values().any(Option::is_none);
        if self.accounts.unavailable.is_some() || unknown { ASK_AGAIN } else { ASK }
    }

    /// All that the policy in force, and one on its way in, want to know of NSS now: an answer
    /// takes the place of what was known.
    fn question(&mut self) -> Question {
        self.count_running();
        let in_force = Question::of(&self.intent.policy);
        let candidate = self.shaping.candidate().map(|policy| Question::of(policy));
        let mut question = candidate.into_iter().fold(in_force, Question::and);
        question.running.clone_from(&self.accounts.running);
        question
    }

    fn after_asking(&mut self) {
        if let Some(limit) = self.names.due() {
            self.agenda.at(Task::GiveUpAsking, limit);
        }
    }

    fn state(&self) -> &KernelState {
        &self.in_force.state
    }
}

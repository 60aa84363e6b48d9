//! The test binary's `main`: what cargo's own harness does, and two things that it cannot. Each
//! test runs in a cell of its own (namespaces belong to a process, not to a thread), and the same
//! binary, copied alone into another kernel, is runner, test and traffic tool.
//!
//! Speaks the part of libtest's language that cargo and nextest use: `--list --format terse`,
//! `--exact NAME`, substrings, `--skip`, `--nocapture`, `--ignored`. And `--again`: a test that
//! fails is run once more, which in a lab's kernel costs less than another boot; `--with-carriers`:
//! in the lab, those of [`On::Carriers`] and no others; `--nightly`: those of [`On::Nightly`] and
//! no others.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};

use super::settings::setting;
use super::{actor, attempt, cell, fugitive, logins, source, stranger};

/// One test: a name such as `textbook::rates`, where it makes sense, and what it does.
#[derive(Clone, Copy)]
pub struct Test {
    pub name: &'static str,
    pub on: On,
    /// After which time the test is killed.
    pub budget: Duration,
    pub body: fn(),
}

/// The kernels that a test is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// The kernel that cargo runs on, and both lab kernels.
    Every,
    /// Not in the emulated machine, where seconds of traffic cost minutes of testing, and whose
    /// kernel is of the same series as user-mode Linux's.
    HostAndUml,
    /// On the host, and by night in the newest kernel of the lab.
    HostAndNight,
    /// Needs process events, which only the machine's own process namespace has: the cell has none
    /// of its own. User-mode Linux has no such events.
    Events,
    /// The same, and what only the machine itself has: much memory, a real sshd.
    HostEvents,
    /// Needs what only the machine itself has (strace, the lab's own tools).
    Host,
    /// The same, and those that follow each other may run at once.
    HostTogether,
    /// Needs a driver that only user-mode Linux has here.
    Uml,
    /// Needs user-mode Linux without `net_cls`.
    Untagged,
    /// Needs a driver that only Debian's kernels have here.
    Qemu,
    /// By `make nightly` alone (`SHAPER_NIGHT`): boots that take many minutes.
    Nightly,
    /// Needs the drivers macvlan and ipvlan in a lab kernel, where the tag then goes before the
    /// owner: so they are loaded when all the others have run.
    Carriers,
    /// The same for Open vSwitch; in the emulated machine by night.
    Switches,
    /// On the host, and by `--demo`, with its output as it comes.
    Demo,
}

/// Which kernel this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Host,
    Uml,
    Qemu,
    /// The same machine with a newer kernel, by night: there seconds do not count.
    Newest,
}

impl Place {
    /// The lab's init says so in `SHAPER_LAB`.
    pub fn current() -> Place {
        match std::env::var("SHAPER_LAB").as_deref() {
            Ok("uml" | "untagged") => Place::Uml,
            Ok("qemu") => Place::Qemu,
            Ok("newest") => Place::Newest,
            _ => Place::Host,
        }
    }
}

impl On {
    /// Whether a test's cell is in the machine's own process namespace.
    pub fn shares_processes(self) -> bool {
        matches!(self, On::Events | On::HostEvents)
    }

    /// In a lab kernel, before or after macvlan, ipvlan and openvswitch are loaded.
    fn includes(self, place: Place, with_carriers: bool) -> bool {
        if with_carriers {
            return match place {
                Place::Host => false,
                Place::Uml | Place::Newest => matches!(self, On::Carriers | On::Switches),
                Place::Qemu => self == On::Carriers,
            };
        }
        match self {
            On::Every => true,
            On::HostAndUml => place != Place::Qemu,
            On::HostAndNight => matches!(place, Place::Host | Place::Newest),
            On::Uml => place == Place::Uml,
            On::Untagged => place == Place::Uml && cell::is_without_net_cls(),
            On::Qemu => matches!(place, Place::Qemu | Place::Newest),
            On::Nightly => place == Place::Host && setting("SHAPER_NIGHT").is_some(),
            On::Events => place != Place::Uml,
            On::Host | On::HostEvents | On::HostTogether | On::Demo => place == Place::Host,
            On::Carriers | On::Switches => false,
        }
    }
}

/// The budget of a test that asks for nothing else. An emulated machine takes three times as long.
pub const BUDGET: Duration = Duration::from_secs(150);

/// Makes the list of a file's tests: `tests!(On::Every: rates, bytes; On::Host: messages)`.
macro_rules! tests {
    ($($on:expr => $($name:ident),+);+ $(;)?) => {
        pub const TESTS: &[$crate::support::harness::Test] = &[$($(
            $crate::support::harness::Test {
                name: $crate::support::harness::short_name(concat!(module_path!(), "::", stringify!($name))),
                on: $on,
                budget: $crate::support::harness::BUDGET,
                body: $name,
            },
        )+)+];
    };
}
pub(crate) use tests;

/// A test's path without the binary's own name in front.
pub const fn short_name(path: &'static str) -> &'static str {
    let bytes = path.as_bytes();
    let mut i = 0;
    while i + 1 < bytes.len() {
        if bytes[i] == b':' && bytes[i + 1] == b':' {
            return path.split_at(i + 2).1;
        }
        i += 1;
    }
    path
}

/// Whatever this process is to be: a traffic tool, a part of a cell, or the runner.
pub fn main(tests: &[&[Test]]) -> ExitCode {
    let tests: Vec<Test> = tests.concat();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--actor"] => actor::run(),
        ["--isolated-actor"] => match unshare(CloneFlags::CLONE_NEWNET) {
            Ok(()) => actor::run(),
            Err(_) => ExitCode::FAILURE,
        },
        ["--prioritized", place] => super::guest::run(place),
        ["--heir", uid, gid] => source::heir(uid, gid),
        ["--enter", pid, command @ ..] => super::command::enter(pid, command),
        ["--logins", words @ ..] => logins::logins(words),
        ["--storm", words @ ..] => logins::storm(words),
        ["--attempt", words @ ..] => attempt::run(words),
        ["--fugitive", words @ ..] => fugitive::run(words),
        ["--stranger", words @ ..] => stranger::run(words),
        ["--born", birth, uid] => stranger::born(birth, uid),
        ["--guest", uid, cgroup] => stranger::guest(uid, cgroup),
        ["--storm-of", words @ ..] => logins::storm_of(words),
        ["--crowd", words @ ..] => logins::crowd(words),
        ["--with-capabilities", numbers, command @ ..] => {
            super::command::with_capabilities(numbers, command)
        }
        ["--keep", name, ..] => match find(&tests, name) {
            Some(test) => cell::keep(name, test.budget, test.on),
            None => ExitCode::FAILURE,
        },
        ["--init", name, ..] => match find(&tests, name) {
            Some(test) => cell::init(name, test.on),
            None => ExitCode::FAILURE,
        },
        ["--body", name] => match find(&tests, name) {
            Some(test) => {
                (test.body)();
                ExitCode::SUCCESS
            }
            None => ExitCode::FAILURE,
        },
        ["--demo"] => match tests.iter().find(|test| test.on == On::Demo) {
            Some(demo) => match cell::run(demo.name, demo.budget, true) {
                Ok(()) => ExitCode::SUCCESS,
                Err(why) => {
                    eprintln!("the demo failed: {why}");
                    ExitCode::FAILURE
                }
            },
            None => ExitCode::FAILURE,
        },
        words => runner(&tests, &Wanted::parse(words)),
    }
}

fn find<'a>(tests: &'a [Test], name: &str) -> Option<&'a Test> {
    tests.iter().find(|test| test.name == name)
}

#[derive(Default)]
struct Wanted {
    list: bool,
    ignored_only: bool,
    exact: bool,
    nocapture: bool,
    names: Vec<String>,
    skip: Vec<String>,
    with_carriers: bool,
    nightly: bool,
    again: bool,
}

impl Wanted {
    fn parse(words: &[&str]) -> Wanted {
        let mut wanted = Wanted::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match *word {
                "--list" => wanted.list = true,
                "--ignored" => wanted.ignored_only = true,
                "--exact" => wanted.exact = true,
                "--with-carriers" => wanted.with_carriers = true,
                "--nightly" => wanted.nightly = true,
                "--again" => wanted.again = true,
                "--nocapture" | "--no-capture" => wanted.nocapture = true,
                "--skip" => wanted.skip.extend(words.next().map(ToString::to_string)),
                "--format" | "--test-threads" | "--color" | "-Z" | "--logfile" => {
                    words.next();
                }
                flag if flag.starts_with('-') => {}
                name => wanted.names.push(name.to_string()),
            }
        }
        wanted
    }

    fn takes(&self, name: &str) -> bool {
        let hit = |given: &String| if self.exact { name == given } else { name.contains(given) };
        !self.ignored_only
            && (self.names.is_empty() || self.names.iter().any(hit))
            && !self.skip.iter().any(hit)
    }
}

fn runner(tests: &[Test], wanted: &Wanted) -> ExitCode {
    let place = Place::current();
    let is_for_here = |test: &&Test| test.on.includes(place, wanted.with_carriers);
    let is_asked_for =
        |test: &&Test| wanted.takes(test.name) && (!wanted.nightly || test.on == On::Nightly);
    let chosen: Vec<&Test> = tests.iter().filter(is_for_here).filter(is_asked_for).collect();
    if wanted.list {
        chosen.iter().for_each(|test| println!("{}: test", test.name));
        return ExitCode::SUCCESS;
    }
    let mut failed = Vec::new();
    println!("\nrunning {} tests", chosen.len());
    let together = |a: &&Test, b: &&Test| a.on == On::HostTogether && b.on == On::HostTogether;
    for tests in chosen.chunk_by(together) {
        let passed = std::thread::scope(|scope| {
            let run = |test: &Test| verdict(test, wanted);
            let run: Vec<_> = tests.iter().map(|test| scope.spawn(move || run(test))).collect();
            run.into_iter().map(|run| run.join().expect("a test's runner")).collect::<Vec<_>>()
        });
        let of_these = tests.iter().zip(passed).filter(|(_, passed)| !passed);
        failed.extend(of_these.map(|(test, _)| test.name));
    }
    let word = if failed.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {} passed; {} failed{}{}",
        chosen.len() - failed.len(),
        failed.len(),
        if failed.is_empty() { "" } else { ": " },
        failed.join(" ")
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs one test and prints the result; whether it passed in the end.
fn verdict(test: &Test, wanted: &Wanted) -> bool {
    let run = || {
        let started = Instant::now();
        let outcome = cell::run(test.name, test.budget, wanted.nocapture);
        (outcome, started.elapsed().as_secs_f32())
    };
    let (mut outcome, mut seconds) = run();
    if let (Err(output), true) = (&outcome, wanted.again) {
        println!("test {} ... failed ({seconds:.1} s), and is run again\n{output}", test.name);
        (outcome, seconds) = run();
    }
    match &outcome {
        Ok(()) => println!("test {} ... ok ({seconds:.1} s)", test.name),
        Err(output) => println!("test {} ... FAILED ({seconds:.1} s)\n{output}", test.name),
    }
    // Flushed, so that the verdict is not lost if the kernel stops in the next test.
    let _ = std::io::stdout().flush();
    outcome.is_ok()
}

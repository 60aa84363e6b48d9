//! What a command costs: time and peak memory; medians and ratios of several runs.

use std::fs::{self, File};
use std::ops::Add;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::support::cell::{SCRATCH, myself};
use crate::support::program::binary;

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Cost {
    pub micros: u64,
    /// On all CPUs, in user and kernel mode: what a busy machine does not stretch.
    pub cpu_micros: u64,
    /// The largest resident set.
    pub peak_kib: u64,
}

/// One after the other.
impl Add for Cost {
    type Output = Cost;

    fn add(self, other: Cost) -> Cost {
        Cost {
            micros: self.micros + other.micros,
            cpu_micros: self.cpu_micros + other.cpu_micros,
            peak_kib: self.peak_kib.max(other.peak_kib),
        }
    }
}

/// Runs `shaper` with these words; panics unless it ends with 0.
pub fn shaper(words: &[&str]) -> Cost {
    let binary = binary();
    let program = binary.to_str().expect("a path in UTF-8");
    command(&[&[program], words].concat())
}

/// Runs a command, its output thrown away, and weighs it. A process of its own starts it: a child's
/// peak counts that of whoever started it (`exec_mmap`, fs/exec.c), which here is small.
pub fn command(words: &[&str]) -> Cost {
    try_command(words).unwrap_or_else(|said| panic!("{words:?} failed:\n{said}"))
}

/// The same for one that may fail: then what it printed.
pub fn try_command(words: &[&str]) -> Result<Cost, String> {
    let mut weigher = myself(&["--weigh"]);
    let output = weigher.args(words).stderr(Stdio::inherit()).output().expect("start the weigher");
    match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout).expect("the weigher's answer")),
        false => Err(fs::read_to_string(said_to()).unwrap_or_default()),
    }
}

fn said_to() -> PathBuf {
    PathBuf::from(SCRATCH).join("said")
}

/// The weigher's own side.
#[expect(clippy::zombie_processes, reason = "wait4 waits, and says what it took, too")]
pub fn weigh(words: &[&str]) -> ExitCode {
    let Some((program, args)) = words.split_first() else { return ExitCode::FAILURE };
    let file = File::create(said_to()).expect("a file for the output");
    let errors = file.try_clone().expect("a file for the output");
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(file).stderr(errors);
    let started = Instant::now();
    let child = command.spawn().unwrap_or_else(|e| panic!("{program}: {e}"));
    let pid = i32::try_from(child.id()).expect("a process id");
    let mut status = 0;
    // SAFETY: all zeroes is a value of this C structure of integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both point to places that can be written, and the process is our own child.
    let waited = unsafe { libc::wait4(pid, &mut status, 0, &mut usage) };
    let micros = micros(started.elapsed());
    if waited != pid || status != 0 {
        return ExitCode::FAILURE;
    }
    let of =
        |time: libc::timeval| time.tv_sec.unsigned_abs() * 1_000_000 + time.tv_usec.unsigned_abs();
    let cost = Cost {
        micros,
        cpu_micros: of(usage.ru_utime) + of(usage.ru_stime),
        peak_kib: usage.ru_maxrss.unsigned_abs(),
    };
    println!("{}", serde_json::to_string(&cost).expect("numbers are JSON"));
    ExitCode::SUCCESS
}

/// What something done in this process takes; its memory is not known.
pub fn of(work: impl FnOnce()) -> Cost {
    let (started, cpu) = (Instant::now(), cpu_time());
    work();
    Cost { micros: micros(started.elapsed()), cpu_micros: cpu_time() - cpu, peak_kib: 0 }
}

/// This process's time on the CPU so far.
fn cpu_time() -> u64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF)
        .expect("a process knows its own usage");
    let of = |time: nix::sys::time::TimeVal| {
        time.tv_sec().unsigned_abs() * 1_000_000 + time.tv_usec().unsigned_abs()
    };
    of(usage.user_time()) + of(usage.system_time())
}

pub fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Several runs of one thing.
#[derive(Default)]
pub struct Runs(pub Vec<Cost>);

impl Runs {
    pub fn push(&mut self, cost: Cost) {
        self.0.push(cost);
    }

    /// The median time in milliseconds.
    pub fn millis(&self) -> f64 {
        self.median(|cost| cost.micros)
    }

    /// The median time on the CPU in milliseconds.
    pub fn cpu_millis(&self) -> f64 {
        self.median(|cost| cost.cpu_micros)
    }

    fn median(&self, of: fn(&Cost) -> u64) -> f64 {
        let mut times: Vec<u64> = self.0.iter().map(of).collect();
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or(0) as f64 / 1_000.0
    }

    /// The largest peak, in MiB; nothing where it is not known.
    pub fn peak(&self) -> String {
        match self.0.iter().map(|cost| cost.peak_kib).max().unwrap_or(0) {
            0 => "–".to_string(),
            kib => format!("{:.1} MiB", kib as f64 / 1024.0),
        }
    }
}

/// What ours is measured against.
pub struct Against<'a> {
    name: &'a str,
    runs: &'a Runs,
    /// The largest ratio of times that is good.
    wanted: Option<f64>,
}

impl<'a> Against<'a> {
    pub fn new(name: &'a str, runs: &'a Runs) -> Against<'a> {
        Against { name, runs, wanted: None }
    }

    pub fn at_most(self, ratio: f64) -> Against<'a> {
        Against { wanted: Some(ratio), ..self }
    }
}

/// A table that compares.
pub struct Table(String);

impl Table {
    pub fn new() -> Table {
        let head = "| what | shaper (CPU) | measured against | (CPU) | ratio (CPU) | wanted | | peak memory |\n";
        Table(format!("{head}|---|---:|---|---:|---:|---:|---|---:|\n"))
    }

    pub fn row(&mut self, what: &str, ours: &Runs, against: &Against<'_>) {
        let theirs = against.runs;
        let ratio = ours.millis() / theirs.millis().max(0.001);
        let of_cpu = ours.cpu_millis() / theirs.cpu_millis().max(0.001);
        let (wanted, verdict) = match against.wanted {
            Some(wanted) => {
                (format!("≤ {wanted:.2}"), if ratio <= wanted { "met" } else { "**missed**" })
            }
            None => ("–".to_string(), ""),
        };
        let time = |runs: &Runs| format!("{:.1} ms ({:.1})", runs.millis(), runs.cpu_millis());
        let row = format!(
            "| {what} | {} | {} | {} | {ratio:.2} ({of_cpu:.2}) | {wanted} | {verdict} | {} |",
            time(ours),
            against.name,
            time(theirs),
            ours.peak()
        );
        println!("{row}");
        self.0.push_str(&row);
        self.0.push('\n');
    }

    pub fn text(self) -> String {
        self.0
    }
}

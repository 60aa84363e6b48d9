//! `shaper status --metrics`: totals that go on where the last run's ended.

use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::counting::Counting;
use super::instance;
use super::output::{self, Output};
use super::scope;
use super::scrape::Scrape;
use crate::cgroup::make_folder;
use crate::cli::{Global, StatusOptions};
use crate::failure::Failure;
use crate::host::kept::{self, ROOM, Totals};
use crate::sample::{Ledger, Sample};
use crate::status::{self, MetricsFormat};
use crate::sys::priority;
use crate::text::shown;

/// How long another run may take to count, and the pause before it is asked for again.
const OTHERS: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(20);

/// Whoever asked for something else than the metrics.
const ELSEWHERE: &str = "metrics are at /metrics\n";

/// The metrics of all that is shaped.
pub(super) fn metrics(
    global: &Global,
    options: &StatusOptions,
    format: MetricsFormat,
) -> Result<Output, Failure> {
    if options.http && !asks_for_metrics().map_err(Failure::refused)? {
        output::http("404 Not Found", "text/plain; charset=utf-8", ELSEWHERE)
            .map_err(Failure::refused)?;
        return Ok(Output::default());
    }
    // A login that comes meanwhile goes first.
    priority::behind_others();
    // Two runs at once would each forget what the other has counted, and whoever has looked before
    // the other one did would take its classes for new ones. Whoever may not write has no lock, and
    // keeps nothing.
    let locked = lock();
    let mut kernel = scope::open(global)?;
    let name = kernel.name.clone();
    // Where no processes are placed, they are counted by the maps that a whole look opens.
    let (sample, report) = match kernel.places() {
        true => {
            let scrape = Scrape::look(&mut kernel)?;
            (scrape.sample(), scrape.status())
        }
        false => {
            let mut counting = Counting::without_since(global)?;
            (counting.seen(), counting.status(None))
        }
    };
    let (ledger, kept) = counted(&name, &sample, locked)?;
    let upkeep = instance::upkeep(&kernel);
    let page = status::metrics(&report, (&ledger, upkeep.as_ref()), options.top, format);
    let mut output = match options.http {
        true => {
            output::http("200 OK", kind(format), &page).map_err(Failure::refused)?;
            Output::default()
        }
        false => Output::text(page),
    };
    if let Err(error) = kept {
        output.stderr = format!(
            "warning: totals cannot be kept in {ROOM} ({}): they begin again when a class does\n",
            shown(&error.to_string())
        );
    }
    Ok(output)
}

fn kind(format: MetricsFormat) -> &'static str {
    match format {
        MetricsFormat::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        MetricsFormat::Openmetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
    }
}

/// The ledger with what was counted until now, and whether it could be kept for the next run.
fn counted(
    instance: &str,
    sample: &Sample,
    locked: io::Result<File>,
) -> Result<(Ledger, io::Result<()>), Failure> {
    let path = kept::path(Totals::Classes, instance);
    let mut ledger = match fs::read_to_string(&path) {
        Ok(text) => Ledger::parse(&text).unwrap_or_default(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ledger::default(),
        Err(error) => return Ok((Ledger::default(), Err(error))),
    };
    ledger.count(sample);
    let kept = locked.and_then(|_locked| kept::write(&path, &ledger.print()));
    Ok((ledger, kept))
}

fn lock() -> io::Result<File> {
    make_folder(Path::new(ROOM))?;
    let path = Path::new(ROOM).join("metrics.lock");
    // Whoever can open it can lock it, and so keep all others waiting.
    let file = File::options().create(true).append(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    let began = Instant::now();
    while let Err(error) = file.try_lock() {
        match error {
            TryLockError::WouldBlock if began.elapsed() < OTHERS => thread::sleep(AGAIN),
            TryLockError::WouldBlock => return Err(io::ErrorKind::ResourceBusy.into()),
            TryLockError::Error(error) => return Err(error),
        }
    }
    Ok(file)
}

/// Reads an HTTP request from standard input, to its end: whether it is for the metrics.
fn asks_for_metrics() -> io::Result<bool> {
    const MOST: usize = 16 * 1024;
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < MOST {
        match io::stdin().read(&mut buffer)? {
            0 => break,
            length => request.extend_from_slice(&buffer[..length]),
        }
    }
    Ok([&b"GET /metrics "[..], b"GET /metrics?"].iter().any(|it| request.starts_with(it)))
}

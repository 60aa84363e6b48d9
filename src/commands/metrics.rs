//! `shaper status --metrics`: totals that go on where the last run's ended.

use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::counting::Counting;
use super::output::{self, Output};
use crate::cli::StatusOptions;
use crate::failure::Failure;
use crate::sample::Ledger;
use crate::status::{self, MetricsFormat};
use crate::text::shown;

/// Where the ledgers are, which end with the machine's uptime as the counters do.
const ROOM: &str = "/run/shaper";

/// How long another run may take to count, and the pause before it is asked for again.
const OTHERS: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(20);

/// Whoever asked for something else than the metrics.
const ELSEWHERE: &str = "metrics are at /metrics\n";

/// The metrics of all that is shaped.
pub(super) fn metrics(
    counting: &mut Counting,
    options: &StatusOptions,
    format: MetricsFormat,
) -> Result<Output, Failure> {
    if options.http && !asks_for_metrics().map_err(Failure::refused)? {
        output::http("404 Not Found", "text/plain; charset=utf-8", ELSEWHERE)
            .map_err(Failure::refused)?;
        return Ok(Output::default());
    }
    let (ledger, kept) = counted(counting)?;
    let page = status::metrics(&counting.status(None), &ledger, options.top, format);
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
fn counted(counting: &mut Counting) -> Result<(Ledger, io::Result<()>), Failure> {
    let path = Path::new(ROOM).join(format!("metrics-{}.json", counting.kernel.name));
    // Two runs at once would each forget what the other has counted. Whoever may not write has
    // no lock, and keeps nothing.
    let locked = lock();
    let mut ledger = match fs::read_to_string(&path) {
        Ok(text) => Ledger::parse(&text).unwrap_or_default(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ledger::default(),
        Err(error) => return Ok((Ledger::default(), Err(error))),
    };
    ledger.count(&counting.sample()?);
    let kept = locked.and_then(|_locked| keep(&path, &ledger));
    Ok((ledger, kept))
}

fn lock() -> io::Result<File> {
    fs::create_dir_all(ROOM)?;
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

/// Whoever reads meanwhile sees the old ledger or the new one.
fn keep(path: &Path, ledger: &Ledger) -> io::Result<()> {
    let new: PathBuf = path.with_extension("new");
    // What others use is root's to know.
    let mut file =
        File::options().create(true).write(true).truncate(true).mode(0o600).open(&new)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(ledger.print().as_bytes())?;
    fs::rename(new, path)
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

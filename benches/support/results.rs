//! `benches/RESULTS.md`: each bench replaces its own sections and leaves the others, so that one
//! can be run again alone. A section stands between two comments that name it.

use std::fs;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/RESULTS.md");

const HEAD: &str = "# What was measured

Written by `make bench`; each section says on which machine. Both sides of a ratio ran in the same
minutes, taking turns, so ratios travel to other machines better than times do. Times are medians.
";

/// Writes one section of one bench, at the end or where it stood before.
pub fn write(bench: &str, name: &str, heading: &str, text: &str) {
    let old = fs::read_to_string(FILE).unwrap_or_else(|_| HEAD.to_string());
    let (open, close) = (format!("<!-- {bench}: {name} -->"), format!("<!-- /{bench}: {name} -->"));
    let section =
        format!("{open}\n## {heading}\n\n{}\n\n{}\n{close}\n", machine(), text.trim_end());
    let stood = old.find(&open).zip(old.find(&close)).filter(|(from, to)| from < to);
    let new = match stood {
        Some((from, to)) => {
            let after = old[to + close.len()..].trim_start_matches('\n');
            let gap = if after.is_empty() { "" } else { "\n" };
            format!("{}{section}{gap}{after}", &old[..from])
        }
        None => format!("{}\n\n{section}", old.trim_end()),
    };
    fs::write(FILE, new).unwrap_or_else(|e| panic!("{FILE}: {e}"));
}

/// The kernel and the machine, without names or places.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    let cpuinfo = read("/proc/cpuinfo");
    let value = |line: &str| line.split_once(':').map(|(_, value)| value.trim().to_string());
    let model = cpuinfo.lines().find(|line| line.starts_with("model name")).and_then(value);
    let cores = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let kib: u64 = read("/proc/meminfo")
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok())
        .unwrap_or(0);
    let gib = (kib + (1 << 19)) >> 20;
    // Only the version: what follows a hyphen may name a build or a host.
    let kernel = kernel.trim().split('-').next().unwrap_or("?").to_string();
    format!(
        "Linux {kernel}, {cores} cores ({}), {gib} GiB of memory; load {} when this was written.",
        model.as_deref().unwrap_or("unknown"),
        read("/proc/loadavg").split(' ').next().unwrap_or("?"),
    )
}

//! Status for people: a table for each link, widths as wide as their contents.

use super::{ClassNumbers, Link, Status};
use crate::text::shown;
use crate::units::Rate;

const HEADINGS: [&str; 10] =
    ["USER", "CLASS", "GROUP", "RATE", "CEIL", "SENT", "PACKETS", "DROPS", "BACKLOG", "PROCS"];

/// The whole table.
pub fn table(status: &Status) -> String {
    let mut text = String::new();
    for (index, link) in status.links.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        one_link(link, &mut text);
    }
    if status.links.is_empty() {
        text.push_str("nothing is shaped here; `shaper apply` does it\n");
    }
    for object in &status.foreign {
        text.push_str(&format!("not ours, left alone: {object}\n"));
    }
    text
}

fn one_link(link: &Link, text: &mut String) {
    text.push_str(&format!(
        "{}  {}  rate {}  classifier {}\n",
        link.dev,
        link.direction,
        bits(link.rate_bit),
        link.classifier.unwrap_or("none"),
    ));
    let mut rows = vec![HEADINGS.map(str::to_string)];
    let dash = || "-".to_string();
    for user in &link.users {
        let group = user.group.clone().unwrap_or_else(dash);
        let processes = if user.source == "class" { dash() } else { user.processes.to_string() };
        rows.push(row(&user.user, &user.classid, group, &user.class, processes));
    }
    for group in &link.groups {
        let parent = group.parent.clone().unwrap_or_else(dash);
        rows.push(row(&format!("[{}]", group.group), &group.classid, parent, &group.class, dash()));
    }
    for (name, pool) in [("(default)", &link.default), ("(unshaped)", &link.unshaped)] {
        if let Some(pool) = pool {
            rows.push(row(name, &pool.classid, dash(), &pool.class, dash()));
        }
    }
    for retired in &link.retired {
        rows.push(row("(retired)", &retired.classid, dash(), &retired.class, dash()));
    }
    print(&rows, text);
    if link.direct_packets > 0 {
        text.push_str(&format!("! {} packets passed no class at all\n", link.direct_packets));
    }
    if let Some(forwarded) = link.default.as_ref().and_then(|pool| pool.forwarded_packets)
        && forwarded > 0
    {
        text.push_str(&format!(
            "(default) includes forwarded packets, such as containers' behind a bridge: {forwarded} in this namespace since it began\n"
        ));
    }
}

fn row(
    name: &str,
    classid: &str,
    group: String,
    class: &ClassNumbers,
    processes: String,
) -> [String; 10] {
    // A guarantee that was not asked for is a share of what is left, and says so.
    let rate = match class.asked_rate_bit {
        Some(_) => bits(class.rate_bit),
        None => format!("~{}", bits(class.rate_bit)),
    };
    [
        shown(name).to_string(),
        classid.to_string(),
        shown(&group).to_string(),
        rate,
        bits(class.ceil_bit),
        bytes(class.sent_bytes),
        class.sent_packets.to_string(),
        class.drops.to_string(),
        bytes(class.backlog_bytes),
        processes,
    ]
}

/// Names left, numbers right.
fn print(rows: &[[String; 10]], text: &mut String) {
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 10] = std::array::from_fn(width);
    for row in rows {
        let cells =
            row.iter().zip(widths).enumerate().map(|(column, (cell, width))| match column {
                0..=2 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
        text.push_str("  ");
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
}

/// As a policy would spell it, rounded to three digits.
fn bits(bits: u64) -> String {
    match Rate::from_bits_per_second(bits) {
        Some(_) => scaled(bits, 1_000, ["bit", "kbit", "mbit", "gbit", "tbit"]),
        None => "0".to_string(),
    }
}

fn bytes(bytes: u64) -> String {
    scaled(bytes, 1_024, ["B", "KiB", "MiB", "GiB", "TiB"])
}

fn scaled(number: u64, step: u64, units: [&str; 5]) -> String {
    let mut unit = 0;
    let mut divisor: u64 = 1;
    while unit < 4 && number / divisor >= step {
        divisor *= step;
        unit += 1;
    }
    let whole = number / divisor;
    let tenths = u128::from(number % divisor) * 10 / u128::from(divisor);
    match (whole < 100 && tenths > 0, units[unit]) {
        (true, unit) => format!("{whole}.{tenths}{unit}"),
        (false, unit) => format!("{whole}{unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_never_round_up() {
        assert_eq!(bits(100_000_000), "100mbit");
        assert_eq!(bits(1_500_000), "1.5mbit");
        assert_eq!(bits(999_999), "999kbit");
        assert_eq!(bytes(0), "0B");
        assert_eq!(bytes(1_536), "1.5KiB");
        assert_eq!(bytes(u64::MAX), "16777215TiB");
    }
}

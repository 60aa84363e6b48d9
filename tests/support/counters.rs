//! Class counters from the output of `tc`, independently of how the program reads them. From text,
//! because iproute2's `-j` prints text for HTB classes too.

use std::collections::BTreeMap;

use super::clock::Micros;
use super::command::run;

/// The classes of one link, by classid as `tc` writes it (`1:10`), at one moment.
#[derive(Clone, Debug)]
pub struct Classes {
    pub at: Micros,
    /// By how many microseconds `at` may be wrong, either way.
    pub off: u64,
    pub by_id: BTreeMap<String, Class>,
}

/// One class as `tc -s -d class show` prints it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Class {
    /// `None`: `root`.
    pub parent: Option<String>,
    pub prio: Option<u8>,
    pub quantum: Option<u32>,
    /// Bits a second, as far as `tc` prints them.
    pub rate: u64,
    pub ceil: u64,
    /// As printed: `1600b`, `15Kb`.
    pub burst: String,
    pub cburst: String,
    pub bytes: u64,
    pub packets: u64,
    pub drops: u64,
    pub overlimits: u64,
    pub backlog_bytes: u64,
    pub lends: u64,
    pub borrows: u64,
}

/// The counters of a link's classes now.
pub fn classes(link: &str) -> Classes {
    let before = Micros::now();
    let text = run(&format!("tc -s -d class show dev {link}"));
    // The kernel answered at some moment between the two: on a slow machine starting `tc` takes a
    // while.
    let off = Micros::now().since(before) / 2;
    Classes { at: Micros(before.0 + off), off, by_id: parse(&text) }
}

impl Classes {
    /// One class; panics when there is none.
    #[track_caller]
    pub fn class(&self, id: &str) -> &Class {
        self.by_id.get(id).unwrap_or_else(|| {
            panic!("no class {id} among {:?}", self.by_id.keys().collect::<Vec<_>>())
        })
    }
}

/// Reads the blocks that start with `class htb`.
pub fn parse(text: &str) -> BTreeMap<String, Class> {
    let mut classes = BTreeMap::new();
    for block in text.split("class htb ").skip(1) {
        let words: Vec<&str> = block
            .split(|c: char| c.is_whitespace() || "(),".contains(c))
            .filter(|w| !w.is_empty())
            .collect();
        let after = |name: &str| {
            words.iter().position(|word| *word == name).and_then(|i| words.get(i + 1)).copied()
        };
        let number = |name: &str| after(name).and_then(|word| word.parse().ok()).unwrap_or(0);
        let printed = |name| after(name).unwrap_or("").split('/').next().unwrap_or("").to_string();
        let packets = words.iter().position(|word| *word == "pkt").and_then(|i| words.get(i - 1));
        let class = Class {
            parent: after("parent").map(str::to_string),
            prio: after("prio").and_then(|word| word.parse().ok()),
            quantum: after("quantum").and_then(|word| word.parse().ok()),
            rate: after("rate").map_or(0, bits),
            ceil: after("ceil").map_or(0, bits),
            burst: printed("burst"),
            cburst: printed("cburst"),
            bytes: number("Sent"),
            packets: packets.and_then(|word| word.parse().ok()).unwrap_or(0),
            drops: number("dropped"),
            overlimits: number("overlimits"),
            backlog_bytes: after("backlog").map_or(0, size),
            lends: number("lended:"),
            borrows: number("borrowed:"),
        };
        if let Some(id) = words.first() {
            classes.insert(id.to_string(), class);
        }
    }
    classes
}

/// `20Mbit`, `1500Kbit`, `8bit`.
fn bits(word: &str) -> u64 {
    scaled(
        word,
        &[
            ("Tbit", 1_000_000_000_000),
            ("Gbit", 1_000_000_000),
            ("Mbit", 1_000_000),
            ("Kbit", 1_000),
            ("bit", 1),
        ],
    )
}

/// `60b`, `12Kb`, `3Mb`: powers of 1024, rounded by `tc`.
fn size(word: &str) -> u64 {
    scaled(word, &[("Mb", 1 << 20), ("Kb", 1 << 10), ("b", 1)])
}

fn scaled(word: &str, units: &[(&str, u64)]) -> u64 {
    units
        .iter()
        .find_map(|(unit, factor)| word.strip_suffix(unit)?.parse::<u64>().ok().map(|n| n * factor))
        .unwrap_or(0)
}

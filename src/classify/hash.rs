//! From a list of rules to hash tables in which a packet meets few of them, with the same answer to
//! every packet: the first rule of the list that matches. Pure.
//!
//! # How
//! One byte of the packet is chosen by which many rules can be told apart. The rules that compare
//! that byte go into the 256 buckets of a table. All others are *deferred*: they are asked after
//! the table, and arranged in the same way. Where a deferred rule comes before a bucket's rule in
//! the file, the bucket has to ask the deferred rule first. It asks deferred rules in *runs*,
//! pieces of their list, each a table of its own that all buckets share. A bucket whose list is
//! still long becomes a table by another byte.
//!
//! Ports are at their usual offset only in a packet without IP options that is no later fragment
//! and whose protocol has ports. So the link to a table by a byte of the ports has keys that make
//! sure of that, the *guards* (`guards`), and a rule that contradicts them cannot match in the
//! table and need not be deferred.
//!
//! Rules that no byte tells apart stay a list. Where that needs more tables or nodes than there can
//! be, it is tried again with longer lists left as they are.

mod bytes;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::frame;
use crate::tree::{Family, U32Hash, U32Key, U32Link, U32Node, U32Rule, U32Rules, U32Table};
use bytes::{BUCKETS, Counts, Hashed, at, bit};

/// The longest list for which no table is made: 16 rules cost a packet about 0.1 µs.
const SHORT: usize = 16;
/// How deep tables may nest: as many links as the kernel follows (`TC_U32_MAXDEPTH`,
/// net/sched/cls_u32.c) less those that find the IP header.
const DEEPEST: u8 = 8 - frame::LINKS;
/// How many nodes one bucket can have: their numbers are 12 bits, and 0 is no number.
pub const MOST_NODES: usize = 0xfff;
/// How many bits of a byte a rule must compare to go into a table by that byte: with fewer it would
/// be in too many buckets.
const FEWEST_BITS: u32 = 4;
/// How many rules a table must take off a list to be worth its link.
const WORTH: usize = 4;

/// The tables for the rules of one family, given in the order in which they are to be asked. They
/// take at most half the tables of a pref, which is for both families.
pub fn arrange(family: Family, rules: Vec<U32Rule>) -> U32Rules {
    arrange_in(family, rules, frame::tables_of_a_family())
}

/// As [`arrange`], in at most `tables` tables.
pub fn arrange_in(family: Family, mut rules: Vec<U32Rule>, tables: u16) -> U32Rules {
    if rules.len() <= SHORT {
        return rules.into();
    }
    let mut seen = HashSet::new();
    // No packet gets to the second of two rules with the same keys.
    let first: Vec<bool> = rules.iter().map(|rule| seen.insert(rule.keys.clone())).collect();
    let mut first = first.into_iter();
    rules.retain(|_| first.next() == Some(true));
    // This ends: with `short` as long as the list itself there are no tables but those that a list
    // longer than a bucket is cut into.
    let shorts = std::iter::successors(Some(SHORT), |short| Some(2 * short));
    let mut sizes = shorts.flat_map(|short| {
        let fews = [(short / 4, 2), (short / 4, 1), (short / 2, 1), (short, 1)];
        fews.map(|(few, levels)| Sizes { short, few, levels })
    });
    let fits = sizes.find_map(|sizes| Builder::new(family, &rules, sizes, tables).build().ok());
    fits.unwrap_or_default()
}

/// Which lists are left as they are: the smaller these numbers, the more tables.
#[derive(Clone, Copy)]
struct Sizes {
    /// Lists up to this length.
    short: usize,
    /// Up to so many deferred rules are asked one by one, without a table for their run.
    few: usize,
    /// How deep tables of deferred rules may nest.
    levels: u8,
}

/// There would be too many tables or nodes, or links too deep.
struct DoesNotFit;

/// Indexes in the list of rules, ascending.
type Places = [usize];

/// A node in the making.
#[derive(Clone)]
enum Node {
    /// A rule, by its index in the list of rules.
    Rule(usize),
    Link(U32Link),
}

impl Node {
    fn written(self, rules: &[U32Rule]) -> U32Node {
        match self {
            Node::Rule(place) => U32Node::Rule(rules[place].clone()),
            Node::Link(link) => U32Node::Link(link),
        }
    }
}

struct Table {
    divisor: u16,
    buckets: BTreeMap<u8, Vec<Node>>,
}

/// A list of deferred rules, which buckets ask before some of their own.
#[derive(Default)]
struct Waiting {
    places: Vec<usize>,
    /// How deep tables of deferred rules may nest below the tables of these rules.
    levels: u8,
    /// The runs that are made already, by their range of indexes in `places` (the first, and one
    /// past the last).
    runs: HashMap<(usize, usize), Vec<Node>>,
    /// By guards: the list of those of these rules that contradict none of them.
    guarded: BTreeMap<Vec<Vec<U32Key>>, usize>,
}

/// The list of deferred rules that has none.
const NOBODY: usize = 0;

/// Where in the tables a list of rules is.
#[derive(Clone, Copy)]
struct Inside {
    /// The deferred rules, each to be asked before the rules of this list that come after it in the
    /// file.
    waiting: usize,
    /// Lists up to this length are left as they are.
    short: usize,
    /// How deep tables of deferred rules may still nest.
    levels: u8,
    /// The bytes by which the tables around this list are hashed, a bit for each.
    used: u64,
}

/// One byte of the packet, by its offset. The byte is what the rules take it for where one of the
/// guards, each a set of keys, matches.
struct Slice {
    byte: usize,
    guards: BTreeSet<Vec<U32Key>>,
}

struct Builder<'a> {
    rules: &'a [U32Rule],
    /// The offset of the source address: keys before it guard the ports.
    addresses: i32,
    /// The offset of the ports.
    transport: i32,
    sizes: Sizes,
    tables: Vec<Table>,
    /// How deep the tables below each table nest.
    heights: Vec<u8>,
    nodes_left: usize,
    most_tables: u16,
    waiting: Vec<Waiting>,
}

impl<'a> Builder<'a> {
    fn new(family: Family, rules: &'a [U32Rule], sizes: Sizes, most_tables: u16) -> Builder<'a> {
        let (addresses, transport) = match family {
            Family::V4 => (12, 20),
            Family::V6 => (8, 40),
        };
        Builder {
            rules,
            addresses,
            transport,
            sizes,
            tables: Vec::new(),
            heights: Vec::new(),
            // Bounded, since each node takes half a kilobyte of the kernel's memory or more.
            nodes_left: 10 * rules.len() + MOST_NODES,
            most_tables,
            waiting: vec![Waiting::default()],
        }
    }

    fn build(mut self) -> Result<U32Rules, DoesNotFit> {
        let all: Vec<usize> = (0..self.rules.len()).collect();
        let Sizes { short, levels, .. } = self.sizes;
        let root = self.nodes(&all, Inside { waiting: NOBODY, short, levels, used: 0 })?;
        let root = self.folded(root)?;
        if self.height(&root) > DEEPEST {
            return Err(DoesNotFit);
        }
        let rules = self.rules;
        let written =
            |nodes: Vec<Node>| nodes.into_iter().map(|node| node.written(rules)).collect();
        let tables = self.tables.into_iter().map(|Table { divisor, buckets }| {
            let buckets = buckets.into_iter().map(|(bucket, nodes)| (bucket, written(nodes)));
            U32Table { divisor, buckets: buckets.collect() }
        });
        Ok(U32Rules { tables: (0..).zip(tables).collect(), root: written(root) })
    }

    /// Nodes that give a packet the answer of these rules and of the deferred ones, asked in the
    /// order of the file. Deferred rules that come after the last of these rules are left out:
    /// whoever deferred them asks all of them after the table.
    fn nodes(&mut self, places: &Places, inside: Inside) -> Result<Vec<Node>, DoesNotFit> {
        // Where rules are deferred, each rule of a bucket's own list may need a run of them before
        // it.
        let short = if inside.waiting == NOBODY { inside.short } else { WORTH };
        if places.len() <= short {
            return self.list(places, inside.waiting);
        }
        for slice in self.slices(places, inside.used) {
            let (said, rest): (Vec<usize>, Vec<usize>) =
                places.iter().partition(|place| self.says(**place, &slice));
            let asked_before: Vec<usize> =
                rest.iter().copied().filter(|place| self.passes(*place, &slice.guards)).collect();
            let waiting = match (asked_before.is_empty(), inside.waiting) {
                (true, waiting) => self.guarded(waiting, &slice.guards),
                (false, NOBODY) if inside.levels > 0 => self.wait(asked_before, inside.levels - 1),
                // Deferred rules of two levels would need runs of their own in each bucket.
                (false, _) => continue,
            };
            let mut nodes = self.table(&slice, &said, Inside { waiting, ..inside })?;
            nodes.extend(self.nodes(&rest, inside)?);
            return Ok(nodes);
        }
        self.list(places, inside.waiting)
    }

    /// A link for each guard to a table of the rules that compare the slice's byte.
    fn table(
        &mut self,
        slice: &Slice,
        said: &Places,
        inside: Inside,
    ) -> Result<Vec<Node>, DoesNotFit> {
        let short = if inside.waiting == NOBODY { inside.short } else { WORTH };
        let hashed = self.hashed(said, slice.byte, short);
        let mut lists = vec![Vec::new(); hashed.divisor()];
        for place in said {
            let (value, mask) = self.byte(*place, slice.byte);
            for bucket in hashed.buckets(value, mask) {
                lists[usize::from(bucket)].push(*place);
            }
        }
        let mut buckets = BTreeMap::new();
        let inside = Inside { used: inside.used | bit(slice.byte), ..inside };
        for (bucket, list) in (0..=u8::MAX).zip(lists) {
            if !list.is_empty() {
                let nodes = self.nodes(&list, inside)?;
                buckets.insert(bucket, self.folded(nodes)?);
            }
        }
        let table = self.add(Table { divisor: hashed.divisor() as u16, buckets })?;
        // Rules compare none but the first 44 bytes.
        let (word, shift) = (slice.byte & !3, 24 - 8 * (slice.byte & 3));
        let hash = Some(U32Hash { mask: u32::from(hashed.mask()) << shift, offset: word as i16 });
        let link = |keys: &Vec<U32Key>| {
            Node::Link(U32Link { keys: keys.clone(), table, hash, advance: 0 })
        };
        Ok(slice.guards.iter().map(link).collect())
    }

    /// By how many bits of the byte a table of these rules is hashed. A range of ports leaves the
    /// last bits open and is in a bucket for each value of these. So the table has the most bits
    /// with which a rule is in at most two buckets on average, if no bucket's list is then longer
    /// than `short`; else all bits.
    fn hashed(&self, said: &Places, byte: usize, short: usize) -> Hashed {
        let nodes_and_longest = |hashed: Hashed| {
            let mut lengths = vec![0; hashed.divisor()];
            for place in said {
                let (value, mask) = self.byte(*place, byte);
                hashed.buckets(value, mask).for_each(|bucket| lengths[usize::from(bucket)] += 1);
            }
            (lengths.iter().sum::<usize>(), lengths.into_iter().max().unwrap_or(0))
        };
        let fewer = (1..=8).rev().map(|bits| Hashed { bits }).find(|hashed| {
            let (nodes, longest) = nodes_and_longest(*hashed);
            nodes <= 2 * said.len() && (hashed.bits == 8 || longest <= short)
        });
        fewer.unwrap_or(Hashed { bits: 8 })
    }

    /// These rules one after the other, before each the runs of the deferred rules that come before
    /// it.
    fn list(&mut self, places: &Places, waiting: usize) -> Result<Vec<Node>, DoesNotFit> {
        let mut nodes = Vec::with_capacity(places.len());
        let mut asked = 0;
        for place in places {
            if waiting != NOBODY {
                let upto = self.waiting[waiting].places.partition_point(|other| other < place);
                let all = self.waiting[waiting].places.len();
                self.run(waiting, (0, all), (asked, upto), &mut nodes)?;
                asked = upto;
            }
            self.check(nodes.len())?;
            nodes.push(Node::Rule(*place));
        }
        Ok(nodes)
    }

    /// Appends nodes that ask the deferred rules with indexes in `wanted`, as far as these are in
    /// `whole`. Runs are quarters, quarters of quarters and so on of all deferred rules, so that
    /// few runs serve every bucket.
    fn run(
        &mut self,
        waiting: usize,
        whole: (usize, usize),
        wanted: (usize, usize),
        nodes: &mut Vec<Node>,
    ) -> Result<(), DoesNotFit> {
        let (from, to) = (whole.0.max(wanted.0), whole.1.min(wanted.1));
        let few = self.sizes.few;
        if from >= to {
            return Ok(());
        }
        // A few rules at the end of a run are asked by asking the whole run: the packet has met the
        // beginning of the run before and matched none of it.
        let at_its_end = to == whole.1 && whole.1 - whole.0 > few && to - from <= few;
        if to - from <= few && !at_its_end {
            let places = &self.waiting[waiting].places[from..to];
            nodes.extend(places.iter().map(|place| Node::Rule(*place)));
            return Ok(());
        }
        if (from, to) != whole && !at_its_end {
            let quarter = |nth: usize| whole.0 + (whole.1 - whole.0) * nth / 4;
            for nth in 0..4 {
                self.run(waiting, (quarter(nth), quarter(nth + 1)), wanted, nodes)?;
            }
            return Ok(());
        }
        if !self.waiting[waiting].runs.contains_key(&whole) {
            let places = self.waiting[waiting].places[whole.0..whole.1].to_vec();
            let levels = self.waiting[waiting].levels;
            let inside = Inside { waiting: NOBODY, short: few, levels, used: 0 };
            let mut run = self.nodes(&places, inside)?;
            if run.len() > few {
                run = vec![self.held(run)?];
            }
            self.waiting[waiting].runs.insert(whole, run);
        }
        nodes.extend_from_slice(&self.waiting[waiting].runs[&whole]);
        Ok(())
    }

    /// The same nodes as a list that fits into one bucket: a longer list is cut into tables.
    fn folded(&mut self, mut nodes: Vec<Node>) -> Result<Vec<Node>, DoesNotFit> {
        while nodes.len() > MOST_NODES {
            let parts: Vec<Vec<Node>> = nodes.chunks(MOST_NODES).map(<[_]>::to_vec).collect();
            nodes = parts.into_iter().map(|part| self.held(part)).collect::<Result<_, _>>()?;
        }
        Ok(nodes)
    }

    /// A link to a new table with one bucket that has this list.
    fn held(&mut self, nodes: Vec<Node>) -> Result<Node, DoesNotFit> {
        let nodes = self.folded(nodes)?;
        let table = self.add(Table { divisor: 1, buckets: BTreeMap::from([(0, nodes)]) })?;
        Ok(Node::Link(U32Link { keys: Vec::new(), table, hash: None, advance: 0 }))
    }

    fn add(&mut self, table: Table) -> Result<u16, DoesNotFit> {
        let number = u16::try_from(self.tables.len()).map_err(|_| DoesNotFit)?;
        let nodes = table.buckets.values().map(Vec::len).sum();
        self.check(nodes)?;
        self.nodes_left -= nodes;
        let height = table.buckets.values().map(|nodes| self.height(nodes)).max().unwrap_or(0);
        if number >= self.most_tables || height >= DEEPEST {
            return Err(DoesNotFit);
        }
        self.tables.push(table);
        self.heights.push(height);
        Ok(number)
    }

    fn check(&self, nodes: usize) -> Result<(), DoesNotFit> {
        if nodes <= self.nodes_left { Ok(()) } else { Err(DoesNotFit) }
    }

    fn height(&self, nodes: &[Node]) -> u8 {
        let height = |node: &Node| match node {
            Node::Rule(_) => 0,
            Node::Link(link) => 1 + self.heights[usize::from(link.table)],
        };
        nodes.iter().map(height).max().unwrap_or(0)
    }

    fn wait(&mut self, places: Vec<usize>, levels: u8) -> usize {
        self.waiting.push(Waiting { places, levels, ..Waiting::default() });
        self.waiting.len() - 1
    }

    /// The deferred rules that do not contradict the guards: a packet that a guard lets through can
    /// match them.
    fn guarded(&mut self, waiting: usize, guards: &BTreeSet<Vec<U32Key>>) -> usize {
        let guards_list: Vec<_> = guards.iter().cloned().collect();
        if let Some(known) = self.waiting[waiting].guarded.get(&guards_list) {
            return *known;
        }
        let all = &self.waiting[waiting].places;
        let left: Vec<usize> =
            all.iter().copied().filter(|place| self.passes(*place, guards)).collect();
        let index = match left.len() {
            0 => NOBODY,
            count if count == all.len() => waiting,
            _ => self.wait(left, self.waiting[waiting].levels),
        };
        self.waiting[waiting].guarded.insert(guards_list, index);
        index
    }

    /// Whether some packet matches the rule and one of the guards.
    fn passes(&self, place: usize, guards: &BTreeSet<Vec<U32Key>>) -> bool {
        let agrees = |a: &U32Key, b: &U32Key| {
            a.offset != b.offset || (a.value ^ b.value) & a.mask & b.mask == 0
        };
        let keys = &self.rules[place].keys;
        guards.iter().any(|guard| guard.iter().all(|a| keys.iter().all(|b| agrees(a, b))))
    }

    /// What the rule compares of a byte of the packet: value and mask.
    fn byte(&self, place: usize, byte: usize) -> (u8, u8) {
        let key = self.rules[place].keys.iter().find(|key| at(key) == byte & !3);
        key.map_or((0, 0), |key| {
            (key.value.to_be_bytes()[byte & 3], key.mask.to_be_bytes()[byte & 3])
        })
    }

    fn says(&self, place: usize, slice: &Slice) -> bool {
        self.byte(place, slice.byte).1.count_ones() >= FEWEST_BITS
    }

    /// Bytes by which a table would be worth its link, the best first, that is the one after which
    /// a packet has the fewest of these rules left to meet.
    fn slices(&self, places: &Places, used: u64) -> Vec<Slice> {
        let mut counts: BTreeMap<usize, Counts> = BTreeMap::new();
        for place in places {
            for key in &self.rules[*place].keys {
                let bytes = key.value.to_be_bytes().into_iter().zip(key.mask.to_be_bytes());
                for (byte, (value, mask)) in (at(key)..).zip(bytes) {
                    if mask.count_ones() >= FEWEST_BITS && used & bit(byte) == 0 {
                        counts.entry(byte).or_default().add(value, mask);
                    }
                }
            }
        }
        let mut worth: Vec<(usize, usize)> =
            counts.into_iter().map(|(byte, counts)| (counts.worth(), byte)).collect();
        worth.retain(|(worth, _)| *worth > WORTH);
        worth.sort_by_key(|(worth, byte)| (std::cmp::Reverse(*worth), *byte));
        let mut bytes: Vec<usize> = worth.into_iter().map(|(_, byte)| byte).collect();
        if let Some(nth) = self.better_before(places, &bytes) {
            bytes[..=nth].rotate_right(1);
        }
        bytes.into_iter().map(|byte| self.slice(places, byte)).collect()
    }

    /// Where the best byte leaves long lists, each of its buckets becomes a table. The byte (by its
    /// index) that is better asked before it, because that needs fewer tables: the addresses of
    /// thousands of neighbours have few values of the third byte, and all of the fourth.
    fn better_before(&self, places: &Places, bytes: &[usize]) -> Option<usize> {
        let (best, others) = bytes.split_first()?;
        let exact = |place: &&usize, byte: usize| self.byte(**place, byte).1 == u8::MAX;
        let said: Vec<&usize> = places.iter().filter(|place| exact(place, *best)).collect();
        if said.len() <= self.sizes.short * BUCKETS {
            return None;
        }
        let tables = |byte: usize| {
            let mut values = [false; BUCKETS];
            let mut pairs = vec![false; BUCKETS * BUCKETS];
            for place in &said {
                if !exact(place, byte) {
                    return None;
                }
                let (value, other) = (self.byte(**place, byte).0, self.byte(**place, *best).0);
                values[usize::from(value)] = true;
                pairs[BUCKETS * usize::from(value) + usize::from(other)] = true;
            }
            let different = |seen: &[bool]| seen.iter().filter(|seen| **seen).count();
            let short = said.len() <= WORTH * different(&pairs);
            Some(different(&values)).filter(|values| short && *values < BUCKETS / 2)
        };
        let fewest = others.iter().zip(1..).filter_map(|(byte, nth)| Some((tables(*byte)?, nth)));
        fewest.min().map(|(_, nth)| nth)
    }

    fn slice(&self, places: &Places, byte: usize) -> Slice {
        let ports = usize::try_from(self.transport).is_ok_and(|transport| byte >= transport);
        if !ports {
            return Slice { byte, guards: BTreeSet::from([Vec::new()]) };
        }
        let mut slice = Slice { byte, guards: BTreeSet::new() };
        for place in places {
            if self.says(*place, &slice) {
                let keys = self.rules[*place].keys.iter().copied();
                slice.guards.insert(keys.filter(|key| key.offset < self.addresses).collect());
            }
        }
        slice
    }
}

#[cfg(test)]
mod tests;

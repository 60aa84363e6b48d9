//! From the records of one parent's filters to the filter at each pref. The kernel dumps u32 rules
//! as a record of the pref, one of each hash table and one of each key node; every other filter as
//! a record of the pref and one of the filter. Pure.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use super::cls_u32::U32Record;
use super::decode::{FilterDetail, FilterRecord};
use super::{ETH_P_ALL, bpf_name, flow_name};
use crate::tree::{
    Filter, FoundFilter, MapIds, Pref, Program, Protocol, StrangeFilter, Tag, U32Link, U32Node,
    U32Rules, U32Table,
};
use crate::units::ClassId;

/// The filter at each pref, from the records of one link and one parent. A filter that shaper does
/// not write, also at a pref that is not ours, is strange.
pub fn filters(records: impl IntoIterator<Item = FilterRecord>) -> BTreeMap<Pref, FoundFilter> {
    let mut by_pref: BTreeMap<Pref, Vec<FilterRecord>> = BTreeMap::new();
    for record in records {
        by_pref.entry(record.pref).or_default().push(record);
    }
    by_pref.into_iter().filter_map(|(pref, records)| Some((pref, one(&records)?))).collect()
}

/// The filter that these records of one pref describe; `None` only where there is no record.
fn one(records: &[FilterRecord]) -> Option<FoundFilter> {
    let first = records.first()?;
    let strange = || {
        let (protocol, kind) = (first.protocol, first.kind.clone());
        FoundFilter::Strange(StrangeFilter { protocol, kind, tables: tables(records) })
    };
    let alike = records
        .iter()
        .all(|r| r.kind == first.kind && r.protocol == first.protocol && r.chain == 0);
    if !alike {
        return Some(strange());
    }
    let found = match first.kind.as_str() {
        "u32" => rules(records),
        "cgroup" | "bpf" if first.protocol == ETH_P_ALL => tag(records),
        _ => None,
    };
    Some(found.map_or_else(strange, FoundFilter::Ours))
}

/// For each line of `rules`, from the records of one link: the class that it sends packets to, and
/// how many packets it has matched, `None` where the kernel does not count them.
pub fn lines(records: &[FilterRecord]) -> BTreeMap<NonZeroU32, (ClassId, Option<u64>)> {
    let mut lines: BTreeMap<NonZeroU32, (ClassId, Option<u64>)> = BTreeMap::new();
    for record in records.iter().filter(|record| Pref::RULES.contains(&record.pref)) {
        if let FilterDetail::U32(U32Record::Rule(rule)) = &record.detail
            && let Some(line) = rule.line
        {
            let (_, sum) = lines.entry(line).or_insert((rule.to, None));
            *sum = match (*sum, record.hits) {
                (Some(sum), Some(hits)) => Some(sum.saturating_add(hits)),
                (sum, hits) => sum.or(hits),
            };
        }
    }
    lines
}

/// Which table, bucket and node a u32 record is about, from its handle.
fn place(record: &FilterRecord) -> (u16, u8, u16) {
    let handle = record.handle;
    ((handle >> 20) as u16, (handle >> 12 & 0xff) as u8, (handle & 0xfff) as u16)
}

/// The lowest number of a pref's own table: numbers from here on are given by the kernel.
const ROOT_TABLES: u16 = 0x800;

/// The u32 tables among the records that stay when the pref is deleted, the latest first.
fn tables(records: &[FilterRecord]) -> Vec<u16> {
    let table = |record: &FilterRecord| match record.detail {
        FilterDetail::U32(U32Record::Table { .. }) => Some(place(record).0),
        _ => None,
    };
    let mut tables: Vec<u16> = records.iter().filter_map(table).collect();
    tables.sort_unstable_by(|a, b| b.cmp(a));
    // Of several tables that the kernel numbered only one is the pref's own, and no record says
    // which.
    if tables.iter().filter(|table| **table >= ROOT_TABLES).count() == 1 {
        tables.retain(|table| *table < ROOT_TABLES);
    }
    tables
}

/// The u32 rules of these records, ordered by the nodes' numbers, as the kernel asks them. `None`:
/// they are not what shaper writes.
fn rules(records: &[FilterRecord]) -> Option<Filter> {
    let first = records.first()?;
    let protocol = Protocol::ALL.into_iter().find(|p| p.ethertype() == first.protocol)?;
    let numbers = first.pref.tables();
    let relative = |table: u16| numbers.contains(&table).then(|| table.wrapping_sub(numbers.start));
    let mut root = None;
    let mut rules = U32Rules::default();
    for record in records {
        let FilterDetail::U32(U32Record::Table { divisor }) = record.detail else { continue };
        let (table, ..) = place(record);
        if table >= ROOT_TABLES {
            if divisor != 1 || root.replace(table).is_some() {
                return None;
            }
            continue;
        }
        let divisor = u16::try_from(divisor).ok()?;
        rules.tables.insert(relative(table)?, U32Table { divisor, buckets: BTreeMap::new() });
    }
    let mut nodes: BTreeMap<(u16, u8, u16), U32Node> = BTreeMap::new();
    for record in records {
        let node = match &record.detail {
            FilterDetail::U32(U32Record::Rule(rule)) => U32Node::Rule(rule.clone()),
            FilterDetail::U32(U32Record::Link(link)) => {
                U32Node::Link(U32Link { table: relative(link.table)?, ..link.clone() })
            }
            FilterDetail::U32(U32Record::Table { .. }) | FilterDetail::Pref => continue,
            _ => return None,
        };
        // Two nodes with one number: no record says which is asked first.
        if nodes.insert(place(record), node).is_some() {
            return None;
        }
    }
    for ((table, bucket, _), node) in nodes {
        if Some(table) == root {
            rules.root.push(node);
        } else {
            let table = rules.tables.get_mut(&relative(table)?)?;
            table.buckets.entry(bucket).or_default().push(node);
        }
    }
    (root.is_some() && !rules.root.is_empty()).then_some(Filter::U32 { protocol, rules })
}

fn tag(records: &[FilterRecord]) -> Option<Filter> {
    let mut filters = records.iter().filter(|record| record.detail != FilterDetail::Pref);
    let record = filters.next()?;
    let tag = match &record.detail {
        FilterDetail::Cgroup { plain: true } => Filter::Tag(Tag::Cgroup),
        FilterDetail::Bpf { name: Some(name), classid, plain: true, .. }
            if *classid == Some(record.parent) =>
        {
            let decides = bpf_name::parse(name).map(|(program, _)| Filter::Tag(Tag::Bpf(program)));
            let finds = || flow_name::parse_find(name).map(|(filter, _)| filter);
            let pulse = || flow_name::parse_pulse(name).map(|_| Filter::Pulse);
            decides.or_else(finds).or_else(pulse)?
        }
        _ => return None,
    };
    // Below a shard such a program would send every packet to the shard's default class.
    if tag.reads_shards() && record.parent != ClassId::ROOT {
        return None;
    }
    filters.next().is_none().then_some(tag)
}

/// The names of the programs of rules, by pref. Until its maps are read, such a program is
/// strange.
pub fn program_rules(records: &[FilterRecord]) -> BTreeMap<Pref, String> {
    let names = records.iter().filter_map(|record| match &record.detail {
        FilterDetail::Bpf { name: Some(name), classid, plain: true, .. }
            if Pref::PROGRAM.contains(&record.pref)
                && *classid == Some(ClassId::ROOT)
                && (record.parent, record.protocol, record.chain)
                    == (ClassId::ROOT, ETH_P_ALL, 0) =>
        {
            bpf_name::parse_rules(name)?;
            Some((record.pref, name.clone()))
        }
        _ => None,
    });
    let names: Vec<(Pref, String)> = names.collect();
    let is_alone = |pref: Pref| {
        let here =
            |record: &&FilterRecord| record.pref == pref && record.detail != FilterDetail::Pref;
        records.iter().filter(here).count() == 1
    };
    names.into_iter().filter(|(pref, _)| is_alone(*pref)).collect()
}

/// Our deciding programs, each with the maps that it reads.
pub fn programs(records: &[FilterRecord]) -> BTreeMap<Pref, (Program, MapIds)> {
    let programs = records.iter().filter_map(|record| match &record.detail {
        FilterDetail::Bpf { name: Some(name), .. } => Some((record.pref, bpf_name::parse(name)?)),
        _ => None,
    });
    programs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{ETH_P_IP, ETH_P_IPV6};
    use crate::tree::{Program, Sockets, TagHelper, U32Rule};
    use crate::units::Minor;

    fn record(protocol: u16, kind: &str, handle: u32, detail: FilterDetail) -> FilterRecord {
        FilterRecord {
            binds: None,
            hits: None,
            ifindex: 1,
            parent: ClassId::ROOT,
            pref: Pref(100),
            protocol,
            chain: 0,
            kind: kind.to_string(),
            handle,
            detail,
        }
    }

    fn u32(handle: u32, record_of: U32Record) -> FilterRecord {
        record(ETH_P_IP, "u32", handle, FilterDetail::U32(record_of))
    }

    fn a_rule(minor: u16) -> U32Rule {
        U32Rule { keys: vec![], to: ClassId::ours(Minor(minor)), line: None }
    }

    fn one_rule() -> Vec<FilterRecord> {
        vec![
            record(ETH_P_IP, "u32", 0, FilterDetail::Pref),
            u32(0x8000_0000, U32Record::Table { divisor: 1 }),
            u32(0x8000_0001, U32Record::Rule(a_rule(0x10))),
        ]
    }

    fn is_strange(records: Vec<FilterRecord>) -> bool {
        matches!(filters(records)[&Pref(100)], FoundFilter::Strange(_))
    }

    #[test]
    fn what_we_would_not_write_is_strange() {
        assert!(!is_strange(one_rule()));
        let with = |extra: FilterRecord| is_strange([one_rule(), vec![extra]].concat());
        assert!(with(u32(0x0050_0000, U32Record::Table { divisor: 1 })), "a second table");
        assert!(with(u32(0x8000_0002, U32Record::Other)), "a link or an action");
        assert!(with(u32(0x8000_0001, U32Record::Rule(a_rule(0x11)))), "one number twice");
        let elsewhere = u32(0x8000_0002, U32Record::Rule(a_rule(0x11)));
        assert!(with(FilterRecord { chain: 7, ..elsewhere }), "another chain");
        assert!(is_strange(one_rule()[..2].to_vec()), "no rule at all");
        let ip_only = record(ETH_P_IP, "cgroup", 1, FilterDetail::Cgroup { plain: true });
        assert!(is_strange(vec![ip_only]), "IPv6 would escape it");
        let ematch = record(ETH_P_ALL, "cgroup", 1, FilterDetail::Cgroup { plain: false });
        assert!(is_strange(vec![ematch]));
        let bpf = |name: &str, classid, plain| {
            let (name, classid) = (Some(name.to_string()), Some(ClassId(classid)));
            record(
                ETH_P_ALL,
                "bpf",
                1,
                FilterDetail::Bpf { name, classid, plain, direct: false, redirects_to: None },
            )
        };
        let program = Program {
            shards: false,
            tag: Some(TagHelper::Task),
            cgroups: false,
            sockets: Sockets::All,
            mptcp: None,
            labels: false,
        };
        let name = bpf_name::print(program, MapIds([1, 2, 3, 4]));
        assert!(!is_strange(vec![bpf(&name, 0x1_0000, true)]));
        assert!(is_strange(vec![bpf("other", 0x1_0000, true)]));
        assert!(is_strange(vec![bpf(&name, 0x1_0010, true)]));
        assert!(is_strange(vec![bpf(&name, 0x1_0000, false)]), "direct action");
        let wanted = BTreeMap::from([(Pref(100), (program, MapIds([1, 2, 3, 4])))]);
        assert_eq!(programs(&[bpf(&name, 0x1_0000, true)]), wanted);
    }

    #[test]
    fn a_strange_filter_says_its_protocol_so_that_it_can_be_deleted() {
        let flower = record(ETH_P_IPV6, "flower", 1, FilterDetail::Other);
        let kind = "flower".to_string();
        let wanted = StrangeFilter { protocol: ETH_P_IPV6, kind, tables: vec![] };
        assert_eq!(filters([flower])[&Pref(100)], FoundFilter::Strange(wanted));
    }
}

//! The records of one parent's filters → what stands at each pref. A u32 filter is dumped as the
//! pref itself, its hash table, and each key node; the rest as the pref and the filter. Pure.

use std::collections::BTreeMap;

use super::cls_u32::U32Record;
use super::decode::{FilterDetail, FilterRecord};
use super::{BPF_NAME, ETH_P_ALL, ETH_P_IP, ETH_P_IPV6};
use crate::state::{Family, Filter, Pref, Tag};
use crate::units::ClassId;

/// All that stands at each pref, from the records of one link and one parent. What we would not
/// write ourselves, also at prefs that are not ours, is [`Filter::Unknown`].
pub fn filters(records: impl IntoIterator<Item = FilterRecord>) -> BTreeMap<Pref, Filter> {
    let mut by_pref: BTreeMap<Pref, Vec<FilterRecord>> = BTreeMap::new();
    for record in records {
        by_pref.entry(record.pref).or_default().push(record);
    }
    by_pref.into_iter().filter_map(|(pref, records)| Some((pref, one(&records)?))).collect()
}

/// `None` only for no record at all.
fn one(records: &[FilterRecord]) -> Option<Filter> {
    let first = records.first()?;
    let unknown = || Filter::Unknown { protocol: first.protocol, kind: first.kind.clone() };
    let alike = records
        .iter()
        .all(|r| r.kind == first.kind && r.protocol == first.protocol && r.chain == 0);
    if !alike {
        return Some(unknown());
    }
    let found = match first.kind.as_str() {
        "u32" => rules(first.protocol, records),
        "cgroup" | "bpf" if first.protocol == ETH_P_ALL => tag(records).map(Filter::Tag),
        _ => None,
    };
    Some(found.unwrap_or_else(unknown))
}

/// Rules of one root table, by node number, which is the order in which the kernel asks them.
fn rules(protocol: u16, records: &[FilterRecord]) -> Option<Filter> {
    let family = match protocol {
        ETH_P_IP => Family::V4,
        ETH_P_IPV6 => Family::V6,
        _ => return None,
    };
    let mut tables = 0;
    let mut by_handle = BTreeMap::new();
    for record in records {
        match &record.detail {
            FilterDetail::Pref => {}
            FilterDetail::U32(U32Record::Table { divisor: 1 }) => tables += 1,
            FilterDetail::U32(U32Record::Rule(rule)) => {
                // Two of one number: then the order cannot be known.
                if by_handle.insert(record.handle, rule.clone()).is_some() {
                    return None;
                }
            }
            _ => return None,
        }
    }
    let rules: Vec<_> = by_handle.into_values().collect();
    (tables == 1 && !rules.is_empty()).then_some(Filter::U32 { family, rules })
}

fn tag(records: &[FilterRecord]) -> Option<Tag> {
    let mut filters = records.iter().map(|r| &r.detail).filter(|d| **d != FilterDetail::Pref);
    let tag = match filters.next()? {
        FilterDetail::Cgroup { plain: true } => Tag::Cgroup,
        FilterDetail::Bpf { name, classid, plain: true }
            if name.as_deref() == Some(BPF_NAME) && *classid == Some(ClassId::ROOT) =>
        {
            Tag::Bpf
        }
        _ => return None,
    };
    filters.next().is_none().then_some(tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::U32Rule;
    use crate::units::Minor;

    fn record(protocol: u16, kind: &str, handle: u32, detail: FilterDetail) -> FilterRecord {
        FilterRecord {
            binds: None,
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
        U32Rule { keys: vec![], to: ClassId::ours(Minor(minor)) }
    }

    fn one_rule() -> Vec<FilterRecord> {
        vec![
            record(ETH_P_IP, "u32", 0, FilterDetail::Pref),
            u32(0x8000_0000, U32Record::Table { divisor: 1 }),
            u32(0x8000_0001, U32Record::Rule(a_rule(0x10))),
        ]
    }

    fn is_unknown(records: Vec<FilterRecord>) -> bool {
        matches!(filters(records)[&Pref(100)], Filter::Unknown { .. })
    }

    #[test]
    fn what_we_would_not_write_is_unknown() {
        assert!(!is_unknown(one_rule()));
        let with = |extra: FilterRecord| is_unknown([one_rule(), vec![extra]].concat());
        assert!(with(u32(0x0050_0000, U32Record::Table { divisor: 1 })), "a second table");
        assert!(with(u32(0x8000_0002, U32Record::Other)), "a link or an action");
        assert!(with(u32(0x8000_0001, U32Record::Rule(a_rule(0x11)))), "one number twice");
        let elsewhere = u32(0x8000_0002, U32Record::Rule(a_rule(0x11)));
        assert!(with(FilterRecord { chain: 7, ..elsewhere }), "another chain");
        assert!(is_unknown(one_rule()[..2].to_vec()), "no rule at all");
        let ip_only = record(ETH_P_IP, "cgroup", 1, FilterDetail::Cgroup { plain: true });
        assert!(is_unknown(vec![ip_only]), "IPv6 would escape it");
        let ematch = record(ETH_P_ALL, "cgroup", 1, FilterDetail::Cgroup { plain: false });
        assert!(is_unknown(vec![ematch]));
        let bpf = |name: &str, classid, plain| {
            let (name, classid) = (Some(name.to_string()), Some(ClassId(classid)));
            record(ETH_P_ALL, "bpf", 1, FilterDetail::Bpf { name, classid, plain })
        };
        assert!(!is_unknown(vec![bpf(BPF_NAME, 0x1_0000, true)]));
        assert!(is_unknown(vec![bpf("other", 0x1_0000, true)]));
        assert!(is_unknown(vec![bpf(BPF_NAME, 0x1_0010, true)]));
        assert!(is_unknown(vec![bpf(BPF_NAME, 0x1_0000, false)]), "direct action");
    }

    #[test]
    fn an_unknown_filter_says_its_protocol_so_that_it_can_be_deleted() {
        let flower = record(ETH_P_IPV6, "flower", 1, FilterDetail::Other);
        let wanted = Filter::Unknown { protocol: ETH_P_IPV6, kind: "flower".to_string() };
        assert_eq!(filters([flower])[&Pref(100)], wanted);
    }
}

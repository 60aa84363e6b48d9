//! The records of one parent's filters → what stands at each pref. A u32 filter is dumped as the
//! pref itself, its hash table, and each key node; the rest as the pref and the filter. Pure.

use std::collections::BTreeMap;

use super::decode::{FilterDetail, FilterRecord};
use super::u32sel::U32Record;
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

//! What was used of quotas, as a table. Pure.

use super::cells::Side;
use super::columns::Layout;
use super::quota::Quota;
use super::words::{bytes, limit};
use crate::quota::Counts;
use crate::text::shown;

/// The most columns of the table.
const COLUMNS: usize = 80;

const USED: Layout<8> = Layout {
    headings: ["USER", "PERIOD", "USED", "GRANTED", "OF", "LEFT", "ANEW", "HOLDS"],
    sides: {
        use Side::{Left, Right};
        [Left, Left, Right, Right, Right, Right, Left, Left]
    },
    names: 0,
    least: 3,
    go_first: &["GRANTED", "LEFT", "PERIOD", "ANEW", "HOLDS"],
    begin: 0,
    between: 1,
};

/// A line for each quota, below a line of headings. `OF` has the volume with what was granted,
/// `ANEW` when the period ends, `HOLDS` the step that holds now. `wide`: how many columns a
/// terminal has; `None`: whoever reads it wants all of it.
pub fn usage_table(quotas: &[Quota], wide: Option<usize>) -> String {
    let rows = quotas.iter().map(row).collect();
    USED.table(rows, wide.map(|wide| wide.min(COLUMNS)))
}

fn row(quota: &Quota) -> [String; 8] {
    let name = match quota.group {
        true => format!("[{}]", quota.user),
        false => quota.user.clone(),
    };
    let period = match quota.counts {
        Counts::Both => quota.period.clone(),
        counts => format!("{} {}", quota.period, counts.as_str()),
    };
    let none = || "-".to_string();
    let granted = (quota.granted_bytes > 0).then(|| bytes(quota.granted_bytes));
    let holds = quota.ceil_bit.zip(quota.step.as_ref());
    [
        shown(&name).to_string(),
        period,
        bytes(quota.used_bytes),
        granted.unwrap_or_else(none),
        bytes(quota.limit_bytes),
        bytes(quota.left_bytes),
        quota.anew.clone().unwrap_or_else(none),
        holds.map_or_else(none, |(ceil, step)| format!("{step}: {}", limit(ceil))),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::cells::width;
    use super::*;
    use crate::tree::{Key, Owner};
    use proptest::prelude::*;

    fn quota(name: &str, numbers: [u64; 3], held: Option<(&str, u64)>) -> Quota {
        let [used, granted, limit] = numbers;
        Quota {
            user: name.to_string(),
            owner: Owner::User(Key::new("ann").unwrap()),
            group: held.is_some(),
            period: "month".to_string(),
            in_words: "this month".to_string(),
            counts: if held.is_some() { Counts::Received } else { Counts::Both },
            used_bytes: used,
            granted_bytes: granted,
            limit_bytes: limit,
            left_bytes: limit.saturating_sub(used),
            until: None,
            ceil_bit: held.map(|held| held.1),
            step: held.map(|held| held.0.to_string()),
            anew: Some("12-01 00:00".to_string()),
        }
    }

    #[test]
    fn all_that_is_known_of_a_quota_is_in_its_line() {
        let gib = 1 << 30;
        let mut rolling = quota("kim", [0, 0, gib], None);
        (rolling.period, rolling.anew) = ("30d".to_string(), None);
        let quotas = [
            quota("ann", [gib * 3 / 2, 0, 50 * gib], None),
            quota("team", [70 * gib, 10 * gib, 60 * gib], Some(("100%", 10_000_000))),
            rolling,
        ];
        let expected = "\
USER   PERIOD           USED GRANTED    OF    LEFT ANEW        HOLDS
ann    month          1.5GiB       - 50GiB 48.5GiB 12-01 00:00 -
[team] month received  70GiB   10GiB 60GiB      0B 12-01 00:00 100%: 10mbit
kim    30d                0B       -  1GiB    1GiB -           -
";
        assert_eq!(usage_table(&quotas, None), expected);
        let narrow = "\
USER   PERIOD           USED    OF ANEW        HOLDS
ann    month          1.5GiB 50GiB 12-01 00:00 -
[team] month received  70GiB 60GiB 12-01 00:00 100%: 10mbit
kim    30d                0B  1GiB -           -
";
        assert_eq!(usage_table(&quotas, Some(60)), narrow);
    }

    proptest! {
        #[test]
        fn a_line_has_at_most_as_many_columns_as_the_terminal(
            names in prop::collection::vec("[a-z日]{1,60}", 1..9),
            numbers in any::<[u32; 3]>(),
            ceil in 64_000..900_000_000_000_u64,
            wide in prop::option::of(1_usize..200),
        ) {
            let numbers = numbers.map(|number| u64::from(number) << 10);
            let held = |at: usize| at.is_multiple_of(2).then_some(("87.5%", ceil));
            let quotas = names.iter().enumerate();
            let quotas: Vec<Quota> =
                quotas.map(|(at, name)| quota(name, numbers, held(at))).collect();
            let table = usage_table(&quotas, wide);
            prop_assert_eq!(table.lines().count(), quotas.len() + 1);
            for line in table.lines() {
                let most = wide.map_or(usize::MAX, |wide| wide.min(COLUMNS));
                prop_assert!(width(line) <= most, "{}", line);
            }
        }
    }
}

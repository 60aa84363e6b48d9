//! What daemons have made again after somebody else's changes, in words. Pure.

use std::time::Duration;

use super::report::Repaired;
use super::words::lasting;
use crate::sample::Upkeep;
use crate::text::shown;

/// Of how many links it is said.
const MOST: usize = 5;

/// The links that were made again, the last first.
pub fn rows(upkeep: &Upkeep) -> Vec<Repaired> {
    let one = |(link, repairs): (&str, crate::sample::Repairs<'_>)| Repaired {
        dev: link.to_string(),
        repairs: repairs.count,
        at: repairs.last.and_then(|last| u64::try_from(last.at).ok()),
        by: repairs.last.map(|last| last.by.clone()),
    };
    let mut rows: Vec<Repaired> = upkeep.repairs().map(one).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.at));
    rows
}

/// A line for each of the last links.
pub(super) fn lines(rows: &[Repaired], now: u64) -> String {
    let mut text = String::new();
    for row in rows.iter().take(MOST) {
        let by = row.by.as_deref().unwrap_or("somebody else");
        text.push_str(&format!("{} changed {}, and it was made again", shown(by), shown(&row.dev)));
        if let Some(at) = row.at {
            let ago = lasting(Duration::from_secs(now.saturating_sub(at)));
            text.push_str(&format!(" {ago} ago"));
        }
        text.push_str(&match row.repairs {
            1 => "\n".to_string(),
            count => format!("; {count} times since the boot\n"),
        });
    }
    if let more @ 1.. = rows.len().saturating_sub(MOST) {
        let links = if more == 1 { "link was" } else { "links were" };
        text.push_str(&format!("{more} more {links} changed and made again since the boot\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Deed;
    use crate::times::Timestamp;
    use crate::tree::LinkName;

    #[test]
    fn the_last_repairs_come_first_with_who_and_when() {
        let mut upkeep = Upkeep::default();
        let mut repair = |link: &str, second, by: &str| {
            let link = LinkName::new(link).unwrap();
            let at = Timestamp::from_second(second).unwrap();
            upkeep.note(&Deed::Repaired { link, by: by.to_string(), at });
        };
        repair("eth1", 1_000, "process 7 (tc)");
        repair("eth0", 900, "process 8 (tc)");
        repair("eth0", 1_060, "somebody else");
        assert_eq!(
            lines(&rows(&upkeep), 1_180),
            "somebody else changed eth0, and it was made again 2 min ago; 2 times since the boot\n\
             process 7 (tc) changed eth1, and it was made again 3 min ago\n"
        );
        let mut upkeep = Upkeep::default();
        for number in 0..i64::try_from(MOST).unwrap() + 2 {
            let link = LinkName::new(&format!("veth{number}")).unwrap();
            let at = Timestamp::from_second(number).unwrap();
            upkeep.note(&Deed::Repaired { link, by: "tc".to_string(), at });
        }
        let said = lines(&rows(&upkeep), 100);
        assert_eq!(said.lines().count(), MOST + 1, "{said}");
        assert!(said.starts_with("tc changed veth6,"), "{said}");
        assert!(said.ends_with("\n2 more links were changed and made again since the boot\n"));
    }

    #[test]
    fn what_an_earlier_daemon_did_not_note_is_left_out() {
        let row = Repaired { dev: "eth0".to_string(), repairs: 3, at: None, by: None };
        let said = "somebody else changed eth0, and it was made again; 3 times since the boot\n";
        assert_eq!(lines(&[row], 100), said);
    }
}

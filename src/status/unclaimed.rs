//! Whose processes send what is in no class of ours, and so in the default class.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::report::{Status, Unclaimed};
use crate::text::{Foreign, shown};

/// How many accounts are named, and how many names of processes of each.
const ACCOUNTS: usize = 4;
const NAMES: usize = 3;

/// By uid, how many processes have each name; the rows of the report: who has most first, and root
/// last, who always has some.
pub(super) fn rows(
    processes: &BTreeMap<u32, BTreeMap<Foreign, usize>>,
    accounts: &BTreeMap<u32, String>,
) -> Vec<Unclaimed> {
    let row = |(uid, names): (&u32, &BTreeMap<Foreign, usize>)| Unclaimed {
        uid: *uid,
        user: accounts.get(uid).cloned(),
        processes: names.values().sum(),
        names: names.iter().map(|(name, count)| (name.raw().to_string(), *count)).collect(),
    };
    let mut rows: Vec<Unclaimed> = processes.iter().map(row).collect();
    rows.sort_by_key(|row| (row.uid == 0, std::cmp::Reverse(row.processes), row.uid));
    rows
}

impl Status {
    /// Whether a link is shaped, which then has a default class.
    pub(super) fn has_default(&self) -> bool {
        self.links.iter().any(|link| link.default.is_some())
    }

    /// One line; nothing where there is no default class to be in, or nobody is.
    pub(super) fn unclaimed_line(&self) -> String {
        if self.unclaimed.is_empty() || !self.has_default() {
            return String::new();
        }
        let mut text = "in (default): ".to_string();
        let (few, more) = self.unclaimed.split_at(self.unclaimed.len().min(ACCOUNTS));
        let few: Vec<String> = few.iter().map(Unclaimed::words).collect();
        text.push_str(&few.join(", "));
        if !more.is_empty() {
            let processes: usize = more.iter().map(|row| row.processes).sum();
            let _ = write!(text, ", and {processes} of {} more accounts", more.len());
        }
        text + "\n"
    }
}

impl Unclaimed {
    /// `2 processes of carol (rsync, ssh)`.
    fn words(&self) -> String {
        let Unclaimed { uid, user, processes, names } = self;
        let es = if *processes == 1 { "" } else { "es" };
        let user = user.clone().unwrap_or_else(|| format!("uid {uid}"));
        let mut most: Vec<(&String, &usize)> = names.iter().collect();
        most.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let mut few: Vec<String> =
            most.iter().take(NAMES).map(|(name, _)| shown(name).to_string()).collect();
        if most.len() > NAMES {
            few.push("…".to_string());
        }
        format!("{processes} process{es} of {} ({})", shown(&user), few.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::busy;
    use super::*;

    fn names(of: &[(&str, usize)]) -> BTreeMap<Foreign, usize> {
        of.iter().map(|(name, count)| (Foreign::from(*name), *count)).collect()
    }

    #[test]
    fn who_has_most_is_named_first_and_root_last_and_not_everybody() {
        let accounts = [(0, "root".to_string()), (1000, "ann".to_string())].into();
        let root = names(&[("cron", 1), ("sshd", 9), ("a", 1), ("b", 1)]);
        let mut processes: BTreeMap<_, _> =
            [(0, root), (1000, names(&[("rsync", 2), ("x\n", 1)]))].into();
        let mut status = busy();
        status.unclaimed = rows(&processes, &accounts);
        assert_eq!(
            status.unclaimed_line(),
            "in (default): 3 processes of ann (rsync, x\\n), 12 processes of root (sshd, a, b, …)\n"
        );
        processes.extend((2000..2009).map(|uid| (uid, names(&[("sh", 1)]))));
        status.unclaimed = rows(&processes, &accounts);
        let said = status.unclaimed_line();
        let ends = "1 process of uid 2000 (sh), 1 process of uid 2001 (sh), 1 process of uid 2002 (sh), and 18 of 7 more accounts\n";
        assert!(said.ends_with(ends), "{said}");
        let whole = serde_json::to_value(&status).unwrap();
        assert_eq!(whole["unclaimed"].as_array().unwrap().len(), 11);
        assert_eq!(whole["unclaimed"][0]["names"]["rsync"], 2);
        status.links.iter_mut().for_each(|link| link.default = None);
        assert_eq!(status.unclaimed_line(), "");
    }
}

//! `/etc/passwd`, read once where NSS would ask it first in any case. NSS's own module reads the
//! file from the top for each question: 10,000 names in a file of 10,000 lines took five seconds.
//! Pure: text → answers. NSS is asked about whatever is not found here.

use std::collections::HashMap;

/// The file's accounts. As in NSS the first line with a name, or a uid, is the answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Passwd<'t> {
    by_name: HashMap<&'t str, u32>,
    by_uid: HashMap<u32, Entry<'t>>,
}

/// One account's line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry<'t> {
    pub name: &'t str,
    /// Its primary group.
    pub gid: u32,
}

impl<'t> Passwd<'t> {
    /// Reads passwd(5) up to the first line that the C library may read otherwise, or not at all:
    /// of the lines above that one the first with a name still decides.
    pub(super) fn parse(text: &'t str) -> Passwd<'t> {
        let mut passwd = Passwd::default();
        for line in text.lines() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((name, uid, gid)) = parse_line(line) else { break };
            passwd.by_name.entry(name).or_insert(uid);
            passwd.by_uid.entry(uid).or_insert(Entry { name, gid });
        }
        passwd
    }

    pub(super) fn uid_of(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    pub(super) fn account(&self, uid: u32) -> Option<Entry<'t>> {
        self.by_uid.get(&uid).copied()
    }
}

/// Whether nsswitch.conf(5) has `files` as the first source of accounts, without an action on its
/// answer (`[SUCCESS=merge]`).
pub(super) fn asked_first(nsswitch: &str) -> bool {
    let mut sources = nsswitch.lines().filter_map(|line| {
        let line = line.split('#').next()?;
        line.trim_start().strip_prefix("passwd:")
    });
    let (Some(only), None) = (sources.next(), sources.next()) else { return false };
    let mut words = only.split_whitespace();
    words.next() == Some("files") && words.next().is_none_or(|word| !word.starts_with('['))
}

/// `name:password:uid:gid:gecos:home:shell`, all seven, with plain names and numbers.
fn parse_line(line: &str) -> Option<(&str, u32, u32)> {
    let mut fields = line.split(':');
    let (name, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    // `+` and `-` begin the lines of NIS.
    let plain = name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    (plain && fields.count() == 3).then_some((name, number(uid)?, number(gid)?))
}

fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_with_a_name_or_a_uid_answers() {
        let text = "# people\nann:x:10:20::/:/bin/sh\n\nann:x:11:21::/:\nbob:x:10:22:::\n";
        let passwd = Passwd::parse(text);
        assert_eq!(passwd.uid_of("ann"), Some(10));
        assert_eq!(passwd.uid_of("bob"), Some(10));
        assert_eq!(passwd.account(10), Some(Entry { name: "ann", gid: 20 }));
        assert_eq!(passwd.uid_of("carol"), None);
    }

    #[test]
    fn nothing_below_a_line_that_libc_may_read_otherwise_is_believed() {
        for odd in [
            "+::::::",
            " bob:x:12:12::/:",
            "bob:x:12",
            "bob:x:+12:12::/:",
            "bob:x:4294967296:12::/:",
            "bob:x:12:12::/:/bin/sh:more",
        ] {
            let text = format!("ann:x:10:20:::\n{odd}\nbob:x:13:13:::\n");
            let passwd = Passwd::parse(&text);
            assert_eq!(passwd.uid_of("ann"), Some(10), "{odd}");
            assert_eq!(passwd.uid_of("bob"), None, "{odd}");
        }
    }

    #[test]
    fn files_must_be_the_first_source() {
        assert!(asked_first("# x\npasswd:\tfiles systemd # local first\ngroup: files\n"));
        assert!(asked_first("passwd: files"));
        for other in [
            "",
            "group: files\n",
            "passwd: sss files\n",
            "passwd: compat\n",
            "passwd: files [SUCCESS=continue] ldap\n",
            "passwd: files\npasswd: ldap\n",
            "# passwd: files\n",
        ] {
            assert!(!asked_first(other), "{other:?}");
        }
    }
}

//! The condition of the daemon that keeps an instance, for others to read: the name of one empty
//! directory without a classid, `watch/WORD-WHEN-WHY`, below the directory that the daemon locks. A
//! rename changes it at once (cgroup v1 has rename(2), kernel/cgroup/cgroup-v1.c,
//! `cgroup1_rename`), needs no descriptor, and works where `/run` is read-only. Only root may look
//! into that directory.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::directory::{remove, subdirectories};
use super::error::Error;
use super::instance::Instance;
use super::layout::WATCH;

/// The longest reason, in bytes: a file's name has at most 255, of which the word and the time take
/// some.
const LONGEST_WHY: usize = 200;

/// What a daemon does at the moment, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// One word of small letters.
    pub word: String,
    /// The reason, in one line; cut off where it does not fit into a file's name.
    pub why: Option<String>,
    /// Since when, in whole seconds.
    pub since: SystemTime,
}

impl Condition {
    /// The directory's name. The kernel allows no newline in the name of a cgroup, and no slash in
    /// any name.
    pub(super) fn name(&self) -> String {
        let when = self.since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let line = self.why.as_deref().and_then(|why| why.lines().next()).unwrap_or_default();
        let mut why = String::new();
        for c in line.chars() {
            let spelled = match c {
                '%' | '/' => format!("%{:02x}", u32::from(c)),
                c if c.is_control() => " ".to_string(),
                c => c.to_string(),
            };
            if why.len() + spelled.len() > LONGEST_WHY {
                break;
            }
            why.push_str(&spelled);
        }
        format!("{}-{when:x}-{why}", self.word)
    }

    /// `None`: it names no condition.
    fn parse(name: &str) -> Option<Condition> {
        let mut parts = name.splitn(3, '-');
        let (word, when, why) = (parts.next()?, parts.next()?, parts.next()?);
        let when = u64::from_str_radix(when, 16).ok().filter(|when| *when < u64::MAX / 2)?;
        let why = why.replace("%2f", "/").replace("%25", "%");
        Some(Condition {
            word: word.to_string(),
            why: Some(why).filter(|why| !why.is_empty()),
            since: UNIX_EPOCH + Duration::from_secs(when),
        })
    }
}

impl Instance {
    /// The last condition that a daemon of this instance told. Whether there still is a daemon says
    /// [`Instance::keeper`]: the condition of one that was killed stays until the next one begins.
    ///
    /// # Errors
    /// The directory cannot be listed, but for want of permission: then nothing is known.
    pub fn condition(&self) -> Result<Option<Condition>, Error> {
        match subdirectories(&self.root().join(WATCH)) {
            Ok(names) => {
                let told = names.iter().filter_map(|name| Condition::parse(name));
                Ok(told.max_by_key(|condition| condition.since))
            }
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Removes the conditions that earlier daemons told; `path`: the directory that they locked.
pub(super) fn forget(path: &Path) -> Result<(), Error> {
    subdirectories(path)?.iter().try_for_each(|name| remove(&path.join(name)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::keeper::Keeping;
    use super::*;

    #[test]
    fn a_condition_is_read_as_it_was_told() {
        let folder = tempfile::tempdir().unwrap();
        let instance = Instance::new(folder.path().join("shaper"));
        assert_eq!(instance.condition().unwrap(), None);
        fs::create_dir(instance.root()).unwrap();
        let mut keeping = instance.keep().unwrap();
        assert_eq!(instance.condition().unwrap(), None);
        let since = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let condition = |word: &str, why: Option<&str>| Condition {
            word: word.to_string(),
            why: why.map(str::to_string),
            since,
        };
        for told in [
            condition("idle", None),
            condition("failing", Some("`tc qdisc add dev up0 root`: 50% of /etc/p-q.yaml: %2f")),
            condition("failing", Some("the same, and no more")),
            condition("idle", None),
        ] {
            keeping.tell(&told).unwrap();
            keeping.tell(&told).unwrap();
            assert_eq!(instance.condition().unwrap(), Some(told));
        }
        let long = format!("/{}\nand another line", "ä".repeat(300));
        keeping.tell(&condition("refusing", Some(&long))).unwrap();
        let read = instance.condition().unwrap().unwrap().why.unwrap();
        assert!(long.starts_with(&read) && read.len() > 100 && !read.contains('\n'), "{read}");
        keeping.tell(&condition("refusing", Some("two\twords"))).unwrap();
        assert_eq!(instance.condition().unwrap(), Some(condition("refusing", Some("two words"))));
    }

    #[test]
    fn the_last_that_was_told_counts_and_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let instance = Instance::new(folder.path().join("shaper"));
        fs::create_dir_all(instance.root().join(WATCH).join("idle-ffff-")).unwrap();
        let word = || instance.condition().unwrap().map(|condition| condition.word);
        let tell = |keeping: &mut Keeping, word: &str, since: u64| {
            let since = UNIX_EPOCH + Duration::from_secs(since);
            keeping.tell(&Condition { word: word.to_string(), why: None, since }).unwrap();
        };
        let mut one = instance.keep().unwrap();
        assert_eq!(word(), None, "the one that was killed");
        tell(&mut one, "waiting", 1);
        let mut other = instance.keep().unwrap();
        tell(&mut other, "failing", 2);
        assert_eq!(word().as_deref(), Some("failing"));
        tell(&mut one, "idle", 3);
        assert_eq!(word().as_deref(), Some("idle"));
        drop((one, other));
        assert!(!instance.root().join(WATCH).exists());
    }
}

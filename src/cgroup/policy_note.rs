//! Which policy is in force, for others to read: the name of one empty directory
//! `policy/HASH-WHEN-UID-FILE` without a classid in the instance's. It goes with the instance.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::directory::{make_directory, remove, remove_with_notes, subdirectories};
use super::error::Error;
use super::instance::Instance;
use super::layout::POLICY;
use super::lock::Locked;

/// The longest file name, in bytes: a directory's name has at most 255, of which the numbers take
/// some.
const LONGEST_FILE: usize = 190;

/// The policy that the last run applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyNote {
    /// The file's absolute path, or `-` for standard input; of a very long one the end.
    pub file: String,
    /// The hash of its text.
    pub hash: u64,
    /// When this text was applied first, in whole seconds.
    pub since: SystemTime,
    /// The uid of whoever had logged in to apply it.
    pub by: u32,
}

impl PolicyNote {
    fn name(&self) -> String {
        let when = self.since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let spelled = |c: char| match c {
            '%' | '/' => format!("%{:02x}", u32::from(c)),
            c if c.is_control() => " ".to_string(),
            c => c.to_string(),
        };
        let mut pieces = Vec::new();
        let mut length = 0;
        for piece in self.file.chars().rev().map(spelled) {
            length += piece.len();
            if length > LONGEST_FILE {
                break;
            }
            pieces.push(piece);
        }
        pieces.reverse();
        format!("{:016x}-{when:x}-{}-{}", self.hash, self.by, pieces.concat())
    }

    /// `None`: it names no policy.
    fn parse(name: &str) -> Option<PolicyNote> {
        let mut parts = name.splitn(4, '-');
        let hash = u64::from_str_radix(parts.next()?, 16).ok()?;
        let when = u64::from_str_radix(parts.next()?, 16).ok().filter(|it| *it < u64::MAX / 2)?;
        let by = parts.next()?.parse().ok()?;
        let file = parts.next()?.replace("%2f", "/").replace("%25", "%");
        Some(PolicyNote { file, hash, since: UNIX_EPOCH + Duration::from_secs(when), by })
    }
}

impl Instance {
    /// The policy that the last run applied; `None`: none did, or that may not be read.
    pub fn policy(&self) -> Option<PolicyNote> {
        newest(&subdirectories(&self.root().join(POLICY)).ok()?)
    }
}

fn newest(names: &[String]) -> Option<PolicyNote> {
    names.iter().filter_map(|name| PolicyNote::parse(name)).max_by_key(|note| note.since)
}

impl Locked {
    /// Notes that a policy is in force, unless the same text of the same file is noted already.
    ///
    /// # Errors
    /// The directories cannot be listed or made. What is noted then stays.
    pub fn note_policy(&self, note: &PolicyNote) -> Result<(), Error> {
        let room = self.root().join(POLICY);
        let before = newest(&subdirectories(&room)?);
        if before.is_some_and(|before| (before.hash, &before.file) == (note.hash, &note.file)) {
            return Ok(());
        }
        make_directory(&room)?;
        let name = note.name();
        make_directory(&room.join(&name))?;
        let others = subdirectories(&room)?.into_iter().filter(|other| *other != name);
        others.into_iter().try_for_each(|other| remove(&room.join(other)))
    }

    /// Forgets which policy is in force.
    ///
    /// # Errors
    /// The directories cannot be removed.
    pub fn forget_policy(&self) -> Result<(), Error> {
        remove_with_notes(&self.root().join(POLICY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_policy_is_noted_with_when_and_by_whom() {
        let folder = tempfile::tempdir().unwrap();
        let instance = Instance::new(folder.path().join("shaper"));
        assert_eq!(instance.policy(), None);
        let locked = instance.lock(Duration::ZERO).unwrap();
        let note = |file: &str, hash, at| PolicyNote {
            file: file.to_string(),
            hash,
            since: UNIX_EPOCH + Duration::from_secs(at),
            by: 1000,
        };
        let first = note("/etc/shaper/50%-of it.yaml", 7, 1_700_000_000);
        locked.note_policy(&first).unwrap();
        assert_eq!(instance.policy(), Some(first.clone()));
        locked.note_policy(&note("/etc/shaper/50%-of it.yaml", 7, 1_700_000_900)).unwrap();
        assert_eq!(instance.policy(), Some(first), "the same text again");
        let second = note("-", 8, 1_600_000_000);
        locked.note_policy(&second).unwrap();
        assert_eq!(instance.policy(), Some(second), "also where the clock went back");
        locked.note_policy(&note(&format!("/{}/p.yaml", "ä/".repeat(200)), 9, 1)).unwrap();
        assert!(instance.policy().unwrap().file.ends_with("/p.yaml"));
        locked.forget_policy().unwrap();
        assert_eq!(instance.policy(), None);
        assert!(locked.remove_if_empty().unwrap());
    }
}

//! The warnings that `--quiet` runs have printed, so that cron reports a lasting fault once a day
//! and not every two minutes: empty directories `said/<hash>-<when>` without a classid in the
//! instance's. Only root can make directories there, also where `/run` is read-only, and they go
//! with the instance.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::directory::{make_directory, remove, remove_with_notes, subdirectories};
use super::error::Error;
use super::instance::Instance;
use super::layout::SAID;
use super::lock::Locked;

/// How long a printed warning is not printed again.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Instance {
    /// Which of these sentences, given as hashes of their texts, no run has printed within a day
    /// before `now`. They are noted as printed now, and older notes are removed.
    pub fn unsaid(&self, sentences: &[u64], now: SystemTime) -> Result<Vec<u64>, Error> {
        let room = self.root().join(SAID);
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut known = Vec::new();
        for name in subdirectories(&room)? {
            match parse(&name) {
                // Said later than now: the clock was wrong then, or is now.
                Some((hash, when)) if (when..when + DAY.as_secs()).contains(&now) => {
                    known.push(hash);
                }
                _ => remove(&room.join(name))?,
            }
        }
        let new: Vec<u64> =
            sentences.iter().filter(|hash| !known.contains(hash)).copied().collect();
        if !new.is_empty() {
            make_directory(&room)?;
        }
        for hash in &new {
            make_directory(&room.join(format!("{hash:016x}-{now:x}")))?;
        }
        Ok(new)
    }
}

impl Locked {
    /// Forgets all printed warnings.
    pub fn forget_said(&self) -> Result<(), Error> {
        remove_with_notes(&self.root().join(SAID))
    }
}

/// The hash, and seconds since 1970.
fn parse(name: &str) -> Option<(u64, u64)> {
    let (hash, when) = name.split_once('-')?;
    let when = u64::from_str_radix(when, 16).ok().filter(|when| *when < u64::MAX / 2)?;
    Some((u64::from_str_radix(hash, 16).ok()?, when))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_sentence_is_new_once_a_day() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("shaper");
        let instance = Instance::new(root.clone());
        let at = |hours: u64| UNIX_EPOCH + Duration::from_secs(1_700_000_000 + hours * 3_600);
        assert!(instance.unsaid(&[1], at(0)).is_err(), "it never makes the instance's directory");
        assert!(!root.exists());
        fs::create_dir(&root).unwrap();
        let unsaid = |sentences: &[u64], hours| instance.unsaid(sentences, at(hours)).unwrap();
        assert_eq!(unsaid(&[1, 2], 0), [1, 2]);
        assert_eq!(unsaid(&[1, 2, 3], 1), [3], "a new one comes at once");
        assert!(unsaid(&[2], 23).is_empty());
        assert_eq!(unsaid(&[1, 3], 24), [1], "a day later");
        assert_eq!(unsaid(&[1], 2), [1], "a clock that goes back silences nothing");
        assert!(unsaid(&[], 100).is_empty());
        assert_eq!(fs::read_dir(root.join(SAID)).unwrap().count(), 0, "nothing is kept for ever");
        instance.lock(Duration::ZERO).unwrap().forget_said().unwrap();
        assert!(!root.join(SAID).exists());
    }
}

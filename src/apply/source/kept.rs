//! The last good policy, kept for a start at which the file is refused: what was in force before a
//! boot is in force after it. One file with the names and texts of all, so that it is whole or old,
//! whenever the machine stops.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{joined, text_of};
use crate::failure::Failure;
use crate::policy::{self, Policy, Source};

/// The format of the file.
const VERSION: u32 = 1;

#[derive(Deserialize, Serialize)]
struct Kept {
    version: u32,
    /// Name and text of each file, in their order.
    files: Vec<(String, String)>,
}

/// The file for the policy of an instance; `folder`: the service's state directory.
pub fn kept(folder: &Path, instance: &str) -> PathBuf {
    folder.join(format!("{instance}.last-good.json"))
}

/// Keeps the texts of a policy that is in force.
///
/// # Errors
/// Those of the file system.
pub fn keep(source: &Source, path: &Path) -> io::Result<()> {
    let files = source.files().map(|(name, text)| (name.to_string(), text.to_string())).collect();
    let text = serde_json::to_string(&Kept { version: VERSION, files })?;
    let new = path.with_extension("new");
    let mut file = OpenOptions::new();
    let mut file = file.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// The policy that was kept; its places name the files that it was read from.
///
/// # Errors
/// As [`read`](super::read); also a file that another version wrote.
pub fn read_kept(path: &Path) -> Result<Policy, Failure> {
    let other = || Failure::Usage(format!("{} was not written by this version", path.display()));
    let kept: Kept = serde_json::from_str(&text_of(path)?.text).map_err(|_| other())?;
    if kept.version != VERSION {
        return Err(other());
    }
    let files = kept.files.iter().map(|(name, text)| (name.clone(), text.as_str()));
    Ok(policy::read(joined(files))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = kept(folder.path(), "shaper");
        assert!(read_kept(&path).is_err());
        let first = "version: 1\nlinks: {eth0: {rate: 1gbit}}\n";
        for more in [vec![], vec![("p.d/a.yaml".to_string(), "users: {ann: 1mbit}")]] {
            let policy = policy::read(Source::new("p.yaml", first).with(more)).unwrap();
            keep(&policy.source, &path).unwrap();
            assert_eq!(read_kept(&path).unwrap(), policy);
        }
        fs::write(&path, "{\"version\":2,\"files\":[]}").unwrap();
        assert!(read_kept(&path).is_err());
        fs::write(&path, "half a f").unwrap();
        assert!(read_kept(&path).is_err());
    }
}

//! The files beside a policy that belong to it: `NAME.d/*.yaml` beside `NAME.yaml`.

use std::ffi::OsStr;
use std::fs::{DirEntry, FileType};
use std::io;
use std::path::{Path, PathBuf};

/// The folder of a policy's further files, whether it is there or not. `None`: the policy is no
/// `NAME.yaml`.
pub fn folder(policy: &Path) -> Option<PathBuf> {
    let extension = policy.extension()?;
    (extension == "yaml" || extension == "yml").then(|| policy.with_extension("d"))
}

/// The policy to which a file belongs: `NAME.yaml` where that is beside the folder `NAME.d` in
/// which the file is; else the file itself.
pub fn whole(file: &Path) -> PathBuf {
    let named = file.parent().filter(|above| above.file_name().is_some()).map(Path::to_path_buf);
    // `ann.yaml` and `./ann.yaml` lie in a folder whose name is not in them.
    let above = named.or_else(|| std::path::absolute(file).ok()?.parent()?.canonicalize().ok());
    let above = above.filter(|above| above.extension() == Some(OsStr::new("d")));
    let is_named = file.file_name().is_some_and(is_drop_in);
    let policies = above
        .filter(|_| is_named)
        .into_iter()
        .flat_map(|above| ["yaml", "yml"].map(|extension| above.with_extension(extension)));
    let mut policies = policies.filter(|policy| policy.is_file());
    policies.next().unwrap_or_else(|| file.to_path_buf())
}

/// Whether a file with this name in that folder belongs to the policy. Names that begin with a dot
/// are those of editors and of files that are still being written.
pub fn is_drop_in(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.ends_with(b".yaml") && !name.starts_with(b".")
}

/// A file of the folder.
pub(super) struct DropIn {
    pub(super) path: PathBuf,
    /// That of a link itself, not of its target; read without opening the file.
    pub(super) kind: FileType,
}

/// The files of the folder that belong to the policy, in the order of their names' bytes; none
/// where there is no folder.
pub(super) fn in_folder(folder: &Path) -> io::Result<Vec<DropIn>> {
    let entries = match folder.read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let drop_in = |entry: io::Result<DirEntry>| {
        let entry = entry?;
        Ok((entry.file_name(), DropIn { path: entry.path(), kind: entry.file_type()? }))
    };
    let found: io::Result<Vec<_>> = entries.map(drop_in).collect();
    let mut found = found?;
    found.retain(|(name, _)| is_drop_in(name));
    found.sort_unstable_by(|(name, _), (other, _)| name.cmp(other));
    Ok(found.into_iter().map(|(_, file)| file).collect())
}

/// The symbolic links in the folder that belong to the policy: their targets lie elsewhere. Empty
/// where it cannot be read.
pub fn links(folder: &Path) -> Vec<PathBuf> {
    let files = in_folder(folder).unwrap_or_default();
    files.into_iter().filter(|file| file.kind.is_symlink()).map(|file| file.path).collect()
}

//! The draft of a policy file: the copy that somebody edits, in a folder of its own beside the file
//! that only its owner may enter, until it takes the file's place. Whatever happens meanwhile, the
//! file has its old text or the new one, and what was typed is in the copy.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::{SourceError, foreign, open, text_in, text_of, trusted_way, unreadable, way};
use crate::failure::Failure;
use crate::policy::MAX_BYTES;
use crate::sys::record_lock::{self, Kind};
use crate::sys::xattr;
use crate::text::Foreign;

/// Beside the copy: the lock, the text with which the edit began, and what takes the file's place.
const LOCK: &str = "lock";
const BEGAN_WITH: &str = "began-with";
const NEW: &str = "new";

/// Why a file is not edited, or not replaced.
#[derive(Debug, thiserror::Error)]
pub enum DraftError {
    /// The file cannot be read, or is not obeyed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Somebody edits the file: the pid, or 0 where that is in another process namespace.
    #[error("{name} is being edited {}; what was typed there is in {copy}", by(.pid))]
    Busy {
        /// The file.
        name: Foreign,
        /// Who has the lock.
        pid: u32,
        /// The other's copy.
        copy: Foreign,
    },
    /// Where the copy would be is something else.
    #[error("{folder} is in the way: it is no folder of yours alone; cure: remove it")]
    InTheWay {
        /// The folder of the copy.
        folder: Foreign,
    },
    /// A symbolic link that leads to no file.
    #[error(
        "{name} is a link to a file that does not exist; cure: make that file, or remove the link"
    )]
    DeadLink {
        /// The file.
        name: Foreign,
    },
    /// The file differs from the one with which the edit began.
    #[error("{name} was changed by somebody else meanwhile, and stays as it is now")]
    Changed {
        /// The file.
        name: Foreign,
    },
    /// The kernel refused.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// Of the sentence "cannot … PATH".
        doing: &'static str,
        /// Which file or folder.
        path: Foreign,
        /// The kernel's answer.
        source: io::Error,
    },
}

fn by(pid: &u32) -> String {
    match pid {
        0 => "in another process namespace".to_string(),
        pid => format!("by process {pid}"),
    }
}

impl From<DraftError> for Failure {
    fn from(error: DraftError) -> Failure {
        match error {
            DraftError::Busy { .. } => Failure::Locked(error.to_string()),
            DraftError::Io { .. } => Failure::refused(error),
            _ => Failure::Usage(error.to_string()),
        }
    }
}

fn io(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> DraftError {
    let path = foreign(path);
    move |source| DraftError::Io { doing, path: path.clone(), source }
}

/// A draft, which this process alone has until the value is dropped.
#[derive(Debug)]
pub struct Draft {
    /// The file as the command line names it.
    name: PathBuf,
    /// The same without links on the way.
    real: PathBuf,
    folder: PathBuf,
    /// What the file said when the edit began; `None`: there was no file.
    before: Option<String>,
    /// What the copy began with.
    text: String,
    /// Something lay in the folder that an earlier edit's editor left.
    has_others: bool,
    /// The record lock on this file is this process's.
    _lock: File,
}

/// The copy that an edit left which did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// The file has changed since that edit began.
    pub is_old: bool,
}

/// What is left of a draft that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remains {
    /// The copy, with which the next edit begins.
    Copy(PathBuf),
    /// The folder of the copy, in which an editor keeps something of its own.
    Folder(PathBuf),
}

impl Draft {
    /// Begins to edit the file at `name`; `starter` is the text of one that does not exist, whose
    /// folder is made where only that is missing.
    ///
    /// # Errors
    /// Somebody edits it already; it cannot be read, or is not obeyed; no folder can be made beside
    /// it.
    pub fn begin(
        name: &Path,
        starter: impl FnOnce() -> Result<String, Failure>,
    ) -> Result<Draft, Failure> {
        let real = real(name)?;
        let file_name = real.file_name().unwrap_or_default();
        let mut hidden = OsString::from(".");
        hidden.push(file_name);
        hidden.push(".edit");
        let folder = real.with_file_name(hidden);
        // What is not obeyed is not edited, and nothing is made beside it.
        before(name, &real)?;
        let copy = folder.join(file_name);
        let lock = lock(name, &folder, &copy)?;
        // Whoever had the lock before may have written it.
        let texts = before(name, &real).map_err(Failure::from).and_then(|before| {
            let text = before.clone().map_or_else(starter, Ok)?;
            Ok((before, text))
        });
        let (before, text) = texts.inspect_err(|_| {
            let _may_hold_a_copy = fs::remove_file(folder.join(LOCK));
            let _if_empty = fs::remove_dir(&folder);
        })?;
        let has_others = has_others(&folder, file_name);
        let name = name.to_path_buf();
        Ok(Draft { name, real, folder, before, text, has_others, _lock: lock })
    }

    /// The file as the command line names it.
    pub fn name(&self) -> Foreign {
        foreign(&self.name)
    }

    /// The file without links on the way.
    pub fn real(&self) -> &Path {
        &self.real
    }

    /// Whether there was no file when the edit began.
    pub fn is_new(&self) -> bool {
        self.before.is_none()
    }

    /// The copy, which has the file's name, so that editors know what it is.
    pub fn copy(&self) -> PathBuf {
        self.folder.join(self.real.file_name().unwrap_or_default())
    }

    /// What an earlier edit left; `None`: nothing, or what the file says anyhow.
    pub fn left(&self) -> Option<Left> {
        let text = fs::read(self.copy()).ok()?;
        let began_with = fs::read(self.folder.join(BEGAN_WITH)).unwrap_or_default();
        let is_old = began_with != self.text.as_bytes();
        (text != self.text.as_bytes() && text != began_with).then_some(Left { is_old })
    }

    /// Makes the copy: of the file, or `goes_on` with what an earlier edit left.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn make(&self, goes_on: bool) -> Result<(), DraftError> {
        write(&self.folder.join(BEGAN_WITH), &self.text)?;
        if !goes_on {
            write(&self.copy(), &self.text)?;
        }
        Ok(())
    }

    /// What the copy says now; `None`: the editor has removed it.
    ///
    /// # Errors
    /// It is no file, or no text; messages have the file's own name.
    pub fn read(&self) -> Result<Option<String>, SourceError> {
        let (path, name) = (self.copy(), foreign(&self.name));
        match open(&path, &name, OFlag::O_NOFOLLOW) {
            Ok((file, before)) => Ok(Some(text_in(&path, &name, file, before)?.text)),
            Err(SourceError::Unreadable { source, .. })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether this is what the file said when the edit began.
    pub fn is_as_before(&self, text: &str) -> bool {
        self.before.as_deref() == Some(text)
    }

    /// That the file says what it said when the edit began.
    ///
    /// # Errors
    /// It does not.
    pub fn unchanged(&self) -> Result<(), DraftError> {
        let now = match text_of(&self.real) {
            Ok(read) => Some(read.text),
            Err(error) if error.is_absent(&self.real) => None,
            Err(error) => return Err(error.into()),
        };
        match now == self.before {
            true => Ok(()),
            false => Err(DraftError::Changed { name: foreign(&self.name) }),
        }
    }

    /// Puts a text into the file's place at once, with the file's owner, mode and extended
    /// attributes.
    ///
    /// # Errors
    /// The file was changed meanwhile; the kernel refuses. The file is then as it was.
    pub fn put(&self, text: &str) -> Result<(), DraftError> {
        let path = self.folder.join(NEW);
        let new = write(&path, text)?;
        let refused = io("replace", &self.name);
        let before = match File::open(&self.real) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(refused(error)),
        };
        match &before {
            Some(file) => dress(&new, file).map_err(&refused)?,
            None => new.set_permissions(Permissions::from_mode(0o644)).map_err(&refused)?,
        }
        new.sync_all().map_err(&refused)?;
        self.unchanged()?;
        match before {
            Some(_) => fs::rename(&path, &self.real).map_err(&refused)?,
            // Over no file that came meanwhile.
            None => fs::hard_link(&path, &self.real).map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => DraftError::Changed { name: foreign(&self.name) },
                _ => refused(error),
            })?,
        }
        let folder = self.real.parent().unwrap_or(Path::new("/"));
        // The file is there. What a lost power supply makes of that is no failure of the edit.
        if let Err(error) = File::open(folder).and_then(|folder| folder.sync_all()) {
            log::debug!("{}: {error}", folder.display());
        }
        Ok(())
    }

    /// Ends the draft: the copy goes, unless it is `kept` for the next edit and says something that
    /// the file does not. An editor that was ended has saved what was typed in a file of its own
    /// (`.NAME.swp`, `NAME.save`): that stays, unless the edit it belongs to came to its end.
    pub fn end(self, kept: bool) -> Option<Remains> {
        let copy = self.copy();
        let differs = fs::read(&copy).is_ok_and(|text| text != self.text.as_bytes());
        let _none_was_made = fs::remove_file(self.folder.join(NEW));
        if kept && differs {
            return Some(Remains::Copy(copy));
        }
        let removed = match kept || self.has_others {
            false => fs::remove_dir_all(&self.folder),
            true => {
                // The lock is last, so that nobody begins in a folder that is being emptied.
                for file in [self.folder.join(BEGAN_WITH), copy, self.folder.join(LOCK)] {
                    let _the_editor_may_have_removed_it = fs::remove_file(file);
                }
                fs::remove_dir(&self.folder)
            }
        };
        match removed {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                Some(Remains::Folder(self.folder))
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                log::warn!("cannot remove {}: {error}", self.folder.display());
                None
            }
            _ => None,
        }
    }
}

/// What the file says; `None`: there is none, and it may be made.
fn before(name: &Path, real: &Path) -> Result<Option<String>, SourceError> {
    match text_of(name) {
        // What was read is cut off, and must not take the file's place.
        Ok(read) if read.text.len() > MAX_BYTES => {
            return Err(SourceError::TooLarge { name: foreign(name) });
        }
        Ok(read) => return Ok(Some(read.text)),
        Err(error) if error.is_absent(name) => {}
        Err(error) => return Err(error),
    }
    if nix::unistd::geteuid().is_root() {
        let above = real.parent().unwrap_or(Path::new("/"));
        let name = foreign(name);
        trusted_way(&name, real, &way(above).map_err(unreadable(&name))?)?;
    }
    Ok(None)
}

/// The path of a file, which need not exist, without links on the way. Its folder is made where
/// only that is missing.
fn real(name: &Path) -> Result<PathBuf, DraftError> {
    match name.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        real => return real.map_err(|error| unreadable(&foreign(name))(error).into()),
    }
    if name.symlink_metadata().is_ok_and(|meta| meta.is_symlink()) {
        return Err(DraftError::DeadLink { name: foreign(name) });
    }
    let absolute = std::path::absolute(name).map_err(io("read", name))?;
    let (Some(above), Some(file)) = (absolute.parent(), absolute.file_name()) else {
        return Err(SourceError::Folder { name: foreign(name) }.into());
    };
    match DirBuilder::new().mode(0o755).create(above) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(io("make the folder", above)(error));
        }
        _ => {}
    }
    Ok(above.canonicalize().map_err(io("read", above))?.join(file))
}

/// Makes the folder of the copy, and takes the lock in it.
fn lock(name: &Path, folder: &Path, copy: &Path) -> Result<File, DraftError> {
    let path = folder.join(LOCK);
    loop {
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(io("make a copy in", folder)(error));
            }
            _ => {}
        }
        // In a sticky folder (/tmp) anybody could have made it.
        let mine = |meta: &Metadata| {
            let is_open = meta.mode() & 0o077 != 0;
            meta.is_dir() && meta.uid() == nix::unistd::geteuid().as_raw() && !is_open
        };
        match folder.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            meta if !mine(meta.as_ref().map_err(|_| in_the_way(folder))?) => {
                return Err(in_the_way(folder));
            }
            _ => {}
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path);
        let file = match file {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file.map_err(io("lock", &path))?,
        };
        if !record_lock::take(&file, Kind::Alone).map_err(io("lock", &path))? {
            match record_lock::holder(&file).map_err(io("lock", &path))? {
                Some(pid) => {
                    return Err(DraftError::Busy { name: foreign(name), pid, copy: foreign(copy) });
                }
                None => continue,
            }
        }
        // Whoever had the lock may have removed the folder meanwhile.
        let locked = file.metadata().map_err(io("inspect", &path))?;
        match fs::metadata(&path) {
            Ok(named) if (named.dev(), named.ino()) == (locked.dev(), locked.ino()) => {
                return Ok(file);
            }
            _ => {}
        }
    }
}

/// Whether something is in the folder that may hold what was typed, beside the copy. A backup
/// (`NAME~`) has an older text.
fn has_others(folder: &Path, copy: &OsStr) -> bool {
    let is_ours = |name: &OsStr| {
        let known = [LOCK, BEGAN_WITH, NEW].map(OsStr::new);
        known.contains(&name) || name == copy || name.as_encoded_bytes().ends_with(b"~")
    };
    let mut files = folder.read_dir().into_iter().flatten().flatten();
    files.any(|file| !is_ours(&file.file_name()))
}

fn in_the_way(folder: &Path) -> DraftError {
    DraftError::InTheWay { folder: foreign(folder) }
}

/// A file with this text, for its owner alone.
fn write(path: &Path, text: &str) -> Result<File, DraftError> {
    let refused = io("write", path);
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(refused(error)),
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.map_err(&refused)?;
    file.write_all(text.as_bytes()).map_err(&refused)?;
    Ok(file)
}

/// Gives a new file the owner, the mode and the extended attributes of the one that it replaces.
fn dress(new: &File, old: &File) -> io::Result<()> {
    let meta = old.metadata()?;
    fchown(new, Some(meta.uid()), Some(meta.gid()))?;
    // A change of owner drops mode bits, and an access control list has the group's bits.
    new.set_permissions(Permissions::from_mode(meta.mode() & 0o7777))?;
    xattr::copy(old, new)
}

#[cfg(test)]
mod tests;

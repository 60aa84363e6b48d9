//! Reading the policy file, and the files of the folder beside it that belong to it. A root process
//! obeys them, so nobody but root may be able to write them, nor to replace them: every folder on
//! the way to them counts.

mod draft;
mod drop_ins;
mod error;
mod kept;
mod way;

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use crate::failure::Failure;
use crate::policy::{self, Policy, Source};
use crate::sys::threads::in_parts;
use crate::text::Foreign;
pub use draft::{Draft, DraftError, Left, Remains};
use drop_ins::DropIn;
pub use drop_ins::{folder, is_drop_in, links, whole};
pub use error::{SourceError, Writer};
pub use kept::{keep, kept, read_kept};
pub use way::{Passed, way};

/// Reads and parses the policy at `path`, with its drop-ins; `-` is standard input, and has none.
///
/// # Errors
/// As [`text_of`], and what the policy itself has wrong.
pub fn read(path: &Path) -> Result<Policy, Failure> {
    if path == Path::new("-") {
        let name = Foreign::from("standard input");
        let mut text = Vec::new();
        limited(io::stdin().lock(), &mut text).map_err(unreadable(&name))?;
        return Ok(policy::parse(&utf8(&name, text)?, "-")?);
    }
    Ok(policy::read(texts(path)?)?)
}

/// The text of the policy at `path`, which is a file, and those of its drop-ins.
///
/// # Errors
/// As [`text_of`].
pub fn texts(path: &Path) -> Result<Source, SourceError> {
    let texts = each_of(path, |file| (file.name(), file.text))?;
    Ok(joined(texts.iter().map(|(name, text)| (name.clone(), text.as_str()))))
}

/// The policy at `path`, with its drop-ins, as it would be if the file at `real` said this; that
/// need not exist. `real` is its path without links.
///
/// # Errors
/// Those of [`read`].
pub fn read_as_if(path: &Path, real: &Path, text: &str) -> Result<Policy, Failure> {
    let said = |file: WasRead| match file.path.canonicalize().is_ok_and(|file| file == real) {
        true => (file.path, text.to_string()),
        false => (file.path, file.text),
    };
    let is_new = !path.exists();
    let mut files = match is_new {
        true => vec![(path.to_path_buf(), text.to_string())],
        false => vec![said(text_of(path)?)],
    };
    let mut drop_ins = each_drop_in(path, said)?;
    let new = real.file_name().and_then(|name| Some(folder(path)?.join(name)));
    if let Some(new) = new.filter(|_| !is_new && !real.exists()) {
        let at = drop_ins.partition_point(|(path, _)| *path < new);
        drop_ins.insert(at, (new, text.to_string()));
    }
    files.append(&mut drop_ins);
    let files = files.iter().map(|(path, text)| (path.display().to_string(), text.as_str()));
    Ok(policy::read(joined(files))?)
}

/// As [`read`], without drop-ins.
///
/// # Errors
/// Those of [`read`].
pub fn read_alone(path: &Path) -> Result<Policy, Failure> {
    if path == Path::new("-") {
        return read(path);
    }
    let file = text_of(path)?;
    Ok(policy::parse(&file.text, &file.name())?)
}

/// The source that these files, with their names, are.
pub fn joined<'a>(files: impl IntoIterator<Item = (String, &'a str)>) -> Source {
    let mut files = files.into_iter();
    let (name, text) = files.next().unwrap_or_default();
    Source::new(&name, text).with(files)
}

/// A file that was read.
#[derive(Debug)]
pub struct WasRead {
    /// As messages name it.
    pub path: PathBuf,
    /// The file's text.
    pub text: String,
    /// Its descriptor, which keeps the inode from being given to another file.
    pub file: File,
    /// The file's metadata from before it was read.
    pub before: Metadata,
}

impl WasRead {
    /// The file's name, for messages.
    pub fn name(&self) -> String {
        self.path.display().to_string()
    }
}

/// What `each` makes of the policy at `path`, and of each of its drop-ins in their order. Ten
/// thousand files are read by several processors, and none stays open.
///
/// # Errors
/// As [`text_of`], for any of the files; as root, also a folder of drop-ins that others can write.
pub fn each_of<T: Send>(
    path: &Path,
    each: impl Fn(WasRead) -> T + Sync,
) -> Result<Vec<T>, SourceError> {
    let mut all = vec![each(text_of(path)?)];
    all.append(&mut each_drop_in(path, each)?);
    Ok(all)
}

/// What `each` makes of each drop-in of the policy at `path`, in their order.
fn each_drop_in<T: Send>(
    path: &Path,
    each: impl Fn(WasRead) -> T + Sync,
) -> Result<Vec<T>, SourceError> {
    let Some(folder) = folder(path) else { return Ok(Vec::new()) };
    let files = drop_ins::in_folder(&folder).map_err(unreadable(&foreign(&folder)))?;
    let Some(first) = files.first() else { return Ok(Vec::new()) };
    if nix::unistd::geteuid().is_root() {
        trusted_drop_ins(&foreign(&first.path), &folder)?;
    }
    let parts = in_parts(&files, |part| {
        part.iter().map(|file| drop_in(file).map(&each)).collect::<Result<Vec<T>, _>>()
    });
    let mut all = Vec::with_capacity(files.len());
    for part in parts {
        all.extend(part?);
    }
    Ok(all)
}

/// A file in a folder that is known to be root's alone; a link there leads anywhere.
fn drop_in(DropIn { path, kind }: &DropIn) -> Result<WasRead, SourceError> {
    if kind.is_symlink() {
        return text_of(path);
    }
    let name = foreign(path);
    regular(&name, *kind)?;
    let (file, before) = open(path, &name, OFlag::O_NOFOLLOW)?;
    if nix::unistd::geteuid().is_root()
        && let Some(who) = others_who_write(&before)
    {
        return Err(SourceError::Writable { path: name.clone(), name, who });
    }
    text_in(path, &name, file, before)
}

/// The text of the file at `path`. Never waits: a FIFO may have no writer, and a device may do
/// anything when it is opened.
///
/// # Errors
/// A file that is not regular, cannot be read, or is not UTF-8; as root, also a file that others
/// can write or replace.
pub fn text_of(path: &Path) -> Result<WasRead, SourceError> {
    let name = foreign(path);
    // The kind is checked before opening, since opening a device can have an effect.
    regular(&name, path.metadata().map_err(unreadable(&name))?.file_type())?;
    let (file, before) = open(path, &name, OFlag::empty())?;
    if nix::unistd::geteuid().is_root() {
        trusted(&name, path, &before)?;
    }
    text_in(path, &name, file, before)
}

/// Opens a file that was regular a moment ago. The path may name another one by now, which is not
/// waited for either.
fn open(path: &Path, name: &Foreign, flags: OFlag) -> Result<(File, Metadata), SourceError> {
    let flags = flags | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path);
    let file = file.map_err(unreadable(name))?;
    let before = file.metadata().map_err(unreadable(name))?;
    regular(name, before.file_type())?;
    Ok((file, before))
}

fn text_in(
    path: &Path,
    name: &Foreign,
    mut file: File,
    before: Metadata,
) -> Result<WasRead, SourceError> {
    // One byte more, so that the end is found without another allocation.
    let size = usize::try_from(before.len()).unwrap_or(usize::MAX).min(policy::MAX_BYTES);
    let mut text = Vec::with_capacity(size + 1);
    limited(&mut file, &mut text).map_err(unreadable(name))?;
    Ok(WasRead { path: path.to_path_buf(), text: utf8(name, text)?, file, before })
}

fn foreign(path: &Path) -> Foreign {
    Foreign::from(path.to_string_lossy())
}

fn unreadable(name: &Foreign) -> impl Fn(io::Error) -> SourceError + '_ {
    |source| SourceError::Unreadable { name: name.clone(), source }
}

fn regular(name: &Foreign, kind: FileType) -> Result<(), SourceError> {
    let name = name.clone();
    let kind = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => return Err(SourceError::Folder { name }),
        () if kind.is_fifo() => "a pipe (FIFO)",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    Err(SourceError::NotRegular { name, kind })
}

/// Reads at most as many bytes as the parser accepts, and one more by which the parser sees that
/// there were more.
fn limited(from: impl Read, text: &mut Vec<u8>) -> io::Result<usize> {
    from.take(policy::MAX_BYTES as u64 + 1).read_to_end(text)
}

fn utf8(name: &Foreign, bytes: Vec<u8>) -> Result<String, SourceError> {
    // Cut off, perhaps within a character: the parser says that it is too large.
    if bytes.len() > policy::MAX_BYTES {
        return Ok(String::from_utf8_lossy(&bytes).into_owned());
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        SourceError::NotText { name: name.clone(), line }
    })
}

/// As sshd's StrictModes: the file, and each folder and link on the way to it from `/`.
fn trusted(name: &Foreign, path: &Path, file: &Metadata) -> Result<(), SourceError> {
    let passed = way(path).map_err(unreadable(name))?;
    let real = passed.iter().rev().find(|passed| !passed.is_link());
    let real = real.ok_or_else(|| unreadable(name)(io::ErrorKind::NotFound.into()))?;
    if (real.meta.dev(), real.meta.ino()) != (file.dev(), file.ino()) {
        return Err(SourceError::Replaced { name: name.clone() });
    }
    if let Some(who) = others_who_write(file) {
        return Err(SourceError::Writable { name: name.clone(), path: foreign(&real.path), who });
    }
    trusted_way(name, path, &passed)
}

/// Each folder and link on the way, of which the last is at `path`.
fn trusted_way(name: &Foreign, path: &Path, passed: &[Passed]) -> Result<(), SourceError> {
    let real = passed.iter().rev().find(|passed| !passed.is_link());
    // Folders nearest to the file first, since the cure is most often there.
    for passed in passed.iter().rev().filter(|passed| passed.meta.is_dir()) {
        let above = real.and_then(|real| real.path.parent());
        let direct = above == Some(&passed.path) || path.parent() == Some(&passed.path);
        trusted_folder(name, passed, if direct { "in" } else { "below" })?;
    }
    // In a sticky folder (/tmp) anybody can make a link.
    let not_roots = passed.iter().find(|passed| passed.is_link() && passed.meta.uid() != 0);
    if let Some(Passed { path, meta }) = not_roots {
        let (name, link) = (name.clone(), foreign(path));
        return Err(SourceError::ForeignLink { name, link, uid: meta.uid() });
    }
    Ok(())
}

/// The folder of drop-ins, once for all files in it. Not even a sticky one may be writable by
/// others, who could add a file. `name`: the first file in it.
fn trusted_drop_ins(name: &Foreign, folder: &Path) -> Result<(), SourceError> {
    let passed = way(folder).map_err(unreadable(name))?;
    if let Some(Passed { path, meta }) = passed.iter().rev().find(|passed| passed.meta.is_dir())
        && let Some(who) = others_who_write(meta)
    {
        let (name, folder) = (name.clone(), foreign(path));
        return Err(SourceError::FolderWritable { name, lies: "in", folder, who });
    }
    trusted_way(name, folder, &passed)
}

fn trusted_folder(name: &Foreign, folder: &Passed, lies: &'static str) -> Result<(), SourceError> {
    let Passed { path, meta } = folder;
    // In a sticky folder (/tmp) only the owner of a file and that of the folder can replace the
    // file.
    let sticky = meta.mode() & 0o1000 != 0 && meta.uid() == 0;
    if !sticky && let Some(who) = others_who_write(meta) {
        let (name, folder) = (name.clone(), foreign(path));
        return Err(SourceError::FolderWritable { name, lies, folder, who });
    }
    Ok(())
}

/// Who other than root can write the file or folder; `None`: nobody.
fn others_who_write(meta: &Metadata) -> Option<Writer> {
    if meta.uid() != 0 {
        Some(Writer::Owner(meta.uid()))
    } else if meta.mode() & 0o002 != 0 {
        Some(Writer::Everybody)
    } else if meta.mode() & 0o020 != 0 {
        // This holds for the group root too: with an access control list, the group's bits are the
        // most that the list grants.
        Some(Writer::Group(meta.gid()))
    } else {
        None
    }
}

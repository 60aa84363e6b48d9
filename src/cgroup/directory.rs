//! One cgroup's directory, by its path: the files in it, the directories below it, and the
//! processes that are moved into it.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use nix::errno::Errno;

use super::error::Error;
use crate::units::ClassId;

/// The permissions of a directory that anybody may list.
pub(super) const MODE: u32 = 0o755;
pub(super) const CLASSID: &str = "net_cls.classid";
/// How a plain file's name ends until it is whole.
const NEW: &str = "new";
/// The file to which a process's pid is written to move the process. Never `tasks`: moving a thread
/// that is not the leader retags no socket.
pub(super) const PROCS: &str = "cgroup.procs";

/// What came of moving a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// The process is in the directory now.
    Moved,
    /// The process ended before it could be moved.
    Dead,
    /// The claim has no directory (yet).
    NoDirectory,
    /// The claim has a directory, and is none of `net_cls`: nothing is moved, and nothing need be.
    Counted,
}

/// Makes a directory, which may be there, for anybody to list.
pub(super) fn make_directory(path: &Path) -> Result<(), Error> {
    make(path, MODE).map_err(Error::io("make", path))
}

/// Makes a directory with these permissions, whatever the umask takes away: users see their own
/// limits where root's umask is 077, too. One that is there already stays as it is.
///
/// # Errors
/// Those of the file system.
pub fn make(path: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => match fs::set_permissions(path, Permissions::from_mode(mode)) {
            // Another run has removed it meanwhile: found out by whoever uses it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        },
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes a folder, and those above it that are missing, for anybody to list.
///
/// # Errors
/// Those of the file system.
pub fn make_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent() {
        make_folder(above)?;
    }
    make(path, MODE)
}

/// Names of the directories below `path`; none if it does not exist. A name that is no UTF-8 is
/// none of ours and only reported, so it may lose bytes here.
pub(super) fn subdirectories(path: &Path) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(path) {
        Err(error) if vanished(&error) => return Ok(Vec::new()),
        other => other.map_err(Error::io("list", path))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("list", path))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

pub(super) fn members_of(directory: &Path) -> Result<Vec<u32>, Error> {
    match read(&directory.join(PROCS)) {
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
        Err(Error::Io { source, .. }) if vanished(&source) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// How many processes are in a directory, as [`members_of`] lists them.
pub(super) fn count_in(directory: &Path) -> Result<usize, Error> {
    let path = directory.join(PROCS);
    let count = || -> io::Result<usize> {
        let (mut file, mut buffer, mut count) = (File::open(&path)?, [0; 4096], 0);
        loop {
            let length = file.read(&mut buffer)?;
            let lines = buffer.iter().take(length).filter(|byte| **byte == b'\n').count();
            count += lines;
            if length == 0 {
                return Ok(count);
            }
        }
    };
    match count() {
        Err(error) if vanished(&error) => Ok(0),
        count => count.map_err(Error::io("read", &path)),
    }
}

pub(super) fn move_process(pid: u32, procs: &Path) -> Result<Attached, Error> {
    // To the kernel pid 0 is whoever writes: us.
    if pid == 0 {
        return Ok(Attached::Dead);
    }
    attached(write(procs, &pid.to_string()))
}

pub(super) fn attached(written: Result<(), Error>) -> Result<Attached, Error> {
    match written {
        Ok(()) => Ok(Attached::Moved),
        Err(error) => match error.errno().map(Errno::from_raw) {
            Some(Errno::ESRCH) => Ok(Attached::Dead),
            // ENODEV: the directory was removed between opening its file and writing it.
            Some(Errno::ENOENT | Errno::ENODEV) => Ok(Attached::NoDirectory),
            _ => Err(error),
        },
    }
}

/// Whether the directory is gone: ENOENT, or ENODEV from an open file whose cgroup was removed.
pub(super) fn vanished(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

/// The classid of a directory; `None`: the file has something else than a classid.
pub(super) fn read_classid(path: &Path) -> io::Result<Option<ClassId>> {
    parse_classid(&File::open(path)?)
}

/// The kernel prints a u32 in decimal and a newline, in one read.
pub(super) fn parse_classid(mut file: &File) -> io::Result<Option<ClassId>> {
    let mut buffer = [0; 16];
    let length = file.read(&mut buffer)?;
    let text = buffer.get(..length).and_then(|bytes| std::str::from_utf8(bytes).ok());
    Ok(text.and_then(|text| text.trim_ascii_end().parse().ok()).map(ClassId))
}

/// Writes a plain file that is whole or the old one at every moment.
pub(super) fn write_whole(path: &Path, data: &str) -> Result<(), Error> {
    let new = path.with_extension(NEW);
    let refused =
        |source| Error::Write { data: data.to_string(), path: path.to_path_buf(), source };
    // For anybody to read, whatever the umask takes away.
    fs::write(&new, data)
        .and_then(|()| fs::set_permissions(&new, Permissions::from_mode(0o644)))
        .map_err(refused)?;
    fs::rename(&new, path).map_err(Error::io("rename to", path))
}

/// Removes the files that [`write_whole`] makes in a directory, also after it was killed.
pub(super) fn remove_files(directory: &Path) -> Result<(), Error> {
    let path = directory.join(CLASSID);
    for path in [path.with_extension(NEW), path] {
        match fs::remove_file(&path) {
            Err(error) if !vanished(&error) => return Err(Error::io("remove", &path)(error)),
            _ => {}
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, Error> {
    let mut text = String::new();
    File::open(path)
        .and_then(|mut file| file.read_to_string(&mut text))
        .map_err(Error::io("read", path))?;
    Ok(text)
}

/// Writes to a file of a cgroup in one write(2), without O_CREAT: where the file is missing the
/// directory is no cgroup.
fn write(path: &Path, data: &str) -> Result<(), Error> {
    OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(data.as_bytes()))
        .map_err(|source| Error::Write { data: data.to_string(), path: path.to_path_buf(), source })
}

/// Removes an empty directory; that it does not exist is no error.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Removes a directory and the empty directories in it.
pub(super) fn remove_with_notes(path: &Path) -> Result<(), Error> {
    for name in subdirectories(path)? {
        remove(&path.join(name))?;
    }
    remove(path)
}

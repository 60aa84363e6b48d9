//! What the bytes of a file say, and why it may say nothing.

use std::io;
use std::path::{Path, PathBuf};

use super::book::Book;
use super::place;
use super::record::{MARK, Record, unframe};
use crate::text::shown;

/// The version that is written. In version 1 no record says that a line is called otherwise, or
/// what was dated back: what has a later time than the next count is of that one's.
const VERSION: u32 = 2;
/// What the first line has before the version.
const TITLE: &str = "shaper use ";

/// Why the file cannot be used. The wording says the cure.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// A later shaper has written it.
    #[error(
        "{} is of version {version}, which this shaper cannot read; nothing of it was changed: install the shaper that wrote it, or move the file away, after which nobody has used or was granted anything",
        shown(&path.display().to_string())
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// The file system's answer.
    #[error(
        "what was used cannot be kept: {what} {}: {}",
        shown(&path.display().to_string()),
        shown(&source.to_string())
    )]
    Io {
        /// What was done to it.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
}

impl LedgerError {
    /// The file is not open.
    pub fn gone(path: &Path) -> LedgerError {
        let source = io::ErrorKind::NotFound.into();
        LedgerError::Io { what: "open", path: path.to_path_buf(), source }
    }

    /// Whether somebody else has the file's lock.
    pub fn is_busy(&self) -> bool {
        let LedgerError::Io { source, .. } = self else { return false };
        source.kind() == io::ErrorKind::ResourceBusy
    }
}

/// Reads the book and changes nothing. No file is an empty book.
///
/// # Errors
/// One that cannot be read, or is of a later version.
pub fn read(path: &Path) -> Result<Book, LedgerError> {
    match place::read(path) {
        Ok(bytes) => Ok(Contents::of(&bytes, path)?.book),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Book::default()),
        Err(source) => Err(LedgerError::Io { what: "read", path: path.to_path_buf(), source }),
    }
}

/// What the bytes of a file say.
pub(super) struct Contents {
    pub book: Book,
    /// The end of the last whole frame.
    pub end: usize,
    /// How many bytes before that end are of no whole frame.
    pub damaged: usize,
    /// It has not all with which it begins, which was on the disk before it had its name. The last
    /// of that are the readings.
    pub is_short: bool,
    /// It is of an earlier version.
    pub is_old: bool,
}

impl Contents {
    pub(super) fn of(bytes: &[u8], path: &Path) -> Result<Contents, LedgerError> {
        let book = Book::default();
        let mut contents = Contents { book, end: 0, damaged: 0, is_short: false, is_old: false };
        let line = bytes.iter().take(64).position(|byte| *byte == b'\n');
        let line = line.and_then(|end| Some((std::str::from_utf8(bytes.get(..end)?).ok()?, end)));
        let version = line
            .and_then(|(line, end)| Some((line.strip_prefix(TITLE)?.parse::<u32>().ok()?, end)));
        match version {
            Some((version, _)) if version > VERSION => {
                return Err(LedgerError::Newer { path: path.to_path_buf(), version });
            }
            Some((version, end)) => {
                contents.end = end + 1;
                contents.is_old = version < VERSION;
            }
            None => {}
        }
        contents.take(bytes);
        Ok(contents)
    }

    /// Takes in the frames from the end on.
    fn take(&mut self, bytes: &[u8]) {
        let (mut at, mut is_begun) = (self.end, false);
        while at < bytes.len() {
            match bytes.get(at..).and_then(unframe) {
                Some((record, length)) => {
                    self.damaged += at - self.end;
                    is_begun |= matches!(record, Record::Readings(_));
                    if let Record::Count { latest, .. } = record
                        && self.is_old
                        && latest < self.book.latest
                    {
                        self.book.date_back(latest, latest);
                    }
                    self.book.take(record);
                    at += length;
                    self.end = at;
                }
                None => at += next_mark(bytes.get(at + 1..).unwrap_or_default()) + 1,
            }
        }
        self.is_short = !is_begun;
        self.book.end();
    }
}

/// Where the next frame may begin.
fn next_mark(bytes: &[u8]) -> usize {
    bytes.windows(MARK.len()).position(|it| it == MARK).unwrap_or(bytes.len())
}

pub(super) fn title() -> Vec<u8> {
    format!("{TITLE}{VERSION}\n").into_bytes()
}

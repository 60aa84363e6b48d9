//! The file: a line with its version, then frames that are only ever appended.
//!
//! A frame that is not whole is the end of the file after a power cut or a full disk, and is cut
//! off by the next writer. Where whole frames follow it, the file is damaged: what can be read
//! counts, and the file is kept beside its successor. A writer has a lock (flock(2)) on the file,
//! and first reads what others have appended. Appending is not waited for (a busy disk would hold
//! up logins); a file that replaces another is on the disk before its name is.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::book::{Book, Moment, Reading};
use super::contents::{Contents, LedgerError, title};
use super::place::{before, make_folder, open, rest, write_whole};
use super::record::{Record, frame, unframe};
use super::unwritten::Unwritten;
use crate::quota::{Grant, Slots};
use crate::text::shown;
use crate::tree::Owner;

/// How many bytes of changes are worth a new file.
const ENOUGH: u64 = 1 << 20;

/// How long another writer may take, and the pause before the lock is asked for again.
const OTHERS: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(5);

/// The file, open for writing, and the book that it has.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    file: File,
    /// Up to which byte the book has it.
    pub(super) length: u64,
    /// Its length when it was written anew.
    base: u64,
    /// How long it may take others to be done with it. Whoever waits for nobody does not shorten it
    /// either, which waits for the disk ([`Ledger::is_long`]).
    patience: Duration,
    book: Book,
    /// What was counted and is not in the file yet.
    unwritten: Unwritten,
}

/// A ledger, and what was wrong with its file.
#[derive(Debug)]
pub struct Opened {
    /// The ledger.
    pub ledger: Ledger,
    /// A sentence; `None`: nothing.
    pub found: Option<String>,
}

impl Ledger {
    /// Opens the file, and makes it where there is none.
    ///
    /// # Errors
    /// It cannot be written, or is of a later version.
    pub fn open(path: &Path) -> Result<Opened, LedgerError> {
        let io = |what| move |source| LedgerError::Io { what, path: path.to_path_buf(), source };
        make_folder(path).map_err(io("make the folder of"))?;
        let file = open(path, beginning).map_err(io("open"))?;
        let mut ledger = Ledger {
            path: path.to_path_buf(),
            file,
            length: 0,
            base: 0,
            patience: OTHERS,
            book: Book::default(),
            unwritten: Unwritten::default(),
        };
        ledger.lock().map_err(io("lock"))?;
        let found = ledger.load();
        ledger.unlock();
        Ok(Opened { found: found?, ledger })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether others are waited for, and the disk.
    pub fn set_waiting(&mut self, waits: bool) {
        self.patience = if waits { OTHERS } else { Duration::ZERO };
    }

    /// Whether the file is to be written anew ([`Ledger::shorten`]).
    pub fn is_long(&self) -> bool {
        self.length > self.base.saturating_mul(2).max(ENOUGH)
    }

    /// Writes a file anew of which much is older than the rest, for who does not wait for that.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn shorten(path: &Path) -> Result<(), LedgerError> {
        let mut ledger = Ledger::open(path)?.ledger;
        ledger.locked(Ledger::write_anew).map(drop)
    }

    /// What is used by now, also what is not in the file yet.
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// Whether something was counted that is not in the file yet.
    pub fn has_news(&self) -> bool {
        !self.unwritten.traffic.is_empty()
    }

    /// Counts readings of all classes, for the owners that have a quota; `names`: what the accounts
    /// of uids among them are called.
    pub fn count(
        &mut self,
        readings: &[Reading],
        moment: &Moment,
        slots: &Slots,
        names: &BTreeMap<Owner, Option<String>>,
    ) {
        let others = self.book.named_otherwise(names);
        let added = self.book.count(readings, moment, slots, names);
        self.unwritten.add(added, &others);
    }

    /// Nobody has a quota any more: what is counted from now on is nobody's use. Writes that down.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn pause(&mut self) -> Result<Option<String>, LedgerError> {
        self.book.pause();
        self.unwritten.begins = true;
        self.write()
    }

    /// Writes what was counted since the last time. Where somebody else has counted meanwhile, his
    /// count stands: what both have read would be there twice. Returns a sentence where the file
    /// was damaged.
    ///
    /// # Errors
    /// The file cannot be written; what was counted is kept for the next time.
    pub fn write(&mut self) -> Result<Option<String>, LedgerError> {
        self.locked(|ledger| {
            if ledger.unwritten == Unwritten::default() {
                return Ok(());
            }
            if ledger.unwritten.is_anew {
                return ledger.write_anew();
            }
            let records = ledger.unwritten.records(&ledger.book);
            ledger.append(&records.iter().flat_map(frame).collect::<Vec<_>>())?;
            ledger.unwritten = Unwritten::default();
            if ledger.is_long()
                && !ledger.patience.is_zero()
                && let Err(error) = ledger.write_anew()
            {
                // It is in the old file all the same.
                log::debug!("{} grows: {error}", ledger.path.display());
                ledger.put_off();
            }
            Ok(())
        })
    }

    /// Grants an owner more, and writes that down.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn grant(&mut self, owner: Owner, grant: Grant) -> Result<Option<String>, LedgerError> {
        self.change(Record::Grant(owner, grant))
    }

    /// Has an owner's use begin anew, and writes that down.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn reset(&mut self, owner: Owner) -> Result<Option<String>, LedgerError> {
        self.change(Record::Reset(owner))
    }

    fn change(&mut self, record: Record) -> Result<Option<String>, LedgerError> {
        self.locked(|ledger| {
            ledger.append(&frame(&record))?;
            ledger.take(record);
            Ok(())
        })
    }

    /// Takes in a grant or a reset.
    fn take(&mut self, change: Record) {
        self.unwritten.follow(&change);
        self.book.take(change);
    }

    /// Takes in what others have written. Whether they had.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn refresh(&mut self) -> Result<bool, LedgerError> {
        if !self.has_changed() {
            return Ok(false);
        }
        self.locked(|_| Ok(())).map(|_| true)
    }

    /// Whether others may have written something.
    pub fn has_changed(&self) -> bool {
        let Ok(here) = self.file.metadata() else { return true };
        let same = fs::metadata(&self.path).is_ok_and(|named| named.ino() == here.ino());
        !same || here.len() != self.length
    }

    /// Begins a new book, unless the one that is there was counted in this epoch: of a namespace
    /// that has no name the next one with its number is another.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep_only(&mut self, epoch: &str) -> Result<(), LedgerError> {
        if self.book.is_of(epoch) {
            return Ok(());
        }
        let anew = |ledger: &mut Ledger| {
            if ledger.book.is_of(epoch) {
                return Ok(());
            }
            ledger.book = Book::default();
            ledger.write_anew()
        };
        self.locked(anew).map(drop)
    }

    /// Does something with the lock, once what others have written is known.
    fn locked(
        &mut self,
        act: impl FnOnce(&mut Ledger) -> io::Result<()>,
    ) -> Result<Option<String>, LedgerError> {
        self.lock().map_err(self.io("lock"))?;
        let outcome = self.catch_up().and_then(|found| {
            act(self).map_err(self.io("write"))?;
            Ok(found)
        });
        self.unlock();
        outcome
    }

    fn io(&self, what: &'static str) -> impl Fn(io::Error) -> LedgerError + use<> {
        let path = self.path.clone();
        move |source| LedgerError::Io { what, path: path.clone(), source }
    }

    /// Locks the file that has the name now.
    fn lock(&mut self) -> io::Result<()> {
        let began = Instant::now();
        loop {
            match self.file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) if began.elapsed() < self.patience => {
                    thread::sleep(AGAIN);
                    continue;
                }
                Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::ResourceBusy.into()),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            let locked = self.file.metadata()?;
            if fs::metadata(&self.path).is_ok_and(|named| named.ino() == locked.ino()) {
                return Ok(());
            }
            // Another file has the name since: what this one has is in that one.
            self.unlock();
            make_folder(&self.path)?;
            self.file = open(&self.path, beginning)?;
            self.length = 0;
        }
    }

    /// Closing the file would do it too.
    fn unlock(&mut self) {
        if let Err(error) = self.file.unlock() {
            log::debug!("the lock on {} stays: {error}", self.path.display());
        }
    }

    /// Reads what others have appended since.
    fn catch_up(&mut self) -> Result<Option<String>, LedgerError> {
        let io = self.io("read");
        let length = self.file.metadata().map_err(&io)?.len();
        if length == self.length && length > 0 {
            return Ok(None);
        }
        if length < self.length {
            let aside = self.keep_aside().map_err(self.io("write"))?;
            self.write_anew().map_err(self.io("write"))?;
            return Ok(Some(format!(
                "{} was made shorter by somebody: what was counted is written again, and what was left of the file is {}",
                shown(&self.path.display().to_string()),
                shown(&aside.display().to_string())
            )));
        }
        if self.length == 0 {
            return self.load();
        }
        let bytes = rest(&mut self.file, self.length).map_err(&io)?;
        let mut at = 0;
        let mut changes = Vec::new();
        while let Some((record, length)) = bytes.get(at..).and_then(unframe) {
            changes.push(record);
            at += length;
        }
        let is_change = |record: &Record| matches!(record, Record::Grant(..) | Record::Reset(_));
        if !changes.iter().all(is_change) || at < bytes.len() {
            return self.load();
        }
        for change in changes {
            self.take(change);
        }
        self.length = length;
        Ok(None)
    }

    /// Reads the file from its beginning, and mends it: a frame that is not whole is cut off its
    /// end, and a damaged file is replaced.
    fn load(&mut self) -> Result<Option<String>, LedgerError> {
        let io = self.io("read");
        let bytes = rest(&mut self.file, 0).map_err(&io)?;
        let Contents { book, end, damaged, is_short, is_old } = Contents::of(&bytes, &self.path)?;
        self.unwritten = Unwritten::default();
        self.book = book;
        let written = self.io("write");
        if damaged > 0 || (end == 0 && !title().starts_with(&bytes)) {
            let aside = self.keep_aside().map_err(&written)?;
            self.write_anew().map_err(&written)?;
            let lost = if end == 0 { bytes.len() } else { damaged };
            return Ok(Some(format!(
                "{} was damaged: {lost} of {} bytes cannot be read, all others count; the damaged file is {}",
                shown(&self.path.display().to_string()),
                bytes.len(),
                shown(&aside.display().to_string())
            )));
        }
        if is_short {
            let aside = self.keep_aside().map_err(&written)?;
            self.write_anew().map_err(&written)?;
            return Ok(Some(format!(
                "{} has lost its end, and with it what some have used, and up to where counters were counted; what can be read counts, and the file as it was is {}",
                shown(&self.path.display().to_string()),
                shown(&aside.display().to_string())
            )));
        }
        if is_old {
            // What is appended from now on an older shaper would take for damage.
            return self.write_anew().map(|()| None).map_err(written);
        }
        if end < bytes.len() {
            self.file.set_len(end as u64).map_err(&written)?;
            log::debug!("{} bytes cut off {}", bytes.len() - end, self.path.display());
        }
        self.length = end as u64;
        self.base = self.length;
        Ok(None)
    }

    /// Gives the file another name beside its own.
    fn keep_aside(&self) -> io::Result<PathBuf> {
        for number in 1_u32.. {
            let aside = self.beside(&format!("damaged-{number}"));
            match fs::hard_link(&self.path, &aside) {
                // It was kept before, and could not be replaced.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if fs::metadata(&aside)?.ino() == self.file.metadata()?.ino() {
                        return Ok(aside);
                    }
                }
                linked => return linked.map(|()| aside),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// The file's name with a word behind it.
    fn beside(&self, word: &str) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.path.with_file_name(format!("{name}.{word}"))
    }

    /// Appends whole frames, or nothing.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.length))?;
        if let Err(error) = self.file.write_all(bytes) {
            self.file.set_len(self.length)?;
            return Err(error);
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Replaces the file by one that has the book as it is now. The lock goes over to the new one.
    fn write_anew(&mut self) -> io::Result<()> {
        let bytes = whole(&self.book);
        let new = before(&self.path, "new-");
        let written = write_whole(&new, &bytes).and_then(|file| {
            fs::rename(&new, &self.path)?;
            Ok(file)
        });
        let file = match written {
            Ok(file) => file,
            Err(error) => {
                let _ = fs::remove_file(&new);
                return Err(error);
            }
        };
        if let Some(folder) = self.path.parent() {
            File::open(folder)?.sync_all()?;
        }
        self.file = file;
        self.length = bytes.len() as u64;
        self.base = self.length;
        self.unwritten = Unwritten::default();
        Ok(())
    }

    /// The file is not tried to be written anew before it is as long again.
    pub fn put_off(&mut self) {
        self.base = self.length;
    }
}

/// All bytes of a file.
fn whole(book: &Book) -> Vec<u8> {
    let mut bytes = title();
    book.records().for_each(|record| bytes.extend(frame(&record)));
    bytes
}

/// Those of the first one.
fn beginning() -> Vec<u8> {
    whole(&Book::default())
}

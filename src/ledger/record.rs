//! How changes of the book are written: numbers of a few bytes each, in frames with a checksum.
//! Pure.

use std::collections::BTreeMap;

use super::book::{Book, Class};
use crate::quota::{Account, Bucket, Grant, Traffic};
use crate::tree::{Claim, Owner};

/// The last reading of a class, with its owner; `None`: the class is gone.
type Read = (Class, Option<(Owner, u64)>);
type Readings = Vec<Read>;

/// One change of the book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// A new book, from which a file goes on.
    Begin { born: Option<i64>, latest: i64, epoch: String },
    /// All that is known of an owner.
    Account(Owner, Account),
    /// Readings up to which is counted.
    Readings(Readings),
    /// What was counted, and the readings up to which.
    Count {
        born: i64,
        latest: i64,
        epoch: String,
        renamed: Vec<(Owner, String)>,
        traffic: Vec<(Owner, i64, Traffic)>,
        readings: Readings,
    },
    /// More than the volume of an owner's quotas.
    Grant(Owner, Grant),
    /// An owner's use begins anew.
    Reset(Owner),
    /// What lines have used is other lines' from now on: from which to which, all at once.
    Move(Vec<(Owner, Owner)>),
    /// What has a later time than now is of this time from now on.
    DateBack { now: i64, at: i64 },
}

impl Book {
    /// Takes in a change.
    pub(super) fn take(&mut self, record: Record) {
        match record {
            Record::Begin { born, latest, epoch } => {
                let promised = Some(epoch).filter(|epoch| !epoch.is_empty());
                *self = Book { born, latest, promised, ..Book::default() };
            }
            Record::Account(owner, account) => {
                self.accounts_mut().insert(owner, account);
            }
            Record::Readings(readings) => {
                self.epoch = self.promised.take().unwrap_or_default();
                self.read_up_to(readings);
            }
            Record::Count { born, latest, epoch, renamed, traffic, readings } => {
                self.be_born(born);
                self.latest = latest;
                if self.epoch != epoch {
                    self.last.clear();
                    self.epoch = epoch;
                }
                renamed.iter().for_each(|(owner, name)| self.rename(owner, name));
                for (owner, at, traffic) in traffic {
                    self.accounts_mut().entry(owner).or_default().count(at, traffic);
                }
                self.read_up_to(readings);
            }
            Record::Grant(owner, grant) => {
                self.accounts_mut().entry(owner).or_default().grants.push(grant);
            }
            Record::Reset(owner) => {
                self.accounts_mut().entry(owner).or_default().reset();
            }
            Record::Move(moves) => self.move_use(&moves),
            Record::DateBack { now, at } => {
                self.date_back(now, at);
            }
        }
    }

    fn read_up_to(&mut self, readings: Readings) {
        for (class, reading) in readings {
            match reading {
                Some(reading) => drop(self.last.insert(class, reading)),
                None => drop(self.last.remove(&class)),
            }
        }
    }

    /// The whole book as records.
    pub(super) fn records(&self) -> impl Iterator<Item = Record> {
        let (born, latest, epoch) = (self.born, self.latest, self.epoch.clone());
        let accounts = self.accounts.iter();
        let accounts = accounts.map(|(owner, it)| Record::Account(owner.clone(), it.clone()));
        let readings = self.last.iter().map(|(class, last)| (*class, Some(last.clone())));
        let readings = Record::Readings(readings.collect());
        [Record::Begin { born, latest, epoch }].into_iter().chain(accounts).chain([readings])
    }
}

/// What a frame begins with: after a damaged one the next is looked for by it.
pub(super) const MARK: [u8; 4] = *b"\xffuse";

/// Bytes before a record: the mark, the record's length and its checksum.
pub(super) const HEAD: usize = 12;

/// A record with its mark, length and checksum.
pub(super) fn frame(record: &Record) -> Vec<u8> {
    let mut writer = Writer(vec![0; HEAD]);
    writer.record(record);
    let mut bytes = writer.0;
    let checksum = crc32fast::hash(&bytes[HEAD..]);
    let length = u32::try_from(bytes.len() - HEAD).unwrap_or(u32::MAX);
    bytes[..4].copy_from_slice(&MARK);
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    bytes[8..HEAD].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// The record in the frame that begins here, and the frame's length; `None`: there is no whole one.
pub(super) fn unframe(bytes: &[u8]) -> Option<(Record, usize)> {
    let number = |at: usize| {
        let bytes = bytes.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    if !bytes.starts_with(&MARK) {
        return None;
    }
    let end = HEAD.checked_add(usize::try_from(number(4)?).ok()?)?;
    let record = bytes.get(HEAD..end)?;
    if crc32fast::hash(record) != number(8)? {
        return None;
    }
    let mut reader = Reader(record);
    let read = reader.record()?;
    reader.0.is_empty().then_some((read, end))
}

/// Writes numbers seven bits a byte, the lowest first.
struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, mut number: u64) {
        while number > 0x7f {
            self.0.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    /// With its sign in the lowest bit.
    fn signed(&mut self, number: i64) {
        self.number(((number << 1) ^ (number >> 63)) as u64);
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    fn owner(&mut self, owner: &Owner) {
        self.text(&Claim::Owner(owner.clone()).to_string());
    }

    fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Writer, T)) {
        self.number(u64::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }

    fn list<T>(&mut self, list: &[T], mut write: impl FnMut(&mut Writer, &T)) {
        self.number(list.len() as u64);
        list.iter().for_each(|it| write(self, it));
    }

    fn traffic(&mut self, traffic: Traffic) {
        self.number(traffic.sent);
        self.number(traffic.received);
    }

    /// An owner is written once: the readings of a host are of few owners on each of its links.
    fn readings(&mut self, readings: &[Read]) {
        let mut owners: BTreeMap<&Owner, u64> = BTreeMap::new();
        for (_, reading) in readings {
            if let Some((owner, _)) = reading {
                owners.insert(owner, 0);
            }
        }
        self.number(owners.len() as u64);
        for (number, (owner, place)) in (1_u64..).zip(&mut owners) {
            *place = number;
            self.owner(owner);
        }
        self.list(readings, |writer, ((ifindex, classid), reading)| {
            writer.number(u64::from(*ifindex));
            writer.number(u64::from(*classid));
            let place = reading.as_ref().and_then(|(owner, _)| owners.get(owner).copied());
            writer.number(place.unwrap_or(0));
            if let Some((_, bytes)) = reading {
                writer.number(*bytes);
            }
        });
    }

    fn account(&mut self, account: &Account) {
        self.option(account.name.as_deref(), Writer::text);
        let mut before = 0;
        self.list(account.buckets(), |writer, bucket| {
            writer.signed(bucket.at.wrapping_sub(before));
            before = bucket.at;
            writer.traffic(bucket.traffic);
        });
        self.list(&account.grants, |writer, grant| writer.grant(*grant));
    }

    fn grant(&mut self, grant: Grant) {
        self.number(grant.bytes);
        self.signed(grant.at);
        self.option(grant.until, Writer::signed);
    }

    fn record(&mut self, record: &Record) {
        match record {
            Record::Begin { born, latest, epoch } => {
                self.number(0);
                self.option(*born, Writer::signed);
                self.signed(*latest);
                self.text(epoch);
            }
            Record::Account(owner, account) => {
                self.number(1);
                self.owner(owner);
                self.account(account);
            }
            Record::Readings(readings) => {
                self.number(2);
                self.readings(readings);
            }
            Record::Count { born, latest, epoch, renamed, traffic, readings } => {
                self.number(3);
                self.signed(*born);
                self.signed(*latest);
                self.text(epoch);
                self.list(renamed, |writer, (owner, name)| {
                    writer.owner(owner);
                    writer.text(name);
                });
                self.list(traffic, |writer, (owner, at, traffic)| {
                    writer.owner(owner);
                    writer.signed(*at);
                    writer.traffic(*traffic);
                });
                self.readings(readings);
            }
            Record::Grant(owner, grant) => {
                self.number(4);
                self.owner(owner);
                self.grant(*grant);
            }
            Record::Reset(owner) => {
                self.number(5);
                self.owner(owner);
            }
            Record::Move(moves) => {
                self.number(6);
                self.list(moves, |writer, (from, to)| {
                    writer.owner(from);
                    writer.owner(to);
                });
            }
            Record::DateBack { now, at } => {
                self.number(7);
                self.signed(*now);
                self.signed(*at);
            }
        }
    }
}

/// Reads what [`Writer`] has written; `None`: it is something else.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            number |= bits.checked_shl(shift).filter(|it| it >> shift == bits)?;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn signed(&mut self) -> Option<i64> {
        let number = self.number()?;
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.number()?).ok()?;
        let text = self.0.get(..length)?;
        self.0 = &self.0[length..];
        String::from_utf8(text.to_vec()).ok()
    }

    fn owner(&mut self) -> Option<Owner> {
        match self.text()?.parse().ok()? {
            Claim::Owner(owner) => Some(owner),
            Claim::Pinned(_) | Claim::Retired(..) => None,
        }
    }

    fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        match self.number()? {
            0 => Some(None),
            1 => Some(Some(read(self)?)),
            _ => None,
        }
    }

    /// Each element has at least one byte, so no length can ask for much memory.
    fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let length = usize::try_from(self.number()?).ok()?;
        let mut list = Vec::with_capacity(length.min(self.0.len()));
        for _ in 0..length {
            list.push(read(self)?);
        }
        Some(list)
    }

    fn traffic(&mut self) -> Option<Traffic> {
        Some(Traffic { sent: self.number()?, received: self.number()? })
    }

    fn readings(&mut self) -> Option<Readings> {
        let owners = self.list(Reader::owner)?;
        self.list(|reader| {
            let ifindex = u32::try_from(reader.number()?).ok()?;
            let classid = u32::try_from(reader.number()?).ok()?;
            let reading = match usize::try_from(reader.number()?).ok()?.checked_sub(1) {
                Some(place) => Some((owners.get(place)?.clone(), reader.number()?)),
                None => None,
            };
            Some(((ifindex, classid), reading))
        })
    }

    fn grant(&mut self) -> Option<Grant> {
        let (bytes, at) = (self.number()?, self.signed()?);
        Some(Grant { bytes, at, until: self.option(Reader::signed)? })
    }

    fn account(&mut self) -> Option<Account> {
        let name = self.option(Reader::text)?;
        let mut before = 0_i64;
        let buckets = self.list(|reader| {
            before = before.wrapping_add(reader.signed()?);
            Some(Bucket { at: before, traffic: reader.traffic()? })
        })?;
        Some(Account::kept(name, buckets, self.list(Reader::grant)?))
    }

    fn record(&mut self) -> Option<Record> {
        Some(match self.number()? {
            0 => {
                let (born, latest) = (self.option(Reader::signed)?, self.signed()?);
                Record::Begin { born, latest, epoch: self.text()? }
            }
            1 => Record::Account(self.owner()?, self.account()?),
            2 => Record::Readings(self.readings()?),
            3 => Record::Count {
                born: self.signed()?,
                latest: self.signed()?,
                epoch: self.text()?,
                renamed: self.list(|it| Some((it.owner()?, it.text()?)))?,
                traffic: self.list(|it| Some((it.owner()?, it.signed()?, it.traffic()?)))?,
                readings: self.readings()?,
            },
            4 => Record::Grant(self.owner()?, self.grant()?),
            5 => Record::Reset(self.owner()?),
            6 => Record::Move(self.list(|it| Some((it.owner()?, it.owner()?)))?),
            7 => Record::DateBack { now: self.signed()?, at: self.signed()? },
            _ => return None,
        })
    }
}

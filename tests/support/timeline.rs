//! What came in at one port and when: enough to say a rate over any part of the time, how long
//! nothing came, and which numbered datagrams are missing or came twice.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use super::clock::Micros;

/// The width of a bin, in microseconds.
const BIN: u64 = 10_000;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Timeline {
    pub bytes: u64,
    pub packets: u64,
    /// The longest time between two arrivals, in microseconds.
    pub longest_silence: u64,
    /// By the uid that the payload names.
    pub senders: BTreeMap<u32, Numbered>,
    first: Option<Micros>,
    last: Option<Micros>,
    /// Bytes by the bin's number.
    bins: BTreeMap<u64, u64>,
}

/// The numbered datagrams of one sender.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Numbered {
    pub packets: u64,
    pub duplicates: u64,
    /// One more than the highest number that came.
    pub reach: u64,
    seen: HashSet<u64>,
}

impl Numbered {
    /// How many numbers below the highest never came.
    pub fn gaps(&self) -> u64 {
        self.reach - (self.packets - self.duplicates)
    }
}

impl Timeline {
    /// Something came.
    pub fn note(&mut self, now: Micros, bytes: u64) {
        let silence = self.last.map_or(0, |last| now.since(last));
        self.longest_silence = self.longest_silence.max(silence);
        self.first.get_or_insert(now);
        self.last = Some(now);
        self.bytes += bytes;
        self.packets += 1;
        *self.bins.entry(now.0 / BIN).or_default() += bytes;
    }

    /// A datagram with a sender and a number came.
    pub fn note_numbered(&mut self, uid: u32, number: u64) {
        let sender = self.senders.entry(uid).or_default();
        sender.packets += 1;
        sender.reach = sender.reach.max(number + 1);
        if !sender.seen.insert(number) {
            sender.duplicates += 1;
        }
    }

    /// Bits a second between two moments, in whole bins.
    pub fn rate(&self, from: Micros, to: Micros) -> u64 {
        let (first, last) = (from.0.div_ceil(BIN), to.0 / BIN);
        let bytes: u64 = self.bins.range(first..last).map(|(_, bytes)| bytes).sum();
        bytes * 8 * 1_000_000 / (last.saturating_sub(first) * BIN).max(1)
    }

    /// Bits a second between the first and the last arrival of an interval: exact also where only a
    /// few packets come, each of which is several percent. HTB lets a packet go, however large, and
    /// waits for it afterwards: so the first counts, and the last does not.
    #[allow(dead_code, reason = "the benches use it")]
    pub fn rate_of_arrivals(&self, from: Micros, to: Micros) -> u64 {
        let mut bins = self.bins.range(from.0.div_ceil(BIN)..to.0 / BIN);
        let Some((first, size)) = bins.next() else { return 0 };
        let all =
            bins.fold((first, 0, size), |(_, sum, before), (bin, size)| (bin, sum + before, size));
        let (last, bytes, _) = all;
        bytes * 8 * 1_000_000 / ((last - first) * BIN).max(1)
    }

    /// Bits a second over the time of arrivals, without the first and the last eighth of it.
    pub fn middle_rate(&self) -> u64 {
        let (Some(first), Some(last)) = (self.first, self.last) else { return 0 };
        let eighth = last.since(first) / 8;
        self.rate(Micros(first.0 + eighth), Micros(last.0 - eighth))
    }
}

/// A numbered datagram's first bytes: the sender's uid and the number, big-endian.
pub const HEADER: usize = 12;

pub fn write_header(uid: u32, number: u64, datagram: &mut [u8]) {
    datagram[..4].copy_from_slice(&uid.to_be_bytes());
    datagram[4..HEADER].copy_from_slice(&number.to_be_bytes());
}

pub fn read_header(datagram: &[u8]) -> Option<(u32, u64)> {
    let uid = u32::from_be_bytes(datagram.get(..4)?.try_into().ok()?);
    let number = u64::from_be_bytes(datagram.get(4..HEADER)?.try_into().ok()?);
    Some((uid, number))
}

//! Whose packets each class sent, while classes come and go. Every sender's packets have a size of
//! their own, so a class's bytes and packets say whose they were, and a class that sent two users'
//! packets shows.

use std::collections::BTreeMap;

use crate::support::counters::{self, Class, Classes};

/// Frames smaller than this are nobody's: ARP, neighbour discovery, router solicitations.
const SMALLEST_FRAME: u64 = 1_000;

#[derive(Default)]
pub struct Ledger {
    device: &'static str,
    /// Whose a frame of so many bytes is.
    frames: BTreeMap<u64, &'static str>,
    /// Classes that stand, as they were last read.
    standing: BTreeMap<String, Class>,
    /// Packets that classes had sent when they were deleted.
    closed: BTreeMap<&'static str, u64>,
    /// Bytes of the default and the unshaped class.
    fixed: BTreeMap<String, u64>,
    pub wrong: Vec<String>,
}

impl Ledger {
    /// Of a device's classes.
    pub fn of(device: &'static str, frames: impl Iterator<Item = (u64, &'static str)>) -> Ledger {
        Ledger { device, frames: frames.collect(), ..Ledger::default() }
    }

    /// Reads the counters; notes what a class sent before it is gone, and what passed through the
    /// wrong class since the last reading.
    pub fn read(&mut self) {
        let now = counters::classes(self.device);
        self.nobodys(&now, "1:fffe", SMALLEST_FRAME - 1);
        self.nobodys(&now, "1:fffd", 0);
        // Whoever is sent into a shard has a class there.
        let strays = now.by_id.iter().filter(|(id, class)| {
            id.ends_with(":fffe") && id.as_str() != "1:fffe" && class.packets > 0
        });
        for (id, class) in strays {
            self.note(format!("{} packets passed through {id}", class.packets));
        }
        let standing: BTreeMap<String, Class> =
            now.by_id.into_iter().filter(|(id, _)| is_a_users(id)).collect();
        for (id, last) in std::mem::take(&mut self.standing) {
            // With the same number the next class may have sent more already, but another's
            // packets.
            let remade = standing.get(&id).is_none_or(|class| {
                let another = last.packets > 0 && frame(class) != frame(&last);
                class.packets < last.packets || another
            });
            if remade && let Some(who) = self.sender(&id, &last) {
                *self.closed.entry(who).or_default() += last.packets;
            }
        }
        for (id, class) in &standing {
            self.sender(id, class);
        }
        self.standing = standing;
    }

    /// Packets that left through classes of one user, as far as they were read.
    pub fn packets(&mut self) -> BTreeMap<&'static str, u64> {
        let mut packets = self.closed.clone();
        for (id, class) in self.standing.clone() {
            if let Some(who) = self.sender(&id, &class) {
                *packets.entry(who).or_default() += class.packets;
            }
        }
        packets
    }

    /// Packets of the class that stands with this number, if all of them are this user's.
    pub fn packets_in(&mut self, id: &str, who: &str) -> Option<u64> {
        let class = self.standing.get(id)?.clone();
        (self.sender(id, &class) == Some(who)).then_some(class.packets)
    }

    /// Whose packets a class sent; `None`: nobody's.
    fn sender(&mut self, id: &str, class: &Class) -> Option<&'static str> {
        if class.packets == 0 {
            return None;
        }
        let frame = class.bytes / class.packets;
        let who =
            self.frames.get(&frame).copied().filter(|_| class.bytes.is_multiple_of(class.packets));
        if who.is_none() {
            self.note(format!(
                "class {id} sent {} bytes in {} packets, which is not one user's",
                class.bytes, class.packets
            ));
        }
        who
    }

    /// The default and the unshaped class: nothing as large as a user's packet since the last time.
    fn nobodys(&mut self, now: &Classes, id: &str, most: u64) {
        let bytes = now.class(id).bytes;
        let before = self.fixed.insert(id.to_string(), bytes).unwrap_or(bytes);
        let more = bytes.saturating_sub(before);
        if more > most {
            self.note(format!("{more} bytes passed through {id}"));
        }
    }

    fn note(&mut self, what: String) {
        if self.wrong.len() < 20 {
            self.wrong.push(what);
        }
    }
}

/// The size of one user's frames; `None`: none was sent.
fn frame(class: &Class) -> Option<u64> {
    class.bytes.checked_div(class.packets)
}

/// Not the link's, a group's, a shard's, the default or the unshaped class.
fn is_a_users(id: &str) -> bool {
    let minor = id.split(':').nth(1).and_then(|minor| u16::from_str_radix(minor, 16).ok());
    minor.is_some_and(|minor| (0x10..0xe000).contains(&minor))
}

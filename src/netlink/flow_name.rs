//! What the filters are called that note flows, find them, and redirect what arrives: as
//! [`super::bpf_name`].

use super::bpf_name::{maps_of, mark_of, program_of, program_words};
use crate::classify::{flows, program, redirect};
use crate::tree::{Filter, MapIds, Mark, Program, Tag};

const LEARN: &str = "shaper-learn";
const FIND: &str = "shaper-find";
const PULSE: &str = "shaper-pulse";
const REDIRECT: &str = "shaper-redirect";

/// What a program reads that notes flows: their map and, where it asks them, the maps of owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reads {
    /// The map of flows.
    pub flows: u32,
    /// The maps of the deciding programs.
    pub owners: Option<MapIds>,
}

/// What a program reads that finds flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finds {
    /// The map of flows.
    pub flows: u32,
    /// The map of bound sockets.
    pub servers: u32,
}

/// `shaper-learn 1a2b3c4d mark=53480abc flows=12`, and where owners are asked for, as a deciding
/// program's name, `tag=…` to `maps=…`. clsact has no mark, so the name has the instance's.
pub fn print_learn(tag: Tag, mark: Mark, reads: Reads) -> String {
    let hash = program::hash(&flows::learn(tag));
    let asks = match (tag, reads.owners) {
        (Tag::Bpf(program), Some(maps)) => format!(" {} maps={maps}", program_words(program)),
        _ => String::new(),
    };
    format!("{LEARN} {hash:08x} mark={:08x} flows={}{asks}", mark.0, reads.flows)
}

/// The instance, and what the program is and reads; `None` for a name that no shaper would give, an
/// inner `None` where another version gave it.
pub fn parse_learn(name: &str) -> Option<(Mark, Option<(Tag, Reads)>)> {
    let mut words = name.strip_prefix(LEARN)?.split_ascii_whitespace().skip(1).peekable();
    let mark = mark_of(words.next()?)?;
    let mut rest = || {
        let flows = words.next()?.strip_prefix("flows=")?.parse().ok()?;
        let (mut tag, mut owners) = (Tag::Cgroup, None);
        if words.peek().is_some() {
            let program: Program = program_of(&mut words)?;
            (tag, owners) = (Tag::Bpf(program), Some(maps_of(words.next()?)?));
        }
        Some((tag, Reads { flows, owners }))
    };
    let found = rest().filter(|(tag, reads)| print_learn(*tag, mark, *reads) == name);
    Some((mark, found))
}

/// `shaper-find 1a2b3c4d flows=12 servers=13 shards=0 rules=0`
pub fn print_find(shards: bool, for_rules: bool, Finds { flows, servers }: Finds) -> String {
    let hash = program::hash(&flows::find(shards, for_rules));
    let (shards, rules) = (u8::from(shards), u8::from(for_rules));
    format!("{FIND} {hash:08x} flows={flows} servers={servers} shards={shards} rules={rules}")
}

/// What it is, and its maps; `None` for a name that we would not give.
pub fn parse_find(name: &str) -> Option<(Filter, Finds)> {
    let mut words = name.strip_prefix(FIND)?.split_ascii_whitespace().skip(1);
    let flows = words.next()?.strip_prefix("flows=")?.parse().ok()?;
    let servers = words.next()?.strip_prefix("servers=")?.parse().ok()?;
    let (shards, for_rules) = (words.next()? == "shards=1", words.next()? == "rules=1");
    let finds = Finds { flows, servers };
    let is_ours = print_find(shards, for_rules, finds) == name;
    is_ours.then_some((Filter::Find { shards, for_rules }, finds))
}

/// `shaper-pulse 1a2b3c4d pulse=13`
pub fn print_pulse(pulse: u32) -> String {
    let hash = program::hash(&redirect::pulse());
    format!("{PULSE} {hash:08x} pulse={pulse}")
}

/// The map of the pulse; `None` for a name that we would not give.
pub fn parse_pulse(name: &str) -> Option<u32> {
    let mut words = name.strip_prefix(PULSE)?.split_ascii_whitespace().skip(1);
    let pulse = words.next()?.strip_prefix("pulse=")?.parse().ok()?;
    (print_pulse(pulse) == name).then_some(pulse)
}

/// What a program redirects to, and what it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirects {
    /// The ifindex of the ifb.
    pub ifb: u32,
    /// The map of its pulse.
    pub pulse: u32,
}

/// `shaper-redirect 1a2b3c4d mark=53480abc ifb=7 pulse=13`
pub fn print_redirect(mark: Mark, redirects: Redirects) -> String {
    let Redirects { ifb, pulse } = redirects;
    let hash = program::hash(&redirect::redirect(ifb));
    format!("{REDIRECT} {hash:08x} mark={:08x} ifb={ifb} pulse={pulse}", mark.0)
}

/// The instance, and the ifb for which the program asks; as [`parse_learn`].
pub fn parse_redirect(name: &str) -> Option<(Mark, Option<Redirects>)> {
    let mut words = name.strip_prefix(REDIRECT)?.split_ascii_whitespace().skip(1);
    let mark = mark_of(words.next()?)?;
    let mut number = |key| words.next()?.strip_prefix(key)?.parse().ok();
    let found = number("ifb=").zip(number("pulse="));
    let found = found.map(|(ifb, pulse)| Redirects { ifb, pulse });
    Some((mark, found.filter(|found| print_redirect(mark, *found) == name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{MptcpLayout, NamespaceLayout, Sockets, TagHelper};

    #[test]
    fn a_name_reads_back_and_nothing_else_does() {
        let mark = Mark::for_instance("shaper");
        let program = Program {
            shards: false,
            tag: Some(TagHelper::Socket),
            cgroups: false,
            // The longest that there are.
            sockets: Sockets::Inode(
                u32::MAX,
                NamespaceLayout { namespace: i16::MAX, inode: i16::MAX },
            ),
            mptcp: Some(MptcpLayout { owner: 528, tag: i16::MAX }),
            labels: true,
        };
        let maps = MapIds([u32::MAX; 4]);
        for (tag, owners) in [(Tag::Cgroup, None), (Tag::Bpf(program), Some(maps))] {
            let reads = Reads { flows: u32::MAX, owners };
            let name = print_learn(tag, mark, reads);
            assert!(name.len() < 256, "{name}");
            assert_eq!(parse_learn(&name), Some((mark, Some((tag, reads)))));
            assert_eq!(parse_learn(&format!("{name} x")), Some((mark, None)));
            assert_eq!(parse_learn(&name.replace("learn", "learns")), None);
        }
        for (shards, for_rules) in [(false, false), (false, true), (true, false)] {
            let finds = Finds { flows: 12, servers: 13 };
            let name = print_find(shards, for_rules, finds);
            assert_eq!(parse_find(&name), Some((Filter::Find { shards, for_rules }, finds)));
            assert_eq!(parse_find(&format!("{name}1")), None);
            assert_eq!(parse_learn(&name), None);
        }
        let name = print_pulse(13);
        assert_eq!(parse_pulse(&name), Some(13));
        assert_eq!(parse_pulse(&format!("{name} x")), None);
        let redirects = Redirects { ifb: 7, pulse: 13 };
        let name = print_redirect(mark, redirects);
        assert_eq!(parse_redirect(&name), Some((mark, Some(redirects))));
        let other = name.replace("ifb=7", "ifb=8");
        assert_eq!(parse_redirect(&other), Some((mark, None)), "the program asks for another");
    }
}

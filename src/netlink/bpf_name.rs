//! What our eBPF filters are called (`TCA_BPF_NAME`, at most 256 bytes): the kernel dumps the name
//! back and nothing else of the program, so the name says which program it is and which maps it
//! reads.

use crate::classify::program;
use crate::state::{MapIds, Mark, MptcpLayout, Program, Sockets, TagHelper};

/// How it begins.
const PREFIX: &str = "shaper-decide";
/// And that of a program at clsact's egress.
const PRIORITY: &str = "shaper-priority";

/// `shaper-decide 1a2b3c4d tag=socket sockets=own:17 shards=0 mptcp=528,680 maps=12,13,14`
pub fn print(program: Program, maps: MapIds) -> String {
    let Program { shards, tag, sockets, mptcp } = program;
    let tag = match tag {
        TagHelper::Socket => "socket",
        TagHelper::Task => "task",
    };
    let sockets = sockets_word(sockets);
    let mptcp = match mptcp {
        Some(MptcpLayout { owner, tag }) => format!("{owner},{tag}"),
        None => "no".to_string(),
    };
    let (hash, shards) = (program::hash(&program::decide(program)), u8::from(shards));
    format!(
        "{PREFIX} {hash:08x} tag={tag} sockets={sockets} shards={shards} mptcp={mptcp} maps={maps}"
    )
}

/// `None` for a name that we would not give: somebody else's filter, or another version's program.
pub fn parse(name: &str) -> Option<(Program, MapIds)> {
    let mut words = name.strip_prefix(PREFIX)?.split_ascii_whitespace().skip(1);
    let mut value = |key: &str| words.next()?.strip_prefix(key)?.strip_prefix('=');
    let tag = match value("tag")? {
        "socket" => TagHelper::Socket,
        "task" => TagHelper::Task,
        _ => return None,
    };
    let sockets = sockets_of(value("sockets")?)?;
    let shards = value("shards")? == "1";
    let mptcp = match value("mptcp")? {
        "no" => None,
        offsets => {
            let (owner, tag) = offsets.split_once(',')?;
            Some(MptcpLayout { owner: owner.parse().ok()?, tag: tag.parse().ok()? })
        }
    };
    let program = Program { shards, tag, sockets, mptcp };
    let mut ids = value("maps")?.split(',').map(|id| id.parse().ok());
    let maps = MapIds([ids.next()??, ids.next()??, ids.next()??]);
    // The hash and all the rest must be what we would write.
    (print(program, maps) == name).then_some((program, maps))
}

fn sockets_word(sockets: Sockets) -> String {
    match sockets {
        Sockets::Cookie(cookie) => format!("own:{cookie}"),
        Sockets::All => "all".to_string(),
        Sockets::Mixed => "mixed".to_string(),
    }
}

fn sockets_of(word: &str) -> Option<Sockets> {
    Some(match word {
        "all" => Sockets::All,
        "mixed" => Sockets::Mixed,
        own => Sockets::Cookie(own.strip_prefix("own:")?.parse().ok()?),
    })
}

/// `shaper-priority 1a2b3c4d mark=53480abc sockets=own:17`. clsact has no mark, so the name has the
/// instance's.
pub fn print_priority(sockets: Sockets, mark: Mark) -> String {
    let (hash, word) = (program::hash(&program::clear_priority(sockets)), sockets_word(sockets));
    format!("{PRIORITY} {hash:08x} mark={:08x} sockets={word}", mark.0)
}

/// Whose it is, and what it does; `None` for a name that no shaper would give, an inner `None` where
/// another version gave it.
pub fn parse_priority(name: &str) -> Option<(Mark, Option<Sockets>)> {
    let mut words = name.strip_prefix(PRIORITY)?.split_ascii_whitespace().skip(1);
    let mark = words.next()?.strip_prefix("mark=")?;
    let mark = Mark(u32::from_str_radix(mark, 16).ok()?);
    let sockets = words.next().and_then(|word| sockets_of(word.strip_prefix("sockets=")?));
    Some((mark, sockets.filter(|sockets| print_priority(*sockets, mark) == name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back_and_nothing_else_does() {
        for shards in [false, true] {
            for tag in [TagHelper::Socket, TagHelper::Task] {
                for sockets in [Sockets::Cookie(u64::MAX), Sockets::All, Sockets::Mixed] {
                    let mptcp = shards.then_some(MptcpLayout { owner: 528, tag: i16::MAX });
                    let program = Program { shards, tag, sockets, mptcp };
                    let maps = MapIds([1, 20, 4_000_000_000]);
                    let name = print(program, maps);
                    assert!(name.len() < 256, "{name}");
                    assert_eq!(parse(&name), Some((program, maps)));
                    assert_eq!(parse(&name.replace("maps", "map")), None);
                    let other = if name.contains(" 0") { " 1" } else { " 0" };
                    let (head, tail) = name.split_at("shaper-decide".len());
                    assert_eq!(
                        parse(&format!("{head}{other}{}", &tail[2..])),
                        None,
                        "another hash"
                    );
                    assert_eq!(parse(&format!("{name},7")), None);
                }
            }
        }
        for sockets in [Sockets::Cookie(7), Sockets::Mixed] {
            let mark = Mark::for_instance("shaper");
            let name = print_priority(sockets, mark);
            assert_eq!(parse_priority(&name), Some((mark, Some(sockets))));
            assert_eq!(parse_priority(&format!("{name} x=1")), Some((mark, None)));
            assert_eq!(parse_priority(&name.replace("shaper", "other")), None);
            assert_eq!(parse(&name), None);
        }
        assert_eq!(parse("shaper-classid"), None, "a version that decided by the tag alone");
    }
}

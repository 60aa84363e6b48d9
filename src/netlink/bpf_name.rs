//! The names of our eBPF filters (`TCA_BPF_NAME`, at most 256 bytes). The kernel dumps of a program
//! its name only, so the name says which program it is and which maps it reads.

use crate::classify::{program, program_rules};
use crate::tree::{
    Asks, MapIds, Mark, MptcpLayout, NamespaceLayout, Program, RuleMapIds, RuleProgram, Sockets,
    TagHelper,
};

/// How the name of a deciding program begins.
const PREFIX: &str = "shaper-decide";
/// How the name of a program of rules begins.
const RULES: &str = "shaper-rules";
/// Where its rules ask by flow whose a packet is.
const FLOW: &str = "asks=flow";
/// How the name of a program at clsact's egress begins.
const PRIORITY: &str = "shaper-priority";

/// The name of a deciding program: `shaper-decide 1a2b3c4d tag=socket sockets=own:17 shards=0
/// mptcp=528,680 labels=0 maps=12,13,14,15`
pub fn print(program: Program, maps: MapIds) -> String {
    let hash = program::hash(&program::decide(program));
    format!("{PREFIX} {hash:08x} {} maps={maps}", program_words(program))
}

pub(super) fn program_words(program: Program) -> String {
    let Program { shards, tag, cgroups: _, sockets, mptcp, labels } = program;
    let tag = match tag {
        Some(TagHelper::Socket) => "socket",
        Some(TagHelper::Task) => "task",
        None if program.asks_cgroups() => "cgroup",
        None => "no",
    };
    let sockets = sockets_word(sockets);
    let (shards, labels) = (u8::from(shards), u8::from(labels));
    let mptcp = match mptcp {
        Some(MptcpLayout { owner, tag }) => format!("{owner},{tag}"),
        None => "no".to_string(),
    };
    format!("tag={tag} sockets={sockets} shards={shards} mptcp={mptcp} labels={labels}")
}

/// The deciding program of this name, and its maps. `None` for a name that this version does not
/// give: somebody else's filter, or another version's program.
pub fn parse(name: &str) -> Option<(Program, MapIds)> {
    let mut words = name.strip_prefix(PREFIX)?.split_ascii_whitespace().skip(1);
    let program = program_of(&mut words)?;
    let maps = maps_of(words.next()?)?;
    // The hash and every word must be those that this version writes.
    (print(program, maps) == name).then_some((program, maps))
}

pub(super) fn maps_of(word: &str) -> Option<MapIds> {
    let mut ids = word.strip_prefix("maps=")?.split(',').map(|id| id.parse().ok());
    Some(MapIds([ids.next()??, ids.next()??, ids.next()??, ids.next()??]))
}

pub(super) fn program_of<'t>(words: &mut impl Iterator<Item = &'t str>) -> Option<Program> {
    let mut value = |key: &str| words.next()?.strip_prefix(key)?.strip_prefix('=');
    let (tag, cgroups) = match value("tag")? {
        "socket" => (Some(TagHelper::Socket), false),
        "task" => (Some(TagHelper::Task), false),
        "cgroup" => (None, true),
        "no" => (None, false),
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
    let labels = value("labels")? == "1";
    Some(Program { shards, tag, cgroups, sockets, mptcp, labels })
}

/// The name of a program of rules: `shaper-rules 1a2b3c4d link=ethernet rules=15,16`, with `ids`
/// behind `rules=`. Where a rule asks who sends, `asks=flow` follows, or the words `tag=…` to
/// `maps=…` of a deciding program, with the owners' `maps`.
pub fn print_rules(rules: &RuleProgram, ids: RuleMapIds, maps: Option<MapIds>) -> String {
    let hash = program::hash(&program_rules::compile(rules));
    let link = if rules.ethernet { "ethernet" } else { "other" };
    let RuleMapIds { text, counts } = ids;
    let asks = match (rules.asks, maps) {
        (Some(Asks::Socket(program)), Some(maps)) => {
            format!(" {} maps={maps}", program_words(program))
        }
        (Some(Asks::Flow), _) => format!(" {FLOW}"),
        _ => String::new(),
    };
    format!("{RULES} {hash:08x} link={link} rules={text},{counts}{asks}")
}

/// What the name of a program of rules says: the program without its rules, the maps in which these
/// are, and the maps of owners that it reads. `None` for another name. The caller reads the rules
/// and holds [`print_rules`] of the whole against the name.
pub fn parse_rules(name: &str) -> Option<(RuleProgram, RuleMapIds, Option<MapIds>)> {
    let mut words = name.strip_prefix(RULES)?.split_ascii_whitespace().skip(1).peekable();
    let ethernet = words.next()?.strip_prefix("link=")? == "ethernet";
    let (text, counts) = words.next()?.strip_prefix("rules=")?.split_once(',')?;
    let ids = RuleMapIds { text: text.parse().ok()?, counts: counts.parse().ok()? };
    let (mut asks, mut maps) = (None, None);
    if words.peek() == Some(&FLOW) {
        asks = Some(Asks::Flow);
    } else if words.peek().is_some() {
        asks = Some(Asks::Socket(program_of(&mut words)?));
        maps = Some(maps_of(words.next()?)?);
    }
    Some((RuleProgram { asks, ethernet, rules: Vec::new() }, ids, maps))
}

fn sockets_word(sockets: Sockets) -> String {
    match sockets {
        Sockets::Cookie(cookie) => format!("own:{cookie}"),
        Sockets::Inode(inode, NamespaceLayout { namespace, inode: at }) => {
            format!("inode:{inode},{namespace},{at}")
        }
        Sockets::All => "all".to_string(),
        Sockets::Mixed => "mixed".to_string(),
    }
}

fn sockets_of(word: &str) -> Option<Sockets> {
    Some(match word {
        "all" => Sockets::All,
        "mixed" => Sockets::Mixed,
        own => match own.strip_prefix("inode:") {
            Some(numbers) => {
                let mut numbers = numbers.split(',');
                let inode = numbers.next()?.parse().ok()?;
                let (namespace, at) =
                    (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
                Sockets::Inode(inode, NamespaceLayout { namespace, inode: at })
            }
            None => Sockets::Cookie(own.strip_prefix("own:")?.parse().ok()?),
        },
    })
}

/// The name of a program that clears priorities: `shaper-priority 1a2b3c4d mark=53480abc
/// sockets=own:17`. clsact has no mark, so the name has the instance's.
pub fn print_priority(sockets: Sockets, mark: Mark) -> String {
    let (hash, word) = (program::hash(&program::clear_priority(sockets)), sockets_word(sockets));
    format!("{PRIORITY} {hash:08x} mark={:08x} sockets={word}", mark.0)
}

/// The instance and the sockets of a program that clears priorities. `None` for a name that no
/// version of shaper gives; an inner `None` where another version gave the name.
pub fn parse_priority(name: &str) -> Option<(Mark, Option<Sockets>)> {
    let mut words = name.strip_prefix(PRIORITY)?.split_ascii_whitespace().skip(1);
    let mark = mark_of(words.next()?)?;
    let sockets = words.next().and_then(|word| sockets_of(word.strip_prefix("sockets=")?));
    Some((mark, sockets.filter(|sockets| print_priority(*sockets, mark) == name)))
}

/// The instance, in the names of filters at clsact.
pub(super) fn mark_of(word: &str) -> Option<Mark> {
    Some(Mark(u32::from_str_radix(word.strip_prefix("mark=")?, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The longest that there are.
    const INODE: Sockets =
        Sockets::Inode(u32::MAX, NamespaceLayout { namespace: i16::MAX, inode: i16::MAX });

    #[test]
    fn a_name_reads_back_and_nothing_else_does() {
        for shards in [false, true] {
            let tags = [Some(TagHelper::Socket), Some(TagHelper::Task), None];
            for (tag, cgroups) in tags.map(|tag| (tag, false)).into_iter().chain([(None, true)]) {
                for sockets in [Sockets::Cookie(u64::MAX), INODE, Sockets::All, Sockets::Mixed] {
                    let mptcp = shards.then_some(MptcpLayout { owner: 528, tag: i16::MAX });
                    let labels = tag == Some(TagHelper::Task);
                    let program = Program { shards, tag, cgroups, sockets, mptcp, labels };
                    let maps = MapIds([1, 20, 300, 4_000_000_000]);
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
        let program = Program {
            shards: false,
            tag: Some(TagHelper::Socket),
            cgroups: false,
            sockets: INODE,
            mptcp: Some(MptcpLayout { owner: 528, tag: i16::MAX }),
            labels: true,
        };
        let ids = RuleMapIds { text: u32::MAX, counts: 7 };
        let maps = Some(MapIds([1, 2, 3, u32::MAX]));
        let of_socket = (Some(Asks::Socket(program)), maps);
        for (asks, maps) in [(None, None), (Some(Asks::Flow), None), of_socket] {
            let rules = RuleProgram { asks, ethernet: asks.is_some(), rules: Vec::new() };
            let name = print_rules(&rules, ids, maps);
            assert!(name.len() < 256, "{name}");
            assert_eq!(parse_rules(&name), Some((rules, ids, maps)));
            assert_eq!(parse(&name), None);
            assert_eq!(parse_rules(&name.replace("rules=", "rule=")), None);
        }
        for sockets in [Sockets::Cookie(7), INODE, Sockets::Mixed] {
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

//! What the filters are called that label what comes in by inner links: as [`super::bpf_name`].

use super::bpf_name::{maps_of, mark_of};
use crate::classify::{inner, program};
use crate::tree::{Label, MapIds, Mark};
use crate::units::Minor;

const LABEL: &str = "shaper-label";

/// `shaper-label 1a2b3c4d mark=53480abc minor=10 keeps=0`, and where sources are asked for
/// `maps=12,13,14,15`, as in a deciding program's name. The minor is hexadecimal, and 0 for
/// nobody's. clsact has no mark, so the name has the instance's.
pub fn print(label: Label, mark: Mark, maps: Option<MapIds>) -> String {
    let hash = program::hash(&inner::label(label));
    let Label { owner, keeps, .. } = label;
    let asks = maps.map(|maps| format!(" maps={maps}")).unwrap_or_default();
    let minor = owner.map_or(0, |minor| minor.0);
    format!(
        "{LABEL} {hash:08x} mark={:08x} minor={minor:x} keeps={}{asks}",
        mark.0,
        u8::from(keeps)
    )
}

/// A label, and the maps that it reads, where it asks for sources.
pub type Named = (Label, Option<MapIds>);

/// The instance and its label; `None` for a name that no shaper would give, an inner `None` where
/// another version gave it.
pub fn parse(name: &str) -> Option<(Mark, Option<Named>)> {
    let mut words = name.strip_prefix(LABEL)?.split_ascii_whitespace().skip(1);
    let mark = mark_of(words.next()?)?;
    let mut rest = || {
        let minor = u16::from_str_radix(words.next()?.strip_prefix("minor=")?, 16).ok()?;
        let owner = (minor != 0).then_some(Minor(minor));
        let keeps = words.next()? == "keeps=1";
        let maps = match words.next() {
            Some(word) => Some(maps_of(word)?),
            None => None,
        };
        Some((Label { owner, by_source: maps.is_some(), keeps }, maps))
    };
    Some((mark, rest().filter(|(label, maps)| print(*label, mark, *maps) == name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back_and_nothing_else_does() {
        let mark = Mark::for_instance("shaper");
        for owner in [None, Some(Minor::FIRST_USER), Some(Minor::LAST_USER)] {
            for keeps in [false, true] {
                let maps = keeps.then_some(MapIds([1, 2, 3, u32::MAX]));
                let label = Label { owner, by_source: keeps, keeps };
                let name = print(label, mark, maps);
                assert_eq!(parse(&name), Some((mark, Some((label, maps)))));
                assert_eq!(parse(&format!("{name} x=1")), Some((mark, None)));
                assert_eq!(parse(&name.replace("minor=", "minor=0")), Some((mark, None)));
                assert_eq!(parse(&name.replace("shaper", "other")), None);
            }
        }
    }
}

//! `/etc/subuid` (subuid(5)) as values. Pure.

use crate::tree::UidRange;

/// One range of subordinate uids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubuidLine {
    /// The account that may use the uids.
    pub owner: SubuidOwner,
    /// The uids: the second field is the first of them, the third their number.
    pub range: UidRange,
}

/// An account, by its name or its uid, as the file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubuidOwner {
    /// An account's name, which NSS knows or not.
    Name(String),
    /// Digits.
    Uid(u32),
}

/// `bob:100000:65536`: owner, first, count. A line of another shape, an empty range and one beyond
/// the last uid (newuidmap refuses it) give nobody anything, so they are left out.
pub fn parse_subuid(text: &str) -> Vec<SubuidLine> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<SubuidLine> {
    let mut fields = line.trim().split(':');
    let (owner, first, count) = (fields.next()?, fields.next()?, fields.next()?);
    if owner.is_empty() || owner.starts_with('#') || fields.next().is_some() {
        return None;
    }
    let owner = match owner.parse() {
        Ok(uid) => SubuidOwner::Uid(uid),
        Err(_) => SubuidOwner::Name(owner.to_string()),
    };
    let (first, count): (u32, u32) = (first.parse().ok()?, count.parse().ok()?);
    let last = first.checked_add(count.checked_sub(1)?)?;
    Some(SubuidLine { owner, range: UidRange { first, last } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_names_or_numbers() {
        let name = |name: &str| SubuidOwner::Name(name.into());
        let line = |owner, first, last| SubuidLine { owner, range: UidRange { first, last } };
        assert_eq!(
            parse_subuid("bob:100000:65536\n1001:165536:65536\nad\\ann:1:1\n"),
            [
                line(name("bob"), 100_000, 165_535),
                line(SubuidOwner::Uid(1001), 165_536, 231_071),
                line(name("ad\\ann"), 1, 1),
            ]
        );
    }

    #[test]
    fn lines_of_another_shape_are_left_out() {
        let text = "\n# bob:1:1\nbob\nbob:1\nbob:x:1\nbob:1:1:1\n:1:1\nbob:1:0\n\
                    bob:4294967295:2\nbob:1:4294967296\n";
        assert_eq!(parse_subuid(text), []);
    }

    #[test]
    fn the_last_uid_may_be_in_a_range() {
        assert_eq!(parse_subuid("bob:4294967295:1\n")[0].range.last, u32::MAX);
    }
}

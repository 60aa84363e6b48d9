//! `/etc/subuid` (subuid(5)) as values. Pure.

/// One range of subordinate uids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubuidLine {
    pub owner: SubuidOwner,
    pub first: u32,
    /// At least 1.
    pub count: u32,
}

impl SubuidLine {
    /// `None`: the range goes beyond the last uid, as newuidmap refuses it.
    pub fn last(&self) -> Option<u32> {
        self.first.checked_add(self.count.checked_sub(1)?)
    }
}

/// The file may name an account or give its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubuidOwner {
    Name(String),
    Uid(u32),
}

/// `bob:100000:65536`: owner, first, count. A line of another shape, an empty range and one beyond
/// the last uid give nobody anything, so they are left out.
pub fn parse_subuid(text: &str) -> Vec<SubuidLine> {
    text.lines().filter_map(parse_line).filter(|line| line.last().is_some()).collect()
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
    Some(SubuidLine { owner, first: first.parse().ok()?, count: count.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_names_or_numbers() {
        let name = |name: &str| SubuidOwner::Name(name.into());
        assert_eq!(
            parse_subuid("bob:100000:65536\n1001:165536:65536\nad\\ann:1:1\n"),
            [
                SubuidLine { owner: name("bob"), first: 100_000, count: 65_536 },
                SubuidLine { owner: SubuidOwner::Uid(1001), first: 165_536, count: 65_536 },
                SubuidLine { owner: name("ad\\ann"), first: 1, count: 1 },
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
        assert_eq!(parse_subuid("bob:4294967295:1\n")[0].last(), Some(u32::MAX));
    }
}

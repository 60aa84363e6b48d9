//! Reading attributes (`struct nlattr`) without trust: whatever the bytes are, the answer is a
//! value or `None`. The crates' own parsers of whole messages give up on the first attribute that
//! they do not understand; here an unknown attribute hides no class.

use std::borrow::Cow;

use netlink_packet_core::NLA_TYPE_MASK;

/// The attributes in `bytes` as (type without flags, value). Ends at the first one that does not
/// fit, as the kernel's `nla_for_each_attr` does.
///
/// Lists of thousands of classes are read each second: this takes half the time of the crate's
/// iterator.
pub(crate) fn attrs(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (head, _) = rest.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & NLA_TYPE_MASK;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

/// The first attribute of this type.
pub(crate) fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attrs(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// The native-endian `u32` at byte `at`.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(four.try_into().ok()?))
}

/// The native-endian `u64` at byte `at`.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let eight = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_ne_bytes(eight.try_into().ok()?))
}

/// A NUL-terminated string; bytes that are no UTF-8 become the replacement character.
pub(crate) fn text(bytes: &[u8]) -> String {
    borrowed(bytes).into_owned()
}

/// The same, where it lies.
pub(crate) fn borrowed(bytes: &[u8]) -> Cow<'_, str> {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end])
}

/// One attribute with its padding, as the kernel writes it.
#[cfg(test)]
pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap();
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_truncated_attribute_ends_the_list() {
        let whole = [8, 0, 1, 0, 1, 2, 3, 4, 8, 0, 2, 0, 9];
        assert_eq!(attrs(&whole).collect::<Vec<_>>(), [(1, &[1, 2, 3, 4][..])]);
    }

    #[test]
    fn the_nested_flag_is_not_part_of_the_type() {
        let nested = [8, 0, 2, 0x80, 1, 2, 3, 4];
        assert_eq!(find(&nested, 2), Some(&[1, 2, 3, 4][..]));
    }

    #[test]
    fn numbers_beyond_the_end_are_none() {
        assert_eq!(u32_at(&[0; 4], 1), None);
        assert_eq!(u64_at(&[0; 8], usize::MAX), None);
        assert_eq!(text(b"htb\0x"), "htb");
        assert_eq!(text(b"htb"), "htb");
    }
}

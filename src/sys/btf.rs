//! Where the kernel has in its memory what no function of its tells an eBPF program, by the
//! kernel's own description of its types (BTF, Documentation/bpf/btf.rst): an MPTCP socket's owner
//! and tag, and a socket's network namespace. A subflow has an owner and a tag of its own, which
//! neither fchown nor a move of its process reaches, so the program reads those of the MPTCP socket
//! to which the subflow belongs.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::sync::OnceLock;

use crate::tree::{MptcpLayout, NamespaceLayout};

const DESCRIPTION: &str = "/sys/kernel/btf/vmlinux";

/// What the running kernel says; nothing where it has no description of its types.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layouts {
    /// `None`: the kernel has no MPTCP.
    pub mptcp: Option<MptcpLayout>,
    /// Of any socket.
    pub namespace: Option<NamespaceLayout>,
    /// A socket has its cgroup (v2) beside its tag (Linux 5.15, 8520e224f547).
    pub has_both: bool,
}

/// The layouts in the running kernel.
///
/// # Errors
/// The kernel has a description that cannot be read, which does not mean that there is no MPTCP.
pub fn layouts() -> io::Result<Layouts> {
    static LAYOUTS: OnceLock<Layouts> = OnceLock::new();
    if let Some(known) = LAYOUTS.get() {
        return Ok(*known);
    }
    let found = match fs::read(DESCRIPTION) {
        Ok(description) => described(&description),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Layouts::default(),
        Err(error) => return Err(error),
    };
    Ok(*LAYOUTS.get_or_init(|| found))
}

/// `struct btf_header` and the kinds of `struct btf_type` (linux/btf.h).
const MAGIC: u16 = 0xeb9f;
const INT: u32 = 1;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const FUNC_PROTO: u32 = 13;
const VAR: u32 = 14;
const DATASEC: u32 = 15;
const DECL_TAG: u32 = 17;
const ENUM64: u32 = 19;

/// The members of a structure: name, type, offset in bytes.
type Members<'a> = Vec<(&'a [u8], u32, u32)>;

type Structures<'a> = HashMap<&'static [u8], (u32, Members<'a>)>;

fn described(btf: &[u8]) -> Layouts {
    const WANTED: [&[u8]; 6] =
        [b"mptcp_sock", b"sock", b"sock_cgroup_data", b"sock_common", b"net", b"ns_common"];
    let found = structures(btf, &WANTED);
    let has_both = |found| member(found, b"sock_cgroup_data", b"cgroup").is_some();
    Layouts {
        mptcp: found.as_ref().and_then(mptcp),
        namespace: found.as_ref().and_then(namespace),
        has_both: found.as_ref().is_some_and(has_both),
    }
}

/// A member's type and its offset in bytes.
fn member(structures: &Structures<'_>, of: &[u8], name: &[u8]) -> Option<(u32, u32)> {
    let (_, members) = structures.get(of)?;
    members.iter().find(|(known, _, _)| *known == name).map(|(_, kind, at)| (*kind, *at))
}

/// The offset of a structure's member, in which there is another structure with this member.
fn within(structures: &Structures<'_>, of: [&[u8]; 2], names: [&[u8]; 2]) -> Option<i16> {
    let (number, _) = structures.get(of[1])?;
    let (_, outer) = member(structures, of[0], names[0]).filter(|(kind, _)| kind == number)?;
    let (_, inner) = member(structures, of[1], names[1])?;
    i16::try_from(outer.checked_add(inner)?).ok()
}

/// Both offsets from the beginning of an MPTCP socket, which begins with its `struct sock`.
fn mptcp(structures: &Structures<'_>) -> Option<MptcpLayout> {
    structures.get(b"mptcp_sock".as_slice())?;
    let (_, owner) = member(structures, b"sock", b"sk_uid")?;
    let owner = i16::try_from(owner).ok()?;
    let tag = within(structures, [b"sock", b"sock_cgroup_data"], [b"sk_cgrp_data", b"classid"])?;
    Some(MptcpLayout { owner, tag })
}

/// All kinds of sockets begin with a `struct sock_common`, also requests of connections.
fn namespace(structures: &Structures<'_>) -> Option<NamespaceLayout> {
    let (_, namespace) = member(structures, b"sock_common", b"skc_net")?;
    let namespace = i16::try_from(namespace).ok()?;
    let inode = within(structures, [b"net", b"ns_common"], [b"ns", b"inum"])?;
    Some(NamespaceLayout { namespace, inode })
}

/// Each of these structures with its number and its members.
fn structures<'a>(btf: &'a [u8], wanted: &[&'static [u8]]) -> Option<Structures<'a>> {
    let word = |bytes: &[u8], at: usize| {
        Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
    };
    if btf.get(..2)? != MAGIC.to_ne_bytes() {
        return None;
    }
    let part = |at: usize| {
        let [header, offset, length] = [word(btf, 4)?, word(btf, at)?, word(btf, at + 4)?];
        let from = usize::try_from(header.checked_add(offset)?).ok()?;
        btf.get(from..from.checked_add(usize::try_from(length).ok()?)?)
    };
    let (types, names) = (part(8)?, part(16)?);
    let name = |offset: u32| {
        let rest = names.get(usize::try_from(offset).ok()?..)?;
        rest.split(|byte| *byte == 0).next()
    };
    let mut found = HashMap::new();
    let (mut at, mut number) = (0, 0);
    while at < types.len() {
        number += 1;
        let info = word(types, at + 4)?;
        let (kind, count, has_bits) =
            (info >> 24 & 0x1f, (info & 0xffff) as usize, info >> 31 == 1);
        let members = at + 12;
        let each = match kind {
            STRUCT | UNION | ENUM64 => 12,
            ENUM | FUNC_PROTO => 8,
            DATASEC => 12,
            _ => 0,
        };
        if kind == STRUCT
            && count > 0
            && let known = name(word(types, at)?)?
            && let Some(wanted) = wanted.iter().find(|wanted| **wanted == known)
        {
            let mut list = Vec::with_capacity(count);
            for member in 0..count {
                let at = members + member * each;
                let bits = word(types, at + 8)?;
                let bits = if has_bits { bits & 0x00ff_ffff } else { bits };
                list.push((name(word(types, at)?)?, word(types, at + 4)?, bits / 8));
            }
            found.entry(*wanted).or_insert((number, list));
        }
        at = members
            + each * count
            + match kind {
                ARRAY => 12,
                INT | VAR | DECL_TAG => 4,
                _ => 0,
            };
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A description of these types, each as its words.
    fn description(types: &[&[u32]], names: &[u8]) -> Vec<u8> {
        let types: Vec<u8> = types.concat().into_iter().flat_map(u32::to_ne_bytes).collect();
        let mut btf = [MAGIC.to_ne_bytes().as_slice(), &[1, 0]].concat();
        let lengths = [24, 0, types.len(), types.len(), names.len()];
        btf.extend(lengths.into_iter().flat_map(|word| (word as u32).to_ne_bytes()));
        [btf, types, names.to_vec()].concat()
    }

    const fn kind(kind: u32, count: u32) -> u32 {
        kind << 24 | count
    }

    #[test]
    fn offsets_are_found_behind_types_of_every_length() {
        let names = b"\0sock\0sk_uid\0sk_cgrp_data\0sock_cgroup_data\0classid\0mptcp_sock\0\
            sock_common\0skc_net\0net\0ns\0ns_common\0inum\0cgroup\0";
        let of = |name: &str| {
            let text = String::from_utf8_lossy(names);
            u32::try_from(text.find(&format!("\0{name}\0")).unwrap() + 1).unwrap()
        };
        let types: &[&[u32]] = &[
            &[0, kind(INT, 0), 4, 32],
            &[0, kind(ARRAY, 0), 0, 1, 1, 4],
            &[0, kind(ENUM, 1), 4, 0, 0],
            &[
                of("sock_cgroup_data"),
                kind(STRUCT, 2),
                16,
                of("classid"),
                1,
                64,
                of("cgroup"),
                1,
                0,
            ],
            &[
                of("sock"),
                1 << 31 | kind(STRUCT, 2),
                700,
                of("sk_uid"),
                1,
                (32 << 24) | (528 * 8),
                of("sk_cgrp_data"),
                4,
                600 * 8,
            ],
            &[of("sock_common"), kind(STRUCT, 1), 136, of("skc_net"), 1, 48 * 8],
            &[of("ns_common"), kind(STRUCT, 1), 24, of("inum"), 1, 16 * 8],
            &[of("net"), kind(STRUCT, 1), 4_000, of("ns"), 7, 120 * 8],
            &[of("mptcp_sock"), kind(STRUCT, 1), 900, of("sock"), 5, 0],
        ];
        let mptcp = Some(MptcpLayout { owner: 528, tag: 608 });
        let namespace = Some(NamespaceLayout { namespace: 48, inode: 136 });
        assert_eq!(
            described(&description(types, names)),
            Layouts { mptcp, namespace, has_both: true }
        );
        let without = described(&description(&types[..8], names));
        assert_eq!(without, Layouts { mptcp: None, namespace, has_both: true }, "no MPTCP");
        let another = [&types[..6], &types[7..]].concat();
        let without = described(&description(&another, names));
        assert_eq!(
            without,
            Layouts { mptcp, namespace: None, has_both: true },
            "another kind of namespace"
        );
        let mut one = types.to_vec();
        let alone = [of("sock_cgroup_data"), kind(STRUCT, 1), 16, of("classid"), 1, 64];
        one[3] = &alone;
        assert!(!described(&description(&one, names)).has_both, "before Linux 5.15");
        let whole = description(types, names);
        for length in 0..whole.len() {
            assert_eq!(described(&whole[..length]), Layouts::default(), "cut off at {length}");
        }
    }
}

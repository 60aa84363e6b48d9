//! What becomes of priorities; and programs of different options are different.

use super::*;

/// What becomes of a packet's priority.
fn cleared(sockets: Sockets, socket: Option<u64>, priority: u32) -> u32 {
    let socket_in = socket.map(|cookie| (true, cookie, 0));
    let packet = Packet { socket: socket_in, ..ORDINARY };
    make_socket(&packet);
    let it = World { packet, table: OwnerTable::default(), given: BTreeSet::new() };
    WORLD.with(|world| *world.borrow_mut() = Some(it));
    let functions: [(i32, rbpf::ebpf::Helper); 2] =
        [(NETNS_COOKIE, cookie), (READ_KERNEL, read_kernel)];
    let machine = Machine { functions: &functions, memory: &[], packet: &Bytes::default() };
    let mut context = [0_u8; 192];
    let pointer = socket.map_or(0, |_| socket_address());
    context[SKB_SOCKET as usize..][..8].copy_from_slice(&pointer.to_ne_bytes());
    context[SKB_PRIORITY as usize..][..4].copy_from_slice(&priority.to_ne_bytes());
    let answer = machine.run(&clear_priority(sockets), &mut context);
    assert_eq!(answer as i32, -1, "the next filter is asked");
    let left = context[SKB_PRIORITY as usize..][..4].try_into().expect("four bytes");
    u32::from_ne_bytes(left)
}

#[test]
fn a_foreign_priority_names_no_class() {
    let ours = [0x1_0000, 0x1_0010, 0x1_fffd, 0xe000_0010, 0xefff_ffff];
    let others = [0, 6, 0xffff, 0x2_0010, 0xdfff_ffff, 0xf000_0000, u32::MAX];
    for sockets in [Sockets::Cookie(OURS), BY_INODE, Sockets::Mixed] {
        for socket in [None, Some(12), Some(OURS + (1 << 32)), Some(OURS)] {
            let is_known = socket == Some(OURS) && sockets != Sockets::Mixed;
            for priority in ours {
                let left = if is_known { priority } else { 0 };
                assert_eq!(cleared(sockets, socket, priority), left, "{priority:x}, {socket:?}");
            }
            for priority in others {
                assert_eq!(cleared(sockets, socket, priority), priority);
            }
        }
    }
}

#[test]
fn programs_of_different_options_have_different_hashes() {
    let mut hashes = BTreeSet::new();
    let mut count = 0;
    for shards in [false, true] {
        for tag in [Some(TagHelper::Socket), Some(TagHelper::Task), None] {
            let sockets = [
                Sockets::Cookie(1),
                Sockets::Cookie(2),
                BY_INODE,
                Sockets::Inode(1, NAMESPACE_LAYOUT),
                Sockets::Inode(1, NamespaceLayout { inode: 16, ..NAMESPACE_LAYOUT }),
                Sockets::All,
                Sockets::Mixed,
            ];
            // Without a tag none goes first.
            let differs = |it: &Sockets| tag.is_some() || *it != Sockets::Mixed;
            for sockets in sockets.into_iter().filter(differs) {
                for mptcp in [None, Some(LAYOUT)] {
                    let kinds = [(false, false), (true, false), (false, true), (true, true)];
                    for (labels, cgroups) in kinds.into_iter().filter(|it| tag.is_none() || !it.1) {
                        let program = Program { shards, tag, cgroups, sockets, mptcp, labels };
                        let code = decide(program);
                        let most = if cgroups { 600 } else { 128 };
                        assert!(code.len() < most, "{}", code.len());
                        hashes.insert(hash(&code));
                        count += 1;
                    }
                }
            }
        }
    }
    assert_eq!(hashes.len(), count);
}

//! A guest (a container, a VM, a client of a VPN) has its sockets in a network namespace or a
//! machine of its own, so nothing at the link by which its packets leave says whose they are. The
//! link by which they come in does. Two halves, of which this is the second:
//!
//! - [`super::inner`], at the ingress side of clsact of the *inner* link: writes the owner's minor
//!   into `tc_index`;
//! - [`class_of_label`], with which the deciding program and the one that notes flows begin: of a
//!   packet that came in by another link, the class that its label names.
//!
//! `tc_index` outlives bridges, Open vSwitch, routing and NAT; `priority` does not (`ip_forward`),
//! and each bit of `mark` is somebody else's (Cilium, CNI, Kubernetes, Tailscale). The kernel
//! itself writes `tc_index` where a filter at clsact ends the search (`tc_run`, net/core/dev.c),
//! and a veth brings along what a guest's own filter has written; so what is no number of a user's
//! class counts for nothing, and a link of a guest without an owner is labelled, too.

use super::assembler::{Assembler, Label as Target, Register, Width};
use crate::units::{ClassId, Minor};

/// Offsets in `struct __sk_buff` (linux/bpf.h): the ifindex of the link by which the packet came in
/// last, 0 for one that this host sends itself.
pub const SKB_INGRESS_IFINDEX: i16 = 36;
/// Offset of `tc_index`, of which the kernel keeps 16 bits.
pub const SKB_TC_INDEX: i16 = 44;

/// `class` = that of the packet's label, and on to `labelled`; falls through for what this host
/// sends itself and for what has no label. The classes of guests' owners are in the root qdisc.
pub(super) fn class_of_label(
    a: &mut Assembler,
    context: Register,
    class: Register,
    labelled: Target,
) {
    let own = a.label();
    a.load(Width::Word, class, context, SKB_INGRESS_IFINDEX);
    a.jump_if_is(class, 0, own);
    a.load(Width::Word, class, context, SKB_TC_INDEX);
    a.jump_if_less(class, Minor::FIRST_USER.0.into(), own);
    a.jump_if_more(class, Minor::LAST_USER.0.into(), own);
    a.or(class, ClassId::ROOT.0 as i32);
    a.jump(labelled);
    a.bind(own);
}

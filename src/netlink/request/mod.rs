//! Requests to the kernel, as messages: pure builders, one file for each kind of object, each
//! builder named after the `tc` command that it equals. `add` is CREATE|EXCL and fails where the
//! object exists; `change` has no flags and fails where it does not.

pub mod class;
pub mod clsact;
pub mod dump;
pub mod filter;
pub mod hook;
pub mod ifb;
pub mod leaf;
pub mod root;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};

use crate::units::ClassId;

/// The flags that make an object; refused where it exists.
const ADD: u16 = NLM_F_CREATE | NLM_F_EXCL;
/// The flags that change an object; refused where it does not exist.
const CHANGE: u16 = 0;

/// A message of traffic control about `handle` below `parent` on a link.
fn tc_message(ifindex: u32, parent: u32, handle: ClassId) -> TcMessage {
    // The kernel's ifindex is a positive int.
    let mut message = TcMessage::with_index(i32::try_from(ifindex).unwrap_or(0));
    message.header.parent = TcHandle::from(parent);
    message.header.handle = TcHandle::from(handle.0);
    message
}

fn kind(name: &str) -> TcAttribute {
    TcAttribute::Kind(name.to_string())
}

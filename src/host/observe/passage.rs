//! The counters on the way of packets that arrive: of the link, of what redirects them, and of
//! their ifb's root.

use std::collections::BTreeMap;

use crate::host::Kernel;
use crate::netlink::Message;
use crate::netlink::decode::{self, Decoded};
use crate::netlink::received::{Received, received};
use crate::netlink::redirected::{Redirected, redirected};
use crate::netlink::request::{dump, root};
use crate::sys::route::SocketError;
use crate::tree::{Counters, Direction, Filter, KernelState, LinkName};
use crate::units::ClassId;

/// One reading of all of them. No two counters are read at one moment, so those of what is led on
/// are read before and after the link's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passage {
    /// The numbers of the link and of its ifb.
    pub indexes: [u32; 2],
    /// What was led on a moment before.
    pub before: Led,
    /// What has come by the link.
    pub came: Received,
    /// What was led on a moment later.
    pub after: Led,
}

/// What was led to an ifb.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Led {
    /// Each filter of ours that redirects: two while one takes the other's place.
    pub redirected: Vec<Redirected>,
    /// The ifb's root qdisc.
    pub reached: Counters,
}

/// Reads the counters of links that stand with all that redirects. `index`: the number of a link or
/// an ifb.
///
/// # Errors
/// The netlink socket failed.
pub fn passages(
    kernel: &mut Kernel,
    state: &KernelState,
    index: impl Fn(&LinkName) -> Option<u32>,
) -> Result<BTreeMap<LinkName, Passage>, SocketError> {
    let mut passages = BTreeMap::new();
    for port in state.trees.keys().filter(|port| port.direction == Direction::Ingress) {
        let clsact = state.clsact.get(&port.link).into_iter();
        let mut filters = clsact.flat_map(|clsact| clsact.ingress.filters.values());
        if !filters.any(|filter| *filter == Filter::Redirect) {
            continue;
        }
        let Some((link, ifb)) = index(&port.link).zip(index(&port.device())) else { continue };
        match passage(kernel, [link, ifb]) {
            Ok(read) => passages.extend(read.map(|passage| (port.link.clone(), passage))),
            // It went meanwhile.
            Err(SocketError::Refused(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(passages)
}

/// Five questions. `None`: something of it went meanwhile, or the link counts something else.
fn passage(kernel: &mut Kernel, indexes: [u32; 2]) -> Result<Option<Passage>, SocketError> {
    let [link, _] = indexes;
    let Some(before) = led(kernel, indexes)? else { return Ok(None) };
    let Ok(Some(came)) = kernel.netlink.get(&dump::counters(link), came)? else { return Ok(None) };
    let after = led(kernel, indexes)?;
    Ok(after.map(|after| Passage { indexes, before, came, after }))
}

fn led(kernel: &mut Kernel, [link, ifb]: [u32; 2]) -> Result<Option<Led>, SocketError> {
    let mark = kernel.mark;
    let filters = dump::filters(link, ClassId::INGRESS);
    let redirected = kernel.netlink.dump(&filters, |message| redirected(mark, message))?;
    let Ok(Some(qdisc)) = kernel.netlink.get(&root::get(ifb), decode::qdisc)? else {
        return Ok(None);
    };
    Ok(Some(Led { redirected, reached: qdisc.counters }))
}

/// A bond counts also what comes by a slave that is not active, where it is dropped
/// (`bond_get_stats`, drivers/net/bonding/bond_main.c).
fn came(message: Message<'_>) -> Decoded<Received> {
    let kind = decode::link(message)?.and_then(|link| link.kind);
    match kind.as_deref() {
        Some("bond") => Ok(None),
        _ => received(message),
    }
}

//! Whether traffic control stayed the same while it was read.
//!
//! The kernel's lists of traffic control go on by position: after so many links (`tc_dump_qdisc`),
//! qdiscs (`tc_dump_qdisc_root`, `tc_dump_tclass_root`), classes (`tc_dump_tclass_qdisc`; all
//! net/sched/sch_api.c) and filters (`tcf_chain_dump`, net/sched/cls_api.c). An object that is
//! deleted between two datagrams of a list moves all others up, and as many entries are left out,
//! without NLM_F_DUMP_INTR. But the kernel tells RTNLGRP_TC of each change, and RTNLGRP_LINK of the
//! end of a link, before it releases the lock (RTNL) that each part of a list takes. So if no
//! notice came from before the first request until after the last answer, nothing changed between
//! the two.

use std::collections::BTreeSet;

use super::listener::{Heard, LinkListener};
use super::route::SocketError;
use crate::netlink::notice::Notice;

/// Hears of changes while the caller reads lists.
pub struct Witness {
    listener: LinkListener,
    gone: BTreeSet<u32>,
}

/// The links on which something changed, by ifindex.
#[derive(Debug, Default)]
pub struct Told {
    /// Links that have left this network namespace since the witness was opened.
    pub gone: BTreeSet<u32>,
    /// Links whose traffic control somebody changed since the last question.
    pub changed: BTreeSet<u32>,
    /// Notices were lost: everything may have changed.
    pub lost: bool,
}

impl Witness {
    /// From now on hears of every change in this thread's network namespace.
    pub fn open() -> Result<Witness, SocketError> {
        Ok(Witness { listener: LinkListener::without_routes()?, gone: BTreeSet::new() })
    }

    /// The changes so far. `own`: the netlink port of a socket whose questions are no changes
    /// (`tc_get_qdisc` tells everybody what it answers).
    pub fn told(&mut self, own: u32) -> Result<Told, SocketError> {
        let mut told = Told { gone: self.gone.clone(), ..Told::default() };
        let mut more = true;
        while more {
            more = false;
            let heard = self.listener.hear(|port, notice| {
                more = true;
                match notice {
                    Notice::Gone(index, ..) => {
                        told.gone.insert(index);
                    }
                    Notice::TrafficControl(index) if port != own => {
                        told.changed.insert(index);
                    }
                    _ => {}
                }
            })?;
            told.lost |= heard == Heard::Lost;
        }
        self.gone.clone_from(&told.gone);
        Ok(told)
    }
}

//! Whether a look at traffic control was one moment's.
//!
//! The kernel's lists of it go on by position: after so many links (`tc_dump_qdisc`), qdiscs
//! (`tc_dump_qdisc_root`, `tc_dump_tclass_root`), classes (`tc_dump_tclass_qdisc`; all
//! net/sched/sch_api.c) and filters (`tcf_chain_dump`, net/sched/cls_api.c). What goes between two
//! datagrams of a list moves everything behind it up, and as many entries are left out; the message
//! has no NLM_F_DUMP_INTR. But each change is told to RTNLGRP_TC, and the end of a link to
//! RTNLGRP_LINK, before the kernel lets go of the lock (RTNL) that each part of a list takes: if
//! nothing was told from before the first request until after the last answer, nothing changed
//! between.

use std::collections::BTreeSet;

use super::listener::{Heard, LinkListener};
use super::route::SocketError;
use crate::netlink::notice::Notice;

/// Hears what changes while somebody looks.
pub struct Witness {
    listener: LinkListener,
    gone: BTreeSet<u32>,
}

/// What changed, by ifindex.
#[derive(Debug, Default)]
pub struct Told {
    /// Links that are not in this network namespace any more, since the witness was called.
    pub gone: BTreeSet<u32>,
    /// Links whose traffic control somebody changed since the last question.
    pub changed: BTreeSet<u32>,
    /// More than could be heard: everything may have changed.
    pub lost: bool,
}

impl Witness {
    /// What changes in this thread's network namespace from now on is heard.
    pub fn open() -> Result<Witness, SocketError> {
        Ok(Witness { listener: LinkListener::without_routes()?, gone: BTreeSet::new() })
    }

    /// What changed. `own`: the port of a socket whose questions are no changes
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

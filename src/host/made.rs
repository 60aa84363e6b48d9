//! What runs have made since the last look, for packets that arrive: facts do not know it yet.

use std::collections::BTreeMap;

use crate::sys::bpf::Pulse;
use crate::tree::LinkName;

/// New devices and maps.
#[derive(Debug, Default)]
pub struct Made {
    /// The ifindexes of ifbs, by name.
    pub ifbs: BTreeMap<LinkName, u32>,
    /// The numbers of the maps of flows that new programs use, by link.
    pub flows: BTreeMap<LinkName, u32>,
    /// What says whether packets come to the ifbs of new filters, by link.
    pub pulses: BTreeMap<LinkName, Pulse>,
}

//! How much our filter at a link's clsact ingress has redirected.

use super::decode::{Decoded, TCA_STATS_BASIC, TCA_STATS_PKT64, Undecodable};
use super::{Message, RTM_NEWTFILTER, attr, flow_name};
use crate::tree::Mark;

/// What one filter has sent to the ifb since the filter was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Redirected {
    /// The number of the filter's program (`TCA_BPF_ID`), which no other program ever has.
    pub program: u32,
    /// Packets; one that GRO has merged counts as its segments.
    pub packets: u64,
    /// Bytes, without link-layer headers and with one set of headers for a merged packet.
    pub bytes: u64,
}

/// Reads a message of [`super::request::dump::filters`]; `None` for all but the instance's filter
/// that redirects.
pub fn redirected(mark: Mark, message: Message<'_>) -> Decoded<Redirected> {
    // `struct tcmsg`.
    const HEADER: usize = 20;
    const TCA_OPTIONS: u16 = 2;
    const TCA_BPF_ACT: u16 = 1;
    const TCA_BPF_NAME: u16 = 7;
    const TCA_BPF_ID: u16 = 11;
    const TCA_ACT_STATS: u16 = 4;

    if message.kind != RTM_NEWTFILTER {
        return Ok(None);
    }
    let attributes = message.payload.get(HEADER..);
    let attributes = attributes.ok_or(Undecodable::new("filter", "it is too short"))?;
    let Some(options) = attr::find(attributes, TCA_OPTIONS) else { return Ok(None) };
    let name = attr::find(options, TCA_BPF_NAME).map(attr::text).unwrap_or_default();
    if flow_name::parse_redirect(&name).is_none_or(|(whose, _)| whose != mark) {
        return Ok(None);
    }
    let action = attr::find(options, TCA_BPF_ACT).and_then(|list| attr::attrs(list).next());
    let stats = action.and_then(|(_, action)| attr::find(action, TCA_ACT_STATS));
    let basic = stats.and_then(|stats| attr::find(stats, TCA_STATS_BASIC)).unwrap_or(&[]);
    let long = stats.and_then(|stats| attr::find(stats, TCA_STATS_PKT64));
    let packets = long.and_then(|value| attr::u64_at(value, 0));
    let packets = packets.or_else(|| attr::u32_at(basic, 8).map(u64::from));
    let program = attr::find(options, TCA_BPF_ID).and_then(|value| attr::u32_at(value, 0));
    let counted = program.zip(packets).zip(attr::u64_at(basic, 0));
    Ok(counted.map(|((program, packets), bytes)| Redirected { program, packets, bytes }))
}

#[cfg(test)]
mod tests {
    use super::attr::attribute;
    use super::*;
    use crate::netlink::flow_name::{Redirects, print_redirect};

    #[test]
    fn what_the_action_of_ours_has_counted_is_read() {
        let (mark, other) = (Mark::for_instance("shaper"), Mark::for_instance("other"));
        let name = print_redirect(mark, Redirects { ifb: 7, pulse: 13 });
        let basic = [&9_000_u64.to_ne_bytes()[..], &6_u32.to_ne_bytes(), &[0; 4]].concat();
        let written = |name: &str, stats: &[u8]| {
            let action = [attribute(1, b"mirred\0"), attribute(4, stats)].concat();
            let options = [
                attribute(1, &attribute(1, &action)),
                attribute(7, &[name.as_bytes(), &[0]].concat()),
                attribute(11, &55_u32.to_ne_bytes()),
            ];
            [vec![0; 20], attribute(1, b"bpf\0"), attribute(2, &options.concat())].concat()
        };
        let read = |payload: &[u8]| redirected(mark, Message { kind: RTM_NEWTFILTER, payload });
        let few = written(&name, &attribute(1, &basic));
        let is = |packets| Ok(Some(Redirected { program: 55, packets, bytes: 9_000 }));
        assert_eq!(read(&few), is(6));
        // Once 32 bits are not enough, the number is there in 64.
        let long = attribute(8, &(1_u64 << 33).to_ne_bytes());
        assert_eq!(read(&written(&name, &[attribute(1, &basic), long].concat())), is(1 << 33));
        assert_eq!(read(&written("count", &attribute(1, &basic))), Ok(None), "somebody else's");
        assert_eq!(read(&written(&name, &[])), Ok(None), "nothing is counted");
        assert!(read(&few[..12]).is_err());
        assert_eq!(redirected(other, Message { kind: RTM_NEWTFILTER, payload: &few }), Ok(None));
        assert_eq!(redirected(mark, Message { kind: 16, payload: &few }), Ok(None));
    }
}

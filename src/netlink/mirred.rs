//! `act_mirred` as the one action of a filter: what matches goes to another device's root qdisc
//! (linux/tc_act/tc_mirred.h, net/sched/act_mirred.c).

use netlink_packet_core::{DefaultNla, Emitable};
use netlink_packet_route::tc::{
    TcAction, TcActionAttribute, TcActionMirror, TcActionMirrorOption, TcActionOption,
    TcActionType, TcMirror, TcMirrorActionType,
};

use super::attr;

/// `TCA_BPF_ACT`: the list of actions of `cls_bpf`.
const ACTIONS: u16 = 1;
const NESTED: u16 = 0x8000;

/// `action mirred egress redirect dev …`, as an attribute of `cls_bpf`.
pub(super) fn redirect(ifindex: u32) -> DefaultNla {
    let mut mirror = TcMirror::default();
    mirror.generic.action = TcActionType::Stolen;
    mirror.eaction = TcMirrorActionType::EgressRedir;
    mirror.ifindex = ifindex;
    let mut action = TcAction::default();
    action.attributes = vec![
        TcActionAttribute::Kind(TcActionMirror::KIND.to_string()),
        TcActionAttribute::Options(vec![TcActionOption::Mirror(TcActionMirrorOption::Parms(
            mirror,
        ))]),
    ];
    let actions = [action];
    let mut bytes = vec![0; actions.as_slice().buffer_len()];
    actions.as_slice().emit(&mut bytes);
    DefaultNla::new(ACTIONS | NESTED, bytes)
}

/// Where the filter's options redirect to: the ifindex, where that is all that their actions do;
/// also 0, once the kernel has forgotten a device that went.
pub(super) fn redirects_to(options: &[u8]) -> Option<u32> {
    const TCA_ACT_KIND: u16 = 1;
    const TCA_ACT_OPTIONS: u16 = 2;
    const TCA_MIRRED_PARMS: u16 = 2;
    // `struct tc_mirred`: index, capabilities, action, two counts, what is done, ifindex.
    const ACTION: usize = 8;
    const WHAT: usize = 20;
    const IFINDEX: usize = 24;
    const TC_ACT_STOLEN: u32 = 4;
    const TCA_EGRESS_REDIR: u32 = 1;
    let mut actions = attr::attrs(attr::find(options, ACTIONS)?);
    let (_, action) = actions.next()?;
    let parms = attr::find(attr::find(action, TCA_ACT_OPTIONS)?, TCA_MIRRED_PARMS)?;
    let is_redirect = attr::find(action, TCA_ACT_KIND).map(attr::text).as_deref()
        == Some(TcActionMirror::KIND)
        && attr::u32_at(parms, ACTION) == Some(TC_ACT_STOLEN)
        && attr::u32_at(parms, WHAT) == Some(TCA_EGRESS_REDIR);
    attr::u32_at(parms, IFINDEX).filter(|_| is_redirect && actions.next().is_none())
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Nla;

    use super::attr::attribute;
    use super::*;

    fn written(ifindex: u32) -> Vec<u8> {
        let nla = redirect(ifindex);
        let mut value = vec![0; nla.value_len()];
        nla.emit_value(&mut value);
        value
    }

    #[test]
    fn a_redirect_reads_back_and_no_other_action_does() {
        let actions = written(7);
        assert_eq!(redirects_to(&attribute(ACTIONS, &actions)), Some(7));
        assert_eq!(redirects_to(&attribute(ACTIONS, &[])), None);
        let two = [actions.clone(), attribute(2, &actions[4..])].concat();
        assert_eq!(redirects_to(&attribute(ACTIONS, &two)), None, "a second action");
        // `mirror` in the place of `redirect`, which differs in one number.
        let what = actions.len() - 8;
        let mut mirror = actions;
        assert_eq!(attr::u32_at(&mirror, what), Some(1));
        mirror[what..what + 4].copy_from_slice(&2_u32.to_ne_bytes());
        assert_eq!(redirects_to(&attribute(ACTIONS, &mirror)), None);
    }
}

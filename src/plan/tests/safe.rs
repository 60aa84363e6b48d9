//! What holds of a state after any step of any plan.

use super::*;
use crate::tree::Tree;

/// HTB deletes no class that has children, or to which a rule is bound (`HTB class in use`).
pub(super) fn assert_free_to_go(seen: &Observation, step: &Step) {
    let Step::Class(port, id, Change::Remove(_) | Change::Replace { .. }) = step else {
        return;
    };
    let tree = &seen.state.trees[port];
    let left = seen.strange.get(port).is_some_and(|strange| !strange.tables.is_empty());
    assert!(!left, "rules in tables that are left may be bound at {step}");
    let child = tree.classes.values().any(|class| class.parent == Some(*id));
    assert!(!child, "the class has children at {step}");
    for filter in tree.filters.values() {
        let Filter::U32 { rules, .. } = filter else { continue };
        let bound = rules.rules().any(|rule| rule.to == *id);
        assert!(!bound, "a rule is bound to the class at {step}");
    }
}

/// What holds after every prefix of a plan: no class is without a claim (its minor could be given
/// to another owner), no rule sends packets to a class that does not stand, every root has a
/// default class, and an owner whose class stood or will stand on a link has that class there, with
/// the filters that lead to it.
pub(super) fn assert_safe(
    state: &KernelState,
    before: &KernelState,
    after: &KernelState,
    step: &Step,
) {
    let claimed: BTreeSet<ClassId> =
        state.claims.values().filter_map(|id| id.our_class()).collect();
    assert_uids_find_their_class(state, &claimed, step);
    assert_not_cut_off(state, step);
    for (port, tree) in &state.trees {
        let building = !before.trees.contains_key(port);
        let default = tree.classes.contains_key(&ClassId::DEFAULT);
        assert!(default || building, "no default on {port} after {step}");
        assert_whole(port, tree, &claimed, step);
        assert_priorities_are_cleared(port, [before, state, after], step);
        for claim in state.claims.keys() {
            let Claim::Owner(owner) = claim else { continue };
            let sends = !matches!(owner, Owner::Group(_) | Owner::Class(_));
            // An owner that has a class on this link before and after has one at every moment
            // between.
            let stays = [before, after].iter().all(|at| has_class(at, port, claim));
            if sends && stays {
                assert_found(state, port, claim, step);
            }
        }
    }
}

/// Every class in the maps has a claim, and the filters lead to the class of a shard to which the
/// maps send a uid.
fn assert_uids_find_their_class(state: &KernelState, claimed: &BTreeSet<ClassId>, step: &Step) {
    let table = state.owners.iter();
    for class in table.flat_map(|table| table.accounts.values().chain(table.ranges.values())) {
        assert!(claimed.contains(class), "{class}, which uids are in, is unclaimed after {step}");
        let Some(shard) = class.shard() else { continue };
        for (port, tree) in &state.trees {
            let decides = |filter: &Filter| matches!(filter, Filter::Tag(Tag::Bpf(_)));
            // An owner may have no class on this link.
            if tree.classes.contains_key(class) && tree.filters.values().any(decides) {
                let known = tree.filters.values().any(knows_shards);
                assert!(known, "no way to {shard} on {port} after {step}");
                let asked = tree.shards[&shard].values().any(is_tag);
                assert!(asked, "{shard} asks nobody after {step}");
            }
        }
    }
}

/// Each class has a claim, or is one of the fixed ones, and hangs below a class that stands; rules
/// send packets to classes that stand; no two leaves have one handle.
fn assert_whole(port: &Port, tree: &Tree, claimed: &BTreeSet<ClassId>, step: &Step) {
    let shards: BTreeSet<Shard> = claimed.iter().filter_map(|id| id.shard()).collect();
    let ours = |id: ClassId| match id.shard().or(Shard::of_class(id)) {
        None => matches!(id, ClassId::LINK | ClassId::DEFAULT | ClassId::UNSHAPED),
        Some(shard) => {
            let own = [shard.class(), shard.root(), shard.default()];
            own.contains(&id) && shards.contains(&shard)
        }
    };
    for (id, class) in &tree.classes {
        assert!(ours(*id) || claimed.contains(id), "{id} unclaimed on {port} after {step}");
        let above = tree.above(*id);
        assert!(above.is_none_or(|id| tree.classes.contains_key(&id)), "orphan after {step}");
        let qdisc = class.parent.is_none_or(|parent| parent.major() == id.major());
        assert!(qdisc, "{id} hangs in another qdisc after {step}");
    }
    for filter in tree.filters.values() {
        let Filter::U32 { rules, .. } = filter else { continue };
        for rule in rules.rules() {
            assert!(tree.classes.contains_key(&rule.to), "rule to nowhere after {step}");
            assert_eq!(rule.to.shard(), None, "a rule cannot lead into a shard");
        }
    }
    let own = tree.leaves.iter().filter(|(_, leaf)| **leaf != LeafQdisc::Shard);
    let minors: Vec<Minor> = own.map(|(id, _)| id.minor()).collect();
    let handles: BTreeSet<Minor> = minors.iter().copied().collect();
    assert_eq!(handles.len(), minors.len(), "two leaves have one handle after {step}");
}

/// Classes that a priority could name stand only while a program clears priorities.
fn assert_priorities_are_cleared(port: &Port, states: [&KernelState; 3], step: &Step) {
    let [before, state, after] = states;
    let guards = |state: &KernelState| {
        let clears = |filter: &Filter| matches!(filter, Filter::ClearPriority(_));
        let clsact = state.clsact.get(&port.link);
        clsact.is_some_and(|clsact| clsact.egress.filters.values().any(clears))
    };
    let wanted = guards(before) || !before.trees.contains_key(port);
    let stays = guards(after) || !after.trees.contains_key(port);
    assert!(guards(state) || !(wanted && stays), "nothing clears priorities after {step}");
}

fn has_class(state: &KernelState, port: &Port, claim: &Claim) -> bool {
    let class = state.claims.get(claim).zip(state.trees.get(port));
    class.is_some_and(|(id, tree)| tree.classes.contains_key(id))
}

/// The owner of this claim has a class at the port, and the filters lead his packets to it.
fn assert_found(state: &KernelState, port: &Port, claim: &Claim, step: &Step) {
    let (tree, classid) = (&state.trees[port], state.claims[claim]);
    assert!(tree.classes.contains_key(&classid), "{claim} lost its class after {step}");
    if let Some(shard) = classid.shard() {
        let known = tree.filters.values().any(knows_shards);
        assert!(known, "{claim} is not found in {shard} after {step}");
        let read = tree.shards[&shard].values().any(is_tag);
        assert!(read, "{shard} does not know {claim} after {step}");
    }
    let read = tree.filters.values().any(is_tag);
    assert!(read, "nothing reads the tag on {port} after {step}");
}

fn is_tag(filter: &Filter) -> bool {
    filter.is_tag()
}

/// What is redirected arrives: the ifb is there, switched on, and has our tree with a default
/// class. Neither does a step leave a redirect behind.
fn assert_not_cut_off(state: &KernelState, step: &Step) {
    for (link, clsact) in &state.clsact {
        if !clsact.ingress.filters.values().any(|it| *it == Filter::Redirect) {
            continue;
        }
        let is_up = state.ifbs.get(&link.ifb()).is_some_and(|ifb| ifb.up);
        assert!(is_up, "{link} is cut off after {step}");
        let tree = &state.trees[&link.ingress()];
        assert!(tree.classes.contains_key(&ClassId::DEFAULT), "no way in by {link} after {step}");
        let is_learner = |filter: &Filter| matches!(filter, Filter::Learn(_));
        let learns = clsact.egress.filters.values().any(is_learner);
        assert!(learns && tree.filters.values().any(is_tag), "nobody's on {link} after {step}");
        let notes = tree.filters.values().any(|filter| *filter == Filter::Pulse);
        assert!(notes, "packets on {link} pass the ifb by after {step}");
    }
}

fn knows_shards(filter: &Filter) -> bool {
    filter.reads_shards()
}

/// The class to which the rules send a TCP packet of `uid` to this TCP port: the filters are asked
/// in their order.
fn rules_answer(state: &KernelState, at: &Port, port: u16, uid: u32) -> Option<ClassId> {
    let mut packet = vec![2; 12];
    packet.extend([0x08, 0x00]);
    packet.extend([0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 1]);
    packet.extend(port.to_be_bytes());
    packet.extend([0; 16]);
    let class = state.owners.as_ref().and_then(|table| table.class(uid)).unwrap_or(ClassId::NONE);
    let matches = |rule: &&ProgramRule| {
        let ports = rule.packets.dport.iter().flatten();
        let is_to = |(first, last): &(u16, u16)| (*first..=*last).contains(&port);
        let sent = |from: &Senders| from.of.contains(&class) != from.not;
        ports.into_iter().any(is_to) && rule.from.as_ref().is_none_or(sent)
    };
    state.trees.get(at)?.filters.values().find_map(|filter| match filter {
        Filter::U32 { rules, .. } => interpret::classify_frame(rules, &packet, 14).0,
        Filter::Program(program) => program.rules.iter().find(matches).map(|rule| rule.to),
        _ => None,
    })
}

/// The claim of the class that the maps have for a uid.
fn whose(state: &KernelState, uid: u32) -> Option<&Claim> {
    let class = state.owners.as_ref()?.class(uid)?;
    let is_his =
        |(claim, id): &(&Claim, &ClassId)| matches!(claim, Claim::Owner(_)) && **id == class;
    state.claims.iter().find(is_his).map(|(claim, _)| claim)
}

/// Each packet gets the answer of the old rules or of the new ones, while rules move between u32
/// and the program and senders between classes. Not so where a class is made again: the rules to it
/// stand aside first.
pub(super) fn assert_rules_old_or_new(
    state: &KernelState,
    before: &KernelState,
    after: &KernelState,
    step: &Step,
) {
    let concerns = matches!(step, Step::Filter(..) | Step::Entries(_));
    let ports = before.trees.keys().filter(|port| after.trees.contains_key(*port));
    for at in ports.filter(|_| concerns) {
        for port in (1..100).step_by(5) {
            for uid in [7_000, 7_002, 0] {
                // For a uid whose class changes while the rules change, one of the two changes
                // comes first.
                if whose(before, uid) != whose(after, uid) {
                    continue;
                }
                let answer = |state| rules_answer(state, at, port, uid);
                let (old, new, now) = (answer(before), answer(after), answer(state));
                assert!(
                    now == old || now == new,
                    "port {port} of {uid}: {now:?}, not {old:?} nor {new:?}, after {step}"
                );
            }
        }
    }
}

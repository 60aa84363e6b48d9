//! Steps of quotas that lower no cap, whatever is used. Touches nothing.

use crate::policy::{self, Amount, Diagnostic, Findings, Kind, OnLink, Policy, Written, quote};
use crate::units::Rate;

/// What the policy's links carry at most, each way.
#[derive(Clone, Copy)]
struct Carried {
    /// `None`: what the device does, which may be anything.
    sent: Option<Rate>,
    /// As `sent`. Without a value no link shapes what arrives.
    arriving: Option<Option<Rate>>,
}

impl Carried {
    fn of(policy: &Policy) -> Carried {
        let lines = || policy.links.iter();
        let sent = lines().flat_map(|line| {
            let others = line.when.iter().filter_map(|when| when.rate);
            [line.rate].into_iter().chain(others.map(Some))
        });
        let arriving = lines().flat_map(|line| {
            line.down.into_iter().chain(line.when.iter().filter_map(|when| when.down))
        });
        let arriving: Vec<_> = arriving.map(Some).collect();
        Carried {
            sent: highest(sent.map(|amount| rate(amount, None))),
            arriving: (!arriving.is_empty())
                .then(|| highest(arriving.into_iter().map(|amount| rate(amount, None)))),
        }
    }

    /// The highest cap that a line ever has, on any link, any way, in any window; `None`: it may be
    /// anything.
    fn cap<'a>(self, limits: impl IntoIterator<Item = &'a policy::Limits>) -> Option<Rate> {
        highest(limits.into_iter().flat_map(|limits| {
            let in_windows = limits.when.iter().map(|when| limits.replaced(&when.limits));
            let all = [limits.always()].into_iter().chain(in_windows);
            all.flat_map(|limits| {
                let of =
                    |limits: &policy::Limits, carried| rate(limits.ceil.or(limits.rate), carried);
                let arriving = self.arriving.map(|carried| of(&limits.arriving(), carried));
                [of(&limits, self.sent)].into_iter().chain(arriving)
            })
        }))
    }
}

/// The rate that is written; where none is, or a share, what is carried or the share of that.
fn rate(written: Option<Written<Amount>>, carried: Option<Rate>) -> Option<Rate> {
    match written.map(|written| written.value) {
        Some(Amount::Rate(rate)) => Some(rate),
        Some(Amount::Percent(share)) => Some(share.of(carried?)),
        None => carried,
    }
}

/// The highest of them; `None` where one of them may be anything.
fn highest(mut rates: impl Iterator<Item = Option<Rate>>) -> Option<Rate> {
    rates.try_fold(None, |most: Option<Rate>, rate| Some(most.max(Some(rate?)))).flatten()
}

/// Warns of steps that are no lower than the highest cap that their line ever has.
pub(super) fn notes(policy: &Policy, findings: &mut Findings) {
    let carried = Carried::of(policy);
    let mut note = |name: &str, limits: &policy::Limits, cap: Option<Rate>| {
        let Some(cap) = cap else { return };
        for line in &limits.quotas {
            for (step, at) in line.quota.steps.iter().zip(&line.steps) {
                if step.rate >= cap {
                    let rate = step.rate;
                    let message = format!("{name} has at most {cap}, so {rate} lowers nothing");
                    findings.push(
                        Diagnostic::warning(Kind::Rate, *at, message)
                            .help(format!("write a cap below {cap}, or remove the step")),
                    );
                }
            }
        }
    };
    for line in &policy.users {
        let on_links = line.links.iter().filter_map(|(_, on_link)| match on_link {
            OnLink::Limits(limits) => Some(limits),
            OnLink::None => None,
        });
        let cap = carried.cap([&line.limits].into_iter().chain(on_links));
        note(&quote(line.key.value.as_str()), &line.limits, cap);
    }
    let groups = policy.groups.iter();
    let groups =
        groups.map(|line| (quote(line.key.value.as_str()), &line.limits, line.each.as_ref()));
    let everyone = policy.everyone.iter();
    let everyone = everyone.map(|line| (quote("everyone"), &line.limits, line.each.as_ref()));
    for (name, limits, each) in groups.chain(everyone) {
        let cap = carried.cap([limits]);
        note(&name, limits, cap);
        if let Some(each) = each {
            let own = carried.cap([each]);
            let of_each = cap.into_iter().chain(own).min();
            note(&format!("each account of {name}"), each, of_each);
        }
    }
}

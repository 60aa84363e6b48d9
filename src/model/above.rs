//! What a class is below, and whether that or its own line gives it its ceil. Touches nothing.

use super::holds::{By, Holds, LimitOf};
use super::shaped::Shaped;
use crate::policy::{self, Amount, Written};
use crate::times::Timestamp;
use crate::tree::Group;
use crate::units::Rate;

/// What a class is below.
#[derive(Clone, Debug)]
pub(super) struct Above {
    whose: LimitOf,
    ceil: Rate,
    /// The lowest ceil that it has at any time.
    lowest: Rate,
    holds: Holds,
}

impl Above {
    pub(super) fn link(shaped: &Shaped<'_>) -> Above {
        let link = &shaped.link;
        Above {
            whose: LimitOf::Link,
            ceil: link.rate,
            lowest: shaped.lowest(),
            holds: link.holds.clone(),
        }
    }

    /// A group that is below this, with the ceil that it has.
    pub(super) fn group(
        &self,
        group: Group,
        line: &policy::Limits,
        ceil: Rate,
        shaped: &Shaped<'_>,
    ) -> Above {
        let here = |limits| shaped.here(limits).ceil;
        let written = [here(line)].into_iter().chain(line.when.iter().map(|it| here(&it.limits)));
        let lowest = written.flatten().filter_map(|it| shaped.at_least(it.value));
        let holds = self.holds_below(shaped.holds(line), shaped.written(line).ceil, shaped);
        let lowest = lowest.fold(self.lowest.min(ceil), Rate::min);
        Above { whose: LimitOf::Group(group), ceil, lowest, holds }
    }

    /// What gives a class below this its ceil. `own`: which of its line's limits holds. `written`:
    /// the ceil that its line writes now.
    pub(super) fn holds_below(
        &self,
        own: Holds,
        written: Option<Written<Amount>>,
        shaped: &Shaped<'_>,
    ) -> Holds {
        let ceil = written.and_then(|written| shaped.amount(written.value));
        // A window of `each` may write more than the parent has: then it gives nothing.
        let is_lowered = own.by == By::When && ceil.is_some_and(|ceil| ceil > self.ceil);
        if self.holds.until.is_none() && !is_lowered {
            return own;
        }
        let first = |other: Option<Timestamp>| own.until.into_iter().chain(other).min();
        let Some(ceil) = ceil.filter(|ceil| *ceil <= self.ceil) else {
            let of = match &self.holds.of {
                LimitOf::Own => self.whose.clone(),
                above => above.clone(),
            };
            return Holds { of, until: first(self.holds.until), ..self.holds.clone() };
        };
        let until = match written.map(|written| written.value) {
            _ if ceil > self.lowest => first(self.holds.until),
            Some(Amount::Percent(_)) => first(shaped.link.holds.until),
            _ => own.until,
        };
        Holds { until, ..own }
    }

    /// What every class below it has that writes no ceil.
    pub(super) fn holds(&self) -> &Holds {
        &self.holds
    }
}

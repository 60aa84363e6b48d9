//! What may pass above a cap after a pause. Touches nothing.

use crate::policy::{self, Amount, Diagnostic, Kind, Written};
use crate::units::{Bytes, Rate};

use super::shaped::Shaped;

/// For so long at most HTB credits a class that sends nothing (`cl->mbuffer`, `htb_change_class` in
/// net/sched/sch_htb.c). A burst of ticks of 64 ns could be four times as long.
const LONGEST_PAUSE_MS: u64 = 60_000;

/// A boost below this is refused: one GSO packet has as much, and every class sends that at once.
const SMALLEST: Bytes = Bytes(65_536);

/// The boost of a class. `cap`: the limit that the line has for that class; `ceil`: what the class
/// has on this link, which the link, a group or a window may have lowered.
pub(super) fn boost(
    written: &policy::Limits,
    cap: Option<Written<Amount>>,
    link: &Shaped<'_>,
    ceil: Rate,
) -> Result<Option<Bytes>, Diagnostic> {
    let Some(Written { value: boost, at }) = written.boost else { return Ok(None) };
    let wrong = |message: String| Diagnostic::error(Kind::Rate, at, message);
    let shown = boost.to_volume();
    let Some(cap) = cap else {
        return Err(wrong(format!("the boost {shown} is above no cap"))
            .help("a boost may pass above a `ceil` after a pause: write one, `ceil: 100mbit`"));
    };
    if boost < SMALLEST {
        let least = SMALLEST.to_volume();
        return Err(wrong(format!("the boost {shown} is no more than every class sends at once"))
            .help(format!("write at least `{least}`, or leave it out")));
    }
    if let Some(cap) = link.amount(cap.value) {
        let most = largest(cap);
        if boost > most {
            let most = most.to_volume();
            return Err(wrong(format!("the boost {shown} is more than a cap of {cap} leaves unused in a minute"))
                .help(format!("write at most `{most}`: the kernel credits a pause of 60 s and no more; or raise the cap")));
        }
    }
    Ok(Some(boost.min(largest(ceil))))
}

/// The largest boost of a class with this ceil.
fn largest(ceil: Rate) -> Bytes {
    ceil.bytes_in_ms(LONGEST_PAUSE_MS)
}

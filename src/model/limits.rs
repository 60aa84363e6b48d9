//! The limits of one class on one link: the written numbers, those that follow from them, and
//! errors where they cannot be. Touches nothing.

use crate::policy::{self, Amount, Diagnostic, Findings, Kind, LAST_PRIO, Span, Written, quote};
use crate::tree::Key;
use crate::units::{Bytes, Rate};

use super::boost::boost;
use super::shaped::Shaped;
use super::{Asked, Limits};

/// What a class hangs below on one link.
#[derive(Clone, Copy)]
pub(super) struct Parent<'a> {
    pub ceil: Rate,
    /// `None`: directly below the link.
    pub group: Option<&'a str>,
    /// A window gives it its ceil: classes below with a higher one have that.
    pub by_window: bool,
    /// The policy has several links, and the same line may be right for another one.
    pub one_of_several: bool,
}

/// The rate that is written, and where; `None` also where it is a share of an unknown rate.
fn known(written: Option<Written<Amount>>, link: &Shaped<'_>) -> Option<(Rate, Span)> {
    let written = written?;
    Some((link.amount(written.value)?, written.at))
}

/// A cap that is written, and lowered to the parent's where a window gives the parent its own: one
/// line is for all of the day.
fn fitted(ceil: Option<(Rate, Span)>, parent: Parent<'_>) -> Option<(Rate, Span)> {
    ceil.map(|(ceil, at)| if parent.by_window { (ceil.min(parent.ceil), at) } else { (ceil, at) })
}

/// The limits of a user or class.
pub(super) fn leaf(
    name: &Key,
    written: &policy::Limits,
    link: &Shaped<'_>,
    parent: Parent<'_>,
) -> Result<Limits, Diagnostic> {
    let (rate, ceil) = (known(written.rate, link), fitted(known(written.ceil, link), parent));
    let prio = prio(written);
    let name = name.as_str();
    let boost = boost(written, written.ceil.or(written.rate), link, parent.ceil)?;
    if let (Some(rate), Some(_)) = (rate, ceil.filter(|_| parent.by_window)) {
        below_parent(name, "rate", rate, link, parent)?;
    }
    match (rate, ceil) {
        // A line may ask for something of one direction only.
        (None, None) if link.arrives() || written.down.is_some() => {
            Ok(Limits { rate: without_rate(written), ceil: parent.ceil, boost, prio })
        }
        (None, None) if written.rate.is_none() && written.ceil.is_none() => Err(Diagnostic::error(
            Kind::Rate,
            written.at,
            format!("{} has neither a rate nor a ceil here", quote(name)),
        )
        .help("write a cap, `ceil: 100mbit`, a guarantee, `rate: 10mbit`, or both")),
        // Shares of an unknown rate.
        (None, None) => Ok(Limits { rate: without_rate(written), ceil: parent.ceil, boost, prio }),
        // As in tc: a rate alone is also the cap.
        (Some((rate, at)), None) => {
            below_parent(name, "rate", (rate, at), link, parent)?;
            Ok(Limits { rate: Asked::Promised(rate), ceil: rate, boost, prio })
        }
        (None, Some((ceil, at))) => {
            below_parent(name, "ceil", (ceil, at), link, parent)?;
            Ok(Limits { rate: without_rate(written), ceil, boost, prio })
        }
        (Some(rate), Some(ceil)) => {
            rate_below_ceil(|| quote(name), rate, ceil)?;
            below_parent(name, "ceil", ceil, link, parent)?;
            Ok(Limits { rate: Asked::Promised(rate.0), ceil: ceil.0, boost, prio })
        }
    }
}

/// The prio of a line; `background` has the last one.
pub(super) fn prio(written: &policy::Limits) -> u8 {
    match (written.background, written.prio) {
        (Some(_), _) => LAST_PRIO,
        (None, prio) => prio.map_or(0, |prio| prio.value),
    }
}

/// The guarantee of a line that writes none.
fn without_rate(written: &policy::Limits) -> Asked {
    match written.background {
        Some(_) => Asked::Token,
        None => Asked::Derived { floor: None },
    }
}

/// What a group has: its ceil is its parent's where none is written.
#[derive(Clone, Copy)]
pub(super) struct OfAll {
    pub rate: Option<Rate>,
    pub ceil: Rate,
    pub boost: Option<Bytes>,
}

/// The rate, ceil and boost of a group.
pub(super) fn group(
    name: &str,
    written: &policy::Limits,
    link: &Shaped<'_>,
    parent: Parent<'_>,
) -> Result<OfAll, Diagnostic> {
    let (rate, ceil) = (known(written.rate, link), fitted(known(written.ceil, link), parent));
    if let Some(ceil) = ceil {
        below_parent(name, "ceil", ceil, link, parent)?;
    }
    match (rate, ceil) {
        (Some(rate), Some(ceil)) => rate_below_ceil(|| quote(name), rate, ceil)?,
        (Some(rate), None) => below_parent(name, "rate", rate, link, parent)?,
        (None, _) => {}
    }
    let (rate, ceil) = (rate.map(|(rate, _)| rate), ceil.map_or(parent.ceil, |(ceil, _)| ceil));
    Ok(OfAll { rate, ceil, boost: boost(written, written.ceil, link, ceil)? })
}

/// The limits of every account of a group or of `everyone`: these fit themselves to the parent,
/// because one line is for links and groups of any size.
pub(super) fn each(
    name: &str,
    written: Option<&policy::Limits>,
    link: &Shaped<'_>,
    parent: Parent<'_>,
) -> Result<Limits, Diagnostic> {
    let rate = known(written.and_then(|written| written.rate), link);
    let ceil = known(written.and_then(|written| written.ceil), link);
    if let (Some(rate), Some(ceil)) = (rate, ceil) {
        rate_below_ceil(|| format!("each account of {}", quote(name)), rate, ceil)?;
    }
    let ceil = ceil.or(rate).map_or(parent.ceil, |(ceil, _)| ceil.min(parent.ceil));
    let rate = match rate {
        Some((rate, _)) => Asked::Promised(rate.min(ceil)),
        None => written.map_or(Asked::Derived { floor: None }, without_rate),
    };
    let boost = match written {
        Some(written) => boost(written, written.ceil.or(written.rate), link, ceil)?,
        None => None,
    };
    Ok(Limits { rate, ceil, boost, prio: written.map_or(0, prio) })
}

/// The amount that `each` writes and the parent's ceil, where the amount is above it and so lowered
/// to it; `None` also where a window gives the parent that ceil, which is lowered on purpose.
pub(super) fn lowered(
    written: Option<&policy::Limits>,
    link: &Shaped<'_>,
    parent: Parent<'_>,
) -> Option<(Rate, Span, Rate)> {
    let amount = written.and_then(|written| written.ceil.or(written.rate))?;
    let rate = link.amount(amount.value)?;
    let is_lowered = rate > parent.ceil && !parent.by_window;
    is_lowered.then_some((rate, amount.at, parent.ceil))
}

/// The warning for a limit of `each` that is above its parent's ceil on every link; `name`: whose
/// accounts it is for.
pub(super) fn each_is_lowered(
    name: &str,
    on_links: impl IntoIterator<Item = Option<(Rate, Span, Rate)>>,
) -> Option<Diagnostic> {
    let all: Option<Vec<(Rate, Span, Rate)>> = on_links.into_iter().collect();
    let (rate, at, most) = *all?.first()?;
    let name = quote(name);
    let message = format!("each account of {name} has {most}, not the {rate} that is written here");
    Some(
        Diagnostic::warning(Kind::Rate, at, message)
            .help(format!("what they are in has no more: raise that, or write at most {most}")),
    )
}

fn rate_below_ceil(
    of: impl FnOnce() -> String,
    (rate, at): (Rate, Span),
    (ceil, ceil_at): (Rate, Span),
) -> Result<(), Diagnostic> {
    if rate <= ceil {
        return Ok(());
    }
    Err(Diagnostic::error(
        Kind::Rate,
        ceil_at,
        format!("the ceil of {} is {ceil}, below its rate {rate}", of()),
    )
    .label("the cap")
    .also(at, "the guarantee")
    .help(format!("write a ceil of {rate} or more, or a lower rate")))
}

fn below_parent(
    name: &str,
    what: &str,
    (value, at): (Rate, Span),
    link: &Shaped<'_>,
    parent: Parent<'_>,
) -> Result<(), Diagnostic> {
    if value <= parent.ceil {
        return Ok(());
    }
    let (name, device, most) = (quote(name), &link.link.port.link, parent.ceil);
    let error = |of: String| {
        Diagnostic::error(
            Kind::Rate,
            at,
            format!("the {what} of {name} is {value}, above the {most} of {of}"),
        )
    };
    Err(match parent.group {
        Some(group) => error(format!("its group {}", quote(group)))
            .help(format!("write at most {most}, or raise the group's ceil")),
        None => error(link.words()).help(if parent.one_of_several {
            format!("write at most {most}, or a share such as `50%`, which fits every link; a user may have other limits on one link: `links: {{{device}: {{{what}: …}}}}`")
        } else {
            format!("write at most {most}, or a share such as `50%`")
        }),
    })
}

/// A written rate, which the parent must have.
#[derive(Clone, Copy)]
pub(super) struct Promise<'a> {
    pub name: &'a str,
    pub rate: Rate,
    pub at: Span,
}

/// The sum of the promises, at most `room`; a larger sum is an error that lists them. `of` names
/// the class that has `room`.
pub(super) fn add_up(
    promises: &[Promise<'_>],
    room: Rate,
    of: impl FnOnce() -> String,
    findings: &mut Findings,
) -> Option<Rate> {
    let mut sum = 0_u128;
    let mut over = None;
    for promise in promises {
        sum += u128::from(promise.rate.bytes_per_second());
        if over.is_none() && sum > u128::from(room.bytes_per_second()) {
            over = Some(promise.at);
        }
    }
    let total = Rate::from_bytes_per_second(u64::try_from(sum).unwrap_or(u64::MAX));
    let (Some(at), Some(total)) = (over, total) else { return total };
    findings.push(
        Diagnostic::error(
            Kind::Promise,
            at,
            format!("the promised rates add up to {total}, more than the {room} of {}", of()),
        )
        .label("with this one it is too much")
        .help(format!(
            "{} = {total}: lower a rate, or write `ceil` instead of `rate` where a cap is enough",
            spelled_out(promises)
        )),
    );
    Some(room)
}

/// `ann 60mbit + bob 50mbit`, the largest first.
fn spelled_out(promises: &[Promise<'_>]) -> String {
    const MOST: usize = 8;
    let mut largest: Vec<&Promise<'_>> = promises.iter().collect();
    largest.sort_by_key(|promise| std::cmp::Reverse(promise.rate));
    let shown: Vec<String> = largest
        .iter()
        .take(MOST)
        .map(|promise| format!("{} {}", quote(promise.name).trim_matches('`'), promise.rate))
        .collect();
    match promises.len().saturating_sub(MOST) {
        0 => shown.join(" + "),
        more => format!("{} + {more} more", shown.join(" + ")),
    }
}

//! The limits of the default class. Touches nothing.

use crate::policy::{self, Diagnostic, Kind};
use crate::tree::LinkName;
use crate::units::{Percent, Rate};

use super::shaped::absolute;
use super::{Asked, Limits};

/// The default class's rate where the file has none: 5 % of the link's, at least 1 Mbit/s.
fn default_rate(link: Rate) -> Rate {
    let share: Option<Percent> = "5%".parse().ok();
    let least = Rate::from_bits_per_second(1_000_000);
    share.map(|share| share.of(link)).max(least).unwrap_or(link).min(link)
}

/// The limits of the default class, as a link's line has them: `written`, on `link`. `by_window`: a
/// window gives the link its rate, and a ceil above it is lowered to it.
pub(super) fn default_limits(
    written: Option<&policy::Limits>,
    name: &LinkName,
    (link, by_window): (Rate, bool),
) -> Result<Limits, Diagnostic> {
    let ceil_at = written.and_then(|limits| limits.ceil);
    let rate_at = written.and_then(|limits| limits.rate);
    let ceil = ceil_at.map_or(link, |ceil| absolute(ceil.value, link));
    let ceil = if by_window { ceil.min(link) } else { ceil };
    let rate =
        rate_at.map_or_else(|| default_rate(link).min(ceil), |rate| absolute(rate.value, link));
    if let Some(at) = ceil_at.map(|ceil| ceil.at) {
        if ceil > link {
            return Err(Diagnostic::error(
                Kind::Rate,
                at,
                format!("the default's ceil {ceil} is above {name}'s {link}"),
            )
            .help("leave `ceil` out: it is the link's then"));
        }
        if u128::from(ceil.bytes_per_second()) * 100 < u128::from(link.bytes_per_second()) {
            return Err(Diagnostic::error(Kind::Rate, at, format!("the default's ceil {ceil} is below 1 % of {name}'s {link}"))
                .help("the default carries root's ssh, name lookups and ARP: so little could cut the host off"));
        }
    }
    if let Some(at) = rate_at.map(|rate| rate.at)
        && rate > ceil
    {
        let diagnostic = Diagnostic::error(
            Kind::Rate,
            at,
            format!("the default's rate {rate} is above its ceil {ceil}"),
        )
        .help(format!("write at most {ceil}"));
        return Err(match ceil_at {
            Some(ceil) => diagnostic.also(ceil.at, "its ceil"),
            None => diagnostic,
        });
    }
    let prio = written.and_then(|limits| limits.prio).map_or(0, |prio| prio.value);
    Ok(Limits { rate: Asked::Promised(rate), ceil, boost: None, prio })
}

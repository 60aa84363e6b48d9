//! The values of options, read.

use std::net::SocketAddr;
use std::time::Duration;

use crate::status::MetricsFormat;

/// Why clap refuses a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ValueError {
    #[error("a number of seconds is needed")]
    Seconds,
    #[error("a number of seconds from 0.1 to 3600 is needed")]
    Interval,
    #[error("prometheus or openmetrics is needed")]
    Format,
    #[error("tcp, udp, icmp, icmpv6, sctp or a number is needed")]
    Protocol,
    #[error(
        "an address and a port are needed, as 10.1.2.3:443 or [fd00::1]:443 (names are not looked up)"
    )]
    End,
    #[error("a percentage is needed, as 90%")]
    Percent,
    #[error("1 second to 604800 (a week)")]
    ToAWeek,
    #[error("a plain directory name is needed")]
    InstanceName,
}

/// At most what can be added to any moment.
pub(super) fn seconds(text: &str) -> Result<Duration, ValueError> {
    let seconds: u32 = text.parse().map_err(|_| ValueError::Seconds)?;
    Ok(Duration::from_secs(seconds.into()))
}

/// From a tenth of a second to an hour, with decimals.
pub(super) fn interval(text: &str) -> Result<Duration, ValueError> {
    let seconds = text.parse().map_err(|_| ValueError::Interval)?;
    let time = Duration::try_from_secs_f64(seconds).map_err(|_| ValueError::Interval)?;
    let allowed = Duration::from_millis(100)..=Duration::from_secs(3600);
    allowed.contains(&time).then_some(time).ok_or(ValueError::Interval)
}

/// One end of a connection.
pub(super) fn end(text: &str) -> Result<SocketAddr, ValueError> {
    text.parse().map_err(|_| ValueError::End)
}

pub(super) fn protocol(text: &str) -> Result<u8, ValueError> {
    crate::policy::protocol(text).ok_or(ValueError::Protocol)
}

/// `prometheus` or `openmetrics`.
pub(super) fn metrics_format(text: &str) -> Result<MetricsFormat, ValueError> {
    match text {
        "prometheus" => Ok(MetricsFormat::Prometheus),
        "openmetrics" => Ok(MetricsFormat::Openmetrics),
        _ => Err(ValueError::Format),
    }
}

/// `90%`, or `90`.
pub(super) fn percent(text: &str) -> Result<u64, ValueError> {
    text.strip_suffix('%').unwrap_or(text).parse().map_err(|_| ValueError::Percent)
}

/// From a second to a week. The daemon looks twice in a time of grace who has gone; a change on
/// trial for no time would be taken back before it is seen.
pub(super) fn to_a_week(text: &str) -> Result<Duration, ValueError> {
    let time = seconds(text)?;
    let allowed = Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 3600);
    match allowed.contains(&time) {
        true => Ok(time),
        false => Err(ValueError::ToAWeek),
    }
}

pub(super) fn instance_name(name: &str) -> Result<String, ValueError> {
    match crate::tree::is_safe_directory(name) {
        true => Ok(name.to_string()),
        false => Err(ValueError::InstanceName),
    }
}

//! One window, and its changes. Pure.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp, ToSpan};

use super::days::Days;

/// How many days ahead a change is looked for: a window of one day in a week that a zone skips (its
/// clock goes forward over all of it) changes a fortnight later.
const AHEAD: i32 = 16;

/// A time of the day from which, and one until which, a window holds, in seconds since midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hours {
    /// The first second of the window, 0 to 86,399.
    from: u32,
    /// The second after its last, 1 to 86,400. Where it is below `from`, the window ends on the day
    /// after.
    until: u32,
}

impl Hours {
    /// How many seconds a day of the clock on the wall has.
    const DAY: u32 = 86_400;
    /// The whole day.
    pub const ALL: Hours = Hours { from: 0, until: Hours::DAY };

    /// `22:00-06:00`, with seconds where they are written (`22:00:30-22:00:40`); `24:00` is the
    /// end of a day. `None` for any other text, and where both times are the same.
    pub fn parse(text: &str) -> Option<Hours> {
        let (from, until) = text.split_once('-')?;
        let (from, until) = (second_of(from)?, second_of(until)?);
        let is_some = from != until && from != Hours::DAY;
        let until = if until == 0 { Hours::DAY } else { until };
        is_some.then_some(Hours { from, until })
    }

    /// Whether it goes on after midnight.
    fn wraps(self) -> bool {
        self.until < self.from
    }
}

/// `8:00`, `08:00` or `08:00:30`, as seconds since midnight.
fn second_of(text: &str) -> Option<u32> {
    let parts: Vec<&str> = text.trim().split(':').collect();
    let number = |text: &str| {
        let is_number = matches!(text.len(), 1..=2) && text.bytes().all(|b| b.is_ascii_digit());
        is_number.then(|| text.parse::<u32>().ok()).flatten()
    };
    let (hour, minute, second) = match parts[..] {
        [hour, minute] if minute.len() == 2 => (number(hour)?, number(minute)?, 0),
        [hour, minute, second] if minute.len() == 2 && second.len() == 2 => {
            (number(hour)?, number(minute)?, number(second)?)
        }
        _ => return None,
    };
    let all = hour * 3600 + minute * 60 + second;
    (minute < 60 && second < 60 && all <= Hours::DAY).then_some(all)
}

/// A window of the week.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The days on which it begins; what goes on after midnight belongs to the day before.
    pub days: Days,
    /// Its times of the day; one at least.
    pub hours: Vec<Hours>,
}

impl Window {
    /// Whether it holds when the clock on the wall shows this.
    fn shows(&self, at: DateTime) -> bool {
        let time = at.time();
        let seconds = [time.hour(), time.minute(), time.second()].map(i8::unsigned_abs);
        let second = seconds.iter().fold(0, |sum, it| sum * 60 + u32::from(*it));
        let today = self.days.has(at.date().weekday());
        let yesterday = self.days.has(at.date().weekday().previous());
        self.hours.iter().any(|hours| match hours.wraps() {
            false => today && (hours.from..hours.until).contains(&second),
            true => (today && second >= hours.from) || (yesterday && second < hours.until),
        })
    }

    /// Whether it holds at this moment, in this zone.
    pub fn holds(&self, zone: &TimeZone, at: Timestamp) -> bool {
        self.shows(zone.to_datetime(at))
    }

    /// The first moment after this one from which it holds where it did not before, or the other
    /// way round; `None`: it never changes.
    pub fn next_change(&self, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
        let now = self.holds(zone, after);
        let mut moments = self.moments(zone, after);
        moments.sort_unstable();
        moments.into_iter().find(|at| *at > after && self.holds(zone, *at) != now)
    }

    /// Every moment from a day before on at which it may change: where the clock on the wall shows
    /// one of its times (twice, where an hour is doubled), and where that clock is set.
    fn moments(&self, zone: &TimeZone, after: Timestamp) -> Vec<Timestamp> {
        let mut moments = Vec::new();
        let first = zone.to_datetime(after).date();
        let dates = (-1..=AHEAD).filter_map(|days| first.checked_add(days.days()).ok());
        for date in dates {
            for hours in &self.hours {
                for second in [hours.from, hours.until] {
                    moments.extend(shown(zone, date, second));
                }
            }
        }
        let ahead = SignedDuration::from_hours(24 * i64::from(AHEAD));
        let end = after.checked_add(ahead).unwrap_or(Timestamp::MAX);
        let set = zone.following(after).map(|transition| transition.timestamp());
        moments.extend(set.take_while(|at| *at <= end));
        moments
    }
}

/// The moments at which the clock on the wall shows this second of the day.
fn shown(zone: &TimeZone, date: Date, second: u32) -> impl Iterator<Item = Timestamp> {
    let of_day = i64::from(second % Hours::DAY);
    let midnight = date.to_datetime(Time::midnight());
    let at = midnight.checked_add(SignedDuration::from_secs(of_day)).unwrap_or(midnight);
    let offsets = match zone.to_ambiguous_timestamp(at).offset() {
        AmbiguousOffset::Unambiguous { offset } => [Some(offset), None],
        // The clock is set over it: that is a moment by itself.
        AmbiguousOffset::Gap { .. } => [None, None],
        AmbiguousOffset::Fold { before, after } => [Some(before), Some(after)],
    };
    offsets.into_iter().flatten().filter_map(move |offset| offset.to_timestamp(at).ok())
}

//! The periods of quotas: days, weeks and months of a time zone's calendar, and rolling ones.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// A period over which use is added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// From midnight to midnight.
    Day,
    /// Seven days.
    Week {
        /// The first of them: 1 is Monday, 7 Sunday.
        starts: u8,
    },
    /// From one month's day of reset to the next month's.
    Month {
        /// The day of reset, 1 to 31; in a shorter month its last day.
        starts: u8,
    },
    /// The last so many seconds. It ends at every moment, and what is older is no longer counted.
    Rolling {
        /// How many.
        seconds: u32,
    },
}

/// A period's time: from its beginning up to, but not including, its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first moment.
    pub begin: Timestamp,
    /// The first moment after it. Of a rolling period: the moment itself that was asked about.
    pub end: Timestamp,
}

/// Why a text is no period.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeriodError {
    /// No word and no length.
    #[error(
        "`{0}` is no period: the periods are day, week, month, and rolling ones such as `30d` or `12h`"
    )]
    Unknown(String),
    /// A length of nothing.
    #[error("a period of no length would never count anything; write for example `12h` or `30d`")]
    Zero,
    /// Longer than what is kept.
    #[error("`{0}` is longer than 62 days, for which use is kept; write at most `62d`, or `month`")]
    TooLong(String),
}

const DAY: u32 = 24 * 60 * 60;

impl Period {
    /// The longest rolling period, in seconds: every calendar month, twice over, is shorter.
    pub const LONGEST: u32 = 62 * DAY;

    /// The period in which a moment is, by the calendar of a zone.
    ///
    /// Each moment is in one calendar period, and a later moment in the same one or a later one: a
    /// day begins at the first moment that has its date or, where the clock jumps over its
    /// midnight, at the jump.
    pub fn window(self, moment: Timestamp, zone: &TimeZone) -> Window {
        let today = zone.to_datetime(moment).date();
        let mut first = match self {
            Period::Rolling { seconds } => {
                let begin = moment.checked_sub(i64::from(seconds).seconds());
                return Window { begin: begin.unwrap_or(Timestamp::MIN), end: moment };
            }
            Period::Day => today,
            Period::Week { starts } => {
                let days =
                    today.weekday().to_monday_one_offset() - weekday(starts).to_monday_one_offset();
                today.saturating_sub(i64::from(days.rem_euclid(7)).days())
            }
            Period::Month { starts } => {
                let first = reset_of(today.first_of_month(), starts);
                if first <= today { first } else { self.before(first) }
            }
        };
        // A clock that is set back across midnight has each date's moments apart from each other.
        while midnight(first, zone) > moment {
            let before = self.before(first);
            if before >= first {
                break;
            }
            first = before;
        }
        while midnight(self.after(first), zone) <= moment && self.after(first) > first {
            first = self.after(first);
        }
        let next = self.after(first);
        let end = if next > first { midnight(next, zone) } else { Timestamp::MAX };
        Window { begin: midnight(first, zone), end }
    }

    /// The first day of the period after the one that begins on this day.
    fn after(self, first: Date) -> Date {
        match self {
            Period::Day | Period::Rolling { .. } => first.saturating_add(1.day()),
            Period::Week { .. } => first.saturating_add(7.days()),
            Period::Month { starts } => {
                reset_of(first.first_of_month().saturating_add(1.month()), starts)
            }
        }
    }

    /// The first day of the period before the one that begins on this day.
    fn before(self, first: Date) -> Date {
        match self {
            Period::Day | Period::Rolling { .. } => first.saturating_sub(1.day()),
            Period::Week { .. } => first.saturating_sub(7.days()),
            Period::Month { starts } => {
                reset_of(first.first_of_month().saturating_sub(1.month()), starts)
            }
        }
    }

    /// The word for the period as a sentence has it: `this month`, `the last 30d`.
    pub fn in_words(self) -> String {
        match self {
            Period::Day => "today".to_string(),
            Period::Week { .. } => "this week".to_string(),
            Period::Month { .. } => "this month".to_string(),
            Period::Rolling { .. } => format!("in the last {self}"),
        }
    }

    /// The same kind of period, which begins on that weekday or day of the month; `None`: it has
    /// no such beginning.
    pub fn starting(self, starts: u8) -> Option<Period> {
        match self {
            Period::Week { .. } if (1..=7).contains(&starts) => Some(Period::Week { starts }),
            Period::Month { .. } if (1..=31).contains(&starts) => Some(Period::Month { starts }),
            _ => None,
        }
    }
}

/// The weekday of that number, of which there are seven.
fn weekday(starts: u8) -> Weekday {
    let number = i8::try_from(starts).unwrap_or(1);
    Weekday::from_monday_one_offset(number).unwrap_or(Weekday::Monday)
}

/// The day of reset in a month, which is given by its first day.
fn reset_of(month: Date, starts: u8) -> Date {
    let day = i8::try_from(starts).unwrap_or(31).clamp(1, month.days_in_month());
    month.saturating_add(i64::from(day - 1).days())
}

/// The first moment of a date: midnight, or where the clock jumps over it, the jump. Where there
/// are two midnights it is the first one.
fn midnight(date: Date, zone: &TimeZone) -> Timestamp {
    let at = zone.to_ambiguous_timestamp(date.at(0, 0, 0, 0)).compatible();
    at.unwrap_or(if date.year() > 0 { Timestamp::MAX } else { Timestamp::MIN })
}

const UNITS: [(char, u32); 4] = [('w', 7 * DAY), ('d', DAY), ('h', 60 * 60), ('s', 1)];

impl FromStr for Period {
    type Err = PeriodError;

    /// `day`, `week`, `month`, or the length of a rolling one: `30d`, `12h`. (Seconds are for
    /// trials.)
    fn from_str(text: &str) -> Result<Period, PeriodError> {
        match text {
            "day" => return Ok(Period::Day),
            "week" => return Ok(Period::Week { starts: 1 }),
            "month" => return Ok(Period::Month { starts: 1 }),
            _ => {}
        }
        let unknown = || PeriodError::Unknown(text.to_string());
        let unit = text.chars().next_back().ok_or_else(unknown)?;
        let (_, size) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(unknown)?;
        let number = text.strip_suffix(unit).unwrap_or_default();
        if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
            return Err(unknown());
        }
        let too_long = || PeriodError::TooLong(text.to_string());
        let number: u32 = number.parse().map_err(|_| too_long())?;
        match number.checked_mul(size).filter(|seconds| *seconds <= Period::LONGEST) {
            Some(0) => Err(PeriodError::Zero),
            Some(seconds) => Ok(Period::Rolling { seconds }),
            None => Err(too_long()),
        }
    }
}

/// As a policy spells it, without `starts`.
impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Period::Day => f.write_str("day"),
            Period::Week { .. } => f.write_str("week"),
            Period::Month { .. } => f.write_str("month"),
            Period::Rolling { seconds } => {
                let whole = UNITS.into_iter().skip(1).find(|(_, size)| seconds % size == 0);
                let (unit, size) = whole.unwrap_or(('s', 1));
                write!(f, "{}{unit}", seconds / size)
            }
        }
    }
}

//! Days of the week. Pure.

use jiff::civil::Weekday;

/// Some days of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Days(u8);

impl Days {
    /// Every day.
    pub const ALL: Days = Days(0x7f);
    /// As a policy names them, Monday first.
    pub const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

    /// `mon`, or `mon-fri`, which may go past Sunday (`fri-mon`); `None` for any other text.
    pub fn parse(text: &str) -> Option<Days> {
        let number = |name: &str| Days::NAMES.iter().position(|day| *day == name.trim());
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(text)?, number(text)?),
        };
        let length = (last + 7 - first) % 7;
        Some(Days((0..=length).fold(0, |days, next| days | 1 << ((first + next) % 7))))
    }

    /// These days and those.
    #[must_use]
    pub fn and(self, other: Days) -> Days {
        Days(self.0 | other.0)
    }

    /// Whether the day is among them.
    pub fn has(self, day: Weekday) -> bool {
        self.0 & (1 << day.to_monday_zero_offset()) != 0
    }
}

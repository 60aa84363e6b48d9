//! How soon owners can have used what is left to them, so that counters are read in time and no
//! more often.

use std::time::Duration;

use jiff::Timestamp;

/// The soonest look at the counters after this one, and the latest.
const SOONEST: Duration = Duration::from_millis(500);
const LATEST: Duration = Duration::from_secs(30);

/// How far an owner is from his next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The bytes to it.
    pub bytes: u64,
    /// The most bytes that he can move in a second, on all links and both ways.
    pub pace: u64,
    /// What may pass faster than that after a pause.
    pub boost: u64,
    /// The most bytes in a second of that: what the links carry.
    pub fastest: u64,
}

impl Reach {
    /// The soonest that he can have used them: what may pass in a time is `boost + pace * time`,
    /// and `fastest * time`.
    fn soonest(&self) -> Duration {
        let time = |bytes: u64, pace: u64| u128::from(bytes) * 1_000 / u128::from(pace.max(1));
        let fastest = time(self.bytes, self.fastest.max(self.pace));
        let millis = fastest.max(time(self.bytes.saturating_sub(self.boost), self.pace));
        Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }
}

/// What a reading of all counters has shown, as far as it says when the next one is needed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// Those who have a next step.
    pub reaches: Vec<Reach>,
    /// When it was.
    pub at: Timestamp,
    /// The first moment from which another cap may hold although nothing more is used; `None`:
    /// there is none.
    pub changes: Option<Timestamp>,
}

impl Outlook {
    /// How long counters need not be read, where so many bytes have passed since, all owners'
    /// together. `None`: they are to be read now, since somebody may have reached his step, or
    /// time has brought another cap.
    pub fn rest(&self, passed: u64, now: Timestamp) -> Option<Duration> {
        let since = Duration::try_from(now.duration_since(self.at)).ok()?;
        // While nothing passes a reading does not age: another one would find the same.
        let latest = if passed == 0 { LATEST } else { LATEST.checked_sub(since)? };
        let ends = match self.changes.map(|at| Duration::try_from(at.duration_since(now))) {
            None => LATEST,
            Some(Ok(ends)) if !ends.is_zero() => ends,
            Some(_) => return None,
        };
        let mut soonest = latest.min(ends);
        for reach in &self.reaches {
            let bytes = reach.bytes.checked_sub(passed).filter(|bytes| *bytes > 0)?;
            soonest = soonest.min(Reach { bytes, ..*reach }.soonest());
        }
        Some(soonest.max(SOONEST))
    }

    /// The same right after the reading.
    pub fn first_rest(&self) -> Duration {
        self.rest(0, self.at).unwrap_or(SOONEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn counters_are_read_before_anybody_can_have_passed_a_step() {
        let gbit = 125_000_000;
        let rest = |left: &[(u64, u64)]| {
            let reach = |(bytes, pace): &(u64, u64)| Reach {
                bytes: *bytes,
                pace: *pace,
                boost: 0,
                fastest: 10 * gbit,
            };
            Outlook { reaches: left.iter().map(reach).collect(), ..Outlook::default() }.first_rest()
        };
        assert_eq!(rest(&[]).as_secs(), 30);
        assert_eq!(rest(&[(10 * gbit, gbit), (100 * gbit, gbit)]).as_secs(), 10);
        assert_eq!(rest(&[(0, gbit)]).as_millis(), 500);
        assert_eq!(rest(&[(u64::MAX, 1)]).as_secs(), 30);
        assert_eq!(rest(&[(5, 0)]).as_secs(), 5);
    }

    #[test]
    fn of_a_boost_no_more_passes_than_the_links_carry() {
        let gbit = 125_000_000;
        let rest = |bytes: u64| {
            let reach = Reach { bytes, pace: gbit / 10, boost: 2 * gbit, fastest: gbit };
            Outlook { reaches: vec![reach], ..Outlook::default() }.first_rest().as_millis()
        };
        assert_eq!(rest(gbit), 1_000, "less is left than may pass at once");
        assert_eq!(rest(2 * gbit), 2_000);
        // 2.5 s: 2 Gbit of boost and 0.25 Gbit at the cap; the link alone would carry 2.5 Gbit.
        assert_eq!(rest(2 * gbit + gbit / 4), 2_500);
        assert_eq!(rest(3 * gbit), 10_000);
    }

    proptest! {
        /// Owners move bytes as fast as they can, some with what they saved up: none reaches his
        /// step before the counters are due to be read, but for the shortest rest.
        #[test]
        fn nobody_is_faster_than_the_look_at_him(
            owners in prop::collection::vec(
                (1_u64..1 << 36, 1_000_u64..1 << 30, 0_u64..1 << 34, 1_u64..20), 1..6),
            looks in prop::collection::vec(0_u64..4, 1..20),
        ) {
            let reach = |(bytes, pace, boost, times): &(u64, u64, u64, u64)| {
                Reach { bytes: *bytes, pace: *pace, boost: *boost, fastest: pace * times }
            };
            let reaches: Vec<Reach> = owners.iter().map(reach).collect();
            let outlook = Outlook { reaches: reaches.clone(), ..Outlook::default() };
            let mut now = Duration::ZERO;
            // So many bytes all have moved after a time, each for a quarter of it or more.
            let moved = |reach: &Reach, time: Duration, quarters: u64| {
                let millis = u64::try_from(time.as_millis()).unwrap();
                let at = |pace: u64| pace * millis / 1_000;
                let all = at(reach.fastest).min(reach.boost.saturating_add(at(reach.pace)));
                all / 4 * quarters
            };
            for quarters in looks {
                let passed: Vec<u64> = reaches.iter().map(|it| moved(it, now, quarters)).collect();
                let moment = Timestamp::UNIX_EPOCH + now;
                let sum = passed.iter().fold(0_u64, |sum, it| sum.saturating_add(*it));
                let Some(rest) = outlook.rest(sum, moment) else {
                    let reached = reaches.iter().any(|it| it.bytes <= sum);
                    prop_assert!(reached || now >= Duration::from_secs(30), "read in vain");
                    return Ok(());
                };
                for (reach, passed) in reaches.iter().zip(&passed) {
                    prop_assert!(reach.bytes > *passed, "reached, and not looked at");
                    // From now on as fast as may be: the whole boost, and then the cap.
                    let short = rest.saturating_sub(Duration::from_millis(1));
                    let more = moved(reach, short, 4);
                    let is_reached = more >= reach.bytes - passed;
                    let is_soonest = rest <= SOONEST;
                    prop_assert!(!is_reached || is_soonest, "{reach:?} {rest:?}");
                }
                now += rest;
            }
        }
    }

    #[test]
    fn what_time_changes_is_looked_at_then_and_no_reading_is_older_than_half_a_minute() {
        let second = |second: i64| Timestamp::from_second(second).unwrap();
        let outlook = Outlook { reaches: Vec::new(), at: second(100), changes: Some(second(117)) };
        assert_eq!(outlook.rest(0, second(100)).unwrap().as_secs(), 17);
        assert_eq!(outlook.rest(u64::MAX, second(110)).unwrap().as_secs(), 7);
        assert_eq!(outlook.rest(0, second(117)), None);
        assert_eq!(outlook.rest(0, second(99)), None, "the clock was set back");
        let outlook = Outlook { changes: None, ..outlook };
        assert_eq!(outlook.rest(1, second(120)).unwrap().as_secs(), 10);
        assert_eq!(outlook.rest(1, second(131)), None);
        // What has not been sent need not be read.
        assert_eq!(outlook.rest(0, second(131)).unwrap().as_secs(), 30);
        assert_eq!(outlook.rest(0, second(90_000)).unwrap().as_secs(), 30);
        let near = Reach { bytes: 1, pace: 1_000, boost: 0, fastest: 1_000 };
        let outlook = Outlook { reaches: vec![near], ..outlook };
        assert_eq!(outlook.rest(0, second(90_000)).unwrap(), SOONEST);
        assert_eq!(outlook.rest(1, second(101)), None);
    }
}

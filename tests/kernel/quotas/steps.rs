//! How late steps hold at a gigabit each way, while several come at once: a user's own, a group's,
//! one of what is sent and received together, one of a rolling period.

use std::time::{Duration, Instant};

use super::{MB, command};
use crate::support::accounts::{ANN, BOB, CAROL, DAVE};
use crate::support::clock::soon;
use crate::support::counters::{Classes, classes};
use crate::support::daemon::Daemon;
use crate::support::harness::{On, tests};
use crate::support::program::{classid, policy};
use crate::support::rates::MBIT;
use crate::support::world::{Family, UPLINK, World};

tests!(
    On::Host => each_of_several_steps_at_a_gigabit_holds_within_a_second_of_its_byte;
);

const IFB: &str = "ifb-up0";
const HELD: u64 = 20 * MBIT;

/// Whose step is to come.
struct Near {
    class: String,
    devices: &'static [&'static str],
    volume: u64,
    /// What was used, and when it was seen.
    seen: Vec<(Instant, u64)>,
    holds: Option<Instant>,
}

impl Near {
    fn new(claim: &str, devices: &'static [&'static str], volume: u64) -> Near {
        Near { class: classid(claim), devices, volume, seen: Vec::new(), holds: None }
    }

    /// Whether the step holds by now.
    fn look(&mut self, at: Instant, up: &Classes, down: &Classes) -> bool {
        let on = |device: &&str| if *device == UPLINK { up } else { down };
        let classes: Vec<_> =
            self.devices.iter().map(|device| on(device).class(&self.class)).collect();
        if self.holds.is_none() {
            self.seen.push((at, classes.iter().map(|class| class.bytes).sum()));
            self.holds = classes.iter().all(|class| class.ceil == HELD).then_some(at);
        }
        self.holds.is_some()
    }

    /// The most bytes in a second.
    fn pace(&self) -> u64 {
        let second = Duration::from_secs(1);
        let mut most = 0;
        for (place, (from, before)) in self.seen.iter().enumerate() {
            let end = self.seen[place..].iter().find(|(at, _)| *at - *from >= second);
            let Some((at, after)) = end.or(self.seen.last()) else { continue };
            let time = (*at - *from).max(second).as_millis() as u64;
            most = most.max((after - before) * 1_000 / time);
        }
        most
    }

    fn holds_in_time(&self) {
        let (holds, used) = *self.seen.last().expect("it was looked at");
        let byte = self.seen.iter().find(|(_, used)| *used >= self.volume).map(|(at, _)| *at);
        let late = byte.map(|byte| holds.saturating_duration_since(byte));
        let (pace, more) = (self.pace(), used.saturating_sub(self.volume));
        println!("{}: {more} bytes and {late:?} late, {pace} bytes a second", self.class);
        assert!(used >= self.volume, "not before the volume is used: {used}");
        assert!(more <= pace * 3 / 2, "{}: {more} bytes, of {pace} in a second", self.class);
    }
}

fn each_of_several_steps_at_a_gigabit_holds_within_a_second_of_its_byte() {
    let mut world = World::new();
    let file = policy(
        "
version: 1
links: {up0: {rate: 1gbit, down: 1gbit}}
users:
  ann: {ceil: 1gbit, quota: {month: 150MB, then: 20mbit, counts: sent}}
  bob: {ceil: 1gbit, group: team}
  carol: {ceil: 1gbit, group: team, quota: {12h: 100MB, then: 20mbit, counts: sent}}
  dave: {ceil: 1gbit, down: 1gbit, quota: {2h: 300MB, then: 20mbit, counts: both}}
groups: {team: {ceil: 1gbit, quota: {day: 250MB, then: 20mbit, counts: sent}}}
",
    );
    let daemon = Daemon::run(command(&["watch", &file]));
    let mut all = [
        Near::new("user/ann", &[UPLINK], 150 * MB),
        Near::new("user/carol", &[UPLINK], 100 * MB),
        Near::new("group/team", &[UPLINK], 250 * MB),
        Near::new("user/dave", &[UPLINK, IFB], 300 * MB),
    ];
    let _senders = [ANN, BOB, CAROL, DAVE].map(|who| world.pouring(who, Family::V4));
    let _download = world.downloading(DAVE, Family::V4);
    soon("all steps hold", Duration::from_secs(60), || {
        let (up, down, at) = (classes(UPLINK), classes(IFB), Instant::now());
        let mut hold = true;
        for near in &mut all {
            hold &= near.look(at, &up, &down);
        }
        hold
    });
    all.iter().for_each(Near::holds_in_time);
    assert!(daemon.end().success());
}

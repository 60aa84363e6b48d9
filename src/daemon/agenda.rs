//! The times at which tasks about processes and accounts are due. Pure but for the clock that
//! callers pass in.

use std::collections::BTreeMap;
use std::time::Instant;

use super::rounds::is_time;

/// A task that may be due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Task {
    /// Look at muted processes, whose events are dropped.
    Muted,
    /// Look at all processes.
    Sweep,
    /// Look which accounts have no process any more.
    Leave,
    /// The next turn of such a look. Others have the processor until then, so it begins no sooner.
    LeaveOn,
    /// Ask NSS about everybody again.
    Ask,
    /// Read `/etc/subuid` again.
    Subuids,
    /// Ask NSS the question that had to wait.
    AskNext,
}

/// The time of each task that is planned; each is planned at most once.
#[derive(Debug, Default)]
pub(super) struct Agenda(BTreeMap<Task, Instant>);

impl Agenda {
    /// Plans the task for `at`, unless it is planned for an earlier time.
    pub(super) fn by(&mut self, task: Task, at: Instant) {
        let due = self.0.entry(task).or_insert(at);
        *due = at.min(*due);
    }

    /// Plans the task for `at`, whenever it was planned for.
    pub(super) fn at(&mut self, task: Task, at: Instant) {
        self.0.insert(task, at);
    }

    pub(super) fn drop(&mut self, task: Task) {
        self.0.remove(&task);
    }

    /// When the first task is due; `None`: none is planned.
    pub(super) fn due(&self) -> Option<Instant> {
        self.0.values().min().copied()
    }

    /// Removes and returns a task that is due; of several the first in the order of [`Task`].
    pub(super) fn take(&mut self, now: Instant) -> Option<Task> {
        let is_due = |(task, at): &(&Task, &Instant)| match task {
            Task::Leave => is_time(**at, now),
            _ => **at <= now,
        };
        let task = *self.0.iter().find(is_due)?.0;
        self.0.remove(&task);
        Some(task)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_task_stands_once_at_its_earliest_time() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut agenda = Agenda::default();
        assert_eq!(agenda.due(), None);
        agenda.by(Task::Muted, now + second);
        agenda.by(Task::Muted, now + 3 * second);
        agenda.by(Task::Sweep, now + 2 * second);
        assert_eq!(agenda.due(), Some(now + second));
        assert_eq!(agenda.take(now), None);
        let later = now + 5 * second;
        assert_eq!(agenda.take(later), Some(Task::Muted));
        assert_eq!(agenda.take(later), Some(Task::Sweep));
        assert_eq!(agenda.take(later), None);
        agenda.by(Task::Leave, now);
        agenda.at(Task::Leave, later);
        assert_eq!(agenda.due(), Some(later));
        let sooner = later - Duration::from_millis(50);
        agenda.at(Task::Sweep, later);
        assert_eq!(agenda.take(sooner), Some(Task::Leave), "with what else is looked at then");
        assert_eq!(agenda.take(sooner), None);
        agenda.at(Task::LeaveOn, later);
        agenda.drop(Task::Sweep);
        assert_eq!(agenda.take(sooner), None, "a pause is no rest");
        assert_eq!(agenda.take(later), Some(Task::LeaveOn));
    }
}

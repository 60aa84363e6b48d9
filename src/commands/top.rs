//! `shaper top`: who uses the links now, live on a terminal, or interval by interval.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use super::counting::{Counting, Report};
use super::output::{self, Output, Screen, color};
use crate::cli::{Global, Top};
use crate::failure::Failure;
use crate::sample::Sample;
use crate::status::{self, Board, Key, Size, Status, Then};
use crate::sys::priority;
use crate::sys::terminal::{self, Input, Terminal};

/// `--exit-over` was passed.
const PASSED: u8 = 3;
/// What a terminal has that does not say how large it is, and what is written elsewhere.
const USUAL: Size = Size { rows: 24, columns: 80 };
/// How long an Escape may be the beginning of what another key sends.
const ESCAPE: Duration = Duration::from_millis(30);

pub(super) fn top(global: &Global, options: &Top) -> Result<Output, Failure> {
    let mut series = Series::begin(global, options)?;
    let live = io::stdout().is_terminal() && io::stdin().is_terminal() && !terminal::is_dumb();
    match options.once || global.json || !live {
        true => series.print(global.json),
        false => series.show(),
    }
}

/// One reading after the other.
struct Series<'a> {
    options: &'a Top,
    counting: Counting,
    report: Report,
    last: Sample,
    /// When the next reading is due.
    due: Instant,
}

impl<'a> Series<'a> {
    fn begin(global: &Global, options: &'a Top) -> Result<Series<'a>, Failure> {
        // Who looks may wait for those who log in meanwhile.
        priority::behind_others();
        let mut counting = Counting::begin(global)?;
        let last = counting.sample()?;
        let report = counting.report(None);
        Ok(Series { options, counting, report, last, due: Instant::now() + options.interval })
    }

    /// Reads the counters and compares them with those of the last reading.
    fn next(&mut self) -> Result<(), Failure> {
        let sample = self.counting.sample()?;
        let differences = sample.since(&self.last);
        self.last = sample;
        self.due += self.options.interval;
        let now = Instant::now();
        if self.due < now {
            // What was missed (the process was stopped, the machine slept) is not made up for.
            self.due = now + self.options.interval;
        }
        self.counting.renew(&mut self.report, differences);
        Ok(())
    }

    fn has_passed(&self) -> bool {
        let status = &self.report.status;
        self.options.exit_over.is_some_and(|percent| status::is_over(status, percent))
    }

    /// A table, or a line of JSON, for each interval.
    fn print(&mut self, json: bool) -> Result<Output, Failure> {
        loop {
            std::thread::sleep(self.due.saturating_duration_since(Instant::now()));
            self.next()?;
            let status = &self.report.status;
            let columns = terminal::size().map_or(USUAL.columns, |(_, columns)| columns);
            let output = match json {
                true => Output::json(&serde_json::to_string(status).map_err(Failure::refused)?),
                false => Output::text(status::top_table(status, columns)),
            };
            let passed = self.has_passed();
            let output = Output { status: if passed { PASSED } else { 0 }, ..output };
            if self.options.once || passed {
                return Ok(output);
            }
            // A reader that went away (`| head`) has read what it wanted.
            match output::stdout(&output.stdout) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    return Ok(Output::default());
                }
                Err(error) => return Err(Failure::refused(error)),
            }
        }
    }

    /// A screen that follows the keys and the counters.
    fn show(&mut self) -> Result<Output, Failure> {
        let terminal = Terminal::take().map_err(Failure::refused)?;
        let screen = Screen::open().map_err(Failure::refused)?;
        let mut board = Board::default();
        // What is shown while the screen is stopped.
        let mut stopped: Option<Status> = None;
        let mut typed = Vec::new();
        loop {
            let size = terminal::size().map_or(USUAL, |(rows, columns)| Size { rows, columns });
            let status = stopped.as_ref().unwrap_or(&self.report.status);
            let lines = board.draw(status, size, color(&io::stdout()));
            if screen.show(&lines).is_err() {
                return Ok(Output::default());
            }
            match self.follow(&terminal, &mut board, &mut typed)? {
                Event::Draw => match board.is_paused() {
                    true => drop(stopped.get_or_insert_with(|| self.report.status.clone())),
                    false => stopped = None,
                },
                Event::End => return Ok(Output::default()),
                Event::Stop => {
                    let _gone = screen.leave();
                    terminal.stop().map_err(Failure::refused)?;
                    screen.enter().map_err(Failure::refused)?;
                }
                Event::Continued => {
                    terminal.take_again().map_err(Failure::refused)?;
                    screen.enter().map_err(Failure::refused)?;
                }
                Event::Due => {
                    self.next()?;
                    if self.has_passed() {
                        return Ok(Output { status: PASSED, ..Output::default() });
                    }
                }
            }
        }
    }

    /// Waits until the screen is to be another. `typed`: bytes of a key that are not all here.
    fn follow(
        &self,
        terminal: &Terminal,
        board: &mut Board,
        typed: &mut Vec<u8>,
    ) -> Result<Event, Failure> {
        loop {
            let rest = self.due.saturating_duration_since(Instant::now());
            let most = if typed.is_empty() { rest } else { rest.min(ESCAPE) };
            let complete = match terminal.wait(most).map_err(Failure::refused)? {
                Input::Resized => return Ok(Event::Draw),
                Input::End => return Ok(Event::End),
                Input::Stop => return Ok(Event::Stop),
                Input::Continued => return Ok(Event::Continued),
                Input::Nothing if typed.is_empty() => return Ok(Event::Due),
                Input::Nothing => true,
                Input::Typed(bytes) => {
                    typed.extend(bytes);
                    false
                }
            };
            let (keys, used) = status::keys(typed, complete);
            typed.drain(..used);
            match press(board, &keys) {
                Then::Quit => return Ok(Event::End),
                Then::Draw => return Ok(Event::Draw),
                Then::Nothing => {}
            }
        }
    }
}

/// What ends a wait.
enum Event {
    Draw,
    Due,
    End,
    Stop,
    Continued,
}

/// All of the keys, in order.
fn press(board: &mut Board, keys: &[Key]) -> Then {
    let mut then = Then::Nothing;
    for key in keys {
        match board.press(*key) {
            Then::Quit => return Then::Quit,
            Then::Draw => then = Then::Draw,
            Then::Nothing => {}
        }
    }
    then
}

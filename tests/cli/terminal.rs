//! A real terminal, tmux's: keys are pressed, and screens are looked at.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::SigSet;

use crate::support::cell::SCRATCH;
use crate::support::command::run_with;

/// After which what a test waits for will not come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A terminal, in which a shell command runs; it ends with the cell.
pub struct Terminal;

impl Terminal {
    pub fn open(columns: u16, rows: u16, command: &str) -> Terminal {
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let new = ["new-session", "-d", "-x", &columns, "-y", &rows, command];
        tmux(&new);
        Terminal
    }

    pub fn press(&self, keys: &[&str]) {
        tmux(&[&["send-keys"], keys].concat());
    }

    pub fn resize(&self, columns: u16, rows: u16) {
        tmux(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]);
    }

    pub fn screen(&self) -> String {
        tmux(&["capture-pane", "-p"])
    }

    /// Waits until the screen is as it should be.
    #[track_caller]
    pub fn until(&self, what: &str, holds: impl Fn(&str) -> bool) -> String {
        let began = Instant::now();
        loop {
            let screen = self.screen();
            if holds(&screen) {
                return screen;
            }
            assert!(began.elapsed() < PATIENCE, "{what} did not come:\n{screen}");
            sleep(Duration::from_millis(50));
        }
    }
}

/// `tmux` with a server of the cell's own.
#[track_caller]
pub fn tmux(words: &[&str]) -> String {
    let mut command = Command::new("tmux");
    command.args(["-u", "-f", "/dev/null", "-S", &format!("{SCRATCH}/tmux")]).args(words);
    command.env("LC_ALL", "C.UTF-8").env("TERM", "screen").env_remove("NO_COLOR");
    // A cell has signals blocked, and whoever types has none.
    let unblock = || Ok(SigSet::all().thread_unblock()?);
    // SAFETY: it makes one system call, in a child of its own.
    unsafe { command.pre_exec(unblock) };
    run_with(command, "").exits(0).stdout
}

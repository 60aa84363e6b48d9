//! The terminal of a command that is shown on a whole screen: keys as they are pressed, its size,
//! and the signals that tell of another size or of the end.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{
    LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr,
};

/// Standard input as a terminal whose keys come one by one. Dropped, the terminal is as it was.
pub struct Terminal {
    before: Termios,
    signals: SignalFd,
}

/// What happened meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// These bytes were typed.
    Typed(Vec<u8>),
    /// The terminal has another size.
    Resized,
    /// A signal, or the terminal has gone.
    End,
    /// Nothing.
    Nothing,
}

impl Terminal {
    /// From now on keys come without waiting for Enter, none is shown, and none makes a signal;
    /// SIGINT, SIGTERM, SIGHUP and SIGWINCH come through [`Terminal::wait`].
    ///
    /// # Errors
    /// Standard input is no terminal.
    pub fn take() -> io::Result<Terminal> {
        let mut signals = SigSet::empty();
        [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGWINCH]
            .into_iter()
            .for_each(|signal| signals.add(signal));
        let fd = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        signals.thread_block()?;
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.local_flags
            .remove(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG | LocalFlags::IEXTEN);
        raw.control_chars[SpecialCharacterIndices::VMIN as usize] = 0;
        raw.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
        tcsetattr(io::stdin(), SetArg::TCSANOW, &raw)?;
        Ok(Terminal { before, signals: fd })
    }

    /// Waits at most so long for a key or a signal.
    ///
    /// # Errors
    /// poll(2), or the terminal cannot be read.
    pub fn wait(&self, most: Duration) -> io::Result<Input> {
        let until = Instant::now() + most;
        let stdin = io::stdin();
        loop {
            let mut ready = [
                PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            let rest = until.saturating_duration_since(Instant::now());
            // Rounded up: no turn of waiting that takes no time.
            let millis = rest.as_micros().div_ceil(1_000).min(60_000) as u16;
            match poll(&mut ready, PollTimeout::from(millis)) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let is_ready = ready.map(|fd| fd.any().unwrap_or(false));
            if is_ready[1]
                && let Some(signal) = self.signals.read_signal()?
            {
                return Ok(match signal.ssi_signo == Signal::SIGWINCH as u32 {
                    true => Input::Resized,
                    false => Input::End,
                });
            }
            if is_ready[0] {
                let mut bytes = [0; 256];
                return Ok(match nix::unistd::read(&stdin, &mut bytes) {
                    Ok(0) | Err(Errno::EIO) => Input::End,
                    Ok(length) => Input::Typed(bytes[..length].to_vec()),
                    Err(errno) => return Err(errno.into()),
                });
            }
            if Instant::now() >= until {
                return Ok(Input::Nothing);
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.before);
    }
}

/// Lines and columns of the terminal that standard output is; `None`: it is none, or says nothing.
pub fn size() -> Option<(usize, usize)> {
    // SAFETY: all zeroes is a value of this structure of integers.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes the structure, whose size the request implies, and keeps no
    // pointer.
    let result = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    (result == 0 && size.ws_row > 0 && size.ws_col > 0)
        .then(|| (usize::from(size.ws_row), usize::from(size.ws_col)))
}

//! The terminal of a command that is shown on a whole screen: keys as they are pressed, its size,
//! and the signals that tell of another size or of the end.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{
    LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr,
};

/// What would otherwise leave the terminal as it is, or tells of it.
const SIGNALS: [Signal; 7] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGTSTP,
    Signal::SIGCONT,
    Signal::SIGWINCH,
];

/// Standard input as a terminal whose keys come one by one. Dropped, the terminal is as it was.
pub struct Terminal {
    before: Termios,
    raw: Termios,
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
    /// This process is to stop until it is continued, as by Ctrl-Z.
    Stop,
    /// This process goes on after it was stopped.
    Continued,
    /// Nothing.
    Nothing,
}

impl Terminal {
    /// From now on keys come without waiting for Enter, none is shown, and none but Ctrl-Z makes a
    /// signal; those that end a process, stop it, or tell of another size come through
    /// [`Terminal::wait`].
    ///
    /// # Errors
    /// Standard input is no terminal.
    pub fn take() -> io::Result<Terminal> {
        let mut signals = SigSet::empty();
        SIGNALS.into_iter().for_each(|signal| signals.add(signal));
        let fd = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        signals.thread_block()?;
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::IEXTEN);
        for (at, value) in [
            (SpecialCharacterIndices::VMIN, 0),
            (SpecialCharacterIndices::VTIME, 0),
            (SpecialCharacterIndices::VINTR, libc::_POSIX_VDISABLE),
            (SpecialCharacterIndices::VQUIT, libc::_POSIX_VDISABLE),
        ] {
            raw.control_chars[at as usize] = value;
        }
        let terminal = Terminal { before, raw, signals: fd };
        terminal.take_again()?;
        Ok(terminal)
    }

    /// The same once more, where somebody else had the terminal meanwhile.
    ///
    /// # Errors
    /// The terminal has gone.
    pub fn take_again(&self) -> io::Result<()> {
        Ok(tcsetattr(io::stdin(), SetArg::TCSANOW, &self.raw)?)
    }

    /// Gives the terminal back, stops this process, and takes the terminal again once it is
    /// continued. Where nobody could continue it (its process group is orphaned) the kernel does
    /// not stop it.
    ///
    /// # Errors
    /// The terminal has gone.
    pub fn stop(&self) -> io::Result<()> {
        tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.before)?;
        let mut stops = SigSet::empty();
        stops.add(Signal::SIGTSTP);
        raise(Signal::SIGTSTP)?;
        // It is delivered here.
        stops.thread_unblock()?;
        stops.thread_block()?;
        self.take_again()
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
                return Ok(match Signal::try_from(signal.ssi_signo as i32) {
                    Ok(Signal::SIGWINCH) => Input::Resized,
                    Ok(Signal::SIGTSTP) => Input::Stop,
                    Ok(Signal::SIGCONT) => Input::Continued,
                    _ => Input::End,
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

/// Whether the terminal says of itself that it can do no more than a typewriter: it has no screen
/// that could be cleared, and no colours.
pub fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
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

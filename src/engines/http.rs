//! One GET over a unix socket. It is HTTP/1.0: the answer is one piece and ends with the
//! connection, so there are no chunks to put together.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// The longest answer that is read: a description of a container has about 1,500 bytes.
const MOST: usize = 64 << 20;

/// The body of the answer to `GET path`.
///
/// # Errors
/// The socket's; `TimedOut` when there is no whole answer by `until`; `InvalidData` with the
/// engine's own words where it refuses.
pub(super) fn get(at: &Path, path: &str, until: Instant) -> io::Result<Vec<u8>> {
    let mut stream = connected(at, until)?;
    stream.set_write_timeout(Some(left(until)?))?;
    let question =
        format!("GET {path} HTTP/1.0\r\nHost: localhost\r\nAccept: application/json\r\n\r\n");
    stream.write_all(question.as_bytes())?;
    let mut answer = Vec::new();
    let mut part = [0; 1 << 14];
    loop {
        stream.set_read_timeout(Some(left(until)?))?;
        match stream.read(&mut part) {
            Ok(0) => return body(answer),
            Ok(length) => answer.extend_from_slice(&part[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => left(until).map(drop)?,
            Err(error) => return Err(error),
        }
        if answer.len() > MOST {
            return Err(bad(format!("its answer is longer than {} MiB", MOST >> 20)));
        }
    }
}

/// Where the queue of a listener that accepts nobody is full, connect(2) waits as long as a send
/// may (`unix_stream_connect`, net/unix/af_unix.c).
fn connected(at: &Path, until: Instant) -> io::Result<UnixStream> {
    let stream = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let time = i64::try_from(left(until)?.as_millis()).unwrap_or(i64::MAX).max(1);
    setsockopt(&stream, sockopt::SendTimeout, &TimeVal::milliseconds(time))?;
    match connect(stream.as_raw_fd(), &UnixAddr::new(at)?) {
        Err(nix::Error::EAGAIN) => Err(io::ErrorKind::TimedOut.into()),
        outcome => Ok(outcome.map(|()| UnixStream::from(stream))?),
    }
}

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn bad(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// The body of an answer, whose status must be 200.
fn body(answer: Vec<u8>) -> io::Result<Vec<u8>> {
    const END: &[u8] = b"\r\n\r\n";
    let end = answer.windows(END.len()).position(|bytes| bytes == END);
    let end = end.ok_or_else(|| bad("its answer is no HTTP".to_string()))?;
    let (head, rest) = (String::from_utf8_lossy(&answer[..end]), &answer[end + END.len()..]);
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    let code = status.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1));
    if code != Some("200") {
        return Err(bad(format!("it answers {status:?}")));
    }
    let mut fields = lines.filter_map(|line| line.split_once(':'));
    if fields.any(|(name, _)| name.eq_ignore_ascii_case("transfer-encoding")) {
        return Err(bad("it answers HTTP/1.0 in chunks".to_string()));
    }
    Ok(rest.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{Backlog, listen};
    use std::os::unix::net::UnixListener;
    use std::thread;

    fn said(answer: &str) -> io::Result<Vec<u8>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        thread::scope(|scope| {
            let server = scope.spawn(move || {
                let mut stream = listener.accept().unwrap().0;
                let mut question = [0; 1024];
                let length = stream.read(&mut question).unwrap();
                // In two parts, as it may come.
                let (first, second) = answer.split_at(answer.len() / 2);
                stream.write_all(first.as_bytes()).unwrap();
                thread::sleep(Duration::from_millis(10));
                stream.write_all(second.as_bytes()).unwrap();
                String::from_utf8_lossy(&question[..length]).into_owned()
            });
            let answer = get(&path, "/containers/json", Instant::now() + Duration::from_secs(20));
            let question = server.join().unwrap();
            assert!(question.starts_with("GET /containers/json HTTP/1.0\r\n"), "{question}");
            assert!(question.ends_with("\r\n\r\n"), "{question}");
            answer
        })
    }

    #[test]
    fn the_body_is_what_follows_the_head() {
        let answer =
            said("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n[\"a\r\n\r\n\"]");
        assert_eq!(answer.unwrap(), b"[\"a\r\n\r\n\"]");
    }

    #[test]
    fn whatever_is_no_whole_answer_is_an_error() {
        for (answer, why) in [
            ("HTTP/1.0 404 Not Found\r\n\r\n{}", "it answers \"HTTP/1.0 404 Not Found\""),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "in chunks"),
            ("HTTP/1.0 200 OK\r\nContent-Ty", "no HTTP"),
            ("SSH-2.0-x\r\n\r\n", "it answers \"SSH-2.0-x\""),
            ("", "no HTTP"),
        ] {
            let error = said(answer).unwrap_err();
            assert!(error.to_string().contains(why), "{answer:?}: {error}");
        }
    }

    #[test]
    fn one_who_never_answers_is_waited_for_no_longer_than_was_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let began = Instant::now();
        // The first connections are in the listener's queue; once it is full, connect(2) waits.
        for _ in 0..3 {
            let error = get(&path, "/", Instant::now() + Duration::from_millis(200)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
        listen(&listener, Backlog::new(0).unwrap()).unwrap();
        let mut waiting = Vec::new();
        loop {
            match connected(&path, Instant::now() + Duration::from_millis(200)) {
                Ok(stream) => waiting.push(stream),
                Err(error) => break assert_eq!(error.kind(), io::ErrorKind::TimedOut),
            }
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        let gone = get(&folder.path().join("none"), "/", Instant::now() + Duration::from_secs(9));
        assert_eq!(gone.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}

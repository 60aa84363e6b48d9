//! Which engines are asked, by whom, and for how long.

use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use super::{Answer, Described, http, lists};
use crate::accounts::Limit;
use crate::accounts::asking::{Asking, Unanswered};
use crate::facts::Engine;

/// An engine's socket.
#[derive(Clone, Debug)]
pub struct Socket {
    /// Docker or Podman.
    pub engine: Engine,
    /// Where it is.
    pub path: PathBuf,
}

/// For all containers of all engines: running ones, and those that are about to, whose link may be
/// there before the engine calls them so.
#[derive(Clone, Debug)]
pub struct Question {
    /// Whom to ask.
    pub sockets: Vec<Socket>,
    /// How long each may take.
    pub time: Duration,
}

impl Question {
    /// Longer than a busy dockerd takes for a thousand containers.
    pub const PATIENCE: Duration = Duration::from_secs(3);

    /// The sockets that the engines of the host itself have.
    pub fn of_the_host() -> Question {
        let socket = |engine, path| Socket { engine, path: PathBuf::from(path) };
        let sockets = vec![
            socket(Engine::Docker, "/run/docker.sock"),
            socket(Engine::Podman, "/run/podman/podman.sock"),
        ];
        Question { sockets, time: Question::PATIENCE }
    }

    /// Has a child ask, and waits.
    pub fn ask(self) -> Answer {
        self.start().and_then(Asking::wait).unwrap_or_else(|why| Answer::none(&why))
    }

    /// Has a child ask, while this process does something else.
    ///
    /// # Errors
    /// No child can be started.
    pub fn start(self) -> Result<Asking<Answer>, Unanswered> {
        // The child keeps the time itself, so that the answers of those that do answer come.
        let limit = Limit::Whole(self.time + Duration::from_secs(2));
        Asking::start(limit, move |_| self.gather())
    }

    /// Asks in this process.
    fn gather(self) -> Answer {
        let until = Instant::now() + self.time;
        let mut all = Answer::default();
        thread::scope(|scope| {
            let ask = |socket| (socket, scope.spawn(move || list(socket, until)));
            for (Socket { engine, path }, asked) in self.sockets.iter().map(ask).collect::<Vec<_>>()
            {
                match asked.join() {
                    Ok(Ok(containers)) => all.containers.extend(containers),
                    Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
                    Ok(Err(error)) => {
                        let why = match error.kind() {
                            io::ErrorKind::TimedOut => format!("no answer within {:?}", self.time),
                            _ => error.to_string(),
                        };
                        all.silent.push(format!("{engine} at {}: {why}", path.display()));
                    }
                    Err(_) => all.silent.push(format!("{engine} at {}: a panic", path.display())),
                }
            }
        });
        all
    }
}

fn list(socket: &Socket, until: Instant) -> io::Result<Vec<Described>> {
    match socket.engine {
        Engine::Podman => {
            let path = "/v4.0.0/libpod/containers/json?all=true";
            Ok(lists::podman(&http::get(&socket.path, path, until)?)?)
        }
        // Not what describes a single one, which waits while that one starts.
        _ => Ok(lists::docker(&http::get(&socket.path, "/containers/json?all=1", until)?)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::threads::alone;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    #[test]
    fn an_engine_that_hangs_hides_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let [docker, podman, none] = ["docker", "podman", "none"].map(|it| folder.path().join(it));
        let hangs = UnixListener::bind(&docker).unwrap();
        let answers = UnixListener::bind(&podman).unwrap();
        let answer = r#"[{"Id":"3f2a","Names":["web"],"Labels":null,"Pid":7}]"#;
        let server = thread::spawn(move || {
            let mut stream = answers.accept().unwrap().0;
            let _question = stream.read(&mut [0; 1024]).unwrap();
            write!(stream, "HTTP/1.0 200 OK\r\n\r\n{answer}").unwrap();
        });
        let sockets = vec![
            Socket { engine: Engine::Docker, path: docker },
            Socket { engine: Engine::Podman, path: podman },
            Socket { engine: Engine::Docker, path: none },
        ];
        alone(|| {
            let began = Instant::now();
            let time = Duration::from_millis(300);
            let answer = Question { sockets: sockets.clone(), time }.ask();
            assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
            let names: Vec<_> = answer.containers.iter().map(|it| it.name.clone()).collect();
            assert_eq!(names, [Some("web".to_string())]);
            let [why] = &answer.silent[..] else { panic!("{:?}", answer.silent) };
            assert!(why.starts_with("Docker at ") && why.ends_with(": no answer within 300ms"));
        });
        server.join().unwrap();
        drop(hangs);
    }
}

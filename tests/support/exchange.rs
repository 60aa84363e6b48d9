//! Connections that carry so much each way and end: a file fetched, a thousand short requests.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Bytes that one connection carries, seen from the one who connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parcel {
    pub sent: usize,
    pub received: usize,
}

/// For longer than this nothing stands still.
const PATIENCE: Duration = Duration::from_secs(20);

/// Takes part in such connections on this address from now on, one after the other.
pub fn serve(at: SocketAddr, parcel: Parcel) -> io::Result<()> {
    let listener = TcpListener::bind(at)?;
    let serve_one = move |mut stream: TcpStream| -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.read_exact(&mut vec![0; parcel.sent])?;
        stream.write_all(&vec![0x5a; parcel.received])
    };
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let _its_client_says_what_is_wrong = serve_one(stream);
        }
    });
    Ok(())
}

/// So many such connections, one after the other, each to its end.
pub fn exchange(to: SocketAddr, times: u32, parcel: Parcel) -> io::Result<()> {
    for _ in 0..times {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&vec![0x5a; parcel.sent])?;
        let mut received = Vec::new();
        stream.read_to_end(&mut received)?;
        if received.len() != parcel.received {
            let came = received.len();
            return Err(io::Error::other(format!("{came} of {} bytes came", parcel.received)));
        }
    }
    Ok(())
}

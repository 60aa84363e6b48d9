//! Docker's proxies: processes of dockerd's, outside of any container's cgroup, each of which
//! accepts connections for one container and copies what goes through. Pure.

use std::net::IpAddr;

/// The name of the program, as the kernel has it.
pub(super) const NAME: &str = "docker-proxy";

/// The container's address that a proxy serves, from its `/proc/PID/cmdline`:
/// `docker-proxy -proto tcp -host-ip :: -host-port 8080 -container-ip 172.17.0.2 …`. `None`: the
/// arguments say none.
pub(super) fn serves(command_line: &[u8]) -> Option<IpAddr> {
    let mut words = command_line.split(|byte| *byte == 0);
    words.find(|word| matches!(*word, b"-container-ip" | b"--container-ip"))?;
    std::str::from_utf8(words.next()?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxys_arguments_say_whom_it_serves() {
        // Captured of Docker 20.10.
        let words = "/usr/sbin/docker-proxy -proto tcp -host-ip 0.0.0.0 -host-port 8080 \
            -container-ip 172.17.0.2 -container-port 80 ";
        let line = words.replace(' ', "\0");
        assert_eq!(serves(line.as_bytes()), Some(IpAddr::from([172, 17, 0, 2])));
        let of_v6 = b"docker-proxy\0--container-ip\0fd00::2\0";
        assert_eq!(serves(of_v6), "fd00::2".parse().ok());
        for line in [&b"docker-proxy\0-container-ip\0"[..], b"docker-proxy\0-container-ip", b""] {
            assert_eq!(serves(line), None);
        }
    }
}

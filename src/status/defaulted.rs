//! Connections in the default class: whose, and what for.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::report::{Connections, Status};
use super::words::bytes;
use crate::host::observe::{CountedService, Service};
use crate::text::shown;

/// How many services are named.
const SERVICES: usize = 4;

/// The rows of the report: what has sent most first, then by how many there are.
pub(super) fn rows(
    services: &BTreeMap<Service, CountedService>,
    accounts: &BTreeMap<u32, String>,
) -> Vec<Connections> {
    let row = |(service, counted): (&Service, &CountedService)| Connections {
        uid: service.uid,
        user: accounts.get(&service.uid).cloned(),
        proto: if service.is_udp { "udp" } else { "tcp" },
        side: if service.is_server { "server" } else { "client" },
        port: service.port,
        connections: counted.connections,
        sent_bytes: counted.sent_bytes,
    };
    let mut rows: Vec<Connections> = services.iter().map(row).collect();
    rows.sort_by_key(|row| Reverse((row.sent_bytes, row.connections)));
    rows
}

impl Status {
    /// One line; nothing where there is no default class to be in, or no connection is.
    pub(super) fn default_connections_line(&self) -> String {
        if self.default_connections.is_empty() || !self.has_default() {
            return String::new();
        }
        let rows = &self.default_connections;
        let (few, more) = rows.split_at(rows.len().min(SERVICES));
        let mut words: Vec<String> = few.iter().map(Connections::words).collect();
        if !more.is_empty() {
            let connections: usize = more.iter().map(|row| row.connections).sum();
            words.push(format!("{connections} more"));
        }
        format!("connections in (default): {}\n", words.join("; "))
    }
}

impl Connections {
    /// `3 of root at TCP port 22, which sent 1.2MiB`.
    fn words(&self) -> String {
        let user = self.user.clone().unwrap_or_else(|| format!("uid {}", self.uid));
        let side = if self.side == "server" { "at" } else { "to" };
        let proto = self.proto.to_uppercase();
        let sent = self.sent_bytes.filter(|sent| *sent > 0);
        let sent = sent.map_or_else(String::new, |sent| format!(", which sent {}", bytes(sent)));
        format!("{} of {} {side} {proto} port {}{sent}", self.connections, shown(&user), self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::busy;
    use super::*;

    #[test]
    fn what_has_sent_most_is_named_first_and_not_everything() {
        let service = |uid, is_udp, is_server, port| Service { uid, is_udp, is_server, port };
        let counted = |connections, sent_bytes| CountedService { connections, sent_bytes };
        let mut services = BTreeMap::from([
            (service(0, false, true, 22), counted(3, Some(1_300_000))),
            (service(0, false, false, 2049), counted(1, Some(0))),
            (service(33, true, false, 53), counted(2, None)),
        ]);
        let accounts = [(0, "root".to_string())].into();
        let mut status = busy();
        status.default_connections = rows(&services, &accounts);
        assert_eq!(
            status.default_connections_line(),
            "connections in (default): 3 of root at TCP port 22, which sent 1.2MiB; \
             1 of root to TCP port 2049; 2 of uid 33 to UDP port 53\n"
        );
        services.extend((1..4).map(|port| (service(7, false, false, port), counted(1, None))));
        status.default_connections = rows(&services, &accounts);
        assert!(status.default_connections_line().ends_with("; 2 more\n"));
        let whole = serde_json::to_value(&status).unwrap();
        assert_eq!(whole["default_connections"][0]["side"], "server");
        assert_eq!(whole["default_connections"][0]["sent_bytes"], 1_300_000);
        assert!(whole["default_connections"][2].get("sent_bytes").is_none());
        status.links.iter_mut().for_each(|link| link.default = None);
        assert_eq!(status.default_connections_line(), "");
    }
}

//! Others who configure a link, and whether they would replace its qdiscs.

/// A program that configures a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manager {
    /// Its name.
    pub name: &'static str,
    /// The file that says so, and where it configures traffic control, that file.
    pub file: Option<String>,
    /// It configures traffic control there.
    pub shapes: bool,
}

/// The files that configure a link, of networkd's state of it (`/run/systemd/netif/links/IFINDEX`);
/// `None`: networkd leaves the link alone.
pub fn networkd(state: &str) -> Option<Vec<String>> {
    let value = |key: &str| {
        let prefix = format!("{key}=");
        state.lines().find_map(|line| line.strip_prefix(&prefix)).map(str::to_string)
    };
    if value("ADMIN_STATE").is_none_or(|state| state == "unmanaged") {
        return None;
    }
    let quoted = |list: String| {
        list.split(['"', ':', ' ']).filter(|it| it.starts_with('/')).map(str::to_string).collect()
    };
    let mut files: Vec<String> = value("NETWORK_FILE").into_iter().collect();
    files.extend(value("NETWORK_FILE_DROPINS").map(quoted).unwrap_or_else(Vec::new));
    Some(files)
}

/// Whether a file (systemd.network(5), or a connection of NetworkManager's) configures traffic
/// control: of networkd's sections only those of qdiscs and classes have a `Parent`, and
/// NetworkManager has a section for them.
pub fn shapes(file: &str) -> bool {
    let lines = file.lines().map(str::trim);
    let of_networkd =
        |line: &str| line.split_once('=').is_some_and(|(key, _)| key.trim_end() == "Parent");
    let mut in_tc = false;
    lines.into_iter().any(|line| {
        if line.starts_with('[') {
            in_tc = line == "[tc]";
        }
        of_networkd(line) || (in_tc && (line.starts_with("qdisc.") || line.starts_with("tfilter.")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networkd_says_by_which_files() {
        let state = "# This is private data. Do not parse.\nADMIN_STATE=configured\nOPER_STATE=routable\n\
                     NETWORK_FILE=/etc/systemd/network/10-x.network\n\
                     NETWORK_FILE_DROPINS=\"/etc/systemd/network/10-x.network.d/a.conf:/run/b.conf\"\n";
        let files = [
            "/etc/systemd/network/10-x.network",
            "/etc/systemd/network/10-x.network.d/a.conf",
            "/run/b.conf",
        ];
        assert_eq!(networkd(state).unwrap(), files);
        assert_eq!(networkd("ADMIN_STATE=unmanaged\nNETWORK_FILE=/x\n"), None);
        assert_eq!(networkd(""), None);
    }

    #[test]
    fn a_file_configures_traffic_control_or_does_not() {
        assert!(shapes("[Match]\nName=eth0\n[CAKE]\nParent=root\nBandwidth=10M\n"));
        assert!(shapes("[QDisc]\nParent = clsact\n"));
        assert!(!shapes("[Match]\nName=eth0\n[Network]\nDHCP=yes\n# Parent=root\n"));
        assert!(shapes("[connection]\nid=x\n[tc]\nqdisc.root=handle 1234: fq_codel\n"));
        assert!(!shapes("[connection]\nqdisc.root=no\n[tc]\n"));
    }
}

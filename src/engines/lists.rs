//! The lists of containers that engines answer with, as values. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;

use super::Described;
use crate::facts::Engine;

/// `GET /containers/json` of the Docker Engine API (ContainerSummary). What is not needed is left
/// out, and whatever may be null is.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OfDocker {
    id: String,
    names: Option<Vec<String>>,
    labels: Option<BTreeMap<String, String>>,
    network_settings: Option<NetworkSettings>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    networks: Option<BTreeMap<String, Option<Endpoint>>>,
}

#[derive(Deserialize)]
struct Endpoint {
    #[serde(rename = "IPAddress")]
    v4: Option<String>,
    #[serde(rename = "GlobalIPv6Address")]
    v6: Option<String>,
}

/// Reads Docker's list.
///
/// # Errors
/// It is none.
pub(super) fn docker(text: &[u8]) -> serde_json::Result<Vec<Described>> {
    let described = |OfDocker { id, names, labels, network_settings }: OfDocker| {
        // Beside `/web` there may be `/other/db`, what another container calls it by a link.
        let own = |name: &String| {
            let name = name.strip_prefix('/').unwrap_or(name);
            (!name.contains('/')).then(|| name.to_string())
        };
        let name = names.iter().flatten().find_map(own);
        let networks = network_settings.and_then(|settings| settings.networks).unwrap_or_default();
        let endpoints = networks.into_values().flatten();
        let addresses = endpoints.flat_map(|it| [it.v4, it.v6]).flatten();
        let addresses = addresses.filter_map(|address| address.parse::<IpAddr>().ok()).collect();
        let labels = labels.unwrap_or_default();
        Described { engine: Engine::Docker, id, name, labels, addresses, pid: None }
    };
    let list: Vec<OfDocker> = serde_json::from_slice(text)?;
    Ok(list.into_iter().map(described).collect())
}

/// `GET /libpod/containers/json` of Podman's API (ListContainer).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OfPodman {
    id: String,
    names: Option<Vec<String>>,
    labels: Option<BTreeMap<String, String>>,
    pid: Option<u32>,
}

/// Reads Podman's list, which has no addresses.
///
/// # Errors
/// It is none.
pub(super) fn podman(text: &[u8]) -> serde_json::Result<Vec<Described>> {
    let described = |OfPodman { id, names, labels, pid }: OfPodman| Described {
        engine: Engine::Podman,
        id,
        name: names.and_then(|names| names.into_iter().next()),
        labels: labels.unwrap_or_default(),
        addresses: Vec::new(),
        pid: pid.filter(|pid| *pid != 0),
    };
    // Podman writes null for none.
    let list: Option<Vec<OfPodman>> = serde_json::from_slice(text)?;
    Ok(list.into_iter().flatten().map(described).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_list_gives_names_labels_and_addresses() {
        // Captured of Docker 20.10, shortened.
        let text = br#"[{"Id":"3f2a","Names":["/front/db","/db"],"Image":"bb","ImageID":"sha256:1",
            "Command":"/bin/sleep 1000","Created":1,"Ports":[{"PrivatePort":80}],
            "Labels":{"owner":"bob","shaper.user":"ann"},"State":"running","Status":"Up 1 second",
            "HostConfig":{"NetworkMode":"default"},
            "NetworkSettings":{"Networks":{"bridge":{"IPAMConfig":null,"IPAddress":"172.17.0.2",
                "GlobalIPv6Address":"","MacAddress":"02:42:ac:11:00:02"},"other":null}},"Mounts":[]},
            {"Id":"77aa","Names":null,"Labels":null,"NetworkSettings":{"Networks":null}},
            {"Id":"88bb","Names":["/x"],"Labels":{},"NetworkSettings":{"Networks":{
                "v6":{"IPAddress":"","GlobalIPv6Address":"fd00::2"}}}}]"#;
        let list = docker(text).unwrap();
        let labels = [("owner", "bob"), ("shaper.user", "ann")];
        let db = Described {
            engine: Engine::Docker,
            id: "3f2a".into(),
            name: Some("db".into()),
            labels: labels.map(|(key, value)| (key.to_string(), value.to_string())).into(),
            addresses: vec!["172.17.0.2".parse().unwrap()],
            pid: None,
        };
        assert_eq!(list[0], db);
        assert_eq!((&list[1].name, list[1].addresses.len()), (&None, 0));
        assert_eq!(list[2].addresses, ["fd00::2".parse::<IpAddr>().unwrap()]);
        assert!(docker(b"[]").unwrap().is_empty());
        assert!(docker(br#"{"message":"x"}"#).is_err());
    }

    #[test]
    fn podmans_list_gives_names_labels_and_pids() {
        // Captured of Podman 4.3, shortened.
        let text = br#"[{"AutoRemove":false,"Command":["sleep","9"],"CreatedAt":"","Exited":false,
            "Id":"3f2a","Image":"docker.io/library/bb:latest","Labels":{"owner":"bob"},"Mounts":[],
            "Names":["web"],"Namespaces":{},"Networks":["podman"],"Pid":4711,"Pod":"",
            "State":"running"},{"Id":"77aa","Names":["off"],"Labels":null,"Pid":0}]"#;
        let list = podman(text).unwrap();
        assert_eq!((list[0].name.as_deref(), list[0].pid), (Some("web"), Some(4711)));
        assert_eq!(list[0].labels["owner"], "bob");
        assert_eq!((list[1].name.as_deref(), list[1].pid), (Some("off"), None));
        assert!(podman(b"null").unwrap().is_empty());
    }
}

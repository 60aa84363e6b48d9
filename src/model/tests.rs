use super::*;
use crate::policy;
use crate::state::{Accounts, Facts, LinkFacts, LinkName, RootQdisc};
use std::collections::BTreeMap;

fn facts() -> Facts {
    let device = |i, r: Option<&str>| LinkFacts {
        ifindex: i,
        mtu: 1500,
        speed: r.map(|r| r.parse().unwrap()),
        kind: None,
        master: None,
        lower: None,
        loopback: false,
        up: true,
        default_route_v4: (i == 2).then_some(0),
        default_route_v6: None,
        root: RootQdisc::Kernel { kind: "pfifo_fast".into() },
    };
    Facts {
        links: [("eth0", 2, Some("1gbit")), ("eth1", 3, Some("10gbit"))]
            .into_iter()
            .map(|(n, i, r)| (LinkName::new(n).unwrap(), device(i, r)))
            .collect::<BTreeMap<_, _>>(),
        accounts: Accounts {
            by_name: ["a", "b", "alice", "bob", "shop", "shop-cron", "borg"]
                .into_iter()
                .enumerate()
                .map(|(i, n)| (n.to_string(), Some(1000 + i as u32)))
                .collect(),
            groups: [("staff".to_string(), Some(50)), ("students".to_string(), Some(60))]
                .into_iter()
                .collect(),
            ..Accounts::default()
        },
        ..Facts::default()
    }
}

#[test]
fn examples() {
    for name in ["textbook", "lab", "login-node", "hosting"] {
        let text = std::fs::read_to_string(format!("policies/{name}.yaml")).unwrap();
        let policy = policy::parse(&text, name).map_err(|e| println!("{e}")).unwrap();
        let (model, notes) =
            build(&policy, &facts(), BuildOptions::default()).map_err(|e| println!("{e}")).unwrap();
        println!("{model:#?} {notes:?}");
    }
}

//! Every way to write a bad policy that we know of, and the exact text that answers it. After a
//! change: `INSTA_UPDATE=always cargo test bad_input`, and read the diff as its user would.

use super::*;
use crate::tree::Classifier;

/// A case for each paragraph: its name, the policy, what is said.
pub(super) fn golden(cases: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, policy) in cases {
        text.push_str(&format!("=== {name}\n{}\n\n", said(policy)));
    }
    text
}

/// With `version` and a link in front, unless the text brings its own.
fn said(policy: &str) -> String {
    let head = if policy.starts_with("version:") { "" } else { "version: 1\nlinks: {eth0: }\n" };
    said_on(&host(), BuildOptions::default(), &format!("{head}{policy}"))
}

#[test]
fn text_that_is_no_policy() {
    let whole = |text: &str| said_on(&host(), BuildOptions::default(), text);
    let large = format!("# a log file\n{}", "x".repeat(10 << 20));
    let bomb = format!(
        "a: &a [x, x, x, x, x, x, x, x, x, x]\n{}",
        ('b'..='h')
            .zip('a'..)
            .map(|(name, of)| format!(
                "{name}: &{name} [{}]\n",
                vec![format!("*{of}"); 10].join(", ")
            ))
            .collect::<String>()
    );
    let deep = "[".repeat(200);
    let many = format!("version: [{}]", "1,".repeat(1_100_000));
    let cases = [
        ("an empty file", ""),
        ("only a comment", "# nothing\n\n"),
        ("a file of 10 MB", large.as_str()),
        ("a YAML bomb", bomb.as_str()),
        ("deep nesting", deep.as_str()),
        ("too many values", many.as_str()),
        ("no version", "links: {eth0: }\n"),
        ("an alias in itself", "version: &a [*a]\n"),
        ("an alias of nothing", "version: 1\nlinks: *eth0\n"),
        ("a tab", "version: 1\nlinks: {eth0: }\nusers:\n\tbob: 1mbit\n"),
        ("an open bracket", "version: 1\nlinks: {eth0: \nusers:\n  bob: 1mbit\n"),
        ("an open quote", "version: 1\nlinks: {\"eth0: }\n"),
        ("bad indentation", "version: 1\nlinks:\n  eth0:\n users:\n"),
        ("a missing space", "version: 1\nlinks:\n  eth0:1gbit\n"),
        ("two documents", "version: 1\nlinks: {eth0: }\n---\nversion: 1\n"),
        ("a list at the top", "- version: 1\n"),
        ("a word", "hello\n"),
        ("a key that is a list", "version: 1\n[a, b]: c\n"),
        ("a NUL byte", "version: 1\nlinks: {eth\0: }\n"),
        ("an error after an umlaut", "version: 1\nlinks: {eth0: }\nusers: {jürgen: 1mbps}\n"),
    ];
    let mut text = String::new();
    for (name, policy) in cases {
        text.push_str(&format!("=== {name}\n{}\n\n", whole(policy)));
    }
    insta::assert_snapshot!("no_policy", text);
}

#[test]
fn keys_and_values_of_the_wrong_sort() {
    let text = golden(&[
        ("a version that is nothing", "version: \nlinks: {eth0: }\n"),
        ("another version", "version: 2\nlinks: {eth0: }\n"),
        ("no links", "version: 1\nusers: {bob: 1mbit}\n"),
        ("empty links", "version: 1\nlinks: {}\n"),
        ("links as a list", "version: 1\nlinks: [eth0]\n"),
        ("an unknown key at the top", "user: {bob: 1mbit}"),
        ("an unknown key of a link", "version: 1\nlinks: {eth0: {rat: 1gbit}}"),
        ("an unknown key of a user", "users: {bob: {cel: 1mbit}}"),
        ("an unknown key of a group", "groups: {g: {gidd: staff}}"),
        ("an unknown key of everyone", "everyone: {eech: 1mbit}"),
        ("an unknown key of a class", "classes: {nfs: {rate: 1mbit, members: [a]}}"),
        ("an unknown key of a rule", "rules: [{port: 80, to: default}]"),
        (
            "a key of a later version",
            "users: {bob: {ceil: 1mbit, quota: 10gb}}\ningress: {}\nfleet: {}\ninclude: [a.yaml]",
        ),
        ("a user twice", "users:\n  bob: 1mbit\n  ann: 2mbit\n  bob: 3mbit"),
        ("a link twice", "version: 1\nlinks:\n  eth0: 1gbit\n  eth0: 100mbit"),
        ("a field twice", "users: {bob: {ceil: 1mbit, ceil: 2mbit}}"),
        ("a section twice", "users: {bob: 1mbit}\nusers: {ann: 1mbit}"),
        ("a rate that is a list", "users: {bob: {rate: [1mbit]}}"),
        ("a rate that is nothing", "users: {bob: {rate: }}"),
        ("a user that is nothing", "users: {bob: }"),
        ("a user that is a list", "users: {bob: [1mbit]}"),
        ("users as a list", "users: [bob]"),
        ("a user without rate and ceil", "users: {bob: {prio: 1}}"),
        ("a prio that is a word", "users: {bob: {ceil: 1mbit, prio: high}}"),
        ("a prio of 8", "users: {bob: {ceil: 1mbit, prio: 8}}"),
        ("a prio of a group", "groups: {g: {gid: staff, prio: 1}}"),
        ("background of a group", "groups: {g: {gid: staff, background: true}}"),
        ("background with a rate", "users: {bob: {rate: 1mbit, ceil: 5mbit, background: true}}"),
        ("background with a prio", "users: {bob: {ceil: 5mbit, prio: 0, background: true}}"),
        ("background of each, with a rate", "everyone: {each: {rate: 1mbit, background: true}}"),
        ("background of the default", "version: 1\nlinks: {eth0: {default: {background: true}}}"),
        ("background: yes", "users: {bob: {ceil: 5mbit, background: yes}}"),
        (
            "follow without units",
            "users:\n  bob: {ceil: 5mbit, accounts: [bob],\n        follow: effective}",
        ),
        (
            "follow of a plain user, with an anchor",
            "users: {bob: &b {ceil: 5mbit, follow: effective}}",
        ),
        ("follow: saved", "users: {bob: {ceil: 5mbit, units: [smbd.service], follow: saved}}"),
        ("a group that is a rate", "groups: {g: 10mbit}"),
        ("each without gid", "users: {bob: 1mbit}\ngroups: {g: {users: [bob], each: 1mbit}}"),
        ("an unknown classifier", "version: 1\nlinks: {eth0: {classifier: bfp}}"),
        ("an unknown leaf", "version: 1\nlinks: {eth0: {leaf: codel}}"),
        ("optional: yes", "version: 1\nlinks: {eth0: {optional: yes}}"),
        ("rules as a mapping", "rules: {dst: 10.0.0.0/8, to: unshaped}"),
        ("a class without rate and ceil", "classes: {nfs: }"),
    ]);
    insta::assert_snapshot!("shape", text);
}

#[test]
fn rates_that_cannot_be() {
    let text = golden(&[
        ("zero", "users: {bob: 0mbit}"),
        ("negative", "users: {bob: -1mbit}"),
        ("no number", "users: {bob: fast}"),
        ("a bare number", "users: {bob: 100}"),
        ("a bare zero", "users: {bob: 0}"),
        ("zero bytes", "users: {bob: 0mbps}"),
        ("a bare number that is too small in kbit", "users: {bob: 0.001}"),
        ("more than 64 bits", "users: {bob: 99999999999tbit}"),
        ("mbps", "users: {bob: 100mbps}"),
        ("an unknown unit", "users: {bob: 100mb}"),
        ("a prefix alone", "users: {bob: 10M}"),
        ("a comma", "users:\n  bob: 1,5mbit"),
        ("a comma between thousands", "users:\n  bob: {ceil: '1,000mbit'}"),
        ("a comma within braces", "users: {bob: {ceil: 1,5mbit, prio: 1}, ann: 1,000,000kbit}"),
        ("no limit", "users: {bob: unlimited}"),
        ("no limit for a group", "groups: {g: {gid: staff, ceil: none}}"),
        ("no guarantee", "users: {bob: {rate: none}}"),
        ("a unit without a number", "groups: {g: {gid: staff, each: {ceil: mbit}}}"),
        ("megabytes a second", "classes: {nfs: {rate: 100MB/s}}"),
        ("a number of bits in scientific notation", "everyone: 1e6"),
        ("a share in words", "everyone: 50 percent"),
        ("per second", "users: {bob: {ceil: 10Mbit/s}}"),
        ("more than 100 %", "users: {bob: 101%}"),
        ("infinity", "users: {bob: .inf}"),
        ("true", "users: {bob: true}"),
        ("a ceil below its rate", "users: {bob: {rate: 20mbit, ceil: 10mbit}}"),
        ("a ceil above the link", "users: {bob: 2gbit}"),
        ("a rate above the link", "users: {bob: {rate: 2gbit}}"),
        ("a rate above another link", "version: 1\nlinks: {eth0: , eth1: }\nusers: {bob: 500mbit}"),
        (
            "a ceil above the group's",
            "users: {bob: 500mbit}\ngroups: {g: {ceil: 100mbit, users: [bob]}}",
        ),
        ("a group above the link", "groups: {g: {gid: staff, ceil: 2gbit}}"),
        (
            "a group above its parent",
            "groups: {g: {gid: staff, ceil: 200mbit, parent: p}, p: {ceil: 100mbit}}",
        ),
        ("a group's ceil below its rate", "groups: {g: {gid: staff, rate: 2mbit, ceil: 1mbit}}"),
        (
            "each with a ceil below its rate",
            "groups: {g: {gid: staff, each: {rate: 2mbit, ceil: 1mbit}}}",
        ),
        ("each above all together (a warning)", "everyone: {each: 50mbit, ceil: 10mbit}"),
        (
            "each above its group (a warning)",
            "groups: {g: {gid: staff, ceil: 10mbit, each: {rate: 20mbit}}}",
        ),
        ("each above the link (a warning)", "everyone: 2gbit"),
        (
            "each above one of two links (no word)",
            "version: 1\nlinks: {eth0: , eth1: }\neveryone: 500mbit",
        ),
        ("everyone above the link", "everyone: {ceil: 2gbit}"),
        ("promises above the link", "users: {ann: {rate: 600mbit}, bob: {rate: 400mbit}}"),
        (
            "promises above a group's rate",
            "users: {ann: {rate: 60mbit}, bob: {rate: 50mbit}}\ngroups: {g: {rate: 100mbit, users: [ann, bob]}}",
        ),
        (
            "promises above a group's ceil",
            "users: {ann: {rate: 60mbit}, bob: {rate: 50mbit}}\ngroups: {g: {ceil: 100mbit, users: [ann, bob]}}",
        ),
        (
            "promises of a group without rate",
            "users: {ann: {rate: 600mbit}, bob: {rate: 400mbit}}\ngroups: {g: {users: [ann]}, h: {users: [bob]}}",
        ),
        ("a link's rate above its speed", "version: 1\nlinks: {eth0: 2gbit}"),
        ("a link of unknown speed", "version: 1\nlinks: {virt0: }"),
        ("a share of an unknown speed", "version: 1\nlinks: {virt0: {rate: 95%}}"),
        ("a default that is too small", "version: 1\nlinks: {eth0: {default: {ceil: 1mbit}}}"),
        (
            "a default's rate above its ceil",
            "version: 1\nlinks: {eth0: {default: {rate: 100mbit, ceil: 50mbit}}}",
        ),
        (
            "a default above the link",
            "version: 1\nlinks: {eth0: {rate: 100mbit, default: {ceil: 200mbit}}}",
        ),
        (
            "one link only without rate and ceil",
            "users: {bob: {ceil: 1mbit, links: {eth0: {prio: 1}}}}",
        ),
    ]);
    insta::assert_snapshot!("rates", text);
}

#[test]
fn names_and_claims_that_cannot_be() {
    let text = golden(&[
        ("a path", "users: {../x: 1mbit}"),
        ("a slash", "users: {a/b: 1mbit}"),
        ("a dot", "users: {.: 1mbit}"),
        ("nothing", "users: {\"\": 1mbit}"),
        ("control characters", "users: {\"a\\u001b[31mb\": 1mbit}"),
        ("a group's path", "groups: {a/b: {gid: staff}}"),
        ("a class's path", "classes: {a/b: 1mbit}"),
        (
            "reserved names",
            "users: {root: 1mbit, default: 1mbit}\nclasses: {unshaped: 1mbit, link: 1mbit}\ngroups: {everyone: {gid: staff}}",
        ),
        ("a user and a class", "users: {bob: 1mbit}\nclasses: {bob: 1mbit}"),
        ("an unknown account", "users: {nobody-here: 1mbit}"),
        (
            "an unknown account in a list",
            "users: {backup: {ceil: 1mbit, accounts: [borg, nobody-here]}}",
        ),
        ("an unknown Unix group", "groups: {g: {gid: no-such-group}}"),
        ("no account's name", "users: {backup: {ceil: 1mbit, accounts: [\"a b\"]}}"),
        ("an account twice", "users: {bob: 1mbit, also: {ceil: 1mbit, accounts: [bob]}}"),
        ("a uid twice", "users: {a: {ceil: 1mbit, uids: 5000}, b: {ceil: 1mbit, uids: [1, 5000]}}"),
        (
            "overlapping ranges",
            "users: {a: {ceil: 1mbit, uids: 5000-}, b: {ceil: 1mbit, uids: 4000-5000}}",
        ),
        ("a uid that is a named account's", "users: {bob: 1mbit, b: {ceil: 1mbit, uids: 1002}}"),
        (
            "a unit twice",
            "users: {a: {ceil: 1mbit, units: [x.service]}, b: {ceil: 1mbit, units: [x.service]}}",
        ),
        ("a unit without its kind", "users: {a: {ceil: 1mbit, units: borg}}"),
        (
            "a unit that another line has by a pattern of the same text",
            "users: {a: {ceil: 1mbit, units: x@.service}, b: {ceil: 1mbit, units: \"x@?*.service\"}}",
        ),
        ("a group as a user", "users: {staff: 1mbit}"),
        ("a user without a colon", "users: {bob 10mbit}"),
        ("a label of two words and a share without a colon", "users: {all of us 10%}"),
        ("a group as sudo writes it", "users: {\"@physics\": 1mbit}"),
        ("a group among accounts", "users: {a: {ceil: 1mbit, accounts: [bob, \"%staff\"]}}"),
        ("a uid as a user", "users: {4711: 1mbit}"),
        ("a range of uids among accounts", "users: {a: {ceil: 1mbit, accounts: [2000-2999]}}"),
        ("a pattern as a user", "users: {\"web*\": 1mbit}"),
        ("a pattern of accounts", "users: {a: {ceil: 1mbit, accounts: [\"web-?\"]}}"),
        ("a pattern of groups", "groups: {a: {gid: \"year*\"}}"),
        ("a timer", "users: {a: {ceil: 1mbit, units: borg.timer}}"),
        ("no uid", "users: {a: {ceil: 1mbit, uids: bob}}"),
        ("a range backwards", "users: {a: {ceil: 1mbit, uids: 10-1}}"),
        ("a uid beyond 32 bits", "users: {a: {ceil: 1mbit, uids: 4294967295}}"),
        ("a negative uid", "users: {a: {ceil: 1mbit, uids: -1}}"),
        (
            "one classid twice",
            "users: {ann: {ceil: 1mbit, classid: 1:10}, bob: {ceil: 1mbit, classid: \"1:0010\"}}",
        ),
        ("a classid that is ours", "users: {ann: {ceil: 1mbit, classid: 1:1}}"),
        ("a classid that is too large", "users: {ann: {ceil: 1mbit, classid: 1:e000}}"),
        ("a classid of another qdisc", "users: {ann: {ceil: 1mbit, classid: 2:10}}"),
        ("no classid", "users: {ann: {ceil: 1mbit, classid: 10}}"),
        ("a gid twice", "groups: {a: {gid: staff}, b: {gid: staff}}"),
    ]);
    insta::assert_snapshot!("names", text);
}

#[test]
fn groups_that_cannot_be() {
    let text = golden(&[
        ("a group in itself", "groups: {a: {gid: staff, parent: a}}"),
        (
            "a circle",
            "groups: {z: {gid: staff, parent: a}, a: {parent: b}, b: {parent: c}, c: {parent: a}}",
        ),
        (
            "six deep",
            "groups: {a: {}, b: {parent: a}, c: {parent: b}, d: {parent: c}, e: {parent: d}, f: {parent: e, gid: staff}}",
        ),
        (
            "an unknown parent",
            "groups: {students: {gid: students}, a: {gid: staff, parent: student}}",
        ),
        (
            "an unknown group of a user",
            "users: {bob: {ceil: 1mbit, group: staf}}\ngroups: {staff: {gid: staff}}",
        ),
        ("an unknown user of a group", "users: {bob: 1mbit}\ngroups: {a: {users: [bop]}}"),
        (
            "a user in two groups",
            "users: {bob: 1mbit}\ngroups: {a: {users: [bob]}, b: {users: [bob]}}",
        ),
        (
            "a line and a list that differ",
            "users: {bob: {ceil: 1mbit, group: none}}\ngroups: {a: {users: [bob]}}",
        ),
        ("an empty group (a warning)", "groups: {a: {ceil: 1mbit}}"),
    ]);
    insta::assert_snapshot!("groups", text);
}

#[test]
fn rules_that_cannot_be() {
    let lists = format!(
        "rules: [{{src: [{}], dport: [{}], to: default}}]",
        (0..250).map(|i| format!("10.0.{i}.1")).collect::<Vec<_>>().join(", "),
        (0..201).map(|i| (2 * i + 1).to_string()).collect::<Vec<_>>().join(", ")
    );
    let text = golden(&[
        ("an unknown target", "users: {bob: 1mbit}\nrules: [{dport: 80, to: bop}]"),
        ("no target", "rules: [{dport: 80}]"),
        ("a group as target", "groups: {g: {gid: staff}}\nrules: [{dport: 80, to: g}]"),
        ("everyone as target", "everyone: 1mbit\nrules: [{dport: 80, to: everyone}]"),
        ("nothing to match", "rules: [{to: default}]"),
        ("IPv4 and IPv6", "rules: [{src: 10.0.0.1, dst: \"fd00::1\", to: default}]"),
        (
            "an address without partner",
            "rules: [{src: [10.0.0.1, \"fd00::1\"], dst: 10.0.0.2, to: default}]",
        ),
        ("icmp over IPv6", "rules: [{src: \"fd00::1\", proto: icmp, to: default}]"),
        ("port 70000", "rules: [{dport: 70000, to: default}]"),
        ("two ports without a list", "rules: [{dport: 80,443, to: default}]"),
        ("port 0", "rules: [{dport: 0, to: default}]"),
        ("a range of ports that ends before it begins", "rules: [{dport: 90-80, to: default}]"),
        ("a range of ports with a word", "rules: [{dport: 80-http, to: default}]"),
        (
            "a range of addresses that ends before it begins",
            "rules: [{dst: 10.0.0.9-10.0.0.5, to: default}]",
        ),
        ("a range of two families", "rules: [{dst: \"10.0.0.9-fd00::1\", to: default}]"),
        ("a range of names", "rules: [{dst: a-host, to: default}]"),
        ("VLAN 0", "rules: [{vlan: 0, to: default}]"),
        ("VLAN 4095", "rules: [{vlan: [22, 4000-4095], to: default}]"),
        (
            "a VLAN on a link that has none (a warning)",
            "version: 1\nlinks: {eth0: , lo: 1gbit}\nrules: [{vlan: 22, link: lo, to: default}]",
        ),
        ("an unknown sender", "users: {bob: 1mbit}\nrules: [{dport: 80, from: bop, to: default}]"),
        ("a group as sender", "groups: {g: {gid: staff}}\nrules: [{from: g, to: default}]"),
        ("a class as sender", "classes: {c: 1mbit}\nrules: [{from: c, to: default}]"),
        ("everyone as sender", "everyone: 1mbit\nrules: [{from: everyone, to: default}]"),
        ("root, whom nobody claims, as sender", "rules: [{from: 0, to: default}]"),
        (
            "a sender on a link that goes by the tag",
            "version: 1\nlinks: {eth0: {classifier: cgroup}}\nusers: {bob: 1mbit}\nrules: [{from: bob, to: default}]",
        ),
        ("not, with nothing", "rules: [{dst: {not: []}, to: default}]"),
        ("not, with no value", "rules: [{dst: {not: }, to: default}]"),
        ("an empty mapping", "rules: [{dport: {}, to: default}]"),
        ("not within a list", "rules: [{dport: [80, {not: 81}], to: default}]"),
        ("another word for not", "rules: [{dport: {except: 80}, to: default}]"),
        ("nothing is left", "rules: [{dst: {not: [0.0.0.0/0, \"::/0\"]}, to: default}]"),
        (
            "no protocol with ports is left",
            "rules: [{dport: 80, proto: {not: [tcp, udp]}, to: default}]",
        ),
        ("not port 80 to unshaped (a warning)", "rules: [{dport: {not: 80}, to: unshaped}]"),
        ("ports of icmp", "rules: [{dport: 80, proto: [tcp, icmp], to: default}]"),
        ("an unknown protocol", "rules: [{proto: tpc, to: default}]"),
        ("a bad address", "rules: [{src: 300.1.1.1, to: default}]"),
        ("a host name", "rules: [{src: example.org, to: default}]"),
        ("host bits", "rules: [{dst: 10.0.0.1/8, to: default}]"),
        ("an unknown link", "rules: [{dport: 80, link: eth9, to: default}]"),
        ("an unknown link of a user", "users: {bob: {ceil: 1mbit, links: {eht0: none}}}"),
        ("a rule that is a word", "rules: [unshaped]"),
        ("too many matches", lists.as_str()),
        ("port 22 to unshaped (a warning)", "rules: [{sport: 22, to: unshaped}]"),
    ]);
    insta::assert_snapshot!("rules", text);
}

#[test]
fn links_that_cannot_be() {
    let cases = [
        ("an unknown link", "version: 1\nlinks: {eth9: }"),
        ("no interface's name", "version: 1\nlinks: {eth/0: }"),
        ("auto and the same link", "version: 1\nlinks: {auto: , eth0: }"),
        ("a slave beside its bond", "version: 1\nlinks: {bond0: , slave0: , eth0: }"),
        ("a VLAN beside its parent", "version: 1\nlinks: {eth0: , eth0.7: }"),
        (
            "an optional link that is absent (a warning)",
            "version: 1\nlinks: {eth0: , eth9: {optional: true}}",
        ),
        ("a pattern that nothing fits (a warning)", "version: 1\nlinks: {eth0: , \"ppp*\": 8mbit}"),
        (
            "a ceil above a link that may come (a warning)",
            "version: 1\nlinks: {eth0: , \"ppp*\": 8mbit}\nusers: {bob: 10mbit}",
        ),
        ("a pattern that fits a bond and its port", "version: 1\nlinks: {\"*0\": 100mbit}"),
        (
            "a pattern that fits a port whose bond has a line",
            "version: 1\nlinks: {eth0: , bond0: , \"slave?\": }",
        ),
        (
            "a pattern that fits a VLAN and its parent (a warning)",
            "version: 1\nlinks: {\"eth0*\": 100mbit}",
        ),
        ("a port of a bond alone (a warning)", "version: 1\nlinks: {eth0: , slave0: }"),
        (
            "a pattern of a user that fits no line",
            "version: 1\nlinks: {eth0: , \"ppp*\": 8mbit}\nusers: {bob: {ceil: 1mbit, links: {\"wg*\": none}}}",
        ),
        (
            "an alternative name beside the link's own",
            "version: 1\nlinks: {eth0: , enp0s31f6np0-uplink: }",
        ),
        ("an alternative name (a note)", "version: 1\nlinks: {enp0s31f6np0-uplink: }"),
        ("below 5 % of the speed (a warning)", "version: 1\nlinks: {eth0: 10mbit}"),
        ("a default route without a line (a warning)", "version: 1\nlinks: {eth1: }"),
    ];
    let mut text = golden(&cases);
    let mut facts = host();
    device(&mut facts, "eth0").default_route_v4 = None;
    let auto = "version: 1\nlinks: {auto: }";
    let said = said_on(&facts, BuildOptions::default(), auto);
    text.push_str(&format!("=== auto without a default route\n{said}\n\n"));
    device(&mut facts, "wg0").default_route_v4 = Some(0);
    let said = said_on(&facts, BuildOptions::default(), auto);
    text.push_str(&format!("=== auto that is a tunnel\n{said}\n\n"));
    let beside = "version: 1\nlinks: {eth0: }";
    let said = said_on(&facts, BuildOptions::default(), beside);
    text.push_str(&format!("=== a tunnel with the default route and no line\n{said}\n\n"));
    device(&mut facts, "wg0").kind = Some("tun".to_string());
    let said = said_on(&facts, BuildOptions::default(), auto);
    text.push_str(&format!("=== auto that is a program's tunnel\n{said}\n\n"));
    let tunnel = device(&mut facts, "wg0");
    (tunnel.kind, tunnel.lower) = (Some("vxlan".to_string()), Some(2));
    let said = said_on(&facts, BuildOptions::default(), auto);
    text.push_str(&format!("=== auto that is a tunnel of the kernel's\n{said}\n\n"));
    let said = said_on(&facts, BuildOptions::default(), beside);
    text.push_str(&format!("=== such a tunnel on a link of the file\n{said}\n\n"));
    let both = "version: 1\nlinks: {eth0: , wg0: 100mbit}";
    let said = said_on(&facts, BuildOptions::default(), both);
    text.push_str(&format!("=== both\n{said}\n\n"));
    insta::assert_snapshot!("links", text);
}

#[test]
fn nss_that_does_not_answer_is_not_an_unknown_account() {
    let mut facts = host();
    facts.accounts.unavailable = Some("sssd: Connection refused".to_string());
    let policy = "version: 1\nlinks: {eth0: }\nusers: {ann: 1mbit, eve: 1mbit, fay: 1mbit}";
    let strict = said_on(&facts, BuildOptions::default(), policy);
    let lenient = BuildOptions { skip_unknown: true, ..BuildOptions::default() };
    let lenient = said_on(&facts, lenient, policy);
    let text = format!("=== by hand\n{strict}\n\n=== --skip-unknown\n{lenient}\n");
    insta::assert_snapshot!("nss", text);
}

#[test]
fn errors_are_shown_together_and_not_without_end() {
    let users: String = (0..30).map(|i| format!("  u{i}: 1mbps\n")).collect();
    let text = said(&format!("users:\n{users}"));
    assert_eq!(text.matches("error:").count(), 20);
    assert!(text.ends_with("and 10 more like these"), "{text}");
}

/// Where no classifier can decide a rule, the rule is refused where it is written.
#[test]
fn rules_that_need_ebpf() {
    let mut facts = host();
    facts.features.classifiers = [Classifier::Cgroup].into();
    let head = "version: 1\nlinks: {eth0: }\nusers: {bob: 1mbit}\n";
    let mut text = String::new();
    for rule in ["{from: bob, to: default}", "{vlan: 22, to: bob}", "{dport: 80, to: bob}"] {
        let policy = format!("{head}rules: [{rule}]\n");
        let said = said_on(&facts, BuildOptions::default(), &policy);
        text.push_str(&format!("=== {rule}\n{said}\n\n"));
    }
    insta::assert_snapshot!("rules_without_ebpf", text);
}

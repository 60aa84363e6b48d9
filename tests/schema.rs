//! The schemas in `share/shaper`, by which editors check a policy and files of `policies.d`, beside
//! the reader of policies: what one takes the other takes, of every policy here and of thousands
//! that are changed at random. The schemas' side is Debian's python3-jsonschema, as one process for
//! all of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use serde_json::{Value, json};
use shaper::policy::{self, Source};

#[path = "support/random.rs"]
#[expect(dead_code, reason = "the others need more of it")]
mod random;
use random::Random;

const HERE: &str = env!("CARGO_MANIFEST_DIR");

/// A schema, and the reader of what it is for.
struct Schema {
    path: &'static str,
    /// What the reader makes of a file: it is JSON, which is YAML.
    source: fn(&str) -> Source,
}

const POLICY: Schema = Schema {
    path: concat!(env!("CARGO_MANIFEST_DIR"), "/share/shaper/policy.schema.json"),
    source: |text| Source::new("policy", text),
};

/// Beside a policy that has what a policy must have.
const DROP_IN: Schema = Schema {
    path: concat!(env!("CARGO_MANIFEST_DIR"), "/share/shaper/drop-in.schema.json"),
    source: |text| {
        let policy = Source::new("policies.yaml", "version: 1\nlinks: {base0: 1gbit}\n");
        policy.with([("policies.d/part.yaml".to_string(), text)])
    },
};

/// How many policies are changed at random.
const CHANGED: usize = 5000;

/// What the reader of policies refuses and the schema cannot see: bounds of numbers written with a
/// unit, ends of ranges against each other, the inside of addresses, one line against another.
const BEYOND: [&str; 16] = [
    "is less than one byte per second",
    "is larger than any link",
    "ends before it begins",
    "begins in one family and ends in the other",
    "has bits set outside its network part",
    "is no IP address and no network",
    "is too large for a uid",
    "is a user and a class",
    "is longer than 62 days",
    "a second period in one quota",
    "a second quota of a",
    "the shares do not rise",
    "the caps do not fall",
    "is too slow to log in with",
    "a volume of 0 would be used up",
    "is more than can be counted",
];

/// Every key that there is, and what changed policies have in its place.
const EVERYTHING: &str = r#"
version: 1
x-room: [anything, {a: b}]
links:
  eth0: {rate: 950mbit, down: 90%, bypass_firewall: true, classifier: bpf, leaf: cake, optional: false,
    when: {night: 500mbit, work: {rate: 50%, down: 10mbit}},
    default: {rate: 50mbit, ceil: 80%, prio: 3, down: {rate: 5%, ceil: 1gbit, prio: 1}}}
  eth1: 1.5 Gbit
  auto:
  "l2tp*": {default: 10%}
users:
  bob: 100mbit
  eve: {ceil: 1gbit, quota: [{day: 50gib, then: 100mbit}, {month: 1 TiB, starts: 15, then: {50%: 500mbit, 90%: 10mbit}, counts: both, tz: UTC}]}
  4711: {ceil: 100.000%, when: {night: {rate: 1mbit, boost: 1.5MiB, prio: 3, down: {rate: 1mbit}}, work: 5%}}
  ann: {rate: 10mbit, boost: 75MB, prio: 2, classid: "1:1a", links: {eth0: none, "ppp?": 5mbit, eth1: {ceil: 1mbit}}}
  back*up: {ceil: 10%, background: true, accounts: borg, down: 5%, group: none}
  many: {down: {rate: 1mbit, ceil: 2mbit, boost: 9MB, prio: 3}, uids: [990-995, 4711, "1000-"], group: students}
  smb: {rate: 5mbit, units: [smbd.service, "user@*.service"], follow: effective, background: false}
  lab: {ceil: 50mbit, containers: [web-*, "label:owner=bob"], interfaces: [vnet3], namespaces: routerns,
    addresses: [10.8.0.5, "10.9.0.0/24", "10.0.0.5-10.0.0.40", "fd00::/64"]}
groups:
  students: {gid: students, rate: 100mbit, ceil: 60%, down: {ceil: 5%, boost: 1GB}, when: {night: {down: 5%}}, quota: {week: 1TB, starts: fri, then: 1gbit}, each: {ceil: 20mbit, boost: 64kib, prio: 5, quota: {30d: 1.5GB, then: 64kbit, counts: sent}}}
  year1: {parent: students, users: [bob, ann]}
  empty:
everyone: {uids: "1000-", rate: 10%, ceil: 80%, boost: 2GB, down: 50%, quota: {12h: 1TB, then: 1gbit, counts: received}, when: {night: 5%}, each: {ceil: 1gbit, background: true, when: {work: {prio: 7}}}}
classes:
  nfs: {rate: 30%, prio: 0, classid: "1:dfff", links: {eth0: {down: 1mbit}}}
  web: 10mbit
guests: {owner: [label, slice, uid]}
times:
  night: "22:00-06:00"
  work: {days: [mon-thu, fri], at: ["08:00-12:00", "13:00:00-18:00:30"], tz: Europe/Berlin}
rules:
  - {src: 1.2.3.4, proto: tcp, dport: 80, to: ann}
  - {dst: [10.1.0.0/16, "fd00:1::/64"], dport: [111, 2049, "40000-41000"], vlan: 22, to: nfs}
  - {sport: {not: [443, 80]}, proto: {not: 17}, vlan: {not: 1-4094}, link: eth0, from: [bob, 4711], to: default}
  - {src: {not: "fe80::1-fe80::9"}, to: unshaped}
"#;

/// Keys that no line has, or not in most places.
const STRANGE: [&str; 7] = ["quotas", "ingress", "x-y", "eth*", "a b", "root", ".a"];

/// Keys for any place: all that the schema knows, and strange ones.
static KEYS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let text = fs::read_to_string(POLICY.path).expect("the schema");
    let mut keys: BTreeSet<String> = STRANGE.map(str::to_string).into();
    properties(&serde_json::from_str(&text).expect("JSON"), &mut keys);
    assert!(keys.len() > 40, "{keys:?}");
    keys.into_iter().collect()
});

/// The names in every `properties` of a schema.
fn properties(schema: &Value, names: &mut BTreeSet<String>) {
    match schema {
        Value::Object(map) => {
            let own = map.get("properties").and_then(Value::as_object);
            names.extend(own.into_iter().flat_map(|it| it.keys().cloned()));
            map.values().for_each(|value| properties(value, names));
        }
        Value::Array(values) => values.iter().for_each(|value| properties(value, names)),
        _ => {}
    }
}

/// Texts for any place.
const TEXTS: [&str; 80] = [
    "22:00-06:00",
    "8:00-08:00:00",
    "00:00:01-24:00",
    "24:00-06:00",
    "mon-fri",
    " sat ",
    "100mbit",
    "1.5gbit",
    "0mbit",
    "0.0kbit",
    "64KiBit",
    "10 mbit",
    "10mbps",
    "10",
    "10mb",
    "500MiB",
    "8Mb",
    "1.5 gb",
    "0.0MB",
    "0kB",
    "64KBytes",
    "1iB",
    "8gibits",
    "fast",
    "-5mbit",
    "1.mbit",
    ".5mbit",
    "1e3",
    "5%",
    "100%",
    "100.0005%",
    "101%",
    "0%",
    "0.0004%",
    "0.001%",
    "012.5 %",
    "none",
    "unlimited",
    "true",
    "false",
    "yes",
    "7",
    "8",
    "+3",
    "1:1a",
    "1:10",
    "1:f",
    "1:e000",
    "01:00ff",
    "2:10",
    "1:",
    "ann",
    "a*",
    "a?",
    "a/b",
    "a:b",
    "a b",
    "",
    ".",
    "..",
    "auto",
    "990-995",
    "1000-",
    "-5",
    "5-",
    "1 - 2",
    "0-0",
    "4095",
    "65535",
    "65536",
    "borg.service",
    "x.scope",
    "borg",
    "label:a=b",
    "label:a",
    "10.0.0.0/8",
    "10.0.0.1-10.0.0.9",
    "10.0.0",
    "fd00::/64",
    "tcp",
];

/// A value of any kind.
fn any(random: &mut Random) -> Value {
    match random.below(12) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!([]),
        3 => json!({}),
        4 => json!([null]),
        5 => json!([[1]]),
        6 => json!([random.pick(&TEXTS), random.pick(&TEXTS)]),
        7 => json!({(random.pick(&KEYS).as_str()): random.pick(&TEXTS)}),
        8 => json!({"not": random.pick(&TEXTS)}),
        9 => json!(*random.pick(&[0, 1, 3, 7, 8, 22, 255, 256, 4094, 4095, 65535, 65536])),
        _ => json!(random.pick(&TEXTS)),
    }
}

/// How many values there are in a value, with itself.
fn count(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(count).sum::<usize>(),
        Value::Object(map) => 1 + map.values().map(count).sum::<usize>(),
        _ => 1,
    }
}

/// The value at a position among them.
fn nth(value: &mut Value, at: usize) -> &mut Value {
    if at == 0 {
        return value;
    }
    let mut rest = at - 1;
    let inner: Vec<&mut Value> = match value {
        Value::Array(list) => list.iter_mut().collect(),
        Value::Object(map) => map.values_mut().collect(),
        _ => unreachable!("a position beyond the value"),
    };
    for inner in inner {
        let size = count(inner);
        if rest < size {
            return nth(inner, rest);
        }
        rest -= size;
    }
    unreachable!("a position beyond the value")
}

/// Every key with each value that it has in these, the top level without its own.
fn entries(value: &Value, found: &mut Vec<(String, Value)>) {
    match value {
        Value::Array(list) => list.iter().for_each(|inner| entries(inner, found)),
        Value::Object(map) => {
            for (key, inner) in map {
                found.push((key.clone(), inner.clone()));
                entries(inner, found);
            }
        }
        _ => {}
    }
}

/// Changes one thing: a key goes, comes, or has what it or another one has elsewhere; a value
/// becomes another.
fn change(policy: &mut Value, entries: &[(String, Value)], random: &mut Random) {
    let at = random.index(count(policy));
    match (nth(policy, at), random.below(8)) {
        (Value::Object(map), 0) => {
            let key = random.one_of(map.keys().cloned());
            key.map(|key| map.remove(&key));
        }
        (Value::Object(map), 1) => {
            map.insert(random.pick(&KEYS).clone(), any(random));
        }
        (Value::Object(map), 2) => {
            let (key, value) = random.pick(entries).clone();
            map.insert(key, value);
        }
        (Value::Object(map), 3..) if !map.is_empty() => {
            let key = random.one_of(map.keys().cloned()).unwrap();
            let same = entries.iter().filter(|(name, _)| *name == key);
            let value = random.one_of(same.map(|(_, value)| value.clone()));
            let value = value.unwrap_or_else(|| random.pick(entries).1.clone());
            map.insert(key, value);
        }
        (Value::Array(list), 0..4) => list.push(any(random)),
        (place, _) => *place = any(random),
    }
}

/// What policies of this repository say, as values.
fn policies() -> Vec<Value> {
    let mut texts = vec![EVERYTHING.to_string()];
    let files = |folder: &str| fs::read_dir(Path::new(HERE).join(folder)).unwrap();
    let examples = files("policies").chain(files("policies/recipes"));
    let examples = examples.map(|file| file.unwrap().path()).filter(|path| path.is_file());
    texts.extend(examples.map(|path| fs::read_to_string(path).unwrap()));
    for case in files("tests/golden") {
        texts.extend(fs::read_to_string(case.unwrap().path().join("policies.yaml")));
    }
    let documents = files("docs").map(|file| file.unwrap().path());
    for document in documents.chain([Path::new(HERE).join("README.md")]) {
        let text = fs::read_to_string(document).unwrap();
        let blocks = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
        texts.extend(blocks.filter(|text| text.contains("version:")).map(str::to_string));
    }
    assert!(texts.len() > 40, "where are the policies?");
    // A JSON object is sorted here, by texts; steps of quotas are in their order all the same.
    let texts = texts.iter().map(|text| text.replace("100%: ", "99%: "));
    texts.map(|text| serde_yaml::from_str(&text).expect(&text)).collect()
}

impl Schema {
    /// Why the reader of policies refuses it; `None`: it takes it.
    fn refusal(&self, policy: &Value) -> Option<String> {
        policy::read((self.source)(&policy.to_string())).err().map(|report| report.to_string())
    }

    /// Which of these the schema takes.
    fn taken(&self, policies: &[Value]) -> Vec<bool> {
        const PROGRAM: &str = "
import json, pathlib, sys
from jsonschema import Draft202012Validator, RefResolver
path = pathlib.Path(sys.argv[1])
schema = json.loads(path.read_text())
Draft202012Validator.check_schema(schema)
validator = Draft202012Validator(schema, resolver=RefResolver(path.as_uri(), schema))
print(json.dumps([validator.is_valid(policy) for policy in json.load(sys.stdin)]))
";
        let mut command = assert_cmd::Command::new("/usr/bin/python3");
        command.args(["-c", PROGRAM, self.path]).write_stdin(json!(policies).to_string());
        let output = command.assert().success().get_output().stdout.clone();
        serde_json::from_slice(&output).unwrap()
    }

    /// Of these, which both take, and of thousands that begin as one of them.
    fn takes_what_the_reader_takes(&self, good: &[Value]) {
        let mut random = Random::new(14);
        let mut found = Vec::new();
        good.iter().for_each(|policy| entries(policy, &mut found));
        let mut all = good.to_vec();
        for _ in 0..CHANGED {
            let mut policy = random.pick(good).clone();
            for _ in 0..random.between(1, 3) {
                change(&mut policy, &found, &mut random);
            }
            all.push(policy);
        }
        let (mut of_both, mut of_none) = (0, 0);
        let mut wrong = Vec::new();
        for (position, (policy, taken)) in all.iter().zip(self.taken(&all)).enumerate() {
            match (self.refusal(policy), taken) {
                (None, true) => of_both += 1,
                (Some(why), _) if position < good.len() => panic!("{policy}\n{why}"),
                (Some(_), false) => of_none += 1,
                (Some(why), true) if BEYOND.iter().any(|beyond| why.contains(beyond)) => {}
                (why, _) => wrong.push(format!("{policy}\n{}", why.unwrap_or("taken".to_string()))),
            }
        }
        assert!(
            wrong.is_empty(),
            "{} of {}:\n{}",
            wrong.len(),
            all.len(),
            wrong[..wrong.len().min(5)].join("\n\n")
        );
        assert!(of_both > CHANGED / 10 && of_none > CHANGED / 4, "{of_both} {of_none}");
    }

    /// All of these are mistakes, to both.
    fn refuses(&self, texts: impl Iterator<Item = String>) {
        let policies: Vec<Value> =
            texts.map(|text| serde_yaml::from_str(&text).expect(&text)).collect();
        for (policy, taken) in policies.iter().zip(self.taken(&policies)) {
            assert!(self.refusal(policy).is_some(), "the reader takes {policy}");
            assert!(!taken, "the schema takes {policy}");
        }
    }
}

#[test]
#[ignore = "needs python3-jsonschema, which `make test` installs"]
fn the_schema_takes_what_the_reader_takes() {
    POLICY.takes_what_the_reader_takes(&policies());
}

/// A file of `policies.d` needs no version and no link, may be empty, and is beside a policy.
#[test]
#[ignore = "needs python3-jsonschema, which `make test` installs"]
fn the_schema_of_drop_ins_takes_what_the_reader_takes() {
    let mut good = policies();
    for policy in &mut good {
        let map = policy.as_object_mut().expect("a policy");
        map.remove("version");
        map.remove("links");
    }
    good.extend([Value::Null, json!({}), json!({"links": null}), json!({"links": {}})]);
    good.push(json!({"version": 1, "links": {"eth7": "1gbit"}}));
    DROP_IN.takes_what_the_reader_takes(&good);
}

#[test]
#[ignore = "needs python3-jsonschema, which `make test` installs"]
fn both_refuse_the_usual_mistakes() {
    let mistakes = [
        "users: {bob: 10mbps}",
        "users: {bob: 100}",
        "users: {bob: {cell: 10mbit}}",
        "users: {bob: {}}",
        "users: {bob: }",
        "users: {\"b*\": 10mbit}",
        "users: {root: 10mbit}",
        "users: {bob: {ceil: 110%}}",
        "users: {bob: {ceil: 10mbit, prio: 8}}",
        "users: {bob: {ceil: 10mbit, quota: 5gib}}",
        "users: {bob: {ceil: 10mbit, quota: []}}",
        "users: {bob: {ceil: 10mbit, quota: {month: 5gib}}}",
        "users: {bob: {ceil: 10mbit, quota: {then: 1mbit}}}",
        "users: {bob: {ceil: 10mbit, quota: {year: 5gib, then: 1mbit}}}",
        "users: {bob: {ceil: 10mbit, quota: {month: 5gbit, then: 1mbit}}}",
        "users: {bob: {ceil: 10mbit, quota: {month: 5Gb, then: 1mbit}}}",
        "users: {bob: {ceil: 10mbit, quota: {month: 5, then: 1mbit}}}",
        "users: {bob: {ceil: 10mbit, quota: {month: 0GB, then: 1mbit}}}",
        "users: {bob: {ceil: 10mbit, quota: {month: 5GB, then: 50%}}}",
        "users: {bob: {ceil: 10mbit, quota: {month: 5GB, then: {}}}}",
        "users: {bob: {ceil: 10mbit, quota: {month: 5GB, then: {110%: 1mbit}}}}",
        "users: {bob: {ceil: 10mbit, quota: {month: 5GB, starts: 32, then: 1mbit}}}",
        "users: {bob: {ceil: 10mbit, quota: {week: 5GB, starts: 1, then: 1mbit}}}",
        "users: {bob: {ceil: 10mbit, quota: {day: 5GB, starts: 1, then: 1mbit}}}",
        "users: {bob: {ceil: 10mbit, quota: {0d: 5GB, then: 1mbit}}}",
        "users: {bob: {ceil: 10mbit, links: {eth0: {ceil: 1mbit, quota: {day: 5GB, then: 1mbit}}}}}",
        "classes: {nfs: {ceil: 10mbit, quota: {day: 5GB, then: 1mbit}}}",
        "users: {bob: {ceil: 10mbit, follow: effective}}",
        "users: {bob: {ceil: 10mbit, when: {}}}",
        "users: {bob: {ceil: 10mbit, when: {night: {}}}}",
        "users: {bob: {ceil: 10mbit, background: true, when: {night: {rate: 5mbit}}}}",
        "groups: {lab: {ceil: 10mbit, when: {night: {prio: 1}}}}",
        "times: {night: {tz: UTC}}",
        "times: {night: 22-06}",
        "times: {night: 22:00-22:00}",
        "times: {work: {days: monday}}",
        "users: {bob: {rate: 10mbit, background: true}}",
        "users: {bob: {ceil: 10mbit, prio: 2, background: true}}",
        "users: {bob: {ceil: 10mbit, classid: \"1:e000\"}}",
        "users: {bob: {ceil: 10mbit, units: [borg]}}",
        "users: {bob: {ceil: 10mbit, interfaces: auto}}",
        "users: {bob: {ceil: 10mbit, addresses: []}}",
        "users: {bob: {ceil: 10mbit, links: 5mbit}}",
        "users: [bob]",
        "groups: {students: 10mbit}",
        "groups: {students: {each: {ceil: 1mbit}}}",
        "groups: {students: {ceil: 10mbit, prio: 1}}",
        "everyone: {each: {ceil: 0mbit}}",
        "classes: {web: {rate: 1mbit, uids: 5}}",
        "guests: ",
        "guests: {owner: [label, label]}",
        "rules: [{dst: 10.0.0.0/8}]",
        "rules: [{dst: [], to: bob}]",
        "rules: [{dst: example.org, to: bob}]",
        "rules: [{dport: 70000, to: bob}]",
        "rules: [{dport: {nor: 80}, to: bob}]",
        "rules: [{vlan: 4095, to: bob}]",
        "rules: [{proto: tpc, to: bob}]",
        "rules: {to: bob}",
        "user: {bob: 10mbit}",
        "include: more.yaml",
    ];
    let on_a_link = |text: &str| format!("version: 1\nlinks: {{eth0: 1gbit}}\n{text}\n");
    let others = [
        "links: {eth0: 1gbit}",
        "version: 2\nlinks: {eth0: 1gbit}",
        "version: 1",
        "version: 1\nlinks: {}",
        "version: 1\nlinks: [eth0]",
        "version: 1\nlinks: {eth0: {rate: 1gbit, leaf: fqcodel}}",
        "version: 1\nlinks: {eth0: {rate: 1gbit, default: {down: 5mbit}}}",
        "version: 1\nlinks: {eth0: {rate: 1gbit, default: {background: true}}}",
        "version: 1\nlinks: {eth0: {rate: 1gbit, optional: maybe}}",
        "version: 1\nlinks: {eth0: {rate: 1gbit, when: {night: {down: 5mbit}}}}",
        "version: 1\nlinks: {a/b: 1gbit}",
    ];
    let texts = mistakes.map(on_a_link).into_iter().chain(others.map(str::to_string));
    POLICY.refuses(texts);
    DROP_IN.refuses(mistakes.into_iter().map(str::to_string));
}

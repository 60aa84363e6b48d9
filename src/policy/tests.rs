use super::*;

#[test]
fn a_scalar_keeps_its_text_and_its_place() {
    let policy = parse("version: 1\nlinks:\n  eth0: 1gbit\nusers:\n  007: 010mbit\n  no: 10%\n  ~: {ceil: \"5mbit\", classid: 1:10}\n", "p.yaml").unwrap();
    let keys: Vec<_> = policy.users.iter().map(|u| u.key.value.as_str()).collect();
    assert_eq!(keys, ["007", "no", "~"]);
    println!("{policy:#?}");
}

#[test]
fn errors() {
    for text in [
        "version: 1\nlinks: {eth0: }\nusers:\n\tbob: 1mbit\n",
        "a: [",
        "",
        "version: 1\nlink: {eth0: }\nusers: {bob: 1mbps, bob: -1mbit, a: {cel: [1]}, b: {ceil: [1], prio: high}}",
        "a: *b",
        "---\na: 1\n---\nb: 2\n",
        "- 1\n- 2",
        "x",
        "a: &a [*a]",
    ] {
        println!("{}\n", parse(text, "p.yaml").unwrap_err());
    }
}

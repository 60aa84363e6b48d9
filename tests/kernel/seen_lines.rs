//! What `why` says of lines and links that are in force and no longer in the file.

use serde_json::{Value, json};

use crate::support::accounts::{ANN, ROOT};
use crate::support::command::run;
use crate::support::harness::{On, tests};
use crate::support::orders::{Acting, Order};
use crate::support::program::{apply, classid, policy, shaper};
use crate::support::world::World;

tests!(On::Host =>
    why_says_what_is_in_force_and_no_longer_in_the_file,
    why_says_of_a_server_that_acts_for_a_user_which_sockets_are_hers
);

const POLICY: &str = "
version: 1
links: {up0: {rate: 100mbit, down: 50mbit}, late0: {rate: 80mbit}}
users:
  ann: {ceil: 20mbit, down: 10mbit}
  backup: {accounts: [bob], ceil: 10mbit}
everyone: {each: {ceil: 5mbit}}
";

/// The document, and what is printed.
#[track_caller]
fn why(subject: &str, text: &str) -> (Value, String) {
    let file = policy(text);
    let document = shaper(&["why", subject, "--json", "--file", &file]).exits(0).json();
    (document, shaper(&["why", subject, "--file", &file]).exits(0).stdout)
}

/// Each port that is answered about, with what of it the file lacks.
fn lacks(answer: &Value) -> Vec<[Value; 3]> {
    let links = answer["links"].as_array().expect("links").iter();
    let lack = |link: &Value| link.get("file_lacks").cloned().unwrap_or(json!("nothing"));
    links.map(|link| [link["dev"].clone(), link["direction"].clone(), lack(link)]).collect()
}

fn why_says_what_is_in_force_and_no_longer_in_the_file() {
    let _world = World::new();
    run("ip link add late0 type veth peer name later0");
    run("ip link set late0 up");
    apply(POLICY);
    let backup = classid("user/backup");
    // A line, by its name and by an account's.
    let without = POLICY.replace("  backup: {accounts: [bob], ceil: 10mbit}\n", "");
    let (answer, text) = why("backup", &without);
    assert_eq!(
        (&answer["claimed_by"], &answer["classid"]),
        (&json!("users.backup"), &json!(backup))
    );
    assert_eq!((&answer["file"], &answer["line"]), (&Value::Null, &Value::Null));
    assert_eq!(answer["links"][0]["in_force"]["ceil_bit"], 10_000_000, "{answer}");
    let begins = format!("backup: users.backup\n  class {backup}\n  up0: rate ");
    let ends = "  in force; the file has no such line: apply has not run since\n";
    assert!(text.starts_with(&begins) && text.ends_with(ends), "{text}");
    for subject in ["bob", "uid:2002"] {
        let (answer, text) = why(subject, &without);
        assert_eq!(answer["classid"], backup.as_str(), "{answer}");
        let note = "  in force it is backup's; the file says everyone: apply has not run since\n";
        assert!(text.contains(note), "{text}");
    }
    let (answer, text) = why("bob", POLICY);
    assert_eq!(answer["classid"], backup.as_str(), "{answer}");
    assert!(!text.contains("apply has not run"), "{text}");
    // A link, and one direction of another.
    let less = POLICY.replace(", late0: {rate: 80mbit}", "");
    let less = less.replace(", down: 50mbit", "").replace(", down: 10mbit", "");
    let nothing = json!(["up0", "egress", "nothing"]);
    for subject in ["ann", "default", "unshaped"] {
        let (answer, text) = why(subject, &less);
        let wanted = json!([nothing, ["late0", "egress", "link"], ["up0", "ingress", "link"]]);
        assert_eq!(json!(lacks(&answer)), wanted, "{answer}");
        for port in ["late0", "up0 ingress"] {
            let words = format!("; the file does not shape {port}: apply has not run since\n");
            assert!(text.contains(&words), "{text}");
        }
    }
    // A class on one link.
    let none = POLICY.replace("ann: {", "ann: {links: {late0: none}, ");
    let (answer, text) = why("ann", &none);
    let [up, down] = ["egress", "ingress"].map(|direction| json!(["up0", direction, "nothing"]));
    assert_eq!(json!(lacks(&answer)), json!([up, down, ["late0", "egress", "class"]]), "{answer}");
    assert!(text.contains("; the file says no class here: apply has not run since\n"), "{text}");
}

fn why_says_of_a_server_that_acts_for_a_user_which_sockets_are_hers() {
    let world = World::new();
    let text = POLICY.replace(", late0: {rate: 80mbit}", "");
    apply(&text);
    let mut server = world.actor(ROOT);
    server.tell(&Order::Act { uid: ANN.uid, by: Acting::Effective });
    let (answer, said) = why(&format!("pid:{}", server.pid()), &text);
    assert_eq!((&answer["classid"], &answer["claimed_by"]), (&Value::Null, &Value::Null));
    let note = format!(
        "  it acts as uid {} now: the sockets that it makes are that uid's, those that it had are not\n",
        ANN.uid
    );
    assert!(said.contains(&note) && !said.contains("apply has not run"), "{said}");
}

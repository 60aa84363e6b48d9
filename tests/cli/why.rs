//! `why` of classes by their numbers, of groups, of guests that are not here, and of what is no
//! subject at all; and of a line that is in another group by now.

use super::invoke::{exactly, host, shaper};
use crate::support::command::run;
use crate::support::harness::{On, tests};
use crate::support::program::{classid, policy};

tests!(On::Host =>
    a_class_is_named_as_tc_or_as_net_cls_does, a_groups_connections_are_its_members,
    what_the_host_sends_to_itself_passes_no_link,
    what_a_guest_sends_to_the_host_comes_in_by_its_link, who_is_awaited_has_his_line,
    words_that_are_no_subject_have_a_cure, a_line_that_moves_is_in_its_old_group_until_the_apply,
    of_connections_the_kernel_answers_where_the_policy_is_refused
);

const POLICY: &str = "
version: 1
links: {up0: {rate: 1gbit, leaf: bfifo}}
users:
  ann: 20mbit
  bob: 10mbit
  vm: {ceil: 5mbit, interfaces: [vnet3], addresses: [10.8.0.0/24]}
groups:
  students: {ceil: 100mbit, users: [ann]}
rules:
  - {dport: 25, to: bob}
";

fn shaped() -> String {
    host();
    let path = policy(POLICY);
    shaper(&format!("apply -q {path}")).assert().code(0);
    path
}

fn said(words: &str) -> String {
    let output = shaper(words).assert().code(0).get_output().stdout.clone();
    String::from_utf8(output).expect("text")
}

fn error(words: &str) -> String {
    let output = shaper(words).assert().code(2).stdout("").get_output().stderr.clone();
    String::from_utf8(output).expect("text")
}

fn a_class_is_named_as_tc_or_as_net_cls_does() {
    let path = shaped();
    let ann = classid("user/ann");
    let minor = ann.strip_prefix("1:").expect("of ours");
    let wanted = said(&format!("why -f {path} {ann}"));
    assert!(wanted.starts_with(&format!("class {ann}, which is ann's: users.ann at ")), "{wanted}");
    for word in [format!("1:00{minor}"), format!("0x100{minor}"), format!("0X000100{minor}")] {
        assert_eq!(said(&format!("why -f {path} {word}")), wanted, "{word}");
    }
    let link = error(&format!("why -f {path} 1:1"));
    assert!(link.starts_with("error: class 1:1 is the whole link's"), "{link}");
}

/// A class with others below it holds no packet.
fn a_groups_connections_are_its_members() {
    let path = shaped();
    let bob = classid("user/bob");
    let web = said(&format!("why -f {path} students --from 192.0.2.9:5000 --to 192.0.2.1:80"));
    assert!(!web.contains("connection:"), "{web}");
    assert!(web.contains("it is the class of the member who sends"), "{web}");
    let mail = said(&format!("why -f {path} students --from 192.0.2.9:5000 --to 192.0.2.1:25"));
    assert!(
        mail.contains(&format!("connection: up0: rule 1 sends it to bob, class {bob}")),
        "{mail}"
    );
}

/// What is in force first, and then why the file says nothing: where it has an error, and where
/// there is none.
fn of_connections_the_kernel_answers_where_the_policy_is_refused() {
    host();
    run("ip link add vnet3 type veth peer name far-vnet3");
    run("ip link set vnet3 up");
    let text = POLICY.replace(", addresses: [10.8.0.0/24]", "");
    let path = policy(&text);
    shaper(&format!("apply -q {path}")).assert().code(0);
    let (ann, bob, vm) = (classid("user/ann"), classid("user/bob"), classid("user/vm"));
    policy(&text.replace("20mbit", "20mbps"));
    let missing = format!("{path}.missing");
    let mail = format!("connection: up0: rule 1 sends it to bob, class {bob}; ");
    let web = format!("connection: up0: no rule decides: ann, class {ann}; ");
    let guests = format!("connection: up0: no rule decides: vm, class {vm}; ");
    let (from, to) = ("--from 192.0.2.9:5000", "--to 192.0.2.1");
    let begins = |whose: &str, class: &str| format!("{whose}\n  class {class}\n");
    for (file, why, how_many) in
        [(&path, "error: `20mbps`", usize::MAX), (&missing, "error: cannot read", 2)]
    {
        let asked = [
            (format!("ann {from} {to}:25"), begins("ann: users.ann", &ann), Some(&mail)),
            (format!("ann {from} {to}:80"), begins("ann: users.ann", &ann), Some(&web)),
            (
                format!("students {from} {to}:25"),
                String::from("students: groups.students\n"),
                Some(&mail),
            ),
            (format!("students {from} {to}:80"), "students: groups.students\n".into(), None),
            (
                format!("192.0.2.1:25 {from}"),
                "a connection with 192.0.2.1:25: ".into(),
                Some(&mail),
            ),
            (
                format!("guest:vnet3 {from} {to}:80"),
                begins("link vnet3: users.vm\n  comes in by vnet3", &vm),
                Some(&guests),
            ),
            (format!("vnet3 {from} {to}:25"), "link vnet3: users.vm\n".into(), Some(&mail)),
            (format!("default {from} {to}:25"), "default\n  class 1:fffe\n".into(), Some(&mail)),
        ];
        for (words, first, wanted) in asked.into_iter().take(how_many) {
            let output = shaper(&format!("why -f {file} {words}")).assert().code(2);
            let said = String::from_utf8_lossy(&output.get_output().stdout).into_owned();
            let error = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
            assert!(said.starts_with(&first) && error.starts_with(why), "{said}{error}");
            let ends = "  this is what the kernel has: the policy is refused, or cannot be read\n";
            assert!(said.ends_with(ends), "{said}");
            match wanted {
                Some(wanted) => assert!(said.contains(wanted), "{words}: {said}"),
                None => assert!(!said.contains("connection:"), "{words}: {said}"),
            }
        }
    }
    let words = format!("why --json -f {path} ann {from} {to}:25");
    let output = shaper(&words).assert().code(2).stderr("").get_output().stdout.clone();
    let document: serde_json::Value = serde_json::from_slice(&output).expect("one document");
    assert_eq!(document["connection"][0]["rule"], 1, "{document}");
    assert_eq!(document["errors"][0]["line"], 5, "{document}");
}

fn what_the_host_sends_to_itself_passes_no_link() {
    let path = shaped();
    run("ip link set lo up");
    for end in ["127.0.0.1:80", "[::1]:80"] {
        let text = said(&format!("why -f {path} ann --to {end}"));
        assert!(!text.contains("connection:"), "{text}");
        assert!(
            text.contains("is this host: such packets go by lo, which is not shaped"),
            "{text}"
        );
    }
}

fn what_a_guest_sends_to_the_host_comes_in_by_its_link() {
    let path = shaped();
    run("ip link add vc1 type veth peer name far-vc1");
    run("ip addr add 198.51.100.1/24 dev vc1");
    run("ip link set vc1 up");
    for (end, wanted) in [
        ("198.51.100.1:80", "198.51.100.1 is this host: such packets come in by vc1 and go on"),
        ("127.0.0.1:80", "127.0.0.1 is the guest itself"),
    ] {
        let text = said(&format!("why -f {path} guest:vc1 --to {end}"));
        assert!(text.contains(wanted), "{text}");
        assert!(!text.contains("by lo") && !text.contains("connection:"), "{text}");
    }
}

fn who_is_awaited_has_his_line() {
    let path = shaped();
    for guest in ["vnet3", "10.8.0.5"] {
        let wanted = format!(
            "error: {guest} is no guest here now; users.vm at {path}:7:3 is for it once it is\n"
        );
        exactly(&mut shaper(&format!("why -f {path} {guest}")), 2, "", &wanted);
    }
}

fn words_that_are_no_subject_have_a_cure() {
    let path = shaped();
    for (word, cure) in [
        ("192.0.2.1", "`shaper why 192.0.2.1:443`"),
        ("example.org:443", "(names are not looked up)"),
        ("ann --to example.org:443", "(names are not looked up)"),
        ("ann --to 192.0.2.1", "as 10.1.2.3:443 or [fd00::1]:443"),
        ("ANN", "(did you mean ann?)"),
    ] {
        let text = error(&format!("why -f {path} {word}"));
        assert!(text.contains(cure), "{word}: {text}");
    }
    let unit = said(&format!("why -f {path} cron.service"));
    let wanted = "unit cron.service: no line of the policy\n  no line names the unit: its processes count by their uids\n";
    assert_eq!(unit, wanted);
}

fn a_line_that_moves_is_in_its_old_group_until_the_apply() {
    let path = shaped();
    assert!(!said(&format!("why -f {path} ann")).contains("apply has not run"));
    let moved = policy(&POLICY.replace("users: [ann]", "users: [bob]"));
    for (user, is) in [
        ("ann", "in force it is in group students; the file says in no group"),
        ("bob", "in force it is in no group; the file says in group students"),
    ] {
        let text = said(&format!("why -f {moved} {user}"));
        assert!(text.contains(is), "{text}");
    }
}

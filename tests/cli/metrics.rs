//! `status --metrics`: what Prometheus' own tools say of it, totals that never go down, and one
//! HTTP request on standard input.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

use super::invoke::{Sleeper, host, shaper};
use crate::support::accounts::{ANN, Account, BOB, CAROL};
use crate::support::clock::soon;
use crate::support::command::{run, run_with};
use crate::support::daemon::Daemon;
use crate::support::harness::{On, tests};
use crate::support::program::{binary, policy};

tests!(On::Host =>
    promtool_finds_nothing_wrong, metrics_are_what_status_says_of_many_and_of_few, totals_go_on_where_classes_are_made_again,
    a_request_on_standard_input_is_answered, a_real_prometheus_answers_the_boards_queries
);

const POLICY: &str = "
version: 1
links: {up0: {rate: 1gbit, leaf: bfifo}}
users: {ann: 20mbit, bob: {uids: 0, ceil: 10mbit}}
groups:
  students: {rate: 100mbit, users: [ann]}
everyone: 5mbit
";

/// The first of many accounts.
const MANY_S: Account = Account { uid: 30_000, gid: 30_000, also: None };

/// The rules and the board, beside the sources.
fn contrib(file: &str) -> String {
    format!("{}/contrib/{file}", env!("CARGO_MANIFEST_DIR"))
}

fn shaped() -> String {
    let _host = host();
    let path = policy(POLICY);
    shaper(&format!("apply -q {path}")).assert().code(0);
    path
}

fn metrics(words: &str) -> String {
    let output = shaper(&format!("status --metrics {words}")).assert().code(0).stderr("");
    String::from_utf8(output.get_output().stdout.clone()).expect("text")
}

/// The value of a sample, by its name and labels.
#[track_caller]
fn value(metrics: &str, sample: &str) -> u64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    let number = line.unwrap_or_else(|| panic!("no {sample} in\n{metrics}"));
    number.parse().expect("a number")
}

/// Root, who is bob in the policy, sends so many datagrams out of the link.
fn send(datagrams: usize) {
    run("ip addr replace 192.0.2.1/24 dev up0");
    run("ip neigh replace 192.0.2.9 lladdr 02:00:00:00:00:09 dev up0");
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
    for _ in 0..datagrams {
        socket.send_to(&[0; 958], "192.0.2.9:9").expect("send");
    }
    sleep(Duration::from_millis(300));
}

fn promtool(words: &[&str], input: &str) {
    let mut promtool = Command::new("promtool");
    promtool.args(words);
    let done = run_with(promtool, input).exits(0);
    assert!(!done.stderr.contains("error"), "{}", done.stderr);
}

fn promtool_finds_nothing_wrong() {
    let path = shaped();
    promtool(&["check", "metrics"], &metrics(""));
    assert!(!metrics("").contains("shaper_placement_seconds"), "there was no daemon");
    assert!(Daemon::start(&["watch", &path]).end().success());
    let after = metrics("");
    promtool(&["check", "metrics"], &after);
    for sample in [
        "shaper_placement_seconds_count",
        "shaper_events_lost_total",
        "shaper_repairs_total{link=\"up0\"}",
    ] {
        assert_eq!(value(&after, sample), 0);
    }
    // One of the two windows holds, and a limit has an end.
    let text = "
version: 1
times: {first: \"00:00-12:00\", then: \"12:00-24:00\"}
links: {up0: {rate: 1gbit, leaf: bfifo}}
users: {ann: {ceil: 20mbit, when: {first: 30mbit, then: 40mbit}, quota: {day: 1GiB, then: 1mbit}}}
";
    shaper(&format!("apply -q {}", policy(text))).assert().code(0);
    let changing = metrics("");
    promtool(&["check", "metrics"], &changing);
    let anns = "{link=\"up0\",direction=\"egress\",user=\"ann\"";
    let until = value(&changing, &format!("shaper_class_limit_until_timestamp_seconds{anns}}}"));
    assert_eq!(until % 60, 0, "{changing}");
    let info = format!("shaper_class_limit_info{anns},by=\"when\",why=\"");
    assert!(changing.contains(&info), "{changing}");
    promtool(&["check", "rules", &contrib("shaper.rules.yml")], "");
    promtool(&["test", "rules", &contrib("shaper.rules.test.yml")], "");
    let open = shaper("status --metrics=openmetrics").assert().code(0).stderr("");
    assert!(open.get_output().stdout.ends_with(b"\n# EOF\n"));
}

const BOBS: &str = "shaper_class_sent_bytes_total{link=\"up0\",direction=\"egress\",user=\"bob\"}";

fn totals_go_on_where_classes_are_made_again() {
    let path = shaped();
    send(20);
    let first = value(&metrics(""), BOBS);
    assert!((20_000..30_000).contains(&first), "{first}");
    // Nothing remembers what a class has counted that is gone, but the ledger.
    run("tc qdisc del dev up0 root");
    shaper(&format!("apply -q {path}")).assert().code(0);
    // The kernel's own packets of a link that is new (multicast groups) may come meanwhile.
    let again = value(&metrics(""), BOBS);
    assert!((first..first + 5_000).contains(&again), "{first}, then {again}");
    send(20);
    let second = value(&metrics(""), BOBS);
    assert!(second >= first + 20_000, "{second}");
    // Removed, and back.
    let without = POLICY.replace(", bob: {uids: 0, ceil: 10mbit}", "");
    shaper("apply -q -").write_stdin(without).assert().code(0);
    assert!(!metrics("").contains(BOBS));
    shaper(&format!("apply -q {path}")).assert().code(0);
    assert!(value(&metrics(""), BOBS) >= second);
    assert_eq!(value(&metrics(""), "shaper_user_processes{user=\"ann\"}"), 0);
    let one = metrics("--top 1");
    assert!(one.contains(BOBS) && !one.contains("user=\"ann\""), "{one}");
    assert!(value(&one, "shaper_last_apply_timestamp_seconds") > 1_600_000_000);
    let rate = "shaper_link_rate_bytes_per_second{link=\"up0\",direction=\"egress\"}";
    assert_eq!(value(&one, rate), 125_000_000);
}

/// Metrics are made of a small part of what status is made of: where many have directories, and
/// where few do, and each way.
fn metrics_are_what_status_says_of_many_and_of_few() {
    let _host = host();
    let sleepers = [ANN, ANN, BOB, CAROL, MANY_S].map(Sleeper::of);
    for many in [60, 0] {
        let many: String = (0..many)
            .map(|n| format!("  m{n:03}: {{ceil: 5mbit, uids: {}}}\n", MANY_S.uid + n))
            .collect();
        let path = policy(&format!(
            "version: 1\nlinks:\n  up0: {{rate: 1gbit, down: 500mbit}}\nusers:\n{many}  \
             ann: {{rate: 20mbit, down: 30mbit}}\n  tester: {{uids: 0, ceil: 300kbit}}\n\
             groups:\n  students: {{rate: 100mbit, users: [ann]}}\neveryone: 5mbit\n"
        ));
        shaper(&format!("apply -q {path}")).assert().code(0);
        shaper(&format!("attach -q ann {}", sleepers[2].pid())).assert().code(0);
        let status = || -> Value {
            let output = shaper("status --json").assert().code(0);
            serde_json::from_slice(&output.get_output().stdout).expect("JSON")
        };
        let dropped = |status: &Value| {
            let mut users = status["links"][0]["users"].as_array().expect("users").iter();
            users.find(|user| user["user"] == "tester").expect("tester")["drops"].as_u64()
        };
        // What fq_codel drops its class does not count.
        send(400);
        soon("its leaf drops", Duration::from_secs(60), || dropped(&status()) > Some(0));
        let (before, metrics, after) = (status(), metrics(""), status());
        let mut compared = 0;
        let links = [&before, &after].map(|it| it["links"].as_array().expect("links"));
        for (link, later) in links[0].iter().zip(links[1]) {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
            let direction = text(&link["direction"]);
            let users = [link, later].map(|it| it["users"].as_array().expect("users"));
            assert_eq!(users[0].len(), users[1].len());
            for (user, later) in users[0].iter().zip(users[1]) {
                let name = text(&user["user"]);
                let labels = format!("link=\"up0\",direction=\"{direction}\",user=\"{name}\"");
                let of = |family: &str| value(&metrics, &format!("{family}{{{labels}}}"));
                for (family, field) in [
                    ("shaper_class_sent_bytes_total", "sent_bytes"),
                    ("shaper_class_sent_packets_total", "sent_packets"),
                    ("shaper_class_dropped_packets_total", "drops"),
                    ("shaper_class_overlimits_total", "overlimits"),
                    ("shaper_class_borrowed_packets_total", "borrows"),
                ] {
                    let [low, high] = [user, later].map(|it| it[field].as_u64().expect(field));
                    // The root's class was read in the first round, too, and its total goes on.
                    let is_between =
                        (low..=high).contains(&of(family)) || many.is_empty() && name == "tester";
                    assert!(is_between, "{name}: {family} is not {low} to {high}\n{metrics}");
                }
                for (family, field) in [("rate", "rate_bit"), ("ceil", "ceil_bit")] {
                    let family = format!("shaper_class_{family}_bytes_per_second");
                    assert_eq!(of(&family), user[field].as_u64().expect(field) / 8, "{name}");
                }
                let group = text(&user["group"]);
                let (classid, source) = (text(&user["classid"]), text(&user["source"]));
                let info = format!(
                    "shaper_class_info{{{labels},classid=\"{classid}\",group=\"{group}\",source=\"{source}\"}}"
                );
                assert_eq!(value(&metrics, &info), 1);
                if source != "class" {
                    let processes = format!("shaper_user_processes{{user=\"{name}\"}}");
                    // Whoever asks is one of root's.
                    let more = u64::from(name == "tester");
                    let [low, high] =
                        [user, later].map(|it| it["processes"].as_u64().expect("a number"));
                    let found = value(&metrics, &processes);
                    assert!((low.min(high)..=low.max(high) + more).contains(&found), "{name}");
                }
                compared += 1;
            }
        }
        assert!(compared >= if many.is_empty() { 6 } else { 120 }, "{compared}");
        assert_eq!(value(&metrics, "shaper_user_processes{user=\"ann\"}"), 3);
        let dropped =
            "shaper_class_dropped_packets_total{link=\"up0\",direction=\"egress\",user=\"tester\"}";
        assert!(value(&metrics, dropped) > 0);
        let down = "shaper_link_rate_bytes_per_second{link=\"up0\",direction=\"ingress\"}";
        assert_eq!(value(&metrics, down), 500_000_000 / 8);
        if !many.is_empty() {
            assert_eq!(value(&metrics, "shaper_user_processes{user=\"m000\"}"), 1);
        }
        shaper("clear -q").assert().code(0);
    }
}

fn a_request_on_standard_input_is_answered() {
    shaped();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    for (path, status) in [("/metrics", "HTTP/1.0 200 OK\r\n"), ("/", "HTTP/1.0 404 Not Found\r\n")]
    {
        let mut client =
            TcpStream::connect(listener.local_addr().expect("an address")).expect("a client");
        let (server, _) = listener.accept().expect("a connection");
        let stdin: OwnedFd = server.try_clone().expect("another descriptor").into();
        let stdout: OwnedFd = server.into();
        write!(client, "GET {path} HTTP/1.1\r\nHost: here\r\n\r\n").expect("ask");
        let mut shaper = Command::new(binary());
        shaper.args(["status", "--metrics", "--http"]).stdin(Stdio::from(stdin));
        assert!(shaper.stdout(Stdio::from(stdout)).status().expect("run shaper").success());
        drop(shaper);
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with(status), "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
        assert_eq!(body.contains("shaper_build_info"), path == "/metrics", "{body}");
    }
}

/// With Prometheus' server, which takes a while to start: `make nightly` says so.
fn a_real_prometheus_answers_the_boards_queries() {
    if std::env::var_os("SHAPER_PROMETHEUS").is_none() {
        println!("in `make nightly` only");
        return;
    }
    let daemon = Daemon::start(&["watch", &shaped()]);
    run("ip link set lo up");
    let folder = Path::new(crate::support::cell::SCRATCH);
    let config = "
scrape_configs:
- job_name: shaper
  scrape_interval: 1s
  static_configs:
  - targets: ['127.0.0.1:9912']
";
    std::fs::write(folder.join("prometheus.yml"), config).expect("a configuration");
    let mut serve = Command::new("systemd-socket-activate");
    serve.args(["-a", "--inetd", "-l", "127.0.0.1:9912"]).arg(binary());
    let mut serve = serve.args(["status", "--metrics", "--http"]).spawn().expect("a server");
    let mut prometheus = Command::new("prometheus");
    prometheus.arg(format!("--config.file={}/prometheus.yml", folder.display()));
    prometheus.arg(format!("--storage.tsdb.path={}/data", folder.display()));
    prometheus.arg("--web.listen-address=127.0.0.1:9913").stderr(Stdio::null());
    let mut prometheus = prometheus.spawn().expect("prometheus");
    let ask = |query: &str| {
        let mut promtool = Command::new("promtool");
        promtool.args(["query", "instant", "http://127.0.0.1:9913", query]);
        run_with(promtool, "").stdout
    };
    let patience = Duration::from_secs(60);
    soon("it is scraped", patience, || {
        ask("count_over_time(shaper_build_info[1m]) > 5").contains("=>")
    });
    send(20);
    sleep(Duration::from_secs(4));
    let board = std::fs::read_to_string(contrib("grafana-board.json")).expect("the board");
    let board: serde_json::Value = serde_json::from_str(&board).expect("JSON");
    let panels = board["panels"].as_array().expect("panels");
    let mut asked = 0;
    for target in panels.iter().flat_map(|panel| panel["targets"].as_array().expect("targets")) {
        let query = target["expr"].as_str().expect("a query").replace("$__rate_interval", "10s");
        let query = query.replace("$link", "up0").replace("$direction", "egress");
        assert!(ask(&query).contains("=>"), "no answer to {query}");
        asked += 1;
    }
    assert!(asked >= 5, "{asked} queries");
    assert!(ask("up{job=\"shaper\"} == 1").contains("=>"));
    drop(daemon);
    for child in [&mut serve, &mut prometheus] {
        child.kill().expect("end it");
        child.wait().expect("its status");
    }
}

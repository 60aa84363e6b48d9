//! Debian's Docker.

use std::time::Duration;

use crate::support::clock::soon;
use crate::support::daemon::Daemon;
use crate::support::engine::Engine;
use crate::support::labels::Monitor;
use crate::support::program::{apply, is_untagged, policy, shaper};

use super::{Before, FROM_FAR, Far, POLICY, class, link_of};

pub fn what_dockers_containers_send_and_receive_is_in_their_owners_class() {
    let far = Far::new();
    let docker = Engine::docker();
    docker.serve("web1", &["-p", "8080:80"]);
    docker.serve("db", &["-l", "owner=bob"]);
    docker.serve("own", &["-l", "shaper.user=carol"]);
    docker.serve("none", &[]);
    apply(POLICY);
    let again = shaper(&["plan", "--exit-code", &policy(POLICY)]);
    assert_eq!(again.status, Some(0), "{}", again.stdout);
    let [of_ann, of_bob, of_carol] = ["ann", "bob", "carol"].map(class);
    // `docker exec` starts a process that no engine's parent has: only the link tells whose it is.
    for (container, class) in
        [("web1", of_ann.as_str()), ("db", &of_bob), ("own", &of_carol), ("none", "1:fffe")]
    {
        let before = Before::now();
        docker.wget(container, FROM_FAR);
        before.all_in(&format!("{container} downloads by docker exec"), class);
    }
    let before = Before::now();
    far.wget("http://10.77.0.1:8080/big");
    before.all_in("web1 serves by DNAT", &of_ann);
    // Docker listens for IPv6 by a process of its own, which is in no container.
    let before = Before::now();
    far.wget("http://[fd77::1]:8080/big");
    before.all_in("web1 serves by docker-proxy", proxys(&of_ann));
    // A container that is started again has another link.
    docker.command(&["restart", "-t", "0", "web1"]).exits(0);
    apply(POLICY);
    let before = Before::now();
    docker.wget("web1", FROM_FAR);
    before.all_in("web1 downloads after a restart", &of_ann);
    let before = Before::now();
    far.wget("http://[fd77::1]:8080/big");
    before.all_in("and serves by another docker-proxy", proxys(&of_ann));
    beside_a_daemon(&far, &docker);
    shaper(&["clear"]).exits(0);
}

/// The port at which the host has the container that comes and goes.
const PORT: &str = "8090";

fn beside_a_daemon(far: &Far, docker: &Engine) {
    let [of_ann, of_bob] = ["ann", "bob"].map(class);
    let minor = |class: &str| class.replace("1:", "");
    docker.command(&["network", "create", "--subnet", "10.50.0.0/24", "two"]).exits(0);
    let daemon = Daemon::start(&["watch", &policy(POLICY)]);
    let monitor = Monitor::start();
    let mut took = Vec::new();
    let published = format!("{PORT}:80");
    let same = ["--network", "two", "--ip", "10.50.0.9", "-p", &published];
    // One after the other they have the same address, so the same MAC address, and the same port.
    for (container, label, class) in
        [("web2", None, &of_ann), ("db2", Some("owner=bob"), &of_bob), ("web3", None, &of_ann)]
    {
        let label = label.map(|label| ["-l", label]);
        docker.serve(container, &[&same[..], label.as_ref().map_or(&[], |it| &it[..])].concat());
        took.push(monitor.labelled(&link_of(docker, container), &minor(class)));
        let before = Before::now();
        docker.wget(container, FROM_FAR);
        before.all_in(&format!("{container} downloads"), class);
        let before = Before::now();
        far.wget(&format!("http://10.77.0.1:{PORT}/big"));
        before.all_in(&format!("{container} serves by DNAT"), class);
        proxied(container, class);
        let before = Before::now();
        far.wget(&format!("http://[fd77::1]:{PORT}/big"));
        before.all_in(&format!("{container} serves by docker-proxy"), proxys(class));
        if container == "db2" {
            docker.command(&["restart", "-t", "0", container]).exits(0);
            took.push(monitor.labelled(&link_of(docker, container), &minor(class)));
            let before = Before::now();
            docker.wget(container, FROM_FAR);
            before.all_in("db2 downloads after a restart", class);
        }
        if container != "web3" {
            docker.remove(container);
        }
    }
    println!("labelled {took:?} after the link was up");
    took.sort();
    assert!(took[1] < Duration::from_millis(500), "{took:?}");
    // What two users' containers say to each other on the host passes no shaped link.
    docker.serve("db3", &["--network", "two", "-l", "owner=bob"]);
    monitor.labelled(&link_of(docker, "db3"), &minor(&of_bob));
    let before = Before::now();
    docker.wget("db3", "http://10.50.0.9/big");
    before.nothing_in(&[&of_ann, &of_bob]);
    let before = Before::now();
    docker.wget("db3", FROM_FAR);
    before.all_in("db3 downloads beside web3", &of_bob);
    let before = Before::now();
    docker.wget("web3", FROM_FAR);
    before.all_in("web3 downloads beside db3", &of_ann);
    assert!(daemon.end().success());
}

/// In whose class is what Docker's own process sends, which is root's: without tags it is nobody's.
fn proxys(class: &str) -> &str {
    if is_untagged() { "1:fffe" } else { class }
}

/// Waits until the process that listens for a container is where its owner's are.
fn proxied(container: &str, class: &str) {
    if is_untagged() {
        return;
    }
    let is_there = || {
        let processes = std::fs::read_dir("/proc").expect("the processes").flatten();
        let tags = processes.filter_map(|it| {
            let words = std::fs::read(it.path().join("cmdline")).ok()?;
            let words: Vec<_> = words.split(|byte| *byte == 0).collect();
            let is_it =
                words.first()?.ends_with(b"docker-proxy") && words.contains(&PORT.as_bytes());
            let groups =
                is_it.then(|| std::fs::read_to_string(it.path().join("cgroup")).ok())??;
            Some(groups.lines().find(|it| it.contains("net_cls"))?.to_string())
        });
        let user = if *class == super::class("bob") { "/user/bob" } else { "/user/ann" };
        let tags: Vec<String> = tags.collect();
        !tags.is_empty() && tags.iter().all(|tag| tag.ends_with(user))
    };
    soon(&format!("{container}'s proxies are its owner's"), Duration::from_secs(20), is_there);
}

/// The first packet of a container's program comes some hundred milliseconds after its link is up.
pub(super) fn how_soon_dockers_containers_are_labelled() {
    const COUNT: usize = 24;
    let _far = Far::new();
    let docker = Engine::docker();
    docker.serve("web0", &[]);
    let watch = |file: &str, daemon: &[&str]| Daemon::start(&[daemon, &["watch", file]].concat());
    // By what netlink and cgroups tell alone, and by what the engine has to say.
    let by_link = POLICY.replace("containers: [\"web*\"]", "interfaces: [\"veth*\"]");
    for (how, text) in [("its link", by_link.as_str()), ("its name", POLICY)] {
        let daemon = watch(&policy(text), &["-v"]);
        let minor = class("ann").replace("1:", "");
        let monitor = Monitor::start();
        let mut took = Vec::new();
        for nth in 0..COUNT {
            let name = format!("web-{nth}");
            docker.serve(&name, &[]);
            took.push(monitor.labelled(&link_of(&docker, &name), &minor));
            docker.remove(&name);
        }
        took.sort();
        let (median, longest) = (took[COUNT / 2], took[COUNT - 1]);
        println!("by {how}: {median:?} after the link is up (median), {longest:?} (longest)");
        println!("  {took:?}");
        if std::env::var_os("SHAPER_SHOW_LOG").is_some() {
            println!("{}", daemon.log());
        }
        assert!(median < Duration::from_millis(500), "{took:?}");
        assert!(daemon.end().success());
    }
}

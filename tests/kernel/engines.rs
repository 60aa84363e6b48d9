//! Real container engines: whose their containers are, and that all that these send and receive is
//! in that user's class.

use std::process::Child;

use crate::support::cell::SCRATCH;
use crate::support::command::run_with;
use crate::support::counters::{Classes, classes};
use crate::support::docker::{BIG, Docker, site};
use crate::support::harness::{On, tests};
use crate::support::program::{apply, classid, policy, shaper};
use crate::support::rates::Interval;
use crate::support::world::World;

tests!(
    On::Host => what_dockers_containers_send_and_receive_is_in_their_owners_class;
);

const POLICY: &str = "
version: 1
links: {up0: {rate: 800mbit, down: 800mbit}}
users:
  ann: {ceil: 400mbit, down: 400mbit, accounts: [ann], containers: [\"web*\"]}
  bob: {ceil: 400mbit, down: 400mbit, accounts: [bob], containers: [\"label:owner=bob\"]}
  carol: {ceil: 400mbit, down: 400mbit, accounts: [carol]}
guests: {owner: [label, slice, uid]}
";

/// A web server of the far side's, and the world in which it is.
struct Far {
    world: World,
    server: Child,
}

impl Far {
    fn new() -> Far {
        let world = World::new();
        for path in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            std::fs::write(format!("/proc/sys/net/{path}"), "1").expect("the host forwards");
        }
        let folder = site(&format!("{SCRATCH}/far")).display().to_string();
        let words = ["/bin/busybox", "httpd", "-f", "-p", "8081", "-h", &folder];
        let server = world.far_command(&words).spawn().expect("a server");
        Far { world, server }
    }

    /// The far side gets `big` from here.
    #[track_caller]
    fn wget(&self, url: &str) {
        let words = ["/bin/busybox", "wget", "-q", "-O", "/dev/null", url];
        run_with(self.world.far_command(&words), "").exits(0);
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// What the far side serves, as containers name it.
const FROM_FAR: &str = "http://10.77.0.2:8081/big";

/// Both directions' classes, before something is transferred.
struct Before([(&'static str, Classes); 2]);

impl Before {
    fn now() -> Before {
        Before(["up0", "ifb-up0"].map(|link| (link, classes(link))))
    }

    /// `big` went one way, and its acknowledgements the other.
    #[track_caller]
    fn all_in(self, what: &str, class: &str) {
        let mut most = 0;
        for (link, before) in self.0 {
            let interval = Interval::since(before, link);
            most = most.max(interval.bytes(class));
            if interval.bytes(class) > BIG {
                interval.has_share(&format!("{what}, {link}"), class, 99.9);
            } else {
                // Neighbours that are looked for are nobody's.
                interval.others_stay_below(1_000, &[class]);
            }
        }
        assert!(most > BIG, "{what}: {most} bytes in {class}");
    }
}

fn what_dockers_containers_send_and_receive_is_in_their_owners_class() {
    let far = Far::new();
    let docker = Docker::start();
    docker.serve("web1", &["-p", "8080:80"]);
    docker.serve("db", &["-l", "owner=bob"]);
    docker.serve("own", &["-l", "shaper.user=carol"]);
    docker.serve("none", &[]);
    apply(POLICY);
    let again = shaper(&["plan", "--exit-code", &policy(POLICY)]);
    assert_eq!(again.status, Some(0), "{}", again.stdout);
    let [of_ann, of_bob, of_carol] =
        ["ann", "bob", "carol"].map(|it| classid(&format!("user/{it}")));
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
    before.all_in("web1 serves by docker-proxy", &of_ann);
    // A container that is started again has another link.
    docker.command(&["restart", "-t", "0", "web1"]).exits(0);
    apply(POLICY);
    let before = Before::now();
    docker.wget("web1", FROM_FAR);
    before.all_in("web1 downloads after a restart", &of_ann);
    let before = Before::now();
    far.wget("http://[fd77::1]:8080/big");
    before.all_in("and serves by another docker-proxy", &of_ann);
    shaper(&["clear"]).exits(0);
}

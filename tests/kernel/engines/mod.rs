//! Real container engines: whose their containers are, and that all that these send and receive is
//! in that user's class.

mod docker;
mod lxc;
mod podman;

use std::process::Child;

use crate::support::cell::SCRATCH;
use crate::support::command::run_with;
use crate::support::counters::{Classes, classes};
use crate::support::engine::{BIG, Engine, site};
use crate::support::harness::{On, tests};
use crate::support::program::classid;
use crate::support::rates::Interval;
use crate::support::world::World;

use docker::how_soon_dockers_containers_are_labelled;
pub use docker::what_dockers_containers_send_and_receive_is_in_their_owners_class;
pub use lxc::what_lxcs_containers_send_and_receive_is_in_their_owners_class;
use lxc::what_unprivileged_containers_send_and_receive_is_in_their_owners_class;
pub use podman::what_podmans_containers_send_and_receive_is_in_their_owners_class;

tests!(
    On::Host => what_dockers_containers_send_and_receive_is_in_their_owners_class,
        what_lxcs_containers_send_and_receive_is_in_their_owners_class,
        what_unprivileged_containers_send_and_receive_is_in_their_owners_class,
        what_podmans_containers_send_and_receive_is_in_their_owners_class;
    On::Nightly => how_soon_dockers_containers_are_labelled;
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

/// The class of a line of the policy.
fn class(user: &str) -> String {
    classid(&format!("user/{user}"))
}

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

    /// Nothing of it passed a shaped link.
    #[track_caller]
    fn nothing_in(self, classes: &[&str]) {
        for (link, before) in self.0 {
            let interval = Interval::since(before, link);
            for class in classes {
                assert!(interval.bytes(class) < 1_000, "{link}: {class}");
            }
        }
    }
}

/// The host's link to a container.
fn link_of(engine: &Engine, container: &str) -> String {
    let words = ["exec", container, "/bin/busybox", "cat", "/sys/class/net/eth0/iflink"];
    let index = engine.command(&words).exits(0).stdout;
    let links = std::fs::read_dir("/sys/class/net").expect("the links");
    let mut names = links.flatten().map(|it| it.file_name().to_string_lossy().into_owned());
    let has_it = |name: &String| {
        let own = std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex"));
        own.is_ok_and(|own| own.trim() == index.trim())
    };
    names.find(has_it).expect("a link of the container's")
}

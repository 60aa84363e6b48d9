//! Debian's Podman, run by root.

use crate::support::daemon::Daemon;
use crate::support::engine::Engine;
use crate::support::labels::Monitor;
use crate::support::program::{apply, policy, shaper};

use super::{Before, FROM_FAR, Far, POLICY, class, link_of};

pub(super) fn what_podmans_containers_send_and_receive_is_in_their_owners_class() {
    let far = Far::new();
    let podman = Engine::podman();
    podman.serve("web1", &["-p", "8080:80"]);
    podman.serve("own", &["-l", "shaper.user=carol"]);
    podman.serve("none", &[]);
    apply(POLICY);
    let again = shaper(&["plan", "--exit-code", &policy(POLICY)]);
    assert_eq!(again.status, Some(0), "{}", again.stdout);
    let [of_ann, of_bob, of_carol] = ["ann", "bob", "carol"].map(class);
    for (container, class) in [("web1", of_ann.as_str()), ("own", &of_carol), ("none", "1:fffe")] {
        let before = Before::now();
        podman.wget(container, FROM_FAR);
        before.all_in(&format!("{container} downloads by podman exec"), class);
    }
    let before = Before::now();
    far.wget("http://10.77.0.1:8080/big");
    before.all_in("web1 serves by DNAT", &of_ann);
    // Its link comes before its first process.
    let daemon = Daemon::start(&["watch", &policy(POLICY)]);
    let monitor = Monitor::start();
    podman.serve("db", &["-l", "owner=bob", "-p", "8081:80"]);
    let minor = |class: &str| class.replace("1:", "");
    let came = monitor.labelled(&link_of(&podman, "db"), &minor(&of_bob));
    let before = Before::now();
    podman.wget("db", FROM_FAR);
    before.all_in("db downloads", &of_bob);
    let before = Before::now();
    far.wget("http://10.77.0.1:8081/big");
    before.all_in("db serves by DNAT", &of_bob);
    podman.command(&["restart", "-t", "0", "web1"]).exits(0);
    let again = monitor.labelled(&link_of(&podman, "web1"), &minor(&of_ann));
    let before = Before::now();
    podman.wget("web1", FROM_FAR);
    before.all_in("web1 downloads after a restart", &of_ann);
    println!("labelled {came:?}, {again:?} after the link was up");
    assert!(daemon.end().success());
    shaper(&["clear"]).exits(0);
}

//! Debian's Podman, run by root.

use std::time::Duration;

use crate::support::accounts::{DAVE, ERIN};
use crate::support::clock::soon;
use crate::support::daemon::Daemon;
use crate::support::engine::Engine;
use crate::support::labels::{Monitor, label};
use crate::support::program::{apply, classid, policy, shaper};

use super::{Before, FROM_FAR, Far, POLICY, class, link_of};

/// Whose account runs nothing and is named nowhere else.
const EVERYBODY: &str = "everyone: {each: {ceil: 400mbit, down: 400mbit}}\n";

pub fn what_podmans_containers_send_and_receive_is_in_their_owners_class() {
    let far = Far::new();
    let podman = Engine::podman();
    podman.serve("web1", &["-p", "8080:80"]);
    podman.serve("own", &["-l", "shaper.user=carol"]);
    podman.serve("erins", &["-l", "shaper.user=erin"]);
    podman.serve("none", &["-l", "shaper.user=bobb"]);
    let text = format!("{POLICY}{EVERYBODY}");
    let said = "the container `none` has the label shaper.user=`bobb`";
    let applied = apply(&text);
    assert!(applied.stderr.contains(said), "{}", applied.stderr);
    let again = shaper(&["plan", "--exit-code", &policy(&text)]);
    assert_eq!(again.status, Some(0), "{}", again.stdout);
    let [of_ann, of_bob, of_carol] = ["ann", "bob", "carol"].map(class);
    let of_erin = classid(&format!("uid/{}", ERIN.uid));
    for (container, class) in
        [("web1", of_ann.as_str()), ("own", &of_carol), ("erins", &of_erin), ("none", "1:fffe")]
    {
        let before = Before::now();
        podman.wget(container, FROM_FAR);
        before.all_in(&format!("{container} downloads by podman exec"), class);
    }
    let before = Before::now();
    far.wget("http://10.77.0.1:8080/big");
    before.all_in("web1 serves by DNAT", &of_ann);
    // Its link comes before its first process.
    let daemon = Daemon::start(&["watch", &policy(&text)]);
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
    // A user about whom the daemon has to ask first.
    podman.serve("daves", &["-l", "shaper.user=dave"]);
    let link = link_of(&podman, "daves");
    soon("dave's container is his", Duration::from_secs(30), || {
        label(&link).is_some_and(|minor| minor != "0")
    });
    let before = Before::now();
    podman.wget("daves", FROM_FAR);
    before.all_in("daves downloads", &classid(&format!("uid/{}", DAVE.uid)));
    let again = shaper(&["plan", "--exit-code", &policy(&text)]);
    assert_eq!(again.status, Some(0), "{}", again.stdout);
    assert_eq!(daemon.log().matches(said).count(), 1, "{}", daemon.log());
    assert!(daemon.end().success());
    shaper(&["clear"]).exits(0);
}

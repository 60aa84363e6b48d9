//! Debian's LXC: containers behind veths in a bridge, known by their cgroups, whose names need no
//! engine's socket.

use std::fs;
use std::process::Command;

use nix::mount::{MsFlags, mount};

use crate::support::accounts::own_etc;
use crate::support::behind::bridge;
use crate::support::cell::SCRATCH;
use crate::support::command::{Done, run, run_with};
use crate::support::daemon::Daemon;
use crate::support::engine::root_of_busybox;
use crate::support::labels::Monitor;
use crate::support::program::{apply, policy, shaper};

use super::{Before, FROM_FAR, Far, POLICY, class};

/// How many subordinate uids a user has.
const RANGE: u32 = 65_536;

/// The containers of a cell.
struct Lxc {
    folder: String,
    names: Vec<&'static str>,
}

impl Lxc {
    fn new() -> Lxc {
        // The cell's sysfs hides the hierarchies; this one shows the cell's own part.
        let none: Option<&str> = None;
        mount(none, "/sys/fs/cgroup", Some("cgroup2"), MsFlags::empty(), none).expect("cgroups");
        Lxc { folder: format!("{SCRATCH}/lxc"), names: Vec::new() }
    }

    /// Starts a container that serves `big`, at 10.99.0.NUMBER and fd99::NUMBER; its link has its
    /// name.
    #[track_caller]
    fn serve(&mut self, name: &'static str, number: u8) {
        self.serve_as(name, number, None);
    }

    /// The same in a user namespace whose uids are the host's from `first` on.
    #[track_caller]
    fn serve_as(&mut self, name: &'static str, number: u8, first: Option<u32>) {
        let own = format!("{}/{name}", self.folder);
        root_of_busybox(&format!("{own}/rootfs"));
        let mapped = first.map_or_else(String::new, |first| {
            ["u", "g"].map(|ids| format!("lxc.idmap = {ids} 0 {first} {RANGE}\n")).concat()
        });
        let config = format!(
            "lxc.uts.name = {name}
             lxc.rootfs.path = dir:{own}/rootfs
             lxc.net.0.type = veth
             lxc.net.0.veth.pair = {name}
             lxc.net.0.link = br0
             lxc.net.0.flags = up
             lxc.net.0.name = eth0
             lxc.net.0.ipv4.address = 10.99.0.{number}/24
             lxc.net.0.ipv4.gateway = 10.99.0.1
             lxc.net.0.ipv6.address = fd99::{number}/64
             lxc.net.0.ipv6.gateway = fd99::1
             lxc.apparmor.profile = unconfined
             lxc.init.cmd = /bin/busybox httpd -f -p 80 -h /www
             {mapped}
            "
        );
        fs::write(format!("{own}/config"), config).expect("its settings");
        self.names.push(name);
        let log = format!("{own}/log");
        let started = self.command("lxc-start", &["-o", &log, "-n", name]);
        let log = || fs::read_to_string(&log).unwrap_or_default();
        assert_eq!(started.status, Some(0), "{}{}", started.stderr, log());
    }

    /// One of LXC's commands, however it ends.
    fn command(&self, program: &str, words: &[&str]) -> Done {
        let mut command = Command::new(program);
        command.args(["-P", &self.folder]).args(words);
        run_with(command, "")
    }

    /// A process beside the container's own gets something, and throws it away.
    #[track_caller]
    fn wget(&self, name: &str, url: &str) {
        let wget = ["-n", name, "--", "/bin/busybox", "wget", "-q", "-O", "/dev/null", url];
        self.command("lxc-attach", &wget).exits(0);
    }
}

impl Drop for Lxc {
    fn drop(&mut self) {
        for name in &self.names {
            self.command("lxc-stop", &["-k", "-n", name]);
        }
        let _ = fs::remove_dir("/sys/fs/cgroup/lxc.pivot");
    }
}

pub fn what_lxcs_containers_send_and_receive_is_in_their_owners_class() {
    let far = Far::new();
    bridge(&far.world);
    let mut lxc = Lxc::new();
    lxc.serve("web1", 5);
    lxc.serve("none", 6);
    run("iptables -t nat -A PREROUTING -i up0 -p tcp --dport 8080 -j DNAT --to 10.99.0.5:80");
    apply(POLICY);
    let again = shaper(&["plan", "--exit-code", &policy(POLICY)]);
    assert_eq!(again.status, Some(0), "{}", again.stdout);
    let of_ann = class("ann");
    for (container, class) in [("web1", of_ann.as_str()), ("none", "1:fffe")] {
        let before = Before::now();
        lxc.wget(container, FROM_FAR);
        before.all_in(&format!("{container} downloads by lxc-attach"), class);
    }
    for (what, url) in
        [("by DNAT", "http://10.77.0.1:8080/big"), ("by IPv6", "http://[fd99::5]/big")]
    {
        let before = Before::now();
        far.wget(url);
        before.all_in(&format!("web1 serves {what}"), &of_ann);
    }
    let daemon = Daemon::start(&["watch", &policy(POLICY)]);
    let monitor = Monitor::start();
    lxc.command("lxc-stop", &["-k", "-n", "web1"]).exits(0);
    lxc.serve("web2", 5);
    let took = monitor.labelled("web2", &of_ann.replace("1:", ""));
    println!("labelled {took:?} after the link was up");
    let before = Before::now();
    lxc.wget("web2", FROM_FAR);
    before.all_in("web2 downloads beside a daemon", &of_ann);
    assert!(daemon.end().success());
    shaper(&["clear"]).exits(0);
}

/// Their processes have subordinate uids on the host: they are whose those are, unless a line says
/// otherwise.
pub(super) fn what_unprivileged_containers_send_and_receive_is_in_their_owners_class() {
    own_etc();
    let far = Far::new();
    let (of_carol, of_nobody) = (700_000, 900_000);
    // Root may give away all of them, and whoever has a line of his own has his.
    let all = "root:100000:1000000\n";
    fs::write("/etc/subuid", format!("{all}carol:{of_carol}:{RANGE}\n")).expect("uids");
    fs::write("/etc/subgid", all).expect("gids");
    bridge(&far.world);
    let mut lxc = Lxc::new();
    lxc.serve_as("hers", 5, Some(of_carol));
    lxc.serve_as("web1", 6, Some(of_carol));
    lxc.serve_as("none", 7, Some(of_nobody));
    let init = lxc.command("lxc-info", &["-n", "hers", "-p", "-H"]).exits(0).stdout;
    let status = fs::read_to_string(format!("/proc/{}/status", init.trim())).expect("its init");
    assert!(status.contains(&format!("Uid:\t{of_carol}\t")), "{status}");
    apply(POLICY);
    let again = shaper(&["plan", "--exit-code", &policy(POLICY)]);
    assert_eq!(again.status, Some(0), "{}", again.stdout);
    let [of_ann, of_carol] = ["ann", "carol"].map(class);
    let each = [("hers", 5, of_carol.as_str()), ("web1", 6, &of_ann), ("none", 7, "1:fffe")];
    for (container, number, class) in each {
        let before = Before::now();
        lxc.wget(container, FROM_FAR);
        before.all_in(&format!("{container} downloads"), class);
        let before = Before::now();
        far.wget(&format!("http://[fd99::{number}]/big"));
        before.all_in(&format!("{container} serves"), class);
    }
    // A namespace that has a name goes by its line.
    run(&format!("ip netns attach named {}", init.trim()));
    let named = POLICY.replace("containers: [\"label:owner=bob\"]", "namespaces: [named]");
    apply(&named);
    let of_bob = class("bob");
    let before = Before::now();
    lxc.wget("hers", FROM_FAR);
    before.all_in("hers downloads, by the namespace's line", &of_bob);
    run("ip netns del named");
    apply(POLICY);
    let before = Before::now();
    lxc.wget("hers", FROM_FAR);
    before.all_in("and without that name", &of_carol);
    // One that comes beside a daemon.
    let daemon = Daemon::start(&["watch", &policy(POLICY)]);
    let monitor = Monitor::start();
    lxc.command("lxc-stop", &["-k", "-n", "hers"]).exits(0);
    lxc.serve_as("hers2", 5, Some(700_000));
    let took = monitor.labelled("hers2", &of_carol.replace("1:", ""));
    println!("labelled {took:?} after the link was up");
    let before = Before::now();
    lxc.wget("hers2", FROM_FAR);
    before.all_in("hers2 downloads beside a daemon", &of_carol);
    assert!(daemon.end().success());
    shaper(&["clear"]).exits(0);
}

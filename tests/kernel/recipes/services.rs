//! Hosts of services: sites behind a proxy, and a job of root's.

use std::process::{Child, Command, Stdio};

use super::{DEFAULT, Site, UP, also, hold, nobody_else};
use crate::support::accounts::{Account, ROOT};
use crate::support::actor::Actor;
use crate::support::harness::{On, tests};
use crate::support::orders::{Order, Proto};
use crate::support::program::binary;
use crate::support::rates::{MBIT, between};
use crate::support::unit::Unit;

tests!(
    On::Host => web_host, root_rsync;
);

/// A program of this unit's that hands on what a site on the host sends.
struct Proxy(Child);

impl Proxy {
    fn start(unit: &Unit, site: &str, client: &str) -> Proxy {
        let mut shell = Command::new("bash");
        let relay = format!("read go; exec cat </dev/tcp/{site} >/dev/tcp/{client}");
        let proxy = Proxy(shell.args(["-c", &relay]).stdin(Stdio::piped()).spawn().expect("bash"));
        unit.take(proxy.0.id());
        proxy
    }

    /// It connects to both.
    fn goes(&mut self) {
        drop(self.0.stdin.take());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn web_host() {
    let mut site = Site::new();
    also("/etc/passwd", "blog:x:2011:2011::/:/bin/sh\n");
    let (nginx, unit) = (Unit::named("nginx.service"), Unit::named("shop.service"));
    let blog = site.world.actor(Account { uid: 2011, gid: 2011, also: None });
    let shop = site.world.actor(ROOT);
    unit.take(shop.pid());
    let mut sites = [(blog, 8_001), (shop, 8_002)];
    let mut proxies = Vec::new();
    for (server, port) in &mut sites {
        let listener = server.socket(&Order::Listen(([127, 0, 0, 1], *port).into()));
        let client = site.internet();
        site.world.far.sink(Proto::Tcp, client.port());
        let (from, to) =
            (format!("127.0.0.1/{port}"), format!("{}/{}", client.ip(), client.port()));
        let mut proxy = Proxy::start(&nginx, &from, &to);
        proxy.goes();
        let socket = server.socket(&Order::Accept(listener));
        server.pour(socket);
        proxies.push(proxy);
    }
    site.takes("web-host");
    hold("lo", &[("blog", 40), ("shop", 80)]);
    // All of it, as the proxy's.
    let sent = hold(UP, &[("www", 120)]);
    nobody_else(&sent, &["www"]);
}

fn root_rsync() {
    let mut site = Site::new();
    let unit = Unit::named("mirror.service");
    let mut job = site.world.actor(ROOT);
    unit.take(job.pid());
    site.uploads(&mut job);
    site.takes("root-rsync");
    let sent = hold(UP, &[("mirror", 50)]);
    nobody_else(&sent, &["mirror"]);
    // One by hand, beside it, and root's other processes, which are in nobody's way but not capped.
    let mut command = Command::new(binary());
    let actor = std::env::current_exe().expect("this program");
    command.args(["run", "mirror", "--"]).arg(actor).arg("--actor");
    let mut by_hand = Actor::start(command);
    site.uploads(&mut by_hand);
    let _roots = site.uploading(ROOT);
    let sent = hold(UP, &[("mirror", 50)]);
    between("root's other processes", sent.rate(DEFAULT), 200 * MBIT, 402 * MBIT);
}

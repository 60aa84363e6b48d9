//! Hosts of guests: containers, virtual machines, the clients of a VPN.

use std::process::{Child, Command};

use super::{IFB, Site, UP, hold, nobody_else};
use crate::support::accounts::ANN;
use crate::support::behind::{Guest, bridge, route};
use crate::support::engine::Engine;
use crate::support::harness::{On, tests};
use crate::support::orders::{Order, Proto};
use crate::support::world::World;

tests!(
    On::Host => containers, vms, vpn;
);

/// A program of the far side's that gets a file from a container, again and again.
struct Client(Child);

impl Client {
    fn start(world: &World, url: &str) -> Client {
        let get = format!("while :; do /bin/busybox wget -q -O /dev/null {url} || sleep 0.1; done");
        let mut command: Command = world.far_command(&["sh", "-c", &get]);
        Client(command.spawn().expect("a client"))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn containers() {
    let mut site = Site::new();
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("the host forwards");
    let docker = Engine::docker();
    docker.serve("web", &["-p", "8080:80"]);
    docker.serve("web-2", &["-p", "8081:80"]);
    docker.serve("hers", &["-p", "8082:80", "-l", "shaper.user=ann"]);
    site.takes("containers");
    let ports = [8_080, 8_081, 8_082];
    let _clients =
        ports.map(|port| Client::start(&site.world, &format!("http://10.77.0.1:{port}/big")));
    // What she sends herself is in the same class.
    let _hers = site.uploading(ANN);
    let sent = hold(UP, &[("web", 80), ("ann", 50)]);
    nobody_else(&sent, &["web", "ann"]);
}

fn vms() {
    let mut site = Site::new();
    bridge(&site.world);
    let mut shop = Guest::without_link(2);
    shop.machine(&site.world, "vm-shop");
    let mut small = [Guest::in_bridge("vnet0", 3), Guest::in_bridge("vnet1", 4)];
    site.takes("vms");
    site.uploads(&mut shop.actor);
    let uploads = small.each_mut().map(|guest| site.uploads(&mut guest.actor));
    let sent = hold(UP, &[("shop", 80), ("small", 40)]);
    nobody_else(&sent, &["shop", "small"]);
    drop(shop);
    // Acknowledgements would wait behind these, and be lost in their class.
    for (guest, socket) in small.iter_mut().zip(uploads) {
        guest.actor.stop(socket);
    }
    site.downloads(&mut small[0].actor);
    let came = hold(IFB, &[("small", 40)]);
    nobody_else(&came, &["small"]);
}

fn vpn() {
    let mut site = Site::new();
    route(&site.world);
    let mut client = Guest::without_link(2);
    client.tunnel(&site.world, "wg0");
    client.also_has("10.99.0.5");
    site.takes("vpn");
    site.uploads(&mut client.actor);
    let (from, to) = ("10.99.0.5:0".parse().expect("an address"), site.internet());
    site.world.far.sink(Proto::Tcp, to.port());
    let other = client.actor.socket(&Order::ConnectFrom { from, to });
    client.actor.pour(other);
    let sent = hold(UP, &[("ann", 60), ("others", 20)]);
    nobody_else(&sent, &["ann", "others"]);
    site.downloads(&mut client.actor);
    let came = hold(IFB, &[("ann", 60)]);
    nobody_else(&came, &["ann", "others"]);
}

//! Policies that are bad on this host, or on any: the kernel is not touched. What each mistake is
//! told is tested in tests/offline.

use super::invoke::{exactly, host, root, shaper};
use crate::support::command::run;
use crate::support::harness::{On, tests};
use crate::support::program::policy;

tests!(On::Host =>
    the_kernel_is_not_touched, bad_links_of_this_host_are_refused,
    a_default_route_through_a_tunnel_is_named
);

fn the_kernel_is_not_touched() {
    host();
    let path = policy("version: 1\nlinks:\n  up0: {rate: 1gbit}\nusers:\n  ann: {rate: 2gbit}\n");
    for command in ["plan", "apply", "apply --dry-run", "apply --takeover --allow-disruption"] {
        shaper(&format!("{command} {path}")).assert().code(2).stdout("");
    }
    assert!(root().contains("noqueue 0: root"));
    assert!(!std::path::Path::new("/run/shaper").exists(), "nothing was mounted or made");
}

fn bad_links_of_this_host_are_refused() {
    host();
    run("ip link add br0 type bridge");
    run("ip link set zfar0 master br0");
    let refused = |links: &str, error: &str| {
        let path = policy(&format!("version: 1\nlinks: {links}\n"));
        exactly(&mut shaper(&format!("check {path}")), 2, "", &error.replace("FILE", &path));
    };
    refused(
        "{up1: 1gbit}",
        "\
error: there is no link `up1`
 --> FILE:2:9
  |
2 | links: {up1: 1gbit}
  |         ^^^
  |
  = help: did you mean `up0`? A link that comes later may have `optional: true`
",
    );
    refused(
        "{up0: 20gbit}",
        "\
error: the rate 20gbit is above the 10gbit that up0 can do
 --> FILE:2:14
  |
2 | links: {up0: 20gbit}
  |              ^^^^^^
  |
  = help: write at most 10gbit: the queue must be here, not in the device; 95% is usual
",
    );
    refused(
        "{br0: 1gbit, zfar0: 1gbit}",
        "\
error: zfar0 is a part of the bridge br0, which has a line too
 --> FILE:2:21
  |
2 | links: {br0: 1gbit, zfar0: 1gbit}
  |                     ^^^^^
  |
 ::: FILE:2:9
  |
2 | links: {br0: 1gbit, zfar0: 1gbit}
  |         --- the bridge
  |
  = help: its packets would be shaped twice: remove the line of zfar0
",
    );
    refused(
        "{auto: }",
        "\
error: `auto` finds no link: there is no default route
 --> FILE:2:9
  |
2 | links: {auto: }
  |         ^^^^
  |
  = help: name the link instead of `auto`, as `ip link` shows it
",
    );
}

fn a_default_route_through_a_tunnel_is_named() {
    host();
    for line in ["tuntap add tun0 mode tun", "link set tun0 up", "route add default dev tun0"] {
        run(&format!("ip {line}"));
    }
    let path = policy("version: 1\nlinks: {auto: }\n");
    let error = format!(
        "\
error: `auto` finds tun0, which is a tunnel (tun)
 --> {path}:2:9
  |
2 | links: {{auto: }}
  |         ^^^^
  |
  = help: name `tun0`: there packets are their users'; on the link below they are the program's that made the tunnel, and no user's limit holds
"
    );
    exactly(&mut shaper(&format!("check {path}")), 2, "", &error);
    let path = policy("version: 1\nlinks: {up0: 1gbit}\n");
    let warning = format!(
        "\
warning: tun0 has a default route and no line in `links`
 --> {path}:2:1
  |
2 | links: {{up0: 1gbit}}
  | ^^^^^
  |
  = help: name `tun0`: there packets are their users'; on the link below they are the program's that made the tunnel, and no user's limit holds
"
    );
    let ok = format!("{path}: ok: 1 link; no user is capped: add `users` or `everyone`\n");
    exactly(&mut shaper(&format!("check {path}")), 0, &ok, &warning);
}

//! Hosts of many people: a department's login node, a lab, a seedbox, an office with a backup.

use std::time::Duration;

use super::{IFB, Site, UNSHAPED, UP, also, class, hold, nobody_else, recipe};
use crate::support::accounts::{ANN, Account, BOB, CAROL, DAVE, ERIN};
use crate::support::clock::soon;
use crate::support::harness::{On, tests};
use crate::support::program::{apply, shaper};
use crate::support::rates::{self, MBIT, between};
use crate::support::world::Family;

tests!(
    On::Host => departments, lab, seedbox, volumes, backup;
);

fn departments() {
    let mut site = Site::new();
    also("/etc/group", "physics:x:3001:ann\n");
    let ann = Account { also: Some(3001), ..ANN };
    let _sending = [ann, CAROL, DAVE, ERIN].map(|account| site.uploading(account));
    site.takes("departments");
    let sent = hold(UP, &[("ann", 150), ("students", 80), ("carol", 20)]);
    nobody_else(&sent, &["ann", "dave", "erin", "carol"]);
    for student in ["dave", "erin"] {
        between(student, sent.rate(&class(student)), 15 * MBIT, 61 * MBIT);
    }
}

fn lab() {
    let mut site = Site::new();
    let _sending = [ANN, BOB].map(|account| site.uploading(account));
    site.takes("lab");
    let sent = hold(UP, &[("ann", 50), ("bob", 50)]);
    nobody_else(&sent, &["ann", "bob"]);
    let _local = site.world.pouring(CAROL, Family::V6);
    let local = rates::over(UP, Duration::from_secs(1));
    between("in the local network", local.rate(UNSHAPED), 100 * MBIT, 40_000 * MBIT);
}

fn seedbox() {
    let mut site = Site::new();
    let _sending = [ANN, BOB].map(|account| site.uploading(account));
    let _receiving = [CAROL, DAVE].map(|account| site.downloading(account));
    site.takes("seedbox");
    let sent = hold(UP, &[("ann", 20), ("bob", 20)]);
    // What answers a download is sent.
    nobody_else(&sent, &["ann", "bob", "carol", "dave"]);
    let came = hold(IFB, &[("carol", 40), ("dave", 40)]);
    nobody_else(&came, &["ann", "bob", "carol", "dave"]);
    let _local = site.world.downloading(CAROL, Family::V4);
    let local = rates::over(IFB, Duration::from_secs(1));
    between("from the local network", local.rate(UNSHAPED), 200 * MBIT, 40_000 * MBIT);
}

/// Whatever the time is; then with a volume that is used at once.
fn volumes() {
    let mut site = Site::new();
    let _sending = site.uploading(ANN);
    let _receiving = site.downloading(CAROL);
    site.takes("volumes");
    let status = shaper(&["status", "ann", "--json"]).exits(0).json();
    let night = &status["links"][0]["users"][0]["limit"]["why"] == "night";
    let (premium, others) = if night { (200, 80) } else { (100, 40) };
    let sent = hold(UP, &[("ann", premium)]);
    nobody_else(&sent, &["ann", "carol"]);
    let came = hold(IFB, &[("carol", others)]);
    nobody_else(&came, &["ann", "carol"]);
    site.takes("volumes");
    for (user, volume) in [("ann", 5_u64 << 40), ("carol", 1 << 40)] {
        let used = shaper(&["usage", user, "--json"]).exits(0).json();
        let used = &used["quotas"][0];
        assert_eq!(used["limit_bytes"], volume, "{used}");
        // At least what the rates above were measured with.
        assert!(used["used_bytes"].as_u64() > Some(10_000_000), "{used}");
    }

    let small = recipe("volumes").replace("1TiB", "5MiB");
    apply(&small);
    hold(IFB, &[("carol", 5)]);
    hold(UP, &[("ann", premium)]);
    shaper(&["grant", "carol", "1GiB"]).exits(0);
    apply(&small);
    hold(IFB, &[("carol", others)]);
}

fn backup() {
    const BORG: Account = Account { uid: 2010, gid: 2010, also: None };
    let mut site = Site::new();
    also("/etc/passwd", "borg:x:2010:2010::/:/bin/sh\n");
    let _backup = site.uploading(BORG);
    let working = site.uploading(ANN);
    site.takes("backup");
    let sent = hold(UP, &[("ann", 95)]);
    nobody_else(&sent, &["ann", "backup"]);
    between("the backup, while ann works", sent.rate(&class("backup")), 0, 4 * MBIT);
    drop(working);
    // TCP that was given next to nothing for seconds tries again only after its own pause.
    let of_backup = class("backup");
    soon("the backup goes on", Duration::from_secs(30), || {
        rates::over(UP, Duration::from_millis(500)).rate(&of_backup) > 40 * MBIT
    });
    hold(UP, &[("backup", 76)]);
}

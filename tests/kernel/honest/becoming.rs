//! Who becomes another: by su and sudo, from root down and from a user up, and by cron.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};

use nix::mount::{MsFlags, mount};

use super::{DEFAULT, Keeper, Place, Program, Shell};
use crate::support::accounts::{ANN, BOB};
use crate::support::harness::{On, tests};
use crate::support::program::{classid, members};

tests!(
    On::HostEvents => whom_root_becomes_is_who_sends, who_becomes_root_sends_as_root,
        who_becomes_another_user_sends_as_him, root_with_a_line_is_in_its_class,
        what_cron_starts_is_its_users;
);

const POLICY: &str = "
version: 1
links: {up0: {rate: 100mbit, default: {rate: 1mbit, ceil: 40mbit}}}
users: {ann: 10mbit, bob: 15mbit}
";

/// Users' tables of jobs.
const TABLES: &str = "/var/spool/cron/crontabs";

/// Anybody may become anybody, in the cell.
fn allow_sudo() {
    fs::write("/etc/sudoers", "ALL ALL=(ALL:ALL) NOPASSWD: ALL\n").expect("write sudoers");
    fs::set_permissions("/etc/sudoers", Permissions::from_mode(0o440)).expect("chmod sudoers");
}

/// Nobody has placed the process when it begins to send, and its packets are its user's all the
/// same.
fn whom_root_becomes_is_who_sends() {
    Place::under_both(POLICY, |place| {
        allow_sudo();
        for how in [["su", "ann", "-s", "/bin/bash", "-c"], ["sudo", "-u", "ann", "bash", "-c"]] {
            let script = place.pouring();
            let _parent = Program::start(&[&how[..], &[&script.text]].concat());
            let pouring = script.runs();
            let class = classid("user/ann");
            place.all_is(&format!("root by {}", how[0]), &[&class]);
            place.passes();
            assert!(members("user/ann").contains(&pouring.pid()), "{how:?}");
            place.all_is(&format!("root by {}, placed", how[0]), &[&class]);
        }
    });
}

/// What she runs as root is root's; until that is seen it counts by the directory that it was born
/// in.
fn who_becomes_root_sends_as_root() {
    Place::under_both(POLICY, |place| {
        allow_sudo();
        let mut ann = Shell::of(ANN);
        place.passes();
        assert!(members("user/ann").contains(&ann.pid()));
        for how in ["sudo bash -c", "su -s /bin/bash -c"] {
            let script = place.pouring();
            ann.types(&format!("{how} '{}' &", script.text));
            let pouring = script.runs();
            if place.keeper == Keeper::Cron {
                place.all_is(&format!("ann by {how}, not seen yet"), &[&classid("user/ann")]);
            }
            place.passes();
            assert!(!members("user/ann").contains(&pouring.pid()), "{how}");
            place.all_is(&format!("ann by {how}"), &[DEFAULT]);
            assert!(members("user/ann").contains(&ann.pid()));
        }
        // What she runs as herself beside that is hers.
        let script = place.pouring();
        ann.types(&format!("bash -c '{}' &", script.text));
        let _pouring = script.runs();
        place.all_is("ann herself", &[&classid("user/ann")]);
    });
}

fn who_becomes_another_user_sends_as_him() {
    Place::under_both(POLICY, |place| {
        allow_sudo();
        let mut ann = Shell::of(ANN);
        place.passes();
        let script = place.pouring();
        ann.types(&format!("sudo -u bob bash -c '{}' &", script.text));
        let pouring = script.runs();
        place.all_is("ann as bob", &[&classid("user/bob")]);
        place.passes();
        assert!(members("user/bob").contains(&pouring.pid()));
        place.all_is("ann as bob, placed", &[&classid("user/bob")]);
    });
}

fn root_with_a_line_is_in_its_class() {
    let text = POLICY.replace("users: {", "users: {admin: {uids: 0, ceil: 20mbit}, ");
    Place::under_both(&text, |place| {
        allow_sudo();
        let mut ann = Shell::of(ANN);
        place.passes();
        let script = place.pouring();
        ann.types(&format!("sudo bash -c '{}' &", script.text));
        let _pouring = script.runs();
        place.passes();
        place.all_is("ann as root, who has a line", &[&classid("user/admin")]);
    });
}

/// Debian's cron. A job of its own at `@reboot` is started as those of each minute are.
fn what_cron_starts_is_its_users() {
    Place::under_both(POLICY, |place| {
        let (of_ann, of_bob) = (place.pouring(), place.pouring());
        if place.keeper == Keeper::Cron {
            fs::remove_dir_all("/etc/cron.d").expect("no other jobs");
            mount(Some("cell"), TABLES, Some("tmpfs"), MsFlags::empty(), None::<&str>)
                .expect("mount a folder for users' tables");
        }
        // The system's table names an account; a user's table is his own, with his own shell.
        let system = format!("SHELL=/bin/bash\n@reboot ann {}\n", of_ann.text);
        fs::write("/etc/crontab", system).expect("write the system's table");
        let own = format!("SHELL=/bin/bash\n@reboot {}\n", of_bob.text);
        fs::write(format!("{TABLES}/bob"), own).expect("write bob's table");
        chown(format!("{TABLES}/bob"), Some(BOB.uid), None).expect("chown bob's table");
        fs::set_permissions(format!("{TABLES}/bob"), Permissions::from_mode(0o600)).expect("chmod");
        let _ = fs::remove_file("/run/crond.reboot");
        let _cron = Program::start(&["/usr/sbin/cron", "-f"]);
        let (ann, bob) = (of_ann.runs(), of_bob.runs());
        let classes = [classid("user/ann"), classid("user/bob")];
        place.all_is("cron's jobs", &[&classes[0], &classes[1]]);
        place.passes();
        assert!(members("user/ann").contains(&ann.pid()));
        assert!(members("user/bob").contains(&bob.pid()));
        place.all_is("cron's jobs, placed", &[&classes[0], &classes[1]]);
    });
}

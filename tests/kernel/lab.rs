//! The lab: other kernels, which have the real `cls_cgroup`, run this same binary. Each boot is one
//! test here, and its console says what every test inside it did.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::support::harness::{BUDGET, On, Test};
use crate::support::settings::setting;

/// What `make test` runs on each kernel: what only that kernel shows. All the others do there what
/// they do on the machine's own kernel, where `make test` runs them; by night they run there too.
pub const TESTS: &[Test] = &[
    half("lab::user_mode_linux", || boot(UML, &BY_TAGS, BY_TAGS.len())),
    half("lab::user_mode_linux_that_forbids_net_cls", || boot(UNTAGGED, &[FORBIDDEN], 1)),
    half("lab::debian_cloud_kernel", || boot(QEMU, &OF_DEBIAN, OF_DEBIAN.len())),
    half("lab::a_boot_with_systemd", || boot(SYSTEMD, &["first"], 1)),
    by_night("lab::all_on_user_mode_linux", || boot(UML, &without(&EXACT), 80)),
    by_night("lab::all_on_user_mode_linux_exact", || boot(UML, &EXACT, 2)),
    by_night("lab::all_on_debians_cloud_kernel", || boot(QEMU, &[], 25)),
    by_night("lab::user_mode_linux_without_net_cls", || boot(UNTAGGED, &WITHOUT_NET_CLS, 18)),
    by_night("lab::newest_debian_cloud_kernel", newest),
    by_night("lab::boots_with_systemd", booted),
    by_night("lab::neighbours_of_a_shaped_host", || boot(BESIDE, &BESIDE_IT, 5)),
];

/// Where the tag alone decides, by the real `cls_cgroup`, and in programs that ask for it; drivers
/// that only user-mode Linux has here, and those beside which the tag goes first.
const BY_TAGS: [&str; 19] = [
    "textbook::classes_send_at_their_rates",
    "textbook::tcp_udp_and_icmp_of_both_families_carry_the_tag",
    "processes::a_login_accepted_by_root_is_the_users",
    "processes::run_puts_a_command_in_a_users_class",
    "processes::with_cls_cgroup_a_passed_socket_is_whosoever_moved_last",
    "arriving::what_arrives_is_in_its_users_class_whatever_it_is",
    "arriving_wire::what_comes_by_a_vlan_device_is_its_users",
    "agreement::status_says_what_tc_says",
    "updates::no_packet_is_lost_or_misclassified_while_the_policy_is_edited",
    "watch::logins::without_events_processes_are_found_all_the_same",
    "escapes::handed_on::apply_gives_what_users_hold_of_roots",
    "escapes::kernel_sockets::an_rxrpc_call_is_its_users",
    "escapes::kernel_sockets::an_rds_stream_is_the_kernels_and_bounded",
    // With macvlan, ipvlan and Open vSwitch.
    "an_ipvlans_guest_is_nobodys_whatever_its_uid",
    "an_ipvlans_guest_is_nobodys_whatever_its_priority",
    "an_ipvlans_guest_cannot_name_a_class",
    "switched::what_a_guest_of_a_switch_sends_and_receives_is_its_owners",
    "switched::whoever_has_an_internal_port_cannot_name_a_class",
    "passed_on::what_is_passed_on_beside_drivers_of_guests_is_its_owners_or_the_tags",
];

/// The kernel that most hosts have, with two processors: its verifier, its process events beside
/// its `cls_cgroup`.
const OF_DEBIAN: [&str; 8] = [
    "textbook::classes_send_at_their_rates",
    "processes::a_login_accepted_by_root_is_the_users",
    "arriving::what_arrives_is_in_its_users_class_whatever_it_is",
    "untagged::a_login_accepted_by_root",
    "untagged_run::what_is_attached_is_in_its_class_from_then_on",
    "untagged_units::a_unit_that_comes_again_has_its_class_again",
    "watch::logins::a_login_is_the_users_from_its_first_bytes",
    "watch::service::the_capabilities_of_the_unit_are_enough",
];

/// Tests of latency and of small guarantees: beside another machine they would measure that one.
const EXACT: [&str; 2] = ["sharing::latency", "shards::guarantees"];

fn without(tests: &[&'static str]) -> Vec<&'static str> {
    tests.iter().flat_map(|test| ["--skip", test]).collect()
}

/// All cases of tests/boot/cases.sh, several boots of one disk.
fn booted() {
    const CASES: [&str; 14] = [
        "broken",
        "link",
        "auto",
        "reload",
        "kill",
        "upgrade",
        "lesser",
        "networkd",
        "manager",
        "oom",
        "timer",
        "var",
        "directory",
        "loop",
    ];
    boot(SYSTEMD, &CASES, CASES.len());
}

/// A kind of machine: a script of tests/lab, where its kernel is (below target), and what the tests
/// inside it are told that it is (`SHAPER_LAB`).
#[derive(Clone, Copy)]
struct Kind {
    script: &'static str,
    folder: &'static str,
    place: &'static str,
}

const UML: Kind = Kind { script: "uml.sh", folder: "lab", place: "uml" };
/// Without `net_cls`, as the kernel's command line can say.
const UNTAGGED: Kind = Kind { place: "untagged", ..UML };
const FORBIDDEN: &str = "untagged::a_kernel_that_forbids";
/// And what goes between the classifiers needs both.
const WITHOUT_NET_CLS: [&str; 5] =
    ["untagged", "--skip", "between_the", "--skip", "a_move_that_is_not_confirmed"];

const QEMU: Kind = Kind { script: "qemu.sh", folder: "lab", place: "qemu" };
const NEWEST: Kind = Kind { folder: "lab/newest", place: "newest", ..QEMU };

/// Debian with systemd as its first process, and the units as they are installed.
const SYSTEMD: Kind = Kind { script: "../boot/qemu.sh", folder: "lab", place: "systemd" };

/// The same Debian in user-mode Linux, with this machine's LXC and Podman.
const BESIDE: Kind = Kind { script: "../boot/uml.sh", ..SYSTEMD };
/// The cases of tests/boot/neighbours.sh.
const BESIDE_IT: [&str; 5] = ["alone", "auto", "own", "uid", "below"];

/// What arrives, and guests: by the programs that each kernel's verifier has to take, and that meet
/// what other kernels hand on with a packet.
fn newest() {
    let words =
        ["textbook", "arriving", "downloads", "guests", "inner_links", "servers", "tunnels"];
    // Goodput and silences are not the emulator's to show.
    let not = ["--skip", "arriving_hands", "--skip", "a_download_is_held", "--skip", "rates::"];
    boot(NEWEST, &[&words[..], &["switched"], &not].concat(), 20);
}

/// User-mode Linux has one processor, so two machines run at once.
const fn half(name: &'static str, body: fn()) -> Test {
    Test { name, on: On::HostTogether, budget: BOOT, body }
}

/// Each by itself, and as long as it takes.
const fn by_night(name: &'static str, body: fn()) -> Test {
    Test { name, on: On::Nightly, budget: BOOT.saturating_mul(2), body }
}

/// For all boots of one test, and everything inside them. The cell kills the machine with its test.
const BOOT: Duration = Duration::from_secs(1_500);

/// Until the machine's first process says that it is up: some 4 s on an idle host.
const UNTIL_UP: Duration = Duration::from_secs(120);

/// The longest that a console may say nothing: a test that fails at its limit of time, and again.
const UNTIL_A_LINE: Duration = BUDGET.saturating_mul(2).saturating_add(Duration::from_secs(60));

/// A machine that hangs is switched off, and booted again in another way of emulating it.
const BOOTS: u32 = 3;

/// All the tests that the words choose must pass, and be no fewer than that.
fn boot(kind: Kind, words: &[&str], at_least: usize) {
    for nth in 1..=BOOTS {
        let mut machine = Machine::start(kind, words, nth);
        let console = match machine.console() {
            Ok(console) if nth < BOOTS && console.iter().any(|line| line.contains(TORN)) => {
                println!("lab: boot {nth} of {BOOTS}: {TORN}; the machine is booted again");
                continue;
            }
            Ok(console) => console,
            Err(hung) if nth < BOOTS => {
                println!("lab: boot {nth} of {BOOTS}: {hung}; the machine is booted again");
                continue;
            }
            Err(hung) => panic!("none of {BOOTS} boots came to its end: {hung}"),
        };
        return judge(&console, at_least);
    }
}

/// How a kernel ends that changes its own code (`text_poke_bp`, as static keys do with each first
/// and last clsact) while the emulator's other thread runs it: seen with two threads alone.
const TORN: &str = "Oops: int3";

fn judge(console: &[String], at_least: usize) {
    let verdict = console.iter().find_map(|line| line.trim().strip_prefix(VERDICT));
    // A console that ends early says nothing about the tests that never ran.
    assert!(verdict.is_some(), "the machine stopped before its verdict");
    let passed = console.iter().filter(|line| is_verdict(line, "ok")).count();
    let failed: Vec<&String> = console.iter().filter(|line| is_verdict(line, "FAILED")).collect();
    assert!(failed.is_empty() && verdict == Some("0"), "failed inside: {failed:#?}");
    assert!(passed >= at_least, "only {passed} tests ran inside");
}

/// What tests/lab/init.sh says last, with the tests' exit status.
const VERDICT: &str = "lab verdict: ";

fn is_verdict(line: &str, word: &str) -> bool {
    line.starts_with("test ") && line.contains(&format!(" ... {word} ("))
}

/// A machine that a script of tests/lab boots; switched off when this value goes.
struct Machine {
    /// The script, whose process group is the machine.
    script: Child,
    /// The machine's keyboard: the emulator's own commands, where it has any.
    keyboard: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Machine {
    /// `nth` is 1 for a test's first boot: a later one may be emulated in another way.
    fn start(kind: Kind, words: &[&str], nth: u32) -> Machine {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = here.join("target").join(kind.folder);
        std::fs::create_dir_all(&folder).expect("a folder for the lab");
        // Whoever looks for tests that fail now and then wants no second chance for them.
        let again: &[&str] = if setting("SHAPER_AGAIN") == Some(0) { &[] } else { &["--again"] };
        let mut script = Command::new("sh")
            .arg(here.join("tests/lab").join(kind.script))
            .arg(&folder)
            .arg(std::env::current_exe().expect("this binary's path"))
            .arg(crate::support::program::binary())
            .args(words)
            .args(again)
            .env("LAB_BOOT", nth.to_string())
            .env("LAB_APPEND", if kind.place == "untagged" { "cgroup_no_v1=net_cls" } else { "" })
            .env("SHAPER_LAB", kind.place)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .process_group(0)
            .spawn()
            .expect("start the lab's script");
        let output = script.stdout.take().expect("the script's output is a pipe");
        let (told, lines) = channel();
        spawn(move || {
            // Firmware says what is no UTF-8.
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).replace('\r', "");
                // At once: the last words of a machine that hangs say where it hangs.
                println!("{line}");
                if told.send(line).is_err() {
                    return;
                }
            }
        });
        Machine { keyboard: script.stdin.take(), script, lines }
    }

    /// All lines until the verdict, or until the machine is off. The error says where it hung.
    fn console(&mut self) -> Result<Vec<String>, String> {
        let start = Instant::now();
        let mut console: Vec<String> = Vec::new();
        let mut is_up = false;
        loop {
            let patience =
                if is_up { UNTIL_A_LINE } else { UNTIL_UP.saturating_sub(start.elapsed()) };
            match self.lines.recv_timeout(patience) {
                Ok(line) => {
                    // The firmware's last line may have no end.
                    is_up = is_up || line.contains("lab: ");
                    let is_last = line.trim().starts_with(VERDICT);
                    console.push(line);
                    if is_last {
                        return Ok(console);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(console),
                Err(RecvTimeoutError::Timeout) => {
                    self.ask_what_it_does();
                    let seconds = patience.as_secs();
                    return Err(match is_up {
                        true => format!("no line of the console for {seconds} s"),
                        false => format!("not up within {} s", UNTIL_UP.as_secs()),
                    });
                }
            }
        }
    }

    /// What a machine that hangs is doing, on the console: the kernel's blocked tasks and what its
    /// processors run (by the magic system request key, Ctrl-A b in qemu), and qemu's registers.
    fn ask_what_it_does(&mut self) {
        let Some(keyboard) = &mut self.keyboard else { return };
        for words in ["\x01bw", "\x01bl", "\x01cinfo cpus\ninfo registers -a\n"] {
            // A machine without a keyboard does not read it.
            let _ = keyboard.write_all(words.as_bytes());
            sleep(Duration::from_secs(2));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.script.id().cast_signed());
        // Asked first, so that the script removes its stage.
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            let _ = killpg(group, signal);
            for _ in 0..50 {
                if matches!(self.script.try_wait(), Ok(Some(_)) | Err(_)) {
                    return;
                }
                sleep(Duration::from_millis(100));
            }
        }
    }
}

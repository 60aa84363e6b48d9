//! What the Makefile does for people who build and install: `install` builds nothing and says so
//! when there is nothing; DESTDIR, PREFIX and UNITS hold; `uninstall` leaves nothing; a Rust that
//! is too old is named before cargo says something obscure. And what `make nightly` says of tests
//! that fail now and then. In a copy, with programs of the test's own on PATH.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

const HERE: &str = env!("CARGO_MANIFEST_DIR");

/// The project's Makefile beside what it reads, and a PATH on which cargo and rustc are as told.
struct Clone {
    folder: TempDir,
}

impl Clone {
    fn new(version: Option<&str>) -> Clone {
        let clone = Clone { folder: tempfile::tempdir().unwrap() };
        for folder in ["systemd", "tests", "share/shaper", "src", "bin", "home"] {
            fs::create_dir_all(clone.path(folder)).unwrap();
        }
        for unit in fs::read_dir(Path::new(HERE).join("systemd")).unwrap() {
            let unit = unit.unwrap();
            fs::copy(unit.path(), clone.path("systemd").join(unit.file_name())).unwrap();
        }
        let [of_policies, of_drop_ins] =
            ["policy", "drop-in"].map(|of| format!("share/shaper/{of}.schema.json"));
        for file in
            ["Makefile", "Cargo.toml", &of_policies, &of_drop_ins, "tests/rust.sh", "tests/run.sh"]
        {
            fs::copy(Path::new(HERE).join(file), clone.path(file)).unwrap();
        }
        for program in [
            "sh", "ls", "find", "head", "install", "sed", "chmod", "id", "rm", "awk", "stat",
            "chown", "cut", "getent", "grep", "mkdir", "nproc", "rmdir", "seq", "sort",
        ] {
            let found = ["/usr/bin", "/bin"].map(|folder| Path::new(folder).join(program));
            let found =
                found.iter().find(|path| path.exists()).unwrap_or_else(|| panic!("no {program}"));
            symlink(found, clone.path("bin").join(program)).unwrap();
        }
        clone.program("cc", "exit 0");
        if let Some(version) = version {
            let ran = clone.path("ran").display().to_string();
            let answer = |name: &str| {
                format!(
                    "case $1 in --version) echo '{name} {version} (of a test)' ;; *) echo \"$@\" >>{ran} ;; esac"
                )
            };
            clone.program("cargo", &answer("cargo"));
            clone.program("rustc", &answer("rustc"));
        }
        clone
    }

    fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    fn program(&self, name: &str, script: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn built(&self) {
        fs::create_dir_all(self.path("target/release")).unwrap();
        fs::write(self.path("target/release/shaper"), "the program").unwrap();
    }

    /// Whether it succeeded, and what it said.
    fn make(&self, words: &[&str]) -> (bool, String) {
        self.run("/usr/bin/make", words)
    }

    fn run(&self, program: &str, words: &[&str]) -> (bool, String) {
        let mut command = Command::new(program);
        command.args(words).current_dir(self.folder.path()).env_clear();
        command.env("PATH", self.path("bin")).env("HOME", self.path("home"));
        let output = command.output().expect(program);
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    /// Every file below a folder, by its path from there.
    fn files(&self, below: &str) -> Vec<String> {
        fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() { walk(&path, found) } else { found.push(path) }
            }
        }
        let mut found = Vec::new();
        walk(&self.path(below), &mut found);
        found.sort();
        let relative =
            |path: PathBuf| path.strip_prefix(self.path(below)).unwrap().display().to_string();
        found.into_iter().map(relative).collect()
    }
}

#[test]
fn install_copies_what_was_built_and_uninstall_leaves_nothing() {
    // Root's PATH under sudo has no cargo.
    let clone = Clone::new(None);
    clone.built();
    let (well, said) = clone.make(&["install", "DESTDIR=pkg", "PREFIX=/usr"]);
    assert!(well, "{said}");
    let files = clone.files("pkg");
    assert_eq!(
        files,
        [
            "etc/systemd/system/run-shaper-cgroup.mount",
            "etc/systemd/system/run-shaper-net_cls.mount",
            "etc/systemd/system/shaper-apply.service",
            "etc/systemd/system/shaper-apply.timer",
            "etc/systemd/system/shaper-metrics.socket",
            "etc/systemd/system/shaper-metrics@.service",
            "etc/systemd/system/shaper-textfile.service",
            "etc/systemd/system/shaper-textfile.timer",
            "etc/systemd/system/shaper.service",
            "usr/bin/shaper",
            "usr/share/shaper/drop-in.schema.json",
            "usr/share/shaper/policy.schema.json"
        ]
    );
    let unit = fs::read_to_string(clone.path("pkg/etc/systemd/system/shaper.service")).unwrap();
    assert!(
        unit.contains("ExecStart=/usr/bin/shaper watch") && !unit.contains("/usr/local/bin"),
        "{unit}"
    );
    let mode = fs::metadata(clone.path("pkg/usr/bin/shaper")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
    let (well, said) = clone.make(&["uninstall", "DESTDIR=pkg", "PREFIX=/usr"]);
    assert!(well, "{said}");
    assert_eq!(clone.files("pkg"), Vec::<String>::new());
    assert!(clone.make(&["install", "DESTDIR=pkg", "PREFIX=/usr"]).0);
    fs::write(clone.path("pkg/usr/share/shaper/notes"), "an administrator's").unwrap();
    let (well, said) = clone.make(&["uninstall", "DESTDIR=pkg", "PREFIX=/usr"]);
    assert!(well, "{said}");
    assert_eq!(clone.files("pkg"), ["usr/share/shaper/notes"]);
    fs::remove_file(clone.path("pkg/usr/share/shaper/notes")).unwrap();
    let packaged = ["install", "DESTDIR=pkg", "UNITS=/usr/lib/systemd/system"];
    assert!(clone.make(&packaged).0);
    assert!(clone.files("pkg").contains(&"usr/lib/systemd/system/shaper.service".to_string()));
    assert!(clone.files("pkg").contains(&"usr/local/bin/shaper".to_string()));
}

#[test]
#[ignore = "needs root"]
fn what_sudo_makes_is_the_callers_needs_root() {
    let clone = Clone::new(Some("1.99.0"));
    let made =
        "mkdir -p $CARGO_TARGET_DIR/release && echo program >$CARGO_TARGET_DIR/release/shaper";
    clone.program("cargo", &format!("case $1 in build) {made} ;; *) echo 'cargo 1.99.0' ;; esac"));
    let (well, said) = clone.make(&["build", "SUDO_USER=nobody"]);
    assert!(well, "{said}");
    let owner = |below: &str| fs::metadata(clone.path(below)).expect(below).uid();
    let nobody = owner("target");
    assert_ne!(nobody, 0);
    assert_eq!(clone.files("target"), ["root/release/shaper"]);
    for made in ["target/root", "target/root/release", "target/root/release/shaper"] {
        assert_eq!(owner(made), nobody, "{made}");
    }
    // What hands nothing over at its end leaves a folder that the caller can write to.
    let clone = Clone::new(Some("1.99.0"));
    clone.program(
        "cargo",
        "case $1 in fmt) mkdir -p $CARGO_TARGET_DIR ;; *) echo 'cargo 1.99.0' ;; esac",
    );
    let (well, said) = clone.make(&["fmt", "SUDO_USER=nobody"]);
    assert!(well, "{said}");
    assert!(clone.path("target/root").exists(), "{said}");
    assert_eq!(fs::metadata(clone.path("target")).unwrap().uid(), nobody);
}

#[test]
fn install_never_builds() {
    let clone = Clone::new(Some("1.99.0"));
    let (well, said) = clone.make(&["install", "DESTDIR=pkg"]);
    assert!(!well && said.contains("Nothing is built yet: run `make` first"), "{said}");
    assert!(!clone.path("ran").exists(), "cargo was started");
    assert_eq!(clone.files("pkg"), Vec::<String>::new());
}

#[test]
fn a_rust_that_is_too_old_or_missing_is_named() {
    let text = fs::read_to_string(Path::new(HERE).join("Cargo.toml")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("rust-version = \"")).unwrap();
    let needed = line.trim_end_matches('"');
    for old in ["1.63.0", "1.85.0", "0.99.0", "1.9.0", "1.85.0-nightly"] {
        let clone = Clone::new(Some(old));
        let (well, said) = clone.make(&[]);
        assert!(!well && said.contains(&format!("needs Rust {needed} or newer")), "{old}: {said}");
        assert!(said.contains(&format!("/bin/cargo is {old}")), "{said}");
        assert!(!clone.path("ran").exists(), "cargo built all the same");
    }
    let (well, said) = Clone::new(None).make(&[]);
    assert!(!well && said.contains("There is no cargo here"), "{said}");
    for new in [needed, "1.200.1", "2.0.0", "1.99.0-nightly"] {
        let clone = Clone::new(Some(new));
        let (well, said) = clone.make(&[]);
        assert!(well, "{new}: {said}");
        assert_eq!(fs::read_to_string(clone.path("ran")).unwrap(), "build --release\n");
    }
}

#[test]
fn rustups_folder_is_found_without_a_new_shell() {
    let clone = Clone::new(Some("1.99.0"));
    fs::create_dir_all(clone.path("home/.cargo/bin")).unwrap();
    for program in ["cargo", "rustc"] {
        let (from, to) =
            (clone.path("bin").join(program), clone.path("home/.cargo/bin").join(program));
        fs::rename(from, to).unwrap();
    }
    let (well, said) = clone.make(&[]);
    assert!(well, "{said}");
}

/// Run by run: nothing, one test, two, and no test at all.
const RUNS: &str = r#"
echo "$@" >>ran
case $(awk 'END { print NR }' ran) in
2) echo '        FAIL [   4.923s] (182/629) shaper plan::tests::steps'; exit 100 ;;
3)
    echo '  TRY 1 FAIL [   9.000s] (-------) shaper::kernel rules::hold'
    echo '        FAIL [   0.100s] (  4/629) shaper plan::tests::steps'
    echo '     TIMEOUT [ 120.000s] (  5/629) shaper::kernel lab::boot'
    exit 100
    ;;
4) echo 'error: could not compile `shaper`'; exit 101 ;;
esac
"#;

#[test]
fn what_failed_in_which_of_many_runs_is_said() {
    let clone = Clone::new(None);
    clone.program("cargo", RUNS);
    clone.program("cargo-nextest", "exit 1");
    let (well, said) = clone.run("/bin/sh", &["tests/run.sh", "1"]);
    assert!(well && !said.contains("failed in run"), "{said}");
    fs::remove_file(clone.path("ran")).unwrap();
    let (well, said) = clone.run("/bin/sh", &["tests/run.sh", "4"]);
    let failed: Vec<&str> = said.lines().filter(|line| line.contains("failed in run")).collect();
    assert!(!well, "{said}");
    assert_eq!(
        failed,
        [
            "  (no test at all): failed in run 4",
            "  lab::boot: failed in run 3",
            "  plan::tests::steps: failed in run 2 3",
        ]
    );
    let ran = fs::read_to_string(clone.path("ran")).unwrap();
    assert!(ran.lines().all(|line| line.ends_with("--retries=0")), "no second chance: {ran}");
    assert!(clone.path("target/nightly/run-4.log").exists());
}

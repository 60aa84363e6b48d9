//! ARCHITECTURE.md's rules about rooms, held against the source: a room uses only rooms that stand
//! above it in `src/lib.rs`, the pure ones touch nothing outside, no file grows beyond what can be
//! read at once, and no `tc` or `ip` is ever started. Reads `src/` only.

use std::fs;
use std::path::{Path, PathBuf};

#[path = "rooms/circles.rs"]
mod circles;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src");

/// The rooms that may touch the world; every other one, and each that comes, is pure.
const MAY_TOUCH: &str = "sys cgroup process accounts engines host ledger apply daemon commands";

/// What in the daemon hears or acts; all its other files decide, and are pure.
const HEARS_OR_ACTS: [&str; 8] = [
    "daemon/actor.rs",
    "daemon/first.rs",
    "daemon/namespace.rs",
    "daemon/placing.rs",
    "daemon/refusal.rs",
    "daemon/service_manager.rs",
    "daemon/sources",
    "daemon/watch.rs",
];

/// What a pure room does not name, and the rooms that may all the same.
const EFFECTS: [(&str, &[&str]); 14] = [
    ("std::fs", &[]),
    // Addresses are values: `IpAddr` and its kin stay.
    ("std::net::Tcp", &[]),
    ("std::net::Udp", &[]),
    ("std::net::ToSocketAddrs", &[]),
    ("std::process", &[]),
    ("std::env", &[]),
    ("std::thread", &[]),
    ("std::io::std", &[]),
    ("Instant::now", &[]),
    ("SystemTime::now", &[]),
    ("println!", &[]),
    // `Errno`, which names what the kernel answered.
    ("nix::", &["netlink"]),
    ("libc::", &[]),
    ("unsafe", &[]),
];

/// How many lines a file may have.
const MOST_LINES: [(&str, usize); 3] = [("src", 500), ("tests", 500), ("benches", 500)];

/// One source file, without its comments.
struct File {
    /// Below `src/`.
    path: PathBuf,
    text: String,
    lines: usize,
    /// Compiled for tests only.
    is_test: bool,
}

impl File {
    /// The room that it is (a part of); `None`: the crate's own roots.
    fn room(&self) -> Option<&str> {
        let first = self.path.components().next()?.as_os_str().to_str()?;
        let room = first.strip_suffix(".rs").unwrap_or(first);
        (!matches!(room, "lib" | "main")).then_some(room)
    }

    /// How many `super::` lead from this file to the crate's root.
    fn depth(&self) -> usize {
        self.path.components().count() - usize::from(self.path.ends_with("mod.rs"))
    }
}

fn files() -> Vec<File> {
    let mut files = Vec::new();
    read(Path::new(SOURCE), &mut files);
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let test_only: Vec<PathBuf> = files.iter().flat_map(test_modules).collect();
    for file in &mut files {
        file.is_test = test_only.iter().any(|module| {
            file.path == module.with_extension("rs") || file.path.starts_with(module)
        });
    }
    assert!(files.len() > 50, "{SOURCE} was not read");
    files
}

/// All that `rustc` reads below a folder.
fn read(folder: &Path, files: &mut Vec<File>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(&path, files);
        }
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let code = |line: &&str| !line.trim_start().starts_with("//");
        files.push(File {
            path: path.strip_prefix(SOURCE).unwrap_or(&path).to_path_buf(),
            lines: text.lines().count(),
            text: text.lines().filter(code).collect::<Vec<_>>().join("\n"),
            is_test: false,
        });
    }
}

/// Modules of `file` that stand in files of their own, after `#[cfg(test)]`.
fn test_modules(file: &File) -> Vec<PathBuf> {
    let folder = match file.path.file_name().and_then(|name| name.to_str()) {
        Some("mod.rs" | "lib.rs" | "main.rs") => file.path.with_file_name(""),
        _ => file.path.with_extension(""),
    };
    let after = file.text.split("#[cfg(test)]\nmod ").skip(1);
    after.filter_map(|rest| Some(folder.join(rest.lines().next()?.strip_suffix(';')?))).collect()
}

/// The file's code without modules that are compiled for tests only.
fn without_tests(file: &File) -> String {
    let mut kept = Vec::new();
    let mut end = None;
    let mut lines = file.text.lines().peekable();
    while let Some(line) = lines.next() {
        if end.as_deref() == Some(line) {
            end = None;
        } else if end.is_none() {
            let opens = lines.peek().is_some_and(|next| next.trim_end().ends_with('{'));
            if line.trim() == "#[cfg(test)]" && opens {
                end = Some(line.replace("#[cfg(test)]", "}"));
            } else {
                kept.push(line);
            }
        }
    }
    kept.join("\n")
}

/// The rooms, in their order.
fn rooms(files: &[File]) -> Vec<String> {
    let lib = files.iter().find(|file| file.path == Path::new("lib.rs")).unwrap();
    let name = |line: &str| {
        line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';').map(str::to_string)
    };
    lib.text.lines().filter_map(name).collect()
}

/// The first names after each `prefix` in `text`: `crate::a::b` and `crate::{a, b::c}`.
fn names_after<'t>(text: &'t str, prefix: &str) -> Vec<&'t str> {
    let name = |text: &'t str| {
        let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
        &text[..end]
    };
    let mut names = Vec::new();
    for (at, _) in text.match_indices(prefix) {
        if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = &text[at + prefix.len()..];
        match rest.strip_prefix('{') {
            None => names.push(name(rest)),
            Some(list) => {
                let mut depth = 0;
                let mut start = 0;
                for (index, c) in list.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' | ',' if depth == 0 => {
                            names.push(name(list[start..index].trim_start()));
                            start = index + 1;
                            if c == '}' {
                                break;
                            }
                        }
                        '}' => depth -= 1,
                        _ => {}
                    }
                }
            }
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// The rooms that a file names, by `crate::` or by `super::` up to the crate's root. rustfmt's
/// indentation says how deep in modules of the file a line stands.
fn used(file: &File) -> Vec<&str> {
    let mut used = names_after(&file.text, "crate::");
    let mut inner: Vec<String> = Vec::new();
    for line in file.text.lines() {
        if inner.last().is_some_and(|end| end == line) {
            inner.pop();
        }
        let depth = file.depth() + inner.len();
        used.extend(names_after(line, &"super::".repeat(depth)));
        let words = line.trim_start().trim_start_matches("pub ");
        if words.starts_with("mod ") && words.ends_with('{') {
            let indent = line.len() - line.trim_start().len();
            inner.push(format!("{}}}", " ".repeat(indent)));
        }
    }
    used
}

#[test]
fn a_room_uses_only_what_stands_above_it() {
    let files = files();
    let rooms = rooms(&files);
    let place = |name: &str| rooms.iter().position(|room| room == name);
    let mut wrong = Vec::new();
    for file in &files {
        let Some(room) = file.room() else { continue };
        let own = place(room).unwrap_or_else(|| panic!("{room} has no line in src/lib.rs"));
        for name in used(file) {
            if place(name).is_some_and(|place| place > own) {
                wrong.push(format!("{}: {room} uses {name}, below it", file.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pure_rooms_touch_nothing_outside() {
    let mut wrong = Vec::new();
    for file in files().iter().filter(|file| !file.is_test) {
        let acts = HEARS_OR_ACTS.iter().any(|path| file.path.starts_with(path));
        let decides = file.room() == Some("daemon") && !acts;
        let is_pure = |room: &&str| decides || !MAY_TOUCH.split(' ').any(|may| may == *room);
        let Some(room) = file.room().filter(is_pure) else { continue };
        let code = without_tests(file);
        for (word, may) in EFFECTS {
            if code.contains(word) && !may.contains(&room) {
                wrong.push(format!("{}: {word} in the pure room {room}", file.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn rooms_that_may_touch_the_world_exist() {
    let rooms = rooms(&files());
    // A room that was renamed would be pure by its old name and free by its new one.
    for room in ["sys", "cgroup", "process", "accounts", "host"] {
        assert!(rooms.iter().any(|name| name == room), "there is no room {room}");
    }
    for path in HEARS_OR_ACTS {
        assert!(Path::new(SOURCE).join(path).exists(), "there is no file {path}");
    }
}

#[test]
fn unsafe_stands_in_sys_alone() {
    for file in files().iter().filter(|file| file.room() != Some("sys")) {
        for word in ["unsafe {", "unsafe fn", "unsafe impl", "allow(unsafe_code)"] {
            assert!(!file.text.contains(word), "{}: {word}", file.path.display());
        }
    }
}

/// Other people's names must not command a terminal: what is printed passes `text` on its way out,
/// in the two files that open a way out.
#[test]
fn whatever_is_printed_passes_one_gate() {
    for file in files().iter().filter(|file| !file.is_test) {
        let path = file.path.to_str().unwrap();
        let mut code = without_tests(file);
        let asked = [
            "io::stdout().is_terminal()",
            "io::stderr().is_terminal()",
            "color(&io::stdout())",
            "color(&io::stderr())",
        ];
        for asked in asked {
            code = code.replace(asked, "");
        }
        let ways = ["io::stdout()", "io::stderr()", "/dev/std", "/dev/tty", "println!(", "print!("];
        for way in ways {
            assert!(path == "commands/output.rs" || !code.contains(way), "{path}: {way}");
        }
        let gated = code.contains("write(\"/dev/kmsg\", record(");
        assert!(gated || !code.contains("dev/kmsg"), "{path}: /dev/kmsg without `text::record`");
    }
}

/// NSS has one door, `accounts::asking`: whoever asks says who does, and how long that may take.
/// Its functions are called by what is behind the door alone, and that by the door alone.
#[test]
fn nss_has_one_door() {
    let behind = ["accounts/lookup.rs", "sys/nss.rs"];
    let asks = [
        "User::from_",
        "Group::from_",
        "getpw",
        "getgr",
        "initgroups",
        "getgrouplist",
        "gid_of_group",
        "getaddrinfo",
        "to_socket_addrs",
    ];
    for file in files().iter().filter(|file| !file.is_test) {
        let path = file.path.to_str().unwrap();
        let code = without_tests(file);
        for word in asks {
            let may = behind.contains(&path);
            assert!(may || !code.contains(word), "{path}: {word} beside `accounts::asking`");
        }
        // Whoever asks by a child cannot hang.
        let may = path == "accounts/asking.rs";
        assert!(may || !code.contains("ask_here("), "{path}: asks NSS in its own process");
        let may = may || path == "accounts/lookup.rs";
        assert!(may || !code.contains("lookup("), "{path}: beside `accounts::asking`");
    }
}

#[test]
fn no_file_is_too_long_to_be_read_at_once() {
    let mut long = Vec::new();
    for (folder, most) in MOST_LINES {
        let mut files = Vec::new();
        read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut files);
        let over = files.iter().filter(|file| file.lines > most);
        long.extend(over.map(|file| format!("{}: {} lines", file.path.display(), file.lines)));
    }
    assert!(long.is_empty(), "{long:#?}");
}

/// The kernel is spoken to over netlink. The only programs that are ever started are the command of
/// `shaper run` and the editor of `shaper edit`.
#[test]
fn neither_tc_nor_ip_is_started() {
    for file in files().iter().filter(|file| !file.is_test) {
        let code = without_tests(file);
        let starts = code.contains("Command::new") || code.contains(".exec(");
        let starters = ["commands/run.rs", "commands/edit/editor.rs"];
        let may = starters.iter().any(|path| file.path == Path::new(path));
        assert!(may || !starts, "{} starts a process", file.path.display());
        let words = ["Command::new(\"", "system(", "posix_spawn", "execvp", "execve"];
        for word in words {
            assert!(!code.contains(word), "{}: {word}", file.path.display());
        }
    }
}

const ARCHITECTURE: &str = include_str!("../ARCHITECTURE.md");

/// What stands between backticks in a text, outside its blocks of code.
fn quoted(text: &str) -> Vec<String> {
    let prose: Vec<&str> = text.split("```").step_by(2).collect();
    let prose = prose.join("\n");
    let spans = prose.split('`').skip(1).step_by(2);
    spans.map(|span| span.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// Whether a word is declared in a source text: an item, a variant or a field.
fn declares(text: &str, word: &str) -> bool {
    let after = |line: &str, start: &str| {
        line.strip_prefix(start)
            .is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    };
    let items = [
        "fn",
        "const fn",
        "unsafe fn",
        "struct",
        "enum",
        "trait",
        "type",
        "const",
        "static",
        "mod",
    ];
    text.lines().any(|line| {
        let line = line.trim_start();
        let shown = ["pub(crate) ", "pub(super) ", "pub "];
        let line = shown.iter().find_map(|shown| line.strip_prefix(shown)).unwrap_or(line);
        after(line, word) || items.iter().any(|item| after(line, &format!("{item} {word}")))
    })
}

/// What is wrong with a name of code in backticks; `None`: it exists, or is no name of code.
fn missing(span: &str, files: &[File], rooms: &[String]) -> Option<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let is_word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_alphabetic())
            && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    if span.ends_with(".rs") && !span.contains([' ', '*']) {
        let there = root.join(span).exists() || root.join("src").join(span).exists();
        return (!there).then(|| format!("no file {span}"));
    }
    let path = span.split(['(', ' ']).next().unwrap_or_default();
    let words: Vec<&str> = path.split("::").collect();
    if words.len() < 2 || !words.iter().all(|word| is_word(word)) {
        return None;
    }
    let of_room = |file: &&File| file.room() == Some(words[0]);
    let (texts, words): (Vec<&File>, _) = match rooms.iter().any(|room| room == words[0]) {
        true => (files.iter().filter(of_room).collect(), &words[1..]),
        false => (files.iter().collect(), &words[..]),
    };
    let known = |word: &str| {
        let is_module = |file: &&File| {
            file.path.components().any(|part| {
                let part = part.as_os_str().to_str().unwrap_or_default();
                part == word || part.strip_suffix(".rs") == Some(word)
            })
        };
        texts.iter().any(is_module) || texts.iter().any(|file| declares(&file.text, word))
    };
    let unknown = words.iter().find(|word| !known(word))?;
    Some(format!("`{span}`: no {unknown}"))
}

/// A stranger finds everything that the map names.
#[test]
fn what_the_map_names_exists() {
    let files = files();
    let rooms = rooms(&files);
    let spans = quoted(ARCHITECTURE);
    assert!(spans.len() > 100, "{} names were read", spans.len());
    let wrong: Vec<String> =
        spans.iter().filter_map(|span| missing(span, &files, &rooms)).collect();
    assert!(wrong.is_empty(), "ARCHITECTURE.md: {}", wrong.join("\n"));
}

#[test]
fn the_reader_of_the_map_sees_what_is_not_there() {
    let files = files();
    let rooms = rooms(&files);
    let is_missing = |span: &str| missing(span, &files, &rooms).is_some();
    for there in ["plan::diff", "desired/rates.rs", "tests/rooms.rs", "tree::Port { link }", "1:10"]
    {
        assert!(!is_missing(there), "{there}");
    }
    for gone in ["plan::no_such_item", "desired/no_such_file.rs", "tree::Port::no_such_field"] {
        assert!(is_missing(gone), "{gone}");
    }
    assert_eq!(quoted("a `b c` d\n```\n`e`\n```\n`f\ng`"), ["b c", "f g"]);
}

/// A table's row is one line to Markdown, and rustfmt keeps code to the same width.
#[test]
fn no_line_is_beyond_100_columns() {
    let mut wrong = Vec::new();
    for folder in ["", "docs"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        for file in files.filter(|file| file.extension().is_some_and(|ending| ending == "md")) {
            let text = fs::read_to_string(&file).unwrap();
            let long = text.lines().enumerate().filter(|(_, line)| line.chars().count() > 100);
            let long = long.filter(|(_, line)| !line.starts_with('|'));
            wrong.extend(long.map(|(number, _)| format!("{}:{}", file.display(), number + 1)));
        }
    }
    let mut files = Vec::new();
    for (folder, _) in MOST_LINES {
        read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut files);
    }
    for file in files {
        // Below `src/`, or a whole path, which takes the place of what it is joined to.
        let path = Path::new(SOURCE).join(&file.path);
        let text = fs::read_to_string(&path).unwrap();
        let comments = text.lines().enumerate();
        let comments = comments.filter(|(_, line)| line.trim_start().starts_with("//"));
        let long = comments.filter(|(_, line)| line.chars().count() > 100);
        wrong.extend(long.map(|(number, _)| format!("{}:{}", path.display(), number + 1)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_this_test_sees_every_way_to_name_a_room() {
    let file = |path: &str, text: &str| File {
        path: path.into(),
        text: text.into(),
        lines: 0,
        is_test: false,
    };
    let plan = file(
        "plan/diff.rs",
        "use crate::{state::{A, B}, units};\nuse super::super::execute;\nuse super::Step;\n\
         fn f() { crate::cli::f() }\nmod tests {\n    use super::super::super::status;\n    use super::*;\n}",
    );
    assert_eq!(used(&plan), ["state", "units", "cli", "execute", "status"]);
    assert_eq!((plan.room(), plan.depth()), (Some("plan"), 2));
    let root = file("plan/mod.rs", "use super::sys;\n#[cfg(test)]\nmod tests;\n");
    assert_eq!(used(&root), ["sys"]);
    assert_eq!(test_modules(&root), [Path::new("plan/tests")]);
    let inline = file(
        "units.rs",
        "use std::fmt;\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}\nfn f() {}",
    );
    assert_eq!(without_tests(&inline), "use std::fmt;\nfn f() {}");
}

//! No circle between files: what a file uses stands in files that do not use it, on any way round.
//! A `mod.rs` may declare its children and hand their items on: that alone is no use of them.
//!
//! What a file names is what counts: in `use`, and by a path in its code. A method of a type is
//! called without a name, so one that stands in another file than its type is not seen.

use std::collections::{BTreeMap, BTreeSet};

use super::{File, files, without_tests};

/// `a::b::c`, by its parts.
type Names = Vec<String>;

/// A path in a `use`, and the name that it has from there on; `*`: all that the path has.
struct Import {
    path: Names,
    name: String,
}

/// What a file says about others: what it brings in (`use`), what of that it hands on (`pub use`),
/// the paths in its code, and all words there.
#[derive(Default)]
struct Said {
    brought_in: Vec<Import>,
    handed_on: Vec<Import>,
    in_code: Vec<Names>,
    words: BTreeSet<String>,
}

fn is_part_of_a_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn names(path: &str) -> Names {
    path.split("::").map(str::trim).filter(|name| !name.is_empty()).map(str::to_string).collect()
}

/// The module that a file is, from the crate's root.
fn module(file: &File) -> Names {
    let path = file.path.with_extension("");
    let mut names: Names =
        path.components().map(|part| part.as_os_str().to_str().unwrap().to_string()).collect();
    if names.last().is_some_and(|name| matches!(name.as_str(), "mod" | "lib")) {
        names.pop();
    }
    names
}

/// All paths in a `use` tree: `a::{b, c::d as e}` is `a::b`, and `a::c::d` by the name `e`.
fn imports(tree: &str, before: &[String], found: &mut Vec<Import>) {
    let (path, list) = match tree.split_once('{') {
        Some((path, list)) => (path, list.rsplit_once('}').map(|(list, _)| list)),
        None => (tree, None),
    };
    let (path, alias) = match path.split_once(" as ") {
        Some((path, alias)) => (path, Some(alias.trim().to_string())),
        None => (path, None),
    };
    let mut all: Names = before.iter().cloned().chain(names(path)).collect();
    let Some(list) = list else {
        // `a::{self}` is `a`; `self` in front is the module that says it.
        all.truncate(all.len() - usize::from(all.len() > 1 && all.ends_with(&["self".into()])));
        let name = alias.or_else(|| all.last().cloned()).unwrap_or_default();
        found.push(Import { path: all, name });
        return;
    };
    let (mut depth, mut start) = (0, 0);
    for (at, c) in list.char_indices().chain([(list.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !list[start..at].trim().is_empty() {
                    imports(&list[start..at], &all, found);
                }
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// The tree of a `use` that begins with this line, and whether it hands on.
fn begun(line: &str) -> Option<(&str, bool)> {
    let words = line.trim_start();
    let Some(public) = words.strip_prefix("pub") else {
        return words.strip_prefix("use ").map(|tree| (tree, false));
    };
    let shown = match public.strip_prefix('(') {
        Some(within) => within.split_once(')')?.1,
        None => public,
    };
    shown.trim_start().strip_prefix("use ").map(|tree| (tree, true))
}

fn said(code: &str) -> Said {
    let mut said = Said::default();
    let mut lines = code.lines();
    let mut is_for_tests = false;
    while let Some(line) = lines.next() {
        let Some((tree, hands_on)) = begun(line) else {
            is_for_tests = line.trim() == "#[cfg(test)]";
            in_code(line, &mut said);
            continue;
        };
        let mut tree = tree.to_string();
        while !tree.contains(';') {
            tree.push_str(lines.next().expect("a use ends"));
        }
        let found = if hands_on { &mut said.handed_on } else { &mut said.brought_in };
        if !is_for_tests {
            imports(tree.split(';').next().unwrap_or_default(), &[], found);
        }
        is_for_tests = false;
    }
    said
}

/// The paths in a line of code, and its words. rustfmt breaks no path over lines.
fn in_code(line: &str, said: &mut Said) {
    let words = line.trim_start();
    assert!(!words.contains("macro_rules!"), "a macro's paths are not known here: {line}");
    if words.starts_with("mod ") || words.starts_with("pub mod ") {
        assert!(words.ends_with(';'), "a module within a file is not known here: {line}");
        return;
    }
    for path in line.split(|c| !is_part_of_a_name(c) && c != ':') {
        if path.contains("::") {
            said.in_code.push(names(path));
        }
    }
    said.words.extend(line.split(|c| !is_part_of_a_name(c)).map(str::to_string));
}

/// Every file by its module, with what it says.
struct Sources(BTreeMap<Names, Said>);

impl Sources {
    fn read(files: &[File]) -> Sources {
        let files = files.iter().filter(|file| !file.is_test && !file.path.ends_with("main.rs"));
        Sources(files.map(|file| (module(file), said(&without_tests(file)))).collect())
    }

    /// A path that the module `at` says, from the crate's root; `None`: of another crate.
    fn whole(&self, at: &Names, path: &[String]) -> Option<Names> {
        let (first, rest) = path.split_first()?;
        let mut whole = match first.as_str() {
            "crate" => Names::new(),
            "self" => at.clone(),
            "super" => {
                let ups = path.iter().take_while(|name| *name == "super").count();
                let mut above = at[..at.len().checked_sub(ups)?].to_vec();
                above.extend_from_slice(&path[ups..]);
                return Some(above);
            }
            name => {
                let child: Names = at.iter().chain([first]).cloned().collect();
                let said = &self.0[at];
                let mut imports = said.brought_in.iter().chain(&said.handed_on);
                match imports.find(|import| import.name == *name && import.path[0] != *name) {
                    _ if self.0.contains_key(&child) => child,
                    Some(import) => self.whole(at, &import.path)?,
                    None => return None,
                }
            }
        };
        whole.extend_from_slice(rest);
        Some(whole)
    }

    /// The module that has what a whole path names, also where another one hands it on.
    fn holder(&self, path: &[String]) -> Names {
        let most = (0..=path.len()).rev().find(|most| self.0.contains_key(&path[..*most]));
        let (module, rest) = path.split_at(most.unwrap_or_default());
        let module = module.to_vec();
        let Some(name) = rest.first() else { return module };
        let handed_on = self.0[&module].handed_on.iter().find(|import| import.name == *name);
        let held = handed_on.and_then(|import| self.whole(&module, &import.path));
        held.map_or(module, |held| self.holder(&held))
    }

    /// The modules whose items a module names.
    fn used(&self, module: &Names, said: &Said) -> BTreeSet<Names> {
        // What is handed on is used where its name is said as well, and a `*` may be anything.
        let named = said.handed_on.iter();
        let named = named.filter(|import| import.name == "*" || said.words.contains(&import.name));
        let paths = said.brought_in.iter().chain(named).map(|import| &import.path);
        let whole = paths.chain(&said.in_code).filter_map(|path| self.whole(module, path));
        let used = whole.map(|path| self.holder(&path));
        // The crate's root has the rooms and nothing else.
        used.filter(|used| used != module && !used.is_empty()).collect()
    }

    /// Modules that come back to themselves on a way of uses.
    fn circles(&self) -> BTreeSet<String> {
        let uses: BTreeMap<&Names, BTreeSet<Names>> =
            self.0.iter().map(|(module, said)| (module, self.used(module, said))).collect();
        let is_reached_from_itself = |from: &Names| {
            let mut seen: BTreeSet<&Names> = BTreeSet::new();
            let mut next: Vec<&Names> = uses[from].iter().collect();
            while let Some(module) = next.pop() {
                if seen.insert(module) {
                    next.extend(uses.get(module).into_iter().flatten());
                }
            }
            seen.contains(from)
        };
        let modules = uses.keys().filter(|module| is_reached_from_itself(module));
        modules.map(|module| module.join("::")).collect()
    }
}

#[test]
fn no_file_uses_one_that_uses_it() {
    let circles = Sources::read(&files()).circles();
    assert!(circles.is_empty(), "files in circles: {circles:#?}");
}

/// The circles between files of these texts.
fn circles_of(texts: &[(&str, &str)]) -> Vec<String> {
    let file = |(path, text): &(&str, &str)| File {
        path: path.into(),
        text: text.to_string(),
        lines: 0,
        is_test: false,
    };
    let files: Vec<File> = texts.iter().map(file).collect();
    Sources::read(&files).circles().into_iter().collect()
}

/// A parent that only hands on. `a::b` uses `a::c`, by way of it.
const HANDS_ON: (&str, &str) =
    ("a/mod.rs", "mod b;\nmod c;\npub use b::B;\npub(crate) use c::{C, D as E};\n");
const B: (&str, &str) = ("a/b.rs", "use super::E;\npub struct B;\n");

#[test]
fn every_way_to_name_a_file_closes_a_planted_circle() {
    let root = ("lib.rs", "pub mod a;\npub mod z;\n");
    let at = |c: &str| circles_of(&[root, HANDS_ON, B, ("a/c.rs", c), ("z.rs", "")]);
    let without = [
        "pub struct C;\n",
        "use std::b::B;\nuse crate::z;\nfn f() { z::b() }\n",
        "use super::c;\nuse super::C;\n",
        "#[cfg(test)]\nmod tests {\n    use super::super::B;\n}\nfn f() {}\n",
        "#[cfg(test)]\nuse super::B;\nuse std::fmt;\n",
    ];
    for c in without {
        assert_eq!(at(c), [""; 0], "{c}");
    }
    let with = [
        "use super::B;\n",
        "use super::b;\n",
        "use super::b::*;\n",
        "use super::{\n    B,\n};\n",
        "pub use super::B as F;\nfn f() -> F {}\n",
        "use crate::{a::{b::{self, B}}, z};\n",
        "use std::fmt;\nuse crate::{z, a::{B as Other}};\n",
        "fn f() -> super::b::B {}\n",
        "fn f() -> Option<super::B> {}\n",
        "fn f() {\n    use crate::a::B;\n}\n",
        "fn f() { crate::a::b::g::<u8>() }\n",
        "use crate::a;\nfn f() { a::b::g() }\n",
        "use crate::a as other;\nfn f() { other::B::g() }\n",
        "use super::super::a;\nuse a::b::B;\n",
    ];
    for c in with {
        assert_eq!(at(c), ["a::b", "a::c"], "{c}");
    }
}

#[test]
fn a_parent_that_uses_what_it_hands_on_is_seen_in_a_circle() {
    let b = ("a/b.rs", "use super::A;\npub struct B(A);\n");
    let at = |root: &str| circles_of(&[("a/mod.rs", root), b]);
    for uses in [
        "mod b;\npub struct A;\nfn f() { b::g() }\n",
        "mod b;\nuse self::b::B;\npub struct A;\n",
        "mod b;\npub use b::B;\npub struct A;\nfn f() -> B { B(A) }\n",
        "mod b;\npub use b::*;\npub struct A;\n",
    ] {
        assert_eq!(at(uses), ["a", "a::b"], "{uses}");
    }
    assert_eq!(at("mod b;\npub use b::B;\npub struct A;\n"), [""; 0]);
}

#[test]
fn a_circle_of_three_rooms_is_seen() {
    let files = [
        ("a.rs", "use crate::b::B;\n"),
        ("b/mod.rs", "mod d;\npub use d::B;\n"),
        ("b/d.rs", "use crate::c;\n"),
        ("c.rs", "fn f() { crate::a::f() }\n"),
        ("e.rs", "use crate::a;\n"),
    ];
    assert_eq!(circles_of(&files), ["a", "b::d", "c"]);
}

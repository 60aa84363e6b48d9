//! What packages have beside the program: a man page for each command, the policy's reference from
//! `docs/policy.md`, completions; that the lists of a package's files name what is there; and that
//! every link of a document leads somewhere.

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use clap::CommandFactory;
use shaper::cli::Cli;

#[path = "../examples/documents/pages.rs"]
mod pages;

const HERE: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn the_reference_is_all_of_the_documents_and_no_markdown() {
    let policy = fs::read_to_string(Path::new(HERE).join("docs/policy.md")).unwrap();
    let page = pages::reference(pages::body(&policy));
    let lines = pages::body(&policy).lines();
    let of_tables = lines.clone().filter(|line| line.starts_with("| ")).count();
    let rows = of_tables - lines.filter(|line| line.starts_with("|--")).count();
    assert!(rows > 10, "the tables are elsewhere");
    let headings = pages::body(&policy).lines().filter(|line| line.starts_with("## ")).count();
    assert_eq!(page.matches("\n.SH ").count(), headings + pages::SECTIONS_AROUND);
    let below = pages::body(&policy).lines().filter(|line| line.starts_with("### ")).count();
    assert_eq!(page.matches("\n.SS ").count(), below);
    assert!(page.contains("(see Times)") && !page.contains("(Times)"), "cross references");
    assert_eq!(page.matches(".TP\n").count(), rows + pages::ITEMS_OF_TAIL);
    let mut is_shown = false;
    for line in page.lines() {
        // What a fence has is printed as it is.
        is_shown = (is_shown || line == ".nf") && line != ".fi";
        if is_shown {
            continue;
        }
        let is_plain = !line.contains(['`', '|']) || line.contains("\\fB");
        assert!(is_plain && !line.contains("**") && !line.contains("]("), "{line}");
        assert!(!line.starts_with('#'), "{line}");
    }
    for key in ["rate", "ceil", "background", "classid", "optional", "follow", "leaf"] {
        assert!(page.contains(&format!(".TP\n\\fB{key}\\fR\n")), "no {key}: {page}");
    }
}

/// The pages that the example writes, by man(1)'s own parser where it is here.
#[test]
fn each_command_has_its_page_and_each_shell_its_completion() {
    let folder = tempfile::tempdir().unwrap();
    pages::write(folder.path()).unwrap();
    let page = |name: &str| folder.path().join("man").join(name);
    for command in Cli::command().get_subcommands() {
        let name = command.get_name();
        let text = fs::read_to_string(page(&format!("man1/shaper-{name}.1"))).expect(name);
        assert!(text.contains(".SH NAME"), "{name}");
        shows_as_typed(command, &text);
        assert!(text.contains("\n.SH SEE ALSO\nshaper(1), shaper.yaml(5)\n"), "{name}");
        has_values(command, &text);
    }
    let of_program = fs::read_to_string(page("man1/shaper.1")).unwrap();
    shows_as_typed(&Cli::command(), &of_program);
    has_values(&Cli::command(), &of_program);
    for section in ["FILES\n.TP\n/etc/shaper/policies.yaml\n", "SEE ALSO\nshaper.yaml(5), "] {
        assert!(of_program.contains(&format!("\n.SH {section}")), "{section}");
    }
    for (completion, word) in [
        ("bash-completion/completions/shaper", "--skip-unknown"),
        ("zsh/site-functions/_shaper", ":_users"),
        ("zsh/site-functions/_shaper", ":GROUP:_groups"),
        ("fish/vendor_completions.d/shaper.fish", "subcommand why\" -a \"(__fish_complete_users)"),
        ("fish/vendor_completions.d/shaper.fish", "skip-unknown"),
    ] {
        let text = fs::read_to_string(folder.path().join(completion)).expect(completion);
        assert!(text.contains(word), "no {word} in {completion}");
    }
    // bash itself, as it calls the function: the command, the word at the cursor, the one before.
    let bash = folder.path().join("bash-completion/completions/shaper");
    let completed = |words: &str| {
        let program = format!(
            ". {}; COMP_WORDS=(shaper {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
            cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD - 1]}}
            _shaper_people shaper \"$cur\" \"$prev\"; echo \" ${{COMPREPLY[*]}} \"",
            bash.display()
        );
        let done = Command::new("bash").args(["-c", &program]).assert().success();
        String::from_utf8_lossy(&done.get_output().stdout).into_owned()
    };
    for words in ["why roo", "-v status roo", "run roo", "attach roo", "status --group roo"] {
        assert!(completed(words).contains(" root "), "{words}: {}", completed(words));
    }
    for words in ["check roo", "run root -- roo", "roo"] {
        assert!(!completed(words).contains(" root "), "{words}: {}", completed(words));
    }
    assert!(completed("stat").contains(" status ") && completed("why --js").contains(" --json "));
}

/// Each line that `--help` has at its end is a line of the page, too.
#[track_caller]
fn shows_as_typed(command: &clap::Command, page: &str) {
    let Some(examples) = command.get_after_help() else { return };
    let (_, section) = page.split_once("\n.SH EXAMPLES\n.nf\n").expect("a section of examples");
    let (shown, _) = section.split_once("\n.fi").expect("its end");
    let shown = shown.replace("\\-", "-").replace("\\*(Aq", "'").replace("\\e", "\\");
    let typed = examples.to_string();
    let typed = typed.strip_prefix("Examples:\n").unwrap_or(&typed).trim_end();
    let name = command.get_name();
    assert_eq!(shown.replace("\\.", ".").replace("\\'", "'"), typed, "{name}");
}

/// The synopsis shows what an option takes.
#[track_caller]
fn has_values(command: &clap::Command, page: &str) {
    let (_, rest) = page.split_once("\n.SH SYNOPSIS\n").expect("a synopsis");
    let synopsis = rest.lines().next().unwrap();
    let takes = |option: &&clap::Arg| option.get_action().takes_values() && !option.is_positional();
    for option in command.get_arguments().filter(takes).filter(|option| !option.is_hide_set()) {
        let long = format!("--{}", option.get_long().expect("a name")).replace('-', "\\-");
        let may_be_left_out = option.get_num_args().is_some_and(|number| number.min_values() == 0);
        let equals = if option.is_require_equals_set() { "=" } else { " " };
        let value = match (may_be_left_out, equals) {
            (true, "=") => "[=\\fI".to_string(),
            (true, _) => " [\\fI".to_string(),
            (false, equals) => format!("{equals}\\fI"),
        };
        let wanted = format!("\\fB{long}\\fR{value}");
        assert!(synopsis.contains(&wanted), "{wanted}: {synopsis}");
    }
}

/// As `make package-test` tries it in a clean root, here with the program that tests have.
#[test]
#[ignore = "needs root"]
fn a_package_is_installed_upgraded_under_traffic_and_purged_needs_root() {
    let program = env!("CARGO_BIN_EXE_shaper");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "tests/packages.sh", "quick", program]).current_dir(HERE);
    command.assert().success();
}

#[test]
fn what_packages_are_made_of_is_there() {
    let read = |name: &str| fs::read_to_string(Path::new(HERE).join(name)).expect(name);
    let stage = read("packaging/stage.sh");
    for file in ["LICENSE-MIT", "LICENSE-APACHE", "CHANGELOG.md", "SECURITY.md", "packaging/pam"] {
        assert!(stage.contains(file) && !read(file).is_empty(), "{file}");
    }
    let version = env!("CARGO_PKG_VERSION");
    assert!(read("CHANGELOG.md").contains(&format!("\n## {version}\n")), "CHANGELOG has {version}");
    for script in ["deb/postinst", "deb/prerm", "deb/postrm", "rpm/post", "rpm/preun", "rpm/postun"]
    {
        let path = Path::new(HERE).join("packaging").join(script);
        Command::new("sh").arg("-n").arg(path).assert().success();
    }
    // A removal is one thing, whoever packs it.
    let removal = |script: &str| {
        let text = read(script);
        text.split_once("; then\n").expect("a condition").1.to_string()
    };
    assert_eq!(removal("packaging/deb/prerm"), removal("packaging/rpm/preun"));
}

/// The documents that somebody reads as Markdown.
fn documents() -> Vec<PathBuf> {
    let here = Path::new(HERE);
    let mut all =
        vec![here.join("tests/kernel/escapes/README.md"), here.join("benches/RESULTS.md")];
    for folder in [here.to_path_buf(), here.join("docs")] {
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        all.extend(files.filter(|file| file.extension().is_some_and(|ending| ending == "md")));
    }
    all
}

/// The anchor that a heading has: its words in small letters, with hyphens.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase().replace(' ', "-");
    kept.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
}

/// Whether a link of this document leads to a file, and to a heading of it.
fn leads_somewhere(document: &Path, target: &str) -> bool {
    let (file, heading) = target.split_once('#').unwrap_or((target, ""));
    let file = match file {
        "" => document.to_path_buf(),
        file => document.parent().unwrap().join(file),
    };
    if heading.is_empty() || !file.exists() {
        return file.exists();
    }
    let text = fs::read_to_string(&file).unwrap();
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#').trim())).any(|it| it == heading)
}

#[test]
fn every_link_leads_somewhere() {
    let documents = documents();
    let (mut wrong, mut links) = (Vec::new(), 0);
    for document in &documents {
        let text = fs::read_to_string(document).unwrap();
        let prose: Vec<&str> = text.split("```").step_by(2).collect();
        for link in prose.join("").split("](").skip(1) {
            let target = link.split(')').next().unwrap();
            let is_ours = !target.contains("://");
            links += usize::from(is_ours);
            if is_ours && !leads_somewhere(document, target) {
                wrong.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(links > 10, "{links} links of {} documents", documents.len());
    let readme = Path::new(HERE).join("README.md");
    for nowhere in ["docs/none.md", "docs/policy.md#no-such-heading", "#no-such-heading"] {
        assert!(!leads_somewhere(&readme, nowhere), "{nowhere}");
    }
}

/// What `sh` blocks have is not run in tests of the documents: what it names must be there. (What
/// `make` and packages do has tests of its own.)
#[test]
fn what_shell_blocks_name_is_there() {
    let here = Path::new(HERE);
    let makefile = fs::read_to_string(here.join("Makefile")).unwrap();
    let mut lines = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for block in text.split("```sh\n").skip(1) {
            for line in block.split("```").next().unwrap().lines() {
                let line = line.split(" #").next().unwrap().trim_end();
                for command in line.split(" && ").map(|it| it.trim_start_matches("sudo ")) {
                    let named = is_named(command, here, &makefile);
                    assert!(named, "{}: {command}", document.display());
                    lines += 1;
                }
            }
        }
    }
    assert!(lines > 5, "{lines} lines");
    for nothing in ["make nothing", "systemctl start nothing", "shaper nothing", "nothing"] {
        assert!(!is_named(nothing, here, &makefile), "{nothing}");
    }
}

/// Whether a command is one of make's, of a unit's, of a package's, or of ours.
fn is_named(command: &str, here: &Path, makefile: &str) -> bool {
    let words: Vec<&str> = command.split(' ').collect();
    match words[..] {
        ["make"] => true,
        ["make", ref targets @ ..] => {
            let is_target = |target: &&str| makefile.contains(&format!("\n{target}:"));
            targets.iter().all(is_target)
        }
        ["systemctl", .., unit] => {
            ["", ".service"].iter().any(|kind| here.join(format!("systemd/{unit}{kind}")).is_file())
        }
        ["dpkg" | "rpm", "-i", file] => file.starts_with("target/"),
        _ => parses(command),
    }
}

/// Whether the command line takes it.
fn parses(command: &str) -> bool {
    let command = command.strip_prefix("shaper ").map(str::split_whitespace);
    command.is_some_and(|words| {
        use clap::error::ErrorKind::{DisplayHelp, DisplayVersion};
        let words = std::iter::once("shaper").chain(words);
        let parsed = Cli::command().try_get_matches_from(words);
        parsed.map_or_else(|e| matches!(e.kind(), DisplayHelp | DisplayVersion), |_| true)
    })
}

/// Commands within a sentence, too, are such that the command line takes them; a command's name
/// alone stands for the command.
#[test]
fn commands_within_sentences_are_ours() {
    let mut found = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        let prose: Vec<&str> = text.split("```").step_by(2).collect();
        for span in prose.join("").split('`').skip(1).step_by(2) {
            let span = span.split_whitespace().collect::<Vec<_>>().join(" ");
            let Some(words) = span.strip_prefix("shaper ") else { continue };
            let is_name = Cli::command().find_subcommand(words).is_some();
            assert!(is_name || parses(&span), "{}: `{span}`", document.display());
            found += 1;
        }
    }
    assert!(found > 20, "{found} commands");
    assert!(!parses("shaper apply --no-such-option") && parses("shaper why bob --to 10.1.2.3:443"));
}

/// README names every recipe, and a test with traffic takes it.
#[test]
fn every_recipe_is_named_and_tried() {
    let here = Path::new(HERE);
    let readme = fs::read_to_string(here.join("README.md")).unwrap();
    let tests = fs::read_dir(here.join("tests/kernel/recipes")).unwrap();
    let tests: Vec<String> =
        tests.map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    for recipe in fs::read_dir(here.join("policies/recipes")).unwrap() {
        let recipe = recipe.unwrap().path();
        let name = recipe.file_stem().unwrap().to_string_lossy();
        let taken = format!("takes(\"{name}\")");
        assert!(tests.concat().contains(&taken), "no test takes {name}");
        assert!(readme.contains(&format!("(policies/recipes/{name}.yaml)")), "README: no {name}");
    }
}

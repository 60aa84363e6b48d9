//! What packages have beside the program: a man page for each command, the policy's reference from
//! README, completions; and that the lists of a package's files name what is there.

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use clap::CommandFactory;
use shaper::cli::Cli;

#[path = "../examples/documents/pages.rs"]
mod pages;

const HERE: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn the_reference_is_all_of_readmes_and_no_markdown() {
    let readme = fs::read_to_string(Path::new(HERE).join("README.md")).unwrap();
    let page = pages::reference(pages::section(&readme));
    let lines = pages::section(&readme).lines();
    let of_tables = lines.clone().filter(|line| line.starts_with("| ")).count();
    let rows = of_tables - lines.filter(|line| line.starts_with("|--")).count();
    assert!(rows > 10, "README's tables are elsewhere");
    assert_eq!(page.matches(".TP\n").count(), rows + pages::ITEMS_OF_TAIL);
    for line in page.lines() {
        let is_plain = !line.contains(['`', '|']) || line.contains("\\fB");
        assert!(is_plain && !line.contains("**") && !line.contains("]("), "{line}");
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
    }
    // zsh completes accounts where a command takes a user; the others' have options and files.
    for (completion, word) in [
        ("bash-completion/completions/shaper", "--skip-unknown"),
        ("zsh/site-functions/_shaper", ":_users"),
        ("fish/vendor_completions.d/shaper.fish", "skip-unknown"),
    ] {
        let text = fs::read_to_string(folder.path().join(completion)).expect(completion);
        assert!(text.contains(word), "no {word} in {completion}");
    }
    Command::new("bash")
        .args(["-n", &folder.path().join("bash-completion/completions/shaper").to_string_lossy()])
        .assert()
        .success();
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
}

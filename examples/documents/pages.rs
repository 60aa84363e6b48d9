//! Man pages and completions, of the command line as clap knows it, and of `docs/policy.md`, the
//! reference of the policy: the little Markdown that it has (headings, paragraphs, bold, code,
//! links, tables, lists, fences), as roff(7).

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use clap::{CommandFactory, ValueHint};
use clap_complete::{Shell, generate_to};
use shaper::cli::Cli;

const HEAD: &str = r#".TH shaper.yaml 5 "" shaper
.SH NAME
shaper.yaml \- policies of shaper(1): /etc/shaper/policies.yaml
.SH DESCRIPTION
"#;

const TAIL: &str = r".SH FILES
.TP
/etc/shaper/policies.yaml
The policy.
.TP
/etc/shaper/policies.d/*.yaml
More of it.
.TP
/usr/share/doc/shaper/examples/policies
Tested examples.
.TP
/usr/share/shaper/policy.schema.json
Its JSON schema, for editors.
.TP
/usr/share/shaper/drop\-in.schema.json
That of a file in policies.d.
.SH SEE ALSO
shaper(1), tc\-htb(8)
";

const TAIL_OF_PROGRAM: &str = r".SH FILES
.TP
/etc/shaper/policies.yaml
The policy, of shaper.yaml(5).
.TP
/etc/shaper/policies.d/*.yaml
More of it.
.TP
/var/lib/shaper
What was used of quotas, and the last good policy, in force at a boot while the file is broken.
Where it is deleted, all quotas begin anew.
.TP
/run/shaper
Locks, and mounts that shaper made.
.TP
/usr/share/doc/shaper
README.md with a tour, docs/, and examples/.
.SH SEE ALSO
shaper.yaml(5), tc(8), tc\-htb(8)
";

const TAIL_OF_COMMAND: &str = r".SH SEE ALSO
shaper(1), shaper.yaml(5)
";

/// How many entries `TAIL` has.
#[allow(dead_code, reason = "for tests/documents.rs")]
pub const ITEMS_OF_TAIL: usize = 5;

/// How many sections `HEAD` and `TAIL` have.
#[allow(dead_code, reason = "for tests/documents.rs")]
pub const SECTIONS_AROUND: usize = 4;

/// Writes all of it below a `/usr/share`.
pub fn write(folder: &Path) -> io::Result<()> {
    let (commands, files) = (folder.join("man/man1"), folder.join("man/man5"));
    fs::create_dir_all(&commands)?;
    fs::create_dir_all(&files)?;
    clap_mangen::generate_to(Cli::command(), &commands)?;
    let cli = Cli::command();
    for page in fs::read_dir(&commands)? {
        let page = page?.path();
        let name = page.file_stem().unwrap_or_default().to_string_lossy();
        let command = name.strip_prefix("shaper-").and_then(|name| cli.find_subcommand(name));
        let text = as_typed(&fs::read_to_string(&page)?);
        let text = with_values(&text, command.unwrap_or(&cli), &cli);
        let end = if command.is_some() { TAIL_OF_COMMAND } else { TAIL_OF_PROGRAM };
        fs::write(&page, format!("{}\n{end}", text.trim_end()))?;
    }
    let policy = include_str!("../../docs/policy.md");
    fs::write(files.join("shaper.yaml.5"), reference(body(policy)))?;
    completions(folder)
}

/// A command's page with its examples line by line, as `--help` shows them: clap's generator has
/// them as text that may be filled.
fn as_typed(page: &str) -> String {
    let Some((before, rest)) = page.split_once("\n.SH EXTRA\n") else { return page.to_string() };
    let (examples, after) = rest.find("\n.SH ").map_or((rest, ""), |at| rest.split_at(at));
    let examples = examples.strip_prefix("Examples:\n").unwrap_or(examples).trim_end();
    format!("{before}\n.SH EXAMPLES\n.nf\n{examples}\n.fi{after}")
}

/// The synopsis with each option's value, which clap's generator leaves out there.
fn with_values(page: &str, command: &clap::Command, cli: &clap::Command) -> String {
    let Some((before, rest)) = page.split_once("\n.SH SYNOPSIS\n") else { return page.to_string() };
    let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
    let mut line = line.to_string();
    for option in command.get_arguments().chain(cli.get_arguments()) {
        let takes_value = option.get_action().takes_values() && !option.is_positional();
        let (Some(long), true) = (option.get_long(), takes_value) else { continue };
        let values = option.get_value_names().unwrap_or_default();
        let values: Vec<String> = values.iter().map(|name| escaped(name)).collect();
        let flag = format!("\\fB{}\\fR", escaped(&format!("--{long}")));
        let value = format!("\\fI{}\\fR", values.join(" "));
        let may_be_left_out = option.get_num_args().is_some_and(|number| number.min_values() == 0);
        let valued = match (may_be_left_out, option.is_require_equals_set()) {
            (true, true) => format!("{flag}[={value}]"),
            (true, false) => format!("{flag} [{value}]"),
            (false, true) => format!("{flag}={value}"),
            (false, false) => format!("{flag} {value}"),
        };
        if !line.contains(&valued) {
            line = line.replace(&flag, &valued);
        }
    }
    format!("{before}\n.SH SYNOPSIS\n{line}\n{after}")
}

/// Where each shell looks for them.
fn completions(folder: &Path) -> io::Result<()> {
    let places = [
        (Shell::Bash, "bash-completion/completions"),
        (Shell::Zsh, "zsh/site-functions"),
        (Shell::Fish, "fish/vendor_completions.d"),
    ];
    for (shell, place) in places {
        let place = folder.join(place);
        fs::create_dir_all(&place)?;
        generate_to(shell, &mut Cli::command(), "shaper", &place)?;
    }
    // bash loads a file that has the command's own name.
    let bash = folder.join("bash-completion/completions");
    fs::rename(bash.join("shaper.bash"), bash.join("shaper"))?;
    let names = with_users();
    let add = |file: &Path, more: &str| fs::write(file, fs::read_to_string(file)? + more);
    add(&bash.join("shaper"), &BASH_PEOPLE.replace("COMMANDS", &names.join("|")))?;
    let mut fish = FISH_GROUPS.to_string();
    for name in names {
        let _ = writeln!(fish, "{}", FISH_USERS.replace("COMMAND", &name));
    }
    add(&folder.join("fish/vendor_completions.d/shaper.fish"), &fish)?;
    let zsh = folder.join("zsh/site-functions/_shaper");
    fs::write(&zsh, fs::read_to_string(&zsh)?.replace(":GROUP:_default'", ":GROUP:_groups'"))
}

/// The commands that take a user.
fn with_users() -> Vec<String> {
    let takes_users = |command: &clap::Command| {
        command.get_positionals().any(|word| word.get_value_hint() == ValueHint::Username)
    };
    let cli = Cli::command();
    let names = cli.get_subcommands().filter(|command| takes_users(command));
    names.map(|command| command.get_name().to_string()).collect()
}

/// What clap's generators leave out: accounts where a command takes a user, and Unix groups.
const BASH_PEOPLE: &str = r#"
_shaper_people() {
    local word takes_users=
    _shaper "$@"
    if [[ $3 == --group ]]; then
        COMPREPLY=($(compgen -g -- "$2"))
        return
    fi
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case $word in
            --) return ;;
            COMMANDS) takes_users=yes ;;
        esac
    done
    if [[ -n $takes_users && $2 != -* ]]; then
        COMPREPLY+=($(compgen -u -- "$2"))
    fi
}
complete -F _shaper_people -o bashdefault -o default shaper
"#;

const FISH_GROUPS: &str = r#"complete -c shaper -n "__fish_shaper_using_subcommand status" -l group -xa "(__fish_complete_groups)"
"#;

const FISH_USERS: &str = r#"complete -c shaper -n "__fish_shaper_using_subcommand COMMAND" -a "(__fish_complete_users)""#;

/// The reference's text, without its title.
pub fn body(document: &str) -> &str {
    document.split_once('\n').map_or(document, |(_title, body)| body)
}

/// The manual's page of a Markdown text.
pub fn reference(text: &str) -> String {
    let mut page = HEAD.to_string();
    let mut lines = text.lines().peekable();
    let mut in_paragraph = false;
    while let Some(line) = lines.next() {
        if let Some(heading) = line.strip_prefix("## ") {
            let _ = writeln!(page, ".SH {}", inline(heading));
            in_paragraph = false;
        } else if let Some(heading) = line.strip_prefix("### ") {
            let _ = writeln!(page, ".SS {}", inline(heading));
            in_paragraph = false;
        } else if line.starts_with("```") {
            let code = lines.by_ref().take_while(|line| !line.starts_with("```"));
            let code: Vec<String> = code.map(|line| guarded(escaped(line))).collect();
            let _ = writeln!(page, ".PP\n.nf\n{}\n.fi", code.join("\n"));
            in_paragraph = false;
        } else if line.starts_with("| ") && lines.peek().is_some_and(|next| next.starts_with("|--"))
        {
            lines.next();
            in_paragraph = false;
        } else if let Some(row) = line.strip_prefix("| ") {
            row_of(row, &mut page);
            in_paragraph = false;
        } else if let Some(item) = line.strip_prefix("- ") {
            let _ = writeln!(page, ".IP \\(bu 2\n{}", inline(item));
            in_paragraph = true;
        } else if line.trim().is_empty() {
            in_paragraph = false;
        } else {
            if !in_paragraph {
                page.push_str(".PP\n");
            }
            let _ = writeln!(page, "{}", inline(line.trim_start()));
            in_paragraph = true;
        }
    }
    page + TAIL
}

/// A row of a table: its first cell, and what it means below.
fn row_of(row: &str, page: &mut String) {
    let row = row.trim_end().trim_end_matches('|').replace("\\|", "\u{1}");
    let mut cells = row.split(" | ").map(|cell| cell.trim().replace('\u{1}', "|"));
    let key = cells.next().unwrap_or_default();
    let _ =
        writeln!(page, ".TP\n{}\n{}", inline(&key), inline(&cells.collect::<Vec<_>>().join(" ")));
}

/// A line of text: **bold**, and `code`, which is bold too; of a link its words.
fn inline(text: &str) -> String {
    let text = without_targets(text);
    let mut out = String::new();
    let mut is_bold = false;
    let mut rest = text.as_str();
    while let Some(at) = rest.find(['`', '*']) {
        let (before, mark) = rest.split_at(at);
        out.push_str(&escaped(before));
        let code = mark.strip_prefix('`');
        let after = match code.and_then(|code| code.split_once('`')) {
            Some((code, after)) => {
                let _ = write!(out, "\\fB{}\\fR", escaped(code));
                after
            }
            None => match mark.strip_prefix("**") {
                Some(after) => {
                    is_bold = !is_bold;
                    out.push_str(if is_bold { "\\fB" } else { "\\fR" });
                    after
                }
                // One star is emphasis, or a star.
                None => &mark[1..],
            },
        };
        rest = after;
    }
    out.push_str(&escaped(rest));
    guarded(out)
}

/// A line that begins with a dot or a quote would be a request.
fn guarded(line: String) -> String {
    match line.starts_with(['.', '\'']) {
        true => format!("\\&{line}"),
        false => line,
    }
}

/// `[words](target)` becomes the words: a link is on one line. Of a link to a section of the page
/// that says nothing else, as `([Times](#times))`, they become `(see Times)`.
fn without_targets(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("](") {
        let Some((target, after)) = after.split_once(')') else { break };
        let (ahead, words) = before.rsplit_once('[').unwrap_or(("", before));
        out.push_str(ahead);
        if target.starts_with('#') && ahead.ends_with('(') && after.starts_with(')') {
            out.push_str("see ");
        }
        out.push_str(words);
        rest = after;
    }
    out + rest
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

//! `shaper init`: a commented starter policy from what this host has.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use serde::Serialize;

use super::output::Output;
use super::scope;
use crate::accounts::Question;
use crate::cli::Global;
use crate::facts::{Facts, LinkFacts};
use crate::failure::Failure;
use crate::host::Kernel;
use crate::host::observe::{self, Processes, Wanted, Whom};
use crate::text::{Foreign, shown};
use crate::tree::LinkName;

#[derive(Serialize)]
struct Document<'t> {
    version: u32,
    /// The policy's text.
    policy: &'t str,
    /// Where it was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
}

/// Why the policy is not written.
#[derive(Debug, thiserror::Error)]
enum NotWritten {
    #[error(
        "{0} exists, and stays as it is; name another file, or print a policy with `shaper init`"
    )]
    Exists(Foreign),
    #[error(
        "`-` is no file: `shaper init` without --write prints the policy (a file of that name is ./-)"
    )]
    Dash,
    #[error("cannot write {file}: {source}")]
    Refused { file: Foreign, source: io::Error },
}

impl From<NotWritten> for Failure {
    fn from(error: NotWritten) -> Failure {
        match error {
            NotWritten::Exists(_) | NotWritten::Dash => Failure::Usage(error.to_string()),
            NotWritten::Refused { .. } => Failure::refused(error),
        }
    }
}

/// `write`: the file to make of it.
pub(super) fn init(global: &Global, write: Option<&Path>) -> Result<Output, Failure> {
    if write == Some(Path::new("-")) {
        return Err(NotWritten::Dash.into());
    }
    let policy = text(&mut scope::open(global)?)?;
    if let Some(file) = write {
        make(file, &policy)?;
    }
    let file = write.map(|file| file.to_string_lossy().into_owned());
    if global.json {
        let document = Document { version: 1, policy: &policy, file };
        return Ok(Output::json(&serde_json::to_string(&document).map_err(Failure::refused)?));
    }
    Ok(Output::text(match file {
        None => policy,
        Some(_) if global.quiet => String::new(),
        Some(file) => format!("wrote {}; edit it, then: shaper plan\n", shown(&file)),
    }))
}

/// A starter policy from what the host has.
pub(super) fn text(kernel: &mut Kernel) -> Result<String, Failure> {
    let accounts = Some(Whom::Nss(Question::default()));
    let wanted = Wanted { accounts, processes: Processes::All, ..Wanted::default() };
    let mut snapshot = observe::observe(kernel, wanted)?;
    observe::speeds(&mut snapshot, |_, _| true)?;
    observe::guests(kernel, &mut snapshot)?;
    Ok(Schema::Policy.modeline() + &starter(snapshot.facts()))
}

/// Makes a file that did not exist, and its folder where that is missing.
fn make(file: &Path, text: &str) -> Result<(), NotWritten> {
    let name = || Foreign::from(&*file.to_string_lossy());
    let refused = |source| NotWritten::Refused { file: name(), source };
    if let Some(folder) = file.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(refused)?;
    }
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o644).open(file);
    let mut opened = opened.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => NotWritten::Exists(name()),
        _ => refused(source),
    })?;
    let written = opened.write_all(text.as_bytes()).and_then(|()| opened.sync_all());
    written.map_err(|source| {
        // Half a policy is none, and would be in the way of the next try.
        let _may_stay = fs::remove_file(file);
        refused(source)
    })
}

/// A schema by which editors check what is typed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Schema {
    Policy,
    DropIn,
}

impl Schema {
    /// Below a prefix such as `/usr`.
    fn path(self) -> &'static str {
        match self {
            Schema::Policy => "share/shaper/policy.schema.json",
            Schema::DropIn => "share/shaper/drop-in.schema.json",
        }
    }

    /// Tells editors where it is: below the prefix under which this program is installed, else
    /// where packages put it.
    pub(super) fn modeline(self) -> String {
        self.modeline_of(std::env::current_exe().ok().as_deref())
    }

    fn modeline_of(self, program: Option<&Path>) -> String {
        let prefix = program.and_then(Path::parent).filter(|folder| folder.ends_with("bin"));
        let prefix = prefix.and_then(Path::parent).unwrap_or(Path::new("/usr"));
        let schema = prefix.join(self.path());
        format!("# yaml-language-server: $schema={}\n", shown(&schema.to_string_lossy()))
    }
}

/// The link that a policy would most likely be for: that of the default route, else the first that
/// is up.
fn uplink(facts: &Facts) -> Option<(&LinkName, &LinkFacts)> {
    let up = || facts.links.iter().find(|(_, device)| device.up && !device.loopback);
    facts.default_route().or_else(up)
}

fn starter(facts: &Facts) -> String {
    let mut text = String::from(
        "# Who may send how much over which link. Try it: shaper plan; make it so: shaper apply.\n\
         # Rates: kbit, mbit, gbit, or % of the link's rate.\n\
         version: 1\n\nlinks:\n",
    );
    match uplink(facts) {
        None => text.push_str(
            "  eth0:                # no link is up here: write the uplink's name\n    rate: 1gbit\n",
        ),
        Some((name, device)) => {
            let why = match device.has_default_route() {
                true => "has the default route",
                false => "is up",
            };
            let _ = writeln!(text, "  {name}:                # it {why}");
            let _ = match device.speed {
                Some(speed) => writeln!(
                    text,
                    "    # What the link really carries; a little less than the device's {speed}, so that the\n    # queue is here and not in the next box.\n    rate: 95%"
                ),
                None => writeln!(
                    text,
                    "    # What the link really carries: the device does not tell, so measure it and write it.\n    rate: 1gbit"
                ),
            };
        }
    }
    text.push_str(
        "    # What arrives by it is held to a tree of its own where you say what really comes:\n    \
         # down: 95%\n    \
         # What nobody claims: root's own traffic, forwarded packets (containers, VMs), and whoever gets\n    \
         # out of his class. Its ceil bounds that; 100% would not.\n    default: {rate: 5%, ceil: 50%}\n",
    );
    text.push_str("\n# Every account (uid 1000 and up) that has a process gets a class of its own.\neveryone: {each: {ceil: 50%}}\n\n");
    text.push_str(
        "# Accounts with a line of their own. `ceil` is a cap, `rate` a guarantee.\n# users:\n",
    );
    users(facts, &mut text);
    let (guest, guests) = guests(facts);
    let _ = writeln!(
        text,
        "#   # Guests; the key is a label of your own where it is no account's name:\n#   {guest}"
    );
    text.push_str(
        "\n# All members together, and each by itself:\n# groups:\n#   students: {gid: students, ceil: 60%, each: {ceil: 20%}}\n\n\
         # Traffic within the site outside every limit:\n# rules:\n#   - {dst: [10.0.0.0/8, 192.168.0.0/16], to: unshaped}\n",
    );
    text.push_str(&guests);
    text
}

/// Lines of some who run something now.
fn users(facts: &Facts, text: &mut String) {
    let accounts = &facts.accounts;
    let mut names: Vec<&str> = accounts
        .running
        .iter()
        .filter(|uid| (1000..60_000).contains(*uid))
        .filter_map(|uid| accounts.by_uid.get(uid).map(|account| account.name.as_str()))
        .take(5)
        .collect();
    if names.is_empty() {
        names.push("bob");
    }
    for name in names {
        let _ = writeln!(text, "#   {}: {{rate: 5%, ceil: 80%}}", shown(name));
    }
}

/// The kinds of links behind which guests are, whatever is known of their other ends.
const INNER: [&str; 4] = ["bridge", "tun", "wireguard", "openvswitch"];
/// How many guests of a kind are named.
const FEW: usize = 3;

/// A line of `users` for guests, with what this host has for examples; and `guests`, by which the
/// others find their user.
fn guests(facts: &Facts) -> (String, String) {
    let uplink = uplink(facts).map(|(name, _)| name);
    let is_inner = |(name, device): &(&LinkName, &LinkFacts)| {
        let is_kind = device.kind.as_deref().is_some_and(|kind| INNER.contains(&kind));
        Some(*name) != uplink && (is_kind || device.peer_namespace.is_some())
    };
    let links = facts.links.iter().filter(is_inner).map(|(name, _)| name.to_string());
    let containers = facts.guests.containers.iter();
    // Where the engine was not asked, a name stands for what it will say.
    let containers = containers.map(|it| it.name.clone().unwrap_or_else(|| "web-1".to_string()));
    let namespaces = facts.guests.namespaces.keys().cloned();
    let mut keys = String::new();
    let mut add = |key: &str, names: &mut dyn Iterator<Item = String>| {
        let mut names: Vec<String> = names.take(FEW).collect();
        names.dedup();
        if !names.is_empty() {
            let names: Vec<String> =
                names.iter().map(|name| format!("\"{}\"", shown(name))).collect();
            let _ = write!(keys, "{key}: [{}], ", names.join(", "));
        }
    };
    add("containers", &mut { containers });
    add("namespaces", &mut { namespaces });
    add("interfaces", &mut { links });
    let mark = if keys.is_empty() { "# " } else { "" };
    if keys.is_empty() {
        keys.push_str("containers: [web-1], interfaces: [vnet3], ");
    }
    let text = format!(
        "\n# Containers, VMs and clients of a VPN have the class of their user: whom the label\n\
         # shaper.user names, whose slice or subordinate uids they run in, or whose line names them:\n\
         {mark}guests: {{owner: [label, slice, uid]}}\n"
    );
    (format!("lab: {{{keys}ceil: 20%}}"), text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::NamespaceId;

    #[test]
    fn guests_that_are_here_are_the_examples() {
        let (_, without) = guests(&Facts::default());
        assert!(without.contains("\n# guests: {owner:"), "{without}");
        let link = |name: &str, kind: &str, peer: Option<i32>| {
            let kind = Some(kind.to_string());
            let peer_namespace = peer.map(NamespaceId);
            let device = LinkFacts { kind, peer_namespace, ..LinkFacts::ethernet(7) };
            (LinkName::new(name).unwrap(), device)
        };
        let (up, mut route) = link("up0", "veth", Some(1));
        route.default_route_v4 = Some(1);
        let links = [(up, route), link("vc1", "veth", Some(2)), link("bond0", "bond", None)];
        let mut facts = Facts { links: links.into(), ..Facts::default() };
        facts.guests.namespaces = [("routerns".to_string(), Some(NamespaceId(2)))].into();
        let (line, text) = guests(&facts);
        assert!(text.contains("\nguests: {owner: [label, slice, uid]}\n"), "{text}");
        assert_eq!(line, "lab: {namespaces: [\"routerns\"], interfaces: [\"vc1\"], ceil: 20%}");
    }

    #[test]
    fn a_starter_holds_whatever_of_it_is_uncommented() {
        let text = starter(&Facts::default());
        let yaml = |line: &str| {
            let Some(comment) = line.strip_prefix('#') else { return Some(line.to_string()) };
            let comment = comment.strip_prefix(' ').unwrap_or(comment);
            let is_key = comment.trim_start().split_once(':').is_some_and(|(key, rest)| {
                !key.contains(' ') && (rest.is_empty() || rest.starts_with(" {"))
            });
            (is_key || comment.trim_start().starts_with("- {")).then(|| comment.to_string())
        };
        let keys: Vec<String> = text.lines().filter_map(yaml).collect();
        let whole = keys.join("\n");
        crate::policy::parse(&whole, "starter").unwrap_or_else(|it| panic!("{it}\n{whole}"));
        for key in ["users", "groups", "rules", "guests", "everyone", "links"] {
            let begins = format!("{key}:");
            let times = keys.iter().filter(|line| line.starts_with(&begins)).count();
            assert_eq!(times, 1, "{key} in {keys:?}");
        }
    }

    #[test]
    fn the_schema_is_beside_the_program() {
        let line = |program| Schema::Policy.modeline_of(program);
        let packaged = "# yaml-language-server: $schema=/usr/share/shaper/policy.schema.json\n";
        assert_eq!(line(Some(Path::new("/usr/bin/shaper"))), packaged);
        let local = packaged.replace("/usr/", "/usr/local/");
        assert_eq!(line(Some(Path::new("/usr/local/bin/shaper"))), local);
        for elsewhere in [None, Some(Path::new("/src/target/debug/shaper")), Some(Path::new("/"))] {
            assert_eq!(line(elsewhere), packaged);
        }
        let of_drop_ins = Schema::DropIn.modeline_of(Some(Path::new("/usr/bin/shaper")));
        assert_eq!(of_drop_ins, packaged.replace("policy.schema", "drop-in.schema"));
    }

    fn starts_with_link(links: &[(&str, LinkFacts)], wanted: &str) {
        let named =
            |(name, device): &(&str, LinkFacts)| (LinkName::new(name).unwrap(), device.clone());
        let facts = Facts { links: links.iter().map(named).collect(), ..Facts::default() };
        let text = starter(&facts);
        assert!(text.contains(&format!("\nlinks:\n  {wanted}:")), "{text}");
    }

    #[test]
    fn the_starter_names_the_link_that_auto_would_find() {
        let v4 = LinkFacts { default_route_v4: Some(100), ..LinkFacts::ethernet(3) };
        let v6 = LinkFacts { default_route_v6: Some(10), ..LinkFacts::ethernet(2) };
        starts_with_link(&[("eth0", v6.clone()), ("wlan0", v4)], "wlan0");
        starts_with_link(&[("dummy0", LinkFacts::ethernet(1)), ("eth0", v6)], "eth0");
        starts_with_link(
            &[
                ("dummy0", LinkFacts { up: false, ..LinkFacts::ethernet(1) }),
                ("eth1", LinkFacts::ethernet(2)),
            ],
            "eth1",
        );
        starts_with_link(&[("lo", LinkFacts { loopback: true, ..LinkFacts::ethernet(1) })], "eth0");
    }
}

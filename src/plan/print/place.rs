//! Where the links are, as a shell's commands say it.

use std::path::Path;

/// The network namespace of the links, seen from the shell that performs a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// The shell's own.
    #[default]
    Here,
    /// One that `ip netns` has a name for.
    Named(String),
    /// The one of this file, in the shell's spelling.
    At(String),
}

impl Place {
    /// `name`: what `ip netns` calls it, if that is how it was named; `path`: where it is.
    pub fn new(name: Option<&str>, path: &Path) -> Place {
        // A name that begins with a hyphen would be an option.
        let is_plain = |name: &&str| !name.starts_with('-') && name.bytes().all(is_plain);
        match name.filter(is_plain) {
            Some(name) => Place::Named(name.to_string()),
            None => Place::At(quoted(&path.to_string_lossy())),
        }
    }

    /// `tc`, there.
    pub(super) fn tc(&self) -> String {
        self.command("tc")
    }

    /// `ip`, there.
    pub(super) fn ip(&self) -> String {
        self.command("ip")
    }

    fn command(&self, command: &str) -> String {
        match self {
            Place::Here => command.to_string(),
            Place::Named(name) => format!("{command} -n {name}"),
            Place::At(path) => format!("nsenter --net={path} {command}"),
        }
    }
}

/// Whether a shell takes the byte as it is.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-/".contains(&byte)
}

/// A word as a shell has it.
fn quoted(word: &str) -> String {
    match word.bytes().all(is_plain) {
        true => word.to_string(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_finds_the_links() {
        let tc = |name: Option<&str>, path: &str| Place::new(name, Path::new(path)).tc();
        assert_eq!(Place::Here.ip(), "ip");
        assert_eq!(tc(Some("blue.1"), "/run/netns/blue.1"), "tc -n blue.1");
        assert_eq!(tc(None, "/proc/7/ns/net"), "nsenter --net=/proc/7/ns/net tc");
        assert_eq!(tc(Some("-x"), "/run/netns/-x"), "nsenter --net=/run/netns/-x tc");
        assert_eq!(tc(Some("a b"), "/run/netns/a b"), "nsenter --net='/run/netns/a b' tc");
        assert_eq!(tc(None, "./it's"), r"nsenter --net='./it'\''s' tc");
    }
}

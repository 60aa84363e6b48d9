//! What a word of the command line asks about, and why one has no answer.

use std::net::{IpAddr, SocketAddr};

use crate::failure::Failure;
use crate::text::Foreign;
use crate::tree::{Group, Key, Owner, Reserved};
use crate::units::ClassId;

/// Why a word of the command line has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnknownSubject {
    #[error(
        "{name} is no line of the policy, no account, no process and no guest{}",
        did_you_mean(.nearest)
    )]
    Anything { name: Foreign, nearest: Option<Foreign> },
    #[error("there is no guest {name} here{}", did_you_mean(.nearest))]
    Guest { name: Foreign, nearest: Option<Foreign> },
    #[error("there is no process {0} here")]
    Process(Foreign),
    #[error("no class {0} is shaper's here")]
    Class(Foreign),
    #[error(
        "{0} is no guest's address; where a connection is meant, its port belongs to it: `shaper why {1}`"
    )]
    NoPort(IpAddr, SocketAddr),
    #[error(
        "{0} is no connection: write an address and a port, as 10.1.2.3:443 or [fd00::1]:443 (names are not looked up)"
    )]
    NoAddress(Foreign),
    #[error("{0} is no guest here now; {1} is for it once it is")]
    Awaited(Foreign, String),
    #[error(
        "class 1:1 is the whole link's, above all others: `shaper status` shows those, and `shaper top` how full it is"
    )]
    WholeLink,
    #[error(
        "{0} is a link, and `why` answers about whom its classes are for: `shaper status` shows them all"
    )]
    Link(Foreign),
    #[error("{0} is no number")]
    Number(Foreign),
}

fn did_you_mean(name: &Option<Foreign>) -> String {
    name.as_ref().map_or_else(String::new, |name| format!(" (did you mean {name}?)"))
}

impl From<UnknownSubject> for Failure {
    fn from(error: UnknownSubject) -> Failure {
        Failure::Usage(error.to_string())
    }
}

/// What the command line asks about.
pub(super) enum Subject<'a> {
    /// `pid:4711`; a bare number is a process if there is one, else a uid.
    Process(&'a str),
    /// `uid:1000`.
    Uid(u32),
    /// `guest:web-1`.
    Guest(&'a str),
    /// `1:1a`, `default`, `unshaped`.
    Class(ClassId),
    /// `10.1.2.3:443`: a connection of nobody's in particular.
    Connection,
    /// A user, a group, a class, an account, a unit; or a guest, where it is none of these.
    Name(&'a str),
}

impl<'a> Subject<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Subject<'a>, UnknownSubject> {
        if let Some(number) = text.strip_prefix("uid:") {
            let uid = number.parse().map_err(|_| UnknownSubject::Number(number.into()))?;
            return Ok(Subject::Uid(uid));
        }
        if text.parse::<SocketAddr>().is_ok() {
            return Ok(Subject::Connection);
        }
        if let Some(class) = tagged(text) {
            return Ok(Subject::Class(class));
        }
        let word = Reserved::of(text);
        Ok(match (text.strip_prefix("pid:"), text.strip_prefix("guest:"), word) {
            (Some(pid), ..) => Subject::Process(pid),
            (_, Some(name), _) => Subject::Guest(name),
            (.., Some(Reserved::Default)) => Subject::Class(ClassId::DEFAULT),
            (.., Some(Reserved::Unshaped)) => Subject::Class(ClassId::UNSHAPED),
            _ => text.parse().map_or(Subject::Name(text), Subject::Class),
        })
    }
}

/// Whether a name is that of a unit (systemd.unit(5)) that processes are in.
pub(super) fn is_unit(name: &str) -> bool {
    [".service", ".scope", ".slice"].iter().any(|ending| name.ends_with(ending))
}

/// The owners that may have this name.
pub(super) fn named(name: &str) -> impl Iterator<Item = Owner> {
    let key = Key::new(name);
    let group = Group::of(name).map(Owner::Group);
    let everyone = (Reserved::of(name) == Some(Reserved::Everyone)).then_some(Owner::Newcomers);
    let named = key.into_iter().flat_map(|key| [Owner::User(key.clone()), Owner::Class(key)]);
    named.chain(group).chain(everyone)
}

/// A class as `net_cls.classid` takes it, `0x10012`, or with zeros in front, `1:00012`. `None` for
/// a hexadecimal number that no class of ours can have: somebody may have such a name.
fn tagged(text: &str) -> Option<ClassId> {
    if let Some(number) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        let is_hexadecimal = number.bytes().all(|digit| digit.is_ascii_hexdigit());
        let number = u32::from_str_radix(number, 16).ok().filter(|_| is_hexadecimal)?;
        return ClassId(number).our_class();
    }
    let (major, minor) = text.split_once(':')?;
    let short = |half: &str| match half.trim_start_matches('0') {
        "" if !half.is_empty() => "0".to_string(),
        half => half.to_string(),
    };
    format!("{}:{}", short(major), short(minor)).parse().ok()
}

/// Why a word is no connection's other end that looks like one.
pub(super) fn no_connection(name: &str) -> Option<UnknownSubject> {
    const HTTPS: u16 = 443;
    if let Ok(address) = name.parse::<IpAddr>() {
        return Some(UnknownSubject::NoPort(address, SocketAddr::new(address, HTTPS)));
    }
    let (host, port) = name.rsplit_once(':')?;
    let is_port = !port.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit());
    (is_port && !host.is_empty()).then(|| UnknownSubject::NoAddress(name.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(text: &str) -> Option<String> {
        match Subject::parse(text) {
            Ok(Subject::Class(class)) => Some(class.to_string()),
            _ => None,
        }
    }

    #[test]
    fn a_class_is_named_as_tc_and_net_cls_do() {
        for (text, wanted) in [
            ("1:1a", "1:1a"),
            ("1:001a", "1:1a"),
            ("1:0001A", "1:1a"),
            ("0001:00001a", "1:1a"),
            ("0x1001a", "1:1a"),
            ("0x0001001A", "1:1a"),
            ("0x1fffe", "1:fffe"),
            ("default", "1:fffe"),
            ("unshaped", "1:fffd"),
        ] {
            assert_eq!(class(text).as_deref(), Some(wanted), "{text}");
        }
        for text in ["0x", "0xg", "0x100000001a", "1:", ":1a", "1:1g", "1:10000", "65562", "bob"] {
            assert_eq!(class(text), None, "{text}");
        }
        for name in ["0xcafe", "0xdeadbeef", "0x10000", "0x+1001a"] {
            assert!(matches!(Subject::parse(name), Ok(Subject::Name(it)) if it == name), "{name}");
        }
    }

    #[test]
    fn what_looks_like_a_connection_and_is_none_has_its_cure() {
        let said = |text: &str| no_connection(text).map(|it| it.to_string()).unwrap_or_default();
        assert!(said("10.77.0.2").ends_with("`shaper why 10.77.0.2:443`"));
        assert!(said("fd77::2").ends_with("`shaper why [fd77::2]:443`"));
        for text in ["example.org:443", "localhost:80", "10.77.0.2:99999"] {
            assert!(said(text).contains("write an address and a port"), "{text}");
        }
        for text in ["bob", "web:latest", ":443", "bob:"] {
            assert_eq!(said(text), "", "{text}");
        }
    }
}

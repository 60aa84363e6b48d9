//! What is said of a connection beside whose it is: where its packets go.

use std::collections::BTreeSet;

use super::answer::Answer;
use super::connection::{self, Known};
use crate::classify::servers;
use crate::cli::WhyOptions;
use crate::commands::daemon::Daemon;
use crate::failure::Failure;
use crate::host::Kernel;
use crate::host::observe;
use crate::tree::LinkName;
use crate::units::ClassId;

/// What decides about a group's connections beside rules.
const OF_MEMBERS: &str =
    "where no rule decides, it is the class of the member who sends: `shaper why USER --to …`";

/// The connection that the command line names, if it names one.
fn asked(options: &WhyOptions) -> Option<connection::Asked> {
    let to = options.to.or_else(|| options.subject.parse().ok())?;
    Some(connection::Asked { to, from: options.from, proto: options.proto })
}

/// Says where its packets go, or that they can go nowhere.
pub(super) fn say(known: Known<'_>, options: &WhyOptions, answer: &mut Answer) {
    let Some(asked) = asked(options) else { return };
    if let Some(note) = connection::unreachable(&asked) {
        answer.notes.push(note);
        return;
    }
    if let Some(note) = connection::ends_before_a_link(asked.to, &answer.comes_in_by) {
        answer.notes.push(note);
        return;
    }
    answer.connection = connection::ways(known, &asked, answer.sender);
    answer.notes.extend(connection::unseen(known.seen, asked.to));
    let links = answer.connection.iter().filter_map(|way| LinkName::new(&way.dev));
    let links: BTreeSet<LinkName> = links.collect();
    let foreign = known.seen.foreign.iter();
    let first = foreign.filter(|it| links.iter().any(|link| it.is_asked_first(link)));
    answer.notes.extend(first.map(|it| {
        format!("the {it} is not shaper's and is asked first: what it takes goes where it says")
    }));
    if answer.is_group {
        // No packet is in a class that has others below it.
        answer.connection.retain(|way| way.rule.is_some());
        answer.notes.push(OF_MEMBERS.to_string());
    }
}

/// A socket that is bound to the host's own end of a connection.
#[derive(Clone, Copy)]
pub(super) struct Bound {
    pub class: ClassId,
    /// A daemon tells the kernel of sockets as they are bound; an apply of those that are by then.
    is_followed: bool,
}

/// The socket that is bound to the host's own end, where the command line names that.
pub(super) fn bound(kernel: &mut Kernel, options: &WhyOptions) -> Result<Option<Bound>, Failure> {
    let Some(own) = options.from.filter(|from| from.port() != 0) else { return Ok(None) };
    let servers = observe::servers(kernel)?;
    let class = servers::class_of(&servers, (own.ip(), own.port()), options.proto);
    let Some(class) = class else { return Ok(None) };
    Ok(Some(Bound { class, is_followed: Daemon::of(kernel)?.is_some() }))
}

impl Bound {
    /// What is said of a connection whose own end is bound so.
    pub(super) fn notes(self, options: &WhyOptions) -> Vec<String> {
        let bound = options.from.map(|own| {
            format!(
                "{own} is bound by a socket of that class: others have this end only over connections that they began themselves"
            )
        });
        let late = (!self.is_followed).then(|| {
            "no daemon runs: if the socket was bound after the last `shaper apply`, what arrives for it is in default until the next one".to_string()
        });
        bound.into_iter().chain(late).collect()
    }
}

/// How the answer calls a connection that no subject's is.
pub(super) fn subject(options: &WhyOptions) -> String {
    format!("a connection with {}", options.subject)
}

/// The answer about one of which it is not known who has it.
pub(super) fn of_nobody(options: &WhyOptions) -> Answer {
    Answer {
        notes: vec!["whose it is depends on who sends it: `shaper why USER --to …`".into()],
        ..Answer::about(subject(options), None)
    }
}

//! `shaper why`: which line of the policy claims a user or a process, and what that gives it.

use std::fmt::Write;
use std::path::Path;

use serde::Serialize;

use super::output::Output;
use super::scope;
use super::whom::{self, Unknown};
use crate::apply::{Look, Options, Who};
use crate::cli::Global;
use crate::failure::Failure;
use crate::host::Kernel;
use crate::intent::Meaning;
use crate::model::{Asked, Claimed, Link, LinkAt, Matcher, Node, Span};
use crate::policy::Policy;
use crate::process::{self, Process};
use crate::text::{Foreign, shown};
use crate::tree::{Claim, Group, Owner, Reserved};
use crate::units::Rate;

/// A word of the command line that nobody knows.
#[derive(Debug, thiserror::Error)]
#[error("{0} is no line of the policy, no account and no process")]
struct UnknownSubject(Foreign);

impl From<UnknownSubject> for Failure {
    fn from(error: UnknownSubject) -> Failure {
        Failure::Usage(error.to_string())
    }
}

#[derive(Serialize)]
struct Answer {
    version: u32,
    subject: String,
    /// `users.bob`, `everyone`, `groups.students`; nothing when nobody claims it.
    claimed_by: Option<String>,
    file: Option<String>,
    line: Option<u32>,
    column: Option<u32>,
    classid: Option<String>,
    /// Where the process sits now.
    directory: Option<String>,
    links: Vec<OnLink>,
    shares_with: Vec<String>,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct OnLink {
    dev: String,
    direction: &'static str,
    /// The two as plans have them.
    #[serde(skip)]
    port: String,
    rate_bit: Option<u64>,
    asked_rate_bit: Option<u64>,
    ceil_bit: u64,
    prio: u8,
}

pub(super) fn why(global: &Global, subject: &str, file: &Path) -> Result<Output, Failure> {
    let options = Options { skip_unknown: true, takeover: true, ..Options::default() };
    let (mut session, mut request) = scope::session(global, file, options)?;
    let wanted = Wanted { name: subject, uid: whom::uid(subject) };
    // An account that has no process now is asked about too.
    let also = wanted.uid.as_ref().ok().copied().flatten().into_iter().collect();
    request.who = Who::Asked { also };
    let look = session.look(&request)?;
    let on = On { kernel: &session.kernel, policy: &request.intent.policy };
    let mut answer = match subject.parse().ok().and_then(|pid| find(&look, pid)) {
        Some(process) => of_process(&on, &look, process)?,
        None => of_user(&on, &look.meaning, wanted)?,
    };
    if let Some(why) = &look.meaning.facts().accounts.unavailable {
        answer.notes.push(format!("NSS does not say who everybody is: {}", shown(why)));
    }
    Ok(match global.json {
        true => Output::json(&serde_json::to_string(&answer).map_err(Failure::refused)?),
        false => Output::text(answer.text()),
    })
}

/// Which kernel is asked about, and which policy.
struct On<'a> {
    kernel: &'a Kernel,
    policy: &'a Policy,
}

fn find(look: &Look, pid: u32) -> Option<&Process> {
    look.scan.processes.iter().find(|process| process.pid == pid)
}

fn of_process(on: &On<'_>, look: &Look, process: &Process) -> Result<Answer, Failure> {
    let pid = process.pid;
    let meaning = &look.meaning;
    let accounts = &meaning.observation.facts.accounts;
    let matcher = &meaning.model.matcher;
    let view = on.kernel.view()?;
    let subject = format!("process {pid} ({}, uid {})", process.comm, process.uid);
    let mut notes = Vec::new();
    let mut owner = process::whose(process, matcher, accounts, &view);
    notes.extend(by_which_uid(process, matcher));
    let decision = on.kernel.decide(process, matcher, accounts, &view);
    match &decision {
        process::Decision::Leave(process::Reason::Foreign { .. }) => notes.push(format!(
            "it sits in another's net_cls group `{}` and is left alone",
            shown(process.net_cls.as_deref().unwrap_or("/"))
        )),
        process::Decision::Leave(process::Reason::Guest) => {
            owner = None;
            notes.push(
                "it is a container engine's guest, in a network namespace of its own: not its uid's"
                    .to_string(),
            );
        }
        process::Decision::Leave(process::Reason::OtherInstance { netns }) => {
            notes.push(match view.others.get(netns) {
                Some(name) => format!(
                    "it is in a network namespace that another instance shapes ({name}): ask that one (--cgroup {name})"
                ),
                None => "it is in the host's network namespace: ask the host's instance".to_string(),
            });
        }
        process::Decision::Leave(process::Reason::UnknownNamespace) => notes.push(
            "its network namespace may not be read (CAP_SYS_PTRACE): it is left alone".to_string(),
        ),
        process::Decision::MoveTo(_) => {
            notes.push("it is not in its directory yet: the next apply places it".to_string());
        }
        process::Decision::TakeOut => {
            notes.push(
                "it is in a directory of ours still: the next apply takes it out".to_string(),
            );
        }
        _ => {}
    }
    let elsewhere = process.netns.is_some_and(|netns| netns != view.netns);
    if elsewhere && matches!(decision, process::Decision::Stay | process::Decision::MoveTo(_)) {
        notes.push(
            "it is in another network namespace: the sockets that it had before are in the class, those that it makes there are not on these links"
                .to_string(),
        );
    }
    if let Some(Claim::Pinned(pinned)) = process::claim_of(process, &view) {
        notes.push("`shaper run` or `shaper attach` put it there".to_string());
        owner = Some(pinned);
    }
    let mut answer = answer(on, meaning, subject, owner, notes);
    answer.directory.clone_from(&process.net_cls);
    Ok(answer)
}

/// Of a process whose unit's line says `follow: effective`, why it is where it is.
fn by_which_uid(process: &Process, matcher: &Matcher) -> Option<String> {
    let unit = process.unit.as_deref().filter(|unit| matcher.units.follows(Some(unit)))?;
    Some(match process.acting_uid {
        0 => format!(
            "{} follows effective uids: it is root now, and stays with its last user, if it had one",
            shown(unit)
        ),
        uid => format!(
            "{} follows effective uids: it acts as uid {uid}, whom it counts for where somebody claims him",
            shown(unit)
        ),
    })
}

/// A word of the command line that is no process.
struct Wanted<'a> {
    name: &'a str,
    uid: Result<Option<u32>, Unknown>,
}

fn of_user(on: &On<'_>, meaning: &Meaning, wanted: Wanted<'_>) -> Result<Answer, Failure> {
    let Wanted { name, uid } = wanted;
    let has_line = |owner: &Owner| meaning.model.nodes.iter().any(|node| node.owner == *owner);
    let accounts = &meaning.observation.facts.accounts;
    let mut notes = Vec::new();
    let owner = match (whom::line(name).filter(has_line), uid) {
        (Some(line), _) => Some(line),
        (None, Err(unknown)) => return Err(unknown.into()),
        (None, Ok(None)) => return Err(UnknownSubject(name.into()).into()),
        (None, Ok(Some(uid))) => {
            let own = Some(Owner::Uid(uid)).filter(has_line);
            let claimed = || meaning.model.matcher.claim(uid, None, accounts);
            let owner = own.or_else(|| claimed().map(|claimed| claimed.owner()));
            if owner.is_none() && uid == 0 {
                notes.push("root is only claimed by a line that names it".to_string());
            }
            owner
        }
    };
    if let Some(Owner::Uid(uid)) = &owner
        && !accounts.running.contains(uid)
    {
        notes.push("it has no process here now, so it has no class yet".to_string());
    }
    Ok(answer(on, meaning, shown(name).to_string(), owner, notes))
}

fn answer(
    on: &On<'_>,
    meaning: &Meaning,
    subject: String,
    owner: Option<Owner>,
    mut notes: Vec<String>,
) -> Answer {
    let node = owner.as_ref().and_then(|o| meaning.model.nodes.iter().find(|n| n.owner == *o));
    let observed = &meaning.observation.state;
    let classid = owner.as_ref().and_then(|o| observed.claims.get(&Claim::Owner(o.clone())));
    let id = classid.and_then(|classid| classid.our_class());
    if owner.is_none() {
        notes.push("nobody claims it: it is in the default class".to_string());
    } else if classid.is_none() {
        notes.push("it has no class in the kernel yet: `shaper apply` makes it".to_string());
    }
    let line = owner.as_ref().map(|owner| line_of(on, meaning, owner));
    let source = &on.policy.source;
    let file = |at: Option<Span>| at.map_or(source.file(), |at| source.file_at(at));
    let links = node.map_or_else(Vec::new, |node| {
        let on_link = |(at, link): (LinkAt, &Link)| {
            let limits = node.limits[at]?;
            let tree = observed.trees.get(&link.port);
            let class = id.and_then(|id| tree?.classes.get(&id));
            Some(OnLink {
                dev: link.port.link.to_string(),
                direction: link.port.direction.as_str(),
                port: link.port.to_string(),
                rate_bit: class.map(|class| class.rate.bits_per_second()),
                asked_rate_bit: match limits.rate {
                    Asked::Promised(rate) => Some(rate.bits_per_second()),
                    Asked::Derived { .. } | Asked::Token => None,
                },
                ceil_bit: limits.ceil.bits_per_second(),
                prio: limits.prio,
            })
        };
        meaning.model.links.pairs().filter_map(on_link).collect()
    });
    Answer {
        version: 1,
        subject,
        file: line.as_ref().map(|(_, at)| file(*at).to_string()),
        line: line.as_ref().and_then(|(_, at)| Some(at.as_ref()?.place.line)),
        column: line.as_ref().and_then(|(_, at)| Some(at.as_ref()?.place.column)),
        claimed_by: line.map(|(name, _)| name),
        classid: classid.map(ToString::to_string),
        directory: None,
        links,
        shares_with: node.map_or_else(Vec::new, |node| sharers(meaning, node)),
        notes,
    }
}

/// The line that claims for an owner, and its place. An account that has no process has no class,
/// but the line that would claim it is known all the same.
fn line_of(on: &On<'_>, meaning: &Meaning, owner: &Owner) -> (String, Option<Span>) {
    let place = |owner: &Owner| {
        let node = meaning.model.nodes.iter().find(|node| node.owner == *owner);
        node.map(|node| node.at)
    };
    match owner {
        Owner::User(key) => (format!("users.{key}"), place(owner)),
        Owner::Class(key) => (format!("classes.{key}"), place(owner)),
        Owner::Group(Group::Line(key)) => (format!("groups.{key}"), place(owner)),
        Owner::Subuids(_) | Owner::Newcomers | Owner::Group(Group::Everyone) => {
            let line = on.policy.everyone.as_ref();
            (Reserved::Everyone.to_string(), line.map(|line| line.at))
        }
        Owner::Uid(uid) => {
            let accounts = &meaning.observation.facts.accounts;
            match meaning.model.matcher.claim(*uid, None, accounts) {
                Some(Claimed::Account { group: Some(group @ Group::Line(_)), .. }) => {
                    (format!("groups.{group}"), place(&Owner::Group(group)))
                }
                _ => {
                    let line = on.policy.everyone.as_ref();
                    (Reserved::Everyone.to_string(), line.map(|line| line.at))
                }
            }
        }
    }
}

/// Accounts whose processes are in the same class.
fn sharers(meaning: &Meaning, node: &Node) -> Vec<String> {
    let accounts = &meaning.observation.facts.accounts;
    let claims = |uid: &u32| {
        let claimed = meaning.model.matcher.claim(*uid, None, accounts);
        claimed.is_some_and(|claimed| claimed.owner() == node.owner)
    };
    let name = |uid: &u32| {
        accounts
            .by_uid
            .get(uid)
            .map_or_else(|| format!("uid {uid}"), |account| account.name.clone())
    };
    accounts.running.iter().filter(|uid| claims(uid)).map(name).collect()
}

impl Answer {
    fn text(&self) -> String {
        let mut text = String::new();
        let _ = match (&self.claimed_by, &self.file, self.line, self.column) {
            (Some(line), Some(file), Some(number), Some(column)) => {
                writeln!(text, "{}: {line} at {file}:{number}:{column}", self.subject)
            }
            _ => writeln!(text, "{}: no line of the policy", self.subject),
        };
        if let Some(classid) = &self.classid {
            let _ = writeln!(text, "  class {classid}");
        }
        for link in &self.links {
            let show = |bits: u64| {
                Rate::from_bits_per_second(bits).map_or_else(|| "0".into(), |rate| rate.to_string())
            };
            let rate = match (link.rate_bit, link.asked_rate_bit) {
                (Some(rate), Some(asked)) if rate != asked => {
                    format!("{} in force ({} asked)", show(rate), show(asked))
                }
                (Some(rate), Some(_)) => show(rate),
                (Some(rate), None) if rate <= Rate::MIN_GUARANTEE.bits_per_second() => {
                    format!("{} (a token: what is left goes to others first)", show(rate))
                }
                (Some(rate), None) => format!("{} (a share of what is left)", show(rate)),
                (None, Some(asked)) => format!("{} (not in force yet)", show(asked)),
                (None, None) => "a share of what is left".to_string(),
            };
            let _ = writeln!(
                text,
                "  {}: rate {rate}, ceil {}, prio {}",
                link.port,
                show(link.ceil_bit),
                link.prio
            );
        }
        if !self.shares_with.is_empty() {
            let _ = writeln!(text, "  accounts in it now: {}", shown(&self.shares_with.join(", ")));
        }
        if let Some(directory) = &self.directory {
            let _ = writeln!(text, "  net_cls directory: {}", shown(directory));
        }
        for note in &self.notes {
            let _ = writeln!(text, "  {note}");
        }
        text
    }
}

//! `shaper why`: what is in force for a user, a process, a class or a guest, and which line of the
//! policy says so.

mod answer;
mod connection;
mod guest;
mod owner;
mod process;
mod standing;
mod subject;
mod unread;
mod ways;

use std::path::Path;
use std::time::Duration;

use super::counting::Counting;
use super::output::{Output, answered};
use super::own::Own;
use super::whom::{self, Unknown};
use crate::apply::{self, Engines, Look, Options, Request, Session, Who};
use crate::cli::{Global, WhyOptions};
use crate::engines::Known;
use crate::failure::Failure;
use crate::host::Kernel;
use crate::model::{Link, LinkAt};
use crate::process::Process;
use crate::status::Limit;
use crate::text::{Foreign, shown};
use crate::tree::{Claim, Owner, Reserved};
use crate::units::ClassId;
use answer::Answer;
pub(super) use answer::OnLink;
use connection::Known as KnownWays;
use owner::{On, Said};
use subject::{Subject, UnknownSubject, is_unit, named, no_connection};
pub(super) use unread::on_links;
use ways::Bound;

/// How long is looked at what goes now.
const INTERVAL: Duration = Duration::from_millis(300);

/// Which kinds of packets nobody claims.
const IN_DEFAULT: &str = "in it: what accounts send that no line claims (root's, too, unless one does), what is forwarded for nobody's guests, ARP, neighbour discovery and the kernel's own answers; `shaper status` names processes and connections";

pub(super) fn why(global: &Global, options: &WhyOptions) -> Result<Output, Failure> {
    let asked = Subject::parse(&options.subject)?;
    let mut counting = Counting::begin(global)?;
    let differences = counting.over(INTERVAL)?;
    let known = counting.read_guests()?;
    let status = counting.status(Some(differences));
    let uid = match asked {
        Subject::Uid(uid) => Ok(Some(uid)),
        Subject::Name(name) => whom::uid(name),
        _ => Ok(None),
    };
    // An account that has no process now is asked about too.
    let also = uid.as_ref().ok().copied().flatten();
    let is_bare = matches!(asked, Subject::Connection) && counting.own.is_none();
    let bound = if is_bare { ways::bound(&mut counting.kernel, options)? } else { None };
    let looked = look(&counting.kernel.name, &options.file, also, known);
    let (session, request, look) = match looked {
        Ok(looked) => looked,
        Err(failure) => {
            let answer = unread::answer(&counting, &status, (&asked, also), (options, bound));
            // The answer without a policy, and then why there is none.
            let Some(answer) = answer else { return Err(failure) };
            let answer = Answer { errors: Some(failure.errors()), ..answer };
            return answered(global, &answer, answer.text(), Some(failure));
        }
    };
    let on = On {
        kernel: &session.kernel,
        status: &status,
        policy: &request.intent.policy,
        meaning: &look.meaning,
        own: counting.own.as_ref(),
    };
    let mut answer = match asked {
        Subject::Process(pid) => match find(&look, pid, on.own) {
            Some(process) => process::of_process(&on, &look, process)?,
            None => return Err(UnknownSubject::Process(pid.into()).into()),
        },
        Subject::Uid(uid) => of_uid(&on, format!("uid {uid}"), uid),
        Subject::Class(class) => of_class(&on, class)?,
        Subject::Connection => of_connection(&on, options, bound),
        Subject::Guest(name) => match guest::find(counting.observation(), name) {
            Some(guest) => guest::of_guest(&on, counting.observation(), &guest),
            None => {
                let nearest = guest::nearest(counting.observation(), name).map(Foreign::from);
                return Err(UnknownSubject::Guest { name: name.into(), nearest }.into());
            }
        },
        Subject::Name(name) => match find(&look, name, on.own) {
            Some(process) => process::of_process(&on, &look, process)?,
            None => of_name(&on, &counting, name, uid)?,
        },
    };
    answer.as_told(counting.own.as_ref().and_then(|own| own.told.as_ref()), &status);
    let known =
        KnownWays { seen: counting.observation(), status: on.status, meaning: Some(on.meaning) };
    ways::say(known, options, &mut answer);
    if let Some(why) = &look.meaning.facts().accounts.unavailable {
        answer.notes.push(format!("NSS does not say who everybody is: {}", shown(why)));
    }
    answered(global, &answer, answer.text(), None)
}

/// What the policy means here. `also`: an account that is asked about; `known`: what engines said.
fn look(
    instance: &str,
    file: &Path,
    also: Option<u32>,
    known: Known,
) -> Result<(Session, Request, Look), Failure> {
    let may = Options { skip_unknown: true, takeover: true, ..Options::default() };
    let also = also.into_iter().collect();
    let request = Request { who: Who::Asked { also }, ..Request::new(apply::read(file)?, may) };
    let mut session = Session::new(Kernel::open(Some(instance))?);
    session.engines = Engines { known, may_be_asked: false };
    let look = session.look(&request)?;
    Ok((session, request, look))
}

/// A connection that no subject's is; `bound`: who has bound the host's own end.
fn of_connection(on: &On<'_>, options: &WhyOptions, bound: Option<Bound>) -> Answer {
    let mut claims = on.meaning.observation.state.claims.iter();
    let owner = claims.find_map(|(claim, id)| match claim {
        Claim::Owner(owner) if id.our_class() == Some(bound?.class) => Some(owner.clone()),
        _ => None,
    });
    match (owner, bound) {
        (Some(owner), Some(bound)) => {
            owner::answer(on, ways::subject(options), Some(owner), bound.notes(options))
        }
        _ => ways::of_nobody(options),
    }
}

/// A process of those that whoever asks may be told of.
fn find<'l>(look: &'l Look, pid: &str, own: Option<&Own>) -> Option<&'l Process> {
    let pid: u32 = pid.parse().ok()?;
    let may = |process: &Process| own.is_none_or(|own| own.is_his(process));
    look.scan.processes.iter().find(|process| process.pid == pid && may(process))
}

/// A name without a word before it that says what it names.
fn of_name(
    on: &On<'_>,
    counting: &Counting,
    name: &str,
    uid: Result<Option<u32>, Unknown>,
) -> Result<Answer, Failure> {
    // His account may have the name of a line that is another's.
    let may = |owner: &Owner| on.own.is_none_or(|own| own.owners.contains(owner));
    // A line of the file that has no class yet says less than what is in force for the account.
    let stands = |owner: &Owner| {
        let claims = &on.meaning.observation.state.claims;
        claims.contains_key(&Claim::Owner(owner.clone()))
    };
    let is_anothers =
        uid.as_ref().is_ok_and(|uid| uid.and_then(|uid| owner::in_force(on, uid)).is_some());
    if let Some(owner) = line(on, name).filter(may).filter(|it| stands(it) || !is_anothers) {
        return Ok(owner::answer(on, shown(name).to_string(), Some(owner), Vec::new()));
    }
    let matcher = &on.meaning.model.matcher;
    if on.own.is_none() && is_unit(name) {
        let owner = matcher.units.find(name).map(|key| Owner::User(key.clone()));
        let notes = match &owner {
            Some(_) => Vec::new(),
            None => vec!["no line names the unit: its processes count by their uids".to_string()],
        };
        let subject = format!("unit {}", shown(name));
        return Ok(match owner {
            Some(owner) => owner::answer(on, subject, Some(owner), notes),
            None => Answer { notes, ..Answer::about(subject, None) },
        });
    }
    if let Ok(Some(uid)) = uid {
        return Ok(of_uid(on, shown(name).to_string(), uid));
    }
    let seen = counting.observation();
    match (guest::find(seen, name).filter(|_| on.own.is_none()), uid) {
        (Some(guest), _) => Ok(guest::of_guest(on, seen, &guest)),
        (None, Err(unknown)) => Err(unknown.into()),
        (None, Ok(_)) => {
            if seen.state.trees.keys().any(|port| port.link.as_str() == name) {
                return Err(UnknownSubject::Link(name.into()).into());
            }
            let policy = on.policy;
            if let Some((key, at)) = guest::awaited(policy, name) {
                let line = format!("users.{} at {at}", shown(key));
                return Err(UnknownSubject::Awaited(name.into(), line).into());
            }
            if let Some(error) = no_connection(name) {
                return Err(error.into());
            }
            let users = policy.users.iter().map(|line| &line.key);
            let groups = policy.groups.iter().map(|line| &line.key);
            let classes = policy.classes.iter().map(|line| &line.key);
            let lines = users.chain(groups).chain(classes).map(|key| key.value.as_str());
            let nearest = crate::policy::closest(name, lines);
            let nearest = nearest.or_else(|| guest::nearest(seen, name)).map(Foreign::from);
            Err(UnknownSubject::Anything { name: name.into(), nearest }.into())
        }
    }
}

/// The user, group or class of this name: of the policy, else of the kernel.
fn line(on: &On<'_>, name: &str) -> Option<Owner> {
    let has_line = |owner: &Owner| on.meaning.model.nodes.iter().any(|node| node.owner == *owner);
    let claims = &on.meaning.observation.state.claims;
    let stands = |owner: &Owner| claims.contains_key(&Claim::Owner(owner.clone()));
    named(name).find(has_line).or_else(|| named(name).find(stands))
}

fn of_uid(on: &On<'_>, subject: String, uid: u32) -> Answer {
    let has_line = |owner: &Owner| on.meaning.model.nodes.iter().any(|node| node.owner == *owner);
    let accounts = &on.meaning.observation.facts.accounts;
    let mut notes = Vec::new();
    let own = Some(Owner::Uid(uid)).filter(has_line);
    let matcher = &on.meaning.model.matcher;
    let claimed = || matcher.claim(uid, None, accounts);
    let mut owner = own.or_else(|| claimed().map(|claimed| claimed.owner()));
    let is = owner::in_force(on, uid).filter(|is| Some(is) != owner.as_ref());
    if let Some(is) = is {
        // Where NSS does not say who that is, neither does the file.
        if !matcher.is_open(uid, None, accounts) {
            notes.push(owner::otherwise(on, &is, owner.as_ref()));
        }
        owner = Some(is);
    }
    if owner.is_none() && uid == 0 {
        notes.push("root is only claimed by a line that names it".to_string());
    }
    let stands = |owner: &Owner| {
        let claims = &on.meaning.observation.state.claims;
        claims.contains_key(&Claim::Owner(owner.clone()))
    };
    let is_away = matches!(owner, Some(Owner::Uid(_))) && !accounts.running.contains(&uid);
    if is_away && !owner.as_ref().is_some_and(stands) {
        notes.push("it has no process here now, so it has no class yet".to_string());
    }
    owner::answer(on, subject, owner, notes)
}

/// A class by its number.
fn of_class(on: &On<'_>, class: ClassId) -> Result<Answer, UnknownSubject> {
    let claims = &on.meaning.observation.state.claims;
    let is_it = |(_, id): &(&Claim, &ClassId)| id.our_class() == Some(class);
    let said = match class {
        ClassId::DEFAULT => Some((Reserved::Default, "whatever no rule and no user claims")),
        ClassId::UNSHAPED => Some((Reserved::Unshaped, "what rules send outside every limit")),
        _ => None,
    };
    if let Some((word, what)) = said {
        let links = on.links(Some(class), |_: LinkAt, link: &Link| match word {
            Reserved::Default => {
                let zone = &on.meaning.facts().zones.here;
                let of_link = Limit::of_link(&link.holds, zone);
                let is_its = link.default.ceil == link.rate;
                Said::Limits(link.default, of_link.filter(|_| is_its))
            }
            _ => Said::Nothing,
        });
        let notes = match class {
            ClassId::DEFAULT => vec![IN_DEFAULT.to_string()],
            _ => Vec::new(),
        };
        return Ok(Answer {
            links,
            notes,
            is_for_nobody: true,
            ..Answer::about(format!("{word}, {what}"), Some(class))
        });
    }
    let stands = !on.links(Some(class), |_, _| Said::Nothing).is_empty();
    match claims.iter().find(is_it).map(|(claim, _)| claim) {
        Some(Claim::Owner(owner) | Claim::Pinned(owner)) => {
            let subject = format!("class {class}, which is {}'s", shown(&owner.to_string()));
            Ok(owner::answer(on, subject, Some(owner.clone()), Vec::new()))
        }
        Some(Claim::Retired(_, of)) if stands => {
            let of = of.as_ref().map_or_else(String::new, |of| format!(" of {of}"));
            let notes = vec!["it is retired: it goes when nothing can come to it".to_string()];
            let links = on.links(Some(class), |_, _| Said::Nothing);
            let subject = format!("class {class}{}", shown(&of));
            Ok(Answer { links, notes, ..Answer::about(subject, Some(class)) })
        }
        _ if class == ClassId::LINK => Err(UnknownSubject::WholeLink),
        _ => Err(UnknownSubject::Class(class.to_string().as_str().into())),
    }
}

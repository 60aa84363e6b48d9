//! The first build on a link may cut off whoever types it over ssh, so it asks before it acts.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use super::output::stderr;
use super::ssh::Ssh;
use crate::apply::{self, Request, Session};
use crate::failure::Failure;
use crate::plan;
use crate::tree::LinkName;

/// In which time a build is to be confirmed that was allowed on trial.
const ON_TRIAL: Duration = Duration::from_secs(60);

/// How many links the question names.
const NAMED: usize = 3;

/// What is to be done, as the person says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Apply,
    OnTrial,
    Nothing,
}

/// The person said no.
#[derive(Debug, thiserror::Error)]
#[error("not applied, as you said; nothing was changed")]
struct Declined;

impl From<Declined> for Failure {
    fn from(declined: Declined) -> Failure {
        Failure::Usage(declined.to_string())
    }
}

/// Asks the person at the terminal, if what the policy makes here begins with a first build. In
/// which time it is to be confirmed, if it is.
///
/// # Errors
/// The host cannot be read, the policy cannot hold here, or the person does not want it.
pub(super) fn allowed(
    session: &mut Session,
    request: &Request,
    ssh: &Ssh,
) -> Result<Option<Duration>, Failure> {
    apply::may_change(&session.kernel)?;
    let mut look = session.look(request)?;
    let (plan, _) = session.plan(&request.intent, &mut look.meaning)?;
    let Some(question) = question(&plan::built(&plan.steps), ssh.link.as_ref()) else {
        return Ok(None);
    };
    let mut said = String::new();
    let asked = stderr(&question).and_then(|()| io::stdin().read_line(&mut said));
    asked.map_err(|error| Failure::refused(format!("the terminal does not answer: {error}")))?;
    match Answer::of(&said) {
        Answer::Apply => Ok(None),
        Answer::OnTrial => Ok(Some(ON_TRIAL)),
        Answer::Nothing => Err(Declined.into()),
    }
}

/// The question before these links are built; `None`: there are none. `over`: the link by which the
/// person is connected, if that is known.
fn question(built: &BTreeSet<&LinkName>, over: Option<&LinkName>) -> Option<String> {
    if built.is_empty() {
        return None;
    }
    let mut links: Vec<String> = built.iter().take(NAMED).map(ToString::to_string).collect();
    if built.len() > NAMED {
        links.push(format!("{} more", built.len() - NAMED));
    }
    let links = links.join(", ");
    let connected = match over {
        Some(link) if built.contains(link) && built.len() == 1 => {
            format!("{links}, over which you are connected")
        }
        Some(link) => format!("{links}; you are connected over {link}"),
        None => format!("{links}, and you are connected over ssh"),
    };
    Some(format!(
        "This is the first build on {connected}.\n\
         y: apply; c: apply with --confirm {}; anything else: nothing is changed\n> ",
        ON_TRIAL.as_secs()
    ))
}

impl Answer {
    fn of(line: &str) -> Answer {
        match line.trim() {
            "y" | "Y" | "yes" => Answer::Apply,
            "c" | "C" => Answer::OnTrial,
            _ => Answer::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_said_is_done() {
        for (line, answer) in [
            ("y\n", Answer::Apply),
            (" yes \r\n", Answer::Apply),
            ("c\n", Answer::OnTrial),
            ("C", Answer::OnTrial),
            ("n\n", Answer::Nothing),
            ("\n", Answer::Nothing),
            ("", Answer::Nothing),
            ("yc\n", Answer::Nothing),
        ] {
            assert_eq!(Answer::of(line), answer, "{line:?}");
        }
    }

    #[test]
    fn the_question_names_the_links_and_the_way_in() {
        let names: Vec<LinkName> =
            ["up0", "up1", "up2", "up3", "up4"].into_iter().filter_map(LinkName::new).collect();
        let first = |built: usize, over: Option<usize>| {
            let built = names.iter().take(built).collect();
            let question = question(&built, over.map(|at| &names[at]))?;
            question.lines().next().map(str::to_string)
        };
        let is = |text: &str| Some(format!("This is the first build on {text}."));
        assert_eq!(first(0, Some(0)), None);
        assert_eq!(first(1, Some(0)), is("up0, over which you are connected"));
        assert_eq!(first(1, Some(1)), is("up0; you are connected over up1"));
        assert_eq!(first(1, None), is("up0, and you are connected over ssh"));
        assert_eq!(first(2, Some(1)), is("up0, up1; you are connected over up1"));
        assert_eq!(first(5, None), is("up0, up1, up2, 2 more, and you are connected over ssh"));
    }
}

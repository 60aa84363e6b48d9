//! The first build on a link may cut off whoever types it over ssh, so it asks before it acts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::question::{Answer as Said, ask};
use super::ssh::Ssh;
use crate::apply::{self, Request, Session};
use crate::facts::LinkFacts;
use crate::failure::Failure;
use crate::host::Kernel;
use crate::model::Under;
use crate::plan::{self, Planned};
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
        Failure::Declined { status: 2, message: declined.to_string() }
    }
}

/// What a first build may cut off.
pub(super) struct AtStake {
    built: BTreeSet<LinkName>,
    /// The link by which the person is connected, if that is known.
    over: Option<LinkName>,
}

impl AtStake {
    /// What these steps build, where the person's connection goes by it, or where it is not known
    /// by which link it goes. `links`: those of the kernel.
    pub(super) fn of(
        steps: &[Planned],
        ssh: &Ssh,
        kernel: &mut Kernel,
        links: &BTreeMap<LinkName, LinkFacts>,
    ) -> Option<AtStake> {
        let built: BTreeSet<LinkName> = plan::built(steps).into_iter().cloned().collect();
        if built.is_empty() || ssh.is_elsewhere(kernel) {
            return None;
        }
        AtStake { built, over: ssh.link(kernel, links.iter()) }.if_by(links)
    }

    fn if_by(self, links: &BTreeMap<LinkName, LinkFacts>) -> Option<AtStake> {
        let under = self.over.as_ref().map(|over| Under::of(over, links));
        let goes = under.is_none_or(|under| self.built.iter().any(|link| under.holds(link)));
        goes.then_some(self)
    }
}

/// Asks the person at the terminal, if what the policy makes here begins with a first build of a
/// link by which his connection goes. In which time it is to be confirmed, if it is.
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
    let links = &look.meaning.facts().links;
    let Some(at_stake) = AtStake::of(&plan.steps, ssh, &mut session.kernel, links) else {
        return Ok(None);
    };
    let said = match ask(&at_stake.question(), None)? {
        Said::Said(line) => line,
        Said::Silence | Said::Signal(_) => String::new(),
    };
    match Answer::of(&said) {
        Answer::Apply => Ok(None),
        Answer::OnTrial => Ok(Some(ON_TRIAL)),
        Answer::Nothing => Err(Declined.into()),
    }
}

impl AtStake {
    fn question(&self) -> String {
        let AtStake { built, over } = self;
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
        format!(
            "This is the first build on {connected}.\n\
             y: apply; c: apply with --confirm {}; anything else: nothing is changed\n> ",
            ON_TRIAL.as_secs()
        )
    }
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
        // up3 is a bridge of up0 and up1, up4 a VLAN of that.
        let mut links: BTreeMap<LinkName, LinkFacts> =
            (1..).zip(&names).map(|(at, name)| (name.clone(), LinkFacts::ethernet(at))).collect();
        links.get_mut(&names[0]).unwrap().master = Some(4);
        links.get_mut(&names[1]).unwrap().master = Some(4);
        links.get_mut(&names[4]).unwrap().lower = Some(4);
        let first_with = |links: &BTreeMap<_, _>, built: usize, over: Option<usize>| {
            let built = names.iter().take(built).cloned().collect();
            let at_stake = AtStake { built, over: over.map(|at| names[at].clone()) };
            at_stake.if_by(links)?.question().lines().next().map(str::to_string)
        };
        let first = |built, over| first_with(&links, built, over);
        let is = |text: &str| Some(format!("This is the first build on {text}."));
        assert_eq!(first(1, Some(0)), is("up0, over which you are connected"));
        assert_eq!(first(1, Some(1)), None);
        assert_eq!(first(1, Some(3)), is("up0; you are connected over up3"));
        assert_eq!(first(1, Some(4)), is("up0; you are connected over up4"));
        assert_eq!(first(4, Some(2)), is("up0, up1, up2, 1 more; you are connected over up2"));
        links.get_mut(&names[2]).unwrap().kind = Some("wireguard".to_string());
        let through_a_tunnel = first_with(&links, 1, Some(2));
        assert_eq!(through_a_tunnel, is("up0; you are connected over up2"));
        let first = |built, over| first_with(&links, built, over);
        assert_eq!(first(1, None), is("up0, and you are connected over ssh"));
        assert_eq!(first(2, Some(1)), is("up0, up1; you are connected over up1"));
        assert_eq!(first(5, None), is("up0, up1, up2, 2 more, and you are connected over ssh"));
    }
}

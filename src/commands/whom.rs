//! Whom a name on the command line means: a line of the policy, or an account.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use super::daemon;
use crate::accounts::{Limit, Question};
use crate::apply::{self, Look, Options, Request, Session, Who};
use crate::engines::Known;
use crate::facts::{Accounts, Features, Helpers};
use crate::failure::Failure;
use crate::host::Kernel;
use crate::intent::Leaving;
use crate::policy::Policy;
use crate::status::{self, Limits, Quota};
use crate::text::Foreign;
use crate::tree::{Claim, Key, Owner};
use crate::units::ClassId;

/// How long NSS may take to say who one account is: a directory that was not asked for hours may
/// need some seconds.
const NSS: Duration = Duration::from_secs(10);

/// How long it may take where an answer can be done without.
const A_MOMENT: Duration = Duration::from_secs(3);

/// NSS did not answer, or not in time.
#[derive(Debug, thiserror::Error)]
#[error("cannot find out who {user} is: {why}")]
pub(super) struct Unknown {
    pub user: Foreign,
    pub why: String,
}

impl From<Unknown> for Failure {
    fn from(error: Unknown) -> Failure {
        Failure::refused(error)
    }
}

/// The line of `users` that may have this name.
pub(super) fn line(name: &str) -> Option<Owner> {
    Key::new(name).map(Owner::User)
}

/// The uid that is written so, or that the account of this name has; `None`: there is none.
///
/// # Errors
/// NSS does not say.
pub(super) fn uid(name: &str) -> Result<Option<u32>, Unknown> {
    if let Ok(uid) = name.parse() {
        return Ok(Some(uid));
    }
    let names = [name.to_string()].into();
    let question = Question { names, without_groups: true, ..Question::default() };
    let unknown = |why| Unknown { user: name.into(), why };
    let answer = question.ask_or_read(Limit::Whole(NSS));
    match (answer.by_name.get(name), answer.unavailable) {
        (Some(uid), _) => Ok(*uid),
        (None, why) => Err(unknown(why.unwrap_or_default())),
    }
}

/// The name of the account that has this uid; `None`: NSS does not say, or there is none.
pub(super) fn name(uid: u32) -> Option<String> {
    let uids = [uid].into();
    let question = Question { uids, without_groups: true, ..Question::default() };
    Some(question.ask_or_read(Limit::Whole(A_MOMENT)).by_uid.remove(&uid)?.name)
}

/// To know what a policy means here, whatever is absent or in the way. `also`: accounts that are
/// asked about though no process is theirs.
pub(super) fn request(policy: Policy, also: BTreeSet<u32>) -> Request {
    let options =
        Options { skip_unknown: true, takeover: true, absent_links: true, ..Options::default() };
    Request { who: Who::Asked { also }, ..Request::new(policy, options) }
}

/// What the policy (`file`, or the one in force) means here; `None`: it cannot be read, or does not
/// hold here. `also`: accounts that are asked about though no process is theirs. `engines`: what
/// engines of containers have said; none is waited for.
pub(super) fn in_force(
    kernel: Kernel,
    file: Option<&Path>,
    also: BTreeSet<u32>,
    engines: Known,
) -> Option<Look> {
    let file = file.map(Path::to_path_buf).or_else(|| daemon::policy_in_force(&kernel).ok())?;
    let request = request(apply::read(&file).ok()?, also);
    let mut session = Session::without_names(kernel);
    session.engines.known = engines;
    session.look(&request).ok()
}

/// What to ask NSS for [`limits_in_force`]: about whom the policy names, and who has a class.
pub(super) fn question_of_limits(policy: &Policy, claims: &BTreeMap<Claim, ClassId>) -> Question {
    let standing = claims.keys().filter_map(Claim::comes_and_goes);
    let uids = standing.filter_map(|owner| match owner {
        Owner::Uid(uid) => Some(*uid),
        // For whose range it is.
        Owner::Subuids(range) => Some(range.first),
        _ => None,
    });
    Question { running: uids.collect(), ..Question::of(policy) }
}

/// The limits that classes have now, and what was used of quotas, as the policy in force has it;
/// `None`: it does not hold here. `accounts`: the answer to [`question_of_limits`]. Neither NSS nor
/// the kernel's features are waited for: a scrape for metrics has little time, and comes again and
/// again.
pub(super) fn limits_in_force(
    kernel: Kernel,
    policy: Policy,
    accounts: Accounts,
) -> Option<(Limits, Vec<Quota>)> {
    // Whoever has a class counts as running, whether or not a process of his does.
    let accounts = Box::new(Accounts { running: BTreeSet::new(), ..accounts });
    let mut request = request(policy, BTreeSet::new());
    request.intent.leaving = Leaving::These(BTreeSet::new());
    request.who = Who::Known { accounts, processes: false };
    // What stands shows that the kernel can do it; of all features the meaning of a policy that has
    // units depends on this one.
    let helpers = Helpers { ancestor_cgroup: true, ..Helpers::default() };
    let features = Features { helpers, ..Features::default() };
    let meaning = Session::knowing(kernel, features, true).look(&request).ok()?.meaning;
    let (facts, model) = (meaning.facts(), &meaning.model);
    let quotas = match facts.used.unread {
        None => status::quotas(model, &facts.zones.here),
        Some(_) => Vec::new(),
    };
    Some((status::limits(model, &facts.zones.here), quotas))
}

/// Whose class processes of a uid are in, as the policy (`file`, or the one in force) has it;
/// `None` also where the policy cannot be read or does not hold here.
///
/// # Errors
/// NSS does not say who that is, and without it nobody claims the uid.
pub(super) fn claimant(
    instance: &str,
    uid: u32,
    file: Option<&Path>,
) -> Result<Option<Owner>, Unknown> {
    let kernel = Kernel::open(Some(instance)).ok();
    let look = kernel.and_then(|it| in_force(it, file, [uid].into(), Known::default()));
    let Some(look) = look else { return Ok(None) };
    let (meaning, accounts) = (&look.meaning, &look.meaning.facts().accounts);
    match (meaning.model.matcher.claim(uid, None, accounts), &accounts.unavailable) {
        (None, Some(why)) => {
            Err(Unknown { user: uid.to_string().as_str().into(), why: why.clone() })
        }
        (claimed, _) => Ok(claimed.map(|claimed| claimed.owner())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy;
    use crate::tree::UidRange;
    use crate::units::Minor;

    #[test]
    fn nss_is_asked_about_limits_of_whom_lines_name_and_who_has_a_class() {
        let text = "version: 1\ntimes: {night: \"20:00-06:00\"}\nlinks: {eth0: 1gbit}\n\
                    users: {ann: {ceil: 5mbit, when: {night: 9mbit}}}\neveryone: 1mbit\n";
        let policy = policy::parse(text, "policy").unwrap();
        let range = UidRange { first: 100_000, last: 165_535 };
        let owners = [line("ann").unwrap(), Owner::Uid(1000), Owner::Subuids(range)];
        let claims = owners.into_iter().map(Claim::Owner).chain([
            Claim::Retired(Minor(0x14), Some(Owner::Uid(1001))),
            Claim::Pinned(Owner::Uid(1000)),
        ]);
        let class = ClassId::ours(Minor(0x10));
        let question = question_of_limits(&policy, &claims.map(|claim| (claim, class)).collect());
        assert_eq!(question.running, [1000, 100_000].into());
        assert_eq!(question.names, ["ann".to_string()].into());
        assert!(question.without_groups && question.all_subuids);
        assert!(policy.has_times_or_quotas());
    }
}

//! Whom `from` in a rule means: a line of `users`, an account, a uid. Touches nothing.

use crate::facts::{Accounts, Facts};
use crate::policy::{
    Diagnostic, Field, Findings, Kind, Policy, Written, closest, printable, quote,
};
use crate::tree::{Key, Owner, Reserved};

use super::options::BuildOptions;
use super::{From, Matcher};

/// What whoever sends is looked up in: by a name in `from`, or by the link of a guest.
pub(super) struct Senders<'a> {
    pub policy: &'a Policy,
    pub matcher: &'a Matcher,
    pub facts: &'a Facts,
    pub options: BuildOptions,
}

impl Senders<'_> {
    /// The senders that `from` names; `None` for a rule without `from`. An unknown name is left out
    /// with a finding.
    pub(super) fn find(&self, field: &Field<String>, findings: &mut Findings) -> Option<From> {
        if field.is_empty() {
            return None;
        }
        let mut owners = Vec::with_capacity(field.values.len());
        for name in &field.values {
            match self.owner(name) {
                Ok(owner) => owners.extend(owner.filter(|owner| !owners.contains(owner))),
                Err(problem) => findings.push(*problem),
            }
        }
        Some(From { not: field.not, owners })
    }

    fn owner(&self, name: &Written<String>) -> Result<Option<Owner>, Box<Diagnostic>> {
        let text = name.value.as_str();
        let error = |message| Diagnostic::error(Kind::Rule, name.at, message);
        if let Some(line) = self.policy.users.iter().find(|line| line.key.value.as_str() == text) {
            return Ok(Some(Owner::User(line.key.value.clone())));
        }
        let is_key = |key: &Key| key.as_str() == text;
        if self.policy.groups.iter().any(|line| is_key(&line.key.value)) {
            return Err(Box::new(
                error(format!("{} is a group, and `from` is for users", quote(text)))
                    .help("list its users, or give the rule the networks that they reach: `dst`"),
            ));
        }
        if self.policy.classes.iter().any(|line| is_key(&line.key.value)) {
            return Err(Box::new(
                error(format!("{} is a class, which nobody's packets begin in", quote(text)))
                    .help("`from` takes lines of `users`, accounts and uids"),
            ));
        }
        if Reserved::of(text).is_some_and(|word| word != Reserved::Root) {
            return Err(Box::new(error(format!("{text} is nobody's name")).help(
                "`from` takes lines of `users`, accounts and uids; for everybody leave it out",
            )));
        }
        match text.parse::<u32>() {
            Ok(uid) => self.claimed(name, uid),
            Err(_) => self.account(name),
        }
    }

    fn account(&self, name: &Written<String>) -> Result<Option<Owner>, Box<Diagnostic>> {
        let Accounts { by_name, unavailable, .. } = &self.facts.accounts;
        let text = name.value.as_str();
        if let Some(Some(uid)) = by_name.get(text) {
            return self.claimed(name, *uid);
        }
        if self.options.offline {
            return Ok(None);
        }
        let new = match self.options.skip_unknown {
            true => Diagnostic::warning,
            false => Diagnostic::error,
        };
        let new = |message: String| new(Kind::Account, Some(name.at), message);
        Err(Box::new(match unavailable {
            Some(why) => new(format!(
                "the account {} could not be looked up: {}",
                quote(text),
                printable(why, 200)
            ))
            .help("see whether `getent passwd` answers; a line of `users` is known without asking"),
            None => {
                let known = self.policy.users.iter().map(|line| line.key.value.as_str());
                let cure = match closest(text, known) {
                    Some(close) => format!("did you mean `{close}`?"),
                    None => "name a line of `users`, an account (`getent passwd NAME`) or a uid"
                        .to_string(),
                };
                new(format!("there is no user and no account {}", quote(text))).help(cure)
            }
        }))
    }

    fn claimed(&self, name: &Written<String>, uid: u32) -> Result<Option<Owner>, Box<Diagnostic>> {
        if let Some(claimed) = self.matcher.claim(uid, None, &self.facts.accounts) {
            return Ok(Some(claimed.owner()));
        }
        if self.options.offline {
            return Ok(None);
        }
        let whose = quote(&name.value);
        Err(Box::new(
            Diagnostic::error(
                Kind::Rule,
                name.at,
                format!(
                    "no line of this policy claims {whose}, so nobody can tell what {whose} sends"
                ),
            )
            .help(format!("give {whose} a line in `users`, with a `ceil` as large as you like")),
        ))
    }
}

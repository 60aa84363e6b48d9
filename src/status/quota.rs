//! What was used of quotas, and what is left. Pure.

use serde::{Deserialize, Serialize};

use super::limit::shown_moment;
use super::words::bytes;
use crate::model::{Metered, Model};
use crate::quota::{Counts, Period, Verdict};
use crate::text::{Foreign, shown};
use crate::times::TimeZone;
use crate::tree::Owner;

/// So many quotas are lines of a table; those of which most is used go first.
const MOST: usize = 8;

/// One quota of one owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// The user's name, or the group's.
    pub user: String,
    /// Whose it is, as directories name it.
    #[serde(skip, default = "unsaid")]
    pub owner: Owner,
    /// Whether that is a group, whose members have it together.
    pub group: bool,
    /// As the policy spells it: `month`, `30d`.
    pub period: String,
    /// The same in a sentence: `this month`.
    #[serde(skip)]
    pub in_words: String,
    /// What counts: `sent`, `received` or `both`.
    pub counts: Counts,
    /// What was used of it.
    pub used_bytes: u64,
    /// What was granted beyond the policy's volume.
    pub granted_bytes: u64,
    /// The volume, with what was granted.
    pub limit_bytes: u64,
    /// What is left of it.
    pub left_bytes: u64,
    /// When the period ends, in the host's zone; absent of a rolling one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// The cap that it sets now; absent where it sets none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ceil_bit: Option<u64>,
    /// The share of the volume from which on that cap holds, as the policy spells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// When the period ends, where the table has little room for it.
    #[serde(skip)]
    pub anew: Option<String>,
}

/// Whose a quota is that was read from a text.
fn unsaid() -> Owner {
    Owner::Newcomers
}

/// All quotas of a model, by the names of owners. `zone`: the host's.
pub fn quotas(model: &Model, zone: &TimeZone) -> Vec<Quota> {
    let owners = model.metered.owners.iter();
    owners.flat_map(|(owner, metered)| quotas_of(owner, metered, zone)).collect()
}

/// The quotas of one owner.
pub(super) fn quotas_of(owner: &Owner, metered: &Metered, zone: &TimeZone) -> Vec<Quota> {
    let quotas = metered.quotas.iter().zip(&metered.verdicts);
    let shown = |((quota, _), verdict): (&(crate::quota::Quota, _), &Verdict)| {
        let is_rolling = matches!(quota.period, Period::Rolling { .. });
        Quota {
            user: match owner {
                Owner::User(key) | Owner::Class(key) => key.to_string(),
                Owner::Group(group) => group.to_string(),
                Owner::Uid(uid) => uid.to_string(),
                Owner::Subuids(_) | Owner::Newcomers => owner.to_string(),
            },
            owner: owner.clone(),
            group: matches!(owner, Owner::Group(_)),
            period: quota.period.to_string(),
            in_words: quota.period.in_words(),
            counts: quota.counts,
            used_bytes: verdict.used,
            granted_bytes: verdict.volume.saturating_sub(quota.volume.0),
            limit_bytes: verdict.volume,
            left_bytes: verdict.volume.saturating_sub(verdict.used),
            until: (!is_rolling).then(|| shown_moment(verdict.window.end, zone)),
            ceil_bit: verdict.held.map(|held| held.step.rate.bits_per_second()),
            step: verdict.held.map(|held| held.step.share.to_string()),
            anew: (!is_rolling).then(|| {
                let end = verdict.window.end.to_zoned_datetime(zone.clone());
                end.strftime("%m-%d %H:%M").to_string()
            }),
        }
    };
    quotas.map(shown).collect()
}

impl Quota {
    /// `ann: 3.2GB of 50GB used this month, 46.8GB left, until 2026-12-01T00:00:00+01:00`.
    fn line(&self) -> String {
        let name = match self.group {
            true => format!("[{}]", self.user),
            false => self.user.clone(),
        };
        format!("{}: {}", Foreign::from(name.as_str()), self.words())
    }

    /// The same without the name.
    pub fn words(&self) -> String {
        let what = match self.counts {
            Counts::Both => "used",
            counts => counts.as_str(),
        };
        let mut words = format!(
            "{} of {} {what} {}, {} left",
            bytes(self.used_bytes),
            bytes(self.limit_bytes),
            self.in_words,
            bytes(self.left_bytes)
        );
        if let Some(until) = &self.until {
            words.push_str(&format!(", until {until}"));
        }
        shown(&words).to_string()
    }

    /// Which share of it is used, in thousandths.
    fn share(&self) -> u128 {
        let used = u128::from(self.used_bytes) * 1_000;
        used.checked_div(u128::from(self.limit_bytes)).unwrap_or(u128::MAX)
    }
}

/// A line for each quota of those of which most is used.
pub(super) fn quota_lines(quotas: &[Quota]) -> Vec<String> {
    let mut quotas: Vec<&Quota> = quotas.iter().collect();
    quotas.sort_by_key(|quota| std::cmp::Reverse(quota.share()));
    let more = quotas.len().saturating_sub(MOST);
    let shown = quotas.into_iter().take(MOST);
    let mut lines: Vec<String> = shown.map(|quota| format!("quota of {}", quota.line())).collect();
    if more > 0 {
        lines.push(format!("and {more} quotas of which less is used"));
    }
    lines
}

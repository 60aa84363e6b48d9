//! The policy file as written: YAML text → [`Policy`], every value with its place. This
//! room refuses what one line says wrongly by itself (unknown keys, wrong types, texts that are no
//! rates, unsafe names); what lines mean together is the room `model`. Touches text only.

mod cures;
mod diagnostic;
mod document;
mod fields;
mod guests;
mod limits;
mod lines;
mod links;
mod lookups;
mod meant;
mod merge;
mod node;
mod packets;
mod pattern;
mod quota_line;
mod quotas;
mod rules;
mod scalars;
mod source;
mod syntax;
#[cfg(test)]
mod tests;
mod times;
mod yaml;

pub use cures::for_volume;
pub use diagnostic::{Diagnostic, Kind, Report, Severity};
pub(crate) use diagnostic::{Findings, closest, printable, quote};
pub(crate) use document::LAST_PRIO;
pub use document::{
    Amount, ClassLine, ContainerRef, Down, EveryoneLine, Field, Follow, Gid, GroupLine, GuestOwner,
    LeafChoice, Limits, LinkLine, LinkRef, LinkWhen, Membership, Networks, OnLink, Policy,
    RuleLine, UnitRef, UserLine, When, WindowLine, line_of,
};
pub use lookups::Lookups;
pub use packets::protocol;
pub use pattern::Pattern;
pub use quota_line::QuotaLine;
pub use quotas::may_change;
pub(crate) use scalars::LAST_UID;
pub use source::{Place, Source, Span, Written};
pub use yaml::MAX_BYTES;

/// Reads a policy of one file. `file_name` is for messages only.
///
/// # Errors
/// As [`read`].
pub fn parse(text: &str, file_name: &str) -> Result<Policy, Report> {
    read(Source::new(file_name, text))
}

/// Reads a policy.
///
/// # Errors
/// All errors in the text, up to 20, each with its place and cure. Bad YAML is one error, because
/// the text behind it has no meaning.
pub fn read(mut source: Source) -> Result<Policy, Report> {
    let mut findings = Findings::default();
    let root = findings.take(merge::documents(&source));
    // Messages about files that are too large show only the beginning of the first.
    if source.text.len() > MAX_BYTES {
        source = Source::new(source.file(), yaml::first_line(&source.text));
    }
    let policy = root.and_then(|root| lines::policy(root, source.clone(), &mut findings));
    findings.finish(&source)?;
    // Without errors there is a policy; the empty report cannot happen.
    policy.ok_or_else(|| Report::new(&source, Vec::new()))
}

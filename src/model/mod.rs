//! The policy as it is meant on this host: names resolved, defaults filled, percentages computed,
//! the tree checked. `build` makes it of the policy and the facts, and touches nothing.

mod above;
mod arriving;
mod boost;
mod build;
mod claims;
mod default;
mod groups;
mod guests;
mod here;
mod holds;
mod inner;
mod limits;
mod links;
mod matcher;
mod meant;
mod metered;
mod minors;
mod nodes;
mod options;
mod owners;
mod positions;
mod proxied;
mod quotas;
mod rules;
mod schedule;
mod senders;
mod sets;
mod shaped;
mod stacked;
mod steps;
mod twice;
mod under;
mod units;

#[cfg(test)]
mod tests;

pub use crate::policy::{LeafChoice, Pattern, Span};
pub use build::build;
pub use guests::{guests_of_accounts, named_by_guests};
pub use holds::{By, Holds, LimitOf};
pub use matcher::{Claimed, Matcher, Units};
pub use meant::{Asked, From, How, InnerLink, Limits, Link, Model, Node, Rule, Target};
pub use metered::{Metered, Meters, Next};
pub use options::BuildOptions;
pub use owners::{Owners, Whose};
pub use positions::{LinkAt, Per, Position};
pub use quotas::{counted, slots};
pub use under::Under;

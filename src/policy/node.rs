//! A policy's text as a tree: values that know their place, before anybody asks what they mean.
//! Touches nothing.

use super::diagnostic::{Span, Written};

/// A value of the file.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Where the value is written, which is not where an alias repeats it.
    pub(super) at: Span,
    pub(super) value: Value,
}

/// A key of a mapping, and its value.
pub(super) type Entry = (Written<String>, Node);

/// What a value is made of. Scalars stay text, as written: YAML would make a number of `010`, a
/// boolean of a user called `no`, and only the reader of a field knows what it wants.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// Nothing after the colon, `~` or `null`.
    Null,
    Scalar(String),
    List(Vec<Node>),
    /// In file order, what merge keys bring in last; a key may stand twice.
    Map(Vec<Entry>),
}

impl Value {
    /// What the value is, for a message.
    pub(super) fn sort(&self) -> &'static str {
        match self {
            Value::Null => "nothing",
            Value::Scalar(_) => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

//! A policy's text as a tree of values with their places, before anybody asks what they mean.
//! Touches nothing.

use super::source::{Span, Written};

/// A value of the file.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Where the value is written; for an alias, where its anchor is.
    pub(super) at: Span,
    pub(super) value: Value,
}

/// A key of a mapping, and its value.
pub(super) type Entry = (Written<String>, Node);

/// A value. Scalars stay text, as written: YAML would make a number of `010` and a boolean of a
/// user called `no`, and only the reader of a field knows which kind of value it is.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// Nothing after the colon, `~` or `null`.
    Null,
    Scalar(String),
    List(Vec<Node>),
    /// A mapping in file order, the entries of merge keys last; a key may be there twice.
    Map(Vec<Entry>),
}

impl Value {
    /// The kind of the value, for a message.
    pub(super) fn sort(&self) -> &'static str {
        match self {
            Value::Null => "nothing",
            Value::Scalar(_) => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

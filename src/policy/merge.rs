//! The trees of a policy's files, made into one. Nothing is decided here: whatever two files say of
//! one thing stands twice in the tree, and the reader of that thing refuses it, with both places.
//! Touches nothing.

use super::diagnostic::Diagnostic;
use super::node::{Entry, Node, Value};
use super::source::Source;
use super::yaml::{self, Spent};

/// The keys at the top whose entries may come from several files.
const SECTIONS: [&str; 6] = ["links", "users", "groups", "classes", "times", "rules"];

/// One tree of all files: entries of sections in the order of the files. A file that has nothing
/// but comments adds nothing, if it is not the first.
pub(super) fn documents(source: &Source) -> Result<Node, Diagnostic> {
    yaml::not_too_long(&source.text)?;
    let mut spent = Spent::default();
    let mut texts = source.texts();
    let (first, start) = texts.next().unwrap_or_default();
    let mut root = yaml::parse(first, start, &mut spent)?;
    for (text, start) in texts.filter(|(text, _)| !yaml::is_blank(text)) {
        let other = yaml::parse(text, start, &mut spent)?;
        match (&mut root.value, other.value) {
            (_, Value::Null) => {}
            (Value::Map(entries), Value::Map(others)) => {
                others.into_iter().for_each(|other| add(entries, other));
            }
            // No policy has another value than a mapping: which of the two is wrong is said later.
            (Value::Map(_), value) => return Ok(Node { at: other.at, value }),
            (Value::Null, value) => root.value = value,
            (Value::Scalar(_) | Value::List(_), _) => return Ok(root),
        }
    }
    Ok(root)
}

/// Adds an entry of the top level.
fn add(entries: &mut Vec<Entry>, (key, other): Entry) {
    let known = entries.iter_mut().find(|(known, _)| known.value == key.value);
    let Some((_, node)) = known else { return entries.push((key, other)) };
    let is_section = SECTIONS.contains(&key.value.as_str());
    match (&mut node.value, other.value) {
        (Value::Map(own), Value::Map(others)) if is_section => own.extend(others),
        (Value::List(own), Value::List(others)) if is_section => own.extend(others),
        (_, Value::Null) if is_section => {}
        (Value::Null, value) if is_section => *node = Node { at: other.at, value },
        // Each file may say by itself which version it is.
        (Value::Scalar(own), Value::Scalar(other)) if key.value == "version" && *own == other => {}
        (_, value) => entries.push((key, Node { at: other.at, value })),
    }
}

//! YAML text → a tree of nodes, straight from the parser's events: the only file that knows which
//! YAML crate reads a policy. Through serde each place would pass through several dozen strings,
//! which took most of the time of reading a policy of 10,000 users. Touches nothing.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::de::DeserializeOwned;
use serde_yaml::granit_parser::{Event, Parser, ScalarStyle, StrInput, Tag};

use super::diagnostic::Diagnostic;
use super::node::{Entry, Node, Value};
use super::source::{Place, Span, Written};
use super::syntax;

/// The longest text that is read: a file of 60,000 users with all their fields has half of that.
pub const MAX_BYTES: usize = 8 << 20;

/// Lists and mappings in each other.
const MAX_DEPTH: usize = 32;

/// The most keys and values; those that an anchor keeps and those that an alias repeats count
/// again. A file of 60,000 users has little fewer, and a bomb of aliases is refused within a
/// second.
const MAX_NODES: usize = 1_000_000;

/// The most bytes of text that anchors keep and aliases repeat, all together: as many as the
/// longest file has, so that a long text with many aliases does not fill the memory.
const MAX_COPIED: usize = MAX_BYTES;

/// Reads the one document of `text`, which begins at the byte `start` of the whole text. `spent`:
/// what the files before have cost.
pub(super) fn parse(text: &str, start: u32, spent: &mut Spent) -> Result<Node, Diagnostic> {
    if is_blank(text) {
        return Err(syntax::empty());
    }
    let parser = Parser::new_from_str(text);
    Reader { text, start, parser, anchors: Vec::new(), spent, nameless: None }.document()
}

/// Refuses more text than a policy may have.
pub(super) fn not_too_long(text: &str) -> Result<(), Diagnostic> {
    match text.len() > MAX_BYTES {
        true => Err(syntax::too_long(MAX_BYTES)),
        false => Ok(()),
    }
}

/// Whether there is nothing but comments.
pub(super) fn is_blank(text: &str) -> bool {
    text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
}

/// The first line, or as much of it as a screen shows.
pub(super) fn first_line(text: &str) -> &str {
    let line = text.lines().next().unwrap_or_default();
    line.char_indices().nth(80).map_or(line, |(end, _)| &line[..end])
}

struct Reader<'t> {
    text: &'t str,
    /// Where the text begins in the whole one.
    start: u32,
    parser: Parser<'t, StrInput<'t>>,
    /// The anchors, by the parser's number. `None`, or beyond the end: the anchor's value is still
    /// being read.
    anchors: Vec<Option<Anchored>>,
    spent: &'t mut Spent,
    /// The first key in the file that is a list or a mapping. It is reported only after the text
    /// was read to its end, because the cause is often a bracket for which the parser has a better
    /// error.
    nameless: Option<Span>,
}

/// The value that an alias repeats.
struct Anchored {
    node: Node,
    size: Size,
}

/// The size of one more copy of a node.
#[derive(Clone, Copy)]
struct Size {
    /// Keys and values.
    nodes: usize,
    /// The bytes of their texts.
    bytes: usize,
    /// Lists and mappings in each other.
    depth: usize,
}

type Found<'t> = (Event<'t>, Span);

impl<'t> Reader<'t> {
    fn document(mut self) -> Result<Node, Diagnostic> {
        let mut root = None;
        let end = loop {
            let (event, at) = self.next()?;
            match event {
                Event::StreamEnd => break at,
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                _ if root.is_some() => return Err(syntax::second_document(at)),
                event => root = Some(self.node((event, at), 0)?),
            }
        };
        match self.nameless {
            Some(at) => Err(syntax::key_without_name(at)),
            None => Ok(root.unwrap_or(Node { at: end, value: Value::Null })),
        }
    }

    fn next(&mut self) -> Result<Found<'t>, Diagnostic> {
        match self.parser.next() {
            Some(Ok((event, span))) => {
                let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
                let (from, to) = (span.start, span.end);
                let start = from.byte_offset().unwrap_or_default();
                let end = to.byte_offset().unwrap_or(start).max(start);
                let place =
                    Place { line: number(from.line()).max(1), column: number(from.col() + 1) };
                let span = Span { start: number(start), end: number(end), place };
                Ok((event, span.moved(self.start)))
            }
            Some(Err(error)) => {
                let refused = syntax::refused(&error, self.text);
                Err(Diagnostic { at: refused.at.map(|at| at.moved(self.start)), ..refused })
            }
            None => Ok((Event::StreamEnd, Span::START.moved(self.start))),
        }
    }

    /// The value that begins with `event`; `depth`: in how many lists and mappings it is.
    fn node(&mut self, (event, at): Found<'t>, depth: usize) -> Result<Node, Diagnostic> {
        self.spent.node(at)?;
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, tag) => (anchor, scalar(text, style, tag, at)?),
            Event::SequenceStart(_, anchor, tag) => {
                opens(tag.as_deref(), "seq", depth, at)?;
                (anchor, self.list(depth + 1)?)
            }
            Event::MappingStart(_, anchor, tag) => {
                opens(tag.as_deref(), "map", depth, at)?;
                (anchor, self.mapping(depth + 1)?)
            }
            Event::Alias(anchor) => return self.repeated(anchor, depth, at),
            _ => return Err(syntax::not_yaml(at, "did not find expected node content")),
        };
        let node = Node { at, value };
        if anchor != 0 {
            self.keep(anchor, &node)?;
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Value, Diagnostic> {
        let mut list = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(list)),
                element => list.push(self.node(element, depth)?),
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Value, Diagnostic> {
        let mut entries = Vec::new();
        let mut merged = Vec::new();
        loop {
            match self.next()? {
                (Event::MappingEnd, _) => break,
                (key, at) if is_merge_key(&key) => {
                    self.node((key, at), depth)?;
                    let value = self.next()?;
                    merge(self.node(value, depth)?, &mut merged)?;
                }
                key => {
                    let key = self.key(key, depth)?;
                    let value = self.next()?;
                    entries.push((key, self.node(value, depth)?));
                }
            }
        }
        if !merged.is_empty() {
            add_missing(&mut entries, merged);
        }
        Ok(Value::Map(entries))
    }

    fn key(&mut self, key: Found<'t>, depth: usize) -> Result<Written<String>, Diagnostic> {
        let Node { at, value } = self.node(key, depth)?;
        let value = match value {
            Value::Scalar(name) => name,
            // `~` is a name too.
            Value::Null => {
                let byte = |of_whole: u32| (of_whole - self.start) as usize;
                self.text[byte(at.start)..byte(at.end)].to_string()
            }
            Value::List(_) | Value::Map(_) => {
                self.nameless = Some(self.nameless.map_or(at, |first| first.min(at)));
                String::new()
            }
        };
        Ok(Written { value, at })
    }

    fn keep(&mut self, anchor: usize, node: &Node) -> Result<(), Diagnostic> {
        let size = size(node);
        self.spent.copy(size, node.at)?;
        if anchor >= self.anchors.len() {
            self.anchors.resize_with(anchor + 1, || None);
        }
        self.anchors[anchor] = Some(Anchored { node: node.clone(), size });
        Ok(())
    }

    fn repeated(&mut self, anchor: usize, depth: usize, at: Span) -> Result<Node, Diagnostic> {
        let Some(Some(anchored)) = self.anchors.get(anchor) else {
            return Err(syntax::no_policy(at, "an alias contains itself"));
        };
        if depth + anchored.size.depth > MAX_DEPTH {
            return Err(syntax::no_policy(at, syntax::TOO_DEEP));
        }
        self.spent.copy(anchored.size, at)?;
        Ok(anchored.node.clone())
    }
}

/// What a text has cost so far.
#[derive(Default)]
pub(super) struct Spent {
    /// Keys and values that were read, kept and repeated.
    nodes: usize,
    /// Bytes of text that were kept and repeated.
    copied: usize,
}

impl Spent {
    fn node(&mut self, at: Span) -> Result<(), Diagnostic> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(syntax::no_policy(at, "it has too many values"));
        }
        Ok(())
    }

    /// To be asked before a copy is made.
    fn copy(&mut self, size: Size, at: Span) -> Result<(), Diagnostic> {
        self.nodes += size.nodes;
        self.copied += size.bytes;
        if self.nodes > MAX_NODES || self.copied > MAX_COPIED {
            return Err(syntax::no_policy(at, "its aliases (`*name`) expand to too much"));
        }
        Ok(())
    }
}

fn size(node: &Node) -> Size {
    let around = |own: Size, child: &Node| {
        let Size { nodes, bytes, depth } = size(child);
        Size { nodes: own.nodes + nodes, bytes: own.bytes + bytes, depth: own.depth.max(depth + 1) }
    };
    let one = |bytes: usize, depth: usize| Size { nodes: 1, bytes, depth };
    match &node.value {
        Value::Null => one(0, 0),
        Value::Scalar(text) => one(text.len(), 0),
        Value::List(list) => list.iter().fold(one(0, 1), around),
        Value::Map(entries) => entries.iter().fold(one(0, 1), |own, (key, value)| {
            let key = key.value.len();
            around(Size { nodes: own.nodes + 1, bytes: own.bytes + key, ..own }, value)
        }),
    }
}

/// `<<`, which brings in what other mappings have; quoted it is a name.
fn is_merge_key(event: &Event) -> bool {
    let Event::Scalar(text, style, _, tag) = event else { return false };
    text == "<<"
        && match tag {
            None => *style == ScalarStyle::Plain,
            Some(tag) => type_of(tag) == Some(Cow::Borrowed("merge")),
        }
}

/// What the value of `<<` brings in: a mapping's entries, or those of several, the first first.
fn merge(value: Node, merged: &mut Vec<Entry>) -> Result<(), Diagnostic> {
    match value.value {
        Value::Null => Ok(()),
        Value::Map(entries) => {
            merged.extend(entries);
            Ok(())
        }
        Value::List(list) => list.into_iter().try_for_each(|element| merge(element, merged)),
        Value::Scalar(_) => Err(syntax::not_yaml(
            value.at,
            "YAML merge value must be mapping or sequence of mappings",
        )),
    }
}

/// Adds what was merged and has no entry yet.
fn add_missing(entries: &mut Vec<Entry>, merged: Vec<Entry>) {
    let mut names: HashSet<String> = entries.iter().map(|(key, _)| key.value.clone()).collect();
    entries.extend(merged.into_iter().filter(|(key, _)| names.insert(key.value.clone())));
}

fn scalar(
    text: Cow<str>,
    style: ScalarStyle,
    tag: Option<Cow<Tag>>,
    at: Span,
) -> Result<Value, Diagnostic> {
    let mut nothing = style == ScalarStyle::Plain
        && (at.start == at.end || matches!(&*text, "" | "~" | "null" | "Null" | "NULL"));
    if let Some(tag) = tag {
        match type_of(&tag).as_deref() {
            Some("null") => nothing = true,
            Some("" | "str") if at.start == at.end => return Ok(Value::Scalar(String::new())),
            Some("" | "str") => nothing = false,
            Some("int") if text.starts_with('-') => typed::<i64>(&text, "i64", at)?,
            Some("int") => typed::<u64>(&text, "u64", at)?,
            Some("float") => typed::<f64>(&text, "floating point", at)?,
            Some("bool") => typed::<bool>(&text, "boolean", at)?,
            Some("seq" | "map" | "binary" | "timestamp") => return Err(unsupported(&tag, at)),
            _ => {}
        }
    }
    Ok(if nothing { Value::Null } else { Value::Scalar(text.into_owned()) })
}

/// Refuses a text that is not of the type that its tag says.
fn typed<T: DeserializeOwned>(text: &str, name: &str, at: Span) -> Result<(), Diagnostic> {
    match serde_yaml::from_str::<T>(text) {
        Ok(_) => Ok(()),
        Err(_) => Err(syntax::not_yaml(at, &format!("invalid {name}"))),
    }
}

/// Whether a list (`seq`) or a mapping (`map`) may begin: not too deep in others, and without a tag
/// of YAML's that says it is something else. Other tags change nothing.
fn opens(tag: Option<&Tag>, kind: &str, depth: usize, at: Span) -> Result<(), Diagnostic> {
    const SCALARS: [&str; 8] =
        ["null", "bool", "int", "float", "str", "binary", "timestamp", "merge"];
    if depth >= MAX_DEPTH {
        return Err(syntax::no_policy(at, syntax::TOO_DEEP));
    }
    let Some(tag) = tag else { return Ok(()) };
    match type_of(tag).as_deref() {
        Some(name @ ("seq" | "map")) if name != kind => Err(unsupported(tag, at)),
        Some(name) if SCALARS.contains(&name) => Err(unsupported(tag, at)),
        _ => Ok(()),
    }
}

fn unsupported(tag: &Tag, at: Span) -> Diagnostic {
    syntax::not_yaml(at, &format!("unsupported tag `{}`", tag.original()))
}

/// `str` of `!!str` and `!str`, nothing of `!`; `None`: a tag that is not YAML's own.
fn type_of(tag: &Tag) -> Option<Cow<'_, str>> {
    tag.suffix_in_namespace("tag:yaml.org,2002:").or_else(|| tag.suffix_in_namespace("!"))
}

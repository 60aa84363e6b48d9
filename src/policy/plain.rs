//! A plain document → its tree, straight from the parser's events. Most policies are plain: no
//! anchor, alias, merge key or tag. Through serde each place passes through several dozen strings,
//! which is most of what reading a policy of 10,000 users cost. Whatever is not plain, or wrong, is
//! left to [`super::yaml`], which knows all of YAML and says what is wrong. Touches nothing.

use serde_yaml::granit_parser::{Event, Marker, Parser, ScalarStyle, StrInput};

use super::diagnostic::{Place, Span, Written};
use super::yaml::{Node, Value};

/// Deeper and larger ones may be beyond what is read at all, which is said elsewhere.
const DEPTH: usize = 16;
const NODES: usize = 400_000;

/// The tree of a plain document; `None`: it is not plain, or has an error.
pub(super) fn parse(text: &str) -> Option<Node> {
    // With a mark in front, places are counted otherwise.
    if text.starts_with('\u{feff}') {
        return None;
    }
    let mut events = Events { parser: Parser::new_from_str(text), nodes: 0 };
    let Event::StreamStart = events.next()?.0 else { return None };
    let Event::DocumentStart(_, None) = events.next()?.0 else { return None };
    let first = events.next()?;
    let root = events.node(first, 0)?;
    let Event::DocumentEnd = events.next()?.0 else { return None };
    let Event::StreamEnd = events.next()?.0 else { return None };
    Some(root)
}

type Found<'t> = (Event<'t>, Span);

struct Events<'t> {
    parser: Parser<'t, StrInput<'t>>,
    nodes: usize,
}

impl<'t> Events<'t> {
    fn next(&mut self) -> Option<Found<'t>> {
        let (event, at) = self.parser.next()?.ok()?;
        Some((event, span(at.start, at.end)?))
    }

    fn node(&mut self, (event, at): Found<'t>, depth: usize) -> Option<Node> {
        self.nodes += 1;
        if depth >= DEPTH || self.nodes > NODES {
            return None;
        }
        let value = match event {
            Event::Scalar(text, ScalarStyle::Plain, 0, None) => match text.as_ref() {
                "" | "~" | "null" | "Null" | "NULL" => Value::Null,
                _ => Value::Scalar(text.into_owned()),
            },
            Event::Scalar(text, style, 0, None) if is_quoted(style) => {
                Value::Scalar(text.into_owned())
            }
            Event::SequenceStart(_, 0, None) => {
                let mut list = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break Value::List(list),
                        element => list.push(self.node(element, depth + 1)?),
                    }
                }
            }
            Event::MappingStart(_, 0, None) => {
                let mut map = Vec::new();
                loop {
                    match self.next()? {
                        (Event::MappingEnd, _) => break Value::Map(map),
                        // `<<` brings in another mapping.
                        (Event::Scalar(key, style, 0, None), at)
                            if key != "<<"
                                // An absent one is shown as `~` or nothing.
                                && at.start < at.end
                                && (style == ScalarStyle::Plain || is_quoted(style)) =>
                        {
                            let value = self.next()?;
                            let key = Written { value: key.into_owned(), at };
                            map.push((key, self.node(value, depth + 1)?));
                        }
                        _ => return None,
                    }
                }
            }
            _ => return None,
        };
        Some(Node { at, value })
    }
}

fn is_quoted(style: ScalarStyle) -> bool {
    matches!(style, ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted)
}

fn span(start: Marker, end: Marker) -> Option<Span> {
    let number = |n: usize| u32::try_from(n).ok();
    let from = number(start.byte_offset()?)?;
    Some(Span {
        place: Place { line: number(start.line())?.max(1), column: number(start.col() + 1)? },
        start: from,
        end: number(end.byte_offset()?)?.max(from),
    })
}

#[cfg(test)]
mod tests {
    use super::super::yaml;
    use super::*;
    use proptest::prelude::*;

    /// Both ways give the same tree, with the same places.
    fn agrees(text: &str) -> bool {
        let Some(plain) = parse(text) else { return false };
        let whole = yaml::whole(text);
        assert_eq!(format!("{:?}", whole.as_ref().ok()), format!("{:?}", Some(&plain)), "{text}");
        true
    }

    #[test]
    fn plain_documents_are_read_as_all_of_yaml_reads_them() {
        for text in [
            "version: 1\nlinks: {eth0: }\nusers:\n  é: 5mbit # x\n  'a b': {ceil: \"1\\n\", no: [1, ~]}\n",
            "---\na:\n- b\n-\n- c: null\n  d:\n",
            "a: b\n c\n",
            "{a: 0x10, 010: 1_0, 1e3: yes}",
            "a: ''\n\"~\": NULL\n",
            "x\n...\n",
        ] {
            assert!(agrees(text), "{text}");
        }
    }

    #[test]
    fn most_examples_are_plain() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/policies");
        let examples = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let (plain, other): (Vec<_>, Vec<_>) =
            examples.partition(|path| agrees(&std::fs::read_to_string(path).unwrap()));
        assert!(plain.len() > other.len(), "{other:?}");
    }

    #[test]
    fn what_is_not_plain_or_wrong_is_left_to_the_other() {
        for text in [
            "a: &x 1\nb: *x\n",
            "a: {<<: {b: 1}}\n",
            "a: !!str 1\n",
            "? [a]\n: b\n",
            "a: |\n  text\n",
            "%YAML 1.2\n---\na: 1\n",
            "a: 1\n---\nb: 1\n",
            "a: [1\n",
            "a:\n\t- b\n",
            "\u{feff}a: 1\n",
        ] {
            assert!(parse(text).is_none(), "{text}");
        }
        assert!(parse(&"[".repeat(40)).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]
        #[test]
        fn whatever_is_taken_for_plain_is_read_alike(
            words in prop::collection::vec(
                prop::sample::select(vec![
                    "a", "b: ", "- ", "\n", "\n  ", "\n- ", "\nk: ", "{", "}", "[", "]", ", ", "\"", "'",
                    "#", " ", "~", "<<: ", "&a ", "*a", "!t ", "|\n", "1", "é", "\t", ": ", "? ", "---\n", "\r\n",
                ]),
                0..30,
            ),
        ) {
            agrees(&words.concat());
        }
    }
}

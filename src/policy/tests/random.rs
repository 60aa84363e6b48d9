//! Random texts: the tree is the one that another YAML reader makes, and each place is that of its
//! byte.

use proptest::prelude::*;
use serde_json::Value as Json;

use super::yaml::parse;
use crate::policy::node::{Node, Value};
use crate::policy::{Place, Span};

/// Without numbers and booleans (`y` is one), which the other reader does not keep as written.
const WORDS: [&str; 40] = [
    "a",
    "b: ",
    "- ",
    "\n",
    "\n  ",
    "\n- ",
    "\nk: ",
    "{",
    "}",
    "[",
    "]",
    ", ",
    "\"",
    "'",
    "#",
    " ",
    "<<: ",
    "&a ",
    "*a",
    "*a : ",
    "!t ",
    "!!str ",
    "|\n",
    ">-\n",
    "é",
    "😀",
    "\t",
    ": ",
    "? ",
    "---\n",
    "...\n",
    "null",
    "\\",
    "%YAML 1.2\n",
    "x: &a {b: c}\n",
    "z: &b [d, e]\n",
    "{<<: *a, c: f}",
    "[*b, *a]",
    "<<: *a\n",
    "<<: [*a, {g: h}]\n",
];

fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(WORDS.as_slice()), 0..14)
        .prop_map(|words| words.concat())
}

/// `None`: a key stands twice, which JSON cannot say.
fn json(node: &Node) -> Option<Json> {
    Some(match &node.value {
        Value::Null => Json::Null,
        Value::Scalar(text) => Json::String(text.clone()),
        Value::List(list) => Json::Array(list.iter().map(json).collect::<Option<_>>()?),
        Value::Map(entries) => {
            let mut map = serde_json::Map::new();
            for (key, value) in entries {
                if map.insert(key.value.clone(), json(value)?).is_some() {
                    return None;
                }
            }
            Json::Object(map)
        }
    })
}

/// Every place in a tree.
fn places(node: &Node) -> Vec<Span> {
    let mut all = vec![node.at];
    match &node.value {
        Value::Null | Value::Scalar(_) => {}
        Value::List(list) => all.extend(list.iter().flat_map(places)),
        Value::Map(map) => {
            all.extend(map.iter().flat_map(|(key, value)| {
                std::iter::once(key.at).chain(places(value)).collect::<Vec<_>>()
            }));
        }
    }
    all
}

fn place_of(byte: u32, text: &str) -> Place {
    let before = &text[..byte as usize];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Place { line: u32::try_from(line).unwrap(), column: u32::try_from(column).unwrap() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn is_read_as_by_another_reader(text in text()) {
        if let Ok(node) = parse(&text)
            && let Some(tree) = json(&node)
            && let Ok(other) = serde_yaml::from_str::<Json>(&text)
        {
            prop_assert_eq!(tree, other, "{:?}", text);
        }
    }

    #[test]
    fn each_place_is_that_of_its_byte(text in text()) {
        match parse(&text) {
            Ok(node) => {
                for at in places(&node) {
                    prop_assert_eq!(at.place, place_of(at.start, &text), "{:?}", text);
                    prop_assert!(at.start <= at.end && at.end as usize <= text.len());
                }
            }
            Err(error) => {
                let at = error.at.unwrap();
                prop_assert!(text.get(at.start as usize..at.end as usize).is_some(), "{:?}", text);
            }
        }
    }
}

//! Words that both a line and a command have.

use crate::tree::{Label, RuleProgram};

/// An ethertype as `tc` spells it.
pub(super) fn protocol(ethertype: u16) -> String {
    match ethertype {
        0x0003 => "all".to_string(),
        0x0800 => "ip".to_string(),
        0x86dd => "ipv6".to_string(),
        other => format!("{other:#06x}"),
    }
}

/// The words for a label: whose are packets that come in.
pub(super) fn label_words(label: Label) -> String {
    let owner = match label.owner {
        Some(minor) => format!("what comes in is :{minor}'s"),
        None => "what comes in is nobody's".to_string(),
    };
    let source = if label.by_source { ", or its source's" } else { "" };
    let keeps = if label.keeps { ", but what a port has labelled" } else { "" };
    owner + source + keeps
}

/// The words for a program of rules: which lines of `rules` it decides.
pub(super) fn program_words(program: &RuleProgram) -> String {
    let lines: Vec<u32> = program.rules.iter().map(|rule| rule.line.get()).collect();
    match lines[..] {
        [] => "no rule".to_string(),
        [only] => format!("rule {only}"),
        [first, .., last] => format!("{} rules, {first} to {last} of the file", lines.len()),
    }
}

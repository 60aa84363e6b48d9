//! Tests with real packets on a real kernel: the one that cargo runs on, and the lab's. One file for
//! each theme; `support` is what they are made of.

#[path = "../support/mod.rs"]
mod support;

mod agreement;
mod confirm;
mod demo;
mod host;
mod lab;
mod machinery;
mod processes;
mod random;
mod sharing;
mod textbook;
mod transitions;
mod updates;

use std::process::ExitCode;

fn main() -> ExitCode {
    support::harness::main(&[
        machinery::TESTS,
        textbook::TESTS,
        processes::TESTS,
        sharing::TESTS,
        agreement::TESTS,
        confirm::TESTS,
        transitions::TESTS,
        updates::TESTS,
        lab::TESTS,
        demo::TESTS,
    ])
}

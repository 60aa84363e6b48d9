//! Tests with real packets on a real kernel: the one that cargo runs on, and the lab's. One file for
//! each theme; `support` is what they are made of.

#[path = "../support/mod.rs"]
mod support;

mod agreement;
mod demo;
mod lab;
mod machinery;
mod processes;
mod sharing;
mod textbook;
mod updates;

use std::process::ExitCode;

fn main() -> ExitCode {
    support::harness::main(&[
        machinery::TESTS,
        textbook::TESTS,
        processes::TESTS,
        sharing::TESTS,
        agreement::TESTS,
        updates::TESTS,
        lab::TESTS,
        demo::TESTS,
    ])
}

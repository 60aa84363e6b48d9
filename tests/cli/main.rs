//! The command line as people and scripts meet it: exact standard output, standard error and exit
//! status of the real binary. Each test runs in a cell of its own (`support::cell`): it is root
//! of a machine with its own accounts, links, `/run` and `net_cls`, and leaves nothing behind.

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "the traffic tools are for tests/kernel, where dead code is seen")]
mod support;
#[path = "../offline/words.rs"]
mod words;

mod ansible;
mod attach;
mod bad_policy;
mod beside;
mod check;
mod daemon;
mod doctor;
mod dropins;
mod edit;
mod edit_daemon;
mod files;
mod first_build;
mod hostile;
mod invoke;
mod json;
mod kernel_state;
mod metrics;
mod output;
mod plan;
mod run;
mod status;
mod terminal;
mod top;
mod tour;
mod unprivileged;
mod usage;
mod why;

use std::process::ExitCode;

fn main() -> ExitCode {
    support::harness::main(&[
        check::TESTS,
        bad_policy::TESTS,
        files::TESTS,
        first_build::TESTS,
        unprivileged::TESTS,
        plan::TESTS,
        json::TESTS,
        kernel_state::TESTS,
        metrics::TESTS,
        run::TESTS,
        status::TESTS,
        top::TESTS,
        tour::TESTS,
        usage::TESTS,
        why::TESTS,
        ansible::TESTS,
        attach::TESTS,
        beside::TESTS,
        daemon::TESTS,
        doctor::TESTS,
        dropins::TESTS,
        edit::TESTS,
        edit_daemon::TESTS,
        hostile::TESTS,
        output::TESTS,
    ])
}

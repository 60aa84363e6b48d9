//! A traffic-shaping controller that links `net_cls` to `tc`: per-user bandwidth policies in, HTB
//! trees, filters and cgroup directories out. ARCHITECTURE.md says how the rooms fit; a room uses
//! only what stands above it here.
#![deny(unsafe_code)]
// A test or a bench has no outside, so this is said here and not in Cargo.toml.
#![warn(missing_docs, unreachable_pub)]
// Integers only, each rounding in a place that can be read.
#![warn(clippy::float_arithmetic)]
#![warn(clippy::too_many_lines)]
// What is printed goes through `commands::output` and the log.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod text;

pub mod units;

pub mod quota;

pub mod tree;

pub mod times;

pub mod facts;

pub mod policy;

pub mod model;

pub mod classify;

pub mod desired;

pub mod plan;

pub mod netlink;

pub mod intent;

pub mod doctor;

pub mod sys;

pub mod cgroup;

pub mod process;

pub mod accounts;

pub mod engines;

pub mod host;

pub mod sample;

pub mod ledger;

pub mod status;

pub mod failure;

pub mod apply;

pub mod daemon;

#[allow(missing_docs, reason = "what clap finds there it prints as help")]
pub mod cli;

pub mod commands;

//! A traffic-shaping controller that links `net_cls` to `tc`: per-user bandwidth policies in, HTB
//! trees, filters and cgroup directories out. ARCHITECTURE.md says how the rooms fit; a room uses
//! only what stands above it here.
#![deny(unsafe_code)]

pub mod units;

pub mod state;

pub mod model;

pub mod sys;

pub mod accounts;

pub mod cgroup;

pub mod process;

//! What the tests with real traffic are made of: a harness whose binary runs anywhere, cells that
//! vanish with their process, a world of two network namespaces, senders that are users, receivers
//! that keep time, and class counters as `tc` prints them. Nothing here uses the program's library:
//! what it says about itself is compared with what others see.

pub mod accounts;
pub mod actor;
pub mod attempt;
pub mod behind;
pub mod cell;
pub mod clock;
pub mod command;
pub mod counters;
pub mod daemon;
pub mod engine;
pub mod exchange;
pub mod fugitive;
pub mod goodput;
pub mod guest;
pub mod harness;
pub mod labels;
pub mod logins;
pub mod mptcp;
pub mod orders;
pub mod passing;
pub mod program;
pub mod random;
pub mod rates;
pub mod ring;
pub mod settings;
pub mod sink;
pub mod source;
pub mod sshd;
pub mod stranger;
pub mod timeline;
pub mod tunnel;
pub mod unit;
pub mod world;

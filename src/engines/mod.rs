//! Container engines, asked for the names and labels of their containers through their sockets. An
//! engine may take for ever to answer, so a child asks, and all of them at once.

mod http;
mod known;
mod lists;
mod question;

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::accounts::asking::Unanswered;
use crate::facts::Engine;
pub use known::Known;
pub use question::{Question, Socket};

/// A container as its engine describes it, running or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Described {
    /// Who describes it.
    pub engine: Engine,
    /// 64 hexadecimal digits.
    pub id: String,
    /// The name that people gave it, or the engine.
    pub name: Option<String>,
    /// Its labels, the image's among them.
    pub labels: BTreeMap<String, String>,
    /// Its addresses in the engine's networks, while it runs.
    pub addresses: Vec<IpAddr>,
    /// Its first process, where the engine says so.
    pub pid: Option<u32>,
}

/// What all engines of the host said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The containers of those that answered.
    pub containers: Vec<Described>,
    /// Why the others did not, a sentence each. A socket that is not there is no engine.
    pub silent: Vec<String>,
}

impl Answer {
    /// What comes of it where there is no answer at all.
    pub fn none(why: &Unanswered) -> Answer {
        let why = format!("container engines could not be asked: {why}");
        Answer { silent: vec![why], ..Answer::default() }
    }
}

//! Moving many processes: the `cgroup.procs` files that pids are written to stay open.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;

use super::directory::{Attached, PROCS, attached};
use super::error::Error;
use super::instance::Instance;
use crate::tree::Claim;

/// Open `cgroup.procs` files of claims, so that a move is one write. Only a few are open, because a
/// host may have more claims than a process may have descriptors.
#[derive(Default)]
pub struct Doors(HashMap<Claim, File>);

impl Doors {
    const MOST: usize = 64;

    /// As [`Instance::attach`].
    pub fn attach(&mut self, to: &Instance, pid: u32, claim: &Claim) -> Result<Attached, Error> {
        if !to.places() {
            return to.attach(pid, claim);
        }
        let path = to.directory(claim).join(PROCS);
        // To the kernel pid 0 is whoever writes: us.
        if pid == 0 {
            return Ok(Attached::Dead);
        }
        let refused = |source| {
            let data = pid.to_string();
            attached(Err(Error::Write { data, path: path.clone(), source }))
        };
        if !self.0.contains_key(claim) {
            if self.0.len() >= Doors::MOST {
                self.0.clear();
            }
            match OpenOptions::new().write(true).open(&path) {
                Ok(file) => self.0.insert(claim.clone(), file),
                Err(source) => return refused(source),
            };
        }
        match self.0.get(claim).map(|mut file| file.write_all(pid.to_string().as_bytes())) {
            Some(Err(source)) => {
                let outcome = refused(source);
                // A directory of this name may have been made anew.
                if matches!(outcome, Ok(Attached::NoDirectory)) && self.0.remove(claim).is_some() {
                    return to.attach(pid, claim);
                }
                outcome
            }
            _ => Ok(Attached::Moved),
        }
    }
}

//! Whether what a look at everything has seen may be another by now, found out without such a look.

use crate::cgroup;
use crate::facts::Facts;
use crate::host::Kernel;
use crate::sys::witness::Witness;

/// Hears of changes since a look.
pub(super) struct Unchanged {
    /// `None`: the kernel tells nothing, so everything may change unseen.
    witness: Option<Witness>,
    /// The instance's directories.
    directories: Vec<String>,
}

impl Unchanged {
    /// From now on hears of changes: to be called before the look.
    ///
    /// # Errors
    /// The instance's directories cannot be listed.
    pub(super) fn begin(kernel: &Kernel) -> Result<Unchanged, cgroup::Error> {
        let witness = Witness::open().inspect_err(|error| log::debug!("{error}")).ok();
        Ok(Unchanged { witness, directories: directories(kernel)? })
    }

    /// Whether nothing has changed: neither traffic control nor the names of the
    /// instance's directories. `facts`: what the look has seen.
    ///
    /// # Errors
    /// As [`Unchanged::begin`].
    pub(super) fn holds(&mut self, kernel: &Kernel, facts: &Facts) -> Result<bool, cgroup::Error> {
        let Some(witness) = &mut self.witness else { return Ok(false) };
        let Ok(told) = witness.told(kernel.netlink.port()) else { return Ok(false) };
        let gone = facts.links.values().any(|link| told.gone.contains(&link.ifindex));
        if told.lost || gone || !told.changed.is_empty() {
            return Ok(false);
        }
        Ok(directories(kernel)? == self.directories)
    }
}

fn directories(kernel: &Kernel) -> Result<Vec<String>, cgroup::Error> {
    kernel.instance().map_or(Ok(Vec::new()), |instance| instance.listing())
}

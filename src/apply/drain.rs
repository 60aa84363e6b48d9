//! The first of two looks at classes that drain.

use crate::cgroup::Locked;
use crate::failure::Failure;
use crate::host::Kernel;
use crate::host::observe::{self, Snapshot, Wanted};
use crate::tree::{Claim, KernelState, Owner};

/// The look that retired classes are compared with later
/// ([`Request::earlier`](super::Request::earlier)). A connection that was not accepted when its
/// listener's process moved still carries the old tag: all tags are written once more, which takes
/// along what has been accepted since.
///
/// # Errors
/// A tag is refused; the kernel cannot be read.
pub fn begin_to_drain(
    kernel: &mut Kernel,
    locked: &Locked,
    stands: &KernelState,
) -> Result<Snapshot, Failure> {
    for (claim, classid) in &stands.claims {
        if !matches!(claim, Claim::Retired(..) | Claim::Owner(Owner::Group(_))) {
            locked.write(claim, *classid)?;
        }
    }
    Ok(observe::observe(kernel, Wanted::default())?)
}

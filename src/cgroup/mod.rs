//! The `net_cls` hierarchy (cgroup v1, Documentation/admin-guide/cgroup-v1/net_cls.rst): where it
//! is mounted, and the directories of one instance in it, each with a classid and processes. Also
//! the instance's cgroups in cgroup v2. Touches files below the given paths, and mounts only where
//! the caller says.

mod claims;
mod condition;
mod confirmation;
mod directory;
mod doors;
mod error;
mod hierarchy;
mod instance;
mod keeper;
mod layout;
mod lock;
mod making;
mod mountinfo;
mod namespace;
mod observed;
mod policy_note;
mod removal;
mod retired;
mod said;
mod unified;

pub use claims::{CLAIMS, plain_instance};
pub use condition::Condition;
pub use directory::{Attached, make as make_directory, make_folder};
pub use doors::Doors;
pub use error::Error;
pub use hierarchy::{DEFAULT_MOUNT, Hierarchy, Provision, Unmounted, find, mount, unmount};
pub use instance::{Instance, Root};
pub use keeper::Keeping;
pub use lock::Locked;
pub use mountinfo::{Mount, net_cls_mount, parse_mountinfo};
pub use namespace::named_after;
pub use policy_note::PolicyNote;
pub use unified::{PinnedCgroup, TRIES, Unified, number as cgroup_number};

//! The class of what a socket sends, as the deciding program finds it.

use std::collections::BTreeMap;
use std::io;

use log::debug;

use super::error::ObserveError;
use crate::cgroup::Unified;
use crate::host::Kernel;
use crate::netlink::inet_diag::BoundSocket;
use crate::sys::bpf::Maps;
use crate::tree::Turn;
use crate::units::ClassId;

/// The classes of a cgroup's sockets, at each turn.
#[derive(Clone, Copy, Default)]
struct OfCgroup {
    first: Option<ClassId>,
    after_owner: Option<ClassId>,
}

/// Classes by owner, tag and cgroup (v2), each asked for once.
#[derive(Default)]
pub(super) struct Classes {
    known: BTreeMap<(u32, ClassId), ClassId>,
    /// Whether tags count here, once that was asked.
    by_tags: Option<bool>,
    /// The classes of cgroups that have one, by number, once they were asked for.
    by_cgroup: Option<BTreeMap<u64, OfCgroup>>,
}

impl Classes {
    /// The class of what the socket sends; [`ClassId::NONE`]: nobody's.
    pub(super) fn of(
        &mut self,
        kernel: &Kernel,
        socket: &BoundSocket,
    ) -> Result<ClassId, ObserveError> {
        // Without a tag the kernel tells the priority, which root alone sets above 6.
        let by_tags = *self.by_tags.get_or_insert_with(|| kernel.places());
        let tag = socket.tag.filter(|_| by_tags).and_then(ClassId::our_class);
        let tag = tag.unwrap_or(ClassId::NONE);
        // Where nothing asks for owners (`cls_cgroup`), the tag decides.
        let Some(maps) = &kernel.owners else { return Ok(tag) };
        let by_cgroup = match &mut self.by_cgroup {
            Some(known) => known,
            unknown => unknown.insert(cgroups(maps).map_err(read)?),
        };
        let cgroup = socket.cgroup.and_then(|id| by_cgroup.get(&id)).copied().unwrap_or_default();
        if let Some(class) = cgroup.first {
            return Ok(class);
        }
        // As in `class_of_owner` of the program: root's line comes last.
        if let (0, Some(class)) = (socket.uid, cgroup.after_owner) {
            return Ok(class);
        }
        let key = (socket.uid, tag);
        let class = match self.known.get(&key) {
            Some(class) => *class,
            None => {
                let class = maps.class_of(socket.uid, tag).map_err(read)?;
                self.known.insert(key, class);
                class
            }
        };
        Ok(match (class, cgroup.after_owner) {
            (ClassId::NONE, Some(class)) => class,
            _ => class,
        })
    }
}

fn read(source: io::Error) -> ObserveError {
    ObserveError::Read { path: "BPF maps".to_string(), source }
}

/// The classes of all cgroups that have one of their own, or are below one that has.
fn cgroups(maps: &Maps) -> io::Result<BTreeMap<u64, OfCgroup>> {
    let given = maps.cgroups()?;
    if given.is_empty() {
        return Ok(BTreeMap::new());
    }
    let all = match Unified::find() {
        Ok(Ok(unified)) => unified.all(u8::MAX),
        other => {
            debug!("cgroups of sockets: {other:?}");
            return Ok(BTreeMap::new());
        }
    };
    let mut found: BTreeMap<u64, OfCgroup> = BTreeMap::new();
    // Those above come first.
    for (cgroup, above) in all {
        let mut classes = above.and_then(|id| found.get(&id)).copied().unwrap_or_default();
        let own = |turn| given.get(&(cgroup, turn)).copied();
        classes.first = own(Turn::First).or(classes.first);
        classes.after_owner = own(Turn::AfterOwner).or(classes.after_owner);
        if classes.first.or(classes.after_owner).is_some() {
            found.insert(cgroup.id, classes);
        }
    }
    Ok(found)
}

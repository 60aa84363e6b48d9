//! Handles to the running kernel that `observe` and `execute` share: the netlink socket, the
//! `net_cls` hierarchy, `/proc`, and which instance of the program this is. Opening them asks and
//! changes nothing, but for mounting the hierarchy when told to.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::made::Made;
use crate::cgroup::{self, DEFAULT_MOUNT, Hierarchy, Instance, Locked, Root, plain_instance};
use crate::facts::Accounts;
use crate::model::Matcher;
use crate::netlink::inet_diag::Transport;
use crate::plan::{Paths, Place};
use crate::process::{self, Decision, InstanceView, Process, Reason};
use crate::sys::bpf::{Flows, Maps, RuleMaps, ServerMap};
use crate::sys::netns::{self, NetnsError, Target};
use crate::sys::route::{Netlink, SocketError};
use crate::tree::{Claim, Family, Mark, NetCls, RuleMapIds};
use crate::units::{ClassId, Psched};

/// The default name of the instance that shapes the host.
const HOSTS: &str = "shaper";

/// One instance's view of the running kernel, in this thread's network namespace.
pub struct Kernel {
    /// The socket for traffic control, of this thread's network namespace.
    pub netlink: Netlink,
    /// The instance's name: its directory in the hierarchy.
    pub name: String,
    /// The mark of this instance's root qdiscs.
    pub mark: Mark,
    /// Inode of the network namespace.
    pub netns: u64,
    /// That of process 1; `None`: it may not be read.
    host: Option<u64>,
    /// The network namespace's number in eBPF.
    pub netns_cookie: Option<u64>,
    /// `/proc`, or a test's folder.
    pub proc_root: PathBuf,
    /// The maps that the deciding programs read, once they were made or opened.
    pub owners: Option<Maps>,
    /// The maps of the programs of rules that stand, once they were made or opened.
    pub rules: BTreeMap<RuleMapIds, RuleMaps>,
    /// The maps of flows that are in use, by number, once they were made or opened.
    pub flows: BTreeMap<u32, Flows>,
    /// What runs have made since the last look.
    pub made: Made,
    /// The map of bound sockets, once it was made or opened.
    pub servers: Option<ServerMap>,
    /// The socket that has listed sockets, for the next such list.
    pub of_sockets: Option<Netlink>,
    /// Lists of sockets that this kernel lacks: asking would have it look for a module each time.
    pub unlisted: BTreeSet<(Family, Transport)>,
    /// Whether the kernel would load nftables' module if it were asked what it has; `None`: nobody
    /// has looked yet. The lists that say so are long, and do not change.
    pub would_load_nftables: Option<bool>,
    hierarchy: Option<Hierarchy>,
    /// Where an instance is made that stands nowhere yet.
    root: Root,
    /// Where the links are, for whoever asked.
    place: Place,
}

/// The kernel cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The netlink socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The hierarchy exists and cannot be used.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    /// `/proc/thread-self/ns/net` cannot be read.
    #[error("cannot tell which network namespace this is: {0}")]
    Namespace(#[source] io::Error),
    /// The namespace that was asked for cannot be entered.
    #[error(transparent)]
    Enter(#[from] NetnsError),
}

impl Kernel {
    /// Opens the handles in this thread's network namespace. `name` is the instance's; left out it
    /// is `shaper` on the host, and `shaper-<inode>` in any other network namespace: the hierarchy
    /// is one for all of them, so their directories must differ.
    pub fn open(name: Option<&str>) -> Result<Kernel, OpenError> {
        let netns = netns::current().map_err(OpenError::Namespace)?;
        let host = std::fs::metadata("/proc/1/ns/net").map(|meta| meta.ino()).ok();
        let hierarchy = cgroup::find()?;
        let name = match (name, host) {
            (Some(name), _) => name.to_string(),
            (None, Some(host)) if host == netns => HOSTS.to_string(),
            // A process that may not read the namespace of process 1 either is not root, and
            // changes nothing, or is root without CAP_SYS_PTRACE, and cannot know whether this is
            // the host. The host's instance says which namespace that shapes.
            (None, None) if !nix::unistd::geteuid().is_root() => {
                let there = hierarchy.as_ref().map(|it| it.instance(HOSTS));
                let standing = Instance::standing(there, plain_instance(HOSTS));
                match standing.is_some_and(|it| it.shapes_another(netns)) {
                    true => cgroup::named_after(netns),
                    false => HOSTS.to_string(),
                }
            }
            (None, _) => cgroup::named_after(netns),
        };
        Ok(Kernel {
            netlink: Netlink::open()?,
            mark: Mark::for_instance(&name),
            name,
            netns,
            host,
            netns_cookie: netns::cookie().map_err(OpenError::Namespace)?,
            proc_root: PathBuf::from("/proc"),
            owners: None,
            rules: BTreeMap::new(),
            flows: BTreeMap::new(),
            made: Made::default(),
            servers: None,
            of_sockets: None,
            would_load_nftables: None,
            unlisted: BTreeSet::new(),
            hierarchy,
            root: Root::NetCls,
            place: Place::Here,
        })
    }

    /// Enters a network namespace and opens the handles there.
    pub fn open_at(netns: Option<&Target>, name: Option<&str>) -> Result<Kernel, OpenError> {
        let Some(target) = netns else { return Kernel::open(name) };
        target.enter()?;
        let inode = netns::current().map_err(OpenError::Namespace)?;
        let name = name.map_or_else(|| format!("shaper-{inode}"), str::to_string);
        let place = Place::new(target.name(), target.path());
        Ok(Kernel { place, ..Kernel::open(Some(&name))? })
    }

    /// The same instance once more, by handles of its own.
    pub fn again(&self) -> Result<Kernel, OpenError> {
        Ok(Kernel { place: self.place.clone(), ..Kernel::open(Some(&self.name))? })
    }

    /// Where we mount the hierarchy when it is mounted nowhere.
    pub fn own_mount() -> &'static Path {
        Path::new(DEFAULT_MOUNT)
    }

    /// Looks again where the hierarchy is mounted, since somebody may have unmounted it.
    pub fn look_for_hierarchy(&mut self) -> Result<(), cgroup::Error> {
        self.hierarchy = cgroup::find()?;
        Ok(())
    }

    /// Where `net_cls` is mounted; `None`: nowhere that can be seen.
    pub fn hierarchy(&self) -> Option<&Hierarchy> {
        self.hierarchy.as_ref()
    }

    /// The instance where it stands, and else where it would be made; `None`: the hierarchy in
    /// which it would be is mounted nowhere.
    pub fn instance(&self) -> Option<Instance> {
        let standing = Instance::standing(self.at(Root::NetCls), plain_instance(&self.name));
        standing.or_else(|| self.at(self.root))
    }

    /// The instance at one of its two places, whether or not it stands there; `None`: the hierarchy
    /// is mounted nowhere.
    pub fn at(&self, root: Root) -> Option<Instance> {
        match root {
            Root::NetCls => self.hierarchy.as_ref().map(|it| it.instance(&self.name)),
            Root::Plain => Some(plain_instance(&self.name)),
        }
    }

    /// What the instance has at its other place, where a move was cut short or is not confirmed.
    pub fn left(&self) -> Option<Instance> {
        let other = match self.instance()?.kind() {
            Root::NetCls => Root::Plain,
            Root::Plain => Root::NetCls,
        };
        self.at(other).filter(|it| it.root().is_dir())
    }

    /// Chooses where the instance is made, and mounts the hierarchy where that is there; whether it
    /// had to.
    ///
    /// # Errors
    /// The hierarchy cannot be mounted.
    pub fn make_room(&mut self, root: Root) -> Result<bool, cgroup::Error> {
        self.root = root;
        match root {
            Root::NetCls => self.mount(),
            Root::Plain => Ok(false),
        }
    }

    /// What the instance is called where something of it outlives this boot: the number of a
    /// namespace does not, its name does.
    pub fn lasting_name(&self) -> String {
        let base = if self.name == cgroup::named_after(self.netns) { "shaper" } else { &self.name };
        match &self.place {
            Place::Named(name) => format!("{base}@{name}"),
            Place::Here | Place::At(_) => self.name.clone(),
        }
    }

    /// Whether its name is the number of a namespace, which another one has after it.
    pub fn is_fleeting(&self) -> bool {
        !matches!(self.place, Place::Named(_)) && self.name == cgroup::named_after(self.netns)
    }

    /// Whether processes are placed, and sockets have tags of ours.
    pub fn places(&self) -> bool {
        self.instance().is_none_or(|it| it.places())
    }

    /// Locks the instance, whose directory is made if it is missing.
    ///
    /// # Errors
    /// The hierarchy is mounted nowhere; another run holds the lock for longer than `wait`.
    pub fn lock(&self, wait: Duration) -> Result<Locked, cgroup::Error> {
        self.instance().ok_or(cgroup::Error::NotMounted)?.lock(wait)
    }

    /// Whether the hierarchy is mounted, and by whom.
    pub fn net_cls(&self) -> NetCls {
        match &self.hierarchy {
            None => NetCls::Unmounted,
            Some(hierarchy) if hierarchy.path == Self::own_mount() => NetCls::Ours,
            Some(_) => NetCls::Host,
        }
    }

    /// Mounts the hierarchy at our own place if it is mounted nowhere; whether it had to.
    pub fn mount(&mut self) -> Result<bool, cgroup::Error> {
        if self.hierarchy.is_some() {
            return Ok(false);
        }
        self.hierarchy = Some(cgroup::mount(Self::own_mount())?);
        Ok(true)
    }

    /// Whether the hierarchy has no directories. A new mount shows those that were there when the
    /// last one ended.
    pub fn is_empty_hierarchy(&self) -> bool {
        self.hierarchy.as_ref().is_some_and(Hierarchy::is_empty)
    }

    /// Unmounts the hierarchy if it is ours and nobody uses it.
    pub fn unmount(&mut self) -> Result<(), cgroup::Error> {
        if cgroup::unmount(Self::own_mount())? == cgroup::Unmounted::Done {
            self.hierarchy = None;
        }
        Ok(())
    }

    /// The paths and numbers that printed commands name.
    pub fn paths(&self, psched: Psched) -> Paths {
        let mount = match &self.hierarchy {
            Some(hierarchy) => hierarchy.path.clone(),
            None => Self::own_mount().to_path_buf(),
        };
        let instance =
            self.instance().map_or_else(|| mount.join(&self.name), |it| it.root().into());
        let place = self.place.clone();
        Paths { instance, mount, mark: self.mark, psched, place }
    }

    /// What placement must know of the instance.
    ///
    /// # Errors
    /// The other instances cannot be listed.
    pub fn view(&self) -> Result<InstanceView, cgroup::Error> {
        let hierarchies = self.hierarchy.iter().cloned().chain([Hierarchy::plain()]);
        let others = hierarchies.map(|it| it.other_instances(&self.name));
        let others: Result<Vec<_>, _> = others.collect();
        Ok(InstanceView {
            name: self.name.clone(),
            netns: self.netns,
            host: self.host,
            others: others?.into_iter().flatten().collect(),
            places: self.places(),
        })
    }

    /// Decides about a process as [`process::decide`], and also checks that a namespace that
    /// another instance noted was made by root: the inode's number is free again once its namespace
    /// is gone, and a user could make namespaces until one has that number, to be left alone.
    pub fn decide(
        &self,
        process: &Process,
        matcher: &Matcher,
        accounts: &Accounts,
        view: &InstanceView,
    ) -> Decision {
        let decision = process::decide(process, matcher, accounts, view);
        let theirs = |netns: u64| {
            let path = self.proc_root.join(format!("{}/ns/net", process.pid));
            !view.others.contains_key(&netns) || netns::is_made_by_root(&path).unwrap_or(true)
        };
        let decision = match (&decision, process.netns) {
            (Decision::Leave(Reason::OtherInstance { .. }) | Decision::TakeOut, Some(netns))
                if !theirs(netns) =>
            {
                process::decide(process, matcher, accounts, &view.alone())
            }
            _ => decision,
        };
        if let Some((uid, claim)) = pair(process, matcher, accounts, view, &decision) {
            self.give(uid, &claim);
        }
        decision
    }

    /// What [`Kernel::decide`] gives for these processes, as far as the directories are there.
    ///
    /// # Errors
    /// The other instances cannot be listed.
    pub fn given(
        &self,
        processes: &[Process],
        matcher: &Matcher,
        accounts: &Accounts,
    ) -> Result<BTreeSet<(u32, ClassId)>, cgroup::Error> {
        let view = self.view()?;
        let decide = |process| process::decide(process, matcher, accounts, &view);
        let given = |process| pair(process, matcher, accounts, &view, &decide(process));
        let with_class = |(uid, claim)| self.class_given(uid, &claim).map(|class| (uid, class));
        Ok(processes.iter().filter_map(given).filter_map(with_class).collect())
    }

    /// The class that a uid may be given by this claim. For a claim without a directory the caller
    /// asks again later.
    fn class_given(&self, uid: u32, claim: &Claim) -> Option<ClassId> {
        let classid = self.instance().filter(Instance::places)?.classid(claim).ok()?;
        (uid != 0 && classid != ClassId::NONE).then_some(classid)
    }

    /// Gives the pair (uid, the claim's tag): from now on packets of the uid's sockets with this
    /// tag are in the claim's class, although another line claims the uid, because a process of his
    /// was put there on purpose. Root's packets go by their tag anyway, and with `cls_cgroup`
    /// everybody's do.
    pub fn give(&self, uid: u32, claim: &Claim) {
        if let Some(maps) = &self.owners
            && let Some(classid) = self.class_given(uid, claim)
            && let Err(error) = maps.give(uid, classid)
        {
            log::warn!("what uid {uid} sends from {claim} counts as its own: {error}");
        }
    }

    /// The opposite of [`Kernel::give`].
    pub fn take_back(&self, uid: u32, claim: &Claim) {
        let (Some(maps), Some(instance)) = (&self.owners, self.instance()) else { return };
        if let Ok(classid) = instance.classid(claim)
            && let Err(error) = maps.take_back(uid, classid)
        {
            log::warn!("uid {uid} is still given {claim}: {error}");
        }
    }
}

/// The uid that is given a claim's class because of this process: see [`process::given`].
fn pair(
    process: &Process,
    matcher: &Matcher,
    accounts: &Accounts,
    view: &InstanceView,
    decision: &Decision,
) -> Option<(u32, Claim)> {
    let claim = process::given(process, matcher, accounts, view, decision)?;
    let uid = match claim {
        Claim::Pinned(_) => process.uid,
        _ => process::counts_as(process, matcher).0,
    };
    Some((uid, claim))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opened_again_an_instance_has_the_name_of_its_namespace() {
        let here = Kernel::open(None).expect("the kernel is asked");
        assert_eq!(here.again().expect("again").lasting_name(), here.lasting_name());
        let kernel = Kernel { place: Place::Named("blue".to_string()), ..here };
        assert!(kernel.lasting_name().ends_with("@blue"));
        assert_eq!(kernel.again().expect("again").lasting_name(), kernel.lasting_name());
    }
}

//! Steps about what arrives: the ifbs, and the programs that lead packets to them and tell whose
//! they are.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use log::debug;

use super::failed::Cause;
use super::servers;
use crate::facts::Facts;
use crate::host::Kernel;
use crate::netlink::Request;
use crate::netlink::decode;
use crate::netlink::extack::KernelError;
use crate::netlink::flow_name::{Finds, Reads, Redirects};
use crate::netlink::request::filter::{self, Loaded};
use crate::netlink::request::{dump, hook, ifb};
use crate::plan::{Change, InPlace, LEARNT};
use crate::sys::bpf::{Flows, Maps, Pulse};
use crate::tree::{Filter, Ifb, LinkName, Port, Pref, Seat, Tag};

/// How long packets that wait on ifbs may take to leave them before they go: on all that go in one
/// run together, since nothing is redirected to any of them by then.
const DRAINED: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_millis(10);

/// What is there for packets that arrive; what was made since the look is in [`Kernel`].
pub(super) struct Arriving {
    /// The ifindexes of ifbs, by name.
    ifbs: BTreeMap<LinkName, u32>,
    /// The numbers of the maps of flows that stand, by link.
    flows: BTreeMap<LinkName, u32>,
    /// Programs, open until the messages that hand them over are sent.
    files: Vec<OwnedFd>,
    /// Until when packets that wait on ifbs may leave them.
    drained_by: Option<Instant>,
}

/// The pause in which flows are learnt ([`crate::plan::Step::Learn`]); `gate` can end it.
pub(super) fn learn(mut gate: impl FnMut() -> Result<(), Cause>) -> Result<(), Cause> {
    let began = Instant::now();
    while let Some(left) = LEARNT.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) {
        gate()?;
        thread::sleep(left.min(AGAIN));
    }
    Ok(())
}

/// The kernel answered what cannot be the answer.
fn missing(what: &'static str) -> Cause {
    Cause::Bpf(io::Error::other(what))
}

impl Arriving {
    /// What stands.
    pub(super) fn new(facts: &Facts) -> Arriving {
        let (ifbs, flows) = (facts.ifbs.clone(), facts.flows.clone());
        Arriving { ifbs, flows, files: Vec::new(), drained_by: None }
    }

    /// The ifindex of an ifb.
    pub(super) fn ifb(&self, kernel: &Kernel, name: &LinkName) -> Option<u32> {
        kernel.made.ifbs.get(name).or(self.ifbs.get(name)).copied()
    }

    /// Makes an ifb, switches it on, or deletes it. It carries the mark before anything is on it,
    /// so that whoever comes after a kill knows whose it is.
    pub(super) fn change(
        &self,
        kernel: &mut Kernel,
        name: &LinkName,
        change: &InPlace<Ifb>,
    ) -> Result<(), Cause> {
        let done = |kernel: &mut Kernel, request: &Request| -> Result<(), Cause> {
            kernel.netlink.change(request)?.map(|_| ()).map_err(Cause::Kernel)
        };
        match change {
            Change::Add(_) => {
                done(kernel, &ifb::add(name))?;
                let question = dump::link_named(name.as_str());
                let device = kernel.netlink.get(&question, decode::link)?;
                let device = device.map_err(Cause::Kernel)?.ok_or(Cause::LinkGone)?;
                let marked = done(kernel, &ifb::mark(device.ifindex, kernel.mark));
                if let Err(error) = marked {
                    // Nobody would know it as ours.
                    done(kernel, &ifb::delete(device.ifindex))?;
                    return Err(error);
                }
                if let Err(KernelError { message, .. }) =
                    kernel.netlink.change(&ifb::without_address(device.ifindex))?
                {
                    debug!("{name} may get an IPv6 address: {message:?}");
                }
                kernel.made.ifbs.insert(name.clone(), device.ifindex);
                done(kernel, &ifb::up(device.ifindex))
            }
            Change::Alter { .. } => {
                let ifindex = self.ifb(kernel, name).ok_or(Cause::LinkGone)?;
                done(kernel, &ifb::up(ifindex))
            }
            Change::Replace { below, .. } => match *below {},
            Change::Remove(_) => {
                let ifindex = self.ifb(kernel, name).ok_or(Cause::LinkGone)?;
                done(kernel, &ifb::delete(ifindex))
            }
        }
    }

    /// Waits until no packet is left on an ifb to which nothing is redirected any more: they would
    /// go with its root qdisc.
    pub(super) fn drain(&mut self, kernel: &mut Kernel, ifindex: u32) -> Result<(), Cause> {
        let until = *self.drained_by.get_or_insert_with(|| Instant::now() + DRAINED);
        while Instant::now() < until {
            let question = crate::netlink::request::root::get(ifindex);
            let root = kernel.netlink.get(&question, decode::qdisc)?.ok().flatten();
            match root.map(|root| root.counters.backlog_packets) {
                None | Some(0) => return Ok(()),
                Some(_) => thread::sleep(AGAIN),
            }
        }
        Ok(())
    }

    /// The message that adds such a filter, its program loaded, at a seat of the device with this
    /// ifindex; `None`: another kind of filter.
    pub(super) fn filter(
        &mut self,
        kernel: &mut Kernel,
        port: &Port,
        (Seat { parent, pref }, ifindex): (Seat, u32),
        filter: &Filter,
    ) -> Result<Option<Request>, Cause> {
        Ok(match filter {
            Filter::Learn(tag) => Some(self.learn(kernel, &port.link, (ifindex, pref), *tag)?),
            Filter::Find { shards, for_rules } => {
                servers::open(kernel).map_err(Cause::Bpf)?;
                let flows = self.flows(kernel, &port.link)?;
                let servers = kernel.servers.as_ref();
                let servers = servers.ok_or_else(|| missing("no map of bound sockets is open"))?;
                let file = flows.load_find((*shards, *for_rules), servers).map_err(Cause::Bpf)?;
                let finds = Finds { flows: flows.id(), servers: servers.id() };
                let loaded = Loaded::finding((*shards, *for_rules), finds, file.as_fd());
                let request = filter::add_bpf(ifindex, parent.classid(), pref, loaded);
                self.files.push(file);
                Some(request)
            }
            Filter::Pulse => {
                let pulse = Pulse::create().map_err(Cause::Bpf)?;
                let file = pulse.load_pulse().map_err(Cause::Bpf)?;
                let loaded = Loaded::pulsing(pulse.id(), file.as_fd());
                let request = filter::add_bpf(ifindex, parent.classid(), pref, loaded);
                self.files.push(file);
                kernel.made.pulses.insert(port.link.clone(), pulse);
                Some(request)
            }
            Filter::Redirect => {
                let ifb = self.ifb(kernel, &port.device()).ok_or(Cause::LinkGone)?;
                // It is never made without the other filter that uses the map.
                let pulse = kernel.made.pulses.get(&port.link);
                let pulse = pulse.ok_or_else(|| missing("nothing notes what comes to the ifb"))?;
                let file = pulse.load_redirect(ifb).map_err(Cause::Bpf)?;
                let redirects = Redirects { ifb, pulse: pulse.id() };
                let loaded = Loaded::redirecting(kernel.mark, redirects, file.as_fd());
                let request = hook::add_redirect(ifindex, pref, loaded, ifb);
                self.files.push(file);
                Some(request)
            }
            _ => None,
        })
    }

    /// With the map of flows that stands; with a new one where that is not open, which what finds
    /// them reads from then on.
    fn learn(
        &mut self,
        kernel: &mut Kernel,
        link: &LinkName,
        (ifindex, pref): (u32, Pref),
        tag: Tag,
    ) -> Result<Request, Cause> {
        if self.flows(kernel, link).is_err() {
            let new = Flows::create().map_err(Cause::Bpf)?;
            kernel.made.flows.insert(link.clone(), new.id());
            kernel.flows.insert(new.id(), new);
        }
        let flows = self.flows(kernel, link)?;
        let owners = match tag {
            Tag::Bpf(_) => {
                let owners = kernel.owners.as_ref();
                Some(owners.ok_or_else(|| missing("the maps that it reads are not open"))?)
            }
            Tag::Cgroup => None,
        };
        let file = flows.load_learn(tag, owners).map_err(Cause::Bpf)?;
        let reads = Reads { flows: flows.id(), owners: owners.map(Maps::ids) };
        let loaded = Loaded::learning(tag, kernel.mark, reads, file.as_fd());
        let request = hook::add_egress(ifindex, pref, loaded);
        self.files.push(file);
        Ok(request)
    }

    /// The map that the link's programs use.
    fn flows<'k>(&self, kernel: &'k Kernel, link: &LinkName) -> Result<&'k Flows, Cause> {
        let id = kernel.made.flows.get(link).or(self.flows.get(link));
        let flows = id.and_then(|id| kernel.flows.get(id));
        flows.ok_or_else(|| missing("the map of flows is not open"))
    }

    /// The messages are sent: the filters keep their programs, and those their maps.
    pub(super) fn sent(&mut self) {
        self.files.clear();
    }
}

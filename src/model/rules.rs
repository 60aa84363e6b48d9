//! `rules`: their lists are multiplied out, their targets are found, and a rule that no packet
//! could match is refused. Touches nothing.

use std::collections::HashMap;
use std::num::NonZeroU32;

use ipnet::IpNet;

use crate::facts::Facts;
use crate::policy::{
    Diagnostic, Field, Findings, Kind, Networks, Policy, RuleLine, Span, Written, closest, quote,
};
use crate::tree::{Bits, Classifier, Family, LinkName, Match, Owner, Packets, Reserved};

use super::positions::{LinkAt, Per};
use super::senders::Senders;
use super::shaped::Links;
use super::{Rule, Target, sets};

/// The most matches of one link and IP version. Each takes from half a kilobyte to some kilobytes
/// of the kernel's memory, growing with the number of processors (CONFIG_CLS_U32_PERF counts on
/// each).
const MOST_MATCHES: usize = 50_000;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;

/// The most ranges that the eBPF program of one link, and one rule in it, may compare with: the
/// kernel's verifier looks at up to a million instructions, and a jump passes over at most 32,767.
const MOST_RANGES: usize = 4_000;
const MOST_RANGES_OF_A_RULE: usize = 1_000;
/// The most rules in such a program: of each the verifier leaves a branch for later, 8,192 at the
/// most.
const MOST_PROGRAM_RULES: usize = 1_000;

pub(super) fn resolve(
    senders: &Senders<'_>,
    links: &Links<'_>,
    findings: &mut Findings,
) -> Vec<Rule> {
    let policy = senders.policy;
    let targets = Targets::new(policy);
    let mut room = Room::new(links);
    let mut rules = Vec::with_capacity(policy.rules.len());
    for (line, number) in policy.rules.iter().zip((1..).filter_map(NonZeroU32::new)) {
        let to = findings.need(targets.find(&line.to.value), || targets.unknown(&line.to));
        let here: Option<Vec<LinkAt>> = match &line.link {
            None => Some(links.shaped.pairs().map(|(link, _)| link).collect()),
            Some(name) => findings.take(links.find(name)),
        };
        let from = senders.find(&line.from, findings);
        let (Some(to), Some(here)) = (to, here) else { continue };
        let mut rule = Rule {
            line: number,
            matches: Vec::new(),
            packets: sets::packets(line, has_ports(line).then_some(&[TCP, UDP])),
            from,
            to,
            links: None,
            at: line.at,
        };
        if rule.needs_program()
            && let Err(problem) = can_have_program(line, &here, links, senders.facts)
        {
            findings.push(problem);
            continue;
        }
        if rule.packets.vlan.is_some() {
            no_tags_there(line, &here, links, findings);
        }
        let (in_program, in_u32): (Vec<LinkAt>, Vec<LinkAt>) =
            here.iter().partition(|link| rule.needs_program() || room.has_program(**link));
        if findings.take(check(line)).is_none() {
            continue;
        }
        // Offline it may be that no link is known, and then the matches are made all the same.
        if (!in_u32.is_empty() || in_program.is_empty()) && !rule.needs_program() {
            match findings.take(expand(line)) {
                Some(matches) => rule.matches = matches,
                None => continue,
            }
        }
        if rule.to == Target::Unshaped {
            ssh_is_exempt(line, findings);
        }
        // The rule's link is in the file, but not on this host.
        if line.link.is_some() && here.is_empty() {
            continue;
        }
        if let Some(problem) = room.take(&rule, line.at, &in_u32, &in_program) {
            findings.push(problem);
        }
        let name = |link: &LinkAt| links.shaped[*link].link.port.link.clone();
        rule.links = line.link.as_ref().map(|_| {
            let mut names: Vec<LinkName> = here.iter().map(name).collect();
            // Both directions have the name, one behind the other.
            names.dedup();
            names
        });
        rules.push(rule);
    }
    rules
}

/// A warning where a rule asks for VLAN tags on a link whose packets have none.
fn no_tags_there(line: &RuleLine, here: &[LinkAt], links: &Links<'_>, findings: &mut Findings) {
    let Some(link) = without_tags(line, here, links) else { return };
    let at = line.vlan.values.first().map_or(line.at, |id| id.at);
    findings.push(
        Diagnostic::warning(
            Kind::Rule,
            at,
            format!("no packet on {link} has a VLAN tag: it is no Ethernet"),
        )
        .help("name the Ethernet link that the VLAN is on, or leave `vlan` out"),
    );
}

/// A warning where a rule sends ssh's port past the limits.
fn ssh_is_exempt(line: &RuleLine, findings: &mut Findings) {
    let Some(field) = [&line.sport, &line.dport].into_iter().find(|f| sets::has(f, 22)) else {
        return;
    };
    let at = field.values.first().map_or(line.at, |port| port.at);
    findings.push(
        Diagnostic::warning(Kind::Rule, at, "port 22 to `unshaped` exempts every scp, sftp and rsync over ssh")
            .help("logins stay quick in their own classes: leave the rule out, or send it to a class with `prio: 0`"),
    );
}

/// What the rules so far take on one link.
#[derive(Default)]
struct Taken {
    /// The number of u32 matches of each IP version.
    v4: usize,
    v6: usize,
    program: Option<Program>,
}

/// How much of what each link can have the rules so far take.
struct Room {
    links: Per<LinkAt, Taken>,
    /// Whether it was said that a link can have no more rules: once is enough.
    full: bool,
}

impl Room {
    fn new(links: &Links<'_>) -> Room {
        Room { links: links.shaped.along(|_, _| Taken::default()), full: false }
    }

    /// Whether the link has an eBPF program already: then all further rules go into it.
    fn has_program(&self, link: LinkAt) -> bool {
        self.links[link].program.is_some()
    }

    /// Adds what a rule needs on these links; an error the first time that it is too much.
    fn take(
        &mut self,
        rule: &Rule,
        at: Span,
        in_u32: &[LinkAt],
        in_program: &[LinkAt],
    ) -> Option<Diagnostic> {
        let mut problem = None;
        let new =
            |family| rule.matches.iter().filter(|m| m.family().is_none_or(|f| f == family)).count();
        let (v4, v6) = (new(Family::V4), new(Family::V6));
        for &link in in_u32 {
            let taken = &mut self.links[link];
            taken.v4 += v4;
            taken.v6 += v6;
            let most = taken.v4.max(taken.v6);
            if most > MOST_MATCHES && !std::mem::replace(&mut self.full, true) {
                problem = Some(too_many(at, most));
            }
        }
        for &link in in_program {
            let program = self.links[link].program.get_or_insert_default();
            if !program.take(rule) && !std::mem::replace(&mut self.full, true) {
                problem = Some(program.too_long(at));
            }
        }
        problem
    }
}

/// The size of a link's eBPF program so far.
#[derive(Default)]
struct Program {
    rules: usize,
    ranges: usize,
}

impl Program {
    /// Adds one more rule; whether the program may be that large.
    fn take(&mut self, rule: &Rule) -> bool {
        let senders = rule.from.as_ref().map_or(0, |from| from.owners.len());
        let ranges = rule.packets.ranges() + senders;
        self.rules += 1;
        self.ranges += ranges;
        ranges <= MOST_RANGES_OF_A_RULE
            && self.ranges <= MOST_RANGES
            && self.rules <= MOST_PROGRAM_RULES
    }

    fn too_long(&self, at: Span) -> Diagnostic {
        let Program { rules, ranges } = self;
        Diagnostic::error(
            Kind::Rule,
            at,
            format!("from the first rule with `from` or `vlan` on, {rules} rules with {ranges} ranges are too many for one eBPF program"),
        )
        .label("with this rule")
        .help(format!("{MOST_PROGRAM_RULES} rules and {MOST_RANGES} ranges are possible, {MOST_RANGES_OF_A_RULE} in one rule; put rules without `from` and `vlan` before those with them"))
    }
}

/// Whether what such a rule asks can be found out on its links.
fn can_have_program(
    line: &RuleLine,
    here: &[LinkAt],
    links: &Links<'_>,
    facts: &Facts,
) -> Result<(), Diagnostic> {
    let from = line.from.values.first().map(|name| name.at);
    let (key, at) = match (from, line.vlan.values.first()) {
        (Some(at), _) => ("from", at),
        (None, id) => ("vlan", id.map_or(line.at, |id| id.at)),
    };
    let classifiers = &facts.features.classifiers;
    // No classifier is known where the kernel was not asked.
    if !classifiers.is_empty() && !facts.features.has_programs() {
        return Err(Diagnostic::error(
            Kind::Rule,
            at,
            format!("`{key}` needs eBPF, which this kernel, or this process's capabilities (CAP_BPF), do not allow"),
        )
        .help(format!("leave `{key}` out, or install a kernel with `cls_bpf` and bpf(2)")));
    }
    let by_tag = here.iter().map(|link| &links.shaped[*link]);
    let by_tag = by_tag.into_iter().find(|it| it.link.classifier == Some(Classifier::Cgroup));
    match (from, by_tag) {
        (Some(at), Some(shaped)) => {
            let (link, written) = (&shaped.link.port.link, shaped.line.name.at);
            Err(Diagnostic::error(
                Kind::Rule,
                at,
                format!("{link} has `classifier: cgroup`, which does not ask whose a packet is"),
            )
            .also(written, "this link")
            .help("write `classifier: auto` there, or give the rule the `link` that it is for"))
        }
        _ => Ok(()),
    }
}

/// A link that the rule names, and whose packets have no VLAN tags.
fn without_tags<'a>(
    line: &RuleLine,
    here: &[LinkAt],
    links: &'a Links<'_>,
) -> Option<&'a LinkName> {
    line.link.as_ref()?;
    let shaped = here.iter().map(|link| &links.shaped[*link]).find(|shaped| !shaped.ethernet)?;
    Some(&shaped.link.port.link)
}

fn has_ports(line: &RuleLine) -> bool {
    !line.sport.is_empty() || !line.dport.is_empty()
}

fn too_many(at: Span, count: usize) -> Diagnostic {
    Diagnostic::error(
        Kind::Rule,
        at,
        format!("the rules come to {count} matches on a link, {MOST_MATCHES} are possible for each of IPv4 and IPv6"),
    )
    .label("with this rule")
    .help("lists multiply: use larger networks, or leave out a port where the address is enough")
}

/// The targets that `to:` can name.
struct Targets<'a> {
    policy: &'a Policy,
    by_name: HashMap<&'a str, Owner>,
}

impl<'a> Targets<'a> {
    fn new(policy: &'a Policy) -> Targets<'a> {
        let users = policy.users.iter().map(|line| &line.key.value);
        let users = users.map(|key| (key.as_str(), Owner::User(key.clone())));
        let classes = policy.classes.iter().map(|line| &line.key.value);
        let classes = classes.map(|key| (key.as_str(), Owner::Class(key.clone())));
        Targets { policy, by_name: users.chain(classes).collect() }
    }

    fn find(&self, name: &str) -> Option<Target> {
        match Reserved::of(name) {
            Some(Reserved::Default) => Some(Target::Default),
            Some(Reserved::Unshaped) => Some(Target::Unshaped),
            _ => self.by_name.get(name).cloned().map(Target::Owner),
        }
    }

    fn unknown(&self, to: &Written<String>) -> Diagnostic {
        let name = to.value.as_str();
        let is_group = self.policy.groups.iter().any(|line| line.key.value.as_str() == name);
        if is_group || Reserved::of(name) == Some(Reserved::Everyone) {
            let name = if is_group { format!("the group {}", quote(name)) } else { quote(name) };
            return Diagnostic::error(Kind::Rule, to.at, format!("a rule cannot send packets to {name}"))
                .help("packets wait in the classes of users, not in the class above them: name a user, or a line of `classes`");
        }
        let known = self
            .by_name
            .keys()
            .copied()
            .chain([Reserved::Default, Reserved::Unshaped].map(Reserved::as_str));
        let help = match closest(name, known) {
            Some(close) => format!("did you mean `{close}`?"),
            None => "name a line of `users` or `classes`, `default` or `unshaped`".to_string(),
        };
        let name = quote(name);
        Diagnostic::error(Kind::Rule, to.at, format!("there is no user and no class {name}"))
            .help(help)
    }
}

/// An error where no packet can match, whether u32 or a program decides the rule.
fn check(line: &RuleLine) -> Result<(), Diagnostic> {
    let has_ports = has_ports(line);
    let of_ip = !line.src.is_empty() || !line.dst.is_empty() || !line.proto.is_empty() || has_ports;
    if !of_ip && line.vlan.is_empty() && line.from.is_empty() {
        return Err(Diagnostic::error(Kind::Rule, line.at, "a rule that matches nothing in particular")
            .help("say which packets: `src`, `dst`, `sport`, `dport`, `proto`, `vlan` or `from`; what no rule names goes by its process"));
    }
    let without_ports = |p: &&Written<u8>| ![TCP, UDP, SCTP].contains(&p.value);
    if has_ports
        && !line.proto.not
        && let Some(proto) = line.proto.values.iter().find(without_ports)
    {
        return Err(Diagnostic::error(Kind::Rule, proto.at, "this protocol has no ports")
            .help("ports are for tcp, udp and sctp: remove the ports, or make two rules"));
    }
    mixes_families(line)?;
    let Packets { vlan, proto, src, dst, sport, dport } =
        sets::packets(line, has_ports.then_some(&[TCP, UDP]));
    let numbers = [vlan, sport, dport].into_iter().flatten().any(|ranges| ranges.is_empty());
    let addresses = [src, dst].into_iter().flatten().any(|ranges| ranges.is_empty());
    match numbers || addresses || proto.is_some_and(|ranges| ranges.is_empty()) {
        true => Err(nothing_is_left(line)),
        false => Ok(()),
    }
}

/// Every combination of the line's fields that a packet can have.
fn expand(line: &RuleLine) -> Result<Vec<Match>, Diagnostic> {
    let has_ports = has_ports(line);
    let pairs = pairs(line)?;
    let protos = sets::protocols(&line.proto, has_ports.then_some(&[TCP, UDP]));
    let (sports, dports) = (sets::ports(&line.sport), sets::ports(&line.dport));
    // The number of combinations is computed before they are made: those of four long lists would
    // fill the memory.
    let product = [sports.len(), dports.len(), protos.len()]
        .into_iter()
        .fold(pairs.len(), usize::saturating_mul);
    if product > 2 * MOST_MATCHES {
        return Err(too_many(line.at, product));
    }
    let is = |proto: Option<Bits<u8>>, number: u8| proto == Some(number.into());
    let mut matches = Vec::with_capacity(product);
    for &(src, dst) in &pairs {
        for &proto in &protos {
            for &sport in &sports {
                for &dport in &dports {
                    let combination = Match { src, dst, sport, dport, proto };
                    let impossible = match combination.family() {
                        Some(Family::V6) => is(proto, ICMP),
                        Some(Family::V4) => is(proto, ICMPV6),
                        None => false,
                    };
                    if !impossible {
                        matches.push(combination);
                    }
                }
            }
        }
    }
    if product == 0 {
        return Err(nothing_is_left(line));
    }
    if matches.is_empty() {
        let at = line.proto.values.first().map_or(line.at, |proto| proto.at);
        return Err(Diagnostic::error(
            Kind::Rule,
            at,
            "the protocol and the addresses are of different families",
        )
        .help("`icmp` is IPv4's; IPv6 has `icmpv6`"));
    }
    Ok(matches)
}

/// The error for a field whose `not` leaves nothing.
fn nothing_is_left(line: &RuleLine) -> Diagnostic {
    let (src, dst) = (first(&line.src), first(&line.dst));
    let (sport, dport, proto) = (first(&line.sport), first(&line.dport), first(&line.proto));
    let at = [src, dst, sport, dport, proto, first(&line.vlan)]
        .into_iter()
        .flatten()
        .next()
        .unwrap_or(line.at);
    Diagnostic::error(Kind::Rule, at, "no packet is left by this `not`")
        .help("take something out of it, or remove the rule")
}

/// Where a field that says `not` begins.
fn first<T>(field: &Field<T>) -> Option<Span> {
    field.values.first().filter(|_| field.not).map(|value| value.at)
}

/// A source and a destination; `None`: any.
type Pair = (Option<IpNet>, Option<IpNet>);

/// Sources and destinations must each have a partner of the same family.
fn mixes_families(line: &RuleLine) -> Result<(), Diagnostic> {
    let is_v4 = |nets: &Written<Networks>| matches!(nets.value.first(), Some(IpNet::V4(_)));
    let of_both = line.src.not || line.dst.not;
    for (field, others, what) in [(&line.src, &line.dst, "dst"), (&line.dst, &line.src, "src")] {
        let (list, others) = (&field.values, &others.values);
        let (v4, v6) = (others.iter().any(is_v4), others.iter().any(|net| !is_v4(net)));
        let alone = |net: &&Written<Networks>| if is_v4(net) { !v4 } else { !v6 };
        // A field with `not` has addresses of both families.
        if let (Some(net), Some(other), false) = (list.iter().find(alone), others.first(), of_both)
        {
            let family = |net: &Written<Networks>| if is_v4(net) { "IPv4" } else { "IPv6" };
            return Err(Diagnostic::error(
                Kind::Rule,
                net.at,
                format!("the rule mixes {} and {}: no packet has both", family(net), family(other)),
            )
            .label(family(net))
            .also(other.at, family(other))
            .help(format!("add a `{what}` of the same family, or make a rule for each family")));
        }
    }
    Ok(())
}

/// Sources and destinations of one family.
fn pairs(line: &RuleLine) -> Result<Vec<Pair>, Diagnostic> {
    let mut pairs = Vec::new();
    let dsts = sets::networks(&line.dst);
    for src in sets::networks(&line.src) {
        for dst in &dsts {
            let same = match (src, dst) {
                (Some(src), Some(dst)) => sets::one_family(src, *dst),
                _ => true,
            };
            if same {
                pairs.push((src, *dst));
            }
            if pairs.len() > 2 * MOST_MATCHES {
                return Err(too_many(line.at, pairs.len()));
            }
        }
    }
    Ok(pairs)
}

//! Tests with real packets on a real kernel: the one that cargo runs on, and the lab's. One file
//! for each theme; `support` is what they are made of.

#[path = "../support/mod.rs"]
mod support;

mod adversity;
mod agreement;
mod arriving;
mod arriving_counted;
mod arriving_hands;
mod arriving_others;
mod arriving_wire;
mod boost;
mod churn;
mod cleared;
mod confirm;
mod demo;
mod directions;
mod downloads;
mod draft;
mod drift;
mod engines;
mod escapes;
mod faults;
mod follow;
mod guard;
mod guests;
mod honest;
mod host;
mod inner_links;
mod lab;
mod machinery;
mod namespaces;
mod neighbours;
mod nss;
mod processes;
mod quotas;
mod recipes;
mod refusals;
mod rules;
mod seen;
mod seen_connections;
mod seen_guests;
mod seen_lines;
mod seen_senders;
mod senders;
mod servers;
mod shards;
mod sharing;
mod switched;
mod textbook;
mod transitions;
mod tunnels;
mod untagged;
mod untagged_cgroups;
mod untagged_run;
mod untagged_units;
mod updates;
mod upgraded;
mod vlan;
mod wall_clock;
mod watch;

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [word, k, file] = &words[..]
        && word == "--killed-before"
    {
        return faults::killed_before(k, file);
    }
    support::harness::main(&[
        machinery::TESTS,
        textbook::TESTS,
        processes::TESTS,
        quotas::TESTS,
        quotas::COST,
        quotas::hindered::TESTS,
        quotas::renamed::TESTS,
        quotas::steps::TESTS,
        namespaces::TESTS,
        nss::TESTS,
        sharing::TESTS,
        arriving::TESTS,
        arriving_hands::TESTS,
        arriving_wire::TESTS,
        boost::TESTS,
        downloads::NAMESPACES,
        arriving_counted::TESTS,
        arriving_others::TESTS,
        downloads::RATES,
        guests::TESTS,
        engines::TESTS,
        inner_links::TESTS,
        switched::TESTS,
        downloads::SHARES,
        downloads::SWAPS,
        servers::TESTS,
        directions::TESTS,
        shards::TESTS,
        agreement::TESTS,
        confirm::TESTS,
        transitions::TESTS,
        updates::TESTS,
        upgraded::TESTS,
        faults::TESTS,
        follow::TESTS,
        guard::TESTS,
        refusals::TESTS,
        drift::TESTS,
        rules::TESTS,
        seen::TESTS,
        seen_connections::TESTS,
        seen_guests::TESTS,
        seen_lines::TESTS,
        seen_senders::TESTS,
        senders::TESTS,
        vlan::TESTS,
        tunnels::TESTS,
        neighbours::TESTS,
        untagged::TESTS,
        untagged::AS_WITH_TAGS,
        untagged_cgroups::TESTS,
        untagged_run::TESTS,
        untagged_units::TESTS,
        cleared::TESTS,
        wall_clock::TESTS,
        recipes::GUESTS,
        recipes::PEOPLE,
        recipes::SERVICES,
        watch::BIRTHS,
        watch::CONDITION,
        watch::LOGINS,
        watch::NAMESPACE,
        watch::NEWCOMERS,
        watch::REPAIRS,
        watch::WINDOWS,
        watch::SCALE,
        watch::SERVICE,
        adversity::TESTS,
        churn::TESTS,
        escapes::ANSWERS,
        escapes::HANDED_ON,
        escapes::HEADERS,
        escapes::HIDDEN,
        escapes::MPTCP,
        escapes::PASSED_ON,
        escapes::PRIORITY,
        escapes::REUSED,
        escapes::ROUTED,
        escapes::TRIED,
        honest::BECOMING,
        honest::SERVICES,
        honest::SHARING,
        honest::TUNNELLING,
        // Loads drivers of the lab that stay.
        escapes::KERNEL_SOCKETS,
        lab::TESTS,
        demo::TESTS,
    ])
}

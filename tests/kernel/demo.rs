//! `make demo`: the main job, shown. Three users on one uplink, in namespaces that vanish with it.

use std::thread::sleep;
use std::time::Duration;

use crate::support::accounts::{ANN, BOB, CAROL};
use crate::support::harness::{On, tests};
use crate::support::program::shaper;
use crate::support::rates::{self, MBIT};
use crate::support::world::{Family, UPLINK, World};

tests!(On::Demo => demo);

const POLICY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/policies/demo.yaml");

/// What each user may send, as `policies/demo.yaml` says it, must be what the kernel says it sent.
fn demo() {
    let mut world = World::new();
    let _streams = [ANN, BOB, CAROL].map(|account| world.pouring(account, Family::V4));
    sleep(Duration::from_secs(1));
    let before = rates::over(UPLINK, Duration::from_millis(100));
    assert!(before.after.by_id.is_empty(), "nothing shapes the uplink yet");
    println!("$ shaper apply policies/demo.yaml");
    print!("{}", shaper(&["apply", POLICY]).exits(0).stdout);
    sleep(Duration::from_secs(2));
    println!("\nThree users send as fast as they can, for five seconds:\n");
    let interval = rates::over(UPLINK, Duration::from_secs(5));
    let status = shaper(&["status", "--json"]).exits(0).json();
    println!("{:<8} {:<7} {:>10} {:>14}", "user", "class", "asked", "measured");
    let mut missed = false;
    for user in status["links"][0]["users"].as_array().expect("a list of users") {
        let (name, class) = (user["user"].as_str(), user["classid"].as_str());
        let (name, class) = (name.unwrap_or("?"), class.unwrap_or("?"));
        // Those have it who have just come and are in no class of their own: nobody, by now.
        if name == "everyone" {
            continue;
        }
        let asked = user["ceil_bit"].as_u64().unwrap_or(0);
        let measured = interval.rate(class);
        let within = measured.abs_diff(asked) * 100 <= asked * 2;
        missed |= !within;
        println!(
            "{name:<8} {class:<7} {:>5} Mbit {:>5}.{:02} Mbit   {}",
            asked / MBIT,
            measured / MBIT,
            measured % MBIT / 10_000,
            if within { "within 2 %" } else { "NOT within 2 %" }
        );
    }
    assert!(!missed, "somebody did not get what the policy says");
}

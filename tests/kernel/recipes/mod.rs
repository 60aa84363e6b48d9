//! `policies/recipes/`: each is applied as it stands there, to a host of the kind that it is for,
//! and what it promises is measured.

mod guests;
mod people;
mod services;

use std::fs::OpenOptions;
use std::io::Write;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

use crate::support::accounts::Account;
use crate::support::actor::Actor;
use crate::support::command::run;
use crate::support::harness::Test;
use crate::support::orders::{Order, Proto, SocketId};
use crate::support::program::{apply, policy, shaper};
use crate::support::rates::{self, Interval, MBIT};
use crate::support::world::{UPLINK, World};

pub const GUESTS: &[Test] = guests::TESTS;
pub const PEOPLE: &[Test] = people::TESTS;
pub const SERVICES: &[Test] = services::TESTS;

/// What leaves by the uplink, and what arrives.
const UP: &str = UPLINK;
const IFB: &str = "ifb-up0";
const DEFAULT: &str = "1:fffe";
const UNSHAPED: &str = "1:fffd";

/// Whose class sends so many megabits a second.
type Holds<'a> = (&'a str, u64);

/// A host with one uplink, and the internet behind it, which is `198.51.100.1`.
struct Site {
    world: World,
    port: u16,
}

impl Site {
    fn new() -> Site {
        let world = World::new();
        run("ip route add default via 10.77.0.2");
        world.on_far("ip addr add 198.51.100.1/32 dev lo");
        Site { world, port: 7_000 }
    }

    /// Applies the recipe of this name, after which nothing is left to do.
    #[track_caller]
    fn takes(&self, recipe: &str) {
        let text = self::recipe(recipe);
        apply(&text);
        let plan = shaper(&["plan", "--exit-code", &policy(&text)]);
        assert_eq!(plan.status, Some(0), "{}", plan.stdout);
    }

    /// A port of the internet that so far nobody has used.
    fn internet(&mut self) -> SocketAddr {
        self.port += 1;
        SocketAddr::from(([198, 51, 100, 1], self.port))
    }

    /// A process of the account that sends to the internet as fast as it can.
    fn uploading(&mut self, account: Account) -> Actor {
        let mut actor = self.world.actor(account);
        self.uploads(&mut actor);
        actor
    }

    /// This process sends to the internet as fast as it can, over the connection that is returned.
    fn uploads(&mut self, actor: &mut Actor) -> SocketId {
        let to = self.internet();
        self.world.far.sink(Proto::Tcp, to.port());
        let socket = actor.connect(to);
        actor.pour(socket);
        socket
    }

    /// A process of the account that receives from the internet as fast as it comes.
    fn downloading(&mut self, account: Account) -> Actor {
        let mut actor = self.world.actor(account);
        self.downloads(&mut actor);
        actor
    }

    /// This process receives from the internet as fast as it comes.
    fn downloads(&mut self, actor: &mut Actor) {
        let at = self.internet();
        let listener = self.world.far.socket(&Order::Listen(at));
        let socket = actor.connect(at);
        let sender = self.world.far.socket(&Order::Accept(listener));
        actor.tell(&Order::Drain { socket, port: at.port() });
        self.world.far.pour(sender);
    }
}

/// The text of a recipe.
#[track_caller]
fn recipe(name: &str) -> String {
    let file = format!("{}/policies/recipes/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// Adds accounts and groups to those of the cell.
fn also(file: &str, lines: &str) {
    let mut file = OpenOptions::new().append(true).open(file).expect("the cell's accounts");
    file.write_all(lines.as_bytes()).expect("write them");
}

/// The class of a user, or a group, on each link.
#[track_caller]
fn class(name: &str) -> String {
    let status = shaper(&["status", "--json"]).exits(0).json();
    let find = |list: &str, key: &str| {
        status["links"][0][list].as_array()?.iter().find(|row| row[key] == name)
    };
    let row = find("users", "user").or_else(|| find("groups", "group"));
    let row = row.unwrap_or_else(|| panic!("no {name}: {status}"));
    row["classid"].as_str().expect("a class").to_string()
}

/// Everybody's rate on this link, within 5 %; all others have next to nothing. A group's class has
/// what its members have.
#[track_caller]
fn hold(link: &str, expected: &[Holds<'_>]) -> Interval {
    // What was sent before the policy was there is gone, and TCP has found its rate.
    sleep(Duration::from_secs(1));
    let classes: Vec<String> = expected.iter().map(|(name, _)| class(name)).collect();
    let ids: Vec<&str> = classes.iter().map(String::as_str).collect();
    let each: Vec<[&str; 1]> = ids.iter().map(|id| [*id]).collect();
    let rates = each.iter().zip(expected).map(|(id, (_, mbit))| (&id[..], mbit * MBIT, 5));
    rates::expect(link, Duration::from_secs(2), &rates.collect::<Vec<rates::Expected<'_>>>())
}

/// What others than these users have sent is what hosts say to each other.
#[track_caller]
fn nobody_else(sent: &Interval, users: &[&str]) {
    let classes: Vec<String> = users.iter().map(|name| class(name)).collect();
    sent.others_stay_below(30_000, &classes.iter().map(String::as_str).collect::<Vec<_>>());
}

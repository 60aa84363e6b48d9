//! Users that send: processes that `shaper run` puts into a user's class.

use std::env;
use std::process::Command;

use crate::support::actor::Actor;
use crate::support::clock::Micros;
use crate::support::orders::{Order, Proto};
use crate::support::program::binary;
use crate::support::timeline::Timeline;
use crate::support::world::{Family, World};

/// What one datagram carries: small, as of a game or of voice.
pub const SMALL: usize = 200;

/// A process in this user's class; `None`: in nobody's.
pub fn process(user: Option<&str>) -> Actor {
    let own = env::current_exe().expect("this program's path");
    Actor::start(match user {
        None => {
            let mut command = Command::new(own);
            command.arg("--actor");
            command
        }
        Some(user) => {
            let mut command = Command::new(binary());
            command.args(["run", user, "--"]).arg(own).arg("--actor");
            command
        }
    })
}

/// Somebody who sends to a sink of his own, as fast as it goes.
pub struct Flow {
    _actor: Actor,
    port: u16,
    pub proto: Proto,
    pub since: Micros,
}

impl Flow {
    pub fn start(world: &mut World, user: Option<&str>, proto: Proto) -> Flow {
        let port = world.sink(proto);
        let mut actor = process(user);
        let to = world.far_at(Family::V4, port);
        let (open, bytes) = match proto {
            Proto::Tcp => (Order::Connect(to), 65_536),
            Proto::Udp => (Order::Datagram(to), SMALL),
        };
        let socket = actor.socket(&open);
        let since = Micros::now();
        actor.tell(&Order::Flood { socket, bytes });
        Flow { _actor: actor, port, proto, since }
    }

    pub fn seen(&self, world: &mut World) -> Timeline {
        world.far.seen(self.proto, self.port)
    }
}

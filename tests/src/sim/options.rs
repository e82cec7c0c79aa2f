//! What apps and pokes ask for, drawn: options of connects, listens and detaches, sensible and senseless.

use std::net::IpAddr;

use hoststack::app::*;

use super::hub::State;

/// Ports that listeners choose from; the first is the most popular.
const PORTS: [u16; 6] = [80, 80, 80, 81, 82, 83];

/// A connect of an app on `host`.
pub(crate) fn connect_options(s: &mut State, host: u8, workers: u8) -> ConnectOptions {
    let place = {
        let places = &s.places[usize::from(host)].0;
        places[s.dice.index(places.len())]
    };
    let family = s.dice.index(2);
    let port = s.dice.pick(&PORTS);
    let mut remote = Endpoint::new(place.remote[family], port);
    match s.dice.below(40) {
        0 => remote.addr = place.nowhere[family],
        1 => remote.addr = place.nobody[family],
        // Nobody ever listens there.
        2 | 3 => remote.port = 9,
        // A wrong argument: the error is known at once, nothing follows.
        4 if s.dice.one_of(4) => remote.port = 0,
        // To itself.
        5 => remote.addr = place.local[family],
        _ => {}
    }
    let longest = s.temper.timeout_us_max;
    let timeout_us = match s.dice.below(12) {
        0 => 1 + s.dice.below(2_000),
        1 | 2 => 1 + s.dice.below(200_000.min(longest)),
        _ => longest / 4 + s.dice.below(longest),
    };
    let wrong_family = place.local[1 - family];
    let local_addr: Option<IpAddr> = match s.dice.below(40) {
        0 => Some(place.nobody[family]),
        1 if s.dice.one_of(4) => Some(wrong_family),
        2..=6 => Some(place.local[family]),
        _ => None,
    };
    ConnectOptions {
        domain: place.domain,
        local_addr,
        local_port: if s.dice.one_of(8) { 5000 + s.dice.below(3) as u16 } else { 0 },
        timeout: Duration::from_micros(timeout_us),
        worker: match s.dice.below(16) {
            0..=3 => Some(WorkerId(s.dice.below(u64::from(workers)) as u8)),
            4 if s.dice.one_of(8) => Some(WorkerId(workers)),
            _ => None,
        },
        opaque: s.dice.below(1000),
        fifos: fifos(s),
        socket: SocketOptions { nodelay: s.dice.one_of(2), ..SocketOptions::DEFAULT },
        ..ConnectOptions::to(remote)
    }
}

fn fifos(s: &mut State) -> SessionOptions {
    let sizes = [1, 100, 3_000, 20_000, 65_535, 65_535, 200_000];
    SessionOptions {
        rx_capacity: s.dice.pick(&sizes),
        tx_capacity: s.dice.pick(&sizes),
        ..SessionOptions::default()
    }
}

/// A listener of an app on `host`.
pub(crate) fn listen_options(s: &mut State, host: u8) -> ListenOptions {
    let place = {
        let places = &s.places[usize::from(host)].0;
        places[s.dice.index(places.len())]
    };
    let family = s.dice.index(2);
    let addr = match s.dice.below(12) {
        0 | 1 => {
            if family == 0 {
                IpAddr::from([0, 0, 0, 0])
            } else {
                IpAddr::from([0u16; 8])
            }
        }
        2 => place.nobody[family],
        _ => place.local[family],
    };
    let port = if s.dice.one_of(60) { 0 } else { s.dice.pick(&PORTS) };
    ListenOptions {
        domain: place.domain,
        backlog: s.dice.pick(&[1, 3, 100, 100]),
        opaque: s.dice.below(1000),
        fifos: fifos(s),
        socket: SocketOptions { nodelay: s.dice.one_of(2), ..SocketOptions::DEFAULT },
        ..ListenOptions::on(Endpoint::new(addr, port))
    }
}

/// What becomes of the sessions of an app worker that is detached.
pub(crate) fn detach_policy(s: &mut State) -> DetachPolicy {
    let longest = s.temper.linger_us_max;
    match s.dice.below(4) {
        0 => DetachPolicy::Reset,
        1 => DetachPolicy::Close { linger: Duration::ZERO },
        _ => DetachPolicy::Close { linger: Duration::from_micros(s.dice.below(longest)) },
    }
}

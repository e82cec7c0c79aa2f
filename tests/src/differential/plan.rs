//! What a world is like and what its ends do, drawn from a seed.

use hoststack::net::Impairments;

use crate::sim::dice::Dice;

/// Connections of a world.
const CONNECTIONS: u64 = 12;
/// Most bytes of a stream.
const STREAM_MAX: u64 = 300_000;
/// Windows that a stream fills at most: each may cost a delayed acknowledgment or a probe.
const WINDOWS_MAX: u64 = 60;

/// Who opens a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opener {
    /// `hoststack`.
    Ours,
    /// The kernel.
    Kernel,
}

/// How an end ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Half-closes once all is written; closes once the peer has ended too.
    HalfClose,
    /// The same, but half-closes only after the peer has ended.
    AfterPeer,
    /// The same, but half-closes not before this time of the connection, in ms: both ends at the same one.
    At(u32),
    /// Resets once so much is written.
    Reset(u64),
    /// Closes both ways once all is written, whatever is still to be read.
    Close,
}

impl End {
    /// Whether it may cut the peer's stream off.
    #[must_use]
    pub fn is_abort(self) -> bool {
        matches!(self, End::Reset(_) | End::Close)
    }
}

/// What one end does.
#[derive(Clone, Debug)]
pub struct Side {
    /// The content of its stream.
    pub content: u64,
    /// Where the chance of its pieces and pauses begins.
    pub seed: u64,
    /// Bytes of its stream.
    pub total: u64,
    /// Most bytes of a write.
    pub write_max: u64,
    /// The longest pause after a write, in µs.
    pub write_pause_us: u64,
    /// Most bytes of a read.
    pub read_max: u64,
    /// The longest pause after a read, in µs.
    pub read_pause_us: u64,
    /// Reads nothing for so many ms once so many bytes are read, so that the window closes.
    pub stall: Option<(u64, u32)>,
    /// How it ends.
    pub end: End,
    /// Without the Nagle algorithm.
    pub nodelay: bool,
    /// Bytes of the receive buffer; `None`: the default.
    pub rx_buffer: Option<u32>,
    /// Bytes of the send buffer; `None`: the default.
    pub tx_buffer: Option<u32>,
    /// The byte that the kernel marks urgent. Ours is `None`.
    pub urgent_at: Option<u64>,
}

/// A connection.
#[derive(Clone, Debug)]
pub struct Connection {
    /// When it is opened, in ms of the world.
    pub starts_ms: u32,
    /// By whom.
    pub opener: Opener,
    /// Our largest segment; `None`: the MTU decides.
    pub mss_max: Option<u16>,
    /// Our end.
    pub ours: Side,
    /// The kernel's.
    pub kernel: Side,
}

impl Connection {
    /// Whether either end may cut the other off.
    #[must_use]
    pub fn is_abortive(&self) -> bool {
        self.ours.end.is_abort() || self.kernel.end.is_abort()
    }
}

/// A world.
#[derive(Clone, Debug)]
pub struct WorldPlan {
    /// What it was drawn from.
    pub seed: u64,
    /// IPv6 instead of IPv4.
    pub is_ipv6: bool,
    /// Of the TAP.
    pub mtu: u32,
    /// The link towards the kernel, and from it.
    pub links: [Impairments; 2],
    /// Its connections.
    pub connections: Vec<Connection>,
}

impl WorldPlan {
    /// The world of a seed.
    #[must_use]
    pub fn draw(seed: u64) -> WorldPlan {
        let mut dice = Dice::new(seed);
        let is_ipv6 = dice.one_of(2);
        let mtu = dice.pick(if is_ipv6 { &[1500, 1500, 1280] } else { &[1500, 1500, 1280, 576] });
        let weather = dice.below(6);
        let delay_us = dice.pick(&[0, 500, 5_000, 20_000]);
        let mut link = || Impairments {
            seed: dice.u64(),
            loss: if matches!(weather, 2 | 5) { 0.03 } else { 0.0 },
            reorder: if matches!(weather, 3 | 5) { 0.05 } else { 0.0 },
            duplicate: if matches!(weather, 4 | 5) { 0.03 } else { 0.0 },
            delay_us,
            jitter_us: if weather == 1 { 3_000 } else { 0 },
            ..Impairments::default()
        };
        let links = [link(), link()];
        // Half of the worlds have no end that cuts the other off: there no reset at all may be seen.
        let has_aborts = dice.one_of(2);
        let connections = (0..CONNECTIONS).map(|_| connection(&mut dice, has_aborts)).collect();
        WorldPlan { seed, is_ipv6, mtu, links, connections }
    }
}

impl WorldPlan {
    /// Connections in which an end may cut the other off.
    #[must_use]
    pub fn aborts(&self) -> usize {
        self.connections.iter().filter(|connection| connection.is_abortive()).count()
    }

    /// Whether its links make ends see a segment twice: they repeat it, or lose it or turn it over so that it is sent again.
    #[must_use]
    pub fn repeats(&self) -> bool {
        self.links.iter().any(|link| link.loss > 0.0 || link.duplicate > 0.0 || link.reorder > 0.0)
    }
}

fn connection(dice: &mut Dice, has_aborts: bool) -> Connection {
    let (mut ours, mut kernel) = (side(dice), side(dice));
    // What the peer's buffers hold bounds how much is worth sending.
    let limit = |side: &mut Side, peer: &Side, dice: &mut Dice| {
        let window =
            u64::from(peer.rx_buffer.unwrap_or(65_536)).min(u64::from(side.tx_buffer.unwrap_or(65_536)));
        let most = dice.pick(&[1, 2_000, 40_000, STREAM_MAX, STREAM_MAX]).min(window * WINDOWS_MAX / 2);
        side.total = dice.below(most + 1);
        side.write_max = (side.total / 40).max(dice.pick(&[10, 500, 1_448, 20_000]));
    };
    limit(&mut ours, &kernel, dice);
    limit(&mut kernel, &ours, dice);
    let totals = [kernel.total, ours.total];
    for (reader, total) in [&mut ours, &mut kernel].into_iter().zip(totals) {
        reader.read_max = (total / 40).max(dice.pick(&[100, 1_000, 65_536]));
        reader.stall = dice.one_of(3).then(|| (dice.below(total + 1), 100 + dice.below(900) as u32)); // cannot truncate: below 900
    }
    kernel.urgent_at = dice.one_of(5).then(|| dice.below(kernel.total.max(1)));
    (ours.end, kernel.end) = match dice.below(if has_aborts { 8 } else { 4 }) {
        0 => (End::HalfClose, End::HalfClose),
        1 => (End::HalfClose, End::AfterPeer),
        2 => (End::AfterPeer, End::HalfClose),
        3 => {
            let at = End::At(200 + dice.below(800) as u32); // cannot truncate: below 800
            (at, at)
        }
        4 => (End::Reset(dice.below(ours.total + 1)), End::HalfClose),
        5 => (End::HalfClose, End::Reset(dice.below(kernel.total + 1))),
        6 => (End::Close, End::HalfClose),
        _ => (End::HalfClose, End::Close),
    };
    Connection {
        starts_ms: dice.below(500) as u32, // cannot truncate: below 500
        opener: if dice.one_of(2) { Opener::Ours } else { Opener::Kernel },
        mss_max: dice.one_of(3).then(|| dice.pick(&[88, 216, 536, 1_000])),
        ours,
        kernel,
    }
}

/// A side whose sizes and end are still to be set.
fn side(dice: &mut Dice) -> Side {
    Side {
        content: dice.u64(),
        seed: dice.u64(),
        total: 0,
        write_max: 1,
        write_pause_us: dice.pick(&[0, 0, 2_000, 20_000]),
        read_max: 1,
        read_pause_us: dice.pick(&[0, 0, 2_000, 20_000]),
        stall: None,
        end: End::HalfClose,
        nodelay: dice.one_of(2),
        rx_buffer: dice.one_of(2).then(|| dice.pick(&[1_000, 3_000, 16_000, 50_000])),
        tx_buffer: dice.one_of(2).then(|| dice.pick(&[3_000, 16_000, 50_000])),
        urgent_at: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_and_every_weather_is_drawn_and_a_seed_draws_the_same() {
        let worlds: Vec<_> = (0..200).map(WorldPlan::draw).collect();
        let some =
            |of: &dyn Fn(&Connection) -> bool| worlds.iter().flat_map(|world| &world.connections).any(of);
        assert!(some(&|c| c.ours.end == End::AfterPeer) && some(&|c| c.kernel.end == End::AfterPeer));
        assert!(
            some(&|c| matches!(c.ours.end, End::Reset(_)))
                && some(&|c| matches!(c.kernel.end, End::Reset(_)))
        );
        assert!(some(&|c| c.ours.end == End::Close) && some(&|c| c.kernel.end == End::Close));
        assert!(some(&|c| matches!(c.ours.end, End::At(_))) && some(&|c| c.kernel.urgent_at.is_some()));
        assert!(worlds.iter().any(|world| world.links[0].loss > 0.0 && world.links[0].reorder > 0.0));
        let abortive =
            worlds.iter().filter(|world| world.connections.iter().any(Connection::is_abortive)).count();
        assert!((60..140).contains(&abortive), "{abortive} of 200 worlds have ends that cut off");
        assert_eq!(format!("{:?}", WorldPlan::draw(7)), format!("{:?}", worlds[7]));
    }

    #[test]
    fn ends_never_wait_for_each_other() {
        for connection in (0..200).flat_map(|seed| WorldPlan::draw(seed).connections) {
            assert!(connection.ours.end != End::AfterPeer || connection.kernel.end != End::AfterPeer);
        }
    }
}

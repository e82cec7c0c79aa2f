//! Neighbours as main knows them: who is where on a link, by ARP (RFC 826) and neighbour discovery (RFC 4861 §7.3).
//!
//! ```text
//!   needed --> Incomplete --answer--> Reachable --30 s--> Stale --used--> Probe --answer--> Reachable
//!                  |                                                        |
//!                  +---------- 3 probes, 1 s apart, no answer --------------+--> Failed --needed--> Incomplete
//! ```
//!
//! Deviates from RFC 4861 §7.3.2: DELAY and PROBE are one state, as a stale neighbour that is used is probed at once
//! (and unicast, as RFC 1122 §2.3.2.1 asks of ARP), and upper layers give no hints: one small packet pair in 30 s is
//! cheaper than a hint per segment. The table is bounded. What nobody asked for is not learned, except the sender of a
//! request for one of our addresses (RFC 826's merge).

pub(crate) mod replica;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use hoststack_wire::MacAddr;

use crate::interface::InterfaceId;
use crate::route::NextHop;
use crate::update::{NetUpdate, RouterAction, Sighting};

/// The state of a neighbour on main.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NeighborState {
    /// Set by the configuration; or there are no neighbours on this interface and none is needed.
    Static,
    /// Asked for, not answered yet: packets wait.
    Incomplete,
    /// It answered lately.
    Reachable,
    /// Known, but not heard of for a while: used, and probed when used.
    Stale,
    /// Known and used, and being asked whether it is still there.
    Probe,
    /// It did not answer. The next need starts over.
    Failed,
}

impl fmt::Display for NeighborState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            NeighborState::Static => "static",
            NeighborState::Incomplete => "incomplete",
            NeighborState::Reachable => "reachable",
            NeighborState::Stale => "stale",
            NeighborState::Probe => "probe",
            NeighborState::Failed => "failed",
        })
    }
}

/// Limits and times of neighbour resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighborConfig {
    /// Neighbours known at most: a large link's worth, and a bound on what a scan can make us keep.
    pub neighbors_max: usize,
    /// Questions before a neighbour is taken for dead (RFC 4861 §10: MAX_MULTICAST_SOLICIT, MAX_UNICAST_SOLICIT).
    pub probes_max: u8,
    /// Time between questions (RFC 4861 §10: RETRANS_TIMER).
    pub probe_interval_us: u64,
    /// Time after an answer in which a neighbour is taken to be there (RFC 4861 §10: REACHABLE_TIME).
    pub reachable_us: u64,
    /// Time for which a failed neighbour is kept to be shown.
    pub failed_us: u64,
}

impl Default for NeighborConfig {
    fn default() -> NeighborConfig {
        NeighborConfig {
            neighbors_max: 4096,
            probes_max: 3,
            probe_interval_us: 1_000_000,
            reachable_us: 30_000_000,
            failed_us: 60_000_000,
        }
    }
}

/// A neighbour, for the CLI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbor {
    /// Where and who.
    pub next_hop: NextHop,
    /// Its Ethernet address, if it was ever known.
    pub mac: Option<MacAddr>,
    /// Its state.
    pub state: NeighborState,
    /// When it was last heard of or asked for, microseconds since the stack's epoch.
    pub updated_us: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    state: NeighborState,
    mac: Option<MacAddr>,
    /// Questions sent in this state.
    probes: u8,
    /// When the state does something by itself; `u64::MAX`: never. Mirrored in `NeighborTable::deadlines`.
    deadline_us: u64,
    updated_us: u64,
}

impl Entry {
    /// The address that workers were told and may use.
    fn told(&self) -> Option<MacAddr> {
        self.mac.filter(|_| !matches!(self.state, NeighborState::Incomplete | NeighborState::Failed))
    }
}

/// The neighbours of all interfaces.
#[derive(Debug)]
pub(crate) struct NeighborTable {
    config: NeighborConfig,
    entries: BTreeMap<NextHop, Entry>,
    deadlines: BTreeSet<(u64, NextHop)>,
}

impl NeighborTable {
    pub(crate) fn new(config: NeighborConfig) -> NeighborTable {
        NeighborTable { config, entries: BTreeMap::new(), deadlines: BTreeSet::new() }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Neighbor> + '_ {
        self.entries.iter().map(|(next_hop, entry)| Neighbor {
            next_hop: *next_hop,
            mac: entry.mac,
            state: entry.state,
            updated_us: entry.updated_us,
        })
    }

    pub(crate) fn next_deadline_us(&self) -> Option<u64> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Someone wants to send there: an unknown neighbour is asked for, a stale one is checked. `poll` sends.
    pub(crate) fn need(
        &mut self,
        now_us: u64,
        hop: NextHop,
        actions: &mut Vec<RouterAction>,
    ) -> NeighborState {
        let next = match self.entries.get(&hop).map(|entry| entry.state) {
            Some(NeighborState::Failed) => NeighborState::Incomplete,
            Some(NeighborState::Stale) => NeighborState::Probe,
            Some(state) => return state,
            None if self.make_room(actions) => NeighborState::Incomplete,
            None => return NeighborState::Failed,
        };
        self.enter(now_us, hop, next, None, now_us);
        next
    }

    /// A worker has a packet for a neighbour that it does not know.
    pub(crate) fn on_miss(&mut self, now_us: u64, hop: NextHop, actions: &mut Vec<RouterAction>) {
        match self.need(now_us, hop, actions) {
            NeighborState::Failed => fail(hop, actions),
            // Our update and its question crossed, or it lost what we know: the update does no harm twice.
            NeighborState::Static
            | NeighborState::Reachable
            | NeighborState::Stale
            | NeighborState::Probe => {
                actions.extend(self.entries.get(&hop).and_then(Entry::told).map(|mac| set(hop, mac)));
            }
            NeighborState::Incomplete => {}
        }
    }

    /// A worker sent to a stale neighbour.
    pub(crate) fn on_used(&mut self, now_us: u64, hop: NextHop) {
        if self.entries.get(&hop).is_some_and(|entry| entry.state == NeighborState::Stale) {
            self.enter(now_us, hop, NeighborState::Probe, None, now_us);
        }
    }

    /// A neighbour was heard.
    pub(crate) fn on_seen(
        &mut self,
        now_us: u64,
        hop: NextHop,
        mac: MacAddr,
        how: Sighting,
        actions: &mut Vec<RouterAction>,
    ) {
        let known = self.entries.get(&hop).copied();
        let next = match (known.map(|entry| entry.state), how) {
            (Some(NeighborState::Static), _) => return,
            // A late answer to what was given up is still an answer to a question of ours.
            (Some(_), Sighting::Answer) => NeighborState::Reachable,
            // RFC 4861 §7.2.3: "the entry's reachability state MUST be set to STALE" when the address changed; hearing a
            // question says nothing about the way to the neighbour, so an unchanged entry keeps its state.
            (Some(_), Sighting::Question | Sighting::Announcement) => {
                let is_known = known.and_then(|entry| entry.mac) == Some(mac);
                let is_waiting = matches!(
                    known.map(|entry| entry.state),
                    Some(NeighborState::Incomplete | NeighborState::Failed)
                );
                if is_known && !is_waiting {
                    return;
                }
                NeighborState::Stale
            }
            // Only into free room: strangers never push out what we asked for.
            (None, Sighting::Question) if self.entries.len() < self.config.neighbors_max => {
                NeighborState::Stale
            }
            (None, _) => return,
        };
        let deadline_us = match next {
            NeighborState::Reachable => now_us.saturating_add(self.config.reachable_us),
            _ => u64::MAX,
        };
        let told = known.and_then(|entry| entry.told());
        let was_stale = known.is_some_and(|entry| entry.state == NeighborState::Stale);
        self.enter(now_us, hop, next, Some(mac), deadline_us);
        // A set also clears the worker's stale mark, so it is repeated when one may stand.
        if told != Some(mac) || was_stale {
            actions.push(set(hop, mac));
        }
        if next == NeighborState::Stale {
            let NextHop { interface, addr } = hop;
            actions.push(RouterAction::Update(NetUpdate::NeighborStale { interface, addr }));
        }
    }

    /// Fixes a neighbour for good; false when the table is full of neighbours in use.
    pub(crate) fn set_static(
        &mut self,
        now_us: u64,
        hop: NextHop,
        mac: MacAddr,
        actions: &mut Vec<RouterAction>,
    ) -> bool {
        if !self.entries.contains_key(&hop) && !self.make_room(actions) {
            return false;
        }
        self.enter(now_us, hop, NeighborState::Static, Some(mac), u64::MAX);
        actions.push(set(hop, mac));
        true
    }

    /// Removes a neighbour, static or not; false when there is none.
    pub(crate) fn remove(&mut self, hop: NextHop, actions: &mut Vec<RouterAction>) -> bool {
        let Some(entry) = self.entries.remove(&hop) else { return false };
        self.deadlines.remove(&(entry.deadline_us, hop));
        let NextHop { interface, addr } = hop;
        actions.push(RouterAction::Update(NetUpdate::NeighborForgotten { interface, addr }));
        true
    }

    /// Does what is due.
    pub(crate) fn poll(&mut self, now_us: u64, actions: &mut Vec<RouterAction>) {
        while let Some((deadline_us, hop)) = self.deadlines.first().copied() {
            if deadline_us > now_us {
                break;
            }
            let Some(entry) = self.entries.get(&hop).copied() else {
                unreachable!("every deadline belongs to a neighbour, which takes it along when it goes")
            };
            match entry.state {
                NeighborState::Incomplete | NeighborState::Probe if entry.probes < self.config.probes_max => {
                    actions.push(RouterAction::Probe { interface: hop.interface, target: hop.addr });
                    let again_us = now_us.saturating_add(self.config.probe_interval_us);
                    self.enter(now_us, hop, entry.state, None, again_us);
                    if let Some(entry) = self.entries.get_mut(&hop) {
                        entry.probes += 1;
                    }
                }
                NeighborState::Incomplete | NeighborState::Probe => {
                    let shown_until_us = now_us.saturating_add(self.config.failed_us);
                    self.enter(now_us, hop, NeighborState::Failed, None, shown_until_us);
                    fail(hop, actions);
                }
                NeighborState::Reachable => {
                    self.enter(now_us, hop, NeighborState::Stale, None, u64::MAX);
                    let NextHop { interface, addr } = hop;
                    actions.push(RouterAction::Update(NetUpdate::NeighborStale { interface, addr }));
                }
                NeighborState::Failed => {
                    self.entries.remove(&hop);
                    self.deadlines.remove(&(deadline_us, hop));
                }
                NeighborState::Static | NeighborState::Stale => {
                    unreachable!("neither waits for anything, so neither has a deadline")
                }
            }
        }
    }

    /// What a new worker has to be told.
    pub(crate) fn snapshot(&self, updates: &mut Vec<NetUpdate>) {
        for (hop, entry) in &self.entries {
            let NextHop { interface, addr } = *hop;
            let Some(mac) = entry.told() else { continue };
            updates.push(NetUpdate::NeighborSet { interface, addr, mac });
            if entry.state == NeighborState::Stale {
                updates.push(NetUpdate::NeighborStale { interface, addr });
            }
        }
    }

    /// Sets state, deadline and, if given, address; probes start at 0 when the state changes.
    fn enter(
        &mut self,
        now_us: u64,
        hop: NextHop,
        state: NeighborState,
        mac: Option<MacAddr>,
        deadline_us: u64,
    ) {
        let entry = self.entries.entry(hop).or_insert(Entry {
            state,
            mac: None,
            probes: 0,
            deadline_us: u64::MAX,
            updated_us: now_us,
        });
        if entry.deadline_us != u64::MAX {
            self.deadlines.remove(&(entry.deadline_us, hop));
        }
        if deadline_us != u64::MAX {
            self.deadlines.insert((deadline_us, hop));
        }
        if entry.state != state {
            entry.probes = 0;
            tracing::debug!(neighbor = %hop, from = %entry.state, to = %state, "neighbor");
        }
        entry.state = state;
        entry.deadline_us = deadline_us;
        entry.updated_us = now_us;
        entry.mac = mac.or(entry.mac);
    }

    /// Makes room for one more, at the cost of the failed or stale or else reachable neighbour heard of longest ago.
    /// False when all are static or being resolved. Looks at all of them, but only when the table is full.
    fn make_room(&mut self, actions: &mut Vec<RouterAction>) -> bool {
        if self.entries.len() < self.config.neighbors_max {
            return true;
        }
        let rank = |entry: &Entry| match entry.state {
            NeighborState::Failed => Some((0, entry.updated_us)),
            NeighborState::Stale => Some((1, entry.updated_us)),
            NeighborState::Reachable => Some((2, entry.updated_us)),
            NeighborState::Static | NeighborState::Incomplete | NeighborState::Probe => None,
        };
        let worst = self.entries.iter().filter_map(|(hop, entry)| Some((rank(entry)?, *hop))).min();
        worst.is_some_and(|(_, hop)| self.remove(hop, actions))
    }

    /// Panics when the table contradicts itself.
    #[cfg(test)]
    pub(crate) fn check_consistency(&self) {
        let from_entries: BTreeSet<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.deadline_us != u64::MAX)
            .map(|(hop, entry)| (entry.deadline_us, *hop))
            .collect();
        assert_eq!(from_entries, self.deadlines, "deadlines mirror the entries");
        assert!(self.entries.len() <= self.config.neighbors_max, "the table is bounded");
        for (hop, entry) in &self.entries {
            let needs_mac = !matches!(entry.state, NeighborState::Incomplete | NeighborState::Failed);
            assert!(entry.mac.is_some() || !needs_mac, "{hop} is {} without an address", entry.state);
        }
    }
}

fn set(hop: NextHop, mac: MacAddr) -> RouterAction {
    RouterAction::Update(NetUpdate::NeighborSet { interface: hop.interface, addr: hop.addr, mac })
}

fn fail(hop: NextHop, actions: &mut Vec<RouterAction>) {
    let NextHop { interface, addr } = hop;
    actions.push(RouterAction::Update(NetUpdate::NeighborFailed { interface, addr }));
    actions.push(RouterAction::Failed { next_hop: hop });
}

/// A neighbour's key from an event's fields.
pub(crate) const fn hop(interface: InterfaceId, addr: IpAddr) -> NextHop {
    NextHop { interface, addr }
}

#[cfg(test)]
mod tests;

use super::*;
use proptest::prelude::*;

const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);
const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);
const SECOND: u64 = 1_000_000;

fn peer(last: u8) -> NextHop {
    hop(InterfaceId(1), [10, 0, 0, last].into())
}

/// A table on virtual time; actions are read as words.
struct Machine {
    table: NeighborTable,
    actions: Vec<RouterAction>,
}

impl Machine {
    fn new(neighbors_max: usize) -> Machine {
        let config = NeighborConfig { neighbors_max, ..NeighborConfig::default() };
        Machine { table: NeighborTable::new(config), actions: Vec::new() }
    }

    fn state(&self, hop: NextHop) -> Option<NeighborState> {
        self.table.iter().find(|neighbor| neighbor.next_hop == hop).map(|neighbor| neighbor.state)
    }

    fn miss(&mut self, now_us: u64, hop: NextHop) -> Vec<String> {
        self.table.on_miss(now_us, hop, &mut self.actions);
        self.poll(now_us)
    }

    fn seen(&mut self, now_us: u64, hop: NextHop, mac: MacAddr, how: Sighting) -> Vec<String> {
        self.table.on_seen(now_us, hop, mac, how, &mut self.actions);
        self.poll(now_us)
    }

    fn poll(&mut self, now_us: u64) -> Vec<String> {
        self.table.poll(now_us, &mut self.actions);
        self.table.check_consistency();
        let words = |action| match action {
            RouterAction::Update(NetUpdate::NeighborSet { addr, mac, .. }) => format!("set {addr} {mac}"),
            RouterAction::Update(NetUpdate::NeighborStale { addr, .. }) => format!("stale {addr}"),
            RouterAction::Update(NetUpdate::NeighborForgotten { addr, .. }) => format!("forget {addr}"),
            RouterAction::Update(NetUpdate::NeighborFailed { addr, .. }) => format!("drop {addr}"),
            RouterAction::Update(other) => panic!("{other:?} is no business of neighbours"),
            RouterAction::Probe { target, .. } => format!("probe {target}"),
            RouterAction::Failed { next_hop } => format!("failed {}", next_hop.addr),
        };
        self.actions.drain(..).map(words).collect()
    }
}

#[test]
fn unknown_neighbour_is_asked_for_three_times_and_then_failed() {
    let mut machine = Machine::new(10);
    assert_eq!(machine.miss(5, peer(2)), ["probe 10.0.0.2"]);
    assert_eq!(machine.state(peer(2)), Some(NeighborState::Incomplete));
    // Other workers miss it too: asked for once.
    assert!(machine.miss(6, peer(2)).is_empty());
    assert!(machine.poll(5 + SECOND - 1).is_empty());
    assert_eq!(machine.poll(5 + SECOND), ["probe 10.0.0.2"]);
    assert_eq!(machine.poll(5 + 2 * SECOND), ["probe 10.0.0.2"]);
    assert_eq!(machine.table.next_deadline_us(), Some(5 + 3 * SECOND));
    assert_eq!(machine.poll(5 + 3 * SECOND), ["drop 10.0.0.2", "failed 10.0.0.2"]);
    assert_eq!(machine.state(peer(2)), Some(NeighborState::Failed));
    // The next need starts over; left alone, it is forgotten.
    assert_eq!(machine.miss(4 * SECOND, peer(2)), ["probe 10.0.0.2"]);
    for _ in 0..3 {
        let due = machine.table.next_deadline_us().unwrap();
        machine.poll(due);
    }
    let due = machine.table.next_deadline_us().unwrap();
    assert!(machine.poll(due).is_empty());
    assert_eq!((machine.state(peer(2)), machine.table.next_deadline_us()), (None, None));
}

#[test]
fn need_starts_the_question_that_the_next_poll_sends() {
    let mut machine = Machine::new(10);
    assert_eq!(machine.table.need(7, peer(2), &mut machine.actions), NeighborState::Incomplete);
    assert_eq!(machine.table.next_deadline_us(), Some(7));
    assert_eq!(machine.table.need(8, peer(2), &mut machine.actions), NeighborState::Incomplete);
    assert_eq!(machine.poll(8), ["probe 10.0.0.2"]);
    assert!(machine.miss(9, peer(2)).is_empty());
    assert_eq!(machine.seen(10, peer(2), A, Sighting::Answer), [format!("set 10.0.0.2 {A}")]);
    assert_eq!(machine.table.need(11, peer(2), &mut machine.actions), NeighborState::Reachable);
}

#[test]
fn answered_neighbour_goes_stale_and_is_probed_when_used() {
    let mut machine = Machine::new(10);
    machine.miss(0, peer(2));
    assert_eq!(machine.seen(10, peer(2), A, Sighting::Answer), [format!("set 10.0.0.2 {A}")]);
    assert_eq!(machine.state(peer(2)), Some(NeighborState::Reachable));
    machine.table.on_used(11, peer(2));
    assert!(machine.poll(10 + 30 * SECOND - 1).is_empty());
    assert_eq!(machine.poll(10 + 30 * SECOND), ["stale 10.0.0.2"]);
    // Unused, it stays.
    assert_eq!(machine.table.next_deadline_us(), None);
    let used = 100 * SECOND;
    machine.table.on_used(used, peer(2));
    assert_eq!(machine.poll(used), ["probe 10.0.0.2"]);
    assert_eq!(machine.state(peer(2)), Some(NeighborState::Probe));
    // Workers never lost the address, and need not be told it again.
    assert!(machine.seen(used + 9, peer(2), A, Sighting::Answer).is_empty());
    assert_eq!(machine.state(peer(2)), Some(NeighborState::Reachable));
    machine.poll(used + 9 + 30 * SECOND);
    // It moved away: three questions, then everybody forgets it.
    machine.table.on_used(200 * SECOND, peer(2));
    for second in 200..203 {
        assert_eq!(machine.poll(second * SECOND), ["probe 10.0.0.2"]);
    }
    assert_eq!(machine.poll(203 * SECOND), ["drop 10.0.0.2", "failed 10.0.0.2"]);
    // The old address is not believed any more.
    let mut updates = Vec::new();
    machine.table.snapshot(&mut updates);
    assert!(updates.is_empty());
    assert_eq!(machine.miss(204 * SECOND, peer(2)), ["probe 10.0.0.2"]);
    assert_eq!(machine.seen(204 * SECOND, peer(2), A, Sighting::Answer), [format!("set 10.0.0.2 {A}")]);
}

#[test]
fn only_questions_to_us_teach_strangers_addresses() {
    let mut machine = Machine::new(10);
    assert!(machine.seen(0, peer(2), A, Sighting::Answer).is_empty());
    assert!(machine.seen(0, peer(2), A, Sighting::Announcement).is_empty());
    assert_eq!(machine.state(peer(2)), None);
    assert_eq!(
        machine.seen(0, peer(2), A, Sighting::Question),
        [format!("set 10.0.0.2 {A}"), "stale 10.0.0.2".into()]
    );
    assert_eq!(machine.state(peer(2)), Some(NeighborState::Stale));
}

#[test]
fn question_or_announcement_with_a_new_address_replaces_the_old_one_until_checked() {
    for how in [Sighting::Question, Sighting::Announcement] {
        let mut machine = Machine::new(10);
        machine.miss(0, peer(2));
        machine.seen(1, peer(2), A, Sighting::Answer);
        assert!(machine.seen(2, peer(2), A, how).is_empty());
        assert_eq!(machine.state(peer(2)), Some(NeighborState::Reachable));
        assert_eq!(machine.seen(3, peer(2), B, how), [format!("set 10.0.0.2 {B}"), "stale 10.0.0.2".into()]);
        assert_eq!(machine.state(peer(2)), Some(NeighborState::Stale));
    }
}

#[test]
fn question_from_a_neighbour_that_is_waited_for_ends_the_wait() {
    let mut machine = Machine::new(10);
    machine.miss(0, peer(2));
    assert_eq!(
        machine.seen(1, peer(2), A, Sighting::Question),
        [format!("set 10.0.0.2 {A}"), "stale 10.0.0.2".into()]
    );
    // The packets that waited were a use.
    machine.table.on_used(1, peer(2));
    assert_eq!(machine.poll(1), ["probe 10.0.0.2"]);
}

#[test]
fn miss_of_a_known_neighbour_repeats_the_update() {
    let mut machine = Machine::new(10);
    machine.miss(0, peer(2));
    machine.seen(1, peer(2), A, Sighting::Answer);
    assert_eq!(machine.miss(2, peer(2)), [format!("set 10.0.0.2 {A}")]);
}

#[test]
fn static_neighbour_is_never_asked_for_and_never_changes() {
    let mut machine = Machine::new(10);
    assert!(machine.table.set_static(0, peer(2), A, &mut machine.actions));
    assert_eq!(machine.poll(0), [format!("set 10.0.0.2 {A}")]);
    assert!(machine.seen(1, peer(2), B, Sighting::Answer).is_empty());
    machine.table.on_used(2, peer(2));
    assert!(machine.poll(u64::MAX - 1).is_empty());
    assert_eq!(machine.table.need(3, peer(2), &mut machine.actions), NeighborState::Static);
    assert!(machine.table.remove(peer(2), &mut machine.actions));
    assert_eq!(machine.poll(4), ["forget 10.0.0.2"]);
    assert!(!machine.table.remove(peer(2), &mut machine.actions));
}

#[test]
fn full_table_gives_up_failed_then_stale_then_reachable_neighbours_for_a_need_only() {
    let mut machine = Machine::new(3);
    machine.table.set_static(0, peer(1), A, &mut machine.actions);
    machine.miss(0, peer(2));
    machine.seen(1, peer(2), A, Sighting::Answer);
    machine.seen(2, peer(3), B, Sighting::Question);
    machine.poll(2);
    // Strangers push nobody out.
    assert!(machine.seen(3, peer(9), B, Sighting::Question).is_empty());
    assert_eq!(machine.state(peer(9)), None);
    assert_eq!(machine.miss(4, peer(4)), ["forget 10.0.0.3", "probe 10.0.0.4"]);
    assert_eq!(machine.miss(5, peer(5)), ["forget 10.0.0.2", "probe 10.0.0.5"]);
    // A static one and two being asked for: no room.
    assert_eq!(machine.miss(6, peer(6)), ["drop 10.0.0.6", "failed 10.0.0.6"]);
    assert_eq!(machine.table.need(6, peer(6), &mut machine.actions), NeighborState::Failed);
    for second in 1..=3 {
        machine.poll(second * SECOND + 5);
    }
    assert_eq!(machine.miss(4 * SECOND, peer(6)), ["forget 10.0.0.4", "probe 10.0.0.6"]);
}

#[test]
fn snapshot_tells_what_workers_know() {
    let mut machine = Machine::new(10);
    machine.table.set_static(0, peer(1), A, &mut machine.actions);
    machine.miss(0, peer(2));
    machine.seen(0, peer(3), B, Sighting::Question);
    machine.poll(0);
    let mut updates = Vec::new();
    machine.table.snapshot(&mut updates);
    let (interface, one, three) = (InterfaceId(1), peer(1).addr, peer(3).addr);
    assert_eq!(
        updates,
        [
            NetUpdate::NeighborSet { interface, addr: one, mac: A },
            NetUpdate::NeighborSet { interface, addr: three, mac: B },
            NetUpdate::NeighborStale { interface, addr: three },
        ]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn whatever_happens_the_table_is_consistent_and_workers_end_up_knowing_the_same(
        steps in prop::collection::vec((0u8..8, 1u8..7, any::<bool>(), 0u64..3_000_000), 1..80),
    ) {
        let mut machine = Machine::new(4);
        let mut replica: BTreeMap<IpAddr, MacAddr> = BTreeMap::new();
        let mut now_us = 0;
        for (what, last, other, passed_us) in steps {
            now_us += passed_us;
            let mac = if other { A } else { B };
            let table = &mut machine.table;
            let actions = &mut machine.actions;
            match what {
                0 => { let _ = table.need(now_us, peer(last), actions); }
                1 => table.on_miss(now_us, peer(last), actions),
                2 => table.on_used(now_us, peer(last)),
                3 => table.on_seen(now_us, peer(last), mac, Sighting::Answer, actions),
                4 => table.on_seen(now_us, peer(last), mac, Sighting::Question, actions),
                5 => table.on_seen(now_us, peer(last), mac, Sighting::Announcement, actions),
                6 => { let _ = table.set_static(now_us, peer(last), mac, actions); }
                _ => { let _ = table.remove(peer(last), actions); }
            }
            table.poll(now_us, actions);
            table.check_consistency();
            prop_assert!(table.next_deadline_us().is_none_or(|due| due > now_us));
            for action in actions.drain(..) {
                match action {
                    RouterAction::Update(NetUpdate::NeighborSet { addr, mac, .. }) => { replica.insert(addr, mac); }
                    RouterAction::Update(NetUpdate::NeighborForgotten { addr, .. } | NetUpdate::NeighborFailed { addr, .. }) => {
                        replica.remove(&addr);
                    }
                    _ => {}
                }
            }
            let known: BTreeMap<_, _> = table.entries.iter().filter_map(|(hop, entry)| Some((hop.addr, entry.told()?))).collect();
            prop_assert_eq!(&known, &replica);
        }
    }
}

use super::*;
use crate::RouterAction;
use crate::ip_testing::*;

fn router() -> Router {
    let mut router = Router::default();
    router.add_interface(raw_interface()).unwrap();
    router.add_interface(ethernet_interface()).unwrap();
    router
}

fn route(prefix: &str, via: Option<&str>, interface: InterfaceId) -> Route {
    Route { domain: 0, prefix: cidr(prefix), via: via.map(ip), interface }
}

#[test]
fn interfaces_are_unique_by_number_name_and_address_in_their_domain() {
    let mut router = router();
    let third = InterfaceConfig {
        addresses: vec![cidr("172.16.0.1/30")],
        ..InterfaceConfig::new(InterfaceId(3), "third")
    };
    let refused = |router: &mut Router, change: &dyn Fn(&mut InterfaceConfig)| {
        let mut config = third.clone();
        change(&mut config);
        router.add_interface(config).unwrap_err()
    };
    assert_eq!(refused(&mut router, &|c| c.id = RAW), InterfaceError::IdInUse { id: RAW });
    assert_eq!(
        refused(&mut router, &|c| c.name = "eth".into()),
        InterfaceError::NameInUse { name: "eth".into() }
    );
    assert_eq!(
        refused(&mut router, &|c| c.addresses.push(cidr("10.0.0.1/32"))),
        InterfaceError::AddressInUse { addr: ip("10.0.0.1") }
    );
    assert_eq!(refused(&mut router, &|c| c.mtu = 10), InterfaceError::Mtu { mtu: 10, min: 576 });
    assert!(!router.is_local(0, ip("172.16.0.1")));
    // In another domain the same address is another.
    let update = router
        .add_interface(InterfaceConfig { domain: 5, addresses: vec![cidr("10.0.0.1/24")], ..third })
        .unwrap();
    assert!(matches!(update, NetUpdate::InterfaceAdded(config) if config.domain == 5));
    assert_eq!(router.addresses(5).collect::<Vec<_>>(), [ip("10.0.0.1")]);
    assert_eq!(
        router.lookup(5, ip("10.0.0.9")),
        Some(NextHop { interface: InterfaceId(3), addr: ip("10.0.0.9") })
    );
}

#[test]
fn ethernet_interface_gets_its_link_local_address() {
    let router = router();
    let ours = IpAddr::V6(crate::link_local(OURS));
    assert!(router.is_local(0, ours));
    assert_eq!(router.select_source(0, ip("fe80::2"), None), Ok(ours));
    assert_eq!(router.mtu(NextHop { interface: ETH, addr: ours }), Some(1500));
    assert_eq!(router.mtu(NextHop { interface: InterfaceId(9), addr: ours }), None);
}

#[test]
fn routes_are_checked_when_added_and_removed() {
    let mut router = router();
    for (bad, error) in [
        (
            route("0.0.0.0/0", Some("192.168.1.9"), InterfaceId(9)),
            RouteError::NoInterface { interface: InterfaceId(9) },
        ),
        (Route { domain: 3, ..route("0.0.0.0/0", None, ETH) }, RouteError::OtherDomain { domain: 0 }),
        (route("0.0.0.0/0", Some("fe80::1"), ETH), RouteError::FamilyMismatch),
        (route("0.0.0.0/0", Some("172.31.0.1"), ETH), RouteError::ViaNotOnLink { via: ip("172.31.0.1") }),
        (route("0.0.0.0/0", Some("192.168.1.1"), ETH), RouteError::ViaOurs { via: ip("192.168.1.1") }),
        (route("224.0.0.0/4", None, ETH), RouteError::Multicast),
        (route("192.168.1.77/24", None, RAW), RouteError::Exists),
    ] {
        assert_eq!(router.add_route(bad), Err(error), "{bad}");
        assert!(error.to_string().len() > 20);
    }
    let default = route("0.0.0.0/0", Some("192.168.1.254"), ETH);
    assert_eq!(router.add_route(default), Ok(NetUpdate::RouteAdded(default)));
    assert_eq!(router.add_route(default), Err(RouteError::Exists));
    assert_eq!(router.lookup(0, ip("8.8.8.8")).unwrap().addr, ip("192.168.1.254"));
    // Host bits do not count.
    let loose = router.add_route(route("10.5.5.5/16", None, RAW)).unwrap();
    assert_eq!(loose, NetUpdate::RouteAdded(route("10.5.0.0/16", None, RAW)));
    assert_eq!(router.routes().filter(|(_, connected)| !connected).count(), 2);
    assert_eq!(router.remove_route(0, cidr("192.168.1.0/24")), Err(RouteError::Connected));
    assert_eq!(router.remove_route(0, cidr("192.168.0.0/16")), Err(RouteError::NotFound));
    let removed = NetUpdate::RouteRemoved { domain: 0, prefix: cidr("0.0.0.0/0") };
    assert_eq!(router.remove_route(0, cidr("9.9.9.9/0")), Ok(removed));
    assert_eq!(router.lookup(0, ip("8.8.8.8")), None);
}

#[test]
fn neighbours_exist_on_ethernet_only() {
    let mut router = router();
    let mut actions = Vec::new();
    let raw = NextHop { interface: RAW, addr: ip("10.0.0.2") };
    let eth = NextHop { interface: ETH, addr: ip("192.168.1.2") };
    assert_eq!(router.need(0, raw, &mut actions), NeighborState::Static);
    router.on_event(0, NetEvent::NeighborMiss { interface: RAW, addr: raw.addr }, &mut actions);
    assert_eq!((router.next_deadline_us(), actions.len()), (None, 0));
    assert_eq!(router.need(7, eth, &mut actions), NeighborState::Incomplete);
    assert_eq!(router.next_deadline_us(), Some(7));
    router.poll(7, &mut actions);
    assert_eq!(actions, [RouterAction::Probe { interface: ETH, target: eth.addr }]);
    actions.clear();
    for (hop, mac, error) in [
        (raw, PEER, NeighborError::NoEthernet),
        (eth, MacAddr::BROADCAST, NeighborError::MacNotUnicast),
        (NextHop { addr: ip("192.168.1.1"), ..eth }, PEER, NeighborError::NotOnLink),
        (NextHop { addr: ip("8.8.8.8"), ..eth }, PEER, NeighborError::NotOnLink),
    ] {
        assert_eq!(router.set_static_neighbor(8, hop, mac, &mut actions), Err(error));
    }
    assert_eq!(router.set_static_neighbor(8, eth, PEER, &mut actions), Ok(()));
    assert_eq!(router.need(9, eth, &mut actions), NeighborState::Static);
    assert!(router.remove_neighbor(eth, &mut actions));
    assert_eq!(router.neighbors().count(), 0);
}

#[test]
fn snapshot_makes_a_replica_equal() {
    let mut bench = Bench::new();
    let mut actions = Vec::new();
    let next_hop = NextHop { interface: ETH, addr: ip("192.168.1.254") };
    bench.router.set_static_neighbor(0, next_hop, PEER, &mut actions).unwrap();
    let mut late = crate::IpPath::new(0, 1, hasher(), crate::IpLimits::default());
    for update in bench.router.snapshot() {
        late.apply(0, &update, &mut bench.pool);
    }
    bench.path = late;
    bench.sends("192.168.1.1", "8.8.8.8", b"x").unwrap();
    assert_eq!(bench.sent(ETH).len(), 1);
    bench.sends("10.0.0.1", "10.0.0.2", b"x").unwrap();
    assert_eq!(bench.sent(RAW).len(), 1);
}

/// The two ends of a wire, each in a domain of its own, resolve each other and talk over it, in one stack.
#[test]
fn two_domains_of_one_stack_talk_over_their_wire() {
    let ends = [(InterfaceId(1), 1, OURS, "10.0.0.1/24"), (InterfaceId(2), 2, PEER, "10.0.0.2/24")];
    let mut router = Router::default();
    let mut pool = crate::PacketPool::default();
    let mut path = crate::IpPath::new(0, 1, hasher(), crate::IpLimits::default());
    for (id, domain, mac, addr) in ends {
        let config = InterfaceConfig {
            domain,
            mac: Some(mac),
            addresses: vec![cidr(addr)],
            ..InterfaceConfig::new(id, format!("end{domain}"))
        };
        path.apply(0, &router.add_interface(config).unwrap(), &mut pool);
    }
    let flow = crate::OutFlow {
        domain: 1,
        src: ip("10.0.0.1"),
        dst: ip("10.0.0.2"),
        ip: hoststack_wire::IpFields::DEFAULT,
    };
    let mut out = crate::Received::default();
    path.tcp(0, &mut pool, flow, &segment_header(4000, 80), 1, |into| into.fill(9)).unwrap();
    for _ in 0..4 {
        let mut actions = Vec::new();
        let mut events = Vec::new();
        path.take_events(&mut events);
        events.drain(..).for_each(|event| router.on_event(0, event, &mut actions));
        for action in actions {
            match action {
                RouterAction::Update(update) => path.apply(0, &update, &mut pool),
                RouterAction::Probe { interface, target } => {
                    path.probe(interface, target, &mut pool).unwrap()
                }
                RouterAction::Failed { next_hop } => panic!("{next_hop} answers"),
            }
        }
        for (from, to) in [(InterfaceId(1), InterfaceId(2)), (InterfaceId(2), InterfaceId(1))] {
            let mut wire = std::mem::take(path.tx(from));
            path.input(0, to, &mut wire, &mut pool, &mut out);
        }
    }
    let [segment] = &out.segments[..] else { panic!("one segment was sent: {:?}", out.segments) };
    assert_eq!((segment.domain, segment.src, segment.dst), (2, ip("10.0.0.1"), ip("10.0.0.2")));
    // The answer needs no question: the far end learned the asker from its ARP request.
    let flow = crate::OutFlow {
        domain: 2,
        src: ip("10.0.0.2"),
        dst: ip("10.0.0.1"),
        ip: hoststack_wire::IpFields::DEFAULT,
    };
    path.tcp(0, &mut pool, flow, &segment_header(80, 4000), 0, |_| {}).unwrap();
    assert_eq!((path.tx(InterfaceId(2)).len(), path.drops().total()), (1, 0));
}

//! A path narrower than its ends: the kernel routes between us and a further namespace, over a link with a smaller MTU.
//!
//! Both ends agree on segments that fit their own links; the router says with ICMP that they are too large.

use std::net::{IpAddr, SocketAddr};

use hoststack_tests::Namespace;
use hoststack_tests::peers::{Socat, SocketState, count};
use hoststack_tests::wait;

use crate::world::{Family, LIMIT, World, assert_no_leaks, family_tests, number};

family_tests! {
    segments_are_cut_to_the_narrowest_link
}

/// A namespace behind the world's kernel, which routes to it with an MTU of 1300; its address.
fn far_end(world: &World, family: Family) -> (Namespace, IpAddr) {
    let far = Namespace::new();
    let near = &world.namespace;
    near.sysctl("ipv4/ip_forward", "1");
    near.sysctl("ipv6/conf/all/forwarding", "1");
    near.run("ip", &["link", "add", "far0", "type", "veth", "peer", "name", "near0", "netns", far.name()]);
    let (router, host, ours, option) = match family {
        Family::V4 => ("10.10.0.1/24", "10.10.0.2/24", "10.9.0.0/24", "-4"),
        Family::V6 => ("fd10::1/64", "fd10::2/64", "fd09::/64", "-6"),
    };
    let add = |namespace: &Namespace, address: &str, device: &str| {
        let mut arguments = vec![option, "address", "add", address, "dev", device];
        if family == Family::V6 {
            arguments.push("nodad");
        }
        namespace.run("ip", &arguments);
        namespace.run("ip", &["link", "set", "dev", device, "up"]);
    };
    add(near, router, "far0");
    add(&far, host, "near0");
    let address = |cidr: &str| cidr.split_once('/').expect("a prefix length").0.to_owned();
    let (router, host) = (address(router), address(host));
    far.run("ip", &[option, "route", "add", ours, "via", &router]);
    // More specific than the link's own route.
    let one = format!("{host}/{}", if family == Family::V4 { 32 } else { 128 });
    near.run("ip", &[option, "route", "add", &one, "dev", "far0", "mtu", "lock", "1300"]);
    (far, host.parse().expect("an address"))
}

fn segments_are_cut_to_the_narrowest_link(family: Family) {
    let world = World::new();
    let (far, host) = far_end(&world, family);
    let at = SocketAddr::new(host, 7);
    let _server = Socat::echo_server(&far, at);
    wait::until("socat to listen", wait::READY, || (count(&far, 7, SocketState::Listen) == 1).then_some(()));
    let all = if family == Family::V4 { "0.0.0.0/0" } else { "::/0" };
    let route = format!("{all}={}", family.kernel());
    let arguments = ["--route", &route, "--sessions", "5", "--waves", "1", "--bytes", "200k"];
    let report = world.echo_client(family, at, &arguments).wait(LIMIT).success().json();
    assert_no_leaks(&report);
    assert_eq!((number(&report, "/connected"), number(&report, "/bytes_echoed")), (5, 5 * 204_800));
    // Otherwise nothing was too large, and nothing was shown.
    assert!(number(&report, "/retransmitted_segments") > 0, "{report:#}");
}

//! The kernel-peer harness tried by itself: two ends that are both the kernel's.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use hoststack_tests::peers::{self, HTTP_PORT, Nginx, Pinged, Socat, ping};
use hoststack_tests::{Namespace, Process, Queues, Tap, content, skip_unless_net_admin, wait};

fn has_namespace(name: &str) -> bool {
    let output = Command::new("ip").args(["netns", "list"]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().any(|line| line.split_whitespace().next() == Some(name))
}

#[test]
fn namespace_exists_until_it_is_dropped() {
    skip_unless_net_admin!();
    let namespace = Namespace::new();
    let name = namespace.name().to_owned();
    assert!(has_namespace(&name));
    drop(namespace);
    assert!(!has_namespace(&name));
}

#[test]
fn sysctl_inside_leaves_the_outside_alone() {
    skip_unless_net_admin!();
    let outside = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_syn_retries").unwrap();
    let namespace = Namespace::new();
    assert_eq!(namespace.read_sysctl("ipv6/conf/default/accept_dad"), "0");
    namespace.sysctl("ipv4/tcp_syn_retries", "3");
    assert_eq!(namespace.read_sysctl("ipv4/tcp_syn_retries"), "3");
    assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/tcp_syn_retries").unwrap(), outside);
}

#[test]
fn sockets_made_inside_work_from_outside() {
    skip_unless_net_admin!();
    let namespace = Namespace::new();
    let listener = peers::listen(&namespace, "127.0.0.1:0".parse().unwrap());
    let at = listener.local_addr().unwrap();
    assert!(TcpStream::connect(at).is_err(), "nothing listens there outside");
    let mut near = namespace.enter(|| TcpStream::connect(at)).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    near.write_all(b"through").unwrap();
    let mut bytes = [0; 7];
    far.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"through");
    peers::reset(near);
    assert_eq!(far.read(&mut bytes).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn nginx_serves_its_files_over_both_families() {
    skip_unless_net_admin!();
    let namespace = Namespace::new();
    let mut nginx = Nginx::start(&namespace, "location = /none { return 404; }");
    let sum = nginx.add_file("big", 5_000_000, 1);
    let dir = tempfile::tempdir().unwrap();
    for host in ["127.0.0.1", "[::1]"] {
        let got = dir.path().join("got");
        let url = format!("http://{host}:{HTTP_PORT}/big");
        namespace.run("curl", &["-sSf", "-m", "10", "-o", got.to_str().unwrap(), &url]);
        assert_eq!(content::sha256(&got), sum);
    }
    let url = format!("http://127.0.0.1:{HTTP_PORT}/none");
    let _ = namespace.spawn("curl", &["-sf", "-m", "10", &url]).wait(wait::READY).failure();
    assert!(nginx.process().is_running());
}

#[test]
fn socat_brings_a_file_back_identical() {
    skip_unless_net_admin!();
    let namespace = Namespace::new();
    let at: SocketAddr = "[::1]:7".parse().unwrap();
    let _server = Socat::echo_server(&namespace, at);
    wait::until("socat to listen", wait::READY, || namespace.enter(|| TcpStream::connect(at)).ok());
    let dir = tempfile::tempdir().unwrap();
    let (sent, back) = (dir.path().join("sent"), dir.path().join("back"));
    let sum = content::write_file(&sent, 3_000_000, 2);
    let _ = Socat::exchange(&namespace, at, &sent, &back).wait(wait::READY).success();
    assert_eq!(content::sha256(&back), sum);
}

#[test]
fn ping_counts_replies_of_both_families_and_silence() {
    skip_unless_net_admin!();
    let namespace = Namespace::new();
    let all = Pinged { sent: 3, received: 3 };
    assert_eq!(ping(&namespace, IpAddr::V4(Ipv4Addr::LOCALHOST), 3), all);
    assert_eq!(ping(&namespace, IpAddr::V6(Ipv6Addr::LOCALHOST), 3), all);
    // A route that leads into a device nobody holds.
    let _tap = Tap::create(&namespace, "hs0", Queues::Single).with_address("10.9.0.1/24");
    assert_eq!(ping(&namespace, "10.9.0.2".parse().unwrap(), 2).received, 0);
}

/// A program that attaches to the device `name`, or makes it, and throws away what the kernel sends.
fn hold(namespace: &Namespace, name: &str) -> Process {
    let device = format!("TUN,tun-name={name},tun-type=tap,iff-no-pi");
    namespace.spawn("socat", &["-u", &device, "OPEN:/dev/null"])
}

#[test]
fn tap_reports_its_holder() {
    skip_unless_net_admin!();
    for queues in [Queues::Single, Queues::Multi] {
        let namespace = Namespace::new();
        let tap = Tap::create(&namespace, "hs0", queues)
            .with_address("10.9.0.1/24")
            .with_address("fd09::1/64")
            .with_mtu(1400);
        let link = namespace.run("ip", &["-brief", "link", "show", "dev", tap.name()]);
        assert!(!link.contains("LOWER_UP"), "{link}");
        if queues == Queues::Single {
            // socat cannot attach to a device of several queues.
            let _holder = hold(&namespace, tap.name());
            tap.wait_attached();
        }
        let addresses = namespace.run("ip", &["-brief", "address", "show", "dev", tap.name()]);
        assert!(addresses.contains("10.9.0.1/24") && addresses.contains("fd09::1/64"), "{addresses}");
    }
}

#[test]
fn a_device_that_another_makes_is_adopted() {
    skip_unless_net_admin!();
    let namespace = Namespace::new();
    let _maker = hold(&namespace, "hs1");
    let tap = Tap::adopt(&namespace, "hs1").with_address("10.9.1.1/24");
    tap.wait_attached();
    assert_eq!(tap.neighbours(), "");
}

#[test]
fn a_black_hole_swallows_without_a_word() {
    skip_unless_net_admin!();
    let namespace = Namespace::new();
    namespace.black_hole("10.77.0.0/16");
    namespace.black_hole("fd77::/32");
    assert_eq!(namespace.read_sysctl("ipv4/ip_forward"), "1");
    assert_eq!(namespace.read_sysctl("ipv6/conf/all/forwarding"), "1");
    assert!(namespace.run("ip", &["-4", "route"]).contains("blackhole 10.77.0.0/16"));
    assert!(namespace.run("ip", &["-6", "route"]).contains("blackhole fd77::/32"));
}

#[test]
fn a_process_inside_dies_with_its_handle() {
    skip_unless_net_admin!();
    let namespace = Namespace::new();
    let process = namespace.spawn("sleep", &["1000"]);
    let id = process.id();
    drop(process);
    let gone = wait::poll(Duration::from_secs(5), || (!hoststack_tests::process::exists(id)).then_some(()));
    assert!(gone.is_some());
}

use std::io::Write as _;
use std::net::UdpSocket;
use std::process::Command;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;

/// Runs `body` on a thread in a network namespace of its own, unless that is not permitted.
fn in_namespace(body: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // SAFETY: unshare takes no pointer. It moves this thread only, which ends with the namespace.
            let moved = unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0;
            if !moved || OpenOptions::new().read(true).write(true).open("/dev/net/tun").is_err() {
                // Past the test runner's capture, so that a run tells that it left something out.
                std::io::stderr().write_all(b"skipped: needs CAP_NET_ADMIN\n").unwrap();
                return;
            }
            body();
        });
    });
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

fn config(name: &str) -> TapConfig {
    TapConfig { name: name.to_owned(), bring_up: true, ..TapConfig::default() }
}

/// Waits until one of `queues` is readable; false after five seconds.
fn wait(queues: &[Box<dyn DeviceQueue>]) -> bool {
    // SAFETY: the queues own these descriptors and outlive the call.
    let borrow = |fd| unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    let fds: Vec<_> = queues.iter().filter_map(|queue| queue.wait_fd()).map(borrow).collect();
    let mut fds: Vec<_> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    poll(&mut fds, Some(&Timespec { tv_sec: 5, tv_nsec: 0 })).unwrap() > 0
}

/// Receives until a frame of `ether_type` comes, on any queue: its queue and the frame.
fn receive(queues: &mut [Box<dyn DeviceQueue>], pool: &mut PacketPool, ether_type: u16) -> (usize, Packet) {
    loop {
        let mut packets = Vec::new();
        for (index, queue) in queues.iter_mut().enumerate() {
            while queue.receive(0, pool, &mut packets, 1) == 1 {
                let packet = packets.pop().unwrap();
                if packet.data()[12..14] == ether_type.to_be_bytes() {
                    return (index, packet);
                }
                pool.give(packet);
            }
        }
        assert!(wait(queues), "no frame of type {ether_type:#x} came");
    }
}

/// The answer to an ARP request: `mac` has the address asked for.
fn arp_reply(request: &[u8], mac: MacAddr) -> Packet {
    let mut reply = request[..42].to_vec();
    reply[..6].copy_from_slice(&request[6..12]);
    reply[6..12].copy_from_slice(&mac.0);
    reply[21] = 2;
    reply[22..28].copy_from_slice(&mac.0);
    reply[28..32].copy_from_slice(&request[38..42]);
    reply[32..42].copy_from_slice(&request[22..32]);
    Packet::copy_of(&reply)
}

/// A UDP datagram (without checksum) from the receiver of `frame` to its sender.
fn udp_answer(frame: &[u8], payload: &[u8]) -> Packet {
    let mut answer = frame[..42].to_vec();
    answer[..6].copy_from_slice(&frame[6..12]);
    answer[6..12].copy_from_slice(&frame[..6]);
    answer[26..30].copy_from_slice(&frame[30..34]);
    answer[30..34].copy_from_slice(&frame[26..30]);
    answer[34..36].copy_from_slice(&frame[36..38]);
    answer[36..38].copy_from_slice(&frame[34..36]);
    let length = 8 + payload.len() as u16;
    answer[16..18].copy_from_slice(&(20 + length).to_be_bytes());
    answer[38..40].copy_from_slice(&length.to_be_bytes());
    answer[40..42].fill(0);
    answer[24..26].fill(0);
    let sum: u32 = answer[14..34].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    answer[24..26].copy_from_slice(&sum.to_be_bytes());
    answer.extend(payload);
    Packet::copy_of(&answer)
}

#[test]
fn kernel_and_tap_exchange_frames() {
    in_namespace(|| {
        let tap = Tap::open(&config("hs0")).unwrap();
        assert_eq!((tap.name(), tap.mtu()), ("hs0", 1500));
        let mac = tap.mac().unwrap();
        let mut queues = Box::new(tap).into_queues(1).unwrap();
        let mut pool = PacketPool::default();
        ip("addr add 10.9.0.1/24 dev hs0");
        let socket = UdpSocket::bind("10.9.0.1:5000").unwrap();
        socket.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        socket.send_to(b"ping", "10.9.0.2:7").unwrap();

        let (_, request) = receive(&mut queues, &mut pool, 0x0806);
        assert_eq!(request.data()[38..42], [10, 9, 0, 2]);
        let mut packets = vec![arp_reply(request.data(), mac)];
        assert_eq!(queues[0].transmit(0, &mut pool, &mut packets), 1);

        let (_, frame) = receive(&mut queues, &mut pool, 0x0800);
        assert_eq!(frame.data()[..6], mac.0);
        assert_eq!(&frame.data()[42..], b"ping");
        assert_eq!(frame.data()[14..].as_ptr().align_offset(4), 0, "the IP header is aligned");
        packets.push(udp_answer(frame.data(), b"pong"));
        packets.push(Packet::copy_of(&[0; 1515]));
        assert_eq!(queues[0].transmit(0, &mut pool, &mut packets), 2);
        let mut answer = [0; 9];
        assert_eq!(socket.recv_from(&mut answer).unwrap().0, 4);
        assert_eq!(&answer[..4], b"pong");

        let counters = queues[0].counters();
        assert_eq!((counters.tx_packets, counters.tx_dropped_too_long, counters.tx_dropped_error), (2, 1, 0));
        assert!(counters.rx_packets >= 2);
    });
}

#[test]
fn every_queue_transmits_and_the_kernel_receives_all() {
    for multi_queue in [false, true] {
        in_namespace(|| {
            let tap = Tap::open(&TapConfig { multi_queue, ..config("hs1") }).unwrap();
            let mac = tap.mac().unwrap();
            assert_eq!(tap.capabilities().receive_queues, usize::from(!multi_queue));
            let mut queues = Box::new(tap).into_queues(3).unwrap();
            let readers = queues.iter().filter(|queue| queue.wait_fd().is_some()).count();
            assert_eq!(readers, if multi_queue { 3 } else { 1 });
            let mut pool = PacketPool::default();
            ip("addr add 10.9.0.1/24 dev hs1");
            let socket = UdpSocket::bind("10.9.0.1:5000").unwrap();
            socket.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
            socket.send_to(b"first", "10.9.0.2:7").unwrap();
            let (_, request) = receive(&mut queues, &mut pool, 0x0806);
            queues[2].transmit(0, &mut pool, &mut vec![arp_reply(request.data(), mac)]);
            let (_, frame) = receive(&mut queues, &mut pool, 0x0800);
            assert_eq!(&frame.data()[42..], b"first");
            for queue in &mut queues {
                assert_eq!(queue.transmit(0, &mut pool, &mut vec![udp_answer(frame.data(), b"x")]), 1);
                assert_eq!(socket.recv_from(&mut [0; 9]).unwrap().0, 1);
                assert_eq!(queue.counters().tx_dropped_error, 0);
            }
            // Frames of many flows arrive, whichever queues the kernel chose.
            for port in 100..164 {
                socket.send_to(b"many", ("10.9.0.2", port)).unwrap();
            }
            for _ in 100..164 {
                let (queue, frame) = receive(&mut queues, &mut pool, 0x0800);
                assert_eq!(&frame.data()[42..], b"many");
                assert!(multi_queue || queue == 0);
                pool.give(frame);
            }
        });
    }
}

#[test]
fn burst_limit_is_kept_and_an_empty_queue_gives_nothing() {
    in_namespace(|| {
        let mut queues = Box::new(Tap::open(&config("hs2")).unwrap()).into_queues(1).unwrap();
        ip("addr add 10.9.0.1/24 dev hs2");
        ip("neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev hs2");
        let socket = UdpSocket::bind("10.9.0.1:0").unwrap();
        for _ in 0..10 {
            socket.send_to(b"x", "10.9.0.2:7").unwrap();
        }
        let (mut pool, mut packets) = (PacketPool::default(), Vec::new());
        assert!(wait(&queues));
        assert_eq!(queues[0].receive(0, &mut pool, &mut packets, 4), 4);
        while queues[0].receive(0, &mut pool, &mut packets, 4) == 4 {}
        let ours = packets.iter().filter(|p| p.data()[12..14] == [8, 0]).count();
        assert_eq!(ours, 10);
        let allocated = pool.allocated();
        assert_eq!(queues[0].receive(0, &mut pool, &mut packets, 4), 0);
        assert_eq!(pool.allocated(), allocated);
    });
}

#[test]
fn frame_that_does_not_fit_the_pools_buffers_is_dropped() {
    in_namespace(|| {
        let mut queues = Box::new(Tap::open(&config("hs3")).unwrap()).into_queues(1).unwrap();
        ip("addr add 10.9.0.1/24 dev hs3");
        ip("neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev hs3");
        UdpSocket::bind("10.9.0.1:0").unwrap().send_to(&[0; 1000], "10.9.0.2:7").unwrap();
        let (mut pool, mut packets) = (PacketPool::new(512, 8), Vec::new());
        while queues[0].counters().rx_dropped_too_long == 0 {
            assert!(wait(&queues));
            queues[0].receive(0, &mut pool, &mut packets, 4);
        }
        assert!(packets.iter().all(|p| p.len() < 400));
    });
}

#[test]
fn interface_that_is_down_or_gone_is_counted_and_not_polled_for_ever() {
    in_namespace(|| {
        let tap = Tap::open(&TapConfig { bring_up: false, ..config("hs4") }).unwrap();
        let mut queues = Box::new(tap).into_queues(1).unwrap();
        let mut pool = PacketPool::default();
        let mut packets = vec![Packet::copy_of(&[0; 60])];
        assert_eq!(queues[0].transmit(0, &mut pool, &mut packets), 1);
        assert_eq!(queues[0].counters().tx_dropped_error, 1);
        assert_eq!(queues[0].receive(0, &mut pool, &mut packets, 4), 0);
        assert!(queues[0].wait_fd().is_some());
        ip("link del hs4");
        assert_eq!(queues[0].receive(0, &mut pool, &mut packets, 4), 0);
        assert_eq!(queues[0].wait_fd(), None);
        assert_eq!(queues[0].counters().rx_errors, 1);
    });
}

#[test]
fn open_errors_say_what_to_do() {
    let long = Tap::open(&config("a-name-that-is-too-long")).unwrap_err();
    assert!(matches!(long, TapError::BadName { .. }));
    assert!(long.to_string().contains("1 to 15 bytes"));
    assert!(matches!(Tap::open(&config("a/b")), Err(TapError::BadName { .. })));
    in_namespace(|| {
        let tap = Tap::open(&config("hs5")).unwrap();
        let busy = Tap::open(&config("hs5")).unwrap_err();
        assert!(matches!(busy, TapError::Busy { .. }), "{busy}");
        assert_eq!(io::Error::from(busy).kind(), io::ErrorKind::ResourceBusy);
        let multi = Tap::open(&TapConfig { multi_queue: true, ..config("hs5") }).unwrap_err();
        assert!(matches!(multi, TapError::WrongKind { .. }), "{multi}");
        let kind = Tap::open(&config("lo")).unwrap_err();
        assert!(matches!(kind, TapError::WrongKind { .. }), "{kind}");
        drop(tap);
        assert!(Tap::open(&config("hs5")).is_ok(), "a dropped TAP is gone and may be made again");

        // SAFETY: the raw system call takes three ids and changes those of this thread only, which ends soon.
        let result = unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) };
        assert_eq!(result, 0);
        let denied = Tap::open(&config("hs6")).unwrap_err();
        assert!(matches!(denied, TapError::NotPermitted { .. }), "{denied}");
        assert!(denied.to_string().contains("needs CAP_NET_ADMIN"));
    });
}

#[test]
fn empty_name_lets_the_kernel_choose_and_a_given_mac_is_kept() {
    in_namespace(|| {
        let mac = MacAddr([0x02, 1, 2, 3, 4, 5]);
        let tap = Tap::open(&TapConfig { mac: Some(mac), ..TapConfig::default() }).unwrap();
        assert_eq!((tap.name(), tap.mac()), ("tap0", Some(mac)));
        ip("link set tap0 mtu 1400");
        assert_eq!(mtu_of("tap0").unwrap(), 1400);
    });
}

#[test]
fn derived_address_is_local_unicast_and_follows_the_name() {
    let (a, b) = (derived_mac("tap0"), derived_mac("tap1"));
    assert_ne!(a, b);
    assert_eq!(a, derived_mac("tap0"));
    assert_eq!(a.0[0] & 0b11, 0b10);
}

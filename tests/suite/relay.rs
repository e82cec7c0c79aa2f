//! The emulated link between two kernels, and a short comparison over it: see `hoststack_tests::relay`. Precision and the
//! comparison proper are for a machine that does nothing else:
//! `cargo run --release -p hoststack-tests --bin beside_kernel -- --validate`.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use hoststack::app::Algorithm;
use hoststack_tests::relay::bulk::{Sender, transfer};
use hoststack_tests::relay::path::FAR;
use hoststack_tests::relay::{Near, Path, Shape};
use hoststack_tests::wait::Stopwatch;
use hoststack_tests::{Namespace, peers, skip_unless_net_admin};

const MS: u64 = 1_000_000;

fn link(rate_bits_per_second: u64, delay_ms: u64, loss: f64) -> Shape {
    Shape { rate_bits_per_second, delay_ns: delay_ms * MS, buffer_bytes: 200_000, loss, seed: 1 }
}

#[test]
fn round_trip_takes_both_delays_and_bytes_arrive_as_sent() {
    skip_unless_net_admin!();
    let mut path = Path::new(Near::Kernel, [link(0, 40, 0.0), link(0, 60, 0.0)]);
    let listener = peers::listen(&path.far, SocketAddr::new(FAR, 7));
    let watch = Stopwatch::start();
    let mut near = peers::connect(&path.near, SocketAddr::new(FAR, 7)).unwrap();
    // SYN and SYN-ACK; not less, however slow the machine.
    assert!(watch.elapsed() >= Duration::from_millis(100), "{:?}", watch.elapsed());
    let mut far = peers::accept(&listener);
    near.write_all(b"over the link").unwrap();
    let mut bytes = [0; 13];
    far.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"over the link");
    let pumped = path.stop();
    assert!(
        pumped.forward.arrived >= 3 && pumped.forward.lost + pumped.forward.overflowed == 0,
        "{pumped:?}"
    );
}

#[test]
fn transfer_is_never_faster_than_the_link_and_loses_what_the_link_loses() {
    skip_unless_net_admin!();
    for sender in [Sender::Kernel("cubic"), Sender::Ours(Algorithm::DEFAULT)] {
        let near = if matches!(sender, Sender::Kernel(_)) { Near::Kernel } else { Near::Stack };
        let mut path = Path::new(near, [link(8_000_000, 5, 0.02), link(0, 5, 0.0)]);
        let (length, warm_up) = (Duration::from_millis(1500), Duration::from_millis(300));
        let moved = transfer(&path, sender, length, warm_up).unwrap();
        let pumped = path.stop();
        // What waited in the receiver when its app was late comes on top: 2 % at most in a valid run, a lot in none.
        assert!(moved.goodput_whole > 0.0 && moved.goodput_whole < 10e6, "{sender:?}: {moved:?}");
        assert!(pumped.forward.lost > 0 && pumped.forward.arrived > 100, "{sender:?}: {pumped:?}");
        // 8 Mbit/s are 1 byte in a microsecond: what arrived had that time, and no more is on its way than the buffer holds.
        assert!(pumped.forward.arrived_bytes <= pumped.ran_ns / 1000, "{sender:?}: {pumped:?}");
    }
}

#[test]
fn hosts_and_link_are_gone_with_the_path_even_when_its_owner_panics() {
    skip_unless_net_admin!();
    let exists = |name: &str| std::fs::exists(format!("/run/netns/{name}")).unwrap();
    let names = |path: &Path| [&path.near, &path.far].map(Namespace::name).map(str::to_owned);
    let path = Path::new(Near::Stack, [link(0, 1, 0.0); 2]);
    let made = names(&path);
    assert!(made.iter().all(|name| exists(name)));
    drop(path);
    assert!(!made.iter().any(|name| exists(name)));

    let (told, name) = std::sync::mpsc::channel();
    let owner = std::thread::Builder::new().spawn(move || {
        let path = Path::new(Near::Kernel, [link(0, 1, 0.0); 2]);
        told.send(names(&path)).unwrap();
        panic!("on purpose");
    });
    assert!(owner.unwrap().join().is_err());
    assert!(!name.recv().unwrap().iter().any(|name| exists(name)));
}

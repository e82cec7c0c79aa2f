//! One workload of ours, a few times, for a profiler: `one conn 64`, `one conn 64 100000`, `one rr 1000`, `one bulk 1`,
//! `one bulk 1000 inplace`, `one peer 64`, `one memory`, `one latency`; `one kernel 64`, `one kernel+unix 64` and
//! `one local 64` are `conn` over another transport, `one epoll 64` and `one epoll+unix 64` the bare loops beside them. A
//! trailing `threads` runs the threaded stack, `virtual` one whose every run is the same. `COUNT`, `ROUNDS` and `FIFO` are
//! read from the environment.

use hoststack_benches::Work;
use hoststack_benches::ours::{
    self, Bulk, BulkMode, BulkOptions, Conn, ConnOptions, Rr, RrOptions, Threads, Via,
};
use hoststack_benches::peer::{self, BulkPeer, ConnPeer, EpollPeer, EpollSockets, RrPeer};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let threads = match words.last().map(String::as_str) {
        Some("threads") => Threads::Own,
        Some("virtual") => Threads::Virtual,
        _ => Threads::None,
    };
    let number = |at: usize, or: usize| words.get(at).and_then(|word| word.parse().ok()).unwrap_or(or);
    let env = |name: &str, or: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(or);
    let (count, rounds) = (env("COUNT", 0), env("ROUNDS", 5));
    let show = |what: &str, work: &Work| {
        println!(
            "{what}: {:.0} op/cpu-s {:.0} op/s {:.2} Gbit/cpu-s, {} ops in {:.3} s",
            work.rate_cpu(),
            work.rate_wall(),
            work.gbit_per_cpu_second(),
            work.operations,
            work.wall_seconds
        );
    };
    match words.first().map(String::as_str) {
        Some(what @ ("conn" | "kernel" | "kernel+unix" | "local")) => {
            let via = match what {
                "kernel" => Via::KernelTcp,
                "kernel+unix" => Via::KernelUnix,
                "local" => Via::Local,
                _ => Via::Tcp,
            };
            let count = match count {
                0 if via.is_kernel() => 20_000,
                0 => 200_000,
                count => count,
            };
            let idle = number(2, 0);
            let room = (4 * idle + 2 * count as usize + 100_000).next_power_of_two();
            let mut ours = Conn::new(&ConnOptions { via, threads, in_flight: number(1, 64), idle, room });
            for _ in 0..rounds {
                show(what, &ours.run(count, 20.0));
            }
        }
        Some("rr") => {
            let count = if count == 0 { 1_000_000 } else { count };
            let mut ours =
                Rr::new(&RrOptions { threads, connections: number(1, 1000), ..RrOptions::default() });
            for _ in 0..rounds {
                show("rr", &ours.run(count, 20.0));
            }
        }
        Some("bulk") => {
            let count = if count == 0 { 4 << 30 } else { count };
            let flows = number(1, 1);
            let mode =
                if words.iter().any(|word| word == "inplace") { BulkMode::InPlace } else { BulkMode::Copies };
            let fifo_bytes = env("FIFO", if flows > 1 { 64 << 10 } else { 256 << 10 }) as u32;
            let mut ours = Bulk::new(&BulkOptions { threads, flows, fifo_bytes, mode, verify: false });
            for _ in 0..rounds {
                show("bulk", &ours.run(count, 20.0));
            }
            for worker in ours.inspect().workers {
                println!(
                    "{:?} {:?}",
                    worker.tcp,
                    worker.drops.iter().map(|d| (&d.reason, d.count)).collect::<Vec<_>>()
                );
            }
        }
        Some("peer") => {
            let options = peer::ConnOptions { in_flight: number(1, 64), ..peer::ConnOptions::default() };
            let mut peer = ConnPeer::new(&options);
            for _ in 0..rounds {
                show("peer conn", &peer.run(if count == 0 { 200_000 } else { count }, 20.0));
            }
        }
        Some(what @ ("epoll" | "epoll+unix")) => {
            let sockets = if what == "epoll" { EpollSockets::Tcp } else { EpollSockets::Unix };
            match EpollPeer::new(sockets, number(1, 64)) {
                Ok(mut peer) => {
                    for _ in 0..rounds {
                        show(what, &peer.run(if count == 0 { 20_000 } else { count }, 20.0));
                    }
                }
                Err(error) => eprintln!("{what}: {error}"),
            }
        }
        Some("peerrr") => {
            let mut peer =
                RrPeer::new(&peer::RrOptions { connections: number(1, 1000), ..peer::RrOptions::default() });
            for _ in 0..rounds {
                show("peer rr", &peer.run(if count == 0 { 200_000 } else { count }, 5.0, None));
            }
        }
        Some("peerbulk") => {
            let mut peer = BulkPeer::new(&peer::BulkOptions::default());
            for _ in 0..rounds {
                show("peer bulk", &peer.run(if count == 0 { 4 << 30 } else { count }, 20.0));
            }
        }
        Some("memory") => {
            let count = if count == 0 { 200_000 } else { count } as usize;
            for held in [ours::Held::HalfOpens, ours::Held::Sessions] {
                match ours::memory(held, count) {
                    Ok(work) => println!("{held:?}: {:.0} B", work.bytes_per_operation()),
                    Err(error) => eprintln!("{held:?}: {error}"),
                }
            }
        }
        Some("latency") => {
            let latency = ours::connect_latency(1000);
            println!("connect: p50 {} ns, p99 {} ns, max {} ns", latency.p50(), latency.p99(), latency.max());
        }
        _ => eprintln!(
            "one conn|rr|bulk|memory|latency|kernel|kernel+unix|local|epoll|epoll+unix|peer|peerrr|peerbulk ..."
        ),
    }
}

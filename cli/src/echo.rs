//! `hoststack echo`: thousands of outbound connections through the stack, each byte echoed and verified.
//!
//! Without `--device` both halves run in one stack: the client in routing domain 0, the server in domain 1, joined by a
//! wire in memory that may be impaired, so that every byte crosses TCP segments. With `--device` the client half runs
//! alone, towards an echo server elsewhere.

mod summary;
mod tls;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use hoststack::app::{
    Address, AppId, AttachOptions, ConnectOptions, DetachPolicy, DomainId, ListenOptions, SocketOptions,
    StagePlans,
};
use hoststack::net::{
    Capture, Cidr, Device, ImpairmentCounters, Impairments, MemoryWireConfig, impair, memory_wire,
};
use hoststack::{Answer, Builder, InterfaceSpec, Query, Stack, StackConfig};
use hoststack_builtin::{EchoClient, EchoClientHandle, EchoClientOptions, EchoServer};
use indicatif::ProgressBar;

use self::summary::{Held, Outcome, Summary};
use crate::clock::Stopwatch;
use crate::devices;
use crate::error::CliError;
use crate::host::{Host, not_built};
use crate::interrupt::Interrupt;
use crate::output;
use crate::parse::{self, Route};
use crate::progress::{self, Counts};

/// Open outbound connections, echo bytes over each, verify them.
#[derive(Args, Debug)]
pub(crate) struct EchoArgs {
    /// Connections to open.
    #[arg(long, default_value_t = 10_000)]
    sessions: u32,
    /// Bytes that each sends and expects back (suffixes k, M).
    #[arg(long, default_value = "1024", value_parser = parse::byte_count)]
    bytes: u64,
    /// Open them in so many waves; a wave begins when the one before has ended.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    waves: u32,
    /// Worker threads; 0: no threads at all, everything is stepped here [default: cores - 1, 1 to 4].
    #[arg(long)]
    workers: Option<usize>,
    /// What carries the connections: this stack's TCP over a wire in memory, sockets of this host, or nothing (fifo to
    /// fifo inside the stack).
    #[arg(long, value_enum, default_value_t, conflicts_with = "device")]
    transport: TransportArg,
    /// Over IPv6 (without --device).
    #[arg(long, conflicts_with = "device")]
    ipv6: bool,
    /// Packets lost, in per cent, in each direction.
    #[arg(long, value_name = "PER CENT", default_value = "0", value_parser = parse::per_cent)]
    loss: f64,
    /// Packets overtaken by later ones, in per cent, in each direction.
    #[arg(long, value_name = "PER CENT", default_value = "0", value_parser = parse::per_cent)]
    reorder: f64,
    /// Packets that arrive twice, in per cent, in each direction.
    #[arg(long, value_name = "PER CENT", default_value = "0", value_parser = parse::per_cent)]
    duplicate: f64,
    /// Delay of each packet, one way: milliseconds, or with a unit (250us, 1.5ms).
    #[arg(long, default_value = "0", value_parser = parse::duration_or_millis)]
    delay: Duration,
    /// Start of all chance: impairments, ports, initial sequence numbers. Without it the stack's are secret.
    #[arg(long)]
    seed: Option<u64>,
    /// When a connect that nothing answers has failed.
    #[arg(long, default_value = "30s", value_parser = parse::timeout)]
    connect_timeout: Duration,
    /// Keep all connections open until the last is up, look at them, then detach the client with all of them.
    #[arg(long)]
    hold: bool,
    /// Cancel so many of the connects, in per cent, each at a random moment: it has no other outcome, or had one first.
    #[arg(long, value_name = "PER CENT", default_value = "0", value_parser = parse::per_cent)]
    cancel: f64,
    /// Right behind this share of the connects, in per cent, detach the client's app worker with all that is pending
    /// and open, and attach another one for the rest.
    #[arg(long, value_name = "PER CENT", value_parser = parse::per_cent)]
    detach_at: Option<f64>,
    /// Run the client alone, over this device (tap:NAME), towards --peer.
    #[arg(long, value_name = "tap:NAME", value_parser = parse::tap_name, requires = "address", requires = "peer")]
    device: Option<String>,
    /// Our address on --device with its network (10.9.0.2/24); may be given several times.
    #[arg(long, value_name = "CIDR", requires = "device")]
    address: Vec<Cidr>,
    /// A route over --device (CIDR=GATEWAY); may be given several times.
    #[arg(long, value_name = "CIDR=GATEWAY", requires = "device")]
    route: Vec<Route>,
    /// The echo server, as ADDRESS:PORT.
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse::endpoint, requires = "device")]
    peer: Option<SocketAddr>,
    /// Write every packet to this file (pcapng).
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// A transport of `--transport`.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TransportArg {
    /// This stack's TCP.
    #[default]
    #[value(name = "tcp")]
    Tcp,
    /// TCP sockets of this host, over its loopback.
    #[value(name = "kernel", alias = "kernel+tcp")]
    KernelTcp,
    /// Unix sockets of this host.
    #[value(name = "kernel+unix")]
    KernelUnix,
    /// Fifo to fifo.
    #[value(name = "local")]
    Local,
    /// TLS over this stack's TCP.
    #[value(name = "tls+tcp")]
    TlsTcp,
    /// TLS over TCP sockets of this host.
    #[value(name = "tls+kernel+tcp", alias = "tls+kernel")]
    TlsKernelTcp,
    /// TLS over Unix sockets of this host.
    #[value(name = "tls+kernel+unix")]
    TlsKernelUnix,
    /// TLS from fifo to fifo.
    #[value(name = "tls+local")]
    TlsLocal,
}

impl TransportArg {
    /// Its name on the command line.
    fn name(self) -> &'static str {
        match self {
            TransportArg::Tcp => "tcp",
            TransportArg::KernelTcp => "kernel",
            TransportArg::KernelUnix => "kernel+unix",
            TransportArg::Local => "local",
            TransportArg::TlsTcp => "tls+tcp",
            TransportArg::TlsKernelTcp => "tls+kernel+tcp",
            TransportArg::TlsKernelUnix => "tls+kernel+unix",
            TransportArg::TlsLocal => "tls+local",
        }
    }

    /// What carries it, without TLS; and whether there is TLS.
    fn base(self) -> (TransportArg, bool) {
        match self {
            TransportArg::TlsTcp => (TransportArg::Tcp, true),
            TransportArg::TlsKernelTcp => (TransportArg::KernelTcp, true),
            TransportArg::TlsKernelUnix => (TransportArg::KernelUnix, true),
            TransportArg::TlsLocal => (TransportArg::Local, true),
            plain => (plain, false),
        }
    }
}

/// Connections per client address: well below the 64 512 ports, as TIME-WAIT keeps each for a minute.
const SESSIONS_PER_ADDRESS: u32 = 28_000;
/// Most server addresses that connections are spread over.
const SERVERS_MAX: u32 = 4;
/// Most client addresses: half of the network below.
const CLIENTS_MAX: u32 = 60_000;
/// The well-known port of the echo service (RFC 862).
const ECHO_PORT: u16 = 7;
/// Packets that one queue of the wire holds: a wave's SYNs fit.
const RING_PACKETS: usize = 4096;
const CLIENT: DomainId = DomainId(0);
const SERVER: DomainId = DomainId(1);

/// Runs `hoststack echo`.
///
/// # Errors
/// Bad arguments, a device that cannot be had, a session that did not end as it should, something leaked.
pub(crate) fn echo(args: &EchoArgs) -> Result<(), CliError> {
    let interrupt = Interrupt::catch()?;
    let capture = args.pcap.as_deref().map(devices::start_capture).transpose()?;
    let (base, has_tls) = args.transport.base();
    let plan = match (&args.device, base) {
        (Some(name), _) => Plan::over_device(args, name, capture.as_ref())?,
        (None, TransportArg::Tcp) => Plan::in_memory(args, capture.as_ref())?,
        (None, _) => Plan::without_packets(args)?,
    };
    let Plan { builder, mut remotes, mut servers, wires, addresses, _socket } = plan;
    let tls = if has_tls { Some(tls::pair()?) } else { None };
    if let Some((_, server)) = &tls {
        for listen in servers.iter_mut().flatten() {
            listen.stages = StagePlans::one(server.clone());
        }
    }
    let config = StackConfig { seed: args.seed, ..StackConfig::default() };
    let mut host = Host::start(builder.config(config), workers(args)).map_err(not_built)?;
    let server = servers.map(|listen| attach_server(&mut host, listen)).transpose()?;
    if let Some((_, up)) = &server
        && remotes.is_empty()
    {
        let to = |at: &Address| ConnectOptions {
            socket: SocketOptions::NODELAY,
            ..ConnectOptions::to(at.clone())
        };
        remotes = up.iter().map(to).collect();
    }
    if let Some((client, _)) = &tls {
        for remote in &mut remotes {
            remote.stages = StagePlans::one(client.clone());
        }
    }
    let options = EchoClientOptions {
        sessions: args.sessions,
        bytes: args.bytes,
        waves: args.waves,
        hold: args.hold,
        timeout: Some(args.connect_timeout),
        seed: args.seed.unwrap_or(0),
        cancel: args.cancel,
        detach_at: args.detach_at(),
        ..EchoClientOptions::to(remotes)
    };
    let client = EchoClient::new(options).map_err(CliError::usage)?;
    let outcome = run_client(&mut host, args, client, &interrupt)?;
    if let Some((server, _)) = server {
        host.detach(server, DetachPolicy::default()).map_err(CliError::failed)?;
    }
    let end = host.quiescent().map_err(CliError::failed)?;
    drop(host);
    devices::end_capture(capture.as_ref());

    let summary = Summary::new(args, &outcome, &end, &wires, addresses);
    output::print(&summary.output(args.json, &end))?;
    if outcome.interrupted {
        return Err(CliError::failed("interrupted: the apps were detached before all sessions had ended"));
    }
    summary.verdict(args).map_err(CliError::failed)
}

fn workers(args: &EchoArgs) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    args.workers.unwrap_or_else(|| cores().saturating_sub(1).clamp(1, 4))
}

// ---- The stage: interfaces and where to connect ----

/// What the run takes place on.
struct Plan {
    builder: Builder,
    /// Where to connect; none: to where the server then listens.
    remotes: Vec<ConnectOptions>,
    /// Where the server listens; `None`: it is elsewhere.
    servers: Option<Vec<ListenOptions>>,
    /// What the wire did, in each direction that is ours.
    wires: Vec<Arc<ImpairmentCounters>>,
    /// Client addresses in use.
    addresses: usize,
    /// Where a Unix socket lies, until the run is over.
    _socket: Option<tempfile::TempDir>,
}

/// Connections to one address of the host's loopback: as many as it has ephemeral ports, by default.
const SESSIONS_PER_HOST_ADDRESS: u32 = 20_000;

impl Plan {
    /// Two domains joined by a wire in memory.
    fn in_memory(args: &EchoArgs, capture: Option<&Arc<Capture>>) -> Result<Plan, CliError> {
        let clients = args.sessions.div_ceil(SESSIONS_PER_ADDRESS).max(1);
        if clients > CLIENTS_MAX {
            let most = u64::from(CLIENTS_MAX) * u64::from(SESSIONS_PER_ADDRESS);
            return Err(CliError::usage(format!("too many sessions: give at most {most}")));
        }
        let servers = clients.min(SERVERS_MAX);
        let names = ["client".to_owned(), "server".to_owned()];
        let (one, other) = memory_wire(MemoryWireConfig {
            names,
            ring_packets: RING_PACKETS,
            ..MemoryWireConfig::default()
        });
        // Captured at one end only: what the client's end sends before it is lost, what it receives after.
        let one = impair(devices::captured(one, capture), args.impairments(0));
        let other = impair(Box::new(other), args.impairments(1));
        let wires = vec![one.impairment_counters(), other.impairment_counters()];
        let interface = |device: Box<dyn Device>, domain, addresses| InterfaceSpec {
            domain,
            device,
            addresses,
            routes: Vec::new(),
        };
        let client_cidrs: Vec<Cidr> = (0..clients).map(|n| client_address(n, args.ipv6)).collect();
        let server_cidrs: Vec<Cidr> = (0..servers).map(|n| server_address(n, args.ipv6)).collect();
        let remotes = client_cidrs
            .iter()
            .flat_map(|from| {
                server_cidrs.iter().map(move |to| remote(from.addr(), SocketAddr::new(to.addr(), ECHO_PORT)))
            })
            .collect();
        let listen = |to: &Cidr| ListenOptions {
            domain: SERVER,
            socket: SocketOptions::NODELAY,
            ..ListenOptions::on(SocketAddr::new(to.addr(), ECHO_PORT))
        };
        Ok(Plan {
            remotes,
            servers: Some(server_cidrs.iter().map(listen).collect()),
            wires,
            addresses: client_cidrs.len(),
            _socket: None,
            builder: Stack::builder()
                .interface(interface(Box::new(one), CLIENT, client_cidrs))
                .interface(interface(Box::new(other), SERVER, server_cidrs)),
        })
    }

    /// The client alone, over a TAP.
    fn over_device(args: &EchoArgs, name: &str, capture: Option<&Arc<Capture>>) -> Result<Plan, CliError> {
        let peer =
            args.peer.ok_or_else(|| CliError::usage("--device needs --peer ADDR:PORT, the echo server"))?;
        let own: Vec<IpAddr> = args
            .address
            .iter()
            .map(Cidr::addr)
            .filter(|address| address.is_ipv4() == peer.is_ipv4())
            .collect();
        if own.is_empty() {
            return Err(CliError::usage(format!("no --address is of the family of --peer {peer}: give one")));
        }
        let device = impair(devices::captured(devices::tap(name, false)?, capture), args.impairments(0));
        let wires = vec![device.impairment_counters()];
        let spec = InterfaceSpec {
            domain: CLIENT,
            device: Box::new(device),
            addresses: args.address.clone(),
            routes: args.route.iter().map(|route| (route.to, route.via)).collect(),
        };
        Ok(Plan {
            builder: Stack::builder().interface(spec),
            addresses: own.len(),
            remotes: own.into_iter().map(|from| remote(from, peer)).collect(),
            servers: None,
            wires,
            _socket: None,
        })
    }

    /// A transport that needs no interface.
    fn without_packets(args: &EchoArgs) -> Result<Plan, CliError> {
        let is_impaired =
            args.loss > 0.0 || args.reorder > 0.0 || args.duplicate > 0.0 || !args.delay.is_zero();
        if is_impaired || args.pcap.is_some() {
            return Err(CliError::usage(
                "--loss, --reorder, --duplicate, --delay and --pcap need packets: use them with --transport tcp",
            ));
        }
        let listen = |at: Address| ListenOptions { socket: SocketOptions::NODELAY, ..ListenOptions::on(at) };
        let mut socket = None;
        let transport = args.transport.base().0;
        let servers = match transport {
            TransportArg::Local => vec![listen(Address::local("echo").map_err(CliError::failed)?)],
            TransportArg::KernelUnix => {
                let dir = tempfile::tempdir().map_err(CliError::failed)?;
                let path = dir.path().join("echo.sock");
                let at = Address::kernel_unix(&path.to_string_lossy()).map_err(CliError::failed)?;
                socket = Some(dir);
                vec![listen(at)]
            }
            // The others are not bases, or not without packets.
            _ => {
                // The loopback of IPv6 is one address.
                let count = if args.ipv6 {
                    1
                } else {
                    args.sessions.div_ceil(SESSIONS_PER_HOST_ADDRESS).clamp(1, 250)
                };
                let at = |n: u32| match args.ipv6 {
                    true => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 0),
                    false => SocketAddr::new(Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + n).into(), 0),
                };
                (0..count).map(|n| listen(Address::KernelTcp(at(n).into()))).collect()
            }
        };
        if transport != TransportArg::Local {
            devices::allow_many_sockets();
        }
        Ok(Plan {
            builder: Stack::builder(),
            remotes: Vec::new(),
            servers: Some(servers),
            wires: Vec::new(),
            addresses: 1,
            _socket: socket,
        })
    }
}

impl EchoArgs {
    /// The connect behind which the app worker is detached, counted from 1: at least the first, so that something is
    /// pending.
    fn detach_at(&self) -> Option<u32> {
        // Cannot be more than the sessions because the share is 1 at most.
        let connect = |share: f64| (share * f64::from(self.sessions)).ceil() as u32;
        self.detach_at.map(connect).filter(|_| self.sessions > 0).map(|connect| connect.max(1))
    }

    /// What the wire does in one direction; the two draw from different seeds.
    fn impairments(&self, direction: u64) -> Impairments {
        Impairments {
            seed: self.seed.unwrap_or(0).wrapping_mul(2).wrapping_add(direction),
            loss: self.loss,
            reorder: self.reorder,
            duplicate: self.duplicate,
            delay_us: u64::try_from(self.delay.as_micros()).unwrap_or(u64::MAX),
            ..Impairments::default()
        }
    }
}

fn remote(from: IpAddr, to: SocketAddr) -> ConnectOptions {
    ConnectOptions {
        local_addr: Some(from),
        domain: CLIENT,
        socket: SocketOptions::NODELAY,
        ..ConnectOptions::to(to)
    }
}

/// The `n`th address of the client: the lower half of the network for benchmarks (RFC 2544 §C.2.2, RFC 5180 §8).
fn client_address(n: u32, ipv6: bool) -> Cidr {
    benchmark_address(0, n + 1, ipv6)
}

/// The `n`th address of the server: the upper half.
fn server_address(n: u32, ipv6: bool) -> Cidr {
    benchmark_address(1, n + 1, ipv6)
}

/// `host` is 1 to 65534.
fn benchmark_address(half: u16, host: u32, ipv6: bool) -> Cidr {
    let (addr, prefix_len) = if ipv6 {
        let [high, low] = [host >> 16, host & 0xffff].map(|part| part as u16);
        (IpAddr::V6(Ipv6Addr::new(0x2001, 2, 0, half, 0, 0, high, low)), 48)
    } else {
        let base = u32::from(Ipv4Addr::new(198, 18, 0, 0)) | u32::from(half) << 16;
        (IpAddr::V4(Ipv4Addr::from(base + host)), 15)
    };
    Cidr::new(addr, prefix_len).expect("cannot fail because the prefixes are shorter than the addresses")
}

// ---- The run ----

/// Attaches the server; where it listens.
fn attach_server(host: &mut Host, listen: Vec<ListenOptions>) -> Result<(AppId, Vec<Address>), CliError> {
    let server = EchoServer::new(listen);
    let (up, stats) = (server.listening(), server.stats());
    let attached = host.attach(server, AttachOptions::named("echo-server")).map_err(CliError::failed)?;
    host.run_until(&up, || stats.listening().is_some());
    let listening = stats.listening().unwrap_or_default();
    match listening.failed.into_iter().next() {
        None => Ok((attached.app, listening.up.into_iter().map(|(_, at)| at).collect())),
        Some((at, error)) => Err(CliError::failed(format!("cannot listen on {at}: {error}"))),
    }
}

/// Attaches the client, watches it to its end, detaches it.
fn run_client(
    host: &mut Host,
    args: &EchoArgs,
    client: EchoClient,
    interrupt: &Interrupt,
) -> Result<Outcome, CliError> {
    let handle = client.handle();
    let bar = progress::bar(Counts::Sessions, u64::from(args.sessions), args.json);
    let watch = Stopwatch::start();
    let attached = host.attach(client, AttachOptions::named("echo-client")).map_err(CliError::failed)?;
    let run_until = |host: &mut Host, done: &dyn Fn() -> bool| {
        host.run_until(handle.events(), || {
            bar.set_position(look(&handle, args.hold));
            interrupt.is_set() || done()
        });
    };
    if args.detach_at().is_some() {
        run_until(host, &|| handle.detach_report().is_some());
        // What was told is known now, and would only keep the next wait from waiting.
        handle.events().try_iter().for_each(drop);
        if !interrupt.is_set() {
            host.attach_worker(attached.app).map_err(CliError::failed)?;
        }
    }
    run_until(host, &|| if args.hold { handle.is_complete() } else { handle.is_done() });
    let (seconds, cpu_seconds) = (watch.seconds(), watch.cpu_seconds());
    finish(&bar, interrupt);
    let interrupted = interrupt.is_set();
    let held = if args.hold { Some(look_at_held(host, &handle)?) } else { None };
    // A user who waits for the end waits for a second; a hundred thousand sessions take longer to close.
    let linger = if interrupted { Duration::from_secs(1) } else { Duration::from_secs(30) };
    let report = host.detach(attached.app, DetachPolicy::Close { linger }).map_err(CliError::failed)?;
    Ok(Outcome {
        detach: handle.detach_report().cloned(),
        totals: handle.stats().totals(),
        latency: handle.stats().connect_latency_us(),
        report,
        held,
        seconds,
        cpu_seconds,
        interrupted,
    })
}

fn look(handle: &EchoClientHandle, hold: bool) -> u64 {
    let ended = u64::from(handle.progress().0);
    if hold { ended + handle.stats().totals().held } else { ended }
}

fn finish(bar: &ProgressBar, interrupt: &Interrupt) {
    if interrupt.is_set() { bar.abandon_with_message("interrupted") } else { bar.finish() }
}

/// Asks for what `show session` shows, and how long that takes with all sessions open.
fn look_at_held(host: &mut Host, handle: &EchoClientHandle) -> Result<Held, CliError> {
    let watch = Stopwatch::start();
    let Answer { session_summary, .. } = host.inspect(Query::sessions(0, false)).map_err(CliError::failed)?;
    let show_session_seconds = watch.seconds();
    Ok(Held { sessions: handle.stats().totals().held, show_session_seconds, session_summary })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_distinct_and_in_the_networks_for_benchmarks() {
        assert_eq!(client_address(0, false).to_string(), "198.18.0.1/15");
        assert_eq!(server_address(1, false).to_string(), "198.19.0.2/15");
        assert_eq!(client_address(CLIENTS_MAX - 1, false).to_string(), "198.18.234.96/15");
        assert_eq!(client_address(0, true).to_string(), "2001:2::1/48");
        assert_eq!(server_address(0, true).to_string(), "2001:2:0:1::1/48");
        for ipv6 in [false, true] {
            assert!(client_address(0, ipv6).contains(server_address(SERVERS_MAX - 1, ipv6).addr()));
        }
    }
}

//! `hoststack run -c FILE`: a long-running stack, with servers and a control socket.

pub(crate) mod config;

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use hoststack::app::{AttachOptions, DetachError, DetachPolicy, DetachReport, DomainId};
use hoststack::inspect::AppInfo;
use hoststack::net::{Capture, Device, Loopback, MemoryWire, MemoryWireConfig, memory_wire};
use hoststack::{Builder, InterfaceSpec, Query, Stack, StackConfig, StackHandle};
use hoststack_builtin::{Discard, EchoServer};
use toml::Spanned;

use self::config::{AppConfig, CliConfig, Config, DeviceConfig, Kind, Limits, RouteConfig, StatusConfig};
use crate::clock::Stopwatch;
use crate::ctl::commands::options::{Runtime, Values};
use crate::ctl::console::Services;
use crate::ctl::format;
use crate::ctl::server::{BoundSocket, Shared};
use crate::devices;
use crate::error::CliError;
use crate::host::{Host, not_built};

use crate::interrupt::EndSignals;
use crate::log;
use crate::output::print;
use crate::parse::DeviceName;
use crate::status::StatusServer;

/// Run a stack from a configuration file until SIGTERM or SIGINT.
///
/// The first detaches every app and says what is left; a SIGINT after it ends at once. SIGHUP opens the `file` of [log] anew.
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// The configuration file (TOML).
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Read and check the file, then end.
    #[arg(long)]
    check: bool,
}

/// Runs `hoststack run`.
///
/// # Errors
/// A file that is wrong, a device or an endpoint that cannot be had, something leaked at the end.
pub(crate) fn run(args: &RunArgs) -> Result<(), CliError> {
    let file = &args.config;
    let text = std::fs::read_to_string(file)
        .map_err(|error| CliError::usage(format!("cannot read {}: {error}", file.display())))?;
    let config = config::parse(&text).map_err(|error| CliError::usage(error.message(file)))?;
    if args.check {
        return print(&format!("{}: good\n", file.display()));
    }
    let setup = config.log();
    let log = log::start(&setup)?;
    // Caught and bound before there is anything that an end or a second stack would leave behind.
    let mut signals = EndSignals::catch(setup.file.is_some())?;
    let bind = |cli: &CliConfig| BoundSocket::bind(&cli.path(), cli.level());
    let sockets = config.cli.iter().map(bind).collect::<Result<Vec<_>, CliError>>()?;
    devices::allow_many_sockets();
    let running = start(&config)?;
    let shared = Arc::new(Shared {
        stack: running.stack.handle(),
        services: Services {
            config: config::effective::settings(&text, &stack_config(&config)),
            started: Some(Stopwatch::start()),
            log: Some(log.control()),
            runtime: Runtime::new(Values::of(&stack_config(&config))),
            trusted: config.trusted().map_err(|mistake| CliError::usage(mistake.to_string()))?,
        },
        sockets: sockets.iter().map(BoundSocket::state).collect(),
    });
    let serve = |socket: BoundSocket| socket.serve(Arc::clone(&shared));
    let served = sockets.into_iter().map(serve).collect::<Result<Vec<_>, CliError>>()?;
    let workers = config.workers.get_ref();
    let endpoints = config.app.iter().map(|app| app.listen.len()).sum::<usize>();
    let control: String =
        served.iter().map(|served| format!(", control socket {}", served.path().display())).collect();
    let pages = running.status.iter().flat_map(StatusServer::addresses);
    let pages: String = pages.map(|page| format!(", status page {page}")).collect();
    print(&format!("ready: workers {workers}, endpoints {endpoints}{control}{pages}\n"))?;
    // Outside the event: what an event is made of is not looked at when nobody listens.
    let signal = signals.wait(|| log.reopen());
    tracing::info!(signal, "detaching every app");
    // First no more commands, then no more apps.
    drop((served, shared));
    running.end()
}

/// A stack with its apps.
struct Running {
    stack: Stack,
    status: Option<StatusServer>,
    captures: Vec<Arc<Capture>>,
}

impl Running {
    /// Detaches every app, says how that ended, and stops.
    fn end(self) -> Result<(), CliError> {
        let handle = self.stack.handle();
        let stopped = |error| CliError::failed(format!("the stack stopped by itself: {error}"));
        let mut late = false;
        let apps = handle.inspect(Query::Summary).map_err(stopped)?.apps;
        for apps in apps.chunks(DETACHES) {
            for (app, result) in apps.iter().zip(detach_all(&handle, apps)) {
                match result {
                    Ok(report) => {
                        late |= report.app_workers.iter().any(|report| !report.stuck.is_empty());
                        print(&format::detached(&report.name, &report.app_workers))?;
                    }
                    // A command of the control socket is detaching it: that is as good.
                    Err(error) => tracing::info!(app = app.name, %error, "not detached"),
                }
            }
        }
        // Its app is gone: nobody asks it any more, and it must not ask either while what is held is counted.
        drop(self.status);
        let mut host = Host::threads(self.stack);
        let answer = host.quiescent().map_err(stopped)?;
        print(&format::leaks(&answer.leaks, answer.time_wait))?;
        drop(host);
        self.captures.iter().for_each(|capture| devices::end_capture(Some(capture)));
        match (answer.leaks.is_clean(), late) {
            (true, false) => Ok(()),
            (false, _) => Err(CliError::failed("something is still held after every app was detached")),
            (true, true) => {
                Err(CliError::failed("a worker did not answer a detach in time: a callback hung"))
            }
        }
    }
}

/// Apps that are detached at a time, a thread each: a call waits for its app's sessions.
const DETACHES: usize = 16;

fn detach_all(handle: &StackHandle, apps: &[AppInfo]) -> Vec<Result<DetachReport, DetachError>> {
    std::thread::scope(|scope| {
        let detach = |app: &AppInfo| {
            let app = app.id;
            scope.spawn(move || handle.detach(app, DetachPolicy::default()))
        };
        let threads: Vec<_> = apps.iter().map(detach).collect();
        // A panic on such a thread is one of ours: it goes on here.
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}

fn start(config: &Config) -> Result<Running, CliError> {
    let mut captures = Vec::new();
    let mut builder = Stack::builder().config(stack_config(config)).workers(*config.workers.get_ref());
    builder = interfaces(builder, &config.device, &mut captures)?;
    let stack = builder.start().map_err(not_built)?;
    let handle = stack.handle();
    for app in &config.app {
        attach(&handle, app, config)
            .map_err(|error| CliError::failed(format!("app {:?}: {error}", app.name.get_ref())))?;
    }
    let serve = |status: &StatusConfig| {
        let places = status.places(config).map_err(|mistake| mistake.to_string())?;
        StatusServer::start(&handle, places, status.public)
    };
    let status = config.status.as_ref().map(serve).transpose();
    let status = status.map_err(|error| CliError::failed(format!("[status]: {error}")))?;
    Ok(Running { stack, status, captures })
}

fn stack_config(config: &Config) -> StackConfig {
    let Limits {
        sessions,
        fifo_chunks,
        apps,
        app_workers,
        listeners,
        pending_connects,
        time_wait,
        rx_burst,
        tx_burst,
    } = config.limits;
    let mut config = StackConfig { session_log: config.log().sessions, ..StackConfig::default() };
    let fields = [
        (&mut config.sessions.sessions, sessions),
        (&mut config.sessions.chunks, fifo_chunks),
        (&mut config.apps_max, apps),
        (&mut config.app_workers_max, app_workers),
        (&mut config.listeners_max, listeners),
        (&mut config.pending_connects_max, pending_connects),
        (&mut config.tcp.time_wait_max, time_wait),
        (&mut config.rx_burst_max, rx_burst),
        (&mut config.tx_burst_max, tx_burst),
    ];
    for (field, limit) in fields {
        if let Some(limit) = limit {
            *field = limit.0;
        }
    }
    if let Some(sessions) = sessions {
        config.tcp.connections_max = sessions.0;
    }
    if let Some(listeners) = listeners {
        config.tcp.listeners_max = listeners.0;
    }
    config
}

fn interfaces(
    mut builder: Builder,
    devices: &[DeviceConfig],
    captures: &mut Vec<Arc<Capture>>,
) -> Result<Builder, CliError> {
    // A file that several devices name is one capture with several interfaces.
    let mut files: BTreeMap<&Path, Arc<Capture>> = BTreeMap::new();
    let mut wires: BTreeMap<&str, MemoryWire> = BTreeMap::new();
    for (index, device) in devices.iter().enumerate() {
        let point = match device.pcap.as_deref() {
            None => None,
            Some(file) => Some(match files.get(file) {
                Some(point) => Arc::clone(point),
                None => {
                    let point = devices::start_capture(file)?;
                    captures.push(Arc::clone(&point));
                    files.insert(file, Arc::clone(&point));
                    point
                }
            }),
        };
        let carrier: Box<dyn Device> = match &**device.name.get_ref() {
            DeviceName::Tap(name) => {
                let multi_queue = device.multi_queue.as_ref().is_some_and(|value| *value.get_ref());
                devices::captured(devices::tap(name, multi_queue)?, point.as_ref())
            }
            DeviceName::Wire(name) => {
                let end = wires.remove(name.as_str()).unwrap_or_else(|| {
                    let names = [format!("{name}.0"), format!("{name}.1")];
                    let (one, other) = memory_wire(MemoryWireConfig { names, ..MemoryWireConfig::default() });
                    wires.insert(name, other);
                    one
                });
                devices::captured(end, point.as_ref())
            }
            DeviceName::Loopback => {
                let name = if index == 0 { "lo".to_owned() } else { format!("lo{index}") };
                devices::captured(Loopback { name, ..Loopback::default() }, point.as_ref())
            }
        };
        let route = |route: &Spanned<RouteConfig>| {
            let RouteConfig { to, via } = route.get_ref();
            (**to, via.map(|via| via.ip()))
        };
        builder = builder.interface(InterfaceSpec {
            domain: DomainId(device.domain),
            device: carrier,
            addresses: device.addresses().map_err(CliError::usage)?,
            routes: device.routes.iter().map(route).collect(),
        });
    }
    Ok(builder)
}

/// Attaches an app, and listens for its app workers in turn.
fn attach(handle: &StackHandle, app: &AppConfig, config: &Config) -> Result<(), Box<dyn std::error::Error>> {
    let mut options = AttachOptions::named(app.name.get_ref().clone());
    options.app_workers = app.app_workers();
    // The endpoints are listened on below, so that each app worker has its share and each failure is known.
    let attached = match app.kind {
        Kind::Echo => handle.attach(EchoServer::new(Vec::new()), options)?,
        Kind::Discard => handle.attach(Discard::new(Vec::new()), options)?,
    };
    let places = app.places(config.default_transport()).map_err(|mistake| mistake.to_string())?;
    let tls = app.tls().map_err(|mistake| mistake.to_string())?;
    for (local, &app_worker) in places.into_iter().zip(attached.app_workers.iter().cycle()) {
        let options = app.listens_on(local.clone(), tls.as_ref());
        handle.listen(app_worker, options).map_err(|error| format!("{local}: {error}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;

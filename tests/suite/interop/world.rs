//! A stack in a namespace with all transports, and an app that notes whom it is told of.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hoststack::app::proxy::{Declared, ParseOptions, ReceiveProxy, Versions};
use hoststack::app::{
    Address, AppWorker, AppWorkerId, Application, AttachOptions, ConnectFailure, Context, DetachPolicy,
    FlowKey, ListenOptions, Protocol, SessionHandle, StagePlans, WorkerId,
};
use hoststack::inspect::WorkerInfo;
use hoststack::net::{Tap as OurTap, TapConfig};
use hoststack::{InterfaceSpec, Query, Stack, StackHandle};
use hoststack_tests::{Finished, Namespace, Process, Queues, Tap, wait};
use parking_lot::Mutex;
use tempfile::TempDir;

/// Time for any one thing: generous, a busy machine is slow.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Name of the TAP.
pub(crate) const DEVICE: &str = "hs0";

/// A way between us and a program of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    KernelV4,
    KernelV6,
    KernelUnix,
    /// Our TCP, over the TAP.
    OursV4,
    OursV6,
}

impl Via {
    pub(crate) const ALL: [Via; 5] =
        [Via::KernelV4, Via::KernelV6, Via::KernelUnix, Via::OursV4, Via::OursV6];

    /// Where we are: the address of what listens on our side, and of what connects from it.
    pub(crate) fn our_ip(self) -> Option<IpAddr> {
        self.ip(["127.0.0.1", "::1", "10.9.0.2", "fd09::2"])
    }

    /// Where the host's programs are.
    pub(crate) fn their_ip(self) -> Option<IpAddr> {
        self.ip(["127.0.0.1", "::1", "10.9.0.1", "fd09::1"])
    }

    fn ip(self, [kernel_v4, kernel_v6, ours_v4, ours_v6]: [&str; 4]) -> Option<IpAddr> {
        let text = match self {
            Via::KernelV4 => kernel_v4,
            Via::KernelV6 => kernel_v6,
            Via::OursV4 => ours_v4,
            Via::OursV6 => ours_v6,
            Via::KernelUnix => return None,
        };
        Some(text.parse().expect("an address"))
    }

    /// The transport.
    pub(crate) fn protocol(self) -> Protocol {
        match self {
            Via::KernelV4 | Via::KernelV6 => Protocol::KernelTcp,
            Via::KernelUnix => Protocol::KernelUnix,
            Via::OursV4 | Via::OursV6 => Protocol::Tcp,
        }
    }
}

/// Where somebody listens: a port, or the Unix socket that stands for it.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    via: Via,
    ip: Option<IpAddr>,
    port: u16,
    path: PathBuf,
}

impl Place {
    /// As we call it.
    pub(crate) fn address(&self) -> Address {
        let Some(at) = self.endpoint() else {
            return Address::kernel_unix(&self.path.display().to_string()).expect("a short path");
        };
        match self.via.protocol() {
            Protocol::Tcp => Address::Tcp(at.into()),
            _ => Address::KernelTcp(at.into()),
        }
    }

    /// Its endpoint, unless it is a Unix socket.
    pub(crate) fn endpoint(&self) -> Option<SocketAddr> {
        self.ip.map(|ip| SocketAddr::new(ip, self.port))
    }

    /// Its Unix socket.
    pub(crate) fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// As HAProxy (`unix@PATH`) or nginx (`unix:PATH`) call it.
    pub(crate) fn written(&self, unix: &str) -> String {
        match self.endpoint() {
            Some(at) => at.to_string(),
            None => format!("{unix}{}", self.path.display()),
        }
    }
}

/// Something that the app was told.
#[derive(Clone, Debug)]
pub(crate) enum Note {
    /// A connection was accepted, by the listener with this number.
    Accepted { case: u64, flow: FlowKey, declared: Box<Declared> },
    /// It sent this.
    Bytes { case: u64, bytes: Vec<u8> },
    /// A connection was not accepted.
    NotAccepted { flow: FlowKey, failure: ConnectFailure },
}

/// Says who connected when it is asked with HTTP, and is an echo server else.
#[derive(Clone, Default)]
struct Witness {
    notes: Arc<Mutex<Vec<Note>>>,
}

impl Application for Witness {
    fn app_worker(&mut self, _unit: u32, _worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(self.clone())
    }
}

impl Witness {
    fn note(&self, note: Note) {
        self.notes.lock().push(note);
    }
}

impl AppWorker for Witness {
    fn accepted(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        let flow = ctx.flow(session).expect("it was accepted");
        let declared = Box::new(ctx.declared(session).expect("all listeners require a header").clone());
        self.note(Note::Accepted { case: ctx.opaque(session), flow, declared });
    }

    fn not_accepted(&mut self, _ctx: &mut Context<'_>, flow: &FlowKey, failure: ConnectFailure) {
        self.note(Note::NotAccepted { flow: *flow, failure });
    }

    fn readable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        let mut bytes = vec![0; ctx.rx_len(session)];
        let count = ctx.read(session, &mut bytes);
        bytes.truncate(count);
        let declared = ctx.declared(session).map_or("nobody".to_owned(), ToString::to_string);
        let is_http = bytes.starts_with(b"GET ");
        let answer = if is_http {
            let length = declared.len();
            format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{declared}")
                .into()
        } else {
            bytes.clone()
        };
        assert_eq!(ctx.write(session, &answer), answer.len(), "these are few bytes");
        self.note(Note::Bytes { case: ctx.opaque(session), bytes });
        if is_http {
            ctx.close(session);
        }
    }
}

/// A stack in a namespace.
pub(crate) struct World {
    // In the order in which they go: the stack before the namespace that it is in.
    pub(crate) handle: StackHandle,
    stack: Option<Stack>,
    witness: Witness,
    app_worker: AppWorkerId,
    pub(crate) namespace: Namespace,
    dir: TempDir,
}

impl World {
    /// One with an app that listens nowhere yet.
    pub(crate) fn new() -> World {
        let namespace = namespace();
        let stack = namespace.enter(|| {
            let config = TapConfig { name: DEVICE.to_owned(), ..TapConfig::default() };
            let device = OurTap::open(&config).expect("the device that was just made");
            let address = |ip: Option<IpAddr>, len: u8| {
                format!("{}/{len}", ip.expect("an IP transport")).parse().expect("a network")
            };
            let interface = InterfaceSpec::new(device)
                .address(address(Via::OursV4.our_ip(), 24))
                .address(address(Via::OursV6.our_ip(), 64));
            Stack::builder().workers(2).interface(interface).start().expect("a stack")
        });
        let handle = stack.handle();
        let witness = Witness::default();
        let attached =
            handle.attach(witness.clone(), AttachOptions::named("witness")).expect("its first app");
        World {
            handle,
            stack: Some(stack),
            witness,
            app_worker: attached.app_workers[0],
            namespace,
            dir: TempDir::new().expect("a directory for sockets and files"),
        }
    }

    /// A path in a directory that goes with the world.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A place on our side.
    pub(crate) fn ours(&self, via: Via, port: u16) -> Place {
        Place { via, ip: via.our_ip(), port, path: self.path(&format!("{port}.sock")) }
    }

    /// A place on the host's side.
    pub(crate) fn theirs(&self, via: Via, port: u16) -> Place {
        Place { via, ip: via.their_ip(), port, path: self.path(&format!("{port}.sock")) }
    }

    /// Listens there, with headers of `versions`; the notes carry `case`.
    pub(crate) fn listen(&self, at: &Place, case: u64, versions: Versions, stage_timeout: Duration) {
        let options = ParseOptions::DEFAULT.with_versions(versions);
        let listen = ListenOptions {
            opaque: case,
            stages: StagePlans::one(ReceiveProxy { options }),
            stage_timeout,
            ..ListenOptions::on(at.address())
        };
        self.handle.listen(self.app_worker, listen).unwrap_or_else(|error| panic!("{at:?}: {error}"));
    }

    /// What the app was told so far.
    pub(crate) fn notes(&self) -> Vec<Note> {
        self.witness.notes.lock().clone()
    }

    /// Waits for a note.
    #[track_caller]
    pub(crate) fn wait_for<T>(&self, what: &str, mut find: impl FnMut(&Note) -> Option<T>) -> T {
        let found = wait::poll(LIMIT, || self.notes().iter().find_map(&mut find));
        found.unwrap_or_else(|| panic!("waited in vain for {what}: {:#?}", self.notes()))
    }

    /// The connection that the listener `case` accepted.
    #[track_caller]
    pub(crate) fn accepted(&self, case: u64) -> (FlowKey, Declared) {
        self.wait_for(&format!("a connection of case {case}"), |note| match note {
            Note::Accepted { case: its, flow, declared } if *its == case => {
                Some((*flow, (**declared).clone()))
            }
            _ => None,
        })
    }

    /// The workers' figures.
    pub(crate) fn workers(&self) -> Vec<WorkerInfo> {
        self.handle.inspect(Query::Summary).expect("the stack runs").workers
    }

    /// Runs a program of the host's inside, to its end.
    #[track_caller]
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> Finished {
        self.start(program, arguments).wait(LIMIT)
    }

    /// Starts a program of the host's inside.
    pub(crate) fn start(&self, program: &str, arguments: &[&str]) -> Process {
        self.namespace.spawn(program, arguments)
    }

    /// Detaches all; nothing must be left.
    pub(crate) fn finish(mut self) {
        let apps = self.handle.inspect(Query::Summary).expect("the stack runs").apps;
        for app in apps {
            self.handle.detach(app.id, DetachPolicy::Reset).expect("it is attached");
        }
        let clean = wait::poll(LIMIT, || {
            let answer = self.handle.inspect(Query::Summary).expect("the stack runs");
            answer.leaks.is_clean().then_some(())
        });
        assert!(clean.is_some(), "{:?}", self.handle.inspect(Query::Summary).expect("it runs").leaks);
        drop(self.stack.take());
    }
}

/// A namespace with a TAP, and the host's addresses on it.
pub(crate) fn namespace() -> Namespace {
    let namespace = Namespace::new();
    let _ = Tap::create(&namespace, DEVICE, Queues::Single)
        .with_address("10.9.0.1/24")
        .with_address("fd09::1/64");
    namespace
}

/// What curl fetched, and the address that it connected from.
pub(crate) struct Curled {
    pub(crate) body: String,
    pub(crate) from: SocketAddr,
}

/// Fetches over HTTP with curl and these arguments.
#[track_caller]
pub(crate) fn curl(world: &World, arguments: &[&str]) -> Curled {
    hoststack_tests::peers::require("curl", "curl");
    let written = "\n%{local_ip} %{local_port}";
    let common = ["-sS", "--noproxy", "*", "-m", "50", "-w", written];
    let done = world.run("curl", &[&common, arguments].concat()).success();
    let (body, from) = done.stdout.rsplit_once('\n').expect("what -w wrote");
    let (ip, port) = from.split_once(' ').expect("an address and a port");
    // Over a Unix socket it has none.
    let ip = ip.parse().unwrap_or(IpAddr::from([0, 0, 0, 0]));
    Curled { body: body.to_owned(), from: SocketAddr::new(ip, port.parse().unwrap_or(0)) }
}

//! TLS beside openssl and curl: their clients at our listeners, our connects at their servers, and what is no TLS.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hoststack::app::proxy::ReceiveProxy;
use hoststack::app::{
    AppWorker, AppWorkerId, Application, AttachOptions, CloseReason, ConnectFailure, ConnectId,
    ConnectOptions, Context, FlowKey, ListenOptions, SessionHandle, StageCause, StageFailure, StagePlans,
    WorkerId,
};
use hoststack_builtin::EchoServer;
use hoststack_tests::peers::{Daemon, SocketState, count, require};
use hoststack_tests::{Process, skip_unless_net_admin, wait};
use hoststack_tls::{Client, ClientAuth, ClientOptions, Roots, Server, ServerOptions, Versions, info};
use parking_lot::Mutex;

use crate::certificates::{Certificate, Issuer};
use crate::world::{LIMIT, Place, Via, World, curl};

/// The name that our servers, and those that we connect to, are certified for.
const NAME: &str = "server.example.org";
/// Our listeners, a port for each case.
const OURS: u16 = 7400;
/// The servers of others, a port for each case.
const THEIRS: u16 = 8400;
/// How long stages wait for those that stay silent.
const SHORT: Duration = Duration::from_millis(300);

/// What was agreed in a handshake, as the app sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Agreed {
    version: &'static str,
    alpn: Option<String>,
    name: Option<String>,
    peer_certificates: usize,
}

/// Something that the app was told, with the number of the connect or of the listener.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Accepted(u64, Agreed),
    NotAccepted(ConnectFailure),
    Connected(u64, Result<Agreed, ConnectFailure>),
    Bytes(u64, String),
    PeerClosed(u64),
    Closed(u64, CloseReason),
}

/// As a server, an echo that ends the connection after a line `bye`, and answers HTTP. As a client it ends its own
/// direction when its `hello` came back.
#[derive(Clone, Default)]
struct Talker {
    told: Arc<Mutex<Vec<Told>>>,
}

/// The numbers of connects begin here.
const CONNECTS: u64 = 1 << 32;

impl Application for Talker {
    fn app_worker(&mut self, _unit: u32, _worker: WorkerId) -> Box<dyn AppWorker> {
        Box::new(self.clone())
    }
}

impl Talker {
    fn note(&self, told: Told) {
        self.told.lock().push(told);
    }
}

fn agreed(ctx: &Context<'_>, session: SessionHandle) -> Agreed {
    let info = info(ctx.layer(session).expect("all stages here have TLS")).expect("which is this layer");
    Agreed {
        version: info.version,
        alpn: info.alpn.map(|alpn| String::from_utf8_lossy(alpn).into_owned()),
        name: info.server_name.map(str::to_owned),
        peer_certificates: info.peer_certificates.len(),
    }
}

impl AppWorker for Talker {
    fn accepted(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.note(Told::Accepted(ctx.opaque(session), agreed(ctx, session)));
    }

    fn not_accepted(&mut self, _ctx: &mut Context<'_>, _flow: &FlowKey, failure: ConnectFailure) {
        self.note(Told::NotAccepted(failure));
    }

    fn connected(
        &mut self,
        ctx: &mut Context<'_>,
        _connect: ConnectId,
        opaque: u64,
        outcome: Result<SessionHandle, ConnectFailure>,
    ) {
        self.note(Told::Connected(opaque, outcome.map(|session| agreed(ctx, session))));
    }

    fn readable(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        let mut bytes = vec![0; ctx.rx_len(session)];
        let count = ctx.read(session, &mut bytes);
        let said = String::from_utf8_lossy(&bytes[..count]).into_owned();
        let case = ctx.opaque(session);
        if case >= CONNECTS {
            if said == "olleh\n" {
                ctx.half_close(session);
            }
        } else if said.starts_with("GET ") {
            let agreed = agreed(ctx, session);
            let declared = ctx.declared(session).map_or("nobody".to_owned(), ToString::to_string);
            let body = format!("{:?} {:?} {declared}", agreed.name, agreed.alpn);
            let length = body.len();
            let answer =
                format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
            assert_eq!(ctx.write(session, answer.as_bytes()), answer.len(), "these are few bytes");
            ctx.close(session);
        } else {
            assert_eq!(ctx.write(session, said.as_bytes()), said.len(), "these are few bytes");
            if said == "bye\n" {
                ctx.close(session);
            }
        }
        self.note(Told::Bytes(case, said));
    }

    fn peer_closed(&mut self, ctx: &mut Context<'_>, session: SessionHandle) {
        self.note(Told::PeerClosed(ctx.opaque(session)));
        ctx.close(session);
    }

    fn closed(&mut self, _ctx: &mut Context<'_>, _: SessionHandle, opaque: u64, reason: CloseReason) {
        self.note(Told::Closed(opaque, reason));
    }
}

/// A world, with issuers and our app.
struct Bed {
    world: World,
    talker: Talker,
    app_worker: AppWorkerId,
    issuer: Issuer,
    /// Its certificate in a file, for others.
    ca: String,
}

impl Bed {
    fn new() -> Bed {
        require("openssl", "openssl");
        let (world, talker) = (World::new(), Talker::default());
        let attached = world.handle.attach(talker.clone(), AttachOptions::named("talker")).expect("room");
        let issuer = Issuer::new("an issuer");
        let bed = Bed { app_worker: attached.app_workers[0], world, talker, issuer, ca: String::new() };
        let ca = bed.file("ca.pem", &bed.issuer.pem());
        Bed { ca, ..bed }
    }

    fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.world.path(name);
        fs::write(&path, bytes).expect("room for it");
        path.to_str().expect("a path of text").to_owned()
    }

    /// A server with a certificate for `NAME`.
    fn server(&self) -> ServerOptions {
        let identities = vec![self.issuer.issue(NAME, false).identity()];
        ServerOptions { identities, alpn: vec!["echo".to_owned()], ..ServerOptions::default() }
    }

    /// A client that trusts the issuer.
    fn client(&self) -> ClientOptions {
        let alpn = vec!["echo".to_owned()];
        ClientOptions { roots: Roots::Given(self.issuer.pem()), alpn, ..ClientOptions::default() }
    }

    fn listen(&self, at: &Place, case: u16, stages: StagePlans, stage_timeout: Duration) {
        let options =
            ListenOptions { opaque: case.into(), stages, stage_timeout, ..ListenOptions::on(at.address()) };
        let done = self.world.handle.listen(self.app_worker, options);
        done.unwrap_or_else(|error| panic!("{at:?}: {error}"));
    }

    /// Listens with TLS at the place of `case`.
    fn serve(&self, via: Via, case: u16, options: &ServerOptions) -> Place {
        let at = self.world.ours(via, OURS + case);
        self.listen(&at, case, StagePlans::one(Server::new(options).expect("options")), LIMIT);
        at
    }

    fn told(&self) -> Vec<Told> {
        self.talker.told.lock().clone()
    }

    /// Waits until the app was told of `what`.
    #[track_caller]
    fn wait_for(&self, what: &Told) {
        let seen = wait::poll(LIMIT, || self.told().contains(what).then_some(()));
        assert!(seen.is_some(), "waited in vain for {what:?}: {:#?}", self.told());
    }

    /// Waits until something else than `before` was told, which must be that a connection was not accepted, and why.
    #[track_caller]
    fn not_accepted(&self, before: usize) -> StageCause {
        let told = wait::until("a refusal", LIMIT, || {
            let told = self.told();
            (told.len() > before).then(|| told[before..].to_vec())
        });
        match told[..] {
            [
                Told::NotAccepted(ConnectFailure::Stage(StageFailure { stage: hoststack_tls::NAME, cause })),
            ] => cause,
            _ => panic!("one thing is told: {told:?}"),
        }
    }

    /// Starts `openssl s_client` with what is typed later, after a file if there is one.
    fn s_client(&self, to: &Place, options: &[&str], file: Option<&str>) -> Typed {
        let fifo = self.world.path("typed");
        let path = fifo.to_str().expect("a path of text");
        let _ = fs::remove_file(&fifo);
        let _ = self.world.run("mkfifo", &[path]).success();
        // Open for both, so that neither open waits for the other.
        let keys = OpenOptions::new().read(true).write(true).open(&fifo).expect("it was made");
        let typed = format!("cat {} {path} | openssl s_client \"$@\"", file.unwrap_or_default());
        let arguments = self.s_client_arguments(to, options);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let process = self.world.start("sh", &[&["-c", &typed, "s_client"], &arguments[..]].concat());
        Typed { keys: Some(keys), process }
    }

    fn s_client_arguments(&self, to: &Place, options: &[&str]) -> Vec<String> {
        let to = match to.endpoint() {
            Some(at) => ["-connect".to_owned(), at.to_string()],
            None => ["-unix".to_owned(), to.path().display().to_string()],
        };
        let check = ["-CAfile", &self.ca, "-verify_return_error"];
        to.into_iter().chain(check.iter().chain(options).map(|&word| word.to_owned())).collect()
    }

    /// Runs an `openssl s_client` that must fail, and returns what it said.
    #[track_caller]
    fn s_client_fails(&self, to: &Place, options: &[&str]) -> String {
        let arguments = self.s_client_arguments(to, options);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.world.run("openssl", &[&["s_client"], &arguments[..]].concat()).failure().transcript()
    }

    /// Starts `openssl s_server` there with this certificate; it listens when this returns.
    fn s_server(&self, at: &Place, certificate: &Certificate, options: &[&str]) -> Process {
        let name = at.path().file_stem().and_then(|name| name.to_str()).expect("a name of text");
        let pem = self.file(
            &format!("{name}.pem"),
            [certificate.chain.as_bytes(), certificate.key.as_bytes()].concat().as_slice(),
        );
        let on = match at.endpoint() {
            Some(at) => ["-accept".to_owned(), at.to_string()],
            None => ["-unix".to_owned(), at.path().display().to_string()],
        };
        let fixed = ["s_server", &on[0], &on[1], "-cert", &pem, "-key", &pem];
        let mut process = self.world.start("openssl", &[&fixed, options].concat());
        process.wait_for_output("ACCEPT", LIMIT);
        process
    }

    /// Connects with TLS and says `first`; the app is told with the number that is returned.
    fn connect(
        &self,
        to: &Place,
        name: &str,
        options: &ClientOptions,
        first: &[u8],
        timeout: Duration,
    ) -> u64 {
        let connects = |told: &&Told| matches!(told, Told::Connected(..));
        let number = CONNECTS + self.told().iter().filter(connects).count() as u64;
        let stages = StagePlans::one(Client::new(name, options).expect("options"));
        let options = ConnectOptions { stages, opaque: number, timeout, ..ConnectOptions::to(to.address()) };
        self.world.handle.connect_with(self.app_worker, options, first).expect("it can be tried");
        number
    }

    /// The outcome of a connect.
    #[track_caller]
    fn outcome(&self, connect: u64) -> Result<Agreed, ConnectFailure> {
        wait::until("an outcome", LIMIT, || {
            self.told().into_iter().find_map(|told| match told {
                Told::Connected(number, outcome) if number == connect => Some(outcome),
                _ => None,
            })
        })
    }

    /// Why the handshake of a connect failed.
    #[track_caller]
    fn refused(&self, connect: u64) -> StageCause {
        match self.outcome(connect) {
            Err(ConnectFailure::Stage(StageFailure { stage: hoststack_tls::NAME, cause })) => cause,
            other => panic!("no failure of the stage: {other:?}"),
        }
    }

    /// Detaches all; nothing is left, and nobody was told a thing twice.
    #[track_caller]
    fn finish(self) {
        self.world.finish();
        let told = self.talker.told.lock();
        let mut connects: Vec<u64> = told
            .iter()
            .filter_map(|told| if let Told::Connected(number, _) = told { Some(*number) } else { None })
            .collect();
        let all = connects.len();
        connects.sort_unstable();
        connects.dedup();
        assert_eq!(connects.len(), all, "one outcome each: {told:#?}");
    }
}

/// A program with somebody at its keyboard.
struct Typed {
    keys: Option<File>,
    process: Process,
}

impl Typed {
    fn types(&mut self, text: &str) {
        self.keys.as_mut().expect("not ended").write_all(text.as_bytes()).expect("it fits into the pipe");
    }

    /// The end of what is typed.
    fn ends(&mut self) {
        self.keys = None;
    }
}

#[test]
fn s_client_talks_to_our_echo_and_either_end_closes() {
    skip_unless_net_admin!();
    let bed = Bed::new();
    let versions = [("-tls1_3", "1.3", "TLSv1.3"), ("-tls1_2", "1.2", "TLSv1.2")];
    let mut case = 0;
    for via in Via::ALL {
        for (option, version, theirs) in versions {
            for we_close in [false, true] {
                case += 1;
                let at = bed.serve(via, case, &bed.server());
                let names = ["-servername", NAME, "-verify_hostname", NAME, "-alpn", "other,echo"];
                let mut client = bed.s_client(&at, &[&[option], &names[..]].concat(), None);
                client.types("hello\n");
                bed.wait_for(&Told::Bytes(case.into(), "hello\n".to_owned()));
                client.process.wait_for_output("\nhello\n", LIMIT);
                if version == "1.3" {
                    // A command of its: new keys, and it asks for ours (RFC 8446 §4.6.3).
                    client.types("K\n");
                    client.process.wait_for_output("KEYUPDATE", LIMIT);
                    client.types("again\n");
                    client.process.wait_for_output("again\n", LIMIT);
                }
                if we_close {
                    client.types("bye\n");
                    // Only a close_notify makes it say so.
                    client.process.wait_for_output("\nclosed\n", LIMIT);
                }
                client.ends();
                let said = client.process.wait(LIMIT).success().transcript();
                let expected = ["Verify return code: 0 (ok)", "ALPN protocol: echo", theirs];
                for word in expected {
                    assert!(said.contains(word), "{via:?} {version}: no {word:?} in\n{said}");
                }
                assert!(!said.contains("unexpected eof"), "{via:?} {version}:\n{said}");
                let agreed = Agreed {
                    version,
                    alpn: Some("echo".to_owned()),
                    name: Some(NAME.to_owned()),
                    peer_certificates: 0,
                };
                assert!(bed.told().contains(&Told::Accepted(case.into(), agreed)), "{:#?}", bed.told());
                // Without its close_notify it would be `Truncated`.
                bed.wait_for(&Told::Closed(case.into(), CloseReason::Finished));
                assert_eq!(bed.told().contains(&Told::PeerClosed(case.into())), !we_close);
            }
        }
    }
    bed.finish();
}

#[test]
fn a_stream_through_s_client_comes_back_whole() {
    skip_unless_net_admin!();
    let bed = Bed::new();
    let server = Server::new(&bed.server()).expect("options");
    // Digits: none of them is a command of its.
    let digits: String = (0..300_000).map(|n: u32| n.wrapping_mul(2_654_435_761).to_string()).collect();
    let file = bed.file("digits", digits.as_bytes());
    let mut listens = Vec::new();
    for (case, via) in (0..).zip(Via::ALL) {
        let at = bed.world.ours(via, OURS + case);
        listens.push(ListenOptions {
            stages: StagePlans::one(server.clone()),
            ..ListenOptions::on(at.address())
        });
    }
    let echo = EchoServer::new(listens);
    let listening = echo.listening();
    bed.world.handle.attach(echo, AttachOptions::named("echo")).expect("room for it");
    assert!(listening.recv_timeout(LIMIT).expect("told once").all_up());
    for (case, via) in (0..).zip(Via::ALL) {
        let at = bed.world.ours(via, OURS + case);
        for version in ["-tls1_3", "-tls1_2"] {
            let mut client = bed.s_client(&at, &["-quiet", "-no_ign_eof", version], Some(&file));
            let back = wait::poll(LIMIT, || {
                let is_over = client.process.stdout().len() >= digits.len() || !client.process.is_running();
                is_over.then_some(())
            });
            client.ends();
            let done = client.process.wait(LIMIT).success();
            assert!(back.is_some() && done.stdout == digits, "{via:?}: {} bytes", done.stdout.len());
        }
    }
    bed.finish();
}

#[test]
fn s_client_refuses_us_and_we_are_told_its_alert() {
    skip_unless_net_admin!();
    let bed = Bed::new();
    let strangers = bed.file("strangers.pem", &Issuer::new("another issuer").pem());
    let expired = vec![bed.issuer.issue(NAME, true).identity()];
    let expired = ServerOptions { identities: expired, ..bed.server() };
    let only_13 = ServerOptions { versions: Versions::Tls13, ..bed.server() };
    let only_12 = ServerOptions { versions: Versions::Tls12, ..bed.server() };
    let needs_certificate =
        ServerOptions { client_auth: ClientAuth::Required(bed.issuer.pem()), ..bed.server() };
    // Our server, the client's options, what it says, and the cause that we are told.
    let cases: &[(&ServerOptions, &[&str], &str, StageCause)] = &[
        (
            &bed.server(),
            &["-verify_hostname", "other.example.org"],
            "ostname mismatch",
            StageCause::Refused("bad_certificate"),
        ),
        (&bed.server(), &["-CAfile", &strangers], "unable to get local", StageCause::Refused("unknown_ca")),
        (&expired, &[], "certificate has expired", StageCause::Refused("certificate_expired")),
        (
            &bed.server(),
            &["-alpn", "other"],
            "no application protocol",
            StageCause::NothingInCommon("application protocol"),
        ),
        (&only_13, &["-tls1_2"], "protocol version", StageCause::NothingInCommon("version of TLS")),
        (&only_12, &["-tls1_3"], "protocol version", StageCause::NothingInCommon("version of TLS")),
        (&needs_certificate, &["-tls1_2"], "alert", StageCause::Untrusted("it has no certificate")),
    ];
    for via in Via::ALL {
        for (case, (server, options, theirs, cause)) in (0..).zip(cases) {
            let at = bed.serve(via, case, server);
            let before = bed.told().len();
            let said = bed.s_client_fails(&at, options);
            assert!(said.contains(theirs), "{via:?} {options:?}: no {theirs:?} in\n{said}");
            assert_eq!(bed.not_accepted(before), *cause, "{via:?} {options:?}");
        }
        // One that offers no protocol, to a server that insists: it is cut off, and may have had what it wanted by then.
        let at = bed.serve(via, 100, &ServerOptions { requires_alpn: true, ..bed.server() });
        let before = bed.told().len();
        let mut client = bed.s_client(&at, &[], None);
        assert_eq!(bed.not_accepted(before), StageCause::NothingInCommon("application protocol"), "{via:?}");
        client.ends();
        let _ = client.process.wait(LIMIT);
    }
    bed.finish();
}

#[test]
fn s_client_shows_its_certificate() {
    skip_unless_net_admin!();
    let bed = Bed::new();
    let own = bed.issuer.issue("client.example.org", false);
    let pem = bed.file("client.pem", format!("{}{}", own.chain, own.key).as_bytes());
    let server = ServerOptions { client_auth: ClientAuth::Required(bed.issuer.pem()), ..bed.server() };
    for (case, via) in (0..).zip(Via::ALL) {
        let at = bed.serve(via, case, &server);
        let mut client = bed.s_client(&at, &["-cert", &pem, "-key", &pem], None);
        client.types("bye\n");
        client.process.wait_for_output("\nclosed\n", LIMIT);
        bed.wait_for(&Told::Closed(case.into(), CloseReason::Finished));
        // It shows the issuer's, too.
        let has_shown = |told: &Told| match told {
            Told::Accepted(number, agreed) => *number == u64::from(case) && agreed.peer_certificates == 2,
            _ => false,
        };
        assert!(bed.told().iter().any(has_shown), "{via:?}: {:#?}", bed.told());
    }
    bed.finish();
}

#[test]
fn s_server_gives_our_connects_their_bytes_back() {
    skip_unless_net_admin!();
    let bed = Bed::new();
    let certificate = bed.issuer.issue(NAME, false);
    let mut case = 0;
    for via in Via::ALL {
        for (option, version) in [("-tls1_3", "1.3"), ("-tls1_2", "1.2")] {
            case += 2;
            let at = bed.world.theirs(via, THEIRS + case);
            let _server = bed.s_server(&at, &certificate, &["-rev", "-alpn", "echo", option]);
            let connect = bed.connect(&at, NAME, &bed.client(), b"hello\n", LIMIT);
            let agreed = Agreed { version, alpn: Some("echo".to_owned()), name: None, peer_certificates: 1 };
            let outcome = bed.outcome(connect).map(|agreed| Agreed { name: None, ..agreed });
            assert_eq!(outcome, Ok(agreed), "{via:?}");
            bed.wait_for(&Told::Bytes(connect, "olleh\n".to_owned()));
            // We end our direction, and it answers with a close_notify: else the end would be no end.
            bed.wait_for(&Told::PeerClosed(connect));
            bed.wait_for(&Told::Closed(connect, CloseReason::Finished));

            // A page, after which it closes first.
            let at = bed.world.theirs(via, THEIRS + case + 1);
            let _server = bed.s_server(&at, &certificate, &["-www", option]);
            let connect = bed.connect(&at, NAME, &bed.client(), b"GET / HTTP/1.0\r\n\r\n", LIMIT);
            bed.wait_for(&Told::Closed(connect, CloseReason::Finished));
            let page: String = bed
                .told()
                .into_iter()
                .filter_map(|told| match told {
                    Told::Bytes(number, bytes) if number == connect => Some(bytes),
                    _ => None,
                })
                .collect();
            assert!(page.contains("200 ok") && page.contains(&format!("TLSv{version}")), "{page}");
        }
    }
    bed.finish();
}

#[test]
fn an_s_server_that_is_killed_has_not_ended_its_stream() {
    skip_unless_net_admin!();
    let bed = Bed::new();
    let certificate = bed.issuer.issue(NAME, false);
    for (case, via) in (0..).zip(Via::ALL) {
        let at = bed.world.theirs(via, THEIRS + case);
        let server = bed.s_server(&at, &certificate, &["-rev"]);
        let connect = bed.connect(&at, NAME, &bed.client(), b"stay\n", LIMIT);
        bed.wait_for(&Told::Bytes(connect, "yats\n".to_owned()));
        drop(server);
        // Its kernel closes the connection, and that is no close_notify.
        bed.wait_for(&Told::Closed(connect, CloseReason::Truncated));
        assert!(!bed.told().contains(&Told::PeerClosed(connect)), "{via:?}: {:#?}", bed.told());
    }
    bed.finish();
}

#[test]
fn a_connect_to_s_server_that_fails_has_one_typed_outcome() {
    skip_unless_net_admin!();
    let bed = Bed::new();
    let certificate = bed.issuer.issue(NAME, false);
    let expired = bed.issuer.issue(NAME, true);
    let stranger = Issuer::new("another issuer").issue(NAME, false);
    let needs_alpn = ClientOptions { requires_alpn: true, ..bed.client() };
    let only_12 = ClientOptions { versions: Versions::Tls12, ..bed.client() };
    let only_13 = ClientOptions { versions: Versions::Tls13, ..bed.client() };
    // Its certificate and options, the name and options of ours, and the cause.
    let cases: &[(&Certificate, &[&str], &str, &ClientOptions, StageCause)] = &[
        (&expired, &[], NAME, &bed.client(), StageCause::Untrusted("its certificate has expired")),
        (
            &certificate,
            &[],
            "other.example.org",
            &bed.client(),
            StageCause::Untrusted("its certificate is for another name"),
        ),
        (&stranger, &[], NAME, &bed.client(), StageCause::Untrusted("its certificate's issuer is unknown")),
        (
            &certificate,
            &["-alpn", "other"],
            NAME,
            &bed.client(),
            StageCause::Refused("no_application_protocol"),
        ),
        (&certificate, &[], NAME, &needs_alpn, StageCause::NothingInCommon("application protocol")),
        (&certificate, &["-tls1_3"], NAME, &only_12, StageCause::Refused("protocol_version")),
        (&certificate, &["-tls1_2"], NAME, &only_13, StageCause::Refused("protocol_version")),
        (
            &certificate,
            &["-tls1_2", "-Verify", "1", "-CAfile", &bed.ca],
            NAME,
            &bed.client(),
            StageCause::Refused("handshake_failure"),
        ),
    ];
    for via in Via::ALL {
        for (case, (certificate, theirs, name, ours, cause)) in (0..).zip(cases) {
            let at = bed.world.theirs(via, THEIRS + case);
            let _server = bed.s_server(&at, certificate, &[&["-rev"], *theirs].concat());
            let connect = bed.connect(&at, name, ours, b"hello\n", LIMIT);
            assert_eq!(bed.refused(connect), *cause, "{via:?} {theirs:?} {name}");
            // The server's own file; the next one makes it again.
            let _ = fs::remove_file(at.path());
        }
    }
    let sent = |told: &Told| matches!(told, Told::Bytes(..) | Told::Closed(..));
    assert!(!bed.told().iter().any(sent), "{:#?}", bed.told());
    bed.finish();
}

/// How socat calls a place.
fn socat_connect(at: &Place) -> String {
    match at.endpoint() {
        Some(at) => format!("TCP:{at}"),
        None => format!("UNIX-CONNECT:{}", at.path().display()),
    }
}

/// socat listening there and giving each connection to `command`.
fn socat_server(bed: &Bed, at: &Place, command: &str) -> Process {
    let (listen, file): (String, Option<PathBuf>) = match at.endpoint() {
        Some(at) if at.is_ipv4() => (format!("TCP4-LISTEN:{},bind={}", at.port(), at.ip()), None),
        Some(at) => (format!("TCP6-LISTEN:{},bind=[{}]", at.port(), at.ip()), None),
        None => (format!("UNIX-LISTEN:{}", at.path().display()), Some(at.path().to_owned())),
    };
    let process = bed.world.start("socat", &["-t", "60", &format!("{listen},fork"), command]);
    wait::until("socat's listener", LIMIT, || {
        let port = at.endpoint().map_or(0, |at| at.port());
        let is_up = match &file {
            Some(path) => path.exists(),
            None => count(&bed.world.namespace, port, SocketState::Listen) > 0,
        };
        is_up.then_some(())
    });
    process
}

#[test]
fn what_is_no_tls_ends_in_time_at_our_listener() {
    skip_unless_net_admin!();
    require("socat", "socat");
    let bed = Bed::new();
    for (case, via) in (0..).zip(Via::ALL) {
        let at = bed.serve(via, case, &bed.server());
        for text in ["GET / HTTP/1.0\\r\\n\\r\\n", "PROXY TCP4 192.0.2.7 192.0.2.8 1234 80\\r\\n"] {
            let before = bed.told().len();
            let talk = format!("printf '{text}' | socat -t 50 - {}", socat_connect(&at));
            // It may find the connection reset; what counts is that it ends.
            let _ = bed.world.run("sh", &["-c", &talk]);
            assert_eq!(bed.not_accepted(before), StageCause::Malformed("not TLS"), "{via:?} {text}");
        }
        // One that says nothing and stays.
        let late = bed.world.ours(via, OURS + 100 + case);
        let plan = Server::new(&bed.server()).expect("options");
        bed.listen(&late, 100 + case, StagePlans::one(plan), SHORT);
        let before = bed.told().len();
        let watch = wait::Stopwatch::start();
        let silent = bed.world.start("socat", &["-u", &socat_connect(&late), "STDOUT"]);
        assert_eq!(bed.not_accepted(before), StageCause::TimedOut, "{via:?}");
        assert!(watch.elapsed() >= SHORT, "{via:?}: the deadline is never early");
        let _ = silent.wait(LIMIT);
    }
    bed.finish();
}

#[test]
fn what_is_no_tls_ends_our_connect_in_time() {
    skip_unless_net_admin!();
    require("socat", "socat");
    let bed = Bed::new();
    let cases = [
        // It gets its own hello back.
        ("EXEC:cat", LIMIT, StageCause::Malformed("a message out of turn")),
        ("SYSTEM:echo 220 ready; cat >/dev/null", LIMIT, StageCause::Malformed("not TLS")),
        // An end, and it reads on.
        ("OPEN:/dev/null", LIMIT, StageCause::PeerClosed),
        ("SYSTEM:cat >/dev/null", SHORT, StageCause::TimedOut),
    ];
    for via in Via::ALL {
        for (case, (command, timeout, cause)) in (0..).zip(cases) {
            let at = bed.world.theirs(via, THEIRS + case);
            let _server = socat_server(&bed, &at, command);
            let connect = bed.connect(&at, NAME, &bed.client(), b"hello\n", timeout);
            assert_eq!(bed.refused(connect), cause, "{via:?} {command}");
            let _ = fs::remove_file(at.path());
        }
    }
    bed.finish();
}

#[test]
fn curl_fetches_over_https_and_declares_itself_before() {
    skip_unless_net_admin!();
    let bed = Bed::new();
    let options = ServerOptions { alpn: vec!["http/1.1".to_owned()], ..bed.server() };
    let server = Server::new(&options).expect("options");
    let agreed = format!("{:?} {:?}", Some(NAME), Some("http/1.1"));
    let mut case = 0;
    for via in Via::ALL {
        for is_declared in [false, true] {
            case += 1;
            let at = bed.world.ours(via, OURS + case);
            let stages = if is_declared {
                StagePlans::one(ReceiveProxy::default()).then(server.clone())
            } else {
                StagePlans::one(server.clone())
            };
            bed.listen(&at, case, stages, LIMIT);
            let port = at.endpoint().map_or(443, |at| at.port());
            let url = format!("https://{NAME}:{port}/");
            let way = match at.endpoint() {
                Some(at) => ["--connect-to".to_owned(), format!("::{}:{port}", shown(at))],
                None => ["--unix-socket".to_owned(), at.path().display().to_string()],
            };
            let declare: &[&str] = if is_declared { &["--haproxy-protocol"] } else { &[] };
            let common = ["--cacert", &bed.ca, &way[0], &way[1], &url];
            let got = curl(&bed.world, &[declare, &common].concat());
            let declared = match at.endpoint() {
                Some(at) if is_declared => format!("{}->{at}", got.from),
                _ if is_declared => "unknown".to_owned(),
                _ => "nobody".to_owned(),
            };
            assert_eq!(got.body, format!("{agreed} {declared}"), "{via:?}");
            bed.wait_for(&Told::Closed(case.into(), CloseReason::Finished));
        }
    }
    bed.finish();
}

/// The host of an endpoint as it stands in a URL.
fn shown(at: std::net::SocketAddr) -> String {
    if at.is_ipv4() { at.ip().to_string() } else { format!("[{}]", at.ip()) }
}

#[test]
fn haproxy_declares_s_client_before_its_tls() {
    skip_unless_net_admin!();
    let bed = Bed::new();
    let mut sections = String::new();
    for (case, via) in (0..).zip(Via::ALL) {
        let at = bed.world.ours(via, OURS + case);
        let tls = Server::new(&bed.server()).expect("options");
        bed.listen(&at, case, StagePlans::one(ReceiveProxy::default()).then(tls), LIMIT);
        let (front, server) = (THEIRS + case, at.written("unix@"));
        sections += &format!(
            "listen p{case}\n    bind 127.0.0.1:{front}\n    server s {server} send-proxy-v2 \
             proxy-v2-options crc32c\n"
        );
    }
    let _haproxy = Daemon::haproxy(&bed.world.namespace, &sections, THEIRS);
    for (case, via) in (0..).zip(Via::ALL) {
        let front = bed.world.theirs(Via::KernelV4, THEIRS + case);
        let mut client = bed.s_client(&front, &["-quiet", "-verify_hostname", NAME], None);
        client.types("GET /\n");
        let at = front.endpoint().expect("TCP");
        client.process.wait_for_output(&format!("->{at}"), LIMIT);
        client.ends();
        let said = client.process.wait(LIMIT).success().stdout;
        assert!(said.contains("127.0.0.1:"), "{via:?}: {said}");
        bed.wait_for(&Told::Closed(case.into(), CloseReason::Finished));
    }
    bed.finish();
}

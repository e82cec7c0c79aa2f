//! `hoststack fetch`: downloads over a TAP with the stack's own TCP, or over sockets of this host.

mod tls;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use hoststack::app::proxy::{Origin, SendProxy, Version};
use hoststack::app::{
    Address, AttachOptions, ConnectOptions, DetachPolicy, DomainId, SocketOptions, StagePlans,
};
use hoststack::net::{Capture, Cidr};
use hoststack::{Answer, Builder, InterfaceSpec, Leaks, Stack};
use hoststack_builtin::{
    Fetch, FetchHandle, FetchOptions, FetchOutcome, FetchRequest, FetchSink, Fetched, Url, parse_url,
};
use serde::Serialize;

use crate::clock::Stopwatch;
use crate::ctl::format;
use crate::devices;
use crate::error::{CliError, complain};
use crate::host::{Host, not_built};
use crate::interrupt::Interrupt;
use crate::output;
use crate::parse::{self, Route};
use crate::progress::{self, Counts};
use crate::table::{Column, Table, bytes};

/// Download files over HTTP/1.1.
#[derive(Args, Debug)]
pub(crate) struct FetchArgs {
    /// What carries the connections: this stack's TCP over --device, or sockets of this host [default: tcp with --device,
    /// kernel without].
    #[arg(long, value_enum)]
    transport: Option<TransportArg>,
    /// The device to reach the servers over (tap:NAME); created if there is none of that name.
    #[arg(long, value_name = "tap:NAME", value_parser = parse::tap_name, requires = "address")]
    device: Option<String>,
    /// Our address on --device with its network (10.9.0.2/24, fd09::2/64); may be given several times.
    #[arg(long, value_name = "CIDR", requires = "device")]
    address: Vec<Cidr>,
    /// A route over --device (0.0.0.0/0=10.9.0.1); may be given several times.
    #[arg(long, value_name = "CIDR=GATEWAY", requires = "device")]
    route: Vec<Route>,
    /// Connect to this Unix socket (a path, or @NAME) instead of the URLs' addresses.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["device", "transport"])]
    unix_socket: Option<String>,
    /// Begin each connection with a PROXY header of this version.
    #[arg(long, value_name = "VERSION", value_enum)]
    send_proxy: Option<VersionArg>,
    /// Whom the header names as the client [default: our own address and port].
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse::endpoint, requires = "send_proxy")]
    proxy_source: Option<SocketAddr>,
    /// Whom the header names as the one that the client called [default: the URL's address and port].
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse::endpoint, requires = "proxy_source")]
    proxy_destination: Option<SocketAddr>,
    /// For https: trust only the certificates in this file (PEM) [default: what browsers trust, as compiled in].
    #[arg(long, value_name = "FILE", conflicts_with_all = ["platform_roots", "insecure"])]
    cacert: Option<PathBuf>,
    /// For https: trust what this system trusts.
    #[arg(long, conflicts_with = "insecure")]
    platform_roots: bool,
    /// For https, DANGER: take any certificate of anyone. Who sits on the path reads and changes everything.
    #[arg(long)]
    insecure: bool,
    /// The file to write (for one URL).
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["output_dir", "discard"])]
    output: Option<PathBuf>,
    /// The directory to write files into, named after the URLs; made if there is none [default: here].
    #[arg(long, value_name = "DIR", conflicts_with = "discard")]
    output_dir: Option<PathBuf>,
    /// Write no file: count the bytes.
    #[arg(long)]
    discard: bool,
    /// Downloads under way at a time.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: u32,
    /// When a connect that nothing answers has failed.
    #[arg(long, default_value = "30s", value_parser = parse::timeout)]
    connect_timeout: Duration,
    /// When a download that nothing was heard of has failed.
    #[arg(long, default_value = "30s", value_parser = parse::timeout)]
    idle_timeout: Duration,
    /// Worker threads; 0: no threads at all, everything is stepped here.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Write every packet to this file (pcapng).
    #[arg(long, value_name = "FILE", requires = "device")]
    pcap: Option<PathBuf>,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
    /// What to download: `http://ADDRESS/PATH` or `http://ADDRESS:PORT/PATH`, or with https, IPv6 addresses in brackets.
    #[arg(required = true, value_name = "URL")]
    urls: Vec<String>,
}

/// A transport of `--transport`.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum TransportArg {
    /// This stack's TCP, over --device.
    Tcp,
    /// TCP sockets of this host.
    #[value(alias = "kernel+tcp")]
    Kernel,
}

/// A version of the PROXY header.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum VersionArg {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Bytes that may be on their way to us on one connection.
const RX_CAPACITY: u32 = 1 << 20;

/// The JSON object of `hoststack fetch --json`.
#[derive(Debug, Serialize)]
struct Report {
    fetches: Vec<Entry>,
    leaks: Leaks,
    seconds: f64,
}

/// What came of one URL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Entry {
    url: String,
    /// `ok`, or why not, in snake case.
    outcome: &'static str,
    /// The HTTP status, if there was one.
    status: Option<u16>,
    /// Bytes of the body received.
    bytes: u64,
    /// The file that holds the body.
    file: Option<PathBuf>,
    /// Why not, in words.
    error: Option<String>,
}

/// Runs `hoststack fetch`.
///
/// # Errors
/// Bad arguments, a device that cannot be had, a download that failed, something leaked.
pub(crate) fn fetch(args: &FetchArgs) -> Result<(), CliError> {
    let urls = args
        .urls
        .iter()
        .map(|text| parse_url(text).map_err(|error| CliError::usage(format!("{text}: {error}"))))
        .collect::<Result<Vec<Url>, CliError>>()?;
    let sinks = sinks(args, &urls)?;
    let mut targets = urls.iter().map(|url| target(args, url)).collect::<Result<Vec<_>, CliError>>()?;
    if tls::add(args, &urls, &mut targets)? == tls::Verification::Off {
        complain(
            "WARNING: --insecure: no certificate is verified, anyone on the path can read and change everything",
        );
    }
    let interrupt = Interrupt::catch()?;
    let capture = args.pcap.as_deref().map(devices::start_capture).transpose()?;
    let builder = builder(args, capture.as_ref())?;
    if let Some(directory) = &args.output_dir {
        let failed = |error| CliError::failed(format!("cannot make {}: {error}", directory.display()));
        std::fs::create_dir_all(directory).map_err(failed)?;
    }
    let mut host = Host::start(builder, args.workers).map_err(not_built)?;

    let requests = urls
        .iter()
        .zip(targets)
        .zip(sinks)
        .map(|((url, target), sink)| request(url, target, sink, args.connect_timeout))
        .collect();
    let options = FetchOptions {
        concurrency: args.concurrency,
        idle_timeout: args.idle_timeout,
        ..FetchOptions::default()
    };
    let app = Fetch::new(requests, options);
    let (outcomes, end, seconds) = run(&mut host, app, args, &interrupt)?;
    drop(host);
    devices::end_capture(capture.as_ref());

    let fetches =
        (0..urls.len()).map(|index| entry(&args.urls[index], outcomes.iter().find(|o| o.index == index)));
    let report = Report { fetches: fetches.collect(), leaks: end.leaks, seconds };
    output::print(&text(&report, args.json, end.time_wait)?)?;
    verdict(&report)
}

/// The stack that the arguments want.
fn builder(args: &FetchArgs, capture: Option<&Arc<Capture>>) -> Result<Builder, CliError> {
    let Some(device) = &args.device else {
        if args.transport == Some(TransportArg::Tcp) {
            return Err(CliError::usage("--transport tcp needs --device tap:NAME and --address CIDR"));
        }
        devices::allow_many_sockets();
        return Ok(Stack::builder());
    };
    Ok(Stack::builder().interface(InterfaceSpec {
        domain: DomainId(0),
        device: devices::captured(devices::tap(device, false)?, capture),
        addresses: args.address.clone(),
        routes: args.route.iter().map(|route| (route.to, route.via)).collect(),
    }))
}

/// Where to connect to for a URL, and the header that goes first.
fn target(args: &FetchArgs, url: &Url) -> Result<(Address, StagePlans), CliError> {
    let address = match (&args.unix_socket, args.transport, &args.device) {
        (Some(path), ..) => Address::kernel_unix(path).map_err(|_| {
            CliError::usage(format!("--unix-socket {path}: expected a path from / on, or @NAME"))
        })?,
        (None, Some(TransportArg::Tcp), _) | (None, None, Some(_)) => Address::Tcp(url.endpoint),
        (None, Some(TransportArg::Kernel), Some(_)) => {
            return Err(CliError::usage("--transport kernel needs no --device: leave one of them out"));
        }
        (None, Some(TransportArg::Kernel) | None, None) => Address::KernelTcp(url.endpoint),
    };
    let Some(version) = args.send_proxy else { return Ok((address, StagePlans::NONE)) };
    let version = match version {
        VersionArg::V1 => Version::V1,
        VersionArg::V2 => Version::V2,
    };
    let origin = match args.proxy_source {
        None => Origin::Own,
        Some(source) => {
            let default = SocketAddr::new(url.endpoint.addr, url.endpoint.port);
            let destination = args.proxy_destination.unwrap_or(default);
            if source.is_ipv4() != destination.is_ipv4() {
                return Err(CliError::usage(format!(
                    "a PROXY header names addresses of one family: {source} and {destination} are of two, give \
                     --proxy-destination"
                )));
            }
            Origin::Of(source, destination)
        }
    };
    Ok((address, StagePlans::one(SendProxy { origin, ..SendProxy::new(version) })))
}

fn request(
    url: &Url,
    (remote, stages): (Address, StagePlans),
    sink: FetchSink,
    timeout: Duration,
) -> FetchRequest {
    let mut request = FetchRequest::new(url, sink);
    request.remote =
        ConnectOptions { remote, stages, timeout, socket: SocketOptions::NODELAY, ..request.remote };
    request.remote.fifos.rx_capacity = RX_CAPACITY;
    request
}

/// Attaches the app, watches it to its end, detaches it; outcomes, what is held then, seconds.
fn run(
    host: &mut Host,
    app: Fetch,
    args: &FetchArgs,
    interrupt: &Interrupt,
) -> Result<(Vec<FetchOutcome>, Answer, f64), CliError> {
    let handle = app.handle();
    let bar = progress::bar(Counts::Bytes, 0, args.json);
    let watch = Stopwatch::start();
    let attached = host.attach(app, AttachOptions::named("fetch")).map_err(CliError::failed)?;
    let mut outcomes = Vec::with_capacity(args.urls.len());
    host.run_until(handle.outcomes(), || {
        collect(&handle, &mut outcomes);
        let totals = handle.stats().totals();
        bar.set_length(totals.bytes_expected.max(totals.bytes));
        bar.set_position(totals.bytes);
        interrupt.is_set() || outcomes.len() == args.urls.len()
    });
    let seconds = watch.seconds();
    if interrupt.is_set() {
        bar.abandon_with_message("interrupted")
    } else {
        bar.finish_and_clear()
    }
    let policy = match interrupt.is_set() {
        true => DetachPolicy::Reset,
        false => DetachPolicy::default(),
    };
    host.detach(attached.app, policy).map_err(CliError::failed)?;
    // The detach ends what was under way, and tells.
    collect(&handle, &mut outcomes);
    let end = host.quiescent().map_err(CliError::failed)?;
    Ok((outcomes, end, seconds))
}

fn collect(handle: &FetchHandle, outcomes: &mut Vec<FetchOutcome>) {
    outcomes.extend(handle.outcomes().try_iter());
}

/// Where each body goes.
fn sinks(args: &FetchArgs, urls: &[Url]) -> Result<Vec<FetchSink>, CliError> {
    if args.discard {
        return Ok(vec![FetchSink::Discard; urls.len()]);
    }
    match (&args.output, urls) {
        (Some(file), [_]) => Ok(vec![FetchSink::File(file.clone())]),
        (Some(_), _) => {
            Err(CliError::usage("--output names one file, for one URL: use --output-dir for several"))
        }
        (None, urls) => {
            let directory = args.output_dir.as_deref().unwrap_or(Path::new(""));
            Ok(file_names(urls).into_iter().map(|name| FetchSink::File(directory.join(name))).collect())
        }
    }
}

/// Each URL's last part as a file name; a name that is taken gets a number behind it.
fn file_names(urls: &[Url]) -> Vec<String> {
    let mut taken = BTreeSet::new();
    urls.iter()
        .map(|url| {
            let name = url.file_name().unwrap_or("index.html");
            let numbered = (1..).map(|number| format!("{name}.{number}"));
            let mut names = std::iter::once(name.to_owned()).chain(numbered);
            let free = names.find(|name| taken.insert(name.clone()));
            free.expect("cannot fail because there are more numbers than names")
        })
        .collect()
}

fn entry(url: &str, outcome: Option<&FetchOutcome>) -> Entry {
    let url = url.to_owned();
    let Some(outcome) = outcome else {
        // Only when the end was asked for before it was begun.
        let error = Some("interrupted before it was begun".to_owned());
        return Entry { url, outcome: "detached", status: None, bytes: 0, file: None, error };
    };
    let FetchOutcome { index: _, status, bytes, result } = outcome;
    let (name, file, error) = match result {
        Ok(Fetched::File(file)) => ("ok", Some(file.clone()), None),
        Ok(Fetched::Memory(_) | Fetched::Discarded) => ("ok", None, None),
        Err(error) => (error.name(), None, Some(error.to_string())),
    };
    Entry { url, outcome: name, status: *status, bytes: *bytes, file, error }
}

fn text(report: &Report, json: bool, time_wait: usize) -> Result<String, CliError> {
    if json {
        // A file's name that is no text is the only thing that JSON cannot say.
        let failed = |error| CliError::failed(format!("the report cannot be written as JSON: {error}"));
        return serde_json::to_string(report).map(|text| text + "\n").map_err(failed);
    }
    let mut table = Table::new(&[
        Column::Left("outcome"),
        Column::Right("status"),
        Column::Right("bytes"),
        Column::Left("url"),
    ]);
    for Entry { url, outcome, status, bytes: count, file, error } in &report.fetches {
        let status = status.map_or("-".to_owned(), |status| status.to_string());
        let to = file.as_ref().map_or(String::new(), |file| format!(" -> {}", file.display()));
        let why = error.as_ref().map_or(String::new(), |error| format!(": {error}"));
        table.row([(*outcome).to_owned(), status, bytes(*count), format!("{url}{to}{why}")]);
    }
    let total: u64 = report.fetches.iter().map(|entry| entry.bytes).sum();
    let gbits = if report.seconds > 0.0 { total as f64 * 8e-9 / report.seconds } else { 0.0 };
    let leaks = format::leaks(&report.leaks, time_wait);
    Ok(format!("{table}{} in {:.3} s, {gbits:.3} Gbit/s\n\n{leaks}", bytes(total), report.seconds))
}

/// Whether all succeeded and nothing leaked.
fn verdict(report: &Report) -> Result<(), CliError> {
    let failed = report.fetches.iter().filter(|entry| entry.outcome != "ok").count();
    match (failed, report.leaks.is_clean()) {
        (0, true) => Ok(()),
        (0, false) => Err(CliError::failed("something leaked")),
        (_, clean) => {
            let leaked = if clean { "" } else { ", and something leaked" };
            Err(CliError::failed(format!("{failed} of {} downloads failed{leaked}", report.fetches.len())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use hoststack::app::ConnectFailure;
    use hoststack_builtin::FetchError;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        fetch: FetchArgs,
    }

    const COMMON: &str = "fetch --device tap:a --address 10.0.0.1/24";

    fn args(text: &str) -> Result<FetchArgs, clap::Error> {
        Cli::try_parse_from(COMMON.split(' ').chain(text.split(' '))).map(|cli| cli.fetch)
    }

    fn files(text: &str) -> Vec<PathBuf> {
        let args = args(text).unwrap();
        let urls: Vec<Url> = args.urls.iter().map(|url| parse_url(url).unwrap()).collect();
        let path = |sink| match sink {
            FetchSink::File(path) => path,
            other => panic!("{other:?}"),
        };
        sinks(&args, &urls).unwrap().into_iter().map(path).collect()
    }

    #[test]
    fn files_are_named_after_their_urls_and_never_share_a_name() {
        let paths = files(
            "--output-dir d http://10.0.0.2/a/x http://10.0.0.2/b/x?q=1 http://10.0.0.2/ http://10.0.0.2/x.1",
        );
        assert_eq!(paths, ["d/x", "d/x.1", "d/index.html", "d/x.1.1"].map(PathBuf::from));
        assert_eq!(files("-o f http://10.0.0.2/a"), [PathBuf::from("f")]);
        assert_eq!(files("http://10.0.0.2/a"), [PathBuf::from("a")]);
    }

    #[test]
    fn one_file_for_several_urls_is_refused() {
        let args = args("-o f http://10.0.0.2/a http://10.0.0.2/b").unwrap();
        let urls: Vec<Url> = args.urls.iter().map(|url| parse_url(url).unwrap()).collect();
        assert!(matches!(sinks(&args, &urls), Err(CliError::Usage(_))));
        for text in ["-o f --output-dir d http://10.0.0.2/a", "--concurrency 0 http://10.0.0.2/a", "--json"] {
            assert!(super::tests::args(text).is_err(), "{text}");
        }
    }

    /// The stages of each URL of some arguments.
    fn stages(text: &str) -> Result<Vec<Vec<&'static str>>, String> {
        let args = Cli::try_parse_from(["fetch"].into_iter().chain(text.split(' ')))
            .map_err(|error| error.to_string())?
            .fetch;
        let urls: Vec<Url> = args.urls.iter().map(|url| parse_url(url).unwrap()).collect();
        let mut targets: Vec<_> = urls.iter().map(|url| target(&args, url).unwrap()).collect();
        let verification = tls::add(&args, &urls, &mut targets).map_err(|error| format!("{error:?}"))?;
        let is_off = args.insecure && urls.iter().any(|url| url.scheme == hoststack_builtin::Scheme::Https);
        assert_eq!(verification == tls::Verification::Off, is_off);
        Ok(targets.iter().map(|(_, stages)| stages.names()).collect())
    }

    #[test]
    fn https_adds_tls_behind_a_header_and_http_does_not() {
        let (http, https) = ("http://10.0.0.2/a", "https://10.0.0.2/a");
        let both = format!("{http} {https} https://[::2]/");
        assert_eq!(stages(&both), Ok(vec![vec![], vec!["TLS"], vec!["TLS"]]));
        assert_eq!(stages(&format!("--insecure {http} {https}")), Ok(vec![vec![], vec!["TLS"]]));
        assert_eq!(stages(&format!("--insecure {http}")), Ok(vec![vec![]]));
        let header = stages(&format!("--send-proxy v2 {http} {https}")).unwrap();
        assert_eq!((header[0].len(), header[1].len(), header[1][1]), (1, 2, "TLS"));
        assert_eq!(header[0][0], header[1][0]);
        for (text, part) in [
            ("--cacert /nonexistent/ca.pem", "/nonexistent/ca.pem"),
            ("--cacert Cargo.toml", "Cargo.toml: there is no certificate"),
            ("--cacert f --insecure", "cannot be used with"),
            ("--platform-roots --insecure", "cannot be used with"),
            ("--platform-roots --cacert f", "cannot be used with"),
        ] {
            let error = stages(&format!("{text} {https}")).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    /// Where the only URL of some arguments leads, and whether a header goes first.
    fn leads(text: &str) -> Result<(String, Vec<&'static str>), String> {
        let args = Cli::try_parse_from(["fetch"].into_iter().chain(text.split(' ')))
            .map_err(|error| error.to_string())?
            .fetch;
        let (address, stages) =
            target(&args, &parse_url(&args.urls[0]).unwrap()).map_err(|error| format!("{error:?}"))?;
        Ok((address.to_string(), stages.names()))
    }

    #[test]
    fn without_a_device_the_hosts_sockets_are_used() {
        let url = "http://10.0.0.2:81/a";
        let to = |text: &str| leads(format!("{text} {url}").trim_start()).map(|(to, _)| to);
        assert_eq!(to(""), Ok("kernel+tcp://10.0.0.2:81".to_owned()));
        assert_eq!(to("--transport kernel"), to(""));
        assert_eq!(to("--transport kernel+tcp"), to(""));
        assert_eq!(to("--unix-socket /run/a.sock"), Ok("kernel+unix:///run/a.sock".to_owned()));
        assert_eq!(to("--unix-socket @a"), Ok("kernel+unix://@a".to_owned()));
        let device = "--device tap:a --address 10.0.0.1/24";
        assert_eq!(to(device), Ok("tcp://10.0.0.2:81".to_owned()));
        assert_eq!(to(&format!("{device} --transport tcp")), to(device));
        for (text, part) in [
            ("--unix-socket a", "expected a path"),
            ("--unix-socket /a --transport kernel", "cannot be used with"),
            ("--device tap:a --address 10.0.0.1/24 --transport kernel", "leave one of them out"),
            ("--device tap:a", "--address"),
            ("--address 10.0.0.1/24", "--device"),
            ("--pcap f", "--device"),
        ] {
            let error = to(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        let args = Cli::try_parse_from(["fetch", "--transport", "tcp", url]).unwrap().fetch;
        let error = builder(&args, None).unwrap_err();
        assert!(matches!(&error, CliError::Usage(text) if text.contains("--device")), "{error:?}");
    }

    #[test]
    fn a_header_names_addresses_of_one_family_or_our_own() {
        let with = |text: &str| leads(&format!("{text} http://10.0.0.2/a")).map(|(_, stages)| stages.len());
        assert_eq!(leads("http://10.0.0.2/a").unwrap().1.len(), 0);
        assert_eq!(with("--send-proxy v1"), Ok(1));
        assert_eq!(with("--send-proxy v2 --proxy-source 192.0.2.1:5"), Ok(1));
        assert_eq!(with("--send-proxy v2 --proxy-source [::5]:5 --proxy-destination [::6]:6"), Ok(1));
        for (text, part) in [
            ("--send-proxy v3", "v1, v2"),
            ("--proxy-source 192.0.2.1:5", "--send-proxy"),
            ("--send-proxy v1 --proxy-destination 192.0.2.1:5", "--proxy-source"),
            ("--send-proxy v1 --proxy-source [::5]:5", "give --proxy-destination"),
        ] {
            let error = with(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    fn outcome(result: Result<Fetched, FetchError>) -> FetchOutcome {
        FetchOutcome { index: 0, status: Some(200), bytes: 5, result }
    }

    #[test]
    fn an_entry_names_the_outcome_for_scripts_and_for_people() {
        let ok = entry("u", Some(&outcome(Ok(Fetched::File("f".into())))));
        let json = serde_json::to_value(&ok).unwrap();
        let expected = serde_json::json!({
            "url": "u", "outcome": "ok", "status": 200, "bytes": 5, "file": "f", "error": null
        });
        assert_eq!(json, expected);
        let refused = entry("u", Some(&outcome(Err(FetchError::Connect(ConnectFailure::Refused)))));
        assert_eq!(refused.outcome, "refused");
        assert!(refused.error.unwrap().starts_with("refused: "));
        assert_eq!(entry("u", None).outcome, "detached");
    }

    #[test]
    fn one_failure_or_leak_makes_the_run_a_failure() {
        let good = || entry("u", Some(&outcome(Ok(Fetched::Discarded))));
        let report = |fetches, leaks| verdict(&Report { fetches, leaks, seconds: 1.0 });
        assert_eq!(report(vec![good()], Leaks::default()), Ok(()));
        assert!(report(vec![good()], Leaks { timers: 1, ..Leaks::default() }).is_err());
        let error = report(vec![good(), entry("u", None)], Leaks::default()).unwrap_err();
        assert_eq!(error, CliError::Failed("1 of 2 downloads failed".to_owned()));
    }
}

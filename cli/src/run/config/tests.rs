use std::path::Path;
use std::time::Duration;

use hoststack::app::{Algorithm, DomainId, EcnMode, Keepalive, ListenOptions, SessionOptions, SocketOptions};

use super::mistake::line_of;
use super::*;

const GOOD: &str = r#"workers = 3

[limits]
sessions = 1000

[[device]]
name = "tap:hs0"
addresses = ["10.9.0.2/24", "fd09::2/64"]
routes = [
    { to = "0.0.0.0/0", via = "10.9.0.1" },
    { to = "10.200.0.0/16" },
]
multi_queue = true
pcap = "hs0.pcapng"

[[device]]
name = "wire:a"
domain = 1
addresses = ["10.1.0.1/24"]

[[device]]
name = "wire:a"
domain = 2
addresses = ["10.1.0.2/24"]

[[app]]
name = "echo"
kind = "echo"
listen = ["0.0.0.0:7", "[fd09::2]:7"]
app_workers = 2
backlog = 100
fifo = 131072

[[app]]
name = "sink"
kind = "discard"
domain = 1
listen = ["10.1.0.1:9"]
nodelay = true

[cli]
socket = "/tmp/hs.sock"
"#;

#[test]
fn a_good_file_is_read_whole() {
    let config = parse(GOOD).unwrap();
    assert_eq!(*config.workers.get_ref(), 3);
    assert_eq!(config.limits.sessions, Some(Positive(1000)));
    assert_eq!(config.device.len(), 3);
    let tap = &config.device[0];
    assert_eq!(tap.name.get_ref().to_string(), "tap:hs0");
    assert_eq!((tap.domain, tap.addresses().unwrap().len(), tap.routes.len()), (0, 2, 2));
    assert_eq!(tap.routes[0].get_ref().via.unwrap().ip().to_string(), "10.9.0.1");
    let (echo, sink) = (&config.app[0], &config.app[1]);
    assert_eq!((echo.kind, echo.domain(), echo.app_workers(), echo.nodelay), (Kind::Echo, 0, 2, false));
    assert_eq!((sink.kind, sink.domain(), sink.app_workers(), sink.nodelay), (Kind::Discard, 1, 1, true));
    assert_eq!(config.cli[0].path(), Path::new("/tmp/hs.sock"));
}

#[test]
fn an_app_says_how_its_connections_behave() {
    assert_eq!(parse(GOOD).unwrap().app[0].socket(), SocketOptions::DEFAULT);
    assert_eq!(parse(GOOD).unwrap().app[1].socket(), SocketOptions::NODELAY);
    let more = "nodelay = true\ncongestion = \"bbr\"\nfast_open = true\nkeepalive = 30\ndscp = 46\necn = \"request\"\nmtu_probing = true\n\
                fifo = 1000000\nrx_window_initial = 20000\ntx_capacity_max = 4000000";
    let config = parse(&GOOD.replace("nodelay = true", more)).unwrap();
    let keepalive = Some(Keepalive { idle_ms: 30_000, ..Keepalive::default() });
    let expected = SocketOptions {
        congestion: Algorithm::Bbr,
        fast_open: true,
        keepalive,
        dscp: 46,
        ecn: EcnMode::Request,
        mtu_probing: true,
        rx_window_initial: 20_000,
        ..SocketOptions::NODELAY
    };
    assert_eq!(config.app[1].socket(), expected);
    let fifos = SessionOptions { rx_capacity: 1_000_000, tx_capacity: 1_000_000, tx_capacity_max: 4_000_000 };
    assert_eq!(config.app[1].fifos(), fifos);
    assert_eq!(parse(GOOD).unwrap().app[1].fifos(), SessionOptions::default());
    let options = config.app[0].listens_on("tcp://10.9.0.2:7".parse().unwrap(), None);
    assert_eq!((options.backlog, options.fifos.rx_capacity, options.domain), (100, 131_072, DomainId(0)));
    for (word, ecn) in [("off", EcnMode::Off), ("accept", EcnMode::Accept)] {
        let config = parse(&GOOD.replace("nodelay = true", &format!("ecn = \"{word}\""))).unwrap();
        assert_eq!(config.app[1].socket().ecn, ecn);
    }
}

#[test]
fn an_app_whose_connections_cannot_behave_so_is_refused() {
    for (line, message) in [
        (
            "congestion = \"vegas\"",
            "f.toml:39: app[1].congestion: expected a congestion control: cubic or newreno or bbr, found \"vegas\"",
        ),
        ("dscp = 64", "f.toml:39: app[1].dscp: a DSCP has 6 bits: expected 0 to 63, found 64"),
        (
            "keepalive = 0",
            "f.toml:39: app[1].keepalive: expected seconds of silence, 1 or more, or nothing for no keep-alive",
        ),
        (
            "ecn = \"on\"",
            "f.toml:39: app[1].ecn: unknown variant `on`, expected one of `off`, `accept`, `request`",
        ),
        ("mtu_probing = 1", "f.toml:39: app[1].mtu_probing: invalid type: integer `1`, expected a boolean"),
        ("rx_window_initial = 0", "f.toml:39: app[1].rx_window_initial: expected a positive number, found 0"),
        (
            "rx_window_initial = 65536",
            "f.toml:39: app[1].rx_window_initial: a fifo holds 65535 bytes: expected at most that, found 65536",
        ),
        (
            "tx_capacity_max = 65535",
            "f.toml:39: app[1].tx_capacity_max: a fifo begins with 65536 bytes: expected that to 1073741824, found 65535",
        ),
        (
            "tx_capacity_max = 1073741825",
            "f.toml:39: app[1].tx_capacity_max: a fifo begins with 65536 bytes: expected that to 1073741824, found 1073741825",
        ),
    ] {
        assert_eq!(bad("nodelay = true", line), message);
    }
}

#[test]
fn an_empty_file_is_a_stack_of_one_worker() {
    let config = parse("").unwrap();
    assert_eq!(*config.workers.get_ref(), 1);
    assert!(config.device.is_empty() && config.app.is_empty() && config.cli.is_empty());
}

/// The message for the good file with `from` replaced by `to`.
fn bad(from: &str, to: &str) -> String {
    assert_eq!(GOOD.matches(from).count(), 1, "{from:?} must stand there once");
    parse(&GOOD.replace(from, to)).unwrap_err().message(Path::new("f.toml"))
}

#[test]
fn every_mistake_is_told_with_its_line_its_key_and_what_was_expected() {
    let cases: &[(&str, &str, &str)] = &[
        // Values of the wrong type, or out of range.
        (
            "workers = 3",
            "workers = \"two\"",
            "f.toml:1: workers: invalid type: string \"two\", expected a number, 0 or above",
        ),
        ("workers = 3", "workers = 0", "f.toml:1: workers: expected 1 to 255 workers, found 0"),
        (
            "workers = 3",
            "workers = -1",
            "f.toml:1: workers: invalid value: integer `-1`, expected a number, 0 or above",
        ),
        (
            "sessions = 1000",
            "sessions = 0",
            "f.toml:4: limits.sessions: a limit of 0 lets nothing be done: expected a positive number",
        ),
        (
            "domain = 2",
            "domain = 70000",
            "f.toml:23: device[2].domain: invalid value: integer `70000`, expected a number from 0 to 65535",
        ),
        ("backlog = 100", "backlog = 0", "f.toml:31: app[0].backlog: expected a positive number, found 0"),
        ("fifo = 131072", "fifo = 2000000000", "f.toml:32: app[0].fifo: expected at most 1073741824 bytes"),
        (
            "multi_queue = true",
            "multi_queue = 1",
            "f.toml:13: device[0].multi_queue: invalid type: integer `1`, expected a boolean",
        ),
        // Strings that are not what they should be.
        (
            "\"tap:hs0\"",
            "\"eth0\"",
            "f.toml:7: device[0].name: expected tap:NAME, wire:NAME or loopback, found \"eth0\"",
        ),
        (
            "\"fd09::2/64\"",
            "\"fd09::2\"",
            "f.toml:8: device[0].addresses[1]: no prefix length: write it like 10.0.0.1/24 or 2001:db8::1/64, found \"fd09::2\"",
        ),
        (
            "via = \"10.9.0.1\"",
            "via = \"router\"",
            "f.toml:10: device[0].routes[0].via: expected an IPv4 or IPv6 address, found \"router\"",
        ),
        (
            "\"0.0.0.0:7\"",
            "\"0.0.0.0\"",
            "f.toml:29: app[0].listen[0]: expected an address and a port, like 10.9.0.2:7 or [fd09::2]:7, or a URI, found \"0.0.0.0\"",
        ),
        (
            "kind = \"echo\"",
            "kind = \"ehco\"",
            "f.toml:28: app[0].kind: unknown variant `ehco`, expected `echo` or `discard`",
        ),
        // Keys that are unknown or missing.
        (
            "backlog = 100",
            "backlogg = 100",
            "f.toml:31: app[0].backlogg: unknown field `backlogg`, expected one of `name`, `kind`, `listen`, `domain`, `app_workers`, `backlog`, `accept_proxy`, `tls_certificate`, `tls_key`, `tls_client_ca`, `tls_client_auth`, `tls_alpn`, `stage_timeout`, `nodelay`, `congestion`, `fast_open`, `keepalive`, `dscp`, `ecn`, `mtu_probing`, `fifo`, `rx_window_initial`, `tx_capacity_max`",
        ),
        ("kind = \"discard\"\n", "", "f.toml:34: app[1]: missing field `kind`"),
        (
            "[cli]",
            "[ctl]",
            "f.toml:41: ctl: unknown field `ctl`, expected one of `workers`, `limits`, `device`, `app`, `log`, `cli`, `status`, `tls`",
        ),
        // What does not fit together.
        (
            "listen = [\"10.1.0.1:9\"]",
            "listen = [\"10.1.0.2:9\"]",
            "f.toml:38: app[1].listen[0]: 10.1.0.2 is no address of domain 1: expected one of its devices' `addresses`, 0.0.0.0 or [::], or kernel+tcp:// for one of the host",
        ),
        (
            "listen = [\"10.1.0.1:9\"]",
            "listen = [\"10.1.0.1:0\"]",
            "f.toml:38: app[1].listen[0]: port 0 is none: expected 1 to 65535",
        ),
        (
            "\"[fd09::2]:7\"",
            "\"0.0.0.0:7\"",
            "f.toml:29: app[0].listen[1]: an app already listens on 0.0.0.0:7 in domain 0: expected another",
        ),
        (
            "name = \"sink\"",
            "name = \"echo\"",
            "f.toml:35: app[1].name: two apps are named \"echo\": expected another name",
        ),
        (
            "domain = 1\nlisten",
            "domain = 5\nlisten",
            "f.toml:37: app[1].domain: no device is in domain 5: expected a [[device]] with `domain = 5`, or kernel+tcp:// for a socket of the host",
        ),
        (
            "name = \"wire:a\"\ndomain = 2",
            "name = \"wire:b\"\ndomain = 2",
            "f.toml:17: device[1].name: expected two devices named \"wire:a\", the wire's ends, found 1",
        ),
        (
            "to = \"10.200.0.0/16\"",
            "to = \"::/0\", via = \"10.9.0.1\"",
            "f.toml:11: device[0].routes[1]: expected `to` and `via` of one family, both IPv4 or both IPv6",
        ),
    ];
    let wrong: Vec<_> = cases
        .iter()
        .map(|(from, to, message)| (bad(from, to), *message))
        .filter(|(told, expected)| told != expected)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Where the app `sink` of the good file listens when `listen` stands there instead.
fn places(listen: &str) -> Vec<String> {
    let config = parse(&GOOD.replace("\"10.1.0.1:9\"", listen)).unwrap();
    let places = config.app[1].places(config.default_transport()).unwrap();
    places.iter().map(ToString::to_string).collect()
}

#[test]
fn an_app_listens_on_uris_of_every_transport() {
    assert_eq!(places("\"10.1.0.1:9\""), ["tcp://10.1.0.1:9"]);
    let all = "\"tcp://10.1.0.1:9\", \"kernel+tcp://[::1]:0\", \"kernel+tcp://[::1]:0\", \"kernel+unix:///run/a\", \"local://a\"";
    let told = ["tcp://10.1.0.1:9", "kernel+tcp://[::1]:0", "kernel+tcp://[::1]:0", "kernel+unix:///run/a"];
    assert_eq!(places(all)[..4], told);
    // Without a device a socket of the host is meant; one is needed for this stack's TCP alone.
    let alone = |listen: &str| {
        let text = format!("[[app]]\nname = \"a\"\nkind = \"echo\"\nlisten = [{listen:?}]");
        let config = parse(&text).map_err(|error| error.message(Path::new("f.toml")))?;
        Ok::<_, String>(config.app[0].places(config.default_transport()).unwrap()[0].to_string())
    };
    assert_eq!(alone("127.0.0.1:9"), Ok("kernel+tcp://127.0.0.1:9".to_owned()));
    assert_eq!(
        alone("tcp://127.0.0.1:9"),
        Err("f.toml:4: app[0].listen[0]: no device is in domain 0: expected a [[device]] with `domain = 0`, or kernel+tcp:// for a socket of the host".to_owned())
    );
    for (listen, message) in [
        (
            "\"udp://10.1.0.1:9\"",
            "an address begins with tcp://, kernel+tcp://, kernel+unix:// or local:// (tls+ before it for TLS), found \"udp://10.1.0.1:9\"",
        ),
        (
            "\"tls+tcp://10.1.0.1:9\"",
            "TLS needs a certificate: expected `tls_certificate` and `tls_key` besides, files in PEM",
        ),
        (
            "\"kernel+unix://run/a\"",
            "a name of 1 to 107 bytes must follow: kernel+unix:///run/app.sock, kernel+unix://@name, local://name, found \"kernel+unix://run/a\"",
        ),
    ] {
        assert_eq!(bad("\"10.1.0.1:9\"", listen), format!("f.toml:38: app[1].listen[0]: {message}"));
    }
    for place in ["kernel+tcp://127.0.0.1:9", "kernel+unix:///run/a"] {
        assert_eq!(
            bad("\"10.1.0.1:9\"", &format!("\"{place}\", \"{place}\"")),
            format!("f.toml:38: app[1].listen[1]: an app already listens on {place}: expected another")
        );
    }
}

#[test]
fn a_header_is_required_where_the_file_says_so() {
    let listens = |more: &str| {
        let config = parse(&GOOD.replace("nodelay = true", more)).unwrap();
        let options = config.app[1].listens_on("local://a".parse().unwrap(), None);
        (options.stages.names(), options.stage_timeout)
    };
    assert_eq!(listens("nodelay = true"), (vec![], ListenOptions::on(place()).stage_timeout));
    let header = vec!["PROXY header to receive"];
    assert_eq!(listens("accept_proxy = \"any\"").0, header);
    let both = listens("accept_proxy = \"v2\"\nstage_timeout = \"1500ms\"");
    assert_eq!(both, (header, Duration::from_millis(1500)));
    for (more, message) in [
        ("accept_proxy = \"v3\"", "accept_proxy: unknown variant `v3`, expected one of `v1`, `v2`, `any`"),
        (
            "stage_timeout = \"1s\"",
            "stage_timeout: nothing has to happen before it accepts: expected `accept_proxy` or a tls+ URI besides",
        ),
        (
            "stage_timeout = \"0s\"",
            "stage_timeout: a timeout of zero lets nothing succeed: give a positive span, like 5s, found \"0s\"",
        ),
    ] {
        assert_eq!(bad("nodelay = true", more), format!("f.toml:39: app[1].{message}"));
    }
}

/// Files of a certificate and its key, made for one test.
fn certificate(dir: &Path, name: &str) {
    let made = rcgen::generate_simple_self_signed(["a.invalid".to_owned()]).unwrap();
    std::fs::write(dir.join(format!("{name}.pem")), made.cert.pem()).unwrap();
    std::fs::write(dir.join(format!("{name}.key")), made.signing_key.serialize_pem()).unwrap();
}

#[test]
fn whom_connects_believe_is_read_and_must_be_certificates() {
    let dir = tempfile::TempDir::new().unwrap();
    certificate(dir.path(), "a");
    let file = |name: &str| format!("[tls]\nca = \"{}/{name}\"\n", dir.path().display());
    assert_eq!(parse("").unwrap().trusted(), Ok(None));
    let pem = std::fs::read(dir.path().join("a.pem")).unwrap();
    assert_eq!(parse(&file("a.pem")).unwrap().trusted(), Ok(Some(pem)));
    for (text, parts) in [
        (file("b.pem"), &["f.toml:2: tls.ca: cannot read", "b.pem", "in PEM"][..]),
        (file("a.key"), &["f.toml:2: tls.ca:", "a.key"]),
        ("[tls]\n".to_owned(), &["missing field `ca`"]),
        ("[tls]\ncas = \"x\"\n".to_owned(), &["unknown field `cas`"]),
    ] {
        let error = parse(&text).unwrap_err().message(Path::new("f.toml"));
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}

#[test]
fn tls_has_its_files_and_comes_after_the_header() {
    let dir = tempfile::TempDir::new().unwrap();
    let at = dir.path().display().to_string();
    certificate(dir.path(), "a");
    certificate(dir.path(), "b");
    let file = |listen: &str, keys: &str| {
        let keys = keys.replace("DIR", &at);
        format!("[[app]]\nname = \"a\"\nkind = \"echo\"\nlisten = [{listen}]\n{keys}\n")
    };
    let both = "\"tls+kernel+tcp://127.0.0.1:0\", \"kernel+tcp://127.0.0.1:8\", \"local://a\"";
    let good = "tls_certificate = \"DIR/a.pem\"\ntls_key = \"DIR/a.key\"";
    let stages = |keys: &str| {
        let config = parse(&file(both, keys)).map_err(|error| error.message(Path::new("f.toml")))?;
        let app = &config.app[0];
        let tls = app.tls().unwrap().unwrap();
        let uris = app.places(config.default_transport()).unwrap();
        Ok::<_, String>(
            uris.into_iter().map(|uri| app.listens_on(uri, Some(&tls)).stages.names()).collect::<Vec<_>>(),
        )
    };
    let (header, none) = ("PROXY header to receive", Vec::new());
    assert_eq!(stages(good), Ok(vec![vec!["TLS"], none.clone(), none]));
    let proxied = stages(&format!("{good}\naccept_proxy = \"any\"\nstage_timeout = \"1s\""));
    assert_eq!(proxied, Ok(vec![vec![header, "TLS"], vec![header], vec![header]]));
    for more in [
        "stage_timeout = \"1s\"",
        "tls_client_ca = \"DIR/b.pem\"",
        "tls_client_ca = \"DIR/b.pem\"\ntls_client_auth = \"optional\"",
        "tls_client_ca = \"DIR/b.pem\"\ntls_client_auth = \"required\"",
        "tls_alpn = [\"h2\", \"http/1.1\"]",
    ] {
        assert!(stages(&format!("{good}\n{more}")).is_ok(), "{more}");
    }
    let plain = "\"kernel+tcp://127.0.0.1:0\"";
    for (listen, keys, line, parts) in [
        (
            both,
            "",
            4,
            &["app[0].listen[0]", "TLS needs a certificate", "`tls_certificate` and `tls_key`"][..],
        ),
        (plain, good, 5, &["app[0].tls_certificate", "expected `tls+` before a URI of `listen`"]),
        (
            both,
            "tls_certificate = \"DIR/a.pem\"",
            5,
            &["app[0].tls_certificate", "expected `tls_key` besides"],
        ),
        (both, "tls_key = \"DIR/a.key\"", 5, &["app[0].tls_key", "expected `tls_certificate` besides"]),
        (both, "tls_alpn = [\"h2\"]", 5, &["app[0].tls_alpn", "expected `tls_certificate` besides"]),
        (
            both,
            &good.replace("a.pem", "c.pem"),
            5,
            &["app[0].tls_certificate", "cannot read", "/c.pem", "in PEM"],
        ),
        (
            both,
            &good.replace("a.key", "c.key"),
            6,
            &["app[0].tls_key", "cannot read", "/c.key", "private key"],
        ),
        (
            both,
            &good.replace("a.key", "b.key"),
            6,
            &["app[0].tls_key", "/b.key: the key is not", "/a.pem was made for"],
        ),
        (
            both,
            &good.replace("a.pem", "a.key"),
            5,
            &["app[0].tls_certificate", "/a.key: there is no certificate"],
        ),
        (both, &good.replace("a.key", "a.pem"), 6, &["app[0].tls_key", "/a.pem", "private key"]),
        (
            both,
            &format!("{good}\ntls_client_auth = \"optional\""),
            7,
            &["app[0].tls_client_auth", "expected `tls_client_ca` besides"],
        ),
        (
            both,
            &format!("{good}\ntls_client_ca = \"DIR/a.key\""),
            7,
            &["app[0].tls_client_ca", "/a.key: there is no certificate"],
        ),
        (both, &format!("{good}\ntls_client_auth = \"on\""), 7, &["`optional` or `required`"]),
        (both, &format!("{good}\ntls_alpn = [\"\"]"), 7, &["app[0].tls_alpn", "1 to 255 bytes"]),
    ] {
        let told = parse(&file(listen, keys)).unwrap_err().message(Path::new("f.toml"));
        assert!(told.starts_with(&format!("f.toml:{line}: ")) && !told.contains('\n'), "{keys}: {told}");
        for part in parts {
            assert!(told.contains(part), "no {part:?} for {keys}: {told}");
        }
    }
}

fn place() -> Place {
    "local://a".parse().unwrap()
}

#[test]
fn what_is_no_toml_is_told_with_its_line() {
    let message = bad("nodelay = true", "nodelay = = true");
    assert_eq!(message, "f.toml:39: nodelay: extra `=`, expected nothing");
    let message = bad("[cli]", "[cli");
    assert!(message.starts_with("f.toml:41:"), "{message}");
    assert!(!message.contains('\n'), "{message}");
    let message = bad("backlog = 100", "backlog = 100\nbacklog = 200");
    assert_eq!(message, "f.toml:32: backlog: duplicate key");
}

#[test]
fn an_item_of_a_list_is_told_with_its_own_line() {
    let message =
        bad("[\"10.9.0.2/24\", \"fd09::2/64\"]", "[\n    \"10.9.0.2/24\",\n    \"fd09::2/129\",\n]");
    assert_eq!(
        message,
        "f.toml:10: device[0].addresses[1]: a prefix of 129 bits is longer than the address, which has 128, found \"fd09::2/129\""
    );
}

#[test]
fn lines_are_counted_from_one() {
    assert_eq!((line_of("a\nb", 0), line_of("a\nb", 2), line_of("a\nb", 99)), (1, 2, 2));
}

//! A cell of the matrix: transport, meddling, stages, workload, consumer; and how a cell comes out.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::LazyLock;

use hoststack::app::proxy::{Origin, ReceiveProxy, SendProxy, Version};
use hoststack::app::{Duration, StagePlans};
use hoststack_tls::{Client, ClientOptions, Identity, Roots, Server, ServerOptions};

use super::script::{ConnectMode, Script, StreamMode, modes};

modes! {
    /// The transport between the consumer and the server.
    Via {
        /// Over 127.0.0.1.
        Tcp4 = "tcp",
        /// Over ::1.
        Tcp6 = "tcp6",
        /// A Unix socket.
        Unix = "unix",
    }
}

modes! {
    /// What lies between the transport and the announcement, on both ends. A new stage is a line here and two in
    /// [`Stack::sending`] and [`Stack::receiving`].
    Stack {
        /// Nothing.
        None = "none",
        /// The consumer sends a PROXY header of version 1, the server requires one.
        ProxyV1 = "proxy-v1",
        /// The same, version 2.
        ProxyV2 = "proxy-v2",
        /// TLS.
        Tls = "tls",
        /// A PROXY header of version 2 in clear, then TLS.
        ProxyTls = "proxy+tls",
    }
}

modes! {
    /// Who speaks, and when.
    Workload {
        /// The client's bytes are there before the connect.
        Buffered = "buf",
        /// The client speaks when the connection has been quiet for a while.
        Late = "late",
        /// The server speaks first, the client is silent.
        ServerFirst = "srv1",
        /// The client closes as soon as it is connected.
        ConnectOnly = "chk",
        /// Connect, send, expect.
        Script = "script",
    }
}

modes! {
    /// Who connects.
    Consumer {
        /// A bare app.
        App = "app",
        /// A proxy, which relays between a client's session and this one.
        Proxy = "proxy",
        /// A health check, with a time of its own, which ends the connection by a reset.
        Check = "check",
    }
}

/// Whom the header speaks of.
pub(super) fn origin() -> (SocketAddr, SocketAddr) {
    let at = |last, port| SocketAddr::from((Ipv4Addr::new(192, 0, 2, last), port));
    (at(7, 1234), at(1, 443))
}

/// Plans of TLS for both ends that go together, with a certificate of this run's.
static TLS: LazyLock<(Client, Server)> = LazyLock::new(|| {
    const NAME: &str = "server.example.org";
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).expect("chance is to be had");
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let identity = Identity::from_pem(chain.as_bytes(), key.as_bytes()).expect("it was just made");
    let client = ClientOptions { roots: Roots::Given(chain.into_bytes()), ..ClientOptions::default() };
    let server = ServerOptions { identities: vec![identity], ..ServerOptions::default() };
    (Client::new(NAME, &client).expect("a name"), Server::new(&server).expect("an identity"))
});

impl Stack {
    /// What listeners there are: a header of either version finds the same one.
    pub(super) const LISTENERS: [Stack; 4] = [Stack::None, Stack::ProxyV2, Stack::Tls, Stack::ProxyTls];

    /// The place of its listener in [`Stack::LISTENERS`].
    pub(super) const fn listener(self) -> usize {
        match self {
            Stack::None => 0,
            Stack::ProxyV1 | Stack::ProxyV2 => 1,
            Stack::Tls => 2,
            Stack::ProxyTls => 3,
        }
    }

    /// Whether there is TLS.
    const fn has_tls(self) -> bool {
        matches!(self, Stack::Tls | Stack::ProxyTls)
    }

    /// Whether a PROXY header is sent.
    pub(super) const fn has_header(self) -> bool {
        matches!(self, Stack::ProxyV1 | Stack::ProxyV2 | Stack::ProxyTls)
    }

    /// What a connect does first.
    #[must_use]
    pub fn sending(self) -> StagePlans {
        let header = |version| {
            let (src, dst) = origin();
            StagePlans::one(SendProxy { origin: Origin::Of(src, dst), ..SendProxy::new(version) })
        };
        match self {
            Stack::None => StagePlans::NONE,
            Stack::ProxyV1 => header(Version::V1),
            Stack::ProxyV2 => header(Version::V2),
            Stack::Tls => StagePlans::one(TLS.0.clone()),
            Stack::ProxyTls => header(Version::V2).then(TLS.0.clone()),
        }
    }

    /// What a listener requires first.
    #[must_use]
    pub fn receiving(self) -> StagePlans {
        match self {
            Stack::None => StagePlans::NONE,
            Stack::ProxyV1 | Stack::ProxyV2 => StagePlans::one(ReceiveProxy::default()),
            Stack::Tls => StagePlans::one(TLS.1.clone()),
            Stack::ProxyTls => StagePlans::one(ReceiveProxy::default()).then(TLS.1.clone()),
        }
    }
}

/// What the client asks.
pub(super) const REQUEST: &[u8] = b"a question, in some bytes";
/// What the server answers.
pub(super) const ANSWER: &[u8] = b"an answer, in some more bytes than the question has";
/// What the server says first.
pub(super) const GREETING: &[u8] = b"220 a server, speaking first";

impl Workload {
    /// What the server must hear.
    pub(super) const fn asked(self) -> &'static [u8] {
        match self {
            Workload::Buffered | Workload::Late | Workload::Script => REQUEST,
            Workload::ServerFirst | Workload::ConnectOnly => b"",
        }
    }

    /// What the client must hear.
    pub(super) const fn answered(self) -> &'static [u8] {
        match self {
            Workload::Buffered | Workload::Late | Workload::Script => ANSWER,
            Workload::ServerFirst => GREETING,
            Workload::ConnectOnly => b"",
        }
    }
}

/// How long an attempt may take, and a check.
pub(super) const ATTEMPT: Duration = Duration::from_millis(1500);
/// Before the second attempt.
pub(super) const RETRY: Duration = Duration::from_millis(10);
/// How long a client that speaks late is silent.
pub(super) const SILENCE: Duration = Duration::from_millis(250);
/// How long a listener waits for a header: longer than both attempts.
pub(super) const STAGE: Duration = Duration::from_secs(20);

/// A cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The transport.
    pub via: Via,
    /// How its sockets are meddled with.
    pub script: Script,
    /// Its stages.
    pub stack: Stack,
    /// Who speaks.
    pub workload: Workload,
    /// Who connects.
    pub consumer: Consumer,
}

impl Cell {
    /// Who does what: a check sends and expects, but has nobody's bytes to forward.
    #[must_use]
    pub fn columns() -> Vec<(Consumer, Workload)> {
        let all = Consumer::ALL.iter().flat_map(|c| Workload::ALL.iter().map(|w| (*c, *w)));
        let is_a_checks = |w| matches!(w, Workload::ServerFirst | Workload::ConnectOnly | Workload::Script);
        all.filter(|(consumer, workload)| *consumer != Consumer::Check || is_a_checks(*workload)).collect()
    }

    /// All cells of a transport, in the table's order.
    pub fn all(via: Via) -> impl Iterator<Item = Cell> {
        let columns = Cell::columns();
        let scripts = ConnectMode::ALL
            .iter()
            .flat_map(|&connect| StreamMode::ALL.iter().map(move |&stream| Script { connect, stream }));
        scripts.flat_map(move |script| {
            let columns = columns.clone();
            Stack::ALL.iter().flat_map(move |&stack| {
                columns.clone().into_iter().map(move |(consumer, workload)| Cell {
                    via,
                    script,
                    stack,
                    workload,
                    consumer,
                })
            })
        })
    }

    /// Whether the connect is meddled with or what follows, not both.
    #[must_use]
    pub fn is_meddled_with_once(&self) -> bool {
        self.script.connect == ConnectMode::Plain || self.script.stream == StreamMode::Plain
    }

    /// Whether it is run every time: of those with TLS, which take as long as all others, a part.
    #[must_use]
    pub fn is_run_always(&self) -> bool {
        !self.stack.has_tls() || self.is_meddled_with_once()
    }

    /// Whether planted bugs are looked for in it.
    #[must_use]
    pub fn is_for_planted_bugs(&self) -> bool {
        !self.stack.has_tls() && self.is_meddled_with_once()
    }

    /// The cell of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Cell> {
        Via::ALL.iter().flat_map(|via| Cell::all(*via)).find(|cell| cell.to_string() == name)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cell { via, script: Script { connect, stream }, stack, workload, consumer } = self;
        write!(f, "{via} {connect} {stream} {stack} {consumer} {workload}")
    }
}

/// How a cell came out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// One outcome, in time, bytes right, nothing left.
    Ok,
    /// All of that, but only after the deadline of the first attempt fired.
    Late,
    /// The client got nothing.
    Hang,
    /// A check said that all is well, when its time was up.
    FalseOk,
    /// A check failed for its time was up.
    TimedOut,
    /// Something that must never be, whenever: in words.
    Wrong(String),
}

impl Verdict {
    /// As in tables.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Late => "LATE",
            Verdict::Hang => "HANG",
            Verdict::FalseOk => "FALSE-OK",
            Verdict::TimedOut => "TOUT",
            Verdict::Wrong(_) => "WRONG",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_called_by_its_name() {
        let cells: Vec<Cell> = Cell::all(Via::Unix).collect();
        assert_eq!(cells.len(), ConnectMode::ALL.len() * StreamMode::ALL.len() * Stack::ALL.len() * 13);
        for cell in cells.iter().step_by(97) {
            assert_eq!(Cell::parse(&cell.to_string()), Some(*cell));
        }
    }
}

//! The axes, what each value means for the host and its peer, and the walk over all of their product.

use std::fmt;

use hoststack::app::proxy::{Origin, ReceiveProxy, SendProxy, Version};
use hoststack::app::{ConnectFailure, StageCause, StageFailure, StagePlan, StagePlans};
use std::sync::Arc;

use super::host::{Connects, PeerStep, Script, SocketNumber, local};
use super::stages::{Kind, Plan};

macro_rules! axis {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident => $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// All values.
            pub const ALL: &[$name] = &[$($name::$variant,)*];

            /// Its name in a cell.
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }
        }
    };
}

axis! {
    /// What comes of `connect()`.
    Connect {
        /// It is up when the call returns.
        SyncOk => "sync",
        /// It is up later.
        AsyncOk => "async",
        /// Refused when the call returns.
        SyncRefused => "sync-refused",
        /// Refused later.
        AsyncRefused => "async-refused",
        /// Nothing comes.
        Never => "never",
        /// Up later, and the peer has ended its direction by then.
        AsyncFin => "async-fin",
        /// Up later, and all the peer's bytes and its end are there by then.
        AsyncBytesFin => "async-bytes-fin",
        /// Up, and reset before anything is read or written.
        ResetFirst => "reset-first",
        /// An event that says hung up while it is under way, then up.
        HangUpFirst => "hup-first",
        /// Up, said by an event that says hung up and closed besides, which is not so.
        HangUpWith => "hup-with",
        /// An event that says error while it is under way and nothing is wrong, then up.
        ErrorFirst => "err-first",
    }
}

axis! {
    /// What became of an attempt before the one that the rest of the cell is about.
    Before {
        /// There was none.
        Nothing => "nothing",
        /// Refused when the call returned; the next address is tried.
        SyncRefused => "sync-refused",
        /// Refused later; the same address is tried again after a pause.
        AsyncRefused => "async-refused",
        /// Nothing came in the time of an attempt.
        Never => "never",
        /// It was up, and reset before anything was read or written.
        Reset => "reset",
        /// It was up, and the peer ended its direction before it answered a stage.
        Fin => "fin",
        /// It was up, and what the peer sent is not what the stage wants.
        Wrong => "wrong",
    }
}

axis! {
    /// How a stage comes to its end.
    Does {
        /// Done when it starts: what it needs is there, or it needs nothing.
        AtStart => "start",
        /// After one event.
        Later => "later",
        /// In two parts.
        Partial => "partial",
        /// Not at all: what it needs cannot be had.
        Fails => "fails",
        /// Never.
        Never => "never",
    }
}

axis! {
    /// What is to be sent.
    Tx {
        /// Nothing.
        Empty => "empty",
        /// A byte with the connect.
        Early1 => "early-1",
        /// More with the connect than the window takes.
        EarlyMany => "early-many",
        /// A byte when the app is told.
        Write1 => "write-1",
        /// More than the window and the fifo take, when the app is told.
        WriteMany => "write-many",
    }
}

axis! {
    /// What the peer does by itself, once the stages are through.
    Peer {
        /// Nothing.
        Silent => "silent",
        /// It speaks.
        First => "first",
        /// It speaks and ends its direction.
        FirstFin => "first-fin",
    }
}

axis! {
    /// What the app wants of a session.
    Interest {
        /// To read.
        Read => "r",
        /// To write, and to be told of room.
        Write => "w",
        /// Both.
        Both => "rw",
        /// Nothing.
        None => "none",
    }
}

axis! {
    /// Who connects.
    Consumer {
        /// A relay between an older session and this one.
        Proxy => "proxy",
        /// A check: closes as soon as it is told.
        Check => "check",
        /// An app that keeps the session.
        App => "app",
    }
}

axis! {
    /// What happens between two steps.
    Action {
        /// The app closes the session, or will when there is one.
        AppClose => "close",
        /// The app resets the session, or will when there is one.
        AppAbort => "abort",
        /// The connect is cancelled.
        Cancel => "cancel",
        /// The connect's deadline passes.
        Deadline => "deadline",
        /// Bytes come on the older session of a relay.
        Opposite => "opposite",
        /// Events come that mean nothing.
        Spurious => "spurious",
        /// The next write finds no room, once.
        Again => "again",
        /// The next write is cut to one byte.
        Short => "short",
    }
}

/// What a stage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageKind {
    /// A PROXY header is sent.
    Send,
    /// As TLS, or as SOCKS.
    Own(Kind),
    /// A PROXY header is required.
    Receive,
}

/// The stacks of stages, the one next to the transport first, with what they are called.
pub const STACKS: [(&str, &[StageKind]); 7] = [
    ("none", &[]),
    ("sp", &[StageKind::Send]),
    ("tls", &[StageKind::Own(Kind::Hello)]),
    ("sp+tls", &[StageKind::Send, StageKind::Own(Kind::Hello)]),
    ("socks+sp", &[StageKind::Own(Kind::Socks), StageKind::Send]),
    ("rp", &[StageKind::Receive]),
    ("rp+tls", &[StageKind::Receive, StageKind::Own(Kind::Hello)]),
];

/// Where connects go.
pub const REMOTE: ([u8; 4], u16) = ([192, 0, 2, 1], 80);
/// What the tx and rx fifos of all sessions hold.
pub const FIFO: usize = 256;
/// What the peer says by itself.
pub const BANNER: &[u8] = b"welcome";
/// What comes on the older session of a relay as the action.
pub const OPPOSITE: &[u8] = b"other";
const DECLARED: &[u8] = b"PROXY TCP4 198.51.100.7 192.0.2.1 4444 80\r\n";
const GARBAGE: &[u8] = b"GET / HTTP/1.0\r\n\r\n";
/// What errors call the stages that ship.
const SEND_NAME: &str = "PROXY header to send";
const RECEIVE_NAME: &str = "PROXY header to receive";
const EARLY_NAME: &str = "early data";

/// One cell of the product, without an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// What came of the attempt before.
    pub before: Before,
    /// What comes of the connect.
    pub connect: Connect,
    /// Index in [`STACKS`].
    pub stack: usize,
    /// What each stage does; of stages that are not there: `AtStart`.
    pub does: [Does; 2],
    /// What is sent.
    pub tx: Tx,
    /// What the peer does.
    pub peer: Peer,
    /// What the app wants.
    pub interest: Interest,
    /// Who connects.
    pub consumer: Consumer,
}

/// What the peer and the network do to a socket.
#[derive(Clone, Debug)]
pub struct PeerPlan {
    /// What the host does by itself.
    pub script: Script,
    /// What comes when the stack has nothing left to do, one by one: not before so many bytes came from us.
    pub later: Vec<(usize, Vec<PeerStep>)>,
    /// What the stages write.
    pub stage_bytes: Vec<u8>,
    /// Bytes of the peer that are the stages'.
    pub answer_bytes: usize,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, kinds) = STACKS[self.stack];
        write!(f, "before={} connect={} stages={name}", self.before.name(), self.connect.name())?;
        for (n, does) in self.does.iter().take(kinds.len()).enumerate() {
            write!(f, "{}{}", if n == 0 { "(" } else { "," }, does.name())?;
        }
        write!(
            f,
            "{} tx={} peer={} interest={} consumer={}",
            if kinds.is_empty() { "" } else { ")" },
            self.tx.name(),
            self.peer.name(),
            self.interest.name(),
            self.consumer.name()
        )
    }
}

impl Cell {
    /// Its stages.
    pub fn stages(&self) -> impl Iterator<Item = (StageKind, Does)> + use<> {
        STACKS[self.stack].1.iter().copied().zip(self.does)
    }

    /// The stage that needs an answer first, unless one before it fails by itself.
    fn waits(&self) -> Option<usize> {
        let mut stages = self.stages();
        let at = stages.position(|(kind, does)| match kind {
            StageKind::Send => does == Does::Fails,
            StageKind::Own(_) => does != Does::AtStart,
            StageKind::Receive => true,
        })?;
        (STACKS[self.stack].1[at] != StageKind::Send).then_some(at)
    }

    /// The attempt before, as a cell; `None` if there was none.
    pub fn attempt_before(&self) -> Option<Cell> {
        let mut does = self.does;
        let connect = match self.before {
            Before::Nothing => return None,
            Before::SyncRefused => Connect::SyncRefused,
            Before::AsyncRefused => Connect::AsyncRefused,
            Before::Never => Connect::Never,
            Before::Reset => Connect::ResetFirst,
            Before::Fin => Connect::AsyncFin,
            Before::Wrong => {
                does[self.waits()?] = Does::Fails;
                Connect::AsyncOk
            }
        };
        Some(Cell { before: Before::Nothing, connect, does, peer: Peer::Silent, ..*self })
    }

    /// The attempt before cannot be: it would not have failed, or not in its time.
    fn is_impossible(&self) -> bool {
        match self.before {
            Before::Nothing | Before::SyncRefused | Before::AsyncRefused | Before::Never => false,
            Before::Reset | Before::Fin => self.waits().is_none(),
            Before::Wrong => {
                let is_heard = |at| !self.stages().take(at).any(|(_, does)| does == Does::Never);
                !self.waits().is_some_and(is_heard)
            }
        }
    }

    /// The connect never comes up.
    pub fn never_opens(&self) -> bool {
        matches!(self.connect, Connect::SyncRefused | Connect::AsyncRefused | Connect::Never)
    }

    /// Nothing that the peer would say comes but its end, if that.
    fn is_mute(&self) -> bool {
        self.connect == Connect::AsyncFin || self.connect == Connect::ResetFirst
    }

    /// The plans of its stages.
    pub fn plans(&self) -> StagePlans {
        StagePlans::new(
            self.stages()
                .map(|(kind, does)| -> Arc<dyn StagePlan> {
                    match kind {
                        StageKind::Send if does == Does::Fails => {
                            let (v4, v6) = ("192.0.2.9:9".parse(), "[2001:db8::9]:9".parse());
                            let origin = match (v4, v6) {
                                (Ok(v4), Ok(v6)) => Origin::Of(v4, v6),
                                _ => unreachable!("they are addresses"),
                            };
                            Arc::new(SendProxy { origin, ..SendProxy::new(Version::V1) })
                        }
                        StageKind::Send => Arc::new(SendProxy::new(Version::V1)),
                        StageKind::Own(kind) => Arc::new(Plan { kind, waits: does != Does::AtStart }),
                        StageKind::Receive => Arc::new(ReceiveProxy::default()),
                    }
                })
                .collect(),
        )
    }

    /// What goes with the connect.
    pub fn early(&self) -> Vec<u8> {
        match self.tx {
            Tx::Early1 => b"e".to_vec(),
            // Behind a header it does not fit the fifo until some of that has gone.
            Tx::EarlyMany => (0..230).map(|n| b'A' + n % 26).collect(),
            _ => Vec::new(),
        }
    }

    /// What is written when the app is told (of a relay: what waits on the older session).
    pub fn written(&self) -> Vec<u8> {
        match self.tx {
            Tx::Write1 => b"w".to_vec(),
            Tx::WriteMany if self.consumer == Consumer::Proxy => (0..200).map(|n| b'a' + n % 26).collect(),
            Tx::WriteMany => (0..300).map(|n| b'a' + (n % 26) as u8).collect(),
            _ => Vec::new(),
        }
    }

    /// What happens to its socket, which is the `back`th of the cell.
    pub fn peer_plan(&self, back: SocketNumber) -> PeerPlan {
        let mut script = Script::plain();
        let mut stage_bytes = Vec::new();
        // What comes, and after how many bytes of ours; the first piece may be there from the start.
        let mut pieces: Vec<(usize, Vec<u8>)> = Vec::new();
        let (mut at_open, mut answer_bytes, mut is_stuck, mut may_end) = (Vec::new(), 0, false, true);
        for (kind, does) in self.stages() {
            let start = stage_bytes.len();
            let answer: &[u8] = match kind {
                StageKind::Send => {
                    let ours = local(back);
                    let header = format!("PROXY TCP4 {} 192.0.2.1 {} 80\r\n", ours.ip(), ours.port());
                    match does {
                        Does::AtStart => {}
                        Does::Later => script.windows.push_back(start),
                        Does::Partial => script.windows.push_back(start + 5),
                        Does::Never => {
                            script.windows.push_back(start);
                            script.never_opens = true;
                        }
                        Does::Fails => {
                            (is_stuck, may_end) = (true, false);
                            break;
                        }
                    }
                    stage_bytes.extend(header.bytes());
                    continue;
                }
                StageKind::Own(kind) => {
                    stage_bytes.extend(kind.request());
                    kind.answer()
                }
                StageKind::Receive => DECLARED,
            };
            let guard = stage_bytes.len();
            match does {
                Does::AtStart if kind == StageKind::Receive => at_open.extend(answer),
                Does::AtStart => {}
                Does::Later => pieces.push((guard, answer.to_vec())),
                Does::Partial => {
                    let (first, rest) = answer.split_at(answer.len() / 2);
                    pieces.push((guard, first.to_vec()));
                    pieces.push((guard, rest.to_vec()));
                }
                Does::Fails => {
                    pieces.push((guard, GARBAGE.to_vec()));
                    (is_stuck, may_end) = (true, false);
                    break;
                }
                Does::Never => {
                    pieces.push((guard, Vec::new()));
                    is_stuck = true;
                    break;
                }
            }
            if does != Does::AtStart || kind == StageKind::Receive {
                answer_bytes += answer.len();
            }
            if let StageKind::Own(kind) = kind {
                stage_bytes.extend(kind.last());
            }
        }
        if !script.never_opens && matches!(self.tx, Tx::EarlyMany | Tx::WriteMany) {
            // The window takes eight bytes, then some more, then all.
            script.windows.extend([stage_bytes.len() + 8, stage_bytes.len() + 100]);
        }
        let last = pieces.last_mut().map_or(&mut at_open, |(_, bytes)| bytes);
        if !is_stuck && (self.peer != Peer::Silent || self.connect == Connect::AsyncBytesFin) {
            last.extend(BANNER);
        }
        let ends = may_end && self.peer == Peer::FirstFin;
        let bytes = |bytes: Vec<u8>| (!bytes.is_empty()).then_some(PeerStep::Bytes(bytes));
        let mut later: Vec<(usize, Vec<PeerStep>)> = Vec::new();
        match self.connect {
            Connect::SyncOk => script.connects = Connects::AtOnce,
            Connect::SyncRefused => script.connects = Connects::RefusedAtOnce,
            Connect::ResetFirst => script.resets_at_first_io = true,
            _ => script.connects = Connects::Later,
        }
        match self.connect {
            Connect::AsyncOk | Connect::AsyncFin | Connect::AsyncBytesFin => {
                later.push((0, vec![PeerStep::Opens]));
            }
            Connect::HangUpWith => {
                script.hangs_up_with_open = true;
                later.push((0, vec![PeerStep::Opens]));
            }
            Connect::AsyncRefused => later.push((0, vec![PeerStep::Refuses])),
            Connect::HangUpFirst => {
                later.extend([(0, vec![PeerStep::HangUpEvent]), (0, vec![PeerStep::Opens])])
            }
            Connect::ErrorFirst => {
                later.extend([(0, vec![PeerStep::ErrorEvent]), (0, vec![PeerStep::Opens])])
            }
            Connect::SyncOk | Connect::ResetFirst | Connect::SyncRefused | Connect::Never => {}
        }
        match self.connect {
            Connect::AsyncFin => script.at_open.push(PeerStep::Fin),
            Connect::AsyncBytesFin => {
                at_open.extend(pieces.into_iter().flat_map(|(_, bytes)| bytes));
                script.at_open.extend(bytes(at_open));
                script.at_open.push(PeerStep::Fin);
            }
            _ if self.never_opens() || self.connect == Connect::ResetFirst => {}
            _ => {
                script.at_open.extend(bytes(at_open));
                later.extend(pieces.into_iter().map(|(guard, b)| (guard, Vec::from_iter(bytes(b)))));
                if ends {
                    match later.last_mut() {
                        Some((_, steps)) => steps.push(PeerStep::Fin),
                        None => script.at_open.push(PeerStep::Fin),
                    }
                }
                later.retain(|(_, steps)| !steps.is_empty());
            }
        }
        PeerPlan { script, later, stage_bytes, answer_bytes }
    }

    /// The outcome, if nothing interferes. It depends on the connect, the stages, and whether the peer ends; on who
    /// connects, what the app wants or writes it does not, but for early data that finds no room, which is a stage.
    pub fn expected(&self) -> Result<(), ConnectFailure> {
        match self.connect {
            Connect::SyncRefused | Connect::AsyncRefused => return Err(ConnectFailure::Refused),
            Connect::Never => return Err(ConnectFailure::TimedOut),
            _ => {}
        }
        let ends = matches!(self.connect, Connect::AsyncFin | Connect::AsyncBytesFin);
        let failure = |stage, cause| Err(ConnectFailure::Stage(StageFailure { stage, cause }));
        let (mut written, mut drains) = (0, true);
        for (kind, does) in self.stages() {
            let (name, wrong) = match kind {
                StageKind::Send => {
                    if does == Does::Fails {
                        return failure(SEND_NAME, StageCause::Unsayable("addresses of two families"));
                    }
                    written += 41;
                    drains &= does != Does::Never;
                    continue;
                }
                StageKind::Own(kind) => {
                    written += kind.request().len();
                    if does == Does::AtStart {
                        written += kind.last().len();
                        continue;
                    }
                    (kind.name(), Kind::MALFORMED)
                }
                StageKind::Receive => (RECEIVE_NAME, StageCause::Malformed("no-header")),
            };
            // Whoever answers has read the question, but where all it says is there from the start.
            let hears = drains || kind == StageKind::Receive || self.connect == Connect::AsyncBytesFin;
            if !self.is_mute() && hears && does != Does::Never {
                if does == Does::Fails {
                    return failure(name, wrong);
                }
                if let StageKind::Own(kind) = kind {
                    written += kind.last().len();
                }
                continue;
            }
            if self.connect == Connect::ResetFirst {
                return Err(ConnectFailure::Refused);
            }
            let is_closed = ends || (self.peer == Peer::FirstFin && hears);
            return failure(name, if is_closed { StageCause::PeerClosed } else { StageCause::TimedOut });
        }
        let has_stages = !STACKS[self.stack].1.is_empty();
        if has_stages && self.early().len() + written > FIFO {
            if self.connect == Connect::ResetFirst {
                return Err(ConnectFailure::Refused);
            }
            if !drains {
                return failure(EARLY_NAME, StageCause::TimedOut);
            }
        }
        Ok(())
    }

    /// Whether a cell that the walk meets as well is the very same run.
    fn is_another(&self) -> bool {
        let kinds = STACKS[self.stack].1;
        let mut is_stuck = false;
        for (n, does) in self.does.into_iter().enumerate() {
            if (n >= kinds.len() || is_stuck || self.never_opens()) && does != Does::AtStart {
                return true;
            }
            let Some(&kind) = kinds.get(n) else { continue };
            let reads = kind != StageKind::Send;
            is_stuck |= does == Does::Fails || (does == Does::Never && reads);
            if reads && self.is_mute() {
                // No answer comes: it is needed or not.
                let is_first = does == Does::Never || (does == Does::AtStart && kind != StageKind::Receive);
                if !is_first {
                    return true;
                }
                is_stuck |= does == Does::Never;
            }
            if reads && self.connect == Connect::AsyncBytesFin {
                // All of it is there at the same time.
                if does == Does::Partial || (does == Does::AtStart && kind == StageKind::Receive) {
                    return true;
                }
            }
        }
        let says_all =
            matches!(self.connect, Connect::AsyncFin | Connect::AsyncBytesFin | Connect::ResetFirst);
        if (says_all || self.never_opens()) && self.peer != Peer::Silent {
            return true;
        }
        if is_stuck {
            let only_fails = self.does.contains(&Does::Fails);
            // Instead of an answer that never comes its end may come; nothing else.
            if self.peer == Peer::First || (only_fails && self.peer == Peer::FirstFin) {
                return true;
            }
        }
        let is_written = matches!(self.tx, Tx::Write1 | Tx::WriteMany);
        if self.expected().is_err() {
            // The app is told that it failed, and never has a session.
            return is_written || self.interest != Interest::None || self.consumer == Consumer::Check;
        }
        let wants_write = matches!(self.interest, Interest::Write | Interest::Both);
        match self.consumer {
            Consumer::App => is_written && !wants_write,
            Consumer::Check => self.interest != if is_written { Interest::Write } else { Interest::None },
            Consumer::Proxy => self.interest != Interest::Both,
        }
    }

    /// All cells of the product, and which of them are another one's run, or none.
    pub fn product() -> impl Iterator<Item = (Cell, bool)> {
        let all = |kinds: usize, n: usize| if n < kinds { Does::ALL } else { &Does::ALL[..1] };
        let before_and_connect =
            Before::ALL.iter().flat_map(|&before| Connect::ALL.iter().map(move |&connect| (before, connect)));
        before_and_connect.flat_map(move |(before, connect)| {
            (0..STACKS.len()).flat_map(move |stack| {
                let kinds = STACKS[stack].1.len();
                all(kinds, 0).iter().flat_map(move |&first| {
                    all(kinds, 1).iter().flat_map(move |&second| {
                        Tx::ALL.iter().flat_map(move |&tx| {
                            Peer::ALL.iter().flat_map(move |&peer| {
                                Interest::ALL.iter().flat_map(move |&interest| {
                                    Consumer::ALL.iter().map(move |&consumer| {
                                        let does = [first, second];
                                        let cell = Cell {
                                            before,
                                            connect,
                                            stack,
                                            does,
                                            tx,
                                            peer,
                                            interest,
                                            consumer,
                                        };
                                        (cell, cell.is_another() || cell.is_impossible())
                                    })
                                })
                            })
                        })
                    })
                })
            })
        })
    }

    /// The cells that are runs of their own, in order: a cell's number is its place here.
    pub fn all() -> Vec<Cell> {
        Cell::product().filter_map(|(cell, is_another)| (!is_another).then_some(cell)).collect()
    }
}

/// One run: a cell, and an action at a boundary between two steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The number of the cell in [`Cell::all`].
    pub number: usize,
    /// The cell.
    pub cell: Cell,
    /// What happens besides, and after how many happenings.
    pub action: Option<(Action, usize)>,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--cell {}", self.number)?;
        if let Some((action, at)) = self.action {
            write!(f, "/{}@{at}", action.name())?;
        }
        write!(f, " ({})", self.cell)
    }
}

impl Run {
    /// Reads what [`fmt::Display`] writes after `--cell`, without the words in brackets.
    pub fn parse(text: &str, cells: &[Cell]) -> Option<Run> {
        let (number, action) = text.split_once('/').map_or((text, None), |(n, action)| (n, Some(action)));
        let number: usize = number.parse().ok()?;
        let action = match action {
            None => None,
            Some(action) => {
                let (name, at) = action.split_once('@')?;
                let action = *Action::ALL.iter().find(|action| action.name() == name)?;
                Some((action, at.parse().ok()?))
            }
        };
        Some(Run { number, cell: *cells.get(number)?, action })
    }
}

//! The bytes between a transport and an app: records in, records out.
//!
//! [`Handshake`] is the stage, [`Machine`] what both it and the layer that it leaves are made of. rustls is given one record at
//! a time, as much of it as has come, and nothing beyond; what it has read of a message that spans records stays in
//! `incoming` until it says so. An idle machine holds no buffer.

use core::fmt;
use std::mem::take;
use std::sync::{Arc, OnceLock};

use hoststack_session::layer::LayerIo;
use hoststack_session::{Answer, Layer, PeerStream, Stage, StageIo, Standing, Want};
use hoststack_transport::{CloseReason, StageCause};
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic};
use rustls::{ClientConfig, CommonState, Error, ServerConfig};

use crate::NAME;
use crate::cause::{alert_name, cause};

/// A record's header (RFC 8446 §5.1).
const HEADER_LEN: usize = 5;

/// The longest record there is, without its header (RFC 5246 §6.2.3; RFC 8446 §5.2 allows less).
const RECORD_MAX: usize = (1 << 14) + 2048;

/// The most bytes of the app in a record (RFC 8446 §5.1).
const PLAINTEXT_MAX: usize = 1 << 14;

/// More than a record is longer than its plaintext: header, explicit nonce (1.2), content type (1.3), tag.
const OVERHEAD: usize = 64;

/// The most bytes that a handshake may take: a few messages of the 64 KiB that rustls allows for one.
const HANDSHAKE_MAX: usize = 1 << 18;

/// Where records come from and go to: a stage's fifos or a layer's.
trait Wire {
    fn read(&mut self, into: &mut [u8]) -> usize;
    fn write(&mut self, bytes: &[u8]) -> usize;
}

impl Wire for StageIo<'_> {
    fn read(&mut self, into: &mut [u8]) -> usize {
        StageIo::read(self, into)
    }
    fn write(&mut self, bytes: &[u8]) -> usize {
        StageIo::write(self, bytes)
    }
}

impl Wire for LayerIo<'_> {
    fn read(&mut self, into: &mut [u8]) -> usize {
        self.read_wire(into)
    }
    fn write(&mut self, bytes: &[u8]) -> usize {
        self.send(bytes)
    }
}

/// One end of rustls.
enum Connection {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
    /// It could not be made.
    Failed(Error),
}

/// What a turn of rustls came to.
enum Turn {
    /// Go on.
    Again,
    /// It has written something to `outgoing`.
    Said,
    /// It needs more of the peer.
    Blocked,
    /// Bytes of the app may be sent, and more of the peer's may come.
    Traffic,
    /// The peer's `close_notify`.
    PeerClosed,
    /// Both ends' `close_notify`.
    Closed,
    Failed(Error),
}

/// Records that come in.
#[derive(Default)]
struct Incoming {
    /// What rustls has not done with.
    bytes: Vec<u8>,
    /// Of them, how many at the end belong to a record that is not whole.
    tail: usize,
}

impl Incoming {
    /// Takes more of the record that is not whole, or of the next one, off the wire. Says how many bytes.
    fn feed(&mut self, wire: &mut impl Wire) -> usize {
        let mut fed = 0;
        loop {
            let end = self.bytes.len();
            let missing = match self.bytes[end - self.tail..] {
                [_, _, _, high, low, ..] => {
                    let length = usize::from(u16::from_be_bytes([high, low]));
                    // One that is longer is an error already; rustls says which.
                    HEADER_LEN + length.min(RECORD_MAX) - self.tail
                }
                _ => HEADER_LEN - self.tail,
            };
            self.bytes.resize(end + missing, 0);
            let count = wire.read(&mut self.bytes[end..]);
            self.bytes.truncate(end + count);
            fed += count;
            self.tail += count;
            if count < missing {
                return fed;
            }
            if self.tail > HEADER_LEN || missing == 0 {
                self.tail = 0;
                return fed;
            }
        }
    }

    fn discard(&mut self, count: usize) {
        self.bytes.drain(..count);
    }
}

/// Bytes that found no room yet.
#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    done: usize,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Gives them to `takes`, which says how many it took.
    fn flush(&mut self, mut takes: impl FnMut(&[u8]) -> usize) {
        if !self.bytes.is_empty() {
            self.done += takes(&self.bytes[self.done..]);
            if self.done == self.bytes.len() {
                *self = Waiting::default();
            }
        }
    }
}

/// TLS of one session.
pub(crate) struct Machine {
    connection: Connection,
    /// The name that the client asked for, once it is known.
    name: Arc<OnceLock<Box<str>>>,
    incoming: Incoming,
    /// Records for the peer.
    outgoing: Waiting,
    /// Bytes for the app.
    undelivered: Waiting,
    has_peer_ended: bool,
    has_sent_end: bool,
    /// What ended it, in words.
    broken: Option<String>,
}

impl Machine {
    fn new(connection: Connection, name: Arc<OnceLock<Box<str>>>) -> Machine {
        Machine {
            connection,
            name,
            incoming: Incoming::default(),
            outgoing: Waiting::default(),
            undelivered: Waiting::default(),
            has_peer_ended: false,
            has_sent_end: false,
            broken: None,
        }
    }

    pub(crate) fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Machine {
        // An address is verified but not asked for (RFC 6066 §3).
        let asked = match &name {
            ServerName::DnsName(name) => OnceLock::from(Box::from(name.as_ref())),
            _ => OnceLock::new(),
        };
        let connection = UnbufferedClientConnection::new(config, name);
        Machine::new(connection.map_or_else(Connection::Failed, Connection::Client), Arc::new(asked))
    }

    /// `name` is set while the client's hello is read.
    pub(crate) fn server(config: Arc<ServerConfig>, name: Arc<OnceLock<Box<str>>>) -> Machine {
        let connection = UnbufferedServerConnection::new(config);
        Machine::new(connection.map_or_else(Connection::Failed, Connection::Server), name)
    }

    /// What both ends know of a connection.
    ///
    /// # Panics
    /// If there is none, which ends the handshake at once.
    pub(crate) fn common(&self) -> &CommonState {
        match &self.connection {
            Connection::Client(connection) => connection,
            Connection::Server(connection) => connection,
            Connection::Failed(_) => unreachable!("a handshake without a connection fails"),
        }
    }

    pub(crate) fn server_name(&self) -> Option<&str> {
        self.name.get().map(|name| &**name)
    }

    /// One turn of rustls; bytes of the app go to `plain`.
    fn turn(&mut self, mut plain: impl FnMut(&[u8])) -> Turn {
        let (bytes, outgoing) = (&mut self.incoming.bytes, &mut self.outgoing.bytes);
        let (discard, turn) = match &mut self.connection {
            Connection::Client(c) => on_status(c.process_tls_records(bytes), outgoing, &mut plain),
            Connection::Server(c) => on_status(c.process_tls_records(bytes), outgoing, &mut plain),
            Connection::Failed(error) => (0, Turn::Failed(error.clone())),
        };
        self.incoming.discard(discard);
        turn
    }

    /// After an error: lets rustls say its alert, and read nothing more.
    fn say_alert(&mut self) {
        let has_connection = !matches!(self.connection, Connection::Failed(_));
        while has_connection && self.common().wants_write() {
            let Turn::Said = self.turn(|_| ()) else { break };
        }
        self.incoming = Incoming::default();
    }

    fn flush(&mut self, wire: &mut impl Wire) {
        self.outgoing.flush(|bytes| wire.write(bytes));
    }

    /// Encrypts what the app has to send, as far as there is room.
    fn send_app(&mut self, io: &mut LayerIo<'_>) -> Result<(), Error> {
        let (mut plain, mut records) = (take(&mut io.scratch().plain), take(&mut io.scratch().wire));
        let result = loop {
            let waiting = io.app_len().min(PLAINTEXT_MAX);
            if waiting == 0 || !self.outgoing.is_empty() {
                break Ok(());
            }
            let count = waiting.min(io.wire_room(waiting + OVERHEAD).saturating_sub(OVERHEAD));
            if count == 0 {
                break Ok(());
            }
            plain.resize(count, 0);
            io.read_app(&mut plain);
            match self.encrypt(Some(&plain), &mut records) {
                Ok(()) => {
                    let sent = io.send(&records);
                    // More than was reckoned with: a key update went before it.
                    self.outgoing.bytes.extend_from_slice(&records[sent..]);
                }
                Err(error) => break Err(error),
            }
        };
        (io.scratch().plain, io.scratch().wire) = (plain, records);
        result
    }

    /// Encrypts bytes of the app, or without any the `close_notify`, into `records`.
    fn encrypt(&mut self, plain: Option<&[u8]>, records: &mut Vec<u8>) -> Result<(), Error> {
        records.resize(plain.map_or(0, <[u8]>::len) + OVERHEAD, 0);
        let bytes = &mut self.incoming.bytes;
        // Nothing was fed since the last turn, so there is nothing to discard and the state is the one that it was in.
        let count = match &mut self.connection {
            Connection::Client(connection) => match connection.process_tls_records(bytes).state? {
                ConnectionState::WriteTraffic(traffic) => write(traffic, plain, records)?,
                _ => 0,
            },
            Connection::Server(connection) => match connection.process_tls_records(bytes).state? {
                ConnectionState::WriteTraffic(traffic) => write(traffic, plain, records)?,
                _ => 0,
            },
            Connection::Failed(error) => return Err(error.clone()),
        };
        if count == 0 {
            return Err(Error::General("bytes of the app where none may be sent".into()));
        }
        records.truncate(count);
        Ok(())
    }

    /// Takes what has come off the wire, as far as there is room for it.
    fn receive(&mut self, io: &mut LayerIo<'_>) -> Result<(), Error> {
        if self.incoming.bytes.capacity() == 0 {
            self.incoming.bytes = take(&mut io.scratch().spare);
        }
        let result = self.receive_records(io);
        if self.incoming.bytes.is_empty() {
            let spare = take(&mut self.incoming.bytes);
            if io.scratch().spare.capacity() == 0 {
                io.scratch().spare = spare;
            }
        }
        result
    }

    fn receive_records(&mut self, io: &mut LayerIo<'_>) -> Result<(), Error> {
        loop {
            let mut undelivered = take(&mut self.undelivered.bytes);
            let turn = self.turn(|bytes| {
                let count = if undelivered.is_empty() { io.deliver(bytes) } else { 0 };
                undelivered.extend_from_slice(&bytes[count..]);
            });
            self.undelivered.bytes = undelivered;
            match turn {
                Turn::Again | Turn::Said => continue,
                Turn::PeerClosed => {
                    self.has_peer_ended = true;
                    continue;
                }
                Turn::Failed(error) => return Err(error),
                Turn::Blocked | Turn::Traffic | Turn::Closed => {}
            }
            self.undelivered.flush(|bytes| io.deliver(bytes));
            if self.has_peer_ended {
                // Whatever follows the peer's end means nothing (RFC 8446 §6.1).
                let mut ignored = [0; 256];
                while io.read_wire(&mut ignored) > 0 {}
                self.incoming = Incoming::default();
                return Ok(());
            }
            // Room first: what is taken off the wire must go somewhere. One record may find less than it needs.
            if !self.undelivered.is_empty() || io.app_room() == 0 || self.incoming.feed(io) == 0 {
                return Ok(());
            }
        }
    }

    /// All that a pump does, up to an error.
    fn move_all(&mut self, io: &mut LayerIo<'_>) -> Result<(), Error> {
        self.receive(io)?;
        self.flush(io);
        self.send_app(io)?;
        if io.is_app_done() && io.app_len() == 0 && !self.has_sent_end && self.outgoing.is_empty() {
            let mut record = Vec::new();
            self.encrypt(None, &mut record)?;
            self.outgoing.bytes = record;
            self.has_sent_end = true;
            self.flush(io);
        }
        Ok(())
    }
}

/// What a status of rustls means: bytes to discard, and the turn.
fn on_status<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    outgoing: &mut Vec<u8>,
    plain: &mut impl FnMut(&[u8]),
) -> (usize, Turn) {
    let mut discard = status.discard;
    let turn = match status.state {
        Err(error) => Turn::Failed(error),
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            let end = outgoing.len();
            let count = loop {
                match data.encode(&mut outgoing[end..]) {
                    Ok(count) => break count,
                    Err(EncodeError::InsufficientSize(size)) => outgoing.resize(end + size.required_size, 0),
                    Err(EncodeError::AlreadyEncoded) => break 0,
                }
            };
            outgoing.truncate(end + count);
            Turn::Said
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Turn::Again
        }
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    discard += record.discard;
                    plain(record.payload);
                }
                Some(Err(error)) => break Turn::Failed(error),
                None => break Turn::Again,
            }
        },
        Ok(ConnectionState::PeerClosed) => Turn::PeerClosed,
        Ok(ConnectionState::Closed) => Turn::Closed,
        Ok(ConnectionState::WriteTraffic(_)) => Turn::Traffic,
        // Early data is offered and taken by no configuration of this crate.
        Ok(_) => Turn::Blocked,
    };
    (discard, turn)
}

/// Encrypts bytes of the app, or the end, into `records`, which grows if it must.
fn write<Data>(
    mut traffic: WriteTraffic<'_, Data>,
    plain: Option<&[u8]>,
    records: &mut Vec<u8>,
) -> Result<usize, Error> {
    loop {
        let written = match plain {
            Some(plain) => traffic.encrypt(plain, records),
            None => traffic.queue_close_notify(records),
        };
        match written {
            Ok(count) => return Ok(count),
            Err(EncryptError::InsufficientSize(size)) => records.resize(size.required_size, 0),
            Err(EncryptError::EncryptExhausted) => return Err(Error::EncryptError),
        }
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = match self.connection {
            Connection::Client(_) => "client",
            Connection::Server(_) => "server",
            Connection::Failed(_) => "failed",
        };
        f.debug_struct("Tls")
            .field("end", &end)
            .field("incoming", &self.incoming.bytes.len())
            .field("outgoing", &self.outgoing.bytes.len())
            .field("undelivered", &self.undelivered.bytes.len())
            .finish_non_exhaustive()
    }
}

impl Layer for Machine {
    fn name(&self) -> &'static str {
        NAME
    }

    fn pump(&mut self, io: &mut LayerIo<'_>) -> Standing {
        if let Err(error) = self.move_all(io) {
            let reason = match error {
                Error::AlertReceived(alert) => {
                    self.broken = Some(alert_name(alert).into());
                    // RFC 8446 §6.2: the peer aborts the connection.
                    CloseReason::PeerReset
                }
                Error::EncryptError => CloseReason::LocalReset,
                _ => CloseReason::Corrupt,
            };
            self.broken.get_or_insert_with(|| error.to_string().replace(' ', "-"));
            self.say_alert();
            self.flush(io);
            self.outgoing = Waiting::default();
            return Standing { peer: PeerStream::Broken(reason), has_ended: false };
        }
        let peer = if !self.undelivered.is_empty() {
            PeerStream::Flows
        } else if self.has_peer_ended {
            PeerStream::Ended
        } else if io.is_wire_closed() && io.wire_len() == 0 {
            PeerStream::Cut
        } else {
            PeerStream::Flows
        };
        Standing { peer, has_ended: self.has_sent_end && self.outgoing.is_empty() }
    }

    fn holds_bytes(&self) -> bool {
        !self.undelivered.is_empty()
    }

    fn describe(&self) -> String {
        use core::fmt::Write;
        let info = self.info();
        let mut text = format!("tls={} cipher={} resumed={}", info.version, info.cipher, info.is_resumed);
        let mut add = |name: &str, value: &str| {
            // Cannot fail: it is written to a string.
            let _ = write!(text, " {name}={value}");
        };
        if let Some(alpn) = info.alpn {
            add("alpn", &alpn.escape_ascii().to_string());
        }
        if let Some(name) = info.server_name {
            add("sni", name);
        }
        if let Some(broken) = &self.broken {
            add("broken", broken);
        }
        text
    }
}

/// The stage: a handshake.
#[derive(Debug)]
pub(crate) struct Handshake {
    machine: Box<Machine>,
    requires_alpn: bool,
    /// Bytes of the peer so far.
    fed: usize,
    /// A record of the peer was read.
    has_read: bool,
    /// It has failed, but what tells the peer has not found room.
    failure: Option<StageCause>,
}

impl Handshake {
    pub(crate) fn new(machine: Machine, requires_alpn: bool) -> Handshake {
        Handshake { machine: Box::new(machine), requires_alpn, fed: 0, has_read: false, failure: None }
    }
}

impl Stage for Handshake {
    fn name(&self) -> &'static str {
        NAME
    }

    fn step(&mut self, io: &mut StageIo<'_>) -> Answer {
        loop {
            self.machine.flush(io);
            if !self.machine.outgoing.is_empty() {
                return Answer::Wants(Want::Write);
            }
            if let Some(cause) = self.failure {
                return Answer::FailedSaying(cause);
            }
            let before = self.machine.incoming.bytes.len();
            let turn = self.machine.turn(|_| ());
            let is_failure = matches!(turn, Turn::Failed(_));
            self.has_read |= !is_failure && self.machine.incoming.bytes.len() < before;
            match turn {
                Turn::Again | Turn::Said => {}
                Turn::Traffic if !self.machine.common().is_handshaking() => {
                    if self.requires_alpn && self.machine.common().alpn_protocol().is_none() {
                        return Answer::Failed(StageCause::NothingInCommon("application protocol"));
                    }
                    return Answer::Done;
                }
                Turn::Blocked | Turn::Traffic => {
                    let fed = self.machine.incoming.feed(io);
                    self.fed += fed;
                    if self.fed > HANDSHAKE_MAX {
                        return Answer::Failed(StageCause::TooLong);
                    }
                    if fed == 0 {
                        return Answer::Wants(Want::Read);
                    }
                }
                Turn::PeerClosed | Turn::Closed => return Answer::Failed(StageCause::PeerClosed),
                Turn::Failed(error) => {
                    self.machine.say_alert();
                    let cause = cause(&error, !self.has_read);
                    if self.machine.outgoing.is_empty() {
                        return Answer::Failed(cause);
                    }
                    self.failure = Some(cause);
                }
            }
        }
    }

    fn into_layer(self: Box<Self>) -> Option<Box<dyn Layer>> {
        Some(self.machine)
    }
}

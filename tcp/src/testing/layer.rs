//! A session layer that is easily seen to be right, and slow.

use alloc::vec::Vec;

use hoststack_transport::{
    AcceptError, ConnectionId, FlowKey, Key, ListenerId, OooRange, RxStored, SessionId, SessionLayer,
};

/// Byte `offset` of every stream.
pub fn pattern(offset: u32) -> u8 {
    (offset.wrapping_mul(2_654_435_761) >> 24) as u8
}

/// A session: what it sent and received, from the beginning.
#[derive(Debug, Default)]
pub struct FakeSession {
    connection: Option<ConnectionId>,
    /// Bytes written in all, and of these acknowledged.
    pub written: u32,
    /// See `written`.
    pub acknowledged: u32,
    /// Bytes received in order in all, and of these read.
    pub received: u32,
    /// See `received`.
    pub read: u32,
    /// Where in what was received, and in what was written, the peer's and our urgent data ends.
    pub rx_urgent: u32,
    /// See `rx_urgent`.
    pub tx_urgent: u32,
    /// What the app should be let queue.
    pub tx_wanted: u32,
    /// Which bytes beyond the in-order ones are there.
    beyond: Vec<bool>,
    ranges: Vec<OooRange>,
    /// Something was received that the peer did not send.
    pub is_corrupt: bool,
}

/// A [`SessionLayer`] whose streams are [`pattern`]s, so that it need not store them.
#[derive(Debug)]
pub struct FakeLayer {
    sessions: Vec<FakeSession>,
    /// Sessions for which the transmit stage is due.
    pub programmed: Vec<SessionId>,
    /// Capacity of the rx fifos.
    pub rx_capacity: u32,
    /// What the next accepts answer.
    pub refuses: Option<AcceptError>,
    /// Memory for received data is out: all of it is refused.
    pub is_full: bool,
}

impl Default for FakeLayer {
    fn default() -> FakeLayer {
        FakeLayer::new()
    }
}

impl FakeLayer {
    /// Without sessions, rx fifos of 65535 bytes.
    pub fn new() -> FakeLayer {
        FakeLayer {
            sessions: Vec::new(),
            programmed: Vec::new(),
            rx_capacity: 65_535,
            refuses: None,
            is_full: false,
        }
    }

    /// A new session, as for an active open.
    pub fn open(&mut self) -> SessionId {
        self.sessions.push(FakeSession::default());
        SessionId(Key { slot: self.sessions.len() as u32 - 1, generation: 0 })
    }

    /// Tells a session its connection.
    pub fn bind(&mut self, session: SessionId, connection: ConnectionId) {
        self.sessions[session.0.slot as usize].connection = Some(connection);
    }

    /// The session made last.
    pub fn newest(&self) -> Option<SessionId> {
        let slot = self.sessions.len().checked_sub(1)? as u32;
        Some(SessionId(Key { slot, generation: 0 }))
    }

    /// A session's connection.
    pub fn connection_of(&self, session: SessionId) -> Option<ConnectionId> {
        self.get(session)?.connection
    }

    /// A session.
    pub fn get(&self, session: SessionId) -> Option<&FakeSession> {
        self.sessions.get(session.0.slot as usize)
    }

    /// Appends to a session's stream.
    pub fn write(&mut self, session: SessionId, count: usize) {
        self.sessions[session.0.slot as usize].written += count as u32;
    }

    /// All that was written so far is urgent.
    pub fn mark_urgent(&mut self, session: SessionId) {
        let session = &mut self.sessions[session.0.slot as usize];
        session.tx_urgent = session.written;
    }

    /// Reads up to `count` bytes; returns how many.
    pub fn read(&mut self, session: SessionId, count: usize) -> usize {
        let session = &mut self.sessions[session.0.slot as usize];
        let count = (session.received - session.read).min(count as u32);
        session.read += count;
        count as usize
    }

    fn of(&self, session: SessionId) -> &FakeSession {
        &self.sessions[session.0.slot as usize]
    }
}

impl SessionLayer for FakeLayer {
    fn accept(
        &mut self,
        _listener: ListenerId,
        connection: ConnectionId,
        _flow: &FlowKey,
    ) -> Result<SessionId, AcceptError> {
        if let Some(error) = self.refuses {
            return Err(error);
        }
        let session = self.open();
        self.bind(session, connection);
        Ok(session)
    }

    fn rx_room(&self, session: SessionId) -> u32 {
        let session = self.of(session);
        self.rx_capacity.saturating_sub(session.received - session.read)
    }

    fn rx_store(&mut self, session: SessionId, offset: u32, data: &[u8]) -> RxStored {
        let room = if self.is_full { 0 } else { self.rx_room(session) };
        let session = &mut self.sessions[session.0.slot as usize];
        let mut refused = 0;
        for (n, &byte) in data.iter().enumerate() {
            let at = offset + n as u32;
            if at >= room {
                refused += 1;
                continue;
            }
            session.is_corrupt |= byte != pattern(session.received.wrapping_add(at));
            if session.beyond.len() <= at as usize {
                session.beyond.resize(at as usize + 1, false);
            }
            session.beyond[at as usize] = true;
        }
        let advanced = session.beyond.iter().take_while(|&&there| there).count();
        session.beyond.drain(..advanced);
        session.received += advanced as u32;
        session.ranges.clear();
        for (n, &there) in session.beyond.iter().enumerate() {
            if !there {
                continue;
            }
            let at = n as u32;
            match session.ranges.last_mut() {
                Some(range) if range.end == at => range.end += 1,
                _ => session.ranges.push(OooRange { start: at, end: at + 1 }),
            }
        }
        RxStored { advanced: advanced as u32, refused }
    }

    fn rx_ranges(&self, session: SessionId) -> &[OooRange] {
        &self.of(session).ranges
    }

    fn rx_unread(&self, session: SessionId) -> u32 {
        let session = self.of(session);
        session.received - session.read
    }

    fn tx_len(&self, session: SessionId) -> u32 {
        let session = self.of(session);
        session.written - session.acknowledged
    }

    fn tx_copy(&self, session: SessionId, offset: u32, into: &mut [u8]) {
        let first = self.of(session).acknowledged + offset;
        assert!(first + into.len() as u32 <= self.of(session).written, "copied beyond what was written");
        for (n, byte) in into.iter_mut().enumerate() {
            *byte = pattern(first + n as u32);
        }
    }

    fn tx_acknowledge(&mut self, session: SessionId, count: u32) {
        let session = &mut self.sessions[session.0.slot as usize];
        session.acknowledged += count;
        assert!(session.acknowledged <= session.written, "acknowledged more than was written");
    }

    fn rx_urgent(&mut self, session: SessionId, end: i32) -> bool {
        let session = &mut self.sessions[session.0.slot as usize];
        let end = i64::from(session.received) + i64::from(end);
        let is_news = end > i64::from(session.rx_urgent.max(session.read));
        if is_news {
            session.rx_urgent = u32::try_from(end).expect("a test's stream is short");
        }
        is_news
    }

    fn tx_urgent(&self, session: SessionId) -> u32 {
        let session = self.of(session);
        session.tx_urgent.saturating_sub(session.acknowledged)
    }

    fn tx_wanted(&mut self, session: SessionId, bytes: u32) {
        let session = &mut self.sessions[session.0.slot as usize];
        session.tx_wanted = session.tx_wanted.max(bytes);
    }

    fn program_tx(&mut self, session: SessionId) {
        if !self.programmed.contains(&session) {
            self.programmed.push(session);
        }
    }
}

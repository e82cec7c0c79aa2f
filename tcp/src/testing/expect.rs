//! What an exchange expects of the engine: segments, events, states, drops.

use super::*;

impl Exchange {
    /// Exactly these segments were sent since the last look. Windows and options are compared where they are noted.
    #[track_caller]
    pub fn sends<const N: usize>(&mut self, expected: [&str; N]) -> &mut Exchange {
        let sent: Vec<Sent> = self.out.sent.drain(..).collect();
        let texts: Vec<String> = sent.iter().map(|sent| self.note(sent).to_string()).collect();
        assert_eq!(texts.len(), N, "segments sent: {texts:#?}, expected: {expected:#?}");
        for ((sent, text), expected) in sent.iter().zip(&texts).zip(expected) {
            let noted = self.note(sent);
            let wanted = parse_notation(expected).unwrap_or_else(|error| panic!("{expected:?}: {error}"));
            assert!(is_as_noted(&noted, &wanted), "sent {text:?}, expected {expected:?}, all: {texts:#?}");
            self.check_payload(sent, &noted);
        }
        self
    }

    /// Nothing was sent since the last look.
    #[track_caller]
    pub fn sends_nothing(&mut self) -> &mut Exchange {
        self.sends([])
    }

    /// Nothing is sent for so long.
    #[track_caller]
    pub fn sends_nothing_for(&mut self, ms: u64) -> &mut Exchange {
        self.after(ms).sends([])
    }

    /// What the connection measured and counted.
    pub fn stats(&self) -> hoststack_transport::ConnectionStats {
        use hoststack_transport::Measures;
        let connection = self.engine.connection_of(&self.flow);
        connection
            .and_then(|connection| self.engine.stats(hoststack_transport::Protocol::Tcp, connection))
            .expect("a connection exists")
    }

    /// Takes what was sent: DSCP and ECN of each packet.
    pub fn sent_tos(&mut self) -> Vec<u8> {
        self.out.sent.drain(..).map(|sent| sent.ip.tos).collect()
    }

    /// Takes what was sent: the TTL of each packet.
    pub fn sent_ttls(&mut self) -> Vec<u8> {
        self.out.sent.drain(..).map(|sent| sent.ip.ttl).collect()
    }

    /// The timestamp value of the segment that was sent last.
    pub fn last_timestamp(&self) -> u32 {
        self.last_tsval
    }

    /// Takes what was sent, as text.
    pub fn sent(&mut self) -> Vec<String> {
        let sent: Vec<Sent> = self.out.sent.drain(..).collect();
        sent.iter().map(|sent| self.note(sent).to_string()).collect()
    }

    fn note(&self, sent: &Sent) -> NotedSegment {
        let is_foreign = sent.header.flags.has(Flags::RST) && sent.header.seq == SeqNum(0);
        let iss = if is_foreign {
            SeqNum(0)
        } else if self.iss == SeqNum(0) && sent.header.flags.has(Flags::SYN) {
            sent.header.seq
        } else {
            self.iss
        };
        let segment = Segment { header: sent.header, payload: &sent.payload, ecn: sent.ip.ecn() };
        segment.noted(iss, self.setup.peer_isn)
    }

    #[track_caller]
    fn check_payload(&self, sent: &Sent, noted: &NotedSegment) {
        let first = noted.seq.wrapping_sub(1);
        let is_ours = sent.payload.iter().zip(0..).all(|(&byte, n)| byte == pattern(first.wrapping_add(n)));
        assert!(is_ours, "the payload of {noted} is not what the app wrote there");
    }

    /// The state of the flow; `CLOSED` (or `LISTEN`, if something listens) when there is none.
    pub fn state(&self) -> State {
        self.engine.state_of(&self.flow).unwrap_or(if self.engine.counts().listeners > 0 {
            State::Listen
        } else {
            State::Closed
        })
    }

    /// The flow is in this state.
    #[track_caller]
    pub fn is_in(&mut self, state: State) -> &mut Exchange {
        self.expect_state(state);
        self
    }

    #[track_caller]
    pub(super) fn expect_state(&self, state: State) {
        assert_eq!(self.state(), state);
    }

    /// Exactly these events happened since the last look, by name and, for `Closed`, reason.
    #[track_caller]
    pub fn tells<const N: usize>(&mut self, expected: [&str; N]) -> &mut Exchange {
        let told: Vec<String> = self.events.drain(..).map(|event| event_name(&event)).collect();
        assert_eq!(told, expected.map(String::from));
        self
    }

    /// So many segments were dropped for this reason.
    #[track_caller]
    pub fn dropped(&mut self, reason: DropReason, count: u64) -> &mut Exchange {
        assert_eq!(self.engine.drop_counters().of(reason), count, "{reason}");
        self
    }

    /// The connection's variables.
    pub fn info(&self) -> ConnectionInfo {
        let id = self.engine.connection_of(&self.flow).expect("the flow has a connection");
        let info = self.engine.connection(self.now, id).expect("it was found just now");
        assert_eq!(self.engine.connection_state(id), Some(info.state), "asked for alone it is the same");
        info
    }

    /// What the session layer knows of the session.
    pub fn app_sees(&self) -> &FakeSession {
        self.layer.get(self.session()).expect("it was opened")
    }

    /// What the engine holds.
    pub fn counts(&self) -> EngineCounts {
        self.engine.counts()
    }

    /// The flow under test.
    pub fn flow(&self) -> FlowKey {
        self.flow
    }

    /// Takes the last segment's sequence number for our new ISS: after a SYN or SYN-ACK of a new incarnation.
    pub fn takes_iss(&mut self) -> &mut Exchange {
        self.iss = self.out.sent.back().expect("a segment was sent").header.seq;
        self
    }

    /// Our initial sequence number.
    pub fn iss(&self) -> SeqNum {
        self.iss
    }
}

fn is_as_noted(sent: &NotedSegment, wanted: &NotedSegment) -> bool {
    let Options { mss, window_scale, sack_permitted, timestamps, sack, fast_open, profile: _ } =
        wanted.options;
    sent.flags == wanted.flags
        && sent.seq == wanted.seq
        && sent.end == wanted.end
        && (wanted.ack.is_none() || sent.ack == wanted.ack)
        && (wanted.win.is_none() || sent.win == wanted.win)
        && sent.urgent == wanted.urgent
        && (mss.is_none() || sent.options.mss == mss)
        && (window_scale.is_none() || sent.options.window_scale == window_scale)
        && (!sack_permitted || sent.options.sack_permitted)
        && (fast_open.is_none() || sent.options.fast_open == fast_open)
        && (timestamps.is_none() || sent.options.timestamps == timestamps)
        && sent.options.sack == sack
}

fn event_name(event: &TransportEvent) -> String {
    match event {
        TransportEvent::Connected { .. } => "Connected".into(),
        TransportEvent::Accepted { .. } => "Accepted".into(),
        TransportEvent::Received { .. } => "Received".into(),
        TransportEvent::Urgent { .. } => "Urgent".into(),
        TransportEvent::Acknowledged { .. } => "Acknowledged".into(),
        TransportEvent::PeerClosed { .. } => "PeerClosed".into(),
        TransportEvent::Closed { reason, .. } => alloc::format!("Closed: {reason}"),
        TransportEvent::FlowGone { .. } => "FlowGone".into(),
    }
}

//! The fixtures: an exchange in each state, brought there through segments, and what may be set of it first.

use super::*;

/// What an exchange starts from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) config: TcpConfig,
    pub(super) options: SocketOptions,
    /// Which state it is brought to, actively or passively.
    pub(super) reach: Reach,
    /// MSS that the peer announces.
    pub(super) peer_mss: Option<u16>,
    pub(super) peer_scale: Option<u8>,
    pub(super) peer_wnd: u16,
    pub(super) peer_isn: SeqNum,
    /// The ISS that our side shall have; the clock starts accordingly.
    pub(super) iss: Option<SeqNum>,
    pub(super) timestamps: bool,
    pub(super) sack: bool,
    pub(super) mtu: u16,
    pub(super) backlog: u32,
    pub(super) rtt_ms: u64,
    /// The peer does ECN.
    pub(super) ecn: bool,
}

/// The states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    Closed,
    Listen,
    SynSent,
    SynReceived,
    Established,
    ActiveEstablished,
    CrossedSyns,
    FinWait1,
    FinWait2,
    CloseWait,
    Closing,
    LastAck,
    TimeWait,
}

impl Exchange {
    fn at(reach: Reach) -> Exchange {
        let config = TcpConfig { quick_acks: 0, ..TcpConfig::default() };
        let options = SocketOptions {
            rx_window: 65_535,
            // Its windows can be told without a table.
            congestion: Algorithm::NewReno,
            window_scale: false,
            timestamps: true,
            sack: true,
            ..SocketOptions::default()
        };
        Exchange::new(Setup {
            config,
            options,
            reach,
            peer_mss: Some(1000),
            peer_scale: None,
            peer_wnd: 65_535,
            peer_isn: SeqNum(0x1000),
            iss: None,
            timestamps: false,
            sack: false,
            mtu: 1500,
            backlog: 16,
            rtt_ms: 0,
            ecn: false,
        })
    }

    /// CLOSED: no listener.
    pub fn closed() -> Exchange {
        Exchange::at(Reach::Closed)
    }

    /// LISTEN.
    pub fn listen() -> Exchange {
        Exchange::at(Reach::Listen)
    }

    /// SYN-SENT, its SYN seen.
    pub fn syn_sent() -> Exchange {
        Exchange::at(Reach::SynSent)
    }

    /// SYN-RECEIVED of a listener, its SYN-ACK seen.
    pub fn syn_received() -> Exchange {
        Exchange::at(Reach::SynReceived)
    }

    /// SYN-RECEIVED of a simultaneous open, its SYN-ACK seen.
    pub fn crossed_syns() -> Exchange {
        Exchange::at(Reach::CrossedSyns)
    }

    /// ESTABLISHED by a listener.
    pub fn established() -> Exchange {
        Exchange::at(Reach::Established)
    }

    /// ESTABLISHED by a connect; its ACK was sent and seen.
    pub fn connected() -> Exchange {
        Exchange::at(Reach::ActiveEstablished)
    }

    /// FIN-WAIT-1: the app half-closed, its FIN (1) was seen.
    pub fn fin_wait_1() -> Exchange {
        Exchange::at(Reach::FinWait1)
    }

    /// FIN-WAIT-2: the FIN was acknowledged.
    pub fn fin_wait_2() -> Exchange {
        Exchange::at(Reach::FinWait2)
    }

    /// CLOSE-WAIT: the peer's FIN (1) was acknowledged.
    pub fn close_wait() -> Exchange {
        Exchange::at(Reach::CloseWait)
    }

    /// CLOSING: FINs crossed.
    pub fn closing() -> Exchange {
        Exchange::at(Reach::Closing)
    }

    /// LAST-ACK.
    pub fn last_ack() -> Exchange {
        Exchange::at(Reach::LastAck)
    }

    /// TIME-WAIT, entered through FIN-WAIT-2.
    pub fn time_wait() -> Exchange {
        Exchange::at(Reach::TimeWait)
    }

    fn again(self, change: impl FnOnce(&mut Setup)) -> Exchange {
        let mut setup = self.setup;
        change(&mut setup);
        Exchange::new(setup)
    }

    /// The same state with other limits.
    pub fn config(self, change: impl FnOnce(&mut TcpConfig)) -> Exchange {
        self.again(|setup| change(&mut setup.config))
    }

    /// The same state with other options of our side.
    pub fn options(self, change: impl FnOnce(&mut SocketOptions)) -> Exchange {
        self.again(|setup| change(&mut setup.options))
    }

    /// The same state; the peer announces this MSS. Default 1000.
    pub fn mss(self, mss: impl Into<Option<u16>>) -> Exchange {
        self.again(|setup| setup.peer_mss = mss.into())
    }

    /// The same state; the peer offers SACK.
    pub fn sack(self) -> Exchange {
        self.again(|setup| setup.sack = true)
    }

    /// The same state; the peer offers timestamps.
    pub fn timestamps(self) -> Exchange {
        self.again(|setup| setup.timestamps = true)
    }

    /// The same state; both offer window scaling, the peer with this shift.
    pub fn scale(self, shift: u8) -> Exchange {
        self.again(|setup| {
            setup.options.window_scale = true;
            setup.peer_scale = Some(shift);
        })
    }

    /// The same state; the peer's window field. Default 65535.
    pub fn window(self, wnd: u16) -> Exchange {
        self.again(|setup| setup.peer_wnd = wnd)
    }

    /// The same state with these initial sequence numbers: ours, the peer's.
    pub fn isns(self, iss: u32, peer: u32) -> Exchange {
        self.again(|setup| {
            setup.iss = Some(SeqNum(iss));
            setup.peer_isn = SeqNum(peer);
        })
    }

    /// The same state over a path of this MTU. Default 1500.
    pub fn mtu(self, mtu: u16) -> Exchange {
        self.again(|setup| setup.mtu = mtu)
    }

    /// The same state; the listener's backlog. Default 16.
    pub fn backlog(self, backlog: u32) -> Exchange {
        self.again(|setup| setup.backlog = backlog)
    }

    /// The same state with a peer that does ECN.
    pub fn ecn(self) -> Exchange {
        self.again(|setup| setup.ecn = true)
    }

    /// The same state over a path of this round trip, as the handshake measured it. Default 0.
    pub fn rtt_ms(self, rtt_ms: u64) -> Exchange {
        self.again(|setup| setup.rtt_ms = rtt_ms)
    }

    pub(super) fn reach(&mut self) {
        let reach = self.setup.reach;
        match reach {
            Reach::Closed => return,
            Reach::SynSent | Reach::ActiveEstablished | Reach::CrossedSyns => self.reach_actively(reach),
            _ => {
                let local = Endpoint::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), self.flow.local.port);
                let (backlog, options) = (self.setup.backlog, self.setup.options);
                self.engine
                    .listen(listener(), DomainId(0), local, backlog, options)
                    .expect("nothing listens yet");
                self.reach_passively(reach);
            }
        }
        self.events.clear();
        self.outcomes.clear();
        self.out.sent.clear();
        self.start = self.now;
    }

    fn reach_actively(&mut self, reach: Reach) {
        self.app_connects(Duration::from_secs(30));
        let syn = self.out.sent.front().expect("a SYN is sent").header;
        self.iss = syn.seq;
        if reach != Reach::SynSent {
            self.after(self.setup.rtt_ms);
        }
        match reach {
            Reach::ActiveEstablished => {
                self.peer_syn(Flags::SYN | Flags::ACK, syn.seq + 1);
                self.expect_state(State::Established);
            }
            Reach::CrossedSyns => {
                self.peer_syn(Flags::SYN, SeqNum(0));
                self.expect_state(State::SynReceived);
            }
            _ => self.expect_state(State::SynSent),
        }
    }

    fn reach_passively(&mut self, reach: Reach) {
        if reach == Reach::Listen {
            return;
        }
        self.peer_syn(Flags::SYN, SeqNum(0));
        self.iss = self.out.sent.back().expect("a SYN-ACK is sent").header.seq;
        if reach == Reach::SynReceived {
            return self.expect_state(State::SynReceived);
        }
        self.after(self.setup.rtt_ms);
        self.gets([". ack 1"]);
        self.expect_state(State::Established);
        let steps: &[&str] = match reach {
            Reach::FinWait1 => &["close"],
            Reach::FinWait2 => &["close", ". ack 2"],
            Reach::CloseWait => &["F. 1:1(0) ack 1"],
            Reach::Closing => &["close", "F. 1:1(0) ack 1"],
            Reach::LastAck => &["F. 1:1(0) ack 1", "close"],
            Reach::TimeWait => &["close", ". ack 2", "F. 1:1(0) ack 2"],
            _ => &[],
        };
        for &step in steps {
            if step == "close" {
                self.app_half_closes();
            } else {
                self.gets([step]);
            }
        }
        self.expect_state(match reach {
            Reach::FinWait1 => State::FinWait1,
            Reach::FinWait2 => State::FinWait2,
            Reach::CloseWait => State::CloseWait,
            Reach::Closing => State::Closing,
            Reach::LastAck => State::LastAck,
            Reach::TimeWait => State::TimeWait,
            _ => State::Established,
        });
    }

    /// The peer's SYN or SYN-ACK with the options of the setup.
    fn peer_syn(&mut self, flags: Flags, ack: SeqNum) {
        let Setup { peer_mss, peer_scale, peer_wnd, peer_isn, timestamps, sack, ecn, .. } = self.setup;
        // RFC 3168 §6.1.1: both flags ask, one agrees.
        let flags = match (ecn, flags.has(Flags::ACK)) {
            (false, _) => flags,
            (true, false) => flags | Flags::ECE | Flags::CWR,
            (true, true) => flags | Flags::ECE,
        };
        let ecr = if flags.has(Flags::ACK) { self.last_tsval } else { 0 };
        let header = SegmentHeader {
            src_port: self.flow.remote.port,
            dst_port: self.flow.local.port,
            seq: peer_isn,
            ack,
            flags,
            wnd: peer_wnd,
            urgent: 0,
            options: Options {
                mss: peer_mss,
                window_scale: peer_scale,
                sack_permitted: sack,
                timestamps: timestamps.then(|| Timestamps { val: self.peer_tsval(), ecr }),
                ..Options::default()
            },
        };
        self.deliver(&header, &[]);
        self.settle();
    }
}

//! RFC 9293 §3.10.7 written down once more, as plainly as it reads, and the engine held to it: every state, against every
//! combination of the flags that matter with sequence and acknowledgment numbers around every edge.
//!
//! `states.txt` is what the engine does; this says that it is what the RFC says. Where they differ on purpose, the model
//! says `Deviates`, as the code does.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::state::State;
use crate::testing::Exchange;

/// A segment, in relative numbers.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    syn: bool,
    rst: bool,
    fin: bool,
    ack: Option<u32>,
    seq: u32,
    /// Bytes of text.
    text: u32,
}

impl Arrival {
    /// SEG.LEN.
    fn len(&self) -> u32 {
        self.text + u32::from(self.syn) + u32::from(self.fin)
    }

    fn notation(&self) -> String {
        let letter = |is_set, letter| if is_set { letter } else { "" };
        let flags = [
            letter(self.fin, "F"),
            letter(self.syn, "S"),
            letter(self.rst, "R"),
            letter(self.ack.is_some(), "."),
        ]
        .concat();
        let flags = if flags.is_empty() { "-" } else { &flags };
        let ack = self.ack.map(|ack| format!(" ack {ack}")).unwrap_or_default();
        format!("{flags} {}:{}({}){ack} win 65535", self.seq, self.seq.wrapping_add(self.text), self.text)
    }
}

/// What is sent in return, after any delay of an acknowledgment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    Nothing,
    /// <SEQ=SND.NXT><ACK><CTL=ACK>.
    Ack(u32),
    /// <SEQ=SEG.ACK><CTL=RST>.
    Reset(u32),
    /// <SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>.
    ResetAck(u32),
    /// <SEQ=ISS><ACK><CTL=SYN,ACK>.
    SynAck(u32),
}

/// The variables of a connection. ISS and IRS are 0.
#[derive(Clone, Copy, Debug)]
struct Tcb {
    state: State,
    /// It came from LISTEN; a `Connection` otherwise (MUST-11).
    is_passive: bool,
    una: u32,
    nxt: u32,
    rcv_nxt: u32,
    rcv_wnd: u32,
}

/// MAX.SND.WND in all fixtures.
const WND_MAX: u32 = 65_535;

fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

impl Tcb {
    fn is_in_window(&self, seq: u32) -> bool {
        seq.wrapping_sub(self.rcv_nxt) < self.rcv_wnd
    }

    /// RCV.NXT+RCV.WND.
    fn edge(&self) -> u32 {
        self.rcv_nxt.wrapping_add(self.rcv_wnd)
    }

    /// §3.10.7.4, table 6.
    fn is_acceptable(&self, segment: &Arrival) -> bool {
        let last = segment.seq.wrapping_add(segment.len()).wrapping_sub(1);
        match (segment.len(), self.rcv_wnd) {
            (0, 0) => segment.seq == self.rcv_nxt,
            (0, _) => self.is_in_window(segment.seq),
            (_, 0) => false,
            _ => self.is_in_window(segment.seq) || self.is_in_window(last),
        }
    }

    /// SEGMENT ARRIVES.
    fn arrives(mut self, segment: Arrival) -> (Reply, State) {
        match self.state {
            State::Closed => (closed(&segment), State::Closed),
            State::Listen => listen(&segment),
            State::SynSent => self.syn_sent(&segment),
            State::TimeWait => self.time_wait(&segment),
            _ => self.others(&segment),
        }
    }

    /// §3.10.7.3.
    fn syn_sent(&self, segment: &Arrival) -> (Reply, State) {
        if let Some(ack) = segment.ack
            && ack != self.nxt
        {
            return (if segment.rst { Reply::Nothing } else { Reply::Reset(ack) }, State::SynSent);
        }
        match (segment.rst, segment.syn, segment.ack) {
            (true, _, Some(_)) => (Reply::Nothing, State::Closed),
            (false, true, Some(_)) => (Reply::Ack(segment.seq.wrapping_add(1)), State::Established),
            (false, true, None) => (Reply::SynAck(segment.seq.wrapping_add(1)), State::SynReceived),
            _ => (Reply::Nothing, State::SynSent),
        }
    }

    /// §3.10.7.4 for TIME-WAIT, with RFC 6191 and RFC 1337.
    fn time_wait(&self, segment: &Arrival) -> (Reply, State) {
        let is_newer = before(self.rcv_nxt, segment.seq);
        let reply = if segment.rst {
            // Deviates: ignored (RFC 1337).
            Reply::Nothing
        } else if segment.syn && segment.ack.is_none() && is_newer {
            return (Reply::SynAck(segment.seq.wrapping_add(1)), State::SynReceived);
        } else if segment.len() == 0 {
            // Deviates: what is unacceptable and takes no sequence number is not answered.
            Reply::Nothing
        } else {
            Reply::Ack(self.rcv_nxt)
        };
        (reply, State::TimeWait)
    }

    /// §3.10.7.4.
    fn others(&mut self, segment: &Arrival) -> (Reply, State) {
        let stay = self.state;
        let is_syn_received = self.state == State::SynReceived;
        let is_listeners = is_syn_received && self.is_passive;
        if is_listeners && segment.syn && !segment.rst && segment.ack.is_none() && segment.seq == 0 {
            // Deviates: the SYN-ACK again, and no ACK.
            return (Reply::SynAck(self.rcv_nxt), stay);
        }
        // The SYN of a crossing SYN-ACK is trimmed off: it was received (§3.5, figure 7).
        let mut segment = *segment;
        let is_crossing = segment.syn
            && is_syn_received
            && !self.is_passive
            && segment.seq == 0
            && segment.ack == Some(self.nxt);
        let mut answer = Reply::Nothing;
        if is_crossing && !segment.rst {
            (segment.syn, segment.seq) = (false, 1);
            answer = Reply::Ack(self.rcv_nxt);
        }
        // First, the sequence number.
        let is_at_edge = segment.len() == 0 && segment.seq == self.edge() && !segment.rst;
        // Deviates: the right edge of a window counts as inside, for ACKs; a FIN is taken into a closed one.
        let is_allowed = (is_at_edge && !is_listeners)
            || (self.rcv_wnd == 0 && segment.seq == self.rcv_nxt && !segment.syn && !is_listeners);
        // RFC 5961 §3.2 looks at the number of the reset itself, not at its text.
        let is_out = if segment.rst {
            !self.is_in_window(segment.seq) && segment.seq != self.rcv_nxt
        } else {
            !self.is_acceptable(&segment) && !is_allowed
        };
        if is_out {
            // Deviates: a listener's connection does not answer what takes no sequence number.
            let is_silent = segment.rst || (is_listeners && segment.len() == 0);
            return (if is_silent { Reply::Nothing } else { Reply::Ack(self.rcv_nxt) }, stay);
        }
        // Second, RST.
        if segment.rst {
            if segment.seq != self.rcv_nxt {
                return (Reply::Ack(self.rcv_nxt), stay);
            }
            return (Reply::Nothing, if is_listeners { State::Listen } else { State::Closed });
        }
        // Fourth, SYN. An old SYN whose text reaches into the window has its challenge in SYN-RECEIVED, too.
        if segment.syn {
            let is_old = before(segment.seq, self.rcv_nxt);
            if is_listeners && !is_old {
                return (Reply::Nothing, State::Listen);
            }
            return (Reply::Ack(self.rcv_nxt), stay);
        }
        // Fifth, ACK.
        let Some(ack) = segment.ack else {
            return (Reply::Nothing, stay);
        };
        if is_syn_received {
            // Deviates: this goes before RFC 5961 §5.
            if ack != self.nxt {
                let reset = Reply::Reset(ack);
                return (reset, stay);
            }
            self.state = State::Established;
        } else if before(self.nxt, ack) || before(ack, self.una.wrapping_sub(WND_MAX)) {
            return (Reply::Ack(self.rcv_nxt), stay);
        }
        if ack == self.nxt {
            self.state = match self.state {
                State::FinWait1 => State::FinWait2,
                State::Closing => State::TimeWait,
                State::LastAck => State::Closed,
                state => state,
            };
        }
        if matches!(self.state, State::TimeWait | State::Closed) {
            // The peer has our FIN and we have its: whatever else the segment says is ignored.
            return (Reply::Nothing, self.state);
        }
        let reply = self.text_and_fin(&segment);
        (if reply == Reply::Nothing { answer } else { reply }, self.state)
    }

    /// Seventh and eighth, after trimming. Every text and every FIN is acknowledged, and so is what was trimmed.
    fn text_and_fin(&mut self, segment: &Arrival) -> Reply {
        if segment.text == 0 && !segment.fin {
            return Reply::Nothing;
        }
        let can_receive = matches!(self.state, State::Established | State::FinWait1 | State::FinWait2);
        let end = segment.seq.wrapping_add(segment.text);
        let is_next = !before(self.rcv_nxt, segment.seq);
        if can_receive && is_next {
            // A FIN behind text that does not fit is trimmed off with it.
            let has_all = !before(self.edge(), end);
            self.rcv_nxt = if has_all { end } else { self.edge() };
            if segment.fin && has_all {
                self.rcv_nxt = self.rcv_nxt.wrapping_add(1);
                self.state = match self.state {
                    State::Established => State::CloseWait,
                    State::FinWait1 => State::Closing,
                    _ => State::TimeWait,
                };
            }
        }
        Reply::Ack(self.rcv_nxt)
    }
}

/// §3.10.7.1.
fn closed(segment: &Arrival) -> Reply {
    match segment.ack {
        _ if segment.rst => Reply::Nothing,
        Some(ack) => Reply::Reset(ack),
        None => Reply::ResetAck(segment.seq.wrapping_add(segment.len())),
    }
}

/// §3.10.7.2.
fn listen(segment: &Arrival) -> (Reply, State) {
    match segment.ack {
        _ if segment.rst => (Reply::Nothing, State::Listen),
        Some(ack) => (Reply::Reset(ack), State::Listen),
        None if segment.syn => (Reply::SynAck(segment.seq.wrapping_add(1)), State::SynReceived),
        None => (Reply::Nothing, State::Listen),
    }
}

type Fixture = (fn() -> Exchange, State, bool, [u32; 4]);

/// How to get there; the state, whether it is a listener's; SND.UNA, SND.NXT, RCV.NXT, RCV.WND.
const FIXTURES: [Fixture; 13] = [
    (Exchange::closed, State::Closed, false, [0, 0, 0, 0]),
    (Exchange::listen, State::Listen, true, [0, 0, 0, 0]),
    (Exchange::syn_sent, State::SynSent, false, [0, 1, 0, 0]),
    (Exchange::syn_received, State::SynReceived, true, [0, 1, 1, 65_535]),
    (Exchange::crossed_syns, State::SynReceived, false, [0, 1, 1, 65_535]),
    (Exchange::established, State::Established, true, [1, 1, 1, 65_535]),
    (super::states::closed_window, State::Established, true, [1, 1, 1001, 0]),
    (Exchange::fin_wait_1, State::FinWait1, true, [1, 2, 1, 65_535]),
    (Exchange::fin_wait_2, State::FinWait2, true, [2, 2, 1, 65_535]),
    (Exchange::close_wait, State::CloseWait, true, [1, 1, 2, 65_534]),
    (Exchange::closing, State::Closing, true, [1, 2, 2, 65_534]),
    (Exchange::last_ack, State::LastAck, true, [1, 2, 2, 65_534]),
    (Exchange::time_wait, State::TimeWait, true, [2, 2, 2, 65_534]),
];

/// What the engine did, in the model's words; `Err` if it is none of them.
fn observed(x: &mut Exchange, snd_nxt: u32) -> Result<Reply, String> {
    let mut reply = Reply::Nothing;
    for sent in x.sent() {
        let words: Vec<&str> = sent.split(' ').collect();
        let seq = words[1].split(':').next().unwrap_or_default();
        let is_seq = |wanted: u32| seq == wanted.to_string();
        let ack = words.iter().position(|&w| w == "ack").and_then(|at| words[at + 1].parse::<u32>().ok());
        let one = match (words[0], ack) {
            (".", Some(ack)) if is_seq(snd_nxt) => Reply::Ack(ack),
            ("R", None) => Reply::Reset(seq.parse().map_err(|_| sent.clone())?),
            ("R.", Some(ack)) if is_seq(0) => Reply::ResetAck(ack),
            // Out of TIME-WAIT the ISS is another.
            ("S.", Some(ack)) => Reply::SynAck(ack),
            _ => return Err(sent),
        };
        if reply != Reply::Nothing {
            return Err(format!("{reply:?}, and {one:?}"));
        }
        reply = one;
    }
    Ok(reply)
}

#[test]
fn the_engine_does_what_the_rfc_says_for_every_state_and_segment() {
    let mut differences: Vec<String> = Vec::new();
    let mut count = 0;
    for (fixture, state, is_passive, [una, nxt, rcv_nxt, rcv_wnd]) in FIXTURES {
        let tcb = Tcb { state, is_passive, una, nxt, rcv_nxt, rcv_wnd };
        let seqs = [
            rcv_nxt.wrapping_sub(70_000),
            rcv_nxt.wrapping_sub(11),
            rcv_nxt.wrapping_sub(1),
            rcv_nxt,
            rcv_nxt.wrapping_add(1),
            tcb.edge().wrapping_sub(11),
            tcb.edge().wrapping_sub(1),
            tcb.edge(),
            tcb.edge().wrapping_add(1),
        ];
        let acks = [
            None,
            Some(una.wrapping_sub(WND_MAX + 1)),
            Some(una.wrapping_sub(WND_MAX)),
            Some(nxt.wrapping_sub(1)),
            Some(nxt),
            Some(nxt.wrapping_add(1)),
        ];
        for flags in 0..8 {
            let (syn, rst, fin) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
            for (&seq, ack, text) in seqs
                .iter()
                .flat_map(|seq| acks.map(|ack| (seq, ack)))
                .flat_map(|(seq, ack)| [0, 1, 12].map(|text| (seq, ack, text)))
            {
                let segment = Arrival { syn, rst, fin, ack, seq, text };
                let mut x = fixture();
                // Longer than an acknowledgment is delayed, and shorter than any other timer.
                x.gets([segment.notation().as_str()]).after(50);
                let after = x.state();
                let seen = observed(&mut x, if state == State::SynSent { 1 } else { nxt });
                let (reply, mut next) = tcb.arrives(segment);
                if next == State::Closed && x.counts().listeners > 0 {
                    next = State::Listen;
                }
                if seen.as_ref() != Ok(&reply) || after != next {
                    let text = segment.notation();
                    differences.push(format!("{state}: {text}: {seen:?}, {after}; RFC: {reply:?}, {next}"));
                }
                count += 1;
            }
        }
    }
    assert!(count > 10_000);
    assert!(
        differences.is_empty(),
        "{} of {count} differ:\n{}",
        differences.len(),
        differences[..differences.len().min(60)].join("\n")
    );
}

//! What is told of a socket as a whole: its state, `struct tcp_info`, and the lists that commands print.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use hoststack::app::{Context, SessionHandle};

use super::{Descriptor, Kind, Socket, Sockets, State, Stop};
use crate::shell::Row;
use crate::tcp_info::{Facts, encode, state as states};
use crate::watch::Ends;

impl Sockets {
    /// The state of a socket, as Linux numbers it.
    fn tcp_state(&self, socket: &Socket) -> u8 {
        let stream = match &socket.state {
            State::Fresh | State::Failed(_) => return states::CLOSED,
            State::Deferred(_) | State::Connecting(_) => return states::SYN_SENT,
            State::Listening(_) => return states::LISTEN,
            State::Connected(stream) => stream,
        };
        let watch = self.watch.lock();
        let flow = watch.flow(&stream.ends);
        // The FIN's number is the one after the last byte's.
        let fin_acked = flow.is_some_and(|flow| flow.acked.wrapping_sub(flow.written()) as i32 > 0);
        match (stream.writes_over, stream.peer_closed) {
            _ if stream.closed.is_some() => states::CLOSED,
            (true, true) if stream.closed_first => states::CLOSING,
            (true, true) => states::LAST_ACK,
            (true, false) if fin_acked => states::FIN_WAIT_2,
            (true, false) => states::FIN_WAIT_1,
            (false, true) => states::CLOSE_WAIT,
            // Accepted with data in its SYN, before the handshake is done.
            _ if flow.is_some_and(|flow| flow.last_ack_received_us == 0) => states::SYN_RECEIVED,
            _ => states::ESTABLISHED,
        }
    }

    /// `struct tcp_info` of a socket, `room` bytes of it.
    pub(super) fn tcp_info(
        &mut self,
        ctx: Option<&Context<'_>>,
        fd: i32,
        room: usize,
    ) -> Result<Vec<u8>, Stop> {
        self.get(fd)?;
        let Some(Descriptor { kind: Kind::Socket(socket), .. }) = self.descriptors.get(&fd) else {
            return Err(Stop::Errno(libc::ENOTSOCK));
        };
        let state = self.tcp_state(socket);
        let watch = self.watch.lock();
        let (stats, flow) = match &socket.state {
            State::Connected(stream) => {
                let now = ctx.and_then(|ctx| ctx.stats(stream.session).ok());
                (now.or(stream.last_stats), watch.flow(&stream.ends))
            }
            _ => (None, None),
        };
        let backlog = match &socket.state {
            // Cannot cut: a queue is shorter than the pool of sessions.
            State::Listening(listening) => Some((listening.queue.len() as u32, listening.backlog)),
            _ => None,
        };
        let options = socket.choices.options(&self.settings, false);
        let facts = Facts {
            state,
            now_us: ctx.map_or(0, |ctx| ctx.now().as_micros()),
            stats,
            flow,
            mss: options.mss_max.map_or(536, u32::from),
            backlog,
            pacing_rate_max: options.pacing_rate_max,
        };
        Ok(encode(&facts, room))
    }

    /// The congestion windows of connections.
    pub(crate) fn windows(&self, ctx: &Context<'_>) -> Vec<(Ends, u32)> {
        let streams = self.descriptors.values().filter_map(|descriptor| match &descriptor.kind {
            Kind::Socket(socket) => match &socket.state {
                State::Connected(stream) if stream.closed.is_none() => Some(stream),
                _ => None,
            },
            _ => None,
        });
        streams.filter_map(|stream| Some((stream.ends, ctx.stats(stream.session).ok()?.cwnd))).collect()
    }

    /// All sockets that are open, for lists of them.
    pub(crate) fn rows(&self, ctx: &Context<'_>) -> Vec<(Row, Option<SessionHandle>)> {
        let mut rows = Vec::new();
        for descriptor in self.descriptors.values() {
            let Kind::Socket(socket) = &descriptor.kind else { continue };
            let state = self.tcp_state(socket);
            let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
            let mut row = Row { state, local: any, remote: any, queues: (0, 0), details: String::new() };
            let mut session = None;
            match &socket.state {
                State::Connected(stream) if stream.closed.is_none() => {
                    (row.local, row.remote) = stream.ends;
                    row.queues = (stream.unread(ctx), stream.unacknowledged(ctx));
                    session = Some(stream.session);
                    if let Ok(stats) = ctx.stats(stream.session) {
                        let mss = u32::from(stats.mss.max(1));
                        row.details = format!(
                            "{} wscale:{},{} rto:{} rtt:{}/{} mss:{mss} cwnd:{} unacked:{} retrans:{}/{} lost:{} sacked:{}",
                            stats.congestion,
                            stats.snd_scale,
                            stats.rcv_scale,
                            stats.rto_us / 1000,
                            stats.srtt_us / 1000,
                            stats.rtt_var_us / 1000,
                            stats.cwnd / mss,
                            stats.flight.div_ceil(mss),
                            stats.retransmitted.div_ceil(mss),
                            stats.retransmitted_segments,
                            stats.lost.div_ceil(mss),
                            stats.sacked.div_ceil(mss),
                        );
                        if stats.ssthresh < 1 << 30 {
                            row.details.push_str(&format!(" ssthresh:{}", stats.ssthresh / mss));
                        }
                    }
                }
                State::Listening(listening) => {
                    row.local = socket.bound.unwrap_or(any);
                    row.queues = (listening.queue.len(), listening.backlog as usize);
                }
                State::Connecting(_) => row.local = socket.bound.unwrap_or(any),
                _ => continue,
            }
            rows.push((row, session));
        }
        rows
    }
}

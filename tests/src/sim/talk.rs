//! What an app does with one session: how it reads, how much it writes, when it ends it. All bytes are verified.

use hoststack::app::*;

use super::hub::State;
use super::oracle::{At, Stage};
use super::packets::FlowId;
use super::streams::{Reader, fill};

/// How an app reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    /// All that is there.
    All,
    /// All, in place.
    InPlace,
    /// So much in a callback.
    Some(usize),
    /// Nothing.
    Never,
}

/// When an app ends a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    /// Closes when it has written all.
    WhenWritten,
    /// Closes its direction when it has written all, the rest with its peer.
    HalfWhenWritten,
    /// With its peer.
    WithPeer,
    /// Not by itself.
    Never,
}

/// How an app treats a session, and how far it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Talk {
    reads: Reads,
    ends: Ends,
    /// Sends back what comes, writes nothing of its own.
    echoes: bool,
    /// Writes in place.
    reserves: bool,
    total: u64,
    sent: u64,
    writes: Option<u64>,
    reader: Reader,
    /// Its own direction was ended.
    ended: bool,
    peer_ended: bool,
    flow: FlowId,
}

impl Talk {
    /// A way to treat the session of this flow.
    pub(crate) fn draw(s: &mut State, flow: FlowId) -> Talk {
        let echoes = s.dice.one_of(6);
        let (most, few) = (s.temper.bytes_max, 1 + s.dice.below(300));
        Talk {
            reads: match s.dice.below(12) {
                0 => Reads::Never,
                1 | 2 => Reads::Some(1 + s.dice.index(500)),
                3..=6 => Reads::InPlace,
                _ => Reads::All,
            },
            ends: s.dice.pick(&[
                Ends::WhenWritten,
                Ends::HalfWhenWritten,
                Ends::WithPeer,
                Ends::WithPeer,
                Ends::Never,
            ]),
            echoes,
            reserves: s.dice.one_of(3),
            total: if echoes {
                0
            } else {
                s.dice.pick(&[0, few, 2000.min(most), s.dice.clone().below(most + 1)])
            },
            sent: 0,
            writes: None,
            reader: Reader::default(),
            ended: false,
            peer_ended: false,
            flow,
        }
    }

    #[cfg(test)]
    pub(crate) fn for_tests() -> Talk {
        let addr = std::net::IpAddr::from([10, 0, 0, 1]);
        Talk {
            reads: Reads::All,
            ends: Ends::WithPeer,
            echoes: false,
            reserves: false,
            total: 0,
            sent: 0,
            writes: None,
            reader: Reader::default(),
            ended: false,
            peer_ended: false,
            flow: FlowId::new((addr, 1), (addr, 2)),
        }
    }
}

/// Changes the record of a session that is not over.
fn with(s: &mut State, host: u8, session: SessionHandle, change: impl FnOnce(&mut State, &mut Talk)) {
    let key = (host, session.as_u64());
    let Some(record) = s.oracle.sessions.get(&key).filter(|record| record.stage < Stage::Closed) else {
        return;
    };
    let mut talk = record.talk;
    change(s, &mut talk);
    if let Some(record) = s.oracle.sessions.get_mut(&key) {
        record.talk = talk;
    }
}

/// The app's work on a session: read, write, end.
pub(crate) fn serve(s: &mut State, ctx: &mut Context<'_>, host: u8, session: SessionHandle) {
    with(s, host, session, |s, talk| {
        let is_calm = s.is_calm;
        if talk.echoes {
            if !talk.ended {
                while ctx.splice(session, session) > 0 {}
            }
        } else {
            let reads = if is_calm && talk.reads != Reads::InPlace { Reads::All } else { talk.reads };
            read(s, ctx, session, talk, reads);
        }
        if is_calm {
            talk.total = talk.total.min(talk.sent);
        }
        write(s, ctx, session, talk, 16);
        let is_done = talk.sent >= talk.total;
        let has_echoed = !talk.echoes || ctx.rx_len(session) == 0;
        let ends = if is_calm && talk.ends == Ends::Never { Ends::WithPeer } else { talk.ends };
        if talk.peer_ended && is_done && has_echoed && ends != Ends::Never {
            mark_ended(s, talk);
            ctx.close(session);
        } else if is_done && !talk.ended && !talk.echoes {
            match ends {
                Ends::WhenWritten => {
                    mark_ended(s, talk);
                    ctx.close(session);
                }
                _ if is_calm || ends == Ends::HalfWhenWritten => {
                    mark_ended(s, talk);
                    ctx.half_close(session);
                }
                Ends::HalfWhenWritten | Ends::WithPeer | Ends::Never => {}
            }
        } else if is_calm && talk.echoes && !talk.ended && has_echoed {
            mark_ended(s, talk);
            ctx.half_close(session);
        }
    });
}

fn mark_ended(s: &mut State, talk: &mut Talk) {
    talk.ended = true;
    if let Some(stream) = talk.writes.and_then(|id| s.streams.get_mut(id)) {
        stream.ended = true;
    }
}

fn verify(s: &mut State, session: SessionHandle, talk: &mut Talk, bytes: &[u8]) {
    let at = talk.reader.got;
    if s.overlaps.contains(&talk.flow) {
        return;
    }
    if let Err(what) = s.streams.check(&mut talk.reader, at, bytes) {
        s.oracle.fail(|| format!("session {session} reads: {what}"));
    }
}

fn read(s: &mut State, ctx: &mut Context<'_>, session: SessionHandle, talk: &mut Talk, reads: Reads) {
    match reads {
        Reads::Never => {}
        Reads::InPlace => {
            while ctx.rx_len(session) > 0 {
                let bytes = ctx.peek(session);
                let len = bytes.len();
                if len == 0 {
                    s.oracle.fail(|| format!("session {session} has bytes to read and shows none"));
                    return;
                }
                verify(s, session, talk, bytes);
                if ctx.consume(session, len) != len {
                    s.oracle.fail(|| format!("session {session} showed {len} bytes and gives fewer"));
                    return;
                }
            }
        }
        Reads::All | Reads::Some(_) => {
            let mut left = if let Reads::Some(most) = reads { most } else { usize::MAX };
            let mut buffer = std::mem::take(&mut s.scratch);
            while left > 0 {
                let wanted = left.min(buffer.len());
                let count = ctx.read(session, &mut buffer[..wanted]);
                if count == 0 {
                    break;
                }
                left -= count;
                verify(s, session, talk, &buffer[..count]);
            }
            s.scratch = buffer;
        }
    }
}

/// Writes until all is written, there is no room, or enough was done for one callback.
fn write(s: &mut State, ctx: &mut Context<'_>, session: SessionHandle, talk: &mut Talk, turns: u32) {
    for _ in 0..turns {
        let left = talk.total.saturating_sub(talk.sent);
        if left == 0 || talk.ended {
            return;
        }
        let id = match talk.writes {
            Some(id) => id,
            None => {
                let mut dice = s.dice.fork();
                let id = s.streams.open(&mut dice, false);
                talk.writes = Some(id);
                id
            }
        };
        let want = s.scratch.len().min(left as usize); // cannot cut because a scratch buffer is small
        let written = if talk.reserves {
            let room = ctx.reserve(session, want);
            let count = room.len().min(want);
            fill(id, talk.sent, &mut room[..count]);
            ctx.commit(session, count);
            if count < want {
                ctx.want_room(session);
            }
            count
        } else {
            let mut buffer = std::mem::take(&mut s.scratch);
            fill(id, talk.sent, &mut buffer[..want]);
            let count = ctx.write(session, &buffer[..want]);
            s.scratch = buffer;
            count
        };
        talk.sent += written as u64;
        if let Some(stream) = s.streams.get_mut(id) {
            stream.written = talk.sent;
        }
        if written == 0 {
            return;
        }
    }
}

/// The peer's last byte was announced: all that it wrote must be here, unless someone forged the end.
pub(crate) fn peer_closed(s: &mut State, ctx: &mut Context<'_>, host: u8, session: SessionHandle) {
    with(s, host, session, |s, talk| {
        talk.peer_ended = true;
        let Some(id) = talk.reader.id() else { return };
        // An echo ends where its sender likes; a villain promised nothing.
        let is_own = talk.writes == Some(id);
        let Some(stream) = s.streams.get(id) else { return };
        let (written, is_villains) = (stream.written, stream.is_villains);
        let here = talk.reader.got + ctx.rx_len(session) as u64;
        if !is_own
            && !is_villains
            && here != written
            && !s.poisoned.contains(&talk.flow)
            && !s.overlaps.contains(&talk.flow)
        {
            s.oracle.fail(|| {
                format!("session {session}: the peer closed after {written} bytes, {here} are here")
            });
        }
    });
    serve(s, ctx, host, session);
}

/// Ends the app's direction, or both.
pub(crate) fn end(s: &mut State, ctx: &mut Context<'_>, host: u8, session: SessionHandle, both: bool) {
    with(s, host, session, mark_ended);
    if both {
        ctx.close(session);
    } else {
        ctx.half_close(session);
    }
}

/// Reads a little, whatever the app's way is.
pub(crate) fn read_some(s: &mut State, ctx: &mut Context<'_>, host: u8, session: SessionHandle) {
    let most = 1 + s.dice.index(400);
    with(s, host, session, |s, talk| {
        if !talk.echoes {
            read(s, ctx, session, talk, Reads::Some(most));
        }
    });
}

/// Writes more than it meant to.
pub(crate) fn write_more(s: &mut State, ctx: &mut Context<'_>, host: u8, session: SessionHandle) {
    let more = s.dice.below(500);
    with(s, host, session, |s, talk| {
        if !talk.echoes && !talk.ended {
            talk.total += more;
            write(s, ctx, session, talk, 2);
        }
    });
}

/// Moves bytes of a session that sends back what comes; of others nothing, with a splice to a handle that is not there.
pub(crate) fn splice_some(s: &mut State, ctx: &mut Context<'_>, host: u8, session: SessionHandle) {
    with(s, host, session, |s, talk| {
        let to = if talk.echoes { session } else { SessionHandle::from_u64(u64::MAX) };
        let moved = ctx.splice(session, to);
        if to != session && moved > 0 {
            s.oracle.fail(|| format!("{moved} bytes of {session} are spliced to nowhere"));
        }
    });
}

/// Uses a handle that may be stale, another's, or on another worker: such a one finds nothing, an own one is found.
pub(crate) fn probe(s: &mut State, ctx: &mut Context<'_>, host: u8, at: At, current: Option<SessionHandle>) {
    if s.known.is_empty() {
        return;
    }
    let index = s.dice.index(s.known.len());
    let handle = SessionHandle::from_u64(s.known[index].1);
    if current == Some(handle) {
        return;
    }
    let Some(record) = s.oracle.sessions.get(&(host, handle.as_u64())) else { return };
    let is_its = (record.app, record.unit, record.worker) == (at.app, at.unit, at.worker.0);
    let (stage, opaque) = (record.stage, record.opaque);
    if is_its && stage < Stage::Closed {
        if !ctx.is_live(handle) {
            s.oracle.fail(|| format!("session {handle} is at {stage:?} and its handle finds nothing"));
        } else if ctx.opaque(handle) != opaque {
            s.oracle.fail(|| format!("session {handle} has the value {}, not {opaque}", ctx.opaque(handle)));
        }
        return;
    }
    let mut bytes = [0; 8];
    let found = ctx.is_live(handle)
        || ctx.flow(handle).is_ok()
        || ctx.opaque(handle) != 0
        || ctx.rx_len(handle) != 0
        || ctx.tx_room(handle) != 0
        || !ctx.peek(handle).is_empty()
        || !ctx.reserve(handle, 10).is_empty()
        || ctx.read(handle, &mut bytes) != 0
        || ctx.write(handle, &bytes) != 0
        || ctx.consume(handle, 1) != 0
        || ctx.splice(handle, handle) != 0;
    if found {
        s.oracle.fail(|| format!("the handle {handle} is stale or another's, and finds something: {at:?}"));
    }
    ctx.commit(handle, 1);
    ctx.want_room(handle);
    ctx.set_opaque(handle, 7);
    match s.dice.below(3) {
        0 => ctx.close(handle),
        1 => ctx.half_close(handle),
        _ => ctx.reset(handle),
    }
}

//! What must hold of every run: the invariants I1 to I18 of establishment, as far as they can be seen from outside.
//!
//! What is expected is computed from the cell ([`Cell::expected`]) and from what the model host was made to do, never
//! from the stack. Each invariant is a function of its name.
//!
//! I16 (a single owner) has one worker here and cannot be broken in another way than all others; migration cannot occur: a
//! flow has one worker for life. I7 compares runs: [`super::table`].

use hoststack::app::{ConnectFailure, Instant, StageCause};

use super::app::{BACK, Told};
use super::cell::{Action, BANNER, Before, Cell, Connect, Consumer, Does, FIFO, Interest};
use super::host::{Ended, State};
use super::world::{Broken, Facts, World, broken};

/// Steps in a row that may say they worked while nothing that can be seen changes: messages pass between main and the
/// worker.
const BARREN_MAX: usize = 16;
/// How far time can go on while steps are taken: 1 us a step.
const SLACK_US: u64 = 1_000;

type Outcome = Result<(), ConnectFailure>;

/// All that the app was told of the connect's outcome.
fn outcomes(told: &[(u64, Told)]) -> impl Iterator<Item = (Outcome, Instant)> {
    told.iter().filter_map(|(who, told)| match told {
        Told::Connected(outcome, at) if *who == BACK => Some((*outcome, *at)),
        _ => None,
    })
}

/// The host and the peer have done all that success needs: the connection is up, the stages' bytes are there, and what
/// goes with the connect fits behind what the stages write.
pub fn all_is_there(host: &State, facts: &Facts) -> bool {
    let cell = facts.run.cell;
    let Some(sock) = host.sock(facts.back) else { return false };
    let queued = facts.plan.stage_bytes.len().saturating_sub(sock.wire.len());
    let fits = cell.plans().is_empty() || queued + cell.early().len() <= FIFO;
    let fails = cell.stages().any(|(_, does)| does == Does::Fails);
    sock.is_up() && !sock.is_reset() && !fails && sock.received() >= facts.plan.answer_bytes && {
        // A stage that never ends needs what never comes.
        fits && cell.expected().is_ok()
    }
}

// ---- After each step ----

/// Looks at what the last step did; `from`: the first callback that has not been looked at.
pub fn after_step(world: &World, facts: &Facts, from: usize) -> Result<(), Broken> {
    let (host, app) = world.parts();
    let (host, app) = (host.state(), app.state());
    let told = &app.told[..];
    if let Some(fault) = app.fault {
        broken!("i15: {fault}");
    }
    i10_wire_order(&host, facts, told)?;
    i13_the_failed_attempt_is_closed(&host, facts, told)?;
    i14_no_attempt_too_many(&host, facts, told)?;
    if from == told.len() {
        return Ok(());
    }
    i3_exactly_once(told)?;
    i4_never_early(&host, facts, &told[from..])?;
    i9_order(told)?;
    i12_timers(facts, &told[from..])?;
    i17_the_peers_end_is_no_session(told)
}

/// I1: what a step leaves undone is done by the steps that it causes: one that nothing caused finds nothing.
// covers: I01
pub fn i1_settle_last(worked: bool, same: bool) -> Result<(), Broken> {
    if worked || !same {
        broken!("i1: both slept, and a step that nothing had caused found something to do");
    }
    Ok(())
}

/// I3: one outcome; a failed connect is not heard of again but for its cleaning; cleaned once, after the outcome.
// covers: I03
fn i3_exactly_once(told: &[(u64, Told)]) -> Result<(), Broken> {
    let count = outcomes(told).count();
    if count > 1 {
        broken!("i3: {count} outcomes were told");
    }
    let mut failed = false;
    let mut cleaned = 0;
    for (_, told) in told.iter().filter(|(who, _)| *who == BACK) {
        match told {
            Told::Connected(outcome, _) => failed = outcome.is_err(),
            Told::Cleaned => cleaned += 1,
            other if failed => broken!("i3: {other:?} after the connect had failed"),
            _ => {}
        }
        if cleaned > 0 && count == 0 {
            broken!("i3: the half-open was cleaned before the outcome was told");
        }
    }
    if cleaned > 1 {
        broken!("i3: the half-open was cleaned {cleaned} times");
    }
    Ok(())
}

/// I4: success is told when the host has said that the connection is up and the stages have all their bytes.
// covers: I04
fn i4_never_early(host: &State, facts: &Facts, news: &[(u64, Told)]) -> Result<(), Broken> {
    if !outcomes(news).any(|(outcome, _)| outcome.is_ok()) {
        return Ok(());
    }
    let Some(sock) = host.sock(facts.back) else { broken!("i4: up without a socket") };
    if !sock.open_was_told {
        broken!("i4: up before the host has said so");
    }
    if sock.read < facts.plan.answer_bytes {
        let (read, wanted) = (sock.read, facts.plan.answer_bytes);
        broken!("i4: up when {read} of the stages' {wanted} bytes were read");
    }
    Ok(())
}

/// I9: the outcome first, then bytes, then the peer's end, then the session's end, and nothing after it.
// covers: I09
fn i9_order(told: &[(u64, Told)]) -> Result<(), Broken> {
    let rank = |told: &Told| match told {
        Told::Connected(..) => 0,
        Told::Data(_) => 1,
        Told::Writable => 1,
        Told::PeerClosed => 2,
        Told::Reset(_) => 3,
        Told::Closed(_) => 4,
        Told::Cleaned => 0,
    };
    let mut last = None;
    for (_, told) in told.iter().filter(|(who, told)| *who == BACK && *told != Told::Cleaned) {
        let rank = rank(told);
        let is_first = last.is_none();
        if is_first && rank != 0 {
            broken!("i9: {told:?} comes before the outcome");
        }
        // Room may come after the peer's end.
        if last.is_some_and(|last| rank < last && *told != Told::Writable || last == 4) {
            broken!("i9: {told:?} comes too late");
        }
        last = last.max(Some(rank));
    }
    Ok(())
}

/// I10: the wire has the stages' bytes in order, then what went with the connect, then the app's; none of what comes
/// after the stages before they are through, none of the app's before it was told.
// covers: I10
fn i10_wire_order(host: &State, facts: &Facts, told: &[(u64, Told)]) -> Result<(), Broken> {
    if let Some(plan) = &facts.plan_before
        && let Some(sock) = host.sock(facts.back - 1)
        && !plan.stage_bytes.iter().chain(&facts.run.cell.early()).take(sock.wire.len()).eq(&sock.wire)
    {
        let wire = String::from_utf8_lossy(&sock.wire);
        broken!(
            "i10: the wire of the attempt before has {wire:?}, which is not the beginning of what was to be sent"
        );
    }
    let Some(sock) = host.sock(facts.back) else { return Ok(()) };
    if !facts.stream.starts_with(&sock.wire) {
        let wire = String::from_utf8_lossy(&sock.wire);
        broken!("i10: the wire has {wire:?}, which is not the beginning of what was to be sent");
    }
    let stages = facts.plan.stage_bytes.len();
    if sock.wire.len() > stages && sock.read < facts.plan.answer_bytes {
        broken!("i10: bytes behind the stages' left before the stages were done");
    }
    let is_up = outcomes(told).any(|(outcome, _)| outcome.is_ok());
    if sock.wire.len() > stages + facts.run.cell.early().len() && !is_up {
        broken!("i10: bytes of the app left before it was told");
    }
    Ok(())
}

/// I12: a connect fails by its deadline at it, not before; nothing is told after it.
// covers: I12
fn i12_timers(facts: &Facts, news: &[(u64, Told)]) -> Result<(), Broken> {
    let Some((outcome, at)) = outcomes(news).next() else { return Ok(()) };
    let Some(deadline) = facts.deadline else { broken!("i12: an outcome before main took the connect") };
    let is_late = matches!(
        outcome,
        Err(ConnectFailure::TimedOut)
            | Err(ConnectFailure::Stage(hoststack::app::StageFailure { cause: StageCause::TimedOut, .. }))
    );
    if is_late && at < deadline {
        broken!("i12: timed out {} us before the deadline", deadline.micros_since(at));
    }
    let jumped = matches!(facts.run.action, Some((Action::Deadline, _)));
    if at.micros_since(deadline) > SLACK_US && !jumped {
        broken!("i12: the outcome was told {} us after the deadline", at.micros_since(deadline));
    }
    if outcome.is_ok() && at >= deadline && facts.acted.is_none_or(|acted| !acted.ready && !acted.told) {
        // What was not ready at the deadline is not a success because it is over.
        broken!("i12: success was told at the deadline, and not all was there");
    }
    Ok(())
}

/// I14: an attempt is made for one that failed, never beside or after one that the app was told of.
// covers: I14
fn i14_no_attempt_too_many(host: &State, facts: &Facts, told: &[(u64, Told)]) -> Result<(), Broken> {
    let count = host.socks().len();
    if count > facts.back + 1 {
        broken!("i14: {count} sockets were made, {} are the cell's", facts.back + 1);
    }
    let current = facts.current(host).and_then(|number| host.sock(number));
    if outcomes(told).any(|(outcome, _)| outcome.is_ok()) && current.is_none_or(|sock| !sock.open_was_told) {
        broken!("i14: an attempt is under way, and the app was told that the connect is up");
    }
    Ok(())
}

/// I13: of an attempt that failed nothing is left when that is told, or when the next one begins.
// covers: I13
fn i13_the_failed_attempt_is_closed(host: &State, facts: &Facts, told: &[(u64, Told)]) -> Result<(), Broken> {
    let failed = outcomes(told).any(|(outcome, _)| outcome.is_err());
    let current = facts.current(host);
    if failed && current.and_then(|number| host.sock(number)).is_some_and(|sock| sock.ended.is_none()) {
        broken!("i13: the connect was told to have failed, and its socket is open");
    }
    if facts.plan_before.is_some()
        && current == Some(facts.back)
        && host.socks()[facts.back - 1].ended.is_none()
    {
        broken!("i13: an attempt begins, and the socket of the one before is open");
    }
    Ok(())
}

/// I17: the peer's end before the session is ready is a failure, not the end of a session.
// covers: I17
fn i17_the_peers_end_is_no_session(told: &[(u64, Told)]) -> Result<(), Broken> {
    let is_up = outcomes(told).any(|(outcome, _)| outcome.is_ok());
    if !is_up && told.iter().any(|(who, told)| *who == BACK && *told == Told::PeerClosed) {
        broken!("i17: the peer's end was told of a session that is none");
    }
    Ok(())
}

// ---- When both sleep and the peer has nothing to do ----

/// Looks at a stack in which nothing moves but time; `next`: its next deadline.
pub fn at_rest(world: &World, facts: &Facts, next: Option<Instant>) -> Result<(), Broken> {
    let (host, app) = world.parts();
    let (host, app) = (host.state(), app.state());
    // An odd event of a connect is slept over before it is watched again: it was not told yet that it is up.
    let is_told = host.sock(facts.back).is_some_and(|sock| sock.open_was_told);
    let is_slept_over = !is_told && !host.awaits_connect(facts.back);
    if is_slept_over && next.is_some_and(|next| facts.deadline.is_some_and(|deadline| next < deadline)) {
        return Ok(());
    }
    i2_level_not_edge(&host, facts, &app.told)
}

/// I2, I8: where all is there that success needs, it was told: whatever came in which order, whoever has spoken,
/// whatever is queued or wanted.
// covers: I02
fn i2_level_not_edge(host: &State, facts: &Facts, told: &[(u64, Told)]) -> Result<(), Broken> {
    if outcomes(told).next().is_none() && all_is_there(host, facts) {
        broken!("i2: ready, everyone sleeps, and the app was not told");
    }
    Ok(())
}

/// I5: a connect without an outcome has a deadline, and its socket is watched for what it waits for.
// covers: I05
pub fn i5_has_wake_source(world: &World, facts: &Facts, next: Option<Instant>) -> Result<(), Broken> {
    let Some(deadline) = facts.deadline else { broken!("i5: main has not taken the connect and sleeps") };
    let Some(next) = next else { broken!("i5: the connect waits, and nobody has a deadline") };
    if next > deadline {
        broken!(
            "i5: the connect waits, and the next deadline is {} us after its own",
            next.micros_since(deadline)
        );
    }
    let host = world.parts().0.state();
    let Some(number) = facts.current(&host) else { return Ok(()) };
    let sock = &host.socks()[number];
    // One that had an odd event is looked at again after a while.
    let is_bridged = next < deadline;
    if sock.is_connecting() && !host.awaits_connect(number) && !is_bridged {
        broken!("i5: the connect is under way, and its socket is not watched");
    }
    if sock.is_up() && !host.is_watched(number) && !is_bridged {
        broken!("i5: the socket is up, and is not watched");
    }
    Ok(())
}

/// I6: steps that work do something.
// covers: I06
pub fn i6_no_spin(barren: usize) -> Result<(), Broken> {
    if barren > BARREN_MAX {
        broken!("i6: {barren} steps in a row worked and changed nothing");
    }
    Ok(())
}

// ---- At the end ----

/// Looks at a run that is over, and says its outcome in a word.
pub fn at_end(world: &World, facts: &Facts) -> Result<String, Broken> {
    let (host, app) = world.parts();
    let (host, app) = (host.state(), app.state());
    let told = &app.told[..];
    let Some((outcome, _)) = outcomes(told).next() else { broken!("i3: no outcome was told") };
    if !told.iter().any(|(who, told)| *who == BACK && *told == Told::Cleaned) {
        broken!("i3: the half-open was not cleaned");
    }
    i18_the_outcome_is_the_cells(facts, outcome)?;
    let closed = told.iter().filter(|(who, told)| *who == BACK && matches!(told, Told::Closed(_))).count();
    if closed != usize::from(outcome.is_ok()) {
        broken!("i3: {closed} ends of a session were told after {outcome:?}");
    }
    if outcome.is_ok() {
        all_bytes_arrived(&host, facts, told, app.accepted)?;
    } else if host
        .sock(facts.back)
        .is_some_and(|sock| sock.ended == Some(Ended::Finished) && !sock.wire.is_empty())
    {
        broken!("i13: the peer saw the failed attempt end as if all had been said");
    }
    Ok(match outcome {
        Ok(()) => "up".to_owned(),
        Err(ConnectFailure::Stage(failure)) => format!("stage-{}", cause(failure.cause)),
        Err(failure) => failure.name().to_owned(),
    })
}

fn cause(cause: StageCause) -> &'static str {
    match cause {
        StageCause::TimedOut => "timed-out",
        StageCause::PeerClosed => "peer-closed",
        StageCause::Malformed(_) => "malformed",
        StageCause::Unsayable(_) => "unsayable",
        _ => "other",
    }
}

/// I8, I11, I18: the outcome is what the connect and the stages make it, with the stage and the cause as they were when it
/// happened; an action decides otherwise only where it comes first.
// covers: I08, I18
fn i18_the_outcome_is_the_cells(facts: &Facts, outcome: Outcome) -> Result<(), Broken> {
    let cell = facts.run.cell;
    let expected = cell.expected();
    if outcome == expected {
        return Ok(());
    }
    let (Some((action, _)), Some(acted)) = (facts.run.action, facts.acted) else {
        broken!("i18: the outcome is {outcome:?}, it should be {expected:?}")
    };
    let is_allowed = match (action, outcome) {
        (Action::Cancel, Err(ConnectFailure::Cancelled)) => !acted.told && facts.cancelled == Some(Ok(())),
        // There is no time for another attempt.
        (Action::Deadline, outcome)
            if cell.attempt_before().is_some_and(|cell| cell.expected() == outcome) =>
        {
            !acted.told
        }
        (Action::Deadline, Err(ConnectFailure::TimedOut)) => !acted.told,
        (Action::Deadline, Err(ConnectFailure::Stage(failure))) => {
            !acted.told && failure.cause == StageCause::TimedOut
        }
        _ => false,
    };
    if !is_allowed {
        broken!("i18: the outcome is {outcome:?}, it should be {expected:?}, whatever the action");
    }
    if action == Action::Deadline && acted.ready {
        broken!("i12: all was there before the deadline was looked at, and the outcome is {outcome:?}");
    }
    Ok(())
}

/// The session took what it was given to the wire, in full where it was closed in peace; the app was told of what
/// came, in full where it reads.
fn all_bytes_arrived(
    host: &State,
    facts: &Facts,
    told: &[(u64, Told)],
    accepted: usize,
) -> Result<(), Broken> {
    let cell = facts.run.cell;
    let Some(sock) = host.sock(facts.back) else { broken!("up without a socket") };
    let was_cut = told.iter().any(|(who, told)| {
        *who == BACK
            && matches!(told, Told::Closed(reason) if *reason != hoststack::app::CloseReason::Finished)
    });
    let wanted = facts.plan.stage_bytes.len() + cell.early().len() + accepted;
    if !was_cut && sock.wire.len() != wanted {
        broken!(
            "i10: {} of {wanted} bytes that were taken are on the wire of a session that finished",
            sock.wire.len()
        );
    }
    let is_undisturbed = !matches!(
        facts.run.action,
        Some((Action::AppClose | Action::AppAbort | Action::Cancel | Action::Deadline, _))
    );
    let keeps = cell.consumer != Consumer::Check && is_undisturbed;
    if keeps && !was_cut && sock.wire != facts.stream {
        broken!("i10: {} of {} bytes are on the wire at the end", sock.wire.len(), facts.stream.len());
    }
    let resets = cell.connect == Connect::ResetFirst;
    let came = sock.received().saturating_sub(facts.plan.answer_bytes);
    let reads = matches!(cell.interest, Interest::Read | Interest::Both) && cell.consumer == Consumer::App;
    // RFC 2525 §2.17: a close that leaves bytes unread resets.
    let leaves_bytes = came > 0 && !reads && cell.consumer != Consumer::Proxy;
    if was_cut && is_undisturbed && !resets && !leaves_bytes && !facts.plan.script.never_opens {
        broken!("i11: the session was cut, and nobody had done that");
    }
    if resets && !was_cut && is_undisturbed && cell.consumer != Consumer::Check {
        broken!("i11: the peer has reset it, and nobody was told");
    }
    let data: Vec<u8> = told
        .iter()
        .filter_map(|(who, told)| match told {
            Told::Data(bytes) if *who == BACK => Some(bytes.as_slice()),
            _ => None,
        })
        .flatten()
        .copied()
        .collect();
    if !BANNER.starts_with(&data) {
        broken!("i9: the app read {:?}", String::from_utf8_lossy(&data));
    }
    if reads && keeps && data.len() != came {
        broken!("i9: the app read {} of {came} bytes that came", data.len());
    }
    let heard_end = told.iter().any(|(who, told)| *who == BACK && *told == Told::PeerClosed);
    // What the peer ends because we did is no news.
    let peer_ends_first = matches!(cell.connect, Connect::AsyncFin | Connect::AsyncBytesFin)
        || (cell.peer == super::cell::Peer::FirstFin && sock.fin);
    if keeps && peer_ends_first && !heard_end && !was_cut {
        broken!("i9: the peer ended its direction, and the app was not told");
    }
    Ok(())
}

/// I7: cells of one key differ only in how things are split in time: what the app and the peer see is the same.
pub fn i7_key(cell: &Cell) -> Cell {
    let connect = match cell.connect {
        Connect::SyncOk | Connect::HangUpFirst | Connect::HangUpWith | Connect::ErrorFirst => {
            Connect::AsyncOk
        }
        Connect::SyncRefused => Connect::AsyncRefused,
        other => other,
    };
    let mut does = cell.does;
    for does in does.iter_mut().take(super::cell::STACKS[cell.stack].1.len()) {
        match does {
            Does::AtStart | Does::Partial => *does = Does::Later,
            Does::Later => {}
            // Behind what never leaves, to need no answer is another thing than to get one.
            Does::Never | Does::Fails => break,
        }
    }
    let before = match cell.before {
        Before::SyncRefused => Before::AsyncRefused,
        other => other,
    };
    Cell { before, connect, does, ..*cell }
}

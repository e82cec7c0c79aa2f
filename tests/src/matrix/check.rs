//! The end of a case: quiescence, detach, and the eight points that must hold of every connect.

use std::fmt;

use hoststack::app::{
    CancelError, CloseReason, ConnectError, ConnectFailure, ConnectId, HalfOpenCounters, SessionHandle,
};
use hoststack::{Answer, EndHow};

use super::app::{Message, Told};
use super::events::Side;
use super::peer::Belief;
use super::world::{Broken, World, broken};

/// What a case came to, as the snapshot has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Outcome(pub String);

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Runs a case to its end after its events, and checks it.
pub fn finish(world: &mut World) -> Result<Outcome, Broken> {
    world.settle()?;
    // With memory refused, until the connect has its outcome; with memory, until nobody has anything to do.
    world.run_until(|world| world.own.is_none_or(|made| world.has_outcome(made.connect)))?;
    world.lift()?;
    world.run_until(|_| false)?;
    let outcome = describe(world);
    probe(world)?;
    if !world.app.look(|told| told.contains(&Told::Detached)) {
        world.note(|| "DETACH ALL".to_owned());
        world.detach()?;
        // Before TIME-WAIT is over: nothing but TIME-WAIT is left.
        check_figures(&world.inspect()?)?;
    }
    world.run_until(|_| false)?;
    let answer = world.inspect()?;
    check_figures(&answer)?;
    if answer.time_wait != 0 || answer.main.tuples != 0 {
        broken!("{} in TIME-WAIT, {} tuples after 2 MSL", answer.time_wait, answer.main.tuples);
    }
    if world.peer.belief().believes() {
        broken!("the peer is left in a connection that is not: it {}", world.peer.belief().name());
    }
    world.check_answers()?;
    check_told(world)?;
    Ok(outcome)
}

/// Handles and ids that are over find nothing.
fn probe(world: &mut World) -> Result<(), Broken> {
    if let Some(made) = world.own {
        match world.cancel(made.connect)? {
            Some(Err(CancelError::NotPending)) => {}
            other => broken!("cancelling a connect that has its outcome: {other:?}"),
        }
    }
    let ended = world.app.look(|told| {
        told.iter()
            .rev()
            .find_map(|told| if let Told::Closed(session, _) = told { Some(*session) } else { None })
    });
    let Some(session) = ended else { return Ok(()) };
    world.notify(Message::IsLive(session));
    world.end_session(session, EndHow::Reset);
    world.settle()?;
    if world.app.look(|told| told.contains(&Told::Live(session, true))) {
        broken!("the handle {session} finds a session after its `closed`");
    }
    Ok(())
}

fn check_figures(answer: &Answer) -> Result<(), Broken> {
    let main = &answer.main;
    if !answer.leaks.is_clean() {
        broken!("leaks: {:?}, main {main:?}, workers {:?}", answer.leaks, answer.workers);
    }
    let left = [
        main.half_open_sessions,
        main.half_open_connections,
        main.listeners,
        answer.workers.iter().map(|worker| worker.half_open_entries + worker.syn_received).sum(),
    ];
    if left != [0; 4] || !answer.apps.is_empty() || main.messages != 0 {
        broken!("left: {left:?}, apps {:?}, {} messages", answer.apps, main.messages);
    }
    if main.tickets_dropped != 0 || main.connects_orphaned != 0 {
        broken!("{} tickets dropped, {} connects orphaned", main.tickets_dropped, main.connects_orphaned);
    }
    Ok(())
}

/// What the app was told, in what order.
fn check_told(world: &World) -> Result<(), Broken> {
    let told = world.app.told();
    let panicked = told.contains(&Told::Panicked);
    let Some(worker_detached) = told.iter().position(|told| matches!(told, Told::WorkerDetached(_))) else {
        broken!("the detach of the app worker was not told")
    };
    if told.last() != Some(&Told::Detached) || told.iter().filter(|t| **t == Told::Detached).count() != 1 {
        broken!("`detached` is not the last thing told, once");
    }
    if let Some(late) = told[worker_detached + 1..].iter().find(|told| !matches!(told, Told::Detached)) {
        broken!("told after the app worker was detached: {late:?}");
    }
    let Told::WorkerDetached(report) = &told[worker_detached] else { broken!("it is one") };
    let outcomes = report.outcomes;
    let connects = world.connects().count();
    if outcomes.requested != connects as u64
        || outcomes.settled() != outcomes.requested
        || outcomes.cleaned != outcomes.requested
    {
        broken!("counted: {outcomes:?} of {connects} connects");
    }
    if !report.stuck.is_empty() || report.unresolved != 0 || report.panicked != panicked {
        broken!("the detach was reported as {report:?}");
    }
    let mut untold = 0;
    for made in world.connects() {
        untold += u64::from(!check_connect(&told, made.connect, &outcomes)?);
    }
    if untold > 0 && (!panicked || outcomes.undelivered < untold) {
        broken!("{untold} connects have no outcome; undelivered: {}", outcomes.undelivered);
    }
    let sessions = told.iter().filter_map(|told| match told {
        Told::Connected(_, Ok(session), _) | Told::Accepted(session) => Some(*session),
        _ => None,
    });
    for session in sessions {
        check_session(&told, session, &world.peer.stream, panicked)?;
    }
    if world.own_error.is_some_and(|error| error != ConnectError::Detached) {
        broken!("the connect could not be asked for: {:?}", world.own_error);
    }
    Ok(())
}

/// One outcome, and then one `half_open_cleaned`. Says whether the outcome was told.
fn check_connect(told: &[Told], connect: ConnectId, outcomes: &HalfOpenCounters) -> Result<bool, Broken> {
    let mut told_at = None;
    let mut cleaned_at = None;
    for (at, told) in told.iter().enumerate() {
        let (first, what) = match told {
            Told::Connected(id, ..) if *id == connect => (&mut told_at, "a second outcome"),
            Told::Cleaned(id) if *id == connect => (&mut cleaned_at, "a second cleaning"),
            _ => continue,
        };
        if first.replace(at).is_some() {
            broken!("{what} of {connect}: {told:?}");
        }
    }
    let Some(cleaned_at) = cleaned_at else { broken!("{connect} was never cleaned: {outcomes:?}") };
    if told_at.is_some_and(|told_at| told_at > cleaned_at) {
        broken!("{connect} was cleaned before its outcome was told");
    }
    Ok(told_at.is_some())
}

/// First up, then data, then the peer's close, then the end; all bytes before a graceful close.
fn check_session(told: &[Told], session: SessionHandle, stream: &[u8], panicked: bool) -> Result<(), Broken> {
    let mut rank = 0;
    let mut bytes = Vec::new();
    let mut ended = false;
    for told in told {
        let (next, may_repeat) = match told {
            Told::Connected(_, Ok(id), _) | Told::Accepted(id) if *id == session => (1, false),
            Told::Data(id, data) if *id == session => {
                bytes.extend_from_slice(data);
                (2, true)
            }
            Told::PeerClosed(id) if *id == session => {
                if bytes != stream {
                    broken!("the peer's close was told before all of its bytes: {bytes:?} of {stream:?}");
                }
                (3, false)
            }
            Told::Cut(id, reason) if *id == session => {
                if reason.is_graceful() {
                    broken!("cut off, as {reason:?}");
                }
                (4, false)
            }
            Told::Closed(id, _) if *id == session => {
                ended = true;
                (5, false)
            }
            _ => continue,
        };
        if next < rank || (next == rank && !may_repeat) {
            broken!("session {session}: {told:?} came out of order");
        }
        rank = next;
    }
    if !stream.starts_with(&bytes) {
        broken!("session {session} read {bytes:?} of {stream:?}");
    }
    if !ended && !panicked {
        broken!("session {session} has no `closed`");
    }
    Ok(())
}

/// What the app saw of the connection of the case, and how the peer ended, before the app is detached.
fn describe(world: &World) -> Outcome {
    let told = world.app.told();
    let connect = world.own.map(|made| made.connect);
    let mut words: Vec<String> = Vec::new();
    let mut push = |word: String| {
        if words.last() != Some(&word) {
            words.push(word);
        }
    };
    let (mut is_up, mut has_outcome) = (false, false);
    for told in &told {
        match told {
            Told::Connected(id, outcome, _) if Some(*id) == connect => {
                has_outcome = true;
                is_up = outcome.is_ok();
                push(outcome.map_or_else(failure_name, |_| "up").to_owned());
            }
            Told::Connected(..) | Told::Cleaned(_) | Told::Listening(_) | Told::Live(..) => {}
            Told::Accepted(_) => {
                is_up = true;
                push("up".to_owned());
            }
            Told::Data(..) => push("data".to_owned()),
            Told::PeerClosed(_) => push("fin".to_owned()),
            // `closed` with the same reason follows.
            Told::Cut(..) => push("cut".to_owned()),
            Told::Closed(_, reason) => {
                is_up = false;
                push(format!("closed({})", reason_name(*reason)));
            }
            Told::Panicked => {
                is_up = false;
                push("panic".to_owned());
            }
            Told::Detaching | Told::WorkerDetached(_) | Told::Detached => {}
        }
    }
    if is_up {
        push("stays".to_owned());
    }
    match (world.side, world.own_error) {
        (Side::Connect, Some(error)) => push(format!("Err({error:?})")),
        (Side::Connect, None) if !has_outcome => push("untold".to_owned()),
        (Side::Accept, _) if words.is_empty() => words.push("nothing".to_owned()),
        _ => {}
    }
    let belief: Belief = world.peer.belief();
    Outcome(format!("{}; peer {}", words.join(" "), belief.name()))
}

fn failure_name(failure: ConnectFailure) -> &'static str {
    match failure {
        ConnectFailure::Refused => "refused",
        ConnectFailure::TimedOut => "timed-out",
        ConnectFailure::Unreachable => "unreachable",
        ConnectFailure::Cancelled => "cancelled",
        ConnectFailure::Detached => "detached",
        ConnectFailure::AddressInUse => "address-in-use",
        ConnectFailure::AddressNotAvailable => "address-not-available",
        ConnectFailure::NoRoom => "no-room",
        ConnectFailure::System(_) => "system",
        ConnectFailure::Stage(_) => "stage",
    }
}

fn reason_name(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::Finished => "finished",
        CloseReason::PeerReset => "peer-reset",
        CloseReason::LocalReset => "local-reset",
        CloseReason::TimedOut => "timed-out",
        CloseReason::Unreachable => "unreachable",
        CloseReason::NoRoom => "no-room",
        CloseReason::Truncated => "truncated",
        CloseReason::Corrupt => "corrupt",
    }
}

#[cfg(test)]
mod tests {
    use hoststack::app::{Instant, WorkerId};
    use hoststack_transport::{Key, SessionId};

    use super::*;

    const ID: ConnectId = ConnectId::new(300, 1);
    const SESSION: SessionHandle = SessionHandle::new(WorkerId(0), SessionId(Key { slot: 0, generation: 0 }));

    fn failed() -> Told {
        Told::Connected(ID, Err(ConnectFailure::Refused), Instant::ZERO)
    }

    fn words(result: Result<impl fmt::Debug, Broken>) -> String {
        result.expect_err("it breaks a rule").0
    }

    fn session(told: &[Told]) -> Result<(), Broken> {
        check_session(told, SESSION, b"ab", false)
    }

    #[test]
    fn a_connect_has_one_outcome_before_one_cleaning() {
        let outcomes = HalfOpenCounters::default();
        let check = |told: &[Told]| check_connect(told, ID, &outcomes);
        assert_eq!(check(&[failed(), Told::Cleaned(ID)]), Ok(true));
        assert_eq!(check(&[Told::Cleaned(ID)]), Ok(false));
        assert!(words(check(&[failed(), failed(), Told::Cleaned(ID)])).contains("a second outcome"));
        assert!(words(check(&[Told::Cleaned(ID), failed()])).contains("before its outcome"));
        assert!(
            words(check(&[failed(), Told::Cleaned(ID), Told::Cleaned(ID)])).contains("a second cleaning")
        );
        assert!(words(check(&[failed()])).contains("never cleaned"));
    }

    #[test]
    fn a_session_is_told_of_in_order_and_to_its_end() {
        let (up, end) = (Told::Accepted(SESSION), Told::Closed(SESSION, CloseReason::Finished));
        let data = |bytes: &[u8]| Told::Data(SESSION, bytes.to_vec());
        let fin = Told::PeerClosed(SESSION);
        assert_eq!(session(&[up.clone(), data(b"a"), data(b"b"), fin.clone(), end.clone()]), Ok(()));
        assert!(
            words(session(&[up.clone(), data(b"a"), fin.clone(), end.clone()]))
                .contains("before all of its bytes")
        );
        assert!(words(session(&[up.clone(), end.clone(), data(b"a")])).contains("out of order"));
        assert!(words(session(&[up.clone(), end.clone(), end.clone()])).contains("out of order"));
        assert!(words(session(&[end.clone(), up.clone()])).contains("out of order"));
        assert!(words(session(&[up.clone(), data(b"x"), end])).contains("read"));
        assert!(words(session(&[up])).contains("no `closed`"));
    }
}

//! Questions about sessions and half-opens: filters, pages, counts, every layer of one.

mod common;

use common::*;
use hoststack::app::*;
use hoststack::inspect::{
    Detail, Filter, HalfOpenInfo, HalfOpenQuery, Order, SLOWEST_MAX, SessionDetail, SessionInfo,
    SessionQuery, SessionState, TcpState,
};
use hoststack::net::{Impairments, MemoryWireConfig};
use hoststack::{Answer, Attached, Bursts, Query, SingleThreaded, StackConfig, Stopped, Waiting};

const LONG: Duration = Duration::from_secs(60);

fn to_server() -> ConnectOptions {
    ConnectOptions::to(Family::V4.server(80))
}

/// Two workers with `count` sessions at each end; the client has two app workers, which connect in turn.
fn world(count: u64) -> (SingleThreaded, Attached) {
    let mut stack = stack(2);
    let (server, client) = (Log::default(), Log::default());
    serve(&mut stack, Probe::idle(&server), 80);
    let options = AttachOptions { app_workers: 2, ..AttachOptions::named("client") };
    let attached = stack.attach(Probe::idle(&client), options).unwrap();
    for opaque in 0..count {
        let app_worker = attached.app_workers[opaque as usize % 2];
        stack.connect(app_worker, ConnectOptions { opaque, ..to_server() }).unwrap();
    }
    until(&mut stack, LONG, || client.up() as u64 == count && server.accepted() as u64 == count);
    (stack, attached)
}

fn ask(stack: &mut SingleThreaded, query: SessionQuery) -> Answer {
    stack.inspect(Query::Sessions(Box::new(query))).unwrap()
}

fn all(stack: &mut SingleThreaded, filter: Filter) -> Vec<SessionInfo> {
    ask(stack, SessionQuery { filter, limit: 1000, ..SessionQuery::default() }).sessions
}

#[test]
fn pages_list_every_session_once_in_the_order_of_handles() {
    let (mut stack, _) = world(25);
    for limit in [1, 7, 50, 51] {
        let (mut handles, mut after, mut pages) = (Vec::new(), None, 0);
        loop {
            let page = ask(&mut stack, SessionQuery { after, limit, ..SessionQuery::default() });
            assert!(page.sessions.len() <= limit);
            handles.extend(page.sessions.iter().map(|session| session.session));
            pages += 1;
            after = page.sessions_next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!((handles.len(), pages), (50, 50_usize.div_ceil(limit)), "by {limit}");
        assert!(handles.is_sorted_by(|a, b| a < b));
    }
}

#[test]
fn the_slowest_come_first_from_all_workers() {
    let jitter = |seed| Impairments { seed, jitter_us: 30_000, ..Impairments::default() };
    let (mut stack, _) = impaired_stack(config(2), jitter(1), jitter(2));
    let (server, client) = (Log::default(), Log::default());
    serve(&mut stack, Probe::idle(&server), 80);
    let attached = attach(&mut stack, "client", Probe::idle(&client));
    for _ in 0..150 {
        stack.connect(attached.app_workers[0], to_server()).unwrap();
    }
    until(&mut stack, LONG, || client.up() == 150 && server.accepted() == 150);
    let places = |sessions: &[SessionInfo]| -> Vec<_> {
        sessions.iter().map(|it| (std::cmp::Reverse(it.srtt_us), it.session)).collect()
    };
    let mut wanted = places(&all(&mut stack, Filter::default()));
    wanted.sort_unstable();
    assert!(wanted.iter().any(|(_, session)| session.worker() != wanted[0].1.worker()));
    assert!(wanted[0].0 < wanted[9].0, "they differ");
    for (limit, listed) in [(0, 0), (1, 1), (10, 10), (1000, SLOWEST_MAX)] {
        let slowest =
            ask(&mut stack, SessionQuery { limit, order: Order::Slowest, ..SessionQuery::default() });
        assert_eq!(places(&slowest.sessions), wanted[..listed], "{limit}");
        assert!(slowest.sessions_next.is_none() && slowest.session_summary.total == 300);
    }
    // Of those that fit, and they are counted.
    let filter = Filter { app: Some("client".into()), worker: Some(WorkerId(1)), ..Filter::default() };
    let fitting = places(&all(&mut stack, filter.clone()));
    let query =
        SessionQuery { filter, limit: 5, order: Order::Slowest, count: true, ..SessionQuery::default() };
    let slowest = ask(&mut stack, query);
    wanted.retain(|place| fitting.contains(place));
    assert_eq!(places(&slowest.sessions), wanted[..5]);
    assert_eq!(slowest.matched, Some(wanted.len() as u64));
}

#[test]
fn a_list_goes_on_without_figures_when_rows_alone_are_asked_for() {
    let (mut stack, _) = world(10);
    let page = ask(&mut stack, SessionQuery { limit: 8, ..SessionQuery::default() });
    let query =
        SessionQuery { after: page.sessions_next, limit: 100, rows_only: true, ..SessionQuery::default() };
    let rest = ask(&mut stack, query.clone());
    assert_eq!((rest.sessions.len(), rest.sessions_next), (12, None));
    assert!(rest.sessions.iter().all(|session| !session.app_worker.is_empty()), "names are there");
    assert_eq!((rest.workers.len(), rest.apps.len(), rest.session_summary.total), (0, 0, 0));
    // Behind the last worker there is nothing to ask.
    let last = rest.sessions.last().map(|session| session.session);
    assert!(ask(&mut stack, SessionQuery { after: last, ..query.clone() }).sessions.is_empty());
    let beyond = Some(SessionHandle::from_u64(9 << 56));
    assert!(ask(&mut stack, SessionQuery { after: beyond, ..query }).sessions.is_empty());
}

#[test]
fn sessions_that_end_between_pages_keep_none_of_the_others_out() {
    let (mut stack, _) = world(20);
    let page = ask(&mut stack, SessionQuery { limit: 10, ..SessionQuery::default() });
    let last = page.sessions_next.unwrap();
    stack.handle().end_session(last, hoststack::EndHow::Reset).unwrap();
    pass(&mut stack, Duration::from_millis(100));
    let rest = ask(&mut stack, SessionQuery { after: Some(last), limit: 100, ..SessionQuery::default() });
    // Its other end went with it, which is listed before or after.
    let gone = rest.session_summary.total;
    assert_eq!(gone, 38);
    assert!(rest.sessions.len() == 30 || rest.sessions.len() == 29, "{}", rest.sessions.len());
    assert!(rest.sessions.iter().all(|session| session.session > last));
}

#[test]
fn each_filter_keeps_what_fits_and_nothing_else() {
    let (mut stack, _) = world(10);
    let everything = all(&mut stack, Filter::default());
    assert_eq!(everything.len(), 20);
    let mut keeps = |filter: Filter, fits: &dyn Fn(&SessionInfo) -> bool, count: Option<usize>| {
        let mut wanted: Vec<SessionHandle> =
            everything.iter().filter(|session| fits(session)).map(|session| session.session).collect();
        wanted.sort_unstable();
        let kept: Vec<SessionHandle> = all(&mut stack, filter.clone()).iter().map(|it| it.session).collect();
        assert_eq!(kept, wanted, "{filter:?}");
        assert!(count.is_none_or(|count| kept.len() == count), "{} fit {filter:?}", kept.len());
    };
    let base = Filter::default;
    keeps(Filter { worker: Some(WorkerId(1)), ..base() }, &|it| it.session.worker() == WorkerId(1), None);
    keeps(Filter { worker: Some(WorkerId(9)), ..base() }, &|_| false, Some(0));
    keeps(
        Filter { app: Some("client".into()), ..base() },
        &|it| it.app_worker.starts_with("client/"),
        Some(10),
    );
    keeps(Filter { app: Some("client/1".into()), ..base() }, &|it| &*it.app_worker == "client/1", Some(5));
    keeps(Filter { app: Some("nobody".into()), ..base() }, &|_| false, Some(0));
    keeps(Filter { domain: Some(1), ..base() }, &|it| it.flow.domain.0 == 1, Some(10));
    keeps(Filter { protocol: Some(Protocol::Tcp), ..base() }, &|_| true, Some(20));
    keeps(Filter { protocol: Some(Protocol::Local), ..base() }, &|_| false, Some(0));
    keeps(Filter { state: Some(SessionState::Open), ..base() }, &|_| true, Some(20));
    keeps(Filter { state: Some(SessionState::Closing), ..base() }, &|_| false, Some(0));
    let server: hoststack::net::Cidr = "10.0.0.2/32".parse().unwrap();
    let network: hoststack::net::Cidr = "10.0.0.0/24".parse().unwrap();
    let is_server = |end: &str| end.starts_with("10.0.0.2:");
    keeps(Filter { remote: Some(server), ..base() }, &|it| is_server(&it.remote()), Some(10));
    keeps(Filter { local: Some(server), ..base() }, &|it| is_server(&it.local()), Some(10));
    keeps(Filter { local: Some(network), ..base() }, &|_| true, Some(20));
    keeps(Filter { port: Some(80), ..base() }, &|_| true, Some(20));
    keeps(Filter { local_port: Some(80), ..base() }, &|it| it.local().ends_with(":80"), Some(10));
    keeps(Filter { remote_port: Some(80), ..base() }, &|it| it.remote().ends_with(":80"), Some(10));
    let median = everything[10].age_us;
    keeps(Filter { older_us: Some(median + 1_000_000_000), ..base() }, &|_| false, Some(0));
    keeps(Filter { younger_us: Some(1_000_000_000), ..base() }, &|_| true, Some(20));
    keeps(Filter { queued: Some(1), ..base() }, &|it| it.rx_bytes + it.tx_bytes >= 1, Some(0));
    keeps(Filter { stuck: true, ..base() }, &|it| it.fault.is_some(), Some(0));
    keeps(
        Filter { domain: Some(0), app: Some("client/0".into()), remote_port: Some(80), ..base() },
        &|it| &*it.app_worker == "client/0",
        Some(5),
    );
}

#[test]
fn connections_are_found_by_their_tcp_state() {
    let mut stack = stack(2);
    let (server, client) = (Log::default(), Log::default());
    // It closes nothing by itself.
    serve(&mut stack, Probe::new(&server, |_, _| {}), 80);
    let half_closes = |ctx: &mut Context<'_>, event: &Event| {
        if let Event::Connected(_, 0..3, Ok(session)) = *event {
            ctx.half_close(session);
        }
    };
    let attached = attach(&mut stack, "client", Probe::new(&client, half_closes));
    for opaque in 0..10 {
        stack.connect(attached.app_workers[0], ConnectOptions { opaque, ..to_server() }).unwrap();
    }
    until(&mut stack, LONG, || client.up() == 10 && server.accepted() == 10);
    let nobody = ConnectOptions::to(Family::V4.nobody());
    stack.connect(attached.app_workers[0], nobody).unwrap();
    pass(&mut stack, Duration::from_millis(500));
    for (state, app, count) in [
        // RFC 9293 §3.6: the end that closed first, whose FIN was acknowledged, and the one that has not closed yet.
        (TcpState::FinWait2, "client", 3),
        (TcpState::CloseWait, "server", 3),
        (TcpState::Established, "client", 7),
        (TcpState::SynSent, "client", 0),
        (TcpState::TimeWait, "client", 0),
    ] {
        let of = |app: Option<&str>| Filter {
            tcp_state: Some(state),
            app: app.map(Into::into),
            ..Filter::default()
        };
        let found = all(&mut stack, of(Some(app)));
        assert_eq!(found.len(), count, "{state} of {app}");
        let both = if state == TcpState::Established { 2 * count } else { count };
        let query = SessionQuery { filter: of(None), count: true, ..SessionQuery::default() };
        assert_eq!(ask(&mut stack, query).matched, Some(both as u64), "{state}");
        for session in found {
            let handle = session.session;
            let detail = stack.inspect(Query::Session(handle)).unwrap().sessions.remove(0).detail.unwrap();
            assert!(detail.transport_variables().0.contains(&("state".to_owned(), state.name().to_owned())));
        }
        let query = HalfOpenQuery { filter: of(None), limit: 10, ..HalfOpenQuery::default() };
        let half_opens = stack.inspect(Query::HalfOpens(Box::new(query))).unwrap().half_opens.len();
        assert_eq!(half_opens, usize::from(state == TcpState::SynSent), "{state}");
    }
}

#[test]
fn bytes_that_nobody_reads_are_found_by_their_number() {
    let mut stack = stack(1);
    let (server, client) = (Log::default(), Log::default());
    serve(&mut stack, Probe::idle(&server), 80);
    let writes = |ctx: &mut Context<'_>, event: &Event| {
        if let Event::Connected(_, opaque, Ok(session)) = *event {
            ctx.write(session, &vec![7; 100 * opaque as usize]);
        }
    };
    let attached = attach(&mut stack, "client", Probe::new(&client, writes));
    for opaque in 0..10 {
        stack.connect(attached.app_workers[0], ConnectOptions { opaque, ..to_server() }).unwrap();
    }
    until(&mut stack, LONG, || server.accepted() == 10);
    pass(&mut stack, Duration::from_secs(1));
    let filter = Filter { queued: Some(500), ..Filter::default() };
    let found = all(&mut stack, filter.clone());
    assert_eq!(found.iter().map(|session| session.rx_bytes).sum::<usize>(), 500 + 600 + 700 + 800 + 900);
    let counted = ask(&mut stack, SessionQuery { filter, limit: 2, count: true, ..SessionQuery::default() });
    assert_eq!((counted.sessions.len(), counted.matched), (2, Some(5)));
    assert!(counted.sessions_next.is_some());
}

#[test]
fn one_session_is_told_with_every_layer_and_a_stale_handle_finds_none() {
    let (mut stack, _) = world(3);
    let filter = Filter { app: Some("client".into()), ..Filter::default() };
    let handle = all(&mut stack, filter)[1].session;
    let found = stack.inspect(Query::Session(handle)).unwrap().sessions;
    assert_eq!(found.len(), 1);
    let session = &found[0];
    assert_eq!((session.session, &*session.state()), (handle, "open/open"));
    assert!(session.app_worker.starts_with("client/"));
    let detail = session.detail.as_deref().unwrap();
    let SessionDetail { rx_fifo, tx_fifo, layer, pending, stages, .. } = detail;
    let (transport, measured) = (&detail.transport_variables(), &detail.measured_variables());
    assert_eq!((rx_fifo.capacity, tx_fifo.capacity), (65_535, 65_536));
    assert!(layer.is_none() && pending.is_empty() && stages.is_empty());
    let has = |variables: &hoststack::inspect::Variables, name: &str| {
        variables.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone())
    };
    assert_eq!(has(transport, "state").as_deref(), Some("ESTABLISHED"));
    for name in ["snd.una", "snd.nxt", "snd.wnd", "rcv.nxt", "rcv.wnd", "iss", "irs", "cwnd", "ssthresh"] {
        assert!(has(transport, name).is_some(), "{name}: {transport:?}");
    }
    assert!(has(measured, "srtt_us").is_some() && has(measured, "retransmitted_segments").is_some());
    stack.handle().end_session(handle, hoststack::EndHow::Reset).unwrap();
    pass(&mut stack, Duration::from_millis(100));
    assert!(stack.inspect(Query::Session(handle)).unwrap().sessions.is_empty());
    let elsewhere = SessionHandle::from_u64(handle.as_u64() | 0xff << 56);
    assert!(stack.inspect(Query::Session(elsewhere)).unwrap().sessions.is_empty());
}

#[test]
fn half_opens_have_filters_pages_and_say_who_decides() {
    let (mut stack, client) = world(2);
    let nobody = ConnectOptions::to(Family::V4.nobody());
    for opaque in 0..30 {
        let app_worker = client.app_workers[opaque as usize % 2];
        stack.connect(app_worker, ConnectOptions { opaque, ..nobody.clone() }).unwrap();
    }
    pass(&mut stack, Duration::from_millis(500));
    let mut ask = |query: HalfOpenQuery| stack.inspect(Query::HalfOpens(Box::new(query))).unwrap();
    let (mut seen, mut after): (Vec<HalfOpenInfo>, _) = (Vec::new(), None);
    loop {
        let page = ask(HalfOpenQuery { after, limit: 7, ..HalfOpenQuery::default() });
        assert_eq!(page.main.half_open_sessions, 30);
        seen.extend(page.half_opens);
        after = page.half_opens_next;
        if after.is_none() {
            break;
        }
    }
    let mut opaques: Vec<u64> = seen.iter().map(|half_open| half_open.opaque).collect();
    opaques.sort_unstable();
    assert_eq!(opaques, (0..30).collect::<Vec<u64>>());
    for half_open in &seen {
        assert_eq!((half_open.state.as_str(), half_open.holder.as_str()), ("connecting", "main"));
        assert!(half_open.fault.is_none() && half_open.deadline_in_us > 29_000_000);
    }
    let filter = Filter { app: Some("client/1".into()), ..Filter::default() };
    let some = ask(HalfOpenQuery { filter, limit: 3, count: true, ..HalfOpenQuery::default() });
    assert_eq!((some.half_opens.len(), some.matched), (3, Some(15)));
    assert!(some.half_opens.iter().all(|half_open| half_open.app_worker == "client/1"));
    let remote = Some(hoststack::net::Cidr::host(Family::V4.nobody().ip()));
    for (remote, count) in [(remote, 30), (Some("192.0.2.0/24".parse().unwrap()), 0)] {
        let filter = Filter { remote, ..Filter::default() };
        let found = ask(HalfOpenQuery { filter, limit: 100, ..HalfOpenQuery::default() });
        assert_eq!(found.half_opens.len(), count);
    }
    let id = ConnectId::from_u64(seen[4].connect_id);
    let filter = Filter { stuck: true, ..Filter::default() };
    assert!(ask(HalfOpenQuery { filter, limit: 100, ..HalfOpenQuery::default() }).half_opens.is_empty());
    let one = stack.inspect(Query::HalfOpen(id)).unwrap().half_opens;
    assert_eq!((one.len(), one[0].opaque, &one[0].connect), (1, seen[4].opaque, &seen[4].connect));
    stack.cancel(id).unwrap();
    pass(&mut stack, Duration::from_millis(100));
    assert!(stack.inspect(Query::HalfOpen(id)).unwrap().half_opens.is_empty());
}

#[test]
fn the_summary_follows_every_change_of_state() {
    let (mut stack, client) = world(4);
    let summary = |stack: &mut SingleThreaded| stack.inspect(Query::Status).unwrap().session_summary;
    assert_eq!((summary(&mut stack).total, summary(&mut stack).open), (8, 8));
    let filter = Filter { app: Some("client".into()), ..Filter::default() };
    let ours = all(&mut stack, filter);
    stack.handle().end_session(ours[0].session, hoststack::EndHow::Close).unwrap();
    pass(&mut stack, Duration::from_secs(1));
    assert_eq!((summary(&mut stack).total, summary(&mut stack).open), (6, 6));
    stack.detach(client.app, DetachPolicy::Reset).unwrap();
    pass(&mut stack, Duration::from_secs(1));
    assert_eq!(summary(&mut stack).total, 0);
}

#[test]
fn a_walk_is_cut_into_slices_and_its_detail_costs_more() {
    let mut config = config(1);
    config.bursts.inspect_slots = 64;
    let mut stack = stack_of(config, hoststack::net::MemoryWireConfig::default());
    let (server, client) = (Log::default(), Log::default());
    serve(&mut stack, Probe::idle(&server), 80);
    let attached = attach(&mut stack, "client", Probe::idle(&client));
    for _ in 0..100 {
        stack.connect(attached.app_workers[0], to_server()).unwrap();
    }
    until(&mut stack, LONG, || client.up() == 100 && server.accepted() == 100);
    let mut steps = |detail| {
        let before = stack.inspect(Query::Status).unwrap().workers[0].steps;
        let answer = ask(&mut stack, SessionQuery { limit: 200, detail, ..SessionQuery::default() });
        assert_eq!(answer.sessions.len(), 200);
        stack.inspect(Query::Status).unwrap().workers[0].steps - before
    };
    let (rows, full) = (steps(Detail::Row), steps(Detail::Full));
    assert!(rows >= 200 / 8 && full >= 200, "{rows} and {full} steps");
}

#[test]
fn tcp_is_configured_anew_while_the_stack_runs() {
    let (mut stack, client) = world(1);
    let tcp = hoststack::tcp::TcpConfig {
        time_wait: Duration::from_secs(1),
        ..hoststack::tcp::TcpConfig::default()
    };
    stack.handle().set_tcp_config(tcp).unwrap();
    pass(&mut stack, Duration::from_millis(10));
    stack.detach(client.app, DetachPolicy::default()).unwrap();
    pass(&mut stack, Duration::from_millis(100));
    assert_eq!(stack.inspect(Query::Status).unwrap().time_wait, 1);
    pass(&mut stack, Duration::from_secs(2));
    assert_eq!(
        stack.inspect(Query::Status).unwrap().time_wait,
        0,
        "not the sixty seconds that it was built with"
    );
}

// ---- Many ask ----

/// Steps until a question is answered; `None`: not in so many.
fn steps_until(stack: &mut SingleThreaded, waiting: &mut Waiting<Result<Answer, Stopped>>) -> Option<usize> {
    (0..5000).find(|_| {
        let _ = stack.step();
        waiting.try_take().is_some()
    })
}

#[test]
fn a_long_walk_keeps_no_short_question_waiting() {
    let bursts = Bursts { inspect_slots: 2, ..Bursts::default() };
    let mut stack = stack_of(StackConfig { bursts, ..config(1) }, MemoryWireConfig::default());
    let (server, client) = (Log::default(), Log::default());
    serve(&mut stack, Probe::idle(&server), 80);
    let app = attach(&mut stack, "client", Probe::idle(&client));
    for _ in 0..50 {
        stack.connect(app.app_workers[0], to_server()).unwrap();
    }
    until(&mut stack, LONG, || client.up() == 50 && server.accepted() == 50);
    let handle = stack.handle();
    let stuck = SessionQuery { count: true, limit: 10, ..SessionQuery::default() };
    let mut walk = handle.requests().inspect(Query::Sessions(Box::new(stuck)));
    for _ in 0..10 {
        let _ = stack.step();
    }
    let mut status = handle.requests().inspect(Query::Status);
    let short = steps_until(&mut stack, &mut status).expect("it is answered");
    assert!(short < 10, "{short} steps");
    assert!(walk.try_take().is_none(), "the walk goes on");
    assert!(steps_until(&mut stack, &mut walk).is_some());
}

#[test]
fn walks_on_main_take_turns() {
    let bursts = Bursts { inspect_slots: 10, ..Bursts::default() };
    let mut stack = stack_of(StackConfig { bursts, ..config(1) }, MemoryWireConfig::default());
    let app = attach(&mut stack, "client", Probe::idle(&Log::default()));
    for _ in 0..100 {
        stack.connect(app.app_workers[0], ConnectOptions::to(Family::V4.nobody())).unwrap();
    }
    let _ = stack.settle();
    let handle = stack.handle();
    let count = HalfOpenQuery { count: true, ..HalfOpenQuery::default() };
    let ask = || handle.requests().inspect(Query::HalfOpens(Box::new(count.clone())));
    let mut walks = [ask(), ask(), ask()];
    // Ten slices each, one a step.
    let first = steps_until(&mut stack, &mut walks[0]).expect("it is answered");
    assert!(first > 20, "{first} steps");
    assert!(steps_until(&mut stack, &mut walks[1]).is_some_and(|steps| steps < 5), "all are as far");
    assert!(steps_until(&mut stack, &mut walks[2]).is_some_and(|steps| steps < 5));
}

#[test]
fn limits_of_none_and_of_all_are_limits_too() {
    let (mut stack, _) = world(5);
    let everything = SessionQuery { limit: usize::MAX, ..SessionQuery::default() };
    assert_eq!(ask(&mut stack, everything).sessions.len(), 10);
    let (mut stack, app) = (self::stack(1), Log::default());
    let app = attach(&mut stack, "client", Probe::idle(&app));
    for _ in 0..3 {
        stack.connect(app.app_workers[0], ConnectOptions::to(Family::V4.nobody())).unwrap();
    }
    let _ = stack.settle();
    let query = HalfOpenQuery { count: true, ..HalfOpenQuery::default() };
    let answer = stack.inspect(Query::HalfOpens(Box::new(query))).unwrap();
    // There is no place before the first: a cursor would leave it out.
    assert_eq!((answer.matched, answer.half_opens_next), (Some(3), None));
}

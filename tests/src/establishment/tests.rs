//! The model host alone, and the walk.

use std::net::SocketAddr;

use hoststack_kernel::host::{Errno, Host, Interest, ModelPoller, ModelSocket, Poller, Readiness, Socket};
use hoststack_transport::{Address, Endpoint, SocketOptions};

use super::cell::{Cell, Run};
use super::host::{Connects, Ended, ModelHost, PeerStep, Script};

fn socket(host: &ModelHost, script: Script) -> (Socket, Address) {
    host.script(script);
    let to = Address::KernelTcp(Endpoint::from(SocketAddr::from(([192, 0, 2, 1], 80))));
    (host.socket(&to, &SocketOptions::DEFAULT).unwrap(), to)
}

fn model(socket: &Socket) -> &dyn ModelSocket {
    let Socket::Model(model) = socket else { panic!("a model gives models") };
    &**model
}

fn poller(host: &ModelHost) -> Box<dyn ModelPoller> {
    let Ok(Poller::Model(poller)) = host.poller() else { panic!("a model gives models") };
    poller
}

fn told(poller: &dyn ModelPoller) -> Vec<Readiness> {
    let mut ready = Vec::new();
    poller.poll(8, &mut ready);
    ready
}

fn later() -> Script {
    Script { connects: Connects::Later, ..Script::plain() }
}

#[test]
fn a_connect_is_told_once_until_it_is_armed_again() {
    let host = ModelHost::default();
    let poller = poller(&host);
    let (socket, to) = socket(&host, later());
    assert_eq!(model(&socket).connect(&to), Err(Errno::INPROGRESS));
    assert_eq!(model(&socket).connect(&to), Err(Errno::ALREADY));
    poller.add(&socket, 7, Interest::Connect).unwrap();
    assert_eq!((told(&*poller), model(&socket).is_connected()), (vec![], false));
    host.state().peer(0, &PeerStep::HangUpEvent);
    let odd = Readiness { token: 7, hang_up: true, ..Readiness::default() };
    assert_eq!((told(&*poller), told(&*poller)), (vec![odd], vec![]));
    host.state().peer(0, &PeerStep::Opens);
    assert!(!host.state().has_ready(), "it is not armed");
    poller.again(&socket, 8).unwrap();
    let up = Readiness { token: 8, writable: true, ..Readiness::default() };
    assert_eq!((told(&*poller), told(&*poller)), (vec![up], vec![]));
    assert_eq!((model(&socket).is_connected(), model(&socket).take_error()), (true, None));
}

#[test]
fn an_error_is_handed_out_once() {
    let host = ModelHost::default();
    let poller = poller(&host);
    let (socket, to) = socket(&host, later());
    assert_eq!(model(&socket).connect(&to), Err(Errno::INPROGRESS));
    poller.add(&socket, 1, Interest::Connect).unwrap();
    host.state().peer(0, &PeerStep::Refuses);
    assert!(told(&*poller)[0].error);
    assert_eq!(model(&socket).take_error(), Some(Errno::CONNREFUSED));
    assert_eq!((model(&socket).take_error(), model(&socket).is_connected()), (None, false));
    drop(socket);
    assert_eq!(host.state().sock(0).unwrap().ended, Some(Ended::Unconnected));
    host.begin();
}

#[test]
fn a_stream_is_told_at_edges_and_room_only_after_there_was_too_little() {
    let host = ModelHost::default();
    let poller = poller(&host);
    let (socket, to) = socket(&host, Script { windows: [3].into(), ..Script::plain() });
    assert_eq!(model(&socket).connect(&to), Ok(()));
    poller.add(&socket, 2, Interest::Stream).unwrap();
    assert!(told(&*poller)[0].writable, "what is so when it is added is told");
    assert_eq!(told(&*poller), vec![], "and then no more");
    host.state().peer(0, &PeerStep::Bytes(b"ab".to_vec()));
    assert!(told(&*poller)[0].readable);
    let mut byte = [0; 1];
    assert_eq!((model(&socket).read(&mut byte), byte[0]), (Ok(1), b'a'));
    assert_eq!(told(&*poller), vec![], "what is left behind is no edge");
    assert_eq!(model(&socket).write(b"12345"), Ok(3));
    assert_eq!(model(&socket).write(b"45"), Err(Errno::AGAIN));
    assert!(host.state().sock(0).unwrap().can_unblock());
    host.state().unblock(0);
    assert!(told(&*poller)[0].writable);
    assert_eq!(model(&socket).write(b"45"), Ok(2));
    host.state().peer(0, &PeerStep::Fin);
    assert!(told(&*poller)[0].peer_closed);
    assert_eq!(model(&socket).read(&mut byte), Ok(1), "the bytes come before the end");
    assert_eq!(model(&socket).read(&mut byte), Ok(0));
    assert_eq!(host.state().sock(0).unwrap().wire, b"12345");
}

#[test]
fn a_reset_is_an_error_once_and_bytes_that_came_are_read_before_it() {
    let host = ModelHost::default();
    let at_open = vec![PeerStep::Bytes(b"x".to_vec())];
    let script = Script { at_open, resets_at_first_io: true, ..Script::plain() };
    let (socket, to) = socket(&host, script);
    assert_eq!(model(&socket).connect(&to), Ok(()));
    let poller = poller(&host);
    poller.add(&socket, 3, Interest::Stream).unwrap();
    let Readiness { readable, writable, hang_up, error, .. } = told(&*poller)[0];
    assert!(readable && writable && hang_up && error);
    let mut byte = [0; 1];
    assert_eq!(model(&socket).read(&mut byte), Ok(1));
    assert_eq!(model(&socket).read(&mut byte), Err(Errno::CONNRESET));
    assert_eq!(model(&socket).write(b"y"), Err(Errno::PIPE));
    drop(socket);
    assert_eq!(host.state().sock(0).unwrap().ended, Some(Ended::Reset));
}

#[test]
fn events_that_mean_nothing_come_once_and_leave_nothing() {
    let host = ModelHost::default();
    let poller = poller(&host);
    let (socket, to) = socket(&host, Script::plain());
    assert_eq!(model(&socket).connect(&to), Ok(()));
    poller.add(&socket, 4, Interest::Stream).unwrap();
    assert_eq!(told(&*poller).len(), 1);
    host.state().spurious();
    assert!(told(&*poller)[0].readable);
    assert_eq!(model(&socket).read(&mut [0; 1]), Err(Errno::AGAIN));
    assert_eq!(told(&*poller), vec![]);
    host.state().trip(0, true);
    assert_eq!(model(&socket).write(b"abc"), Ok(1));
    host.state().unblock(0);
    host.state().trip(0, false);
    assert_eq!(model(&socket).write(b"bc"), Err(Errno::AGAIN));
}

#[test]
#[should_panic(expected = "left open")]
fn a_cell_begins_with_no_socket_of_the_one_before() {
    let host = ModelHost::default();
    let _socket = socket(&host, Script::plain());
    host.begin();
}

#[test]
fn the_walk_meets_every_value_of_every_axis_and_a_run_is_named_by_its_number() {
    let cells = Cell::all();
    assert!(cells.len() > 10_000, "{} cells", cells.len());
    let names: Vec<String> = cells.iter().map(ToString::to_string).collect();
    let distinct: std::collections::BTreeSet<&String> = names.iter().collect();
    assert_eq!(distinct.len(), cells.len(), "no cell is met twice");
    for value in
        ["connect=err-first", "socks+sp(partial,never)", "tx=write-many", "first-fin", "interest=none"]
    {
        assert!(names.iter().any(|name| name.contains(value)), "{value}");
    }
    let run = Run::parse("123/cancel@5", &cells).unwrap();
    assert_eq!((run.number, run.cell), (123, cells[123]));
    assert!(run.to_string().starts_with("--cell 123/cancel@5 (before=nothing connect="));
    assert_eq!(Run::parse("123/nothing@5", &cells), None);
}

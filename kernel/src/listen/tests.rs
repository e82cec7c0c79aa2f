//! What is in the way of a listener, and what it leaves behind.

use std::os::unix::net::{UnixListener, UnixStream};

use super::*;
use crate::host::Native;
use crate::testing::{ModelHost, has_ipv6};

const OPTIONS: &SocketOptions = &SocketOptions::DEFAULT;

fn ip(text: &str) -> Address {
    let addr: core::net::SocketAddr = text.parse().unwrap();
    Address::KernelTcp(addr.into())
}

fn unix(path: &Path) -> Address {
    Address::kernel_unix(path.to_str().unwrap()).unwrap()
}

fn native(at: &Address, workers: usize) -> Result<Listening, ListenError> {
    listen(&Native, at, 16, OPTIONS, workers)
}

#[test]
fn each_worker_has_a_socket_on_the_same_port() {
    for text in ["127.0.0.1:0", "[::1]:0"].into_iter().take(1 + usize::from(has_ipv6())) {
        for workers in [0, 1, 3] {
            let listening = native(&ip(text), workers).unwrap();
            assert_eq!(listening.sockets.len(), workers.max(1));
            let at = listening.address.endpoint().unwrap();
            assert_ne!(at.port, 0);
            for socket in &listening.sockets {
                assert_eq!(socket.local(), Ok(at));
            }
            assert!(listening.guard.is_none());
        }
    }
}

#[test]
fn a_port_that_somebody_has_is_in_use_however_many_share_it() {
    for first in [1, 2] {
        for second in [1, 2] {
            let listening = native(&ip("127.0.0.1:0"), first).unwrap();
            let again = native(&listening.address, second);
            assert_eq!(again.err(), Some(ListenError::InUse), "{first} then {second}");
        }
    }
}

#[test]
fn a_port_is_free_again_when_its_listener_is_gone() {
    let listening = native(&ip("127.0.0.1:0"), 2).unwrap();
    let at = listening.address.clone();
    drop(listening);
    assert_eq!(native(&at, 2).unwrap().address, at);
}

#[test]
fn an_address_that_is_not_ours_and_a_transport_that_is_not_the_hosts_are_refused() {
    // RFC 5737: of nobody's host.
    assert_eq!(native(&ip("192.0.2.1:0"), 1).err(), Some(ListenError::AddressNotAvailable));
    let error = native(&Address::local("app").unwrap(), 1).err();
    assert_eq!(error, Some(ListenError::System(Errno::AFNOSUPPORT.raw_os_error())));
}

#[test]
fn a_unix_socket_is_shared_by_clones_and_its_file_goes_with_the_guard() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let listening = native(&unix(&path), 3).unwrap();
    assert_eq!(listening.sockets.len(), 3);
    let _client = UnixStream::connect(&path).unwrap();
    // Any of them finds it, and it is there once.
    assert!(listening.sockets[2].accept().is_ok());
    assert_eq!(listening.sockets[0].accept().err(), Some(Errno::AGAIN));
    let guard = listening.guard.unwrap();
    assert_eq!(guard.path(), path);
    drop(listening.sockets);
    assert!(path.exists());
    drop(guard);
    assert!(!path.exists());
}

#[test]
fn a_guard_leaves_another_listeners_file_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let first = native(&unix(&path), 1).unwrap();
    // Moved away rather than removed, so that its inode is not used again.
    fs::rename(&path, directory.path().join("old")).unwrap();
    let second = native(&unix(&path), 1).unwrap();
    drop(first);
    assert!(path.exists());
    drop(second);
    assert!(!path.exists());
}

#[test]
fn a_file_that_a_listener_left_behind_is_replaced_and_a_live_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    // The standard library's listener leaves its file behind.
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let listening = native(&unix(&path), 1).unwrap();
    let _client = UnixStream::connect(&path).unwrap();
    assert_eq!(native(&unix(&path), 1).err(), Some(ListenError::InUse));
    assert!(path.exists());
    assert!(listening.sockets[0].accept().is_ok(), "the first still listens");
}

#[test]
fn a_live_listener_whose_backlog_is_full_is_not_taken_for_dead() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let _listening = listen(&Native, &unix(&path), 0, OPTIONS, 1).unwrap();
    let sockets: Vec<_> = (0..4).map(|_| Native.socket(&unix(&path), OPTIONS).unwrap()).collect();
    let answers: Vec<_> = sockets.iter().map(|socket| socket.connect(&unix(&path))).collect();
    assert_eq!(answers.last(), Some(&Err(Errno::AGAIN)), "{answers:?}");
    assert_eq!(native(&unix(&path), 1).err(), Some(ListenError::InUse));
    assert!(path.exists());
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    fs::write(&path, "precious").unwrap();
    assert_eq!(native(&unix(&path), 1).err(), Some(ListenError::NotASocket));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    // Nor is what a link points to looked at.
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(directory.path().join("nowhere"), &link).unwrap();
    assert_eq!(native(&unix(&link), 1).err(), Some(ListenError::NotASocket));
}

#[test]
fn a_directory_that_is_not_there_is_said() {
    let error = native(&unix(Path::new("/nonexistent/socket")), 1).unwrap_err();
    assert_eq!(error, ListenError::System(Errno::NOENT.raw_os_error()));
    assert!(error.to_string().contains("No such file"), "{error}");
}

#[test]
fn an_abstract_name_needs_no_file_and_is_in_use_while_it_listens() {
    let directory = tempfile::tempdir().unwrap();
    let unique = directory.path().file_name().unwrap().to_str().unwrap();
    let at = Address::kernel_unix(&format!("@hoststack-{unique}")).unwrap();
    let listening = native(&at, 2).unwrap();
    assert!(listening.guard.is_none());
    assert_eq!(native(&at, 1).err(), Some(ListenError::InUse));
    drop(listening);
    assert!(native(&at, 1).is_ok());
}

#[test]
fn the_hosts_errors_have_names_that_say_what_to_do() {
    for (errno, error) in [
        (Errno::ADDRINUSE, ListenError::InUse),
        (Errno::ADDRNOTAVAIL, ListenError::AddressNotAvailable),
        (Errno::ACCESS, ListenError::Denied),
        (Errno::PERM, ListenError::Denied),
        (Errno::MFILE, ListenError::NoRoom),
        (Errno::NOMEM, ListenError::NoRoom),
        (Errno::INVAL, ListenError::System(Errno::INVAL.raw_os_error())),
    ] {
        let host = ModelHost::default();
        let wire = host.next_socket();
        wire.script().bind = Some(errno);
        let result = listen(&host, &ip("127.0.0.1:80"), 16, OPTIONS, 1);
        assert_eq!(result.err(), Some(error));
        assert!(wire.is_closed());
        assert!(!error.to_string().is_empty());
    }
    assert!(ListenError::NoRoom.to_string().contains("ulimit"));
}

#[test]
fn over_a_model_one_socket_is_bound_and_listens() {
    let host = ModelHost::default();
    let wire = host.next_socket();
    let listening = listen(&host, &ip("127.0.0.1:80"), 16, OPTIONS, 1).unwrap();
    assert_eq!(wire.script().bound, [(ip("127.0.0.1:80"), false)]);
    assert_eq!(wire.script().listening, Some(16));
    assert_eq!((host.made(), listening.sockets.len()), (1, 1));
}

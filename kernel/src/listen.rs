//! Listening: on main, so that errors are known at once. The sockets go to the workers.

use core::fmt;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use hoststack_transport::{Address, Endpoint, SocketOptions};

use crate::error::is_no_room;
use crate::host::{Errno, Host, Socket};

#[cfg(test)]
mod tests;

/// A listener's sockets.
#[derive(Debug)]
pub struct Listening {
    /// Where it listens, with the port that the host chose if none was asked for.
    pub address: Address,
    /// One for each worker.
    pub sockets: Vec<Socket>,
    /// The file of a Unix socket: to be kept as long as it listens.
    pub guard: Option<SocketFile>,
}

/// The file of a Unix socket that listens: removed when this is dropped, unless another took its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl SocketFile {
    /// None, if there is no such file.
    fn of(path: &str) -> Option<SocketFile> {
        let metadata = fs::symlink_metadata(path).ok()?;
        Some(SocketFile { path: PathBuf::from(path), identity: (metadata.dev(), metadata.ino()) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let metadata = fs::symlink_metadata(&self.path);
        if metadata.is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity) {
            // What cannot be removed is replaced by the next listener.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Why nothing can listen there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenError {
    /// Somebody listens there.
    InUse,
    /// The address is none of the host's.
    AddressNotAvailable,
    /// The host does not allow it.
    Denied,
    /// Descriptors or memory are out.
    NoRoom,
    /// The path is that of something that is no socket.
    NotASocket,
    /// Another error of the host: its number.
    System(i32),
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ListenError::InUse => "in use: somebody listens there; end it or choose another address",
            ListenError::AddressNotAvailable => {
                "the address is none of the host's: configure it there or choose another one"
            }
            ListenError::Denied => {
                "the host does not allow it: choose a port from 1024 on, or a directory that may be written to"
            }
            ListenError::NoRoom => "the host has no descriptors or memory left: raise its limits (ulimit -n)",
            ListenError::NotASocket => "the path names something that is no socket: remove it or choose another",
            ListenError::System(errno) => {
                return write!(f, "the host would not: {}", std::io::Error::from_raw_os_error(*errno));
            }
        })
    }
}

impl core::error::Error for ListenError {}

impl From<Errno> for ListenError {
    fn from(error: Errno) -> ListenError {
        match error {
            Errno::ADDRINUSE => ListenError::InUse,
            Errno::ADDRNOTAVAIL => ListenError::AddressNotAvailable,
            Errno::ACCESS | Errno::PERM | Errno::ROFS => ListenError::Denied,
            Errno::NOTSOCK => ListenError::NotASocket,
            error if is_no_room(error) => ListenError::NoRoom,
            error => ListenError::System(error.raw_os_error()),
        }
    }
}

/// Binds and listens at `at`, with one socket for each of `workers` (at least one): over TCP each has its own queue of at
/// most `backlog` connections, which the host fills evenly; over Unix they share one.
///
/// # Errors
/// [`ListenError`]; then nothing listens.
pub fn listen(
    host: &dyn Host,
    at: &Address,
    backlog: u32,
    options: &SocketOptions,
    workers: usize,
) -> Result<Listening, ListenError> {
    let workers = workers.max(1);
    match at {
        Address::KernelTcp(endpoint) => listen_tcp(host, *endpoint, backlog, options, workers),
        Address::KernelUnix(path) => listen_unix(host, at, path, backlog, options, workers),
        Address::Tcp(_) | Address::Local(_) => Err(Errno::AFNOSUPPORT.into()),
    }
}

fn listen_tcp(
    host: &dyn Host,
    mut endpoint: Endpoint,
    backlog: u32,
    options: &SocketOptions,
    workers: usize,
) -> Result<Listening, ListenError> {
    let is_shared = workers > 1;
    if is_shared && endpoint.port != 0 {
        // Sockets that share a port would share it with another listener of this user too, and nobody would notice.
        let at = Address::KernelTcp(endpoint);
        host.socket(&at, options)?.bind(&at, false)?;
    }
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers {
        let at = Address::KernelTcp(endpoint);
        let socket = host.socket(&at, options)?;
        socket.bind(&at, is_shared)?;
        if endpoint.port == 0 {
            endpoint.port = socket.local()?.port;
        }
        sockets.push(socket);
    }
    // All are bound before the first listens: none fails when connections wait already.
    for socket in &sockets {
        socket.listen(backlog)?;
    }
    Ok(Listening { address: Address::KernelTcp(endpoint), sockets, guard: None })
}

fn listen_unix(
    host: &dyn Host,
    at: &Address,
    path: &str,
    backlog: u32,
    options: &SocketOptions,
    workers: usize,
) -> Result<Listening, ListenError> {
    let socket = host.socket(at, options)?;
    let is_file = !path.starts_with('@');
    match socket.bind(at, false) {
        Err(Errno::ADDRINUSE) if is_file => {
            remove_stale(host, at, path, options)?;
            socket.bind(at, false)?;
        }
        result => result?,
    }
    // From here on the file is removed whatever happens.
    let guard = is_file.then(|| SocketFile::of(path)).flatten();
    socket.listen(backlog)?;
    let mut sockets = vec![socket];
    while sockets.len() < workers {
        let clone = sockets[0].try_clone()?;
        sockets.push(clone);
    }
    Ok(Listening { address: at.clone(), sockets, guard })
}

/// Removes a socket's file that a listener left behind; an error if it is anything else.
fn remove_stale(
    host: &dyn Host,
    at: &Address,
    path: &str,
    options: &SocketOptions,
) -> Result<(), ListenError> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(()); // gone meanwhile
    };
    if !metadata.file_type().is_socket() {
        return Err(ListenError::NotASocket);
    }
    match host.socket(at, options)?.connect(at) {
        Err(Errno::CONNREFUSED) => match fs::remove_file(path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(_) => Err(ListenError::Denied),
        },
        Err(Errno::NOENT) => Ok(()),
        Err(Errno::ACCESS | Errno::PERM) => Err(ListenError::Denied),
        // Somebody accepts, or would if its backlog were not full, or it is a socket of another type.
        _ => Err(ListenError::InUse),
    }
}

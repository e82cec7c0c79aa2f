//! A real web server in a namespace.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;

use tempfile::TempDir;

use crate::content;
use crate::netns::Namespace;
use crate::process::Process;
use crate::wait;

/// Port that [`Nginx`] listens on, IPv4 and IPv6.
pub const HTTP_PORT: u16 = 80;

/// nginx as one process, serving a directory of its own. Killed on drop.
#[derive(Debug)]
pub struct Nginx {
    // Before the directory: the server goes first.
    process: Process,
    dir: TempDir,
}

impl Nginx {
    /// Starts it with `settings` added to the `server` block (`""` for none) and waits until it listens.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(namespace: &Namespace, settings: &str) -> Self {
        let dir = TempDir::new().expect("a directory for nginx");
        fs::create_dir(dir.path().join("www")).expect("a directory for its files");
        let path = dir.path().display().to_string();
        fs::write(dir.path().join("nginx.conf"), configuration(&path, settings)).expect("its configuration");
        let arguments = ["-p", &path, "-c", "nginx.conf", "-e", "stderr"];
        let mut process = namespace.spawn("nginx", &arguments);
        let ready = wait::poll(wait::READY, || {
            let is_up = namespace.enter(|| TcpStream::connect((Ipv4Addr::LOCALHOST, HTTP_PORT)).is_ok());
            (is_up || !process.is_running()).then_some(is_up)
        });
        assert!(ready == Some(true), "nginx does not listen\n{}", process.transcript());
        Self { process, dir }
    }

    /// Puts a file of `length` bytes that depend on `seed` under `/NAME` and returns its SHA-256.
    ///
    /// # Panics
    /// When there is no room for it.
    pub fn add_file(&self, name: &str, length: u64, seed: u64) -> String {
        content::write_file(&self.path(name), length, seed)
    }

    /// Where the file `/NAME` lies.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("www").join(name)
    }

    /// The server's process, to stop it in mid-transfer.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// One process in the foreground, everything that it writes below `dir`, no access log.
fn configuration(dir: &str, settings: &str) -> String {
    format!(
        "daemon off;
master_process off;
user root;
pid {dir}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    default_type application/octet-stream;
    client_body_temp_path {dir}/body;
    server {{
        listen 0.0.0.0:{HTTP_PORT} backlog=4096;
        listen [::]:{HTTP_PORT} ipv6only=on backlog=4096;
        root {dir}/www;
        {settings}
    }}
}}
"
    )
}

//! Listeners: one place of a transport, known to every worker, or to none.

use std::net::IpAddr;
use std::sync::Arc;

use hoststack_app::{ListenError, ListenOptions};
use hoststack_kernel::Listening;
use hoststack_session::ListenerRecord;
use hoststack_transport::{Address, AppId, AppWorkerId, ListenerId, SocketOptions, WorkerId};

use super::Main;
use crate::events::What;
use crate::inspect::ListenerInfo;
use crate::messages::{Command, ListenOn, Reply};

/// What two listeners cannot have both.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// An endpoint of a routing domain.
    Tcp(u16, IpAddr, u16),
    /// A name in a routing domain.
    Local(u16, Arc<str>),
    /// A socket of the host.
    Kernel(String),
}

impl Place {
    fn of(domain: u16, local: &Address) -> Place {
        match local {
            Address::Tcp(at) => Place::Tcp(domain, at.addr, at.port),
            Address::Local(name) => Place::Local(domain, name.clone()),
            Address::KernelTcp(_) | Address::KernelUnix(_) => Place::Kernel(local.to_string()),
        }
    }
}

/// A listener in main's directory.
pub(super) struct Listener {
    pub(super) app_worker: AppWorkerId,
    pub(super) domain: u16,
    pub(super) local: Address,
    /// The worker that accepts; `None`: all do.
    pub(super) worker: Option<WorkerId>,
    /// What has to be undone on the host when the listener ends.
    _guard: Option<hoststack_kernel::SocketFile>,
    opaque: u64,
    /// The stages of what it accepts, and how long they may take.
    stages: Vec<&'static str>,
    stage_timeout: hoststack_transport::Duration,
    /// Workers that have not answered `Listen`.
    waiting: usize,
    failed: Option<ListenError>,
    reply: Option<Reply<Result<ListenerId, ListenError>>>,
}

/// What the host's error means to who listens.
fn listen_error(at: &Address, error: hoststack_kernel::ListenError) -> ListenError {
    use hoststack_kernel::ListenError as Kernel;
    match error {
        Kernel::InUse => ListenError::InUse,
        Kernel::AddressNotAvailable => ListenError::AddressNotAvailable,
        Kernel::Denied => ListenError::Denied,
        Kernel::NoRoom => ListenError::NoRoom,
        Kernel::NotASocket => ListenError::NotASocket,
        Kernel::System(_) => {
            tracing::warn!(%at, %error, "the host does not let us listen");
            ListenError::Host
        }
    }
}

impl Main {
    /// Listens on every worker; the answer goes to the caller and to the application.
    pub(super) fn listen(
        &mut self,
        app_worker: AppWorkerId,
        options: &ListenOptions,
        reply: Option<Reply<Result<ListenerId, ListenError>>>,
    ) {
        match self.add_listener(app_worker, options) {
            Ok(listener) => {
                if let Some(record) = self.listeners.get_mut(listener.0) {
                    record.reply = reply;
                }
            }
            Err(error) => {
                if let Some(reply) = reply {
                    let _ = reply.send(Err(error));
                }
                if let Some(app) = self.app_workers.get(app_worker.0).map(|record| record.app) {
                    self.tell_listening(app, options.opaque, Err(error));
                }
            }
        }
    }

    fn add_listener(
        &mut self,
        app_worker: AppWorkerId,
        options: &ListenOptions,
    ) -> Result<ListenerId, ListenError> {
        options.validate()?;
        let record = self.app_workers.get(app_worker.0).filter(|record| !record.is_detaching());
        if record.is_none() {
            return Err(ListenError::Detached);
        }
        let domain = options.domain.0;
        if options.worker.is_some_and(|worker| worker.index() >= self.config.workers) {
            return Err(ListenError::BadWorker);
        }
        if let Address::Tcp(local) = options.local {
            if !self.router.interfaces().any(|interface| interface.domain == domain) {
                return Err(ListenError::NoDomain);
            }
            if !local.addr.is_unspecified() && !self.router.is_local(domain, local.addr) {
                return Err(ListenError::AddressNotAvailable);
            }
        }
        // RFC 9293 §3.9.1.1 (MUST-41): what listens there stays as it is.
        if self.places.contains_key(&Place::of(domain, &options.local)) {
            return Err(ListenError::InUse);
        }
        let backlog = options.backlog;
        let socket = SocketOptions { rx_window: options.fifos.rx_capacity, ..options.socket };
        let mut opened = None;
        if matches!(options.local, Address::KernelTcp(_) | Address::KernelUnix(_)) {
            let workers = if options.worker.is_some() { 1 } else { self.config.workers };
            let listening =
                hoststack_kernel::listen(&*self.host, &options.local, options.backlog, &socket, workers)
                    .map_err(|error| listen_error(&options.local, error))?;
            opened = Some(listening);
        }
        let (local, sockets, guard) = match opened {
            Some(Listening { address, sockets, guard }) => (address, sockets, guard),
            None => (options.local.clone(), Vec::new(), None),
        };
        let place = Place::of(domain, &local);
        let key = self.listeners.insert(Listener {
            app_worker,
            domain,
            local: local.clone(),
            worker: options.worker,
            _guard: guard,
            opaque: options.opaque,
            stages: options.stages.names(),
            stage_timeout: options.stage_timeout,
            waiting: self.config.workers,
            failed: None,
            reply: None,
        })?;
        let listener = ListenerId(key);
        self.places.insert(place, listener);
        if let Some(record) = self.app_workers.get_mut(app_worker.0) {
            record.listeners.push(listener);
        }
        let record = ListenerRecord {
            id: listener,
            app_worker,
            opaque: options.opaque,
            options: options.fifos,
            stages: options.stages.clone(),
            stage_timeout: options.stage_timeout,
        };
        let mut sockets = sockets.into_iter();
        for worker in self.workers() {
            let accepts = options.worker.is_none_or(|chosen| chosen == worker);
            let options = Box::new(socket);
            let on = match &local {
                Address::Tcp(local) => ListenOn::Tcp {
                    domain: hoststack_transport::DomainId(domain),
                    local: *local,
                    backlog,
                    socket: options,
                },
                Address::KernelTcp(_) | Address::KernelUnix(_) => {
                    let socket = if accepts { sockets.next() } else { None };
                    ListenOn::Kernel { address: local.clone(), socket, options }
                }
                Address::Local(_) => ListenOn::Local,
            };
            self.send(worker, Command::Listen { record: Box::new(record.clone()), on });
        }
        Ok(listener)
    }

    /// A worker's answer.
    pub(super) fn worker_listens(&mut self, listener: ListenerId, result: Result<(), ListenError>) {
        let Some(record) = self.listeners.get_mut(listener.0) else { return };
        record.waiting -= 1;
        if let Err(error) = result {
            record.failed = Some(error);
        }
        if record.waiting > 0 {
            return;
        }
        let (app_worker, local, opaque, reply) =
            (record.app_worker, record.local.clone(), record.opaque, record.reply.take());
        let failed = record.failed;
        let what = if failed.is_none() { What::ListenerUp(listener) } else { What::ListenerFailed(listener) };
        self.note_app_worker(app_worker, what);
        let result = match failed {
            None => {
                tracing::info!(%listener, app = self.app_worker_name(app_worker), at = %local, "listening");
                Ok(listener)
            }
            Some(error) => {
                // The workers that have it give it up.
                self.remove_listener(listener);
                Err(error)
            }
        };
        if let Some(reply) = reply {
            let _ = reply.send(result);
        }
        if let Some(app) = self.app_workers.get(app_worker.0).map(|record| record.app) {
            self.tell_listening(app, opaque, result.map(|listener| (listener, local)));
        }
    }

    fn tell_listening(
        &mut self,
        app: AppId,
        opaque: u64,
        result: Result<(ListenerId, Address), ListenError>,
    ) {
        self.call_app(app, |app, ctx| app.listening(ctx, opaque, result));
    }

    /// Stops listening, if the listener is that app worker's.
    pub(super) fn unlisten(
        &mut self,
        app_worker: AppWorkerId,
        listener: ListenerId,
    ) -> Result<(), ListenError> {
        let record = self.listeners.get_mut(listener.0).filter(|record| record.app_worker == app_worker);
        let record = record.ok_or(ListenError::NoListener)?;
        let (waiting, opaque, reply) = (record.waiting > 0, record.opaque, record.reply.take());
        self.remove_listener(listener);
        if waiting {
            // It was never up everywhere: its request ends here.
            if let Some(reply) = reply {
                let _ = reply.send(Err(ListenError::NoListener));
            }
            if let Some(app) = self.app_workers.get(app_worker.0).map(|record| record.app) {
                self.tell_listening(app, opaque, Err(ListenError::NoListener));
            }
        }
        Ok(())
    }

    /// The listeners, for the CLI.
    pub(super) fn listener_infos(&self, limit: usize) -> Vec<ListenerInfo> {
        self.listeners
            .iter()
            .take(limit)
            .map(|(key, listener)| ListenerInfo {
                address: listener.local.to_string(),
                app_worker: self.app_worker_name(listener.app_worker),
                domain: listener.domain,
                worker: listener.worker.map(|worker| worker.0),
                is_up: listener.waiting == 0,
                stages: listener.stages.clone(),
                stage_timeout_us: u64::try_from(listener.stage_timeout.as_micros()).unwrap_or(u64::MAX),
                id: ListenerId(key),
                app_worker_id: listener.app_worker,
            })
            .collect()
    }

    fn remove_listener(&mut self, listener: ListenerId) {
        let Some(record) = self.listeners.remove(listener.0) else { return };
        self.places.remove(&Place::of(record.domain, &record.local));
        self.note_app_worker(record.app_worker, What::ListenerGone(listener));
        tracing::info!(%listener, at = %record.local, "listener gone");
        if let Some(app_worker) = self.app_workers.get_mut(record.app_worker.0) {
            app_worker.listeners.retain(|&id| id != listener);
        }
        self.broadcast(|| Command::Unlisten { listener });
    }
}

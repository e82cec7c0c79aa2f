//! Listeners: one endpoint of a domain, known to every worker, or to none.

use hoststack_app::{ListenError, ListenOptions};
use hoststack_session::ListenerRecord;
use hoststack_transport::SocketOptions;
use hoststack_transport::{AppId, AppWorkerId, Endpoint, ListenerId};

use super::Main;
use crate::messages::{Command, Reply};

/// A listener in main's directory.
pub(super) struct Listener {
    pub(super) app_worker: AppWorkerId,
    pub(super) domain: u16,
    pub(super) local: Endpoint,
    opaque: u64,
    /// Workers that have not answered `Listen`.
    waiting: usize,
    failed: Option<ListenError>,
    reply: Option<Reply<Result<ListenerId, ListenError>>>,
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
        let (domain, local) = (options.domain.0, options.local);
        if !self.router.interfaces().any(|interface| interface.domain == domain) {
            return Err(ListenError::NoDomain);
        }
        if !local.addr.is_unspecified() && !self.router.is_local(domain, local.addr) {
            return Err(ListenError::AddressNotAvailable);
        }
        let place = (domain, local.addr, local.port);
        // RFC 9293 §3.9.1.1 (MUST-41): what listens there stays as it is.
        if self.endpoints.contains_key(&place) {
            return Err(ListenError::InUse);
        }
        let key = self.listeners.insert(Listener {
            app_worker,
            domain,
            local,
            opaque: options.opaque,
            waiting: self.config.workers,
            failed: None,
            reply: None,
        })?;
        let listener = ListenerId(key);
        self.endpoints.insert(place, listener);
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
        let socket = SocketOptions { rx_window: options.fifos.rx_capacity, ..options.socket };
        let (domain, backlog) = (options.domain, options.backlog);
        self.broadcast(|| Command::Listen {
            record: Box::new(record.clone()),
            domain,
            local,
            backlog,
            socket: Box::new(socket),
        });
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
            (record.app_worker, record.local, record.opaque, record.reply.take());
        let result = match record.failed {
            None => Ok(listener),
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
        result: Result<(ListenerId, Endpoint), ListenError>,
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

    fn remove_listener(&mut self, listener: ListenerId) {
        let Some(record) = self.listeners.remove(listener.0) else { return };
        self.endpoints.remove(&(record.domain, record.local.addr, record.local.port));
        if let Some(app_worker) = self.app_workers.get_mut(record.app_worker.0) {
            app_worker.listeners.retain(|&id| id != listener);
        }
        self.broadcast(|| Command::Unlisten { listener });
    }
}

//! Echo requests that main asks for. What comes back is told by the IP path, as news for main.

use super::Worker;
use crate::messages::Report;
use crate::ping::{PingCommand, PingSent};

impl Worker {
    pub(super) fn ping(&mut self, command: PingCommand) {
        match command {
            PingCommand::Begin { id, domain, to } => self.path.expect_echoes(id, domain.0, to),
            PingCommand::End { id } => self.path.forget_echoes(id),
            PingCommand::Send(request) => {
                let at_us = self.now.as_micros();
                let result = self.path.send_echo(at_us, &mut self.pool, &request);
                let (id, seq) = (request.id, request.seq);
                self.reports.push(Report::Ping(PingSent { id, seq, at_us, result }));
            }
        }
    }
}

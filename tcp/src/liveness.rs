//! What must hold of a connection so that it can go on by itself: asserted by tests, and looked for in a live stack. RFC 9293
//! §3.8 has nobody wait without a timer: for an acknowledgment (§3.8.1), for a window (§3.8.6.1), or for the app.

use hoststack_transport::{Duration, Instant};

use crate::connection::Connection;
use crate::state::State;

/// How long after its deadline a timer is late. A worker that steps meets a deadline within one step.
const LATE: Duration = Duration::from_secs(1);

impl Connection {
    /// What is wrong with it, if `unprogrammed` bytes are to be sent (unacknowledged ones included) and its session is not
    /// on the transmit schedule.
    pub(crate) fn fault(&self, now: Instant, unprogrammed: u32) -> Option<&'static str> {
        let flight = self.flight_size();
        if flight > 0 && !self.purpose.is_for_flight() {
            return Some("bytes are in flight, and no timer looks after them");
        }
        if self.timer() != Instant::FAR && self.timer() + LATE < now {
            return Some("its timer is overdue");
        }
        let may_send = matches!(self.state, State::Established | State::CloseWait) && !self.is_fin_sent;
        let paced = self.extras.as_ref().is_some_and(|extras| extras.timer() != Instant::FAR);
        if may_send && flight == 0 && unprogrammed > 0 && !self.purpose.is_for_flight() && !paced {
            return Some("bytes wait to be sent, and nothing will send them");
        }
        None
    }
}

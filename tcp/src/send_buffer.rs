//! How much an app should be let queue: twice the congestion window, one that is in the network and one that the next
//! acknowledgments let out, as that may have doubled by then (RFC 5681 §3.1). Less leaves the path idle while the app is
//! asked for more; more only waits, and is old when it goes out. The session layer holds the fifo and decides.

use hoststack_transport::SessionLayer;

use crate::congestion::CongestionControl;
use crate::connection::Connection;

impl Connection {
    /// An acknowledgment may have made cwnd larger, which it does only when cwnd was used (RFC 7661): more than the app may
    /// queue at first is wanted from the first one on.
    #[inline]
    pub(crate) fn tell_wanted<L: SessionLayer>(&mut self, layer: &mut L) {
        layer.tx_wanted(self.session, self.cc.window().saturating_mul(2));
    }
}

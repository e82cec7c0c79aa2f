//! Questions about half-opens: connect requests whose outcome has not been told, and those whose transport is not gone yet.

use serde::Serialize;

use super::Filter;

/// A page of the list of half-opens, in the order of their app workers and slots. As for sessions, what comes and goes meanwhile
/// is in a later page or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HalfOpenQuery {
    /// Which.
    pub filter: Filter,
    /// Only those that come after this one: [`super::Answer::half_opens_next`] of the page before.
    pub after: Option<HalfOpenCursor>,
    /// The most that are listed.
    pub limit: usize,
    /// Count all that fit, beyond the page, too.
    pub count: bool,
}

/// A place in the list of half-opens: slots of the app worker and of its pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct HalfOpenCursor {
    /// The app worker's slot.
    pub app_worker: u32,
    /// The half-open's slot in its pool.
    pub half_open: u32,
}

/// A half-open session.
#[derive(Clone, Debug, Default, Serialize)]
pub struct HalfOpenInfo {
    /// The connect request, `origin#count`.
    pub connect: String,
    /// The request as a number.
    pub connect_id: u64,
    /// Its app worker, `application/unit`.
    pub app_worker: String,
    /// The transport of the attempt under way, by its scheme.
    pub protocol: &'static str,
    /// Routing domain.
    pub domain: u16,
    /// Our end.
    pub local: String,
    /// The peer's end, or name.
    pub remote: String,
    /// `connecting`, `handed-over`, `failed`, `settled`.
    pub state: String,
    /// The worker that owns the flow.
    pub worker: u8,
    /// SYNs sent; with another transport, times that the host was asked to connect.
    pub attempts: u32,
    /// Since the request.
    pub age_us: u64,
    /// Until its deadline.
    pub deadline_in_us: u64,
    /// Until the SYN goes out again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_retransmission_in_us: Option<u64>,
    /// Who holds the ticket, and so decides the outcome: `main`, `worker N`; `nobody` once the outcome was told.
    pub holder: String,
    /// Attempts so far, over all addresses and local ports.
    pub tries: u32,
    /// Addresses that can still be tried in this round.
    pub alternatives_left: usize,
    /// Rounds left after this one.
    pub rounds_left: u8,
    /// It waits for its next round, or for a neighbour: no transport is trying.
    pub is_waiting: bool,
    /// The last thing that the network said against it (ICMP), which did not end it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soft_error: Option<String>,
    /// What must happen between the transport's connection and the app.
    pub stages: Vec<&'static str>,
    /// Bytes that go out first.
    pub early_bytes: usize,
    /// The caller's value.
    pub opaque: u64,
    /// Why it cannot go on by itself: a fault of the stack, which should be reported. `None`: it can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<&'static str>,
}

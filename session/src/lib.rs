//! The session layer: what lies between a transport and an app.
//!
//! [`session`] is a worker's table of established sessions and the only announcer (`settle`); [`half_open`] are the
//! connect requests on main; [`establish`] the stages between the transport's connection and the app; [`layer`] what
//! a stage may leave between their bytes; [`state`] the two sub-states of a session; [`events`] what an app must still be told and
//! in which order; [`life`] when it took its turns; [`lookup`] whose listeners and sessions they are; [`fifo`] where the bytes lie.
//!
//! It knows no protocol: transports reach it through `hoststack_transport::SessionLayer`.

pub mod establish;
pub mod events;
pub mod fifo;
pub mod half_open;
pub mod layer;
pub mod life;
pub mod lookup;
pub mod session;
pub mod state;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use establish::{Answer, Stage, StageIo, StagePlan, StagePlans, Want};
pub use events::Pending;
pub use half_open::{HalfOpenCounters, HalfOpenSession, HalfOpenState, Remotes};
pub use layer::{Ending, Layer, LayerIo, PeerStream, Standing};
pub use life::{EndedBy, Life};
pub use lookup::ListenerRecord;
pub use session::{
    Announcement, CloseAction, FifoView, LayerView, Session, SessionCounts, SessionLimits, SessionOptions,
    SessionView, Sessions,
};
pub use state::{AppSide, SessionState, SessionStates, TransportSide};

//! Every ordered pair of the events that a connect can meet, at every pair of step boundaries, on one, two and four
//! workers; and the same for one inbound connection.
//!
//! A case is (side, workers, a at i, b at j): one host is stepped actor by actor on virtual time ([`world`]) against a
//! raw peer on a memory wire ([`peer`]); at boundary i the event a happens, at boundary j >= i the event b ([`events`]).
//! Then the world runs until nothing is left to do, all apps are detached, and what must hold of every case is checked
//! ([`check`]). [`table`] enumerates, counts outcomes, and writes and reads the snapshot.
//!
//! A boundary is a gap between two steps that did something. Actors take their turn in a fixed order: main, the last
//! worker (which owns the flow), the other workers as one, the peer; one that sleeps by the protocol of `stack::wake` is passed
//! over. Boundary 0 lies after main has attached the app and before its objects reach the workers and before the connect
//! request; 1 lies right after the request (connect) or after the peer's SYN has left (accept).

pub mod app;
pub mod case;
pub mod check;
pub mod events;
pub mod lifecycle;
pub mod peer;
pub mod table;
pub mod world;

pub use case::{Case, Run};
pub use events::{Event, Side};
pub use table::Table;

//! The engine under test through exchanges of segments, and two engines joined by a bad link.

mod behaviour;
mod chaos;
mod closing;
mod ecn;
mod fast_open;
mod figures;
mod habits;
mod half_opens;
mod handshake;
mod loss;
mod pmtud;
mod receiving;
mod rfc9293;
mod sending;
mod states;
mod states_model;
mod syn_cookies;
mod tuning;
mod two_ends;
mod urgent;

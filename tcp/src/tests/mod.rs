//! The engine under test through exchanges of segments, and two engines joined by a bad link.

mod two_ends;

//! A small HTTP/1.1 responder (RFC 9112): requests without a body in, answers of a [`Responder`] out.
//!
//! For pages and figures that a program shows of itself, on any transport. [`HttpServer`] keeps the rules of the protocol
//! (`server`: what a session may do when; `request`: what a head says); the embedder's [`Responder`] knows what to answer, at
//! once or later from another thread: its [`Reply`] travels back to the session's worker as a notification, through whatever
//! the embedder hands in as [`Post`] (`StackHandle::notify`, say), so that this crate needs no stack.

mod reply;
mod request;
mod response;
mod server;

pub use reply::{Post, Reply, Responder};
pub use request::{Method, Request};
pub use response::Response;
pub use server::{HttpOptions, HttpServer};

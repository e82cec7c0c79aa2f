//! `[FILTER]`: the options by which commands choose among sessions.

use std::time::Duration;

use hoststack::net::Cidr;

use crate::ctl::grammar::Matched;
use crate::ctl::pattern::Group;

/// The options. Each that is given must hold; none: every session is meant.
pub(crate) const GROUP: Group = Group {
    name: "FILTER",
    help: "chooses sessions: each condition that is given must hold",
    options: &[
        ("[worker WORKER]", "those that the worker owns"),
        ("[app NAME]", "those of the application"),
        ("[transport TRANSPORT]", "those over the transport"),
        ("[state STATE]", "those in the state, of the session or of its transport"),
        ("[local PREFIX]", "those whose own address is it, or in the network"),
        ("[remote PREFIX]", "those whose peer's address is it, or in the network"),
        ("[port PORT]", "those with the port at either end"),
        ("[local-port PORT]", "those with the port at our end"),
        ("[remote-port PORT]", "those with the port at the peer's end"),
        ("[older SPAN]", "those that have been there for longer"),
        ("[younger SPAN]", "those that have been there for less"),
        ("[queued BYTES]", "those with so many bytes queued or more, both ways together"),
        ("[stuck]", "those that wait and that nothing will wake"),
    ],
};

/// What a command's `[FILTER]` says.
#[allow(dead_code, reason = "the commands that choose sessions come with the stack's own filter")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FilterOptions {
    pub(crate) worker: Option<u8>,
    pub(crate) app: Option<String>,
    pub(crate) transport: Option<String>,
    pub(crate) state: Option<String>,
    pub(crate) local: Option<Cidr>,
    pub(crate) remote: Option<Cidr>,
    pub(crate) port: Option<u16>,
    pub(crate) local_port: Option<u16>,
    pub(crate) remote_port: Option<u16>,
    pub(crate) older: Option<Duration>,
    pub(crate) younger: Option<Duration>,
    pub(crate) queued: Option<u64>,
    pub(crate) stuck: bool,
}

#[allow(dead_code, reason = "as above")]
impl FilterOptions {
    /// What was given.
    pub(crate) fn of(matched: &Matched) -> FilterOptions {
        let text = |name| matched.text(name).map(str::to_owned);
        // Cannot fail because: the kind of the argument has read it, and its limit is the type's.
        let port = |name| matched.number(name).and_then(|port| u16::try_from(port).ok());
        FilterOptions {
            worker: matched.number("worker").and_then(|worker| u8::try_from(worker).ok()),
            app: text("app"),
            transport: text("transport"),
            state: text("state"),
            local: matched.prefix("local"),
            remote: matched.prefix("remote"),
            port: port("port"),
            local_port: port("local-port"),
            remote_port: port("remote-port"),
            older: matched.span("older"),
            younger: matched.span("younger"),
            queued: matched.number("queued"),
            stuck: matched.has("stuck"),
        }
    }
}

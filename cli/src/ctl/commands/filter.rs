//! `[FILTER]`: the options by which commands choose among sessions.

use hoststack::app::{Protocol, WorkerId};
use hoststack::inspect::{AppName, Filter, SessionState, TcpState};

use crate::ctl::console::CommandError;
use crate::ctl::grammar::Matched;
use crate::ctl::pattern::Group;

/// The options. Each that is given must hold; none: every session is meant.
pub(crate) const GROUP: Group = Group {
    name: "FILTER",
    help: "chooses sessions: each condition that is given must hold",
    options: &[
        ("[worker WORKER]", "those that the worker owns"),
        ("[app NAME]", "those of the application, or of one of its app workers: `echo/0`"),
        ("[transport TRANSPORT]", "those over the transport"),
        ("[state STATE]", "those in the state"),
        (
            "[tcp-state TCP-STATE]",
            "those whose connection is in the state of RFC 9293, of the stack's own TCP",
        ),
        ("[domain DOMAIN]", "those of the routing domain"),
        ("[local PREFIX]", "those whose own address is it, or in the network"),
        ("[remote PREFIX]", "those whose peer's address is it, or in the network"),
        ("[port PORT]", "those with the port at either end"),
        ("[local-port PORT]", "those with the port at our end"),
        ("[remote-port PORT]", "those with the port at the peer's end"),
        ("[older SPAN]", "those that have been there for longer"),
        ("[younger SPAN]", "those that have been there for less"),
        ("[queued BYTES]", "those with so many bytes queued or more, both ways together"),
        ("[stuck]", "those that cannot go on by themselves: a fault of the stack"),
    ],
};

/// What a command's `[FILTER]` says.
pub(crate) fn filter(matched: &Matched) -> Filter {
    // Cannot fail because: the kind of the argument has read it, and its limit is the type's.
    let port = |name| matched.number(name).and_then(|port| u16::try_from(port).ok());
    let span = |name| matched.span(name).map(|span| u64::try_from(span.as_micros()).unwrap_or(u64::MAX));
    let worker = matched.number("worker").and_then(|worker| u8::try_from(worker).ok());
    let state = matched.text("state");
    let tcp_state = matched.text("tcp-state");
    let protocol = matched.text("transport");
    Filter {
        worker: worker.map(WorkerId),
        app: matched.text("app").map(AppName::from),
        protocol: protocol.and_then(|name| Protocol::ALL.into_iter().find(|it| it.name() == name)),
        state: state.and_then(|name| SessionState::ALL.into_iter().find(|it| it.name() == name)),
        tcp_state: tcp_state.and_then(|name| TcpState::ALL.into_iter().find(|it| it.name() == name)),
        domain: port("domain"),
        local: matched.prefix("local"),
        remote: matched.prefix("remote"),
        port: port("port"),
        local_port: port("local-port"),
        remote_port: port("remote-port"),
        older_us: span("older"),
        younger_us: span("younger"),
        queued: matched.count("queued"),
        stuck: matched.has("stuck"),
    }
}

/// For a command that was given one by its name (`name`): whoever gives conditions besides may have meant those.
///
/// # Errors
/// There are conditions, or `all`.
pub(crate) fn without(matched: &Matched, name: &str) -> Result<(), CommandError> {
    if filter(matched) == Filter::default() && !matched.has("all") {
        return Ok(());
    }
    Err(CommandError::failed(format!(
        "`{name}` means one, a filter or `all` several: give one or the other; nothing was done"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::execute::check;

    #[test]
    fn one_and_a_filter_are_not_given_together() {
        let refused = |line: &str| without(&check(line).expect(line)[0], "HANDLE").is_err();
        assert!(!refused("session reset 0:1.1") && !refused("show session 0:1.1 verbose 3"));
        assert!(refused("session reset 0:1.1 app echo") && refused("session reset all 0:1.1"));
        assert!(refused("half-open cancel 1#2 remote 10.0.0.0/8"));
    }
}

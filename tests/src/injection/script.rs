//! What is meddled with: how a connect comes up, and what reading, writing and waiting are like.

use std::fmt;

macro_rules! modes {
    ($(#[$doc:meta])* $name:ident { $($(#[$each:meta])* $mode:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$each])* $mode,)*
        }

        impl $name {
            /// All of them.
            pub const ALL: &[$name] = &[$($name::$mode,)*];

            /// Its name in tables and on the command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $($name::$mode => $text,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }
    };
}
pub(super) use modes;

modes! {
    /// How a connect comes up.
    ConnectMode {
        /// As the host does it: TCP later, Unix at once.
        Plain = "plain",
        /// It is up when `connect` returns.
        Now = "now",
        /// It is up, but `connect` says `EINPROGRESS`.
        Pending = "pending",
        /// `connect` says `EINTR`; the host goes on by itself.
        Interrupted = "eintr",
        /// The poller tells, before the connect is over, that the socket can be written to.
        Spurious = "spurious",
        /// The poller tells of an error that the socket knows nothing of.
        ErrorBit = "error-bit",
        /// The poller tells of a hang-up before the connect is over, and with its success as well.
        HangUp = "hang-up",
        /// Three looks find the connect under way (`EALREADY`) that is over.
        Already = "ealready",
        /// The first attempt is refused, a second one comes up.
        RefusedOnce = "refused-once",
    }
}

modes! {
    /// What a connection is like that is up. On both its ends.
    StreamMode {
        /// As the host does it.
        Plain = "plain",
        /// The first write says `EAGAIN`.
        AgainOnce = "eagain-1",
        /// The first two writes say `EAGAIN`.
        AgainTwice = "eagain-2",
        /// A write takes one byte.
        Short = "short",
        /// A write takes one byte, and the next says `EAGAIN`.
        ShortAgain = "short-eagain",
        /// The first read says `EAGAIN` though there is something to read.
        ReadAgain = "read-eagain",
        /// A read gives one byte, and the next says `EAGAIN`.
        Dribble = "dribble",
        /// The first read and the first write say `EINTR`.
        Interrupted = "eintr",
        /// The poller tells, before anything else, of bytes and room that are not there.
        Spurious = "spurious",
        /// The same, and of an error that the socket knows nothing of.
        ErrorBit = "error-bit",
        /// The poller never tells of `EPOLLHUP` or `EPOLLRDHUP`.
        MaskedHangUp = "masked-hup",
    }
}

/// How the sockets of a cell are meddled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Script {
    /// Of the connecting socket.
    pub connect: ConnectMode,
    /// Of it and of the accepted one.
    pub stream: StreamMode,
}

impl Script {
    /// Nothing is meddled with.
    pub const PLAIN: Script = Script { connect: ConnectMode::Plain, stream: StreamMode::Plain };
}

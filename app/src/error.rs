//! What a caller can get wrong, one small enum per operation; each sentence says what to do.

use std::fmt;

macro_rules! errors {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident => $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$vdoc])* $variant,)*
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($name::$variant => $text,)* })
            }
        }

        impl std::error::Error for $name {}
    };
}

errors! {
    /// A connect request was not taken; nothing follows.
    ConnectError {
        /// No such app worker, or it is detaching.
        Detached => "the app worker is detached or detaching: attach one first",
        /// The remote endpoint cannot be connected to.
        BadEndpoint => "the remote address is unspecified, multicast or broadcast, or its port is 0: give an address and a port",
        /// Local and remote address are of different families.
        FamilyMismatch => "the local and remote addresses are of different families: give two IPv4 or two IPv6 addresses",
        /// A fifo of no bytes, or above 2^30.
        BadFifo => "a fifo capacity is 0 or above 1 GiB: give 1 to 1073741824 bytes",
        /// More early data than the limit, or than the tx fifo holds.
        BadEarlyData => "the early data is longer than 16 KiB or than the tx fifo: give less and write the rest when connected",
        /// A deadline that has passed.
        BadDeadline => "the connect timeout is zero: give a positive duration",
        /// No round of attempts.
        BadRounds => "the number of rounds is 0: nothing would be tried; give at least 1",
        /// No such routing domain.
        NoDomain => "no interface is in that routing domain: add one to the builder",
        /// No such worker.
        NoWorker => "there is no worker of that number: give one below the stack's number of workers",
        /// The thread's limit of pending connects is reached.
        TooManyPending => "too many connects are pending: wait for outcomes or raise pending_connects_max",
        /// The stack has stopped.
        Stopped => "the stack has stopped",
    }
}

errors! {
    /// A cancel found nothing to cancel.
    CancelError {
        /// No such request is pending: its outcome has been or is being told.
        NotPending => "no such connect is pending: its outcome was told or is on its way",
        /// The stack has stopped.
        Stopped => "the stack has stopped",
    }
}

errors! {
    /// A listen request failed; no worker has the listener.
    ListenError {
        /// Someone listens on that endpoint.
        InUse => "an app already listens on that endpoint of the domain: unlisten it or choose another port",
        /// The address is none of the domain's.
        AddressNotAvailable => "the address is not one of the domain's interfaces': use one of them or the unspecified address",
        /// No such app worker, or it is detaching.
        Detached => "the app worker is detached or detaching: attach one first",
        /// Port 0.
        BadEndpoint => "the port is 0: give a port",
        /// A fifo of no bytes, or above 2^30.
        BadFifo => "a fifo capacity is 0 or above 1 GiB: give 1 to 1073741824 bytes",
        /// A stage timeout of zero.
        BadStageTimeout => "the stage timeout is 0: no connection could ever be accepted; give at least a millisecond",
        /// A backlog of zero.
        BadBacklog => "the backlog is 0: nothing could ever be accepted; give at least 1",
        /// No such routing domain.
        NoDomain => "no interface is in that routing domain: add one to the builder",
        /// A worker was chosen that there is not, or for this stack's TCP.
        BadWorker => "there is no worker of that number, or the listener is for this stack's TCP, whose flows choose theirs: leave it out",
        /// The host does not allow it.
        Denied => "the host does not allow that port or path: choose another (above 1023) or run with more rights",
        /// There is a file that is no socket where the Unix socket should be.
        NotASocket => "the path of the Unix socket is taken by a file that is no socket: choose another path or remove it",
        /// The host's kernel refused for another reason, which is logged.
        Host => "the host's kernel refused: the log says with which error",
        /// The listener pool is at its limit.
        NoRoom => "too many listeners: unlisten one or raise listeners_max",
        /// No such listener.
        NoListener => "no such listener: it was unlistened or its app worker detached",
        /// The stack has stopped.
        Stopped => "the stack has stopped",
    }
}

errors! {
    /// An application or app worker was not attached.
    AttachError {
        /// The name is taken.
        NameInUse => "an application of that name is attached: detach it or choose another name",
        /// The name is empty or longer than 64 bytes.
        BadName => "the name is empty or longer than 64 bytes: give 1 to 64 bytes",
        /// No app worker asked for, or too many.
        BadWorkers => "the number of app workers is 0 or above app_workers_max: give a number in between",
        /// A limit of zero.
        BadLimit => "half_opens_max or pending_connects_max is 0: no connect could ever be made; give at least 1",
        /// No such application, or it is detaching.
        NoApplication => "no such application: attach it first",
        /// The directory is at its limit.
        NoRoom => "too many applications or app workers: detach one or raise the limit",
        /// The stack has stopped.
        Stopped => "the stack has stopped",
    }
}

errors! {
    /// A detach was not begun.
    DetachError {
        /// No such application or app worker.
        NotAttached => "no such application or app worker: it was detached before or never attached",
        /// It is being detached already.
        Detaching => "it is being detached already: its report will say how that ended",
        /// The stack has stopped.
        Stopped => "the stack has stopped",
    }
}

errors! {
    /// A session could not be used.
    SessionError {
        /// The handle names no live session of this app worker on this worker.
        NotFound => "no such session of this app worker on this worker: its closed callback was called, or it is another's",
    }
}

impl From<hoststack_transport::Full> for ListenError {
    fn from(_: hoststack_transport::Full) -> ListenError {
        ListenError::NoRoom
    }
}

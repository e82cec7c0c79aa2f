//! Names of things. Every name of something that can die carries a generation, so a stale one finds nothing.

use core::fmt;

use crate::pool::Key;

macro_rules! small_id {
    ($(#[$doc:meta])* $name:ident($int:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $int);

        impl $name {
            /// The number as an index.
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

small_id! {
    /// A worker's number, from 0.
    WorkerId(u8), "w"
}
small_id! {
    /// A routing domain (VPP: a FIB): interfaces, routes and flows of two domains never meet.
    DomainId(u16), "d"
}

macro_rules! key_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Key);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

key_id! {
    /// An application, in main's directory.
    AppId, "app"
}
key_id! {
    /// An app worker: a numbered unit of an application, with its own half-open pool on main, spanning all workers.
    AppWorkerId, "aw"
}
key_id! {
    /// A listener, in main's directory; workers know it by the same name.
    ListenerId, "l"
}
key_id! {
    /// A session inside its worker. Outside, use [`SessionHandle`].
    SessionId, "s"
}
key_id! {
    /// A transport connection inside its worker.
    ConnectionId, "c"
}
key_id! {
    /// A half-open transport connection, on main.
    HalfOpenId, "ho"
}

/// A session, named from anywhere: worker (8 bits), slot (28), generation (28).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionHandle(u64);

impl SessionHandle {
    /// The handle of `session` on `worker`.
    pub const fn new(worker: WorkerId, session: SessionId) -> SessionHandle {
        SessionHandle(
            ((worker.0 as u64) << 56) | ((session.0.slot as u64) << 28) | session.0.generation as u64,
        )
    }

    /// The worker that owns the session.
    pub const fn worker(self) -> WorkerId {
        WorkerId((self.0 >> 56) as u8)
    }

    /// The session's name inside its worker.
    pub const fn session(self) -> SessionId {
        SessionId(Key { slot: ((self.0 >> 28) & Key::MASK) as u32, generation: (self.0 & Key::MASK) as u32 })
    }

    /// The handle as a number, for storage and for the CLI.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// A handle from [`SessionHandle::as_u64`]. Any number is a handle; one that names nothing finds nothing.
    pub const fn from_u64(number: u64) -> SessionHandle {
        SessionHandle(number)
    }
}

impl fmt::Display for SessionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.worker().0, self.session().0)
    }
}

impl fmt::Debug for SessionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A connect request, minted on the thread that called `connect`: origin (16 bits), count (48 bits). Never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectId(u64);

impl ConnectId {
    /// The `count`th connect minted by `origin`.
    pub const fn new(origin: u16, count: u64) -> ConnectId {
        ConnectId(((origin as u64) << 48) | (count & ((1 << 48) - 1)))
    }

    /// Who minted it: a worker's number, or 256 and above for main and stack handles.
    pub const fn origin(self) -> u16 {
        (self.0 >> 48) as u16
    }

    /// The id as a number, for the CLI.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// An id from [`ConnectId::as_u64`].
    pub const fn from_u64(number: u64) -> ConnectId {
        ConnectId(number)
    }
}

impl fmt::Display for ConnectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.0 >> 48, self.0 & ((1 << 48) - 1))
    }
}

impl fmt::Debug for ConnectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_handle_packs_and_unpacks_at_the_limits() {
        let key = Key { slot: (1 << 28) - 1, generation: (1 << 28) - 1 };
        let handle = SessionHandle::new(WorkerId(255), SessionId(key));
        assert_eq!(handle.worker(), WorkerId(255));
        assert_eq!(handle.session(), SessionId(key));
        assert_eq!(SessionHandle::from_u64(handle.as_u64()), handle);
    }
}

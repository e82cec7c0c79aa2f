//! Known bugs, planted on purpose in builds with the feature `canary`, to prove that the simulator's oracle can fail.
//!
//! Without the feature [`has`] is a constant `false` and nothing of them is compiled in. With it one bug at a time is
//! planted for the whole process: the only global state of the project, in a build that nobody runs but the tests of the
//! tests.

macro_rules! bugs {
    ($($(#[$doc:meta])* $bug:ident = $name:literal,)*) => {
        /// A bug that can be planted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Bug {
            $($(#[$doc])* $bug,)*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Bug] = &[$(Bug::$bug,)*];

            /// Its name on a command line.
            pub const fn name(self) -> &'static str {
                match self { $(Bug::$bug => $name,)* }
            }
        }
    };
}

bugs! {
    /// A failed connect is told twice.
    OutcomeToldTwice = "outcome-told-twice",
    /// A half-open is freed, and its app told so, when its failure is decided and not when it was told.
    FreedBeforeOutcome = "half-open-freed-before-outcome",
    /// 4-tuples that come back while an app worker is being detached are not taken back.
    PortKeptOnDetach = "port-kept-on-detach",
    /// A session handle is looked up by its slot alone.
    StaleHandleResolves = "stale-handle-resolves",
    /// A batch of messages that finds its channel full is dropped.
    DroppedWhenFull = "message-dropped-when-full",
    /// An app is told of its peer's close before the data.
    CloseOvertakesData = "close-overtakes-data",
    /// A segment that waits for a hand-over is lost.
    SegmentLostInHandOver = "segment-lost-in-hand-over",
    /// A sender that sleeps beside a waiting outbox is not woken.
    AsleepBesideOutbox = "asleep-beside-outbox",
    /// The timestamp clock runs backward when a connection is handed over.
    TimestampRunsBackward = "timestamp-runs-backward",
    /// A hand-over is sent twice, with a ticket each.
    DoubleEstablish = "double-establish",
    /// A half-open has no deadline.
    DeadlineIgnored = "deadline-ignored",
    /// A worker says that a detach is over while outcomes wait to be told.
    DetachOvertakesOutcomes = "detach-overtakes-outcomes",
    /// An app worker is detached without its half-opens.
    DetachForgetsHalfOpens = "detach-forgets-half-opens",
    /// A session that was reset keeps its fifo chunks.
    ChunksKept = "chunks-kept",
    /// A listener that is given up stays on the workers.
    ListenerLeft = "listener-left",
    /// The slot of a detached app worker is freed while stack handles' requests for it are under way.
    RequestsOrphaned = "requests-orphaned",
    /// An outcome is announced only by an event that changes the transport's side, not whenever it is ready.
    AnnouncedOnChange = "announced-on-change",
    /// A session looks whether it is ready before its stages go on.
    SettledBeforeStages = "settled-before-stages",
    /// Whether a session is ready is noted when its transport opens, and not looked at again.
    ReadinessStored = "readiness-stored",
    /// A connect whose transport is open at its deadline is told to be up.
    DeadlineIsSuccess = "deadline-is-success",
    /// The stages of a connect are left out of its second attempt.
    StagesDroppedOnRetry = "stages-dropped-on-retry",
    /// A connect over the host's sockets that is up at once is waited for, and nothing tells of it.
    ConnectNowForgotten = "connect-now-forgotten",
    /// A connect that is found under way after an event is not watched again.
    ConnectNotWatchedAgain = "connect-not-watched-again",
    /// A hang-up told of a connect over the host's sockets ends it, whatever the socket says.
    HangUpIsFailure = "hang-up-is-failure",
    /// Room to write in the host's socket is told to nobody.
    RoomForgotten = "room-forgotten",
    /// A write that the host's socket took in part counts as whole.
    ShortWriteIsWhole = "short-write-is-whole",
}

impl Bug {
    /// Whether it is one of establishment, which the enumeration of that finds, not the simulator.
    pub const fn is_of_establishment(self) -> bool {
        matches!(
            self,
            Bug::AnnouncedOnChange
                | Bug::SettledBeforeStages
                | Bug::ReadinessStored
                | Bug::DeadlineIsSuccess
                | Bug::StagesDroppedOnRetry
        )
    }

    /// Whether it is one of the transport over the host's sockets, which the simulator has not.
    pub const fn is_of_host_sockets(self) -> bool {
        matches!(
            self,
            Bug::ConnectNowForgotten
                | Bug::ConnectNotWatchedAgain
                | Bug::HangUpIsFailure
                | Bug::RoomForgotten
                | Bug::ShortWriteIsWhole
        )
    }
}

#[cfg(feature = "canary")]
mod planted {
    use core::sync::atomic::{AtomicUsize, Ordering};

    use super::Bug;

    static PLANTED: AtomicUsize = AtomicUsize::new(usize::MAX);

    /// Plants `bug`, or none, from now on.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.store(bug.map_or(usize::MAX, |bug| bug as usize), Ordering::SeqCst);
    }

    /// Whether `bug` is planted.
    #[inline]
    pub fn has(bug: Bug) -> bool {
        PLANTED.load(Ordering::Relaxed) == bug as usize
    }
}
#[cfg(feature = "canary")]
pub use planted::{has, plant};

/// Whether `bug` is planted: never, in this build.
#[cfg(not(feature = "canary"))]
#[inline(always)]
pub const fn has(_bug: Bug) -> bool {
    false
}

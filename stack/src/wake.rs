//! How a thread goes to sleep without missing a message, and how others wake it.
//!
//! The protocol: the sleeper sets its flag, fences, looks at everything once more, and only then blocks. A sender
//! makes its message visible, fences, and looks at the flag. So either the sleeper sees the message or the sender sees
//! the flag. One eventfd write wakes; the flag makes further senders cheap.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

#[cfg(not(loom))]
use self::os::{Event, Poller};
#[cfg(loom)]
use crate::sync::model::{Event, Poller};
use crate::sync::{AtomicBool, Ordering, fence};

/// What wakes one thread.
#[derive(Debug)]
pub(crate) struct Wake {
    sleeping: AtomicBool,
    event: Event,
}

impl Wake {
    /// A wake-up for one thread.
    ///
    /// # Errors
    /// No file descriptor to be had.
    pub(crate) fn new() -> io::Result<Wake> {
        Ok(Wake { sleeping: AtomicBool::new(false), event: Event::new()? })
    }

    /// Wakes the thread if it sleeps or is about to. Called after the message is visible.
    pub(crate) fn notify(&self) {
        fence(Ordering::SeqCst);
        // Of several notifiers one takes the flag down and writes; the others write nothing, to the flag neither.
        if self.sleeping.load(Ordering::Relaxed)
            && self.sleeping.compare_exchange(true, false, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        {
            self.event.raise();
        }
    }

    /// First half of going to sleep: from here on a notify wakes. The caller looks at everything once more, then
    /// calls [`Sleeper::sleep`] or [`Wake::stay_awake`].
    pub(crate) fn prepare_sleep(&self) {
        self.sleeping.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
    }

    /// The second look found something.
    pub(crate) fn stay_awake(&self) {
        self.sleeping.store(false, Ordering::Release);
    }

    /// Whether the thread sleeps or is about to.
    pub(crate) fn is_sleeping(&self) -> bool {
        self.sleeping.load(Ordering::SeqCst)
    }
}

/// What a thread sleeps in: its wake-up and the file descriptors of its devices.
pub(crate) struct Sleeper {
    poller: Poller,
}

impl Sleeper {
    /// For the thread that `wake` wakes.
    ///
    /// # Errors
    /// No file descriptor to be had.
    pub(crate) fn new(wake: &Wake, fds: &[RawFd]) -> io::Result<Sleeper> {
        Ok(Sleeper { poller: Poller::new(&wake.event, fds)? })
    }

    /// Sleeps until woken, a file descriptor is readable, or `timeout` passes (`None`: for ever). Says whether a
    /// file descriptor other than the wake-up was readable.
    pub(crate) fn sleep(&self, wake: &Wake, timeout: Option<Duration>) -> bool {
        let woken = self.poller.wait(&wake.event, timeout);
        wake.sleeping.store(false, Ordering::Release);
        if woken.by_event {
            wake.event.drain();
        }
        woken.by_device
    }
}

/// The system calls: an eventfd to wake, an epoll to wait.
#[cfg(not(loom))]
mod os {
    use std::io;
    use std::mem::MaybeUninit;
    use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
    use std::time::Duration;

    use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};

    /// A count that the kernel keeps: raised by whoever wakes, drained by the one who slept.
    #[derive(Debug)]
    pub(super) struct Event(OwnedFd);

    impl Event {
        pub(super) fn new() -> io::Result<Event> {
            Ok(Event(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
        }

        pub(super) fn raise(&self) {
            // A full counter still wakes; no other error is possible on an eventfd that is open.
            let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
        }

        /// Takes the count; says whether there was one.
        pub(super) fn drain(&self) -> bool {
            rustix::io::read(&self.0, &mut [0u8; 8]).is_ok()
        }
    }

    /// What ended a wait; neither: the time-out did, or a signal.
    #[derive(Clone, Copy, Debug, Default)]
    pub(super) struct Woken {
        pub(super) by_event: bool,
        pub(super) by_device: bool,
    }

    /// Events taken in one wake-up: what is left is level-triggered and comes again.
    const EVENTS_MAX: usize = 16;

    /// Waits on an event and on devices.
    pub(super) struct Poller(OwnedFd);

    impl Poller {
        pub(super) fn new(event: &Event, fds: &[RawFd]) -> io::Result<Poller> {
            let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
            epoll::add(&epoll, event.0.as_fd(), epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
            for &fd in fds {
                // SAFETY: the device queue that owns `fd` is owned by the thread that owns this sleeper, which outlives it.
                let fd = unsafe { BorrowedFd::borrow_raw(fd) };
                epoll::add(&epoll, fd, epoll::EventData::new_u64(1), epoll::EventFlags::IN)?;
            }
            Ok(Poller(epoll))
        }

        /// The event is the one given to [`Poller::new`].
        pub(super) fn wait(&self, _event: &Event, timeout: Option<Duration>) -> Woken {
            let timeout = timeout.map(|timeout| Timespec {
                tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(timeout.subsec_nanos()),
            });
            let mut buffer = [const { MaybeUninit::uninit() }; EVENTS_MAX];
            let mut woken = Woken::default();
            // An interrupted wait is a short sleep: the caller looks at everything anyway.
            let Ok((events, _)) = epoll::wait(&self.0, &mut buffer, timeout.as_ref()) else { return woken };
            for event in events {
                if event.data.u64() == 0 {
                    woken.by_event = true;
                } else {
                    woken.by_device = true;
                }
            }
            woken
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_notify_between_prepare_and_sleep_is_not_lost() {
        let wake = Wake::new().unwrap();
        let sleeper = Sleeper::new(&wake, &[]).unwrap();
        wake.prepare_sleep();
        wake.notify();
        // With the notification lost this would hang for ever and the test's time-out would tell.
        assert!(!sleeper.sleep(&wake, None));
        assert!(!wake.is_sleeping());
    }

    #[test]
    fn a_thread_that_is_awake_costs_no_system_call_to_notify() {
        let wake = Wake::new().unwrap();
        let sleeper = Sleeper::new(&wake, &[]).unwrap();
        wake.notify();
        wake.prepare_sleep();
        // Had the notify written, this sleep would return at once with the event; it times out with none.
        sleeper.sleep(&wake, Some(Duration::from_millis(1)));
        wake.notify();
        assert!(!wake.event.drain());
    }
}

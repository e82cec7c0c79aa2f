//! How a thread goes to sleep without missing a message, and how others wake it.
//!
//! The protocol: the sleeper sets its flag, fences, looks at everything once more, and only then blocks. A sender
//! makes its message visible, fences, and looks at the flag. So either the sleeper sees the message or the sender sees
//! the flag. One eventfd write wakes; the flag makes further senders cheap.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::time::Duration;

use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};

/// What wakes one thread.
#[derive(Debug)]
pub(crate) struct Wake {
    sleeping: AtomicBool,
    event: OwnedFd,
}

impl Wake {
    /// A wake-up for one thread.
    ///
    /// # Errors
    /// No file descriptor to be had.
    pub(crate) fn new() -> io::Result<Wake> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Wake { sleeping: AtomicBool::new(false), event })
    }

    /// Wakes the thread if it sleeps or is about to. Called after the message is visible.
    pub(crate) fn notify(&self) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::AcqRel) {
            // A full counter still wakes; no other error is possible on an eventfd that is open.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
    }

    /// First half of going to sleep: from here on a notify wakes. The caller looks at everything once more, then
    /// calls [`Sleeper::sleep`] or [`Wake::stay_awake`].
    pub(crate) fn prepare_sleep(&self) -> bool {
        self.sleeping.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        true
    }

    /// The second look found something.
    pub(crate) fn stay_awake(&self) {
        self.sleeping.store(false, Ordering::SeqCst);
    }

    #[cfg(test)]
    pub(crate) fn is_sleeping(&self) -> bool {
        self.sleeping.load(Ordering::SeqCst)
    }
}

/// Events taken in one wake-up: what is left is level-triggered and comes again.
const EVENTS_MAX: usize = 16;

/// What a thread sleeps in: its wake-up and the file descriptors of its devices.
pub(crate) struct Sleeper {
    epoll: OwnedFd,
}

impl Sleeper {
    /// For the thread that `wake` wakes.
    ///
    /// # Errors
    /// No file descriptor to be had.
    pub(crate) fn new(wake: &Wake, fds: &[RawFd]) -> io::Result<Sleeper> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, wake.event.as_fd(), epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
        for &fd in fds {
            // SAFETY: the device queue that owns `fd` is owned by the thread that owns this sleeper, which outlives it.
            let fd = unsafe { BorrowedFd::borrow_raw(fd) };
            epoll::add(&epoll, fd, epoll::EventData::new_u64(1), epoll::EventFlags::IN)?;
        }
        Ok(Sleeper { epoll })
    }

    /// Sleeps until woken, a file descriptor is readable, or `timeout` passes (`None`: for ever). Says whether a
    /// file descriptor other than the wake-up was readable.
    pub(crate) fn sleep(&self, wake: &Wake, timeout: Option<Duration>) -> bool {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        let mut buffer = [const { MaybeUninit::uninit() }; EVENTS_MAX];
        // An interrupted wait is a short sleep: the caller looks at everything anyway.
        let waited = epoll::wait(&self.epoll, &mut buffer, timeout.as_ref());
        wake.sleeping.store(false, Ordering::SeqCst);
        let Ok((events, _)) = waited else { return false };
        let mut device = false;
        for event in events {
            if event.data.u64() == 0 {
                let mut count = [0u8; 8];
                let _ = rustix::io::read(&wake.event, &mut count);
            } else {
                device = true;
            }
        }
        device
    }
}

#[cfg(test)]
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
        assert_eq!(rustix::io::read(&wake.event, &mut [0u8; 8]), Err(rustix::io::Errno::AGAIN));
    }
}
